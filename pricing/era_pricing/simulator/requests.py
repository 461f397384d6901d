"""What is asked for: a workload in columns, or bids of the bidding language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from era_pricing.arrays import IntArray
from era_pricing.bids import Bid
from era_pricing.workload import Workload


@dataclass(frozen=True, eq=False)
class Requests:
    """What is asked for: a workload in columns, or bids of the bidding language.

    Parameters
    ----------
    columns
        The requests, sorted by submission. For bids: for each the simplest request
        that contains it, see `formats`.
    bids
        The bids themselves, in the same order; empty: the columns are all.
    by_resource
        For bids: the simplest requests for each priced resource, in the same order.
    needed : IntArray, shape (m,), optional
        Seconds that each really needs of the duration it asks for, in the same order;
        None: the cloud draws them.
    """

    columns: Workload
    bids: Sequence[Bid] = ()
    by_resource: Mapping[str, Workload] = field(default_factory=dict)
    needed: IntArray | None = None

    def __len__(self) -> int:
        """Number of requests."""
        return len(self.columns)

    def sorted(self) -> Requests:
        """The same by time of submission; ties stay in order."""
        if (np.diff(self.columns.submitted) >= 0).all():
            return self
        order = np.argsort(self.columns.submitted, kind="stable")
        return Requests(
            self.columns.select(order),
            [self.bids[row] for row in order] if self.bids else (),
            {name: columns.select(order) for name, columns in self.by_resource.items()},
            None if self.needed is None else self.needed[order],
        )

    def shifted(self, seconds: int) -> Requests:
        """The same, later by some seconds; only without bids."""
        return Requests(self.columns.shifted(seconds), needed=self.needed)

    def asking(self, resource: str) -> Workload:
        """The least that each request takes of a resource."""
        return self.by_resource.get(resource, self.columns)
