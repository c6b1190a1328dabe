"""What all tests share: asserts of the store suite explain themselves, whoever imports it."""

import pytest

pytest.register_assert_rewrite("optllm_router.testing.store_suite")
