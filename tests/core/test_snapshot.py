"""Snapshots: nothing is lost in bytes, nothing foreign is read, and optimism is measured."""

import hashlib
import io
import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from optllm_router.core import snapshot as snapshots
from optllm_router.core.features import hash_text
from optllm_router.core.fitting import fit_snapshot
from optllm_router.core.front import pareto_front
from optllm_router.core.planning import honest_front
from optllm_router.core.snapshot import Optimism, Snapshot, TrainingSet, fit_optimism
from optllm_router.records import Candidate

NAN = np.nan


def signed(packed):
    return hashlib.sha256(packed).digest() + packed


def rewritten(data, *, without=(), **changed):
    """The same snapshot with some arrays replaced or left out, and a hash that fits."""
    with np.load(io.BytesIO(data[32:])) as loaded:
        arrays = {name: loaded[name] for name in loaded.files if name not in without}
    arrays.update({name.replace("__", "_"): array for name, array in changed.items()})
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return signed(buffer.getvalue())


def as_json(value):
    return np.frombuffer(json.dumps(value).encode(), dtype=np.uint8)


def emptied(training, **fields):
    return TrainingSet(
        **{**{name: getattr(training, name) for name in training.__dataclass_fields__}, **fields}
    )


def test_bytes_give_back_the_same_snapshot_and_the_same_bytes(snapshot):
    data = snapshot.to_bytes()
    back = Snapshot.from_bytes(data)

    assert ("v1", ("small", "large", "table")) == (back.version, back.columns)
    assert dict(snapshot.metrics) == dict(back.metrics)
    assert data == back.to_bytes()
    assert data == snapshot.to_bytes()


def test_a_snapshot_that_was_read_back_predicts_the_same_bits(snapshot, query_texts):
    back = Snapshot.from_bytes(snapshot.to_bytes())
    texts = [hash_text(text) for text in [*query_texts[:20], "", "never seen"]]
    for some in (texts, texts[:1]):
        tasks = ["prose"] * len(some)
        tokens = np.full(len(some), 77.0)
        one = snapshot.predictor.predict_features(some, tasks=tasks)
        other = back.predictor.predict_features(some, tasks=tasks)

        assert one.prob.tobytes() == other.prob.tobytes()
        assert one.std.tobytes() == other.std.tobytes()
        assert (
            snapshot.cost_usd.predict(tokens, tasks).tobytes()
            == back.cost_usd.predict(tokens, tasks).tobytes()
        )
    assert snapshot.front.cost_usd.tobytes() == back.front.cost_usd.tobytes()


def test_fitting_twice_gives_the_same_bytes(training, candidates, snapshot):
    again = fit_snapshot(training, candidates, version="v1", n_bootstraps=12)

    assert snapshot.to_bytes() == again.to_bytes()


def test_metrics_are_those_of_the_table(training, snapshot):
    means = training.scores.mean(axis=0)

    assert 160 == snapshot.metrics["n_queries"]
    assert 480 == snapshot.metrics["n_labels"] == snapshot.n_labels
    assert means.tolist() == pytest.approx(snapshot.column_score.tolist())
    assert np.mean((means - training.scores) ** 2) == pytest.approx(
        snapshot.metrics["brier_of_means"]
    )
    assert snapshot.metrics["brier"] < 0.9 * snapshot.metrics["brier_of_means"]


@pytest.mark.parametrize("at", [0, 31, 32, 500, -1])
def test_a_flipped_bit_is_found(snapshot, at):
    data = bytearray(snapshot.to_bytes())
    data[at] ^= 1
    with pytest.raises(ValueError) as error:
        Snapshot.from_bytes(bytes(data))

    assert "do not match their hash: it is damaged; refit" in str(error.value)


@pytest.mark.parametrize("data", [b"", b"short", bytes(32), bytes(1_000)])
def test_bytes_without_their_hash_are_damaged(data):
    with pytest.raises(ValueError) as error:
        Snapshot.from_bytes(data)

    assert "refit" in str(error.value)


def empty_zip():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w"):
        pass
    return buffer.getvalue()


def zip_of(name, content):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, content)
    return buffer.getvalue()


def npy_that_claims(shape):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


