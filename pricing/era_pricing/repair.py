"""Lost capacity: what may be moved is moved before a promise is broken."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from era_pricing.books import Books
from era_pricing.moving import at_start, moved, need_of, open_boundaries
from era_pricing.placement import BoolArray, assign
from era_pricing.plan import Span
from era_pricing.reservations import Placement, Reservation

Found = dict[str, Reservation | None]
"""What becomes of reservations, by job id; None if there is no place for one."""


class Repair:
    """Makes the plan fit the capacity again.

    Parameters
    ----------
    books
        The reservations and their plan.
    start_early
        Starts what may be started at a time, which makes room elsewhere.
    """

    def __init__(self, books: Books, start_early: Callable[[int], None]) -> None:
        self._books = books
        self._grid = books.grid
        self._start_early = start_early

    def run(self, now: int) -> dict[str, int]:
        """Move what lies where more is promised than there is, and strike out the rest.

        What keeps its start is placed first, then what may be moved, each in the order
        in which it was made. If that leaves anything out, everything that may be moved
        in the whole plan gives way to what keeps its start; the way that leaves out
        less is taken. What is struck out would not fit besides what stays.

        Returns
        -------
        dict
            What each reservation that was struck out was charged, by job id.
        """
        books = self._books
        made = list(books.reservations)
        hit = self._overloaded(now)
        for reservation in hit:
            books.plan.remove(reservation.job_id)
        order = sorted(hit, key=lambda reservation: bool(reservation.movable(now)))
        found = self._arrange(order, now)
        if None in found.values():
            found = self._everything(hit, found, now)
        for place in found.values():
            if place is not None:
                books.enter(place, now)
        lost = [each for each in hit if found[each.job_id] is None]
        for reservation in lost:
            books.strike(reservation.job_id)
        if books.latest is not None:
            books.latest.renew(now)
        self._start_early(now)
        if lost:
            lost = self._once_more(lost, made, now)
        return {reservation.job_id: reservation.price for reservation in lost}

    def _everything(self, hit: Sequence[Reservation], found: Found, now: int) -> Found:
        """Try with all that may be moved, the earliest deadline first; the better way."""
        books, keys = self._books, set(found)
        others = [each for each in books.waiting(now) if each.job_id not in keys]
        if not others:
            return found
        for reservation in others:
            books.plan.remove(reservation.job_id)
        firm = [each for each in hit if not each.movable(now)]
        loose = [each for each in (*hit, *others) if each.movable(now)]
        loose.sort(key=lambda each: max(window.deadline for window in each.windows))
        again = self._arrange([*firm, *loose], now)
        if _left_out(again) < _left_out(found) and all(again[r.job_id] for r in others):
            return again
        for reservation in others:
            books.enter(reservation, now)
        return found

    def _once_more(
        self, lost: Sequence[Reservation], made: Sequence[str], now: int
    ) -> list[Reservation]:
        """Take back what fits after all, in its old place in the order; the rest."""
        books, still = self._books, []
        for reservation in lost:
            place = self._placed(reservation, now)
            if place is None:
                still.append(reservation)
            else:
                books.insert(place, now)
                books.note_moved(place.job_id)
        if len(still) < len(lost):
            books.reservations = {
                key: books.reservations[key] for key in made if key in books.reservations
            }
        return still

    def _overloaded(self, now: int) -> list[Reservation]:
        """Reservations where too much is promised; what has ended there is dropped."""
        plan = self._books.plan
        lost: BoolArray = np.any(plan.free(plan.base, plan.length) < 0, axis=1)
        if not lost.any():
            return []
        sums = np.zeros((len(lost), plan.length + 1), dtype=np.int64)
        np.cumsum(lost, axis=1, out=sums[:, 1:])

        def touched(span: Span) -> bool:
            first, end = max(span.first - plan.base, 0), max(span.end - plan.base, 0)
            return any(sums[node, end] > sums[node, first] for node, _ in span.loads)

        hit = {key for key, spans in plan.spans.items() if any(map(touched, spans))}
        stay = [r for r in self._books.reservations.values() if r.job_id in hit and r.end > now]
        for key in hit.difference(r.job_id for r in stay):
            plan.remove(key)
        return stay

    def _arrange(self, order: Sequence[Reservation], now: int) -> Found:
        """Find places for reservations that the plan has lost, one after the other."""
        found: Found = {}
        with self._books.plan.trial() as trial:
            for reservation in order:
                place = self._placed(reservation, now)
                found[reservation.job_id] = place
                if place is not None:
                    left = [p for p in place.placements if p.end > now]
                    trial.add(self._books.spans(left))
        return found

    def _placed(self, reservation: Reservation, now: int) -> Reservation | None:
        """A reservation that the plan has lost, as it is or moved; None if it does not fit."""
        placed: list[Placement] = []
        with self._books.plan.trial() as trial:
            for number, placement in enumerate(reservation.placements):
                others = [*placed, *reservation.placements[number + 1 :]]
                found = self._fit(reservation, placement, others, now)
                if found is None:
                    return None
                placed.append(found)
                if found.end > now:
                    trial.add(self._books.spans((found,)))
        return replace(reservation, placements=tuple(placed))

    def _fit(
        self,
        reservation: Reservation,
        placement: Placement,
        others: Iterable[Placement],
        now: int,
    ) -> Placement | None:
        """Where a placement can be: where it is, on other nodes, at another time; else None."""
        if placement.end <= now:
            return placement
        books, plan = self._books, self._books.plan
        span = books.span(placement)
        if plan.fits(span):
            return placement
        if placement.start <= now:
            return None
        assignment = assign(plan.free(span.first, span.end - span.first), need_of(books, placement))
        if assignment is not None:
            return moved(books, placement, placement.start, assignment)
        if not reservation.windows:
            return None
        taken = [books.span(p)[:2] for p in others if p.request == placement.request]
        window = reservation.windows[placement.request]
        first, free = open_boundaries(books, plan, placement, window, now, taken)
        if not len(free):
            return None
        return at_start(books, plan, placement, (first + int(free[0])) * self._grid.slot)


def _left_out(found: Found) -> int:
    return sum(place is None for place in found.values())
