"""Many ridges at once: shared designs, masked labels, resampled blocks.

Rows are put into at most `N_BLOCKS` blocks of whole groups (distinct texts). A Gram matrix per
block is enough to fit any reweighting of the blocks, so a bootstrap member costs a weighted sum and
one solve instead of a pass over the rows. Columns with the same observed rows share their Grams.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from optllm_router.records import Bools, Floats, Ints

N_BLOCKS = 100
N_FOLDS = 4
INTERCEPT_PENALTY = 2.0
PENALTIES = np.geomspace(0.05, 200.0, 7)
OWN_PENALTIES = np.geomspace(0.05, 2000.0, 9)


@contextmanager
def single_threaded() -> Iterator[None]:
    """Keep linear algebra to one thread meanwhile.

    Its matrices are many and small: on a busy machine, threads that wait for each other take eight
    times as long; and one thread gives the same bits on every machine size.
    """
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # ships no types

    with threadpool_limits(1):
        yield


def blocks_of(groups: Sequence[str], rng: np.random.Generator) -> Ints:
    """Give every row a block number; rows of one group share it, blocks are about equally many.

    Returns: shape (n_rows,), numbers from 0 without gaps.
    """
    number: dict[str, int] = {}  # by first appearance: independent of what the groups are called
    group = np.array([number.setdefault(name, len(number)) for name in groups], dtype=np.int64)
    shuffled = rng.permutation(len(number))
    return np.asarray(shuffled[group] % min(N_BLOCKS, len(number)), dtype=np.int64)


class BlockGrams:
    """The sufficient statistics of masked ridges, per block of rows.

    Args:
        design: (n_rows, n_design), the intercept first.
        targets: (n_rows, n_columns), NaN where not observed.
        blocks: (n_rows,), each row's block.
    """

    def __init__(self, design: Floats, targets: Floats, blocks: Ints) -> None:
        self.design = design
        self.targets = targets
        self.blocks = blocks
        self.n_blocks = int(blocks.max()) + 1
        self.patterns = _patterns(~np.isnan(targets))

    def solve(self, weights: Floats, penalties: Floats) -> Floats:
        """Fit every reweighting of the blocks.

        Args:
            weights: (n_fits, n_blocks), how often each block counts.
            penalties: (n_columns,), the penalty of everything but the intercept.

        Returns: coefficients, shape (n_design, n_fits, n_columns).
        """
        result = np.zeros((self.design.shape[1], len(weights), self.targets.shape[1]))
        parts = _Parts(self.blocks, self.n_blocks, self.design.shape[1])
        for rows, columns in self.patterns:
            gram, moment = self._weighted(rows, columns, weights, parts)
            for penalty in np.unique(penalties[columns]):
                local = np.flatnonzero(penalties[columns] == penalty)
                result[:, :, columns[local]] = _solved(gram, moment[:, :, local], penalty)
        return result

    def held_out_errors(self, fold_of_block: Ints, grid: Floats) -> Floats:
        """Mean squared error per penalty and column when each fold is predicted by the others.

        Args:
            fold_of_block: (n_blocks,), from 0 without gaps.
            grid: (n_penalties,).

        Returns: shape (n_penalties, n_columns); 0 for a column that is never observed.
        """
        n_folds = int(fold_of_block.max()) + 1
        others = 1.0 - np.eye(n_folds)
        parts = _Parts(fold_of_block[self.blocks], n_folds, self.design.shape[1])
        errors = np.zeros((grid.size, self.targets.shape[1]))
        for rows, columns in self.patterns:
            gram, moment = self._weighted(rows, columns, others, parts)
            fitted = np.stack([_solved(gram, moment, penalty) for penalty in grid], axis=2)
            errors[:, columns] = self._mean_errors(rows, columns, fitted, parts)
        return errors

    def _mean_errors(self, rows: Bools, columns: Ints, fitted: Floats, parts: _Parts) -> Floats:
        """From `fitted`, (n_design, n_folds, n_penalties, n_columns): (n_penalties, n_columns)."""
        total = np.zeros(fitted.shape[2:])
        for fold, held_out in enumerate(parts.rows_of(rows)):
            predicted = np.tensordot(self.design[held_out], fitted[:, fold], axes=1)
            observed = self.targets[held_out[:, None], columns]
            total += ((observed[:, None, :] - predicted) ** 2).sum(axis=0)
        return total / max(int(rows.sum()), 1)

    def _weighted(
        self, rows: Bools, columns: Ints, weights: Floats, parts: _Parts
    ) -> tuple[Floats, Floats]:
        """Grams (n_fits, n_design, n_design) and moments (n_fits, n_design, n_columns)."""
        n_design = self.design.shape[1]
        moments = np.zeros((parts.n, n_design, columns.size))
        for number, inside in enumerate(parts.rows_of(rows)):
            part = self.design[inside]
            np.matmul(part.T, part, out=parts.grams[number])
            moments[number] = part.T @ self.targets[inside[:, None], columns]
        flat = weights @ parts.grams.reshape(parts.n, -1)
        return (
            flat.reshape(len(weights), n_design, n_design),
            np.tensordot(weights, moments, axes=1),
        )


class _Parts:
    """A partition of the rows, and the memory for one Gram per part: made once, filled often."""

    def __init__(self, part: Ints, n_parts: int, n_design: int) -> None:
        self.n = n_parts
        self.grams = np.empty((n_parts, n_design, n_design))
        self._order = np.argsort(part, kind="stable")
        self._edges = np.searchsorted(part[self._order], np.arange(1, n_parts))

    def rows_of(self, rows: Bools) -> list[Ints]:
        """Split the rows that are asked for by part."""
        return [inside[rows[inside]] for inside in np.split(self._order, self._edges)]


def choose_penalties(grams: BlockGrams) -> Floats:
    """Choose each column's penalty by cross-validation over blocks, shape (n_columns,).

    A column's own error counts half, the mean error of all labels the other half: with few labels
    a column's own choice is mostly noise. Ties go to the stronger penalty.
    """
    grid = PENALTIES[::-1]
    errors = _errors_of_folds(grams, grid)
    n_labels = (~np.isnan(grams.targets)).sum(axis=0)
    overall = errors @ n_labels / max(int(n_labels.sum()), 1)
    return np.asarray(grid[(errors + overall[:, None]).argmin(axis=0)])


def choose_own_penalties(grams: BlockGrams) -> Floats:
    """Choose as `choose_penalties`, each column by its own error alone, and up to no fit at all."""
    grid = OWN_PENALTIES[::-1]
    return np.asarray(grid[_errors_of_folds(grams, grid).argmin(axis=0)])


def _errors_of_folds(grams: BlockGrams, grid: Floats) -> Floats:
    """`held_out_errors` by `N_FOLDS` folds; all alike where there is but one block."""
    n_folds = min(N_FOLDS, grams.n_blocks)
    if n_folds < 2:
        return np.zeros((grid.size, grams.targets.shape[1]))
    return grams.held_out_errors(np.arange(grams.n_blocks) % n_folds, grid)


def _solved(grams: Floats, moments: Floats, penalty: float) -> Floats:
    """Coefficients (n_design, n_fits, n_columns); the intercept has a penalty of its own."""
    diagonal = np.full(grams.shape[1], penalty)
    diagonal[0] = INTERCEPT_PENALTY
    solved = np.linalg.solve(grams + np.diag(diagonal), moments)
    return np.asarray(solved.transpose(1, 0, 2), dtype=np.float64)


def _patterns(observed: Bools) -> list[tuple[Bools, Ints]]:
    """Columns grouped by which rows they observe: [(rows, columns)]; unobserved ones left out."""
    by_rows: dict[bytes, list[int]] = {}
    for column in range(observed.shape[1]):
        if observed[:, column].any():
            by_rows.setdefault(observed[:, column].tobytes(), []).append(column)
    return [(observed[:, c[0]], np.array(c, dtype=np.int64)) for c in by_rows.values()]
