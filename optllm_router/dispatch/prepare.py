"""From a list of requests to a `BatchJob`: what is planned together, and what stands alone.

Planned together: routed requests that some column can serve. Alone: pins, everything in shadow
mode or under a budget per call, and requests that nobody can serve (deciding them raises the error
that takes their place).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from optllm_router.core.cost import usd_to_nusd
from optllm_router.core.planning import Plan, aligned_optimism, plan_batch
from optllm_router.core.policy import Budget, Policy
from optllm_router.dispatch.batch import BatchRun, batch_policy, with_call_cap
from optllm_router.dispatch.deciding import Decider, RouterState
from optllm_router.dispatch.requests import Request
from optllm_router.dispatch.workers import BatchJob
from optllm_router.errors import ConfigError, NotTrainedError


def plan_requests(
    decider: Decider, state: RouterState, requests: Sequence[Request], policy: Policy | None
) -> Plan:
    """Plan requests as one batch, spending nothing.

    Raises: NotTrainedError before the first fit, NoCandidateError, InfeasiblePolicyError.
    """
    if state.snapshot is None:
        raise NotTrainedError(
            f"{state.unfit_reason}: probe candidates, give feedback or import outcomes, then "
            "`retrain`",
            n_labels=state.n_labels,
            min_labels=state.min_labels,
        )
    aim, _ = batch_policy(state.policy, policy)
    estimates, _ = decider.estimates(state, requests)
    estimates = with_call_cap(estimates, _call_cap(state.policy, policy))
    return plan_batch(estimates, aim, aligned_optimism(state.snapshot, estimates))


def prepare_batch(  # noqa: PLR0913  # who decides, on what, under what, and where it is told
    decider: Decider,
    state: RouterState,
    requests: Sequence[Request | Exception],
    policy: Policy | None,
    *,
    batch_id: str,
    on_done: Callable[[], None],
) -> BatchJob:
    """Prepare a batch.

    Raises: InfeasiblePolicyError, before anything is spent.
    """
    requests = [_without_stream(request) for request in requests]
    aim, cap = batch_policy(state.policy, policy)
    alone = state.mode == "shadow" or (isinstance(aim, Budget) and aim.per == "call")
    routed = [
        i for i, r in enumerate(requests) if isinstance(r, Request) and r.routed and not alone
    ]
    plan = None
    planned: list[int] = []
    if routed:
        estimates, texts = decider.estimates(state, [_request(requests[i]) for i in routed])
        estimates = with_call_cap(estimates, _call_cap(state.policy, policy))
        usable = estimates.allowed if state.snapshot is not None else estimates.able
        keep = np.flatnonzero((usable | estimates.able).any(axis=1))
        planned = [routed[int(k)] for k in keep]
        plan = BatchRun(
            state, planned, estimates.rows(keep), [texts[int(k)] for k in keep], (aim, cap)
        )
    singly = set(planned)
    return BatchJob(
        state=state,
        requests=requests,
        plan=plan,
        live=[i for i, r in enumerate(requests) if isinstance(r, Request) and i not in singly],
        cap=cap,
        batch_id=batch_id,
        on_done=on_done,
    )


def _request(request: Request | Exception) -> Request:
    if isinstance(request, Exception):
        raise request
    return request


def _call_cap(*policies: Policy | None) -> int | None:
    """The tightest budget per call among policies, in nano-USD."""
    caps = [p.usd for p in policies if isinstance(p, Budget) and p.per == "call"]
    return usd_to_nusd(min(caps)) if caps else None


def _without_stream(request: Request | Exception) -> Request | Exception:
    if isinstance(request, Request) and request.stream:
        return ConfigError("`stream=True` in a batch item: stream single calls, batch whole ones")
    return request
