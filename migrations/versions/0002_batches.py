"""Batches that survive their process: who works on one, and the answers of its finished items.

An item's row leaves with its decision, so that forgetting a decision erases its answer too.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the batches, then their items."""
    op.create_table(
        "batches",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("request_keys", sa.LargeBinary, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("alive_until", sa.Double),
        sa.PrimaryKeyConstraint("id", name="pk_batches"),
    )
    op.create_table(
        "batch_items",
        sa.Column("batch_id", sa.Text, nullable=False),
        sa.Column("item", sa.BigInteger, nullable=False),
        sa.Column("decision_id", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("batch_id", "item", name="pk_batch_items"),
        sa.ForeignKeyConstraint(
            ["batch_id"],
            ["batches.id"],
            name="fk_batch_items_batch_id_batches",
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["decision_id"],
            ["decisions.id"],
            name="fk_batch_items_decision_id_decisions",
            ondelete="CASCADE",
        ),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_batch_items_decision_id", "batch_items", ["decision_id"])


def downgrade() -> None:
    """Drop both; the answers that were kept are gone."""
    op.drop_table("batch_items")
    op.drop_table("batches")
