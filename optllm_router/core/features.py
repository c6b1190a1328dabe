"""Text to hashed sparse features: stateless, the same in every process and every version.

A text becomes byte 3- to 5-grams and word 1- and 2-grams, each hashed into one of `N_FEATURES`
buckets, counted, damped and scaled to unit length. Digits are folded into one symbol, since what
carries over between queries is that a number stands there and how long it is. Everything is numpy
over the text's bytes: a 400-character prompt takes about 0.1 ms.

The hash is a polynomial over the bytes, finished by multiplication (Dietzfelbinger et al.,
"A reliable randomized algorithm for the closest-pair problem", 1997: multiply-shift). `salt` keys
it, so that stored features of two differently keyed logs have nothing in common.

An embedding, where the user brings an embedder (`embedding`), travels beside the hashed features;
it is not salted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import blake2b
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from optllm_router.records import Floats, Query, TrainingRow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scipy.sparse import csr_matrix

N_FEATURES_LOG2 = 14
N_FEATURES = 1 << N_FEATURES_LOG2
FEATURE_VERSION = 1
DENSE_VERSION = 2
"""The first byte of packed features that hold an embedding, too."""
CLIP_CHARACTERS = 1_000

_SIZE_BYTES = 4
_BYTE_GRAMS = (3, 4, 5)
_BASE = 0x9E3779B97F4A7C15  # odd, so that powers have inverses modulo 2**64
_FINISH = 0xD6E8FEB86659FD93
_MODULUS = 1 << 64
_MAX_BYTES = 4 * 2 * CLIP_CHARACTERS + 8
_FOLDING = bytes.maketrans(b"0123456789", b"0" * 10)
_IN_WORD = bytes(code >= 128 or code in b"0_abcdefghijklmnopqrstuvwxyz" for code in range(256))


@dataclass(frozen=True, slots=True)
class SparseText:
    """One text's features: ascending bucket numbers and their values, of unit Euclidean length.

    `dense` is its embedding, (n_dimensions,), of unit length; None where it has none.
    """

    indices: NDArray[np.uint16]
    values: NDArray[np.float32]
    dense: NDArray[np.float32] | None = None


def clip_text(text: str) -> str:
    """Return the first and last 1,000 characters: what is routed of a long text."""
    if len(text) <= 2 * CLIP_CHARACTERS:
        return text
    return text[:CLIP_CHARACTERS] + text[-CLIP_CHARACTERS:]


def hash_text(text: str, *, salt: int = 0) -> SparseText:
    """Return the hashed features of a text (clipped first); an empty text has none.

    Any string is accepted: NUL bytes, emoji, lone surrogates.
    """
    folded = clip_text(text).lower().encode("utf-8", "surrogatepass").translate(_FOLDING)
    codes = np.frombuffer(folded, dtype=np.uint8).astype(np.uint64)
    hashes = [*_byte_gram_hashes(codes), *_word_hashes(codes, folded.translate(_IN_WORD))]
    return _bucketed(np.concatenate(hashes), salt)


def hash_texts(queries: Sequence[str]) -> list[SparseText]:
    """Return the hashed features of some texts. Raises: TypeError for one text in place of them."""
    if isinstance(queries, str):
        raise TypeError(f"`queries` is one text, {queries[:40]!r}: pass a list of texts")
    return [hash_text(query) for query in queries]


def feature_matrix(texts: Sequence[SparseText]) -> csr_matrix:
    """Stack texts into a sparse matrix, shape (n_texts, N_FEATURES)."""
    from scipy.sparse import csr_matrix

    starts = np.zeros(len(texts) + 1, dtype=np.int64)
    np.cumsum([text.indices.size for text in texts], out=starts[1:])
    indices = np.concatenate([t.indices for t in texts] or [np.empty(0, dtype=np.uint16)])
    values = np.concatenate([t.values for t in texts] or [np.empty(0, dtype=np.float32)])
    return csr_matrix((values, indices.astype(np.int32), starts), shape=(len(texts), N_FEATURES))


def pack(text: SparseText) -> bytes:
    """Serialise features for the log: a version byte, indices, values in half precision.

    An embedding stands before the indices: its number of dimensions (32 bits, the lowest byte
    first), then itself in half precision.
    """
    sparse = text.indices.astype("<u2").tobytes() + text.values.astype("<f2").tobytes()
    if text.dense is None:
        return bytes([FEATURE_VERSION]) + sparse
    size = text.dense.size.to_bytes(_SIZE_BYTES, "little")
    return bytes([DENSE_VERSION]) + size + text.dense.astype("<f2").tobytes() + sparse


def unpack(packed: bytes) -> SparseText | None:
    """Read features back; None when damaged or packed by another version of the features."""
    if packed[:1] == bytes([FEATURE_VERSION]):
        return _unpacked_sparse(packed[1:])
    if packed[:1] != bytes([DENSE_VERSION]):
        return None
    start = 1 + _SIZE_BYTES
    end = start + 2 * int.from_bytes(packed[1:start], "little")
    if not start < end <= len(packed):
        return None
    sparse = _unpacked_sparse(packed[end:])
    dense = np.frombuffer(packed[start:end], dtype="<f2").astype(np.float32)
    if sparse is None or not np.isfinite(dense).all():
        return None
    return replace(sparse, dense=dense)


def _unpacked_sparse(packed: bytes) -> SparseText | None:
    if len(packed) % 4:
        return None
    n = len(packed) // 4
    indices = np.frombuffer(packed, dtype="<u2", count=n).astype(np.uint16)
    values = np.frombuffer(packed, dtype="<f2", count=n, offset=2 * n).astype(np.float32)
    if n and (indices.max() >= N_FEATURES or not np.isfinite(values).all()):
        return None
    return SparseText(indices, values)


def text_key(text: str, *, key: bytes = b"") -> str:
    """Return the keyed hash that stands for a text in the log (BLAKE2b, 128 bits, hex)."""
    digest = blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16, key=key[:64])
    return digest.hexdigest()


def salt_of(key: bytes) -> int:
    """Return the feature salt that belongs to a key; 0 for no key."""
    if not key:
        return 0
    return int.from_bytes(blake2b(b"features", digest_size=8, key=key[:64]).digest(), "big")


def shape_features(
    n_prompt_tokens: Floats, n_turns: Floats, n_tools: Floats, n_images: Floats, json: Floats
) -> Floats:
    """Return a query's shape as numbers of about unit size, shape (n_queries, 5)."""
    shapes = np.empty((len(n_prompt_tokens), 5))
    shapes[:, 0] = np.log1p(n_prompt_tokens) / 8.0
    shapes[:, 1] = np.log1p(n_turns) / 3.0
    shapes[:, 2] = np.log1p(n_tools) / 3.0
    shapes[:, 3] = np.minimum(n_images, 1.0)
    shapes[:, 4] = json
    return shapes


