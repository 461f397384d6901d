"""The main job on real input: from the login to the last micro-credit."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from era_hub import models
from era_hub.models import JobState, Kind, State
from tests.end_to_end.people import kernel, log_in, spawn
from tests.running_hub import FAST, RunningHub, until

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    """A hub on which ann finds the example in her home."""
    folder = tmp_path_factory.mktemp("digits")
    home = folder / "homes" / "ann"
    home.mkdir(parents=True)
    for name in ("train_digits.ipynb", "train_digits.py"):
        shutil.copy(EXAMPLES / name, home)
    with RunningHub(folder, options=FAST) as running:
        yield running


def cells() -> list[str]:
    notebook = json.loads((EXAMPLES / "train_digits.ipynb").read_text())
    return ["".join(each["source"]) for each in notebook["cells"] if each["cell_type"] == "code"]


@pytest.mark.slow
@pytest.mark.asyncio
async def test_the_example_notebook_from_login_to_ledger(hub: RunningHub) -> None:
    ann = hub.client("ann")
    with log_in(hub, "ann") as browser:
        page = browser.get("hub/spawn")
        assert "2 GPUs" in page.text
        spawn(browser, configuration="gpu-2", hours="0.5", latest_start="", max_price="5")
    hub.until_ready("ann")
    [notebook] = ann.reservations(kind=Kind.NOTEBOOK)
    assert (notebook.state, notebook.units) == (State.ACTIVE, 2)

    token = hub.user_token("ann")
    outputs = []
    async with kernel(hub, "ann", token) as python:
        for cell in cells():
            outputs.append(await python.run(cell))
        accuracy = await python.run("print(model.score(test_images, test_labels))")
        gpus = await python.run("import os; print(os.environ['CUDA_VISIBLE_DEVICES'])")
        second = await python.run("print(second.wait(show=False))")
    assert float(accuracy) > 0.95
    assert [int(index) for index in gpus.strip().split(",")] == notebook.gpus
    assert second.strip() == JobState.SUCCEEDED

    # The job ran in the background, on GPUs of its own, and left its files.
    job = next(each for each in ann.jobs() if each.name == "train_digits.py")
    assert (job.state, job.exit_code, job.progress) == (JobState.SUCCEEDED, 0, 1.0)
    assert "100%|" in ann.log(job.id).text
    assert job.directory
    assert (Path(job.directory) / "model.joblib").exists()
    given = re.search(r"GPUs: (\S+),", ann.log(job.id).text)
    assert given and int(given[1]) not in (notebook.gpus or [])

    hub.stop_server("ann")
    hub.until_gone("ann")
    _check_the_books(hub)


def _check_the_books(hub: RunningHub) -> None:
    """Every reservation has paid its price less its refund, and nothing else happened."""
    ann = hub.client("ann")
    until(lambda: not ann.reservations(current=True), 30, "the end of all reservations")
    account, reservations = ann.account(), ann.reservations()
    assert len(reservations) == 3
    expected = {("grant", None): 100 * models.MICRO}
    for each in reservations:
        expected["hold", each.id] = -each.price
        expected["refund", each.id] = each.refunded
        assert 0 < each.refunded < each.price
    assert {(one.kind, one.reservation): one.amount for one in account.entries} == expected
    assert account.balance == sum(expected.values())
    assert account.held == 0
