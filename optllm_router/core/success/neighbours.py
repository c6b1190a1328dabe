"""What the nearest labelled texts say: a kernel smoother that falls back on another estimate.

A linear model is right about topics and blind to texts that it has met before; neighbours are the
reverse. An estimate is the average of the labels around a text and of a prior estimate of it, each
label weighted by its text's nearness, the prior by a strength (Nadaraya, Theory of Probability and
its Applications 9, 1964; Watson, Sankhya A 26, 1964): far from every labelled text it is the prior.
Labels of other columns take no part, so holes in the label matrix need no filling.

Nearness is exp(-bandwidth * squared distance). Bandwidth and strength are those with which each
labelled text is predicted best by the others; where none helps, the prior stays as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from optllm_router.records import Bools, Floats, Ints

MAX_LANDMARKS = 2_000
BANDWIDTHS = (2.0, 4.0, 8.0)
STRENGTHS = (10.0, 3.0, 1.0, 0.3)
AT_A_LANDMARK = 0.99
"""Nearness above which a text counts as met before."""

_ROWS_AT_ONCE = 1024  # whose nearness to every landmark is in memory at once


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """The places where labelled texts lie, as landmarks, with all labels of a place added up.

    `places` is (n_landmarks, n_dimensions); `labels` (3, n_landmarks, n_columns) is how many labels
    a landmark has, their sum, and the sum of their squares.
    """

    places: NDArray[np.float32]
    labels: NDArray[np.float32]
    bandwidth: float
    strength: float
    _exponents: NDArray[np.float32] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Prepare one product that gives every exponent, (n_dimensions + 2, n_landmarks)."""
        squares = np.einsum("ij,ij->i", self.places, self.places)
        rows = [2.0 * self.places.T, -squares[None, :], -np.ones((1, len(squares)))]
        table = (self.bandwidth * np.vstack(rows)).astype(np.float32)
        object.__setattr__(self, "_exponents", table)

    def estimate(
        self, places: Floats, prior: Floats, std: Floats | None = None
    ) -> tuple[Floats, Bools]:
        """Return the prior, (n_queries, n_columns), drawn towards the labels near each place.

        And which queries lie where a labelled text does, (n_queries,). `std`, the prior's standard
        error, is replaced by the estimate's. That is, to first order, what resampling the landmarks
        would show: a weighted mean's squared weights times squared residuals (the infinitesimal
        jackknife: Efron, "The jackknife, the bootstrap and other resampling plans", 1982). The two
        errors are added, as if they went together.
        """
        found, met = np.empty_like(prior), np.empty(len(places), dtype=np.bool_)
        for rows in slabs(len(places)):
            nearness = self.nearness(places[rows])
            met[rows] = np.maximum.reduce(nearness, axis=1) > AT_A_LANDMARK
            sums = np.asarray(nearness @ self.labels[:2], dtype=np.float64)
            found[rows] = drawn(prior[rows], sums, self.strength)
            if std is not None:
                error = self._error(nearness, found[rows])
                std[rows] = (self.strength * std[rows] + error) / (sums[0] + self.strength)
        return found, met

    def _error(self, nearness: NDArray[np.float32], estimate: Floats) -> Floats:
        """The root of the labels' squared weights times squared residuals; spoils `nearness`."""
        count, total, square = np.square(nearness, out=nearness) @ self.labels
        squares = square - 2.0 * estimate * total + estimate**2 * count
        return np.asarray(np.sqrt(np.maximum(squares, 0.0)))

    def nearness(self, places: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Return every query's to every landmark, (n_queries, n_landmarks), from 0 to 1."""
        asked = np.empty((len(places), self._exponents.shape[0]), dtype=np.float32)
        asked[:, :-2] = places
        asked[:, -2] = 1.0
        asked[:, -1] = np.einsum("ij,ij->i", places, places)
        near = asked @ self._exponents
        return np.asarray(np.exp(near, out=near))

    def of_labels(self, places: Floats, scores: Floats) -> Self:
        """Return neighbours of the same kernel at other places, with these labels alone.

        `places` is (n_labels, n_dimensions), `scores` (n_labels, n_columns), all observed.
        """
        at = places.astype(np.float16).astype(np.float32)  # as it is stored
        labels = np.stack([np.ones_like(scores), scores, scores**2]).astype(np.float32)
        return replace(self, places=at, labels=labels)

    def to_arrays(self, prefix: str) -> dict[str, NDArray[np.generic]]:
        """Return plain arrays for an npz file, places in half precision."""
        return {
            f"{prefix}_places": self.places.astype(np.float16),
            f"{prefix}_labels": self.labels,
            f"{prefix}_kernel": np.array([self.bandwidth, self.strength]),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]], prefix: str) -> Self | None:
        """Rebuild from `to_arrays`; None where there was nothing."""
        if f"{prefix}_places" not in arrays:
            return None
        bandwidth, strength = np.asarray(arrays[f"{prefix}_kernel"], dtype=np.float64).tolist()
        return cls(
            places=np.asarray(arrays[f"{prefix}_places"], dtype=np.float32),
            labels=np.asarray(arrays[f"{prefix}_labels"], dtype=np.float32),
            bandwidth=bandwidth,
            strength=strength,
        )


