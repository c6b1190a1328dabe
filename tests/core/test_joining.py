"""Newcomers: what they borrow, what their labels do, and that no other column changes by a bit."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optllm_router.core.amounts import AmountForecast
from optllm_router.core.estimates import estimate
from optllm_router.core.features import hash_text, hash_texts
from optllm_router.core.fitting import fit_snapshot
from optllm_router.core.forest import ForestPredictor
from optllm_router.core.joining import FEW, few_labels, join_amounts, join_columns
from optllm_router.core.likeness import Likeness
from optllm_router.core.snapshot import OPTIMISM_STRENGTH, Snapshot
from optllm_router.core.success import NewLabels, SuccessPredictor, join
from optllm_router.core.success.newcomer import LEVEL_STRENGTH, Level
from optllm_router.errors import NotTrainedError
from optllm_router.records import Candidate

from .conftest import EASY, HARD, token_price
from .test_snapshot import rewritten
from .test_success import paired

NAN = np.nan
ASKED = [*(EASY.format(i) for i in range(3)), *(HARD.format(i) for i in range(3)), "never met", ""]
EVEN = Likeness(np.full(3, 1 / 3), 0.0)
PAIRED, PAIRED_SCORES, PAIRED_NEW = paired(1)


def labels(scores, texts=None, **others):
    texts = texts or [f"{(EASY, HARD)[i % 2]} again".format(900 + i) for i in range(len(scores))]
    return NewLabels(texts=hash_texts(texts), scores=np.asarray(scores, dtype=float), **others)


def bits(predictor, columns, texts=ASKED):
    """Every bit of some columns' estimates: of many queries, of single ones, and by task."""
    found = [predictor.predict(texts, ["prose"] * len(texts))]
    found += [predictor.predict([text]) for text in texts]
    return b"".join(e.prob[:, columns].tobytes() + e.std[:, columns].tobytes() for e in found)


@pytest.fixture
def fitted(training):
    """Three columns on 160 texts."""
    return SuccessPredictor(12).fit_features(
        training.texts, training.scores, tasks=training.tasks, groups=training.groups
    )


@pytest.fixture
def newcomer():
    return Candidate(name="large-2", model="p/large-2", price=token_price(2, 8))


def answers(training, candidate, scores, output_tokens=None):
    """The first rows of a training set as answers of one candidate alone."""
    n = len(scores)
    tokens = np.full(n, NAN) if output_tokens is None else np.asarray(output_tokens, dtype=float)
    return replace(
        training,
        columns=(candidate.name,),
        **{
            name: getattr(training, name)[:n]
            for name in ("texts", "tasks", "groups", "shapes", "prompt_tokens")
        },
        scores=np.asarray(scores, dtype=float)[:, None],
        output_tokens=tokens[:, None],
        cost_usd=np.full((n, 1), NAN),
    )


# -- the predictor --------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.booleans(), st.integers(1, 30), st.integers(0, 99), st.sampled_from([0.0, 0.3, 1.0]))
def test_no_bit_of_another_column_changes(plain, with_neighbours, is_near, n, seed, contrast):
    before = SuccessPredictor.from_arrays((with_neighbours if is_near else plain).to_arrays())
    before.set_contrast(contrast)
    known = PAIRED[:4] + PAIRED_NEW[:4]
    rng = np.random.default_rng(seed)
    texts = [*(str(rng.choice([EASY, HARD])).format(rng.integers(300)) for _ in range(n)), *known]
    after = join(before, 3, EVEN, labels(rng.choice([0.0, 0.5, 1.0], n + 8), texts))

    assert bits(before, [0, 1, 2], ASKED + known) == bits(after, [0, 1, 2], ASKED + known)
    assert 4 == after.n_columns
    assert [*before.n_labels_, n + 8] == after.n_labels_.tolist()


@pytest.fixture(scope="module")
def plain():
    """Three columns without neighbours."""
    texts = [(EASY if i % 2 else HARD).format(i) for i in range(160)]
    chance = np.where(np.arange(160)[:, None] % 2, [0.9, 0.95, 0.95], [0.1, 0.6, 0.9])
    scores = (np.random.default_rng(1).random((160, 3)) < chance).astype(float)
    predictor = SuccessPredictor(12).fit(texts, scores)
    predictor._neighbours = None
    return predictor


