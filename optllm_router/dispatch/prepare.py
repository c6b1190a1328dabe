"""From a list of requests to a `BatchJob`: what is planned together, and what stands alone.

Planned together: routed requests that some column can serve. Alone: pins, everything in shadow
mode or under a budget per call, and requests that nobody can serve (deciding them raises the error
that takes their place).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from optllm_router.core.estimates import COST_RANGE, Estimates
from optllm_router.core.planning import Plan, aligned_optimism, plan_batch
from optllm_router.core.policy import Budget, Knee, Policy
from optllm_router.core.policy.wording import usd_text
from optllm_router.dispatch.batch import BatchRun, with_call_cap
from optllm_router.dispatch.deciding import Decider, RouterState
from optllm_router.dispatch.money import Money
from optllm_router.dispatch.policies import batch_policy, call_cap, check_policy
from optllm_router.dispatch.requests import Request
from optllm_router.dispatch.resuming import HeldBatch
from optllm_router.dispatch.workers import BatchJob
from optllm_router.errors import (
    ConfigError,
    InfeasiblePolicyError,
    NotTrainedError,
    RouterError,
)
from optllm_router.ledger import Cap
from optllm_router.records import NANO_PER_USD, CapLine

logger = logging.getLogger("optllm_router")


def plan_requests(
    decider: Decider,
    state: RouterState,
    requests: Sequence[Request],
    policy: Policy | None,
    *,
    money: Money,
) -> Plan:
    """Plan requests as one batch with its range of costs, spending nothing.

    Raises: NotTrainedError before the first fit, NoCandidateError, InfeasiblePolicyError.
    """
    check_policy(policy, state.candidates)
    if state.snapshot is None:
        raise NotTrainedError(
            f"{state.unfit_reason}: probe candidates, give feedback or import outcomes, then "
            "`retrain`",
            n_labels=state.n_labels,
            min_labels=state.min_labels,
        )
    aim, _ = batch_policy(state.policy, policy)
    aim = within_window(money, aim, requests)
    estimates, _ = decider.estimates(state, requests, spread=True)
    capped = with_call_cap(estimates, call_cap(state.policy, policy))
    _check_call_cap(estimates, capped, call_cap(state.policy, policy))
    optimism = aligned_optimism(state.snapshot, capped)
    plan = plan_batch(capped, aim, optimism, search=state.search)
    return replace(plan, cost_range_usd=_cost_range(state, requests, plan))


def _cost_range(
    state: RouterState, requests: Sequence[Request], plan: Plan
) -> tuple[float, float] | None:
    """The sums of the chosen costs' quantiles in USD; None where one of them is unknown."""
    queries, each = [request.query for request in requests], np.arange(plan.choice.size)
    low, high = (
        float(state.estimator.cost_quantile(queries, share)[each, plan.choice].sum())
        for share in COST_RANGE
    )
    return (low, high) if np.isfinite([low, high]).all() else None


def prepare_batch(  # noqa: PLR0913  # who decides, on what, under what, and where it is told
    decider: Decider,
    state: RouterState,
    requests: Sequence[Request | Exception],
    policy: Policy | None,
    *,
    batch_id: str,
    on_done: Callable[[], None],
    money: Money,
    held: HeldBatch | None = None,
) -> BatchJob:
    """Prepare a batch; of one that goes on (`held`), what is known already is not asked.

    Under a budget the rest is planned on what earlier runs left. Else all is planned again, so that
    the rest is treated as it would have been. Under a budget of a window across calls it is planned
    on what is left of that.

    Raises: InfeasiblePolicyError, before anything is spent.
    """
    requests = [_without_stream(request) for request in requests]
    aim, cap = batch_policy(state.policy, policy)
    known = held.known if held is not None else {}
    caps = money.caps_of_batch()
    if held is not None:
        _take_down(held, cap, caps)
    aim = within_window(money, aim, requests)
    alone = state.mode == "shadow" or (isinstance(aim, Budget) and aim.per == "call")
    routed = [] if alone else [i for i, r in enumerate(requests) if _is_planned(r)]
    rest = [i for i in routed if i not in known]
    if cap is not None or not rest:
        routed = rest
    plan = None
    try:
        asked = [(i, _request(requests[i])) for i in routed]
        plan = _plan(decider, state, asked, (aim, cap), policy)
        if plan is not None and known:
            plan.leave_out(known)
    except RouterError:
        raise
    except Exception:
        decider.n_faults += 1
        logger.exception("the batch could not be planned; its items are decided one by one")
    done = {*(plan.items if plan is not None else ()), *known}
    return BatchJob(
        state=state,
        requests=requests,
        plan=plan,
        live=[i for i, r in enumerate(requests) if isinstance(r, Request) and i not in done],
        cap=cap,
        policy=policy,
        batch_id=batch_id,
        on_done=on_done,
        caps=caps,
        held=held,
    )


