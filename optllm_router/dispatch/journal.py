"""Writes what happened to the store, and keeps it in memory while the store is down.

A store that fails in service costs nobody an answer: the entry goes to the background writer, which
repeats it, and so does every later one until the store has taken all of them, so that their order
stays. A store that is locked counts as failing after a second; for what completes an attempt that
is written ahead only after half a minute, since its money is known from that entry alone. What
could not be written at close is reported there.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from typing import TypeAlias, TypeVar

from optllm_router.errors import StoreError
from optllm_router.store.background import BackgroundWriter
from optllm_router.store.base import Store
from optllm_router.store.database import waiting_at_most
from optllm_router.store.faults import is_permanent
from optllm_router.store.kept import BUSY_TIMEOUT_S

logger = logging.getLogger("optllm_router")

LOCKED_S = 1.0  # how long an answer waits for other writers before its entry is written later
_LOOK_S = 0.01

Entry: TypeAlias = Callable[[Store], object]  # harmless when it is done twice
Replied = TypeVar("Replied")


class Journal:
    """Order-preserving writes with a memory; safe to call from many threads."""

    def __init__(self, store: Store, writer: BackgroundWriter) -> None:
        self._store = store
        self._writer = writer
        self._lock = threading.Lock()
        self._n_late = 0
        self._pid = os.getpid()

    @property
    def n_waiting(self) -> int:
        """How many entries the store has not taken yet."""
        if self._pid != os.getpid():  # what waits belongs to the process that was forked
            self._pid, self._lock, self._n_late = os.getpid(), threading.Lock(), 0
        return self._n_late

    def write(self, entry: Entry, *, is_ahead: bool = False) -> None:
        """Write an entry now, or leave it to the background writer while the store is down.

        Where it completes what is written ahead (`is_ahead`), a busy store is waited for.
        """
        if is_ahead:
            self._catch_up()
        if self.n_waiting:
            self._write_later(entry)
            return
        try:
            with waiting_at_most(BUSY_TIMEOUT_S if is_ahead else LOCKED_S):
                entry(self._store)
        except Exception:
            # An impossible entry is given up by the writer, which logs it: the answer comes first.
            logger.exception("the log cannot be written; the entry waits in memory")
            self._write_later(entry)
        except BaseException:
            self._write_later(entry)  # interrupted half-way
            raise

    def write_ahead(self, entry: Callable[[Store], Replied]) -> Replied:
        """Write an entry now, return its reply. Raises: StoreError where it is not taken."""
        self._catch_up()
        if self.n_waiting:
            raise StoreError(f"the log cannot be written, {self.n_waiting} entries wait in memory")
        with waiting_at_most(BUSY_TIMEOUT_S):  # all in line together, not one after the other
            return entry(self._store)

    def _catch_up(self) -> None:
        """Wait a moment for the entries that are late, unless the store fails."""
        if not self.n_waiting:
            return
        self._writer.flush(0.0)  # has the writer ask the store again
        deadline = time.monotonic() + LOCKED_S
        while self.n_waiting and not self._writer.is_failing and time.monotonic() < deadline:
            time.sleep(_LOOK_S)

    def _write_later(self, entry: Entry) -> None:
        """Hand an entry to the background writer, and count it until it is over with."""
        with self._lock:
            self._n_late += 1

        def write(store: Store) -> None:
            try:
                entry(store)
            except StoreError as error:
                if is_permanent(error):
                    self._over()
                raise
            except BaseException:
                self._over()
                raise
            self._over()

        try:
            self._writer.write(write)
        except StoreError:  # it is closed, and the store fails: the answer comes first
            logger.exception("an entry of the log is lost: the router is closed")

    def _over(self) -> None:
        with self._lock:
            self._n_late -= 1
