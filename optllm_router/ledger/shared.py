"""Budgets that all processes on one store share, as one router uses them.

A ledger is a worker of the store: it claims budgets, reserves for its calls and shows that it
lives. It begins with its first budget: without any it costs nothing. After a fork the child is a
worker of its own.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from optllm_router.errors import BatchBusyError, StoreError, UnknownDecisionError
from optllm_router.ledger.binding import binding
from optllm_router.records import Attempt, BudgetLine, Decision
from optllm_router.store.base import BatchItem, Store
from optllm_router.store.ids import new_id
from optllm_router.store.shares import ClaimedBudget, Reply, Reserve, SweepReport

LEASE_S = 20.0  # so that calls that wait for a dead process's money outlast it by default

_LOG = logging.getLogger(__name__)


class Ledger:
    """One worker's view of the shared budgets. Safe to use from any thread, and after a fork.

    Args:
        store: where the money is.
        lines: the budgets of the settings, which bind calls by what they match.
        lease_s: how long the worker lives without a sign of life, in seconds; `keep` must be
            called a few times as often.

    Raises: ConfigError where another process counts a budget of the same name otherwise;
    StoreError.
    """

    def __init__(
        self, store: Store, lines: Sequence[BudgetLine], *, lease_s: float = LEASE_S
    ) -> None:
        self._store = store
        self.lines = tuple(lines)
        self._lease_s = lease_s
        self._locks: dict[int, threading.Lock] = {}  # by process: one may be held while it forks
        self._worker = ""
        self._claims: dict[str, ClaimedBudget] = {}
        self._doubtful: list[Attempt] = []
        self._pid = 0
        if self.lines:
            self._follow(())

    @property
    def worker(self) -> str:
        """The id of this process's worker; empty before its first budget."""
        return self._worker if self._pid in {0, os.getpid()} else self._follow(())

    def binding(
        self, *, tags: Collection[str], task: str, candidate: str
    ) -> tuple[BudgetLine, ...]:
        """Return the budgets of the settings that bind a call of a candidate."""
        return binding(self.lines, tags=tags, task=task, candidate=candidate)

    def reserve(  # noqa: PLR0913  # what is written, how much, and where
        self,
        decision: Decision,
        attempt: Attempt,
        *,
        amount_nusd: int,
        forecast_nusd: int,
        lines: Sequence[BudgetLine] | None = None,
        item: BatchItem | None = None,
    ) -> Reply:
        """Write a call down and set its worst case aside on every budget that binds it.

        Args:
            decision: the decision, written with its first attempt.
            attempt: the open attempt about to be sent.
            amount_nusd: its worst case, at least 0.
            forecast_nusd: what it is taken to have cost if this process dies meanwhile.
            lines: the budgets that bind it, by default those of the settings that match it. New
                ones are claimed first, for as long as this process lives.
            item: a batch's item that is claimed with it.

        Returns: "reserved", or the budget that binds with "wait" or "refused"; nothing is written
        then. `Store.settle` ends the reservation.

        Raises: ConfigError where another process counts a budget of the same name otherwise;
        StoreError. The call must not be made then.
        """
        if lines is None:
            lines = self.binding(
                tags=decision.tags, task=decision.task, candidate=attempt.candidate
            )
        while True:
            worker = self._follow(lines)
            wanted = Reserve(
                worker=worker,
                budgets=tuple(self._claims[line.name] for line in lines),
                amount_nusd=amount_nusd,
                forecast_nusd=forecast_nusd,
                lease_s=self._lease_s,
            )
            try:
                reply = self._store.reserve(decision, attempt, wanted, item=item)
            except BatchBusyError:
                raise
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
        worker = self.worker
        if not worker:
            return SweepReport(0, 0, 0)
        if not self._store.heartbeat(worker, lease_s=self._lease_s):
            self._register(worker)
        self._release_doubtful()
        return self._store.sweep()

    def close(self) -> None:
        """Withdraw the claims; what calls under way have reserved is left to the lease.

        Raises: StoreError.
        """
        if self._pid == os.getpid():
            self._release_doubtful()
            self._store.retire(self._worker)

    def _follow(self, lines: Sequence[BudgetLine]) -> str:
        """Return the worker, with a claim on every line; in the child of a fork, a new one."""
        if self._pid == os.getpid() and all(line.name in self._claims for line in lines):
            return self._worker
        with self._lock():
            is_forked = self._pid != os.getpid()
            new = {line.name: line for line in lines if line.name not in self._claims}
            if is_forked or new:
                self._claim(new_id() if is_forked else self._worker, new)
            if is_forked:
                self._doubtful, self._pid = [], os.getpid()
            return self._worker

    def _lock(self) -> threading.Lock:
        return self._locks.setdefault(os.getpid(), threading.Lock())

    def _register(self, worker: str) -> None:
        """Register again, once for all threads that learn that the worker was swept."""
        with self._lock():
            if not self._store.heartbeat(worker, lease_s=self._lease_s):
                self._claim(worker, {})

    def _claim(self, worker: str, new: Mapping[str, BudgetLine]) -> None:
        """Claim all budgets again, and new ones with them."""
        known = {name: one.line for name, one in self._claims.items()} or _named(self.lines)
        lines = tuple({**known, **new}.values())
        claimed = self._store.register(worker, lines, lease_s=self._lease_s)
        self._worker, self._claims = worker, {one.line.name: one for one in claimed}

    def _release_doubtful(self) -> None:
        while self._doubtful:
            self._release(self._doubtful[0])
            self._doubtful.pop(0)

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


def _named(lines: Sequence[BudgetLine]) -> dict[str, BudgetLine]:
    return {line.name: line for line in lines}
