"""Money that processes share: workers, budgets, claims, overrides, accounts, reservations."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_KEY = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables of money, parents first."""
    _create_budgets()
    _create_claims()
    _create_accounts()


def downgrade() -> None:
    """Drop the tables of money, children first; what was spent stays in the attempts."""
    for table in (
        "reservations",
        "accounts",
        "budget_overrides",
        "budget_claims",
        "budgets",
        "workers",
    ):
        op.drop_table(table)


def _create_budgets() -> None:
    op.create_table(
        "workers",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("alive_until", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_workers"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "budgets",
        sa.Column("id", _SERIAL, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("per", sa.Text, nullable=False),
        sa.Column("rolling", sa.Boolean, nullable=False),
        sa.Column("timezone", sa.Text, nullable=False),
        sa.Column("warn_at", sa.Float),
        sa.Column("at_cap", sa.Text, nullable=False),
        sa.Column("limit_nusd", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_budgets"),
    )
    op.create_index("uq_budgets_name", "budgets", ["name"], unique=True)


def _create_claims() -> None:
    op.create_table(
        "budget_claims",
        sa.Column("budget_id", _SERIAL, nullable=False),
        sa.Column("worker_id", sa.Text, nullable=False),
        sa.Column("limit_nusd", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("budget_id", "worker_id", name="pk_budget_claims"),
        _of_budget("budget_claims"),
        sa.ForeignKeyConstraint(
            ["worker_id"],
            ["workers.id"],
            name="fk_budget_claims_worker_id_workers",
            ondelete="CASCADE",
        ),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "budget_overrides",
        sa.Column("id", _SERIAL, nullable=False),
        sa.Column("budget_id", _SERIAL, nullable=False),
        sa.Column("limit_nusd", sa.BigInteger, nullable=False),
        sa.Column("until", _TIME, nullable=False),
        sa.Column("who", sa.Text, nullable=False),
        sa.Column("why", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_budget_overrides"),
        _of_budget("budget_overrides"),
    )
    op.create_index("ix_budget_overrides_budget_id", "budget_overrides", ["budget_id"])


def _create_accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("budget_id", _SERIAL, nullable=False),
        sa.Column("window_key", _KEY, nullable=False),
        sa.Column("spent_nusd", sa.BigInteger, nullable=False),
        sa.Column("reserved_nusd", sa.BigInteger, nullable=False),
        sa.Column("overshoot_nusd", sa.BigInteger, nullable=False),
        sa.Column("n_calls", sa.BigInteger, nullable=False),
        sa.Column("warned", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("budget_id", "window_key", name="pk_accounts"),
        _of_budget("accounts"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "reservations",
        sa.Column("attempt_id", sa.Text, nullable=False),
        sa.Column("decision_id", sa.Text, nullable=False),
        sa.Column("worker_id", sa.Text, nullable=False),
        sa.Column("amount_nusd", sa.BigInteger, nullable=False),
        sa.Column("forecast_nusd", sa.BigInteger, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("holds", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("attempt_id", name="pk_reservations"),
        sa.ForeignKeyConstraint(
            ["worker_id"], ["workers.id"], name="fk_reservations_worker_id_workers"
        ),
        sqlite_with_rowid=False,
    )


def _of_budget(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["budget_id"], ["budgets.id"], name=f"fk_{table}_budget_id_budgets"
    )
