"""The only way the shells decide: estimates, front and policy composed into a `Plan`.

Everything here is pure: the same snapshot, queries, candidates and policy give the same plan, bit
for bit. A batch is planned on its own front; a single live query is decided by the dual price that
the policy has on the front of recent traffic, which is the same choice seen from one query.

With `search="destroy_repair"` a batch's allocation is one that OptLLM's search finds (arXiv
2405.15130); the front stays the exact one, and a single live query is decided by its price as ever.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from optllm_router.core import policy as policies
from optllm_router.core.estimates import UNKNOWN_WORST, Estimates
from optllm_router.core.front import ParetoFront, pareto_front
from optllm_router.core.policy import Budget, Policy, Searched
from optllm_router.core.snapshot import Optimism, Snapshot
from optllm_router.errors import NoCandidateError
from optllm_router.records import NANO_PER_USD, Bools, Floats, Ints, SearchKind

N_HONEST_POINTS = 65
ROBUST_ALPHA = 0.5  # of `prob + alpha * std`, by which OptLLM's search destroys: its default


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One allocation of a batch and the front that it was picked from.

    `choice` is (n_queries,) indices into `columns`; `point` the front's point it comes from (a
    batch budget fills up from there, what a search found costs no less), None when it is none of
    them (`Fixed`, a budget per call).
    `honest_accuracy` is (n_points,): the front's accuracy less the optimism that was measured.
    `dual_price` is the slope where the allocation stands, in successes per USD; 0 at no point.
    `cost_range_usd` is the sum of the chosen costs' 10 % quantiles and that of their 90 % ones:
    what the batch costs if all of its answers turn out short together, or all long. It is no
    interval of the total: answers that are long or short by chance make up for each other, so the
    total will be nearer to `expected_cost_usd` unless the forecast itself is off. `Router.plan`
    works it out; None otherwise, and where nothing was observed of a chosen column.
    """

    policy: Policy
    columns: tuple[str, ...]
    front: ParetoFront
    honest_accuracy: Floats
    choice: Ints
    point: int | None
    reason: str
    dual_price: float
    expected_cost_usd: float
    expected_accuracy: float
    estimates: Estimates
    cost_range_usd: tuple[float, float] | None = None

    @property
    def worst_cost_usd(self) -> float | None:
        """The most that the allocation can cost in USD; None where that of a query is unknown."""
        each = np.arange(self.choice.size)
        worst: list[int] = self.estimates.worst_nusd[each, self.choice].tolist()
        return None if UNKNOWN_WORST in worst else sum(worst) / NANO_PER_USD


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """One live decision: the column, why, and what was expected of it."""

    column: int
    reason: str
    dual_price: float | None
    prob: float | None
    cost_usd: float | None


@dataclass(frozen=True, slots=True)
class LiveAim:
    """What a policy means for single requests: its dual price, successes per USD, and a remark."""

    price: float
    remark: str | None


def plan_batch(
    estimates: Estimates,
    policy: Policy,
    optimism: Optimism | None = None,
    *,
    search: SearchKind = "exact",
) -> Plan:
    """Plan a batch.

    With `search="destroy_repair"`, which reads the estimates' `std` where it is known, the
    allocation is what OptLLM's search finds.

    Raises:
        NoCandidateError: a query that no column may serve; says why.
        InfeasiblePolicyError: no allocation satisfies the policy; states the nearest value.
    """
    _check_servable(estimates)
    table = _table(estimates)
    front = pareto_front(table.prob, table.cost_usd, table.allowed)
    gap, error = _optimism_along(front, len(estimates.columns), optimism)
    honest = _with_confidence(policy, front.accuracy - gap, error)
    if isinstance(policy, policies.Fixed):
        gap = np.zeros_like(gap)  # nobody picked the flattered: the column was named beforehand
    selection = (
        policies.select(policy, front, honest_accuracy=honest, columns=estimates.columns)
        if search == "exact"
        else policies.select_searched(
            policy, table, front, honest_accuracy=honest, columns=estimates.columns
        )
    )
    each = np.arange(estimates.n_queries)
    accuracy = float(estimates.prob[each, selection.choice].mean()) if each.size else 0.0
    return Plan(
        policy=policy,
        columns=estimates.columns,
        front=front,
        honest_accuracy=front.accuracy - gap,
        choice=selection.choice,
        point=selection.point,
        reason=selection.reason,
        dual_price=_price_at(front, selection.point),
        expected_cost_usd=float(estimates.cost_usd[each, selection.choice].sum()),
        expected_accuracy=accuracy - _gap_of_choice(front, gap, accuracy),
        estimates=estimates,
    )