@pytest.fixture(scope="module")
def with_neighbours():
    """Three columns of which neighbours know what a linear model cannot."""
    predictor = SuccessPredictor(12).fit(PAIRED, PAIRED_SCORES)
    assert predictor._neighbours is not None
    return predictor


def test_a_fit_of_all_columns_does_change_the_others(training, fitted):
    # what the test above would not let pass
    scores = np.column_stack([training.scores, np.where(np.arange(160) < 5, 1.0, NAN)])
    again = SuccessPredictor(12).fit_features(
        training.texts, scores, tasks=training.tasks, groups=training.groups
    )

    assert bits(fitted, [0, 1, 2]) != bits(again, [0, 1, 2])


def test_a_newcomer_changes_no_bit_of_an_earlier_one(fitted):
    first = join(fitted, 3, EVEN, labels([1, 0, 1]))
    second = join(first, 4, EVEN, labels([0, 0]))

    assert bits(first, [0, 1, 2, 3]) == bits(second, [0, 1, 2, 3])
    assert 5 == second.n_columns


def test_the_predictor_that_is_joined_stays_as_it_is(fitted):
    before = bits(fitted, [0, 1, 2])
    join(fitted, 3, EVEN, labels([1, 0, 1]))

    assert 3 == fitted.n_columns
    assert before == bits(fitted, [0, 1, 2])


def test_a_newcomer_is_the_lenders_mean_about_its_own_level(fitted):
    fitted._personal = replace(fitted._personal, contrast=1.0, common_slope=1.0)
    fitted._neighbours = None
    mix, score = np.array([0.2, 0.3, 0.5]), fitted.column_score_
    known = fitted.by_fitted(hash_texts(ASKED), [""] * len(ASKED), None, spread=False).prob
    joined = join(fitted, 3, Likeness(mix, 0.0), labels([1.0]))
    expected = joined.column_score_[3] + (known - score) @ mix

    assert np.clip(expected, 0, 1) == pytest.approx(joined.predict(ASKED).prob[:, 3], abs=1e-12)


@pytest.mark.parametrize("slope", [0.5, 1.2])
def test_a_newcomer_moves_by_the_slope_of_what_the_fitted_have_in_common(
    fitted, query_texts, slope
):
    rows = np.arange(12)
    like, few = Likeness(EVEN.mix, -0.4), labels(rows % 2, query_texts[:12], rows=rows)

    def found(slope):
        fitted._personal = replace(fitted._personal, common_slope=slope)
        fitted.set_contrast(0.6)
        joined = join(fitted, 3, like, few)
        return joined.predict(ASKED).prob, joined.oob_.prob, fitted.oob_.prob

    for one, other in zip(found(1.0)[:2], found(slope)[:2], strict=True):
        moved = other - one
        assert np.abs(moved[:, 0]).max() > 0.01
        assert np.tile(moved[:, :1], 4) == pytest.approx(moved, abs=1e-12)
    _, joined, alone = found(slope)
    assert alone.tobytes() == joined[:, :3].tobytes()


def test_a_level_is_shrunk_as_by_labels_that_were_as_expected():
    level = Level(0.5, np.full(4, 0.5))

    assert 0.5 + 2.0 / (4 + LEVEL_STRENGTH) == level.score
    assert np.sqrt(0.625 * 0.375 / (4 + LEVEL_STRENGTH + 1)) == pytest.approx(level.std)
    assert 0.5 == Level(0.5, np.zeros(0)).score


def test_a_level_elsewhere_is_without_the_text():
    level = Level(0.5, np.array([0.3, 0.1, 0.5]))
    found = level.elsewhere(np.array([7, 7, 2]))

    assert [0.5 + 0.5 / 13, 0.5 + 0.5 / 13, 0.5 + 0.4 / 14] == pytest.approx(found.tolist())


