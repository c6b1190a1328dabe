"""What every store must do, as tests: subclass `StoreSuite` and give it a `store` fixture.

    class TestMyStore(StoreSuite):
        @pytest.fixture
        def store(self):
            store = MyStore()
            yield store
            store.close()

The fixture must return an empty store. One suite runs over every database, so that they cannot
come to differ. This is the only module of the package that imports pytest.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from optllm_router.errors import ConfigError, StoreError, UnknownDecisionError
from optllm_router.records import Attempt, Decision, Outcome, PriceTier, TokenPrice
from optllm_router.store.base import ForgetReport, Store, SummaryRow

NOON = datetime(2026, 5, 17, 12, 0, 0, 123456, tzinfo=UTC)
SECOND = timedelta(seconds=1)
AWKWARD = "NUL \x00, escape \x1a0000, half an emoji \ud83d, a whole one \U0001f600, 'quotes' % \\"


def a_decision(number: int = 1, **changes: Any) -> Decision:
    """Return a served decision; `number` sets its id, text and time (one second apart)."""
    values: dict[str, Any] = {
        "id": f"decision-{number}",
        "created_at": NOON + number * SECOND,
        "kind": "route",
        "requested": "auto",
        "chosen": "small",
        "served": "small",
        "policy": "knee",
        "reason": "",
        "text_key": f"key-{number}",
        "features": b"\x00features\xff",
    }
    return Decision(**{**values, **changes})


def an_attempt(decision: Decision, number: int = 1, **changes: Any) -> Attempt:
    """Return an attempt that answered `decision` with 10 + 20 tokens for 30 nano-USD."""
    values: dict[str, Any] = {
        "id": f"{decision.id}-attempt-{number}",
        "decision_id": decision.id,
        "number": number,
        "candidate": "small",
        "status": "ok",
        "started_at": decision.created_at,
        "latency_s": 0.5,
        "prompt_tokens": 10,
        "completion_tokens": 20,
        "cost_nusd": 30,
        "response_id": f"response-{decision.id}-{number}",
    }
    return Attempt(**{**values, **changes})


def an_outcome(decision: Decision, score: float = 1.0, **changes: Any) -> Outcome:
    """Return a grader's outcome of `decision`, a second after it."""
    values: dict[str, Any] = {
        "decision_id": decision.id,
        "score": score,
        "source": "grader:exact",
        "created_at": decision.created_at + SECOND,
    }
    return Outcome(**{**values, **changes})


def record(store: Store, number: int = 1, **changes: Any) -> Decision:
    """Write a decision with one answering attempt; return it."""
    decision = a_decision(number, **changes)
    store.record(decision, [an_attempt(decision, candidate=decision.served or "small")])
    return decision


