"""A store that cannot be opened or written says so at the start, and is a StoreError ever after."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from sqlalchemy import event

from optllm_router.errors import ConfigError, StoreError
from optllm_router.store.database import waiting_at_most
from optllm_router.store.faults import is_permanent
from optllm_router.store.sql import open_store
from optllm_router.store.writes import insert_entries
from optllm_router.testing.store_suite import a_decision, an_attempt, an_outcome, record

ROOT = Path(__file__).parents[2]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "log.db"


@pytest.fixture
def store(file):
    store = open_store(f"sqlite:///{file}")
    yield store
    store.close()


def run(code: str, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        timeout=60,
        **options,
    )


@contextmanager
def pragma(store, statement: str):
    """Set a pragma on every connection of the store from now on: faults without the disk."""
    database = store._database

    def set_pragma(connection, _record) -> None:
        connection.execute(f"PRAGMA {statement}")

    with database._lock:  # nobody connects to write meanwhile
        event.listen(database.engine, "connect", set_pragma)
    database.close()  # those there are
    yield


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("optllm.db", "is not a database URL: write `sqlite:///optllm.db`"),
        ("", "is not a database URL"),
        ("mysql://u:secret@h/d", r"'mysql://u:\*\*\*@h/d' asks for 'mysql'"),
        ("sqlite+aiosqlite:///x.db", "asks for 'sqlite\\+aiosqlite'"),
        ("nonsense://u:secret@h:99999999x/d", r"u:\*\*\*@h"),
    ],
)
def test_what_is_no_url_of_ours_is_refused_without_showing_a_password(url, says):
    with pytest.raises(StoreError, match=says) as caught:
        open_store(url)

    assert "secret" not in str(caught.value)


def test_a_folder_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(StoreError, match=r"the folder '.*missing', which does not exist: create"):
        open_store(f"sqlite:///{tmp_path / 'missing' / 'log.db'}")


def test_a_folder_instead_of_a_file_is_refused(tmp_path):
    with pytest.raises(StoreError, match="is a folder: name a file in it"):
        open_store(f"sqlite:///{tmp_path}")


def test_a_file_in_place_of_a_folder_is_refused(file):
    file.write_text("")

    with pytest.raises(StoreError, match="does not exist"):
        open_store(f"sqlite:///{file / 'log.db'}")


def test_a_file_that_is_no_database_is_refused_and_kept(file):
    file.write_text("dear diary, " * 1000)

    with pytest.raises(StoreError, match="not a SQLite database"):
        open_store(f"sqlite:///{file}")

    assert "dear diary, " * 1000 == file.read_text()


def test_a_database_opened_read_only_is_refused_at_the_start(file):
    # `mode=ro` refuses writes to root, too, whom file permissions do not stop.
    open_store(f"sqlite:///{file}").close()

    with pytest.raises(StoreError, match="read-only"):
        open_store(f"sqlite:///file:{file}?mode=ro&uri=true")


@pytest.mark.skipif(os.geteuid() == 0, reason="file permissions do not stop root")
def test_a_file_without_write_permission_is_refused_at_the_start(file):
    open_store(f"sqlite:///{file}").close()
    file.chmod(0o400)

    with pytest.raises(StoreError, match="read-only"):
        open_store(f"sqlite:///{file}")


def limit_file_sizes() -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


@pytest.mark.parametrize("exists", [True, False])
def test_a_disk_that_takes_nothing_is_refused_at_the_start(file, exists):
    url = f"sqlite:///{file}"
    if exists:
        open_store(url).close()

    done = run(
        "import sys\n"
        "from optllm_router.errors import StoreError\n"
        "from optllm_router.store.sql import open_store\n"
        "try: open_store(sys.argv[1])\n"
        "except StoreError as error: print(error)\n",
        url,
        preexec_fn=limit_file_sizes,
    )

    assert f"the log '{url}' cannot be used: the disk refuses" in done.stdout, done.stderr


def test_postgresql_without_a_server_is_an_error_without_the_password():
    pytest.importorskip("psycopg")
    with pytest.raises(StoreError, match="does not answer") as caught:
        open_store("postgresql://me:secret@127.0.0.1:1/nothing")

    assert "secret" not in str(caught.value)


def test_an_unknown_durability_is_refused():
    with pytest.raises(ConfigError, match="'paranoid'"):
        open_store("sqlite://", durability="paranoid")


def test_a_disk_that_fills_up_in_service_is_a_store_error_and_nothing_is_half_written(store):
    first = record(store)
    with pragma(store, "max_page_count = 1"):  # SQLite takes the present size instead
        pass
    written = 1

    with pytest.raises(StoreError, match="the disk is full"):  # which one, is open
        while True:
            record(store, written + 1, features=bytes(100_000))
            written += 1

    assert written == len(store.decisions(limit=10_000))
    assert written == len(store.training_rows())
    with pytest.raises(StoreError, match="the disk is full"):
        store.record_many([(a_decision(99_999, features=bytes(100_000)), [])])
    with pragma(store, "max_page_count = 1000000"):
        record(store, 99_999, features=bytes(100_000))
    assert first == store.decision(first.id).decision


def test_a_database_that_becomes_read_only_in_service_is_a_store_error_everywhere(store):
    decision = record(store)
    attempt = an_attempt(decision)
    writes = [
        lambda: record(store, 2),
        lambda: store.record_many([(a_decision(2), [])]),
        lambda: store.settle(attempt, served="small"),
        lambda: store.add_outcomes([an_outcome(decision)]),
        lambda: store.publish(version="v", artifact=b"", metrics={}, front=[]),
        lambda: store.price_version({}),
        lambda: store.forget(before=decision.created_at),
        lambda: store.log_event("fault", "", {}),
    ]

    with pragma(store, "query_only = ON"):
        for write in writes:
            with pytest.raises(StoreError, match="read-only"):
                write()

    with pragma(store, "query_only = OFF"):
        record(store, 2)


def test_reading_from_a_file_that_was_damaged_is_a_store_error(store, file):
    record(store)
    store._database.empty_write_ahead_log()
    with file.open("r+b") as damaged:
        damaged.seek(4096)
        damaged.write(b"\xff" * (file.stat().st_size - 4096))
    store._database.engine.dispose()  # a connection may remember pages

    with pytest.raises(StoreError):
        store.decisions()


def test_a_number_too_large_for_the_database_is_a_permanent_store_error(store):
    decision = a_decision(expected_cost_nusd=2**63)

    with pytest.raises(StoreError, match="too large") as caught:
        store.record(decision, [])

    assert is_permanent(caught.value)
    assert [] == store.decisions()


def test_an_attempt_of_another_decision_is_a_permanent_store_error(store):
    with pytest.raises(StoreError) as caught:
        store.record(a_decision(1), [an_attempt(a_decision(2))])

    assert is_permanent(caught.value)
    assert [] == store.decisions()


def test_a_locked_database_is_a_store_error_that_may_pass(store, file):
    other = sqlite3.connect(file, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")

    with waiting_at_most(0.01), pytest.raises(StoreError, match="another pro") as caught:
        record(store)
    other.execute("COMMIT")
    other.close()

    assert not is_permanent(caught.value)
    record(store)


@pytest.mark.parametrize("kind", ["raw", "pooled"])
def test_whoever_waits_long_for_another_process_asks_no_less_often(store, file, kind):
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    asked: list[str] = []

    def trace(connection, _record) -> None:
        connection.set_trace_callback(asked.append)

    event.listen(store._database.engine, "connect", trace)
    store._database.close()
    threading.Timer(0.5, lambda: other.execute("COMMIT")).start()
    if kind == "raw":
        record(store)
    else:
        store.log_event("test", "waited", {})
    other.close()

    assert asked.count("BEGIN IMMEDIATE") > 5  # left to itself, SQLite has one of them wait


def test_an_error_shows_no_prompt(store):
    with pytest.raises(StoreError) as caught:
        store.record(a_decision(prompt="my secret", expected_cost_nusd=2**63), [])

    assert "my secret" not in f"{caught.value} {caught.value.__cause__}"


def test_what_was_acknowledged_survives_kill_9(file):
    code = (
        "import sys\n"
        "from optllm_router.store.sql import open_store\n"
        "from optllm_router.testing.store_suite import record\n"
        "store = open_store(sys.argv[1])\n"
        "number = 0\n"
        "while True:\n"
        "    record(store, number)\n"
        "    print(number, flush=True)\n"
        "    number += 1\n"
    )
    url = f"sqlite:///{file}"
    process = subprocess.Popen(
        [sys.executable, "-c", code, url],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    acknowledged = [int(process.stdout.readline()) for _ in range(200)]
    process.send_signal(signal.SIGKILL)
    acknowledged += [int(line) for line in process.stdout.read().split("\n") if line]
    process.stdout.close()
    process.wait(timeout=30)

    store = open_store(url)
    found = {one.decision.id: one for one in store.decisions(limit=1_000_000)}
    store.close()
    assert set() == {f"decision-{number}" for number in acknowledged} - set(found)
    assert {1} == {len(one.attempts) for one in found.values()}


def test_forgotten_text_is_nowhere_in_the_files(store, file):
    record(store, 1, session_id="s", prompt="tell nobody " * 1000, task="hush hush")
    kept = record(store, 2, prompt="tell everybody")
    store.forget(session_id="s")

    stored = b"".join(path.read_bytes() for path in file.parent.glob("log.db*"))

    assert b"tell nobody" not in stored
    assert b"hush hush" not in stored
    assert b"tell everybody" in stored
    assert kept == store.decision(kept.id).decision


def test_a_relative_path_stays_where_it_was_when_the_working_folder_changes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store = open_store("sqlite:///log.db")
    monkeypatch.chdir("/")
    store._database.engine.dispose()  # the next connection is a new one

    record(store)

    store.close()
    assert (tmp_path / "log.db").exists()


def test_a_full_disk_log_is_synced_at_every_commit(file):
    store = open_store(f"sqlite:///{file}", durability="full")
    connection = store._database.engine.raw_connection()

    (level,) = connection.cursor().execute("PRAGMA synchronous").fetchone()
    (mode,) = connection.cursor().execute("PRAGMA journal_mode").fetchone()

    connection.close()
    store.close()
    assert (2, "wal") == (level, mode)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # fork with threads
def test_a_forked_child_and_its_parent_write_to_the_same_log(store):
    record(store, 1)
    child = os.fork()
    if child == 0:
        try:
            for number in range(100, 150):
                record(store, number)
        finally:
            os._exit(0 if len(store.decisions(limit=100)) > 50 else 1)
    for number in range(200, 250):
        record(store, number)

    assert (child, 0) == os.waitpid(child, 0)
    assert 101 == len(store.decisions(limit=1000))


def test_a_writer_that_comes_last_in_a_busy_line_still_has_its_turn(store):
    database = store._database
    began = threading.Event()

    def write_on_and_on():
        for _ in range(20):
            with database._turn(alone=True):
                began.set()
                time.sleep(0.03)

    others = threading.Thread(target=write_on_and_on)
    others.start()
    began.wait(5)
    with waiting_at_most(0.1):
        decision = record(store)
    others.join()

    assert store.decision(decision.id).decision == decision


def test_closing_in_a_handler_that_interrupts_a_write_neither_hangs_nor_loses_the_row(store):
    database = store._database
    row = a_decision(1)
    with database.raw_writing() as cursor:
        insert_entries(cursor, store._statements, [(row, [])])
        database.close()  # as a signal handler would, in the same thread

    assert store.decision(row.id).decision == row
