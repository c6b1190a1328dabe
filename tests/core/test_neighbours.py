"""Neighbours against plain loops: estimates, their errors, what is left out, and what is chosen."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from optllm_router.core.success import neighbours as module
from optllm_router.core.success.neighbours import (
    AT_A_LANDMARK,
    BANDWIDTHS,
    STRENGTHS,
    Neighbours,
    fit_neighbours,
)

NAN = np.nan
CLOSE = 2e-4  # sums are in single precision, and divided by strengths from 0.3 on
CLOSE_ERROR = 5e-3  # the root of a difference of such sums


def table(n, d, m, seed, hidden, gridded):
    """Places, scores with holes, texts that repeat, and priors."""
    rng = np.random.default_rng(seed)
    places = rng.choice([0.0, 0.5, 1.0], (n, d)) if gridded else rng.normal(0, 0.5, (n, d))
    places = places[rng.integers(0, n, n)]
    scores = rng.choice([0.0, 0.3, 1.0], (n, m))
    scores[rng.random((n, m)) < hidden] = NAN
    scores[0, 0] = 1.0
    return places, scores, rng.integers(0, max(n // 2, 1), n), rng.normal(0.5, 0.3, (n, m))


tables = st.builds(
    table,
    st.integers(1, 9),
    st.integers(0, 3),
    st.integers(1, 3),
    st.integers(0, 10_000),
    st.sampled_from([0.0, 0.4, 0.9]),
    st.booleans(),
)


def halved(place):
    return [float(np.float16(x)) for x in place]


def nearness(one, other, bandwidth):
    square = sum((float(a) - float(b)) ** 2 for a, b in zip(one, other, strict=True))
    return math.exp(-bandwidth * square)


def clear_of_the_edge(places, others):
    """No two places are so near that rounding decides whether one was met."""
    return not any(
        abs(nearness(one, other, bandwidth) - AT_A_LANDMARK) < 1e-3
        for one in places
        for other in others
        for bandwidth in BANDWIDTHS
    )


def looped_estimate(rows, asked, prior, std, how):
    """Estimate and standard error of one place by (place, scores) of labelled rows."""
    bandwidth, strength = how
    found, error = [], []
    for column, p in enumerate(prior):
        labels = [
            (nearness(asked, place, bandwidth), scores[column])
            for place, scores in rows
            if not math.isnan(scores[column])
        ]
        weight = sum(w for w, _ in labels) + strength
        mean = (sum(w * y for w, y in labels) + strength * p) / weight
        squares = sum((w * (y - mean)) ** 2 for w, y in labels)
        found.append(mean)
        error.append((strength * std[column] + math.sqrt(squares)) / weight)
    return found, error


def looped_rows(places, scores, texts, prior, how):
    """Every row's estimate without its text at its place, and without its own labels alone."""
    at = [halved(place) for place in places]
    left_out, again = [], []
    for i, p in enumerate(prior):
        others = [j for j in range(len(at)) if j != i]
        foreign = [j for j in others if texts[j] != texts[i] or at[j] != at[i]]
        for some, into in ((foreign, left_out), (others, again)):
            labelled = [(at[j], scores[j]) for j in some]
            into.append(looped_estimate(labelled, at[i], p, p, how)[0])
    return np.array(left_out), np.array(again)


def looped_met(places, scores, bandwidth):
    at = [halved(place) for place in places]
    labelled = [j for j in range(len(at)) if not np.isnan(scores[j]).all()]
    return [
        any(nearness(one, at[j], bandwidth) > AT_A_LANDMARK for j in labelled if j != i)
        for i, one in enumerate(at)
    ]


def looped_squares(places, scores, texts, prior):
    """The mean square of every bandwidth and strength; under None the prior's."""

    def mean_square(estimates):
        errors = [(e - s) ** 2 for e, s in zip(estimates.flat, scores.flat, strict=True)]
        seen = [error for error in errors if not math.isnan(error)]
        return sum(seen) / len(seen)

    found = {None: mean_square(prior)}
    for how in [(b, s) for b in BANDWIDTHS for s in STRENGTHS]:
        found[how] = mean_square(looped_rows(places, scores, texts, prior, how)[0])
    return found


def around(places, scores, bandwidth=2.0, strength=1.0):
    """Neighbours with a landmark per row."""
    seen, known = ~np.isnan(scores), np.nan_to_num(scores)
    return Neighbours(
        places.astype(np.float32),
        np.stack([seen, known, known**2]).astype(np.float32),
        bandwidth,
        strength,
    )


