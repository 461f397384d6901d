"""how many units a pool has, and has had"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "pool_sizes",
        sa.Column("pool", sa.String(), primary_key=True),
        sa.Column("since", sa.BigInteger(), primary_key=True),
        sa.Column("units", sa.BigInteger(), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("pool_sizes")
