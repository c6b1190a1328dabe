"""The store's suite over PostgreSQL, and what is different there."""

from __future__ import annotations

import threading

import pytest

from optllm_router.errors import SchemaVersionError, StoreError
from optllm_router.store import database, schema
from optllm_router.store.sql import open_store
from optllm_router.testing.store_suite import StoreSuite, a_decision, an_attempt
from optllm_router.testing.store_suite.spending import a_call, a_line, reserve


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


def lose_connections(store) -> None:
    """Have the server end all connections of a store but the one that asks for it."""
    query = (
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    other = database.Database(store.url)
    with other.reading() as connection:
        connection.exec_driver_sql(query)
    other.close()


def test_an_idle_connection_that_the_server_ended_is_replaced(postgres_url, monkeypatch):
    monkeypatch.setattr(database, "_TRUSTED_S", 0.0)
    store = open_store(postgres_url)
    lose_connections(store)

    store.record(a_decision(), [])

    assert 1 == len(store.decisions())
    store.close()


def test_a_busy_connection_that_the_server_ended_fails_one_write_and_is_replaced(
    postgres_url, monkeypatch
):
    monkeypatch.setattr(database, "_TRUSTED_S", 600.0)
    store = open_store(postgres_url)
    lose_connections(store)

    with pytest.raises(StoreError):
        store.record(a_decision(), [])
    store.record(a_decision(), [])

    assert 1 == len(store.decisions())
    store.close()


def test_of_many_connections_that_the_server_ended_one_fails_a_write(postgres_url, monkeypatch):
    monkeypatch.setattr(database, "_TRUSTED_S", 600.0)
    store = open_store(postgres_url)
    for connection in [store._database.engine.connect() for _ in range(4)]:
        connection.close()
    lose_connections(store)

    with pytest.raises(StoreError):
        store.record(a_decision(), [])
    for number in range(6):
        store.record(a_decision(number), [])

    assert 6 == len(store.decisions())
    store.close()


def test_a_reserve_may_be_longer_than_a_server_takes_in_at_once(postgres_url):
    store = open_store(postgres_url)
    lines = [a_line(f"budget {i}", per="hour", rolling=True) for i in range(300)]
    budgets = store.register("w1", lines, lease_s=60)

    assert "reserved" == reserve(store, budgets, a_call(), 10).verdict

    assert {10} == {status.reserved_nusd for status in store.budgets()}
    store.close()
