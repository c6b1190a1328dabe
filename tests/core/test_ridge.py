"""Masked ridges: against one dense solve per column, and the partition of rows into blocks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optllm_router.core.ridge import (
    INTERCEPT_PENALTY,
    N_BLOCKS,
    PENALTIES,
    BlockGrams,
    blocks_of,
    choose_penalties,
)


def a_problem(seed, n_rows=60, n_design=4, n_columns=3, n_blocks=7):
    rng = np.random.default_rng(seed)
    design = np.column_stack([np.ones(n_rows), rng.normal(size=(n_rows, n_design - 1))])
    targets = rng.normal(size=(n_rows, n_columns))
    targets[rng.random(targets.shape) < rng.random(n_columns) * 0.8] = np.nan
    blocks = rng.integers(n_blocks, size=n_rows)
    blocks[:n_blocks] = np.arange(n_blocks)
    return design, targets, blocks


def solved_directly(design, target, row_weight, penalty):
    seen = ~np.isnan(target)
    x, y, w = design[seen], target[seen], row_weight[seen]
    diagonal = np.full(x.shape[1], penalty)
    diagonal[0] = INTERCEPT_PENALTY
    return np.linalg.solve((x * w[:, None]).T @ x + np.diag(diagonal), (x * w[:, None]).T @ y)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_every_fit_is_the_weighted_ridge_of_its_column(seed):
    design, targets, blocks = a_problem(seed)
    rng = np.random.default_rng(seed)
    weights = rng.integers(0, 3, size=(5, 7)).astype(np.float64)
    penalties = rng.choice(PENALTIES, 3)
    fitted = BlockGrams(design, targets, blocks).solve(weights, penalties)

    for fit in range(5):
        for column in range(3):
            expected = solved_directly(
                design, targets[:, column], weights[fit][blocks], penalties[column]
            )
            assert np.allclose(expected, fitted[:, fit, column], atol=1e-9)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000))
def test_held_out_errors_are_those_of_fits_without_the_fold(seed):
    design, targets, blocks = a_problem(seed)
    fold_of_block = np.arange(7) % 3
    grid = PENALTIES[[0, 3]]
    errors = BlockGrams(design, targets, blocks).held_out_errors(fold_of_block, grid)
    fold = fold_of_block[blocks]

    for p, penalty in enumerate(grid):
        for column in range(3):
            total = 0.0
            for f in range(3):
                fitted = solved_directly(design, targets[:, column], 1.0 * (fold != f), penalty)
                residual = (targets[:, column] - design @ fitted)[fold == f]
                total += np.nansum(residual**2)
            n = (~np.isnan(targets[:, column])).sum()
            assert np.isclose(total / max(n, 1), errors[p, column], atol=1e-9)


def test_a_column_that_is_never_observed_has_coefficients_and_errors_of_zero():
    design, targets, blocks = a_problem(1)
    targets[:, 1] = np.nan
    grams = BlockGrams(design, targets, blocks)

    assert not grams.solve(np.ones((2, 7)), np.full(3, 1.0))[:, :, 1].any()
    assert not grams.held_out_errors(np.arange(7) % 2, PENALTIES)[:, 1].any()
    assert choose_penalties(grams)[1] in PENALTIES


def test_labels_that_are_only_noise_choose_the_strongest_penalty():
    rng = np.random.default_rng(5)
    design = np.column_stack([np.ones(200), rng.normal(size=(200, 30))])
    grams = BlockGrams(design, rng.normal(size=(200, 2)), np.arange(200) % 20)

    assert [PENALTIES[-1]] * 2 == choose_penalties(grams).tolist()


def test_labels_that_follow_the_design_choose_the_weakest_penalty():
    rng = np.random.default_rng(5)
    design = np.column_stack([np.ones(200), rng.normal(size=(200, 3))])
    grams = BlockGrams(design, design @ rng.normal(size=(4, 2)), np.arange(200) % 20)

    assert [PENALTIES[0]] * 2 == choose_penalties(grams).tolist()


def test_a_column_with_two_wild_labels_does_not_choose_for_the_others():
    rng = np.random.default_rng(5)
    design = np.column_stack([np.ones(200), rng.normal(size=(200, 3))])
    targets = np.column_stack([3.0 * design @ np.ones(4), np.full(200, np.nan)])
    targets[:2, 1] = 9.0, -9.0

    penalties = choose_penalties(BlockGrams(design, targets, np.arange(200) % 20))

    assert penalties[0] < 1.0


def test_one_block_takes_the_strongest_penalty():
    design, targets, blocks = a_problem(2, n_blocks=1)

    assert [PENALTIES[-1]] * 3 == choose_penalties(BlockGrams(design, targets, blocks)).tolist()


@pytest.mark.parametrize("n_groups", [1, 2, 99, 100, 101, 250])
def test_blocks_are_whole_groups_of_about_equal_number(n_groups):
    groups = [f"g{i % n_groups}" for i in range(3 * n_groups)]
    blocks = blocks_of(groups, np.random.default_rng(0))
    groups_of_block = [set() for _ in range(min(N_BLOCKS, n_groups))]
    for group, block in zip(groups, blocks, strict=True):
        groups_of_block[block].add(group)
    sizes = [len(found) for found in groups_of_block]

    assert n_groups == sum(sizes)
    assert max(sizes) - min(sizes) <= 1


def test_blocks_do_not_depend_on_what_the_groups_are_called():
    one = blocks_of(["z", "a", "z", "m"], np.random.default_rng(4))
    other = blocks_of(["1", "2", "1", "\0"], np.random.default_rng(4))

    assert one.tolist() == other.tolist()


def test_groups_that_differ_in_a_trailing_nul_are_two():
    assert 2 == len(set(blocks_of(["a", "a\0"], np.random.default_rng(0))))
