"""What a router tells about itself: an explained decision, the published front, import results."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from optllm_router.core.estimates import COST_RANGE, UNKNOWN_WORST, Estimates
from optllm_router.core.planning import honest_front
from optllm_router.core.snapshot import Snapshot
from optllm_router.dispatch.deciding import Decider, RouterState, decide_row
from optllm_router.dispatch.policies import effective_policy
from optllm_router.dispatch.requests import Request
from optllm_router.records import NANO_PER_USD


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedColumn:
    """What is known of one candidate for one query; None where nothing is.

    One answer in ten costs less than `low_cost_usd`, one in ten more than `high_cost_usd`; none
    costs more than `worst_cost_usd`.
    """

    name: str
    prob: float | None
    std: float | None
    expected_cost_usd: float | None
    low_cost_usd: float | None
    high_cost_usd: float | None
    worst_cost_usd: float | None
    n_labels: int
    status: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """What the router would do with a request, and why; nothing was called or logged."""

    chosen: str
    policy: str
    reason: str
    dual_price: float | None
    task: str
    n_prompt_tokens: int
    columns: tuple[ExplainedColumn, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrontPoint:
    """One point of the front: mean cost per query in USD, expected and honest accuracy."""

    cost_usd: float
    accuracy: float
    honest_accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFront:
    """The front of recent traffic, per query, with the single candidates beside it.

    `accuracy` is what the estimates say, `honest_accuracy` the same less the optimism measured out
    of bag. A candidate's `accuracy` is its labelled mean.
    """

    version: str
    n_queries: int
    n_labels: int
    points: tuple[FrontPoint, ...]
    candidates: tuple[ExplainedColumn, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def explain(state: RouterState, decider: Decider, request: Request) -> Explanation:
    """Say how a request would be routed, and what is known of every column.

    Raises: NoCandidateError, BudgetExceededError, as the call itself would.
    """
    estimates, _ = decider.estimates(state, [request], spread=True)
    policy, cap = effective_policy(state.policy, request.policy)
    decided = decide_row(state, estimates, policy, cap=cap)
    ranges = [state.estimator.cost_quantile([request.query], share)[0] for share in COST_RANGE]
    columns = tuple(
        _explained(state, estimates, j, cost_range, decided.chosen)
        for j, cost_range in enumerate(zip(*ranges, strict=True))
    )
    return Explanation(
        chosen=decided.chosen,
        policy=decided.policy,
        reason=decided.reason,
        dual_price=decided.dual_price,
        task=request.query.task,
        n_prompt_tokens=request.query.n_prompt_tokens,
        columns=columns,
    )


def published_front(snapshot: Snapshot, n_points: int = 60) -> PublishedFront:
    """Thin the front of recent traffic out to at most `n_points` points, per query."""
    front, honest = honest_front(snapshot)
    n = max(front.n_queries, 1)
    points = np.unique(np.linspace(0, front.n_points - 1, n_points).round().astype(np.int64))
    return PublishedFront(
        version=snapshot.version,
        n_queries=front.n_queries,
        n_labels=snapshot.n_labels,
        points=tuple(
            FrontPoint(
                cost_usd=float(front.cost_usd[k]) / n,
                accuracy=float(front.accuracy[k]),
                honest_accuracy=float(np.clip(honest[k], 0.0, 1.0)),
            )
            for k in points
        ),
        candidates=tuple(_single(snapshot, j) for j in range(len(snapshot.columns))),
    )


def _single(snapshot: Snapshot, j: int) -> ExplainedColumn:
    cost = snapshot.traffic_cost_usd[:, j]
    known = cost[np.isfinite(cost)]
    return ExplainedColumn(
        name=snapshot.columns[j],
        prob=_known(snapshot.column_score[j]),
        std=None,
        expected_cost_usd=float(known.mean()) if known.size else None,
        low_cost_usd=None,
        high_cost_usd=None,
        worst_cost_usd=None,
        n_labels=int(snapshot.predictor.n_labels_[j]),
        status="labelled" if snapshot.predictor.n_labels_[j] else "no label yet, see `probe`",
    )


def _explained(
    state: RouterState, estimates: Estimates, j: int, cost_range: tuple[float, float], chosen: str
) -> ExplainedColumn:
    name = estimates.columns[j]
    worst = int(estimates.worst_nusd[0, j])
    return ExplainedColumn(
        name=name,
        prob=_known(estimates.prob[0, j]),
        std=_known(estimates.std[0, j]),
        expected_cost_usd=_known(estimates.cost_usd[0, j]),
        low_cost_usd=_known(cost_range[0]),
        high_cost_usd=_known(cost_range[1]),
        worst_cost_usd=worst / NANO_PER_USD if worst < UNKNOWN_WORST else None,
        n_labels=_n_labels(state, name),
        status=_status(estimates, j, chosen),
    )


def _status(estimates: Estimates, j: int, chosen: str) -> str:
    name = estimates.columns[j]
    if name in estimates.reasons[0]:
        return estimates.reasons[0][name]
    if name == chosen:
        return "chosen"
    if not estimates.allowed[0, j]:
        return "not offered: no label yet, see `probe`"
    return "possible"


def _n_labels(state: RouterState, name: str) -> int:
    snapshot = state.snapshot
    if snapshot is None or name not in snapshot.columns:
        return 0
    return int(snapshot.predictor.n_labels_[snapshot.columns.index(name)])


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
