"""The success predictor: what it learns, what it refuses, and what must never happen."""

import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optllm_router.core.features import hash_text
from optllm_router.core.success import MAX_TASKS, SuccessPredictor
from optllm_router.core.success.ensemble import RidgeEnsemble
from optllm_router.errors import NotTrainedError

TOPICS = ["cook a soup of carrots", "integrate the function", "book a train to Rome"]


def topical(n, seed=0):
    """Texts of three topics and the topic of each."""
    rng = np.random.default_rng(seed)
    topic = rng.integers(3, size=n)
    return [f"{TOPICS[t]}, case {i}" for i, t in enumerate(topic)], topic


def paired(seed):
    """Texts that 25 pairs of words make easy or hard, each met twice; and a new one of each pair.

    Either word alone says nothing, so that only neighbours know a pair. On each text any column
    may be lucky or not, and again as it was before.
    """
    rng = np.random.default_rng(seed)

    def word(n):
        return "".join(rng.choice(list("abcdefghijklmnopqrst"), n))

    first, second = [word(9) for _ in range(5)], [word(9) for _ in range(5)]
    easy, pair = rng.permutation(25) % 2, np.arange(150) % 25
    texts = [f"{first[i // 5]} and then some {second[i % 5]} {word(4)}" for i in pair]
    scores = (easy[pair][:, None] != (rng.random((150, 3)) < 0.25)).astype(np.float64)
    return texts[:125] * 2, np.tile(scores[:125], (2, 1)), texts[125:]


def fitted(scores, queries=None, tasks=None, **settings_):
    queries = queries or [f"text {i}" for i in range(len(scores))]
    return SuccessPredictor(settings_.pop("n_bootstraps", 8), **settings_).fit(
        queries, np.asarray(scores, dtype=np.float64), tasks
    )


def predicted_bytes(predictor, queries, tasks=None):
    estimate = predictor.predict(queries, tasks)
    return estimate.prob.tobytes() + estimate.std.tobytes()


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 3), st.integers(0, 10_000), st.sampled_from([0.0, 0.5, 0.95])
)
def test_estimates_are_probabilities_or_unknown_on_any_small_table(n, m, seed, hidden):
    rng = np.random.default_rng(seed)
    scores = rng.choice([0.0, 0.25, 1.0], size=(n, m))
    scores[rng.random((n, m)) < hidden] = np.nan
    scores[0, 0] = rng.random()
    queries = list(rng.choice(["", "a", "one text", "another text", "\0\ud800"], n))
    tasks = list(rng.choice(["", "t", "u"], n))
    predictor = SuccessPredictor(3, seed).fit(queries, scores, tasks)
    unseen = np.isnan(scores).all(axis=0)

    for estimate in (predictor.oob_, predictor.predict([*queries, "new"], [*tasks, "never met"])):
        for values in (estimate.prob, estimate.std):
            assert np.isnan(values[:, unseen]).all()
            assert ((values[:, ~unseen] >= 0.0) & (values[:, ~unseen] <= 1.0)).all()


def test_a_learned_topic_is_told_from_the_others():
    queries, topic = topical(300)
    scores = np.column_stack([topic == 0, topic != 0, np.ones(300)]).astype(np.float64)
    prob = fitted(scores, queries).predict([f"{t}, case x" for t in TOPICS]).prob

    assert (prob[0] > [0.8, -1, 0.9]).all()
    assert (prob[0, 1], prob[1, 0], prob[2, 0]) < (0.2, 0.2, 0.2)
    assert prob[1:, 1].min() > 0.8


def test_a_task_is_learned_without_any_text():
    tasks = ["sums", "poems"] * 60
    scores = np.array([[1.0, 0.0], [0.0, 1.0]] * 60)
    predictor = SuccessPredictor(8).fit_features([hash_text("")] * 120, scores, tasks=tasks)
    prob = predictor.predict(["", ""], ["sums", "poems"]).prob

    assert np.diag(prob).min() > 0.9
    assert prob[[0, 1], [1, 0]].max() < 0.1


