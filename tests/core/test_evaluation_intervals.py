"""Intervals: what resamples hold, textbook values, and how often they cover the truth."""

import math

import numpy as np
import pytest

from optllm_router.core.evaluation import bootstrap_weights, interval, paired_interval, t_interval


def rng(seed=0):
    return np.random.default_rng(seed)


def test_rows_of_a_text_share_their_count_and_counts_add_up_over_texts():
    groups = ["a", "b", "a", "c", "b", "a", "d"]

    weights = bootstrap_weights(groups, 200, rng())

    assert (200, 7) == weights.shape
    assert np.array_equal(weights[:, 0], weights[:, 2])
    assert np.array_equal(weights[:, 0], weights[:, 5])
    assert np.array_equal(weights[:, 1], weights[:, 4])
    assert (weights[:, [0, 1, 3, 6]].sum(axis=1) == 4).all()


def test_counts_have_the_mean_variance_and_covariance_of_a_multinomial():
    weights = bootstrap_weights(range(5), 20_000, rng()).astype(float)

    found = np.cov(weights.T)

    assert np.allclose(1.0, weights.mean(axis=0), atol=0.02)
    assert np.allclose(np.eye(5) - 0.2, found, atol=0.03)


def test_the_same_generator_draws_the_same_resamples():
    assert np.array_equal(
        bootstrap_weights("abca", 9, rng(3)), bootstrap_weights("abca", 9, rng(3))
    )


def test_nothing_cannot_be_resampled():
    with pytest.raises(ValueError, match="at least one query"):
        bootstrap_weights([], 5, rng())


def test_the_percentile_interval_cuts_both_tails():
    found, narrower = interval(np.arange(201.0)[::-1]), interval(range(201), 0.8)

    assert (100.0, 5.0, 195.0) == pytest.approx((found.mean, found.low, found.high))
    assert (20.0, 180.0) == pytest.approx((narrower.low, narrower.high))


def test_students_interval_has_the_textbook_half_width():
    found = t_interval([1.0, 2.0, 3.0])  # t(.975, 2) = 4.3027, s = 1

    assert 2.0 == found.mean
    assert found.high - 2.0 == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert 2.0 - found.low == pytest.approx(found.high - 2.0)


def test_students_interval_covers_the_mean_as_often_as_it_says():
    samples = rng(1).normal(0.3, 0.1, (800, 5))

    covered = [(found := t_interval(row)).low <= 0.3 <= found.high for row in samples]

    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


def test_one_seed_shows_no_spread():
    with pytest.raises(ValueError, match="at least two"):
        t_interval([0.5])


def test_the_mean_is_that_of_the_estimates_and_constant_differences_have_no_width():
    found = paired_interval(np.full((3, 50), 0.25), [0.1, 0.2, 0.3], rng=rng())

    assert (0.2, 0.25, 0.25) == pytest.approx((found.mean, found.low, found.high))


def test_the_draws_of_seeds_alone_are_a_bootstrap_of_their_mean():
    # two seeds, no spread over texts: means 0, .5 and 1 with chances 1/4, 1/2, 1/4
    differences = np.array([[0.0] * 10, [1.0] * 10])

    wide = paired_interval(differences, [0.0, 1.0], rng=rng())
    narrow = paired_interval(differences, [0.0, 1.0], rng=rng(), level=0.4)

    assert (0.0, 1.0) == (wide.low, wide.high)
    assert (0.5, 0.5) == (narrow.low, narrow.high)


@pytest.mark.parametrize(("same_texts", "expected"), [(False, 1 / math.sqrt(16)), (True, 1.0)])
def test_an_error_that_seeds_share_is_not_averaged_away(same_texts, expected):
    shared = np.tile(rng(2).normal(size=4_000), (16, 1))

    found = paired_interval(shared, np.zeros(16), rng=rng(), same_texts=same_texts)

    assert (found.high - found.low) / (2 * 1.96) == pytest.approx(expected, rel=0.06)


def test_intervals_of_texts_cover_the_truth_although_texts_repeat():
    """A text has 1 to 8 rows of one score: rows drawn one by one would cover far less."""
    covered = []
    for seed in range(120):
        draw = rng(seed)
        size = draw.integers(1, 9, 60)
        groups = np.repeat(np.arange(60), size)
        score = (draw.random(60) < 0.6).astype(float)[groups]
        weights = bootstrap_weights(groups.tolist(), 200, draw)
        found = interval(weights @ score / weights.sum(axis=1))
        covered.append(found.low <= 0.6 <= found.high)

    assert np.mean(covered) == pytest.approx(0.94, abs=0.05)


@pytest.mark.parametrize("wrong", [[], [math.nan], [1.0, math.inf]])
def test_figures_must_be_finite(wrong):
    for of in (interval, t_interval):
        with pytest.raises(ValueError, match="not finite"):
            of(wrong)


def test_levels_and_shapes_must_fit():
    for of in (interval, t_interval):
        with pytest.raises(ValueError, match="`level` is 95"):
            of([1.0, 2.0], 95)
    with pytest.raises(ValueError, match=r"\(n_seeds, n_resamples\)"):
        paired_interval(np.zeros((2, 5)), [0.0], rng=rng())