@settings(max_examples=60, deadline=None)
@given(tables, st.sampled_from(BANDWIDTHS), st.sampled_from(STRENGTHS), st.integers(0, 10_000))
def test_an_estimate_is_the_weighted_mean_of_labels_and_prior(drawn, bandwidth, strength, seed):
    places, scores, _, _ = drawn
    rng = np.random.default_rng(seed)
    asked = np.vstack([places[:2], rng.normal(0, 1, (3, places.shape[1]))])
    prior, std = rng.normal(0.5, 0.3, (len(asked), scores.shape[1])), np.full((len(asked), 1), 0.2)
    std = np.tile(std, scores.shape[1])
    rows = list(zip(places, scores, strict=True))
    assume(clear_of_the_edge(asked, places))
    looped = [
        looped_estimate(rows, a, p, s, (bandwidth, strength))
        for a, p, s in zip(asked, prior, std, strict=True)
    ]
    found, met = around(places, scores, bandwidth, strength).estimate(asked, prior, std)

    assert np.allclose([mean for mean, _ in looped], found, rtol=0, atol=CLOSE)
    assert np.allclose([error for _, error in looped], std, rtol=0, atol=CLOSE_ERROR)
    assert [
        any(nearness(one, place, bandwidth) > AT_A_LANDMARK for place in places) for one in asked
    ] == met.tolist()


@settings(max_examples=60, deadline=None)
@given(tables)
def test_the_choice_is_the_grid_s_best_and_its_rows_are_those_of_loops(drawn):
    places, scores, texts, prior = drawn
    assume(clear_of_the_edge(places, places))
    squares = looped_squares(places, scores, texts, prior)
    judged = fit_neighbours(places, scores, texts, prior)
    near = judged.neighbours
    how = None if near is None else (near.bandwidth, near.strength)

    assert squares[how] <= min(squares.values()) + CLOSE
    if near is None:
        assert prior.tolist() == judged.left_out.tolist() == judged.met_again.tolist()
        assert not judged.met.any()
        return
    left_out, again = looped_rows(places, scores, texts, prior, how)
    assert np.allclose(left_out, judged.left_out, rtol=0, atol=CLOSE)
    assert np.allclose(again, judged.met_again, rtol=0, atol=CLOSE)
    assert looped_met(places, scores, how[0]) == judged.met.tolist()


@settings(max_examples=40, deadline=None)
@given(tables)
def test_labels_of_a_place_are_added_up_at_one_landmark(drawn):
    places, scores, texts, _ = drawn
    near = fit_neighbours(places, scores, texts, np.full(scores.shape, 5.0)).neighbours
    assume(near is not None)
    rows_at = {}
    for place, row in zip(places, scores, strict=True):
        rows_at.setdefault(tuple(halved(place)), []).append(row)
    labelled = {at: rows for at, rows in rows_at.items() if not np.isnan(rows).all()}

    assert list(labelled) == [tuple(map(float, place)) for place in near.places]
    for number, rows in enumerate(labelled.values()):
        seen = ~np.isnan(rows)
        known = np.nan_to_num(rows)
        expected = np.stack([seen.sum(axis=0), known.sum(axis=0), (known**2).sum(axis=0)])
        assert np.allclose(expected, near.labels[:, number])


@settings(max_examples=30, deadline=None)
@given(tables, st.integers(0, 10_000))
def test_the_order_of_rows_does_not_matter(drawn, seed):
    places, scores, texts, prior = drawn
    squares = sorted(looped_squares(places, scores, texts, prior).values())
    assume(len(squares) < 2 or squares[1] - squares[0] > CLOSE)
    order = np.random.default_rng(seed).permutation(len(places))
    one = fit_neighbours(places, scores, texts, prior)
    other = fit_neighbours(places[order], scores[order], texts[order], prior[order])

    assert (one.neighbours is None) == (other.neighbours is None)
    assert np.allclose(one.left_out[order], other.left_out, rtol=0, atol=CLOSE)
    assert np.allclose(one.met_again[order], other.met_again, rtol=0, atol=CLOSE)
    assert one.met[order].tolist() == other.met.tolist()
    if one.neighbours is not None:
        assert one.neighbours.bandwidth == other.neighbours.bandwidth
        assert one.neighbours.strength == other.neighbours.strength


def test_far_from_every_label_the_prior_stays_to_the_bit():
    near = around(np.array([[1.0, 0.0]]), np.array([[1.0, 0.0]]), bandwidth=8.0)
    prior, std = np.array([[0.3, -0.1]]), np.array([[0.21, 0.4]])
    found, met = near.estimate(np.array([[-9.0, 9.0]]), prior, std)

    assert [[0.3, -0.1]] == found.tolist()
    assert [[0.21, 0.4]] == std.tolist()
    assert [False] == met.tolist()


