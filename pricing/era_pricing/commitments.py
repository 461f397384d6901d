"""Deciding on a bid, and re-planning: early starts, and making room for what does not fit."""

from __future__ import annotations

import math
from collections.abc import Callable

from era_pricing.bids import Alternative, Bid, Commitment
from era_pricing.books import Books
from era_pricing.moving import Openings, at_start
from era_pricing.nearby import overlap
from era_pricing.plan import Span
from era_pricing.reservations import Decision, Placement, Quote, Reservation, Window

Cost = Callable[[Placement, int], int | None]


class Commitments:
    """Moves what has not begun.

    Parameters
    ----------
    books
        The reservations and their plan.
    cost
        What the units of a placement would cost at a moment, micro-credits; if given,
        a job starts early only where that is no more than where it is planned.
    """

    def __init__(self, books: Books, cost: Cost | None = None) -> None:
        self._books = books
        self._cost = cost
        self._grid = books.grid

    # Idle capacity.

    def start_early(self, now: int) -> None:
        """Start what may be moved at once where its units are idle for its whole duration.

        What is planned for the earliest comes first. Prices stay.
        """
        books = self._books
        for key in books.waiting.with_room(books.plan, now, self._grid.slot):
            reservation = books.reservations[key]
            for number, placement in enumerate(reservation.placements):
                window = reservation.windows[placement.request]
                if placement.start > now and window.arrival <= now:
                    early = self._early(reservation, number, now)
                    if early is not None:
                        books.replace(early, now)
                        break

    def _early(self, reservation: Reservation, number: int, now: int) -> Reservation | None:
        """The reservation with one placement begun now, if its units are idle; else None."""
        books, placement = self._books, reservation.placements[number]
        others = [p for at, p in enumerate(reservation.placements) if at != number]
        end = now + placement.end - placement.start
        if any(p.request == placement.request and p.start < end and p.end > now for p in others):
            return None
        plan = books.plan
        own = plan.remove(reservation.job_id)
        try:
            with plan.trial() as trial:
                trial.add(books.spans([p for p in others if p.end > now]))
                found = at_start(books, plan, placement, now)
                if found is not None and self._cost is not None:
                    found = found if self._cheaper(found, placement, now) else None
        finally:
            plan.add(reservation.job_id, own)
        if found is None:
            return None
        placements = list(reservation.placements)
        placements[number] = found
        return reservation.at(tuple(placements))

    def _cheaper(self, found: Placement, planned: Placement, now: int) -> bool:
        """Whether the units cost no more now than when they are planned for."""
        assert self._cost is not None
        early, later = self._cost(found, now), self._cost(planned, now)
        return early is not None and (later is None or early <= later)

    # Making room.

    def make_room(self, span: Span, now: int) -> None:
        """Move what is in the way of a span that the latest plan has room for.

        No more is moved than must be if that can be found out quickly; else everything
        goes where it is in the latest plan.
        """
        if self._books.plan.fits(span) or self._push_aside(span, now):
            return
        self._adopt_latest(now)

    def _push_aside(self, span: Span, now: int) -> bool:
        """Move jobs out of the way one by one; False, and nothing moved, if that fails."""
        books, plan = self._books, self._books.plan
        latest = books.latest
        assert latest is not None
        changed: list[Reservation] = []
        with plan.trial() as trial:
            trial.add((span,))
            short = plan.overdrawn(span)
            assert short is not None
            for key in books.waiting.overlapping(short, now):
                own = plan.spans[key]
                if key not in latest.places or not overlap(own[0], short):
                    continue
                reservation = books.reservations[key]
                plan.remove(key)
                other = self._nearest(reservation, now)
                if other is None:
                    plan.add(key, own)
                    continue
                changed.append(reservation)
                books.enter(other, now)
                short = plan.overdrawn(short)
                if short is None:
                    break
        done = short is None
        for reservation in changed:
            if done:
                latest.change(books.reservations[reservation.job_id], now)
            else:
                plan.remove(reservation.job_id)
                books.enter(reservation, now)
        return done

    def _nearest(self, reservation: Reservation, now: int) -> Reservation | None:
        """The reservation at the open start nearest to its own; None if there is none."""
        books, placement = self._books, reservation.placements[0]
        openings = Openings(books, books.plan, placement, reservation.windows[0], now)
        start = openings.nearest(placement.start)
        return None if start is None else reservation.at((openings.place(start),))

    def _adopt_latest(self, now: int) -> None:
        books, latest = self._books, self._books.latest
        assert latest is not None
        places = dict(latest.places)
        for key in places:
            books.plan.remove(key)
        for key, place in places.items():
            books.enter(books.reservations[key].at((place,)), now)
            latest.change(books.reservations[key], now)


def windows(bid: Bid, alternative: Alternative, end: int) -> tuple[Window, ...]:
    """Where the requests may be moved to without losing value."""
    if bid.commitment is Commitment.FIXED:
        return ()
    step = next(s for s in alternative.values if s.deadline is None or end <= s.deadline)
    latest = math.inf if step.deadline is None else step.deadline
    return tuple(
        Window(request.arrival, int(min(request.deadline, latest)))
        for request in alternative.requests
    )


def decide(job_id: str, bid: Bid, quote: Quote, now: int) -> Decision:
    """Whether a bid takes what is best for it, and the reservation that this would be."""
    if quote.alternative is None or quote.price is None or quote.end is None:
        return Decision(False, None, None, quote.reason, quote)
    alternative = bid.alternatives[quote.alternative]
    if quote.price > alternative.value_at(quote.end):
        return Decision(False, quote.price, None, too_dear(quote.price), quote)
    reservation = Reservation(
        job_id,
        quote.placements,
        now,
        bid.commitment,
        windows(bid, alternative, quote.end),
        bid.overrun,
        quote.overrun_price,
    )
    return Decision(True, quote.price, reservation, None, quote)


def too_dear(price: int) -> str:
    """Why a bid was declined that is worth less than the price."""
    return f"the cheapest start costs {price} micro-credits, more than the value"
