"""The tables. Times are integer UTC seconds, money integer micro-credits.

A migration's triggers refuse to change or delete rows of `transactions`, `entries` and
`audit_log`. SQLite drops them with the table that they guard, so a migration that rebuilds
one of these has to make its triggers again.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    ForeignKey,
    Index,
    Integer,
    String,
    UniqueConstraint,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, declared_attr, mapped_column, relationship

# SQLite autoincrements only a plain INTEGER key.
Key = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    type_annotation_map = {
        int: BigInteger,
        dict[str, Any]: JSON,
        list[Any]: JSON,
        str: String,
    }


def where(condition: str) -> dict[str, Any]:
    """An index of those rows only that are looked for."""
    return {"sqlite_where": text(condition), "postgresql_where": text(condition)}


class Versioned:
    """Rows of which each change counts `version` up, and is refused if another was faster."""

    version: Mapped[int] = mapped_column(server_default="1")

    @declared_attr.directive
    def __mapper_args__(cls) -> dict[str, Any]:  # noqa: N805
        return {"version_id_col": cls.__table__.c.version}  # type: ignore[attr-defined]


class Account(Base):
    """Who can hold credits: users, groups, and the market's own accounts.

    `balance` is the sum of the account's entries, kept with them in one transaction.
    `started` says whether the starting grant of a new user has been given, and `lapsing`
    whether it ever had credits that lapse: most have none, and need no look at their lots.
    """

    __tablename__ = "accounts"
    __table_args__ = (UniqueConstraint("kind", "name"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]
    created: Mapped[int]
    balance: Mapped[int] = mapped_column(default=0, server_default="0")
    overdraft: Mapped[int] = mapped_column(default=0, server_default="0")
    started: Mapped[bool] = mapped_column(default=False, server_default=false())
    lapsing: Mapped[bool] = mapped_column(default=False, server_default=false())


class Transaction(Base):
    """One movement of credits; its entries sum to zero. Never changed, never deleted.

    `part` is 0 for a reservation's own price, and counts its extensions from 1. `actor` is
    who caused it: ``market``, ``grant:<id>`` or ``admin:<name>``.
    """

    __tablename__ = "transactions"
    # One hold for each part, one charge and one refund: charging twice can't be stored.
    __table_args__ = (UniqueConstraint("reservation_id", "kind", "part"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    at: Mapped[int]
    kind: Mapped[str]
    reservation_id: Mapped[str | None] = mapped_column(ForeignKey("reservations.id"))
    part: Mapped[int] = mapped_column(default=0, server_default="0")
    memo: Mapped[str]
    actor: Mapped[str] = mapped_column(default="market", server_default="market")


class Entry(Base):
    """What one transaction does to one account, and the account's balance after it."""

    __tablename__ = "entries"
    __table_args__ = (
        Index("ix_entries_account", "account_id", "id"),
        Index("ix_entries_transaction", "transaction_id"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    transaction_id: Mapped[int] = mapped_column(ForeignKey("transactions.id"))
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"))
    lot_id: Mapped[int | None] = mapped_column(ForeignKey("lots.id"))
    amount: Mapped[int]
    balance: Mapped[int]


class Lot(Base):
    """Credits that lapse: `remaining` of `amount` is still there.

    What an account has beyond its lots never lapses.
    """

    __tablename__ = "lots"
    __table_args__ = (
        Index("ix_lots_account", "account_id", "expires", **where("remaining > 0")),
        Index("ix_lots_expires", "expires", **where("remaining > 0")),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"))
    grant_id: Mapped[int | None] = mapped_column(ForeignKey("grants.id"))
    amount: Mapped[int]
    remaining: Mapped[int]
    expires: Mapped[int]


class Grant(Versioned, Base):
    """Credits given once or periodically, to one account or to every user.

    A tick tops each account up by `amount`, but not above `cap`; see `store.grants`.
    """

    __tablename__ = "grants"
    __table_args__ = (Index("ix_grants_next", "next_at", **where("next_at IS NOT NULL")),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]
    amount: Mapped[int]
    period: Mapped[int | None]
    cap: Mapped[int | None]
    anchor: Mapped[int]
    expires_after: Mapped[int | None]
    next_at: Mapped[int | None]
    created: Mapped[int]
    actor: Mapped[str]
    ended: Mapped[int | None]


class GrantTick(Base):
    """That a grant's tick has been given to an account: it is never given again.

    Without a transaction the account was at the grant's cap.
    """

    __tablename__ = "grant_ticks"
    __table_args__ = (Index("ix_grant_ticks_transaction", "transaction_id"),)

    grant_id: Mapped[int] = mapped_column(ForeignKey("grants.id"), primary_key=True)
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    tick: Mapped[int] = mapped_column(primary_key=True)
    amount: Mapped[int]
    transaction_id: Mapped[int | None] = mapped_column(ForeignKey("transactions.id"))


class RulesVersion(Base):
    """Counts the changes of policies and quotas: services keep copies of them."""

    __tablename__ = "rules_version"

    id: Mapped[int] = mapped_column(primary_key=True)
    version: Mapped[int]


class Policy(Versioned, Base):
    """Who pays where a bid does not say: ``own`` or ``group:NAME``; null says nothing."""

    __tablename__ = "policies"

    kind: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(primary_key=True)
    pays: Mapped[str | None]
    rank: Mapped[int | None] = mapped_column(unique=True)


class Quota(Versioned, Base):
    """Limits of a user, of every member of a group, of everyone, or of a group in sum.

    `gpu_seconds` are those of one `period`. A null says nothing about its limit.
    """

    __tablename__ = "quotas"
    __table_args__ = (UniqueConstraint("kind", "name"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]
    gpus: Mapped[int | None]
    gpu_seconds: Mapped[int | None]
    period: Mapped[int | None]
    longest: Mapped[int | None]
    horizon: Mapped[int | None]
    configurations: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))


class Reservation(Versioned, Base):
    """An accepted bid.

    `slot_prices` sums to `price`; `gpus` are the indices its workload was given.
    `has_workload` says whether that workload may still exist, and so use them: it
    outlives the reservation by as long as the notebook or job takes to stop.
    `account_id` is who pays, and `groups` are those of the user when the bid was made.
    Of each bundle, `resources` are what its user is promised, and `taken` the engine's base
    units. `nodes` has the node of each bundle in its present or next part, `run_nodes` those
    on which the workload was started, `run_end` when that run ends, and `runs` counts them.
    """

    __tablename__ = "reservations"
    __table_args__ = (
        UniqueConstraint("user", "idempotency_key"),
        Index("ix_reservations_user", "user", "created"),
        Index("ix_reservations_user_end", "user", "end"),
        Index("ix_reservations_account_end", "account_id", "end"),
        Index("ix_reservations_server", "user", "server_name", **where("state = 'accepted'")),
        Index("ix_reservations_pool", "pool", "created", "id"),
        Index("ix_reservations_state", "state", "start"),
        Index("ix_reservations_has_workload", "has_workload"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    pool: Mapped[str]
    kind: Mapped[str]
    user: Mapped[str]
    server_name: Mapped[str]
    configuration: Mapped[str]
    count: Mapped[int]
    units: Mapped[int]
    state: Mapped[str]
    arrival: Mapped[int]
    deadline: Mapped[int]
    duration: Mapped[int]
    value: Mapped[int]
    price: Mapped[int]
    refunded: Mapped[int]
    slot_prices: Mapped[list[Any]]
    start: Mapped[int]
    end: Mapped[int]
    gpus: Mapped[list[Any] | None]
    has_workload: Mapped[bool]
    message: Mapped[str]
    created: Mapped[int]
    ended: Mapped[int | None]
    idempotency_key: Mapped[str | None]
    account_id: Mapped[int | None] = mapped_column(ForeignKey("accounts.id"))
    groups: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    commitment: Mapped[str] = mapped_column(default="fixed", server_default="fixed")
    resources: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    taken: Mapped[dict[str, Any]] = mapped_column(default=dict, server_default="{}")
    nodes: Mapped[list[Any]] = mapped_column(default=list, server_default="[]")
    run_nodes: Mapped[list[Any] | None] = mapped_column(JSON(none_as_null=True))
    run_end: Mapped[int | None]
    runs: Mapped[int] = mapped_column(default=0, server_default="0")
    job: Mapped[Job | None] = relationship(back_populates="reservation")
    placements: Mapped[list[Placement]] = relationship(
        order_by="Placement.number", cascade="all, delete-orphan"
    )


class Placement(Base):
    """A part of a reservation: so many of its `slot_prices`, on these nodes.

    `shares` lists node and count. A reservation that is one part on the only machine of a
    pool, as most are, has no rows here.
    """

    __tablename__ = "placements"

    reservation_id: Mapped[str] = mapped_column(ForeignKey("reservations.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    start: Mapped[int]
    end: Mapped[int]
    slots: Mapped[int]
    shares: Mapped[list[Any]]


class Job(Base):
    """What a job's reservation is to run, and what has become of it."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(ForeignKey("reservations.id"), primary_key=True)
    name: Mapped[str]
    script: Mapped[str | None]
    filename: Mapped[str]
    command: Mapped[list[Any]]
    environment: Mapped[dict[str, Any]]
    state: Mapped[str]
    directory: Mapped[str | None]
    exit_code: Mapped[int | None]
    message: Mapped[str]
    reservation: Mapped[Reservation] = relationship(back_populates="job")


class SeenBid(Base):
    """A bid that was decided, as the predictors are told of it: for no API, and without a name.

    A declined bid leaves nothing else behind. The fields are those of
    `era_pricing.predictors.SeenRequest`.
    """

    __tablename__ = "seen_bids"
    __table_args__ = (Index("ix_seen_bids_submitted", "pool", "submitted"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    pool: Mapped[str]
    resource: Mapped[str]
    submitted: Mapped[int]
    arrival: Mapped[int]
    deadline: Mapped[int]
    units: Mapped[int]
    duration: Mapped[int]
    value: Mapped[int]
    accepted: Mapped[bool]
    price: Mapped[int | None]


class AlgorithmState(Base):
    """What a pool's algorithm has worked out, so that prices are the same after a restart."""

    __tablename__ = "algorithm_states"

    pool: Mapped[str] = mapped_column(primary_key=True)
    at: Mapped[int]
    state: Mapped[bytes]


class Answer(Base):
    """The first answer to a call with an Idempotency-Key: the same again gets the same."""

    __tablename__ = "answers"
    __table_args__ = (Index("ix_answers_at", "at"),)

    caller: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    request: Mapped[str]
    status: Mapped[int]
    body: Mapped[str]
    at: Mapped[int]


class AuditRecord(Base):
    """What an admin changed. Never changed, never deleted."""

    __tablename__ = "audit_log"
    __table_args__ = (
        Index("ix_audit_log_actor", "actor", "id"),
        Index("ix_audit_log_subject", "subject", "id"),
    )

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    at: Mapped[int]
    actor: Mapped[str]
    action: Mapped[str]
    subject: Mapped[str]
    before: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    after: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    request_id: Mapped[str]


class PoolSettings(Versioned, Base):
    """What admins set for a pool. Prices are micro-credits for a unit and an hour."""

    __tablename__ = "pool_settings"

    pool: Mapped[str] = mapped_column(primary_key=True)
    price_floor: Mapped[int | None]
    price_ceiling: Mapped[int | None]
    held_back: Mapped[int]


class Maintenance(Versioned, Base):
    """A time in which `units` of a pool are not for sale; null is all of them."""

    __tablename__ = "maintenance"
    __table_args__ = (Index("ix_maintenance_pool", "pool", "end"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    pool: Mapped[str]
    start: Mapped[int]
    end: Mapped[int]
    units: Mapped[int | None]
    reason: Mapped[str]


class CapacityReport(Base):
    """What a foreign scheduler has said: `units` of a pool in [start, end), null for no end.

    Where two overlap, the one with the higher id counts.
    """

    __tablename__ = "capacity_reports"
    __table_args__ = (Index("ix_capacity_reports_pool", "pool", "id"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    pool: Mapped[str]
    start: Mapped[int]
    end: Mapped[int | None]
    units: Mapped[int]


class PoolSize(Base):
    """How many units a pool has from `since` on: none was sold twice, as the books prove."""

    __tablename__ = "pool_sizes"

    pool: Mapped[str] = mapped_column(primary_key=True)
    since: Mapped[int] = mapped_column(primary_key=True)
    units: Mapped[int]


class WriterRow(Base):
    """Which service writes for a pool, and where the others find it; see `store.election`."""

    __tablename__ = "writers"

    pool: Mapped[str] = mapped_column(primary_key=True)
    address: Mapped[str]
    since: Mapped[int]
    beat: Mapped[int]