@pytest.mark.parametrize(
    "packed",
    [
        b"",
        b"PK but no archive",
        empty_zip(),
        zip_of("meta.npy", b"no array"),
        zip_of("meta.npy", b""),
        zip_of("meta.npy", npy_that_claims("(9,)")),
        zip_of("meta.npy", npy_that_claims("(1 << 55,)")),
        zip_of("meta.npy", npy_that_claims("(36028797018963968,)")),
        zip_of("notes.txt", b"{}"),
    ],
    ids=["nothing", "no zip", "no entry", "no npy", "empty", "cut", "code", "huge", "foreign"],
)
def test_foreign_bytes_with_a_right_hash_are_refused(packed):
    with pytest.raises(ValueError) as error:
        Snapshot.from_bytes(signed(packed))

    assert str(error.value)


@pytest.mark.parametrize(
    "meta",
    [
        [],
        "text",
        None,
        {},
        {"format": 1},
        {"format": 1, "features": 1},
        {"format": 1, "features": 1, "version": "v", "columns": None, "metrics": {}},
        {"format": 1, "features": 1, "version": "v", "columns": ["a"], "metrics": {}},
    ],
)
def test_meta_that_is_not_ours_is_refused(snapshot, meta):
    with pytest.raises(ValueError) as error:
        Snapshot.from_bytes(rewritten(snapshot.to_bytes(), meta=as_json(meta)))

    assert "refit" in str(error.value)


def test_another_format_says_so(snapshot):
    other = rewritten(snapshot.to_bytes(), meta=as_json({"format": 9, "features": 3}))
    with pytest.raises(ValueError) as error:
        Snapshot.from_bytes(other)

    assert "predictor format 9.3 is not 1.1, which this version reads: refit" == str(error.value)


def test_a_missing_array_is_refused(snapshot):
    with pytest.raises(ValueError) as error:
        Snapshot.from_bytes(rewritten(snapshot.to_bytes(), without=["optimism_gap"]))

    assert "optimism_gap" in str(error.value)


def test_a_snapshot_from_before_cost_quantiles_still_loads(snapshot):
    data = rewritten(snapshot.to_bytes(), without=["tokens_ratio", "usd_ratio"])
    old, asked = Snapshot.from_bytes(data), (np.array([50.0]), ["prose"])

    for name in ("output_tokens", "cost_usd"):
        high = getattr(old, name).quantile(*asked, 0.9)
        assert np.array_equal(getattr(snapshot, name).predict(*asked), high, equal_nan=True)


def test_a_snapshot_from_before_there_was_a_common_slope_still_loads(snapshot, query_texts):
    predictor, texts = snapshot.predictor, [hash_text(text) for text in query_texts[:20]]
    stored = predictor.to_arrays()["contrast"]
    data = rewritten(snapshot.to_bytes(), predictor__contrast=stored[:2])
    old = Snapshot.from_bytes(data).predictor
    seen = predictor.by_fitted(texts, [""] * 20, None, spread=False)
    expected = replace(predictor._personal, common_slope=1.0).of(seen.prob, seen.met)

    assert stored[2] != 1.0
    assert (predictor.contrast, 1.0) == (old.contrast, old._personal.common_slope)
    assert np.array_equal(np.clip(expected, 0.0, 1.0), old.predict_features(texts).prob)


def test_ratios_of_another_width_are_refused(snapshot):
    with pytest.raises(ValueError) as error:
        Snapshot.from_bytes(rewritten(snapshot.to_bytes(), tokens__ratio=np.ones((101, 2))))

    assert "the predictor's tokens_ratio does not fit its 3 columns: refit" == str(error.value)


def test_an_array_of_another_width_is_refused(snapshot):
    with pytest.raises(ValueError) as error:
        Snapshot.from_bytes(rewritten(snapshot.to_bytes(), column__score=np.zeros(2)))

    assert "the predictor's column_score does not fit its 3 columns: refit" == str(error.value)


