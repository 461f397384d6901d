"""what people asked for, for the forecast"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "seen_bids",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False),
        sa.Column("pool", sa.String(), nullable=False),
        sa.Column("resource", sa.String(), nullable=False),
        sa.Column("submitted", sa.BigInteger(), nullable=False),
        sa.Column("arrival", sa.BigInteger(), nullable=False),
        sa.Column("deadline", sa.BigInteger(), nullable=False),
        sa.Column("units", sa.BigInteger(), nullable=False),
        sa.Column("duration", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.Column("accepted", sa.Boolean(), nullable=False),
        sa.Column("price", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("seen_bids", schema=None) as batch_op:
        batch_op.create_index("ix_seen_bids_submitted", ["pool", "submitted"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("seen_bids", schema=None) as batch_op:
        batch_op.drop_index("ix_seen_bids_submitted")

    op.drop_table("seen_bids")
