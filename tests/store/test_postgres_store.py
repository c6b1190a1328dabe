"""The store's suite over PostgreSQL, and what is different there."""

from __future__ import annotations

import threading

import pytest

from optllm_router.errors import SchemaVersionError
from optllm_router.store import schema
from optllm_router.store.sql import open_store
from optllm_router.testing.store_suite import StoreSuite, a_decision, an_attempt


class TestPostgres(StoreSuite):
    @pytest.fixture
    def store(self, postgres_url, clock):
        store = open_store(postgres_url, clock=clock)
        yield store
        store.close()


def test_an_empty_database_is_not_upgraded_but_names_the_command(postgres_url):
    schema.downgrade(postgres_url, schema.BASE)

    with pytest.raises(SchemaVersionError, match="optllm db upgrade"):
        open_store(postgres_url)

    assert schema.current(postgres_url) is None


def test_what_is_read_together_is_of_one_moment(postgres_url):
    store = open_store(postgres_url)
    decision = a_decision(served=None)
    store.record(decision, [])
    with store._database.reading() as connection:
        before = connection.exec_driver_sql("SELECT count(*) FROM attempts").scalar_one()
        writer = threading.Thread(target=store.record, args=(decision, [an_attempt(decision)]))
        writer.start()
        writer.join()
        after = connection.exec_driver_sql("SELECT count(*) FROM attempts").scalar_one()

    assert (0, 0) == (before, after)
    assert 1 == len(store.decision(decision.id).attempts)
    store.close()


def test_keys_of_windows_sort_by_their_bytes_in_any_language(postgres_url):
    store = open_store(postgres_url)
    query = (
        "SELECT collation_name FROM information_schema.columns "
        "WHERE table_name = 'accounts' AND column_name = 'window_key'"
    )

    with store._database.reading() as connection:
        assert "C" == connection.exec_driver_sql(query).scalar_one()
    store.close()