def _table(estimates: Estimates) -> Searched:
    """The estimates with 0 where nothing is allowed; an unknown `std` adds nothing."""
    prob = np.where(estimates.allowed, estimates.prob, 0.0)
    std = np.where(estimates.allowed & np.isfinite(estimates.std), estimates.std, 0.0)
    return Searched(
        prob=prob,
        robust_prob=prob + ROBUST_ALPHA * std,
        cost_usd=np.where(estimates.allowed, estimates.cost_usd, 0.0),
        allowed=estimates.allowed,
    )


def aligned_optimism(snapshot: Snapshot | None, estimates: Estimates) -> Optimism | None:
    """Return a snapshot's optimism with one column per estimated column, 0 for unknown ones."""
    if snapshot is None:
        return None
    position = {name: i for i, name in enumerate(snapshot.columns)}
    index = [position.get(name, len(snapshot.columns)) for name in estimates.columns]
    n_rungs = snapshot.optimism.price.size

    def aligned(values: Floats) -> Floats:
        return np.column_stack([values, np.zeros(n_rungs)])[:, index]

    return Optimism(
        snapshot.optimism.price,
        aligned(snapshot.optimism.gap),
        aligned(snapshot.optimism.variance),
    )


def honest_front(snapshot: Snapshot) -> tuple[ParetoFront, Floats]:
    """Return the front of recent traffic and its honest accuracy, shape (n_points,)."""
    gap, _ = _optimism_along(snapshot.front, len(snapshot.columns), snapshot.optimism)
    return snapshot.front, snapshot.front.accuracy - gap


def live_aim(snapshot: Snapshot, policy: Policy, *, allowance_usd: float | None = None) -> LiveAim:
    """Return the dual price that a policy has on recent traffic, and whether it is out of reach.

    A budget of a window across calls may spend `allowance_usd` on each of them (see `pacing`);
    while that is not known, it stands at the knee.
    """
    if isinstance(policy, Budget) and policy.is_shared:
        return _paced(snapshot, allowance_usd)
    front = snapshot.front
    gap, error = _optimism_along(front, len(snapshot.columns), snapshot.optimism)
    honest = _with_confidence(policy, front.accuracy - gap, error)
    price = policies.dual_price(policy, front, honest_accuracy=honest)
    remark = None
    if isinstance(policy, policies.TargetAccuracy) and honest.max() < policy.accuracy:
        remark = f"out of reach on recent traffic, nearest is {honest.max():.3f}"
    return LiveAim(price, remark)


def _paced(snapshot: Snapshot, allowance_usd: float | None) -> LiveAim:
    """Spend an allowance on each query of recent traffic, on average."""
    if allowance_usd is None:
        knee = policies.dual_price(policies.Knee(), snapshot.front)
        return LiveAim(knee, "too early to pace, at the knee")
    remark = f"{policies.usd_text(float(f'{allowance_usd:.3g}'))} USD a call"
    if allowance_usd <= 0.0:
        return LiveAim(np.inf, remark)
    total = Budget(usd=allowance_usd * max(snapshot.front.n_queries, 1))
    return LiveAim(policies.dual_price(total, snapshot.front), remark)


def decide(
    estimates: Estimates, policy: Policy, price: float, *, affordable: Bools | None = None
) -> Choice:
    """Decide one live query: argmax of prob - price x cost over the allowed columns.

    Ties go to the cheaper column, then to the first. A `Budget` per call or batch picks the most
    probable column whose forecast cost fits it, the cheapest when none does; `Fixed` its column
    where it is able.

    Args:
        estimates: of exactly one query, with at least one allowed column.
        policy: what to aim at; a live decision never refuses.
        price: the dual price of the policy, from `live_aim`.
        affordable: (n_columns,), which columns' worst cases fit the caps; None = all.
    """
    allowed = estimates.allowed[0] if affordable is None else estimates.allowed[0] & affordable
    if not allowed.any():
        raise _nobody(estimates, 0, affordable)
    prob, cost = estimates.prob[0], estimates.cost_usd[0]
    column, reason = _live_column(policy, price, estimates, allowed)
    return Choice(
        column=column,
        reason=reason,
        dual_price=price if math.isfinite(price) else None,
        prob=float(prob[column]),
        cost_usd=float(cost[column]),
    )


