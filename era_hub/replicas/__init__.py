"""Several services on one PostgreSQL: one writes for the pool, the others follow it.

`leading` says who does what, `news` what the writer tells the others in its own
transactions, `following` how they keep up, and `forwarding` how they pass on what only the
writer can do.
"""

from .following import Follower
from .forwarding import Forwarding, reachable
from .leading import Replica, asking

__all__ = ["Follower", "Forwarding", "Replica", "asking", "reachable"]
