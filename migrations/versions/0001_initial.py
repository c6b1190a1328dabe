"""The log's first schema: decisions, attempts, outcomes, predictors, fronts, prices, events.

A revision never imports `optllm_router`: it says what the schema was, not what it became.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_SERIAL = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create every table, parents first."""
    _create_decisions()
    _create_tags()
    _create_attempts()
    _create_outcomes()
    _create_predictors()
    _create_prices_and_events()


def downgrade() -> None:
    """Drop every table, children first; what they held is gone."""
    for table in (
        "events",
        "prices",
        "fronts",
        "predictors",
        "outcome_history",
        "outcomes",
        "attempts",
        "decision_tags",
        "decisions",
        "texts",
    ):
        op.drop_table(table)


def _create_decisions() -> None:
    op.create_table(
        "texts",
        sa.Column("text_key", sa.Text, nullable=False),
        sa.Column("features", sa.LargeBinary),
        sa.Column("prompt", sa.Text),
        sa.PrimaryKeyConstraint("text_key", name="pk_texts"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "decisions",
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("requested", sa.Text, nullable=False),
        sa.Column("chosen", sa.Text, nullable=False),
        sa.Column("served", sa.Text),
        sa.Column("policy", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("session_id", sa.Text),
        sa.Column("batch_id", sa.Text),
        sa.Column("predictor_version", sa.Text),
        sa.Column("price_version", sa.Text),
        sa.Column("propensity", sa.Float),
        sa.Column("dual_price", sa.Float),
        sa.Column("epsilon", sa.Float, nullable=False),
        sa.Column("allowed", sa.Text, nullable=False),
        sa.Column("expected_accuracy", sa.Float),
        sa.Column("expected_cost_nusd", sa.BigInteger),
        sa.Column("text_key", sa.Text),
        sa.Column("n_prompt_tokens", sa.BigInteger, nullable=False),
        sa.Column("n_turns", sa.BigInteger, nullable=False),
        sa.Column("n_tools", sa.BigInteger, nullable=False),
        sa.Column("n_images", sa.BigInteger, nullable=False),
        sa.Column("wants_json", sa.Boolean, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_decisions"),
        sa.ForeignKeyConstraint(
            ["text_key"], ["texts.text_key"], name="fk_decisions_text_key_texts"
        ),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_decisions_created_at_id", "decisions", ["created_at", "id"])
    for column in ("session_id", "batch_id", "text_key"):
        _create_sparse_index("decisions", column)


def _create_tags() -> None:
    op.create_table(
        "decision_tags",
        sa.Column("decision_id", sa.Text, nullable=False),
        sa.Column("tag", sa.Text, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.PrimaryKeyConstraint("decision_id", "tag", name="pk_decision_tags"),
        _of_decision("decision_tags"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_decision_tags_tag", "decision_tags", ["tag"])


def _create_attempts() -> None:
    op.create_table(
        "attempts",
        sa.Column("decision_id", sa.Text, nullable=False),
        sa.Column("id", sa.Text, nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("candidate", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("started_at", _TIME, nullable=False),
        sa.Column("latency_s", sa.Float, nullable=False),
        sa.Column("error_class", sa.Text),
        sa.Column("error_text", sa.Text),
        sa.Column("prompt_tokens", sa.BigInteger),
        sa.Column("completion_tokens", sa.BigInteger),
        sa.Column("cached_tokens", sa.BigInteger),
        sa.Column("cost_nusd", sa.BigInteger),
        sa.Column("estimated", sa.Boolean, nullable=False),
        sa.Column("streamed", sa.Boolean, nullable=False),
        sa.Column("cache_hit", sa.Boolean, nullable=False),
        sa.Column("response_id", sa.Text),
        sa.Column("price_version", sa.Text),
        sa.PrimaryKeyConstraint("decision_id", "id", name="pk_attempts"),
        _of_decision("attempts"),
        sqlite_with_rowid=False,
    )
    _create_sparse_index("attempts", "response_id")


def _create_outcomes() -> None:
    op.create_table(
        "outcomes",
        sa.Column("decision_id", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("score", sa.Float, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("decision_id", "source", name="pk_outcomes"),
        _of_decision("outcomes"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_outcomes_created_at", "outcomes", ["created_at"])
    op.create_table(
        "outcome_history",
        sa.Column("id", _SERIAL, nullable=False),
        sa.Column("decision_id", sa.Text, nullable=False),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("score", sa.Float, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("replaced_at", _TIME, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_outcome_history"),
        _of_decision("outcome_history"),
    )
    op.create_index("ix_outcome_history_decision_id", "outcome_history", ["decision_id"])


def _create_predictors() -> None:
    op.create_table(
        "predictors",
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("metrics", sa.Text, nullable=False),
        sa.Column("artifact", sa.LargeBinary, nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_predictors"),
    )
    op.create_index("ix_predictors_created_at", "predictors", ["created_at"])
    published = sa.text("status = 'published'")
    op.create_index(
        "uq_predictors_published",
        "predictors",
        ["status"],
        unique=True,
        sqlite_where=published,
        postgresql_where=published,
    )
    op.create_table(
        "fronts",
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("points", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_fronts"),
        sa.ForeignKeyConstraint(
            ["version"],
            ["predictors.version"],
            name="fk_fronts_version_predictors",
            ondelete="CASCADE",
        ),
    )


def _create_prices_and_events() -> None:
    op.create_table(
        "prices",
        sa.Column("version", sa.Text, nullable=False),
        sa.Column("created_at", _TIME, nullable=False),
        sa.Column("prices", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("version", name="pk_prices"),
    )
    op.create_table(
        "events",
        sa.Column("id", _SERIAL, nullable=False),
        sa.Column("at", _TIME, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("facts", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_events"),
    )
    op.create_index("ix_events_at", "events", ["at"])


def _of_decision(table: str) -> sa.ForeignKeyConstraint:
    """Return the foreign key by which a table's rows leave with their decision."""
    return sa.ForeignKeyConstraint(
        ["decision_id"],
        ["decisions.id"],
        name=f"fk_{table}_decision_id_decisions",
        ondelete="CASCADE",
    )


def _create_sparse_index(table: str, column: str) -> None:
    """Index the rows that have a value: most have none, and pay nothing."""
    filled = sa.text(f"{column} IS NOT NULL")
    op.create_index(
        f"ix_{table}_{column}", table, [column], sqlite_where=filled, postgresql_where=filled
    )
