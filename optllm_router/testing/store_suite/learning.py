"""What a refit reads, and what it publishes."""

from __future__ import annotations

from typing import Any

import pytest

from optllm_router.errors import StoreError
from optllm_router.store.base import Store
from optllm_router.testing.store_suite.entries import (
    a_decision,
    an_attempt,
    an_outcome,
    record,
)


class Learning:
    """Training rows and predictors."""

    def test_training_rows_hold_what_learning_needs_oldest_first(self, store: Store) -> None:
        second = record(store, 2)
        first = record(
            store, 1, task="t", n_prompt_tokens=7, n_turns=2, n_tools=3, n_images=4, wants_json=True
        )
        store.add_outcomes([an_outcome(second, 0.5)])

        rows = store.training_rows()

        assert [first.id, second.id] == [row.decision_id for row in rows]
        assert [None, 0.5] == [row.score for row in rows]
        (row, _) = rows
        assert ("route", first.created_at, "t") == (row.kind, row.created_at, row.task)
        assert ("small", "key-1", b"\x00features\xff") == (row.served, row.text_key, row.features)
        assert (7, 2, 3, 4, True) == (
            row.n_prompt_tokens,
            row.n_turns,
            row.n_tools,
            row.n_images,
            row.wants_json,
        )
        assert (20, 30, False) == (row.completion_tokens, row.cost_nusd, row.cost_estimated)
        assert [second.id] == [row.decision_id for row in store.training_rows(limit=1)]

    def test_training_takes_the_attempt_that_served_and_answered(self, store: Store) -> None:
        retried = a_decision(1)
        store.record(
            retried,
            [
                an_attempt(retried, status="error", cost_nusd=1),
                an_attempt(retried, number=2, cost_nusd=2),
                an_attempt(retried, number=3, candidate="large", cost_nusd=3),
            ],
        )
        others: tuple[dict[str, Any], ...] = (
            {"status": "open"},
            {"status": "error"},
            {"status": "refused"},
            {"status": "abandoned", "completion_tokens": None},
            {"cache_hit": True},
            {"candidate": "large"},
        )
        for number, changes in enumerate(others, start=2):
            decision = a_decision(number)
            store.record(decision, [an_attempt(decision, **changes)])
        abandoned = a_decision(9)
        store.record(abandoned, [an_attempt(abandoned, status="abandoned")])

        rows = store.training_rows()

        assert [(retried.id, 2), (abandoned.id, 30)] == [(r.decision_id, r.cost_nusd) for r in rows]

    def test_an_answer_whose_reader_left_does_not_say_how_long_answers_are(
        self, store: Store
    ) -> None:
        left, counted = a_decision(1), a_decision(2)
        store.record(left, [an_attempt(left, status="abandoned", estimated=True)])
        store.record(counted, [an_attempt(counted, estimated=True)])

        rows = store.training_rows()

        assert [None, 20] == [row.completion_tokens for row in rows]

    def test_training_rows_of_one_candidate_are_its_graded_answers(self, store: Store) -> None:
        graded, of_another = record(store, 1), record(store, 3, served="large")
        record(store, 2)
        store.add_outcomes([an_outcome(graded, 0.5), an_outcome(graded, 1.0, source="feedback")])
        store.add_outcomes([an_outcome(of_another, 1.0)])

        (row,) = store.training_rows(graded_of="small")

        assert (graded.id, 1.0) == (row.decision_id, row.score)
        assert [] == store.training_rows(graded_of="absent")

    def test_a_predictor_that_replaces_another_is_not_written_after_a_third(
        self, store: Store
    ) -> None:
        def publish(version: str, replaces: str | None) -> bool:
            artifact = version.encode()
            return store.publish(
                version=version, artifact=artifact, metrics={}, front=[], replaces=replaces
            )

        assert [False, True, True, False] == [
            publish("v0", "v1"),
            publish("v1", None),
            publish("v2", "v1"),
            publish("v3", "v1"),
        ]
        assert "v2" == store.current_predictor()
        assert {"v1", "v2"} == {one.version for one in store.predictors()}

    def test_publishing_retires_the_predictor_before(self, store: Store) -> None:
        assert store.current_predictor() is None
        front = [(0.1, 0.5), (1 / 3, 0.9)]
        store.publish(version="v1", artifact=b"\x00one", metrics={"brier": 0.2}, front=front)
        store.publish(version="v2", artifact=b"two", metrics={}, front=[])
        store.publish(version="v3", artifact=b"three", metrics={}, front=[], status="kept_out")

        assert "v2" == store.current_predictor()
        assert b"\x00one" == store.artifact("v1")
        assert [("v3", "kept_out"), ("v2", "published"), ("v1", "retired")] == [
            (one.version, one.status) for one in store.predictors()
        ]
        (oldest,) = [one for one in store.predictors() if one.version == "v1"]
        assert tuple(front) == oldest.front
        assert {"brier": 0.2} == oldest.metrics
        assert ["v3"] == [one.version for one in store.predictors(limit=1)]

    def test_a_version_can_be_published_again_but_never_with_other_bytes(
        self, store: Store
    ) -> None:
        for version in ("v1", "v2", "v1"):
            store.publish(version=version, artifact=version.encode(), metrics={}, front=[])

        assert "v1" == store.current_predictor()
        store.publish(version="v1", artifact=b"v1", metrics={}, front=[], status="kept_out")
        assert "v1" == store.current_predictor()
        with pytest.raises(StoreError, match="other bytes"):
            store.publish(version="v2", artifact=b"else", metrics={}, front=[])
        assert "v1" == store.current_predictor()

    def test_a_missing_artifact_is_an_error_that_names_the_version(self, store: Store) -> None:
        with pytest.raises(StoreError, match="'v9'"):
            store.artifact("v9")
