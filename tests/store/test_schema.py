"""Revisions: upgrade from each, downgrade, refuse what is newer or not ours, open together."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from optllm_router.errors import SchemaVersionError, StoreError
from optllm_router.records import BudgetLine
from optllm_router.store import schema
from optllm_router.store.database import Database
from optllm_router.store.sql import open_store
from optllm_router.store.tables import metadata
from optllm_router.testing.store_suite import an_outcome, record

ROOT = Path(__file__).parents[2]


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'log.db'}"


def stamp(url: str, revision: str) -> None:
    database = Database(url)
    with database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :new"), {"new": revision})
    database.close()


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=60,
    )


def test_the_constant_names_the_revisions_that_are_there():
    config = Config()
    config.set_main_option("script_location", str(schema.migrations_folder()))
    config.set_main_option("path_separator", "os")
    revisions = ScriptDirectory.from_config(config).walk_revisions()

    assert schema.REVISIONS == tuple(reversed([one.revision for one in revisions]))
    assert schema.head() == schema.REVISIONS[-1]


def test_the_tables_are_what_the_migrations_leave(store_url):
    schema.upgrade(store_url)
    database = Database(store_url)

    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, metadata)
    database.close()

    assert [] == differences


@pytest.mark.parametrize("revision", [schema.BASE, *schema.REVISIONS])
def test_a_log_of_every_revision_is_upgraded_and_then_used(store_url, revision):
    schema.upgrade(store_url)
    schema.downgrade(store_url, revision)
    assert schema.current(store_url) == (None if revision == schema.BASE else revision)

    if not store_url.startswith("sqlite"):  # which is upgraded on opening
        schema.upgrade(store_url)
    store = open_store(store_url)
    decision = record(store)
    store.add_outcomes([an_outcome(decision)])
    line = BudgetLine(name="day", limit_nusd=1, per="day")
    store.register("worker", [line], lease_s=60.0)

    assert schema.head() == schema.current(store_url)
    assert [1.0] == [row.score for row in store.training_rows()]
    assert [line] == [status.line for status in store.budgets()]
    store.close()


@pytest.mark.parametrize("revision", schema.REVISIONS)
def test_the_rows_of_the_first_revision_survive_going_back_and_forth(store_url, revision):
    schema.upgrade(store_url)
    store = open_store(store_url)
    decision = record(store)
    store.close()

    schema.downgrade(store_url, revision)
    schema.upgrade(store_url)

    store = open_store(store_url)
    assert decision == store.decision(decision.id).decision
    store.close()


def test_downgrading_to_base_leaves_no_table_of_ours(store_url):
    schema.upgrade(store_url)

    schema.downgrade(store_url, schema.BASE)

    database = Database(store_url)
    with database.reading() as connection:
        assert ["alembic_version"] == inspect(connection).get_table_names()
    database.close()


def test_a_downgrade_to_an_unknown_revision_lists_the_known_ones(url):
    with pytest.raises(SchemaVersionError, match=r"'nowhere'.*base, 0001"):
        schema.downgrade(url, "nowhere")


@pytest.mark.parametrize("act", [open_store, schema.check, schema.upgrade])
def test_a_newer_schema_is_refused_with_the_command_that_helps(store_url, act):
    schema.upgrade(store_url)
    stamp(store_url, "9999")

    with pytest.raises(SchemaVersionError, match="pip install --upgrade optllm-router") as caught:
        act(store_url)

    assert ("9999", schema.HEAD) == (caught.value.found, caught.value.expected)
    assert "9999" == schema.current(store_url)


def test_a_database_that_is_not_there_has_no_revision_and_is_not_created(url):
    assert schema.current(url) is None
    with pytest.raises(SchemaVersionError, match="optllm db upgrade"):
        schema.check(url)

    assert not Path(url.removeprefix("sqlite:///")).exists()


def test_check_is_content_with_the_newest_schema(url):
    schema.upgrade(url)

    schema.check(url)


def test_tables_of_the_same_name_that_are_not_ours_are_left_alone(url):
    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    connection.execute("CREATE TABLE events (mine TEXT)")
    connection.close()

    with pytest.raises(StoreError, match="tables named events"):
        open_store(url)

    connection = sqlite3.connect(url.removeprefix("sqlite:///"))
    names = connection.execute("SELECT name FROM sqlite_master").fetchall()
    connection.close()
    assert [("events",)] == names


def test_percent_signs_in_a_path_are_only_characters(tmp_path):
    folder = tmp_path / "100% of it %(here)s"
    folder.mkdir()
    file = folder / "log%41.db"

    store = open_store(f"sqlite:///{str(file).replace('%', '%25')}")
    record(store)
    store.close()

    assert file.exists()


def test_opening_an_up_to_date_log_does_not_load_alembic(url):
    open_store(url).close()

    done = run(
        "import sys\n"
        "from optllm_router.store.sql import open_store\n"
        "open_store(sys.argv[1]).close()\n"
        "print('alembic' in sys.modules)",
        url,
    )

    assert "False\n" == done.stdout, done.stderr


def test_processes_that_open_a_new_file_together_all_succeed(url):
    code = (
        "import sys\n"
        "from optllm_router.store.sql import open_store\n"
        "from optllm_router.testing.store_suite import record\n"
        "import alembic.command\n"
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "store = open_store(sys.argv[1])\n"
        "record(store, int(sys.argv[2]))\n"
        "store.close()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, url, str(number)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for number in range(4)
    ]
    for process in processes:
        assert "ready\n" == process.stdout.readline()
    for process in processes:  # all at once: they open the same new file in the same moment
        process.stdin.write("\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=60)[1] for process in processes]

    assert [0] * 4 == [process.returncode for process in processes], errors
    store = open_store(url)
    assert 4 == len(store.decisions())
    store.close()
