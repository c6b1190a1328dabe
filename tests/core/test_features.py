"""Hashed features: any text, the same bits everywhere, small bytes in the log."""

import subprocess
import sys
from dataclasses import astuple, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import optllm_router
from optllm_router.core.features import (
    CLIP_CHARACTERS,
    DENSE_VERSION,
    FEATURE_VERSION,
    N_FEATURES,
    clip_text,
    feature_matrix,
    hash_text,
    pack,
    salt_of,
    shape_features,
    text_key,
    unpack,
)

ANY_TEXT = st.text(st.characters(), max_size=300)  # with surrogates and NUL


def assert_same(expected, actual):
    assert expected.dense is None is actual.dense
    for one, other in zip(astuple(expected)[:2], astuple(actual)[:2], strict=True):
        assert one.dtype == other.dtype
        assert one.tolist() == other.tolist()


@given(ANY_TEXT)
def test_any_text_gives_ascending_buckets_of_unit_length(text):
    features = hash_text(text)

    assert (np.diff(features.indices.astype(int)) > 0).all()
    assert features.indices.size == 0 or features.indices.max() < N_FEATURES
    if features.indices.size:
        assert abs(float(features.values.astype(float) @ features.values) - 1.0) < 1e-6


@given(ANY_TEXT)
def test_packed_features_come_back_in_half_precision(text):
    features = hash_text(text)
    back = unpack(pack(features))

    assert features.indices.tolist() == back.indices.tolist()
    assert features.values.astype(np.float16).astype(np.float32).tolist() == back.values.tolist()


@given(ANY_TEXT, st.integers(1, 2_000), st.integers(0, 2**32))
def test_an_embedding_is_packed_before_the_features_and_comes_back_in_half_precision(
    text, n_dimensions, seed
):
    dense = np.random.default_rng(seed).standard_normal(n_dimensions)
    dense = (dense / np.linalg.norm(dense)).astype(np.float32)
    plain = hash_text(text)
    packed = pack(replace(plain, dense=dense))
    back = unpack(packed)

    assert packed.endswith(pack(plain)[1:])
    assert 1 + 4 + 2 * n_dimensions == len(packed) - len(pack(plain)[1:])
    assert plain.indices.tolist() == back.indices.tolist()
    assert np.float32 == back.dense.dtype
    assert dense.astype(np.float16).astype(np.float32).tolist() == back.dense.tolist()


def test_features_that_were_packed_before_there_were_embeddings_are_read():
    packed = bytes.fromhex("01" + "6b01" + "b61b" + "5a33" + "5a3b")  # indices 363, 7094; values

    assert [363, 7094] == unpack(packed).indices.tolist()
    assert [float(np.float16(v)) for v in (0.22974, 0.91895)] == unpack(packed).values.tolist()
    assert unpack(packed).dense is None
    assert packed == pack(unpack(packed))


@pytest.mark.parametrize("text", ["", "?", "a", "\0", " \n"])
def test_a_text_shorter_than_the_shortest_gram_has_only_its_words(text):
    assert (1 if text == "a" else 0) == hash_text(text).indices.size


def test_a_text_is_three_to_five_bytes_and_one_and_two_words():
    # grams of "ab ab": 3 + 2 + 1; words: ab twice, so one bucket; one pair
    assert 3 + 2 + 1 + 1 + 1 == hash_text("ab ab").indices.size


def test_a_repeated_gram_counts_with_its_logarithm():
    values = hash_text("ab ab").values
    damped = np.array([1.0] * 7 + [1.0 + np.log(2.0)])

    assert sorted((damped / np.sqrt(damped @ damped)).astype(np.float32)) == sorted(values)


def test_case_and_digits_are_folded():
    assert_same(hash_text("Order 123 costs 45"), hash_text("oRDER 907 COSTS 11"))


def test_the_length_of_a_number_is_kept():
    assert hash_text("12345").indices.tolist() != hash_text("123").indices.tolist()


def test_only_the_first_and_last_thousand_characters_are_read():
    start, end = "s" * CLIP_CHARACTERS, "e" * CLIP_CHARACTERS

    assert start + end == clip_text(start + "middle" * 500 + end)
    assert_same(hash_text(start + end), hash_text(start + "middle" * 500 + end))


