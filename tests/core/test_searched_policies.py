"""Policies on what OptLLM's search finds: the same demands, met by another allocation."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optllm_router.core.estimates import Estimates
from optllm_router.core.front import pareto_front
from optllm_router.core.planning import ROBUST_ALPHA, plan_batch
from optllm_router.core.policy import (
    Budget,
    Cheapest,
    Fixed,
    Knee,
    MostAccurate,
    Searched,
    TargetAccuracy,
    WillingnessToPay,
    select,
    select_searched,
)
from optllm_router.core.search import destroy_repair, reach_accuracy, spend_budget
from optllm_router.errors import InfeasiblePolicyError, NoCandidateError

COLUMNS = ("a", "b", "c")


def table(n=30, seed=0, spread=0.1):
    rng = np.random.default_rng(seed)
    prob = rng.random((n, 3))
    allowed = rng.random((n, 3)) < 0.85
    allowed[np.arange(n), rng.integers(3, size=n)] = True
    return Searched(
        prob=prob,
        robust_prob=prob + spread * rng.random((n, 3)),
        cost_usd=rng.random((n, 3)) * [0.001, 0.01, 0.1],
        allowed=allowed,
    )


def front_of(given_):
    return pareto_front(given_.prob, given_.cost_usd, given_.allowed)


def totals(given_, choice):
    each = np.arange(choice.size)
    return given_.cost_usd[each, choice].sum(), given_.prob[each, choice].mean()


def searched(policy, given_, **others):
    return select_searched(policy, given_, front_of(given_), columns=COLUMNS, **others)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(0, 10_000), st.floats(0, 1))
def test_a_budget_is_spent_by_the_search_and_never_crossed(n, seed, share):
    given_ = table(n, seed)
    front = front_of(given_)
    usd = float(front.cost_usd[0] + share * (front.cost_usd[-1] - front.cost_usd[0]))
    expected = spend_budget(
        given_.prob, given_.cost_usd, usd, robust_prob=given_.robust_prob, allowed=given_.allowed
    )
    selection = searched(Budget(usd), given_)

    assert expected.tolist() == selection.choice.tolist()
    assert totals(given_, selection.choice)[0] <= usd * (1 + 1e-9)
    assert front.at_budget(front.cost_of(selection.choice)) == selection.point


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(0, 10_000), st.floats(0.01, 1))
def test_a_target_is_reached_by_the_search(n, seed, share):
    given_ = table(n, seed)
    front = front_of(given_)
    target = min(max(float(front.accuracy[-1]) * share, 1e-6), 1.0)
    selection = searched(TargetAccuracy(target), given_)

    assert totals(given_, selection.choice)[1] >= target - 1e-9


def test_an_honest_target_asks_for_as_much_as_the_exact_front_needs():
    given_ = table()
    front = front_of(given_)
    honest = front.accuracy - 0.1
    exact = select(TargetAccuracy(0.6), front, honest_accuracy=honest)
    needed = float(front.accuracy[exact.point])
    expected = reach_accuracy(given_.prob, given_.cost_usd, needed, allowed=given_.allowed)
    selection = searched(TargetAccuracy(0.6), given_, honest_accuracy=honest)

    assert needed >= 0.7
    assert expected.tolist() == selection.choice.tolist()


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 30), st.integers(0, 10_000))
def test_the_others_take_the_best_point_that_is_found(n, seed):
    given_ = table(n, seed)
    found = destroy_repair(
        given_.prob,
        given_.cost_usd,
        robust_prob=given_.robust_prob,
        allowed=given_.allowed,
    )
    points = [tuple(point) for point in found.choice.tolist()]
    worth = {usd: found.accuracy * n - found.cost_usd / usd for usd in (1e-4, 0.01, 1.0)}

    assert points[0] == tuple(searched(Cheapest(), given_).choice.tolist())
    assert points[-1] == tuple(searched(MostAccurate(), given_).choice.tolist())
    assert tuple(searched(Knee(), given_).choice.tolist()) in points
    for usd, values in worth.items():
        chosen = tuple(searched(WillingnessToPay(usd), given_).choice.tolist())
        assert abs(values.max() - values[points.index(chosen)]) < 1e-9


def test_the_knee_is_the_point_farthest_above_the_line_between_the_ends():
    given_ = table(60, 5)
    found = destroy_repair(
        given_.prob,
        given_.cost_usd,
        robust_prob=given_.robust_prob,
        allowed=given_.allowed,
    )
    cost = (found.cost_usd - found.cost_usd[0]) / np.ptp(found.cost_usd)
    gain = (found.accuracy - found.accuracy[0]) / np.ptp(found.accuracy)
    farthest = int(np.argmax(gain - cost))
    selection = searched(Knee(), given_)

    assert found.choice[farthest].tolist() == selection.choice.tolist()
    assert (
        f"knee: point {farthest + 1} of {len(found.choice)} by destroy and repair"
        == selection.reason
    )


@pytest.mark.parametrize("policy", [Fixed("b"), Budget(1.0, per="call")])
def test_what_is_no_choice_between_points_is_as_ever(policy):
    given_ = table()
    exact = select(policy, front_of(given_), columns=COLUMNS)
    selection = searched(policy, given_)

    assert (exact.point, exact.reason) == (selection.point, selection.reason)
    assert exact.choice.tolist() == selection.choice.tolist()


@pytest.mark.parametrize("policy", [Budget(1e-9), TargetAccuracy(1.0)])
def test_what_cannot_be_had_is_refused_with_the_nearest(policy):
    front = front_of(table())
    nearest = front.cost_usd[0] if isinstance(policy, Budget) else front.accuracy[-1]
    with pytest.raises(InfeasiblePolicyError) as error:
        searched(policy, table())

    assert abs(nearest - error.value.nearest) < 1e-12


@pytest.mark.parametrize(
    "policy", [Budget(1.0), TargetAccuracy(0.9), Knee(), Cheapest(), MostAccurate()]
)
def test_an_empty_batch_satisfies_every_policy(policy):
    nothing = np.zeros((0, 3))
    empty = Searched(prob=nothing, robust_prob=nothing, cost_usd=nothing, allowed=nothing > 0)
    selection = searched(policy, empty)

    assert (0, (0,)) == (selection.point, selection.choice.shape)


def estimates(std):
    given_ = table()
    hidden = np.where(given_.allowed, 1.0, np.nan)
    return Estimates(
        columns=COLUMNS,
        prob=given_.prob * hidden,
        std=np.full((30, 3), std) * np.arange(3),
        cost_usd=given_.cost_usd * hidden,
        worst_nusd=np.ones((30, 3), dtype=np.int64),
        able=given_.allowed,
        allowed=given_.allowed,
        reasons=tuple({} for _ in range(30)),
    )


def test_a_plan_destroys_by_mean_and_half_a_deviation():
    given_, known = table(), estimates(0.4)
    usd = float(front_of(given_).cost_usd[-1] * 0.6)
    robust = given_.prob + 0.5 * 0.4 * np.arange(3)
    expected = spend_budget(
        given_.prob, given_.cost_usd, usd, robust_prob=robust, allowed=given_.allowed
    )
    plan = plan_batch(known, Budget(usd), search="destroy_repair")

    assert 0.5 == ROBUST_ALPHA
    assert expected.tolist() == plan.choice.tolist()
    assert abs(totals(given_, expected)[0] - plan.expected_cost_usd) < 1e-12
    assert plan.front.price(plan.point) == plan.dual_price


def test_an_unknown_deviation_adds_nothing():
    for policy in (Knee(), Budget(0.2), MostAccurate()):
        unknown = plan_batch(estimates(np.nan), policy, search="destroy_repair")
        none = plan_batch(estimates(0.0), policy, search="destroy_repair")

        assert none.choice.tolist() == unknown.choice.tolist()


def test_the_exact_front_is_the_default_and_stays_in_the_plan():
    known = estimates(0.4)
    exact, found = plan_batch(known, Knee()), plan_batch(known, Knee(), search="destroy_repair")

    assert exact.front.choice(exact.point).tolist() == exact.choice.tolist()
    assert exact.front.cost_usd.tolist() == found.front.cost_usd.tolist()


def test_a_query_that_nobody_can_serve_is_named_before_any_search():
    known = estimates(0.4)
    allowed = known.allowed.copy()
    allowed[3] = False
    with pytest.raises(NoCandidateError, match="query 3"):
        plan_batch(replace(known, allowed=allowed), Knee(), search="destroy_repair")
