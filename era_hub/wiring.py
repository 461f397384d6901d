"""`setup`: one call that adds ERA Hub to a ``jupyterhub_config.py``.

Only the standard library is imported here, so that a hub's configuration file
loads fast and needs nothing of the service.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterable, Mapping
from inspect import isawaitable
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlparse

from .ports import free_port, is_free

SERVICE = "era"
SPAWNER_SERVICE = "era-spawner"

CUSTOM_SCOPES = {
    "custom:era:bid": "Bid for GPU time in the ERA market, and see one's own reservations",
    "custom:era:admin": "See all reservations, accounts and the allocation of the ERA market",
    "custom:era:spawn": "Reserve and start on behalf of users: for the hub's spawner only",
    "custom:era:metrics": "Read the measurements of the ERA market: for Prometheus",
    "custom:era:cloud": "See what must run in the ERA market, and say what has become of it: "
    "for a scheduler",
}
ACCESS = f"access:services!service={SERVICE}"
# What every user needs, and what their notebook's own token is given of it.
USER_SCOPES = [ACCESS, "custom:era:bid"]
SERVER_SCOPES = ["users:activity!user", "access:servers!server"]
EVERYWHERE = frozenset({"0.0.0.0", "::", "*"})
"""Addresses to listen on that nobody can be told."""
# How the hub shows the service and logs its visitors in.
SHOWN = {
    "display": True,
    "oauth_no_confirm": True,
    "oauth_client_allowed_scopes": ["custom:era:bid", "custom:era:admin"],
}


def setup(
    c: Any,
    *,
    state_dir: str | os.PathLike[str] = "era",
    spawner: str = "era-local",
    system_users: bool | None = None,
    gpus: int | None = None,
    admins: Iterable[str] | None = None,
    host: str | None = None,
    port: int | None = None,
    config_file: str | os.PathLike[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> None:
    """Add the market to a hub: service, scopes, roles and spawner.

    Call it last in ``jupyterhub_config.py``. What is configured there already is
    kept: lists are extended, hooks chained, roles completed. A service ``era`` that is
    configured there with the `url` of what somebody else starts, as on Kubernetes, is
    completed and not started by the hub; it has its own settings then, and `gpus`,
    `host`, `port`, `config_file` and `options` are refused.

    Parameters
    ----------
    c : traitlets.config.Config
        The ``c`` of the configuration file.
    state_dir : path
        Where the service keeps its database, and homes of users without a system
        account; relative to the hub's working directory.
    spawner : str
        Entry point or class of the spawner; ``era-local`` runs local processes, and
        ``era-kube`` pods.
    system_users : bool, optional
        Run servers and jobs as the users' own system accounts. Default: yes if the
        hub runs as root. Otherwise all run as the hub's account, without isolation.
    gpus : int, optional
        Simulate this many GPUs. Default: the machine's own, through NVML, and 8
        simulated ones where it has none.
    admins : iterable of str, optional
        Users who may see everything; default: ``c.Authenticator.admin_users``.
    host : str, optional
        Address on which the service listens, and at which notebooks find it. Default: the
        loopback interface; with ``era-kube`` the one at which pods find the hub itself.
    port : int, optional
        Where the service listens there; default: a free port, the same one at each
        start if possible.
    config_file : path, optional
        Configuration file of the service itself; see ``era-hub serve --help-all``.
    options : mapping of str to value, optional
        Single settings of the service, such as ``{"EraHub.starting_grant": 50}``.
        They show in the machine's list of processes: what is secret belongs into
        `config_file`.

    Examples
    --------
    >>> import era_hub
    >>> era_hub.setup(c)  # doctest: +SKIP
    """
    state = Path(state_dir).absolute()
    if system_users is None:
        system_users = os.geteuid() == 0

    service = _configured(c, SERVICE)
    if service:
        _check_external(
            service, gpus=gpus, host=host, port=port, config_file=config_file, options=options
        )
    else:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        port = port or _usual_port(state, _ports_of_the_hub(c))
        address = f"http://{host or _usual_host(c, spawner)}:{port}"
        service = _managed(state, address, system_users, gpus, config_file, options)
    _set_service(c, {**SHOWN, **service})
    spawners = {"name": SPAWNER_SERVICE, "api_token": secrets.token_hex(32)}
    spawners |= _configured(c, SPAWNER_SERVICE)
    _set_service(c, spawners)
    scopes = {name: {"description": text} for name, text in CUSTOM_SCOPES.items()}
    c.JupyterHub.custom_scopes = {**_present(c.JupyterHub, "custom_scopes", {}), **scopes}
    _add_roles(c, admins)

    c.JupyterHub.spawner_class = spawner
    c.Spawner.server_token_scopes = _with_market_scopes(
        _present(c.Spawner, "server_token_scopes", None)
    )
    address = service["url"].rstrip("/")
    c.EraSpawnerMixin.era_url = f"{address}{_base_path(c)}services/{SERVICE}"
    c.EraSpawnerMixin.era_token = spawners["api_token"]
    c.EraLocalSpawner.system_users = system_users
    c.EraLocalSpawner.home_root = str(state / "homes")
    if options and "Pool.name" in options:
        c.EraKubeSpawner.pool = options["Pool.name"]


def _configured(c: Any, name: str) -> dict[str, Any]:
    """A service that the configuration has already; empty if it has none of that name."""
    services = _present(c.JupyterHub, "services", [])
    return dict(next((each for each in services if each["name"] == name), {}))


def _check_external(service: Mapping[str, Any], **own: Any) -> None:
    where = f"c.JupyterHub.services has a service {SERVICE!r} already"
    given = sorted(name for name, value in own.items() if value is not None)
    if given:
        raise ValueError(f"{where}, with its own settings: {', '.join(given)} can't be set here")
    for name in ("url", "api_token"):
        if not service.get(name):
            raise ValueError(f"{where}, but without {name!r}; or leave it to the hub to start it")


def _managed(
    state: Path,
    address: str,
    system_users: bool,
    gpus: int | None,
    config_file: str | os.PathLike[str] | None,
    options: Mapping[str, Any] | None,
) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "EraHub.state_dir": str(state),
        "LocalCloud.system_users": system_users,
        "LocalCloud.home_root": str(state / "homes"),
    }
    if gpus is not None:
        settings["LocalCloud.simulated_gpus"] = gpus
    command = [sys.executable, "-m", "era_hub", "serve"]
    if config_file is not None:
        command.append(f"--config={Path(config_file).absolute()}")
    command += [f"--{name}={value}" for name, value in {**settings, **(options or {})}.items()]
    return {
        "name": SERVICE,
        "url": address,
        "command": command,
    }


def _add_roles(c: Any, admins: Iterable[str] | None) -> None:
    if isinstance(admins, str):
        raise TypeError(f"admins must be a list of names, such as [{admins!r}]")
    if admins is None:
        admins = _present(c.Authenticator, "admin_users", set())
    _add_role(c, {"name": "user"}, ["self"], USER_SCOPES)
    # The service sees who has which servers, and starts and stops them.
    service = {"name": "era-service", "services": [SERVICE]}
    _add_role(c, service, [], ["servers", "read:users", "list:users"])
    _add_role(
        c,
        {"name": "era-spawner", "services": [SPAWNER_SERVICE]},
        [],
        [ACCESS, "custom:era:spawn"],
    )
    _add_role(
        c,
        {"name": "era-admin", "users": sorted(admins)},
        [],
        [ACCESS, "custom:era:admin", "custom:era:bid"],
    )


def _add_role(c: Any, role: dict[str, Any], default: list[str], scopes: list[str]) -> None:
    """Complete a role of the configuration, or add it with its default scopes."""
    roles = [dict(each) for each in _present(c.JupyterHub, "load_roles", [])]
    mine = next((each for each in roles if each["name"] == role["name"]), None)
    if mine is None:
        mine = {**role, "scopes": list(default)}
        roles.append(mine)
    held = list(mine.get("scopes", default))
    mine["scopes"] = held + [scope for scope in scopes if scope not in held]
    for holders in ("users", "services"):
        if holders in role:
            mine[holders] = sorted({*mine.get(holders, []), *role[holders]})
    c.JupyterHub.load_roles = roles


def _with_market_scopes(configured: Any) -> Any:
    """The scopes of a notebook's token, with what it needs to use the market."""
    if not callable(configured):
        return _union(configured or SERVER_SCOPES, USER_SCOPES)

    async def scopes(spawner: Any) -> list[str]:
        asked = configured(spawner)
        if isawaitable(asked):
            asked = await asked
        return _union(asked or SERVER_SCOPES, USER_SCOPES)

    return scopes


