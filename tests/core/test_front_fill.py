"""Filling a budget, against brute force on small batches and HiGHS on larger ones."""

import math

import numpy as np
import pytest

from optllm_router.core.front import pareto_front
from optllm_router.errors import InfeasiblePolicyError


def a_batch(rng, n, m):
    """Random estimates in one of three styles: ties, plain floats, costs that follow quality."""
    style = rng.integers(3)
    if style == 0:
        prob, cost = rng.integers(0, 6, (n, m)) / 5, rng.integers(0, 5, (n, m)) / 10
    elif style == 1:
        prob, cost = rng.random((n, m)), rng.lognormal(-5, 2, (n, m))
    else:
        cost = rng.lognormal(-6, 1, (n, m))
        prob = (0.3 + 0.2 * np.log10(1 + 1e3 * cost) + 0.2 * rng.random((n, m))).clip(0, 1)
    allowed = rng.random((n, m)) < 0.7
    allowed[np.arange(n), rng.integers(0, m, n)] = True
    return prob, cost, allowed


def every_allocation(prob, cost, allowed):
    """Exact total cost and summed probability of every allowed allocation."""
    totals = [((), ())]
    for i in range(len(prob)):
        usable = np.flatnonzero(allowed[i])
        totals = [((*c, cost[i, j]), (*p, prob[i, j])) for c, p in totals for j in usable]
    return np.array([math.fsum(c) for c, _ in totals]), np.array([math.fsum(p) for _, p in totals])


def assert_nothing_more_fits(prob, cost, allowed, choice, usd):
    rows = np.arange(len(prob))
    left = usd - math.fsum(cost[rows, choice])
    extra = cost - cost[rows, choice][:, None]
    gain = prob - prob[rows, choice][:, None]

    assert not (allowed & (gain > 0) & (extra < left * (1 - 1e-9) - 1e-15)).any()


@pytest.mark.parametrize("seed", range(4))
def test_fill_stays_in_every_budget_and_within_one_querys_gain_of_the_optimum(seed):
    rng = np.random.default_rng(seed)
    for _ in range(200):
        n, m = rng.integers(1, 5), rng.integers(1, 5)
        prob, cost, allowed = a_batch(rng, n, m)
        front = pareto_front(prob, cost, allowed)
        costs, gains = every_allocation(prob, cost, allowed)
        one_gain = max(np.ptp(prob[i, allowed[i]]) for i in range(n))
        budgets = np.append(np.unique(costs), costs.max() * rng.random(3) + costs.min())
        for usd in budgets[rng.permutation(budgets.size)[:16]]:
            choice = front.fill(usd)
            reached = math.fsum(prob[np.arange(n), choice])
            optimum = gains[costs <= usd].max()

            assert allowed[np.arange(n), choice].all()
            assert math.fsum(cost[np.arange(n), choice]) <= usd
            assert reached >= n * front.accuracy[front.at_budget(usd)] - 1e-12
            assert optimum - reached <= one_gain + 1e-12
            assert optimum - reached <= n * front.gap(usd) + 1e-9
            assert front.gap(usd) * n <= one_gain + 1e-9
            assert_nothing_more_fits(prob, cost, allowed, choice, usd)


def test_fill_is_optimal_for_one_query_at_every_budget():
    rng = np.random.default_rng(5)
    for _ in range(300):
        prob, cost, allowed = a_batch(rng, 1, rng.integers(1, 8))
        front = pareto_front(prob, cost, allowed)
        least = cost[allowed].min()
        edges = np.unique(cost[allowed])
        budgets = [*edges, *np.nextafter(edges, 0), *np.nextafter(edges, 9), rng.random()]
        for usd in [usd for usd in budgets if usd >= least]:
            affordable = allowed[0] & (cost[0] <= usd)
            best = prob[0, affordable].max()
            cheapest = cost[0, affordable & (prob[0] == best)].min()
            (column,) = front.fill(usd)

            assert (prob[0, column], cost[0, column]) == (best, cheapest)


@pytest.mark.parametrize("seed", range(4))
def test_the_optimum_of_an_exact_solver_is_at_most_the_gap_above_fill(seed):
    rng = np.random.default_rng(seed)
    prob, cost, allowed = a_batch(rng, 60, 6)
    front = pareto_front(prob, cost, allowed)
    for share in (0.01, 0.1, 0.3, 0.6, 0.95):
        usd = front.cost_usd[0] + share * (front.cost_usd[-1] - front.cost_usd[0])
        reached = front.accuracy_of(front.fill(usd))
        optimum = solved_exactly(prob, cost, allowed, usd)

        assert reached <= optimum + 1e-7
        assert optimum <= reached + front.gap(usd) + 1e-7
        assert front.gap(usd) < 1 / 60


