"""From hashed text to a few principal components, learned from the training texts.

Hashed features are weighted by inverse document frequency, scaled to unit length and projected on
their leading right singular vectors (Deerwester et al., "Indexing by latent semantic analysis",
1990). Few texts are decomposed exactly, many by subspace iteration from a random start (Halko,
Martinsson & Tropp, SIAM Review 53(2), 2011). Kept in half precision: that is what is stored, so a
reloaded predictor is the same one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from optllm_router.core.features import N_FEATURES, SparseText, feature_matrix
from optllm_router.records import Floats

if TYPE_CHECKING:
    from scipy.sparse import csc_matrix, csr_matrix

MAX_FIT_TEXTS = 2_500
EXACT_BELOW = 600

_OVERSAMPLE = 10  # directions that are iterated beside the wanted ones
_N_ITERATIONS = 3
_SLAB = 512  # texts that are projected at once: their components stay in a second-level cache


@dataclass(frozen=True, slots=True)
class Projection:
    """`idf` weighs the buckets, shape (N_FEATURES,); `axes` is (N_FEATURES, n_components)."""

    idf: NDArray[np.float32]
    axes: NDArray[np.float32]

    @classmethod
    def fit(cls, texts: Sequence[SparseText], n_components: int, seed: int) -> Self:
        """Learn weights and axes; texts without features (or none at all) give 0 components."""
        if len(texts) > MAX_FIT_TEXTS:
            spread = np.linspace(0, len(texts) - 1, MAX_FIT_TEXTS).astype(np.int64)
            texts = [texts[i] for i in spread]
        matrix = feature_matrix(texts)
        idf = _inverse_document_frequency(matrix)
        axes = _leading_axes(_weighted(matrix, idf), n_components, seed)
        return cls(idf, axes.astype(np.float16).astype(np.float32))

    def apply(self, texts: Sequence[SparseText]) -> Floats:
        """Project texts, shape (n_texts, n_components); an empty text lies at the origin."""
        return self.times(texts, self.axes)[0]

    def fold(self, weights: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the table that takes texts to `apply(texts) @ weights` without the detour.

        Its shape is (N_FEATURES, n) for `weights` of shape (n_components, n); see `times`.
        """
        return self.axes @ weights

    def times(self, texts: Sequence[SparseText], *tables: NDArray[np.float32]) -> list[Floats]:
        """Multiply texts, weighted and of unit length, with tables of shape (N_FEATURES, n)."""
        if len(texts) == 1:
            return self._one_times(texts[0], tables)
        products = [np.empty((len(texts), table.shape[1])) for table in tables]
        for start in range(0, len(texts), _SLAB):
            slab = _weighted(feature_matrix(texts[start : start + _SLAB]), self.idf).tocsc()
            for product, table in zip(products, tables, strict=True):
                product[start : start + _SLAB] = slab @ table
        return products

    def _one_times(self, text: SparseText, tables: Sequence[NDArray[np.float32]]) -> list[Floats]:
        buckets = text.indices.astype(np.intp)
        weighted = text.values * self.idf.take(buckets)
        length = math.sqrt(weighted @ weighted) or 1.0
        products = [weighted @ table.take(buckets, axis=0) for table in tables]
        return [product.astype(np.float64)[None, :] / length for product in products]

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
    weighted.data /= np.repeat(_lengths(matrix, idf), np.diff(matrix.indptr))
    return weighted


def _lengths(matrix: csr_matrix, idf: NDArray[np.float32]) -> NDArray[np.float32]:
    """The lengths of the rows once their columns are scaled, shape (n_texts,); 1 for empty ones."""
    squares = matrix.copy()
    squares.data = squares.data**2
    lengths = np.sqrt(squares @ idf**2)
    return np.asarray(np.where(lengths > 0, lengths, 1.0), dtype=np.float32)


def _slabs(matrix: csr_matrix) -> list[csc_matrix]:
    """Cut into slabs of rows, each by bucket: products are twice as fast as row by row.

    Row by row, every bucket of every text fetches its row of the other factor from a far cache.
    """
    starts = range(0, matrix.shape[0], _SLAB)
    return [matrix[start : start + _SLAB].tocsc() for start in starts]


def _times(slabs: list[csc_matrix], dense: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.concatenate([slab @ dense for slab in slabs])


def _leading_axes(weighted: csr_matrix, n_components: int, seed: int) -> Floats:
    """Right singular vectors, (N_FEATURES, r): exact for few texts, iterated for many."""
    if weighted.nnz == 0:
        return np.zeros((N_FEATURES, 0))
    if weighted.shape[0] <= EXACT_BELOW:
        return _exact_axes(weighted.astype(np.float64), n_components)
    return _iterated_axes(weighted, n_components, seed)


def _exact_axes(weighted: csr_matrix, n_components: int) -> Floats:
    """Through the eigenvectors of the (small) matrix of inner products between the texts."""
    vectors, scales = _leading_vectors((weighted @ weighted.T).toarray(), n_components)
    return _signed(np.asarray(weighted.T @ vectors) / scales)


def _iterated_axes(weighted: csr_matrix, n_components: int, seed: int) -> Floats:
    """Through a basis that holds nearly all of the texts' leading directions."""
    n_directions = min(n_components + _OVERSAMPLE, weighted.shape[0])
    start = np.random.default_rng(seed).standard_normal((weighted.shape[0], n_directions))
    slabs, by_bucket = _slabs(weighted), weighted.T.tocsr()
    spread = by_bucket @ start.astype(np.float32)
    for _ in range(_N_ITERATIONS - 1):
        basis, _ = np.linalg.qr(_times(slabs, spread))
        spread = by_bucket @ basis
    spread = spread.astype(np.float64)
    vectors, scales = _leading_vectors(spread.T @ spread, n_components)
    return _signed(spread @ vectors / scales)


def _leading_vectors(products: Floats, n: int) -> tuple[Floats, Floats]:
    """The leading eigenvectors of inner products, (size, r), and the roots of their eigenvalues.

    Directions without any weight (the texts repeat each other) are left out.
    """
    eigenvalues, vectors = np.linalg.eigh(products)
    keep = np.flatnonzero(eigenvalues > 1e-9 * eigenvalues[-1])[::-1][:n]
    return vectors[:, keep], np.sqrt(eigenvalues[keep])


def _signed(axes: Floats) -> Floats:
    """Turn every axis so that its largest entry is positive."""
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])])
    return np.asarray(axes * signs, dtype=np.float64)