class StoreSuite:
    """The contract of `store.base`, test by test."""

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        """Give an empty store."""
        raise NotImplementedError("override the fixture `store` with one that gives your store")

    def test_a_decision_reads_back_as_written(self, store: Store) -> None:
        decision = a_decision(
            task="triage",
            tags=("b", "a"),
            session_id="s",
            batch_id="b",
            predictor_version="p1",
            price_version="v1",
            propensity=0.1,
            dual_price=1 / 3,
            epsilon=0.05,
            allowed=("small", "large"),
            expected_accuracy=0.9,
            expected_cost_nusd=2**62,
            prompt="what is routed",
            n_prompt_tokens=7,
            n_turns=2,
            n_tools=3,
            n_images=4,
            wants_json=True,
        )
        failed = an_attempt(
            decision,
            status="error",
            error_class="RateLimitError",
            error_text="slow down",
            prompt_tokens=None,
            completion_tokens=None,
            cost_nusd=None,
            response_id=None,
        )
        answered = an_attempt(
            decision,
            number=2,
            cached_tokens=5,
            estimated=True,
            streamed=True,
            cache_hit=True,
            price_version="v1",
        )
        store.record(decision, [failed, answered])

        logged = store.decision(decision.id)

        assert decision == logged.decision
        assert (failed, answered) == logged.attempts
        assert () == logged.outcomes

    def test_an_almost_empty_decision_reads_back_as_written(self, store: Store) -> None:
        decision = a_decision(served=None, text_key=None, features=None)
        store.record(decision, [])

        logged = store.decision(decision.id)

        assert decision == logged.decision
        assert () == logged.attempts

    def test_awkward_characters_survive_everywhere(self, store: Store) -> None:
        decision = a_decision(
            task=AWKWARD,
            tags=(AWKWARD,),
            session_id=AWKWARD,
            batch_id=AWKWARD,
            requested=AWKWARD,
            reason=AWKWARD,
            policy=AWKWARD,
            allowed=(AWKWARD,),
            prompt=AWKWARD,
        )
        attempt = an_attempt(decision, error_text=AWKWARD, response_id=AWKWARD)
        store.record(decision, [attempt])
        store.log_event("fault", AWKWARD, {AWKWARD: AWKWARD})

        assert decision == store.decision(decision.id).decision
        assert (attempt,) == store.decision(decision.id).attempts
        assert decision.id == store.find(AWKWARD)
        assert 1 == len(store.decisions(task=AWKWARD, tag=AWKWARD, session_id=AWKWARD))
        assert [AWKWARD] == [row.key for row in store.summary("tag")]
        assert [(AWKWARD, {AWKWARD: AWKWARD})] == [(e.message, e.facts) for e in store.events()]

    def test_a_prompt_of_a_million_characters_survives(self, store: Store) -> None:
        decision = a_decision(prompt="é" * 1_000_000)
        store.record(decision, [])

        assert decision == store.decision(decision.id).decision

    def test_times_of_any_zone_are_the_same_moment_in_utc(self, store: Store) -> None:
        from datetime import timezone

        eastern = NOON.astimezone(timezone(timedelta(hours=-5)))
        decision = a_decision(created_at=eastern)
        store.record(decision, [])

        found = store.decision(decision.id).decision.created_at

        assert NOON == found
        assert UTC is found.tzinfo

    def test_recording_again_changes_nothing(self, store: Store) -> None:
        decision = a_decision(tags=("a",))
        attempt = an_attempt(decision)
        store.record(decision, [attempt])
        before = store.decision(decision.id)

        store.record(replace(decision, reason="another"), [replace(attempt, cost_nusd=99)])

        assert before == store.decision(decision.id)

    def test_a_later_attempt_is_added_to_a_recorded_decision(self, store: Store) -> None:
        decision = a_decision()
        first, second = an_attempt(decision, status="error"), an_attempt(decision, number=2)
        store.record(decision, [first])

        store.record(decision, [first, second])

        assert (first, second) == store.decision(decision.id).attempts

    def test_one_text_serves_many_decisions(self, store: Store) -> None:
        first = a_decision(1, text_key="same")
        second = a_decision(2, text_key="same")
        store.record_many([(first, []), (second, [])])

        assert first == store.decision(first.id).decision
        assert second == store.decision(second.id).decision

    def test_a_text_gains_what_an_earlier_privacy_level_left_out(self, store: Store) -> None:
        hashed = a_decision(1, text_key="same", features=None)
        store.record(hashed, [])

        store.record(a_decision(2, text_key="same", features=b"f", prompt="p"), [])

        assert b"f" == store.decision(hashed.id).decision.features
        assert "p" == store.decision(hashed.id).decision.prompt

    def test_many_entries_and_outcomes_are_written_together(self, store: Store) -> None:
        decisions = [a_decision(number, tags=("t",)) for number in range(1200)]
        outcomes = [an_outcome(decision, 0.25) for decision in decisions]

        store.record_many([(one, [an_attempt(one)]) for one in decisions], outcomes)

        assert 1200 == len(store.training_rows())
        assert 1200 == store.n_graded()
        (row,) = store.summary("tag")
        assert (1200, 1200, 1200 * 30, 0.25) == (
            row.n_decisions,
            row.n_graded,
            row.cost_nusd,
            row.mean_score,
        )

    def test_many_entries_are_written_all_or_not_at_all(self, store: Store) -> None:
        decision = a_decision()
        stranger = an_outcome(a_decision(2))

        with pytest.raises(UnknownDecisionError):
            store.record_many([(decision, [])], [stranger])

        assert [] == store.decisions()

    def test_settling_completes_an_open_attempt_once(self, store: Store) -> None:
        decision = a_decision(served=None)
        opened = an_attempt(
            decision, status="open", prompt_tokens=None, completion_tokens=None, response_id=None
        )
        store.record(decision, [opened])
        settled = replace(opened, status="ok", latency_s=2.0, completion_tokens=9, cost_nusd=11)

        store.settle(settled, served="small")
        store.settle(replace(settled, status="error", cost_nusd=99), served="other")

        assert (settled,) == store.decision(decision.id).attempts
        assert "small" == store.decision(decision.id).decision.served

    def test_settling_an_unknown_attempt_names_its_decision(self, store: Store) -> None:
        with pytest.raises(UnknownDecisionError) as caught:
            store.settle(an_attempt(a_decision()), served="small")

        assert "decision-1" == caught.value.reference

    def test_an_outcome_counts_when_it_is_new_or_changes_the_score(self, store: Store) -> None:
        decision = record(store)
        first = an_outcome(decision, 0.5)
        changed = an_outcome(decision, 0.75, created_at=first.created_at + SECOND)

        assert 1 == store.add_outcomes([first])
        assert 0 == store.add_outcomes([replace(first, created_at=NOON + 60 * SECOND)])
        assert 1 == store.add_outcomes([changed])
        assert 1 == store.add_outcomes([replace(changed, source="feedback")])
        assert [("grader:exact", 0.75), ("feedback", 0.75)] == sorted(
            ((one.source, one.score) for one in store.decision(decision.id).outcomes), reverse=True
        )

    def test_no_outcomes_are_no_change(self, store: Store) -> None:
        assert 0 == store.add_outcomes([])

    def test_an_outcome_of_an_unknown_decision_writes_nothing(self, store: Store) -> None:
        decision = record(store)
        strangers = [an_outcome(a_decision(number)) for number in (9, 8)]

        with pytest.raises(UnknownDecisionError) as caught:
            store.add_outcomes([an_outcome(decision), *strangers])

        assert "decision-9" == caught.value.reference
        assert 0 == store.n_graded()

    @pytest.mark.parametrize("score", [-0.01, 1.01, float("nan"), float("inf")])
    def test_a_score_outside_of_zero_to_one_is_refused(self, store: Store, score: float) -> None:
        decision = record(store)

        with pytest.raises(ConfigError, match="outside"):
            store.add_outcomes([an_outcome(decision, score)])

        assert 0 == store.n_graded()

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

    def test_feedback_wins_over_graders_and_the_newest_grader_over_others(
        self, store: Store
    ) -> None:
        decision = record(store)
        late = decision.created_at + 60 * SECOND

        def score_with(outcome: Outcome) -> float | None:
            store.add_outcomes([outcome])
            (row,) = store.training_rows()
            (group,) = store.summary("candidate")
            assert row.score == group.mean_score
            return row.score

        assert 0.1 == score_with(an_outcome(decision, 0.1, source="grader:a"))
        assert 0.2 == score_with(an_outcome(decision, 0.2, source="grader:b", created_at=late))
        assert 0.2 == score_with(an_outcome(decision, 0.3, source="grader:c"))
        assert 0.4 == score_with(an_outcome(decision, 0.4, source="feedback"))

    def test_graded_decisions_are_counted_once_and_by_their_newest_change(
        self, store: Store
    ) -> None:
        decision, other = record(store, 1), record(store, 2)
        first = an_outcome(decision, created_at=NOON)
        store.add_outcomes([first, replace(first, source="feedback")])
        store.add_outcomes([an_outcome(other, created_at=NOON + 10 * SECOND)])

        assert 2 == store.n_graded()
        assert 1 == store.n_graded(since=NOON)
        assert 0 == store.n_graded(since=NOON + 10 * SECOND)
        store.add_outcomes([replace(first, score=0.0, created_at=NOON + 20 * SECOND)])
        assert 1 == store.n_graded(since=NOON + 10 * SECOND)

    def test_graded_are_only_answers_that_learning_uses(self, store: Store) -> None:
        used, failed, cached = a_decision(1), a_decision(2, served=None), a_decision(3)
        store.record(used, [an_attempt(used)])
        store.record(failed, [an_attempt(failed, status="error")])
        store.record(cached, [an_attempt(cached, cache_hit=True)])
        store.add_outcomes([an_outcome(one, created_at=NOON) for one in (used, failed, cached)])

        assert [used.id] == [row.decision_id for row in store.training_rows()]
        assert 1 == store.n_graded()
        assert 1 == store.n_graded(since=NOON - SECOND)

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

    def test_a_price_list_reads_back_and_is_known_by_its_content(self, store: Store) -> None:
        tier = PriceTier(
            above_tokens=200_000, input_per_1m=Decimal("2.5"), output_per_1m=Decimal(15)
        )
        prices = {
            "small": TokenPrice(
                input_per_1m=Decimal("0.15"),
                output_per_1m=Decimal("0.000000001"),
                cached_input_per_1m=Decimal("0.075"),
                tiers=(tier,),
            ),
            "table": None,
        }
        version = store.price_version(prices)

        assert prices == store.prices(version)
        assert version == store.price_version(dict(reversed(prices.items())))
        assert version != store.price_version({"table": None})
        free = {"free": TokenPrice(input_per_1m=Decimal("0.0"), output_per_1m=Decimal(100))}
        same = {"free": TokenPrice(input_per_1m=Decimal(0), output_per_1m=Decimal("1E+2"))}
        assert store.price_version(free) == store.price_version(same)
        assert {} == store.prices(store.price_version({}))
        with pytest.raises(StoreError, match="'nothing'"):
            store.prices("nothing")

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

    def test_forgetting_erases_what_meets_all_conditions(self, store: Store) -> None:
        gone = record(store, 1, session_id="s", tags=("t",))
        store.add_outcomes([an_outcome(gone, 0.0)])
        store.add_outcomes([an_outcome(gone, 1.0)])
        kept = [
            record(store, 2, session_id="s"),
            record(store, 3, tags=("t",)),
            record(store, 4, session_id="s", tags=("t",)),
        ]

        report = store.forget(session_id="s", tag="t", before=NOON + 4 * SECOND)

        assert ForgetReport(n_decisions=1, n_attempts=1, n_outcomes=1, n_texts=1) == report
        assert [one.id for one in reversed(kept)] == [one.decision.id for one in store.decisions()]
        assert 0 == store.n_graded()
        nothing = ForgetReport(n_decisions=0, n_attempts=0, n_outcomes=0, n_texts=0)
        assert nothing == store.forget(session_id="s", tag="t", before=NOON + 4 * SECOND)

    def test_forgetting_keeps_a_text_that_another_decision_refers_to(self, store: Store) -> None:
        record(store, 1, text_key="shared", session_id="s")
        kept = record(store, 2, text_key="shared")

        assert 0 == store.forget(session_id="s").n_texts
        assert kept.features == store.decision(kept.id).decision.features
        assert 1 == store.forget(before=NOON + 60 * SECOND).n_texts

    def test_forgetting_without_a_condition_is_refused(self, store: Store) -> None:
        record(store)

        with pytest.raises(ConfigError, match="no condition"):
            store.forget()

        assert 1 == len(store.decisions())

    def test_events_come_newest_first(self, store: Store) -> None:
        before = datetime.now(UTC) - SECOND
        for number in range(3):
            store.log_event("refit", f"number {number}", {"n": number, "at": [1.5, None]})

        newest, *_ = found = store.events(limit=2)

        assert ["number 2", "number 1"] == [event.message for event in found]
        assert ("refit", {"n": 2, "at": [1.5, None]}) == (newest.kind, newest.facts)
        assert before < newest.at < datetime.now(UTC) + SECOND

    def test_threads_write_at_once_and_nothing_is_lost(self, store: Store) -> None:
        from concurrent.futures import ThreadPoolExecutor

        def write(thread: int) -> None:
            for number in range(100):
                decision = record(store, thread * 100 + number)
                store.add_outcomes([an_outcome(decision)])

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(write, range(8)))

        assert 800 == len(store.training_rows())
        assert 800 == store.n_graded()
        assert [800 * 30] == [row.cost_nusd for row in store.summary("candidate")]

    def test_closing_twice_is_fine(self, store: Store) -> None:
        store.close()
        store.close()
