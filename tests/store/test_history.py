"""History: the log's answers in USD, as values that can be printed and dumped."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from optllm_router.errors import ConfigError, UnknownDecisionError
from optllm_router.history import History, HistoryRow
from optllm_router.store.sql import open_store
from optllm_router.testing.store_suite import (
    NOON,
    SECOND,
    a_decision,
    an_attempt,
    an_outcome,
    record,
)


@pytest.fixture
def store():
    store = open_store("sqlite://")
    yield store
    store.close()


@pytest.fixture
def history(store):
    return History(store)


def test_the_summary_gives_exact_money_in_usd(store, history):
    for number in range(3):
        decision = a_decision(number)
        store.record(decision, [an_attempt(decision, cost_nusd=100_000_001)])

    (row,) = history.summary()

    expected = HistoryRow(
        key="small",
        n_decisions=3,
        n_attempts=3,
        n_errors=0,
        n_graded=0,
        mean_score=None,
        cost_usd=0.300000003,
        n_estimated=0,
        n_unpriced=0,
        prompt_tokens=30,
        completion_tokens=60,
        mean_latency_s=0.5,
    )
    assert expected == row
    assert 0.300000003 == json.loads(json.dumps(row.to_dict()))["cost_usd"]


def test_the_summary_passes_its_filters_on(store, history):
    record(store, 1, batch_id="b", task="x")
    record(store, 2, kind="import", task="y")

    assert ["x"] == [row.key for row in history.summary("task")]
    assert {"x", "y"} == {row.key for row in history.summary("task", include_imports=True)}
    assert [] == history.summary(by="task", since=NOON + 2 * SECOND)
    assert [] == history.summary(by="task", until=NOON)
    assert [] == history.summary(by="task", batch_id="c")


def test_an_empty_log_has_an_empty_history(history):
    assert [] == history.summary()
    assert [] == history.decisions()
    assert [] == history.fronts()
    assert [] == history.predictors()
    assert [] == history.events()


def test_an_unknown_group_lists_the_known_ones(history):
    with pytest.raises(ConfigError, match="'model' is no group of the history: choose one of cand"):
        history.summary(by="model")


def test_a_time_without_a_zone_is_refused(history):
    naive = datetime(2026, 1, 1)  # noqa: DTZ001  # that is the point

    for ask in (
        lambda: history.summary(since=naive),
        lambda: history.summary(until=naive),
        lambda: history.decisions(before=naive),
    ):
        with pytest.raises(ConfigError, match="has no time zone"):
            ask()


def test_a_negative_limit_is_refused(history):
    with pytest.raises(ConfigError, match="limit=-1"):
        history.decisions(limit=-1)


def test_a_decision_is_found_by_id_or_response_and_becomes_json(store, history):
    decision = a_decision(tags=("t",), expected_cost_nusd=1_500_000_000)
    store.record(
        decision,
        [
            an_attempt(decision, status="error", cost_nusd=None, response_id=None),
            an_attempt(decision, number=2, cost_nusd=2_000_000_000),
        ],
    )
    store.add_outcomes([an_outcome(decision, 0.5), an_outcome(decision, 1.0, source="feedback")])

    found = history.decision("response-decision-1-2")

    assert found == history.decision(decision.id)
    assert [found] == history.decisions()
    assert (1.5, 2.0, 1.0) == (found.expected_cost_usd, found.cost_usd, found.score)
    assert [None, 2.0] == [attempt.cost_usd for attempt in found.attempts]
    values = json.loads(json.dumps(found.to_dict()))
    assert "2026-05-17T12:00:01.123456+00:00" == values["created_at"]
    assert ["t"] == values["tags"]
    assert [1.0, 0.5] == [outcome["score"] for outcome in values["outcomes"]]


def test_the_score_of_a_decision_is_the_one_that_learning_takes(store, history):
    decision = record(store)
    for score, source, seconds in ((0.1, "b", 9), (0.2, "a", 9), (0.3, "c", 1)):
        outcome = an_outcome(decision, score, source=source, created_at=NOON + seconds * SECOND)
        store.add_outcomes([outcome])

    (row,) = store.training_rows()

    assert 0.2 == row.score == history.decision(decision.id).score


def test_decisions_pass_their_filters_on(store, history):
    record(store, 1, task="x", kind="pin", session_id="s", batch_id="b", tags=("t",))
    record(store, 2)

    for filters in (
        {"task": "x"},
        {"kind": "pin"},
        {"session_id": "s"},
        {"batch_id": "b"},
        {"tag": "t"},
        {"before": NOON + 2 * SECOND},
    ):
        assert ["decision-1"] == [one.decision_id for one in history.decisions(**filters)]


def test_an_unknown_decision_is_an_error(history):
    with pytest.raises(UnknownDecisionError):
        history.decision("nothing")


def test_fronts_are_those_that_were_published_newest_first(store, history):
    for version, status in (("v1", "published"), ("v2", "kept_out"), ("v3", "published")):
        store.publish(
            version=version,
            artifact=b"",
            metrics={"n": 1},
            front=[(0.5, 0.75)],
            status=status,
        )

    newest, oldest = history.fronts()

    assert ("v3", True, "v1", False) == (
        newest.version,
        newest.is_current,
        oldest.version,
        oldest.is_current,
    )
    assert ((0.5, 0.75),) == newest.points
    assert [[0.5, 0.75]] == json.loads(json.dumps(newest.to_dict()))["points"]
    assert ["v3"] == [front.version for front in history.fronts(limit=1)]
    assert ["v3", "v2", "v1"] == [one.version for one in history.predictors()]


def test_events_come_as_they_were_logged(store, history):
    store.log_event("refit", "kept", {"n": 1})

    (event,) = history.events()

    assert ("refit", "kept", {"n": 1}) == (event.kind, event.message, event.facts)
    assert UTC is event.at.tzinfo
