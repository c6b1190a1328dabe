"""The store's suite over PostgreSQL, where OPTLLM_TEST_POSTGRES_URL names an empty database."""

from __future__ import annotations

import os

import pytest

from optllm_router.errors import SchemaVersionError
from optllm_router.store import schema
from optllm_router.store.sql import open_store
from optllm_router.testing.store_suite import StoreSuite

URL = os.environ.get("OPTLLM_TEST_POSTGRES_URL", "")
if not URL:
    pytest.skip("OPTLLM_TEST_POSTGRES_URL is not set", allow_module_level=True)


class TestPostgres(StoreSuite):
    @pytest.fixture
    def store(self):
        schema.downgrade(URL, schema.BASE)
        schema.upgrade(URL)
        store = open_store(URL)
        yield store
        store.close()


def test_an_empty_database_is_not_upgraded_but_names_the_command():
    schema.downgrade(URL, schema.BASE)

    with pytest.raises(SchemaVersionError, match="optllm db upgrade"):
        open_store(URL)

    assert schema.current(URL) is None