@pytest.mark.parametrize("character", ["a", "\0", "😀", "İ", "\ud800"])
def test_the_longest_texts_of_one_character_are_hashed(character):
    features = hash_text(character * 5_000)

    assert features.indices.size > 0
    assert np.isfinite(features.values).all()


def test_features_are_the_same_in_another_process():
    code = (
        "from optllm_router.core.features import hash_text, pack;"
        "print(pack(hash_text('Wie hoch ist der Turm? 324 m', salt=7)).hex())"
    )
    run, root = [sys.executable, "-c", code], Path(optllm_router.__file__).parents[1]
    elsewhere = subprocess.run(run, capture_output=True, text=True, check=True, cwd=root)

    assert pack(hash_text("Wie hoch ist der Turm? 324 m", salt=7)).hex() == elsewhere.stdout.strip()


def test_features_are_the_same_in_every_version():
    features = hash_text("Stable for ever: 42")

    assert 1 == FEATURE_VERSION
    assert [453, 1133, 1244, 1618, 1815] == features.indices[:5].tolist()
    assert 55 == features.indices.size


def test_a_salt_moves_every_feature():
    plain, salted = hash_text("one text"), hash_text("one text", salt=salt_of(b"key"))

    assert plain.indices.size == salted.indices.size
    assert 0 == np.intersect1d(plain.indices, salted.indices).size


def test_no_key_is_no_salt():
    assert 0 == salt_of(b"")
    assert 0 < salt_of(b"key") < 2**64


@pytest.mark.parametrize(
    "damaged",
    [
        b"",
        bytes([DENSE_VERSION + 1]) + bytes(4),
        bytes([FEATURE_VERSION]) + bytes(3),
        bytes([FEATURE_VERSION]) + b"\xff\xff" + np.float16(1).tobytes(),
        bytes([FEATURE_VERSION]) + b"\x01\x00" + np.float16(np.nan).tobytes(),
        bytes([DENSE_VERSION]),
        bytes([DENSE_VERSION, 2, 0]),
        bytes([DENSE_VERSION, 0, 0, 0, 0]),
        bytes([DENSE_VERSION, 2, 0, 0, 0, 0, 0]),
        bytes([DENSE_VERSION, 255, 255, 255, 255, 0, 0]),
        bytes([DENSE_VERSION, 1, 0, 0, 0]) + np.float16(np.inf).tobytes(),
        bytes([DENSE_VERSION, 1, 0, 0, 0]) + np.float16(1).tobytes() + b"\xff\xff\x00\x3c",
    ],
    ids=[
        "nothing",
        "another version",
        "cut off",
        "no such bucket",
        "not a number",
        "no size",
        "a size that is cut off",
        "no dimensions",
        "an embedding that is cut off",
        "an embedding beyond memory",
        "an embedding without end",
        "no such bucket beside an embedding",
    ],
)
def test_features_that_cannot_be_read_are_none(damaged):
    assert unpack(damaged) is None


def test_a_matrix_has_a_row_per_text_and_may_be_empty():
    texts = [hash_text("first text"), hash_text(""), hash_text("second")]
    matrix = feature_matrix(texts)

    assert (3, N_FEATURES) == matrix.shape
    assert [t.indices.size for t in texts] == np.diff(matrix.indptr).tolist()
    assert (0, N_FEATURES) == feature_matrix([]).shape


def test_a_text_key_depends_on_the_whole_text_and_on_the_key():
    long = "x" * 3_000

    assert 32 == len(text_key(long))
    assert text_key(long) == text_key(long)
    assert text_key(long) != text_key(long[:1_500] + "y" + long[1_501:])
    assert text_key(long) != text_key(long, key=b"k")
    assert 32 == len(text_key("\ud800\0", key=b"k" * 100))


def test_shapes_are_of_about_unit_size():
    one = np.array([1e6]), np.array([50.0]), np.array([40.0]), np.array([9.0]), np.array([1.0])
    shapes = shape_features(*one)

    assert (1, 5) == shapes.shape
    assert ((shapes > 0.9) & (shapes < 2.0)).all()
