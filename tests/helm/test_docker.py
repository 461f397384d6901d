"""The images' build instructions, as far as they can be checked without building them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import era_hub

from .charts import CHART, ROOT

FILES = sorted((ROOT / "helm/docker").glob("*/Dockerfile"))
each_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)

Instruction = tuple[str, str]


def instructions(path: Path) -> list[Instruction]:
    """What a Dockerfile says, a pair for each instruction."""
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    pairs = [line.partition(" ") for line in joined.splitlines() if line]
    return [(name, rest.strip()) for name, _, rest in pairs]


def copied(path: Path) -> list[str]:
    """What is copied from the repository."""
    sources = [
        rest.split()[:-1]
        for name, rest in instructions(path)
        if name == "COPY" and not rest.startswith("--from")
    ]
    return [each for some in sources for each in some]


def test_there_is_one_for_each_part() -> None:
    assert [path.parent.name for path in FILES] == ["hub", "service", "singleuser"]


@each_file
def test_what_runs_is_not_root_and_not_what_builds(path: Path) -> None:
    found = instructions(path)
    assert [name for name, _ in found].count("FROM") == 2, "one stage builds, the other runs"
    last = max(index for index, (name, _) in enumerate(found) if name == "FROM")
    users = [rest for name, rest in found[last:] if name == "USER"]
    assert re.fullmatch(r"1000(:1000)?", users[-1])


@each_file
def test_bases_have_versions(path: Path) -> None:
    found = instructions(path)
    defaults = dict(rest.split("=", 1) for name, rest in found if name == "ARG")
    for base in [rest for name, rest in found if name == "FROM"]:
        image = re.sub(r"\$\{(\w+)\}", lambda match: defaults[match[1]], base.split()[0])
        tag = image.rpartition(":")[2]
        assert re.search(r"\d", tag) and "latest" not in tag, image


@each_file
def test_what_it_copies_is_there_and_not_ignored(path: Path) -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    for each in copied(path):
        assert (ROOT / each).exists()
        assert f"!{each.rstrip('/')}" in ignored


@each_file
def test_the_extras_exist(path: Path) -> None:
    known = set(metadata.metadata("era-hub").get_all("Provides-Extra") or [])
    asked = {
        extra
        for _, rest in instructions(path)
        for group in re.findall(r"(?:\.|\))\[([\w,]+)\]", rest)
        for extra in group.split(",")
    }
    assert asked <= known
    assert bool(asked) == (path.parent.name != "hub"), "the hub's image has all but ours"


@each_file
def test_its_name_is_the_one_that_is_documented(path: Path) -> None:
    name = f"era-hub-{path.parent.name}:{era_hub.__version__}"
    command = f"docker build --file {path.relative_to(ROOT)} --tag {name} ."
    assert command in path.read_text("utf-8")
    assert command in (ROOT / "docs/guides/deploy-on-kubernetes.md").read_text("utf-8")


def test_the_chart_runs_what_the_image_has() -> None:
    found = dict(instructions(ROOT / "helm/docker/service/Dockerfile"))
    assert found["ENTRYPOINT"] == '["era-hub"]'
    assert '"--config=/etc/era-hub/era_hub_config.py"' in found["CMD"]
    template = (CHART / "templates/deployment.yaml").read_text("utf-8")
    assert "args: [serve, --config=/etc/era-hub/era_hub_config.py]" in template
    assert found["EXPOSE"] == "8080"
    assert any(each.name == "era-hub" for each in metadata.entry_points(group="console_scripts"))


@pytest.mark.slow
def test_what_is_copied_is_enough_to_build_from(tmp_path: Path) -> None:
    lists = [copied(path) for path in FILES]
    assert lists[0] == lists[1] == lists[2]
    source = tmp_path / "source"
    source.mkdir()
    for each in lists[0]:
        if (ROOT / each).is_dir():
            shutil.copytree(
                ROOT / each, source / each, ignore=shutil.ignore_patterns("__pycache__")
            )
        else:
            shutil.copy(ROOT / each, source)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    options = ["--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run([*command, *options], check=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    for wanted in (
        "era_hub/cli/__init__.py",
        "era_hub/client/chart.js",
        "era_hub/store/migrations/script.py.mako",
        "era_spawner/templates/spawn_form.html",
        "era_extension/lab/era_extension.json",
        "era_pricing/language.schema.json",
    ):
        assert wanted in names
