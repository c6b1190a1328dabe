"""Levels, slopes and task offsets against dense ridges and refits that really leave a row out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optllm_router.core import levels
from optllm_router.core.levels import fit_levels


@pytest.fixture
def strengths(monkeypatch):
    """Have one pair of strengths only."""

    def set_to(task, slope):
        monkeypatch.setattr(levels, "TASK_STRENGTHS", (task,))
        monkeypatch.setattr(levels, "SLOPE_STRENGTHS", (slope,))

    return set_to


def dense_ridge(amounts, tokens, task, n_tasks, penalties):
    """Level, slope and offsets from the whole normal equations."""
    design = design_of(tokens, task, n_tasks)
    return np.linalg.solve(design.T @ design + np.diag(penalties), design.T @ amounts)


def design_of(tokens, task, n_tasks):
    return np.column_stack([np.ones(len(task)), tokens, task[:, None] == np.arange(n_tasks)])


def centred(rng, n):
    tokens = rng.integers(5, 400, n).astype(float)
    return tokens - tokens.mean()


@settings(max_examples=40)
@given(st.integers(2, 25), st.integers(0, 4), st.integers(0, 10**6))
def test_a_fit_is_the_dense_ridge_and_left_out_rows_are_left_out(n, n_tasks, seed):
    rng = np.random.default_rng(seed)
    tokens, task = centred(rng, n), rng.integers(n_tasks + 1, size=n)
    amounts = rng.lognormal(3, 1, (n, 2))
    amounts[2:, 1][rng.random(n - 2) < 0.5] = np.nan
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(levels, "TASK_STRENGTHS", (3.0,))
        patch.setattr(levels, "SLOPE_STRENGTHS", (10.0,))
        found = fit_levels(amounts, tokens, task, n_tasks)
    penalties = [0.0, 10.0 * max(np.mean(tokens**2), 1e-9), *[3.0] * n_tasks]

    for j, column in enumerate(amounts.T):
        rows = np.flatnonzero(~np.isnan(column))
        fitted = dense_ridge(column[rows], tokens[rows], task[rows], n_tasks, penalties)
        own = [found.level[j], found.slope[j], *found.task_offset[:, j]]
        assert fitted.tolist() == pytest.approx(own)
        for row in rows:
            rest = rows[rows != row]
            without = dense_ridge(column[rest], tokens[rest], task[rest], n_tasks, penalties)
            left_out = design_of(tokens, task, n_tasks)[row] @ without
            assert left_out == pytest.approx(found.left_out[row, j], rel=1e-6, abs=1e-6)
        assert np.isnan(np.delete(found.left_out[:, j], rows)).all()


def strength_of_tasks(amounts, task):
    """What the mean of every task was shrunk by, in rows."""
    n = len(task) // 2
    found = fit_levels(amounts[:, None], np.zeros(len(task)), task, 2)
    raw = amounts[task == 1].mean() - amounts.mean()
    return n * (raw / found.task_offset[1, 0] - 1)


def test_tasks_that_differ_are_hardly_shrunk_and_tasks_that_do_not_are_by_much():
    rng = np.random.default_rng(1)
    task = np.arange(60) % 2
    noise = rng.lognormal(0, 0.5, 60)

    assert 3 == pytest.approx(strength_of_tasks(noise * np.where(task == 1, 9.0, 1.0), task))
    assert 100 == pytest.approx(strength_of_tasks(noise, task))


def strength_of_slope(amounts, tokens):
    """What the slope was shrunk by, in rows of average distance from the centre."""
    found = fit_levels(amounts[:, None], tokens, np.zeros(len(tokens), dtype=int), 0)
    raw = (tokens @ amounts) / (tokens @ tokens)
    return len(tokens) * (raw / found.slope[0] - 1)


def test_a_slope_that_says_little_is_shrunk_most():
    rng = np.random.default_rng(4)
    tokens, noise = centred(rng, 60), rng.lognormal(0, 0.5, 60)

    assert 3 == pytest.approx(strength_of_slope(500 + tokens + noise, tokens))
    assert 30 == pytest.approx(strength_of_slope(noise + 1e-6 * tokens, tokens))


def test_a_slope_between_tasks_does_not_stand_in_for_their_levels(strengths):
    strengths(3.0, 10.0)
    task = np.arange(200) % 2
    tokens = np.where(task == 1, 6.0, -6.0) + np.tile([-0.5, -0.5, 0.5, 0.5], 50)
    amounts = np.where(task == 1, 80.0, 14.0)[:, None]
    found = fit_levels(amounts, tokens, task, 2)

    between_tasks = (80 - 14) / 12
    assert 0.0 <= found.slope[0] < 0.5 * between_tasks


def test_the_only_row_of_a_column_is_forecast_by_nobody():
    found = fit_levels(np.array([[5.0], [np.nan]]), np.array([1.0, -1.0]), np.array([0, 0]), 1)

    assert 5.0 == pytest.approx(found.level[0])
    assert np.isnan(found.left_out).all()


def test_columns_in_other_units_are_fitted_alike():
    rng = np.random.default_rng(2)
    amounts, tokens = rng.lognormal(0, 1, (30, 1)), centred(rng, 30)
    task = rng.integers(3, size=30)
    found = fit_levels(np.hstack([amounts, 1e-6 * amounts]), tokens, task, 3)

    for name in ("level", "slope", "task_offset", "left_out"):
        first, second = np.moveaxis(getattr(found, name), -1, 0)
        assert 1e-6 * first == pytest.approx(second)
