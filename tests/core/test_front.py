"""The front against brute force: every allocation of thousands of small batches is tried."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optllm_router.core.front import pareto_front
from optllm_router.errors import InfeasiblePolicyError, NoCandidateError

N_INSTANCES = 6000
EXACT = 1e-12


def every_allocation(prob, cost, allowed=None):
    """Total cost and mean accuracy of every way to answer the batch, (n_allocations,) each."""
    n = len(prob)
    costs, sums = np.zeros(1), np.zeros(1)
    for i in range(n):
        usable = np.arange(prob.shape[1]) if allowed is None else np.flatnonzero(allowed[i])
        costs = np.add.outer(costs, cost[i, usable]).ravel()
        sums = np.add.outer(sums, prob[i, usable]).ravel()
    return costs, sums / n


def upper_left_hull(costs, accuracies):
    """Vertices of the upper-left hull, by Andrew's monotone chain, clear turns only."""
    order = np.lexsort((-accuracies, costs))
    costs, accuracies = costs[order], accuracies[order]
    best_before = np.append(-1.0, np.maximum.accumulate(accuracies)[:-1])
    hull = []
    for k in np.flatnonzero(accuracies > best_before + EXACT):
        point = float(costs[k]), float(accuracies[k])
        while len(hull) > 1 and turn(hull[-2], hull[-1], point) >= -EXACT:
            hull.pop()
        if hull and point[0] <= hull[-1][0] + EXACT:
            hull.pop()
        hull.append(point)
    return np.array(hull)


