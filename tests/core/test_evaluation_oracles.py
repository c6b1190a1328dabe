"""RouterArena's figures and those of two candidates, on published rows and worked cases."""

import math

import numpy as np
import pytest

from optllm_router.core.evaluation import apgr, arena_score, cpt, optimality, pgr


def test_the_arena_score_is_a_weighted_harmonic_mean_of_accuracy_and_cheapness():
    middle = math.sqrt(200 * 0.0044)  # C = .5

    assert arena_score(0.7, middle) == pytest.approx(1.1 / (0.1 / 0.5 + 1 / 0.7))
    assert arena_score(0.7, middle, beta=1.0) == pytest.approx(2 / (1 / 0.5 + 1 / 0.7))
    assert 1.0 == pytest.approx(arena_score(1.0, 0.0044))


def test_costs_beyond_the_arenas_range_count_as_its_ends():
    assert arena_score(0.8, 1e-6) == arena_score(0.8, 0.0044)
    assert 0.0 == arena_score(0.8, 500.0)
    assert 0.0 == arena_score(0.0, 1.0)


def test_what_a_point_of_accuracy_and_half_the_cost_are_worth_in_the_arena():
    base = arena_score(0.78, 0.30)

    assert 0.86 == round(100 * (arena_score(0.79, 0.30) - base), 2)
    assert 0.84 == pytest.approx(100 * (arena_score(0.78, 0.15) - base), abs=0.02)
    assert 2.3 == pytest.approx(100 * (arena_score(0.78, 0.03) - base), abs=0.06)


def test_the_arena_score_needs_an_accuracy_and_a_cost():
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        arena_score(1.2, 1.0)
    with pytest.raises(ValueError, match="above 0"):
        arena_score(0.5, 0.0)


def test_an_oracle_is_optimal_in_everything():
    scores = np.array([[0, 1, 1], [1, 1, 1], [0, 0, 1], [0, 0, 0]])
    cost = np.array([[1, 2, 4]] * 4)

    found = optimality(np.array([1, 0, 2, 0]), scores, cost)

    assert (1.0, 1.0, 1.0) == (found.selection, found.cost, found.accuracy)
    assert (3, 3) == (found.n_solvable, found.n_solved)


def test_dear_choices_cost_optimality_and_wrong_ones_accuracy():
    scores = np.array([[0, 1, 1], [1, 1, 1], [0, 0, 1], [0, 0, 0]])
    cost = np.array([[1, 2, 4]] * 4)

    found = optimality(np.array([1, 2, 0, 2]), scores, cost)

    assert found.selection == pytest.approx(1 / 3)
    assert found.cost == pytest.approx((2 / 2 + 1 / 4) / 2)
    assert found.accuracy == pytest.approx(2 / 3)
    assert (3, 2) == (found.n_solvable, found.n_solved)


def test_equally_good_and_cheap_columns_and_free_ones_are_optimal():
    found = optimality(np.array([1, 1]), [[1, 1], [1, 1]], [[2, 2], [0, 0]])

    assert (1.0, 1.0) == (found.selection, found.cost)


def test_of_soft_scores_the_best_column_is_the_one_to_choose():
    found = optimality(np.array([0, 1]), [[0.5, 0.75], [0.25, 0.75]], [[1, 2], [1, 2]])

    assert (0.5, 1.0) == (found.selection, found.cost)
    assert found.accuracy == pytest.approx(1.25 / 1.5)


def test_the_cost_of_choices_that_are_all_wrong_is_unknown():
    found = optimality(np.array([0]), [[0, 1]], [[1, 2]])

    assert (0.0, 0.0, 0) == (found.selection, found.accuracy, found.n_solved)
    assert math.isnan(found.cost)


def test_choices_must_be_columns_and_something_solvable():
    with pytest.raises(ValueError, match=r"`choice\[1\]` is 2"):
        optimality(np.array([0, 2]), [[0, 1], [1, 0]], [[1, 2], [1, 2]])
    with pytest.raises(ValueError, match="one column per query"):
        optimality(np.array([0]), [[0, 1], [1, 0]], [[1, 2], [1, 2]])
    with pytest.raises(ValueError, match="no choice is optimal"):
        optimality(np.array([0]), [[0, 0]], [[1, 2]])
    with pytest.raises(ValueError, match=r"`scores\[0, 1\]` is nan"):
        optimality(np.array([0]), [[0, math.nan]], [[1, 2]])


def test_pgr_is_the_share_of_the_gap():
    assert np.allclose([0.0, 0.5, 1.0, 1.5], pgr([0.4, 0.6, 0.8, 1.0], weak=0.4, strong=0.8))


def test_a_random_mix_recovers_half_of_the_gap_on_average():
    share = np.linspace(0, 1, 11)

    assert apgr(share, 0.4 + 0.4 * share, weak=0.4, strong=0.8) == pytest.approx(0.5)
    assert apgr([], [], weak=0.4, strong=0.8) == pytest.approx(0.5)


def test_apgr_is_the_area_under_the_recovered_gap():
    # PGR 0 to .75 on the first quarter, .75 to 1 on the rest
    found = apgr([0.25], [0.7], weak=0.4, strong=0.8)

    assert found == pytest.approx(0.25 * 0.375 + 0.75 * 0.875)


def test_cpt_is_the_first_share_that_recovers_enough():
    share, score = [0.1, 0.3, 0.6], [0.5, 0.6, 0.74]

    assert [0.1, 0.3, 0.6, 1.0] == [
        cpt(share, score, target=target, weak=0.4, strong=0.8) for target in (0.2, 0.5, 0.8, 0.9)
    ]


def test_two_candidates_without_a_gap_have_none_to_recover():
    with pytest.raises(ValueError, match="swap them"):
        pgr([0.5], weak=0.5, strong=0.5)
    with pytest.raises(ValueError, match="falls after point 0"):
        apgr([0.5, 0.2], [0.5, 0.5], weak=0.4, strong=0.8)
    with pytest.raises(ValueError, match=r"lie in \(0, 1\]"):
        cpt([0.5], [0.5], target=50, weak=0.4, strong=0.8)
    with pytest.raises(ValueError, match=r"`strong_share\[0\]` is 50"):
        apgr([50.0], [0.5], weak=0.4, strong=0.8)
