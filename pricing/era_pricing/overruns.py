"""Overruns: going on after the reserved end while the units are idle."""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass, replace

from era_pricing.books import Books
from era_pricing.plan import Plan, Span
from era_pricing.reservations import Allocation, Placement, Reservation, last_of


@dataclass(frozen=True)
class Overrun:
    """A reservation that has ended and goes on.

    Attributes
    ----------
    reservation
        What has ended.
    span
        The units it keeps; slots do not matter.
    seen
        Until when its units are known to have been idle, UTC seconds.
    """

    reservation: Reservation
    span: Span
    seen: int

    @property
    def until(self) -> int:
        """When it ends at the latest, UTC seconds."""
        return self.reservation.end + self.reservation.overrun

    def refund(self, ended: int) -> int:
        """The price of the time that it did not get."""
        missing = max(self.until - ended, 0)
        return self.reservation.overrun_price * missing // self.reservation.overrun


class Overruns:
    """Who goes on after the reserved end.

    An overrun has lower priority than every reservation: it ends with the slot in
    which its units are promised to somebody. Of two that compete, the one that
    began first goes on.

    Parameters
    ----------
    books
        The reservations and their plan.
    """

    def __init__(self, books: Books) -> None:
        self._books = books
        books.watch = self.note
        self._coming: list[tuple[int, str]] = []
        self._active: dict[str, Overrun] = {}
        self._ended: dict[str, int] = {}

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._active

    def note(self, reservation: Reservation) -> None:
        """Remember when a reservation ends, if it has an overrun."""
        if reservation.overrun:
            heapq.heappush(self._coming, (reservation.end, reservation.job_id))

    def rebuild(self, reservations: Iterable[Reservation], now: int) -> None:
        """Forget all, and note these; those that have ended go on from now."""
        self._coming, self._active, self._ended = [], {}, {}
        for reservation in reservations:
            if reservation.end > now:
                self.note(reservation)
            elif reservation.end + reservation.overrun > now:
                self.begin(reservation, now)

    def begin(self, reservation: Reservation, now: int) -> None:
        """Let a reservation that has ended go on from now."""
        last = last_of(reservation.placements)
        span = self._books.span(last)
        self._active[reservation.job_id] = Overrun(reservation, span, now)

    def check(self, now: int) -> None:
        """Begin what is due, and end what has lost its units or its time."""
        while self._coming and self._coming[0][0] <= now:
            end, key = heapq.heappop(self._coming)
            reservation = self._books.reservations.get(key)
            # There is another entry for one that has been moved to another end.
            if reservation is not None and reservation.overrun and reservation.end == end:
                self.begin(reservation, end)
        if self._active:
            goes_on, ended = self._look(self._active.values(), now)
            self._active = {each.reservation.job_id: each for each in goes_on}
            self._ended.update(ended)

    def stop(self, job_id: str, now: int) -> int:
        """End an overrun; the refund."""
        return self._active.pop(job_id).refund(now)

    def take_ended(self) -> dict[str, int]:
        """Refunds of those that ended since this was last asked, by job id."""
        ended, self._ended = self._ended, {}
        return ended

    def reservations(self) -> tuple[Reservation, ...]:
        """The reservations that are going on."""
        return tuple(each.reservation for each in self._active.values())

    def allocations(self, now: int) -> dict[str, Allocation]:
        """What runs in an overrun at `now`, which may be later than the last check."""
        running = dict(self._active)
        for end, key in sorted(entry for entry in self._coming if entry[0] <= now):
            reservation = self._books.reservations.get(key)
            due = reservation is not None and reservation.overrun and reservation.end == end
            if due and reservation is not None:
                last = last_of(reservation.placements)
                running[key] = Overrun(reservation, self._books.span(last), end)
        goes_on, _ = self._look(running.values(), now)
        return {
            each.reservation.job_id: Allocation(_last(each.reservation), each.until, overrun=True)
            for each in goes_on
        }

    def _look(self, overruns: Iterable[Overrun], now: int) -> tuple[list[Overrun], dict[str, int]]:
        """Which go on until now, and the refunds of the others."""
        grid, plan = self._books.grid, self._books.plan
        goes_on: list[Overrun] = []
        ended: dict[str, int] = {}
        with plan.trial() as trial:
            for each in overruns:
                key = each.reservation.job_id
                limit = min(now, each.until - 1)
                # The rest of the slot in which the reservation ended is still its own.
                first = max(grid.index(each.seen), grid.index_up(each.reservation.end), plan.base)
                lost = _first_lost(plan, each.span, first, grid.index(limit) + 1)
                if lost is not None:
                    ended[key] = each.refund(max(lost * grid.slot, each.seen))
                elif now >= each.until:
                    ended[key] = 0
                else:
                    goes_on.append(replace(each, seen=max(now, each.seen)))
                    end = max(grid.index(now) + 1, first)
                    trial.add((each.span._replace(first=first, end=end),))
        return goes_on, ended


def _first_lost(plan: Plan, span: Span, first: int, end: int) -> int | None:
    """The first of the slots first, ..., end - 1 in which a span has no room."""
    for slot in range(first, end):
        if not plan.fits(span._replace(first=slot, end=slot + 1)):
            return slot
    return None


def _last(reservation: Reservation) -> tuple[Placement, ...]:
    return tuple(p for p in reservation.placements if p.end == reservation.end)
