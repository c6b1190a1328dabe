"""Calibration and cost forecasts on cases whose figures are known without a computer."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optllm_router.core.evaluation import (
    brier,
    calibration,
    calibration_by_column,
    cost_forecast,
    ece,
    log_loss,
    reliability,
)

NAN = math.nan


def test_a_constant_forecast_is_off_by_the_distance_of_two_means():
    assert ece([0.7] * 4, [1, 0, 0, 0]) == pytest.approx(0.45)
    assert 0.0 == ece([0.25] * 4, [1, 0, 0, 0])


def test_ece_weighs_the_bins_by_what_they_hold():
    prob, scores = [0.1, 0.2, 0.8, 0.9, 1.0, 1.0], [0, 1, 1, 1, 1, 0]

    # bins of two: |.5 - .15|, |1 - .85|, |.5 - 1|
    assert ece(prob, scores, n_bins=3) == pytest.approx((0.35 + 0.15 + 0.5) / 3)
    assert ece(prob, scores, n_bins=1) == pytest.approx(abs(4 / 6 - 4 / 6))


def test_bins_have_equal_mass_where_nothing_is_tied():
    rng = np.random.default_rng(1)
    prob = rng.random(3000)

    bins = reliability(prob, (rng.random(3000) < prob).astype(float))

    assert [200] * 15 == bins.n.tolist()
    assert (np.diff(bins.prob) > 0).all()
    assert bins.prob[0] == pytest.approx(np.sort(prob)[:200].mean())
    assert ece(prob, np.round(prob)) > 0.2


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1)), min_size=1, max_size=30))
def test_equal_probabilities_share_a_bin_so_the_order_of_rows_does_not_matter(cells):
    prob = np.array([p for p, _ in cells]) / 4
    scores = np.array([s for _, s in cells], dtype=float)
    order = np.random.default_rng(0).permutation(prob.size)

    bins = reliability(prob, scores, 7)

    ranks = [int((prob < p).sum()) * 7 // prob.size for p in prob]
    expected = [[prob[np.equal(ranks, b)].mean(), np.equal(ranks, b).sum()] for b in set(ranks)]
    assert np.allclose(sorted(expected), np.column_stack([bins.prob, bins.n]))
    assert ece(prob[order], scores[order], 7) == pytest.approx(ece(prob, scores, 7))


def test_soft_scores_count_by_their_mean():
    assert ece([0.5, 0.5], [0.25, 0.75]) == pytest.approx(0.0)
    assert brier([0.5, 0.5], [0.25, 0.75]) == pytest.approx(0.0625)
    assert log_loss([0.5, 0.5], [0.25, 0.75]) == pytest.approx(math.log(2))


def test_brier_and_log_loss_of_single_forecasts():
    assert brier([0.8], [1]) == pytest.approx(0.04)
    assert log_loss([0.8], [1]) == pytest.approx(-math.log(0.8))
    assert log_loss([0.8], [0]) == pytest.approx(-math.log(0.2))


def test_a_sure_miss_costs_as_much_as_the_clip_allows():
    assert log_loss([0.0], [1]) == pytest.approx(-math.log(1e-6))
    assert log_loss([1.0], [0]) == pytest.approx(-math.log(1e-6))


def test_unobserved_cells_are_ignored_and_their_probabilities_never_read():
    seen = calibration([0.1, 0.6], [0, 1])

    assert seen == calibration([[0.1, NAN], [7.0, 0.6]], [[0, NAN], [NAN, 1]])
    assert 2 == seen.n


def test_columns_are_judged_apart_and_one_without_scores_is_unknown():
    prob = np.array([[0.2, 0.9, 0.5], [0.4, 0.7, 0.5]])
    scores = np.array([[0, 1, NAN], [1, NAN, NAN]])

    first, second, third = calibration_by_column(prob, scores)

    assert first == calibration([0.2, 0.4], [0, 1])
    assert second == calibration([0.9], [1])
    assert 0 == third.n
    assert math.isnan(third.ece)
    assert math.isnan(third.brier)
    assert math.isnan(third.log_loss)


@pytest.mark.parametrize(
    ("prob", "scores", "says"),
    [
        ([0.5], [0.5, 0.5], r"shape"),
        ([1.5], [1.0], r"`prob\[0\]` is 1.5"),
        ([0.5, NAN], [1.0, 1.0], r"`prob\[1\]` is nan"),
        ([0.5], [2.0], r"`scores\[0\]` is 2.0"),
        ([0.5], [NAN], r"no observed value"),
        ([], [], r"no observed value"),
    ],
)
@pytest.mark.parametrize("measure", [ece, brier, log_loss, calibration, reliability])
def test_what_is_no_probability_is_refused(measure, prob, scores, says):
    with pytest.raises(ValueError, match=says):
        measure(prob, scores)


def test_bins_and_columns_must_exist():
    with pytest.raises(ValueError, match="at least one bin"):
        ece([0.5], [1.0], n_bins=0)
    with pytest.raises(ValueError, match="need a matrix"):
        calibration_by_column([0.5], [1.0])


def test_errors_cancel_in_the_total_and_not_per_query():
    found = cost_forecast([1.0, 3.0, 5.0], [2.0, 2.0, NAN])

    assert 0.0 == found.total_error
    assert 0.0 == found.absolute_total_error
    assert 1.0 == found.mean_absolute_error_usd
    assert 2 == found.n


def test_a_forecast_that_is_too_low_has_a_negative_error():
    found = cost_forecast([[1.0, 2.0]], [[1.0, 3.0]])

    assert -0.25 == found.total_error
    assert 0.25 == found.absolute_total_error
    assert 0.5 == found.mean_absolute_error_usd


def test_forecasts_need_a_bill_to_compare_with():
    with pytest.raises(ValueError, match="above 0"):
        cost_forecast([1.0], [0.0])
    with pytest.raises(ValueError, match="no observed value"):
        cost_forecast([1.0], [NAN])
    with pytest.raises(ValueError, match=r"`forecast_usd\[0\]` is -1.0"):
        cost_forecast([-1.0], [1.0])
