"""A candidate that the published predictor does not know joins it once the log has labels of it."""

import json
from dataclasses import replace

import pytest

from optllm_router import MostAccurate
from optllm_router.core.features import hash_texts
from optllm_router.router import joining
from optllm_router.router.joining import JOINED_TO, Joins
from optllm_router.testing.scripted import ScriptedClient

from .conftest import KINDS, LINES, NAMES, PRICES, USAGE, Line, _knows

ASKED = [f"{kind} question number {i}" for i in range(12, 20) for kind in KINDS]
WITH_LATE = [*NAMES, "late"]


@pytest.fixture
def client():
    """The usual three candidates, and one that is as good as the dear one for a fifth of it."""
    lines = {**LINES, "late": Line(text="late says", usage=USAGE)}
    return ScriptedClient(lines, prices={**PRICES, "late": (2, 2)})


@pytest.fixture
def with_late(trained):
    """Build a router that has learned of three candidates and is given a fourth."""
    return lambda **settings: trained(candidates=WITH_LATE, **settings)


def pinned(router, ask, *scores, start=0):
    """Call the late candidate as a pin, and grade its answers."""
    for i, score in enumerate(scores, start):
        response = router.complete("late", messages=ask(f"hard question number {100 + i}"))
        router.feedback(response, score=score)


def version(router):
    return router._engine.state.snapshot.version


def bits(router, names=NAMES):
    """Every bit of what is estimated of some candidates, many queries at once and one by one."""
    snapshot = router._engine.state.snapshot
    columns = [snapshot.columns.index(name) for name in names]
    texts = hash_texts(ASKED)
    found = [snapshot.predictor.predict_features(some) for some in (texts, *([t] for t in texts))]
    return b"".join(e.prob[:, columns].tobytes() + e.std[:, columns].tobytes() for e in found)


def test_a_new_candidate_joins_once_it_has_labels_and_the_others_stay_bit_for_bit(
    with_late, ask, logged
):
    router = with_late(policy=MostAccurate())
    fitted, before = version(router), bits(router)
    assert ["late: no label yet, so it is not offered; `probe` it"] == [
        remark for remark in router.check() if "late" in remark
    ]
    pinned(router, ask, 1.0, 1.0, 1.0)
    router._engine._keep_house()

    assert (*NAMES, "late") == router._engine.state.snapshot.columns
    assert before == bits(router)
    assert not [remark for remark in router.check() if "late" in remark]
    columns = {column.name: column for column in router.explain("hard question").columns}
    late = columns["late"]
    assert ("possible", 3) == (late.status, late.n_labels)
    assert late.low_cost_usd <= late.expected_cost_usd <= late.high_cost_usd
    assert late.std > max(columns[name].std for name in NAMES)
    response = router.complete(messages=ask("hard question number 50"))
    decision = logged(router)[-1].decision
    assert fitted < version(router) == decision.predictor_version
    assert "late" in decision.allowed
    assert version(router) == response._hidden_params["optllm"]["predictor_version"]


def test_a_refit_does_change_the_others(with_late, ask):
    # what the test above would not let pass
    router = with_late()
    before = bits(router)
    pinned(router, ask, 1.0, 1.0, 1.0)

    assert router.retrain().published
    assert before != bits(router)


def test_what_joined_is_published_with_a_version_of_its_own(with_late, ask):
    router = with_late()
    fitted = version(router)
    pinned(router, ask, 1.0, 0.0)
    router._engine._keep_house()
    newest, oldest = router.history.predictors()

    assert (version(router), "published") == (newest.version, newest.status)
    assert (fitted, "retired") == (oldest.version, oldest.status)
    assert (fitted, ["late"]) == (newest.metrics[JOINED_TO], newest.metrics["joined"])
    assert [30, 30, 30, 2] == newest.metrics["n_labels_per_column"]
    assert oldest.metrics["fitted_until"] == newest.metrics["fitted_until"]
    assert newest.metrics["fitted_until"] < newest.metrics["joined_until"]
    (event,) = router.history.events()
    assert ("join", "joined the published predictor: late") == (event.kind, event.message)


