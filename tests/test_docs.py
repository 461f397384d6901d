"""The documentation: nothing left out, no dead links, and samples that are true."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from pydantic import BaseModel
from traitlets.config import Configurable

from era_extension import cli as era_cli
from era_extension import magic as era_magic
from era_hub import cli as era_hub_cli
from era_hub import models
from era_hub.api import ROUTES
from era_hub.app import EraHub
from era_hub.clouds.kubernetes.cloud import KubernetesCloud
from era_hub.clouds.local import LocalCloud
from era_hub.pool import Pool
from era_pricing.simulator import cli as era_sim_cli
from era_spawner import EraLocalSpawner, EraSpawnerMixin
from era_spawner.environment import market_environment
from era_spawner.kube import EraKubeSpawner

DOCS = Path(__file__).parent.parent / "docs"
REFERENCE = DOCS / "reference"
PAGES = sorted(DOCS.rglob("*.md"))
IMAGES_TO_COME = {"spawn-page.png", "widget.png", "market-page.png"}
CONFIGURABLE: list[type[Configurable]] = [
    EraHub,
    Pool,
    LocalCloud,
    KubernetesCloud,
    EraSpawnerMixin,
    EraLocalSpawner,
    EraKubeSpawner,
]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(!?)\[(?:[^\]]*)\]\(([^)\s]+)\)")
EXAMPLE = re.compile(
    r"^```python\n(?P<code>(?:(?!^```).)*?)^```\n\nIt prints:\n\n```text\n(?P<output>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


def page_id(page: Path) -> str:
    return str(page.relative_to(DOCS))


def read(page: Path) -> str:
    return page.read_text("utf-8")


def prose(page: Path) -> str:
    """A page without its code blocks, whose brackets are no links."""
    return FENCE.sub("", read(page))


def anchors(page: Path) -> set[str]:
    """Names of the page's headings in links, as on GitHub."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def row(text: str, name: str) -> str:
    """The row of a table that begins with a name."""
    rows = [line for line in text.splitlines() if line.startswith(f"| `{name}` |")]
    assert len(rows) == 1, f"{name} needs one row, there are {len(rows)}"
    return rows[0]


# -- links and samples ---------------------------------------------------------------


def links(image: bool) -> Iterator[tuple[Path, str]]:
    for page in PAGES:
        for mark, target in LINK.findall(prose(page)):
            if bool(mark) is image and not re.match(r"[a-z]+:", target):
                yield page, target


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_relative_links_resolve(page: Path) -> None:
    broken = []
    for target in [target for where, target in links(image=False) if where == page]:
        path, _, anchor = target.partition("#")
        found = page.parent / path if path else page
        if not found.exists() or (anchor and anchor not in anchors(found)):
            broken.append(target)
    assert broken == []


def test_images_exist_or_are_about_to() -> None:
    missing = {
        target
        for page, target in links(image=True)
        if not (page.parent / target).exists()
        and (page.parent / target).resolve() not in {DOCS / "images" / n for n in IMAGES_TO_COME}
    }
    assert missing == set()


def test_images_have_a_text_for_those_who_do_not_see_them() -> None:
    texts = [t for page in PAGES for t in re.findall(r"!\[([^\]]*)\]", prose(page))]
    assert all(len(text) > 20 for text in texts)


