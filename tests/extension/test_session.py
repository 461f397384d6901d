"""`Era`, `AsyncEra` and the handles of jobs, against a service over HTTP."""

from __future__ import annotations

import asyncio
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from era_extension import AsyncEra, Declined, Era, EraError
from era_hub import models
from era_hub.models import JobState
from tests.extension.fake_service import NOW, TOKEN, FakeService, a_job


def test_it_looks(service: FakeService) -> None:
    service.accept(a_job())
    with Era() as era:
        market = era.market()
        assert market.configurations[1].name == "one-gpu"
        assert "3 of 4 GPUs are free now (simulated GPUs" in repr(market)
        assert "two-gpus" in market._repr_html_()
        assert era.account().balance == 12_500_000
        assert "12.50 credits to spend, 0.80 held" in repr(era.account())
        assert [job.id for job in era.jobs()] == ["3f9c01"]
        assert "train.py" in repr(era.jobs())
        assert repr(era.reservations()) == "No reservations."
        assert TOKEN not in repr(era)


def test_a_quote(service: FakeService) -> None:
    with Era() as era:
        view = era.quote(gpus=2, duration="1h", deadline=NOW.replace(year=2099))
    assert view.price == "0.80"
    assert "one-gpu for 30 min: 0.80 credits" in repr(view)
    (sent,) = service.sent("POST", "quotes")
    assert (sent["configuration"], sent["duration"]) == ("two-gpus", 3600)
    assert sent["deadline"] == "2099-03-02T12:00:00Z"


def test_a_quote_without_a_fit(service: FakeService) -> None:
    other = models.Start(start=NOW, end=NOW + timedelta(hours=1), price=2_000_000)
    service.quote = service.quote.model_copy(
        update={"best": None, "feasible": False, "starts": [], "alternative": other}
    )
    with Era() as era:
        view = era.quote("one-gpu")
    assert view.price is None
    assert "nothing fits the window. The cheapest other start: 2.00 credits" in repr(view)


