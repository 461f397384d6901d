"""The tables. Times are integer UTC seconds, money integer micro-credits."""

from __future__ import annotations

from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, Integer, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

# SQLite autoincrements only a plain INTEGER key.
Key = BigInteger().with_variant(Integer, "sqlite")


class Base(DeclarativeBase):
    type_annotation_map = {
        int: BigInteger,
        dict[str, Any]: JSON,
        list[Any]: JSON,
        str: String,
    }


class Account(Base):
    """Who can hold credits: users, and the market's own accounts."""

    __tablename__ = "accounts"
    __table_args__ = (UniqueConstraint("kind", "name"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    kind: Mapped[str]
    name: Mapped[str]
    created: Mapped[int]


class Transaction(Base):
    """One movement of credits; its entries sum to zero. Never changed, never deleted."""

    __tablename__ = "transactions"
    # One hold, one charge and one refund per reservation: charging twice can't be stored.
    __table_args__ = (UniqueConstraint("reservation_id", "kind"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    at: Mapped[int]
    kind: Mapped[str]
    reservation_id: Mapped[str | None] = mapped_column(ForeignKey("reservations.id"))
    memo: Mapped[str]
    entries: Mapped[list[Entry]] = relationship(back_populates="transaction")


class Entry(Base):
    """What one transaction does to one account."""

    __tablename__ = "entries"
    __table_args__ = (Index("ix_entries_account", "account_id", "id"),)

    id: Mapped[int] = mapped_column(Key, primary_key=True)
    transaction_id: Mapped[int] = mapped_column(ForeignKey("transactions.id"))
    account_id: Mapped[int] = mapped_column(ForeignKey("accounts.id"))
    amount: Mapped[int]
    transaction: Mapped[Transaction] = relationship(back_populates="entries")


class Reservation(Base):
    """An accepted bid.

    `slot_prices` sums to `price`; `gpus` are the indices its workload was given.
    `has_workload` says whether that workload may still exist, and so use them: it
    outlives the reservation by as long as the notebook or job takes to stop.
    """

    __tablename__ = "reservations"
    __table_args__ = (
        UniqueConstraint("user", "idempotency_key"),
        Index("ix_reservations_user", "user", "created"),
        Index("ix_reservations_state", "state"),
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
    job: Mapped[Job | None] = relationship(back_populates="reservation")


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