def _take_down(held: HeldBatch, cap: Cap | None, caps: Sequence[tuple[CapLine, Cap]]) -> None:
    """Have each cap of a batch that goes on begin with what earlier runs spent under it."""
    if cap is not None:
        cap.settle(0, held.spent_nusd)
    for line, one in caps:
        one.settle(0, held.spent_under(line))


def within_window(money: Money, policy: Policy, requests: Sequence[Request | Exception]) -> Policy:
    """Return a budget of a window across calls with what is left of it; the knee if none knows."""
    if not isinstance(policy, Budget) or not policy.is_shared:
        return policy
    sessions = {r.session_id for r in requests if isinstance(r, Request)}
    left = money.left_usd(policy, sessions.pop() if len(sessions) == 1 else None)
    return Knee() if left is None else replace(policy, usd=max(left, 1e-12))


def _plan(
    decider: Decider,
    state: RouterState,
    routed: Sequence[tuple[int, Request]],
    policies: tuple[Policy, Cap | None],
    asked: Policy | None,
) -> BatchRun | None:
    """Plan the items that some column can serve; None where there are none."""
    if not routed:
        return None
    estimates, texts = decider.estimates(
        state, [request for _, request in routed], spread=state.search == "destroy_repair"
    )
    estimates = with_call_cap(estimates, call_cap(state.policy, asked))
    keep = np.flatnonzero(estimates.able.any(axis=1))
    if not keep.size:
        return None
    items = [routed[int(k)][0] for k in keep]
    return BatchRun(state, items, estimates.rows(keep), [texts[int(k)] for k in keep], policies)


def _is_planned(request: Request | Exception) -> bool:
    """Whether an item is planned with the others: it is routed and has no policy of its own."""
    return isinstance(request, Request) and request.routed and request.policy is None


def _check_call_cap(estimates: Estimates, capped: Estimates, cap: int | None) -> None:
    """Refuse a budget per call below a query's cheapest worst case; states the minimum."""
    lost = np.flatnonzero(estimates.able.any(axis=1) & ~capped.able.any(axis=1))
    if cap is None or not lost.size:
        return
    worst = np.where(estimates.able, estimates.worst_nusd, np.iinfo(np.int64).max)
    minimum = int(worst[lost].min(axis=1).max()) / NANO_PER_USD
    raise InfeasiblePolicyError(
        f"a budget of {usd_text(cap / NANO_PER_USD)} USD per call is below the worst case of "
        f"every candidate for {lost.size} of {estimates.n_queries} queries, the first in row "
        f"{int(lost[0])}: raise it to at least {usd_text(minimum)} USD, or lower "
        "`max_output_tokens`",
        asked=cap / NANO_PER_USD,
        nearest=minimum,
    )


def _request(request: Request | Exception) -> Request:
    if isinstance(request, Exception):
        raise request
    return request


def _without_stream(request: Request | Exception) -> Request | Exception:
    if isinstance(request, Request) and request.stream:
        return ConfigError("`stream=True` in a batch item: stream single calls, batch whole ones")
    return request