def test_an_unknown_task_counts_as_none():
    tasks = ["sums", "poems"] * 30
    predictor = fitted([[1.0], [0.0]] * 30, [""] * 60, tasks)

    assert predicted_bytes(predictor, ["x"], [""]) == predicted_bytes(predictor, ["x"], ["novel"])


def test_only_the_most_frequent_tasks_have_an_indicator_ties_by_name():
    rare = [f"rare {i:03d}" for i in range(MAX_TASKS + 30)]
    tasks = ["often"] * 3 + rare + [""] * 200
    predictor = fitted([[0.5]] * len(tasks), [""] * len(tasks), tasks)

    assert ("often", *rare[: MAX_TASKS - 1]) == predictor.tasks_


def test_tasks_beyond_the_indicators_are_predicted_as_no_task():
    rare = [f"rare {i:03d}" for i in range(MAX_TASKS + 2)]
    scores = [[1.0]] * MAX_TASKS + [[0.0]] * 2
    predictor = fitted(scores, [""] * len(rare), rare)
    prob = predictor.predict(["", "", ""], [*rare[-2:], ""]).prob

    assert 1 == len(set(prob[:, 0].tolist()))


def test_few_labels_stay_near_the_overall_mean():
    prob = fitted([[1.0, np.nan], [1.0, 0.0], [1.0, np.nan], [0.0, 1.0]]).predict(["x"]).prob

    assert np.abs(prob - 4 / 6).max() < 0.35


@pytest.mark.parametrize("score", [0.0, 0.3, 1.0])
def test_equal_labels_are_predicted_exactly_and_surely(score):
    estimate = fitted(np.full((40, 2), score), topical(40)[0]).predict(["anything", ""])

    assert np.allclose(score, estimate.prob, atol=1e-6)
    assert np.allclose(0.0, estimate.std, atol=1e-6)


def test_soft_labels_are_learned_as_they_are():
    queries, topic = topical(300)
    scores = np.array([0.25, 0.5, 0.75])[topic][:, None]
    prob = fitted(scores, queries).predict([f"{t}, case x" for t in TOPICS]).prob[:, 0]

    assert np.abs(prob - [0.25, 0.5, 0.75]).max() < 0.08


def test_one_query_and_one_label_are_enough():
    predictor = fitted([[1.0]])
    estimate = predictor.predict(["text 0"])

    assert (1, 1) == estimate.prob.shape
    assert 1.0 == predictor.oob_.prob[0, 0] == estimate.prob[0, 0]
    assert [1] == predictor.n_labels_.tolist()


def test_a_column_without_labels_is_unknown_and_harms_nobody():
    scores = np.array([[1.0, np.nan, 0.0], [0.0, np.nan, 1.0]] * 10)
    with_hole, without = fitted(scores), fitted(scores[:, [0, 2]])
    estimate = with_hole.predict(["text 3", "new"])

    assert [20, 0, 20] == with_hole.n_labels_.tolist()
    assert np.isnan(estimate.prob[:, 1]).all()
    assert np.isnan(estimate.std[:, 1]).all()
    assert np.allclose(without.predict(["text 3", "new"]).prob, estimate.prob[:, [0, 2]])


def test_a_column_without_labels_harms_nobody_among_neighbours_either():
    queries, scores, new = paired(0)
    hidden = np.insert(scores, 1, np.nan, axis=1)
    with_hole, without = fitted(hidden, queries), fitted(scores, queries)
    asked = [queries[0], new[0], "nothing known"]
    one, other = with_hole.predict(asked), without.predict(asked)

    assert with_hole._neighbours is not None
    assert np.isnan(one.prob[:, 1]).all()
    assert np.isnan(one.std[:, 1]).all()
    assert np.isnan(with_hole.column_score_).tolist() == [False, True, False, False]
    assert np.allclose(other.prob, one.prob[:, [0, 2, 3]], atol=1e-5)
    assert np.allclose(other.std, one.std[:, [0, 2, 3]], atol=1e-4)
    assert np.allclose(without.oob_.prob, with_hole.oob_.prob[:, [0, 2, 3]], atol=1e-5)


