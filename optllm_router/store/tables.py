"""The log's tables, as the newest migration leaves them (a test holds the two together).

Texts stand apart from decisions because a probe asks every candidate about one text: what is
known of it (features, prompt) is kept once per key, and erased with its last decision.

What a commit costs is the pages it touches. So on SQLite the rows of a request stand in the index
of their primary key (`sqlite_with_rowid=False`), and an attempt's key begins with its decision.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    text,
)

from optllm_router.store.types import AnyText, Json, UtcDateTime

NAMING = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}
metadata = MetaData(naming_convention=NAMING)


# SQLite numbers rows by itself only in columns of the type INTEGER.
_Serial = BigInteger().with_variant(Integer(), "sqlite")

# Whatever PostgreSQL's language is, keys that are compared sort by their bytes, as on SQLite.
_Key = AnyText().with_variant(AnyText(collation="C"), "postgresql")

texts = Table(
    "texts",
    metadata,
    Column("text_key", AnyText, primary_key=True),
    Column("features", LargeBinary),
    Column("prompt", AnyText),
    sqlite_with_rowid=False,
)

decisions = Table(
    "decisions",
    metadata,
    Column("id", AnyText, primary_key=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("kind", AnyText, nullable=False),
    Column("requested", AnyText, nullable=False),
    Column("chosen", AnyText, nullable=False),
    Column("served", AnyText),
    Column("policy", AnyText, nullable=False),
    Column("reason", AnyText, nullable=False),
    Column("task", AnyText, nullable=False),
    Column("session_id", AnyText),
    Column("batch_id", AnyText),
    Column("predictor_version", AnyText),
    Column("price_version", AnyText),
    Column("propensity", Float),
    Column("dual_price", Float),
    Column("epsilon", Float, nullable=False),
    Column("allowed", Json, nullable=False),
    Column("expected_accuracy", Float),
    Column("expected_cost_nusd", BigInteger),
    Column("text_key", ForeignKey("texts.text_key")),
    Column("n_prompt_tokens", BigInteger, nullable=False),
    Column("n_turns", BigInteger, nullable=False),
    Column("n_tools", BigInteger, nullable=False),
    Column("n_images", BigInteger, nullable=False),
    Column("wants_json", Boolean, nullable=False),
    sqlite_with_rowid=False,
)
Index(None, decisions.c.created_at, decisions.c.id)
for _sparse in (decisions.c.session_id, decisions.c.batch_id, decisions.c.text_key):
    Index(None, _sparse, sqlite_where=_sparse.is_not(None), postgresql_where=_sparse.is_not(None))

decision_tags = Table(
    "decision_tags",
    metadata,
    Column("decision_id", ForeignKey("decisions.id", ondelete="CASCADE"), primary_key=True),
    Column("tag", AnyText, primary_key=True),
    Column("position", Integer, nullable=False),
    Index(None, "tag"),
    sqlite_with_rowid=False,
)

attempts = Table(
    "attempts",
    metadata,
    Column("decision_id", ForeignKey("decisions.id", ondelete="CASCADE"), primary_key=True),
    Column("id", AnyText, primary_key=True),
    Column("number", Integer, nullable=False),
    Column("candidate", AnyText, nullable=False),
    Column("status", AnyText, nullable=False),
    Column("started_at", UtcDateTime, nullable=False),
    Column("latency_s", Float, nullable=False),
    Column("error_class", AnyText),
    Column("error_text", AnyText),
    Column("prompt_tokens", BigInteger),
    Column("completion_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("cost_nusd", BigInteger),
    Column("estimated", Boolean, nullable=False),
    Column("streamed", Boolean, nullable=False),
    Column("cache_hit", Boolean, nullable=False),
    Column("response_id", AnyText),
    Column("price_version", AnyText),
    sqlite_with_rowid=False,
)
_response_id = attempts.c.response_id
Index(
    None,
    _response_id,
    sqlite_where=_response_id.is_not(None),
    postgresql_where=_response_id.is_not(None),
)

outcomes = Table(
    "outcomes",
    metadata,
    Column("decision_id", ForeignKey("decisions.id", ondelete="CASCADE"), primary_key=True),
    Column("source", AnyText, primary_key=True),
    Column("score", Float, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Index(None, "created_at"),
    sqlite_with_rowid=False,
)

outcome_history = Table(
    "outcome_history",
    metadata,
    Column("id", _Serial, primary_key=True),
    Column("decision_id", ForeignKey("decisions.id", ondelete="CASCADE"), nullable=False),
    Column("source", AnyText, nullable=False),
    Column("score", Float, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("replaced_at", UtcDateTime, nullable=False),
    Index(None, "decision_id"),
)

batches = Table(
    "batches",
    metadata,
    Column("id", AnyText, primary_key=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("request_keys", LargeBinary, nullable=False),  # `KEY_BYTES` per item, in order
    Column("owner", AnyText),
    Column("alive_until", Double),  # seconds since 1970 by the database's clock
)

batch_items = Table(
    "batch_items",
    metadata,
    Column("batch_id", ForeignKey("batches.id", ondelete="CASCADE"), primary_key=True),
    Column("item", BigInteger, primary_key=True, autoincrement=False),
    Column("decision_id", ForeignKey("decisions.id", ondelete="CASCADE"), nullable=False),
    Column("status", AnyText, nullable=False),
    Column("answer", Json, nullable=False),
    Index(None, "decision_id"),
    sqlite_with_rowid=False,
)

predictors = Table(
    "predictors",
    metadata,
    Column("version", AnyText, primary_key=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("status", AnyText, nullable=False),
    Column("metrics", Json, nullable=False),
    Column("artifact", LargeBinary, nullable=False),
    Index(None, "created_at"),
)
# At most one predictor is the published one, whatever two refits do at the same moment.
Index(
    "uq_predictors_published",
    predictors.c.status,
    unique=True,
    sqlite_where=text("status = 'published'"),
    postgresql_where=text("status = 'published'"),
)

fronts = Table(
    "fronts",
    metadata,
    Column("version", ForeignKey("predictors.version", ondelete="CASCADE"), primary_key=True),
    Column("points", Json, nullable=False),
)

prices = Table(
    "prices",
    metadata,
    Column("version", AnyText, primary_key=True),
    Column("created_at", UtcDateTime, nullable=False),
    Column("prices", Json, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("id", _Serial, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("kind", AnyText, nullable=False),
    Column("message", AnyText, nullable=False),
    Column("facts", Json, nullable=False),
    Index(None, "at"),
)

# Money. A worker is one router of one process that may spend; it is dead once its lease ran out.
workers = Table(
    "workers",
    metadata,
    Column("id", AnyText, primary_key=True),
    Column("alive_until", UtcDateTime, nullable=False),
    sqlite_with_rowid=False,
)

budgets = Table(
    "budgets",
    metadata,
    Column("id", _Serial, primary_key=True),
    Column("name", AnyText, nullable=False),
    Column("scope", AnyText, nullable=False),
    Column("value", AnyText, nullable=False),
    Column("per", AnyText, nullable=False),
    Column("rolling", Boolean, nullable=False),
    Column("timezone", AnyText, nullable=False),
    Column("warn_at", Float),
    Column("at_cap", AnyText, nullable=False),
    Column("limit_nusd", BigInteger, nullable=False),  # as claimed last, for when nobody lives
    Index("uq_budgets_name", "name", unique=True),
)

budget_claims = Table(
    "budget_claims",
    metadata,
    Column("budget_id", ForeignKey("budgets.id"), primary_key=True),
    Column("worker_id", ForeignKey("workers.id", ondelete="CASCADE"), primary_key=True),
    Column("limit_nusd", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

budget_overrides = Table(
    "budget_overrides",
    metadata,
    Column("id", _Serial, primary_key=True),
    Column("budget_id", ForeignKey("budgets.id"), nullable=False),
    Column("limit_nusd", BigInteger, nullable=False),
    Column("until", UtcDateTime, nullable=False),
    Column("who", AnyText, nullable=False),
    Column("why", AnyText, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Index(None, "budget_id"),
)

accounts = Table(
    "accounts",
    metadata,
    Column("budget_id", ForeignKey("budgets.id"), primary_key=True),
    Column("window_key", _Key, primary_key=True),
    Column("spent_nusd", BigInteger, nullable=False),
    Column("reserved_nusd", BigInteger, nullable=False),
    Column("overshoot_nusd", BigInteger, nullable=False),
    Column("n_calls", BigInteger, nullable=False),
    Column("warned", Boolean, nullable=False),
    sqlite_with_rowid=False,
)

# Without a key to its decision, which may be forgotten while the call is under way.
reservations = Table(
    "reservations",
    metadata,
    Column("attempt_id", AnyText, primary_key=True),
    Column("decision_id", AnyText, nullable=False),
    Column("worker_id", ForeignKey("workers.id"), nullable=False),
    Column("amount_nusd", BigInteger, nullable=False),
    Column("forecast_nusd", BigInteger, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
    Column("holds", Json, nullable=False),
    sqlite_with_rowid=False,
)
