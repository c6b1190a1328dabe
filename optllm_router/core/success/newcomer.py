"""A column that joins a fitted predictor with a handful of labels, by what the others know.

With few labels a ridge of its own is little more than noise. A newcomer borrows: how a query
differs from the average one is taken to be a weighted mean of how it does for the fitted columns
(`likeness` says which). Its own labels say two things. They shift its level, the mean score: by the
mean of what they leave over, shrunk as if `LEVEL_STRENGTH` more labels had been as expected. And
they draw its estimates near them, as for every column (`neighbours`).

    estimate = level + sum over fitted columns of weight * (estimate - the column's own level)

Its uncertainty is that of the same mean for every member of the ensemble, and that of the level
(the standard deviation of a Beta with as many labels): a shift that differs from member to member.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from optllm_router.core.likeness import Likeness
from optllm_router.core.success.ensemble import RidgeEnsemble
from optllm_router.core.success.neighbours import Neighbours
from optllm_router.records import Bools, Floats, Ints

LEVEL_STRENGTH = 12.0
LEVELS = (0.02, 0.98)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Seen:
    """What columns make of some queries, before their differences are shrunk.

    `prob` and `std` (None where nobody asked) are (n_queries, n_columns); `met`, which queries were
    met before, is that or, without newcomers, (n_queries, 1); `design`, which is empty without
    `std`, and `places`, empty without neighbours, have one row per query.
    """

    prob: Floats
    std: Floats | None
    met: Bools
    design: Floats
    places: Floats


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lenders:
    """The fitted columns, from which a newcomer borrows.

    `column_score` is (n_fitted,), NaN for a column without a label of its own; `neighbours` are
    None where they do not help.
    """

    column_score: Floats
    ensemble: RidgeEnsemble
    neighbours: Neighbours | None

    def deviations(self, estimates: Floats) -> Floats:
        """Return estimates, (n_queries, n_fitted), less their columns' scores; 0 without one."""
        deviation = estimates - self.column_score
        deviation[:, np.isnan(self.column_score)] = 0.0
        return np.asarray(deviation)

    def expected(self, like: Likeness) -> float:
        """Return the score that a newcomer is expected to have, before its labels."""
        mean = float(np.nan_to_num(self.column_score) @ like.mix)
        return float(np.clip(mean + like.shift, *LEVELS))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Newcomer:
    """What estimates one joined column.

    `column` is its index among the predictor's columns, `mix` (n_fitted,) the weights of the fitted
    ones, `score` its level and `score_std` the level's standard error.
    """

    column: int
    mix: Floats
    score: float
    score_std: float
    neighbours: Neighbours | None
    ensemble: RidgeEnsemble

    @classmethod
    def of(  # noqa: PLR0913  # its own parts, by keyword
        cls,
        lenders: Lenders,
        *,
        column: int,
        mix: Floats,
        score: float,
        score_std: float,
        neighbours: Neighbours | None,
        seed: int,
    ) -> Self:
        """Make one from its parts; the members' levels are shuffled by the seed."""
        shift = score - float(np.nan_to_num(lenders.column_score) @ mix)
        weights = lenders.ensemble.weights @ mix.astype(np.float32)
        levels = _normal_quantiles(weights.shape[1])
        shuffled = np.random.default_rng([seed, column]).permutation(levels)
        weights[0] += (shift + score_std * shuffled).astype(np.float32)
        return cls(
            column=column,
            mix=mix,
            score=score,
            score_std=score_std,
            neighbours=neighbours,
            ensemble=RidgeEnsemble(weights[:, :, None], lenders.ensemble.centre),
        )

    def estimate(self, by_fitted: Seen, lenders: Lenders) -> Seen:
        """Return what this column, alone, makes of queries that the fitted ones have seen."""
        prob = (self.score + lenders.deviations(by_fitted.prob) @ self.mix)[:, None]
        std = None if by_fitted.std is None else self.ensemble.spread(by_fitted.design)
        met = by_fitted.met
        if self.neighbours is not None:
            prob, own = self.neighbours.estimate(by_fitted.places, prob, std)
            met = met | own[:, None]
        return replace(by_fitted, prob=prob, std=std, met=met)


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """What a newcomer scores over all queries, by what its labels leave over of what is expected.

    `residual` is (n_labels,).
    """

    expected: float
    residual: Floats

    @classmethod
    def of(cls, lenders: Lenders, like: Likeness, estimates: Floats, scores: Floats) -> Self:
        """Compare scores, (n_labels,), with the lenders' estimates, (n_labels, n_fitted)."""
        expected = lenders.expected(like)
        return cls(expected, scores - expected - lenders.deviations(estimates) @ like.mix)

    @property
    def score(self) -> float:
        """The level; without any label it is what is expected."""
        n = self.residual.size
        return float(np.clip(self.expected + self.residual.sum() / (n + LEVEL_STRENGTH), *LEVELS))

    @property
    def std(self) -> float:
        """The level's standard error."""
        n = self.residual.size + LEVEL_STRENGTH
        return float(np.sqrt(self.score * (1.0 - self.score) / (n + 1.0)))

    def elsewhere(self, texts: Ints) -> Floats:
        """Return for every label the level by the labels of other texts, (n_labels,)."""
        found = np.empty(self.residual.size)
        for text in np.unique(texts):
            found[texts == text] = Level(self.expected, self.residual[texts != text]).score
        return found


