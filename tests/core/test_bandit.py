"""LinUCB against closed forms and against explicit ridge regressions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optllm_router.core.bandit import LinUCB, best_arms
from optllm_router.core.ridge import single_threaded


@pytest.fixture(autouse=True)
def one_thread():
    with single_threaded():
        yield


def explicit_ridge(features, rewards, ridge):
    """Every arm's A and theta, by the textbook, from the rows whose reward is known."""
    grams, weights = [], []
    for column in rewards.T:
        seen = features[~np.isnan(column)]
        gram = ridge * np.eye(features.shape[1]) + seen.T @ seen
        grams.append(gram)
        weights.append(np.linalg.solve(gram, seen.T @ column[~np.isnan(column)]))
    return np.array(grams), np.array(weights)


def a_log(seed, n, m, d, missing=0.0):
    rng = np.random.default_rng(seed)
    rewards = rng.random((n, m))
    rewards[rng.random((n, m)) < missing] = np.nan
    return rng.normal(size=(n, d)), rewards


def relative(got, expected):
    return np.abs(got - expected).max() / np.abs(expected).max()


def test_one_arm_with_one_feature_is_a_shrunk_mean():
    bandit = LinUCB(1, 1, ridge=2.0)
    for reward in (1.0, 0.0, 1.0):
        bandit.update(0, np.ones(1), reward)

    assert pytest.approx(2 / (3 + 2), abs=1e-15) == bandit.scores(np.ones((1, 1)))[0, 0]


def test_arms_with_orthogonal_features_learn_a_shrunk_mean_per_feature():
    bandit = LinUCB(2, 2, ridge=1.0)
    bandit.warm_start(
        np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 2.0]]),
        np.array([[1.0, 0.0], [1.0, 0.5], [0.0, 1.0]]),
    )

    assert np.allclose([[2 / 3, 0.0], [0.5 / 3, 2 / 5]], bandit.weights, rtol=0, atol=1e-15)
    assert [0, 1] == bandit.choose(np.eye(2)).tolist()


def test_a_new_arm_scores_exploration_times_length_over_root_ridge():
    bandit = LinUCB(3, 2, ridge=4.0, exploration=0.5)

    assert np.allclose(0.5 * 5.0 / 2.0, bandit.scores(np.array([[3.0, 4.0]])), rtol=1e-15)


@given(st.integers(0, 10_000), st.sampled_from([0.0, 0.4, 0.9]))
def test_scores_are_the_explicit_ridge_and_its_width(seed, missing):
    features, rewards = a_log(seed, n=12, m=3, d=4, missing=missing)
    new = np.random.default_rng(seed + 1).normal(size=(5, 4))
    bandit = LinUCB(3, 4, ridge=0.7, exploration=1.3)
    bandit.warm_start(features, rewards)
    grams, weights = explicit_ridge(features, rewards, 0.7)
    widths = [[np.sqrt(x @ np.linalg.solve(gram, x)) for gram in grams] for x in new]

    expected = new @ weights.T + 1.3 * np.array(widths)
    assert np.allclose(expected, bandit.scores(new), rtol=1e-10, atol=1e-12)


def test_exploration_prefers_the_arm_that_knows_less():
    rows, rewards = np.ones((9, 1)), np.column_stack([np.ones(9), np.full(9, np.nan)])
    greedy, curious = LinUCB(2, 1), LinUCB(2, 1, exploration=2.0)
    for bandit in (greedy, curious):
        bandit.warm_start(rows, rewards)

    assert [0] == greedy.choose(np.ones((1, 1))).tolist()
    assert [1] == curious.choose(np.ones((1, 1))).tolist()


def test_single_updates_and_a_warm_start_agree():
    features, rewards = a_log(1, n=40, m=2, d=6, missing=0.3)
    at_once, one_by_one = LinUCB(2, 6, ridge=3.0), LinUCB(2, 6, ridge=3.0)
    at_once.warm_start(features, rewards)
    for row, known in zip(features, rewards, strict=True):
        for arm, reward in enumerate(known):
            one_by_one.update(arm, row, float(reward))

    assert relative(one_by_one.weights, at_once.weights) < 1e-12
    assert relative(one_by_one.inverse, at_once.inverse) < 1e-12


def test_updates_teach_the_chosen_arm_only():
    bandit = LinUCB(2, 3)
    bandit.update(1, np.array([1.0, 2.0, 3.0]), 1.0)

    assert not bandit.weights[0].any()
    assert np.array_equal(np.eye(3), bandit.inverse[0])
    assert bandit.weights[1].all()


def test_after_thousands_of_updates_an_arm_is_still_the_fresh_ridge():
    features, rewards = a_log(2, n=6_000, m=1, d=30)
    features[:, 0] = 1.0
    features[:, 1:] *= np.geomspace(1.0, 1e-2, 29)
    bandit = LinUCB(1, 30, ridge=12.94)
    bandit.warm_start(features[:100], rewards[:100])
    for row, reward in zip(features[100:], rewards[100:, 0], strict=True):
        bandit.update(0, row, float(reward))
    grams, weights = explicit_ridge(features, rewards, 12.94)

    assert relative(bandit.weights, weights) < 1e-8
    assert relative(bandit.inverse[0], np.linalg.inv(grams[0])) < 1e-8
    assert np.array_equal(bandit.inverse[0], bandit.inverse[0].T)


def test_a_discount_ages_gram_and_moment_before_each_new_row():
    features, rewards = a_log(3, n=3_000, m=1, d=5)
    bandit = LinUCB(1, 5, ridge=2.0, discount=0.99)
    gram, moment = 2.0 * np.eye(5), np.zeros(5)
    for row, reward in zip(features, rewards[:, 0], strict=True):
        bandit.update(0, row, float(reward))
        gram, moment = 0.99 * gram + np.outer(row, row), 0.99 * moment + reward * row

    assert relative(bandit.inverse[0], np.linalg.inv(gram)) < 1e-8
    assert relative(bandit.weights[0], np.linalg.solve(gram, moment)) < 1e-8


