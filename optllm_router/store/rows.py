"""Records to rows and back.

Columns are named like the fields of their records, so one list of names serves both ways. What
runs once per request is compiled once: SQL text, and for each parameter the field it comes from
and the conversion its column type asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from decimal import Decimal
from hashlib import sha256
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Dialect,
    Insert,
    RowMapping,
    Table,
    bindparam,
    case,
    func,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.expression import ClauseElement

from optllm_router.records import Attempt, Decision, Outcome, PriceTier, TokenPrice
from optllm_router.store import tables
from optllm_router.store.types import converter, dump_json

_FIXED_IN_ATTEMPTS = {"id", "decision_id", "number", "started_at"}


class Prepared:
    """One statement with its parameters taken from the fields of a record.

    SQLAlchemy compiles it, the driver's own cursor runs it.
    """

    def __init__(self, statement: ClauseElement, dialect: Dialect) -> None:
        compiled: Any = statement.compile(dialect=dialect)
        names = list(compiled.positiontup or compiled.binds)
        self.sql = str(compiled)
        self._names = None if compiled.positional else names
        get = attrgetter(*names)
        self._values = get if len(names) > 1 else lambda record: (get(record),)
        converters = [converter(compiled.binds[name].type, dialect) for name in names]
        self._convert = [(n, convert) for n, convert in enumerate(converters) if convert]

    def bind(self, record: object) -> Any:
        """Return the driver's parameters for one record: a tuple, or a dict where named."""
        values = list(self._values(record))
        for place, convert in self._convert:
            values[place] = convert(values[place])
        return tuple(values) if self._names is None else dict(zip(self._names, values, strict=True))


class TagRow(NamedTuple):
    """One tag of one decision, in the order the caller gave."""

    decision_id: str
    tag: str
    position: int


class ServedRow(NamedTuple):
    """Who answered a decision, once that is known, and how it came to that."""

    decision_id: str
    served: str | None
    reason: str | None = None
    propensity: float | None = None