def test_at_a_landmark_a_label_counts_once_and_the_prior_by_its_strength():
    near = around(np.array([[1.0, 0.0]]), np.array([[1.0, NAN]]), strength=3.0)
    std = np.array([[0.4, 0.4]])
    found, met = near.estimate(np.array([[1.0, 0.0]]), np.array([[0.2, 0.2]]), std)

    assert [True] == met.tolist()
    assert [(1.0 + 3.0 * 0.2) / 4.0, 0.2] == pytest.approx(found[0].tolist())
    assert [(3.0 * 0.4 + 0.6) / 4.0, 0.4] == pytest.approx(std[0].tolist())


def test_without_a_standard_error_the_estimate_is_the_same_bits():
    places, scores, _, prior = table(9, 2, 3, 1, 0.3, gridded=False)
    near = around(places, scores)

    assert (
        near.estimate(places, prior)[0].tobytes()
        == near.estimate(places, prior, np.zeros_like(prior))[0].tobytes()
    )


def test_no_query_is_no_estimate():
    found, met = around(np.ones((2, 3)), np.ones((2, 4))).estimate(
        np.ones((0, 3)), np.ones((0, 4)), np.ones((0, 4))
    )

    assert ((0, 4), (0,)) == (found.shape, met.shape)


def test_many_queries_at_once_are_estimated_as_one_by_one(monkeypatch):
    places, scores, _, prior = table(9, 2, 3, 1, 0.3, gridded=False)
    near = around(places, scores)
    whole, met = near.estimate(places, prior)
    monkeypatch.setattr(module, "_ROWS_AT_ONCE", 2)
    parts, met_in_parts = near.estimate(places, prior)

    assert np.allclose(whole, parts, rtol=0, atol=1e-6)
    assert met.tolist() == met_in_parts.tolist()


def test_labels_that_the_prior_predicts_need_no_neighbours():
    rng = np.random.default_rng(0)
    scores = rng.random((20, 2))
    judged = fit_neighbours(rng.normal(size=(20, 3)), scores, np.arange(20), scores.copy())

    assert judged.neighbours is None


def test_labels_too_far_from_each_other_to_matter_leave_the_prior():
    places = np.arange(4.0)[:, None] * 100
    judged = fit_neighbours(places, np.ones((4, 1)), np.arange(4), np.zeros((4, 1)))

    assert judged.neighbours is None


def test_equally_good_kernels_give_way_to_the_widest():
    # all at one place: whatever the bandwidth, every label is as near as can be
    judged = fit_neighbours(np.ones((6, 1)), np.ones((6, 1)), np.arange(6), np.zeros((6, 1)))

    assert (BANDWIDTHS[0], STRENGTHS[-1]) == (
        judged.neighbours.bandwidth,
        judged.neighbours.strength,
    )
    assert min(BANDWIDTHS) == BANDWIDTHS[0]
    assert judged.met.all()


def test_one_text_alone_is_never_judged_by_itself():
    judged = fit_neighbours(np.ones((5, 2)), np.ones((5, 1)), np.zeros(5, int), np.zeros((5, 1)))

    assert judged.neighbours is None
    assert [[0.0]] * 5 == judged.left_out.tolist()


def test_a_text_with_another_task_lies_elsewhere_and_counts_there():
    places = np.array([[1.0, 0.0], [1.0, 0.5]])
    judged = fit_neighbours(places, np.ones((2, 1)), np.zeros(2, int), np.zeros((2, 1)))
    weight = math.exp(-judged.neighbours.bandwidth * 0.25)
    expected = weight / (weight + judged.neighbours.strength)

    assert [expected] * 2 == pytest.approx(judged.left_out[:, 0].tolist(), abs=1e-5)


def test_a_row_without_labels_takes_no_landmark_and_is_not_met():
    places = np.array([[0.0], [0.0], [0.0], [4.0], [4.0]])
    scores = np.array([[1.0], [1.0], [1.0], [NAN], [NAN]])
    judged = fit_neighbours(places, scores, np.arange(5), np.zeros((5, 1)))
    _, met = judged.neighbours.estimate(np.array([[0.0], [4.0]]), np.zeros((2, 1)))

    assert [[0.0]] == judged.neighbours.places.tolist()
    assert [True, True, True, False, False] == judged.met.tolist()
    assert [True, False] == met.tolist()


def test_a_row_whose_only_twin_has_no_label_is_not_met():
    places = np.array([[0.0], [0.0], [4.0], [4.0]])
    scores = np.array([[1.0], [1.0], [1.0], [NAN]])
    judged = fit_neighbours(places, scores, np.arange(4), np.zeros((4, 1)))

    assert [True, True, False, True] == judged.met.tolist()