def _live_column(
    policy: Policy, price: float, estimates: Estimates, allowed: Bools
) -> tuple[int, str]:
    prob, cost = estimates.prob[0], estimates.cost_usd[0]
    described = policies.describe(policy)
    if isinstance(policy, policies.Fixed):
        named = estimates.columns.index(policy.column)
        if allowed[named]:
            return named, described
        return _best(prob, cost, allowed, price), f"{described}: it cannot serve this query"
    if isinstance(policy, Budget) and not policy.is_shared:
        within = allowed & (cost <= policy.usd)
        if within.any():
            return _best(prob, cost, within, 0.0), described
        return _best(prob, cost, allowed, np.inf), f"{described}: nothing fits, the cheapest"
    return _best(prob, cost, allowed, price), described


def _best(prob: Floats, cost: Floats, allowed: Bools, price: float) -> int:
    """The allowed column of largest prob - price x cost; ties to the cheaper, then the first."""
    probs, costs = prob.tolist(), cost.tolist()  # a few columns: faster without arrays
    columns = [j for j, is_allowed in enumerate(allowed.tolist()) if is_allowed]
    if math.isinf(price):
        return max(columns, key=lambda j: (-costs[j], probs[j], -j))
    return max(columns, key=lambda j: (probs[j] - price * costs[j], -costs[j], -j))


def _check_servable(estimates: Estimates) -> None:
    helpless = np.flatnonzero(~estimates.allowed.any(axis=1))
    if helpless.size:
        raise _nobody(estimates, int(helpless[0]))


def _nobody(estimates: Estimates, row: int, affordable: Bools | None = None) -> NoCandidateError:
    reasons = dict(estimates.reasons[row])
    for j, name in enumerate(estimates.columns):
        if name in reasons:
            continue
        if np.isnan(estimates.prob[row, j]):
            reasons[name] = "it has no label yet, see `probe`"
        elif not np.isfinite(estimates.cost_usd[row, j]):
            reasons[name] = "nothing is known of its cost"
        elif affordable is None or not affordable[j]:
            reasons[name] = "its worst case does not fit the budget"
    listed = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
    return NoCandidateError(
        f"no candidate can serve query {row} ({listed}): add a candidate that can, or shorten or "
        "simplify the request",
        reasons=reasons,
    )


def _optimism_along(
    front: ParetoFront, n_columns: int, optimism: Optimism | None
) -> tuple[Floats, Floats]:
    """Optimism and its standard error at every point of a front, shape (n_points,) each.

    Measured at up to 65 points and interpolated in between.
    """
    n_points = front.accuracy.size
    if optimism is None or not n_points or not optimism.price.size:
        return np.zeros(n_points), np.zeros(n_points)
    points = np.unique(np.linspace(0, n_points - 1, N_HONEST_POINTS).round().astype(np.int64))
    measured = []
    for point in points:
        choice = front.choice(int(point))
        share = np.bincount(choice, minlength=n_columns) / max(choice.size, 1)
        measured.append(optimism.of(front.price(int(point)), share))
    gap, error = np.array(measured).T
    every = np.arange(n_points)
    return np.interp(every, points, gap), np.interp(every, points, error)


def _with_confidence(policy: Policy, honest: Floats, error: Floats) -> Floats:
    """The accuracy that is reached with the policy's confidence (a normal lower bound)."""
    if not isinstance(policy, policies.TargetAccuracy) or policy.confidence == 0.5:
        return honest
    from statistics import NormalDist

    return honest - NormalDist().inv_cdf(policy.confidence) * error


def _price_at(front: ParetoFront, point: int | None) -> float:
    price = 0.0 if point is None else front.price(point)
    return min(price, float(np.finfo(np.float64).max))


def _gap_of_choice(front: ParetoFront, gap: Floats, accuracy: float) -> float:
    """The optimism of an allocation that may lie between the front's points."""
    return float(np.interp(accuracy, front.accuracy, gap)) if gap.size else 0.0
