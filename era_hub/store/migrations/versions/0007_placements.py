"""where and when the parts of a reservation are, and what may be changed of that"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    with op.batch_alter_table("reservations") as table:
        table.add_column(
            sa.Column("commitment", sa.String(), nullable=False, server_default="fixed")
        )
        table.add_column(sa.Column("resources", sa.JSON(), nullable=False, server_default="{}"))
        table.add_column(sa.Column("taken", sa.JSON(), nullable=False, server_default="{}"))
        table.add_column(sa.Column("nodes", sa.JSON(), nullable=False, server_default="[]"))
        table.add_column(sa.Column("run_nodes", sa.JSON(), nullable=True))
        table.add_column(sa.Column("run_end", sa.BigInteger(), nullable=True))
        table.add_column(sa.Column("runs", sa.BigInteger(), nullable=False, server_default="0"))
    op.create_table(
        "placements",
        sa.Column(
            "reservation_id", sa.String(), sa.ForeignKey("reservations.id"), primary_key=True
        ),
        sa.Column("number", sa.BigInteger(), primary_key=True),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("end", sa.BigInteger(), nullable=False),
        sa.Column("slots", sa.BigInteger(), nullable=False),
        sa.Column("shares", sa.JSON(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("placements")
    with op.batch_alter_table("reservations") as table:
        for name in ("runs", "run_end", "run_nodes", "nodes", "taken", "resources", "commitment"):
            table.drop_column(name)
