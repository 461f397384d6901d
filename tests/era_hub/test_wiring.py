"""`era_hub.setup`: what it adds to a hub's configuration, and what it leaves alone."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import pytest
from jupyterhub.app import JupyterHub
from traitlets.config.loader import Config, PyFileConfigLoader

import era_hub
from era_hub.wiring import ACCESS, CUSTOM_SCOPES, SERVER_SCOPES, USER_SCOPES

TOKEN_LENGTH = 64


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(text: str) -> Config:
    """A configuration file as the hub reads it."""
    Path("jupyterhub_config.py").write_text(f"import era_hub\nc = get_config()\n{text}\n")
    loader = PyFileConfigLoader("jupyterhub_config.py", path=str(Path.cwd()))
    config: Config = loader.load_config()
    return config


def set_up(c: Config | None = None, **options: Any) -> Config:
    c = Config() if c is None else c
    era_hub.setup(c, **{"system_users": False, "port": 4321} | options)
    return c


def service(c: Config, name: str = "era") -> Any:
    (found,) = [each for each in c.JupyterHub.services if each["name"] == name]
    return found


def role(c: Config, name: str) -> Any:
    (found,) = [each for each in c.JupyterHub.load_roles if each["name"] == name]
    return found


def option(c: Config, name: str) -> str | None:
    """An option on the command line of the service."""
    values = [
        each.partition("=")[2] for each in service(c)["command"] if each.startswith(f"--{name}=")
    ]
    assert len(values) < 2
    return values[0] if values else None


def plain(value: Any) -> str:
    """The configuration as a text to search in."""
    return json.dumps(value, default=repr)


def external(**more: Any) -> Config:
    """A configuration with a service that somebody else starts."""
    c = Config()
    entry = {"name": "era", "url": "http://era-hub:8080", "api_token": "secret-token"} | more
    c.JupyterHub.services = [{"name": "other"}, entry]
    return c


# -- an empty configuration ---------------------------------------------------


def test_the_service_is_started_by_the_hub() -> None:
    c = set_up()
    found = service(c)
    assert found["command"][:4] == [sys.executable, "-m", "era_hub", "serve"]
    assert found["url"] == "http://127.0.0.1:4321"
    assert found["oauth_client_allowed_scopes"] == ["custom:era:bid", "custom:era:admin"]
    assert option(c, "EraHub.state_dir") == str(Path("era").absolute())
    assert option(c, "LocalCloud.simulated_gpus") is None


def test_its_options() -> None:
    options = {"EraHub.starting_grant": 50, "LocalCloud.home_root": "/srv/homes"}
    c = set_up(state_dir="state", gpus=3, config_file="era.py", options=options)
    assert option(c, "EraHub.state_dir") == str(Path("state").absolute())
    assert option(c, "LocalCloud.simulated_gpus") == "3"
    assert option(c, "config") == str(Path("era.py").absolute())
    assert option(c, "EraHub.starting_grant") == "50"
    assert option(c, "LocalCloud.home_root") == "/srv/homes"


def test_without_a_port_a_free_one_is_found() -> None:
    c = set_up(port=None)
    port = urlparse(service(c)["url"]).port
    assert port is not None and port > 1023
    assert c.EraSpawnerMixin.era_url == f"http://127.0.0.1:{port}/services/era"


def test_the_port_stays_the_same_while_it_is_free() -> None:
    def url() -> str:
        found: str = set_up(port=None).EraSpawnerMixin.era_url
        return found

    first = url()
    assert url() == first
    port = urlparse(first).port
    assert port is not None
    with socket.create_server(("127.0.0.1", port)):
        other = url()
    assert other != first
    assert url() == other
    Path("era/port").write_text("nonsense")
    assert urlparse(url()).port


@pytest.mark.parametrize(
    "setting",
    [
        "c.JupyterHub.hub_port = {port}",
        "c.JupyterHub.port = {port}",
        "c.JupyterHub.bind_url = 'http://127.0.0.1:{port}/jupyter'",
        "c.JupyterHub.hub_bind_url = 'http://127.0.0.1:{port}'",
        "c.ConfigurableHTTPProxy.api_url = 'http://127.0.0.1:{port}'",
        "c.JupyterHub.services = [{{'name': 'x', 'url': 'http://127.0.0.1:{port}'}}]",
    ],
)
def test_the_port_is_none_that_the_hub_will_listen_on(setting: str) -> None:
    # Free now, and remembered from an earlier start: only the configuration tells.
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    Path("era").mkdir()
    Path("era/port").write_text(str(port))
    c = load(f"{setting.format(port=port)}\nera_hub.setup(c, system_users=False)")
    assert urlparse(service(c)["url"]).port != port


@pytest.mark.parametrize("asked", [True, False, None])
def test_spawner_and_service_agree_on_accounts_and_homes(asked: bool | None) -> None:
    c = set_up(system_users=asked, state_dir="x")
    expected = os.geteuid() == 0 if asked is None else asked
    assert c.EraLocalSpawner.system_users is expected
    assert option(c, "LocalCloud.system_users") == str(expected)
    assert c.EraLocalSpawner.home_root == option(c, "LocalCloud.home_root")
    assert c.EraLocalSpawner.home_root == str(Path("x/homes").absolute())


def test_roles_and_scopes() -> None:
    c = set_up()
    assert c.JupyterHub.spawner_class == "era-local"
    assert set(c.JupyterHub.custom_scopes) == set(CUSTOM_SCOPES)
    assert role(c, "user") == {"name": "user", "scopes": ["self", *USER_SCOPES]}
    assert role(c, "era-service")["services"] == ["era"]
    assert role(c, "era-spawner") == {
        "name": "era-spawner",
        "services": ["era-spawner"],
        "scopes": [ACCESS, "custom:era:spawn"],
    }
    assert role(c, "era-admin")["users"] == []
    assert c.Spawner.server_token_scopes == [*SERVER_SCOPES, *USER_SCOPES]


def test_nobody_but_the_spawner_may_act_for_users() -> None:
    c = set_up(admins={"root"})
    holders = [
        each["name"] for each in c.JupyterHub.load_roles if "custom:era:spawn" in plain(each)
    ]
    assert holders == ["era-spawner"]
    assert "spawn" not in plain(c.Spawner.server_token_scopes)


def test_the_hub_accepts_what_is_set() -> None:
    c = set_up(load("c.JupyterHub.services.append({'name': 'culler'})"))
    hub = JupyterHub(config=c)
    assert [each["name"] for each in hub.services] == ["culler", "era", "era-spawner"]
    assert hub.spawner_class.__name__ == "EraLocalSpawner"
    assert hub.load_roles[0]["name"] == "user"
    assert hub.custom_scopes == {
        name: {"description": text} for name, text in CUSTOM_SCOPES.items()
    }


# -- what is there already ----------------------------------------------------


def test_existing_services_are_kept() -> None:
    mine = {"name": "culler", "api_token": "culler's"}
    c = load(f"c.JupyterHub.services = [{mine!r}]")
    before = c.JupyterHub.services
    set_up(c)
    assert [each["name"] for each in c.JupyterHub.services] == ["culler", "era", "era-spawner"]
    assert service(c, "culler") == mine
    assert before == [mine]  # somebody else's list


@pytest.mark.parametrize("call", ["append({!r})", "extend([{!r}])", "insert(0, {!r})"])
def test_services_appended_to_an_unset_list_are_kept(call: str) -> None:
    mine = {"name": "culler", "api_token": "culler's"}
    c = set_up(load(f"c.JupyterHub.services.{call.format(mine)}"))
    assert [each["name"] for each in c.JupyterHub.services] == ["culler", "era", "era-spawner"]
    assert service(c, "culler") == mine


def test_services_may_still_be_appended_afterwards() -> None:
    c = load(
        "era_hub.setup(c, system_users=False)\nc.JupyterHub.services.append({'name': 'later'})"
    )
    assert [each["name"] for each in c.JupyterHub.services] == ["era", "era-spawner", "later"]


def test_existing_roles_are_kept_and_completed() -> None:
    c = set_up(
        load(
            """
