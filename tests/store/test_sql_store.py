"""The store's suite over SQLite, in a file and in memory."""

from __future__ import annotations

import pytest

from optllm_router.store.sql import open_store
from optllm_router.testing.store_suite import StoreSuite


class TestSqliteFile(StoreSuite):
    @pytest.fixture
    def store(self, tmp_path, clock):
        store = open_store(f"sqlite:///{tmp_path / 'log.db'}", clock=clock)
        yield store
        store.close()


class TestSqliteInMemory(StoreSuite):
    @pytest.fixture
    def store(self, clock):
        store = open_store("sqlite://", clock=clock)
        yield store
        store.close()