def test_without_labels_nothing_joins_and_nothing_is_read_twice(with_late, monkeypatch):
    router = with_late()
    store, read = router._engine.store, []
    find = store.training_rows
    monkeypatch.setattr(store, "training_rows", lambda **given: read.append(given) or find(**given))
    fitted = version(router)
    for _ in range(3):
        router._engine._keep_house()

    assert fitted == version(router)
    assert [] == read


def test_a_router_without_new_candidates_does_not_look_for_labels(trained, ask, monkeypatch):
    router = trained()
    monkeypatch.setattr(router._engine.store, "training_rows", None)
    router.feedback(router.complete(messages=ask("easy question")), score=1.0)
    router._engine._keep_house()

    assert 1 == len(router.history.predictors())


def test_a_candidate_joins_again_as_its_labels_grow_by_half(with_late, ask):
    router = with_late()
    counts = []
    for i in range(7):
        pinned(router, ask, 1.0, start=i)
        router._engine._keep_house()
        counts.append(router._engine.state.snapshot.predictor.n_labels_[3].item())

    assert [1, 2, 3, 4, 4, 6, 6] == counts


def test_labels_that_were_there_at_the_start_count_at_once(with_late, make_router, ask):
    first = with_late(retrain={"enabled": False})
    pinned(first, ask, 1.0, 1.0)
    first.close()

    assert "late" in make_router(candidates=WITH_LATE)._engine.state.snapshot.columns


def test_an_import_lets_a_candidate_join_at_once(with_late, tmp_path):
    router = with_late()
    table = tmp_path / "labels.jsonl"
    rows = [{"query": f"hard question {i}", "model": "late", "score": 1} for i in range(4)]
    table.write_text("\n".join(json.dumps(row) for row in rows))
    router.import_outcomes(table)

    assert 4 == router._engine.state.snapshot.predictor.n_labels_[3]


def test_a_probe_lets_a_candidate_join_at_once(with_late, client):
    router = with_late()
    before = bits(router)
    client._scripts = {name: _knows(name) for name in WITH_LATE}
    router.probe(ASKED[:6], grader=lambda text, _reference: float(text.startswith("right")))

    assert 6 == router._engine.state.snapshot.predictor.n_labels_[3]
    assert before == bits(router)


def test_where_learning_is_off_nothing_joins_and_check_says_what_to_do(with_late, ask):
    router = with_late(retrain={"enabled": False})
    pinned(router, ask, 1.0)
    router._engine._keep_house()

    assert tuple(NAMES) == router._engine.state.snapshot.columns
    (remark,) = [remark for remark in router.check() if "late" in remark]
    assert remark == (
        "late: its labels are newer than the published predictor, so it is not offered yet; "
        "`retrain`"
    )


def test_what_was_published_meanwhile_is_not_replaced(with_late, ask):
    router = with_late()
    stale = router._engine.state
    pinned(router, ask, 1.0)
    router.retrain()
    current = version(router)
    joins = Joins(router._engine.store, router.config)

    assert () == joins.when_due(replace(stale, n_labels=99), 99)
    assert current == router._engine.store.current_predictor()


def test_a_candidate_that_joined_is_fitted_by_the_next_refit(with_late, ask):
    router = with_late()
    pinned(router, ask, 1.0, 0.0)
    router._engine._keep_house()
    report = router.retrain()
    snapshot = router._engine.state.snapshot

    assert report.version == snapshot.version
    assert tuple(WITH_LATE) == snapshot.columns
    assert [True, True, True, False] == snapshot.predictor.fitted_.tolist()
    assert JOINED_TO not in report.metrics


