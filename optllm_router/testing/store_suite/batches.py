"""Batches that survive their process: one owner, claims, answers, what was left under way."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

import pytest

from optllm_router.errors import BatchBusyError
from optllm_router.store.base import BatchItem, Store
from optllm_router.testing.store_suite.entries import AWKWARD, a_decision, an_attempt

KEYS = bytes(range(48))  # of three items
ANSWER = {"text": AWKWARD, "tokens": [1, 2], "cost": 0.5}


class Batches:
    """Holding, claiming, keeping, going on, forgetting."""

    def test_a_batch_is_one_owners_until_it_is_released(self, store: Store) -> None:
        assert store.hold_batch("night", owner="a", request_keys=KEYS)
        assert not store.hold_batch("night", owner="b", request_keys=KEYS)
        assert store.hold_batch("night", owner="a", request_keys=KEYS)
        assert store.hold_batch("day", owner="b", request_keys=KEYS)
        assert (True, False) == (
            store.renew_batch("night", owner="a"),
            store.renew_batch("night", owner="b"),
        )

        store.release_batch("night", owner="b")
        assert not store.hold_batch("night", owner="b", request_keys=KEYS)
        store.release_batch("night", owner="a")
        assert store.hold_batch("night", owner="b", request_keys=KEYS)
        assert not store.renew_batch("night", owner="a")

    def test_a_batch_keeps_the_requests_that_it_began_with(self, store: Store) -> None:
        store.hold_batch("night", owner="a", request_keys=KEYS)
        store.release_batch("night", owner="a")
        store.hold_batch("night", owner="b", request_keys=b"others")

        batch = store.batch("night")

        assert batch is not None
        assert (KEYS, 3, "b", True) == (
            batch.request_keys,
            batch.n_items,
            batch.owner,
            batch.is_held,
        )
        assert store.batch("day") is None

    def test_an_answer_is_kept_as_it_was(self, store: Store) -> None:
        store.hold_batch("night", owner="a", request_keys=KEYS)
        answered, failed = claim(store, 2), claim(store, 0)

        finish(store, answered, "answered")
        finish(store, failed, "failed")

        first, second = store.batch_items("night")
        assert ("failed", 0, failed.decision_id, None) == told(first)
        assert ("answered", 2, answered.decision_id, ANSWER) == told(second)
        batch = store.batch("night")
        assert batch is not None
        assert (1, 1, 0) == (batch.n_answered, batch.n_failed, batch.n_open)

    def test_who_lost_a_batch_claims_nothing_and_writes_nothing(self, store: Store) -> None:
        store.hold_batch("night", owner="a", request_keys=KEYS)
        store.release_batch("night", owner="a")
        store.hold_batch("night", owner="b", request_keys=KEYS)

        with pytest.raises(BatchBusyError, match="'night'") as caught:
            claim(store, 0, owner="a")

        assert "night" == caught.value.batch_id
        assert [] == store.batch_items("night")
        assert [] == store.decisions()

    def test_what_was_under_way_is_settled_at_its_forecast(self, store: Store) -> None:
        store.hold_batch("night", owner="a", request_keys=KEYS)
        lost, answered = claim(store, 0), claim(store, 1)
        finish(store, answered, "answered")
        store.release_batch("night", owner="a")

        store.hold_batch("night", owner="b", request_keys=KEYS)

        (attempt,) = store.decision(lost.decision_id).attempts
        assert ("abandoned", 7_000, True, "LeaseExpired") == (
            attempt.status,
            attempt.cost_nusd,
            attempt.estimated,
            attempt.error_class,
        )
        assert ["open", "answered"] == [item.status for item in store.batch_items("night")]
        assert "ok" == store.decision(answered.decision_id).attempts[0].status
        batch = store.batch("night")
        assert batch is not None
        assert 7_000 + 5_000 == batch.spent_nusd

    def test_an_answer_that_comes_after_another_run_asked_again_is_not_kept(
        self, store: Store
    ) -> None:
        store.hold_batch("night", owner="a", request_keys=KEYS)
        late = claim(store, 0)
        store.release_batch("night", owner="a")
        store.hold_batch("night", owner="b", request_keys=KEYS)
        again = claim(store, 0, owner="b", number=9)

        finish(store, late, "answered")

        (item,) = store.batch_items("night")
        assert ("open", 0, again.decision_id, None) == told(item)
        assert "abandoned" == store.decision(late.decision_id).attempts[0].status

    def test_forgetting_a_decision_erases_its_answer(self, store: Store) -> None:
        store.hold_batch("night", owner="a", request_keys=KEYS)
        gone, kept = claim(store, 0, session_id="s"), claim(store, 1)
        finish(store, gone, "answered")
        finish(store, kept, "answered")
        store.release_batch("night", owner="a")

        assert 1 == store.forget(session_id="s").n_answers

        assert [kept.decision_id] == [item.decision_id for item in store.batch_items("night")]
        assert 1 == store.forget(batch_id="night").n_answers
        assert store.batch("night") is None
        assert [] == store.decisions()

    def test_a_batch_leaves_with_the_last_of_its_decisions(self, store: Store) -> None:
        store.hold_batch("night", owner="a", request_keys=KEYS)
        finish(store, claim(store, 0, session_id="s"), "answered")
        store.release_batch("night", owner="a")

        store.forget(session_id="s")

        assert store.batch("night") is None

    def test_answers_alone_are_forgotten_and_the_batch_begins_anew(self, store: Store) -> None:
        store.hold_batch("night", owner="a", request_keys=KEYS)
        item = claim(store, 0)
        finish(store, item, "answered")
        with pytest.raises(BatchBusyError, match="is working on the batch 'night'"):
            store.forget_answers("night")
        store.release_batch("night", owner="a")

        assert 1 == store.forget_answers("night")

        assert (None, []) == (store.batch("night"), store.batch_items("night"))
        assert 0 == store.forget_answers("night")
        assert "ok" == store.decision(item.decision_id).attempts[0].status


def claim(
    store: Store, item: int, *, owner: str = "a", number: int | None = None, **facts: Any
) -> BatchItem:
    """Write a decision with an open attempt at 7,000 nano-USD, and claim an item for it."""
    decision = a_decision(
        item if number is None else number,
        **{"batch_id": "night", "served": None, "created_at": datetime.now(UTC), **facts},
    )
    opened = an_attempt(
        decision, status="open", cost_nusd=7_000, estimated=True, prompt_tokens=None
    )
    claimed = BatchItem(
        batch_id="night", item=item, decision_id=decision.id, status="open", owner=owner
    )
    store.record(decision, [opened], item=claimed)
    return claimed


def finish(store: Store, item: BatchItem, status: Literal["answered", "failed"]) -> None:
    """Complete a claimed item's attempt for 5,000 nano-USD."""
    (opened,) = store.decision(item.decision_id).attempts
    ended = replace(opened, status="ok" if status == "answered" else "error", cost_nusd=5_000)
    answer = ANSWER if status == "answered" else None
    store.settle(
        replace(ended, estimated=False),
        served="small",
        item=replace(item, status=status, answer=answer),
    )


def told(item: BatchItem) -> tuple[object, ...]:
    """Return what the log says of an item."""
    return item.status, item.item, item.decision_id, item.answer
