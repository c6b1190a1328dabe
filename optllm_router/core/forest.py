"""OptLLM's success predictor as published: a bootstrap ensemble of random forests.

Source: Liu et al., "OptLLM: Optimal Assignment of Queries to Large Language Models" (arXiv
2405.15130, ICWS 2024), section III-B. Half of the labelled queries train, the other half validates.
Each of u members fits, on a resample of the training half, one random forest per column (100 trees
of depth at most 10) on features of the text; its weight is its accuracy on the validation half.
The estimate is the members' weighted mean, its uncertainty their unweighted standard deviation, and
`mean + alpha * std` the robust estimate, alpha = 0.5.

Where this differs, and why:

- The text's features are principal components of our hashed text, not averaged word vectors, which
  would be a download of gigabytes. Task, shape and embedding are not looked at, as published.
- Members resample distinct texts and the halves are split between distinct texts (both at random),
  so that a text never stands on both sides. Where all texts differ that is the published way.
- A label that is not observed is left out of its column. Labels between 0 and 1 count as two rows,
  a success of that weight and a failure of the rest, so that a forest estimates the mean score.
- A column with one class only in a resample predicts that class, one without any label in it the
  column's mean label; the published code fails or mixes up columns there.

The released code compares the members' rounded estimates with the float probabilities that an
unresampled forest gives to the first rows of the *test* part, which it takes for the validation
labels: its weights are the share of coincidences with exactly 0 or 1. `as_released` does the same,
but for the test rows, which nobody has at this moment: the validation rows in another order stand
in for them. Where nothing coincides (the released code divides by zero) all weights are equal.
Nothing else of the released code is copied: neither its handling of one-class resamples, nor its
unseeded draws, nor what it does after prediction (see `search`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from optllm_router.core.features import SparseText, hash_texts
from optllm_router.core.growing import Growing, Halves, grow_forests, split_texts
from optllm_router.core.projection import Projection
from optllm_router.core.ridge import single_threaded
from optllm_router.core.success import SuccessEstimate, checked_scores, checked_tasks
from optllm_router.core.trees import Forests
from optllm_router.errors import NotTrainedError
from optllm_router.records import Bools, Floats, Ints

_ROWS_AT_ONCE = 1 << 14  # every member's estimate of them is in memory
_SETTINGS = (
    "n_bootstraps",
    "seed",
    "alpha",
    "n_trees",
    "max_depth",
    "n_components",
    "as_released",
)


class ForestPredictor:
    """Predict each column's probability of success from a query's text, as OptLLM does.

    Args:
        n_bootstraps: members of the ensemble, at least 2.
        seed: seeds split, resampling and forests; the same data and seed give the same predictor.
        alpha: how many standard deviations `robust` adds.
        n_trees: trees per forest, at least 1.
        max_depth: levels of a tree, at least 1.
        n_components: principal components of the text that are kept, at most.
        as_released: weigh the members as the released code does; see the module's docstring.
        n_jobs: threads that grow a forest's trees; their number does not change the result.

    Raises:
        ValueError: a number below its least value.

    Attributes:
        oob_: the training rows' estimates, each from members that did not see the row's text.
        n_labels_: observed labels per column, shape (n_columns,).
        weights_: the members' weights, shape (n_bootstraps,); they sum to 1.
        tasks_: empty, since tasks are not looked at.
        n_dimensions_: 0, since embeddings are not looked at.
    """

    tasks_: tuple[str, ...] = ()
    n_dimensions_ = 0

    def __init__(  # noqa: PLR0913  # the published method has as many settings
        self,
        n_bootstraps: int = 100,
        seed: int = 0,
        *,
        alpha: float = 0.5,
        n_trees: int = 100,
        max_depth: int = 10,
        n_components: int = 300,
        as_released: bool = False,
        n_jobs: int = 1,
    ) -> None:
        if n_bootstraps < 2 or min(n_trees, max_depth, n_jobs) < 1 or min(seed, n_components) < 0:
            raise ValueError(
                f"n_bootstraps={n_bootstraps}, n_trees={n_trees}, max_depth={max_depth}, "
                f"n_jobs={n_jobs}, seed={seed}, n_components={n_components}: an ensemble has at "
                "least 2 members, a forest at least 1 tree of depth 1 and 1 thread that grows it, "
                "the last two are not negative"
            )
        self.n_bootstraps = n_bootstraps
        self.seed = seed
        self.alpha = alpha
        self.n_trees = n_trees
        self.max_depth = max_depth
        self.n_components = n_components
        self.as_released = as_released
        self.n_jobs = n_jobs
        self.n_labels_: Ints = np.zeros(0, dtype=np.int64)
        self.weights_: Floats = np.zeros(0)
        self.oob_: SuccessEstimate | None = None
        self._projection: Projection | None = None
        self._forests: Forests | None = None

    @property
    def n_columns(self) -> int:
        """The number of columns that it was fitted on; 0 before."""
        return int(self.n_labels_.size)

    def fit(
        self, queries: Sequence[str], scores: Floats, tasks: Sequence[str] | None = None
    ) -> Self:
        """Fit on texts and their scores.

        Args:
            queries: the texts, n_queries of them; equal texts are resampled together.
            scores: (n_queries, n_columns) in [0, 1], soft labels allowed, NaN = not observed.
            tasks: not looked at.

        Raises:
            ValueError: shapes that do not match, a score outside [0, 1], or no label at all.
            ImportError: scikit-learn, which grows the trees, is missing.
        """
        return self.fit_features(hash_texts(queries), scores, tasks=tasks, groups=queries)

    def fit_features(
        self,
        texts: Sequence[SparseText],
        scores: Floats,
        *,
        tasks: Sequence[str] | None = None,
        shapes: Floats | None = None,  # noqa: ARG002  # not looked at, as published
        groups: Sequence[str] | None = None,
    ) -> Self:
        """Fit on hashed texts; `groups` names the distinct texts. Tasks and shapes do not count."""
        scores = checked_scores(scores, len(texts))
        checked_tasks(tasks, len(texts))
        self.n_labels_ = (~np.isnan(scores)).sum(axis=0)
        rng = np.random.default_rng(self.seed)
        names = groups if groups is not None else [str(i) for i in range(len(texts))]
        labelled = np.asarray(~np.isnan(scores).all(axis=1), dtype=np.bool_)
        halves = split_texts(names, labelled, rng)
        with single_threaded():
            logged = [_as_logged(text) for text in texts]
            self._projection = Projection.fit(logged, self.n_components, self.seed)
        points = self._points(texts)
        draws = halves.draws(self.n_bootstraps, rng)
        resamples = [halves.resample(draw) for draw in draws]
        self._forests = grow_forests(points, scores, resamples, how=self._growing, rng=rng)
        self.weights_ = self._weights(points, scores, halves, rng)
        self.oob_ = self._estimate(points, out=halves.unseen(draws))
        return self

    def predict(
        self, queries: Sequence[str], tasks: Sequence[str] | None = None
    ) -> SuccessEstimate:
        """Predict texts; tasks do not count. Raises: NotTrainedError before `fit`."""
        return self.predict_features(hash_texts(queries), tasks=tasks)

    def predict_features(
        self,
        texts: Sequence[SparseText],
        *,
        tasks: Sequence[str] | None = None,
        shapes: Floats | None = None,  # noqa: ARG002  # not looked at, as published
        spread: bool = True,
    ) -> SuccessEstimate:
        """Predict hashed texts: weighted mean and spread of the members.

        Without `spread`, `std` is left out (NaN). Both are NaN for a column without any label.
        """
        checked_tasks(tasks, len(texts))
        return self._estimate(self._points(texts), spread=spread)

    def robust(self, estimate: SuccessEstimate) -> Floats:
        """Return `prob + alpha * std`, (n_queries, n_columns), which may lie outside [0, 1]."""
        return estimate.prob + self.alpha * estimate.std

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return everything that prediction needs as plain arrays, for an npz file."""
        if self._forests is None or self._projection is None:
            raise NotTrainedError("this predictor is not fitted: call `fit` first")
        settings = {name: getattr(self, name) for name in _SETTINGS}
        return {
            "settings": np.frombuffer(json.dumps(settings).encode(), dtype=np.uint8),
            "member_weights": self.weights_,
            "n_labels": self.n_labels_,
            **self._forests.to_arrays(),
            **self._projection.to_arrays(),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.generic]]) -> Self:
        """Rebuild a predictor from `to_arrays`; its out-of-bag estimates are not kept.

        Raises: ValueError when the arrays do not fit together.
        """
        predictor = cls(**json.loads(arrays["settings"].tobytes()))
        predictor.n_labels_ = np.asarray(arrays["n_labels"], dtype=np.int64)
        predictor.weights_ = np.asarray(arrays["member_weights"], dtype=np.float64)
        predictor._projection = Projection.from_arrays(arrays)
        predictor._forests = Forests.from_arrays(arrays)
        wanted = (predictor.n_bootstraps, predictor.n_columns, predictor.n_trees)
        n_components = max(1, predictor._projection.axes.shape[1])
        if (
            predictor._forests.number.shape != wanted
            or predictor.weights_.shape != wanted[:1]
            or predictor._forests.trees.n_features > n_components
        ):
            raise ValueError("the arrays of this forest do not fit together: refit")
        return predictor

    @property
    def _growing(self) -> Growing:
        return Growing(n_trees=self.n_trees, max_depth=self.max_depth, n_jobs=self.n_jobs)

    def _points(self, texts: Sequence[SparseText]) -> NDArray[np.float32]:
        """The texts' components, (n_texts, at least 1), in the precision that trees compare in.

        The same bits for a text whether it is new or read from the log, alone or among others: a
        threshold may lie between two components that differ by their rounding only.
        """
        if self._projection is None:
            raise NotTrainedError("this predictor is not fitted: call `fit` first")
        logged = [_as_logged(text) for text in texts]
        if len(logged) == 1:
            logged *= 2  # one text alone is projected another way, with other last bits
        points = self._projection.apply(logged)[: len(texts)].astype(np.float32)
        return points if points.shape[1] else np.zeros((len(texts), 1), dtype=np.float32)

    def _weights(
        self,
        points: NDArray[np.float32],
        scores: Floats,
        halves: Halves,
        rng: np.random.Generator,
    ) -> Floats:
        """The members' accuracies on the validation rows, scaled to sum 1; (n_bootstraps,)."""
        held = halves.held
        if not held.size:
            return np.full(self.n_bootstraps, 1.0 / self.n_bootstraps)
        if self.as_released:
            truth = self._probs_of_other_rows(points, scores, halves, rng)
        else:
            truth = np.round(scores[held])
        hit = np.round(self._members(points[held])) == truth[:, None, :]
        seen = ~np.isnan(truth)
        accuracy = hit.sum(axis=(0, 2)) / max(int(seen.sum()), 1)
        total = float(accuracy.sum())
        return accuracy / total if total > 0 else np.full(accuracy.size, 1.0 / accuracy.size)

    def _probs_of_other_rows(
        self,
        points: NDArray[np.float32],
        scores: Floats,
        halves: Halves,
        rng: np.random.Generator,
    ) -> Floats:
        """What the released code takes for validation labels, (n_held, n_columns)."""
        single = grow_forests(points, scores, [halves.train], how=self._growing, rng=rng)
        return single.members(points[rng.permutation(halves.held)])[:, 0, :]

    def _members(self, points: NDArray[np.float32]) -> Floats:
        """Every member's estimates, (n_points, n_members, n_columns)."""
        if self._forests is None:
            raise NotTrainedError("this predictor is not fitted: call `fit` first")
        return self._forests.members(points)

    def _estimate(
        self, points: NDArray[np.float32], *, spread: bool = True, out: Bools | None = None
    ) -> SuccessEstimate:
        """Weighted mean and unweighted deviation; `out`, (n_points, n_members), says of whom."""
        prob = np.empty((len(points), self.n_columns))
        std = np.full_like(prob, np.nan)
        use = np.ones((len(points), self.n_bootstraps), dtype=np.bool_) if out is None else out
        for start in range(0, len(points), _ROWS_AT_ONCE):
            rows = slice(start, start + _ROWS_AT_ONCE)
            members = self._members(points[rows])
            prob[rows] = _averaged(members, use[rows] * self.weights_)
            if spread:
                members -= _averaged(members, use[rows].astype(np.float64))[:, None, :]
                members *= members
                std[rows] = np.sqrt(_averaged(members, use[rows].astype(np.float64)))
        np.clip(prob, 0.0, 1.0, out=prob)  # from rounding errors
        prob[:, self.n_labels_ == 0] = np.nan
        std[:, self.n_labels_ == 0] = np.nan
        return SuccessEstimate(prob, std)


def _as_logged(text: SparseText) -> SparseText:
    """The text with its values in the half precision in which the log keeps them."""
    return SparseText(text.indices, text.values.astype(np.float16).astype(np.float32))


def _averaged(members: Floats, share: Floats) -> Floats:
    """Average over the members, (n_points, n_columns), by shares, (n_points, n_members).

    Where the shares are all 0 they count as equal.
    """
    share = np.where(share.any(axis=1, keepdims=True), share, 1.0)
    share = share / share.sum(axis=1, keepdims=True)
    return np.asarray((share[:, None, :] @ members)[:, 0, :])
