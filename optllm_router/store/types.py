"""Column types that make SQLite and PostgreSQL hold the same values.

SQLite forgets time zones and PostgreSQL refuses NUL bytes in text; both drivers refuse lone
surrogates, which truncated JSON can hold. What a row gives back is what was written, on both.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Boolean, DateTime, Dialect, Text, TypeDecorator
from sqlalchemy.types import TypeEngine
from typing_extensions import override  # SQLAlchemy requires it; `typing` has it from 3.12 on

_TIME_LENGTH = len("2026-01-01 00:00:00.000000")
_ESCAPE = "\x1a"  # "substitute", the control character made for this, and rare enough to double
_UNWRITABLE = re.compile("[\x00\x1a\ud800-\udfff]")
_ESCAPED = re.compile("\x1a([0-9a-f]{4})")


def escape_text(text: str) -> str:
    r"""Return `text` as both databases can hold it; `unescape_text` gives it back.

    NUL, lone surrogates and the escape character itself become `\x1a` and four hex digits.
    """
    if text.isascii() and "\x00" not in text and _ESCAPE not in text:
        return text
    return _UNWRITABLE.sub(lambda found: f"{_ESCAPE}{ord(found[0]):04x}", text)


def unescape_text(text: str) -> str:
    """Return what `escape_text` was given."""
    if _ESCAPE not in text:
        return text
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)


def dump_json(value: object) -> str:
    """Return `value` as JSON text; arrays and numbers of numpy as lists and numbers."""
    return _ENCODER.encode(value)


def converter(column_type: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], Any] | None:
    """Return what turns a value into the driver's parameter; None where nothing needs to.

    Does what SQLAlchemy's processors do, in one call instead of three: a request has fifty values.
    """
    if isinstance(column_type, AnyText):
        return _escape_optional
    if isinstance(column_type, Json):
        return dump_json
    if isinstance(column_type, UtcDateTime) and dialect.name == "sqlite":
        return _sqlite_time
    if isinstance(column_type, Boolean):
        return None  # both drivers take booleans
    return column_type.dialect_impl(dialect).bind_processor(dialect)


def _plain(value: Any) -> object:
    """Return a JSON value for what JSON does not know: numpy's `tolist`, else its words."""
    to_list: Callable[[], object] | None = getattr(value, "tolist", None)
    return str(value) if to_list is None else to_list()


_ENCODER = json.JSONEncoder(default=_plain, separators=(",", ":"))


def _escape_optional(text: str | None) -> str | None:
    return None if text is None else escape_text(text)


def _sqlite_time(moment: datetime | None) -> str | None:
    """Return a moment as SQLAlchemy writes it to SQLite: text of one length, sorted by time."""
    return None if moment is None else _in_utc(moment).isoformat(" ", "microseconds")[:_TIME_LENGTH]


def _in_utc(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError(f"the time {moment!r} has no time zone: pass one, such as UTC")
    return moment.astimezone(UTC)


class UtcDateTime(TypeDecorator[datetime]):
    """A time-zone-aware moment, in UTC whatever the database makes of time zones."""

    impl = DateTime(timezone=True)
    cache_ok = True

    @override
    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse naive times; hand SQLite the UTC wall time, which sorts as text."""
        if value is None:
            return None
        moment = _in_utc(value)
        return moment.replace(tzinfo=None) if dialect.name == "sqlite" else moment

    @override
    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return the moment in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class AnyText(TypeDecorator[str]):
    """Text with whatever characters callers send, NUL included."""

    impl = Text
    cache_ok = True

    @override
    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        """Escape what the databases refuse."""
        return None if value is None else escape_text(value)

    @override
    def process_result_value(self, value: str | None, dialect: Dialect) -> str | None:
        """Undo the escapes."""
        return None if value is None else unescape_text(value)


class Json(TypeDecorator[Any]):
    """A JSON value as text: readable with any SQL tool, the same on every database."""

    impl = Text
    cache_ok = True

    @override
    def process_bind_param(self, value: Any, dialect: Dialect) -> str:
        """Write JSON in ASCII, so NUL and surrogates need no further care."""
        return dump_json(value)

    @override
    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """Read JSON."""
        return None if value is None else json.loads(value)