def test_without_labels_of_its_own_a_level_is_what_is_expected_of_it(fitted):
    mean = fitted.column_score_ @ EVEN.mix
    scores = [
        join(fitted, 3, replace(EVEN, shift=shift), labels([mean])).column_score_[3]
        for shift in (-0.2, 0.0, 0.2)
    ]

    assert scores[0] < scores[1] < scores[2]
    assert 0.4 * LEVEL_STRENGTH / (LEVEL_STRENGTH + 1) == pytest.approx(scores[2] - scores[0])


def test_few_labels_move_a_newcomer_part_of_the_way(fitted):
    probs = [
        join(fitted, 3, EVEN, labels([score] * n)).predict(["never met"]).prob[0, 3]
        for score, n in ((0.0, 20), (0.0, 3), (1.0, 3), (1.0, 20))
    ]

    assert probs == sorted(probs)
    assert probs[2] - probs[1] < 0.35
    assert probs[3] - probs[0] > 0.5


def test_a_newcomer_is_less_certain_than_the_others_and_labels_help(fitted):
    few, many = (join(fitted, 3, EVEN, labels([1, 0] * n)).predict(ASKED).std for n in (2, 15))

    assert (few[:, 3] > 2 * few[:, :3].mean(axis=1)).all()
    assert (many[:, 3] < few[:, 3]).all()


def test_a_newcomer_that_fails_at_one_kind_of_query_is_known_for_it(with_neighbours):
    with_neighbours.set_contrast(1.0)
    good = with_neighbours.predict(PAIRED[:25]).prob.mean(axis=1) < 0.5  # unlike all others
    unlike, alike = (
        join(with_neighbours, 3, EVEN, labels(scores, PAIRED[:25])).predict(PAIRED_NEW).prob[:, 3]
        for scores in (good, np.full(25, good.mean()))
    )

    assert unlike[good].mean() - unlike[~good].mean() > 0.1 + (
        alike[good].mean() - alike[~good].mean()
    )


def test_a_text_that_only_a_newcomer_met_counts_as_met_for_it_alone(with_neighbours):
    with_neighbours.set_contrast(0.0, met=1.0)
    scores = np.arange(20) % 2.0
    before = bits(with_neighbours, [0, 1, 2], PAIRED_NEW)
    joined = join(with_neighbours, 3, EVEN, labels(scores, PAIRED_NEW[:20]))
    prob = joined.predict(PAIRED_NEW[:20]).prob[:, 3]

    assert prob[scores == 0.0].max() < 0.4
    assert prob[scores == 1.0].min() > 0.6
    assert before == bits(joined, [0, 1, 2], PAIRED_NEW)


@pytest.mark.parametrize("score", [0.0, 1.0])
@pytest.mark.parametrize("n", [1, 30])
def test_labels_that_are_all_equal_leave_a_newcomer_uncertain(with_neighbours, score, n):
    joined = join(with_neighbours, 3, EVEN, labels([score] * n))
    found = joined.predict(ASKED)

    assert 0.02 <= joined.column_score_[3] <= 0.98
    assert (found.std[:, 3] > 0.0).all()
    assert np.isfinite(found.prob).all()
    assert abs(score - joined.column_score_[3]) < abs(score - EVEN.mix @ joined.column_score_[:3])


def test_joining_again_replaces_what_was_joined(fitted):
    twice = join(join(fitted, 3, EVEN, labels([0, 0])), 3, EVEN, labels([1, 0, 1]))
    once = join(fitted, 3, EVEN, labels([1, 0, 1]))

    assert [3] == twice.n_labels_[3:].tolist()
    assert bits(once, [0, 1, 2, 3]) == bits(twice, [0, 1, 2, 3])


def test_a_column_without_labels_is_filled_in_where_it_stands(training):
    scores = training.scores.copy()
    scores[:, 1] = NAN
    before = SuccessPredictor(12).fit_features(training.texts, scores, groups=training.groups)
    after = join(before, 1, Likeness(np.array([0.5, 0.0, 0.5]), 0.0), labels([1, 0, 1]))

    assert [True, False, True] == after.fitted_.tolist()
    assert np.isnan(before.predict(ASKED).prob[:, 1]).all()
    assert np.isfinite(after.predict(ASKED).prob).all()
    assert bits(before, [0, 2]) == bits(after, [0, 2])


