"""MetaLLM as published (Nguyen et al., arXiv 2407.10834 v3): a linear bandit with one price.

Arm j is worth r(x, j) = a_j(x) - p c_j: its score minus a price times its *fixed* cost, the mean
over the labelled queries divided by the dearest arm's. One ridge per arm learns r; the highest
prediction is called; p is tuned on a grid so that a validation half of the labelled queries stays
within the budget, and never moves again. There is no pacing on the test stream: what the bandit
spends there is whatever it spends, and `RegimeResult.overrun` says how far that is off.

A ridge is linear in its targets and the Gram matrix knows nothing of p, so predicted rewards are
`value - p * charge` with one fit for all prices; see `_ValueAndCharge`.

What the paper leaves open is decided so: the final ridges are fitted on both halves of the labelled
part (the half that tuned p is not thrown away); of the prices that fit the budget, the one of best
validation score is taken; all three regimes use the p that the offline router was tuned to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal, Self, get_args

import numpy as np

from optllm_router.core.bandit import LinUCB, best_arms
from optllm_router.records import Bools, Floats, Ints

Regime = Literal["offline", "online", "online_untrained"]

N_PRICES = 121


def price_grid() -> Floats:
    """Return the prices that are tried, ascending: 0, and 120 from 0.001 to 1,000.

    In successes per cost of one call to the dearest candidate. The paper names 0 and 0.001; cheap
    candidates differ by thousandths of the dearest one's cost, so prices go far above 1.
    """
    return np.concatenate([[0.0], np.geomspace(1e-3, 1e3, N_PRICES - 1)])


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Observations:
    """Queries with what every candidate made of them.

    `features` is (n, d), finite; `scores` in [0, 1] and `cost_usd` are (n, m), NaN = not observed.

    Raises: ValueError where the shapes do not fit, a feature is not finite or a cost is negative.
    """

    features: Floats
    scores: Floats
    cost_usd: Floats

    def __post_init__(self) -> None:
        shapes = self.features.shape, self.scores.shape, self.cost_usd.shape
        flat = self.features.ndim == self.scores.ndim == 2
        if not flat or shapes[1] != shapes[2] or len(self.features) != len(self.scores):
            raise ValueError(
                f"features, scores and costs {shapes} do not fit: pass (n, d), (n, m) and (n, m)"
            )
        if not np.isfinite(self.features).all() or (self.cost_usd < 0).any():
            raise ValueError("a feature is not finite or a cost negative: clean the table first")

    def take(self, rows: Ints) -> Self:
        """Return the queries at `rows`, shape (k,)."""
        return replace(
            self,
            features=self.features[rows],
            scores=self.scores[rows],
            cost_usd=self.cost_usd[rows],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Settings:
    """The published code's defaults: almost no trust in few labels, no exploration, no forgetting.

    `ridge`, `exploration` and `discount` are those of `LinUCB`; `prices` is the grid of p, (k,);
    `seed` draws the validation half and the order of the test stream.
    """

    ridge: float = 12.94
    exploration: float = 0.0
    discount: float = 1.0
    prices: Floats = field(default_factory=price_grid)
    seed: int = 0


PUBLISHED = Settings()
# The published defaults were made for thousands of features; with a hundred, a bandit that starts
# without weights needs these to leave its first arm.
EXPLORING = Settings(ridge=1.0, exploration=0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class TunedPrice:
    """A price p, and what the validation half cost and scored per query at it.

    `feasible` is False where no price kept the validation half within the budget: then `price` is
    infinite, which stands for the candidate of least mean cost on every query.
    """

    price: float
    validation_cost_usd: float
    validation_score: float
    feasible: bool


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class RegimeResult:
    """One run over the test part.

    `choice` is (n_test,), in the order of the test part whatever the order of the stream was.
    `cost_usd` and `budget_usd` are totals of the test part, realised cost and allowance; `overrun`
    is max(0, cost / budget - 1); `score` is the mean realised score of the chosen candidates, NaN
    for an empty test part. `feasible` as in `TunedPrice`.
    """

    choice: Ints
    cost_usd: float
    score: float
    budget_usd: float
    overrun: float
    price: float
    feasible: bool


def tune_price(
    labelled: Observations, budget_usd_per_query: float, *, settings: Settings = PUBLISHED
) -> TunedPrice:
    """Find the price at which a router fitted on one half does best on the other, within budget.

    The validation half is charged its realised costs (a candidate's mean where not observed). Of
    equal validation scores the one of less cost is taken, then the higher price.

    Raises: ValueError for a budget that is not positive or fewer than 2 labelled queries.
    """
    fixed = _fixed_cost(labelled)
    _check_budget(budget_usd_per_query)
    fitted, held_out = _halves(labelled, settings.seed)
    prices = np.append(np.sort(settings.prices), math.inf)
    choices = _fit(fitted, fixed, held_out.features, settings).choices(prices)
    cost, score = _outcomes(choices, held_out, fixed)
    feasible = np.flatnonzero(cost[:-1] <= budget_usd_per_query)
    best = prices.size - 1
    if feasible.size:
        best = int(feasible[np.lexsort((-feasible, cost[feasible], -score[feasible]))[0]])
    return TunedPrice(
        price=float(prices[best]),
        validation_cost_usd=float(cost[best]),
        validation_score=float(score[best]),
        feasible=bool(feasible.size),
    )


def price_path(
    labelled: Observations,
    features_test: Floats,
    prices: Floats,
    *,
    settings: Settings = PUBLISHED,
) -> Ints:
    """Return what the offline router chooses at every price, shape (n_prices, n_test).

    The ridges are fitted once, on all labelled queries. Ties go to the candidate of less mean cost;
    a price of infinity chooses the candidate of least mean cost throughout.
    """
    return _fit(labelled, _fixed_cost(labelled), features_test, settings).choices(prices)


def run_regime(
    labelled: Observations,
    test: Observations,
    *,
    budget_usd_per_query: float,
    regime: Regime,
    settings: Settings = PUBLISHED,
) -> RegimeResult:
    """Route the test part in one of the paper's three settings (section 4) at the tuned price.

    - "offline": ridges fitted on the labelled part, unchanged over the test part.
    - "online": the same start; the chosen arm then learns its score after every query.
    - "online_untrained": arms start empty; labelled queries only give p and the fixed costs.

    The stream's order is drawn from the seed. A chosen candidate whose score was not observed
    teaches nothing and does not count in `score`; an unobserved cost counts as its mean.

    Raises: ValueError for an unknown regime, a budget that is not positive, a candidate without a
        labelled score and cost, or fewer than 2 labelled queries.
    """
    if regime not in get_args(Regime):
        raise ValueError(f"`regime={regime!r}` is unknown: pass one of {get_args(Regime)}")
    tuned = tune_price(labelled, budget_usd_per_query, settings=settings)
    if regime == "offline" or not tuned.feasible:
        prices = np.array([tuned.price])
        choice = price_path(labelled, test.features, prices, settings=settings)[0]
    else:
        start = labelled if regime == "online" else labelled.take(np.empty(0, dtype=np.int64))
        choice = _stream(start, test, _fixed_cost(labelled), (tuned.price, settings))
    return _result(choice, test, _fixed_cost(labelled), (budget_usd_per_query, tuned))


def _stream(
    start: Observations, test: Observations, fixed: Floats, tuned: tuple[float, Settings]
) -> Ints:
    """Choose and learn query by query, in an order drawn from the seed."""
    price, settings = tuned
    charge, order = price * _normalised(fixed), _by_cost(fixed)
    bandit = _bandit(fixed.size, test.features.shape[1], settings)
    bandit.warm_start(start.features, start.scores - charge)
    rewards = test.scores - charge
    choice = np.zeros(len(test.features), dtype=np.int64)
    for query in np.random.default_rng([settings.seed, 1]).permutation(len(choice)):
        row = test.features[query]
        arm = int(bandit.choose(row[None, :], order)[0])
        bandit.update(arm, row, float(rewards[query, arm]))
        choice[query] = arm
    return choice


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _ValueAndCharge:
    """Predicted rewards at every price: value - p * charge, each (n, m).

    theta_j(p) = A_j^-1 X'(a_j - p c_j 1) is linear in p, and so is its prediction; the exploration
    bonus does not depend on p and stands in `value`.
    """

    value: Floats
    charge: Floats
    order: Ints

    def choices(self, prices: Floats) -> Ints:
        """Return the best arm per query at every price, shape (n_prices, n)."""
        chosen = np.empty((len(prices), len(self.value)), dtype=np.int64)
        for number, price in enumerate(prices):
            if math.isinf(price):
                chosen[number] = self.order[0]
            else:
                chosen[number] = best_arms(self.value - price * self.charge, self.order)
        return chosen


def _fit(
    labelled: Observations, fixed: Floats, features: Floats, settings: Settings
) -> _ValueAndCharge:
    charges = np.where(np.isnan(labelled.scores), np.nan, _normalised(fixed))
    bandit = _bandit(fixed.size, labelled.features.shape[1], settings)
    bandit.warm_start(labelled.features, labelled.scores)
    value = bandit.scores(features)
    bandit.warm_start(labelled.features, charges)
    return _ValueAndCharge(value=value, charge=features @ bandit.weights.T, order=_by_cost(fixed))


def _bandit(n_arms: int, n_features: int, settings: Settings) -> LinUCB:
    return LinUCB(
        n_arms,
        n_features,
        ridge=settings.ridge,
        exploration=settings.exploration,
        discount=settings.discount,
    )


def _fixed_cost(labelled: Observations) -> Floats:
    """Return the mean labelled cost of each candidate in USD, shape (m,)."""
    for name, values in (("score", labelled.scores), ("cost", labelled.cost_usd)):
        empty = np.flatnonzero(np.isnan(values).all(axis=0))
        if empty.size:
            raise ValueError(
                f"candidate column {int(empty[0])} has no labelled {name}: an arm starts from "
                "labels of its own; leave the column out, or label it on a few queries"
            )
    return np.asarray(np.nanmean(labelled.cost_usd, axis=0), dtype=np.float64)


def _normalised(fixed: Floats) -> Floats:
    """Scale so that the dearest costs 1; all zeros where everything is free."""
    return fixed / fixed.max() if fixed.max() > 0 else np.zeros_like(fixed)


def _by_cost(fixed: Floats) -> Ints:
    return np.argsort(fixed, kind="stable")


def _halves(labelled: Observations, seed: int) -> tuple[Observations, Observations]:
    """Return a random half to fit on (the larger one) and a half to validate on."""
    n = len(labelled.features)
    if n < 2:
        raise ValueError(
            f"{n} labelled queries cannot be halved to tune the price: label 2 or more"
        )
    order = np.random.default_rng([seed, 0]).permutation(n)
    return labelled.take(order[: (n + 1) // 2]), labelled.take(order[(n + 1) // 2 :])


def _outcomes(choices: Ints, queries: Observations, fixed: Floats) -> tuple[Floats, Floats]:
    """Mean cost in USD and mean observed score of every allocation, each (n_choices,)."""
    rows = np.arange(choices.shape[1])
    cost = np.where(np.isnan(queries.cost_usd), fixed, queries.cost_usd)[rows, choices]
    scores = queries.scores[rows, choices]
    seen: Bools = ~np.isnan(scores)
    n_seen = seen.sum(axis=1)
    score = np.where(seen, scores, 0.0).sum(axis=1) / np.maximum(n_seen, 1)
    return cost.sum(axis=1) / max(rows.size, 1), np.where(n_seen > 0, score, np.nan)


def _result(
    choice: Ints, test: Observations, fixed: Floats, tuned: tuple[float, TunedPrice]
) -> RegimeResult:
    budget, price = tuned
    cost, score = _outcomes(choice[None, :], test, fixed)
    return RegimeResult(
        choice=choice,
        cost_usd=float(cost[0]) * choice.size,
        score=float(score[0]),
        budget_usd=budget * choice.size,
        overrun=max(0.0, float(cost[0]) / budget - 1.0),
        price=price.price,
        feasible=price.feasible,
    )


def _check_budget(budget_usd_per_query: float) -> None:
    if not budget_usd_per_query > 0:
        raise ValueError(
            f"`budget_usd_per_query={budget_usd_per_query!r}` is not positive: pass the mean cost "
            "in USD that a query may have"
        )
