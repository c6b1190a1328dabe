"""OptLLM's search against a slow literal one, the exact front, and every single-query move."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optllm_router.core.front import pareto_front
from optllm_router.core.front.cells import checked
from optllm_router.core.search import destroy_repair, reach_accuracy, spend_budget
from optllm_router.core.search.moves import moves_of
from optllm_router.core.search.repair import repaired
from optllm_router.errors import InfeasiblePolicyError, NoCandidateError


class LiteralSearch:
    """The published search in plain loops: every score is computed anew after every move."""

    def __init__(self, prob, cost, robust, allowed):
        n, m = prob.shape
        self.columns = [[j for j in range(m) if allowed is None or allowed[i, j]] for i in range(n)]
        self.prob, self.cost, self.robust = prob.tolist(), cost.tolist(), robust.tolist()
        self.rows = range(n)

    def cheapest(self):
        p, c = self.prob, self.cost
        return [min(self.columns[i], key=lambda j, i=i: (c[i][j], -p[i][j], j)) for i in self.rows]

    def most_accurate(self):
        p, c = self.robust, self.cost
        return [min(self.columns[i], key=lambda j, i=i: (-p[i][j], c[i][j], j)) for i in self.rows]

    def total(self, table, choice):
        return math.fsum(table[i][choice[i]] for i in self.rows)

    def score(self, table, i, j, k):
        gain, extra = table[i][k] - table[i][j], self.cost[i][k] - self.cost[i][j]
        if extra <= 0 and gain >= 0 and (gain or extra):
            return math.inf
        if extra > 0 and gain > 0:
            return gain / extra
        if extra < 0 and gain < 0:
            return -(gain / extra)
        return -math.inf

    def scores(self, table, choice):
        return [
            (self.score(table, i, choice[i], k), i, k)
            for i in self.rows
            for k in self.columns[i]
            if k != choice[i]
        ]

    def destroy(self, value, choice, step):
        """`value(i, j)` is what a query gains by: its probability, or minus its cost."""
        best = []
        for i in self.rows:
            gains = {k: value(i, k) - value(i, choice[i]) for k in self.columns[i]}
            k = min(gains, key=lambda k: (-gains[k], k))
            if gains[k] > 0:
                best.append((-gains[k], i, k))
        choice, reached = list(choice), 0.0
        for minus_gain, i, k in sorted(best):
            choice[i] = k
            reached -= minus_gain
            if reached >= step:
                return choice
        return None

    def improve_freely(self, table, choice):
        for i in self.rows:
            while True:
                free = [
                    k for k in self.columns[i] if self.score(table, i, choice[i], k) == math.inf
                ]
                if not free:
                    break
                choice[i] = free[0]

    def reconstruct(self, table, choice):
        choice = list(choice)
        while True:
            self.improve_freely(table, choice)
            scores = self.scores(table, choice)
            upgrades = [s for s, _, _ in scores if s > 0]
            downgrades = [s for s, _, _ in scores if -math.inf < s < 0]
            if not upgrades or not downgrades or max(upgrades) <= abs(max(downgrades)):
                return choice
            for best in (max(upgrades), max(downgrades)):
                for s, i, k in scores:
                    if s == best:
                        choice[i] = k

    def walk(self, start, table, value, step, grid):
        found = []
        for _ in range(grid - 1):
            broken = self.destroy(value, start, step)
            if broken is None:
                break
            start = self.reconstruct(table, broken)
            found.append(start)
        return found

    def run(self, grid, *, as_released=False):
        low, high = self.cheapest(), self.most_accurate()
        gain = (self.total(self.prob, high) - self.total(self.prob, low)) / grid
        saving = (self.total(self.cost, high) - self.total(self.cost, low)) / grid
        rising = self.walk(low, self.prob, lambda i, j: self.prob[i][j], gain, grid)
        falling = self.walk(high, self.robust, lambda i, j: -self.cost[i][j], saving, grid)
        pool = [(c, self.prob) for c in (low, high, *rising)]
        pool += [(c, self.robust if as_released else self.prob) for c in falling]
        return self.nondominated(pool)

    def nondominated(self, pool):
        """The first of those that no other one beats or equals in both, from the cheapest."""
        points = [(self.total(self.cost, c), -self.total(table, c), c) for c, table in pool]
        kept = []
        for k, (cost, loss, choice) in enumerate(points):
            beaten = any(
                (a <= cost and b <= loss) and ((a, b) != (cost, loss) or other < k)
                for other, (a, b, _) in enumerate(points)
            )
            if not beaten:
                kept.append((cost, choice))
        return [choice for _, choice in sorted(kept, key=lambda point: point[0])]


def a_mask(rng, n, m):
    allowed = rng.random((n, m)) < 0.6
    allowed[np.arange(n), rng.integers(0, m, n)] = True
    return allowed


def a_batch(rng, n, m):
    """Dyadic ties, prices that follow skill, or plain floats; sometimes a free column or a mask."""
    style = rng.integers(3)
    if style == 0:
        prob, cost = rng.integers(0, 5, (n, m)) / 4, rng.integers(0, 5, (n, m)) / 8
    elif style == 1:
        prob, cost = rng.random((n, m)), rng.random((n, m)) * 10.0 ** rng.integers(-6, 2)
    else:
        cost = np.cumsum(rng.random((n, m)) + 0.01, axis=1)[:, rng.permutation(m)]
        prob = (np.sqrt(cost / cost.max()) + 0.1 * rng.random((n, m))).clip(0, 1)
    if rng.random() < 0.2:
        cost[:, rng.integers(m)] = 0.0
    return prob, cost, a_mask(rng, n, m) if rng.random() < 0.5 else None


def sums(values, choices):
    return [math.fsum(values[np.arange(len(values)), choice].tolist()) for choice in choices]


def assert_fits_its_own_choices(result, prob, cost, allowed):
    assert result.cost_usd.tolist() == sums(cost, result.choice)
    assert result.accuracy.tolist() == [s / len(prob) for s in sums(prob, result.choice)]
    assert (np.diff(result.cost_usd) > 0).all()
    if allowed is not None:
        assert np.take_along_axis(allowed, result.choice.T, axis=1).all()


def assert_is_on_the_front(prob, cost, allowed, grid):
    front = pareto_front(prob, cost, allowed)
    result = destroy_repair(prob, cost, grid=grid, allowed=allowed)
    line = np.interp(result.cost_usd, front.cost_usd, front.accuracy)

    assert_fits_its_own_choices(result, prob, cost, allowed)
    assert (np.diff(result.accuracy) > 0).all()
    assert len(result.choice) <= 2 * grid
    assert (result.choice[0] == front.choice(0)).all()
    assert (result.choice[-1] == front.choice(-1)).all()
    assert (result.accuracy <= line + 1e-12).all()
    assert (result.accuracy >= line - 1e-9).all()


@pytest.mark.parametrize("seed", range(4))
def test_the_search_makes_the_moves_of_the_literal_one(seed):
    rng = np.random.default_rng(seed)

    for _ in range(60):
        prob, cost, allowed = a_batch(rng, rng.integers(1, 12), rng.integers(1, 6))
        grid = int(rng.integers(1, 9))
        literal = LiteralSearch(prob, cost, prob, allowed).run(grid)
        found = destroy_repair(prob, cost, grid=grid, allowed=allowed).choice

        assert found.tolist() == literal


def test_from_any_allocation_the_reconstruction_is_the_literal_one():
    # The search itself never leaves the hulls, where no query is due up and down at once.
    rng = np.random.default_rng(21)

    for _ in range(200):
        prob, cost, allowed = a_batch(rng, rng.integers(1, 12), rng.integers(2, 6))
        usable = np.ones(prob.shape, bool) if allowed is None else allowed
        start = np.where(usable, rng.random(prob.shape), -1.0).argmax(axis=1)
        literal = LiteralSearch(prob, cost, prob, allowed).reconstruct(prob.tolist(), start)
        found, _ = repaired(moves_of(checked(prob, cost, allowed)), start)

        assert found.tolist() == literal


@pytest.mark.parametrize("as_released", [False, True])
def test_with_robust_estimates_too_it_makes_the_moves_of_the_literal_one(as_released):
    rng = np.random.default_rng(11)

    for _ in range(80):
        prob, cost, allowed = a_batch(rng, rng.integers(1, 12), rng.integers(1, 6))
        robust = prob + rng.integers(-4, 5, prob.shape) / 8
        literal = LiteralSearch(prob, cost, robust, allowed).run(5, as_released=as_released)
        result = destroy_repair(
            prob, cost, robust_prob=robust, grid=5, allowed=allowed, as_released=as_released
        )

        assert result.choice.tolist() == literal
        assert_fits_its_own_choices(result, prob, cost, allowed)


@pytest.mark.parametrize("seed", range(3))
def test_every_point_is_a_supported_point_of_the_exact_front(seed):
    rng = np.random.default_rng(seed)

    for _ in range(60):
        prob, cost, allowed = a_batch(rng, rng.integers(1, 60), rng.integers(1, 9))
        assert_is_on_the_front(prob, cost, allowed, int(rng.integers(1, 30)))


@settings(max_examples=100, derandomize=True, deadline=None)
@given(st.data())
def test_it_stays_on_the_front_for_whatever_numbers_hypothesis_finds(data):
    n, m = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 4))
    tenths = st.integers(0, 10).map(lambda k: k / 10)
    # Steps that vanish in a sum of floats are one point to the front, and two to the search.
    fine = st.floats(0, 1).map(lambda number: round(number, 12))
    numbers = data.draw(st.sampled_from([tenths, fine, st.floats(0, 1, width=16)]))
    rows = st.lists(st.lists(numbers, min_size=m, max_size=m), min_size=n, max_size=n)
    prob, cost = np.array(data.draw(rows)), np.array(data.draw(rows))
    allowed = a_mask(np.random.default_rng(data.draw(st.integers(0, 9))), n, m)

    assert_is_on_the_front(prob, cost, data.draw(st.sampled_from([None, allowed])), 6)


def test_collinear_columns_that_floats_bend_do_not_send_queries_round_in_circles():
    rng = np.random.default_rng(5)

    for _ in range(25):
        kinds = rng.integers(1, 10, (3, 6)) / 10
        prob = kinds[rng.integers(0, 3, 200)]  # the same texts again and again
        cost = prob * 0.3 + (rng.random((200, 6)) < 0.2) * 0.1
        assert_is_on_the_front(prob, cost, None, 20)


def test_a_search_worked_out_by_hand():
    # Ends: both queries on column 0 (2 USD, .2) and both on column 2 (10 USD, .9 and .8).
    # From below, half of the accuracy is .65: query 0 gains most (.7) and goes to column 2; from
    # there the flattest downgrade (column 1, .1 for 3 USD) is due for query 1's upgrade (.4 for
    # 1 USD). From above, half of the cost is 4 USD, which one query saves; the repair is the same.
    prob = [[0.2, 0.8, 0.9], [0.2, 0.6, 0.8]]
    cost = [[1, 2, 5], [1, 2, 5]]
    result = destroy_repair(prob, cost, grid=2)

    assert result.choice.tolist() == [[0, 0], [1, 1], [2, 2]]
    assert result.cost_usd.tolist() == [2.0, 4.0, 10.0]
    assert result.accuracy.tolist() == pytest.approx([0.2, 0.7, 0.85], abs=1e-15)
    assert (result.n_destructions, result.n_moves) == (2, 4)


def test_the_released_filter_compares_robust_scores_with_plain_ones():
    prob = np.array([[0.1, 0.5, 0.9], [0.1, 0.5, 0.9]])
    cost = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]])
    own = destroy_repair(prob, cost, robust_prob=prob + 1.0, grid=4)
    released = destroy_repair(prob, cost, robust_prob=prob + 1.0, grid=4, as_released=True)

    assert own.choice[-1].tolist() == [2, 2]
    assert released.choice.tolist() != own.choice.tolist()
    assert [2, 2] not in released.choice.tolist()  # "beaten" by a worse one with a brighter score


def test_robust_estimates_decide_the_dear_end_and_plain_ones_the_cheap_end():
    prob, robust = [[0.5, 0.9, 0.6]], [[0.5, 0.7, 0.8]]
    result = destroy_repair(prob, [[1, 2, 1.5]], robust_prob=robust, grid=1)

    assert result.choice.tolist() == [[0], [2]]
    assert result.accuracy.tolist() == [0.5, 0.6]


@pytest.mark.parametrize("grid", [1, 2, 1000])
def test_a_single_query_and_a_grid_larger_than_useful(grid):
    result = destroy_repair([[0.2, 0.5, 0.9]], [[1, 2, 3]], grid=grid)

    assert result.choice[[0, -1]].tolist() == [[0], [2]]
    assert len(result.choice) <= 2 * grid
    assert result.n_destructions < 10


def test_one_column_leaves_nothing_to_search():
    result = destroy_repair([[0.5], [0.7]], [[1], [0]])

    assert result.choice.tolist() == [[0, 0]]
    assert (result.cost_usd.tolist(), result.accuracy.tolist()) == ([1.0], [0.6])
    assert (result.n_destructions, result.n_moves) == (0, 0)


@pytest.mark.parametrize("m", [0, 3])
def test_an_empty_batch_has_one_point_as_the_front_has(m):
    empty = np.zeros((0, m))
    result, front = destroy_repair(empty, empty), pareto_front(empty, empty)

    assert result.choice.shape == (1, 0)
    assert result.cost_usd.tolist() == front.cost_usd.tolist()
    assert result.accuracy.tolist() == front.accuracy.tolist()
    assert spend_budget(empty, empty, 0.0).shape == (0,)
    assert reach_accuracy(empty, empty, 0.9).shape == (0,)


def test_cells_that_are_not_allowed_are_never_read():
    prob, cost = np.array([[0.2, np.nan, 0.9]]), np.array([[1.0, -5.0, 3.0]])
    allowed = np.array([[True, False, True]])
    result = destroy_repair(prob, cost, robust_prob=prob, allowed=allowed)

    assert result.choice.tolist() == [[0], [2]]
    assert spend_budget(prob, cost, 2.5, robust_prob=prob, allowed=allowed).tolist() == [0]
    assert reach_accuracy(prob, cost, 0.3, allowed=allowed).tolist() == [2]


def test_the_matrices_are_not_changed():
    prob, cost, _ = a_batch(np.random.default_rng(2), 20, 4)
    before = prob.copy(), cost.copy()
    destroy_repair(prob, cost)
    spend_budget(prob, cost, float(cost.min(axis=1).sum()) * 2 + 1)
    reach_accuracy(prob, cost, 0.1)

    assert (prob == before[0]).all()
    assert (cost == before[1]).all()


def every_move(prob, cost, allowed, choice):
    """Gain and extra cost of moving each query alone to each allowed column, flat."""
    here = np.arange(len(prob)), choice
    usable = np.ones(prob.shape, bool) if allowed is None else allowed
    gain, extra = prob - prob[here][:, None], cost - cost[here][:, None]
    return gain[usable], extra[usable]


@pytest.mark.parametrize("seed", range(3))
def test_a_budget_is_spent_until_no_affordable_move_improves(seed):
    rng = np.random.default_rng(seed)

    for _ in range(80):
        prob, cost, allowed = a_batch(rng, rng.integers(1, 40), rng.integers(1, 6))
        robust = prob + rng.normal(0, 0.2, prob.shape) if rng.random() < 0.5 else None
        front = pareto_front(prob, cost, allowed)
        budget = rng.uniform(front.cost_usd[0], front.cost_usd[-1] * 1.1)
        choice = spend_budget(prob, cost, budget, robust_prob=robust, allowed=allowed)
        left = budget - sums(cost, [choice])[0]
        gain, extra = every_move(prob, cost, allowed, choice)

        assert left >= 0.0
        assert not ((gain > 0.0) & (extra <= left * (1 - 1e-9))).any()
        if allowed is not None:
            assert allowed[np.arange(len(prob)), choice].all()


@pytest.mark.parametrize("seed", range(3))
def test_an_accuracy_is_reached_and_no_move_saves_money_above_it(seed):
    rng = np.random.default_rng(seed)

    for _ in range(80):
        prob, cost, allowed = a_batch(rng, rng.integers(1, 40), rng.integers(1, 6))
        front = pareto_front(prob, cost, allowed)
        target = rng.uniform(front.accuracy[0] - 0.05, front.accuracy[-1])
        choice = reach_accuracy(prob, cost, target, allowed=allowed)
        spare = sums(prob, [choice])[0] - target * len(prob)
        gain, extra = every_move(prob, cost, allowed, choice)

        assert sums(prob, [choice])[0] / len(prob) >= target
        assert not ((extra < 0.0) & (-gain <= spare - 1e-9)).any()
        if allowed is not None:
            assert allowed[np.arange(len(prob)), choice].all()


def test_the_single_aims_stay_within_a_query_of_the_exact_front():
    rng = np.random.default_rng(8)

    for n, m in 40 * [(50, 4)] + 10 * [(400, 8)]:
        prob, cost, allowed = a_batch(rng, n, m)
        front = pareto_front(prob, cost, allowed)
        budget = rng.uniform(front.cost_usd[0], front.cost_usd[-1])
        target = rng.uniform(front.accuracy[0], front.accuracy[-1])
        rich = front.accuracy_of(spend_budget(prob, cost, budget, allowed=allowed))
        cheap = front.cost_of(reach_accuracy(prob, cost, target, allowed=allowed))
        dearest_move = np.ptp(cost, axis=1).max()

        assert rich <= np.interp(budget, front.cost_usd, front.accuracy) + 1e-12
        assert rich > np.interp(budget, front.cost_usd, front.accuracy) - 1 / n
        assert cheap >= np.interp(target, front.accuracy, front.cost_usd) * (1 - 1e-12)
        assert cheap <= np.interp(target, front.accuracy, front.cost_usd) + dearest_move


def test_exactly_the_cost_or_the_accuracy_of_a_point_is_enough():
    rng = np.random.default_rng(3)

    for _ in range(60):
        prob, cost, allowed = a_batch(rng, 12, 4)
        front = pareto_front(prob, cost, allowed)
        k = int(rng.integers(front.n_points))
        rich = spend_budget(prob, cost, float(front.cost_usd[k]), allowed=allowed)
        cheap = reach_accuracy(prob, cost, float(front.accuracy[k]), allowed=allowed)

        assert front.cost_of(rich) <= front.cost_usd[k]
        if k in {0, front.n_points - 1}:
            assert front.accuracy_of(rich) == pytest.approx(front.accuracy[k], abs=1e-12)
            assert front.cost_of(cheap) == pytest.approx(front.cost_usd[k], rel=1e-12)


def test_a_last_bit_below_the_accuracy_is_below_it():
    almost = math.nextafter(0.7, 0.0)

    assert reach_accuracy([[0.3, almost, 0.7]], [[1, 2, 3]], 0.7).tolist() == [2]
    assert reach_accuracy([[0.3, almost, 0.7]], [[1, 2, 3]], almost).tolist() == [1]


def test_more_money_than_everything_costs_buys_everything():
    prob, cost = [[0.2, 0.9], [0.8, 0.3]], [[1, 2], [1, 2]]

    assert spend_budget(prob, cost, math.inf).tolist() == [1, 0]
    assert reach_accuracy(prob, cost, -1.0).tolist() == [0, 0]


def test_a_budget_below_the_cheapest_allocation_is_infeasible():
    with pytest.raises(InfeasiblePolicyError, match=r"below 3\.0 USD") as caught:
        spend_budget([[0.5, 0.9], [0.5, 0.9]], [[1, 4], [2, 5]], 2.9)

    assert (caught.value.asked, caught.value.nearest) == (2.9, 3.0)
    assert spend_budget([[0.5, 0.9]], [[1, 4]], 1.0 - 1e-13).tolist() == [0]


def test_an_accuracy_above_the_best_columns_is_infeasible():
    with pytest.raises(InfeasiblePolicyError, match=r"above 0\.75") as caught:
        reach_accuracy([[0.5, 1.0], [0.5, 0.25]], [[1, 4], [2, 5]], 0.8)

    assert (caught.value.asked, caught.value.nearest) == (0.8, 0.75)
    assert reach_accuracy([[0.5, 0.9]], [[1, 4]], 0.9 + 1e-13).tolist() == [1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"grid": 0}, "`grid` is 0"),
        ({"robust_prob": [[0.5]]}, "`robust_prob` has shape"),
        ({"robust_prob": [[0.5, np.inf]]}, r"`robust_prob\[0, 1\]` is inf"),
        ({"allowed": [[True]]}, "`allowed` has shape"),
    ],
)
def test_a_wrong_argument_is_refused_with_its_rule(arguments, message):
    with pytest.raises(ValueError, match=message):
        destroy_repair([[0.5, 0.6]], [[1, 2]], **arguments)


def test_what_is_no_number_or_has_no_candidate_is_refused():
    with pytest.raises(ValueError, match="`budget_usd` is NaN"):
        spend_budget([[0.5]], [[1]], math.nan)
    with pytest.raises(ValueError, match="`accuracy` is NaN"):
        reach_accuracy([[0.5]], [[1]], math.nan)
    with pytest.raises(NoCandidateError, match="row 0 has no allowed column"):
        destroy_repair([[0.5]], [[1]], allowed=[[False]])