c.JupyterHub.load_roles = [
    {"name": "user", "description": "ours", "scopes": ["self", "read:groups"], "groups": ["g"]},
    {"name": "teacher", "scopes": ["admin:users"], "users": ["ann"]},
]
"""
        )
    )
    assert role(c, "user") == {
        "name": "user",
        "description": "ours",
        "scopes": ["self", "read:groups", *USER_SCOPES],
        "groups": ["g"],
    }
    assert role(c, "teacher") == {"name": "teacher", "scopes": ["admin:users"], "users": ["ann"]}
    assert len(c.JupyterHub.load_roles) == 5


def test_a_user_role_that_withholds_self_stays_so() -> None:
    c = set_up(Config({"JupyterHub": {"load_roles": [{"name": "user", "scopes": []}]}}))
    assert role(c, "user")["scopes"] == USER_SCOPES


def test_a_user_role_without_scopes_has_the_hubs_own() -> None:
    c = set_up(Config({"JupyterHub": {"load_roles": [{"name": "user", "groups": ["g"]}]}}))
    assert role(c, "user")["scopes"] == ["self", *USER_SCOPES]


def test_roles_appended_to_an_unset_list_are_kept() -> None:
    text = 'c.JupyterHub.load_roles.append({"name": "user", "scopes": ["self", "tokens!user"]})'
    c = set_up(load(text))
    assert role(c, "user")["scopes"] == ["self", "tokens!user", *USER_SCOPES]


def test_scopes_that_are_there_are_not_repeated() -> None:
    mine = {"name": "user", "scopes": ["self", *USER_SCOPES]}
    c = set_up(Config({"JupyterHub": {"load_roles": [mine]}}))
    assert role(c, "user")["scopes"] == ["self", *USER_SCOPES]


def test_roles_of_ours_may_be_given_more() -> None:
    mine = {"name": "era-admin", "users": ["zoe"], "groups": ["staff"], "scopes": ["list:users"]}
    c = set_up(Config({"JupyterHub": {"load_roles": [mine]}}), admins=["ann"])
    found = role(c, "era-admin")
    assert (found["users"], found["groups"]) == (["ann", "zoe"], ["staff"])
    assert found["scopes"][0] == "list:users"
    assert "custom:era:admin" in found["scopes"]
    assert mine["users"] == ["zoe"]


@pytest.mark.parametrize(
    "text",
    [
        'c.JupyterHub.custom_scopes = {"custom:x": {"description": "x"}}',
        'c.JupyterHub.custom_scopes.update({"custom:x": {"description": "x"}})',
    ],
)
def test_custom_scopes_are_kept(text: str) -> None:
    c = set_up(load(text))
    assert c.JupyterHub.custom_scopes["custom:x"] == {"description": "x"}
    assert set(CUSTOM_SCOPES) < set(c.JupyterHub.custom_scopes)


def test_nothing_else_is_touched() -> None:
    text = """
