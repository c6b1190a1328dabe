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

    def begin(self, left_s: float) -> Any:
        """Begin writing and return a cursor; waits that long for other processes."""
        begin_writing(self._cursor, left_s)
        return self._cursor

    def commit(self) -> None:
        """End the transaction."""
        self._connection.commit()

    def drop(self) -> None:
        """Undo what is not committed, and close the connection itself."""
        try:
            self._connection.rollback()  # closed with statements under way, it would stay locked
        finally:
            self._connection.invalidate()


def begin_writing(cursor: Any, left_s: float) -> None:
    """Begin a write transaction of SQLite; waits that long for other processes.

    SQLite asks for a lock after 1, 2, 5, 10 ms and then ever more seldom, so that of many processes
    whoever has waited longest comes last, for seconds. It is made to begin anew, again and again.

    Raises: sqlite3.OperationalError.
    """
    deadline = time.monotonic() + min(left_s, BUSY_TIMEOUT_S)
    _wait_at_most(cursor, _LOOK_S)
    try:
        while not _has_begun(cursor, is_last=time.monotonic() >= deadline):
            pass
    finally:
        _wait_at_most(cursor, BUSY_TIMEOUT_S)


def _has_begun(cursor: Any, *, is_last: bool) -> bool:
    try:
        cursor.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        if is_last or not error.sqlite_errorname.startswith("SQLITE_BUSY"):
            raise
        return False
    return True


def _wait_at_most(cursor: Any, seconds: float) -> None:
    cursor.execute(f"PRAGMA busy_timeout = {seconds * 1000:.0f}")