def test_a_text_that_was_met_keeps_what_columns_did_on_it_when_new_texts_keep_nothing():
    queries, scores, new = paired(1)
    predictor = fitted(scores, queries)
    predictor.set_contrast(0.0)
    met, unmet = predictor.predict(queries).prob, predictor.predict(new).prob
    alike, own = unmet - unmet.mean(axis=1, keepdims=True), met - met.mean(axis=1, keepdims=True)

    assert predictor._neighbours is not None
    assert np.ptp(alike, axis=0).max() < 1e-6
    assert np.corrcoef(own.ravel(), scores.ravel())[0, 1] > 0.5


def test_a_text_that_was_met_keeps_more_than_a_new_one():
    kept = []
    for seed in range(4):
        queries, scores, _ = paired(seed)
        predictor = fitted(scores, queries)
        kept.append((predictor.contrast, predictor._personal.contrast_met))
    new, met = np.mean(kept, axis=0)

    assert met > 0.9
    assert new < 0.4


def test_texts_that_came_again_are_out_of_the_bag_as_new_ones_are():
    queries, scores, _ = paired(2)
    predictor = fitted(scores, queries)

    assert np.mean((predictor.predict(queries).prob - scores) ** 2) < 0.12
    assert np.mean((predictor.oob_.prob - scores) ** 2) > 0.17


def test_a_column_with_one_lucky_label_is_not_preferred_to_proven_ones():
    queries, _ = topical(100)
    scores = np.full((100, 2), np.nan)
    scores[:, 0] = np.arange(100) % 2
    scores[7, 1] = 1.0
    predictor = fitted(scores, queries)

    assert 0.5 == pytest.approx(predictor.column_score_[0])
    assert 0.5 < predictor.column_score_[1] < 0.9


@pytest.mark.parametrize("contrast", [0.0, 0.4, 1.0])
def test_setting_the_contrast_moves_predictions_and_out_of_bag_estimates(contrast):
    queries, topic = topical(120)
    soft = 0.5 + 0.1 * np.column_stack([topic == 0, topic != 0])
    predictor = fitted(soft, queries)
    asked = [f"{t}, case x" for t in TOPICS]
    predictor.set_contrast(1.0)
    full, out_of_bag = predictor.predict(asked).prob, predictor.oob_
    predictor.set_contrast(contrast)

    def differences(prob, level):
        return (prob[:, 0] - prob[:, 1]) - (level[..., 0] - level[..., 1])

    level, elsewhere = predictor.column_score_, predictor.left_out_.column_score
    assert contrast == predictor.contrast
    assert np.allclose(
        contrast * differences(full, level),
        differences(predictor.predict(asked).prob, level),
        atol=1e-9,
    )
    assert np.allclose(
        contrast * differences(predictor.left_out_.prob, elsewhere),
        differences(predictor.oob_.prob, elsewhere),
        atol=1e-9,
    )
    assert np.abs(differences(full, level)).min() > 0.05
    assert out_of_bag.std.tobytes() == predictor.oob_.std.tobytes()


@pytest.mark.parametrize("slope", [0.0, 0.7, 1.3])
def test_the_common_slope_changes_no_difference_new_met_or_out_of_bag(slope):
    queries, scores, new = paired(1)
    predictor = fitted(scores, queries)

    def found(slope):
        predictor._personal = replace(predictor._personal, common_slope=slope)
        predictor.set_contrast(predictor.contrast)
        return np.vstack([predictor.predict([*queries, *new]).prob, predictor.oob_.prob])

    one, other = found(1.0), found(slope)
    assert np.abs(other - one).max() > 0.02
    assert np.allclose(one - one[:, :1], other - other[:, :1], rtol=0, atol=1e-12)


