"""What all tests share: asserts of the store suite explain themselves, and interrupts interrupt."""

import signal
from collections.abc import Iterator

import pytest

pytest.register_assert_rewrite("optllm_router.testing.store_suite")


@pytest.fixture(autouse=True, scope="session")
def interrupts_interrupt() -> Iterator[None]:
    """A shell that starts the suite in its background has it ignore them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