def shapes_of(queries: Sequence[Query] | Sequence[TrainingRow]) -> Floats:
    """Return the shapes of queries, to serve or logged, shape (n_queries, 5)."""
    rows = np.array(
        [
            (q.n_prompt_tokens, q.n_turns, q.n_tools, q.n_images, float(q.wants_json))
            for q in queries
        ],
        dtype=np.float64,
    ).reshape(len(queries), 5)
    return shape_features(*rows.T)


def _bucketed(mixed: NDArray[np.uint64], salt: int) -> SparseText:
    """Hash once more, in place, into buckets, count, damp and scale.

    Sorting small numbers beats counting.
    """
    mixed ^= np.uint64(salt)
    mixed *= np.uint64(_FINISH)
    mixed ^= mixed >> np.uint64(32)
    mixed *= np.uint64(_FINISH)
    mixed >>= np.uint64(64 - N_FEATURES_LOG2)
    buckets = mixed.astype(np.uint16)
    buckets.sort(kind="stable")  # of 16 bits: a radix sort
    last = np.ones(buckets.size, dtype=np.bool_)
    np.not_equal(buckets[1:], buckets[:-1], out=last[:-1])
    ends = last.nonzero()[0]
    counts = ends.copy()
    counts[1:] -= ends[:-1]
    counts[:1] += 1
    values = _damping()[counts]
    values /= math.sqrt(max(float(values @ values), 1.0))
    return SparseText(buckets.take(ends), values.astype(np.float32))


def _byte_gram_hashes(codes: NDArray[np.uint64]) -> list[NDArray[np.uint64]]:
    """Hash every run of 3, 4 and 5 bytes, each length growing from the one before."""
    base = np.uint64(_BASE)
    shortest, *_, longest = _BYTE_GRAMS
    hashes = []
    rolled = codes
    for length in range(2, longest + 1):
        rolled = rolled[:-1] * base
        rolled += codes[length - 1 :]
        if length >= shortest:
            hashes.append(rolled)
    return hashes


def _word_hashes(codes: NDArray[np.uint64], in_word: bytes) -> list[NDArray[np.uint64]]:
    """Hash every word and every pair of neighbouring words; `in_word` holds a 1 per word byte."""
    is_inside = np.frombuffer(b"\0" + in_word + b"\0", dtype=np.bool_)
    edges = (is_inside[1:] != is_inside[:-1]).nonzero()[0]
    if not edges.size:
        return []
    powers, inverses = _powers()
    terms = np.zeros(codes.size + 1, dtype=np.uint64)  # one more, as the last edge may lie there
    np.multiply(powers[: codes.size], codes + np.uint64(1), out=terms[:-1])
    words = np.add.reduceat(terms, edges)[::2]  # every other run is a word
    words *= inverses[edges[::2]]
    words *= np.uint64(_FINISH)
    pairs = words[:-1] * np.uint64(_BASE)
    pairs += words[1:]
    return [words + np.uint64(1), pairs + np.uint64(2)]


@lru_cache(maxsize=1)
def _damping() -> Floats:
    """What a bucket's count is worth, for every count that a clipped text can have."""
    return 1.0 + np.log(np.maximum(np.arange(5 * _MAX_BYTES), 1))


@lru_cache(maxsize=1)
def _powers() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """Return the powers of the base and of its inverse modulo 2**64, one per byte position."""
    inverse = pow(_BASE, -1, _MODULUS)
    powers = np.empty(_MAX_BYTES, dtype=np.uint64)
    inverses = np.empty(_MAX_BYTES, dtype=np.uint64)
    power = inverse_power = 1
    for i in range(_MAX_BYTES):
        powers[i], inverses[i] = power, inverse_power
        power, inverse_power = power * _BASE % _MODULUS, inverse_power * inverse % _MODULUS
    return powers, inverses
