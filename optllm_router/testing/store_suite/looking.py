"""What people ask of the log: one decision, the newest ones, sums, events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from optllm_router.errors import UnknownDecisionError
from optllm_router.store.base import Store, SummaryRow
from optllm_router.testing.store_suite.entries import (
    NOON,
    SECOND,
    a_decision,
    an_attempt,
    an_outcome,
    record,
)


class Looking:
    """Finding, listing and summing."""

    def test_a_decision_is_found_by_its_id_and_by_its_newest_response(self, store: Store) -> None:
        older, newer = a_decision(1), a_decision(2)
        for decision in (newer, older):
            store.record(decision, [an_attempt(decision, response_id="reused")])

        assert older.id == store.find(older.id)
        assert newer.id == store.find("reused")

    @pytest.mark.parametrize("reference", ["", "no such id", "\x00", "\ud83d"])
    def test_an_unknown_reference_is_an_error(self, store: Store, reference: str) -> None:
        with pytest.raises(UnknownDecisionError):
            store.find(reference)
        with pytest.raises(UnknownDecisionError):
            store.decision(reference)

    def test_decisions_come_newest_first_and_filtered(self, store: Store) -> None:
        record(store, 1, task="a", session_id="s", batch_id="b", tags=("t", "u"))
        record(store, 2, task="a", kind="pin")
        record(store, 3, task="b", tags=("t",))

        def ids(**filters: Any) -> list[str]:
            return [one.decision.id[-1:] for one in store.decisions(**filters)]

        assert ["3", "2", "1"] == ids()
        assert ["3", "2"] == ids(limit=2)
        assert ["2", "1"] == ids(before=NOON + 3 * SECOND)
        assert ["2", "1"] == ids(task="a")
        assert ["2"] == ids(kind="pin")
        assert ["3", "1"] == ids(tag="t")
        assert ["1"] == ids(session_id="s")
        assert ["1"] == ids(batch_id="b")
        assert [] == ids(task="a", tag="t", kind="pin")

    def test_the_summary_by_candidate_gives_attempts_to_whom_they_asked(self, store: Store) -> None:
        decision = a_decision(served="large")
        store.record(
            decision,
            [
                an_attempt(decision, status="error", cost_nusd=2, latency_s=9.0),
                an_attempt(decision, number=2, candidate="large", cost_nusd=50, estimated=True),
                an_attempt(decision, number=3, candidate="large", cost_nusd=None),
            ],
        )
        store.record(a_decision(2, served=None), [])
        store.add_outcomes([an_outcome(decision, 0.5)])
        nothing: dict[str, Any] = {
            "n_decisions": 0,
            "n_attempts": 0,
            "n_errors": 0,
            "n_graded": 0,
            "mean_score": None,
            "cost_nusd": 0,
            "n_estimated": 0,
            "n_unpriced": 0,
            "prompt_tokens": 0,
            "completion_tokens": 0,
            "mean_latency_s": None,
        }
        large = {
            "n_decisions": 1,
            "n_attempts": 2,
            "n_graded": 1,
            "mean_score": 0.5,
            "cost_nusd": 50,
            "n_estimated": 1,
            "n_unpriced": 1,
            "prompt_tokens": 20,
            "completion_tokens": 40,
            "mean_latency_s": 0.5,
        }
        small = {
            "n_attempts": 1,
            "n_errors": 1,
            "cost_nusd": 2,
            "prompt_tokens": 10,
            "completion_tokens": 20,
        }

        assert [
            SummaryRow(**{**nothing, "key": "large", **large}),
            SummaryRow(**{**nothing, "key": "small", **small}),
            SummaryRow(**{**nothing, "key": "", "n_decisions": 1}),
        ] == store.summary("candidate")

    def test_the_summary_groups_by_everything_it_names(self, store: Store) -> None:
        record(store, 1, task="a", tags=("t", "u"), batch_id="b", policy="knee")
        record(store, 2, task="b", tags=("t",), kind="pin", policy="fixed")
        record(store, 3, created_at=NOON + timedelta(hours=12))

        def groups(by: Any) -> dict[str, int]:
            return {row.key: row.cost_nusd for row in store.summary(by)}

        assert {"small": 90} == groups("candidate")
        assert {"a": 30, "b": 30, "": 30} == groups("task")
        assert {"2026-05-17": 60, "2026-05-18": 30} == groups("day")
        assert {"knee": 60, "fixed": 30} == groups("policy")
        assert {"t": 60, "u": 30, "": 30} == groups("tag")
        assert {"route": 60, "pin": 30} == groups("kind")
        assert {"b": 30, "": 60} == groups("batch")

    def test_the_summary_takes_a_span_of_time_and_a_batch(self, store: Store) -> None:
        for number in (1, 2, 3):
            record(store, number, batch_id="b" if number == 3 else None)

        def cost(**filters: Any) -> int:
            return sum(row.cost_nusd for row in store.summary("candidate", **filters))

        assert 60 == cost(since=NOON + 2 * SECOND)
        assert 30 == cost(until=NOON + 2 * SECOND)
        assert 30 == cost(batch_id="b")
        assert 0 == cost(batch_id="b", until=NOON + 3 * SECOND)
        assert [] == store.summary("task", batch_id="none")

    def test_the_summary_leaves_imports_out_unless_asked(self, store: Store) -> None:
        record(store, 1, kind="import")
        record(store, 2)

        assert [30] == [row.cost_nusd for row in store.summary("candidate")]
        assert [60] == [row.cost_nusd for row in store.summary("candidate", include_imports=True)]

    def test_money_sums_to_the_nano_usd(self, store: Store) -> None:
        costs = [2**60 + 1, 2**60 + 3, 1]  # no float holds their sum
        for number, cost in enumerate(costs):
            decision = a_decision(number)
            store.record(decision, [an_attempt(decision, cost_nusd=cost)])

        assert [sum(costs)] == [row.cost_nusd for row in store.summary("candidate")]

    def test_events_come_newest_first(self, store: Store) -> None:
        before = datetime.now(UTC) - SECOND
        for number in range(3):
            store.log_event("refit", f"number {number}", {"n": number, "at": [1.5, None]})

        newest, *_ = found = store.events(limit=2)

        assert ["number 2", "number 1"] == [event.message for event in found]
        assert ("refit", {"n": 2, "at": [1.5, None]}) == (newest.kind, newest.facts)
        assert before < newest.at < datetime.now(UTC) + SECOND
