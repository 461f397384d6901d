"""whose credits lapse, the version of policies and quotas, and indexes of servers and starts"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "accounts",
        sa.Column("lapsing", sa.Boolean(), server_default=sa.false(), nullable=False),
    )
    op.execute(
        sa.text(
            "UPDATE accounts SET lapsing = :yes WHERE id IN (SELECT account_id FROM lots)"
        ).bindparams(yes=True)
    )
    rules = op.create_table(
        "rules_version",
        sa.Column("id", sa.BigInteger(), primary_key=True),
        sa.Column("version", sa.BigInteger(), nullable=False),
    )
    op.bulk_insert(rules, [{"id": 1, "version": 1}])
    op.drop_index("ix_reservations_state")
    op.create_index("ix_reservations_state", "reservations", ["state", "start"])
    accepted = sa.text("state = 'accepted'")
    op.create_index(
        "ix_reservations_server",
        "reservations",
        ["user", "server_name"],
        sqlite_where=accepted,
        postgresql_where=accepted,
    )


def downgrade() -> None:
    op.drop_index("ix_reservations_server")
    op.drop_index("ix_reservations_state")
    op.create_index("ix_reservations_state", "reservations", ["state"])
    op.drop_table("rules_version")
    op.drop_column("accounts", "lapsing")