c.JupyterHub.bind_url = "http://:8000"
c.Authenticator.allowed_users = {"ann"}
c.Spawner.cmd = ["jupyter-labhub"]
c.EraLocalSpawner.debug = True
"""
    before, after = load(text), set_up(load(text))
    for section, values in before.items():
        for name, value in values.items():
            assert after[section][name] == value
    added = {
        section: set(after[section]) - set(before.get(section, {}))
        for section in after
        if section.endswith("Spawner") or section == "Authenticator"
    }
    assert added == {
        "Authenticator": set(),
        "Spawner": {"server_token_scopes"},
        "EraLocalSpawner": {"system_users", "home_root"},
    }


# -- tokens of servers --------------------------------------------------------


def scopes_for(c: Config, spawner: object) -> list[str]:
    configured = c.Spawner.server_token_scopes
    return asyncio.run(configured(spawner)) if callable(configured) else configured


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("", SERVER_SCOPES),
        ("c.Spawner.server_token_scopes = []", SERVER_SCOPES),
        ('c.Spawner.server_token_scopes = ["self"]', ["self"]),
        ('c.Spawner.server_token_scopes.append("self")', ["self"]),
        ('c.Spawner.server_token_scopes = ["custom:era:bid", "self"]', ["self"]),
        ("c.Spawner.server_token_scopes = lambda spawner: [spawner.name]", ["ann's"]),
        ("c.Spawner.server_token_scopes = lambda spawner: None", SERVER_SCOPES),
        ("c.Spawner.server_token_scopes = lambda spawner: []", SERVER_SCOPES),
        (
            "async def scopes(spawner):\n    return [spawner.name]\n"
            "c.Spawner.server_token_scopes = scopes",
            ["ann's"],
        ),
    ],
)
def test_a_notebook_may_use_the_market_besides_what_it_may_anyway(
    text: str, kept: list[str]
) -> None:
    class Spawner:
        name = "ann's"

    found = scopes_for(set_up(load(text)), Spawner())
    assert sorted(found) == sorted([*kept, *USER_SCOPES])


# -- admins -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "options", "admins"),
    [
        ("", {}, []),
        ('c.Authenticator.admin_users = {"zoe", "ann"}', {}, ["ann", "zoe"]),
        ('c.Authenticator.admin_users.add("zoe")', {}, ["zoe"]),
        ('c.Authenticator.admin_users = {"zoe"}', {"admins": ["bob"]}, ["bob"]),
        ('c.Authenticator.admin_users = {"zoe"}', {"admins": ()}, []),
    ],
)
def test_who_administers_the_hub_administers_the_market(
    text: str, options: dict[str, Any], admins: list[str]
) -> None:
    found = role(set_up(load(text), **options), "era-admin")
    assert found["users"] == admins
    assert found["scopes"] == [ACCESS, "custom:era:admin", "custom:era:bid"]


# -- addresses ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("", "/"),
        ('c.JupyterHub.bind_url = "http://127.0.0.1:8000"', "/"),
        ('c.JupyterHub.bind_url = "http://127.0.0.1:8000/"', "/"),
        ('c.JupyterHub.bind_url = "http://:8000/hub-1"', "/hub-1/"),
        ('c.JupyterHub.bind_url = "http://:8000/@/space%20word/"', "/@/space%20word/"),
        ('c.JupyterHub.bind_url = "http://:8000/@/space%20word"', "/@/space%20word/"),
        ('c.JupyterHub.base_url = "/@/space%20word/"', "/@/space%20word/"),
        ('c.JupyterHub.base_url = "/@/space word/"', "/@/space%20word/"),
        ('c.JupyterHub.base_url = "a/b"', "/a/b/"),
        ('c.JupyterHub.base_url = "/"', "/"),
        (
            'c.JupyterHub.base_url = "/mine/"\nc.JupyterHub.bind_url = "http://:8000/theirs/"',
            "/mine/",
        ),
    ],
)
def test_the_address_of_the_service(text: str, path: str) -> None:
    c = set_up(load(text))
    assert c.EraSpawnerMixin.era_url == f"http://127.0.0.1:4321{path}services/era"


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ('c.JupyterHub.hub_ip = "10.0.0.7"', "10.0.0.7"),
        ('c.JupyterHub.hub_bind_url = "http://10.0.0.7:8081"', "10.0.0.7"),
        ('c.JupyterHub.hub_ip = "0.0.0.0"\nc.JupyterHub.hub_connect_ip = "hub-1"', "hub-1"),
        ('c.JupyterHub.hub_connect_url = "http://hub-1:8081"', "hub-1"),
    ],
)
def test_pods_find_the_service_where_they_find_the_hub(text: str, host: str) -> None:
    c = set_up(load(text), spawner="era-kube", options={"Pool.name": "a100"})
    assert c.EraSpawnerMixin.era_url == f"http://{host}:4321/services/era"
    assert service(c)["url"] == f"http://{host}:4321"
    assert c.EraKubeSpawner.pool == "a100"
    c = set_up(load(text), spawner="era-kube", host="10.1.1.1")
    assert c.EraSpawnerMixin.era_url == "http://10.1.1.1:4321/services/era"
    # Local notebooks need no more than the loopback interface.
    assert set_up(load(text)).EraSpawnerMixin.era_url == "http://127.0.0.1:4321/services/era"


@pytest.mark.parametrize("text", ["", 'c.JupyterHub.hub_ip = "0.0.0.0"'])
def test_pods_do_not_find_what_listens_for_this_machine_alone(text: str) -> None:
    with pytest.raises(ValueError, match="say with host= at which address"):
        set_up(load(text), spawner="era-kube")


# -- the spawner's token ------------------------------------------------------


def test_the_spawners_token_is_only_where_it_is_needed() -> None:
    c = set_up(load('c.Spawner.environment = {"A": "1"}'))
    token = service(c, "era-spawner")["api_token"]
    assert len(token) == TOKEN_LENGTH
    assert token == c.EraSpawnerMixin.era_token
    del service(c, "era-spawner")["api_token"]
    del c.EraSpawnerMixin["era_token"]
    assert token not in plain(c)


def test_every_configuration_has_a_token_of_its_own() -> None:
    first, second = set_up(), set_up()
    assert first.EraSpawnerMixin.era_token != second.EraSpawnerMixin.era_token
    assert len(first.JupyterHub.services) == len(second.JupyterHub.services) == 2


def test_in_a_configuration_file() -> None:
    call = "era_hub.setup(c, port=4321, system_users=False, gpus=2, host='10.0.0.7', "
    c = load(call + "spawner='era-kube')")
    assert option(c, "LocalCloud.simulated_gpus") == "2"
    assert c.JupyterHub.spawner_class == "era-kube"


# -- misuse -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("positional", "named"),
    [((), {}), ((Config(), "state"), {}), ((Config(),), {"gpu": 2})],
    ids=["no configuration", "an option without its name", "a typo"],
)
def test_misuse_is_found_at_once(positional: tuple[Any, ...], named: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match=r"setup\(\)"):
        era_hub.setup(*positional, **named)


def test_admins_are_a_list_of_names() -> None:
    with pytest.raises(TypeError, match=r"admins must be a list of names, such as \['ann'\]"):
        era_hub.setup(Config(), admins="ann")


# -- a service that somebody else starts ------------------------------------------


def test_a_service_of_somebody_elses_is_completed_and_not_started() -> None:
    c = external()
    era_hub.setup(c, spawner="era-local")
    found = service(c)
    assert (found["url"], found["api_token"]) == ("http://era-hub:8080", "secret-token")
    assert "command" not in found
    assert found["oauth_client_allowed_scopes"] == ["custom:era:bid", "custom:era:admin"]
    assert {each["name"] for each in c.JupyterHub.services} == {"other", "era", "era-spawner"}
    assert role(c, "era-service")["services"] == ["era"]
    assert c.EraSpawnerMixin.era_url == "http://era-hub:8080/services/era"
    assert not Path("era").exists(), "the hub has nothing to store for it"


def test_what_it_is_given_wins() -> None:
    c = external(display=False, url="http://era-hub:8080/")
    c.JupyterHub.base_url = "/jupyter/"
    c.JupyterHub.services.append({"name": "era-spawner", "api_token": "of-the-spawner"})
    era_hub.setup(c)
    assert service(c)["display"] is False
    assert c.EraSpawnerMixin.era_url == "http://era-hub:8080/jupyter/services/era"
    assert c.EraSpawnerMixin.era_token == "of-the-spawner"
    assert service(c, "era-spawner")["api_token"] == "of-the-spawner"


@pytest.mark.parametrize(
    "named",
    [{"gpus": 2}, {"host": "h"}, {"port": 1}, {"config_file": "x.py"}, {"options": {}}],
)
def test_its_settings_are_its_own(named: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(named))} can't be set here"):
        era_hub.setup(external(), **named)


@pytest.mark.parametrize("missing", ["url", "api_token"])
def test_it_must_be_complete(missing: str) -> None:
    with pytest.raises(ValueError, match=f"without '{missing}'"):
        era_hub.setup(external(**{missing: None}))
