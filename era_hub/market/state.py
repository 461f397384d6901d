"""What all parts of a market share: the database, the engine, and one transaction over both."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from threading import local

from sqlalchemy import select
from sqlalchemy.orm import Session, selectinload

from era_pricing import BidError, CapacityChange, Configuration, Era, Feedback, UpdateResult
from era_pricing import Reservation as Promise

from .. import records
from ..answers import MarketError
from ..changes import Change, Changes
from ..clouds.base import Node
from ..models import Kind
from ..store.database import Database
from ..store.demand import keep_state, kept_state
from ..store.election import NotLeading
from ..store.tables import Reservation
from ..store.versions import Missing, Stale
from . import capacity
from .rows import OPEN
from .terms import Terms

UNCHANGED = (MarketError, BidError, Stale, Missing, NotLeading)
"""Failures that leave the engine as it was."""


class PoolState:
    """One pool: what is stored of it, and the engine's plan, which is a cache of that.

    Parameters
    ----------
    database : Database
    era : Era
        The engine; its plan is rebuilt from the database by `rebuild`.
    configurations : sequence of Configuration
        What is for sale, in the order in which it is shown.
    pool : str
    gpus : sequence of int or None
        Indices of the pool's GPUs; None where each node numbers its own.
    grant : int
        Starting grant of a new account, in micro-credits.
    clock : callable
        UTC seconds now.
    changes : Changes, optional
        Told what has changed, once it is committed.
    grace : int, optional
        Seconds before its end at which a running job is asked to stop, at most.
    nodes : sequence of Node, optional
        What there is; default: one machine with the GPUs.
    begin : callable, optional
        Begins a writing transaction; that of the pool's writer, which fails where another
        service writes (`Writer.begin`). Default: any of the database.

    Notes
    -----
    The engine, and all that changes something, is used by one thread: the database's
    writer (`Database.run`). What only reads the database may run on any.
    """

    def __init__(
        self,
        database: Database,
        era: Era,
        configurations: Sequence[Configuration],
        pool: str,
        gpus: Sequence[int] | None,
        grant: int,
        clock: Callable[[], int],
        changes: Changes | None = None,
        begin: Callable[[], AbstractContextManager[Session]] | None = None,
        grace: int = 0,
        nodes: Sequence[Node] | None = None,
    ) -> None:
        self.database = database
        self.grace = grace
        self.era = era
        self.configurations = {each.name: each for each in configurations}
        self.pool = pool
        self.gpus = None if gpus is None else tuple(gpus)
        self.nodes = tuple(
            capacity.machine(era.resource, len(gpus or ())) if nodes is None else nodes
        )
        self.grant = grant
        self.clock = clock
        self.changes = changes or Changes()
        self._begin = begin or database.session.begin
        self.configured_limits = era.price_limits
        """Floor and ceiling of the price where admins have set none."""
        self.for_sale = self.size
        """GPUs that are for sale, outside of maintenance."""
        self._here = _Here()
        self._changed: list[Change] = []
        self._capacity: dict[str | None, list[CapacityChange]] = {}

    @property
    def size(self) -> int:
        """GPUs that there are, whether they are for sale or not."""
        return capacity.units_of(self.nodes, self.era.resource)

    @property
    def shaped(self) -> bool:
        """Whether the pool has nodes that a workload must fit on."""
        return self.gpus is None

    @contextmanager
    def transaction(self) -> Iterator[Session]:
        """All or nothing, in the database and in the plan.

        Inside another one it is a part of that. Errors of `UNCHANGED` say that the plan
        is as it was; after any other failure it is rebuilt.
        """
        # To commit several bids at once, open one of these around them, and a savepoint
        # around each: the engine decides them one after the other anyway.
        if self._here.session is not None:
            yield self._here.session
            return
        try:
            with self._begin() as session:
                self._here.session, self._changed = session, []
                session.info["changes"] = self._changed
                try:
                    yield session
                    self.store_moved(session, self.era.take_moved())
                    self._keep_prices(session)
                finally:
                    self._here.session = None
        except UNCHANGED:
            raise
        except Exception:
            self.rebuild()
            raise
        if self._changed:
            self.changes.publish(*self._changed)

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that only reads; inside a transaction it sees what that has changed."""
        if self._here.session is not None:
            yield self._here.session
            return
        with self.database.reader.begin() as session:
            yield session

    def note_change(self, *changes: Change) -> None:
        """Tell of changes when the transaction under way is committed."""
        self._changed.extend(changes)

    def note_reservation(self, row: Reservation, money: bool = False) -> None:
        """Tell that a reservation has changed, and with `money` also account and prices."""
        self.note_change(Change("reservation", row.user, row.id))
        if row.kind == Kind.JOB:
            self.note_change(Change("job", row.user, row.id))
        if money:
            self.note_change(Change("account", row.user), Change("prices"))

    def rebuild(self) -> None:
        """Make the engine's plan, its capacity and its prices what the database says."""
        # In the order in which they were made: what came last is given up first.
        query = (
            select(Reservation)
            .where(
                Reservation.pool == self.pool,
                Reservation.state.in_(OPEN),
                Reservation.end > self.clock(),
            )
            .order_by(Reservation.created, Reservation.start, Reservation.id)
            .options(selectinload(Reservation.placements))
        )
        with self.database.session.begin() as session:
            terms = Terms.of(session, self.pool, self.configured_limits)
            made = [records.promise(row, self.era.resource) for row in session.scalars(query)]
            state = kept_state(session, self.pool)
        self._know(made)
        # What the capacity does not allow is found by the next update, so by `honour`.
        changed = self._set_terms(terms, made)
        self.era.restore(made, capacity=changed, state=state)

    def store_moved(self, session: Session, moved: Iterable[Promise]) -> list[Reservation]:
        """Let the rows of reservations that the engine has moved say so."""
        found = []
        for promise in moved:
            row = session.get(Reservation, promise.job_id)
            if row is not None and row.state in OPEN:
                records.move(row, promise, self.clock())
                self.note_reservation(row)
                found.append(row)
        return found

    def _keep_prices(self, session: Session) -> None:
        state = self.era.take_state()
        if state is not None:
            keep_state(session, self.pool, state, self.clock())
            self.note_change(Change("prices"))

    def sell_on(self, terms: Terms) -> UpdateResult:
        """Let the engine sell on these terms; what this breaks and moves."""
        changed = self._set_terms(terms, self.era.reservations(self.clock()))
        return self.era.update(Feedback(changed), self.clock())

    def _set_terms(self, terms: Terms, made: Iterable[Promise]) -> list[CapacityChange]:
        """Sell at these terms' prices; how the capacity differs from what the engine knows."""
        self.for_sale = max(self.size - terms.held_back, 0)
        self.era.limit_prices(terms.floor, terms.ceiling)
        by_node: dict[str | None, list[CapacityChange]] = {}
        for each in self.capacity_on(terms, made):
            by_node.setdefault(each.node, []).append(each)
        old, self._capacity = self._capacity, by_node
        # A cluster has many nodes, of which few change at a time.
        return [each for node, it in by_node.items() if old.get(node) != it for each in it]

    def capacity_on(self, terms: Terms, made: Iterable[Promise]) -> list[CapacityChange]:
        """What each node has to sell on these terms, with so much promised."""
        era, running = self.era, self._running_on_closed(made)
        return list(capacity.changes(era.inventory, self.nodes, terms, era.resource, running))

    def _running_on_closed(self, promises: Iterable[Promise]) -> dict[str, capacity.Running]:
        closed = {each.name for each in self.nodes if not each.open}
        found: dict[str, list[tuple[int, Mapping[str, int]]]] = {name: [] for name in closed}
        now = self.clock()
        for promise in promises if closed else ():
            for each in promise.placements:
                if each.start <= now < each.end:
                    for share in each.shares:
                        if share.node in closed:
                            found[share.node].append((each.end, share.units))
        return dict(found)

    def _know(self, promises: Iterable[Promise]) -> None:
        """Let the engine know the nodes of promises that were made before it was started."""
        known = set(self.era.inventory.nodes)
        for promise in promises:
            for placement in promise.placements:
                for name in set(placement.nodes) - known:
                    self.era.inventory.add_node(name, {})
                    known.add(name)


class _Here(local):
    """What is under way on the present thread."""

    session: Session | None = None
