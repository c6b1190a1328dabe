"""Probes: ask every candidate about a small sample, grade, and log (OptLLM's labelled sample)."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from optllm_router.core.cost import worst_case_nusd
from optllm_router.core.eligibility import reason_against
from optllm_router.dispatch.calls import Task
from optllm_router.dispatch.deciding import Decided, RouterState
from optllm_router.dispatch.offers import in_nusd
from optllm_router.dispatch.requests import Request
from optllm_router.grading import Grader, check_reference
from optllm_router.ledger import Cap
from optllm_router.records import NANO_PER_USD, Candidate, CapLine

PATIENCE_S = 30.0
_LOOK_S = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """What a probe found: money spent, and per candidate mean score and mean cost.

    `n_errors` counts calls that failed at the provider (they are no quality failures and are not
    scored), `n_skipped` pairs that a candidate could not serve at all, `n_ungraded` answers
    without a score: no grader knew one, it failed, or it had not come to an end.
    """

    n_queries: int
    n_calls: int
    n_errors: int
    n_skipped: int
    n_graded: int
    n_ungraded: int
    cost_usd: float
    mean_score: dict[str, float]
    mean_cost_usd: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


class ProbeTally:
    """Collects costs and scores of a running probe; safe to call from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._n_tried = 0
        self._costs: dict[str, list[int]] = defaultdict(list)
        self._scores: dict[str, list[float]] = defaultdict(list)

    def add_cost(self, candidate: str, cost_nusd: int) -> None:
        """Note what a call cost."""
        with self._lock:
            self._costs[candidate].append(cost_nusd)

    def add_score(self, candidate: str, score: float) -> None:
        """Note how an answer was graded."""
        with self._lock:
            self._scores[candidate].append(score)
            self._n_tried += 1
            self._lock.notify_all()

    def add_failure(self) -> None:
        """Note that a grader came to an end without a score."""
        with self._lock:
            self._n_tried += 1
            self._lock.notify_all()

    def wait(self, n_gradings: int, n_graded: Callable[[], int]) -> bool:
        """Wait for the gradings of a probe as long as there is progress; return whether all ended.

        Args:
            n_gradings: how many there are.
            n_graded: how many gradings have ended so far, of whatever else is in line, too.

        There is no progress when none has ended for `PATIENCE_S`.
        """
        seen, since = n_graded(), time.monotonic()
        with self._lock:
            while self._n_tried < n_gradings and time.monotonic() - since < PATIENCE_S:
                self._lock.wait(_LOOK_S)
                if n_graded() != seen:
                    seen, since = n_graded(), time.monotonic()
            return self._n_tried >= n_gradings

    def report(self, n_queries: int, n_skipped: int, results: Sequence[object]) -> ProbeReport:
        """Sum up."""
        with self._lock:
            total = sum(sum(costs) for costs in self._costs.values())
            n_errors = sum(isinstance(result, Exception) for result in results)
            n_graded = sum(len(scores) for scores in self._scores.values())
            return ProbeReport(
                n_queries=n_queries,
                n_calls=len(results),
                n_errors=n_errors,
                n_skipped=n_skipped,
                n_graded=n_graded,
                n_ungraded=len(results) - n_errors - n_graded,
                cost_usd=total / NANO_PER_USD,
                mean_score={n: sum(s) / len(s) for n, s in self._scores.items()},
                mean_cost_usd={n: sum(c) / len(c) / NANO_PER_USD for n, c in self._costs.items()},
            )


def probe_tasks(  # noqa: PLR0913  # who is asked what, and where it is counted
    state: RouterState,
    requests: Sequence[Request],
    tally: ProbeTally,
    *,
    grader_of: Callable[[Request], Grader | None],
    batch_id: str,
    caps: Sequence[tuple[CapLine, Cap]] = (),
) -> list[Task]:
    """One task per query and candidate that can serve it, query by query, under common `caps`.

    Raises: ConfigError for references that the grader cannot compare with.
    """
    graders = [grader_of(request) for request in requests]
    for request, grader in zip(requests, graders, strict=True):
        check_reference(grader, request.reference)
    forecasts = state.estimator.forecast_usd([request.query for request in requests])
    return [
        Task(
            request,
            decided=_probed(request, candidate, float(usd)),
            batch_id=batch_id,
            caps=caps,
            **_watched(candidate.name, tally, grader),
        )
        for request, grader, row in zip(requests, graders, forecasts, strict=True)
        for candidate, usd in zip(state.candidates, row, strict=True)
        if reason_against(candidate, request.query) is None
    ]


def _probed(request: Request, candidate: Candidate, forecast_usd: float) -> Decided:
    return Decided(
        kind="probe",
        candidate=candidate,
        chosen=candidate.name,
        policy="probe",
        reason="probe: every candidate is asked",
        worst_nusd=worst_case_nusd(candidate, request.query),
        forecast=lambda: in_nusd(forecast_usd),
    )


def _watched(name: str, tally: ProbeTally, grader: Grader | None) -> dict[str, Any]:
    """What tells the tally how a probe's call of a candidate goes."""
    return {
        "on_cost": lambda cost: tally.add_cost(name, cost),
        "grader": None if grader is None else _Watched(grader, tally),
        "on_score": tally.add_score,
    }


@dataclass(frozen=True, slots=True)
class _Watched:
    """A grader that tells when it ends without a score; one with a score is told by `on_score`."""

    grader: Grader
    tally: ProbeTally

    @property
    def name(self) -> str:
        return self.grader.name

    def grade(self, text: str, reference: str | None, *, response: object = None) -> float | None:
        score = None
        try:
            score = self.grader.grade(text, reference, response=response)
        finally:
            if score is None:
                self.tally.add_failure()
        return score
