"""What people ask for, turned into requests."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from era_extension import bids
from era_extension.bids import Declined, Source, find_configuration, job_request, source
from era_hub import models
from tests.extension.fake_service import NOW, a_market


def test_a_path_is_read(tmp_path: Path) -> None:
    (tmp_path / "my train.py").write_text("print('hi')")
    for script in (tmp_path / "my train.py", str(tmp_path / "my train.py")):
        found = source(script, python="/usr/bin/python3")
        expected = ["/usr/bin/python3", "my_train.py"]
        assert found == Source("print('hi')", "my_train.py", expected, "my_train.py")
    assert source("my train.py", folder=tmp_path).script == "print('hi')"


def test_a_text_is_a_script() -> None:
    assert source("import torch\n").script == "import torch\n"
    assert source("print('one line')").script == "print('one line')"
    assert source("x = 1").command is None


def test_commands() -> None:
    assert source(["nvidia-smi", "-L"]) == Source(
        command=["nvidia-smi", "-L"], name="nvidia-smi -L"
    )
    assert source(command="echo 'a b'").command == ["echo", "a b"]
    assert source("print(1)", ["python", "-u", "script.py"]).command == [
        "python",
        "-u",
        "script.py",
    ]


def test_shell_scripts_run_in_a_shell(tmp_path: Path) -> None:
    (tmp_path / "run.sh").write_text("true")
    assert source(tmp_path / "run.sh", python="python").command == ["bash", "run.sh"]


def test_what_cannot_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "data.py").write_bytes(b"\xff\xfe")
    for script, says in [
        ("trian.py", "there is no file"),
        (tmp_path / "no.py", "there is no file"),
        (tmp_path, "can't be read"),
        (tmp_path / "data.py", "not a text file"),
        (None, "give a script or a command"),
        ([], "give a script or a command"),
    ]:
        with pytest.raises(ValueError, match=says):
            source(script)
    with pytest.raises(ValueError, match="one command"):
        source(["ls"], ["ls"])


def test_this_python_where_jobs_find_it() -> None:
    import sys

    assert bids.interpreter("https://hub.example/services/era", {}) is None
    hub = {"JUPYTERHUB_API_TOKEN": "x"}
    assert bids.interpreter("https://hub.example/services/era", hub) == sys.executable
    assert bids.interpreter("http://127.0.0.1:8000/services/era", {}) == sys.executable
    assert bids.interpreter("http://localhost.example/services/era", {}) is None


def test_requests_hold_what_was_meant() -> None:
    what = Source("x", "a.py", ["python", "a.py"], "a.py")
    request = job_request(
        what, "one-gpu", "1h30m", "+4h", Decimal("2.50"),
        args=[1], environment={"SEED": 3}, now=NOW,
    )  # fmt: skip
    assert request == models.JobRequest(
        configuration="one-gpu",
        duration=5400,
        deadline=NOW + timedelta(hours=4),
        value=2_500_000,
        name="a.py",
        script="x",
        filename="a.py",
        command=["python", "a.py"],
        args=["1"],
        environment={"SEED": "3"},
    )


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"value": "much"}, "is not an amount"),
        ({"value": -1}, "an amount must be"),
        ({"duration": "long"}, "duration: .*is not a duration"),
        ({"deadline": "never"}, "is not a deadline"),
        ({"environment": {"A-B": "1"}}, "not a name for an environment variable"),
    ],
)
def test_mistakes_are_one_sentence(fields: dict, says: str) -> None:
    base = {"configuration": "one-gpu", "duration": "30m", "deadline": None, "value": 1}
    with pytest.raises(ValueError, match=says) as caught:
        job_request(Source("x"), **{**base, **fields})
    assert "\n" not in str(caught.value)


def test_the_smallest_configuration_is_chosen() -> None:
    assert find_configuration(a_market(), 1) == "one-gpu"
    assert find_configuration(a_market(), 2) == "two-gpus"
    with pytest.raises(ValueError, match=r"no configuration has 8 GPUs.*one-gpu \(1\)"):
        find_configuration(a_market(), 8)


def test_declined_says_price_reason_and_alternative() -> None:
    start = datetime.now(UTC) + timedelta(hours=1)
    other = models.Start(start=start, end=start, price=500_000)
    outcome = models.JobOutcome(
        accepted=False, price=900_000, reason="Your value is below the price.", alternative=other
    )
    declined = Declined(outcome)
    assert (declined.price, declined.reason) == ("0.90", "Your value is below the price.")
    text = str(declined)
    assert "below the price. It would cost 0.90 credits." in text
    assert text.endswith("for 0.50.")
    nothing = Declined(models.JobOutcome(accepted=False, price=None, reason="sold out"))
    assert str(nothing) == "The market declined the bid: sold out."
