"""What goes wrong with a database, in words: the value, the rule and the way out.

Drivers say "unable to open database file" or "disk I/O error". Whoever reads our message should
know which log is meant, what it needs and what to do next. Passwords and SQL parameters, which
hold prompts, are never shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import URL, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from optllm_router.errors import StoreError

# By the start of SQLite's own name of the error: what is the matter, and the way out.
_SQLITE_FAULTS = {
    "SQLITE_FULL": (
        "the disk is full",
        "Free space, or set `store` to a file on another disk.",
    ),
    "SQLITE_READONLY": (
        "the file is read-only",
        "Give this user write permission to it, or set `store` to another file.",
    ),
    "SQLITE_CANTOPEN": (
        "the file cannot be opened",
        "Its folder must exist and this user must be allowed to write there.",
    ),
    "SQLITE_NOTADB": (
        "the file is not a SQLite database",
        "Set `store` to another file, or move this one away.",
    ),
    "SQLITE_CORRUPT": (
        "the file is damaged",
        "Restore it from a backup, or move it away to start a new log.",
    ),
    "SQLITE_BUSY": (
        "another process has been writing to it for too long",
        "End that process, or let it finish.",
    ),
    "SQLITE_IOERR": (
        "the disk refuses to read or write it",
        "Look for a full or failing disk or a file size limit, or set `store` elsewhere.",
    ),
}


def shown(url: URL | str) -> str:
    """Return a database URL without its password."""
    if isinstance(url, URL):
        return url.render_as_string(hide_password=True)
    return re.sub(r"://([^:@/]*):[^@]*@", r"://\1:***@", url)


def store_error(url: URL, error: BaseException) -> StoreError:
    """Return the error that callers get for a driver's or SQLAlchemy's `error`."""
    cause = error.orig if isinstance(error, DBAPIError) and error.orig else error
    matter, way_out = _explanation(cause)
    said = next((f" ({line})" for line in str(cause).strip().splitlines()), "")
    return StoreError(f"the log {shown(url)!r} cannot be used: {matter}{said}. {way_out}")


@contextmanager
def translated(engine: Engine) -> Iterator[None]:
    """Turn every error of SQLAlchemy and of the driver inside the block into a StoreError."""
    try:
        yield
    except (SQLAlchemyError, engine.dialect.loaded_dbapi.Error, OverflowError) as error:
        raise store_error(engine.url, error) from error


def is_permanent(error: StoreError) -> bool:
    """Return whether the same write would fail again on a healthy database, for what it holds."""
    cause = error.__cause__
    orig = cause.orig if isinstance(cause, DBAPIError) else cause
    names = {kind.__name__ for kind in type(orig).__mro__}
    return not names.isdisjoint({"IntegrityError", "DataError", "OverflowError"})


def _explanation(cause: BaseException) -> tuple[str, str]:
    name = str(getattr(cause, "sqlite_errorname", ""))
    for prefix, explanation in _SQLITE_FAULTS.items():
        if name.startswith(prefix):
            return explanation
    if getattr(cause, "sqlstate", None) == "25006":  # PostgreSQL's read_only_sql_transaction
        return "the database is read-only", "Set `store` to one that takes writes."
    if type(cause).__name__ == "OperationalError":
        return "the database does not answer as it should", "See that it runs and can be reached."
    return type(cause).__name__, "The database's own words are the cause of this error."