class Trap:
    """Would create a file when unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


def test_a_pickled_array_is_refused_and_not_run(snapshot, tmp_path):
    bait = tmp_path / "run"
    trap = np.array([Trap(bait)], dtype=object)
    with pytest.raises(ValueError) as error:
        Snapshot.from_bytes(rewritten(snapshot.to_bytes(), column__score=trap))

    assert "allow_pickle=False" in str(error.value)
    assert not bait.exists()


def test_an_archive_that_unpacks_to_too_much_is_refused(snapshot, monkeypatch):
    monkeypatch.setattr(snapshots, "MAX_BYTES", 100_000)
    bomb = zip_of("meta.npy", b"")
    buffer = io.BytesIO(bomb)
    with zipfile.ZipFile(buffer, "w", compression=zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("meta.npy", bytes(200_000))
    assert len(buffer.getvalue()) < 2_000
    with pytest.raises(ValueError) as error:
        Snapshot.from_bytes(signed(buffer.getvalue()))

    assert "unpacks to 200000 bytes, more than 100000" in str(error.value)


def test_the_front_of_traffic_leaves_out_columns_without_labels(training, candidates):
    scores = training.scores.copy()
    scores[:, 1] = NAN
    snapshot = fit_snapshot(
        emptied(training, scores=scores), candidates, version="v", n_bootstraps=4
    )

    assert np.isnan(snapshot.traffic_prob[:, 1]).all()
    assert {0, 2} >= set(snapshot.front.choice(-1).tolist())
    assert np.isnan(snapshot.column_score[1])


def test_traffic_without_any_known_cost_has_an_empty_front(training, candidates):
    scores = training.scores.copy()
    scores[:, :2] = NAN
    unbilled = emptied(training, scores=scores, cost_usd=np.full_like(scores, NAN))
    snapshot = fit_snapshot(unbilled, candidates, version="v", n_bootstraps=4)
    back = Snapshot.from_bytes(snapshot.to_bytes())

    assert 0 == back.front.n_queries
    assert [0.0] == back.front.cost_usd.tolist()
    assert 0 == back.optimism.price.size


def test_only_the_newest_traffic_is_kept(training, candidates, monkeypatch):
    monkeypatch.setattr("optllm_router.core.fitting.MAX_TRAFFIC", 30)
    snapshot = fit_snapshot(training, candidates, version="v", n_bootstraps=4)

    assert (30, 3) == snapshot.traffic_prob.shape
    assert np.array_equal(snapshot.predictor.oob_.prob[-30:], snapshot.traffic_prob)


def test_optimism_is_the_estimate_minus_the_score_of_those_chosen():
    # at every price column 1 is chosen where it is allowed; it promises .8 and keeps .5
    prob = np.tile([0.2, 0.8], (400, 1))
    scores = np.column_stack([np.full(400, NAN), np.arange(400) % 2])
    optimism = fit_optimism(prob, np.zeros((400, 2)), scores)
    gap, error = optimism.of(0.0, np.array([0.0, 1.0]))

    assert 0.3 == pytest.approx(gap, abs=1e-6)
    assert np.sqrt(0.25 / 405) == pytest.approx(error, rel=0.01)


def test_a_chosen_column_that_nobody_observed_borrows_from_the_others():
    prob = np.array([[0.9, NAN], [NAN, 0.9]] * 100)
    scores = np.column_stack([np.full(200, 0.5), np.full(200, NAN)])
    optimism = fit_optimism(prob, np.where(np.isnan(prob), NAN, 1.0), scores)

    assert 0.4 == pytest.approx(optimism.of(0.0, np.array([0.0, 1.0]))[0])


def test_pessimism_is_not_added():
    prob, scores = np.full((50, 1), 0.2), np.full((50, 1), 0.9)
    optimism = fit_optimism(prob, np.ones((50, 1)), scores)

    assert 0.0 == optimism.of(0.0, np.ones(1))[0]


def test_a_single_label_leaves_a_wide_margin():
    prob, scores = np.full((50, 1), 0.5), np.full((50, 1), NAN)
    scores[0] = 0.5
    error = fit_optimism(prob, np.ones((50, 1)), scores).of(0.0, np.ones(1))[1]

    assert error > 0.1


def test_nothing_to_choose_from_has_no_optimism():
    optimism = fit_optimism(np.full((5, 2), NAN), np.ones((5, 2)), np.ones((5, 2)))

    assert (0.0, 0.0) == optimism.of(3.0, np.array([0.5, 0.5]))


def test_an_infinite_price_takes_the_dearest_rung():
    ladder = np.array([0.0, 10.0, np.finfo(np.float64).max])
    optimism = Optimism(ladder, np.array([[0.1], [0.2], [0.3]]), np.zeros((3, 1)))
    found = [optimism.of(price, np.ones(1))[0] for price in (0.0, 9.0, 1e307, np.inf)]

    assert [0.1, 0.2, 0.3, 0.3] == found


def test_prices_of_the_ladder_are_finite_and_ascend(snapshot):
    price = snapshot.optimism.price

    assert np.isfinite(price).all()
    assert (np.diff(price) >= 0).all()
    assert (snapshot.optimism.variance > 0).all()


def test_zero_costs_make_no_infinite_rung():
    rng = np.random.default_rng(0)
    prob = rng.random((60, 2))
    optimism = fit_optimism(prob, np.tile([0.0, 5e-324], (60, 1)), prob)

    assert np.isfinite(optimism.price).all()
    assert np.isfinite(optimism.of(np.inf, np.array([0.5, 0.5]))).all()


def equal_columns(seed, n=400, m=10):
    """Ten columns that all succeed six times of ten, so that whoever looks best is luck alone."""
    rng = np.random.default_rng(seed)
    words = rng.choice(["oak", "elm", "ash", "fir", "yew", "bay", "fig"], (n, 8))
    training = TrainingSet(
        columns=tuple(f"c{j}" for j in range(m)),
        texts=[hash_text(" ".join(row)) for row in words],
        tasks=[""] * n,
        groups=[f"g{i}" for i in range(n)],
        shapes=np.zeros((n, 5)),
        prompt_tokens=np.ones(n),
        scores=(rng.random((n, m)) < 0.6).astype(np.float64),
        output_tokens=np.full((n, m), NAN),
        cost_usd=np.tile(np.linspace(0.001, 0.00101, m), (n, 1)),
    )
    billed = [
        Candidate(name=name, model=name, price=None, worst_case_nusd=10**9)
        for name in training.columns
    ]
    return training, fit_snapshot(training, billed, version="v", n_bootstraps=16)


def test_honest_accuracy_is_close_to_the_truth_where_the_plain_one_flatters():
    plain, honest = [], []
    for seed in range(6):
        training, snapshot = equal_columns(seed)
        prob = snapshot.predictor.predict_features(training.texts).prob
        plain.append(pareto_front(prob, training.cost_usd).accuracy[-1])
        honest.append(honest_front(snapshot)[1][-1])

    assert np.mean(plain) > 0.62
    assert min(plain) > 0.61
    assert 0.6 == pytest.approx(np.mean(honest), abs=0.02)


@pytest.fixture
def forested(training, candidates):
    return fit_snapshot(training, candidates, version="v2", kind="forest", n_bootstraps=2)


def test_a_forest_comes_back_from_bytes_as_a_forest(forested, query_texts):
    back = Snapshot.from_bytes(forested.to_bytes())
    texts = [hash_text(text) for text in query_texts[:20]]
    one, other = (each.predictor.predict_features(texts) for each in (forested, back))

    assert ("forest", "forest") == (forested.kind, back.kind)
    assert forested.to_bytes() == back.to_bytes()
    assert (one.prob.tobytes(), one.std.tobytes()) == (other.prob.tobytes(), other.std.tobytes())
    assert forested.front.cost_usd.tobytes() == back.front.cost_usd.tobytes()
    assert forested.metrics["brier"] < forested.metrics["brier_of_means"]


def test_bytes_from_before_there_were_kinds_are_a_ridge(snapshot):
    data = snapshot.to_bytes()
    meta = json.loads(np.load(io.BytesIO(data[32:]))["meta"].tobytes())
    assert "ridge" == meta.pop("kind")

    assert "ridge" == Snapshot.from_bytes(rewritten(data, meta=as_json(meta))).kind


@pytest.mark.parametrize("kind", ["forest", "oracle", ["ridge"]])
def test_a_kind_that_the_arrays_are_not_is_refused(snapshot, kind):
    data = snapshot.to_bytes()
    meta = json.loads(np.load(io.BytesIO(data[32:]))["meta"].tobytes())

    with pytest.raises(ValueError, match="refit"):
        Snapshot.from_bytes(rewritten(data, meta=as_json({**meta, "kind": kind})))


@pytest.mark.parametrize("name", ["predictor_n_labels", "predictor_forests"])
def test_a_forest_that_is_not_about_all_columns_is_refused(forested, name):
    data = forested.to_bytes()
    array = np.load(io.BytesIO(data[32:]))[name]
    shorter = array[:-1] if array.ndim == 1 else array[:, :-1]

    with pytest.raises(ValueError, match="refit"):
        Snapshot.from_bytes(rewritten(data, **{name: shorter}))
