"""Learning: rows become arrays, arrays a published predictor, and a worse one stays out."""

import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import pytest

from optllm_router import learning
from optllm_router.core.features import hash_text, pack, text_key
from optllm_router.core.fitting import fit_snapshot
from optllm_router.core.planning import live_aim
from optllm_router.core.policy import Knee
from optllm_router.core.snapshot import Snapshot
from optllm_router.learning import (
    RefitSettings,
    load_current,
    new_version,
    refit,
    refit_in_child,
    training_set,
)
from optllm_router.records import (
    Attempt,
    Candidate,
    Decision,
    Outcome,
    TokenPrice,
    TrainingRow,
)
from optllm_router.store.sql import open_store

START = datetime(2026, 1, 1, tzinfo=UTC)
PRICE = TokenPrice(input_per_1m=Decimal(1), output_per_1m=Decimal(2))
CANDIDATES = (
    Candidate(name="small", model="p/small", price=PRICE),
    Candidate(name="table", model="table", price=None, worst_case_nusd=10**9),
)
SETTINGS = RefitSettings(n_bootstraps=6, min_labels=20)


def row(number=0, served="small", **changes):
    text = changes.pop("text", f"text {number}")
    given = {
        "decision_id": f"d{number}-{served}",
        "kind": "route",
        "created_at": START + timedelta(minutes=number),
        "task": "",
        "served": served,
        "text_key": text_key(text),
        "features": pack(hash_text(text)),
        "n_prompt_tokens": 50 + number,
        "n_turns": 1,
        "n_tools": 0,
        "n_images": 0,
        "wants_json": False,
        "completion_tokens": 100,
        "cost_nusd": 3_000_000,
        "cost_estimated": False,
        "score": 1.0,
    }
    return TrainingRow(**{**given, **changes})


def log(store, answers, *, again="", cost_nusd=2_000_000):
    """Write answers (number, candidate, score or None) as served, paid and graded."""
    entries, outcomes = [], []
    for number, served, score in answers:
        topic = "boil an egg" if number % 2 else "prove a lemma"
        text, at = f"please {topic}, case {number}", START + timedelta(hours=number)
        decision = Decision(
            id=f"d{number}-{served}{again}",
            created_at=at,
            kind="probe",
            requested="auto",
            chosen=served,
            served=served,
            policy="probe",
            reason="probe",
            text_key=text_key(text),
            features=pack(hash_text(text)),
            n_prompt_tokens=40 + number % 7,
        )
        attempt = Attempt(
            id=f"a{number}-{served}{again}",
            decision_id=decision.id,
            number=1,
            candidate=served,
            status="ok",
            started_at=at,
            prompt_tokens=40,
            completion_tokens=90,
            cost_nusd=cost_nusd,
        )
        entries.append((decision, [attempt]))
        if score is not None:
            outcomes.append(
                Outcome(decision_id=decision.id, score=score, source="probe:x", created_at=at)
            )
    store.record_many(entries, outcomes)


def noisy_answers(n, start=0):
    rng = np.random.default_rng(start)
    return [
        (number, name, float(rng.random() < 0.5))
        for number in range(start, start + n)
        for name in ("small", "table")
    ]


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'log.db'}"


@pytest.fixture
def store(url):
    opened = open_store(url)
    yield opened
    opened.close()


def test_answers_to_one_text_share_a_row():
    training = training_set([row(1, "small", score=0.0), row(1, "table", score=1.0)], CANDIDATES)

    assert [[0.0, 1.0]] == training.scores.tolist()
    assert [100.0, 100.0] == training.output_tokens[0].tolist()
    assert [text_key("text 1")] == training.groups
    assert ("small", "table") == training.columns


def test_a_column_that_answered_twice_keeps_both_answers():
    rows = [row(1, score=0.0), row(2, "table", text="text 1", score=0.5), row(3, text="text 1")]
    training = training_set(rows, CANDIDATES)

    assert [[0.0, 0.5], [1.0, pytest.approx(np.nan, nan_ok=True)]] == training.scores.tolist()
    assert 1 == len(set(training.groups))


