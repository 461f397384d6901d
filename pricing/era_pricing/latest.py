"""A second plan, in which everything that may be moved is as late as it can be.

Whether the promised jobs leave room at some start is a question about all the ways
to arrange them. Two arrangements answer it well enough, at once for all starts: the
plan, and this one. A start is for sale if either has room, so it does not depend on
the window of the bidder who asks; and what the second plan has room for can be kept,
since everybody can be moved to where they are there.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from era_pricing.moving import Openings
from era_pricing.plan import Plan, Span
from era_pricing.reservations import Placement, Reservation

if TYPE_CHECKING:
    from era_pricing.books import Books


_AT_ONCE = 1000
"""Jobs that are put off while somebody waits for what has become of lost capacity."""


class LatestPlan:
    """The plan of `books` with its movable jobs as late as they go.

    Only jobs of one placement are moved here; whatever else may be moved is taken as
    fixed.

    Attributes
    ----------
    plan : Plan or None
        None while there is nothing to move.
    places : dict
        Where each movable job is in it, by job id.
    """

    def __init__(self, books: Books) -> None:
        self._books = books
        self.plan: Plan | None = None
        self._places: dict[str, Placement] = {}
        self._starts: list[tuple[int, str]] = []
        self._stale = False

    @property
    def places(self) -> Mapping[str, Placement]:
        """Where each movable job is, by job id."""
        return self._places

    def insert(self, reservation: Reservation, now: int) -> None:
        """Take in a reservation that the plan has got."""
        key = reservation.job_id
        movable = _movable(reservation, now)
        if self.plan is None:
            if movable:
                self._copy(now)
                self._stale = False
                self._put_off(key, now)
            return
        if not movable:
            self._firm(key, now)
            return
        self._note(reservation)
        self._enter(reservation, now)

    def change(self, reservation: Reservation, now: int) -> None:
        """Take in that a reservation has been moved or extended."""
        if self.plan is None:
            self.insert(reservation, now)
        elif reservation.job_id not in self._places:
            self.plan.remove(reservation.job_id)
            self._firm(reservation.job_id, now)
        elif not _movable(reservation, now):
            del self._places[reservation.job_id]
            self.plan.remove(reservation.job_id)
            self._firm(reservation.job_id, now)
        else:
            place, new = self._places[reservation.job_id], reservation.placements[0]
            self._note(reservation)
            if place.end - place.start != new.end - new.start:
                del self._places[reservation.job_id]
                self.plan.remove(reservation.job_id)
                self._enter(reservation, now)

    def remove(self, key: str) -> None:
        """Take in that the plan has lost a reservation."""
        if self.plan is not None and key in self.plan:
            self.plan.remove(key)
            self._places.pop(key, None)
            if not self._places:
                self.plan = None

    def reset(self) -> None:
        """Forget everything; what follows is a `renew` or inserts."""
        self.plan = None
        self._places, self._starts, self._stale = {}, [], False

    def renew(self, now: int) -> None:
        """Start again from the plan; many jobs are put off only when the next slot begins."""
        self.reset()
        if any(_movable(r, now) for r in self._books.to_begin(now)):
            self._copy(now)
            if len(self._places) <= _AT_ONCE:
                self._spread(now)

    def slot_begins(self, slot: int, now: int) -> None:
        """Move time on."""
        if self.plan is None:
            return
        # As the slot goes on, what begins with it would lie in the past, too.
        begun = self.plan.begin_before(slot + 1, self._places)
        self.plan.advance(slot)
        self.sync(now)
        for key in begun:
            if key in self._places and not self._put_later(key, now):
                break
        if self._stale and self._places:
            self._spread(now)

    def sync(self, now: int) -> None:
        """What has begun stays where it is in the plan."""
        while self._starts and self._starts[0][0] <= now:
            key = heapq.heappop(self._starts)[1]
            if key not in self._places or self.plan is None:
                continue
            reservation = self._books.reservations[key]
            if reservation.start > now:
                self._note(reservation)
                if self._places[key].start <= now:
                    self._put_later(key, now)
                continue
            del self._places[key]
            self.plan.remove(key)
            self._firm(key, now)
        if not self._places:
            self.plan = None

    def _enter(self, reservation: Reservation, now: int) -> bool:
        """Put a movable job where it is latest; False as of `_firm`."""
        assert self.plan is not None
        key, place = reservation.job_id, self._last_place(reservation, now)
        if place is not None:
            self._places[key] = place
            self.plan.add(key, self._books.spans((place,)))
        elif self._firm(key, now):
            # As where the window has no boundary of slots to start at: it stays where it is.
            self._places[key] = reservation.placements[0]
        else:
            return False
        return True

    def _note(self, reservation: Reservation) -> None:
        heapq.heappush(self._starts, (reservation.start, reservation.job_id))

    def _copy(self, now: int) -> None:
        """Begin with everything where it is in the plan."""
        self.plan = self._books.plan.copy()
        self._places, self._starts = {}, []
        for reservation in self._books.to_begin(now):
            if _movable(reservation, now):
                self._places[reservation.job_id] = reservation.placements[0]
                self._note(reservation)
        self._stale = True

    def _spread(self, now: int) -> None:
        """Put everything off, what has the latest deadline first."""
        self._stale = False
        reservations = self._books.reservations
        order = sorted(self._places, key=lambda key: -reservations[key].windows[0].deadline)
        for key in order:
            self._put_off(key, now)

    def _put_later(self, key: str, now: int) -> bool:
        """Move what lies in the past but has not begun; False if all are in the plan's places."""
        assert self.plan is not None
        self.plan.remove(key)
        del self._places[key]
        return self._enter(self._books.reservations[key], now)

    def _put_off(self, key: str, now: int) -> None:
        assert self.plan is not None
        spans = self.plan.remove(key)
        place = self._last_place(self._books.reservations[key], now)
        if place is None:
            self.plan.add(key, spans)
            return
        self._places[key] = place
        self.plan.add(key, self._books.spans((place,)))

    def _last_place(self, reservation: Reservation, now: int) -> Placement | None:
        assert self.plan is not None
        placement, books = reservation.placements[0], self._books
        # What has not begun by now begins later than now.
        openings = Openings(books, self.plan, placement, reservation.windows[0], now + 1)
        start = openings.last()
        return None if start is None else openings.place(start)

    def _firm(self, key: str, now: int) -> bool:
        """Enter something where it is in the plan; what is in its way is put elsewhere.

        False if that can't be, and everything is where it is in the plan.
        """
        assert self.plan is not None
        spans = self._books.plan.spans.get(key, ())
        if not self._fit(spans) and not self._give_way(spans, now):
            self._copy(now)
            return False
        if spans:
            self.plan.add(key, spans)
        return True

    def _fit(self, spans: Iterable[Span]) -> bool:
        assert self.plan is not None
        with self.plan.trial() as trial:
            for span in spans:
                if not self.plan.fits(span):
                    return False
                trial.add((span,))
        return True

    def _give_way(self, spans: tuple[Span, ...], now: int) -> bool:
        """Move what lies where `spans` are to be; False if that is not enough."""
        assert self.plan is not None
        books, reservations = self._books, self._books.reservations
        in_the_way = self.plan.overlapping(spans, self._places)
        in_the_way.sort(key=lambda key: -reservations[key].windows[0].deadline)
        for key in in_the_way:
            self.plan.remove(key)
        if not self._fit(spans):
            return False
        with self.plan.trial() as trial:
            trial.add(spans)
            for key in in_the_way:
                place = self._last_place(reservations[key], now)
                if place is None:
                    return False
                self._places[key] = place
                self.plan.add(key, books.spans((place,)))
        return True


def _movable(reservation: Reservation, now: int) -> bool:
    return (
        bool(reservation.windows) and len(reservation.placements) == 1 and reservation.start > now
    )