def common_slope_of_words(seed, weight):
    """The slope learned from 150 texts of 4 out of 30 words, each of which eases them or not."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(list("abcdefghijklmnopqrst"), 7)) for _ in range(30)]
    ease, picked = rng.normal(0, weight, 30), rng.integers(30, size=(150, 4))
    chance = 0.5 + ease[picked].sum(axis=1, keepdims=True)
    queries = [" ".join(words[i] for i in row) for row in picked]
    return fitted((rng.random((150, 3)) < chance).astype(float), queries)._personal.common_slope


def test_what_few_labels_understate_is_stretched_and_what_they_make_up_is_not():
    told, nothing = ([common_slope_of_words(seed, w) for seed in range(3)] for w in (0.25, 0.0))

    assert min(told) > 1.05
    assert np.mean(nothing) < 1.0


@pytest.mark.parametrize("contrast", [-0.1, 1.1, np.nan, np.inf])
def test_a_contrast_that_is_no_share_is_refused(contrast):
    predictor = fitted([[1.0, 0.0]] * 5)
    before = predictor.contrast
    with pytest.raises(ValueError) as error:
        predictor.set_contrast(contrast)

    assert f"contrast {contrast!r} is outside [0, 1]" in str(error.value)
    assert before == predictor.contrast


def test_the_contrast_of_a_stored_predictor_can_be_set_and_is_stored():
    queries, scores, _ = paired(1)
    back = SuccessPredictor.from_arrays(fitted(scores, queries).to_arrays())
    back.set_contrast(0.25)
    again = SuccessPredictor.from_arrays(back.to_arrays())

    assert back.oob_ is None
    assert 0.25 == again.contrast
    assert predicted_bytes(back, queries[:5]) == predicted_bytes(again, queries[:5])


def test_arrays_of_before_there_were_neighbours_predict_what_the_ridges_say():
    queries, topic = topical(90)
    scores = np.column_stack([topic == 0, np.full(90, np.nan), topic != 0]).astype(float)
    predictor = fitted(scores, queries)
    arrays = {
        name: array
        for name, array in predictor.to_arrays().items()
        if name not in {"contrast", "column_score"} and not name.startswith(("near_", "stack_"))
    }
    old = SuccessPredictor.from_arrays(arrays)
    serving = old._serving
    asked = [f"{t}, case x" for t in TOPICS]
    components = serving.projection.apply([hash_text(text) for text in asked])
    design = np.hstack([np.ones((3, 1)), components, np.zeros((3, 5))])
    members = serving.ensemble.members(design)
    found = old.predict(asked)

    assert old._neighbours is None
    assert np.isnan(found.prob[:, 1]).all()
    assert np.allclose(
        np.clip(members.mean(axis=1), 0, 1)[:, [0, 2]], found.prob[:, [0, 2]], atol=1e-5
    )
    assert np.allclose(
        np.clip(members, 0, 1).std(axis=1)[:, [0, 2]], found.std[:, [0, 2]], atol=1e-5
    )


def test_a_large_call_does_not_hold_every_member_s_estimates_at_once():
    rng = np.random.default_rng(0)
    ensemble = RidgeEnsemble(rng.random((4, 50, 12)).astype(np.float32) / 4, 0.0)
    design = rng.random((20_000, 4))
    tracemalloc.start()
    spread = ensemble.spread(design)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 16 * 2**20  # all members' would be 46 MiB
    assert np.allclose(ensemble.members(design[-5:]).std(axis=1), spread[-5:], atol=1e-6)


def test_no_queries_give_no_rows():
    predictor = fitted([[1.0, 0.0]] * 5)

    assert (0, 2) == predictor.predict([]).prob.shape
    assert (0, 2) == predictor.predict([], tasks=[]).std.shape


def test_one_query_is_predicted_as_among_many():
    queries, topic = topical(120)
    predictor = fitted((topic == 1)[:, None].astype(float), queries)
    many = predictor.predict(queries).prob

    assert np.allclose([predictor.predict([q]).prob[0] for q in queries[:9]], many[:9], atol=1e-5)


def test_repeated_texts_are_never_on_both_sides_of_the_bag():
    # coin flips, each recorded 10 times: whoever sees a copy knows the answer, nobody else does
    rng = np.random.default_rng(2)
    labels = (rng.random(100) < 0.5).astype(np.float64)
    queries = [f"coin {rng.integers(10**9)} {rng.integers(10**9)}" for _ in range(100)]
    predictor = fitted(np.repeat(labels, 10)[:, None], list(np.repeat(queries, 10)))
    brier = np.mean((predictor.oob_.prob[:, 0] - np.repeat(labels, 10)) ** 2)

    assert 0.24 < brier < 0.34


def test_identical_texts_are_one_group_and_all_members_judge_them():
    predictor = fitted([[1.0], [0.0], [1.0], [1.0]], ["same"] * 4)

    assert np.allclose(predictor.predict(["same"]).prob[0], predictor.oob_.prob, atol=1e-6)


@pytest.mark.parametrize("n_texts", [1, 9])
def test_an_estimate_without_its_spread_has_the_same_bits(n_texts):
    queries, scores, new = paired(0)
    for predictor in (fitted(scores, queries), fitted([[0.5]] * 9)):
        texts = [hash_text(text) for text in new[:n_texts]]
        whole = predictor.predict_features(texts)
        quick = predictor.predict_features(texts, spread=False)

        assert whole.prob.tobytes() == quick.prob.tobytes()
        assert np.isnan(quick.std).all()
        assert not np.isnan(whole.std).any()


def test_a_spread_falls_with_more_labels():
    queries, _ = topical(400)
    scores = (np.random.default_rng(1).random((400, 1)) < 0.5).astype(float)
    few = fitted(scores[:40], queries[:40], n_bootstraps=30).predict(queries[:20])
    many = fitted(scores, queries, n_bootstraps=30).predict(queries[:20])

    assert many.std.mean() < 0.7 * few.std.mean()


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    queries, topic = topical(60)
    scores = (topic == 1)[:, None].astype(float)
    first, again, other = (fitted(scores, queries, seed=seed) for seed in (3, 3, 2**70))

    assert predicted_bytes(first, queries) == predicted_bytes(again, queries)
    assert first.oob_.prob.tobytes() == again.oob_.prob.tobytes()
    assert first.oob_.prob.tobytes() != other.oob_.prob.tobytes()


def test_the_number_of_threads_does_not_change_a_bit(printed_by_threads):
    code = (
        "import sys, hashlib, numpy as np\n"
        "from optllm_router.core.success import SuccessPredictor\n"
        "rng = np.random.default_rng(0)\n"
        "words = [f'{a}{b}' for a in ('red', 'blue', 'iron') for b in 'abcdefghijklmnop']\n"
        "texts = [' '.join(rng.choice(words, 9)) for _ in range(700)]\n"
        "hard = np.array([('redc' in text) != ('ironf' in text) for text in texts])[:, None]\n"
        "scores = (rng.random((700, 3)) < np.where(hard, 0.1, 0.9)).astype(float)\n"
        "arrays = SuccessPredictor(10).fit(texts, scores).to_arrays()\n"
        "assert 'near_places' in arrays\n"
        "kept = b''.join(arrays[name].tobytes() for name in sorted(arrays))\n"
        "print(hashlib.sha256(kept).hexdigest())\n"
    )

    assert 1 == len(printed_by_threads(code))


@pytest.mark.parametrize("n_texts", [50, 650])
def test_stored_arrays_predict_the_same_bits(n_texts):
    queries, topic = topical(n_texts)
    tasks = [["", "x\0", "ü\ud800", "a" * 500][i % 4] for i in range(n_texts)]
    predictor = fitted((topic == 1)[:, None].astype(float), queries, tasks, seed=2**65)
    back = SuccessPredictor.from_arrays(predictor.to_arrays())

    assert predictor.tasks_ == back.tasks_
    assert (predictor.n_bootstraps, predictor.seed) == (back.n_bootstraps, back.seed)
    assert predicted_bytes(predictor, queries[:40], tasks[:40]) == predicted_bytes(
        back, queries[:40], tasks[:40]
    )


def test_no_array_holds_objects():
    arrays = fitted([[1.0]] * 3, tasks=["a", "", "b"]).to_arrays()

    assert not any(array.dtype.hasobject for array in arrays.values())


def test_one_endless_text_does_not_take_memory_for_all():
    queries = ["x" * 2_000_000, *(f"text {i}" for i in range(2_000))]
    predictor = fitted([[0.5]] * len(queries), queries, n_bootstraps=2, n_components=4)

    assert (1, 1) == predictor.predict(["y" * 2_000_000]).prob.shape


def test_shapes_of_queries_count():
    rng = np.random.default_rng(0)
    shapes = np.zeros((200, 5))
    shapes[:, 3] = rng.integers(2, size=200)
    texts = [hash_text("")] * 200
    predictor = SuccessPredictor(8).fit_features(texts, shapes[:, 3:4], shapes=shapes)
    with_image, without = np.zeros((1, 5)), np.zeros((1, 5))
    with_image[0, 3] = 1.0

    assert predictor.predict_features(texts[:1], shapes=with_image).prob[0, 0] > 0.8
    assert predictor.predict_features(texts[:1], shapes=without).prob[0, 0] < 0.2
    assert 0.3 < predictor.predict_features(texts[:1]).prob[0, 0] < 0.7


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([[0.5], [1.1]], "score 1.1 of query 1, column 0 is outside [0, 1]"),
        ([[-0.1], [1.0]], "score -0.1 of query 0, column 0 is outside [0, 1]"),
        ([[np.inf], [1.0]], "score inf of query 0, column 0 is outside [0, 1]"),
        ([[np.nan], [np.nan]], "no score is observed"),
        ([[], []], "no score is observed"),
        ([[1.0]], "scores of shape (1, 1) do not fit 2 queries"),
        ([1.0, 0.0], "scores of shape (2,) do not fit 2 queries"),
    ],
)
def test_bad_scores_are_refused_with_the_cell_and_the_rule(scores, said):
    with pytest.raises(ValueError) as error:
        SuccessPredictor(4).fit(["a", "b"], np.array(scores, dtype=np.float64))

    assert said in str(error.value)


def test_no_queries_cannot_be_fitted():
    with pytest.raises(ValueError) as error:
        SuccessPredictor(4).fit([], np.empty((0, 2)))

    assert "no score is observed" in str(error.value)


def test_tasks_must_be_one_per_query():
    with pytest.raises(ValueError) as error:
        SuccessPredictor(4).fit(["a", "b"], np.ones((2, 1)), ["only one"])

    assert "1 tasks for 2 queries" in str(error.value)


@pytest.mark.parametrize("bad", [{"n_bootstraps": 1}, {"seed": -1}, {"n_components": -1}])
def test_settings_that_make_no_ensemble_are_refused(bad):
    with pytest.raises(ValueError) as error:
        SuccessPredictor(**bad)

    assert "at least 2 members" in str(error.value)


def test_one_text_instead_of_a_list_is_refused():
    with pytest.raises(TypeError) as error:
        fitted([[1.0]]).predict("what is this")

    assert "pass a list of texts" in str(error.value)


def test_an_unfitted_predictor_says_so():
    for ask in (
        lambda p: p.predict(["x"]),
        lambda p: p.to_arrays(),
        lambda p: p.set_contrast(0.5),
    ):
        with pytest.raises(NotTrainedError) as error:
            ask(SuccessPredictor())

        assert "call `fit` first" in str(error.value)
    assert 0 == SuccessPredictor().n_columns
