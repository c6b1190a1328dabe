"""Metrics of realised curves on cases worked by hand, and against plain loops over the points."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optllm_router.core.evaluation import (
    Curve,
    aiq,
    audc,
    best_single,
    budget_area,
    max_accuracy,
    overspend,
    qnc,
    saving_at_best,
    saving_crossfit,
)


def curve(cost, score, forecast=None):
    return Curve(
        forecast_usd=np.asarray(cost if forecast is None else forecast, dtype=float),
        cost_usd=np.asarray(cost, dtype=float),
        score=np.asarray(score, dtype=float),
    )


@st.composite
def curves(draw, dearest=12):
    """Few costs and scores, so that ties are common; realised costs in any order."""
    n = draw(st.integers(1, 8))
    whole = st.lists(st.integers(1, dearest), min_size=n, max_size=n)
    scores = draw(st.lists(st.integers(0, 8), min_size=n, max_size=n))
    return curve(draw(whole), np.divide(scores, 8), forecast=sorted(draw(whole)))


def test_the_best_single_candidate_has_the_highest_mean_and_of_a_tie_the_least_cost():
    scores = [[1, 0, 1, 0], [0, 1, 0, 0]]
    cost = [[3, 1, 1, 0], [3, 2, 1, 0]]

    best = best_single(scores, cost)

    assert (2, 0.5, 2.0) == (best.column, best.score, best.cost_usd)


def test_weights_count_queries_more_than_once():
    best = best_single([[1, 0], [0, 1]], [[1, 2], [3, 4]], weights=[1, 3])

    assert (1, 0.75, 14.0) == (best.column, best.score, best.cost_usd)


def test_saving_at_best_is_that_of_the_cheapest_point_that_reaches_it():
    walk = curve([1, 4, 3, 8], [0.2, 0.6, 0.7, 0.5], forecast=[1, 2, 3, 4])

    assert saving_at_best(walk, 0.6, 10.0) == pytest.approx(0.7)
    assert 0.0 == saving_at_best(walk, 0.71, 10.0)
    assert saving_at_best(walk, 0.6, 2.0) == pytest.approx(-0.5)
    assert 0.7 == max_accuracy(walk)


def test_a_score_that_is_off_in_its_last_bit_still_reaches_the_best():
    walk = curve([1], [0.1 + 0.2 - 1e-16])

    assert 0.5 == saving_at_best(walk, 0.1 + 0.2, 2.0)


def test_qnc_is_the_relative_cost_at_the_best_and_1_where_it_is_not_reached():
    walk = curve([1, 4], [0.2, 0.6])

    assert qnc(walk, 0.6, 16.0) == pytest.approx(0.25)
    assert 1.0 == qnc(walk, 0.7, 16.0)


def test_a_crossfit_point_is_picked_on_one_half_and_reported_on_the_other():
    half_a = curve([1, 2, 6], [0.3, 0.595, 0.7], forecast=[1, 2, 3])
    half_b = curve([2, 4, 5], [0.2, 0.500, 0.8], forecast=[1, 2, 3])

    found = saving_crossfit(half_a, half_b, best=(0.6, 0.75), best_cost_usd=(8.0, 10.0))

    # a picks its second point, exactly .005 below the best; b picks its third
    assert found.saving == pytest.approx(((1 - 4 / 10) + (1 - 6 / 8)) / 2)
    assert found.shortfall == pytest.approx(((0.75 - 0.5) + (0.6 - 0.7)) / 2)


def test_a_half_that_never_reaches_the_best_saves_nothing_and_falls_short_of_nothing():
    half_a = curve([1, 2], [0.3, 0.4])
    half_b = curve([2, 3], [0.2, 0.9])

    found = saving_crossfit(half_a, half_b, best=(0.6, 0.9), best_cost_usd=(8.0, 10.0))

    assert found.saving == pytest.approx((0 + (1 - 2 / 8)) / 2)
    assert found.shortfall == pytest.approx((0 + (0.6 - 0.4)) / 2)


@settings(deadline=None)
@given(curves(), st.data())
def test_crossfit_is_the_same_both_ways_round(half_a, data):
    n = half_a.score.size
    cost = data.draw(st.lists(st.integers(1, 9), min_size=n, max_size=n))
    half_b = curve(cost, half_a.score[::-1], forecast=half_a.forecast_usd)

    there = saving_crossfit(half_a, half_b, best=(0.5, 0.4), best_cost_usd=(9.0, 7.0))

    assert there == saving_crossfit(half_b, half_a, best=(0.4, 0.5), best_cost_usd=(7.0, 9.0))


def test_halves_must_be_of_one_walk():
    with pytest.raises(ValueError, match=r"half_b\.score"):
        saving_crossfit(curve([1], [0]), curve([1, 2], [0, 0]), best=(1, 1), best_cost_usd=(1, 1))


def test_budgets_run_geometrically_and_buy_the_dearest_point_within():
    walk = curve([2, 4, 16], [0.4, 0.6, 0.5])

    # budgets 1, 2, 4, 8, 16: half of the first point, then each point, the dearest although worse
    found = budget_area(walk, cheapest_usd=1.0, best_cost_usd=16.0, n_budgets=5)

    assert found == pytest.approx((0.2 + 0.4 + 0.6 + 0.6 + 0.5) / 5)


def test_a_router_that_always_takes_one_candidate_has_its_score_from_its_cost_on():
    walk = curve([5], [0.8])

    assert budget_area(walk, cheapest_usd=5.0, best_cost_usd=50.0) == pytest.approx(0.8)
    assert budget_area(walk, cheapest_usd=2.5, best_cost_usd=2.5) == pytest.approx(0.4)


@settings(deadline=None)
@given(curves())
def test_budget_area_equals_a_loop_over_budgets(walk):
    total = 0.0
    for budget in np.geomspace(1.5, 11.0, 40):
        within = [k for k in range(walk.score.size) if walk.cost_usd[k] <= budget]
        if within:
            total += walk.score[max(within, key=lambda k: (walk.cost_usd[k], k))]
        else:
            first = walk.cost_usd.argmin()
            total += walk.score[first] * budget / walk.cost_usd[first]

    found = budget_area(walk, cheapest_usd=1.5, best_cost_usd=11.0)

    assert found == pytest.approx(total / 40)


def test_overspending_is_what_trusted_forecasts_cost_beyond_the_budget():
    walk = curve([3, 2, 32], [0.1, 0.2, 0.3], forecast=[2, 4, 16])

    # budgets 1, 2, 4, 8, 16: 1.5 for half the queries, 3, 2, 2, 32
    found = overspend(walk, cheapest_usd=1.0, best_cost_usd=16.0, n_budgets=5)

    assert found == pytest.approx((0.5 + 0.5 + 0 + 0 + 1) / 5)


@settings(deadline=None)
@given(curves())
def test_who_knows_the_costs_never_overspends(walk):
    by_cost = np.argsort(walk.cost_usd)
    known = curve(walk.cost_usd[by_cost], walk.score[by_cost])

    assert overspend(known, cheapest_usd=0.5, best_cost_usd=20.0) <= 1e-12


def test_aiq_is_the_mean_height_of_the_hull():
    # the hull goes from (1, .2) over (3, .8) flat to 5; (2, .3) lies below, (5, .7) below the flat
    walk = curve([1, 2, 3, 5], [0.2, 0.3, 0.8, 0.7])

    assert aiq(walk) == pytest.approx((2 * 0.5 + 2 * 0.8) / 4)
    assert aiq(walk, low_usd=2.0, high_usd=8.0) == pytest.approx((1 * 0.65 + 5 * 0.8) / 6)
    assert aiq(walk, low_usd=2.0, high_usd=2.0) == pytest.approx(0.5)
    assert 0.8 == aiq(curve([4], [0.8]))


@settings(deadline=None)
@given(curves())
def test_aiq_equals_the_best_mix_of_two_points_at_every_cost(walk):
    cost, score = walk.cost_usd, walk.score
    low, high = cost.min(), max(cost.max(), cost.min() + 1.0)
    grid = np.linspace(low, high, 2_000)
    best = np.zeros(grid.size)
    for i in range(cost.size):
        best = np.maximum(best, np.where(grid >= cost[i], score[i], 0.0))
        for j in range(cost.size):
            if cost[i] < cost[j]:
                mix = np.interp(grid, cost[[i, j]], score[[i, j]], left=0.0, right=0.0)
                best = np.maximum(best, mix)

    assert aiq(walk, high_usd=float(high)) == pytest.approx(best.mean(), abs=2e-3)


def test_below_the_curve_aiq_pays_for_a_share_of_the_queries():
    walk = curve([2, 4], [0.4, 0.8])

    # .2 to .4 until 2, .4 to .8 until 4
    assert aiq(walk, low_usd=1.0, high_usd=4.0) == pytest.approx((0.3 + 2 * 0.6) / 3)
    assert aiq(walk, low_usd=1.0, high_usd=1.0) == pytest.approx(0.2)
    assert aiq(curve([0, 4], [0.4, 0.8]), low_usd=0.0) == pytest.approx(0.6)


def test_a_range_of_aiq_starts_at_no_cost_or_later_and_does_not_end_before_it_starts():
    with pytest.raises(ValueError, match="at or above 0"):
        aiq(curve([2, 3], [0.1, 0.2]), low_usd=-1.0)
    with pytest.raises(ValueError, match="not end before"):
        aiq(curve([2, 3], [0.1, 0.2]), low_usd=2.5, high_usd=2.2)


def test_audc_is_the_area_over_relative_cost():
    walk = curve([2, 6], [0.4, 0.8])

    # 0 to .4 until a fifth, .4 to .8 until three fifths, flat to the dearest
    assert audc(walk, 10.0) == pytest.approx(0.2 * 0.2 + 0.4 * 0.6 + 0.4 * 0.8)
    assert audc(walk, 4.0) == pytest.approx(0.5 * 0.2 + 0.5 * 0.5)


def test_audc_keeps_the_better_of_equal_costs_and_starts_at_a_free_point():
    assert audc(curve([0, 4, 4], [0.2, 0.6, 0.4]), 4.0) == pytest.approx(0.4)


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), float("inf")])
def test_nothing_is_relative_to_no_money(wrong):
    walk = curve([1], [0.5])
    for measure in (
        lambda: saving_at_best(walk, 0.5, wrong),
        lambda: qnc(walk, 0.5, wrong),
        lambda: audc(walk, wrong),
        lambda: budget_area(walk, cheapest_usd=wrong, best_cost_usd=1.0),
        lambda: overspend(walk, cheapest_usd=1.0, best_cost_usd=wrong),
        lambda: saving_crossfit(walk, walk, best=(0.5, 0.5), best_cost_usd=(1.0, wrong)),
    ):
        with pytest.raises(ValueError, match="above 0"):
            measure()


def test_a_curve_is_a_walk_of_realised_points():
    with pytest.raises(ValueError, match="at least one point"):
        curve([], [])
    with pytest.raises(ValueError, match="falls from point 1"):
        curve([1, 2, 3], [0, 0, 0], forecast=[1, 3, 2])
    with pytest.raises(ValueError, match="shape"):
        curve([1, 2], [0.5])
    with pytest.raises(ValueError, match=r"`score\[1\]` is 1.5"):
        curve([1, 2], [0.5, 1.5])
    with pytest.raises(ValueError, match="at least one is needed"):
        budget_area(curve([1], [1]), cheapest_usd=1, best_cost_usd=1, n_budgets=0)