def test_a_job_from_bid_to_files(service: FakeService, tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text("print('hi')")
    service.accept(a_job(directory=str(tmp_path)))
    with Era() as era:
        job = era.submit(script, args=["--epochs", "2"], duration="30m", value="2.5")
        assert (job.id, job.state, job.progress, job.price) == ("3f9c01", "running", 0.25, "0.80")
        assert job.path("train.py").read_text() == "print('hi')"
        for name in ("/etc/passwd", "../other"):
            with pytest.raises(ValueError, match="inside the job's directory"):
                job.path(name)
    (sent,) = service.sent("POST", "jobs")
    assert sent["command"] == [sys.executable, "train.py"]
    assert (sent["value"], sent["args"], sent["name"]) == (2_500_000, ["--epochs", "2"], "train.py")
    assert any("Idempotency-Key" in headers for *_, headers in service.requests)


def test_a_declined_bid(service: FakeService) -> None:
    service.outcome = models.JobOutcome(accepted=False, price=900_000, reason="too little")
    with Era() as era, pytest.raises(Declined, match="too little") as caught:
        era.submit("print(1)", duration="30m", value=0.5)
    assert caught.value.price == "0.90"


def test_refusals_and_silence(service: FakeService, monkeypatch: pytest.MonkeyPatch) -> None:
    service.problem = (402, "You have 1.00 credits.")
    with Era() as era, pytest.raises(EraError, match="You have 1.00 credits") as caught:
        era.submit("print(1)", configuration="one-gpu", duration="30m", value=5)
    assert caught.value.status == 402
    with Era("http://127.0.0.1:9") as era, pytest.raises(EraError, match="can't be reached"):
        era.submit("print(1)", configuration="one-gpu", duration="30m", value=5)
    monkeypatch.delenv("ERA_URL")
    with pytest.raises(EraError, match="Set ERA_URL"):
        Era()


def test_a_lost_answer_is_asked_for_again(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.accept(a_job())
    with Era() as era:
        keys: list[str] = []
        submit = era.client.submit

        def lossy(request: Any, key: str) -> Any:
            keys.append(key)
            answer = submit(request, key)
            if len(keys) == 1:
                raise EraError("lost", 0)
            return answer

        monkeypatch.setattr(era.client, "submit", lossy)
        assert era.submit("print(1)", duration="30m", value=5).id == "3f9c01"
    assert len(keys) == 2 and keys[0] == keys[1]


def test_waiting_for_the_end(
    service: FakeService, no_waiting: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    service.jobs["3f9c01"] = [
        a_job(state=JobState.QUEUED, progress=None),
        a_job(progress=0.5),
        a_job(state=JobState.SUCCEEDED, progress=0.99),
    ]
    with Era() as era:
        job = era.job("3f9c01")
        assert job.wait() is JobState.SUCCEEDED
    assert "train.py 100%" in capsys.readouterr().err
    assert len(no_waiting) == 1


def test_waiting_has_an_end(service: FakeService, no_waiting: list[float]) -> None:
    service.accept(a_job())
    with Era() as era:
        job = era.job("3f9c01")
        with pytest.raises(TimeoutError, match="still running; it goes on"):
            job.wait(timeout=0, show=False)


def test_waiting_outlives_a_restart_but_not_an_error(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.jobs["3f9c01"] = [a_job(), a_job(state=JobState.FAILED)]
    with Era() as era:
        job = era.job("3f9c01")
        service.problem = (503, "restarting")
        monkeypatch.setattr(Era, "_pause", lambda *_: setattr(service, "problem", None))
        assert job.wait(show=False) is JobState.FAILED
        service.problem = (403, "Not yours.")
        with pytest.raises(EraError, match="Not yours"):
            job.wait(show=False)


def test_logs(service: FakeService) -> None:
    service.jobs["3f9c01"] = [a_job(state=JobState.SUCCEEDED)]
    service.logs["3f9c01"] = ["läuft\n", "50%\r", "done\n"]
    with Era() as era:
        job = era.job("3f9c01")
        assert job.log() == "läuft\n50%\rdone\n"
        assert list(job.follow()) == ["läuft\n", "50%\r", "done\n"]


def test_cancelling(service: FakeService) -> None:
    service.accept(a_job())
    with Era() as era:
        assert era.job("3f9c01").cancel().state is JobState.CANCELLED


def test_ids_by_their_beginning(service: FakeService) -> None:
    for job_id in ("3f9c01", "3f9d02", "77aa"):
        service.accept(a_job(job_id))
    with Era() as era:
        assert era.job("77").id == "77aa"
        with pytest.raises(ValueError, match="2 jobs begin"):
            era.job("3f9")
        with pytest.raises(ValueError, match="no job of yours"):
            era.job("zz")
        with pytest.raises(ValueError, match="give a job's id"):
            era.job("..")


def test_looks_are_escaped(service: FakeService) -> None:
    service.accept(a_job(name="<script>alert(1)</script>", message="<b>"))
    with Era() as era:
        for html in (era.job("3f9c01")._repr_html_(), era.jobs()._repr_html_()):
            assert "<script" not in html and "&lt;script" in html
        assert "directory: /home/ann" in repr(era.job("3f9c01"))


def test_the_asynchronous_session_does_the_same(service: FakeService) -> None:
    service.accept(a_job())
    service.logs["3f9c01"] = ["one\n", "two\n"]

    async def main() -> None:
        async with AsyncEra() as era:
            job = await era.submit("print(1)", duration="30m", value=5, deadline="+4h")
            assert [text async for text in job.follow()] == ["one\n", "two\n"]
            assert await job.log() == "one\ntwo\n"
            assert (await era.quote(duration="1h")).price == "0.80"
            assert (await era.job("3f")).id == job.id
            assert len(await era.jobs()) == 1
            assert (await era.account()).name == "ann"
            assert await era.reservations() == []
            service.jobs["3f9c01"] = [a_job(), a_job(state=JobState.SUCCEEDED)]
            assert await job.wait(show=False) is JobState.SUCCEEDED
            assert await job.refresh() is job
            service.outcome = models.JobOutcome(accepted=False, price=None, reason="no")
            with pytest.raises(Declined):
                await era.submit("print(1)", duration="30m", value=5)
            service.problem = (500, "broken")
            with pytest.raises(EraError, match="broken"):
                await era.quote()

    asyncio.run(main())


def test_a_cancelled_wait_closes_its_bar(
    service: FakeService, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    service.accept(a_job())

    async def main() -> None:
        reached = asyncio.Event()

        async def forever(_: float) -> None:
            reached.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(AsyncEra, "_pause", lambda _, seconds: forever(seconds))
        async with AsyncEra() as era:
            task = asyncio.create_task((await era.job("3f9c01")).wait())
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert capsys.readouterr().err.endswith("\n")