class Statements:
    """The statements of the request path, for one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self.text = Prepared(_insert_text(dialect), dialect)
        self.decision = Prepared(insert_new(dialect, tables.decisions), dialect)
        self.tag = Prepared(insert_new(dialect, tables.decision_tags), dialect)
        self.attempt = Prepared(insert_new(dialect, tables.attempts), dialect)
        self.settle = Prepared(_settle(_is_open()), dialect)
        self.settle_reserved = Prepared(_settle(_is_open() | _is_lost()), dialect)
        self.outcome = Prepared(_replace_outcome(dialect), dialect)
        self.served = Prepared(_serve(), dialect)
        self.explained = Prepared(_explain(), dialect)
        self.find_attempt = Prepared(_find_attempt(), dialect)


def insert(dialect: Dialect, table: Table) -> Any:
    """Return an INSERT that can say what to do on conflict, on either database."""
    return (sqlite if dialect.name == "sqlite" else postgresql).insert(table)


def insert_new(dialect: Dialect, table: Table) -> Insert:
    """Return an INSERT that leaves a row with the same primary key as it is."""
    statement: Insert = insert(dialect, table).on_conflict_do_nothing(
        index_elements=list(table.primary_key)
    )
    return statement


def decision_of(row: RowMapping, tags: Sequence[str]) -> Decision:
    """Return the decision of a row of `decisions` joined with its text."""
    return Decision(**{**row, "allowed": tuple(row["allowed"]), "tags": tuple(tags)})


def attempt_of(row: RowMapping) -> Attempt:
    """Return the attempt of a row."""
    return Attempt(**row)


def outcome_of(row: RowMapping) -> Outcome:
    """Return the outcome of a row."""
    return Outcome(**row)


def price_list(prices: Mapping[str, TokenPrice | None]) -> dict[str, object]:
    """Return a price list as JSON values, decimals as text, candidates in order."""
    return {name: _price_values(price) for name, price in sorted(prices.items())}


def price_list_version(prices: Mapping[str, object]) -> str:
    """Return 12 hex digits that only the same prices share."""
    return sha256(dump_json(prices).encode()).hexdigest()[:12]


def prices_of(values: Mapping[str, Mapping[str, Any] | None]) -> dict[str, TokenPrice | None]:
    """Return the price list that `price_list` was given."""
    return {name: None if price is None else _price_of(price) for name, price in values.items()}


def _insert_text(dialect: Dialect) -> ClauseElement:
    """Insert a text, or fill in what an earlier, stricter privacy level left out of it.

    Longer features hold more, such as an embedding beside the hashed text: they replace shorter.
    """
    statement = insert(dialect, tables.texts)
    new, old = statement.excluded, tables.texts.c
    is_longer = old.features.is_(None) | (func.length(new.features) > func.length(old.features))
    filled: ClauseElement = statement.on_conflict_do_update(
        index_elements=[old.text_key],
        set_={
            "features": case((is_longer, new.features), else_=old.features),
            "prompt": func.coalesce(old.prompt, new.prompt),
        },
        where=or_(
            is_longer & new.features.is_not(None),
            old.prompt.is_(None) & new.prompt.is_not(None),
        ),
    )
    return filled


def _replace_outcome(dialect: Dialect) -> ClauseElement:
    statement = insert(dialect, tables.outcomes)
    new = statement.excluded
    replaced: ClauseElement = statement.on_conflict_do_update(
        index_elements=list(tables.outcomes.primary_key),
        set_={"score": new.score, "created_at": new.created_at},
    )
    return replaced


def _settle(state: ColumnElement[bool]) -> ClauseElement:
    attempts = tables.attempts
    changed = [column.name for column in attempts.c if column.name not in _FIXED_IN_ATTEMPTS]
    return (
        update(attempts)
        .where(_this_attempt(), state)
        .values({name: bindparam(name) for name in changed})
    )


def _is_open() -> ColumnElement[bool]:
    return tables.attempts.c.status == literal_column("'open'")


def _is_lost() -> ColumnElement[bool]:
    """Whether an attempt was settled at its forecast, since nobody was thought to wait for it."""
    row = tables.attempts.c
    is_expired = row.error_class == literal_column("'LeaseExpired'")
    return (row.status == literal_column("'abandoned'")) & is_expired


def _serve() -> ClauseElement:
    where = tables.decisions.c.id == bindparam("decision_id")
    return update(tables.decisions).where(where).values(served=bindparam("served"))


def _explain() -> ClauseElement:
    where = tables.decisions.c.id == bindparam("decision_id")
    names = ("served", "reason", "propensity")
    return update(tables.decisions).where(where).values({n: bindparam(n) for n in names})


def _find_attempt() -> ClauseElement:
    return select(tables.attempts.c.id).where(_this_attempt())


def _this_attempt() -> ColumnElement[bool]:
    key = tables.attempts.c
    return (key.decision_id == bindparam("decision_id")) & (key.id == bindparam("id"))


def _price_values(price: TokenPrice | None) -> dict[str, object] | None:
    if price is None:
        return None
    values = asdict(price)
    tiers = [_decimals(tier, _decimal_text) for tier in values.pop("tiers")]
    return {**_decimals(values, _decimal_text), "tiers": tiers}


def _price_of(values: Mapping[str, Any]) -> TokenPrice:
    flat = {name: value for name, value in values.items() if name != "tiers"}
    tiers = tuple(PriceTier(**_decimals(tier, Decimal)) for tier in values["tiers"])
    return TokenPrice(**_decimals(flat, Decimal), tiers=tiers)


def _decimals(values: Mapping[str, Any], convert: Callable[[Any], Any]) -> dict[str, Any]:
    return {
        name: convert(value) if name.endswith("_per_1m") and value is not None else value
        for name, value in values.items()
    }


def _decimal_text(value: Decimal) -> str:
    """Return a decimal's shortest plain text, so 0.150 and 0.15 are one price."""
    return format(value.normalize(), "f")
