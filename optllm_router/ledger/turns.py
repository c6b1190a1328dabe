"""Callers of one process that wait for money which other calls have reserved, in line.

Only the first of a line asks the database again: at once when a call of this process is settled,
else every so often, since other processes settle, too. Whoever leaves a line, with money or
without, has the next one ask at once, as there may be more. So a thousand that wait cost the
database no more than one.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Collection
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import TypeAlias

Place: TypeAlias = tuple[str, str]  # a budget's name and its window


class Ticket:
    """One caller's place in a line; `signal` is done when it is time to ask again."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.signal: Future[None] = Future()

    def call(self) -> None:
        """Have the caller ask (again)."""
        with suppress(InvalidStateError):  # somebody else has called already
            self.signal.set_result(None)

    def renew(self) -> None:
        """Await the next call; before asking, so that none is missed."""
        self.signal = Future()


class Turns:
    """The lines of one process; safe to use from any thread, and empty after a fork."""

    def __init__(self) -> None:
        self._begin()

    def join(self, place: Place) -> Ticket:
        """Go to the end of a budget's line."""
        self._follow_fork()
        ticket = Ticket(place)
        with self._lock:
            self._lines.setdefault(place, {})[ticket] = None
        return ticket

    def is_first(self, ticket: Ticket) -> bool:
        """Whether a caller is the one that asks."""
        with self._lock:
            return next(iter(self._lines.get(ticket.place, {})), None) is ticket

    def leave(self, ticket: Ticket) -> None:
        """Leave a line, and have its next one ask."""
        self._follow_fork()
        with self._lock:
            line = self._lines.get(ticket.place, {})
            was_first = next(iter(line), None) is ticket
            line.pop(ticket, None)
            if not line:
                self._lines.pop(ticket.place, None)
            following = next(iter(line), None) if was_first else None
        if following is not None:
            following.call()

    def settled(self, budgets: Collection[str]) -> None:
        """Have the first of every line of these budgets ask: a call of theirs has ended."""
        self._follow_fork()
        with self._lock:
            lines = [line for (name, _), line in self._lines.items() if name in budgets]
            first = [next(iter(line)) for line in lines if line]
        for ticket in first:
            ticket.call()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._lines: dict[Place, dict[Ticket, None]] = {}
        self._pid = os.getpid()

    def _follow_fork(self) -> None:
        """Forget who waits in the parent; its lock may be held for ever here."""
        if self._pid != os.getpid():
            self._begin()