def turn(a, b, c):
    """Positive where the way from a over b to c turns left, so that b is no upper vertex."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def a_small_batch(rng):
    """Up to 5 queries and 5 columns; a third each of dyadic ties, few prices, and plain floats."""
    n, m = rng.integers(1, 6), rng.integers(1, 6)
    style = rng.integers(3)
    if style == 0:
        prob, cost = rng.integers(0, 5, (n, m)) / 4, rng.integers(0, 5, (n, m)) / 8
    elif style == 1:
        prob, cost = rng.random((n, m)).round(1), np.tile(rng.choice([0, 0.1, 0.3], m), (n, 1))
    else:
        prob, cost = rng.random((n, m)), rng.random((n, m)) * 10.0 ** rng.integers(-6, 2)
    if rng.random() < 0.2:
        cost[:, rng.integers(m)] = 0.0
    if rng.random() < 0.5:
        return prob, cost, None
    allowed = rng.random((n, m)) < 0.6
    allowed[np.arange(n), rng.integers(0, m, n)] = True
    return prob, cost, allowed


def assert_is_the_front(prob, cost, allowed):
    front = pareto_front(prob, cost, allowed)
    unit = max(float(cost.max()), 1e-300)  # both axes of order one, whatever the prices
    hull = upper_left_hull(
        *[a / b for a, b in zip(every_allocation(prob, cost, allowed), (unit, 1), strict=True)]
    )
    x, y = front.cost_usd / unit, front.accuracy

    assert (np.diff(x) > 0).all()
    assert (np.diff(y) > 0).all()
    for vertex in hull:
        assert (np.hypot(x - vertex[0], y - vertex[1]) < 1e-9).any()
    assert (y <= np.interp(x + EXACT, hull[:, 0], hull[:, 1]) + EXACT).all()
    assert (y >= np.interp(x - EXACT, hull[:, 0], hull[:, 1], left=-1.0) - EXACT).all()
    rows = np.arange(len(prob))
    for k in range(front.n_points):
        choice = front.choice(k)
        if allowed is not None:
            assert allowed[rows, choice].all()
        total = math.fsum(cost[rows, choice])
        assert abs(total - front.cost_usd[k]) <= np.spacing(total)
        assert abs(prob[rows, choice].mean() - front.accuracy[k]) < EXACT
        assert front.at_budget(front.cost_usd[k]) == k
        assert front.at_accuracy(front.accuracy[k]) == k


@pytest.mark.parametrize("seed", range(6))
def test_the_front_is_the_upper_left_hull_of_all_allocations(seed):
    rng = np.random.default_rng(seed)

    for _ in range(N_INSTANCES // 6):
        assert_is_the_front(*a_small_batch(rng))


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.data())
def test_the_front_is_the_hull_for_whatever_numbers_hypothesis_finds(data):
    n, m = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    grid = st.lists(st.lists(st.floats(0, 1), min_size=m, max_size=m), min_size=n, max_size=n)
    prob, cost = np.array(data.draw(grid)), np.array(data.draw(grid))

    assert_is_the_front(prob, cost, None)


def test_a_front_worked_out_by_hand():
    # Query 0: 1 USD .2, 3 USD .8 (slope .3), 2 USD .4 under its hull. Query 1: 1 USD .5,
    # 2 USD .6 (slope .1), 3 USD .9 (slope .2 from the start, so .6 is under the hull).
    front = pareto_front([[0.2, 0.8, 0.4], [0.5, 0.6, 0.9]], [[1, 3, 2], [1, 2, 3]])

    assert front.cost_usd.tolist() == [2.0, 4.0, 6.0]
    assert front.accuracy.tolist() == pytest.approx([0.35, 0.65, 0.85], abs=1e-15)
    assert [front.choice(k).tolist() for k in range(3)] == [[0, 0], [1, 0], [1, 2]]
    assert [front.price(k) for k in range(3)] == pytest.approx([0.3, 0.2, 0.0], abs=1e-15)
    assert front.knee() == 1
    assert front.at_budget(5.99) == 1
    assert front.at_accuracy(0.66) == 2
    assert front.fill(5.0).tolist() == [1, 1]
    assert front.gap(5.0) == pytest.approx(0.75 - 0.70, abs=1e-15)


def test_the_cheaper_column_wins_a_tie_and_then_the_lower_index():
    front = pareto_front([[0.5, 0.9, 0.9, 0.9], [0.7, 0.7, 0.7, 0.7]], [[1, 4, 3, 3], [2, 1, 1, 5]])

    assert front.choice(0).tolist() == [0, 1]
    assert front.choice(-1).tolist() == [2, 1]


def test_of_equally_cheap_columns_the_most_probable_is_chosen():
    front = pareto_front([[0.5, 0.9, 0.9]], [[0, 0, 0]])

    assert front.n_points == 1
    assert front.choice(0).tolist() == [1]


def test_equally_steep_upgrades_go_by_query_and_each_is_a_point():
    front = pareto_front([[0.0, 0.5]] * 3, [[0, 1]] * 3)

    assert front.cost_usd.tolist() == [0.0, 1.0, 2.0, 3.0]
    assert front.choice(1).tolist() == [1, 0, 0]
    assert [front.price(k) for k in range(4)] == [0.5, 0.5, 0.5, 0.0]


def test_upgrades_whose_slopes_differ_in_the_last_bits_are_told_apart():
    order = np.random.default_rng(5).permutation(3000)
    prob = np.stack([np.zeros(3000), 0.5 + order // 2 * 2.0**-50], axis=1)
    front = pareto_front(prob, np.tile([0.0, 1.0], (3000, 1)))

    expected = np.argsort(-prob[:, 1], kind="stable").tolist()

    assert front.n_points == 3001
    for k in (1, 2, 3, 1500, 2999):
        assert sorted(expected[:k]) == np.flatnonzero(front.choice(k)).tolist()


def test_costs_that_differ_in_the_last_bit_are_sorted():
    rng = np.random.default_rng(6)
    for _ in range(40):
        steps = rng.permutation(12)
        front = pareto_front([0.5 + steps / 64], [1 + steps * 2.0**-52])

        assert [int(front.choice(k)[0]) for k in range(12)] == steps.argsort().tolist()


def test_collinear_columns_of_one_query_are_all_points():
    front = pareto_front([[0.0, 1.0, 0.5, 0.25]], [[0, 4, 2, 1]])

    assert [front.choice(k).tolist() for k in range(4)] == [[0], [3], [2], [1]]


def test_an_upgrade_too_cheap_to_show_in_the_total_is_merged_into_the_next_point():
    front = pareto_front([[0.5, 0.5], [0.1, 0.9]], [[1e6, 2e6], [0.0, 1e-12]])

    assert front.cost_usd.tolist() == [1e6]
    assert front.choice(0).tolist() == [0, 1]


def test_an_upgrade_too_small_to_show_in_the_accuracy_costs_nothing():
    front = pareto_front([[0.9, 1.0], [0.0, 1e-20]], [[0, 1], [0, 1]])

    assert front.cost_usd.tolist() == [0.0, 1.0]
    assert front.choice(-1).tolist() == [1, 0]


def test_point_costs_do_not_depend_on_the_order_in_which_they_are_added_up():
    rng = np.random.default_rng(1)
    cost = rng.lognormal(-8, 3, (400, 6))
    front = pareto_front(rng.random((400, 6)), cost)

    expected = [math.fsum(cost[np.arange(400), front.choice(k)]) for k in range(front.n_points)]

    assert expected == front.cost_usd.tolist()


def test_blocks_of_rows_join_without_a_seam():
    rng = np.random.default_rng(2)
    prob, cost = rng.random((30_000, 5)), rng.random((30_000, 5))
    front = pareto_front(prob, cost)

    starts = cost.argmin(axis=1)
    assert starts.tolist() == front.choice(0).tolist()
    assert prob.argmax(axis=1).tolist() == front.choice(-1).tolist()
    k = front.n_points // 2
    slope = front.price(k)
    value = prob - slope * cost
    assert value.max(axis=1).sum() == pytest.approx(
        value[np.arange(30_000), front.choice(k)].sum(), abs=1e-9
    )


def test_hundreds_of_columns_are_told_apart():
    cost = np.arange(300.0)[None, :]
    front = pareto_front(1 - 0.5 ** (1 + np.arange(300.0)[None, :] / 100), cost)

    assert front.n_points == 300
    assert front.choice(-1).tolist() == [299]


def test_denormal_costs_do_not_break_the_hull():
    front = pareto_front([[0.1, 0.2, 0.9]], [[0.0, 1e-320, 2e-320]])

    assert front.cost_usd.tolist() == [0.0, 2e-320]
    assert front.choice(-1).tolist() == [2]


def test_huge_costs_do_not_overflow():
    front = pareto_front([[0.1, 0.9], [0.2, 0.3]], [[0.0, 4e299], [1e-3, 4e299]])

    assert front.cost_usd.tolist() == [1e-3, 4e299, 8e299]


def test_an_empty_batch_is_one_point_that_reaches_everything():
    front = pareto_front(np.zeros((0, 3)), np.zeros((0, 3)))

    assert front.cost_usd.tolist() == [0.0]
    assert front.accuracy.tolist() == [0.0]
    assert front.choice(0).tolist() == []
    assert (front.at_budget(0.0), front.at_accuracy(0.9), front.knee()) == (0, 0, 0)
    assert front.fill(1.0).tolist() == []
    assert (front.gap(1.0), front.price(0)) == (0.0, 0.0)


def test_one_query_and_one_column_are_one_point():
    front = pareto_front([[0.4]], [[0.01]])

    assert (front.cost_usd.tolist(), front.accuracy.tolist()) == ([0.01], [0.4])
    assert (front.knee(), front.price(0), front.fill(5).tolist()) == (0, 0.0, [0])


def test_forbidden_cells_are_never_read():
    allowed = [[True, False, True]]
    front = pareto_front([[0.5, math.nan, 0.9]], [[1, -5, 2]], allowed)
    wild = pareto_front([[0.5, 9.0, 0.9]], [[1, math.inf, 2]], allowed)

    assert front.cost_usd.tolist() == wild.cost_usd.tolist() == [1.0, 2.0]
    assert front.choice(-1).tolist() == wild.choice(-1).tolist() == [2]
    assert front.can_use(1).tolist() == [False]
    assert front.fill(1.5).tolist() == [0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, -0.001])
def test_a_cost_that_is_no_amount_is_named_with_row_and_column(bad):
    with pytest.raises(ValueError) as caught:
        pareto_front([[0.5, 0.5], [0.5, 0.5]], [[1, 1], [1, bad]])

    assert str(caught.value).startswith(f"`cost_usd[1, 1]` is {bad!r}, but it must lie in [0, ")


@pytest.mark.parametrize("bad", [math.nan, math.inf, -0.1, 1.0000001])
def test_a_probability_outside_its_range_is_named_with_row_and_column(bad):
    with pytest.raises(ValueError) as caught:
        pareto_front([[0.5, bad], [0.5, 0.5]], [[1, 1], [1, 1]])

    assert str(caught.value).startswith(f"`prob[0, 1]` is {bad!r}, but it must lie in [0, 1]:")


def test_a_batch_of_nothing_but_nan_is_refused():
    with pytest.raises(ValueError, match=r"`prob\[0, 0\]` is nan"):
        pareto_front(np.full((2, 2), np.nan), np.full((2, 2), np.nan))


@pytest.mark.parametrize(
    ("prob", "cost", "allowed", "said"),
    [
        ([0.5, 0.5], [1, 1], None, "`prob` has shape (2,), but a matrix"),
        ([[0.5, 0.5]], [[1]], None, "`cost_usd` has shape (1, 1) and `prob` has (1, 2)"),
        ([[0.5]], [[1]], [True], "`allowed` has shape (1,) and `prob` has (1, 1)"),
        ([[0.5]], [[1]], [[1]], "`allowed` holds int64, but true or false is needed"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(prob, cost, allowed, said):
    with pytest.raises(ValueError) as caught:
        pareto_front(prob, cost, allowed)

    assert str(caught.value).startswith(said)


def test_a_row_without_any_allowed_column_has_no_candidate():
    with pytest.raises(NoCandidateError, match="row 1 has no allowed column"):
        pareto_front([[0.5], [0.5]], [[1], [1]], [[True], [False]])


def test_a_batch_without_columns_has_no_candidate():
    with pytest.raises(NoCandidateError, match="row 0 has no allowed column"):
        pareto_front(np.zeros((2, 0)), np.zeros((2, 0)))


def test_a_budget_below_the_cheapest_allocation_states_the_least_amount():
    front = pareto_front([[0.5, 0.9]], [[0.25, 1]])

    with pytest.raises(InfeasiblePolicyError, match=r"0\.2 USD is below 0\.25 USD") as caught:
        front.at_budget(0.2)

    assert (caught.value.asked, caught.value.nearest) == (0.2, 0.25)


def test_an_accuracy_above_the_front_states_the_highest():
    front = pareto_front([[0.5, 0.9]], [[0.25, 1]])

    with pytest.raises(InfeasiblePolicyError, match=r"0\.95 is above 0\.9") as caught:
        front.at_accuracy(0.95)

    assert (caught.value.asked, caught.value.nearest) == (0.95, 0.9)


def test_the_least_cost_summed_in_another_order_is_still_a_budget():
    rng = np.random.default_rng(3)
    prob, cost = rng.random((5000, 4)), rng.random((5000, 4))
    front = pareto_front(prob, cost)

    assert front.at_budget(sum(cost.min(axis=1).tolist())) == 0
    assert front.at_budget(front.cost_usd[0] * (1 - 1e-13)) == 0
    assert front.at_accuracy(front.accuracy[-1] * (1 + 1e-13)) == front.n_points - 1


def test_a_budget_of_nan_is_no_budget_and_an_infinite_one_buys_everything():
    front = pareto_front([[0.5, 0.9]], [[0.25, 1]])

    assert front.at_budget(math.inf) == 1
    assert front.fill(math.inf).tolist() == [1]
    with pytest.raises(ValueError, match="`usd` is NaN"):
        front.at_budget(math.nan)
    with pytest.raises(ValueError, match="`accuracy` is NaN"):
        front.at_accuracy(math.nan)


def test_points_are_counted_from_both_ends_and_no_further():
    front = pareto_front([[0.5, 0.9]], [[0.25, 1]])

    assert front.choice(-1).tolist() == front.choice(1).tolist() == [1]
    assert front.price(-2) == front.price(0) > 0
    with pytest.raises(IndexError, match="there is no point 2: the front has 2"):
        front.choice(2)
    with pytest.raises(IndexError, match="there is no point -3"):
        front.price(-3)


def test_prices_fall_along_the_front_and_find_their_points():
    rng = np.random.default_rng(4)
    prob, cost = rng.random((50, 6)), rng.random((50, 6))
    front = pareto_front(prob, cost)
    prices = [front.price(k) for k in range(front.n_points)]

    assert (np.diff(prices) <= 0).all()
    for k in range(front.n_points):
        assert front.at_price(prices[k]) == k
        value = prob - prices[k] * 1.0000001 * cost
        assert value.argmax(axis=1).tolist() == front.choice(k).tolist()
    assert front.at_price(math.inf) == 0
    assert front.at_price(0.0) == front.n_points - 1


def test_prices_fall_where_rounding_bends_straight_hulls():
    rng = np.random.default_rng(7)
    for _ in range(20):
        front = pareto_front(rng.random((100, 8)).round(1), rng.random((100, 8)).round(1))
        prices = [front.price(k) for k in range(front.n_points)]

        assert (np.diff(prices) <= 0).all()


def test_the_knee_lies_farthest_from_the_line_between_the_ends():
    front = pareto_front([[0.0, 0.6, 0.7, 0.8]], [[0, 1, 2, 4]])

    assert front.knee() == 1


def test_a_choice_handed_out_can_be_changed_without_harm():
    front = pareto_front([[0.5, 0.9]], [[0.25, 1]])

    front.choice(0)[0] = 7

    assert front.choice(0).tolist() == [0]


def test_any_choice_can_be_priced():
    front = pareto_front([[0.5, 0.9], [0.25, 0.75]], [[1, 2], [4, 8]])
    choice = np.array([1, 0])

    assert (front.cost_of(choice), front.accuracy_of(choice)) == (6.0, (0.9 + 0.25) / 2)


def test_a_front_says_what_it_is():
    front = pareto_front([[0.5, 0.9]], [[0.25, 1]])

    assert repr(front) == (
        "ParetoFront(n_queries=1, n_columns=2, n_points=2, cost_usd=0.25..1, "
        "accuracy=0.5000..0.9000)"
    )
