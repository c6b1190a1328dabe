"""The store's contract: decisions, attempts, outcomes, predictors, prices and events, for keeps.

Every method is one transaction: it is on disk when the method returns (as durable as the store was
opened for), or it raised and nothing changed. Methods may be called from any thread and, on a
shared database, from any process. Records are never updated in place but in the ways named here:
an open attempt is completed once, an outcome's score is replaced and its old value kept, a
predictor changes its status.

Money is kept in the same transactions. A *worker* is one router of one process that may spend; it
claims the budgets of its settings and has a lease, which reserves and heartbeats renew. A
*reservation* sets an attempt's worst case aside on every budget that binds it, before the call;
the settle of the attempt turns it into what the call cost, in the windows of the reserve. A worker
whose lease ran out is dead: anybody's sweep settles what it had reserved at the forecast. Windows
and leases go by the database's clock. Of every budget, at any time, in every window:

    spent + reserved <= limit + overshoot, but for limits lowered below what was committed already
    reserved == the sum of the live reservations that bind it there

An amount that a call cost beyond its reservation is spent in full and counted as overshoot.

Raises, everywhere: `StoreError` when the database cannot be reached, read or written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, Literal, Protocol

from optllm_router.records import (
    Attempt,
    BudgetLine,
    Decision,
    Outcome,
    TokenPrice,
    TrainingRow,
)
from optllm_router.store.shares import (
    BudgetStatus,
    ClaimedBudget,
    Override,
    Reply,
    Reserve,
    SweepReport,
)

GroupBy = Literal["candidate", "task", "day", "policy", "tag", "kind", "batch"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedDecision:
    """One decision with everything that came of it, attempts and outcomes oldest first."""

    decision: Decision
    attempts: tuple[Attempt, ...]
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class SummaryRow:
    """One group of the history: counts, tokens, exact money and mean graded score.

    `key` is the group's value, "" for none. `n_estimated` counts attempts whose cost was
    forecast or counted here, `n_unpriced` those whose cost is unknown (left out of `cost_nusd`).
    `mean_score` is None while nothing in the group is graded.
    """

    key: str
    n_decisions: int
    n_attempts: int
    n_errors: int
    n_graded: int
    mean_score: float | None
    cost_nusd: int
    n_estimated: int
    n_unpriced: int
    prompt_tokens: int
    completion_tokens: int
    mean_latency_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPredictor:
    """A predictor's row without its artifact; `front` holds the published front's points."""

    version: str
    created_at: datetime
    status: Literal["published", "kept_out", "retired"]
    metrics: Mapping[str, object]
    front: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedEvent:
    """Something an operator should be able to find later (a fault, a refit, an overshoot)."""

    at: datetime
    kind: str
    message: str
    facts: Mapping[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetReport:
    """How many rows an erasure removed."""

    n_decisions: int
    n_attempts: int
    n_outcomes: int
    n_texts: int
    n_answers: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SpentDay:
    """What one candidate cost on one UTC day, exact.

    `estimated_nusd` is the part that was forecast or counted here; `n_unpriced` counts calls whose
    cost is unknown (left out of `cost_nusd`).
    """

    candidate: str
    day: date
    n_calls: int
    cost_nusd: int
    estimated_nusd: int
    n_unpriced: int
    n_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchItem:
    """One item of a batch that survives its process, and the call that was last made for it.

    "open": claimed by `owner`, its call under way; "answered": `answer` holds it, as JSON values;
    "failed": to be asked again. `item` counts from 0 in the caller's list.
    """

    batch_id: str
    item: int
    decision_id: str
    status: Literal["open", "answered", "failed"]
    answer: Mapping[str, Any] | None = None
    owner: str = ""  # needed to claim, not kept with the item


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedBatch:
    """Where a batch that survives its process stands.

    `request_keys` holds 16 bytes per item. `spent_nusd` is what all its calls cost since it began,
    the lost ones at their forecast. It is somebody's while `is_held`, until `alive_until` (seconds
    since 1970 by the database's clock) unless that is renewed.
    """

    id: str
    created_at: datetime
    request_keys: bytes
    n_items: int
    n_answered: int
    n_failed: int
    n_open: int
    spent_nusd: int
    owner: str | None
    alive_until: float | None
    is_held: bool


class Store(Protocol):
    """The log. See the module's docstring for what every method promises."""

    url: str

    def record(
        self, decision: Decision, attempts: Sequence[Attempt], *, item: BatchItem | None = None
    ) -> None:
        """Write one decision with its attempts (the last one may still be "open").

        Idempotent on the ids: writing the same decision and attempts again changes nothing.
        An `item` is claimed for the decision with it.

        Raises: BatchBusyError where the item's batch is not its owner's; nothing is written.
        """
        ...

    def record_many(
        self,
        entries: Sequence[tuple[Decision, Sequence[Attempt]]],
        outcomes: Sequence[Outcome] = (),
    ) -> None:
        """Write many decisions, attempts and outcomes in one transaction (imports, probes)."""
        ...

    def settle(
        self,
        attempt: Attempt,
        *,
        served: str | None,
        item: BatchItem | None = None,
        reason: str | None = None,
        propensity: float | None = None,
    ) -> None:
        """Complete an open attempt, and set the decision's `served`; a second time does nothing.

        With a `reason`, that and `propensity` (None for none) replace the decision's: by now it
        is known what went otherwise than planned. What became of an `item` is written with it,
        unless another call holds the item by now.

        An attempt that has a reservation ends it: its cost (the whole amount, where that is None)
        is booked on the budgets that it binds, also when the decision was forgotten meanwhile.
        A cost of 0 releases it. An overshoot, and spending that crosses a budget's `warn_at` for
        the first time in its window, are events and warnings in the program's log.

        Raises: UnknownDecisionError when no such attempt was recorded.
        """
        ...

    def register(
        self, worker: str, lines: Sequence[BudgetLine], *, lease_s: float
    ) -> tuple[ClaimedBudget, ...]:
        """Claim budgets for a worker, new or known; its claims before are replaced.

        Each live worker's claim counts, the lowest limit holds; where they differ, that is an
        event and a warning.

        Raises: ConfigError where a live worker counts a budget of the same name otherwise (its
        scope, window or time zone); nothing is changed.
        """
        ...

    def heartbeat(self, worker: str, *, lease_s: float) -> bool:
        """Renew a worker's lease; return whether the worker is there."""
        ...

    def retire(self, worker: str) -> None:
        """Remove a worker and its claims; one with live reservations is left to its lease."""
        ...

    def reserve(
        self,
        decision: Decision,
        attempt: Attempt,
        wanted: Reserve,
        *,
        item: BatchItem | None = None,
    ) -> Reply:
        """Set an attempt's worst case aside on all budgets given, or on none.

        With it are written the decision, unless it is there, and the attempt, which must be open.
        A new attempt of the same id is an error. An `item` is claimed for the decision. Unless the
        verdict is "reserved" nothing is written.

        Raises: BatchBusyError where the item's batch is not its owner's; nothing is written.
        """
        ...

    def sweep(self) -> SweepReport:
        """Settle what dead workers had reserved, and remove them.

        A reservation is made when a call is sent, so it counts as sent: it is booked at its
        forecast, and its attempt, if still open, is abandoned with that cost, estimated, its
        `error_class` "LeaseExpired". A later settle of it does nothing.
        """
        ...

    def budgets(self, *, session_id: str | None = None) -> list[BudgetStatus]:
        """Return where all budgets stand, by name, also those that no live worker claims.

        Of a budget per session it is the session given, else the one with most committed.
        """
        ...

    def set_override(self, override: Override) -> None:
        """Have another limit hold until a date; of those in date, the newest holds.

        It is an event, too. `created_at` is the database's time, whatever the record says.

        Raises: ConfigError for an unknown budget, or a date that has passed.
        """
        ...

    def overrides(self, *, limit: int = 50) -> list[Override]:
        """Return the newest overrides first, also those out of date."""
        ...

    def add_outcomes(self, outcomes: Sequence[Outcome]) -> int:
        """Write outcomes; return how many were new or changed a score.

        Unique per (decision, source): the same score again changes nothing, a different one
        replaces it and the old one goes to `outcome_history`.

        Raises: UnknownDecisionError, for the first id that is not in the log; nothing is written.
        """
        ...

    def find(self, reference: str) -> str:
        """Return the decision id for a decision id or a response id (the newest, if reused).

        Raises: UnknownDecisionError.
        """
        ...

    def decision(self, decision_id: str) -> LoggedDecision:
        """Return one decision. Raises: UnknownDecisionError."""
        ...

    def decisions(  # noqa: PLR0913  # the filters of one query, all optional
        self,
        *,
        limit: int = 50,
        before: datetime | None = None,
        kind: str | None = None,
        task: str | None = None,
        session_id: str | None = None,
        tag: str | None = None,
        batch_id: str | None = None,
    ) -> list[LoggedDecision]:
        """Return the newest decisions first, filtered."""
        ...

    def training_rows(
        self, *, limit: int = 100_000, graded_of: str | None = None
    ) -> list[TrainingRow]:
        """Return the newest answers that learning may use, oldest first.

        One row per decision whose serving attempt is "ok" or "abandoned" with tokens, and that is
        no cache hit; ungraded rows train the cost forecast only. With `graded_of`, the graded
        answers of this candidate only.
        """
        ...

    def n_graded(self, *, since: datetime | None = None) -> int:
        """Return how many of the `training_rows` are graded, or were after `since`."""
        ...

    def publish(  # noqa: PLR0913  # what one predictor is, by keyword
        self,
        *,
        version: str,
        artifact: bytes,
        metrics: Mapping[str, object],
        front: Sequence[tuple[float, float]],
        status: Literal["published", "kept_out"] = "published",
        replaces: str | None = None,
    ) -> bool:
        """Write a predictor; "published" makes it the current one and retires the one before.

        With `replaces`, only while that version is the current one. Returns: whether it was
        written, or was there already.
        """
        ...

    def current_predictor(self) -> str | None:
        """Return the version of the published predictor, None when there is none."""
        ...

    def artifact(self, version: str) -> bytes:
        """Return a predictor's bytes. Raises: StoreError when there is no such version."""
        ...

    def predictors(self, *, limit: int = 20) -> list[PublishedPredictor]:
        """Return the newest predictors first."""
        ...

    def price_version(self, prices: Mapping[str, TokenPrice | None]) -> str:
        """Return the version of a price list, writing it when it is new.

        The version is a short content hash, so the same prices give the same version anywhere.
        """
        ...

    def prices(self, version: str) -> Mapping[str, TokenPrice | None]:
        """Return a price list. Raises: StoreError when there is no such version."""
        ...

    def summary(
        self,
        by: GroupBy,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        batch_id: str | None = None,
        include_imports: bool = False,
    ) -> list[SummaryRow]:
        """Return the history in groups, dearest first.

        By "candidate", money and tokens belong to the candidate of each attempt, scores to the
        one that served. Imported rows are not money that we spent: left out unless asked for.
        A decision's score is the one that `TrainingRow` takes.
        """
        ...

    def spent_by_day(self, first: date, last: date) -> list[SpentDay]:
        """Return what candidates cost per UTC day, from the first day to the last, both included.

        By candidate, then day. Imports, answers of a cache and free failures are left out.
        """
        ...

    def forget(
        self,
        *,
        session_id: str | None = None,
        tag: str | None = None,
        before: datetime | None = None,
        batch_id: str | None = None,
    ) -> ForgetReport:
        """Erase decisions, their attempts, outcomes and kept answers, and texts nobody refers to.

        The conditions given all must hold; none given is a ConfigError. Predictors already
        fitted are not changed: refit to drop what they learned.
        """
        ...

    def hold_batch(self, batch_id: str, *, owner: str, request_keys: bytes) -> bool:
        """Make a batch somebody's for a while (see `store.batches`); begin it where it is new.

        What earlier owners left under way is settled at its forecast; where its answer comes all
        the same, while its money is still reserved, at what it cost. `request_keys` count only for
        a new batch.

        Returns: whether it succeeded; it does not while another owner's lease lasts.
        """
        ...

    def renew_batch(self, batch_id: str, *, owner: str) -> bool:
        """Extend an owner's lease; return whether the batch is still its own."""
        ...

    def release_batch(self, batch_id: str, *, owner: str) -> None:
        """End an owner's lease; nothing where the batch is not its own."""
        ...

    def batch(self, batch_id: str) -> LoggedBatch | None:
        """Return where a batch stands; None where there is none whose answers are kept."""
        ...

    def batch_items(self, batch_id: str) -> list[BatchItem]:
        """Return the items of a batch that were ever asked, in their order."""
        ...

    def forget_answers(self, batch_id: str) -> int:
        """Erase a batch's answers, so that it begins anew; its decisions stay. Return how many.

        Raises: BatchBusyError while somebody works on it.
        """
        ...

    def log_event(self, kind: str, message: str, facts: Mapping[str, object]) -> None:
        """Write an event."""
        ...

    def events(self, *, limit: int = 50) -> list[LoggedEvent]:
        """Return the newest events first."""
        ...

    def close(self) -> None:
        """Release connections; calling it twice is fine."""
        ...
