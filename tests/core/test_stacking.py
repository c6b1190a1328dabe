"""What is stacked: the second estimate and its shares against loops, and what is served."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from optllm_router.core.features import hash_texts
from optllm_router.core.likeness import Likeness
from optllm_router.core.snapshot import Snapshot
from optllm_router.core.success import NewLabels, SuccessPredictor, blending, join
from optllm_router.core.success.serving import Serving
from optllm_router.core.success.stacking import (
    PENALTIES,
    SPREAD,
    Stack,
    fit_folds,
    fit_stack,
    stack_shares,
)

from .test_snapshot import rewritten

NAN = np.nan
ARRAYS = ["stack_weights", "stack_mean", "stack_text", "stack_tasks"]


def table(n, n_columns, seed, strength):
    """Points, scores that follow them by some strength, texts that repeat, and folds of texts."""
    rng = np.random.default_rng(seed)
    points = rng.normal(0.0, 0.5, (n, 4))
    scores = strength * points @ rng.normal(0.0, 1.0, (4, n_columns))
    scores += rng.normal(0.5, 0.3, (n, n_columns))
    texts = np.unique(rng.integers(0, n, n), return_inverse=True)[1]
    return points, scores, texts, texts % 3


tables = st.builds(
    table,
    st.integers(12, 40),
    st.integers(2, 4),
    st.integers(0, 10_000),
    st.sampled_from([0.0, 0.3, 2.0]),
)


def refitted(points, scores, rows, axes, penalty):
    """Mean and coefficients, (n_dimensions, n_axes), of some rows alone at one penalty."""
    mean = scores[rows].mean(axis=0)
    if math.isinf(penalty):
        return mean, np.zeros((points.shape[1], len(axes)))
    gram = points[rows].T @ points[rows] + penalty * np.eye(points.shape[1])
    return mean, np.linalg.solve(gram, points[rows].T @ (scores[rows] - mean) @ axes.T)


def errors_of(fold, number, points, scores, axes, others):
    """Sums of squared errors of a fold, (n_penalties, n_axes), by fits to some other rows."""
    rows = fold == number
    found = []
    for penalty in PENALTIES.tolist():
        mean, coefficients = refitted(points, scores, others, axes, penalty)
        missed = (scores[rows] - mean) @ axes.T - points[rows] @ coefficients
        found.append((missed**2).sum(axis=0))
    return np.array(found)


def chosen(points, scores, fold, axes, rows):
    """The penalties of the least error of each fold of some rows, predicted by the other ones."""
    numbers = sorted(set(fold[rows].tolist()))
    errors = sum(
        errors_of(fold, one, points, scores, axes, rows & (fold != one)) for one in numbers
    )
    lowest = np.sort(errors, axis=0)
    assume((lowest[1] - lowest[0] > 1e-9).all())  # rounding does not decide
    return [PENALTIES[best] for best in errors.argmin(axis=0).tolist()]


def ridge_by_hand(points, scores, fold, axes, rows):
    """Mean and weights of some rows alone, each component at the penalty chosen among them."""
    mean, weights = scores[rows].mean(axis=0), 0.0
    for axis, penalty in zip(axes, chosen(points, scores, fold, axes, rows), strict=True):
        _, coefficients = refitted(points, scores, rows, axis[None, :], penalty)
        weights = weights + coefficients @ axis[None, :]
    return mean, weights


@settings(max_examples=40, deadline=None)
@given(tables)
def test_what_is_left_out_is_what_a_refit_without_the_fold_says(drawn):
    points, scores, _, fold = drawn
    axes = np.linalg.svd(scores - scores.mean(axis=0), full_matrices=False)[2]
    second = fit_folds(points, scores, fold)
    mean, weights = ridge_by_hand(points, scores, fold, axes, fold >= 0)

    assert np.allclose(mean, second.mean)
    assert np.allclose(weights, second.weights, atol=1e-9)
    for number in range(3):
        mean, weights = ridge_by_hand(points, scores, fold, axes, fold != number)
        out = fold == number
        assert np.allclose(mean + points[out] @ weights, second.left_out[out], atol=1e-9)


def test_what_the_points_tell_is_kept_and_what_other_folds_cannot_tell_is_dropped():
    points, _, _, fold = table(60, 2, 0, 0.0)
    told = points @ [1.0, -2.0, 0.5, 0.0]
    weights = fit_folds(points, np.column_stack([told, told]), fold).weights
    own = fit_folds(np.eye(3)[fold], np.column_stack([fold, fold**2]).astype(float), fold)

    assert np.allclose(weights[:, 0], weights[:, 1])
    assert np.allclose([1.0, -2.0, 0.5, 0.0], weights[:, 0], atol=0.1)
    assert [[0.0, 0.0]] * 3 == own.weights.tolist()


def looped_share(gap, missing, texts):
    weight = sum(g * g for g in gap.flat)
    share = sum(g * m for g, m in zip(gap.flat, missing.flat, strict=True)) / weight
    by_text = {}
    for row, text in enumerate(texts.tolist()):
        score = sum(g * (m - share * g) for g, m in zip(gap[row], missing[row], strict=True))
        by_text[text] = by_text.get(text, 0.0) + score
    variance = sum(score**2 for score in by_text.values()) / weight**2
    return min(max(share * SPREAD**2 / (SPREAD**2 + variance), 0.0), 1.0)


@settings(max_examples=40, deadline=None)
@given(tables, st.floats(-0.5, 1.5))
def test_shares_are_least_squares_drawn_to_0_by_their_variance_over_texts(drawn, truth):
    _, scores, texts, _ = drawn
    rng = np.random.default_rng(7)
    first = rng.normal(0.5, 0.3, scores.shape)
    second = first + truth * (scores - first) + rng.normal(0.0, 0.2, scores.shape)
    gap, missing = second - first, scores - first
    common, missing_common = gap.mean(axis=1, keepdims=True), missing.mean(axis=1, keepdims=True)
    expected = [
        looped_share(common, missing_common, texts),
        looped_share(gap - common, missing - missing_common, texts),
    ]

    assert expected == pytest.approx(list(stack_shares(first, second, scores, texts)), abs=1e-12)


def test_shares_are_near_the_best_ones_where_the_second_estimate_is_better():
    rng = np.random.default_rng(0)
    truth, texts = rng.random((4_000, 3)), np.arange(4_000)
    first, second = (truth + rng.normal(0.0, s, truth.shape) for s in (0.2, 0.1))
    scores = truth + rng.normal(0.0, 0.3, truth.shape)

    assert [0.8, 0.8] == pytest.approx(stack_shares(first, second, scores, texts), abs=0.03)


def test_noise_and_what_misleads_get_no_share():
    rng = np.random.default_rng(0)
    first, texts = rng.random((4_000, 3)), np.arange(4_000)
    scores = first + rng.normal(0.0, 0.3, first.shape)
    noise = first + rng.normal(0.0, 0.2, first.shape)

    assert [0.0, 0.0] == pytest.approx(stack_shares(first, noise, scores, texts), abs=0.03)
    assert (0.0, 0.0) == stack_shares(first, 2 * first - scores, scores, texts)
    assert (0.0, 0.0) == stack_shares(first, first, scores, texts)


def test_what_is_common_and_what_sets_apart_have_shares_of_their_own():
    rng = np.random.default_rng(0)
    first, scores = rng.random((2, 500, 3))
    missing = scores - first
    common = missing.mean(axis=1, keepdims=True)

    shares = stack_shares(first, first + common, scores, np.arange(500))
    apart = stack_shares(first, first + missing - common, scores, np.arange(500))
    assert ([1.0, 0.0], [0.0, 1.0]) == (pytest.approx(shares), pytest.approx(apart))


def fitted_stack(points, first, scores, texts, fold):
    return fit_stack(
        components=points[:, :3],
        tasks=points[:, 3:],
        first=first,
        scores=scores,
        texts=texts,
        fold=fold,
    )


def looped_stack(first, second, shares):
    """Both shares added, cell by cell."""
    found = []
    for a, b in zip(first, second, strict=True):
        gaps = [y - x for x, y in zip(a, b, strict=True)]
        mean = sum(gaps) / len(gaps)
        found.append(
            [x + shares[0] * mean + shares[1] * (g - mean) for x, g in zip(a, gaps, strict=True)]
        )
    return np.array(found)


def test_rows_are_stacked_by_what_the_second_estimate_left_out_of_them():
    points, scores, texts, fold = table(200, 3, 1, 2.0)
    first = np.full(scores.shape, 0.5)
    stack, stacked = fitted_stack(points, first, scores, texts, fold)
    second = fit_folds(points, scores, fold)

    assert stack_shares(first, second.left_out, scores, texts) == stack.shares
    assert min(stack.shares) > 0.5
    assert np.allclose(looped_stack(first, second.left_out, stack.shares), stacked)
    assert np.array_equal(
        second.weights.astype(np.float32), np.vstack([stack.of_text, stack.of_tasks])
    )


def test_nothing_is_stacked_where_labels_have_holes_or_nothing_can_be_left_out():
    points, scores, texts, fold = table(200, 3, 1, 2.0)
    first, holes = np.full(scores.shape, 0.5), scores.copy()
    holes[17, 1] = NAN
    alone = np.where(np.arange(3) == 1, scores, NAN)

    for labels, folds in ((holes, fold), (scores, np.zeros_like(fold)), (alone, fold)):
        stack, stacked = fitted_stack(points, first, labels, texts, folds)
        assert stack is None
        assert first is stacked


def test_a_column_without_labels_changes_nothing_for_the_others():
    points, scores, texts, fold = table(200, 3, 1, 2.0)
    first = np.full(scores.shape, 0.5)
    hidden = np.where(np.arange(3) == 1, NAN, scores)
    stack, stacked = fitted_stack(
        points, np.where(np.isnan(hidden), NAN, first), hidden, texts, fold
    )
    alone, expected = fitted_stack(points, first[:, [0, 2]], scores[:, [0, 2]], texts, fold)

    assert alone.shares == stack.shares
    assert np.array_equal(expected, stacked[:, [0, 2]])
    assert np.array_equal(alone.of_text, stack.of_text[:, [0, 2]])
    assert [False, True, False] == np.isnan(stack.mean).tolist()
    assert (stack.mixing()[1] == 0.0).all()
    assert (stack.mixing()[:, 1] == 0.0).all()
    assert np.array_equal(alone.mixing(), stack.mixing()[np.ix_([0, 2], [0, 2])])


@pytest.mark.parametrize("shares", [(NAN, 0.5), (0.5, 1.5), (-0.1, 0.5)])
def test_shares_that_cannot_be_are_refused_in_a_file(shares):
    points, scores, texts, fold = table(200, 3, 1, 2.0)
    stack, _ = fitted_stack(points, np.full(scores.shape, 0.5), scores, texts, fold)
    arrays = stack.to_arrays() | {"stack_weights": np.array(shares)}

    with pytest.raises(ValueError, match=r"the stack's shares .* are not in \[0, 1\]: refit"):
        Stack.from_arrays(arrays)


# -- in a predictor -------------------------------------------------------------------------


WORDS = [f"{a}{b}" for a in ("red", "blue", "iron") for b in "abcdefghijklmnop"]


def wordy(n, seed):
    """Texts of one of 40 sets of six words and three others; words make them easy or hard."""
    world, rng = np.random.default_rng(9), np.random.default_rng(seed)
    sets = world.integers(0, len(WORDS), (40, 6))
    ease = world.normal(0.0, 1.0, (len(WORDS), 3))
    drawn = np.hstack([sets[rng.integers(0, 40, n)], rng.integers(0, len(WORDS), (n, 3))])
    chance = 1.0 / (1.0 + np.exp(-12.0 * ease[drawn].mean(axis=1)))
    texts = [" ".join(WORDS[i] for i in row) for row in drawn]
    return texts, (rng.random((n, 3)) < chance).astype(float)


TEXTS, SCORES = wordy(400, 1)
TEXTS, SCORES, TASKS = TEXTS + TEXTS[:60], np.vstack([SCORES, SCORES[:60]]), ["sums", "prose"] * 230
NEW = wordy(40, 2)[0]


@pytest.fixture(scope="module")
def stacked():
    """Three columns that words make easy or hard; sixty texts are met twice."""
    predictor = SuccessPredictor(6).fit_features(
        hash_texts(TEXTS), SCORES, tasks=TASKS, groups=TEXTS
    )
    assert predictor._serving.stack is not None
    assert predictor._neighbours is not None
    return predictor


def without_stack(predictor):
    arrays = predictor.to_arrays()
    return SuccessPredictor.from_arrays({k: v for k, v in arrays.items() if k not in ARRAYS})


def seen(predictor, texts):
    """What the fitted columns make of texts, all of one task."""
    return predictor.by_fitted(hash_texts(texts), ["sums"] * len(texts), None, spread=False)


def test_new_texts_are_served_both_shares_of_the_second_estimate(stacked):
    stack, serving = stacked._serving.stack, stacked._serving
    components = serving.projection.apply(hash_texts(NEW))
    task = stacked._traits.of(["sums"])[:, : stacked._traits.n_tasks]
    second = stack.mean + components @ stack.of_text + task @ stack.of_tasks
    first, found = seen(without_stack(stacked), NEW), seen(stacked, NEW)

    assert not found.met.any()
    assert np.allclose(looped_stack(first.prob, second, stack.shares), found.prob, atol=1e-5)
    assert np.abs(first.prob - found.prob).max() > 0.01


def test_one_text_is_served_as_many_are(stacked):
    together = seen(stacked, NEW).prob
    alone = np.vstack([seen(stacked, [text]).prob for text in NEW])

    assert np.allclose(together, alone, atol=1e-5)


def test_texts_that_were_met_keep_the_first_estimate(stacked):
    known = TEXTS[:40:2]  # of the task that is asked for
    found, first = seen(stacked, known), seen(without_stack(stacked), known)
    serving, prior = stacked._serving, np.random.default_rng(0).random((2, 3))
    kept = serving.stacked(prior, np.ones((2, 3)), np.array([True, False]))

    assert found.met.all()
    assert np.allclose(first.prob, found.prob, atol=1e-6)
    assert prior[0].tobytes() == kept[0].tobytes()
    assert np.allclose(prior[1] @ serving.kept + 1.0, kept[1])


def test_a_hole_in_the_labels_leaves_nothing_to_be_stacked():
    scores = SCORES.copy()
    scores[-1, 0] = NAN
    predictor = SuccessPredictor(6).fit_features(
        hash_texts(TEXTS), scores, tasks=TASKS, groups=TEXTS
    )

    assert predictor._serving.stack is None
    assert not set(ARRAYS) & predictor.to_arrays().keys()


def test_the_rows_are_judged_by_what_is_stacked(monkeypatch, stacked):
    monkeypatch.setattr(blending, "fit_stack", lambda *, first, **_: (None, first))
    plain = SuccessPredictor(6).fit_features(hash_texts(TEXTS), SCORES, tasks=TASKS, groups=TEXTS)
    moved = stacked.left_out_.prob - plain.left_out_.prob

    assert np.abs(moved).max() > 0.01
    assert ((SCORES - stacked.left_out_.prob) ** 2).sum() < (
        (SCORES - plain.left_out_.prob) ** 2
    ).sum()
    assert plain.left_out_.std.tobytes() == stacked.left_out_.std.tobytes()
    assert plain._personal.common_slope != stacked._personal.common_slope


def test_an_estimates_error_does_not_change(stacked):
    found = stacked.predict(NEW).std
    before = without_stack(stacked).predict(NEW).std

    assert before.tobytes() == found.tobytes()


def test_a_stored_stack_serves_the_same_bits(stacked):
    arrays = stacked.to_arrays()
    back = SuccessPredictor.from_arrays(arrays)
    again = back.to_arrays()

    assert arrays.keys() == again.keys()
    assert all(arrays[name].tobytes() == again[name].tobytes() for name in ARRAYS)
    for texts in (NEW, NEW[:1], TEXTS[:5]):
        one, other = stacked.predict(texts), back.predict(texts)
        assert one.prob.tobytes() == other.prob.tobytes()
        assert one.std.tobytes() == other.std.tobytes()


def test_arrays_of_before_there_was_a_stack_serve_as_they_did(stacked):
    old = without_stack(stacked)
    texts, rest = hash_texts(NEW + TEXTS[:3]), stacked._traits.of([""] * 43)
    serving = stacked._serving
    mean, projection = serving.ensemble.weights.mean(axis=1), serving.projection
    n = projection.axes.shape[1]
    prior, components = projection.times(texts, projection.fold(mean[1 : n + 1]), projection.axes)
    prior += rest @ mean[n + 1 :].astype(np.float64)
    prior += serving.ensemble.centre + mean[0].astype(np.float64)
    prob, met = stacked._neighbours.estimate(stacked._places(components, rest), prior)
    expected = stacked._personal.prob_of(prob, met[:, None])

    assert old._serving.stack is None
    assert not set(ARRAYS) & old.to_arrays().keys()
    assert expected.tobytes() == old.predict_features(texts, spread=False).prob.tobytes()


def test_a_snapshot_of_before_there_was_a_stack_still_loads(snapshot, query_texts):
    assert snapshot.predictor._serving.stack is not None
    data = rewritten(snapshot.to_bytes(), without=[f"predictor_{name}" for name in ARRAYS])
    old, texts = Snapshot.from_bytes(data).predictor, hash_texts(query_texts[:20])
    expected = without_stack(snapshot.predictor).predict_features(texts)

    assert expected.prob.tobytes() == old.predict_features(texts).prob.tobytes()


@pytest.mark.parametrize(
    "name", ["predictor__stack_mean", "predictor__stack_text", "predictor__stack_tasks"]
)
def test_a_stack_of_another_width_is_refused(snapshot, name):
    with pytest.raises(ValueError) as error:
        Snapshot.from_bytes(rewritten(snapshot.to_bytes(), **{name: np.ones((2, 2))}))

    written = name.replace("__", "_")
    assert f"the predictor's {written} does not fit its 3 columns: refit" == str(error.value)


def test_a_newcomer_changes_no_bit_of_what_is_stacked(stacked):
    labels = NewLabels(texts=hash_texts(NEW[:12]), scores=np.arange(12) % 2 / 1.0)
    joined = join(stacked, 3, Likeness(np.full(3, 1 / 3), 0.0), labels)

    for texts in (NEW, NEW[:1], TEXTS[:5]):
        before, after = stacked.predict(texts), joined.predict(texts)
        assert before.prob.tobytes() == after.prob[:, :3].tobytes()
        assert before.std.tobytes() == after.std[:, :3].tobytes()


def test_the_same_fit_stacks_the_same_bits(stacked):
    again = SuccessPredictor(6).fit_features(hash_texts(TEXTS), SCORES, tasks=TASKS, groups=TEXTS)

    assert all(
        stacked.to_arrays()[name].tobytes() == again.to_arrays()[name].tobytes() for name in ARRAYS
    )


def test_without_a_stack_nothing_is_folded_beside_the_ridges(stacked):
    serving = stacked._serving
    plain = Serving.of(serving.ensemble, serving.projection, None)
    first = np.random.default_rng(0).random((2, 3))

    assert (3, 6) == (plain.per_bucket.shape[1], serving.per_bucket.shape[1])
    assert first is plain.stacked(first, np.empty((2, 0)), np.zeros(2, dtype=bool))
