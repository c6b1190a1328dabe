"""From a request to the candidate that is called: routed, pinned, shadowed, or the default.

The router's guard stands here: a fault while deciding (a bug, a damaged predictor) sends the
request to the default candidate, is logged with its traceback and counted. What the caller can
mend (no candidate can serve the request, the budget refuses) is raised instead.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from itertools import compress

import numpy as np

from optllm_router.completion.base import Client
from optllm_router.core.cost import worst_case_nusd
from optllm_router.core.estimates import Estimates, Estimator
from optllm_router.core.features import SparseText
from optllm_router.core.planning import Choice, LiveAim, decide, live_aim
from optllm_router.core.policy import Policy, describe
from optllm_router.core.snapshot import Snapshot
from optllm_router.dispatch.brought import as_brought
from optllm_router.dispatch.offers import Forecast, Offer, forecast_nusd, in_nusd, other_offers
from optllm_router.dispatch.policies import effective_policy
from optllm_router.dispatch.privacy import Privacy
from optllm_router.dispatch.requests import AUTO, Request
from optllm_router.errors import NoCandidateError, RouterError
from optllm_router.ledger import Cap
from optllm_router.records import Bools, Candidate, Kind, SearchKind

logger = logging.getLogger("optllm_router")

MAX_AIMS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """Who is called for one request, and everything the log says about why.

    `candidate` is called; `chosen` is the policy's column (another one in shadow mode).
    `worst_nusd` is None for a pin of unknown price. `forecast` works out what `candidate` is
    forecast to cost, `expected_cost_nusd` is what the chosen one is. `others` finds who is asked
    where it fails, the best first.
    """

    kind: Kind
    candidate: Candidate
    chosen: str
    policy: str
    reason: str
    worst_nusd: int | None
    forecast: Forecast = field(compare=False, repr=False)
    features: SparseText | None = None
    dual_price: float | None = None
    expected_accuracy: float | None = None
    expected_cost_nusd: int | None = None
    propensity: float | None = None
    predictor_version: str | None = None
    allowed: tuple[str, ...] = ()
    others: Callable[[], Sequence[Offer]] = field(default=tuple, compare=False, repr=False)

    @property
    def first(self) -> Offer:
        """Who is asked first."""
        return Offer(
            candidate=self.candidate,
            worst_nusd=self.worst_nusd,
            forecast=self.forecast,
        )


@dataclass(frozen=True)
class RouterState:
    """What decisions are made from; replaced as a whole when a new predictor is published."""

    candidates: tuple[Candidate, ...]
    default: str
    policy: Policy
    mode: str
    privacy: Privacy
    price_version: str
    min_labels: int
    search: SearchKind = "exact"
    snapshot: Snapshot | None = None
    n_labels: int = 0
    aims: dict[Policy, LiveAim] = field(default_factory=dict, compare=False)
    allowances: dict[Policy, float | None] = field(default_factory=dict, compare=False)

    @cached_property
    def estimator(self) -> Estimator:
        """What estimates queries at the candidates, by the snapshot."""
        return Estimator(self.snapshot, self.candidates)

    @property
    def unfit_reason(self) -> str:
        """Why nothing is routed yet."""
        enough = ", enough to `retrain`" if self.n_labels >= self.min_labels else ""
        return f"not fitted: {self.n_labels}/{self.min_labels} labels{enough}"

    def position(self, name: str) -> int:
        """The index of a candidate by its name, else by its model; -1 when there is none."""
        names = [candidate.name for candidate in self.candidates]
        names += [candidate.model for candidate in self.candidates]
        return names.index(name) % len(self.candidates) if name in names else -1

    def aim_of(self, policy: Policy) -> LiveAim:
        """What a policy means for single requests, computed once per snapshot and allowance."""
        aim = self.aims.get(policy)
        if aim is None:
            if self.snapshot is None:
                return LiveAim(0.0, None)
            aim = live_aim(self.snapshot, policy, allowance_usd=self.allowances.get(policy))
            if len(self.aims) >= MAX_AIMS:  # policies made per call, each with other numbers
                self.aims.clear()
            self.aims[policy] = aim
        return aim


class Decider:
    """Decides requests on a state; counts the faults it had to guard against."""

    def __init__(self, client: Client) -> None:
        self.n_faults = 0
        self._client = client
        self._pins: dict[str, Candidate] = {}

    def estimates(
        self, state: RouterState, requests: Sequence[Request], *, spread: bool = False
    ) -> tuple[Estimates, list[SparseText]]:
        """Estimate requests at every candidate of the state; `std` only with `spread`."""
        texts = [
            state.privacy.sparse(request.query.text, request.embedding) for request in requests
        ]
        queries = [request.query for request in requests]
        return state.estimator.estimate(queries, texts, spread=spread), texts

    def decide(
        self, state: RouterState, request: Request, batch_policy: Policy | None = None
    ) -> Decided:
        """Decide one live request; a batch's policy stands between the configured and its own.

        Raises: NoCandidateError, BudgetExceededError.
        """
        policy, cap = effective_policy(state.policy, batch_policy, request.policy)
        if not request.routed and state.mode != "shadow":
            return self._pinned(state, request, cap)
        if state.mode == "shadow":
            return self._shadowed(state, request, policy, cap)
        try:
            return self._routed(state, request, policy, cap)
        except RouterError:
            raise
        except Exception:
            self.n_faults += 1
            logger.exception("the router could not decide; %s answers", state.default)
            return self._fallback(state, request, cap)

    def _routed(
        self, state: RouterState, request: Request, policy: Policy, cap: int | None
    ) -> Decided:
        estimates, texts = self.estimates(state, [request])
        return decide_row(state, estimates, policy, cap=cap, features=texts[0])

    def _shadowed(
        self, state: RouterState, request: Request, policy: Policy, cap: int | None
    ) -> Decided:
        """Call what was asked (the default for "auto"); log what would have been chosen."""
        asked = state.default if request.requested == AUTO else request.requested
        candidate = self._asked(state, asked, request)
        worst = _checked_worst(candidate, request, cap)
        as_asked = Decided(
            kind="shadow",
            candidate=candidate,
            chosen=candidate.name,
            policy=describe(policy),
            reason="shadow",
            worst_nusd=worst,
            forecast=partial(self._forecast, state, candidate, request),
        )
        try:
            would = self._routed(state, request, policy, cap)
        except RouterError as error:
            return replace(as_asked, reason=f"shadow: would have been refused: {error}")
        except Exception:
            self.n_faults += 1
            logger.exception("the router could not decide; %s was asked and answers", asked)
            return replace(as_asked, reason="shadow: router fault")
        return replace(
            would,
            kind="shadow",
            candidate=candidate,
            worst_nusd=worst,
            forecast=as_asked.forecast,
            reason=f"shadow: {would.reason}",
            propensity=None,
            others=tuple,
        )

    def _pinned(self, state: RouterState, request: Request, cap: int | None) -> Decided:
        candidate = self._asked(state, request.requested, request)
        return Decided(
            kind="pin",
            candidate=candidate,
            chosen=candidate.name,
            policy="pin",
            reason=f"pinned: called as asked, {request.requested!r} is not routed",
            worst_nusd=_checked_worst(candidate, request, cap),
            forecast=partial(self._forecast, state, candidate, request),
        )

    def _forecast(self, state: RouterState, candidate: Candidate, request: Request) -> int | None:
        """What a call as asked may cost; a fault in finding out leaves its worst case to stand."""
        try:
            return forecast_nusd(state.candidates, state.estimator, candidate, request.query)
        except Exception:
            self.n_faults += 1
            logger.exception("the router could not forecast what %s costs", candidate.name)
            return None

    def _fallback(self, state: RouterState, request: Request, cap: int | None) -> Decided:
        candidate = state.candidates[max(state.position(state.default), 0)]
        return Decided(
            kind="route",
            candidate=candidate,
            chosen=candidate.name,
            policy=describe(state.policy),
            reason="router fault: the default answers",
            worst_nusd=_checked_worst(candidate, request, cap),
            forecast=lambda: None,
        )

    def _asked(self, state: RouterState, name: str, request: Request) -> Candidate:
        """What a call names; where the call brings its own endpoint or key, those count.

        Where LiteLLM may have another model answer, the price is unknown.
        """
        candidate = self._candidate(state, name)
        if request.may_reroute:
            candidate = replace(candidate, price=None, worst_case_nusd=None)
        return as_brought(candidate, request)

    def _candidate(self, state: RouterState, name: str) -> Candidate:
        """A configured candidate, or whatever else the client knows under this name."""
        position = state.position(name)
        if position >= 0:
            return state.candidates[position]
        if name not in self._pins:
            self._pins[name] = self._client.candidate(name)
            if self._pins[name].price is None:
                logger.warning("%r has no known token price: its calls are logged without", name)
        return self._pins[name]


def decide_row(
    state: RouterState,
    estimates: Estimates,
    policy: Policy,
    *,
    cap: int | None = None,
    features: SparseText | None = None,
) -> Decided:
    """Decide one row of estimates under a cap in nano-USD on its worst case."""
    affordable = estimates.worst_nusd[0] <= cap if cap is not None else None
    if state.snapshot is None or not estimates.allowed[0].any():
        choice = _unlearned(state, estimates, affordable, cap)
    else:
        _check_affordable(estimates, estimates.allowed[0], affordable, cap)
        aim = state.aim_of(policy)
        choice = decide(estimates, policy, aim.price, affordable=affordable)
        if aim.remark is not None:
            choice = replace(choice, reason=f"{choice.reason}: {aim.remark}")
    return decided(state, estimates, choice, policy=describe(policy), features=features)


def decided(
    state: RouterState,
    estimates: Estimates,
    choice: Choice,
    *,
    policy: str,
    features: SparseText | None,
) -> Decided:
    """Turn a choice on one row of estimates into what is called and logged.

    A choice that nothing was learned for has no propensity.
    """
    worst = int(estimates.worst_nusd[0, choice.column])
    expected = None if choice.cost_usd is None else in_nusd(choice.cost_usd)
    return Decided(
        kind="route",
        candidate=state.candidates[choice.column],
        chosen=estimates.columns[choice.column],
        policy=policy,
        reason=choice.reason,
        worst_nusd=worst,
        forecast=lambda: expected,
        features=features,
        dual_price=choice.dual_price,
        expected_accuracy=choice.prob,
        expected_cost_nusd=expected,
        propensity=None if choice.prob is None else 1.0,
        predictor_version=state.snapshot.version if state.snapshot is not None else None,
        allowed=tuple(compress(estimates.columns, estimates.allowed[0].tolist())),
        others=partial(other_offers, state.candidates, estimates, choice),
    )


def _checked_worst(candidate: Candidate, request: Request, cap: int | None) -> int | None:
    """The worst case of a call that is not chosen. Raises: BudgetExceededError over the cap."""
    worst = worst_case_nusd(candidate, request.query)
    if cap is not None and worst is None:
        raise Cap("call", cap).unpriced_refusal(candidate.name)
    if cap is not None and worst is not None and worst > cap:
        raise Cap("call", cap).refusal(worst)
    return worst


def unlearned_reason(state: RouterState) -> str:
    """Why a request is not routed by what was learned."""
    if state.snapshot is None:
        return state.unfit_reason
    return "no labelled candidate can serve this request (see `probe`)"


def _unlearned(
    state: RouterState, estimates: Estimates, affordable: Bools | None, cap: int | None
) -> Choice:
    """The default while it can serve and fits; else the dearest column that does."""
    able = estimates.able[0]
    if not able.any():
        listed = "; ".join(f"{name}: {why}" for name, why in estimates.reasons[0].items())
        raise NoCandidateError(
            f"no candidate can serve this request ({listed}): add one that can, or shorten or "
            "simplify the request",
            reasons=estimates.reasons[0],
        )
    _check_affordable(estimates, able, affordable, cap)
    possible = able if affordable is None else able & affordable
    column, reason = state.position(state.default), unlearned_reason(state)
    if not possible[column]:
        worst = np.where(possible, estimates.worst_nusd[0].astype(np.float64), -1.0)
        column = int(worst.argmax())
        reason += f"; the default {state.default} cannot serve it or does not fit the budget"
    cost = float(estimates.cost_usd[0, column])
    return Choice(
        column=column,
        reason=reason,
        dual_price=None,
        prob=None,
        cost_usd=cost if math.isfinite(cost) else None,
    )


def _check_affordable(
    estimates: Estimates, columns: Bools, affordable: Bools | None, cap: int | None
) -> None:
    if cap is None or affordable is None or (columns & affordable).any():
        return
    raise Cap("call", cap).refusal(int(estimates.worst_nusd[0][columns].min()))
