"""Budgets that all processes on one store share, as one router uses them.

A ledger is a worker of the store: it claims the budgets of its settings, reserves for its calls
and shows that it lives. After a fork the child is a worker of its own.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Collection, Sequence
from dataclasses import replace

from optllm_router.errors import StoreError, UnknownDecisionError
from optllm_router.ledger.binding import binding
from optllm_router.records import Attempt, BudgetLine, Decision
from optllm_router.store.base import Store
from optllm_router.store.ids import new_id
from optllm_router.store.shares import ClaimedBudget, Reply, Reserve, SweepReport

LEASE_S = 60.0

_LOG = logging.getLogger(__name__)


class Ledger:
    """One worker's view of the shared budgets. Safe to use from any thread, and after a fork.

    Args:
        store: where the money is.
        lines: the budgets of the settings.
        lease_s: how long the worker lives without a sign of life, in seconds; `keep` must be
            called a few times as often.

    Raises: ConfigError where another process counts a budget of the same name otherwise;
    StoreError.
    """

    def __init__(
        self, store: Store, lines: Sequence[BudgetLine], *, lease_s: float = LEASE_S
    ) -> None:
        self._store = store
        self._lines = tuple(lines)
        self._lease_s = lease_s
        self._locks: dict[int, threading.Lock] = {}  # by process: one may be held while it forks
        self._begin()

    @property
    def worker(self) -> str:
        """The id of this process's worker."""
        return self._followed()[0]

    def binding(
        self, *, tags: Collection[str], task: str, candidate: str
    ) -> tuple[ClaimedBudget, ...]:
        """Return the budgets that bind a call of a candidate."""
        claimed = self._followed()[1]
        return binding(claimed, tags=tags, task=task, candidate=candidate)

    def reserve(
        self, decision: Decision, attempt: Attempt, *, amount_nusd: int, forecast_nusd: int
    ) -> Reply:
        """Write a call down and set its worst case aside on every budget that binds it.

        Args:
            decision: the decision, written with its first attempt.
            attempt: the open attempt about to be sent.
            amount_nusd: its worst case, at least 0.
            forecast_nusd: what it is taken to have cost if this process dies meanwhile.

        Returns: "reserved", or the budget that binds with "wait" or "refused"; nothing is written
        then. `Store.settle` ends the reservation.

        Raises: StoreError; the call must not be made then.
        """
        while True:
            worker, claimed = self._followed()
            wanted = Reserve(
                worker=worker,
                budgets=binding(
                    claimed, tags=decision.tags, task=decision.task, candidate=attempt.candidate
                ),
                amount_nusd=amount_nusd,
                forecast_nusd=forecast_nusd,
                lease_s=self._lease_s,
            )
            try:
                reply = self._store.reserve(decision, attempt, wanted)
            except BaseException:  # it may have been written all the same
                self._doubtful.append(attempt)
                raise
            if reply.verdict != "expired":
                return reply
            self._register(worker)

    def keep(self) -> SweepReport:
        """Show that this worker lives, and settle what dead ones left; every few seconds.

        Raises: StoreError.
        """
        worker, _ = self._followed()
        if not self._store.heartbeat(worker, lease_s=self._lease_s):
            self._register(worker)
        while self._doubtful:
            self._release(self._doubtful[0])
            self._doubtful.pop(0)
        return self._store.sweep()

    def close(self) -> None:
        """Withdraw the claims; what is still reserved is left to the lease."""
        if self._pid == os.getpid():
            self._store.retire(self._state[0])

    def _begin(self) -> None:
        """Register as a new worker."""
        self._doubtful: list[Attempt] = []
        worker = new_id()
        self._state = (worker, self._claim(worker))
        self._pid = os.getpid()

    def _followed(self) -> tuple[str, tuple[ClaimedBudget, ...]]:
        """Return the worker with its claims; in the child of a fork, a new one."""
        if self._pid != os.getpid():
            with self._lock():
                if self._pid != os.getpid():
                    self._begin()
        return self._state

    def _lock(self) -> threading.Lock:
        return self._locks.setdefault(os.getpid(), threading.Lock())

    def _register(self, worker: str) -> None:
        """Register again, once for all threads that learn that the worker was swept."""
        with self._lock():
            if not self._store.heartbeat(worker, lease_s=self._lease_s):
                self._state = (worker, self._claim(worker))

    def _claim(self, worker: str) -> tuple[ClaimedBudget, ...]:
        return self._store.register(worker, self._lines, lease_s=self._lease_s)

    def _release(self, attempt: Attempt) -> None:
        """End a reservation that nobody was told of: its call was not made."""
        unsent = replace(attempt, status="refused", cost_nusd=0, error_class="StoreError")
        try:
            self._store.settle(unsent, served=None)
        except UnknownDecisionError:
            return  # it was not written
        except StoreError as error:
            _LOG.warning("a reservation cannot be released yet: %s", error)
            raise
