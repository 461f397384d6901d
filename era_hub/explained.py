"""What an entry of an account means, in a sentence, for owners and for admins."""

from __future__ import annotations

from . import views
from .models import LedgerEntry, State
from .store.ledger import Movement
from .store.tables import Reservation

_REFUNDS = {
    State.CANCELLED: "Cancelled {} before it began: its price is given back",
    State.RELEASED: "Released {} before its end: the time not used is refunded",
    State.FAILED: "Refunded as {} failed",
    State.COMPLETED: "Done early with {}: the time not used is refunded",
}


def explain(each: Movement) -> str:
    """For admins: with who did it, the reservation's id, and times in UTC."""
    reservation = f" (reservation {each.reservation_id})" if each.reservation_id else ""
    memo = f": {each.memo}" if each.memo else ""
    if each.kind == "grant":
        lapse = f"; they lapse at {views.text(each.expires)}" if each.expires else ""
        return f"Credits given by {_actor(each.actor)}{memo}{lapse}"
    if each.kind == "withdrawal":
        return f"Credits taken back by {_actor(each.actor)}{memo}"
    if each.kind == "expiry":
        since = f" at {views.text(each.expires)}" if each.expires else ""
        return f"Credits that were not used lapsed{since}"
    if each.kind == "hold":
        what = "Set aside for an extension" if each.part else "Set aside"
        return f"{what}{memo}{reservation}"
    if each.kind == "charge":
        return f"Paid for time used{memo}{reservation}"
    if each.kind == "refund":
        return f"Given back from what was set aside{memo}{reservation}"
    return f"{each.kind}{memo}{reservation}"


def entry(each: Movement, row: Reservation | None, reader: str) -> LedgerEntry:
    """For somebody who may pay from the account.

    What others reserved is told with its price and time, as these are the account's; who
    they are and which reservation it was is not. Nor is it told who of the admins did it.

    Parameters
    ----------
    row : Reservation or None
        The one that the entry is about, as it is now.
    reader : str
        The user who reads it.
    """
    own = row is None or row.user == reader
    return LedgerEntry(
        id=each.id,
        at=views.when(each.at),
        kind=each.kind,
        amount=each.amount,
        balance=each.balance,
        reservation=each.reservation_id if own else None,
        part=each.part,
        memo=each.memo,
        text=_sentence(each, row, own),
        start=None if row is None else views.when(row.start),
        end=None if row is None else views.when(row.end),
        expires=None if each.expires is None else views.when(each.expires),
    )


def _sentence(each: Movement, row: Reservation | None, own: bool) -> str:
    """Without times: readers want them on their own clocks."""
    if row is not None:
        text = _about(each, row, own)
        return text if own else f"Another member: {text[:1].lower()}{text[1:]}"
    memo = f": {each.memo}" if each.memo else ""
    if each.kind == "grant":
        kind = each.actor.partition(":")[0]
        source = {"admin": " from an admin", "grant": " from a standing grant"}.get(kind, "")
        return f"Received{source}{memo}"
    if each.kind == "withdrawal":
        return f"Taken back by an admin{memo}"
    if each.kind == "expiry":
        return "Lapsed: these credits were not used in time"
    return each.memo[:1].upper() + each.memo[1:]


def _about(each: Movement, row: Reservation, own: bool) -> str:
    job = "" if row.job is None else f" for the job {row.job.name}" if own else " for a job"
    what = row.configuration + job
    if each.kind == "refund":
        state = State(row.state)
        # Why is the owner's business: it may quote what their job said.
        why = f": {row.message}" if own and state is State.FAILED and row.message else ""
        return _REFUNDS.get(state, "Refunded for {}").format(what) + why
    # The memo says for how long, and does not change when the reservation does.
    said = each.memo[:1].upper() + each.memo[1:] + job
    return said if State(row.state).final else f"{said}; held until it ends"


def _actor(actor: str) -> str:
    kind, _, name = actor.partition(":")
    if kind == "admin":
        return name
    if kind == "grant":
        return f"standing grant {name}"
    return "the market"
