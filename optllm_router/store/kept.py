"""The connection that a SQLite log keeps for the rows of requests."""

from __future__ import annotations

import math
from typing import Any

from sqlalchemy.pool import PoolProxiedConnection

BUSY_TIMEOUT_S = 30.0


class KeptConnection:
    """A SQLite connection that one writer after the other uses; see `Database.raw_writing`."""

    def __init__(self, connection: PoolProxiedConnection) -> None:
        self._connection = connection
        self._cursor = connection.cursor()
        self._busy_ms = round(BUSY_TIMEOUT_S * 1000)

    def begin(self, left_s: float) -> Any:
        """Begin writing and return a cursor; SQLite waits that long for other processes."""
        busy_ms = round(math.ceil(min(left_s, BUSY_TIMEOUT_S) * 10) * 100)  # seldom another one
        if busy_ms != self._busy_ms:
            self._cursor.execute(f"PRAGMA busy_timeout = {busy_ms}")
            self._busy_ms = busy_ms
        self._cursor.execute("BEGIN IMMEDIATE")
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
