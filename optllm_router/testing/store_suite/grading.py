"""Outcomes: which are taken, which count, and which one wins."""

from __future__ import annotations

from dataclasses import replace

import pytest

from optllm_router.errors import ConfigError, UnknownDecisionError
from optllm_router.records import Outcome
from optllm_router.store.base import Store
from optllm_router.testing.store_suite.entries import (
    NOON,
    SECOND,
    a_decision,
    an_attempt,
    an_outcome,
    record,
)


class Grading:
    """Scores of decisions: checked, counted once, the weightiest first."""

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
