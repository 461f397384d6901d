"""What the database knows of how many units each pool has, had, and will have."""

from __future__ import annotations

from sqlalchemy.orm import Session

from ..market.terms import Terms
from ..store.books import Steps
from ..store.capacity import Capacity


def known(session: Session, now: int) -> dict[str, Steps]:
    """How many units each pool has had until now, and has for sale from now on.

    Of the past only its size is known: what was held back then, or out for maintenance, is
    not. What comes is what all settings leave.
    """
    found: dict[str, Steps] = {}
    for pool, sizes in Capacity(session).sizes().items():
        size = sizes[-1][1]
        coming = Terms.of(session, pool, (1, None)).for_sale(size)
        edges = {edge for start, end, _ in coming for edge in (start, end) if edge is not None}
        steps = [each for each in sizes if each[0] < now]
        for at in [now, *sorted(edge for edge in edges if edge > now)]:
            # The last change that holds at a time is the one that counts.
            there = [
                units for start, end, units in coming if start <= at and (end is None or at < end)
            ]
            steps.append((at, there[-1]))
        found[pool] = steps
    return found