def test_stored_arrays_of_newcomers_predict_the_same_bits(training):
    scores = training.scores.copy()
    scores[:, 1] = NAN
    predictor = SuccessPredictor(12, seed=5).fit_features(
        training.texts, scores, groups=training.groups
    )
    like = Likeness(np.array([0.5, 0.0, 0.5]), 0.1)
    for column, given_ in ((3, [1, 0, 1]), (1, [0]), (4, [1] * 9), (3, [1, 0, 1, 1])):
        predictor = join(predictor, column, like, labels(given_))
    back = SuccessPredictor.from_arrays(predictor.to_arrays())

    assert 1.0 != predictor._personal.common_slope
    assert [True, False, True, False, False] == back.fitted_.tolist()
    assert bits(predictor, range(5)) == bits(back, range(5))
    assert bits(join(predictor, 5, like, labels([1])), range(6)) == bits(
        join(back, 5, like, labels([1])), range(6)
    )


def test_stored_neighbours_of_newcomers_predict_the_same_bits(with_neighbours):
    joined = join(with_neighbours, 3, EVEN, labels([1, 0] * 5, PAIRED_NEW[:10]))
    joined = join(joined, 4, EVEN, labels([1], PAIRED_NEW[:1]))
    back = SuccessPredictor.from_arrays(joined.to_arrays())

    assert bits(joined, range(5), PAIRED_NEW) == bits(back, range(5), PAIRED_NEW)


def test_arrays_of_before_there_were_neighbours_can_be_joined(with_neighbours):
    arrays = {
        name: array
        for name, array in with_neighbours.to_arrays().items()
        if name not in {"contrast", "column_score"} and not name.startswith(("near_", "stack_"))
    }
    old = SuccessPredictor.from_arrays(arrays)
    joined = join(old, 3, EVEN, labels([0.0] * 12))
    back = SuccessPredictor.from_arrays(joined.to_arrays())
    found = joined.predict(PAIRED_NEW).prob

    assert found[:, 3].mean() < found[:, :3].mean() - 0.1
    assert bits(old, [0, 1, 2]) == bits(joined, [0, 1, 2])
    assert bits(joined, range(4)) == bits(back, range(4))
    assert np.isfinite(joined.predict(ASKED).prob).all()


def test_a_refit_forgets_who_joined(training, fitted):
    joined = join(fitted, 3, EVEN, labels([1]))
    joined.fit_features(
        training.texts, training.scores, tasks=training.tasks, groups=training.groups
    )

    assert bits(fitted, [0, 1, 2]) == bits(joined, [0, 1, 2])
    assert [True] * 3 == joined.fitted_.tolist()


@pytest.mark.parametrize(
    ("column", "scores", "said"),
    [
        (0, [1.0], "column 0 of 3 cannot join"),
        (4, [1.0], "column 4 of 3 cannot join"),
        (3, [], "no score is observed"),
        (3, [1.0, NAN], "a score is NaN: pass the newcomer's labelled queries only"),
        (3, [1.5], "score 1.5 of query 0, column 0 is outside [0, 1]"),
    ],
)
def test_what_cannot_join_is_refused(fitted, column, scores, said):
    with pytest.raises(ValueError) as error:
        join(fitted, column, EVEN, labels(scores))

    assert said in str(error.value)


def test_nothing_joins_what_is_not_fitted():
    with pytest.raises(NotTrainedError):
        join(SuccessPredictor(), 0, Likeness(np.zeros(0), 0.0), labels([1.0]))


# -- amounts --------------------------------------------------------------------------------


def forecast(n=FEW):
    tokens = np.linspace(50, 150, n)
    amounts = np.column_stack([100 + tokens, 3 * (100 + tokens)])
    return AmountForecast.fit(amounts, tokens, ["t" if i % 2 else "" for i in range(n)])


def test_amounts_of_a_newcomer_are_in_proportion_to_the_others():
    known, tasks = forecast(), ["t", "", "t"]
    tokens = np.array([60.0, 100.0, 140.0])
    joined = join_amounts(known, 2, 5 * known.predict(tokens, tasks)[:, 0], tokens, tasks)
    asked = np.array([10.0, 90.0, 500.0])
    found = joined.predict(asked, tasks)

    assert found[:, :2].tobytes() == known.predict(asked, tasks).tobytes()
    assert (5 * found[:, 0]).tolist() == pytest.approx(found[:, 2].tolist())
    assert [FEW, FEW, 3] == joined.n_observed.tolist()


