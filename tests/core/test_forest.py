"""OptLLM's predictor: as published where it can be, and whole where the published code breaks."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier

import optllm_router
from optllm_router.core.features import hash_text, pack, unpack
from optllm_router.core.forest import ForestPredictor
from optllm_router.core.growing import Growing, grow_forests, split_texts
from optllm_router.core.success import SuccessEstimate
from optllm_router.errors import NotTrainedError

TOPICS = ["cook a soup of carrots", "integrate the function", "book a train to Rome"]


def topical(n, seed=0):
    """Texts of three topics and the topic of each."""
    topic = np.random.default_rng(seed).integers(3, size=n)
    return [f"{TOPICS[t]}, case {i}" for i, t in enumerate(topic)], topic


def small(n_bootstraps=4, seed=0, **others):
    return ForestPredictor(n_bootstraps, seed, **{"n_trees": 5, "max_depth": 5} | others)


def coins(n, m, seed=0):
    return (np.random.default_rng(seed).random((n, m)) < 0.5).astype(np.float64)


def arrays_bytes(predictor):
    return {name: array.tobytes() for name, array in predictor.to_arrays().items()}


def halves_of(queries, scores, seed):
    return split_texts(queries, ~np.isnan(scores).all(axis=1), np.random.default_rng(seed))


@settings(max_examples=12, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(1, 3),
    st.integers(0, 10_000),
    st.sampled_from([0.0, 0.5, 0.95]),
    st.booleans(),
)
def test_estimates_are_probabilities_or_unknown_on_any_small_table(n, m, seed, hidden, released):
    rng = np.random.default_rng(seed)
    scores = rng.choice([0.0, 0.25, 1.0], size=(n, m))
    scores[rng.random((n, m)) < hidden] = np.nan
    scores[0, 0] = rng.random()
    queries = list(rng.choice(["", "a", "one text", "another text", "\0\ud800"], n))
    predictor = small(2, seed, n_trees=2, as_released=released).fit(queries, scores)
    unseen = np.isnan(scores).all(axis=0)

    assert abs(1 - predictor.weights_.sum()) < 1e-12
    for estimate in (predictor.oob_, predictor.predict([*queries, "new"])):
        for values in (estimate.prob, estimate.std):
            assert np.isnan(values[:, unseen]).all()
            assert ((values[:, ~unseen] >= 0.0) & (values[:, ~unseen] <= 1.0)).all()


def test_a_member_is_a_random_forest_per_column_on_its_resample():
    rng = np.random.default_rng(3)
    points = rng.random((50, 4)).astype(np.float32)
    scores = coins(50, 2)
    resamples = [rng.integers(50, size=40) for _ in range(2)]
    how = Growing(n_trees=7, max_depth=4, n_jobs=1)
    forests = grow_forests(points, scores, resamples, how=how, rng=np.random.default_rng(9))
    seeds = np.random.default_rng(9)
    asked = rng.random((30, 4)).astype(np.float32)

    for member, rows in enumerate(resamples):
        for column in range(2):
            expected = RandomForestClassifier(
                7, max_depth=4, random_state=int(seeds.integers(1 << 31))
            ).fit(points[rows], scores[rows, column])

            assert np.allclose(
                expected.predict_proba(asked)[:, 1],
                forests.members(asked)[:, member, column],
                rtol=0,
                atol=1e-6,
            )


def test_weights_are_accuracies_on_the_other_half_and_the_mean_is_weighted():
    queries, topic = topical(40)
    scores = np.column_stack([topic == 0, coins(40, 1)[:, 0]]).astype(np.float64)
    scores[::5, 0] = np.nan
    predictor = small(5, 7).fit(queries, scores)
    texts = [hash_text(query) for query in queries]
    members = predictor._forests.members(predictor._points(texts))
    held = halves_of(queries, scores, 7).held
    right = np.round(members[held]) == scores[held][:, None, :]
    accuracy = right.sum(axis=(0, 2)) / (~np.isnan(scores[held])).sum()
    estimate = predictor.predict(queries)

    assert 20 == held.size
    assert len(set(predictor.weights_.tolist())) > 1
    assert np.allclose(accuracy / accuracy.sum(), predictor.weights_)
    assert np.allclose(np.average(members, axis=1, weights=accuracy), estimate.prob)
    assert np.allclose(members.std(axis=1), estimate.std)


def test_released_weights_do_not_depend_on_the_validation_labels_but_published_ones_do():
    queries, scores = topical(60)[0], coins(60, 1)
    flipped = scores.copy()
    held = halves_of(queries, scores, 0).held
    flipped[held[::2]] = 1.0 - flipped[held[::2]]

    for released in (True, False):
        before = small(6, as_released=released).fit(queries, scores).weights_
        after = small(6, as_released=released).fit(queries, flipped).weights_

        assert released == (before.tobytes() == after.tobytes())


def test_the_released_defect_changes_weights_only():
    queries, scores = topical(60)[0], coins(60, 2)
    published = small(6).fit(queries, scores)
    released = small(6, as_released=True).fit(queries, scores)

    assert published.weights_.tobytes() != released.weights_.tobytes()
    assert published.predict(TOPICS).std.tobytes() == released.predict(TOPICS).std.tobytes()


def test_where_nothing_coincides_released_weights_are_equal():
    scores = np.full((40, 1), 0.5)
    predictor = small(3, as_released=True, n_components=0).fit(topical(40)[0], scores)

    assert [1 / 3] * 3 == predictor.weights_.tolist()


def test_a_learned_topic_is_told_from_the_others():
    queries, topic = topical(200)
    scores = np.column_stack([topic == 0, topic != 0]).astype(np.float64)
    prob = small(4, n_trees=20).fit(queries, scores).predict([f"{t}, case x" for t in TOPICS]).prob

    assert min(prob[0, 0], prob[1, 1], prob[2, 1]) > 0.75
    assert max(prob[0, 1], prob[1, 0], prob[2, 0]) < 0.25


def test_out_of_bag_estimates_know_nothing_of_their_own_text():
    letters = np.random.default_rng(2).choice(list("abcdefghijklm"), (60, 30))
    texts = ["".join(row) for row in letters]
    luck = coins(60, 1, seed=5)
    queries, scores = texts * 4, np.tile(luck, (4, 1))
    predictor = small(10, max_depth=10).fit(queries, scores)
    train = halves_of(queries, scores, 0).train
    seen = predictor.predict(queries).prob[train, 0]
    unseen = predictor.oob_.prob[train, 0]

    assert np.corrcoef(seen, scores[train, 0])[0, 1] > 0.8
    assert np.corrcoef(unseen, scores[train, 0])[0, 1] < 0.4


def test_rows_of_one_text_get_one_out_of_bag_estimate():
    queries, topic = topical(30)
    scores = (topic == 0)[:, None].astype(np.float64)
    predictor = small(6).fit(queries * 2, np.tile(scores, (2, 1)))

    assert (predictor.oob_.prob[:30] == predictor.oob_.prob[30:]).all()


def test_rows_without_a_label_neither_train_nor_validate_but_are_estimated():
    queries, topic = topical(40)
    scores = (topic == 0)[:, None].astype(np.float64)
    scores[20:] = np.nan
    halves = halves_of(queries, scores, 0)
    predictor = small().fit(queries, scores)

    assert list(range(20)) == sorted([*halves.train, *halves.held])
    assert [20] == predictor.n_labels_.tolist()
    assert (predictor.oob_.prob[20:] == predictor.predict(queries[20:]).prob).all()


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_a_column_of_one_class_is_predicted_as_that_class(score):
    scores = np.column_stack([np.full(20, score), coins(20, 1)[:, 0]])
    estimate = small().fit(topical(20)[0], scores).predict(["anything", ""])

    assert [score, score] == estimate.prob[:, 0].tolist()
    assert [0.0, 0.0] == estimate.std[:, 0].tolist()


def test_a_column_without_a_label_in_the_training_half_is_predicted_as_its_mean():
    queries = topical(20)[0]
    scores = np.column_stack([coins(20, 1)[:, 0], np.full(20, np.nan)])
    held = halves_of(queries, scores, 0).held
    scores[held[:4], 1] = [1.0, 0.0, 0.0, 0.0]

    assert [0.25] == small().fit(queries, scores).predict(["x"]).prob[:, 1].tolist()


def test_labels_of_other_columns_do_not_change_a_column():
    queries, topic = topical(40)
    one = (topic == 0).astype(np.float64)
    alone = np.column_stack([one, np.full(40, np.nan)])
    beside = np.column_stack([one, coins(40, 1)[:, 0]])
    first = small().fit(queries, alone)
    second = small().fit(queries, beside)

    assert first.predict(queries).std[:, 0].tolist() == second.predict(queries).std[:, 0].tolist()


@pytest.mark.parametrize("score", [0.2, 0.5, 0.8])
def test_soft_labels_are_learned_as_their_mean(score):
    queries, topic = topical(120)
    scores = np.where(topic == 0, score, 1.0)[:, None]
    prob = small(5, n_trees=8).fit(queries, scores).predict([f"{TOPICS[0]}, case x"]).prob

    assert abs(score - prob[0, 0]) < 0.15


def test_whole_labels_have_no_weights_and_soft_ones_are_split():
    from optllm_router.core.growing import _hard_labels

    rows, label, weight = _hard_labels(np.array([1.0, 0.25, 0.0]), np.array([0, 1, 1, 2]))

    assert _hard_labels(np.array([1.0, 0.0]), np.array([0, 1]))[2] is None
    assert [0, 1, 1, 2, 1, 1] == rows.tolist()
    assert [1, 1, 1, 0, 0, 0] == label.tolist()
    assert [1.0, 0.25, 0.25, 1.0, 0.75, 0.75] == weight.tolist()


def test_tasks_and_shapes_do_not_count():
    queries, topic = topical(30)
    texts = [hash_text(query) for query in queries]
    scores = (topic == 0)[:, None].astype(np.float64)
    plain = small().fit_features(texts, scores)
    told = small().fit_features(texts, scores, tasks=["t"] * 30, shapes=np.ones((30, 5)))

    assert () == told.tasks_
    assert arrays_bytes(plain) == arrays_bytes(told)
    asked = told.predict_features(texts, tasks=["u"] * 30, shapes=np.zeros((30, 5)))
    assert plain.predict_features(texts).prob.tobytes() == asked.prob.tobytes()


def test_robust_estimates_add_alpha_deviations():
    estimate = SuccessEstimate(np.array([[0.5, np.nan]]), np.array([[0.2, np.nan]]))

    assert [0.6] == small().robust(estimate)[0, :1].tolist()
    assert [0.3] == small(alpha=-1.0).robust(estimate)[0, :1].tolist()
    assert np.isnan(small().robust(estimate)[0, 1])


def test_without_spread_there_is_no_deviation():
    predictor = small().fit(topical(30)[0], coins(30, 2))
    texts = [hash_text(topic) for topic in TOPICS]
    quick = predictor.predict_features(texts, spread=False)

    assert np.isnan(quick.std).all()
    assert predictor.predict_features(texts).prob.tobytes() == quick.prob.tobytes()


def test_a_text_alone_or_from_the_log_gets_the_same_bits_as_a_new_one_among_others():
    queries, topic = topical(40)
    fresh = [hash_text(query) for query in queries]
    logged = [unpack(pack(text)) for text in fresh]
    scores = (topic == 0)[:, None].astype(np.float64)
    predictor = small().fit_features(logged, scores, groups=queries)
    together = predictor.predict_features(fresh).prob
    alone = [predictor.predict_features([text]).prob for text in fresh]

    assert arrays_bytes(small().fit(queries, scores)) == arrays_bytes(predictor)
    assert together.tobytes() == predictor.predict_features(logged).prob.tobytes()
    assert together.tobytes() == np.concatenate(alone).tobytes()


def test_many_queries_get_what_few_get():
    predictor = small().fit(topical(40)[0], coins(40, 2))
    texts = [hash_text(query) for query in topical(300, 1)[0]] * 60
    many, few = predictor.predict_features(texts), predictor.predict_features(texts[:300])

    assert np.allclose(np.tile(few.prob, (60, 1)), many.prob, rtol=0, atol=1e-9)
    assert np.allclose(np.tile(few.std, (60, 1)), many.std, rtol=0, atol=1e-9)


def test_the_same_data_and_seed_give_the_same_bytes_whatever_the_threads():
    queries, scores = topical(60)[0], coins(60, 2)
    one = arrays_bytes(small(n_jobs=1).fit(queries, scores))

    assert one == arrays_bytes(small(n_jobs=2).fit(queries, scores))
    assert one != arrays_bytes(small(seed=1).fit(queries, scores))


def test_plain_arrays_bring_the_predictor_back_bit_for_bit():
    scores = coins(60, 3)
    scores[:, 1] = np.nan
    predictor = small(alpha=0.25, as_released=True).fit(topical(60)[0], scores)
    arrays = predictor.to_arrays()
    again = ForestPredictor.from_arrays(arrays)
    before, after = predictor.predict(TOPICS), again.predict(TOPICS)

    assert not any(array.dtype.hasobject for array in arrays.values())
    assert (0.25, True, [60, 0, 60]) == (again.alpha, again.as_released, again.n_labels_.tolist())
    assert before.prob.tobytes() == after.prob.tobytes()
    assert before.std.tobytes() == after.std.tobytes()


@pytest.mark.parametrize("name", ["forests", "member_weights", "n_labels"])
def test_arrays_that_do_not_fit_together_are_refused(name):
    arrays = small().fit(topical(20)[0], coins(20, 2)).to_arrays()

    with pytest.raises(ValueError, match="do not fit together"):
        ForestPredictor.from_arrays({**arrays, name: arrays[name][:-1]})


def test_texts_without_features_are_predicted_as_the_mean_label():
    scores = np.array([[1.0], [0.0]] * 100)
    prob = small(12, n_trees=8).fit([""] * 200, scores).predict(["", "x"]).prob

    assert np.abs(prob - 0.5).max() < 0.1


@pytest.mark.parametrize(
    "wrong",
    [{"n_bootstraps": 1}, {"seed": -1}, {"n_trees": 0}, {"max_depth": 0}, {"n_components": -1}],
)
def test_a_setting_below_its_least_value_is_refused(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
        ForestPredictor(**wrong)


def test_an_unfitted_forest_says_so():
    for refused in (lambda: small().predict(["x"]), lambda: small().to_arrays()):
        with pytest.raises(NotTrainedError, match="call `fit` first"):
            refused()


def test_one_text_instead_of_a_list_is_refused():
    with pytest.raises(TypeError, match="pass a list"):
        small().fit("text", coins(4, 1))


def child(code):
    """Run code in a process of its own, where this package is found."""
    root = str(Path(optllm_router.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, {root!r})\n{code}"],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_stored_forest_is_served_without_scikit_learn(tmp_path):
    predictor = small().fit(topical(30)[0], coins(30, 2))
    np.savez(tmp_path / "forest.npz", **predictor.to_arrays())
    served = child(
        "sys.modules['sklearn'] = None\n"
        "import numpy as np\n"
        "from optllm_router.core.forest import ForestPredictor\n"
        f"arrays = dict(np.load({str(tmp_path / 'forest.npz')!r}))\n"
        f"print(ForestPredictor.from_arrays(arrays).predict({TOPICS!r}).prob.tolist())"
    )

    assert f"{predictor.predict(TOPICS).prob.tolist()}\n" == served.stdout, served.stderr


def test_fitting_without_scikit_learn_names_the_way_out():
    failed = child(
        "sys.modules['sklearn'] = None\n"
        "import numpy as np\n"
        "from optllm_router.core.forest import ForestPredictor\n"
        "ForestPredictor(2).fit(list('abcdefgh'), np.array([[0.0], [1.0]] * 4))"
    )

    assert "ImportError: the forests are grown by scikit-learn, which is missing" in failed.stderr
    assert "`pip install scikit-learn`, or take the ridge predictor" in failed.stderr
