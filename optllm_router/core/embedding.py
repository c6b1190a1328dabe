"""Embeddings of texts: the user's own function from texts to vectors, called and checked.

None is used unless the user brings one, and nothing is ever downloaded. What it gives is scaled to
unit length, so that only the direction counts, as it does between most models' embeddings.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from optllm_router.core.features import SparseText, clip_text, hash_texts
from optllm_router.errors import ConfigError
from optllm_router.records import Floats

Dense: TypeAlias = NDArray[np.float32]


class Embedder(Protocol):
    """Turns texts into vectors: a plain function is one.

    An object with a method `encode` of the same kind is taken, too: local sentence-transformers
    models have it.
    """

    def __call__(self, texts: list[str], /) -> ArrayLike:
        """Return one vector per text, (n_texts, n_dimensions), all numbers finite.

        Equal texts should have equal vectors, today and tomorrow: those in the log are not made
        again. A router can tell another model only by another number of dimensions, which it
        learns anew; give one with the same number a `store` of its own.

        No text is blank; of a long one its first and last 1,000 characters are given. A router
        calls it on a thread of its own, one call at a time, with at most 32 texts.
        """
        ...


class Encoder(Protocol):
    """An embedder whose vectors come from a method."""

    def encode(self, texts: list[str], /) -> ArrayLike:
        """Do what a call of an `Embedder` does."""
        ...


def embed(
    embedder: Embedder | Encoder, texts: Sequence[str], n_dimensions: int = 0
) -> list[Dense | None]:
    """Return the texts' embeddings, of unit length; None for a blank text and a vector of zeros.

    `n_dimensions` is how many earlier ones had, 0 for any number. What the embedder raises is
    passed on.

    Raises:
        ConfigError: it is none, or its vectors break a rule: their shape, a number that is not
            finite, or another number of dimensions than before.
    """
    function = _function(embedder)
    asked = [i for i, text in enumerate(texts) if text.strip()]
    found: list[Dense | None] = [None] * len(texts)
    if asked:
        vectors = function([clip_text(texts[i]) for i in asked])
        rows = _checked(vectors, len(asked), n_dimensions, _name(embedder))
        for i, row in zip(asked, rows, strict=True):
            found[i] = _direction(row)
    return found


def embedded_texts(
    queries: Sequence[str], embedder: Embedder | Encoder | None, n_dimensions: int = 0
) -> list[SparseText]:
    """Return the hashed features of some texts with their embeddings; see `embed`.

    Raises: TypeError for one text in place of them; ConfigError.
    """
    texts = hash_texts(queries)
    if embedder is None:
        return texts
    dense = embed(embedder, queries, n_dimensions)
    return [replace(text, dense=row) for text, row in zip(texts, dense, strict=True)]


def _function(embedder: object) -> Embedder:
    """What is called: `encode` where there is one (such models are callable in another way)."""
    is_text = isinstance(embedder, str | bytes)  # they have an `encode` or `decode` of their own
    found = embedder if is_text else getattr(embedder, "encode", embedder)
    if not callable(found) or inspect.iscoroutinefunction(found):
        raise ConfigError(
            f"embedder {embedder!r} must be a plain function (texts) -> vectors, or an object with "
            "such a method `encode`; not a text, and not a coroutine"
        )
    function: Embedder = found
    return function


def _name(embedder: object) -> str:
    return str(getattr(embedder, "__name__", type(embedder).__name__))


def _checked(vectors: ArrayLike, n_texts: int, n_dimensions: int, name: str) -> Floats:
    """Return vectors as (n_texts, n_dimensions) floats. Raises: ConfigError."""
    try:
        rows = np.asarray(vectors).astype(np.float64, casting="same_kind")  # no texts, no complex
    except (TypeError, ValueError, RuntimeError) as error:  # RuntimeError: a tensor with gradients
        raise ConfigError(
            f"embedder `{name}` returned a {type(vectors).__name__} that is no array of real "
            f"numbers ({error}): return an array of shape (n_texts, n_dimensions)"
        ) from error
    if rows.ndim != 2 or len(rows) != n_texts or not rows.shape[1]:
        raise ConfigError(
            f"embedder `{name}` returned shape {rows.shape} for {n_texts} texts: return one "
            "vector per text, (n_texts, n_dimensions)"
        )
    bad = np.argwhere(~np.isfinite(rows))
    if bad.size:
        row, place = bad[0]
        raise ConfigError(
            f"embedder `{name}` returned {float(rows[row, place])!r} as number {place} of text "
            f"{row}: every number of a vector must be finite"
        )
    if n_dimensions and rows.shape[1] != n_dimensions:
        raise ConfigError(
            f"embedder `{name}` returned vectors of {rows.shape[1]} dimensions, earlier ones had "
            f"{n_dimensions}: vectors of two models cannot be compared, so keep to one"
        )
    return rows


def _direction(row: Floats) -> Dense | None:
    """Scale a vector to unit length; None for zeros. No number is too large or small for that."""
    largest = np.abs(row).max()
    if largest == 0.0:
        return None
    row = row / largest
    return np.asarray(row / np.linalg.norm(row), dtype=np.float32)