def test_one_text_under_two_tasks_is_two_rows_of_one_group():
    training = training_set([row(1, task="a"), row(1, "table", task="b")], CANDIDATES)

    assert ["a", "b"] == training.tasks
    assert 1 == len(set(training.groups))


def test_pins_that_name_no_candidate_are_left_out():
    training = training_set([row(1, "elsewhere/model"), row(2)], CANDIDATES)

    assert (1, 2) == training.scores.shape
    assert [[1.0]] == training.scores[:, :1].tolist()


def test_ungraded_answers_train_costs_only():
    training = training_set([row(1, "table", score=None)], CANDIDATES)

    assert np.isnan(training.scores).all()
    assert [[pytest.approx(np.nan, nan_ok=True), 0.003]] == training.cost_usd.tolist()
    assert 100.0 == training.output_tokens[0, 1]


def test_only_columns_without_a_token_price_train_on_bills():
    rows = [row(1, "small"), row(1, "table"), row(2, "table", cost_nusd=None)]
    training = training_set(rows, CANDIDATES)

    assert np.isnan(training.cost_usd[:, 0]).all()
    assert 0.003 == training.cost_usd[0, 1]
    assert np.isnan(training.cost_usd[1, 1])


def test_without_text_keys_every_decision_is_its_own_group():
    rows = [row(i, name, text_key=None, features=None) for i in (1, 2) for name in ("small",)]
    training = training_set(rows, CANDIDATES)

    assert ["d1-small", "d2-small"] == training.groups
    assert [0, 0] == [text.indices.size for text in training.texts]


def test_features_of_another_version_count_as_none():
    training = training_set([row(1, features=b"\xff\x00")], CANDIDATES)

    assert 0 == training.texts[0].indices.size


def test_no_rows_give_empty_arrays():
    training = training_set([], CANDIDATES)

    assert (0, 2) == training.scores.shape == training.cost_usd.shape
    assert (0, 5) == training.shapes.shape
    assert ("small", "table") == training.columns


@pytest.mark.parametrize("level", ["none", "hash"])
def test_a_log_without_features_is_learned_by_task(level):
    rows = []
    for i in range(80):
        task, score = ("sums", 1.0) if i % 2 else ("poems", 0.0)
        key = None if level == "none" else text_key(str(i))
        rows.append(row(i, task=task, score=score, text_key=key, features=None))
    snapshot = fit_snapshot(training_set(rows, CANDIDATES), CANDIDATES, version="v", n_bootstraps=6)
    texts = [hash_text("anything"), hash_text("")]
    prob = snapshot.predictor.predict_features(texts, tasks=["sums", "poems"]).prob

    assert prob[0, 0] > 0.85
    assert prob[1, 0] < 0.15


def test_too_few_labels_are_not_fitted(store):
    log(store, noisy_answers(9))
    report = refit(store, CANDIDATES, SETTINGS)

    assert (False, None, 18) == (report.published, report.version, report.n_labels)
    assert "not fitted: 18/20 labels" == report.reason
    assert store.current_predictor() is None


def test_an_empty_log_is_not_fitted_even_if_no_label_is_asked_for(store):
    report = refit(store, CANDIDATES, replace(SETTINGS, min_labels=0))

    assert (False, 0) == (report.published, report.n_labels)


def test_a_first_fit_is_published_and_can_be_read(store):
    log(store, noisy_answers(30))
    report = refit(store, CANDIDATES, SETTINGS)
    snapshot = load_current(store)

    assert (True, "published", 60) == (report.published, report.reason, report.n_labels)
    assert report.version == snapshot.version == store.current_predictor()
    assert ["small", "table"] == list(snapshot.metrics["columns"])
    assert [30, 30] == snapshot.metrics["n_labels_per_column"]
    assert (START + timedelta(hours=29)).isoformat() == snapshot.metrics["fitted_until"]
    assert live_aim(snapshot, Knee()).price >= 0.0
    published = store.predictors()[0]
    assert ("published", report.version) == (published.status, published.version)
    assert list(published.front) == sorted(published.front)


