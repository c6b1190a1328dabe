"""The demo's database: its own files are replaced, nobody else's."""

from __future__ import annotations

import sqlite3
from contextlib import closing, suppress
from datetime import UTC, datetime

import pytest

from optllm_router.demo.database import claimed, made_by_demo
from optllm_router.errors import ConfigError
from optllm_router.records import Decision
from optllm_router.store.sql import open_store


def decide(url: str, name: str) -> None:
    with closing(open_store(url)) as store:
        decision = Decision(
            id=name,
            created_at=datetime.now(UTC),
            kind="route",
            requested="auto",
            chosen="a",
            served=None,
            policy="knee",
            reason="",
        )
        store.record(decision, [])


def test_a_demo_replaces_what_a_demo_left(tmp_path) -> None:
    path = tmp_path / "demo.db"
    with claimed(path) as url:
        decide(url, "first")
    assert made_by_demo(path)
    with claimed(path) as url:
        decide(url, "second")

    with closing(open_store(url)) as store:
        assert [each.decision.id for each in store.decisions()] == ["second"]


def test_an_interrupted_demo_is_replaced_too(tmp_path) -> None:
    path = tmp_path / "demo.db"
    with suppress(KeyboardInterrupt), claimed(path) as url:
        decide(url, "first")
        raise KeyboardInterrupt

    assert made_by_demo(path)


def test_a_demo_log_that_was_used_since_stays(tmp_path) -> None:
    path = tmp_path / "demo.db"
    with claimed(path) as url:
        decide(url, "first")
    decide(url, "mine")

    with pytest.raises(ConfigError, match="not what a demo left"), claimed(path):
        pass
    with closing(open_store(url)) as store:
        assert {each.decision.id for each in store.decisions()} == {"first", "mine"}


def test_a_log_that_no_demo_made_stays(tmp_path) -> None:
    path = tmp_path / "optllm.db"
    open_store(f"sqlite:///{path}").close()
    before = path.read_bytes()

    with pytest.raises(ConfigError, match="--db"), claimed(path):
        pass
    assert before == path.read_bytes()


@pytest.mark.parametrize("content", [b"", b"my notes"])
def test_a_foreign_file_stays(tmp_path, content) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)

    with pytest.raises(ConfigError, match=r"notes\.txt"), claimed(path):
        pass
    assert content == path.read_bytes()


def test_a_foreign_database_and_a_folder_stay(tmp_path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as database:
        database.execute("CREATE TABLE mine (x)")

    for taken in (path, tmp_path):
        with pytest.raises(ConfigError), claimed(taken):
            pass


def test_a_missing_folder_is_named(tmp_path) -> None:
    with pytest.raises(ConfigError, match=r"folder .*nowhere"), claimed(tmp_path / "nowhere/x.db"):
        pass
