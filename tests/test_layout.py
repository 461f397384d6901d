"""The shape of the repository: layers, light imports, module sizes, packaging."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

import era_hub

ROOT = Path(__file__).parent.parent
PACKAGES = [
    ROOT / "era_hub",
    ROOT / "pricing/era_pricing",
    ROOT / "spawner/era_spawner",
    ROOT / "extension/era_extension",
]
LONGEST_MODULE = 500  # lines
PYTHON_FILES = [path for package in PACKAGES for path in sorted(package.rglob("*.py"))]
MODULES = PYTHON_FILES + [path for package in PACKAGES for path in sorted(package.rglob("*.js"))]
HEAVY = {"alembic", "jupyterhub", "numpy", "sqlalchemy", "tornado"}


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def test_imports_run_downwards_only() -> None:
    command = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"
    result = run_python(command)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("module", ["era_hub", "era_hub.client", "era_hub.models"])
def test_what_callers_import_is_light(module: str) -> None:
    result = run_python(f"import sys, {module}; print(*{{m.split('.')[0] for m in sys.modules}})")
    assert result.returncode == 0, result.stderr
    assert not HEAVY & set(result.stdout.split())


def test_modules_are_short() -> None:
    lines = {relative(path): len(path.read_text("utf-8").splitlines()) for path in MODULES}
    long = {name: count for name, count in lines.items() if count > LONGEST_MODULE}
    assert not long, "each has more than one job, perhaps"


def test_every_folder_of_modules_is_a_package() -> None:
    """A wheel holds only folders with an ``__init__.py``; an editable install hides that."""
    folders = {path.parent for path in PYTHON_FILES}
    assert [relative(f) for f in sorted(folders) if not (f / "__init__.py").exists()] == []


def test_the_installed_version_is_the_packages_own() -> None:
    assert metadata.version("era-hub") == era_hub.__version__


def test_entry_points_load() -> None:
    broken = []
    for entry in metadata.distribution("era-hub").entry_points:
        try:
            entry.load()
        except (ImportError, AttributeError) as error:
            broken.append(f"{entry.group}: {entry.name} = {entry.value}: {error}")
    assert not broken, "\n".join(broken)


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
