"""What goes over the wire: amounts, durations, requests and answers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter, ValidationError

from era_hub import models
from era_hub.models import (
    MAX_CREDITS,
    MICRO,
    JobRequest,
    JobState,
    QuoteRequest,
    ReservationRequest,
    State,
    format_credits,
    micro_credits,
    parse_duration,
)

NOON = datetime(2027, 1, 15, 12, tzinfo=UTC)
BID = {"configuration": "gpu-1", "duration": "1h", "value": 1_000_000}
SCRIPT = {**BID, "script": "print(1)"}


# -- durations ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        (90, 90),
        ("90", 90),
        ("90s", 90),
        ("30m", 1800),
        ("30min", 1800),
        ("1h", 3600),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("2d", 172_800),
        ("1d 2h 3m 4s", 93_784),
        ("  45m  ", 2700),
        (0.2, 1),
        (59.6, 60),
        (10**9 - 1, 10**9 - 1),
    ],
)
def test_durations_that_people_write(given: Any, seconds: int) -> None:
    assert parse_duration(given) == seconds


@pytest.mark.parametrize(
    "given",
    [
        *("", " ", "soon", "h", "1h30", "30m1h", "1:30", "-5m", "- 5", "1e3", "nan", "1h1h", "5w"),
        *("1h 30", "1 2", "1.", ".5h", "1 h 30 min 5 x"),
        *("0", "0h", 0, -1, float("nan"), float("inf"), 10**9),
        *(True, None, [60], {"h": 1}),
        pytest.param("9" * 400, id="digits"),
        pytest.param(10**400, id="more than a float holds"),
        # These must not take for ever either: anybody may send them.
        pytest.param(" " * 100_000 + "x", id="blanks"),
        pytest.param("1" * 100_000 + "x", id="ones"),
        pytest.param("1 h " * 25_000, id="hours"),
    ],
)
def test_what_is_no_duration(given: Any) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(given)


@given(
    st.integers(0, 3000), st.integers(0, 23), st.integers(0, 59), st.integers(0, 59), st.booleans()
)
def test_the_parts_of_a_duration_add_up(d: int, h: int, m: int, s: int, spaced: bool) -> None:
    parts = [f"{amount}{unit}" for amount, unit in ((d, "d"), (h, "h"), (m, "m"), (s, "s"))]
    seconds = int(timedelta(days=d, hours=h, minutes=m, seconds=s).total_seconds())
    text = (" " if spaced else "").join(parts)
    if seconds:
        assert parse_duration(text) == seconds
    else:
        with pytest.raises(ValueError, match="more than zero"):
            parse_duration(text)


@given(st.one_of(st.text(max_size=20), st.integers(), st.floats()))
def test_anything_else_is_refused_in_words(given: Any) -> None:
    try:
        seconds = parse_duration(given)
    except ValueError as error:
        assert "duration" in str(error)
    else:
        assert 0 < seconds <= 10**9


# -- credits ------------------------------------------------------------------


@given(st.integers(0, MAX_CREDITS * MICRO))
def test_amounts_survive_being_shown(micro: int) -> None:
    assert micro_credits(format_credits(micro)) == micro


@pytest.mark.parametrize(
    ("micro", "text"),
    [
        (0, "0.00"),
        (1, "0.000001"),
        (10_000, "0.01"),
        (2_500_000, "2.50"),
        (1_234_567, "1.234567"),
        (100 * MICRO, "100.00"),
        (-500_000, "-0.50"),
        (-1, "-0.000001"),
    ],
)
def test_amounts_are_shown_with_the_decimals_that_matter(micro: int, text: str) -> None:
    assert format_credits(micro) == text


@pytest.mark.parametrize(
    ("given", "micro"),
    [
        ("2.5", 2_500_000),
        (2.5, 2_500_000),
        (3, 3 * MICRO),
        ("0", 0),
        (0.1, 100_000),
        ("1e3", 10**9),
    ],
)
def test_amounts_are_read_exactly(given: Any, micro: int) -> None:
    assert micro_credits(given) == micro


@pytest.mark.parametrize(
    "given", ["", "much", "2,50", "-0.01", "nan", "inf", "-inf", float("nan"), MAX_CREDITS + 1]
)
def test_what_is_no_amount(given: Any) -> None:
    with pytest.raises(ValueError, match="amount"):
        micro_credits(given)


# -- states -------------------------------------------------------------------


def test_what_is_over_is_final() -> None:
    assert {each for each in State if not each.final} == {State.ACCEPTED, State.ACTIVE}
    assert {each for each in JobState if not each.final} == {JobState.QUEUED, JobState.RUNNING}


# -- requests -----------------------------------------------------------------


def refused(model: type[BaseModel], **fields: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(fields)
    return str(caught.value)


def test_a_request_may_be_short() -> None:
    request = ReservationRequest.model_validate(BID)
    assert (request.duration, request.count) == (3600, 1)
    assert (request.arrival, request.deadline) == (None, None)


@pytest.mark.parametrize("model", [QuoteRequest, ReservationRequest, JobRequest])
@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"deadline": NOON, "arrival": NOON}, "later than the arrival"),
        ({"deadline": NOON - timedelta(hours=1), "arrival": NOON}, "later than the arrival"),
        ({"arrival": "2027-01-15T12:00:00"}, "timezone"),
        ({"deadline": "tomorrow"}, "deadline"),
        ({"duration": float("nan")}, "more than zero"),
        ({"duration": -60}, "more than zero"),
        pytest.param({"duration": 10**400}, "duration", id="endless"),
        ({"duration": None}, "not a duration"),
        ({"count": 0}, "greater than or equal to 1"),
        ({"count": -1}, "greater than or equal to 1"),
        ({"count": float("nan")}, "count"),
        ({"count": 10**7}, "less than or equal to"),
        ({"configuration": None}, "configuration"),
        ({"configuration": "x" * 201}, "at most 200"),
        ({"valeu": 1}, "Extra inputs are not permitted"),
    ],
)
def test_requests_that_make_no_sense(
    model: type[BaseModel], fields: dict[str, Any], says: str
) -> None:
    whole: dict[str, Any] = {"configuration": "gpu-1", "duration": "1h"}
    if model is not QuoteRequest:
        whole["value"] = 1
    if model is JobRequest:
        whole["script"] = "print(1)"
    assert model.model_validate(whole)
    assert says in refused(model, **whole | fields)


@pytest.mark.parametrize("model", [ReservationRequest, JobRequest])
@pytest.mark.parametrize(
    "value", [-1, float("nan"), float("inf"), 0.5, MAX_CREDITS * MICRO + 1, None, "much"]
)
def test_values_that_nobody_can_pay(model: type[BaseModel], value: Any) -> None:
    whole = SCRIPT if model is JobRequest else BID
    assert "value" in refused(model, **whole | {"value": value})


def test_a_value_is_needed_to_bid() -> None:
    assert "value" in refused(ReservationRequest, configuration="gpu-1", duration=60)


@pytest.mark.parametrize(
    "filename",
    [
        *("../run.py", "a/b.py", "/etc/passwd", "..", ".", "", ".bashrc", "-rf"),
        *("a\0b", "a b.py", "run.py\n", "über.py", "x" * 129),
    ],
)
def test_the_name_of_a_script_is_a_plain_one(filename: str) -> None:
    assert "filename" in refused(JobRequest, **SCRIPT, filename=filename)


@pytest.mark.parametrize("filename", ["run.py", "train_2.py", "a", "A-b.c.py", "x" * 128])
def test_plain_names_are_fine(filename: str) -> None:
    assert JobRequest.model_validate({**SCRIPT, "filename": filename}).filename == filename


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "a\0b"},
        {"command": ["python", "a\0b"]},
        {"args": ["\0"]},
        {"environment": {"A": "x\0y"}},
    ],
)
def test_a_job_holds_no_nul_characters(fields: dict[str, Any]) -> None:
    assert "NUL" in refused(JobRequest, **SCRIPT, **fields)


@pytest.mark.parametrize("name", ["", "1A", "A B", "A=B", "A-B", "Ä", "A\n", "A\0"])
def test_names_that_no_shell_takes(name: str) -> None:
    said = refused(JobRequest, **SCRIPT, environment={name: "1"})
    assert "not a name for an environment variable" in said


def test_names_of_variables() -> None:
    variables = {"PATH": "", "_x1": "ü", "a": "a\nb"}
    request = JobRequest.model_validate({**SCRIPT, "environment": variables})
    assert request.environment == variables


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "give a script or a command"),
        ({"script": None, "command": None}, "give a script or a command"),
        ({"command": []}, "command"),
        ({"command": "python x.py"}, "command"),
        ({"script": "x", "name": ""}, "name"),
        ({"script": "x" * 1_000_001}, "script"),
    ],
)
def test_a_job_needs_something_to_run(fields: dict[str, Any], says: str) -> None:
    assert says in refused(JobRequest, **BID, **fields)


@pytest.mark.parametrize("fields", [{"script": ""}, {"command": ["true"]}])
def test_a_script_or_a_command_will_do(fields: dict[str, Any]) -> None:
    assert JobRequest.model_validate({**BID, **fields}).name == "job"


# -- answers ------------------------------------------------------------------

SEEN = NOON + timedelta(hours=1)
START = models.Start(start=NOON, end=SEEN, price=200_000)
RESERVATION = models.Reservation(
    id="7f0c",
    kind=models.Kind.JOB,
    user="ann",
    configuration="gpu-1",
    units=1,
    state=State.ACTIVE,
    arrival=NOON,
    deadline=SEEN,
    duration=3600,
    start=NOON,
    end=SEEN,
    value=MICRO,
    price=200_000,
    gpus=[3],
    created=NOON,
)
JOB = models.Job(
    id="7f0c",
    name="train",
    user="ann",
    state=JobState.TIMED_OUT,
    progress=0.5,
    exit_code=-15,
    directory="/home/ann",
    reservation=RESERVATION,
)
FORECAST = models.PriceForecast(expected=[2, None], low=[1, None], high=[3, None])
PRICES = models.ConfigurationPrices(
    name="gpu-1",
    title="1 GPU",
    resources={"nvidia.com/gpu": "1"},
    gpus=1,
    price_per_hour=None,
    prices=[1, None],
    forecast=FORECAST,
)
ENTRY = models.LedgerEntry(id=1, at=NOON, kind="hold", amount=-5, balance=95, memo="reserved")
ANSWERS: list[BaseModel] = [
    START,
    models.Quote(configuration="gpu-1", duration=3600, feasible=True, best=START, starts=[START]),
    models.Quote(configuration="gpu-1", duration=3600, feasible=False, best=None, starts=[]),
    RESERVATION,
    models.Outcome(accepted=True, price=200_000, reason=None, reservation=RESERVATION),
    models.Outcome(accepted=False, price=None, reason="sold out", alternative=START),
    JOB,
    models.JobOutcome(accepted=True, price=1, reason=None, reservation=RESERVATION, job=JOB),
    models.Log(text="ünï\n", offset=7, complete=False),
    FORECAST,
    PRICES,
    models.Market(
        now=NOON,
        pool="local",
        slot=300,
        first_slot=NOON,
        horizon=SEEN,
        resource="nvidia.com/gpu",
        simulated=True,
        capacity=[8, 8],
        promised=[0, 5],
        configurations=[PRICES],
    ),
    ENTRY,
    models.Account(name="ann", balance=95, held=5, entries=[ENTRY]),
    models.AccountSummary(account="group:lab", balance=-1, held=2, default=True),
    models.ExtensionQuoteRequest(duration=600),
    models.ExtensionRequest(duration=600, value=5),
    models.ExtensionQuote(feasible=False, price=None, end=NOON, reason="no room"),
    models.Notice(id="n", level="warning", text="ends soon", reservation="7f0c", at=NOON),
    models.User(name="ann", kind="user", scopes=["custom:era:bid"]),
    models.Problem(title="Conflict", status=409, detail="not now"),
    models.Health(status="ok"),
    models.Version(version="0.1.0", api="v1"),
]


@pytest.mark.parametrize("answer", ANSWERS, ids=lambda each: type(each).__name__)
def test_answers_survive_the_wire(answer: BaseModel) -> None:
    assert type(answer).model_validate_json(answer.model_dump_json()) == answer


def test_every_answer_is_tried_above() -> None:
    requests = {models.Model, models.RequestBase, QuoteRequest, ReservationRequest, JobRequest}
    public = {
        each
        for each in vars(models).values()
        if isinstance(each, type) and issubclass(each, models.Model)
    }
    assert {type(each) for each in ANSWERS} == public - requests


def test_times_carry_their_zone() -> None:
    shown = TypeAdapter(dict[str, Any]).validate_json(START.model_dump_json())
    assert shown == {
        "start": "2027-01-15T12:00:00Z",
        "end": "2027-01-15T13:00:00Z",
        "price": 200_000,
    }


def test_an_older_client_ignores_what_a_newer_service_adds() -> None:
    assert models.Health.model_validate_json('{"status": "ok", "since": "dawn"}').status == "ok"