def solved_exactly(prob, cost, allowed, usd):
    """Mean accuracy of the optimal allocation within a budget, by HiGHS."""
    from scipy.optimize import Bounds, LinearConstraint, milp

    n, m = prob.shape
    one_each = np.kron(np.eye(n), np.ones(m))
    scale = cost.max()
    solution = milp(
        -prob.ravel(),
        constraints=[
            LinearConstraint(one_each, 1, 1),
            LinearConstraint(cost.ravel()[None, :] / scale, -np.inf, usd / scale),
        ],
        bounds=Bounds(0, allowed.ravel().astype(float)),
        integrality=np.ones(n * m),
        options={"mip_rel_gap": 0, "time_limit": 20},
    )
    return -solution.fun / n


def test_fill_takes_an_upgrade_that_no_price_would_choose():
    # The column of 2 USD lies under the hull of the others: no point of the front has it.
    front = pareto_front([[0.2, 0.4, 0.9]], [[1, 2, 3]])

    assert [front.choice(k).tolist() for k in range(front.n_points)] == [[0], [2]]
    assert front.fill(2.5).tolist() == [1]


def test_fill_passes_over_a_step_that_does_not_fit_for_those_that_do():
    prob = [[0.0, 1.0], [0.0, 0.3], [0.0, 0.2]]
    cost = [[0, 10], [0, 4], [0, 5]]
    front = pareto_front(prob, cost)

    assert front.fill(9.0).tolist() == [0, 1, 1]
    assert front.fill(4.5).tolist() == [0, 1, 0]
    assert front.fill(14.0).tolist() == [1, 1, 0]


def test_fill_goes_on_from_an_improvement_to_a_better_one():
    front = pareto_front([[0.1, 0.2, 0.25, 0.9]], [[0, 1, 2, 10]])

    assert front.fill(2.0).tolist() == [2]


def test_fill_of_a_points_cost_is_that_point_where_nothing_else_fits():
    rng = np.random.default_rng(6)
    front = pareto_front(rng.random((300, 5)), rng.lognormal(-8, 1, (300, 5)))

    for k in range(front.n_points):
        assert front.accuracy_of(front.fill(front.cost_usd[k])) >= front.accuracy[k] - 1e-15


def test_fill_of_a_large_batch_leaves_nothing_that_fits():
    rng = np.random.default_rng(7)
    prob, cost = rng.random((20_000, 6)), rng.random((20_000, 6))
    front = pareto_front(prob, cost)
    usd = float(np.quantile(front.cost_usd, 0.3)) + 0.5
    choice = front.fill(usd)

    assert front.cost_of(choice) <= usd
    assert_nothing_more_fits(prob, cost, np.ones(prob.shape, bool), choice, usd)
    assert front.gap(usd) < 1e-6


def test_fill_below_the_cheapest_allocation_is_infeasible():
    front = pareto_front([[0.5, 0.9]], [[0.25, 1]])

    with pytest.raises(InfeasiblePolicyError) as caught:
        front.fill(0.1)

    assert caught.value.nearest == 0.25


def test_fill_with_the_least_cost_summed_in_another_order_is_the_cheapest_allocation():
    cost = np.random.default_rng(8).random((999, 3))
    front = pareto_front(np.ones((999, 3)), cost)

    assert front.fill(front.cost_usd[0] * (1 - 1e-13)).tolist() == cost.argmin(axis=1).tolist()


def test_fill_spends_nothing_where_nothing_is_gained():
    front = pareto_front([[0.5, 0.5], [0.9, 0.1]], [[1, 2], [1, 2]])

    assert front.fill(100.0).tolist() == [0, 0]
    assert front.gap(100.0) == 0.0


def test_each_query_gets_its_best_column_within_a_limit_of_its_own():
    prob = [[0.1, 0.9, 0.8], [0.5, 0.7, 0.7], [0.2, 0.3, 0.4]]
    cost = [[1, 5, 2], [1, 2, 1.5], [4, 3, 5]]
    allowed = [[True, True, True], [True, True, True], [True, False, True]]
    front = pareto_front(prob, cost, allowed)
    choice, missing = front.best_within(2.0)

    assert choice.tolist() == [2, 2, 0]
    assert missing.tolist() == [False, False, True]
