"""From hashed text to a few principal components, learned from the training texts.

Hashed features are weighted by inverse document frequency, scaled to unit length and projected on
their leading right singular vectors (Deerwester et al., "Indexing by latent semantic analysis",
1990). Kept in half precision: that is what is stored, so a reloaded predictor is the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from optllm_router.core.features import N_FEATURES, SparseText, feature_matrix
from optllm_router.records import Floats

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

MAX_FIT_TEXTS = 2_500
EXACT_BELOW = 600


@dataclass(frozen=True, slots=True)
class Projection:
    """`idf` weighs the buckets, shape (N_FEATURES,); `axes` is (N_FEATURES, n_components)."""

    idf: NDArray[np.float32]
    axes: NDArray[np.float32]

    @classmethod
    def fit(cls, texts: Sequence[SparseText], n_components: int, seed: int) -> Self:
        """Learn weights and axes; texts without features (or none at all) give 0 components."""
        matrix = feature_matrix(texts)
        if matrix.shape[0] > MAX_FIT_TEXTS:
            step = np.linspace(0, matrix.shape[0] - 1, MAX_FIT_TEXTS).astype(np.int64)
            matrix = matrix[step]
        idf = _inverse_document_frequency(matrix)
        weighted = _weighted(matrix, idf)
        axes = _leading_axes(weighted, n_components, seed)
        return cls(idf, axes.astype(np.float16).astype(np.float32))

    def apply(self, texts: Sequence[SparseText]) -> Floats:
        """Project texts, shape (n_texts, n_components); an empty text lies at the origin."""
        if len(texts) == 1:
            return self._apply_one(texts[0])[None, :]
        weighted = _weighted(feature_matrix(texts), self.idf)
        return np.asarray(weighted @ self.axes, dtype=np.float64)

    def _apply_one(self, text: SparseText) -> Floats:
        values = text.values * self.idf[text.indices]
        length = np.sqrt(values @ values)
        if length == 0.0:
            return np.zeros(self.axes.shape[1])
        return np.asarray((values / length) @ self.axes[text.indices], dtype=np.float64)

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return plain arrays; buckets that no training text used are left out."""
        used = np.flatnonzero(np.any(self.axes != 0, axis=1))
        return {
            "projection_idf": self.idf,
            "projection_used": used.astype(np.uint16),
            "projection_axes": self.axes[used].astype(np.float16),
        }

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.generic]]) -> Self:
        """Rebuild a projection from `to_arrays`."""
        stored = np.asarray(arrays["projection_axes"])
        axes = np.zeros((N_FEATURES, stored.shape[1]), dtype=np.float32)
        axes[np.asarray(arrays["projection_used"], dtype=np.int64)] = stored
        return cls(np.asarray(arrays["projection_idf"], dtype=np.float32), axes)


def _inverse_document_frequency(matrix: csr_matrix) -> NDArray[np.float32]:
    """Smoothed: log((1 + n) / (1 + df)) + 1, scaled to at most 1 (Salton & Buckley, 1988)."""
    n = matrix.shape[0]
    frequency = np.bincount(matrix.indices, minlength=N_FEATURES)
    idf = np.log((1.0 + n) / (1.0 + frequency)) + 1.0
    return np.asarray(idf / idf.max(), dtype=np.float32)


def _weighted(matrix: csr_matrix, idf: NDArray[np.float32]) -> csr_matrix:
    """Scale columns by `idf` and every row to unit length."""
    weighted = matrix.copy()
    weighted.data = weighted.data * idf[weighted.indices]
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    lengths = np.sqrt(np.bincount(rows, weights=weighted.data**2, minlength=matrix.shape[0]))
    weighted.data = (weighted.data / np.maximum(lengths, 1e-12)[rows]).astype(np.float32)
    return weighted


def _leading_axes(weighted: csr_matrix, n_components: int, seed: int) -> Floats:
    """Right singular vectors, (N_FEATURES, r): exact for few texts, randomised for many."""
    if weighted.nnz == 0:
        return np.zeros((N_FEATURES, 0))
    if weighted.shape[0] <= EXACT_BELOW:
        return _exact_axes(weighted.astype(np.float64), n_components)
    from sklearn.utils.extmath import randomized_svd

    _, _, right = randomized_svd(
        weighted, min(n_components, weighted.shape[0] - 1), n_iter=2, random_state=seed
    )
    return np.asarray(right.T, dtype=np.float64)


def _exact_axes(weighted: csr_matrix, n_components: int) -> Floats:
    """Through the eigenvectors of the (small) matrix of inner products between the texts."""
    eigenvalues, vectors = np.linalg.eigh((weighted @ weighted.T).toarray())
    keep = np.flatnonzero(eigenvalues > 1e-9 * eigenvalues[-1])[::-1][:n_components]
    axes = np.asarray(weighted.T @ vectors[:, keep]) / np.sqrt(eigenvalues[keep])
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return np.asarray(axes * signs, dtype=np.float64)
