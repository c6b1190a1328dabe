"""Writes what happened to the store, and keeps it in memory while the store is down.

A store that fails in service costs nobody an answer: the entry goes to the background writer, which
repeats it, and so does every later one until the store has taken all of them, so that their order
stays. What could not be written at close is reported there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from optllm_router.errors import StoreError
from optllm_router.store.background import BackgroundWriter
from optllm_router.store.base import Store

logger = logging.getLogger("optllm_router")


class Journal:
    """Order-preserving writes with a memory; safe to call from many threads."""

    def __init__(self, store: Store, writer: BackgroundWriter) -> None:
        self._store = store
        self._writer = writer
        self._down = False

    @property
    def n_waiting(self) -> int:
        """How many writes the store has not taken yet."""
        return self._writer.n_waiting

    def write(self, entry: Callable[[Store], object]) -> None:
        """Write an entry now, or leave it to the background writer while the store is down."""
        if not self.is_writable():
            self._writer.write(entry)
            return
        try:
            entry(self._store)
        except StoreError:
            logger.exception("the log cannot be written; the entry waits in memory")
            self._down = True
            self._writer.write(entry)

    def is_writable(self) -> bool:
        """Whether the store has taken everything so far; looks again where it had not."""
        if self._down:
            self._down = self._writer.flush(0.0) > 0
        return not self._down
