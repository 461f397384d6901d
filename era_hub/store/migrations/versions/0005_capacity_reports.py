"""what a foreign scheduler says of its capacity"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "capacity_reports",
        sa.Column("id", KEY, primary_key=True),
        sa.Column("pool", sa.String(), nullable=False),
        sa.Column("start", sa.BigInteger(), nullable=False),
        sa.Column("end", sa.BigInteger(), nullable=True),
        sa.Column("units", sa.BigInteger(), nullable=False),
    )
    op.create_index("ix_capacity_reports_pool", "capacity_reports", ["pool", "id"])


def downgrade() -> None:
    op.drop_index("ix_capacity_reports_pool", "capacity_reports")
    op.drop_table("capacity_reports")
