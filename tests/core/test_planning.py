"""Plans and live decisions: one choice seen from a batch and from a single query."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from optllm_router.core.estimates import UNKNOWN_WORST, Estimates, estimate
from optllm_router.core.features import hash_text
from optllm_router.core.planning import (
    aligned_optimism,
    decide,
    honest_front,
    live_aim,
    plan_batch,
)
from optllm_router.core.policy import (
    Budget,
    Cheapest,
    Fixed,
    Knee,
    MostAccurate,
    TargetAccuracy,
    WillingnessToPay,
)
from optllm_router.core.snapshot import Optimism
from optllm_router.errors import InfeasiblePolicyError, NoCandidateError

NAN = np.nan
POLICIES = [
    Budget(usd=0.02),
    Budget(usd=0.004, per="call"),
    TargetAccuracy(0.7),
    WillingnessToPay(0.01),
    Knee(),
    Cheapest(),
    MostAccurate(),
    Fixed("large"),
]


def estimates_of(prob, cost_usd, allowed=None, columns=None):
    prob, cost = np.atleast_2d(prob).astype(float), np.atleast_2d(cost_usd).astype(float)
    usable = np.isfinite(prob) & np.isfinite(cost)
    able = np.ones(prob.shape, dtype=bool) if allowed is None else np.atleast_2d(allowed)
    return Estimates(
        columns=columns or tuple("abcdefgh"[: prob.shape[1]]),
        prob=prob,
        std=np.zeros_like(prob),
        cost_usd=cost,
        worst_nusd=np.ones(prob.shape, dtype=np.int64),
        able=able,
        allowed=able & usable,
        reasons=tuple({"abcdefgh"[j]: "it cannot" for j in np.flatnonzero(~row)} for row in able),
    )


@st.composite
def some_estimates(draw):
    n, m = draw(st.integers(1, 12)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    allowed = rng.random((n, m)) < 0.8
    allowed[np.arange(n), rng.integers(m, size=n)] = True
    return estimates_of(rng.random((n, m)), rng.random((n, m)) + 0.01, allowed)


def test_a_plans_worst_case_is_that_of_its_choices_or_unknown():
    known = replace(
        estimates_of([[0.5, 0.9]] * 2, [[0.1, 0.2]] * 2),
        worst_nusd=np.array([[5 * 10**18, 10], [7 * 10**18, UNKNOWN_WORST]]),
    )

    assert 12e9 == plan_batch(known, Cheapest()).worst_cost_usd  # more than 64 bits of nano-USD
    assert plan_batch(known, MostAccurate()).worst_cost_usd is None
    assert plan_batch(known, Cheapest()).cost_range_usd is None


@pytest.fixture
def estimates(snapshot, queries, candidates):
    return estimate(snapshot, queries, [hash_text(q.text) for q in queries], candidates)


@settings(max_examples=80, deadline=None)
@given(some_estimates(), st.floats(0, 1))
def test_a_live_decision_at_the_price_of_a_point_is_the_batchs_choice(estimates, at):
    front = plan_batch(estimates, MostAccurate()).front
    point = round(at * (front.n_points - 1))
    price, choice = front.price(point), front.choice(point)
    for row in range(estimates.n_queries):
        value = np.where(
            estimates.allowed[row], estimates.prob[row] - price * estimates.cost_usd[row], -np.inf
        )
        best = np.sort(value)
        if best.size > 1 and best[-1] - best[-2] < 1e-9:
            continue  # tied: the query that the next step would upgrade
        live = decide(estimates.rows(np.array([row])), Knee(), price)

        assert choice[row] == live.column


@settings(max_examples=60, deadline=None)
@given(some_estimates(), st.sampled_from([Cheapest(), MostAccurate(), WillingnessToPay(0.7)]))
def test_a_live_decision_is_the_plan_of_a_batch_of_one(estimates, policy):
    one = estimates.rows(np.array([0]))
    price = {Cheapest: np.inf, MostAccurate: 0.0, WillingnessToPay: 1 / 0.7}[type(policy)]
    plan = plan_batch(one, policy)

    assert plan.choice[0] == decide(one, policy, price).column


@settings(max_examples=60, deadline=None)
@given(some_estimates(), st.floats(0.01, 1.1), st.sampled_from(["call", "batch"]))
def test_a_live_budget_is_the_plan_of_a_batch_of_one(estimates, usd, per):
    one = estimates.rows(np.array([0]))
    assume(one.cost_usd[0][one.allowed[0]].min() <= usd)
    policy = Budget(usd, per=per)

    assert plan_batch(one, policy).choice[0] == decide(one, policy, 123.0).column


@settings(max_examples=60, deadline=None)
@given(some_estimates(), st.floats(0.3, 0.95))
def test_more_confidence_never_costs_less(estimates, target):
    m = len(estimates.columns)
    optimism = Optimism(np.array([0.0, 1.0]), np.full((2, m), 0.02), np.full((2, m), 1e-3))
    costs = []
    for confidence in (0.2, 0.5, 0.8, 0.99):
        try:
            plan = plan_batch(estimates, TargetAccuracy(target, confidence=confidence), optimism)
            costs.append(plan.front.cost_usd[plan.point])
        except InfeasiblePolicyError:
            costs.append(np.inf)

    assert sorted(costs) == costs


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_a_plans_figures_are_those_of_its_choice(estimates, snapshot, policy):
    plan = plan_batch(estimates, policy, aligned_optimism(snapshot, estimates))
    each = np.arange(40)
    plain = estimates.prob[each, plan.choice].mean()

    assert estimates.allowed[each, plan.choice].all()
    assert estimates.cost_usd[each, plan.choice].sum() == pytest.approx(plan.expected_cost_usd)
    assert 0.0 <= plan.expected_accuracy <= plain + 1e-12
    assert np.isfinite(plan.dual_price)
    assert plan.dual_price >= 0.0
    assert (plan.honest_accuracy <= plan.front.accuracy).all()
    assert estimates.columns == plan.columns


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_the_same_plan_is_made_twice(estimates, snapshot, policy):
    first, again = (
        plan_batch(estimates, policy, aligned_optimism(snapshot, estimates)) for _ in range(2)
    )

    assert first.choice.tolist() == again.choice.tolist()
    assert (first.expected_cost_usd, first.expected_accuracy, first.dual_price) == (
        again.expected_cost_usd,
        again.expected_accuracy,
        again.dual_price,
    )


def test_a_batch_budget_is_kept_and_spent(estimates):
    plan = plan_batch(estimates, Budget(usd=0.05))

    assert plan.expected_cost_usd <= 0.05
    assert plan.expected_accuracy > plan_batch(estimates, Cheapest()).expected_accuracy


def test_a_budget_per_call_may_be_below_the_batchs_total():
    estimates = estimates_of([[0.2, 0.9]] * 100, [[0.01, 0.02]] * 100)
    plan = plan_batch(estimates, Budget(usd=0.015, per="call"))

    assert [0] * 100 == plan.choice.tolist()
    assert plan.point is None
    assert 0.0 == plan.dual_price
    assert 1.0 == pytest.approx(plan.expected_cost_usd)


def test_fixed_takes_its_column_where_it_can_and_is_not_corrected(estimates, snapshot):
    able = estimates.able.copy()
    able[3, 1] = False
    blocked = replace(estimates, able=able, allowed=estimates.allowed & able)
    optimism = aligned_optimism(snapshot, blocked)
    plan = plan_batch(blocked, Fixed("large"), replace(optimism, gap=optimism.gap + 0.1))
    plain = blocked.prob[np.arange(40), plan.choice].mean()

    assert [3] == np.flatnonzero(plan.choice != 1).tolist()
    assert plain == pytest.approx(plan.expected_accuracy)


def test_an_empty_batch_has_an_empty_plan(snapshot, candidates):
    for policy in POLICIES:
        estimates = estimate(snapshot, [], [], candidates)
        plan = plan_batch(estimates, policy, aligned_optimism(snapshot, estimates))

        assert [] == plan.choice.tolist()
        assert (0.0, 0.0) == (plan.expected_cost_usd, plan.expected_accuracy)


def test_optimism_follows_the_candidates_of_now(snapshot, queries, candidates):
    shuffled = (candidates[2], replace(candidates[0], name="new"), candidates[0])
    found = estimate(snapshot, queries, [hash_text(q.text) for q in queries], shuffled)
    optimism = aligned_optimism(snapshot, found)

    assert np.array_equal(snapshot.optimism.gap[:, [2, 0]], optimism.gap[:, [0, 2]])
    assert not optimism.gap[:, 1].any()
    assert np.array_equal(snapshot.optimism.variance[:, [2, 0]], optimism.variance[:, [0, 2]])
    assert aligned_optimism(None, found) is None


def test_removed_candidates_leave_a_plan_over_the_others(snapshot, queries, candidates):
    found = estimate(snapshot, queries, [hash_text(q.text) for q in queries], candidates[1:])
    plan = plan_batch(found, Cheapest(), aligned_optimism(snapshot, found))

    assert ("large", "table") == plan.columns
    assert [0] * 40 == plan.choice.tolist()


def test_what_cannot_be_had_is_refused_with_the_nearest_value(estimates):
    with pytest.raises(InfeasiblePolicyError) as error:
        plan_batch(estimates, Budget(usd=1e-9))

    assert estimates.cost_usd.min(axis=1).sum() == pytest.approx(error.value.nearest)


def test_an_honest_target_is_refused_where_only_the_flattered_one_is_reached():
    estimates = estimates_of([[0.5, 0.9]], [[1, 2]])
    optimism = Optimism(np.array([0.0]), np.array([[0.0, 0.3]]), np.zeros((1, 2)))

    assert 1 == plan_batch(estimates, TargetAccuracy(0.8)).choice[0]
    with pytest.raises(InfeasiblePolicyError) as error:
        plan_batch(estimates, TargetAccuracy(0.8), optimism)
    assert 0.6 == pytest.approx(error.value.nearest)


def test_a_query_that_nobody_can_serve_says_why_of_each_column():
    estimates = estimates_of(
        [[0.5, 0.5, 0.5], [0.5, NAN, 0.5]],
        [[1, 1, 1], [1, 1, NAN]],
        [[True, True, True], [False, True, True]],
    )
    with pytest.raises(NoCandidateError) as error:
        plan_batch(estimates, Knee())

    expected = {
        "a": "it cannot",
        "b": "it has no label yet, see `probe`",
        "c": "nothing is known of its cost",
    }
    assert expected == error.value.reasons
    assert "no candidate can serve query 1 (a: it cannot; b: it has no label" in str(error.value)


def test_a_live_decision_keeps_to_what_is_affordable():
    estimates = estimates_of([[0.2, 0.5, 0.9]], [[1, 2, 3]])
    affordable = np.array([True, True, False])

    assert 2 == decide(estimates, MostAccurate(), 0.0).column
    assert 1 == decide(estimates, MostAccurate(), 0.0, affordable=affordable).column
    assert 1 == decide(estimates, Fixed("c"), 0.0, affordable=affordable).column
    with pytest.raises(NoCandidateError) as error:
        decide(estimates, Knee(), 0.0, affordable=np.zeros(3, dtype=bool))
    assert "c: its worst case does not fit the budget" in str(error.value)


def test_a_live_budget_takes_the_most_probable_that_fits_or_the_cheapest():
    estimates = estimates_of([[0.2, 0.8, 0.8, 0.9]], [[1, 3, 2, 9]])
    fits = decide(estimates, Budget(usd=3), 0.0)
    nothing = decide(estimates, Budget(usd=0.5), 0.0)

    assert (2, 0.8, 2.0) == (fits.column, fits.prob, fits.cost_usd)
    assert 0 == nothing.column
    assert "nothing fits, the cheapest" in nothing.reason


def test_a_live_fixed_column_that_cannot_serve_is_replaced_and_said():
    estimates = estimates_of([[0.2, 0.8, 0.6]], [[1, 3, 2]], [[True, False, True]])
    choice = decide(estimates, Fixed("b"), 0.0)

    assert 2 == choice.column
    assert "it cannot serve this query" in choice.reason
    assert 0 == decide(estimates, Fixed("a"), 0.0).column


def test_ties_go_to_the_cheaper_column_then_to_the_first():
    assert 1 == decide(estimates_of([[0.8, 0.8]], [[2, 1]]), MostAccurate(), 0.0).column
    assert 0 == decide(estimates_of([[0.8, 0.8]], [[1, 1]]), MostAccurate(), 0.0).column
    assert 1 == decide(estimates_of([[0.1, 0.8]], [[0, 0]]), Cheapest(), np.inf).column


def test_free_columns_are_decided_by_probability():
    estimates = estimates_of([[0.2, 0.7], [0.9, 0.7]], np.zeros((2, 2)))

    assert [1, 0] == plan_batch(estimates, Cheapest()).choice.tolist()
    assert 1 == decide(estimates.rows(np.array([0])), WillingnessToPay(1e-9), 1e9).column


def test_an_infinite_price_is_logged_as_none():
    assert decide(estimates_of([[0.5]], [[1]]), Cheapest(), np.inf).dual_price is None
    assert 2.5 == decide(estimates_of([[0.5]], [[1]]), Knee(), 2.5).dual_price


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_a_live_aim_has_a_price_for_every_policy(snapshot, policy):
    aim = live_aim(snapshot, policy)

    assert aim.price >= 0.0
    assert aim.remark is None


def test_a_live_aim_prices_the_point_of_recent_traffic(snapshot):
    front, honest = honest_front(snapshot)
    target = float(honest[front.n_points // 2])
    point = int(np.argmax(honest >= target))

    assert front.price(point) == live_aim(snapshot, TargetAccuracy(target)).price
    assert front.price(front.knee()) == live_aim(snapshot, Knee()).price
    assert 0.0 == live_aim(snapshot, MostAccurate()).price
    assert np.inf == live_aim(snapshot, Cheapest()).price
    assert 100.0 == live_aim(snapshot, WillingnessToPay(0.01)).price


def test_a_live_target_out_of_reach_says_so_and_takes_the_best(snapshot):
    aim = live_aim(snapshot, TargetAccuracy(1.0))

    assert aim.remark is not None
    assert "out of reach on recent traffic, nearest is 0." in aim.remark


def test_more_confidence_never_lowers_what_a_live_success_may_cost(snapshot):
    target = float(honest_front(snapshot)[1].max()) - 0.1
    prices = [
        live_aim(snapshot, TargetAccuracy(target, confidence=c)).price for c in (0.3, 0.5, 0.9)
    ]

    assert sorted(prices, reverse=True) == prices
