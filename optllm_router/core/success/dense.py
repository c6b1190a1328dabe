"""From embeddings to a few principal components, learned from the training texts.

Embeddings are centred on their mean and projected on their leading principal axes, found by
subspace iteration from a random start (Halko, Martinsson & Tropp, SIAM Review 53(2), 2011), which
is exact for few texts or dimensions. A text without one lies at the mean. Kept in half precision:
that is what is stored, so a reloaded predictor is the same one.

The components are scaled to the mean squared length that the hashed text's components have: the
ridges penalise both alike, so that is what lets both weigh about equally.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from optllm_router.core.features import SparseText
from optllm_router.records import Floats

MAX_COMPONENTS = 96
MAX_FIT_TEXTS = 2_500
NOISE = 1e-6
"""Mean squared length around the mean up to which unit vectors differ by their rounding only."""

_TINY = np.finfo(np.float64).tiny  # shorter than anything that is projected
_HALF = 0.5**0.5  # the factor that halves squared distances
_OVERSAMPLE = 10  # directions that are iterated beside the wanted ones
_N_ITERATIONS = 3


@dataclass(frozen=True, slots=True, eq=False)
class DenseProjection:
    """`mean` is (n_dimensions,); `axes`, scaled, (n_dimensions, n_components)."""

    mean: NDArray[np.float32]
    axes: NDArray[np.float32]

    @classmethod
    def fit(cls, texts: Sequence[SparseText], components: Floats, seed: int) -> Self | None:
        """Learn mean, axes and scale; None where no text has an embedding.

        `components`, (n_texts, n), are the hashed texts' own: they set the scale, which is that of
        unit vectors where they are all 0. The last text's number of dimensions counts: embeddings
        of another length are as good as none. Equal embeddings give 0 components.
        """
        n_dimensions = next((t.dense.size for t in reversed(texts) if t.dense is not None), 0)
        if not n_dimensions:
            return None
        rows = _stacked(texts, n_dimensions)[1]
        mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        spread = np.linspace(0, len(rows) - 1, min(len(rows), MAX_FIT_TEXTS)).astype(np.int64)
        centred = rows[spread].astype(np.float64) - mean
        axes = _leading_axes(centred, seed)
        own, wanted = _squared_length(centred @ axes), _squared_length(components)
        scale = np.sqrt((wanted or 1.0) / (own or 1.0))
        return cls(mean, (scale * axes).astype(np.float16).astype(np.float32))

    @property
    def n_dimensions(self) -> int:
        """How many numbers an embedding has."""
        return int(self.mean.size)

    def apply(self, texts: Sequence[SparseText]) -> Floats:
        """Project texts, (n_texts, n_components); those without an embedding lie at the origin."""
        found = np.zeros((len(texts), self.axes.shape[1]))
        present, rows = _stacked(texts, self.n_dimensions)
        rows -= self.mean
        found[present] = rows @ self.axes
        return found

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return plain arrays for an npz file."""
        return {"dense_mean": self.mean, "dense_axes": self.axes.astype(np.float16)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self | None:
        """Rebuild from `to_arrays`; None where there was nothing."""
        if "dense_mean" not in arrays:
            return None
        return cls(
            np.asarray(arrays["dense_mean"], dtype=np.float32),
            np.asarray(arrays["dense_axes"], dtype=np.float32),
        )


def joint_places(components: Floats, dense: Floats, tasks: Floats) -> Floats:
    """Return where texts lie among their neighbours: the direction of each part, and the task.

    Squared distances are the mean of those of `components` and of `dense`, (n_texts, n) each, plus
    that of `tasks`; where there are no embeddings at all (n = 0), the text's alone.
    """
    if not dense.shape[1]:
        return np.concatenate([_directions(components), tasks], axis=1)
    parts = [_HALF * _directions(components), _HALF * _directions(dense), tasks]
    return np.concatenate(parts, axis=1)


def _directions(components: Floats) -> Floats:
    """Scale rows to unit length; rows of zeros stay."""
    length = np.sqrt(np.einsum("ij,ij->i", components, components))[:, None]
    return np.asarray(components / np.maximum(length, _TINY))


def _stacked(
    texts: Sequence[SparseText], n_dimensions: int
) -> tuple[list[int], NDArray[np.float32]]:
    """Which texts have an embedding of that size, and those, (n_present, n_dimensions)."""
    found = [
        (i, text.dense)
        for i, text in enumerate(texts)
        if text.dense is not None and text.dense.size == n_dimensions
    ]
    rows = np.empty((len(found), n_dimensions), dtype=np.float32)
    for place, (_, dense) in zip(rows, found, strict=True):
        place[:] = dense
    return [i for i, _ in found], rows


def _leading_axes(centred: Floats, seed: int) -> Floats:
    """Principal axes, (n_dimensions, r), the largest entry of each positive."""
    if _squared_length(centred) <= NOISE:
        return np.zeros((centred.shape[1], 0))
    n_directions = min(MAX_COMPONENTS + _OVERSAMPLE, *centred.shape)
    basis = np.random.default_rng(seed).standard_normal((len(centred), n_directions))
    for _ in range(_N_ITERATIONS):
        basis, _ = np.linalg.qr(centred @ (centred.T @ basis))
    _, lengths, axes = np.linalg.svd(basis.T @ centred, full_matrices=False)
    axes = axes[: np.count_nonzero(lengths**2 > NOISE * lengths[0] ** 2)][:MAX_COMPONENTS].T
    return np.asarray(axes * np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]))


def _squared_length(rows: Floats) -> float:
    """Mean over the rows, at least 0."""
    return float(np.einsum("ij,ij->", rows, rows)) / len(rows)
