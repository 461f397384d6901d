"""What there is to sell and at which bounds: settings of the pool, and maintenance."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy.orm import Session

from .. import views
from ..admin_models import (
    AdminChange,
    Effect,
    MaintenanceChange,
    MaintenanceRequest,
    MaintenanceWindow,
    PoolSettings,
    PoolSettingsRequest,
)
from ..answers import Loss, MarketError, NotFound
from ..market import Market
from ..store.settings import Settings
from ..store.tables import Maintenance
from . import words
from .desk import Call, Desk, Done, plainly

Edit = Callable[[Session], Done]


def settings(session: Session, market: Market) -> PoolSettings:
    """The pool's settings, and what holds where they say nothing."""
    row = Settings(session).pool(market.pool)
    floor, ceiling = market.configured_limits
    return PoolSettings(
        pool=market.pool,
        price_floor=row.price_floor,
        price_ceiling=row.price_ceiling,
        held_back=row.held_back,
        gpus=market.size,
        floor_now=floor if row.price_floor is None else row.price_floor,
        ceiling_now=ceiling if row.price_ceiling is None else row.price_ceiling,
        version=row.version,
    )


def windows(session: Session, market: Market, past: bool = False) -> list[MaintenanceWindow]:
    """Maintenance windows, the earliest first; with `past` also those that are over."""
    since = None if past else market.clock()
    return [public(row) for row in Settings(session).maintenance(market.pool, since)]


def public(row: Maintenance) -> MaintenanceWindow:
    """The public view of a maintenance window."""
    return MaintenanceWindow(
        id=row.id,
        pool=row.pool,
        start=views.when(row.start),
        end=views.when(row.end),
        gpus=row.units,
        reason=row.reason,
        version=row.version,
    )


