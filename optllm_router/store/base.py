"""The store's contract: decisions, attempts, outcomes, predictors, prices and events, for keeps.

Every method is one transaction: it is on disk when the method returns (as durable as the store was
opened for), or it raised and nothing changed. Methods may be called from any thread and, on a
shared database, from any process. Records are never updated in place but in the ways named here:
an open attempt is completed once, an outcome's score is replaced and its old value kept, a
predictor changes its status.

Raises, everywhere: `StoreError` when the database cannot be reached, read or written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from optllm_router.records import Attempt, Decision, Outcome, TokenPrice, TrainingRow

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


class Store(Protocol):
    """The log. See the module's docstring for what every method promises."""

    url: str

    def record(self, decision: Decision, attempts: Sequence[Attempt]) -> None:
        """Write one decision with its attempts (the last one may still be "open").

        Idempotent on the ids: writing the same decision and attempts again changes nothing.
        """
        ...

    def record_many(
        self,
        entries: Sequence[tuple[Decision, Sequence[Attempt]]],
        outcomes: Sequence[Outcome] = (),
    ) -> None:
        """Write many decisions, attempts and outcomes in one transaction (imports, probes)."""
        ...

    def settle(self, attempt: Attempt, *, served: str | None) -> None:
        """Complete an open attempt, and set the decision's `served`; a second time does nothing.

        Raises: UnknownDecisionError when no such attempt was recorded.
        """
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

    def forget(
        self,
        *,
        session_id: str | None = None,
        tag: str | None = None,
        before: datetime | None = None,
    ) -> ForgetReport:
        """Erase decisions, their attempts and outcomes, and texts no other decision refers to.

        The conditions given all must hold; none given is a ConfigError. Predictors already
        fitted are not changed: refit to drop what they learned.
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
