"""Connections to one database: how they are opened, tuned, locked and survive a fork.

Everything that differs between SQLite and PostgreSQL about connections is here. SQLite has one
writer at a time: threads of this process queue at a lock, which is fairer and faster than SQLite's
own polling; for other processes one looks every so often. Writes begin IMMEDIATE, because a
transaction that begins reading and then writes can fail at once when another one wrote between.
"""

from __future__ import annotations

import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeAlias

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, InvalidatePoolError, NoSuchModuleError
from sqlalchemy.pool import ConnectionPoolEntry, Pool, StaticPool

from optllm_router.errors import StoreError
from optllm_router.store.faults import shown, translated
from optllm_router.store.kept import BUSY_TIMEOUT_S, KeptConnection, begin_writing

Durability = Literal["normal", "full"]
Clock: TypeAlias = Callable[[], datetime]

_MAX_IN_LINE = 3  # times the deadline
_LEAST_PATIENCE_S = 0.05
_CLOSING_S = 1.0
_TRUSTED_S = 1.0  # so long a server's connection that was in use is taken to be good
# SQLite's 1,000 make one request in a hundred wait for a checkpoint (it writes ten pages), and
# write the same index pages again each time; 16 MB of write-ahead log instead of 4.
_CHECKPOINT_PAGES = 4_000
_DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}


# When whoever uses a database here and now stops waiting for other writers (monotonic seconds).
_deadline: ContextVar[float] = ContextVar("optllm_store_deadline", default=math.inf)


@contextmanager
def waiting_at_most(seconds: float) -> Iterator[None]:
    """Have what this thread does inside the block not wait longer for other writers.

    That is for threads and processes together: without it, each of the threads in line for a
    locked file would have its own `BUSY_TIMEOUT_S`, one after the other. While the line moves, a
    thread stays in it a few times as long.
    """
    token = _deadline.set(time.monotonic() + seconds)
    try:
        yield
    finally:
        _deadline.reset(token)


