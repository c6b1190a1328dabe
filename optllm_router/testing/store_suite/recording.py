"""What is written reads back as it was, also from many threads at once."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, timedelta
from decimal import Decimal

import pytest

from optllm_router.errors import StoreError, UnknownDecisionError
from optllm_router.records import PriceTier, TokenPrice
from optllm_router.store.base import Store
from optllm_router.testing.store_suite.entries import (
    AWKWARD,
    NOON,
    a_decision,
    an_attempt,
    an_outcome,
    record,
)


class Recording:
    """Decisions, attempts and price lists: written once, completed once, never changed."""

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

    def test_features_that_hold_more_replace_a_texts_and_shorter_ones_do_not(
        self, store: Store
    ) -> None:
        first = a_decision(1, text_key="same", features=b"hashed", prompt="p")
        store.record(first, [])

        store.record(a_decision(2, text_key="same", features=b"with embedding"), [])
        store.record(a_decision(3, text_key="same", features=b"hashed"), [])
        store.record(a_decision(4, text_key="same", features=None), [])

        assert b"with embedding" == store.decision(first.id).decision.features
        assert "p" == store.decision(first.id).decision.prompt

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

    def test_settling_may_say_what_went_otherwise_than_planned(self, store: Store) -> None:
        decision = a_decision(served=None, propensity=1.0)
        opened = an_attempt(decision, status="open", response_id=None)
        store.record(decision, [opened])

        store.settle(replace(opened, status="ok"), served="large", reason="small failed")

        found = store.decision(decision.id).decision
        assert ("large", "small failed", None) == (found.served, found.reason, found.propensity)

    def test_settling_an_unknown_attempt_names_its_decision(self, store: Store) -> None:
        with pytest.raises(UnknownDecisionError) as caught:
            store.settle(an_attempt(a_decision()), served="small")

        assert "decision-1" == caught.value.reference

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
