"""The command line, against a service over HTTP."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from era_extension.cli import main
from era_extension.jobs import JobHandle
from era_hub import models
from era_hub.models import JobState
from tests.extension.fake_service import FakeService, a_job, an_own_account

COMMANDS = ["market", "quote", "submit", "jobs", "logs", "cancel", "extend", "account"]


def era(*args: str, code: int = 0) -> Result:
    """Run a command; whatever its outcome, there is no traceback."""
    result = CliRunner().invoke(main, args)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


@pytest.fixture
def script(tmp_path: Path) -> str:
    (tmp_path / "train.py").write_text("print('hi')")
    return str(tmp_path / "train.py")


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(command: str) -> None:
    text = era(command, "--help").output
    assert f"era {command}" in text and "--json" in text and "Example" in text


def test_version() -> None:
    assert era("--version").output.startswith("era, version ")


def test_market(service: FakeService) -> None:
    text = era("market").output
    assert "3 of 4 GPUs are free now (simulated GPUs" in text
    assert "two-gpus" in text and "2.40" in text and "█" in text and "·" in text
    assert "1.83 (0.91–2.74)" in text and "8 times in 10" in text
    assert json.loads(era("market", "--json").output)["slot"] == 300


def test_market_without_a_forecast(service: FakeService) -> None:
    for one in service.market.configurations:
        one.forecast = None
    text = era("market").output
    assert re.search(r"two-gpus +2 +2\.40 +- +\S", text)
    assert "8 times in 10" not in text


def test_quote(service: FakeService) -> None:
    text = era("quote", "--gpus", "2", "--duration", "1h", "--deadline", "+4h").output
    assert "0.80 credits, from" in text and "By start" in text
    assert json.loads(era("quote", "--json").output)["best"]["price"] == 800_000
    first, second = service.sent("POST", "quotes")
    assert (first["configuration"], first["duration"]) == ("two-gpus", 3600)
    assert "deadline" not in second


def test_account(service: FakeService) -> None:
    text = era("account").output
    # Markup in a memo is text.
    assert "12.50 credits to spend" in text and "a [b]week[/b]" in text
    assert json.loads(era("account", "--json").output)["balance"] == 12_500_000


def test_jobs(service: FakeService) -> None:
    assert era("jobs").output == "No jobs.\n"
    service.accept(a_job())
    text = era("jobs").output
    assert "3f9c01" in text and "running" in text and "25%" in text and "0.80" in text
    assert json.loads(era("jobs", "--json").output)[0]["id"] == "3f9c01"


def test_submit(service: FakeService, script: str) -> None:
    service.accept(a_job())
    text = era(
        "submit", script, "--gpus", "1", "--duration", "45m", "--deadline", "+4h", "--value", "5",
        "--name", "first", "--env", "SEED=1", "--env", "A=b=c", "--", "--epochs", "10",
    ).output  # fmt: skip
    assert "Accepted: job 3f9c01 for 0.80 credits" in text and "era logs -f 3f9c01" in text
    (sent,) = service.sent("POST", "jobs")
    assert sent["script"] == "print('hi')" and sent["filename"] == "train.py"
    assert sent["args"] == ["--epochs", "10"] and sent["environment"] == {"SEED": "1", "A": "b=c"}
    assert (sent["value"], sent["duration"], sent["name"]) == (5_000_000, 2700, "first")


def test_who_pays(service: FakeService, script: str) -> None:
    service.accept(a_job())
    era("submit", script, "--value", "1", "--account", "group:lab")
    era("submit", script, "--value", "1")
    named, unnamed = service.sent("POST", "jobs")
    assert (named["account"], "account" in unnamed) == ("group:lab", False)
    result = era("submit", script, "--value", "1", "--account", "lab", code=1)
    assert "'lab' is none; say own, or group:NAME for a group of yours" in result.stderr


def test_accounts(service: FakeService) -> None:
    service.accounts += [an_own_account(account="group:lab", default=False)]
    text = era("accounts").output
    assert "own" in text and "group:lab" in text and text.count("pays by default") == 1
    found = json.loads(era("accounts", "--json").output)
    assert [each["account"] for each in found] == ["own", "group:lab"]


def test_submit_a_command(service: FakeService) -> None:
    service.accept(a_job())
    era("submit", "--command", "--value", "1", "--", "nvidia-smi", "-L")
    (sent,) = service.sent("POST", "jobs")
    assert sent["command"] == ["nvidia-smi", "-L"] and "script" not in sent


def test_submit_as_json(service: FakeService, script: str) -> None:
    service.accept(a_job())
    assert json.loads(era("submit", script, "--value", "1", "--json").output)["id"] == "3f9c01"


def test_submit_and_wait(service: FakeService, script: str) -> None:
    service.accept(a_job(state=JobState.FAILED, exit_code=3))
    service.logs["3f9c01"] = ["boom\n"]
    result = era("submit", script, "--value", "1", "--wait", code=3)
    assert result.stdout == "boom\n"
    assert "Job 3f9c01 failed." in result.stderr


def test_submit_declined(service: FakeService, script: str) -> None:
    service.outcome = models.JobOutcome(accepted=False, price=900_000, reason="too little")
    result = era("submit", script, "--value", "0.1", code=1)
    expected = "Error: The market declined the bid: too little. It would cost 0.90 credits.\n"
    assert (result.stdout, result.stderr) == ("", expected)


def test_logs(service: FakeService) -> None:
    service.accept(a_job())
    service.logs["3f9c01"] = ["start\n", " 10%|#  |\r", " 20%|## |", ""]
    # Not to a terminal: what a terminal would show.
    assert era("logs", "3f").output == "start\n 20%|## |\n"
    assert json.loads(era("logs", "3f", "--json").output)["text"].startswith("start\n 10%")


def test_following(service: FakeService) -> None:
    service.jobs["3f9c01"] = [a_job(), a_job(), a_job(state=JobState.SUCCEEDED)]
    service.logs["3f9c01"] = ["start\n", " 50%|#  |\r", "100%|###|\n", "done"]
    result = era("logs", "-f", "3f9c01")
    assert result.stdout == "start\n100%|###|\ndone\n"
    assert result.stderr == "Job 3f9c01 succeeded.\n"
    lines = [json.loads(line) for line in era("logs", "-f", "3f9c01", "--json").stdout.splitlines()]
    assert "".join(line["text"] for line in lines[:-1]).endswith("done")
    assert lines[-1]["state"] == "succeeded"


def test_following_ends_with_the_outcome(service: FakeService) -> None:
    service.logs["3f9c01"] = ["x\n"]
    for state, exit_code, expected in [
        (JobState.FAILED, 7, 7),
        (JobState.FAILED, -9, 1),
        (JobState.TIMED_OUT, None, 1),
        (JobState.CANCELLED, None, 1),
    ]:
        service.jobs["3f9c01"] = [a_job(state=state, exit_code=exit_code, message="Why.")]
        result = era("logs", "-f", "3f9c01", code=expected)
        assert result.stderr == f"Job 3f9c01 {state.value}: Why.\n"


def test_interrupting_leaves_the_job_alone(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.accept(a_job())

    def interrupted(_: JobHandle) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(JobHandle, "follow", interrupted)
    result = era("logs", "-f", "3f9c01", code=130)
    assert result.stderr == "Interrupted; jobs go on.\n"


def test_extend(service: FakeService) -> None:
    service.jobs["3f9c01"] = [a_job()]
    text = era("extend", "3f", "--duration", "30m", "--value", "2.5").output
    assert text.startswith("Job 3f9c01 has time until ")
    assert text.endswith(", for 0.40 credits more.\n")
    told = json.loads(era("extend", "3f", "--value", "1", "--json").output)
    assert told["reservation"]["price"] == 1_600_000
    assert service.sent("POST", "reservations/3f9c01/extend") == [
        {"duration": 1800, "value": 2_500_000},
        {"duration": 1800, "value": 1_000_000},
    ]
    keys = {
        headers["Idempotency-Key"] for method, _, _, headers in service.requests if method == "POST"
    }
    assert len(keys) == 2


def test_an_extension_that_is_declined(service: FakeService) -> None:
    service.jobs["3f9c01"] = [a_job()]
    service.outcome = models.JobOutcome(accepted=False, price=900_000, reason="too dear")
    result = era("extend", "3f", "--value", "0.1", code=1)
    assert "The market declined the bid: too dear. It would cost 0.90 credits." in result.output
    assert "value" in era("extend", "3f", code=2).output


def test_cancel(service: FakeService) -> None:
    service.accept(a_job())
    text = era("cancel", "3f").output
    assert text == "Job 3f9c01 cancelled. 0.30 credits were refunded.\n"
    assert json.loads(era("cancel", "3f", "--json").output)["state"] == "cancelled"


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["quote", "--deadline", "noon"], "is not a deadline"),
        (["quote", "--duration", "long"], "is not a duration"),
        (["quote", "--gpus", "-1"], "--gpus"),
        (["submit", "x.py"], "--value"),
        (["submit", "x.py", "--value", "much"], "is not an amount"),
        (["submit", "x.py", "--value", "1", "--env", "A"], "NAME=VALUE"),
        (["logs"], "Missing argument"),
        (["no-such"], "No such command"),
    ],
)
def test_errors_of_usage(args: list[str], says: str) -> None:
    result = era(*args, code=2)
    assert says in result.stderr and result.stdout == ""


def test_failures_are_a_sentence(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "Error: There is no file" in era("submit", "no.py", "--value", "1", code=1).stderr
    assert "No job of yours begins with 'zz'" in era("logs", "zz", code=1).stderr
    assert "No configuration has 9 GPUs" in era("quote", "--gpus", "9", code=1).stderr
    service.problem = (429, "Slow down.")
    assert era("jobs", code=1).stderr == "Error: Slow down.\n"
    service.problem = (200, "a login page")
    assert "is ERA_URL the address" in era("market", code=1).stderr
    for url, says in [("http://127.0.0.1:9", "can't be reached"), ("http://[", "Error: ")]:
        monkeypatch.setenv("ERA_URL", url)
        result = era("jobs", code=1)
        assert says in result.stderr and result.stderr.count("\n") == 1
    monkeypatch.delenv("ERA_URL")
    assert "Set ERA_URL" in era("jobs", code=1).stderr


def test_it_starts_without_the_widget() -> None:
    code = (
        "import sys, era_extension.cli as cli\n"
        "heavy = {'IPython', 'anywidget', 'ipywidgets', 'tqdm', 'tornado'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