def with_newcomers(by_fitted: Seen, newcomers: Sequence[Newcomer], lenders: Lenders) -> Seen:
    """Return what all columns make of queries; the fitted ones' estimates stay, bit for bit."""
    prob, std = by_fitted.prob, by_fitted.std
    met = np.broadcast_to(by_fitted.met, prob.shape)
    for newcomer in newcomers:
        own, column = newcomer.estimate(by_fitted, lenders), newcomer.column
        prob, met = placed(prob, column, own.prob[:, 0]), placed(met, column, own.met[:, 0])
        if std is not None and own.std is not None:
            std = placed(std, column, own.std[:, 0])
    return replace(by_fitted, prob=prob, std=std, met=met)


def newcomers_to_arrays(newcomers: Sequence[Newcomer]) -> dict[str, NDArray[np.generic]]:
    """Return plain arrays for an npz file; none for no newcomers."""
    if not newcomers:
        return {}
    arrays: dict[str, NDArray[np.generic]] = {
        "newcomers": np.array([one.column for one in newcomers]),
        "newcomer_mix": np.stack([one.mix for one in newcomers]),
        "newcomer_score": np.array([[one.score, one.score_std] for one in newcomers]),
    }
    for one in newcomers:
        if one.neighbours is not None:
            arrays |= one.neighbours.to_arrays(f"newcomer{one.column}")
    return arrays


def newcomers_from_arrays(
    arrays: Mapping[str, NDArray[np.generic]], lenders: Lenders, seed: int
) -> tuple[Newcomer, ...]:
    """Rebuild what `newcomers_to_arrays` wrote."""
    columns = np.asarray(arrays["newcomers"], dtype=np.int64).tolist()
    scores = np.asarray(arrays["newcomer_score"], dtype=np.float64).tolist()
    mixes = np.asarray(arrays["newcomer_mix"], dtype=np.float64)
    return tuple(
        Newcomer.of(
            lenders,
            column=column,
            mix=mix,
            score=score,
            score_std=score_std,
            neighbours=Neighbours.from_arrays(arrays, f"newcomer{column}"),
            seed=seed,
        )
        for column, mix, (score, score_std) in zip(columns, mixes, scores, strict=True)
    )


def placed(values: NDArray[Any], column: int, new: object) -> NDArray[Any]:
    """Return a copy of values, (..., n_columns), with a column replaced or appended."""
    n = values.shape[-1]
    wide = np.empty((*values.shape[:-1], max(n, column + 1)), dtype=values.dtype)
    wide[..., :n] = values
    wide[..., column] = new
    return wide


def _normal_quantiles(n: int) -> Floats:
    """Evenly spaced quantiles, (n,), of mean 0 and standard deviation 1."""
    found = np.array([NormalDist().inv_cdf((i + 0.5) / n) for i in range(n)])
    return np.asarray(found / found.std())