def test_of_too_many_places_landmarks_are_spread_evenly(monkeypatch):
    monkeypatch.setattr(module, "MAX_LANDMARKS", 4)
    places = np.repeat(np.arange(10.0), 2)[:, None] / 8
    judged = fit_neighbours(places, np.ones((20, 1)), np.arange(20), np.zeros((20, 1)))
    kept = [0.0, 3.0, 6.0, 9.0]

    assert kept == (judged.neighbours.places[:, 0] * 8).tolist()
    assert [2.0] * 4 == judged.neighbours.labels[0, :, 0].tolist()


@settings(max_examples=30, deadline=None)
@given(tables)
def test_rows_without_a_landmark_are_told_by_all_landmarks(drawn):
    places, scores, texts, _ = drawn
    prior = np.full(scores.shape, 5.0)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "MAX_LANDMARKS", 2)
        judged = fit_neighbours(places, scores, texts, prior)
    near = judged.neighbours
    assume(near is not None)
    at = [halved(place) for place in places]
    known = [tuple(map(float, place)) for place in near.places]
    assert len(known) <= 2
    for i, one in enumerate(at):
        teach = [j for j, other in enumerate(at) if tuple(other) in known]
        foreign = [(at[j], scores[j]) for j in teach if texts[j] != texts[i] or at[j] != one]
        again = [(at[j], scores[j]) for j in teach if j != i]
        how = (near.bandwidth, near.strength)

        assert np.allclose(
            looped_estimate(foreign, one, prior[i], prior[i], how)[0],
            judged.left_out[i],
            rtol=0,
            atol=10 * CLOSE,
        )
        assert np.allclose(
            looped_estimate(again, one, prior[i], prior[i], how)[0],
            judged.met_again[i],
            rtol=0,
            atol=10 * CLOSE,
        )


def test_places_are_used_as_they_are_stored():
    rng = np.random.default_rng(0)
    judged = fit_neighbours(
        rng.normal(size=(30, 5)), np.ones((30, 1)), np.arange(30), np.zeros((30, 1))
    )
    places = judged.neighbours.places

    assert places.astype(np.float16).astype(np.float32).tobytes() == places.tobytes()


@pytest.mark.parametrize("n_dimensions", [0, 1, 7])
def test_arrays_give_back_the_same_bits(n_dimensions):
    rng = np.random.default_rng(0)
    places = rng.normal(0, 0.5, (40, n_dimensions))
    scores = rng.random((40, 3))
    scores[rng.random((40, 3)) < 0.3] = NAN
    near = fit_neighbours(places, scores, np.arange(40), np.full((40, 3), 3.0)).neighbours
    back = Neighbours.from_arrays(near.to_arrays("near"), "near")
    asked, prior = rng.normal(0, 0.5, (9, n_dimensions)), rng.random((9, 3))
    std, again = np.full((9, 3), 0.3), np.full((9, 3), 0.3)

    assert near.to_arrays("a").keys() == {"a_places", "a_labels", "a_kernel"}
    assert np.float16 == near.to_arrays("a")["a_places"].dtype
    assert (near.bandwidth, near.strength) == (back.bandwidth, back.strength)
    one, other = near.estimate(asked, prior, std), back.estimate(asked, prior, again)
    assert one[0].tobytes() == other[0].tobytes()
    assert one[1].tobytes() == other[1].tobytes()
    assert std.tobytes() == again.tobytes()


def test_arrays_without_neighbours_give_none():
    assert Neighbours.from_arrays({"others": np.zeros(3)}, "near") is None


def test_without_dimensions_all_texts_are_neighbours():
    scores = np.array([[1.0], [1.0], [0.0], [NAN]])
    judged = fit_neighbours(np.zeros((4, 0)), scores, np.arange(4), np.full((4, 1), 3.0))
    near = judged.neighbours

    assert ((1, 0), 3.0, 2.0) == (near.places.shape, *near.labels[:2, 0, 0].tolist())
    assert [(2.0 + near.strength * 3.0) / (3.0 + near.strength)] == pytest.approx(
        judged.left_out[3].tolist()
    )


@pytest.mark.parametrize("n_repeats", [10, 30_000])
def test_however_often_a_text_comes_it_does_not_tell_of_itself(n_repeats):
    direction = np.random.default_rng(0).normal(size=(2, 96))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    often = np.arange(n_repeats + 2) < n_repeats
    judged = fit_neighbours(
        direction[np.where(often, 0, 1)],
        np.where(often, 1.0, 0.0)[:, None],
        np.where(often, 0, np.arange(n_repeats + 2)),
        np.where(often, 0.5, 1.0)[:, None],
    )

    assert judged.neighbours is not None
    assert np.allclose(0.5, judged.left_out[often], rtol=0, atol=1e-3)
    assert judged.met_again[often].min() > 0.9
