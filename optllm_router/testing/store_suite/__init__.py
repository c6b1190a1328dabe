"""What every store must do, as tests: subclass `StoreSuite` and give it a `store` fixture.

    class TestMyStore(StoreSuite):
        @pytest.fixture
        def store(self, clock):
            store = MyStore(clock=clock)
            yield store
            store.close()

The fixture must return an empty store, whose windows and leases go by `clock`. One suite runs over
every database, so that they cannot come to differ. `recording`, `grading`, `learning`, `looking`,
`days`, `batches`, `forgetting` and `spending` hold its tests, `entries` what they write. Nothing
else in the package imports pytest.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from optllm_router.store.base import Store
from optllm_router.testing.store_suite.batches import Batches
from optllm_router.testing.store_suite.days import Days
from optllm_router.testing.store_suite.entries import (
    NOON,
    SECOND,
    a_decision,
    an_attempt,
    an_outcome,
    record,
)
from optllm_router.testing.store_suite.forgetting import Forgetting
from optllm_router.testing.store_suite.grading import Grading
from optllm_router.testing.store_suite.learning import Learning
from optllm_router.testing.store_suite.looking import Looking
from optllm_router.testing.store_suite.recording import Recording
from optllm_router.testing.store_suite.spending import Spending, SteppedClock

__all__ = [
    "NOON",
    "SECOND",
    "SteppedClock",
    "StoreSuite",
    "a_decision",
    "an_attempt",
    "an_outcome",
    "record",
]


class StoreSuite(Recording, Grading, Learning, Looking, Days, Batches, Forgetting, Spending):
    """The contract of `store.base`, test by test."""

    @pytest.fixture
    def clock(self) -> SteppedClock:
        """Give a clock that stands until it is moved."""
        return SteppedClock()

    @pytest.fixture
    def store(self, clock: SteppedClock) -> Iterator[Store]:
        """Give an empty store."""
        raise NotImplementedError("override the fixture `store` with one that gives your store")

    def test_closing_twice_is_fine(self, store: Store) -> None:
        store.close()
        store.close()