@dataclass(frozen=True, slots=True, eq=False)
class FittedNeighbours:
    """Neighbours (None where they do not help) and what they make of the labelled rows.

    `left_out` (n_rows, n_columns) is every row's estimate without the labels of its text at its
    place; `met_again` is that without its own labels alone, as if the text came again; `met`
    (n_rows,) tells the rows that lie where another one does that is at a landmark. Without
    neighbours the estimates are the prior and no row is met.
    """

    neighbours: Neighbours | None
    left_out: Floats
    met_again: Floats
    met: Bools


def fit_neighbours(places: Floats, scores: Floats, texts: Ints, prior: Floats) -> FittedNeighbours:
    """Choose bandwidth and strength, leaving out a row's text when the row is predicted.

    Args:
        places: (n_rows, n_dimensions).
        scores: (n_rows, n_columns), NaN where not observed.
        texts: (n_rows,), equal for equal texts.
        prior: (n_rows, n_columns), estimates that did not see the row's text.

    Ties go to the prior as it is, then to the wider kernel, then to the stronger prior. Of more
    than `MAX_LANDMARKS` distinct places with a label some are taken, evenly spread over the rows,
    and so are the rows that judge.
    """
    labelled = _Labelled.of(places, scores, texts)
    rows = evenly(len(places))
    best, chosen = _mean_square(prior[rows] - scores[rows]), None
    for bandwidth in BANDWIDTHS:
        tried = Neighbours(labelled.places, labelled.labels, bandwidth, np.inf)
        sums = labelled.sums(tried, rows)[0]
        for strength in STRENGTHS:
            error = _mean_square(drawn(prior[rows], sums, strength) - scores[rows])
            if error < best:
                best, chosen = error, replace(tried, strength=strength)
    if chosen is None:
        return FittedNeighbours(None, prior, prior, np.zeros(len(prior), dtype=np.bool_))
    left_out, again, met = labelled.sums(chosen, np.arange(len(places)))
    return FittedNeighbours(
        neighbours=chosen,
        left_out=drawn(prior, left_out, chosen.strength),
        met_again=drawn(prior, again, chosen.strength),
        met=met,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Labelled:
    """The labelled rows and their landmarks.

    `at` (n_rows, n_dimensions) is where the rows lie, `landmark` (n_rows,) which landmark is theirs
    (-1 for none); `own` and `same` (2, n_rows, n_columns) are weight and sum of a row's own labels
    and of all labels of its text at its place.
    """

    at: NDArray[np.float32]
    landmark: Ints
    own: Floats
    same: Floats
    places: NDArray[np.float32]
    labels: NDArray[np.float32]

    @classmethod
    def of(cls, places: Floats, scores: Floats, texts: Ints) -> Self:
        at = places.astype(np.float16).astype(np.float32)  # as it is stored
        first, number = _distinct(at)
        seen, known = (~np.isnan(scores)).astype(np.float64), np.nan_to_num(scores)
        labels = _added(np.stack([seen, known, known**2]), number)
        taught = np.argsort(first)
        taught = taught[labels[0, taught].any(axis=1)]
        kept = taught[evenly(taught.size)]
        position = np.full(first.size, -1, dtype=np.int64)
        position[kept] = np.arange(kept.size)
        own = np.stack([seen, known])
        _, text = _distinct(np.column_stack([texts, number]))
        return cls(
            at=at,
            landmark=position[number],
            own=own,
            same=_added(own, text)[:, text],
            places=at[first[kept]],
            labels=np.ascontiguousarray(labels[:, kept], dtype=np.float32),
        )

    def sums(self, neighbours: Neighbours, rows: Ints) -> tuple[Floats, Floats, Bools]:
        """Weight and sum, (2, n_rows, n_columns), of other texts' labels and of other rows'.

        And which rows lie where another row with a label does, (n_rows,). What lies at a row's own
        landmark is added apart, so that no rounding leaves something of many labels of its own.
        """
        every = np.empty((2, rows.size, self.own.shape[2]))
        near = np.empty(rows.size, dtype=np.int64)
        home = self.landmark[rows]
        mine = home >= 0
        for part in slabs(rows.size):
            nearness = neighbours.nearness(self.at[rows[part]])
            near[part] = (nearness > AT_A_LANDMARK).sum(axis=1)
            nearness[np.flatnonzero(mine[part]), home[part][mine[part]]] = 0.0
            every[:, part] = nearness @ self.labels[:2]
        every += self.labels[:2, home] * mine[:, None]
        left_out = every - self.same[:, rows] * mine[:, None]
        again = every - self.own[:, rows] * mine[:, None]
        return np.maximum(left_out, 0.0), np.maximum(again, 0.0), near > self._alone(rows)

    def _alone(self, rows: Ints) -> Bools:
        """Tell the rows, (n_rows,), that have a landmark to which no other row has a label."""
        taught, mine = self.own[0].any(axis=1), self.landmark >= 0
        rows_at = np.bincount(self.landmark[taught & mine], minlength=len(self.places))
        return np.asarray(mine[rows] & (rows_at[self.landmark[rows]] == taught[rows]))


def slabs(n: int) -> Iterator[slice]:
    """Yield n rows in slabs whose nearness to every landmark is in memory at once."""
    for start in range(0, n, _ROWS_AT_ONCE):
        yield slice(start, start + _ROWS_AT_ONCE)


def evenly(n: int) -> Ints:
    """Return at most `MAX_LANDMARKS` of n numbers, evenly spread."""
    return np.unique(np.linspace(0, n - 1, min(n, MAX_LANDMARKS)).astype(np.int64))


def drawn(prior: Floats, sums: Floats, strength: float) -> Floats:
    """Return the prior, drawn towards labels by their weight and sum, (2, n_rows, n_columns)."""
    return np.asarray((sums[1] + strength * prior) / (sums[0] + strength))


def _distinct(rows: NDArray[np.generic]) -> tuple[Ints, Ints]:
    """Where each distinct row first stands, and every row's number among the distinct ones."""
    whole = np.dtype((np.void, rows.dtype.itemsize * rows.shape[1]))
    keys = np.ascontiguousarray(rows).view(whole).ravel()
    if not rows.shape[1]:
        return np.zeros(1, dtype=np.int64), np.zeros(len(rows), dtype=np.int64)
    _, first, number = np.unique(keys, return_index=True, return_inverse=True)
    return first, number


def _added(values: Floats, number: Ints) -> Floats:
    """Add up rows of the same number; `values` is (n_parts, n_rows, n_columns)."""
    total = np.zeros((len(values), int(number.max()) + 1, values.shape[2]))
    for part, each in zip(total, values, strict=True):
        np.add.at(part, number, each)
    return total


def _mean_square(errors: Floats) -> float:
    """Over what is observed (not NaN); infinite where nothing is."""
    seen = errors[~np.isnan(errors)]
    return float(seen @ seen) / seen.size if seen.size else np.inf
