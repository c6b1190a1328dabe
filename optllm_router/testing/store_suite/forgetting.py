"""Erasing what meets all conditions, and nothing else."""

from __future__ import annotations

import pytest

from optllm_router.errors import ConfigError
from optllm_router.store.base import ForgetReport, Store
from optllm_router.testing.store_suite.entries import (
    NOON,
    SECOND,
    an_outcome,
    record,
)


class Forgetting:
    """Erasing by session, tag and age."""

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
