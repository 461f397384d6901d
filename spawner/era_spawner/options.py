"""The choices of somebody who launches a server: from the form, and checked.

`user_options`, as the REST API takes them too, are one of ::

    {"configuration": "gpu-1", "duration": "1h", "max_price": "2.5",
     "latest_start": "2030-01-31T22:00:00+01:00", "account": "group:lab"}
    {"reservation": "<id of a reservation of one's own>"}

`duration` is a number of seconds or a text such as ``1h30m``; `max_price` is the
most the user will pay, in credits; without `latest_start` the server starts now
or not at all. `account` says who pays: ``own`` or ``group:NAME``; without it pays whom the
hub's admins have set.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from era_hub.models import AccountName, Duration, ReservationRequest, micro_credits

LABELS = {
    "account": "Who pays",
    "configuration": "The configuration",
    "duration": "The duration",
    "latest_start": "The latest start",
    "max_price": "The most you will pay",
    "reservation": "The reservation",
}
OPTIONS = frozenset(LABELS)
"""The market's names in `user_options`."""

FORM_FIELDS = OPTIONS | {"hours", "within", "latest_local"}
"""The names of fields in the market's form."""

NEEDED = {
    "configuration": "Say which configuration you want.",
    "duration": "Say for how long you want it.",
    "max_price": "Say the most you will pay, in credits.",
    "reservation": "Say which reservation you want to start.",
}


SKEW = timedelta(seconds=30)
"""A start this near counts as now: the service's clock may differ from the hub's."""


class OptionsError(ValueError):
    """The choices make no sense; the text is one sentence for the user."""


class NewServer(BaseModel):
    """A bid for a new reservation."""

    # Unknown keys are errors, so that typos are found.
    model_config = ConfigDict(extra="forbid")

    configuration: str = Field(min_length=1, max_length=200)
    duration: Duration
    latest_start: AwareDatetime | None = None
    max_price: Annotated[int, BeforeValidator(micro_credits)]
    account: AccountName | None = None

    def request(self, user: str, server_name: str, now: datetime) -> ReservationRequest:
        """The bid for the service.

        Raises
        ------
        OptionsError
            If the service would not take it.
        """
        try:
            deadline = None
            # A latest start that has passed while the form was open means "now".
            if self.latest_start and self.latest_start > now:
                deadline = self.latest_start + timedelta(seconds=self.duration)
                deadline = deadline.astimezone(UTC)
        except OverflowError:
            raise OptionsError("The latest start is too far in the future.") from None
        try:
            return ReservationRequest(
                configuration=self.configuration,
                duration=self.duration,
                deadline=deadline,
                value=self.max_price,
                server_name=server_name,
                user=user,
                account=self.account,
            )
        except ValidationError as error:
            raise OptionsError(_sentence(error)) from None


class OwnReservation(BaseModel):
    """The start of a reservation made before."""

    model_config = ConfigDict(extra="forbid")

    # The id becomes part of a URL.
    reservation: str = Field(pattern="^[A-Za-z0-9_-]{1,200}$")


def parse(options: Any) -> NewServer | OwnReservation:
    """Check `user_options`, which anybody may send.

    Raises
    ------
    OptionsError
        With one sentence that says what to change.
    """
    if not isinstance(options, Mapping):
        raise OptionsError("The options of a server must be names with values.")
    model = OwnReservation if "reservation" in options else NewServer
    try:
        return model.model_validate(dict(options))
    except ValidationError as error:
        raise OptionsError(_sentence(error)) from None


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    field = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "missing":
        return NEEDED[field]
    if first["type"] == "extra_forbidden":
        known = "configuration, duration, latest_start, max_price and account"
        known += ", or reservation alone"
        return f"{field!r} is not an option of a server; the options are {known}."
    if first["type"] == "string_pattern_mismatch" and field == "account":
        return f"Who pays must be own or group:NAME, not {first['input']!r}."
    if first["type"] == "string_pattern_mismatch":
        return "There is no such reservation."
    reason = first["msg"].removeprefix("Value error, ")
    return f"{LABELS.get(field, 'The options')}: {reason}."


def from_form(data: Mapping[str, Any], now: datetime | None = None) -> dict[str, str]:
    """`user_options` from the fields of the form or the query of a link.

    Only the shape changes here; `parse` judges the values when the server starts.
    Besides the form's own fields, those of `user_options` are understood, so that
    links such as ``/hub/spawn?opt-configuration=gpu-1&opt-duration=1h&opt-max_price=2``
    work.

    Raises
    ------
    OptionsError
        If hours or a time of day can't be read.
    """
    given = {key: value for key in data if (value := _text(data[key]))}
    if "reservation" in given:
        return {"reservation": given["reservation"]}
    taken = ("configuration", "duration", "max_price", "account")
    options: dict[str, str] = {key: given[key] for key in taken if key in given}
    if "hours" in given:
        options["duration"] = _hours(given["hours"])
    latest = _latest_start(given, now or datetime.now(UTC))
    if latest:
        options["latest_start"] = latest
    return options


def _text(values: Any) -> str:
    first = values[0] if isinstance(values, (list, tuple)) and values else values
    return first.strip() if isinstance(first, str) else ""


def _hours(text: str) -> str:
    try:
        seconds = round(float(text) * 3600)
    except (ValueError, OverflowError):
        seconds = 0
    if seconds <= 0:
        raise OptionsError(f"The hours must be a number above zero, such as 1.5, not {text!r}.")
    return f"{seconds}s"


def _latest_start(given: Mapping[str, str], now: datetime) -> str | None:
    within = given.get("within", "at")
    if within != "at":
        try:
            hours = float(within)
            return (now + timedelta(hours=hours)).isoformat() if hours > 0 else None
        except (ValueError, OverflowError):
            raise OptionsError(f"The latest start can't be within {within!r} hours.") from None
    if "latest_start" in given:
        return given["latest_start"]
    if "latest_local" not in given:
        if "within" in given:
            raise OptionsError("Say at what date and time the server must start at the latest.")
        return None
    try:
        # Without JavaScript the browser's time zone is unknown: the hub's is taken.
        return datetime.fromisoformat(given["latest_local"]).astimezone().isoformat()
    except (ValueError, OverflowError):
        raise OptionsError(
            f"The latest start must be a date and a time, not {given['latest_local']!r}."
        ) from None
