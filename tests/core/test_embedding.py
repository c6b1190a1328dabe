"""An embedder is a function of the user's: what is taken from it, and what is refused."""

import numpy as np
import pytest

from optllm_router.core.embedding import embed, embedded_texts
from optllm_router.core.features import CLIP_CHARACTERS, hash_text
from optllm_router.errors import ConfigError


def lengths(texts):
    """Three numbers per text, the first one its length."""
    return [[len(text), 3.0, 4.0] for text in texts]


def giving(vectors):
    def embedder(_texts):
        return vectors

    return embedder


class Encoder:
    """As a local sentence-transformers model: callable for something else, with an `encode`."""

    def __call__(self, features):
        raise AssertionError("not this way")

    def encode(self, sentences, batch_size=32):
        return np.array(lengths(sentences), dtype=np.float32)


@pytest.mark.parametrize("embedder", [lengths, Encoder()], ids=["a function", "an encoder"])
def test_an_embedding_has_unit_length_in_single_precision(embedder):
    (row,) = embed(embedder, ["12 chars....."[:12]])

    assert np.float32 == row.dtype
    assert [np.float32(v / 13) for v in (12, 3, 4)] == row.tolist()


def test_blank_texts_are_not_asked_for_and_have_none():
    asked = []
    rows = embed(lambda texts: asked.append(texts) or lengths(texts), ["", "a", " \n", "bc"])

    assert [["a", "bc"]] == asked
    assert [False, True, False, True] == [row is not None for row in rows]


@pytest.mark.parametrize("texts", [[], [""], ["", " "]], ids=["no text", "one", "two"])
def test_nothing_to_embed_calls_nobody(texts):
    assert [None] * len(texts) == embed(giving(None), texts)


def test_a_vector_of_zeros_is_none():
    first, second = embed(giving([[0.0, 0.0], [0.0, -2.0]]), ["a", "b"])

    assert first is None
    assert [0.0, -1.0] == second.tolist()


@pytest.mark.parametrize("scale", [1e-320, 1e-200, 1.0, 1e300])
def test_no_number_is_too_small_or_too_large_for_a_direction(scale):
    (row,) = embed(giving([[3 * scale, 4 * scale]]), ["a"])

    assert [0.6, 0.8] == pytest.approx(row.tolist(), rel=1e-3)


@pytest.mark.parametrize("dtype", ["bool", "int8", "uint64", "float16", "longdouble"])
def test_every_real_dtype_is_taken(dtype):
    (row,) = embed(giving(np.array([[0, 1]], dtype=dtype)), ["a"])

    assert [0.0, 1.0] == row.tolist()


def test_what_is_embedded_is_the_routed_part_of_a_text():
    asked = []
    embed(lambda texts: asked.extend(texts) or lengths(texts), ["s" * 5_000 + "e" * 5_000])

    assert ["s" * CLIP_CHARACTERS + "e" * CLIP_CHARACTERS] == asked


@pytest.mark.parametrize(
    ("vectors", "said"),
    [
        ([1.0, 2.0], r"returned shape \(2,\) for 2 texts"),
        ([[1.0, 2.0]], r"returned shape \(1, 2\) for 2 texts"),
        (np.zeros((2, 0)), r"returned shape \(2, 0\) for 2 texts"),
        (np.zeros((2, 1, 3)), r"returned shape \(2, 1, 3\) for 2 texts"),
        (1.0, r"returned shape \(\) for 2 texts"),
        ([[1.0], [1.0, 2.0]], "returned a list that is no array of real numbers"),
        ("ab", "returned a str that is no array of real numbers"),
        ([["1", "2"], ["3", "4"]], "returned a list that is no array of real numbers"),
        (None, "returned a NoneType that is no array of real numbers"),
        (np.array([[1j, 2], [3, 4]]), "returned a ndarray that is no array of real numbers"),
        ([[10**400, 1], [1, 1]], "returned a list that is no array of real numbers"),
        ([[1.0, 2.0], [np.nan, 1.0]], "returned nan as number 0 of text 1"),
        ([[1.0, -np.inf], [1.0, 1.0]], "returned -inf as number 1 of text 0"),
    ],
)
def test_vectors_that_break_a_rule_are_refused_with_value_and_rule(vectors, said):
    with pytest.raises(ConfigError, match=f"embedder `embedder` {said}"):
        embed(giving(vectors), ["a", "b"])


def test_another_number_of_dimensions_than_before_is_refused():
    assert embed(lengths, ["a"], 3)[0] is not None
    with pytest.raises(ConfigError, match="vectors of 3 dimensions, earlier ones had 4"):
        embed(lengths, ["a"], 4)


async def coroutine(texts):
    return lengths(texts)


@pytest.mark.parametrize("embedder", ["a model", b"bytes", 7, coroutine])
def test_what_is_no_embedder_is_refused(embedder):
    with pytest.raises(ConfigError, match="must be a plain function"):
        embed(embedder, ["a"])


def test_what_an_embedder_raises_is_passed_on():
    with pytest.raises(ZeroDivisionError):
        embed(lambda _texts: 1 / 0, ["a"])


def test_features_are_the_same_with_an_embedding_beside_them():
    (text,) = embedded_texts(["some text"], lengths)

    assert hash_text("some text").values.tobytes() == text.values.tobytes()
    assert 3 == text.dense.size
    assert embedded_texts(["some text"], None)[0].dense is None


def test_one_text_in_place_of_a_list_is_refused_before_it_is_embedded():
    with pytest.raises(TypeError, match="pass a list of texts"):
        embedded_texts("one text", giving(None))
