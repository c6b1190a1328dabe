"""Principal components of hashed texts: exact, iterated, degenerate, stored."""

import numpy as np
import pytest

from optllm_router.core import projection
from optllm_router.core.features import hash_text
from optllm_router.core.projection import EXACT_BELOW, MAX_FIT_TEXTS, Projection
from optllm_router.core.ridge import single_threaded


@pytest.fixture(autouse=True)
def one_thread():
    with single_threaded():
        yield


WORDS = ["red", "green", "river", "stone", "cloud", "music", "ticket", "invoice", "engine", "salad"]


def some_texts(n, seed=0):
    rng = np.random.default_rng(seed)
    return [hash_text(" ".join(rng.choice(WORDS, 12))) for _ in range(n)]


def test_axes_are_orthonormal_up_to_half_precision():
    axes = Projection.fit(some_texts(40), 10, seed=0).axes

    assert np.abs(axes.T @ axes - np.eye(10)).max() < 2e-3


def test_components_keep_the_inner_products_that_they_have_room_for():
    texts = some_texts(12)
    fitted = Projection.fit(texts, 50, seed=0)
    components = fitted.apply(texts)

    assert 12 == components.shape[1]
    assert np.abs((components**2).sum(axis=1) - 1.0).max() < 5e-3


def test_iterated_axes_span_what_exact_ones_span(monkeypatch):
    texts = some_texts(EXACT_BELOW + 50)
    iterated = Projection.fit(texts, 8, seed=0)
    monkeypatch.setattr(projection, "EXACT_BELOW", 10_000)
    exact = Projection.fit(texts, 8, seed=0)
    kept = np.linalg.svd(exact.axes.T @ iterated.axes, compute_uv=False)

    assert kept[:6].min() > 0.99
    assert np.abs(np.abs(exact.axes[:, 0]) - np.abs(iterated.axes[:, 0])).max() < 1e-3


def test_equal_texts_have_one_component_and_no_noise():
    for n in (3, EXACT_BELOW + 100):
        fitted = Projection.fit([hash_text("the same text again")] * n, 192, seed=0)
        components = fitted.apply([hash_text("the same text again"), hash_text("another one")])

        assert (2, 1) == components.shape
        assert abs(components[0, 0] - 1.0) < 1e-3
        assert np.isfinite(components).all()


@pytest.mark.parametrize("texts", [[], [hash_text("")], [hash_text("")] * 700])
def test_texts_without_features_give_no_components(texts):
    fitted = Projection.fit(texts, 192, seed=0)

    assert (2, 0) == fitted.apply([hash_text("a word"), hash_text("")]).shape
    assert (1, 0) == fitted.apply([hash_text("a word")]).shape


def test_no_components_may_be_asked_for():
    for n in (5, EXACT_BELOW + 5):
        assert (5, 0) == Projection.fit(some_texts(n), 0, seed=0).apply(some_texts(5)).shape


def test_an_empty_text_lies_at_the_origin_and_none_at_all_gives_no_rows():
    fitted = Projection.fit(some_texts(30), 5, seed=0)

    assert [[0.0] * 5] == fitted.apply([hash_text("")]).tolist()
    assert [0.0] * 5 == fitted.apply([hash_text(""), hash_text("red")])[0].tolist()
    assert (0, 5) == fitted.apply([]).shape


def test_one_text_is_projected_as_among_many():
    texts = some_texts(1_100)
    fitted = Projection.fit(texts[:50], 20, seed=0)
    many = fitted.apply(texts)

    for i in (0, 511, 512, 1_099):
        assert np.abs(fitted.apply([texts[i]])[0] - many[i]).max() < 1e-6


def test_the_seed_decides_iterated_axes_and_nothing_else_does():
    texts = some_texts(EXACT_BELOW + 1)

    assert (Projection.fit(texts, 5, 1).axes == Projection.fit(texts, 5, 1).axes).all()
    assert Projection.fit(texts, 5, 2**40).axes.shape == (16_384, 5)


def test_stored_arrays_give_back_the_same_projection():
    fitted = Projection.fit(some_texts(60), 12, seed=0)
    stored = fitted.to_arrays()
    back = Projection.from_arrays(stored)

    assert np.array_equal(fitted.axes, back.axes)
    assert np.array_equal(fitted.idf, back.idf)
    assert stored["projection_axes"].shape[0] < 1_000  # of 16,384 buckets, those that were used


def test_words_of_only_the_newest_of_many_texts_move_the_components():
    old = [hash_text(f"old words number {i}") for i in range(MAX_FIT_TEXTS)]
    new = [hash_text(f"zebra quagga okapi {i}") for i in range(MAX_FIT_TEXTS)]
    projection = Projection.fit([*old, *new], 8, seed=0)

    lengths = np.linalg.norm(projection.apply([hash_text("zebra quagga okapi 7")]), axis=1)

    assert lengths[0] > 0.5
