"""Grows OptLLM's forests: which texts train, how they are resampled, which labels a tree sees.

Needs scikit-learn, but only here: what is grown is kept as plain arrays (`trees`). Why labels and
halves are treated as they are is said in `forest`, whose only helper this is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optllm_router.core.trees import Forests, GrownTree, Trees
from optllm_router.records import Bools, Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Growing:
    """How a forest is grown; `n_jobs` threads, whose number does not change the result."""

    n_trees: int
    max_depth: int
    n_jobs: int


@dataclass(frozen=True, slots=True)
class Halves:
    """Which texts train, `n_train` of them by number, and each row's text, (n_rows,).

    A text that does not train has a number from `n_train` on; `held` are the validation rows.
    """

    n_train: int
    text: Ints
    held: Ints

    @property
    def train(self) -> Ints:
        """The training rows."""
        return np.flatnonzero(self.text < self.n_train)

    def draws(self, n_members: int, rng: np.random.Generator) -> Ints:
        """Draw as many training texts as there are, with repeats, once per member.

        Returns: how often each was drawn, (n_members, n_train).
        """
        even = np.full(self.n_train, 1.0 / self.n_train)
        return np.asarray(rng.multinomial(self.n_train, even, n_members), dtype=np.int64)

    def resample(self, draw: Ints) -> Ints:
        """Return the training rows, as often as their text was drawn."""
        return np.repeat(self.train, draw[self.text[self.train]])

    def unseen(self, draws: Ints) -> Bools:
        """Say which members did not see each row's text, (n_rows, n_members).

        All of them where none is left.
        """
        unseen = np.ones((self.text.size, len(draws)), dtype=np.bool_)
        unseen[self.train] = (draws[:, self.text[self.train]] == 0).T
        unseen[~unseen.any(axis=1)] = True
        return unseen


def split_texts(names: Sequence[str], labelled: Bools, rng: np.random.Generator) -> Halves:
    """Split the texts with a label at random: the larger half trains, the other one validates."""
    number: dict[str, int] = {}  # by first appearance: independent of what the texts are called
    for name, counts in zip(names, labelled.tolist(), strict=True):
        if counts:
            number.setdefault(name, len(number))
    n_train = (len(number) + 1) // 2
    shuffled = np.append(rng.permutation(len(number)), len(number))  # the last for all others
    text = shuffled[[number.get(name, len(number)) for name in names]]
    return Halves(n_train, text, np.flatnonzero((text >= n_train) & (text < len(number))))


def grow_forests(
    points: NDArray[np.float32],
    scores: Floats,
    resamples: Sequence[Ints],
    *,
    how: Growing,
    rng: np.random.Generator,
) -> Forests:
    """Grow one forest per resample and column.

    Args:
        points: (n_rows, n_features).
        scores: (n_rows, n_columns), NaN where not observed.
        resamples: per member its rows, with repeats.
        how: size of the forests, and threads.
        rng: draws one seed per forest.

    Raises:
        ImportError: scikit-learn is missing.
    """
    trees: list[GrownTree] = []
    number = np.zeros((len(resamples), scores.shape[1], how.n_trees), dtype=np.int64)
    for member, rows in enumerate(resamples):
        for column in range(scores.shape[1]):
            seed = int(rng.integers(1 << 31))  # in any case: no column depends on another one
            grown = _forest(points, scores[:, column], rows, how, seed)
            number[member, column] = len(trees) + np.arange(how.n_trees) % len(grown)
            trees += grown
    return Forests(Trees.joined(trees), number)


def _forest(
    points: NDArray[np.float32], scores: Floats, rows: Ints, how: Growing, seed: int
) -> list[GrownTree]:
    """One column's trees; a single leaf where there is nothing to tell apart."""
    rows = rows[~np.isnan(scores[rows])]
    if not rows.size:
        labelled = ~np.isnan(scores)
        return [GrownTree.leaf(float(scores[labelled].mean()) if labelled.any() else 0.0)]
    rows, label, weight = _hard_labels(scores, rows)
    if label.min() == label.max():
        return [GrownTree.leaf(float(label[0]))]
    forest = _new_forest(how, seed).fit(points[rows], label, sample_weight=weight)
    return [GrownTree.of_classifier(tree.tree_) for tree in forest.estimators_]


def _hard_labels(scores: Floats, rows: Ints) -> tuple[Ints, Ints, Floats | None]:
    """Rows, their labels 0 or 1, and weights: two rows for each soft label, else no weights."""
    score = scores[rows]
    soft = (score > 0) & (score < 1)
    if not soft.any():
        return rows, score.astype(np.int64), None
    label = np.concatenate([(score > 0).astype(np.int64), np.zeros(int(soft.sum()), np.int64)])
    weight = np.concatenate([np.where(soft, score, 1.0), 1.0 - score[soft]])
    return np.concatenate([rows, rows[soft]]), label, weight


def _new_forest(how: Growing, seed: int) -> Any:
    try:
        from sklearn.ensemble import RandomForestClassifier
    except ImportError as error:
        raise ImportError(
            "the forests are grown by scikit-learn, which is missing here: "
            "`pip install scikit-learn`, or take the ridge predictor, which does without"
        ) from error
    return RandomForestClassifier(
        how.n_trees, max_depth=how.max_depth, random_state=seed, n_jobs=how.n_jobs
    )
