"""How much of the columns' differences is kept: closed forms, loops, and the truth simulated."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optllm_router.core.success.personal import (
    CERTAIN,
    COMMON_SPREAD,
    CORRECTION_STRENGTH,
    Personal,
    column_scores,
    common_slope,
    contrast_slope,
    scores_elsewhere,
)

NAN = np.nan


def table(n, m, seed, hidden):
    """Estimates and scores with holes; the last column has no label where there are several."""
    rng = np.random.default_rng(seed)
    estimates, scores = rng.normal(0.5, 0.3, (n, m)), rng.choice([0.0, 0.4, 1.0], (n, m))
    scores[rng.random((n, m)) < hidden] = NAN
    scores[0, 0] = 1.0
    if m > 2:
        scores[:, -1] = NAN
    estimates[:, np.isnan(scores).all(axis=0)] = NAN
    return estimates, scores


tables = st.builds(
    table,
    st.integers(1, 9),
    st.integers(1, 4),
    st.integers(0, 10_000),
    st.sampled_from([0.0, 0.5, 0.9]),
)
shares = st.floats(0, 1)


def mean(values):
    return sum(values) / len(values)


def known(values):
    return [value for value in values if not math.isnan(value)]


def looped(estimates, column_score, contrast):
    """One query's estimates, shrunk: the columns' scores, the query, and a share of the rest."""
    query = mean(known(e - s for e, s in zip(estimates, column_score, strict=True)))
    return [
        s + query + contrast * (e - s - query) for e, s in zip(estimates, column_score, strict=True)
    ]


def looped_column_scores(estimates, scores):
    found = []
    for told, observed in zip(estimates.T, scores.T, strict=True):
        errors = known(s - e for e, s in zip(told, observed, strict=True))
        if not errors:
            found.append(NAN)
            continue
        correction = sum(errors) / (len(errors) + CORRECTION_STRENGTH)
        values = [
            e + correction if math.isnan(s) else s for e, s in zip(told, observed, strict=True)
        ]
        found.append(mean(values))
    return found


def no_one(n):
    return np.zeros((n, 1), dtype=np.bool_)


def near(expected, found):
    return np.allclose(expected, found, rtol=0, atol=1e-9, equal_nan=True)


@settings(max_examples=60, deadline=None)
@given(tables, shares, shares, st.integers(0, 10_000))
def test_a_query_keeps_its_level_and_a_share_of_its_differences(drawn, new, again, seed):
    estimates, scores = drawn
    level = column_scores(estimates, scores)
    met = np.random.default_rng(seed).random(len(estimates)) < 0.5
    found = Personal(level, new, again).of(estimates, met[:, None])

    expected = [
        looped(row, level, again if one else new) for row, one in zip(estimates, met, strict=True)
    ]
    assert near(expected, found)
    assert near(np.nanmean(estimates, axis=1), np.nanmean(found, axis=1))


def test_a_contrast_of_one_keeps_the_estimates():
    estimates, scores = table(8, 3, 0, 0.5)

    assert near(estimates, Personal(column_scores(estimates, scores)).of(estimates, no_one(8)))


def test_a_contrast_of_zero_ranks_every_query_alike():
    level = np.array([0.3, 0.9, 0.5])
    found = Personal(level, 0.0).of(np.random.default_rng(0).random((9, 3)), no_one(9))

    assert near(np.tile(level - level.mean(), (9, 1)), found - found.mean(axis=1, keepdims=True))


def test_a_half_contrast_lies_half_way():
    level, estimates = np.array([0.2, 0.8]), np.array([[0.9, 0.3]])

    assert near([[0.6, 0.6]], Personal(level, 0.5).of(estimates, no_one(1)))
    assert near([[0.3, 0.9]], Personal(level, 0.0).of(estimates, no_one(1)))


def test_a_text_met_before_has_a_contrast_of_its_own():
    level, estimates = np.array([0.2, 0.8]), np.tile([0.9, 0.3], (2, 1))
    found = Personal(level, 0.0, 1.0).of(estimates, np.array([[False], [True]]))

    assert near([[0.3, 0.9], [0.9, 0.3]], found)


def test_a_text_can_be_met_by_some_columns_only():
    level, estimates = np.array([0.2, 0.8]), np.array([[0.9, 0.3]])
    found = Personal(level, 0.0, 1.0).of(estimates, np.array([[False, True]]))

    assert near([[0.3, 0.3]], found)


def test_what_a_query_does_to_all_is_told_by_the_columns_that_were_fitted():
    personal = Personal(np.array([0.2, 0.8, 0.5]), 0.0, fitted=np.array([True, True, False]))
    found = personal.of(np.array([[0.3, 0.9, 0.0]]), no_one(1))

    assert near([[0.3, 0.9, 0.6]], found)


def test_columns_without_a_label_stay_unknown_and_move_no_other():
    level, estimates = np.array([0.2, NAN, 0.8]), np.array([[0.9, 123.0, 0.3]])

    assert near([[0.6, NAN, 0.6]], Personal(level, 0.5).of(estimates, no_one(1)))


@given(shares)
def test_one_column_has_no_differences_to_shrink(contrast):
    estimates = np.array([[0.9], [-0.1]])
    personal = Personal(np.array([0.4]), contrast)

    assert near(estimates, personal.of(estimates, no_one(2)))
    assert near(estimates, personal.of_left_out(estimates, np.array([[0.7], [0.1]])))


@settings(max_examples=60, deadline=None)
@given(tables, shares, st.integers(0, 10_000))
def test_left_out_is_shrunk_to_what_the_columns_score_elsewhere(drawn, contrast, seed):
    estimates, scores = drawn
    level = column_scores(estimates, scores)
    elsewhere = level + np.random.default_rng(seed).normal(0, 0.2, estimates.shape)
    found = Personal(level, contrast, 0.123).of_left_out(estimates, elsewhere)

    expected = [
        looped(row, other, contrast) for row, other in zip(estimates, elsewhere, strict=True)
    ]
    assert near(expected, found)


def test_left_out_rows_keep_their_own_level():
    # a level that falls where a row's own fold scored high would make every estimate look worse
    personal = Personal(np.array([0.4, 0.6]), 0.0)
    found = personal.of_left_out(np.array([[0.5, 0.5]]), np.array([[0.1, 0.3]]))

    assert near([[0.4, 0.6]], found)


def test_the_arguments_are_left_alone():
    estimates, scores = table(6, 3, 0, 0.3)
    copies = estimates.copy(), scores.copy()
    level = column_scores(estimates, scores)
    elsewhere = scores_elsewhere(estimates, scores, np.arange(6))
    kept = level.copy(), elsewhere.copy()
    Personal(level, 0.5).of_left_out(estimates, elsewhere)
    contrast_slope(estimates, scores, level)

    for before, after in zip((*copies, *kept), (estimates, scores, level, elsewhere), strict=True):
        assert before.tobytes() == after.tobytes()


@settings(max_examples=60, deadline=None)
@given(tables)
def test_column_scores_are_those_of_loops(drawn):
    assert near(looped_column_scores(*drawn), column_scores(*drawn))


def test_all_observed_is_the_plain_mean_whatever_is_estimated():
    estimates, scores = table(9, 2, 0, 0.0)

    assert near(scores.mean(axis=0), column_scores(estimates, scores))


def test_a_column_without_a_label_has_no_score():
    scores = np.array([[1.0, NAN], [0.0, NAN]])

    assert near([0.5, NAN], column_scores(np.zeros((2, 2)), scores))


def test_a_column_asked_for_hard_queries_only_is_not_a_bad_one():
    rng = np.random.default_rng(0)
    errors, plain = [], []
    for _ in range(200):
        hard = rng.random(100) < 0.5
        chance = np.where(hard, 0.3, 0.9)[:, None]
        scores = (rng.random((100, 1)) < chance).astype(np.float64)
        scores[~hard] = NAN
        errors.append(column_scores(chance, scores)[0] - chance.mean())
        plain.append(np.nanmean(scores) - chance.mean())

    assert 0.0 == pytest.approx(np.mean(errors), abs=0.02)
    assert np.mean(plain) < -0.25


def test_estimates_that_are_wrong_by_a_constant_are_corrected_where_labels_are_many():
    rng = np.random.default_rng(0)
    chance = rng.uniform(0.2, 0.8, (4_000, 1))
    scores = (rng.random((4_000, 1)) < chance).astype(np.float64)
    scores[::2] = NAN

    assert chance.mean() == pytest.approx(column_scores(chance - 0.2, scores)[0], abs=0.02)


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_lucky_label_does_not_make_a_column_the_best_or_the_worst(label):
    estimates, scores = np.full((100, 2), 0.5), np.full((100, 2), NAN)
    scores[:, 0] = np.arange(100) % 2
    scores[0, 1] = label
    one, other = column_scores(estimates, scores)

    assert abs(one - other) < 0.1
    assert np.sign(label - 0.5) == np.sign(other - one)


@settings(max_examples=60, deadline=None)
@given(tables, st.integers(1, 4), st.integers(0, 10_000))
def test_scores_elsewhere_leave_out_the_row_s_own_fold(drawn, n_folds, seed):
    estimates, scores = drawn
    fold = np.random.default_rng(seed).integers(0, n_folds, len(scores))
    found = scores_elsewhere(estimates, scores, fold)

    overall = looped_column_scores(estimates, scores)
    for number, row in zip(fold, found, strict=True):
        other = fold != number
        expected = looped_column_scores(estimates[other], scores[other]) if other.any() else overall
        filled = [o if math.isnan(e) else e for e, o in zip(expected, overall, strict=True)]
        assert near(filled, row)


def test_a_label_does_not_move_what_its_own_row_is_told_of_the_columns():
    estimates, scores = table(8, 2, 3, 0.0)
    fold = np.arange(8) % 4
    before = scores_elsewhere(estimates, scores, fold)
    scores[0] = 1.0 - scores[0]
    after = scores_elsewhere(estimates, scores, fold)

    assert near(before[fold == 0], after[fold == 0])
    assert not near(before[fold != 0], after[fold != 0])


def looped_slope(estimates, scores, level, expected, strength):
    """Least squares through the origin, cell by cell."""
    weight = product = 0.0
    for told, observed in zip(estimates, scores, strict=True):
        query = mean(known(e - s for e, s in zip(told, level, strict=True)))
        for e, s, column in zip(told, observed, level, strict=True):
            if not math.isnan(s):
                weight += (e - column - query) ** 2
                product += (e - column - query) * (s - column - query)
    if weight <= 1e-12:
        return expected
    prior = strength * weight / len(scores)
    return min(max((product + prior * expected) / (weight + prior), 0.0), 1.0)


@settings(max_examples=100, deadline=None)
@given(tables, shares, st.sampled_from([0.0, 1.0, 5.0]))
def test_the_slope_is_that_of_least_squares(drawn, expected, strength):
    estimates, scores = drawn
    level = column_scores(estimates, scores)
    found = contrast_slope(estimates, scores, level, expected=expected, strength=strength)

    assert looped_slope(estimates, scores, level, expected, strength) == pytest.approx(
        found, abs=1e-9
    )


@pytest.mark.parametrize(("truth", "slope"), [(0.25, 0.25), (1.0, 1.0), (3.0, 1.0), (-2.0, 0.0)])
def test_the_slope_finds_how_much_the_estimates_overstate_and_stays_a_share(truth, slope):
    # all differences of the columns are `truth` times as large as estimated
    rng = np.random.default_rng(0)
    level = np.array([0.5, 0.6, 0.4])
    own = rng.normal(0, 0.1, (40, 3))
    own -= own.mean(axis=1, keepdims=True)

    assert slope == pytest.approx(contrast_slope(level + own, level + truth * own, level))


def test_nothing_to_tell_by_gives_what_was_expected():
    level = np.array([0.5, 0.6])
    alike = np.tile(level, (4, 1))

    assert 0.7 == contrast_slope(np.zeros((0, 2)), np.zeros((0, 2)), level, expected=0.7)
    assert 0.7 == contrast_slope(alike, np.ones((4, 2)), level, expected=0.7)
    assert 0.7 == contrast_slope(
        alike + np.array([[-1.0, 1.0]]), np.full((4, 2), NAN), level, expected=0.7
    )
    assert 1.0 == contrast_slope(alike[:, :1] + 0.3, np.ones((4, 1)), level[:1])


def test_as_many_rows_as_the_strength_weigh_as_much_as_what_was_expected():
    level, own = np.array([0.5, 0.5]), np.tile([-0.1, 0.1], (5, 1))
    slope = contrast_slope(level + own, level + own, level, expected=0.0, strength=5.0)

    assert 0.5 == pytest.approx(slope)


def looped_common_slope(estimates, scores, level, contrast):
    """Least squares through the origin, query by query, drawn to 1."""
    pairs = []
    for told, observed in zip(estimates, scores, strict=True):
        query = mean(known(e - s for e, s in zip(told, level, strict=True)))
        left = known(
            s - column - contrast * (e - column - query)
            for e, s, column in zip(told, observed, level, strict=True)
        )
        if left:
            pairs.append((query, mean(left)))
    prior = mean([(left - query) ** 2 for query, left in pairs]) / COMMON_SPREAD**2
    weight = sum(query**2 for query, _ in pairs) + prior
    product = sum(query * left for query, left in pairs) + prior
    return max(product / weight, 0.0) if weight > 1e-12 else 1.0


@settings(max_examples=100, deadline=None)
@given(tables, shares)
def test_the_common_slope_is_that_of_least_squares_drawn_to_1(drawn, contrast):
    estimates, scores = drawn
    level = column_scores(estimates, scores)

    assert looped_common_slope(estimates, scores, level, contrast) == pytest.approx(
        common_slope(estimates, scores, level, contrast), abs=1e-9
    )


@pytest.mark.parametrize(("truth", "slope"), [(1.0, 1.0), (1.5, 1.5), (0.5, 0.5), (-2.0, 0.0)])
def test_the_common_slope_finds_how_much_the_estimates_understate(truth, slope):
    # what queries do to all columns is `truth` times what is estimated, plus noise
    rng = np.random.default_rng(0)
    level = np.array([0.5, 0.6, 0.4])
    query, own = rng.normal(0, 0.3, (4_000, 1)), rng.normal(0, 0.1, (4_000, 3))
    own -= own.mean(axis=1, keepdims=True)
    scores = level + truth * query + 0.5 * own + rng.normal(0, 0.1, (4_000, 1))
    scores[rng.random((4_000, 3)) < 0.5] = NAN

    assert slope == pytest.approx(common_slope(level + query + own, scores, level, 0.5), abs=0.03)


def test_the_common_slope_is_1_where_nothing_tells():
    level = np.array([0.5, 0.6])

    assert 1.0 == common_slope(np.zeros((0, 2)), np.zeros((0, 2)), level, 1.0)
    assert 1.0 == common_slope(np.ones((3, 2)), np.full((3, 2), NAN), level, 1.0)
    assert 1.0 == common_slope(np.tile(level, (4, 1)), np.tile(level, (4, 1)), level, 1.0)


def test_few_noisy_queries_say_little_of_the_common_slope():
    level, query = np.array([0.5]), np.array([[-0.1], [0.1]])

    assert 1.0 == pytest.approx(common_slope(level + query, level - 4 * query, level, 1.0), abs=0.4)


slopes = st.floats(0, 3)


@settings(max_examples=100, deadline=None)
@given(tables, shares, slopes)
def test_the_common_slope_moves_all_of_a_query_alike_and_makes_nothing_certain(
    drawn, contrast, slope
):
    estimates, scores = drawn
    level = column_scores(estimates, scores)
    personal = Personal(level, contrast, common_slope=slope)
    cut = np.clip(personal.of(estimates, no_one(len(estimates))), 0.0, 1.0)
    moved = personal.prob(cut, estimates)

    for told, before, after in zip(estimates, cut, moved, strict=True):
        query = mean(known(told - level))
        low, high = min(known(before)), max(known(before))
        wanted = (slope - 1.0) * query
        allowed = min(max(wanted, min(CERTAIN - low, 0.0)), max(1.0 - CERTAIN - high, 0.0))
        assert near(before + allowed, after)


def test_a_column_that_joined_neither_holds_the_others_back_nor_leaves_0_to_1():
    fitted = np.array([True, True, False])
    personal = Personal(np.array([0.5, 0.5, 0.5]), common_slope=2.0, fitted=fitted)
    estimates = np.array([[0.6, 0.8, 0.9], [0.4, 0.2, 0.1]])

    assert near([[0.795, 0.995, 1.0], [0.205, 0.005, 0.0]], personal.prob(estimates, estimates))


@settings(max_examples=50, deadline=None)
@given(tables, shares, slopes)
def test_probabilities_straight_from_estimates_are_those_of_the_shrunk_ones(drawn, new, slope):
    estimates, scores = drawn
    personal = Personal(column_scores(estimates, scores), new, 1.0 - new, slope)
    met = np.arange(len(estimates))[:, None] % 2 == 0

    assert near(
        personal.prob(personal.of(estimates, met), estimates), personal.prob_of(estimates, met)
    )


def test_probabilities_of_no_queries_are_none():
    assert (0, 2) == Personal(np.array([0.5, 0.5])).prob(np.zeros((0, 2)), np.zeros((0, 2))).shape


def test_arrays_with_two_shares_are_those_of_a_slope_of_1():
    stored = Personal(np.array([0.3, NAN]), 0.4, 0.6, 1.2).to_arrays()
    back = Personal.from_arrays(stored)
    old = Personal.from_arrays({**stored, "contrast": stored["contrast"][:2]})

    assert (0.4, 0.6, 1.2) == (back.contrast, back.contrast_met, back.common_slope)
    assert (0.4, 0.6, 1.0) == (old.contrast, old.contrast_met, old.common_slope)
    assert np.array_equal([0.3, NAN], back.column_score, equal_nan=True)
