"""Front quality against closed forms, counted areas, and every allocation of small batches."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optllm_router.core.front.quality import (
    exact_front_of_outcomes,
    hypervolume,
    igd,
    igd_plus,
    nondominated,
    normalised,
    spread,
)
from optllm_router.errors import NoCandidateError

DIAGONAL = np.array([[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]])

grid_points = st.lists(
    st.tuples(st.integers(0, 12), st.integers(0, 12)), min_size=1, max_size=12
).map(lambda points: np.array(points, dtype=float))


def test_nondominated_points_come_by_cost_and_duplicates_once():
    points = [[3, 0.9], [1, 0.5], [2, 0.4], [1, 0.3], [3, 0.9], [4, 0.9]]

    assert [[1, 0.5], [3, 0.9]] == nondominated(points).tolist()


@settings(deadline=None)
@given(grid_points)
def test_nondominated_points_are_those_that_no_other_beats(points):
    expected = {
        (c, a)
        for c, a in points.tolist()
        if not any(d <= c and b >= a and (d, b) != (c, a) for d, b in points.tolist())
    }

    assert sorted(expected) == [tuple(point) for point in nondominated(points).tolist()]


def test_normalised_axes_run_from_the_nadir_to_the_ideal_of_the_reference():
    reference = [[2.0, 0.4], [3.0, 0.7], [6.0, 0.8], [10.0, 0.1]]  # the last one is dominated

    found = normalised([[4.0, 0.6], [1.0, 0.9], [2.0, 0.4], [6.0, 0.8]], reference)

    assert np.allclose([[0.5, 0.5], [-0.25, 1.25], [0.0, 0.0], [1.0, 1.0]], found, atol=1e-15)


def test_a_reference_without_extent_gives_no_unit():
    with pytest.raises(ValueError, match="single nondominated point") as caught:
        normalised([[1.0, 0.5]], [[2.0, 0.5], [3.0, 0.5]])

    assert "at least two points" in str(caught.value)


def test_igd_is_the_mean_distance_from_each_reference_point():
    assert 0.0 == igd(DIAGONAL, DIAGONAL)
    assert igd([[0.0, 0.0]], DIAGONAL) == pytest.approx((0.5 + 1.0) * 2**0.5 / 3)
    assert igd([[3.0, 4.0]], [[0.0, 0.0]]) == pytest.approx(5.0)


def test_igd_plus_counts_only_what_is_worse():
    better, worse = [[0.0, 1.0]], [[1.0, 0.0]]

    assert 0.0 == igd_plus(better, DIAGONAL)
    assert igd(better, DIAGONAL) > 0.5
    assert igd_plus(worse, DIAGONAL) == pytest.approx((1.0 + 0.5 * 2**0.5 + 1.0) / 3)


@settings(deadline=None)
@given(grid_points, grid_points)
def test_both_distances_equal_a_double_loop(points, reference):
    def mean_of(distance):
        return np.mean([min(distance(z, y) for y in points) for z in reference])

    expected = mean_of(lambda z, y: np.hypot(*(z - y)))
    expected_plus = mean_of(lambda z, y: np.hypot(max(0, y[0] - z[0]), max(0, z[1] - y[1])))

    assert igd(points, reference) == pytest.approx(expected)
    assert igd_plus(points, reference) == pytest.approx(expected_plus)


def test_distances_to_many_points_are_summed_over_every_chunk():
    rng = np.random.default_rng(0)
    points, reference = rng.random((1500, 2)), rng.random((700, 2))

    expected = np.hypot(*(reference[:, None] - points).T).min(axis=0).mean()

    assert igd(points, reference) == pytest.approx(expected, rel=1e-12)


def test_hypervolume_of_steps_is_their_area():
    assert hypervolume([[0.0, 1.0]]) == pytest.approx(1.1)
    assert hypervolume([[0.0, 0.5], [1.0, 1.0]]) == pytest.approx(1.1 * 0.5 + 0.1 * 0.5)
    assert 0.0 == hypervolume([[1.1, 1.0], [0.5, 0.0], [2.0, 2.0]])
    assert 6.0 == hypervolume([[1.0, 2.0]], reference_point=(3.0, -1.0))


@settings(deadline=None)
@given(grid_points, st.tuples(st.integers(0, 12), st.integers(0, 12)))
def test_hypervolume_counts_the_cells_that_some_point_dominates(points, reference_point):
    worst_cost, worst_accuracy = reference_point
    expected = sum(
        bool(((points[:, 0] <= c) & (points[:, 1] >= a + 1)).any())
        for c, a in itertools.product(range(worst_cost), range(worst_accuracy, 13))
    )

    assert expected == hypervolume(points, reference_point=reference_point)


def test_spread_of_an_even_cover_is_zero_and_of_a_clump_near_one():
    clump = [[0.50, 0.50], [0.501, 0.501], [0.502, 0.502]]

    assert spread(DIAGONAL, DIAGONAL) == pytest.approx(0.0, abs=1e-15)
    assert spread(clump, DIAGONAL) == pytest.approx(0.998, abs=1e-9)
    assert 1.0 == spread([[0.3, 0.6]], DIAGONAL)


def test_spread_sorts_and_weighs_uneven_gaps():
    # gaps 1, 1 and 4 around their mean 2; the ends are those of the reference
    points = [[6.0, 0.0], [0.0, -4e-12], [2.0, -2e-12], [1.0, -3e-12]]

    assert spread(points, points) == pytest.approx((1 + 1 + 2) / (3 * 2))


def test_spread_needs_some_length():
    with pytest.raises(ValueError, match="nothing can spread"):
        spread([[1.0, 0.5]], [[1.0, 0.5]])


@pytest.mark.parametrize("measure", [igd, igd_plus, normalised, spread])
@pytest.mark.parametrize("wrong", [np.empty((0, 2)), [1.0, 2.0], [[np.nan, 0.5]], [[1.0, np.inf]]])
def test_points_are_finite_pairs_and_at_least_one(measure, wrong):
    with pytest.raises(ValueError, match="`points"):
        measure(wrong, DIAGONAL)
    with pytest.raises(ValueError, match=r"`(points|reference)"):
        measure(DIAGONAL, wrong)


def every_outcome(scores, cost):
    """Cost and mean score of every allocation, (n_allocations, 2)."""
    n, m = scores.shape
    rows = np.arange(n)
    return np.array(
        [
            [cost[rows, choice].sum(), scores[rows, choice].mean()]
            for choice in itertools.product(range(m), repeat=n)
        ]
    )


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 4))
def test_with_scores_of_0_and_1_it_is_every_pareto_point_of_all_allocations(seed, n, m):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 2, (n, m)).astype(float)
    cost = rng.integers(0, 9, (n, m)) / 8  # dyadic, so that sums are exact, and often tied

    found_cost, found_score = exact_front_of_outcomes(scores, cost)

    expected = nondominated(every_outcome(scores, cost))
    assert expected[:, 0].tolist() == found_cost.tolist()
    assert np.allclose(expected[:, 1], found_score, atol=1e-15)


def test_with_scores_of_0_and_1_upgrades_go_by_incremental_cost_of_the_cheapest_correct():
    rng = np.random.default_rng(5)
    scores, cost = rng.integers(0, 2, (400, 6)).astype(float), rng.random((400, 6))
    cheapest = cost.min(axis=1)
    correct = np.where(scores == 1, cost, np.inf).min(axis=1)
    upgrades = np.sort((correct - cheapest)[np.isfinite(correct) & (correct > cheapest)])
    start = (correct == cheapest).sum()

    found_cost, found_score = exact_front_of_outcomes(scores, cost)

    assert np.allclose(cheapest.sum() + np.append(0, upgrades.cumsum()), found_cost, rtol=1e-13)
    assert np.allclose((start + np.arange(upgrades.size + 1)) / 400, found_score, atol=1e-15)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_with_soft_scores_no_allocation_lies_above_the_line_through_its_points(seed):
    rng = np.random.default_rng(seed)
    scores, cost = rng.random((4, 3)), rng.random((4, 3))

    found_cost, found_score = exact_front_of_outcomes(scores, cost)

    allocations = every_outcome(scores, cost)
    bound = np.interp(allocations[:, 0], found_cost, found_score)
    assert (allocations[:, 1] <= bound + 1e-12).all()
    best = allocations[:, 1].argmax()
    assert found_score[-1] == pytest.approx(allocations[best, 1])
    assert found_cost[0] == pytest.approx(allocations[:, 0].min())


def test_the_exact_front_needs_every_outcome():
    with pytest.raises(ValueError, match=r"`scores\[0, 1\]` is NaN \(1 of 2 are\)"):
        exact_front_of_outcomes([[1.0, np.nan]], [[1.0, 2.0]])
    with pytest.raises(NoCandidateError):
        exact_front_of_outcomes(np.empty((2, 0)), np.empty((2, 0)))

    assert ([0.0], [0.0]) == tuple(
        axis.tolist() for axis in exact_front_of_outcomes(np.empty((0, 2)), np.empty((0, 2)))
    )
