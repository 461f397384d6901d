"""The cell magic, in a real IPython shell."""

from __future__ import annotations

import pytest
from IPython.core.interactiveshell import InteractiveShell

from era_extension.jobs import JobHandle
from era_hub import models
from era_hub.models import JobState
from tests.extension.fake_service import FakeService, a_job

CELL = "import os\nprint(os.getcwd())\n"


@pytest.fixture
def shell() -> InteractiveShell:
    InteractiveShell.clear_instance()
    shell = InteractiveShell.instance()
    shell.run_line_magic("load_ext", "era_extension")
    yield shell
    InteractiveShell.clear_instance()


def test_a_cell_becomes_a_job(
    shell: InteractiveShell, service: FakeService, capsys: pytest.CaptureFixture[str]
) -> None:
    service.accept(a_job())
    result = shell.run_cell(
        "%%era_job --gpus 1 --duration 45m --deadline +4h --value 5 --name mine --as job\n" + CELL
    )
    assert result.success
    job = shell.user_ns["job"]
    assert isinstance(job, JobHandle) and job.id == "3f9c01"
    assert "3f9c01" in capsys.readouterr().out
    (sent,) = service.sent("POST", "jobs")
    assert (sent["script"], sent["name"], sent["duration"]) == (CELL, "mine", 2700)


def test_waiting(shell: InteractiveShell, service: FakeService) -> None:
    service.accept(a_job(state=JobState.SUCCEEDED))
    shell.run_cell("%%era_job --value 5 --wait --as job\nprint(1)")
    assert shell.user_ns["job"].state is JobState.SUCCEEDED


@pytest.mark.parametrize(
    ("line", "cell", "says"),
    [
        ("", CELL, "Missing option '--value'"),
        ("--value much", CELL, "is not an amount"),
        ("--value 1 --deadline noon", CELL, "is not a deadline"),
        ("--value 1 --gpu 1", CELL, "No such option"),
        ("--value 1 extra", CELL, "unexpected extra argument"),
        ("--value 1 --as 'a b'", CELL, "not a name for a variable"),
        ("--value '1", CELL, "No closing quotation"),
        ("--value 1", "!ls", "not plain Python (line 1)"),
        ("--value 1", "x = 1\n%matplotlib inline", "not plain Python (line 2)"),
        ("--value 1", "await f()", "not plain Python"),
        ("--value 1", "  \n", "empty"),
        ("--value 1 --gpus 9", CELL, "No configuration has 9 GPUs"),
    ],
)
def test_mistakes_are_a_line(
    shell: InteractiveShell,
    service: FakeService,
    capsys: pytest.CaptureFixture[str],
    line: str,
    cell: str,
    says: str,
) -> None:
    result = shell.run_cell(f"%%era_job {line}\n{cell}")
    said = capsys.readouterr()
    assert result.success
    assert says in said.err and said.err.count("\n") == 1 and "Traceback" not in said.out
    assert service.sent("POST", "jobs") == []


def test_a_declined_bid_is_a_line(
    shell: InteractiveShell, service: FakeService, capsys: pytest.CaptureFixture[str]
) -> None:
    service.outcome = models.JobOutcome(accepted=False, price=900_000, reason="too little")
    shell.run_cell("%%era_job --value 1 --as job\nprint(1)")
    assert "declined the bid: too little" in capsys.readouterr().err
    assert "job" not in shell.user_ns


def test_help(shell: InteractiveShell, capsys: pytest.CaptureFixture[str]) -> None:
    shell.run_cell("%%era_job --help\n# nothing")
    text = capsys.readouterr().out
    assert "Usage: %%era_job" in text and "--deadline" in text and "Example" in text