def test_one_extreme_writer_is_believed_at_once():
    joined = join_amounts(forecast(), 2, np.array([3.0]), np.array([100.0]), [""])

    assert 3.0 == pytest.approx(joined.predict(np.array([100.0]), [""])[0, 2])


def test_without_much_known_of_others_a_newcomer_is_fitted_by_itself():
    tokens, tasks = np.linspace(9, 99, 12), ["t", "", "u"] * 4
    amounts = np.random.default_rng(0).lognormal(5.0, 0.5, (12, 1)) + tokens[:, None]
    none = AmountForecast.fit(np.full((12, 1), NAN), tokens, tasks)
    joined = join_amounts(none, 1, amounts[:, 0], tokens, tasks)
    alone = AmountForecast.fit(amounts, tokens, tasks)
    asked = (np.array([1.0, 50.0, 1000.0]), ["t", "", "u"])

    for share in (0.1, 0.5, 0.9):
        assert alone.quantile(*asked, share)[:, 0] == pytest.approx(
            joined.quantile(*asked, share)[:, 1]
        )


def test_a_newcomer_that_writes_long_for_one_task_is_known_for_it_bit_by_bit():
    tokens, tasks = np.full(28, 100.0), ["t", ""] * 14
    amounts = np.where(np.arange(28) % 2, 100.0, 300.0)
    apart = []
    for n in (2, 8, 28):
        joined = join_amounts(forecast(), 2, amounts[:n], tokens[:n], tasks[:n])
        apart.append(-np.diff(joined.predict(tokens[:2], tasks[:2])[:, 2]).item())

    assert apart == sorted(apart)
    assert 0 < apart[0] < 120 < apart[-1] < 200


@pytest.mark.parametrize("n", [1, 3, 12])
@pytest.mark.parametrize("share", [0.1, 0.9])
def test_a_newcomers_quantile_covers_its_share_however_few_its_amounts(share, n):
    rng = np.random.default_rng(5)
    covered = []
    for _ in range(200):
        amounts = rng.lognormal(5.0, 0.6, (60, 3)) * [1.0, 4.0, 0.2]
        known = AmountForecast.fit(amounts[:, :2], np.full(60, 9.0), [""] * 60)
        few = np.where(np.arange(60) < n, amounts[:, 2], NAN)
        joined = join_amounts(known, 2, few, np.full(60, 9.0), [""] * 60)
        limit = joined.quantile(np.array([9.0]), [""], share)[0, 2]
        covered.append((amounts[n:, 2] <= limit).mean())

    assert share == pytest.approx(np.mean(covered), abs=0.06)


def test_no_quantile_of_another_column_changes():
    known, asked = forecast(), (np.array([20.0, 90.0]), ["t", ""])
    joined = join_amounts(known, 2, np.array([30.0, 700.0]), np.array([9.0, 99.0]), ["t", ""])
    quantiles = [joined.quantile(*asked, share) for share in np.linspace(0, 1, 11)]

    for share, found in zip(np.linspace(0, 1, 11), quantiles, strict=True):
        assert known.quantile(*asked, share).tobytes() == found[:, :2].tobytes()
    assert (np.diff([found[:, 2] for found in quantiles], axis=0) >= 0).all()


def test_an_amount_that_was_never_observed_is_unknown():
    joined = join_amounts(forecast(), 2, np.array([NAN]), np.array([9.0]), [""])

    assert np.isnan(joined.predict(np.array([9.0]), [""])[0, 2])


# -- snapshots ------------------------------------------------------------------------------