def _union(first: Iterable[str], second: Iterable[str]) -> list[str]:
    return list(dict.fromkeys([*first, *second]))


def _present(section: Any, name: str, default: Any) -> Any:
    """What a section holds under a name already, lazily configured lists resolved."""
    if name not in section:
        return default
    value = section[name]
    resolve: Callable[[Any], Any] | None = getattr(value, "get_value", None)
    if resolve is None:
        return value
    return resolve(type(default)() if default is not None else [])


def _base_path(c: Any) -> str:
    """The path below which the hub serves, with slashes at both ends."""
    bound = urlparse(_present(c.JupyterHub, "bind_url", "")).path
    path = _present(c.JupyterHub, "base_url", "") or bound
    return f"/{quote(unquote(path.strip('/')), safe='@/')}/" if path.strip("/") else "/"


def _set_service(c: Any, service: dict[str, Any]) -> None:
    """Add a service to the hub's, or put it in the place of its namesake."""
    services = _present(c.JupyterHub, "services", [])
    others = [each for each in services if each["name"] != service["name"]]
    c.JupyterHub.services = [*others, service]


def _ports_of_the_hub(c: Any) -> set[int]:
    """Where the hub, its proxy and its services will listen: none of it is bound yet."""
    hub, proxy = c.JupyterHub, c.ConfigurableHTTPProxy
    numbers = {_present(hub, "port", 8000), _present(hub, "hub_port", 8081)}
    urls = {
        _present(hub, "bind_url", ""),
        _present(hub, "hub_bind_url", ""),
        _present(proxy, "api_url", "http://127.0.0.1:8001"),
        *(service.get("url") or "" for service in _present(hub, "services", [])),
    }
    return {*numbers, *(port for port in (urlparse(url).port for url in urls) if port)}


def _usual_host(c: Any, spawner: str) -> str:
    """Where the service can be reached by its notebooks: like the hub, if they are elsewhere."""
    if spawner != "era-kube":
        return "127.0.0.1"
    hub = c.JupyterHub
    found = (
        urlparse(_present(hub, "hub_connect_url", "")).hostname,
        _present(hub, "hub_connect_ip", ""),
        urlparse(_present(hub, "hub_bind_url", "")).hostname,
        _present(hub, "hub_ip", ""),
    )
    for each in found:
        if each and each not in EVERYWHERE:
            return each
    raise ValueError(
        "pods can't reach the loopback interface: say with host= at which address of this "
        "machine they find the service, or start the service elsewhere"
    )


def _usual_port(state: Path, taken: set[int]) -> int:
    """The port of last time if it is free: notebooks that outlive a hub know it."""
    remembered = state / "port"
    try:
        wanted = int(remembered.read_text())
    except (OSError, ValueError):
        wanted = 0
    usable = wanted > 0 and wanted not in taken and is_free(wanted)
    port = wanted if usable else free_port(taken)
    remembered.write_text(str(port))
    return port
