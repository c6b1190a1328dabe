"""What the success predictor makes of embeddings, and that it does without them."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optllm_router.core.features import hash_text, pack, unpack
from optllm_router.core.forest import ForestPredictor
from optllm_router.core.success import SuccessPredictor
from optllm_router.core.success.dense import MAX_COMPONENTS, DenseProjection
from optllm_router.errors import ConfigError

N_DIMENSIONS = 32


def number(text):
    return int(text.split()[-1])


def is_bright(texts):
    """What decides: nothing in the words or the digits of a text tells it."""
    return np.array([np.random.default_rng(number(text)).random() < 0.5 for text in texts])


def toy(texts):
    """Embed by one telling dimension among others of noise."""
    rows = [
        np.random.default_rng([1, number(text)]).standard_normal(N_DIMENSIONS) for text in texts
    ]
    vectors = np.array(rows).reshape(len(rows), N_DIMENSIONS) / N_DIMENSIONS**0.5
    vectors[:, 0] += np.where(is_bright(texts), 1.0, -1.0)
    return vectors


def some_texts(n, seed=0):
    numbers = np.random.default_rng(seed).choice(10**6, n, replace=False)
    return [f"question number {i}" for i in numbers]


TEXTS, NEW = some_texts(240), some_texts(100, seed=1)


def scores_of(texts):
    bright = is_bright(texts).astype(np.float64)
    return np.column_stack([bright, 1.0 - bright])


def fitted(embedder=toy, texts=TEXTS, **settings_):
    return SuccessPredictor(8, embedder=embedder, **settings_).fit(texts, scores_of(texts))


def embedded(texts, dense):
    return [replace(hash_text(t), dense=d) for t, d in zip(texts, dense, strict=True)]


def brier(predictor, texts=NEW):
    return float(np.mean((predictor.predict(texts).prob - scores_of(texts)) ** 2))


def bits(estimate):
    return estimate.prob.tobytes() + estimate.std.tobytes()


def test_what_only_embeddings_tell_is_learned_from_them():
    assert brier(fitted(None)) > 0.24
    assert brier(fitted()) < 0.02


def test_what_only_the_text_tells_is_still_learned_beside_embeddings_of_noise():
    topics = ["cook a soup of carrots", "integrate the function"]
    texts = [f"{topics[i % 2]}, case {i}" for i in range(240)]
    scores = np.array([[1.0, 0.0], [0.0, 1.0]] * 120)

    def noise(texts):
        return [np.random.default_rng(number(t)).standard_normal(N_DIMENSIONS) for t in texts]

    predictor = SuccessPredictor(8, embedder=noise).fit(texts, scores)
    prob = predictor.predict([f"{topic}, case 999" for topic in topics]).prob

    assert np.abs(prob - np.eye(2)).max() < 0.1


def test_an_object_with_encode_is_an_embedder_of_the_same_bits():
    class Model:
        encode = staticmethod(toy)

    assert bits(fitted().predict(NEW)) == bits(fitted(Model()).predict(NEW))


def test_a_fit_without_embeddings_looks_at_none():
    plain = fitted(None)
    dense = embedded(NEW, toy(NEW).astype(np.float32))

    assert 0 == plain.n_dimensions_
    assert bits(plain.predict(NEW)) == bits(plain.predict_features(dense))
    plain.embedder = toy
    assert bits(plain.predict(NEW)) == bits(plain.predict_features(dense))


def test_a_text_without_an_embedding_is_predicted_as_one_with_the_mean_embedding():
    predictor = fitted()
    mean = predictor._dense.mean
    without = predictor.predict_features([hash_text(t) for t in NEW[:5]])
    average = predictor.predict_features(embedded(NEW[:5], [mean] * 5))
    foreign = predictor.predict_features(embedded(NEW[:5], [mean[:7]] * 5))

    assert N_DIMENSIONS == predictor.n_dimensions_
    assert bits(average) == bits(without) == bits(foreign)
    assert np.abs(without.prob - 0.5).max() < 0.2


def test_one_query_is_predicted_as_among_many_with_and_without_an_embedding():
    predictor = fitted()
    dense = [row if i % 3 else None for i, row in enumerate(toy(NEW[:9]).astype(np.float32))]
    texts = embedded(NEW[:9], dense)
    many = predictor.predict_features(texts)

    for i, text in enumerate(texts):
        one = predictor.predict_features([text])
        assert np.allclose(many.prob[i], one.prob[0], atol=1e-5)
        assert np.allclose(many.std[i], one.std[0], atol=1e-5)


def test_older_rows_without_embeddings_take_part_as_average_ones():
    dense = list(toy(TEXTS).astype(np.float32))
    texts = embedded(TEXTS, [None] * 60 + dense[60:])
    predictor = SuccessPredictor(8, embedder=toy).fit_features(texts, scores_of(TEXTS))

    assert N_DIMENSIONS == predictor.n_dimensions_
    assert brier(predictor) < 0.05


def test_rows_as_they_come_back_from_the_log_fit_nearly_the_same():
    dense = toy(TEXTS)
    dense /= np.linalg.norm(dense, axis=1, keepdims=True)
    texts = embedded(TEXTS, dense.astype(np.float32))
    scores = scores_of(TEXTS)
    fresh = SuccessPredictor(8, embedder=toy).fit_features(texts, scores, groups=TEXTS)
    logged = SuccessPredictor(8, embedder=toy).fit_features(
        [unpack(pack(text)) for text in texts], scores, groups=TEXTS
    )

    assert np.allclose(fresh.predict(NEW).prob, logged.predict(NEW).prob, atol=0.01)


def test_the_newest_length_of_embeddings_counts_and_the_others_are_as_good_as_none():
    rows = toy(TEXTS).astype(np.float32)
    mixed = [row[:5] if i < 60 else row for i, row in enumerate(rows)]
    holes = [None if i < 60 else row for i, row in enumerate(rows)]
    found = [
        SuccessPredictor(8, embedder=toy).fit_features(embedded(TEXTS, dense), scores_of(TEXTS))
        for dense in (mixed, holes)
    ]

    assert bits(found[0].predict(NEW)) == bits(found[1].predict(NEW))


def test_equal_embeddings_say_nothing_and_change_nothing():
    same = np.full(N_DIMENSIONS, N_DIMENSIONS**-0.5, dtype=np.float32)
    texts = embedded(TEXTS, [same] * len(TEXTS))
    predictor = SuccessPredictor(8).fit_features(texts, scores_of(TEXTS))
    plain = SuccessPredictor(8).fit_features([hash_text(t) for t in TEXTS], scores_of(TEXTS))

    assert N_DIMENSIONS == predictor.n_dimensions_
    assert bits(plain.predict(NEW)) == bits(predictor.predict(NEW))


def test_predicting_with_embeddings_of_another_length_is_refused():
    predictor = fitted()
    predictor.embedder = lambda texts: toy(texts)[:, :9]

    with pytest.raises(ConfigError, match=f"of 9 dimensions, earlier ones had {N_DIMENSIONS}"):
        predictor.predict(NEW)


@pytest.mark.parametrize("n_texts", [50, 650])
def test_stored_arrays_predict_the_same_bits_with_and_without_an_embedder(n_texts):
    predictor = fitted(texts=some_texts(n_texts))
    arrays = predictor.to_arrays()
    back = SuccessPredictor.from_arrays(arrays)
    plain = [hash_text(text) for text in NEW]

    assert back.embedder is None
    assert bits(predictor.predict_features(plain)) == bits(back.predict(NEW))
    back.embedder = toy
    assert bits(predictor.predict(NEW)) == bits(back.predict(NEW))
    assert not any(array.dtype.hasobject for array in arrays.values())
    assert np.float16 == arrays["dense_axes"].dtype


def test_a_predictor_without_embeddings_stores_nothing_of_them():
    assert not [name for name in fitted(None).to_arrays() if name.startswith("dense")]


def test_a_forest_does_not_look_at_embeddings():
    texts = embedded(TEXTS, toy(TEXTS).astype(np.float32))
    forests = [
        ForestPredictor(2, n_trees=5).fit_features(given, scores_of(TEXTS))
        for given in (texts, [hash_text(text) for text in TEXTS])
    ]

    assert bits(forests[0].predict(NEW)) == bits(forests[1].predict(NEW))
    assert 0 == forests[0].n_dimensions_


def test_no_queries_give_no_rows():
    assert (0, 2) == fitted().predict([]).prob.shape


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 12), st.integers(1, 9), st.integers(0, 10_000), st.booleans())
def test_estimates_are_probabilities_with_whatever_embeddings(n, n_dimensions, seed, repeats):
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, n_dimensions)).astype(np.float32)
    rows[repeats * np.arange(n) // 2] = rows[0]
    dense = [row if rng.random() < 0.7 else None for row in rows]
    texts = embedded(list(rng.choice(["", "a", "one text", "\0\ud800"], n)), dense)
    scores = rng.choice([0.0, 0.25, 1.0], size=(n, 2))
    predictor = SuccessPredictor(3, seed).fit_features(texts, scores)

    for estimate in (predictor.oob_, predictor.predict_features([*texts, hash_text("new")])):
        for values in (estimate.prob, estimate.std):
            assert ((values >= 0.0) & (values <= 1.0)).all()


def test_both_parts_of_the_design_have_the_same_mean_squared_length():
    rng = np.random.default_rng(0)
    texts = embedded(TEXTS, 5.0 + rng.standard_normal((len(TEXTS), N_DIMENSIONS)))
    components = rng.standard_normal((len(TEXTS), 3))
    dense = DenseProjection.fit(texts, components, seed=0)
    found = dense.apply(texts)

    assert np.mean(components**2) * 3 == pytest.approx(np.mean(found**2) * N_DIMENSIONS, rel=1e-3)
    assert np.abs(found.mean(axis=0)).max() < 1e-4


@pytest.mark.parametrize("shape", [(20, 8), (8, 20), (300, 150), (150, 300)])
def test_components_are_the_principal_ones(shape):
    rng = np.random.default_rng(0)
    rows = rng.standard_normal(shape) * np.geomspace(1.0, 1e-3, shape[1])
    dense = DenseProjection.fit(embedded([""] * len(rows), rows.astype(np.float32)), rows, seed=0)
    _, _, axes = np.linalg.svd(rows - rows.mean(axis=0), full_matrices=False)
    n = min(dense.axes.shape[1], 5)
    directions = dense.axes / np.linalg.norm(dense.axes, axis=0)

    assert dense.axes.shape[1] <= min(*shape, MAX_COMPONENTS)
    assert np.allclose(np.abs(axes[:n] @ directions[:, :n]), np.eye(n), atol=2e-3)


def test_the_number_of_threads_does_not_change_a_bit(printed_by_threads):
    code = (
        "import hashlib, numpy as np\n"
        "from optllm_router.core.success import SuccessPredictor\n"
        "rng = np.random.default_rng(0)\n"
        "rows = rng.standard_normal((700, 300))\n"
        "texts = [f'text {i}' for i in range(700)]\n"
        "scores = (rng.random((700, 2)) < 0.5).astype(float)\n"
        "p = SuccessPredictor(4, embedder=lambda texts: rows).fit(texts, scores)\n"
        "arrays = p.to_arrays()\n"
        "both = arrays['weights'].tobytes() + arrays['dense_axes'].tobytes()\n"
        "print(hashlib.sha256(both).hexdigest())\n"
    )

    assert 1 == len(printed_by_threads(code))