def test_a_join_does_not_put_off_the_next_refit(with_late, ask):
    router = with_late(retrain={"every_outcomes": 5})
    engine = router._engine
    pinned(router, ask, 1.0, 0.0, 1.0)
    engine._keep_house()
    assert JOINED_TO in router.history.predictors()[0].metrics
    pinned(router, ask, 1.0, 0.0, start=3)

    assert engine._refits._is_due(engine.state, engine.store.n_graded())


def test_nothing_is_read_before_there_can_be_enough_labels(with_late, ask, monkeypatch):
    router = with_late()
    pinned(router, ask, *[1.0] * 10)
    router._engine._keep_house()
    store, read = router._engine.store, []
    find = store.training_rows
    monkeypatch.setattr(store, "training_rows", lambda **given: read.append(given) or find(**given))
    counts = []
    for i in range(10, 15):
        pinned(router, ask, 1.0, start=i)
        router._engine._keep_house()
        counts.append((len(read), router._engine.state.snapshot.predictor.n_labels_[3].item()))

    # What joined is a new version, which is looked through once; then five labels are awaited.
    assert [(1, 10), (1, 10), (1, 10), (1, 10), (2, 15)] == counts


def test_the_labels_of_one_candidate_do_not_hide_those_of_another(
    trained, client, ask, monkeypatch
):
    monkeypatch.setattr(joining, "MAX_LABELS", 2)
    client._scripts["later"] = client._scripts["late"]
    client._prices["later"] = client._prices["late"]
    router = trained(candidates=[*WITH_LATE, "later"])
    response = router.complete("later", messages=ask("hard question number 99"))
    router.feedback(response, score=1.0)
    pinned(router, ask, 1.0, 1.0, 1.0)
    router._engine._keep_house()

    assert [30, 30, 30, 2, 1] == router._engine.state.snapshot.predictor.n_labels_.tolist()


def test_a_candidate_that_was_taken_away_joins_again_when_it_is_back(with_late, make_router, ask):
    first = with_late()
    pinned(first, ask, 1.0, 0.0)
    first._engine._keep_house()
    first.close()
    second = make_router()
    assert second.retrain().published
    assert tuple(NAMES) == second._engine.state.snapshot.columns
    second.close()
    third = make_router(candidates=WITH_LATE)

    assert 2 == third._engine.state.snapshot.predictor.n_labels_[3]


def test_a_fault_in_joining_does_not_fail_a_probe(with_late, client, monkeypatch, caplog):
    router = with_late()
    fitted = version(router)
    client._scripts = {name: _knows(name) for name in WITH_LATE}
    monkeypatch.setattr(joining, "join_columns", None)
    report = router.probe(ASKED[:2], grader=lambda text, _reference: 1.0)

    assert (2, 8) == (report.n_queries, report.n_calls)
    assert fitted == version(router)
    assert "the router could not get ready" in caplog.text


def test_of_two_that_join_at_once_one_publishes(with_late, make_router, ask):
    router = with_late()
    other = make_router(candidates=WITH_LATE)
    pinned(router, ask, 1.0)
    n_graded = router._engine.store.n_graded()
    names = [
        Joins(one._engine.store, one.config).when_due(one._engine.state, n_graded)
        for one in (router, other)
    ]

    assert [("late",), ()] == names
    assert 2 == len(router.history.predictors())


def test_another_process_takes_over_what_joined(with_late, make_router, ask):
    router = with_late()
    other = make_router(candidates=WITH_LATE)
    pinned(router, ask, 1.0)
    router._engine._keep_house()
    other._engine._keep_house()

    assert version(router) == version(other)
    assert 2 == len(router.history.predictors())


def test_a_forest_is_not_joined(with_late, ask, monkeypatch):
    router = with_late()
    monkeypatch.setattr(joining, "SuccessPredictor", int)
    pinned(router, ask, 1.0)
    router._engine._keep_house()

    assert tuple(NAMES) == router._engine.state.snapshot.columns