def test_few_labels_are_few_texts_and_few_beside_the_others():
    def few(*n_texts):
        scores = np.full((200, len(n_texts)), NAN)
        for j, n in enumerate(n_texts):
            scores[:n, j] = 1.0
        return few_labels(scores, np.arange(200)).tolist()

    assert [False, True, True, False, False] == few(200, 1, FEW - 1, FEW, 0)
    assert [False, True, False] == few(FEW, FEW // 3, FEW // 3 + 1)
    assert [False, False] == few(FEW - 1, 1)
    assert [False, False] == few(0, 0)


def test_repeated_texts_count_once():
    scores = np.ones((100, 2))
    scores[60:, 1] = NAN
    texts = np.append(np.arange(60) % 5, np.arange(40) + 5)

    assert [False, True] == few_labels(scores, texts).tolist()


def test_a_candidate_joins_a_snapshot_and_nothing_else_changes(
    snapshot, training, candidates, newcomer, queries
):
    texts = [hash_text(query.text) for query in queries]
    joined = join_columns(
        snapshot,
        answers(training, newcomer, [1, 0, 1, 1], [210, 190, 170, 260]),
        [newcomer],
        version="v2",
    )
    before = estimate(snapshot, queries, texts, candidates)
    after = estimate(joined, queries, texts, [*candidates, newcomer])

    assert ("v2", (*snapshot.columns, "large-2")) == (joined.version, joined.columns)
    for name in ("prob", "std", "cost_usd", "allowed"):
        assert getattr(before, name).tobytes() == getattr(after, name)[:, :3].tobytes()
    assert after.allowed[:, 3].all()
    for name in ("traffic_prob", "traffic_cost_usd", "column_score"):
        assert getattr(snapshot, name).tobytes() == getattr(joined, name)[..., :3].tobytes()
        assert np.isfinite(getattr(joined, name)).all()
    assert 0.75 == joined.column_score[3]
    assert snapshot.optimism.gap.tobytes() == joined.optimism.gap[:, :3].tobytes()
    assert snapshot.optimism.gap.mean(axis=1).tolist() == joined.optimism.gap[:, 3].tolist()
    assert {0.25 / (4 + OPTIMISM_STRENGTH)} == set(joined.optimism.variance[:, 3].tolist())


def test_traffic_is_estimated_as_the_queries_would_be(snapshot, training, newcomer):
    joined = join_columns(snapshot, answers(training, newcomer, [1, 0, 1]), [newcomer], version="w")
    found = joined.predictor.predict_features(
        training.texts, tasks=training.tasks, shapes=training.shapes
    )

    assert joined.predictor.column_score_[3] == pytest.approx(
        joined.traffic_prob[:, 3].mean(), abs=0.02
    )
    assert np.corrcoef(found.prob[:, 3], joined.traffic_prob[:, 3])[0, 1] > 0.9


def test_traffic_costs_a_newcomer_what_its_tokens_cost(snapshot, training, newcomer):
    twice = 2 * training.output_tokens[:8, 0]
    joined = join_columns(
        snapshot, answers(training, newcomer, [1] * 8, twice), [newcomer], version="w"
    )
    expected = (training.prompt_tokens * 2 + 2 * training.output_tokens[:, 0] * 8) / 1e6

    assert expected.mean() == pytest.approx(joined.traffic_cost_usd[:, 3].mean(), rel=0.03)


def test_a_joined_snapshot_is_read_back_the_same(snapshot, training, newcomer):
    joined = join_columns(snapshot, answers(training, newcomer, [1, 0]), [newcomer], version="w")
    back = Snapshot.from_bytes(joined.to_bytes())

    assert joined.to_bytes() == back.to_bytes()
    assert bits(joined.predictor, range(4)) == bits(back.predictor, range(4))
    assert joined.front.cost_usd.tobytes() == back.front.cost_usd.tobytes()


def test_a_snapshot_from_before_cost_quantiles_can_be_joined(snapshot, training, newcomer):
    old = Snapshot.from_bytes(rewritten(snapshot.to_bytes(), without=["tokens_ratio", "usd_ratio"]))
    joined = join_columns(
        old, answers(training, newcomer, [1, 0], [150, 250]), [newcomer], version="w"
    )
    asked = (np.array([60.0]), ["prose"])
    low, mean, high = (
        forecast[0, 3]
        for forecast in (
            joined.output_tokens.quantile(*asked, 0.02),
            joined.output_tokens.predict(*asked),
            joined.output_tokens.quantile(*asked, 0.98),
        )
    )

    assert low < mean < high
    assert joined.to_bytes() == Snapshot.from_bytes(joined.to_bytes()).to_bytes()


def test_what_ungraded_answers_said_of_costs_is_kept(training, candidates):
    table = thinned(training, 1, 0)
    snapshot = fit_snapshot(table, candidates, version="v", n_bootstraps=4)
    few = answers(training, candidates[1], [1, 0, 1], [5, 5, 5])
    joined = join_columns(snapshot, few, candidates[1:2], version="w")

    assert 160 == joined.output_tokens.n_observed[1]
    assert snapshot.output_tokens.level.tobytes() == joined.output_tokens.level.tobytes()
    assert [True, False, True] == joined.predictor.fitted_.tolist()


def test_weights_that_do_not_fit_what_joined_are_refused(snapshot, training, newcomer):
    joined = join_columns(snapshot, answers(training, newcomer, [1, 0]), [newcomer], version="w")
    data = rewritten(joined.to_bytes(), predictor_newcomer__mix=np.full((1, 2), 0.5))
    with pytest.raises(ValueError) as error:
        Snapshot.from_bytes(data)

    assert "the predictor's predictor_weights does not fit its 4 columns: refit" == str(error.value)


def test_a_candidate_without_a_label_stays_outside(snapshot, training, newcomer):
    joined = join_columns(snapshot, answers(training, newcomer, [NAN]), [newcomer], version="w")

    assert snapshot.columns == joined.columns


def test_a_candidate_of_unknown_cost_joins_and_is_not_offered(snapshot, training, queries):
    unpriced = Candidate(name="table-2", model="t", price=None, worst_case_nusd=10**9)
    joined = join_columns(snapshot, answers(training, unpriced, [1, 1]), [unpriced], version="w")
    found = estimate(joined, queries[:1], [hash_text("x")], [unpriced])

    assert np.isfinite(found.prob[0, 0])
    assert not found.allowed[0, 0]


def test_only_a_success_predictor_is_joined(snapshot, training, newcomer):
    other = replace(snapshot, predictor=ForestPredictor(2))
    with pytest.raises(TypeError) as error:
        join_columns(other, answers(training, newcomer, [1]), [newcomer], version="w")

    assert "nothing can join a forest predictor: refit it" == str(error.value)


def thinned(training, column, n):
    scores = training.scores.copy()
    scores[n:, column] = NAN
    return replace(training, scores=scores)


def test_a_fit_joins_a_column_with_few_labels_to_the_others(training, candidates):
    few, none = (
        fit_snapshot(thinned(training, 1, n), candidates, version="v", n_bootstraps=12)
        for n in (10, 0)
    )

    assert [True, False, True] == few.predictor.fitted_.tolist()
    assert [160, 10, 160] == few.predictor.n_labels_.tolist()
    assert bits(none.predictor, [0, 2]) == bits(few.predictor, [0, 2])
    assert none.traffic_prob[:, [0, 2]].tobytes() == few.traffic_prob[:, [0, 2]].tobytes()
    assert np.isfinite(few.traffic_prob[:, 1]).all()
    assert none.predictor.contrast == few.predictor.contrast


def test_out_of_bag_a_newcomers_labels_do_not_judge_themselves(training, candidates):
    table = thinned(training, 1, 12)
    flipped = table.scores.copy()
    flipped[4, 1] = 1.0 - flipped[4, 1]
    one, other = (
        fit_snapshot(replace(table, scores=scores), candidates, version="v", n_bootstraps=12)
        for scores in (table.scores, flipped)
    )
    prob, changed = one.predictor.oob_.prob[:, 1], other.predictor.oob_.prob[:, 1]

    assert prob[4] == pytest.approx(changed[4], abs=1e-12)
    assert (np.abs(np.delete(prob - changed, 4)) > 1e-6).all()


def test_columns_that_are_all_poor_are_fitted_as_they_are(training, candidates):
    table = replace(training, scores=np.where(np.arange(160)[:, None] < 20, training.scores, NAN))
    table.scores[3:, 1] = NAN
    snapshot = fit_snapshot(table, candidates, version="v", n_bootstraps=4)

    assert [True] * 3 == snapshot.predictor.fitted_.tolist()
