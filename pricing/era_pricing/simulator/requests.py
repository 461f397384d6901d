"""What is asked for: a workload in columns, or bids of the bidding language."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

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
    """

    columns: Workload
    bids: Sequence[Bid] = ()
    by_resource: Mapping[str, Workload] = field(default_factory=dict)

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
        )

    def shifted(self, seconds: int) -> Requests:
        """The same, later by some seconds; only without bids."""
        return Requests(self.columns.shifted(seconds))

    def asking(self, resource: str) -> Workload:
        """The least that each request takes of a resource."""
        return self.by_resource.get(resource, self.columns)
