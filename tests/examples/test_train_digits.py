"""The example: trains, reports progress, survives SIGTERM; its notebook is sound."""

from __future__ import annotations

import ast
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import joblib
import nbformat
import pytest
from IPython.core.inputtransformer2 import TransformerManager

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPT = EXAMPLES / "train_digits.py"
NOTEBOOK = EXAMPLES / "train_digits.ipynb"
PROGRESS = re.compile(r"(\d+)%\|")
ENDLESS = "1000000"


def start(folder: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """The script, started in a folder of its own as a job is."""
    clean = {name: text for name, text in os.environ.items() if not name.startswith("ERA_")}
    clean.pop("CUDA_VISIBLE_DEVICES", None)
    return subprocess.Popen(
        [sys.executable, str(SCRIPT), *arguments],
        cwd=folder,
        env=clean | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def train(folder: Path, *arguments: str, **environment: str) -> tuple[str, str]:
    process = start(folder, *arguments, **environment)
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    return output, errors


def interrupt(folder: Path) -> str:
    """Train until SIGTERM comes in the middle; return what the script printed."""
    process = start(folder, "--epochs", ENDLESS)
    assert process.stderr
    seen = ""
    while not re.search(r" [1-9]\d*/" + ENDLESS, seen):  # it has finished an epoch
        piece = process.stderr.read(1)
        assert piece, seen
        seen += piece
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    return output


def metrics(folder: Path) -> dict[str, object]:
    return json.loads((folder / "metrics.json").read_text())


@pytest.fixture
def digits(monkeypatch: pytest.MonkeyPatch) -> tuple:
    """The test images and their labels, through the script's own function."""
    monkeypatch.syspath_prepend(EXAMPLES)
    import train_digits

    _, images, _, labels = train_digits.load_data()
    return images, labels


def test_training_leaves_a_good_model(tmp_path: Path, digits: tuple) -> None:
    output, errors = train(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["metrics.json", "model.joblib"]
    found = metrics(tmp_path)
    assert found["accuracy"] > 0.95
    assert (found["epochs"], found["finished"]) == (30, True)
    assert joblib.load(tmp_path / "model.joblib").score(*digits) == pytest.approx(
        found["accuracy"], abs=1e-4
    )
    assert output.startswith("GPUs: none\n")
    assert "accuracy" in output

    percentages = [int(text) for text in PROGRESS.findall(errors)]
    assert percentages[0] == 0
    assert percentages[-1] == 100
    assert percentages == sorted(percentages)


def test_the_reservation_is_described(tmp_path: Path) -> None:
    given = {"ERA_GPUS": "1,3", "ERA_END": "2026-05-05T12:00:00+00:00"}
    output, _ = train(tmp_path, "--epochs", "1", **given)
    assert output.startswith("GPUs: 1,3, until 2026-05-05 12:00:00 UTC\n")


def test_the_output_may_be_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    train(tmp_path, "--epochs", "1", "--output", "results/digits.joblib")
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["digits.joblib", "metrics.json"]


def test_sigterm_saves_and_resuming_gives_the_same_model(tmp_path: Path, digits: tuple) -> None:
    interrupted, resumed, straight = (tmp_path / name for name in ("first", "second", "straight"))
    for folder in (interrupted, resumed, straight):
        folder.mkdir()

    output = interrupt(interrupted)
    assert "--resume checkpoint.joblib" in output
    assert (interrupted / "model.joblib").exists()
    found = metrics(interrupted)
    assert found["finished"] is False
    done = found["epochs"]
    assert isinstance(done, int)

    epochs = str(done + 3)
    train(resumed, "--epochs", epochs, "--resume", str(interrupted / "checkpoint.joblib"))
    train(straight, "--epochs", epochs)
    assert metrics(resumed) == metrics(straight)
    images, _ = digits
    models = [joblib.load(folder / "model.joblib") for folder in (resumed, straight)]
    first, second = (model.predict_proba(images) for model in models)
    assert first == pytest.approx(second, abs=1e-9)


def test_the_notebook_is_valid_and_clean() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None
            ast.parse(TransformerManager().transform_cell(cell.source))


def test_the_notebook_submits_the_script_beside_it() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    assert f'era.submit("{SCRIPT.name}"' in code
    assert 'job.path("model.joblib")' in code