class PoolDesk:
    """What admins do to the pool; promises that can't be kept are broken with a full refund."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.market = desk.market

    def set(self, call: Call, wanted: PoolSettingsRequest) -> AdminChange:
        """Set the bounds of the price, and how many GPUs are held back."""
        if wanted.held_back > self.market.size:
            there = self.market.size
            raise MarketError(f"held_back: the pool has {there} GPUs, so at most that many")

        def edit(session: Session) -> Done:
            before = settings(session, self.market)
            Settings(session).set(
                self.market.pool,
                wanted.version,
                price_floor=wanted.price_floor,
                price_ceiling=wanted.price_ceiling,
                held_back=wanted.held_back,
            )
            after = settings(session, self.market)
            return Done(
                "pool.set",
                f"pool:{self.market.pool}",
                before.model_dump(mode="json", exclude={"pool", "gpus"}),
                after.model_dump(mode="json", exclude={"pool", "gpus"}),
                _differences(before, after),
            )

        return self._change(call, edit, "")

    def plan(self, call: Call, wanted: MaintenanceRequest) -> AdminChange:
        """Take GPUs out of the market for some time."""
        start, end = _times(wanted)
        if end <= self.market.clock():
            raise MarketError(f"end: {views.text(end)} has passed")
        self._check_size(wanted)

        def edit(session: Session) -> Done:
            pool = self.market.pool
            row = Settings(session).plan(pool, start, end, wanted.gpus, wanted.reason)
            effects = [words.info(f"{_says(row)} not for sale")]
            return Done("maintenance.plan", f"maintenance:{row.id}", None, _record(row), effects)

        return self._change(call, edit, wanted.reason)

    def change(self, call: Call, window: int, wanted: MaintenanceChange) -> AdminChange:
        """Change a maintenance window as a whole."""
        start, end = _times(wanted)
        self._check_size(wanted)

        def edit(session: Session) -> Done:
            before = self._window(session, window)
            was, record = _says(before), _record(before)
            row = Settings(session).change(
                window,
                wanted.version,
                start=start,
                end=end,
                units=wanted.gpus,
                reason=wanted.reason,
            )
            effects = [words.info(f"before: {was}"), words.info(f"then: {_says(row)} not for sale")]
            return Done(
                "maintenance.change", f"maintenance:{window}", record, _record(row), effects
            )

        return self._change(call, edit, wanted.reason)

    def drop(self, call: Call, window: int, version: int) -> AdminChange:
        """Call a maintenance window off."""

        def edit(session: Session) -> Done:
            row = self._window(session, window)
            record, effects = _record(row), [words.info(f"for sale again: {_says(row)}")]
            Settings(session).drop(window, version)
            return Done("maintenance.drop", f"maintenance:{window}", record, None, effects)

        return self._change(call, edit, "")

    def _check_size(self, wanted: MaintenanceRequest) -> None:
        there = self.market.size
        if wanted.gpus is not None and wanted.gpus > there:
            raise MarketError(f"gpus: the pool has {there}; leave it empty for all")

    def _window(self, session: Session, window: int) -> Maintenance:
        row = session.get(Maintenance, window)
        if row is None or row.pool != self.market.pool:
            raise NotFound(f"there is no maintenance window {window}")
        return row

    def _change(self, call: Call, edit: Edit, why: str) -> AdminChange:
        """Let the market make the change, or say what it would break."""
        made: list[Done] = []

        def note(session: Session) -> None:
            done = edit(session)
            session.flush()
            made.append(done)

        with self.market.transaction() as session, plainly():
            if call.preview:
                losses = self.market.preview_settings(note)
            else:
                losses = self.market.apply_settings(note, why)
            done = made[0]
            done.effects += _losses(losses, call.preview)
            if call.preview:
                return done.answer(applied=False)
            done.after = _with_losses(done.after, losses)
            return self.desk.record(session, call, done)


def _record(row: Maintenance) -> dict[str, object]:
    return public(row).model_dump(mode="json", exclude={"id", "pool"})


def _times(wanted: MaintenanceRequest) -> tuple[int, int]:
    return int(wanted.start.timestamp()), int(wanted.end.timestamp())


def _says(row: Maintenance) -> str:
    gpus = "all GPUs" if row.units is None else f"{row.units} GPU{'s' if row.units > 1 else ''}"
    return f"{gpus} from {views.text(row.start)} to {views.text(row.end)}"


def _differences(before: PoolSettings, after: PoolSettings) -> list[Effect]:
    found = []
    for name, old, new in (
        ("floor", before.floor_now, after.floor_now),
        ("ceiling", before.ceiling_now, after.ceiling_now),
    ):
        if old != new:
            change = f"{_price(old)} -> {_price(new)} credits"
            note = "for new bids; reservations keep their prices"
            found.append(words.info(f"price {name} of a GPU-hour {change} {note}"))
    if before.held_back != after.held_back:
        then = f"{after.gpus - after.held_back} of {after.gpus} GPUs are for sale then"
        found.append(words.info(f"held back {before.held_back} -> {after.held_back}: {then}"))
    return found or [words.info("nothing changes")]


def _price(amount: int | None) -> str:
    return "none" if amount is None else words.format_credits(amount)


def _losses(losses: list[Loss], preview: bool) -> list[Effect]:
    if not losses:
        return [words.info("no reservation breaks")]
    count = len(losses)
    total = words.credits(sum(each.refund for each in losses))
    what = "1 reservation" if count == 1 else f"{count:,} reservations"
    breaks = ("would break" if preview else "broke") + f": refunded {total}"
    each = [_loss(loss) for loss in losses]
    return [words.warning(f"{what} {breaks}"), *words.shortened(each, "reservations")]


def _loss(loss: Loss) -> Effect:
    lost, refund = loss.reservation, words.credits(loss.refund)
    begin = f"{lost.start:%Y-%m-%d %H:%M} UTC"
    return words.warning(
        f"{lost.user} loses {lost.configuration} from {begin}, and {refund} are refunded", lost.user
    )


def _with_losses(after: dict[str, object] | None, losses: list[Loss]) -> dict[str, object] | None:
    """For the audit log: which reservations a change has cost."""
    if not losses:
        return after
    return {**(after or {}), "broken": [each.reservation.id for each in losses]}
