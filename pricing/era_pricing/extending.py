"""Extending a reservation beyond its end, at today's prices."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from era_pricing.bids import LATEST, MOST_VALUE, Commitment, ResourceRequest, whole
from era_pricing.books import Books
from era_pricing.commitments import Commitments
from era_pricing.moving import Openings, moved, need_of
from era_pricing.placement import assign
from era_pricing.plan import Span
from era_pricing.quoting import Quoter
from era_pricing.reservations import (
    EMPTY,
    Menu,
    Placement,
    Quote,
    Reservation,
    Window,
    last_of,
)


def check(seconds: int, value: int) -> tuple[int, int]:
    """The arguments of `Era.extend`, or a BidError that names the wrong one."""
    seconds = whole("seconds", seconds, 1, LATEST, "seconds")
    return seconds, whole("value", value, 0, MOST_VALUE, "micro-credits")


class Extending:
    """Prices and enters extensions. Parameters as in `Era`."""

    def __init__(self, books: Books, quoter: Quoter, commitments: Commitments) -> None:
        self._books = books
        self._grid = books.grid
        self._quoter = quoter
        self._commitments = commitments

    def quote(
        self, reservation: Reservation, seconds: int, now: int
    ) -> tuple[Quote, Reservation | None]:
        """The price of an extension, and the reservation as it would be with it.

        Parameters
        ----------
        reservation
            What is to be extended; it has not ended.
        seconds
            By how much; rounded up to whole slots.
        now
            UTC seconds.
        """
        grid = self._grid
        last = last_of(reservation.placements)
        longer = grid.slots_for(seconds) * grid.slot
        if last.end + longer > grid.horizon_end(now):
            reason = f"the pool sells until {grid.horizon_end(now)} UTC seconds"
            return self._declined(last, longer, reason), None
        place: Placement | None = last
        if not self._has_room(reservation, last, longer):
            place = self._elsewhere(reservation, last, longer, now)
        if place is None:
            reason = "what comes after it on its nodes is promised to others"
            return self._declined(last, longer, reason), None
        whole_slots = reservation.commitment is not Commitment.FIXED
        parts = self._quoter.parts(place, place.end, place.end + longer, now, whole_slots)
        if parts is None:
            return self._declined(last, longer, "the time after its end is not for sale"), None
        piece = replace(place, start=place.end, end=place.end + longer, slot_prices=parts)
        starts = np.array([piece.start], dtype=np.int64)
        prices = np.array([sum(parts)], dtype=np.int64)
        menu = replace(self._menu(place, longer), starts=starts, prices=prices)
        return Quote(((menu,),), 0, (piece,)), self._joined(reservation, last, place, piece)

    def enter(self, reservation: Reservation, now: int) -> None:
        """Put an extended reservation in the place of the one that there is."""
        books = self._books
        old = books.reservations[reservation.job_id]
        last = last_of(old.placements)
        new = last_of(reservation.placements)
        if new.start == last.start and new.shares == last.shares:
            extra = self._extra(last, new.end)
            if not books.plan.fits(extra):
                self._commitments.make_room(extra, now)
        books.replace(reservation, now)

    def _extra(self, last: Placement, end: int) -> Span:
        """What an extension takes from the plan in addition."""
        grid = self._grid
        first = grid.index_up(last.end)
        return self._books.span(last)._replace(first=first, end=grid.index_up(end))

    def _has_room(self, reservation: Reservation, last: Placement, longer: int) -> bool:
        """Whether the units are free after the end, or can be freed."""
        extra = self._extra(last, last.end + longer)
        if self._books.plan.fits(extra):
            return True
        latest = self._books.latest
        if latest is None or latest.plan is None or reservation.job_id in latest.places:
            return False
        return latest.plan.fits(extra)

    def _elsewhere(
        self, reservation: Reservation, last: Placement, longer: int, now: int
    ) -> Placement | None:
        """The last placement at the nearest start at which it could be longer, if it may move."""
        if not reservation.windows or last.start <= now:
            return None
        books, plan = self._books, self._books.plan
        window = reservation.windows[last.request]
        others = [p for p in reservation.placements if p is not last and p.end > now]
        taken = [books.span(p)[:2] for p in others if p.request == last.request]
        probe = replace(last, end=last.end + longer)
        own = plan.remove(reservation.job_id)
        try:
            with plan.trial() as trial:
                trial.add(books.spans(others))
                start = Openings(books, plan, probe, window, now, taken).nearest(last.start)
                if start is None:
                    return None
                span = books.span(replace(probe, start=start, end=start + probe.end - probe.start))
                free_units = plan.free(span.first, span.end - span.first)
                assignment = assign(free_units, need_of(books, last))
        finally:
            plan.add(reservation.job_id, own)
        assert assignment is not None
        return moved(books, last, start, assignment)

    def _joined(
        self, reservation: Reservation, last: Placement, place: Placement, piece: Placement
    ) -> Reservation:
        """The reservation with its last placement at `place`, and the piece appended."""
        prices, added = list(place.slot_prices), list(piece.slot_prices)
        if place.end % self._grid.slot:
            prices[-1] += added.pop(0)
        joined = replace(place, end=piece.end, slot_prices=(*prices, *added))
        placements = tuple(joined if p is last else p for p in reservation.placements)
        windows = list(reservation.windows)
        if windows:
            old = windows[last.request]
            windows[last.request] = Window(old.arrival, max(old.deadline, piece.end))
        return replace(reservation, placements=placements, windows=tuple(windows))

    def _menu(self, last: Placement, longer: int) -> Menu:
        end = min(last.end, LATEST - longer)
        request = ResourceRequest(last.configurations, longer, end, end + longer)
        return Menu(request, self._quoter.priced_units(last), EMPTY, EMPTY)

    def _declined(self, last: Placement, longer: int, reason: str) -> Quote:
        return Quote(((replace(self._menu(last, longer), reason=reason),),), reason=reason)