def publish_one_that_has_seen_everything(store, fitted_until, candidates=CANDIDATES):
    training = training_set(store.training_rows(), candidates)
    snapshot = fit_snapshot(training, candidates, version="cheater", n_bootstraps=6)
    metrics = {**snapshot.metrics, "fitted_until": fitted_until.isoformat()}
    known = {name: getattr(snapshot, name) for name in snapshot.__dataclass_fields__}
    final = Snapshot(**{**known, "metrics": metrics})
    store.publish(version="cheater", artifact=final.to_bytes(), metrics=metrics, front=[])


def test_a_worse_predictor_is_kept_out(store):
    def answers(numbers, *, right):
        return [(i, n, float((i % 2 == 0) == right)) for i in numbers for n in ("small", "table")]

    log(store, answers(range(80), right=True))
    good = refit(store, CANDIDATES, SETTINGS)
    for again in "abc":  # old queries answered otherwise: they are fitted, but judge nobody
        log(store, answers(range(80), right=False), again=again)
    log(store, answers(range(200, 230), right=True))
    bad = refit(store, CANDIDATES, SETTINGS)

    assert (True, False) == (good.published, bad.published)
    assert f"kept the current predictor: on 60 labels that are new since {good.version}" in (
        bad.reason
    )
    assert "worse" in bad.reason
    assert good.version == store.current_predictor()
    assert {good.version: "published", bad.version: "kept_out"} == {
        predictor.version: predictor.status for predictor in store.predictors()
    }


def test_an_equally_good_predictor_is_published(store):
    log(store, [(i, name, 1.0) for i in range(30) for name in ("small", "table")])
    first = refit(store, CANDIDATES, SETTINGS)
    log(store, [(i, name, 1.0) for i in range(30, 60) for name in ("small", "table")])
    second = refit(store, CANDIDATES, SETTINGS)

    assert (True, True) == (first.published, second.published)
    assert second.version == store.current_predictor()
    assert first.version < second.version


def test_few_new_labels_do_not_judge(store):
    log(store, noisy_answers(40))
    publish_one_that_has_seen_everything(store, START + timedelta(hours=31))

    assert refit(store, CANDIDATES, SETTINGS).published  # 8 texts x 2 labels are below 20


def test_other_candidates_are_published_without_a_comparison(store):
    log(store, noisy_answers(60))
    publish_one_that_has_seen_everything(store, START - timedelta(hours=1))

    assert refit(store, CANDIDATES[:1], SETTINGS).published


def test_the_order_of_the_candidates_does_not_hide_that_a_predictor_is_worse(store):
    log(store, noisy_answers(60))
    publish_one_that_has_seen_everything(store, START - timedelta(hours=1), CANDIDATES[::-1])
    report = refit(store, CANDIDATES, SETTINGS)

    assert not report.published
    assert "kept the current predictor: on 120 labels" in report.reason


def test_labels_that_a_candidate_joined_with_do_not_judge(store):
    log(store, [(i, "table" if i < 7 else "small", 1.0) for i in range(10)])
    rows = store.training_rows()
    training = training_set(rows, CANDIDATES)
    snapshot = fit_snapshot(training, CANDIDATES, version="v", n_bootstraps=4)

    def fresh(**metrics):
        return learning._fresh_rows(replace(snapshot, metrics=metrics), training, rows).tolist()

    until = {
        "fitted_until": (START + timedelta(hours=1)).isoformat(),
        "joined_until": (START + timedelta(hours=4)).isoformat(),
    }
    assert [2, 3, 4, 5, 6, 7, 8, 9] == fresh(**until)
    assert [5, 6, 7, 8, 9] == fresh(**until, joined=["table"])
    assert [2, 3, 4, 5, 6, 7, 8, 9] == fresh(**until, joined=["small"])


def test_an_unreadable_predictor_is_left_aside_and_replaced(store, caplog):
    log(store, noisy_answers(30))
    store.publish(version="odd", artifact=b"from elsewhere", metrics={}, front=[])
    with caplog.at_level(logging.WARNING, logger="optllm_router"):
        found = load_current(store)
    report = refit(store, CANDIDATES, SETTINGS)

    assert found is None
    assert "predictor odd is left aside: the predictor's bytes do not match" in caplog.text
    assert report.published


