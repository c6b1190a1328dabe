"""Walks: totals against adding up one allocation at a time, and the hull of single candidates."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from optllm_router.bench.walks import ChoiceWalk, FrontWalk, MixWalk, choices_walk, hull_mix
from optllm_router.core.front import pareto_front

COARSE = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])  # many ties
FINE = st.floats(0.0, 1.0, allow_subnormal=False)


@st.composite
def tables(draw, n_max=7):
    """Probabilities, costs, and any values beside them, (n, m) each."""
    shape = draw(st.tuples(st.integers(1, n_max), st.integers(1, 4)))
    cells = draw(st.sampled_from([COARSE, FINE]))
    values = arrays(np.float64, shape, elements=st.integers(-50, 50).map(float))
    return (
        draw(arrays(np.float64, shape, elements=cells)),
        draw(arrays(np.float64, shape, elements=cells)),
        draw(values),
    )


def added_up(choice, values):
    return math.fsum(values[i, j] for i, j in enumerate(choice.tolist()))


@given(table=tables())
@settings(max_examples=120, deadline=None)
def test_a_front_adds_up_any_values_as_its_allocations_do(table):
    prob, cost, values = table
    front = pareto_front(prob, cost)

    totals = front.totals_of(values)

    assert (front.n_points,) == totals.shape
    assert [added_up(front.choice(k), values) for k in range(front.n_points)] == totals.tolist()


def test_a_front_whose_first_upgrade_is_too_cheap_to_show_adds_up_all_the_same():
    front = pareto_front([[0.0, 0.0], [0.0, 1.0]], [[1.0, 1.0], [0.0, 1e-27]])

    assert [[0, 1]] == [front.choice(k).tolist() for k in range(front.n_points)]
    assert [5.0] == front.totals_of(np.array([[2.0, 0.0], [1.0, 3.0]])).tolist()


@given(table=tables())
@settings(max_examples=60, deadline=None)
def test_a_front_walks_at_the_costs_that_it_forecast(table):
    prob, cost, _ = table
    walk = FrontWalk(pareto_front(prob, cost))

    assert walk.totals(cost) == pytest.approx(walk.forecast_usd, abs=1e-12)
    assert (np.diff(walk.forecast_usd) > 0.0).all()


@given(table=tables(), seed=st.integers(0, 1000), n_points=st.integers(1, 6))
@settings(max_examples=60, deadline=None)
def test_allocations_are_walked_by_forecast_cost_and_add_up(table, seed, n_points):
    _, cost, values = table
    n, m = cost.shape
    choice = np.random.default_rng(seed).integers(m, size=(n_points, n))

    walk = choices_walk(choice, cost)

    assert isinstance(walk, ChoiceWalk)
    assert sorted(choice.tolist()) == sorted(walk.choice.tolist())
    assert (np.diff(walk.forecast_usd) >= 0.0).all()
    assert [added_up(c, cost) for c in walk.choice] == pytest.approx(walk.forecast_usd, abs=1e-12)
    assert [added_up(c, values) for c in walk.choice] == walk.totals(values).tolist()


def test_a_mix_adds_up_in_expectation_over_all_assignments():
    rng = np.random.default_rng(1)
    values, shares = rng.normal(size=(4, 3)), rng.dirichlet(np.ones(3), size=5)

    totals = MixWalk(shares, np.arange(5.0)).totals(values)

    for share, total in zip(shares, totals, strict=True):
        expected = sum(
            math.prod(share[j] for j in choice) * sum(values[i, j] for i, j in enumerate(choice))
            for choice in itertools.product(range(3), repeat=4)
        )
        assert expected == pytest.approx(total, abs=1e-12)


@given(table=tables(), seed=st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_every_walk_adds_up_its_queries_one_by_one_and_under_any_weights(table, seed):
    prob, cost, values = table
    n, m = cost.shape
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, 3, size=(n, 4)).astype(float)
    mean = cost.mean(axis=0)
    shares = rng.dirichlet(np.ones(m), size=3)
    walks = (
        (FrontWalk(pareto_front(prob, cost)), cost),
        (choices_walk(rng.integers(m, size=(4, n)), cost), cost),
        (MixWalk(shares, n * shares @ mean), np.tile(mean, (n, 1))),
    )
    for walk, cells in walks:
        points = np.flatnonzero(rng.random(walk.forecast_usd.size) < 0.6)
        points = points if points.size else np.array([0])
        thinned = walk.thinned(points)

        assert walk.totals(cells) == pytest.approx(walk.forecast_usd, abs=1e-12)
        for k, total in enumerate(walk.totals(values)):
            assert total == pytest.approx(walk.each(k, values).sum(), abs=1e-9)
            assert walk.forecast_usd[k] == pytest.approx(walk.forecast_each(k, n).sum(), abs=1e-12)
        found, forecast = thinned.totals(values, weights), thinned.forecast(weights)
        assert (points.size, 4) == found.shape == forecast.shape
        for b, weight in enumerate(weights.T):
            expected = walk.totals(values * weight[:, None])[points]
            assert expected == pytest.approx(found[:, b], abs=1e-9)
            for at, k in enumerate(points.tolist()):
                each = weight @ walk.forecast_each(k, n)
                assert each == pytest.approx(forecast[at, b], abs=1e-12)


def best_mix(score, cost, usd):
    """The highest mean score that any mix of at most two candidates has for at most `usd`."""
    found = [s for s, c in zip(score, cost, strict=True) if c <= usd]
    for i, j in itertools.permutations(range(len(score)), 2):
        if cost[i] <= usd < cost[j]:
            part = (usd - cost[i]) / (cost[j] - cost[i])
            found.append(score[i] + part * (score[j] - score[i]))
    return max(found)


@given(
    cells=st.lists(
        st.tuples(
            COARSE | FINE,
            st.integers(0, 24).map(lambda eighths: eighths / 8),
        ),
        min_size=1,
        max_size=6,
    )
)
@settings(max_examples=120, deadline=None)
def test_no_mix_of_candidates_scores_better_for_the_same_money(cells):
    score, cost = np.array(cells).T

    walk = hull_mix(score, cost, 10, n_points=11)

    assert (walk.shares >= 0.0).all()
    assert np.ones(len(walk.shares)) == pytest.approx(walk.shares.sum(axis=1), abs=1e-12)
    assert (np.diff(walk.forecast_usd) > 0.0).all() or len(walk.shares) == 1
    assert 10 * walk.shares @ cost == pytest.approx(walk.forecast_usd, abs=1e-9)
    for share, usd in zip(walk.shares, walk.forecast_usd / 10, strict=True):
        within = max(cost.min(), usd - 1e-9)
        assert share @ score >= best_mix(score, cost, within) - 1e-7
        assert np.count_nonzero(share) <= 2
    assert (cost.min(), score.max()) == pytest.approx(
        (walk.forecast_usd[0] / 10, walk.shares[-1] @ score)
    )


def test_the_hull_passes_through_every_corner_and_between_them_mixes_neighbours():
    score, cost = np.array([0.4, 0.8, 0.5, 0.9]), np.array([1.0, 2.0, 3.0, 6.0])

    walk = hull_mix(score, cost, 2, n_points=6)  # at 1, 2, 3, 4, 5, 6 USD per query

    assert [2, 4, 6, 8, 10, 12] == pytest.approx(walk.forecast_usd)
    assert [0.4, 0.8, 0.825, 0.85, 0.875, 0.9] == pytest.approx(walk.shares @ score)
    assert not walk.shares[:, 2].any()


@pytest.mark.parametrize(
    ("score", "cost", "used"),
    [
        ([0.5], [2.0], 0),  # a single candidate
        ([0.5, 0.5], [2.0, 1.0], 1),  # equally good: the cheaper
        ([0.5, 0.7, 0.6], [1.0, 1.0, 1.0], 1),  # equally dear: the better
        ([0.9, 0.7], [0.0, 1.0], 0),  # the best is free
        ([0.5, 0.5], [1.0, 1.0], 0),  # alike: the first
    ],
)
def test_one_candidate_that_beats_all_is_a_walk_of_one_point(score, cost, used):
    walk = hull_mix(np.array(score), np.array(cost), 3)

    assert [3 * cost[used]] == walk.forecast_usd.tolist()
    assert np.eye(len(score))[[used]].tolist() == walk.shares.tolist()
