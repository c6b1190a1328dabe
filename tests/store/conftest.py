"""Have pytest explain the asserts of the suite, which is imported from the package."""

import pytest

pytest.register_assert_rewrite("optllm_router.testing.store_suite")
