"""What becomes of the promises when what there is to sell changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from era_pricing import Era, Feedback, FirstFit, PricedResource, Prior

from .. import models, records
from ..answers import Loss
from ..changes import Change
from ..clouds.base import Node
from ..models import State
from ..store.capacity import Capacity
from ..store.election import NotLeading
from ..store.tables import Reservation
from .capacity import inventory
from .life import Life
from .rows import OPEN, show
from .state import PoolState
from .terms import Terms

LESS = "the pool has less to give than when this was reserved"

Edit = Callable[[Session], object]
"""Changes settings or maintenance within the session it is given, and nothing else."""


@dataclass(frozen=True)
class Effects:
    """What became of the promises: which could not be kept, and which are kept elsewhen."""

    losses: list[Loss]
    moved: list[models.Reservation]


class Supply:
    """Takes in what changes what a pool can sell: its admins' settings, its nodes, and time.

    Promises are moved where they may be, else broken and refunded in full.
    """

    def __init__(self, state: PoolState, life: Life) -> None:
        self.state = state
        self.life = life
        self._slot = -1
        """The slot to which time has passed."""

    def preview_settings(self, edit: Edit) -> list[Loss]:
        """What a change would break. Nothing changes, neither here nor in the engine."""
        with self.state.transaction() as session:
            trial = session.begin_nested()
            try:
                edit(session)
                session.flush()
                terms = Terms.of(session, self.state.pool, self.state.configured_limits)
            finally:
                trial.rollback()
            return self._would_break(session, terms)

    def apply_settings(self, edit: Edit, why: str = "") -> list[Loss]:
        """Change settings and maintenance, and refund in full what they break.

        Parameters
        ----------
        edit : callable
            Makes the change within the market's transaction, through `store.settings`;
            an entry in the audit log belongs in there too.
        why : str
            Told to those who lose a reservation.

        Returns
        -------
        list of Loss
            What was broken, with its refund.
        """
        state = self.state
        with state.transaction() as session:
            edit(session)
            return self.take_effect(session, f"{LESS}: {why}" if why else LESS).losses

    def honour(self) -> None:
        """Give up what the pool can no longer honour, with a full refund.

        Called at the start of the service, when the pool may have fewer GPUs than
        at its end.
        """
        with self.state.transaction() as session:
            broken = self.state.era.update(Feedback(), self.state.clock()).broken
            why = "the pool has fewer GPUs than when this was reserved"
            self._give_up(session, list(broken), why)
            # After that: until now more may have been sold than there are.
            self.note_size(session)

    def take_nodes(self, nodes: Sequence[Node]) -> Effects:
        """The cloud has other nodes than before: promises are moved, or broken and refunded."""
        state = self.state
        before, state.nodes = state.nodes, tuple(nodes)
        try:
            with state.transaction() as session:
                why = "the cluster has lost the nodes that this was on"
                effects = self.take_effect(session, why)
                self.note_size(session)
                return effects
        except NotLeading:
            # Whoever writes learns of the nodes as well; here only the plan changes.
            state.rebuild()
            return Effects([], [])
        except Exception:
            state.nodes = before
            state.rebuild()
            raise

    def pass_time(self) -> None:
        """Let the engine do what is due as time goes on: jobs start early where GPUs are idle."""
        state = self.state
        slot = state.era.grid.index(state.clock())
        if slot == self._slot:
            return
        with state.transaction() as session:
            # That a slot begins is told to everybody anyway.
            self._sell_on(session, LESS)
        self._slot = slot

    def note_size(self, session: Session) -> None:
        """From now on the pool has as many GPUs as it has, for the proof of the books."""
        Capacity(session).note_size(self.state.pool, self.state.size, self.state.clock())

    def take_effect(self, session: Session, why: str) -> Effects:
        """Sell on the terms that the transaction has stored; `why` is told to who loses."""
        effects = self._sell_on(session, why)
        self.state.note_change(Change("prices"))
        return effects

    def _sell_on(self, session: Session, why: str) -> Effects:
        state = self.state
        session.flush()
        terms = Terms.of(session, state.pool, state.configured_limits)
        result = state.sell_on(terms)
        moved = [show(session, row) for row in state.store_moved(session, result.moved)]
        return Effects(self._give_up(session, list(result.broken), why), moved)

    def _give_up(self, session: Session, broken: list[str], why: str) -> list[Loss]:
        for reservation_id in broken:
            self.life.end(reservation_id, State.FAILED, why, refund_all=True)
        rows = [session.get_one(Reservation, each) for each in broken]
        return [Loss(show(session, row), row.refunded) for row in rows]

    def _would_break(self, session: Session, terms: Terms) -> list[Loss]:
        """Try it on a copy of the plan; prices play no part in that."""
        state, now = self.state, self.state.clock()
        era = state.era
        query = select(Reservation).where(
            Reservation.pool == state.pool, Reservation.state.in_(OPEN), Reservation.end > now
        )
        rows = {row.id: row for row in session.scalars(query)}
        copy = Era(
            grid=era.grid,
            inventory=inventory(state.nodes, era.resource, state.configurations.values()),
            configurations=list(state.configurations.values()),
            algorithm=FirstFit(),
            priced=[PricedResource(era.resource, 1, Prior(max_price=1, peak_demand=1))],
            clock=state.clock,
        )
        order = (row for key in self._order() if (row := rows.get(key)) is not None)
        made = [records.promise(row, era.resource) for row in order]
        copy.update(Feedback(state.capacity_on(terms, made)), now)
        copy.restore(made, now)
        broken = copy.update(Feedback(), now).broken
        return [Loss(show(session, rows[each]), rows[each].price) for each in broken]

    def _order(self) -> list[str]:
        """Open reservations in the order in which the engine would give them up."""
        return [each.job_id for each in self.state.era.reservations()]