def test_a_discounted_arm_follows_a_candidate_that_changed():
    forgetful, faithful = LinUCB(1, 1, discount=0.9), LinUCB(1, 1)
    for bandit in (forgetful, faithful):
        for reward in [1.0] * 200 + [0.0] * 50:
            bandit.update(0, np.ones(1), reward)

    assert forgetful.weights[0, 0] < 0.01
    assert pytest.approx(200 / 251) == faithful.weights[0, 0]


def test_a_direction_that_no_row_touches_does_not_overflow_under_a_discount():
    rng = np.random.default_rng(4)
    bandit = LinUCB(1, 3, ridge=2.0, exploration=1.0, discount=0.9)
    turn = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rows = rng.normal(size=(20_000, 2)) @ turn[:2]
    for row in rows:
        bandit.update(0, row, float(row @ turn[0]))

    # 0.9**20000 underflows: without a prior that returns, the width would be infinite
    assert 0.5 < bandit.scores(turn[2:])[0, 0] < 1e4
    assert np.allclose([1.0, 0.0], bandit.weights[0] @ turn[:2].T, atol=0.2)
    assert np.linalg.eigvalsh(bandit.inverse[0]).min() > 0


def test_putting_the_prior_back_adds_the_ridge_to_the_gram_matrix():
    bandit = LinUCB(1, 2, ridge=2.0, discount=0.5)
    gram = np.diag([3.0, 1e-9])
    bandit.inverse[0], bandit.weights[0] = np.linalg.inv(gram), [0.5, 0.25]
    moment = gram @ bandit.weights[0]
    bandit._restore_prior(0)

    assert np.allclose(np.linalg.inv(gram + 2.0 * np.eye(2)), bandit.inverse[0], rtol=1e-12)
    assert np.allclose(
        np.linalg.solve(gram + 2.0 * np.eye(2), moment), bandit.weights[0], rtol=1e-12
    )


def test_a_reward_that_was_not_observed_teaches_nothing():
    bandit = LinUCB(1, 2)
    bandit.update(0, np.ones(2), float("nan"))

    assert not bandit.weights.any()
    assert np.array_equal(np.eye(2), bandit.inverse[0])


def test_numbers_that_are_not_finite_are_refused_and_leave_the_arm_as_it_was():
    bandit = LinUCB(1, 2)
    for row, reward in (([1.0, np.nan], 1.0), ([1.0, 1.0], np.inf), ([np.inf, 1.0], 0.5)):
        with np.errstate(invalid="ignore"), pytest.raises(ValueError, match="not finite"):
            bandit.update(0, np.array(row), reward)

    assert not bandit.weights.any()
    assert np.array_equal(np.eye(2), bandit.inverse[0])


def test_a_warm_start_forgets_what_was_known_before():
    features, rewards = a_log(5, n=9, m=2, d=3)
    used, new = LinUCB(2, 3), LinUCB(2, 3)
    used.update(0, np.ones(3), 1.0)
    for bandit in (used, new):
        bandit.warm_start(features, rewards)

    assert np.array_equal(new.weights, used.weights)
    assert np.array_equal(new.inverse, used.inverse)


def test_a_warm_start_on_no_rows_gives_new_arms():
    bandit = LinUCB(2, 3, ridge=2.0)
    bandit.update(0, np.ones(3), 1.0)
    bandit.warm_start(np.empty((0, 3)), np.empty((0, 2)))

    assert not bandit.weights.any()
    assert np.allclose(np.eye(3) / 2.0, bandit.inverse, rtol=1e-15)


def test_no_rows_get_no_scores_and_no_choices():
    bandit = LinUCB(2, 3, exploration=1.0)

    assert (0, 2) == bandit.scores(np.empty((0, 3))).shape
    assert (0,) == bandit.choose(np.empty((0, 3))).shape


def test_exact_ties_go_to_the_first_arm_of_the_order_else_to_the_lowest_index():
    scores = np.array([[1.0, 1.0, 1.0], [0.0, 1.0, 1.0], [2.0, 1.0, 1.0]])

    assert [0, 1, 0] == best_arms(scores).tolist()
    assert [2, 2, 0] == best_arms(scores, np.array([2, 0, 1])).tolist()
    assert [1] == LinUCB(3, 1).choose(np.ones((1, 1)), np.array([1, 2, 0])).tolist()


@pytest.mark.parametrize(
    ("arguments", "settings", "message"),
    [
        ((0, 3), {}, "at least 1"),
        ((2, 0), {}, "at least 1"),
        ((2, 3), {"ridge": 0.0}, "ridge=0.0"),
        ((2, 3), {"exploration": -1.0}, "exploration=-1.0"),
        ((2, 3), {"discount": 0.0}, "discount=0.0"),
        ((2, 3), {"discount": 1.5}, "discount=1.5"),
    ],
)
def test_settings_out_of_range_are_named(arguments, settings, message):
    with pytest.raises(ValueError, match=message):
        LinUCB(*arguments, **settings)


def test_rows_that_do_not_fit_the_bandit_are_refused():
    bandit = LinUCB(2, 3)
    with pytest.raises(ValueError, match=r"pass \(n, 3\) and \(n, 2\)"):
        bandit.warm_start(np.ones((4, 3)), np.ones((5, 2)))
    with pytest.raises(ValueError, match="only rewards may be NaN"):
        bandit.warm_start(np.full((4, 3), np.nan), np.ones((4, 2)))
