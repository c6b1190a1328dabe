"""Kernel ridge in closed form against explicit refits, query by query and text by text."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.kernel_ridge import KernelRidge as Reference

from optllm_router.bench.kernel_ridge import PENALTIES, Design, KernelRidge


def a_table(seed, *, n=24, n_texts=15, n_features=6, n_columns=3):
    """Points of texts, some of which are asked as several tasks, and scores of every query."""
    rng = np.random.default_rng(seed)
    group = rng.integers(n_texts, size=n)
    task = rng.integers(2, size=n)
    points = np.column_stack([rng.normal(size=(n_texts, n_features))[group], task == 0, task == 1])
    return points, np.clip(rng.normal(0.5, 0.4, size=(n, n_columns)), 0.0, 1.0), group


def refitted(points, targets, group, penalty):
    """Every query's target as a fit without its text predicts it."""
    predicted = np.empty_like(targets)
    for one in set(group.tolist()):
        out = group == one
        model = Reference(alpha=penalty, kernel="linear").fit(points[~out], targets[~out])
        predicted[out] = model.predict(points[out])
    return predicted


@given(
    seed=st.integers(0, 10_000),
    n_texts=st.integers(2, 30),
    n_features=st.integers(1, 40),  # both forms: the smaller side is now one, now the other
)
@settings(max_examples=40, deadline=None)
def test_left_out_errors_are_those_of_fits_without_the_text(seed, n_texts, n_features):
    points, scores, group = a_table(seed, n_texts=n_texts, n_features=n_features)
    if len(set(group.tolist())) < 2:
        return
    targets, penalties = scores - scores.mean(axis=0), np.array([0.03, 1.0, 50.0])

    found = Design.of(points, group).left_out_errors(targets, penalties)

    for penalty, errors in zip(penalties.tolist(), found, strict=True):
        missed = targets - refitted(points, targets, group, penalty)
        assert (missed**2).sum(axis=0) == pytest.approx(errors, rel=1e-7)


@pytest.mark.parametrize("n_features", [4, 60])
def test_a_fit_is_a_kernel_ridge_per_component_of_the_scores(n_features):
    points, scores, group = a_table(3, n=40, n_texts=30, n_features=n_features)
    scores[:, 0] = np.clip(0.5 + 0.2 * points[:, 0], 0.0, 1.0)  # something to tell
    asked = np.random.default_rng(0).normal(size=(5, points.shape[1]))

    fitted = KernelRidge.fit(points, scores, group)

    mean = scores.mean(axis=0)
    _, _, axes = np.linalg.svd(scores - mean, full_matrices=False)
    expected = np.tile(mean, (5, 1))
    for axis, penalty in zip(axes, fitted.penalties.tolist(), strict=True):
        target = (scores - mean) @ axis
        errors = [
            ((target - refitted(points, target[:, None], group, one)[:, 0]) ** 2).sum()
            for one in PENALTIES.tolist()
        ]
        if min(errors) >= (target**2).sum():
            assert np.inf == penalty
            continue
        assert PENALTIES[int(np.argmin(errors))] == penalty
        model = Reference(alpha=penalty, kernel="linear").fit(points, target)
        expected += np.outer(model.predict(asked), axis)
    assert expected == pytest.approx(fitted.predict(asked))
    assert np.isfinite(fitted.penalties).any()


def test_a_component_that_the_features_do_not_tell_is_dropped():
    """The first candidate follows the feature, the second something at right angles to it."""
    points = np.tile([[1.0], [-1.0]], (20, 1))
    scores = np.tile([[1.0, 0.6], [0.0, 0.6], [1.0, 0.0], [0.0, 0.0]], (10, 1))

    fitted = KernelRidge.fit(points, scores, np.arange(40))

    assert [PENALTIES[0], np.inf] == fitted.penalties.tolist()
    assert [[1.0, 0.3], [0.0, 0.3]] == pytest.approx(fitted.predict(points)[:2], abs=1e-3)


def test_a_text_that_only_repeats_itself_tells_nothing():
    """One text, asked often: left out with all its repeats, nothing is left to tell it by."""
    scores = np.random.default_rng(0).random((30, 2))

    fitted = KernelRidge.fit(np.ones((30, 4)), scores, np.zeros(30, dtype=np.int64))

    assert [np.inf, np.inf] == fitted.penalties.tolist()
    assert np.tile(scores.mean(axis=0), (2, 1)) == pytest.approx(fitted.predict(np.ones((2, 4))))


@pytest.mark.parametrize("scores", [np.full((6, 3), 0.25), np.zeros((1, 3))])
def test_scores_that_never_differ_are_predicted_everywhere(scores):
    points = np.random.default_rng(0).normal(size=(len(scores), 4))

    fitted = KernelRidge.fit(points, scores, np.arange(len(scores)))

    assert np.tile(scores[0], (2, 1)).tolist() == fitted.predict(np.ones((2, 4))).tolist()


def test_without_any_feature_the_mean_is_predicted():
    scores = np.random.default_rng(0).random((8, 3))

    fitted = KernelRidge.fit(np.empty((8, 0)), scores, np.arange(8))

    assert [np.inf] * 3 == fitted.penalties.tolist()
    assert scores.mean(axis=0).tolist() == fitted.predict(np.empty((1, 0)))[0].tolist()