def test_every_page_is_in_the_index() -> None:
    index = DOCS / "README.md"
    linked = {(DOCS / target).resolve() for page, target in links(image=False) if page == index}
    assert [page_id(page) for page in PAGES if page != index and page not in linked] == []


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_python_blocks_compile(page: Path) -> None:
    for language, code in FENCE.findall(read(page)):
        if language == "python":
            compile(code, page_id(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def examples() -> Iterator[pytest.param]:
    for page in PAGES:
        for number, match in enumerate(EXAMPLE.finditer(read(page))):
            yield pytest.param(match["code"], match["output"], id=f"{page_id(page)}-{number}")


@pytest.mark.parametrize(("code", "output"), list(examples()))
def test_examples_print_what_the_page_says(code: str, output: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "TZ": "UTC"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == output


def test_there_are_examples_to_run() -> None:
    assert len(list(examples())) >= 2


# -- nothing is left out ---------------------------------------------------------------


def settings() -> Iterator[pytest.param]:
    for owner in CONFIGURABLE:
        for name, trait in owner.class_own_traits(config=True).items():
            yield pytest.param(owner, name, trait, id=f"{owner.__name__}.{name}")


@pytest.mark.parametrize(("owner", "name", "trait"), list(settings()))
def test_every_setting_is_explained(owner: type[Configurable], name: str, trait: object) -> None:
    line = row(read(REFERENCE / "configuration.md"), f"{owner.__name__}.{name}")
    default = getattr(trait, "default_value", None)
    worked_out = f"_default_{name}" in vars(owner) or f"_{name}_default" in vars(owner)
    dynamic = worked_out or (owner, name) in {
        (EraHub, "db_url"),
        (EraSpawnerMixin, "era_public_path"),
        (LocalCloud, "python"),
    }
    if isinstance(default, (str, int, float)) and not dynamic:
        shown = f'"{default}"' if isinstance(default, str) else str(default)
        assert f"| `{shown}` |" in line


def test_nothing_is_explained_that_is_not_there() -> None:
    known = {f"{owner.__name__}.{name}" for owner in CONFIGURABLE for name in owner.class_traits()}
    names = "|".join(owner.__name__ for owner in CONFIGURABLE)
    for page in PAGES:
        used = set(re.findall(rf"\b(?:{names})\.[a-z_]+\b(?!\()", read(page)))
        assert used <= known, page_id(page)


def test_every_call_of_the_api_is_explained() -> None:
    text = read(REFERENCE / "rest-api.md")
    for path, handler in ROUTES:
        for method in ("get", "post", "delete"):
            if hasattr(getattr(handler, method), "endpoint"):
                row(text, f"{method.upper()} {path}")


def public_models() -> list[type[BaseModel]]:
    found = [each for each in vars(models).values() if isinstance(each, type)]
    return [
        each
        for each in found
        if issubclass(each, BaseModel)
        and each.__module__ == models.__name__
        and each not in (models.Model, models.RequestBase)
    ]


@pytest.mark.parametrize("model", public_models(), ids=lambda model: model.__name__)
def test_every_field_of_the_api_is_explained(model: type[BaseModel]) -> None:
    text = read(REFERENCE / "rest-api.md")
    assert [name for name in model.model_fields if f"`{name}`" not in text] == []


def commands() -> Iterator[tuple[str, click.Command]]:
    for program, group in (("era", era_cli.main), ("era-hub", era_hub_cli.main)):
        for name, command in group.commands.items():
            yield f"{program} {name}", command


@pytest.mark.parametrize(("name", "command"), list(commands()), ids=lambda value: str(value))
def test_every_command_and_option_is_explained(name: str, command: click.Command) -> None:
    text = read(REFERENCE / "command-line.md")
    assert re.search(rf"^### `{name}\b", text, re.MULTILINE)
    assert options_of(command) - set(re.findall(r"`(--[a-z-]+)`", text)) == set()


def sim_commands(group: click.Group, name: str) -> Iterator[tuple[str, str, click.Command]]:
    """Every command of `era-sim`, below the heading of its own or of its group."""
    for key, command in group.commands.items():
        if isinstance(command, click.Group):
            for inner, each in command.commands.items():
                yield f"{name} {key} {inner}", f"{name} {key}", each
        else:
            yield f"{name} {key}", f"{name} {key}", command


@pytest.mark.parametrize(
    ("name", "heading", "command"),
    [pytest.param(*each, id=each[0]) for each in sim_commands(era_sim_cli.main, "era-sim")],
)
def test_every_command_and_option_of_the_simulator_is_explained(
    name: str, heading: str, command: click.Command
) -> None:
    text = read(REFERENCE / "era-sim.md")
    assert f"`{name}" in text
    _, found, section = text.partition(f"### `{heading}`\n")
    assert found
    if heading != name:  # the others share options, each explained once
        text = section.partition("\n## ")[0]
    explained = set(re.findall(r"`(--?[a-z-]+)`", text))
    assert options_of(command, short=True) - explained == set()


def test_every_option_of_the_magic_is_explained() -> None:
    text = read(REFERENCE / "command-line.md")
    assert options_of(era_magic.command) - set(re.findall(r"`(--[a-z-]+)`", text)) == set()


def options_of(command: click.Command, short: bool = False) -> set[str]:
    return {
        option
        for parameter in command.params
        if isinstance(parameter, click.Option)
        for option in (*parameter.opts, *parameter.secondary_opts)
        if short or option.startswith("--")
    }


def test_every_variable_of_a_notebook_is_explained() -> None:
    now = datetime.now(UTC)
    reservation = models.Reservation(
        id="1",
        kind=models.Kind.NOTEBOOK,
        user="ann",
        configuration="gpu-1",
        units=1,
        state=models.State.ACTIVE,
        arrival=now,
        deadline=now,
        duration=1,
        start=now,
        end=now,
        price=1,
        created=now,
        gpus=[0],
    )
    text = read(REFERENCE / "environment.md").partition("## Jobs")[0]
    for name in market_environment(reservation, "http://127.0.0.1/services/era"):
        row(text, name)