def test_all_graded_answers_are_kept_of_a_long_log(store, monkeypatch):
    monkeypatch.setattr(learning, "MAX_UNGRADED", 5)
    ungraded = [(i, "small", None) for i in range(100, 140)]
    log(store, [*noisy_answers(30), *ungraded])
    report = refit(store, CANDIDATES, SETTINGS)

    assert 60 == report.n_labels
    assert 35 == report.metrics["n_queries"]


def test_answers_of_others_only_are_no_labels(store):
    log(store, [(i, "table", 1.0) for i in range(30)])
    report = refit(store, CANDIDATES[:1], SETTINGS)

    assert "not fitted: 0/20 labels" == report.reason


def test_a_log_without_any_known_cost_is_published_with_an_empty_front(store):
    log(store, [(i, "small", 1.0) for i in range(30)], cost_nusd=None)
    report = refit(store, [replace(CANDIDATES[0], price=None)], SETTINGS)

    assert report.published
    assert 0 == load_current(store).front.n_queries


def test_versions_sort_by_time():
    assert new_version() < new_version()


def test_a_refit_in_a_child_process_publishes_on_the_same_file(store, url):
    log(store, noisy_answers(30))
    prices = store.price_version({c.name: c.price for c in CANDIDATES})
    report = refit_in_child(url, CANDIDATES, SETTINGS, price_version=prices)
    snapshot = load_current(store)

    assert (True, 60) == (report.published, report.n_labels)
    assert report.version == store.current_predictor() == snapshot.version
    assert report.metrics == dict(snapshot.metrics)
    assert 0.0 < snapshot.traffic_cost_usd.min()


def test_a_child_fits_the_same_bits_as_its_parent(store, url):
    log(store, noisy_answers(30))
    prices = store.price_version({c.name: c.price for c in CANDIDATES})
    refit_in_child(url, CANDIDATES, SETTINGS, price_version=prices)
    child = load_current(store)
    refit(store, CANDIDATES, SETTINGS)
    parent = load_current(store)

    assert child.traffic_prob.tobytes() == parent.traffic_prob.tobytes()
    assert child.traffic_cost_usd.tobytes() == parent.traffic_cost_usd.tobytes()


def test_a_child_fits_the_kind_that_is_set(store, url):
    log(store, noisy_answers(30))
    prices = store.price_version({c.name: c.price for c in CANDIDATES})
    settings = RefitSettings(kind="forest", n_bootstraps=2, min_labels=20)
    report = refit_in_child(url, CANDIDATES, settings, price_version=prices)

    assert (True, "forest") == (report.published, report.metrics["kind"])
    assert "forest" == load_current(store).kind


def test_a_failing_child_says_why(store, url):
    with pytest.raises(RuntimeError) as error:
        refit_in_child(url, CANDIDATES, SETTINGS, price_version="no such list")

    assert "the refit process failed" in str(error.value)
    assert "no such list" in str(error.value)


def test_a_child_that_hangs_is_given_up(store, url, monkeypatch):
    monkeypatch.setattr(learning, "CHILD_TIMEOUT_S", 0.01)
    with pytest.raises(RuntimeError) as error:
        refit_in_child(url, CANDIDATES, SETTINGS, price_version="p")

    assert "the refit process took more than 0.01 s" == str(error.value)


def test_late_feedback_on_old_answers_judges_the_new_predictor(store):
    def answers(numbers, score):
        return [(i, n, score(i)) for i in numbers for n in ("small", "table")]

    log(store, answers(range(40, 120), lambda i: float(i % 2 == 0)))
    log(store, answers(range(30), lambda _: None))  # answered before the fit, graded after it
    good = refit(store, CANDIDATES, SETTINGS)
    for again in "abc":
        log(store, answers(range(40, 120), lambda i: float(i % 2 == 1)), again=again)
    late = START + timedelta(days=30)
    ungraded = [row for row in store.training_rows() if row.score is None]
    store.add_outcomes(
        [
            Outcome(
                decision_id=row.decision_id,
                score=float(int(row.decision_id[1:].split("-")[0]) % 2 == 0),
                source="feedback",
                created_at=late,
            )
            for row in ungraded
        ]
    )

    assert len(ungraded) == 60
    assert "on 60 labels that are new since" in refit(store, CANDIDATES, SETTINGS).reason
    assert good.version == store.current_predictor()
