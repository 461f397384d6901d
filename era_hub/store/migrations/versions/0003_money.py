"""accounts with balances, groups, grants, quotas, and what several services share"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
# SQLite's constraints have no names; this is what batch mode calls them.
NAMES = {
    "uq": "%(table_name)s_%(column_0_N_name)s_key",
    "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
}
APPEND_ONLY = ["transactions", "entries", "audit_log"]


def upgrade() -> None:
    rules()
    money()
    op.create_table(
        "answers",
        sa.Column("caller", sa.String(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("request", sa.String(), nullable=False),
        sa.Column("status", sa.BigInteger(), nullable=False),
        sa.Column("body", sa.String(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("caller", "key"),
    )
    op.create_index("ix_answers_at", "answers", ["at"])
    op.create_table(
        "audit_log",
        sa.Column("id", KEY, primary_key=True),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("before", sa.JSON(), nullable=True),
        sa.Column("after", sa.JSON(), nullable=True),
        sa.Column("request_id", sa.String(), nullable=False),
    )
    op.create_index("ix_audit_log_actor", "audit_log", ["actor", "id"])
    op.create_index("ix_audit_log_subject", "audit_log", ["subject", "id"])
    for table in APPEND_ONLY:
        protect(table)


def rules() -> None:
    """What admins set: grants, policies, quotas, and each pool's settings."""
    op.create_table(
        "grants",
        sa.Column("id", KEY, primary_key=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("period", sa.BigInteger(), nullable=True),
        sa.Column("cap", sa.BigInteger(), nullable=True),
        sa.Column("anchor", sa.BigInteger(), nullable=False),
        sa.Column("expires_after", sa.BigInteger(), nullable=True),
        sa.Column("next_at", sa.BigInteger(), nullable=True),
        sa.Column("created", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.String(), nullable=False),
        sa.Column("ended", sa.BigInteger(), nullable=True),
        version(),
    )
    op.create_index("ix_grants_next", "grants", ["next_at"], **where("next_at IS NOT NULL"))
    op.create_table(
        "policies",
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("pays", sa.String(), nullable=True),
        sa.Column("rank", sa.BigInteger(), nullable=True),
        version(),
        sa.PrimaryKeyConstraint("kind", "name"),
        sa.UniqueConstraint("rank"),
    )
    op.create_table(
        "quotas",
        sa.Column("id", KEY, primary_key=True),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("gpus", sa.BigInteger(), nullable=True),
        sa.Column("gpu_seconds", sa.BigInteger(), nullable=True),
        sa.Column("period", sa.BigInteger(), nullable=True),
        sa.Column("longest", sa.BigInteger(), nullable=True),
        sa.Column("horizon", sa.BigInteger(), nullable=True),
        sa.Column("configurations", sa.JSON(), nullable=True),
        version(),
        sa.UniqueConstraint("kind", "name"),
    )
    op.create_table(
        "pool_settings",
        sa.Column("pool", sa.String(), nullable=False),
        sa.Column("price_floor", sa.BigInteger(), nullable=True),
        sa.Column("price_ceiling", sa.BigInteger(), nullable=True),
        sa.Column("held_back", sa.BigInteger(), nullable=False),
        version(),
        sa.PrimaryKeyConstraint("pool"),
    )
    op.create_table(
        "maintenance",
        sa.Column("id", KEY, primary_key=True),
        sa.Column("pool", sa.String(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("end", sa.BigInteger(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=True),
        sa.Column("reason", sa.String(), nullable=False),
        version(),
    )
    op.create_index("ix_maintenance_pool", "maintenance", ["pool", "end"])
    op.create_table(
        "writers",
        sa.Column("pool", sa.String(), nullable=False),
        sa.Column("address", sa.String(), nullable=False),
        sa.Column("since", sa.BigInteger(), nullable=False),
        sa.Column("beat", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("pool"),
    )


def money() -> None:
    """Balances beside the entries, lots, and who pays for what."""
    with op.batch_alter_table("accounts", naming_convention=NAMES) as table:
        table.add_column(sa.Column("balance", sa.BigInteger(), server_default="0", nullable=False))
        table.add_column(
            sa.Column("overdraft", sa.BigInteger(), server_default="0", nullable=False)
        )
        table.add_column(
            sa.Column("started", sa.Boolean(), server_default=sa.false(), nullable=False)
        )
    op.execute(
        "UPDATE accounts SET balance = (SELECT coalesce(sum(entries.amount), 0) FROM entries"
        " WHERE entries.account_id = accounts.id)"
    )
    op.execute(
        sa.text("UPDATE accounts SET started = :yes WHERE kind = 'user'").bindparams(yes=True)
    )
    op.create_table(
        "lots",
        sa.Column("id", KEY, primary_key=True),
        sa.Column("account_id", KEY, sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("grant_id", KEY, sa.ForeignKey("grants.id"), nullable=True),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("remaining", sa.BigInteger(), nullable=False),
        sa.Column("expires", sa.BigInteger(), nullable=False),
    )
    live = where("remaining > 0")
    op.create_index("ix_lots_account", "lots", ["account_id", "expires"], **live)
    op.create_index("ix_lots_expires", "lots", ["expires"], **live)
    with op.batch_alter_table("transactions", naming_convention=NAMES) as table:
        table.add_column(sa.Column("part", sa.BigInteger(), server_default="0", nullable=False))
        table.add_column(sa.Column("actor", sa.String(), server_default="market", nullable=False))
        table.drop_constraint("transactions_reservation_id_kind_key", type_="unique")
        table.create_unique_constraint(
            "transactions_reservation_id_kind_part_key", ["reservation_id", "kind", "part"]
        )
    with op.batch_alter_table("entries", naming_convention=NAMES) as table:
        table.add_column(sa.Column("lot_id", KEY, nullable=True))
        table.add_column(sa.Column("balance", sa.BigInteger(), nullable=True))
        table.create_foreign_key("entries_lot_id_fkey", "lots", ["lot_id"], ["id"])
    op.execute(
        "UPDATE entries SET balance = chain.balance FROM (SELECT id, sum(amount) OVER"
        " (PARTITION BY account_id ORDER BY id) AS balance FROM entries) AS chain"
        " WHERE chain.id = entries.id"
    )
    with op.batch_alter_table("entries", naming_convention=NAMES) as table:
        table.alter_column("balance", existing_type=sa.BigInteger(), nullable=False)
        table.create_index("ix_entries_transaction", ["transaction_id"])
    with op.batch_alter_table("reservations", naming_convention=NAMES) as table:
        table.add_column(sa.Column("account_id", KEY, nullable=True))
        table.add_column(sa.Column("groups", sa.JSON(), server_default="[]", nullable=False))
        table.add_column(version())
        table.create_foreign_key("reservations_account_id_fkey", "accounts", ["account_id"], ["id"])
        table.create_index("ix_reservations_user_end", ["user", "end"])
        table.create_index("ix_reservations_account_end", ["account_id", "end"])
        table.create_index("ix_reservations_pool", ["pool", "created", "id"])
    op.execute(
        "UPDATE reservations SET account_id = (SELECT accounts.id FROM accounts"
        " WHERE accounts.kind = 'user' AND accounts.name = reservations.\"user\")"
    )
    op.create_table(
        "grant_ticks",
        sa.Column("grant_id", KEY, sa.ForeignKey("grants.id"), nullable=False),
        sa.Column("account_id", KEY, sa.ForeignKey("accounts.id"), nullable=False),
        sa.Column("tick", sa.BigInteger(), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("transaction_id", KEY, sa.ForeignKey("transactions.id"), nullable=True),
        sa.PrimaryKeyConstraint("grant_id", "account_id", "tick"),
    )
    op.create_index("ix_grant_ticks_transaction", "grant_ticks", ["transaction_id"])


def version() -> sa.Column[int]:
    return sa.Column("version", sa.BigInteger(), server_default="1", nullable=False)


def where(condition: str) -> dict[str, Any]:
    return {"sqlite_where": sa.text(condition), "postgresql_where": sa.text(condition)}


def protect(table: str) -> None:
    """Refuse, in the database itself, to change or delete what is append-only."""
    refusal = f"{table} is append-only"
    if op.get_bind().dialect.name == "sqlite":
        for change in ("update", "delete"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{change} BEFORE {change.upper()} ON {table}"
                f" BEGIN SELECT RAISE(ABORT, '{refusal}'); END"
            )
        return
    op.execute(
        f"CREATE FUNCTION {table}_append_only() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE EXCEPTION '{refusal}' USING ERRCODE = 'restrict_violation'; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table}"
        f" FOR EACH STATEMENT EXECUTE FUNCTION {table}_append_only()"
    )


def downgrade() -> None:
    raise NotImplementedError("what 0003 stores has no place in 0002: restore the backup")
