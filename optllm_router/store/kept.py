"""The connection that a SQLite log keeps for the rows of requests."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

from sqlalchemy.pool import PoolProxiedConnection

BUSY_TIMEOUT_S = 30.0
_LOOK_S = 0.02


class KeptConnection:
    """A SQLite connection that one writer after the other uses; see `Database.raw_writing`."""

    def __init__(self, connection: PoolProxiedConnection) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        _wait_at_most(self._cursor, _LOOK_S)

    def begin(self, left_s: float) -> Any:
        """Begin writing and return a cursor; waits that long for other processes."""
        _patiently(self._cursor, "BEGIN IMMEDIATE", left_s)
        return self._cursor

    def commit(self) -> None:
        """End the transaction; without a write-ahead log, readers are waited for."""
        _patiently(self._cursor, "COMMIT", BUSY_TIMEOUT_S)

    def drop(self) -> None:
        """Undo what is not committed, and close the connection itself."""
        try:
            self._connection.rollback()  # closed with statements under way, it would stay locked
        finally:
            self._connection.invalidate()


def begin_writing(cursor: Any, left_s: float) -> None:
    """Begin a write transaction of SQLite; waits that long for other processes.

    Raises: sqlite3.OperationalError.
    """
    _wait_at_most(cursor, _LOOK_S)
    try:
        _patiently(cursor, "BEGIN IMMEDIATE", left_s)
    finally:
        _wait_at_most(cursor, BUSY_TIMEOUT_S)


def _patiently(cursor: Any, sql: str, left_s: float) -> None:
    """Run what needs a lock, on a connection that waits for one for a moment only.

    SQLite asks for a lock after 1, 2, 5, 10 ms and then ever more seldom, so that of many processes
    whoever has waited longest comes last, for seconds. It is made to begin anew, again and again.
    """
    deadline = time.monotonic() + min(left_s, BUSY_TIMEOUT_S)
    while not _is_done(cursor, sql, is_last=time.monotonic() >= deadline):
        pass


def _is_done(cursor: Any, sql: str, *, is_last: bool) -> bool:
    try:
        cursor.execute(sql)
    except sqlite3.OperationalError as error:
        if is_last or not error.sqlite_errorname.startswith("SQLITE_BUSY"):
            raise
        return False
    return True


def _wait_at_most(cursor: Any, seconds: float) -> None:
    cursor.execute(f"PRAGMA busy_timeout = {seconds * 1000:.0f}")
