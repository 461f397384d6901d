"""Lost capacity: what may be moved is moved before a promise is broken."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from era_pricing.bids import Commitment
from era_pricing.books import Books
from era_pricing.moving import Openings, at_start, cut, in_chunks
from era_pricing.placement import BoolArray
from era_pricing.plan import Span
from era_pricing.reservations import Placement, Reservation

_STAYS, _BEGAN, _BEGAN_IN_PARTS, _WAITS = range(4)
"""What keeps its start; what is running and would have to begin again, or could go on
elsewhere; what has not begun. In this order they find a place."""

Slots = Sequence[tuple[int, int]]
"""Slots [first, end) that a placement must not touch."""

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
    chunk
        Least length in slots of the chunks into which preemptible jobs are split.
    """

    def __init__(self, books: Books, start_early: Callable[[int], None], chunk: int) -> None:
        self._books = books
        self._grid = books.grid
        self._start_early = start_early
        self._chunk = chunk

    def run(self, now: int) -> dict[str, int]:
        """Move what lies where more is promised than there is, and strike out the rest.

        What keeps its start is placed first, then what is running and may begin again,
        then what may be moved, each in the order in which it was made. If that leaves
        anything out, everything that may be moved in the whole plan gives way to what
        keeps its start; the way that leaves out less is taken. What is struck out would
        not fit besides what stays.

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
        order = sorted(hit, key=lambda reservation: _rank(reservation, now))
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
        others = [each for each in books.to_begin(now) if each.job_id not in keys]
        if not others:
            return found
        for reservation in others:
            books.plan.remove(reservation.job_id)

        def urgency(each: Reservation) -> tuple[int, int]:
            rank = _rank(each, now)
            late = max(window.deadline for window in each.windows) if rank == _WAITS else 0
            return rank, late

        again = self._arrange(sorted((*hit, *others), key=urgency), now)
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
        # Few nodes are, of many: how often each of them lacks something before a slot.
        sums = {
            node: np.concatenate(([0], np.cumsum(lost[node])))
            for node in np.flatnonzero(lost.any(axis=1)).tolist()
        }

        def touched(span: Span) -> bool:
            first, end = max(span.first - plan.base, 0), max(span.end - plan.base, 0)
            return any(
                node in sums and sums[node][end] > sums[node][first] for node, _ in span.loads
            )

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
                taken = [
                    self._books.span(p)[:2]
                    for p in others
                    if p.request == placement.request and p.end > now
                ]
                found = self._fit(reservation, placement, taken, now)
                if not found:
                    return None
                placed.extend(found)
                trial.add(self._books.spans([p for p in found if p.end > now]))
        if len(placed) > len(reservation.placements):
            placed.sort(key=lambda placement: (placement.request, placement.start))
        return replace(reservation, placements=tuple(placed))

    def _fit(
        self, reservation: Reservation, placement: Placement, taken: Slots, now: int
    ) -> tuple[Placement, ...]:
        """Where a placement can be: where it is, or elsewhere; empty if nowhere.

        Of a job that is running and can be stopped, what is done stays where it is, and what
        is left goes elsewhere; so it does of what keeps its start, on other nodes at once. A
        job that can't be stopped begins again.
        """
        if placement.end <= now:
            return (placement,)
        books, plan = self._books, self._books.plan
        if plan.fits(books.span(placement)):
            return (placement,)
        if placement.start > now:
            return self._elsewhere(reservation, placement, placement.start, taken, now)
        if reservation.commitment is Commitment.FLEXIBLE and reservation.windows:
            return self._elsewhere(reservation, placement, now, taken, now)
        until = self._lasts(placement, now)
        if until <= placement.start:
            return self._elsewhere(reservation, placement, now, taken, now)
        done, rest = cut(self._grid, placement, until)
        if until > now:
            taken = [*taken, books.span(done)[:2]]
        found = self._elsewhere(reservation, rest, until, taken, now)
        return (done, *found) if found else ()

    def _lasts(self, placement: Placement, now: int) -> int:
        """Until when a running placement keeps its capacity, UTC seconds."""
        span, plan, slot = self._books.span(placement), self._books.plan, self._grid.slot
        running = self._grid.index(now)
        for each in range(running, span.end):
            if not plan.fits(span._replace(first=each, end=each + 1)):
                return max(each * slot, now)
        return placement.end

    def _elsewhere(
        self,
        reservation: Reservation,
        placement: Placement,
        first: int,
        taken: Slots,
        now: int,
    ) -> tuple[Placement, ...]:
        """A placement on other nodes from `first` on, or at another time; empty if nowhere."""
        books, plan = self._books, self._books.plan
        window = reservation.windows[placement.request] if reservation.windows else None
        end = first + placement.end - placement.start
        if window is None or end <= max(window.deadline, placement.end):
            there = at_start(books, plan, placement, first)
            if there is not None and not self._touches(there, taken):
                return (there,)
        if window is None:
            return ()
        openings = Openings(books, plan, placement, window, now, taken)
        start = next(iter(openings), None)
        if start is not None:
            return (openings.place(start),)
        if reservation.commitment is not Commitment.PREEMPTIBLE:
            return ()
        return in_chunks(books, plan, placement, window, now, taken, self._chunk)

    def _touches(self, placement: Placement, taken: Slots) -> bool:
        """Whether a placement shares a slot with another one of the same request."""
        span = self._books.span(placement)
        return any(span.first < end and first < span.end for first, end in taken)


def _left_out(found: Found) -> int:
    return sum(place is None for place in found.values())


def _rank(reservation: Reservation, now: int) -> int:
    if not reservation.windows:
        return _STAYS
    if not any(p.start <= now < p.end for p in reservation.placements):
        return _WAITS
    in_parts = reservation.commitment is Commitment.PREEMPTIBLE
    return _BEGAN_IN_PARTS if in_parts else _BEGAN
