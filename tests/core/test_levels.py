"""Levels, slopes and task offsets against dense ridges and refits that really leave a row out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optllm_router.core import levels
from optllm_router.core.levels import chosen_levels, fit_levels, fit_shared_levels


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


PARTS = ("level", "slope", "task_offset", "left_out")


def queries(rng, n, n_tasks=3):
    """Prompt lengths and tasks, (n,) each."""
    return centred(rng, n), rng.integers(n_tasks, size=n)


def test_one_column_has_nothing_to_share():
    rng = np.random.default_rng(5)
    tokens, task = queries(rng, 30)
    amounts = rng.lognormal(0, 1, (30, 1))
    shared, own = (fit(amounts, tokens, task, 3) for fit in (fit_shared_levels, fit_levels))

    for name in PARTS:
        assert getattr(own, name).tolist() == getattr(shared, name).tolist()


def test_columns_that_move_together_keep_their_order_on_every_query():
    rng = np.random.default_rng(6)
    tokens, task = queries(rng, 20)
    per_query = rng.lognormal(0, 0.5, (20, 1)) * np.array([1.0, 3.0, 9.0])[task][:, None]
    found = fit_shared_levels(per_query * np.array([1.0, 1.05, 40.0]), tokens, task, 3)

    for lengths in (np.full(3, tokens.min()), np.full(3, tokens.max())):
        forecast = found.level + found.task_offset + lengths[:, None] * found.slope
        assert [1.05] * 3 == pytest.approx((forecast[:, 1] / forecast[:, 0]).tolist())
        assert [40.0] * 3 == pytest.approx((forecast[:, 2] / forecast[:, 0]).tolist())


def order_by_chance(fit, seed):
    """How far relative forecasts of columns lie apart that truly go together, root mean square."""
    rng = np.random.default_rng(seed)
    tokens, task = queries(rng, 20)
    amounts = rng.lognormal(0, 1.0, (20, 6)) * np.array([1.0, 3.0, 9.0])[task][:, None]
    found = fit(amounts, tokens, task, 3)
    forecast = found.level + found.task_offset[task] + tokens[:, None] * found.slope
    relative = forecast / amounts.mean(axis=0)
    return np.sqrt(np.mean((relative - relative.mean(axis=1, keepdims=True)) ** 2))


def test_few_rows_tell_less_of_how_columns_differ_than_of_what_they_share():
    plain, shared = (
        np.mean([order_by_chance(fit, seed) for seed in range(30)])
        for fit in (fit_levels, fit_shared_levels)
    )

    assert shared < 0.6 * plain


def test_a_column_with_few_rows_is_forecast_by_what_all_have_in_common():
    rng = np.random.default_rng(7)
    task = np.arange(80) % 2
    amounts = np.where(task == 1, 9.0, 1.0)[:, None] * rng.lognormal(0, 0.1, (80, 4))
    amounts[4:, 3] = np.nan
    found = fit_shared_levels(amounts, np.zeros(80), task, 2)
    short, long = (found.level + found.task_offset)[:, 3]

    assert long > 4 * short


def test_a_column_without_a_row_shares_nothing():
    rng = np.random.default_rng(8)
    tokens, task = queries(rng, 30)
    amounts = np.column_stack([rng.lognormal(0, 1, (30, 2)), np.full(30, np.nan)])
    found = fit_shared_levels(amounts, tokens, task, 3)

    assert [0.0] * 5 == [found.level[2], found.slope[2], *found.task_offset[:, 2]]
    assert np.isnan(found.left_out[:, 2]).all()


def test_a_row_hardly_moves_its_own_forecast():
    rng = np.random.default_rng(9)
    tokens, task = queries(rng, 100)
    amounts = rng.lognormal(0, 0.5, (100, 5))
    before = fit_shared_levels(amounts, tokens, task, 3).left_out[0]
    amounts[0] *= 1.2
    after = fit_shared_levels(amounts, tokens, task, 3).left_out[0]

    assert (np.abs(after - before) < 0.01 * 0.2 * amounts[0]).all()


def test_without_tasks_and_lengths_a_row_is_forecast_by_the_mean_of_the_others():
    amounts = np.array([[1.0, 50.0], [4.0, 50.0], [10.0, 50.0]])
    found = fit_shared_levels(amounts, np.zeros(3), np.zeros(3, dtype=int), 0)

    assert [50.0] * 3 == pytest.approx(found.left_out[:, 1].tolist())
    assert [7.0, 5.5, 2.5] == pytest.approx(found.left_out[:, 0].tolist())


def left_out_error(fitted, amounts):
    return np.nansum(((amounts - fitted.left_out) / amounts.mean(axis=0)) ** 2)


def test_what_is_shared_counts_unless_it_forecasts_left_out_rows_worse():
    chosen_apart = []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        tokens, task = queries(rng, 15)
        amounts = rng.lognormal(0, 1.5, (15, 2))
        fits = [fit(amounts, tokens, task, 3) for fit in (fit_shared_levels, fit_levels)]
        shared, apart = (left_out_error(fitted, amounts) for fitted in fits)
        expected = fits[int(1.01 * apart < shared)]
        chosen_apart.append(expected is fits[1])

        found = chosen_levels(amounts, tokens, task, 3)
        for name in PARTS:
            assert getattr(expected, name).tolist() == getattr(found, name).tolist()
    assert {True, False} == set(chosen_apart)