class Database:
    """One database with its pool. Safe to use from any thread, and in a child after a fork.

    `clock` replaces the database's own, by which windows of money turn and leases run out.
    """

    def __init__(
        self, url: str, *, durability: Durability = "normal", clock: Clock | None = None
    ) -> None:
        self.url = parse_url(url)
        self.clock = clock
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self.in_memory = self.is_sqlite and _is_memory(self.url)
        self.engine = _engine(self.url, in_memory=self.in_memory, durability=durability)
        # SQLite's readers see one moment anyway.
        level = {} if self.is_sqlite else {"isolation_level": "REPEATABLE READ"}
        self._reader = self.engine.execution_options(**level)
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._n_turns = 0
        self._kept: KeptConnection | None = None
        self._inherited: list[Pool | KeptConnection | None] = []

    def now(self, cursor: Any) -> datetime:
        """Return the database's time; SQLite has no other than this machine's."""
        if self.clock is not None:
            return self.clock()
        if self.is_sqlite:
            return datetime.now(UTC)
        cursor.execute("SELECT clock_timestamp()")
        moment: datetime = cursor.fetchone()[0]
        return moment.astimezone(UTC)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Give a connection whose selects all see one moment of the database."""
        # In memory there is one connection, and it holds one transaction at a time.
        with (
            self._turn(alone=self.in_memory),
            translated(self.engine),
            self._reader.begin() as found,
        ):
            yield found

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Give a connection in a write transaction: committed at the end, or undone as a whole."""
        with (
            self._turn(alone=self.is_sqlite),
            translated(self.engine),
            self._writer() as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def migrating(self) -> Iterator[Connection]:
        """Give a connection in a write transaction that may rebuild tables.

        SQLite alters a table by copying it and dropping the old one, and with foreign keys on
        that would take the rows of every child along. They can only be switched outside of a
        transaction.
        """
        with (
            self._turn(alone=self.is_sqlite),
            translated(self.engine),
            self._writer() as connection,
        ):
            self._check_references(connection, on=False)
            try:
                with connection.begin():
                    yield connection
            finally:
                self._check_references(connection, on=True)

    def _writer(self) -> Connection:
        return self.engine.connect().execution_options(optllm_writes=True)

    def _check_references(self, connection: Connection, *, on: bool) -> None:
        if self.is_sqlite:
            cursor = connection.connection.cursor()
            cursor.execute(f"PRAGMA foreign_keys = {'ON' if on else 'OFF'}")
            cursor.close()

    @contextmanager
    def raw_writing(self) -> Iterator[Any]:
        """Give a cursor of the driver itself in a write transaction.

        For the few statements that run once per request: SQLAlchemy's way to them costs 0.1 ms
        each, several times what SQLite needs.
        """
        with self._turn(alone=self.is_sqlite), translated(self.engine):
            if self.is_sqlite and not self.in_memory:
                yield from self._written_on_file()
                return
            connection = self.engine.raw_connection()
            try:
                cursor = connection.cursor()
                if self.is_sqlite:
                    cursor.execute("BEGIN IMMEDIATE")
                yield cursor
                connection.commit()
            finally:
                connection.close()  # back to the pool, which rolls back what is not committed

    def _written_on_file(self) -> Iterator[Any]:
        """Write on a connection that is kept, as taking one from the pool takes 0.1 ms."""
        connection = self._kept = self._kept or KeptConnection(self.engine.raw_connection())
        try:
            # Whoever came late in line is patient with other processes all the same.
            yield connection.begin(max(_left_s(), _LEAST_PATIENCE_S))
            connection.commit()
        except BaseException:
            if self._kept is connection:
                self._kept = None
            connection.drop()  # whatever state it is in
            raise

    def empty_write_ahead_log(self) -> None:
        """Move what SQLite's log holds into the file, so that erased rows are nowhere any more."""
        if not self.is_sqlite:
            return
        with self._turn(alone=True), translated(self.engine):
            connection = self.engine.raw_connection()
            try:
                connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")
            finally:
                connection.close()

    def close(self) -> None:
        """Close the connections; the next use would open new ones.

        A write under way has a second to end. One that this very call interrupts (in a signal
        handler) cannot, and keeps its connection.
        """
        self._follow_fork()
        lock = self._lock
        is_free = lock.acquire(timeout=_CLOSING_S)
        try:
            kept, self._kept = (self._kept, None) if is_free else (None, self._kept)
            if kept is not None:
                kept.drop()
        finally:
            self.engine.dispose()
            if is_free:
                lock.release()

    @contextmanager
    def _turn(self, *, alone: bool) -> Iterator[None]:
        self._follow_fork()
        lock = self._lock  # a fork replaces it
        if alone and not self._is_my_turn(lock):
            raise StoreError(
                f"the log {shown(self.url)!r} cannot be used: other threads have been writing to "
                "it for too long. Wait, or look for what locks it."
            )
        try:
            yield
        finally:
            if alone:
                lock.release()

    def _is_my_turn(self, lock: threading.Lock) -> bool:
        """Wait in line; beyond the deadline only while others have their turns, and thrice as long.

        Python's locks are not fair: of many busy threads one can come last for a second.
        """
        left_s = _left_s()
        last_call = time.monotonic() + _MAX_IN_LINE * left_s
        while True:
            seen = self._n_turns
            if lock.acquire(timeout=-1 if left_s == math.inf else left_s):
                self._n_turns += 1
                return True
            if self._n_turns == seen or time.monotonic() > last_call:
                return False

    def _follow_fork(self) -> None:
        """Drop what belongs to the parent process, in the child's first use of it.

        Connections must not be used by two processes, and a SQLite one not even closed in the
        child (sqlite.org/howtocorrupt.html, 2.6): the old pool is kept and never touched. A
        database in memory was copied with the process and stays, apart from the parent's.
        """
        if self._pid == os.getpid():
            return
        self._lock = threading.Lock()
        if not self.in_memory:
            self._inherited += [self.engine.pool, self._kept]
            self._kept = None
            self.engine.dispose(close=False)
        self._pid = os.getpid()


def _left_s() -> float:
    return max(_deadline.get() - time.monotonic(), 0.0)


def parse_url(url: str) -> URL:
    """Return a database URL that this package can use, SQLite's file as an absolute path.

    A relative path is resolved once: connections are opened later too, when the working folder
    may be another one.

    Raises: StoreError for what is no URL, or a database other than SQLite and PostgreSQL.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as error:  # the latter for a port that is no number
        raise StoreError(
            f"store={shown(str(url))!r} is not a database URL: write `sqlite:///optllm.db` for a "
            "file, or `postgresql://user@host/database`."
        ) from error
    if parsed.drivername not in _DRIVERS:
        raise StoreError(
            f"store={shown(parsed)!r} asks for {parsed.drivername!r}, but the log is kept in "
            "SQLite (`sqlite:///optllm.db`) or PostgreSQL (`postgresql://user@host/database`)."
        )
    parsed = parsed.set(drivername=_DRIVERS[parsed.drivername])
    database = parsed.database
    if parsed.drivername != "sqlite" or _is_memory(parsed) or str(database).startswith("file:"):
        return parsed
    return parsed.set(database=str(Path(str(database)).absolute()))


def sqlite_file(url: URL) -> Path | None:
    """Return the file of a SQLite URL; None for PostgreSQL, memory and `file:` URIs."""
    if url.get_backend_name() != "sqlite" or _is_memory(url):
        return None
    return None if str(url.database).startswith("file:") else Path(str(url.database))


def _is_memory(url: URL) -> bool:
    name = url.database or ":memory:"
    return name == ":memory:" or "mode=memory" in name or url.query.get("mode") == "memory"


def _engine(url: URL, *, in_memory: bool, durability: Durability) -> Engine:
    options: dict[str, Any] = {"hide_parameters": True}
    if in_memory:
        options |= {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
    elif url.get_backend_name() == "sqlite":
        options |= {"max_overflow": 59, "connect_args": {"timeout": BUSY_TIMEOUT_S}}
    try:
        engine = create_engine(url, **options)
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise StoreError(
            f"store={shown(url)!r} needs a driver that is not installed ({error}): run "
            "`pip install 'optllm-router[postgres]'`."
        ) from error
    if url.get_backend_name() == "sqlite":
        _tune_sqlite(engine, durability)
    else:
        _ping_idle_connections(engine)
    return engine


def _ping_idle_connections(engine: Engine) -> None:
    """Ask whether the server is there (it may have been restarted), but not for every call.

    Once a connection is found dead, those that were used before that are asked, too.
    """
    dialect, lost_at = engine.dialect, -math.inf

    def lost(_connection: object, _record: object, _error: object) -> None:
        nonlocal lost_at
        lost_at = time.monotonic()

    def checkin(_connection: object, record: ConnectionPoolEntry) -> None:
        record.info["used_at"] = time.monotonic()

    def checkout(connection: Any, record: ConnectionPoolEntry, _proxy: object) -> None:
        used_at = record.info.get("used_at", math.inf)
        if used_at > max(lost_at, time.monotonic() - _TRUSTED_S):
            return
        try:
            dialect.do_ping(connection)
        except dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError from error

    event.listen(engine, "invalidate", lost)
    event.listen(engine, "checkin", checkin)
    event.listen(engine, "checkout", checkout)


def _tune_sqlite(engine: Engine, durability: Durability) -> None:
    """Have every new connection set up, and transactions begun by us instead of the driver."""

    def tune(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # the driver would begin late, and never IMMEDIATE
        mode = _write_ahead(connection)
        # Without a write-ahead log (some network disks), NORMAL could lose the whole file.
        synchronous = "NORMAL" if durability == "normal" and mode == "wal" else "FULL"
        connection.execute(f"PRAGMA synchronous = {synchronous}")
        connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA secure_delete = ON")  # what is forgotten is overwritten

    def begin(connection: Connection) -> None:
        if connection.get_execution_options().get("optllm_writes"):
            begin_writing(connection.connection.cursor(), BUSY_TIMEOUT_S)
        else:
            connection.exec_driver_sql("BEGIN")

    event.listen(engine, "connect", tune)
    event.listen(engine, "begin", begin)


def _write_ahead(connection: sqlite3.Connection) -> str:
    """Switch a file to write-ahead logging, once in its life; return its journal mode.

    SQLite does not wait for other processes here, so we do: several may open a new file at once.
    """
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            (mode,) = connection.execute("PRAGMA journal_mode").fetchone()
            if mode == "delete":
                (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
            return str(mode)
        except sqlite3.OperationalError as error:
            if error.sqlite_errorname != "SQLITE_BUSY" or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
