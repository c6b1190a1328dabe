"""What the log costs: one request's rows, many at once, the training rows, opening a file.

Run: python tests/benchmarks/bench_store.py [DATABASE_URL]. Prints; asserts nothing.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from optllm_router.records import Attempt, Decision, Outcome
from optllm_router.store.ids import new_id
from optllm_router.store.sql import SqlStore, open_store

START = datetime(2026, 1, 1, tzinfo=UTC)


def entry(number: int) -> tuple[Decision, list[Attempt]]:
    """Return a decision and its attempt as the router logs them, features of 800 bytes."""
    at = START + timedelta(seconds=number)
    decision = Decision(
        id=new_id(),
        created_at=at,
        kind="route",
        requested="auto",
        chosen="openai/gpt-4o-mini",
        served="openai/gpt-4o-mini",
        policy="budget(usd=5, per=day)",
        reason="",
        task="triage",
        predictor_version="0" * 12,
        price_version="1" * 12,
        propensity=1.0,
        dual_price=52.0,
        allowed=tuple(f"provider/llm-{column}" for column in range(12)),
        expected_accuracy=0.91,
        expected_cost_nusd=123_456,
        text_key=f"{number:032x}",
        features=bytes(800),
        n_prompt_tokens=120,
    )
    attempt = Attempt(
        id=new_id(),
        decision_id=decision.id,
        number=1,
        candidate="openai/gpt-4o-mini",
        status="ok",
        started_at=at,
        latency_s=0.8,
        prompt_tokens=120,
        completion_tokens=200,
        cost_nusd=138_000,
        response_id=f"chatcmpl-{number}",
        price_version="1" * 12,
    )
    return decision, [attempt]


def latencies(act: Callable[[int], object], n: int) -> str:
    """Run `act` n times; return p50 and p99 in milliseconds."""
    times = []
    for number in range(n):
        start = time.perf_counter()
        act(number)
        times.append((time.perf_counter() - start) * 1e3)
    return f"p50 {statistics.median(times):.3f} ms, p99 {sorted(times)[int(n * 0.99)]:.3f} ms"


def bench_requests(store: SqlStore, durability: str, n: int) -> None:
    """Time the writes of single requests."""
    entries = [entry(number) for number in range(n)]
    print(f"record, {durability}:", latencies(lambda k: store.record(*entries[k]), n))
    outcomes = [
        Outcome(decision_id=decision.id, score=1.0, source="grader:exact", created_at=START)
        for decision, _ in entries
    ]
    print(f"one outcome, {durability}:", latencies(lambda k: store.add_outcomes([outcomes[k]]), n))


def bench_many(store: SqlStore, n: int) -> None:
    """Time an import and what learning and history read of it."""
    entries = [entry(number) for number in range(10_000, 10_000 + n)]
    outcomes = [
        Outcome(decision_id=decision.id, score=0.5, source="import", created_at=START)
        for decision, _ in entries
    ]
    start = time.perf_counter()
    store.record_many(entries, outcomes)
    print(f"record_many of {n:,} graded: {time.perf_counter() - start:.2f} s")
    start = time.perf_counter()
    rows = store.training_rows(limit=n)
    print(f"training_rows of {len(rows):,}: {time.perf_counter() - start:.2f} s")
    for by in ("candidate", "day", "tag"):
        start = time.perf_counter()
        store.summary(by)
        print(f"summary by {by} of {n:,}: {time.perf_counter() - start:.2f} s")
    print("record after that:", latencies(lambda k: store.record(*entry(900_000 + k)), 1_000))


def bench_opening(url: str) -> None:
    """Time opening an up-to-date log in a fresh process, imports included."""
    code = (
        "import time; start = time.perf_counter()\n"
        "from optllm_router.store.sql import open_store\n"
        "loaded = time.perf_counter()\n"
        f"open_store({url!r}).close()\n"
        "print(f'import {loaded - start:.2f} s, open {time.perf_counter() - loaded:.3f} s')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    print("a fresh process:", done.stdout.strip())


def main() -> None:
    """Run everything on a temporary SQLite file, or on the database named."""
    with tempfile.TemporaryDirectory() as folder:
        url = sys.argv[1] if len(sys.argv) > 1 else f"sqlite:///{Path(folder) / 'bench.db'}"
        for durability, n in (("full", 300), ("normal", 2_000)):
            store = open_store(url, durability=durability)  # type: ignore[arg-type]  # a literal
            bench_requests(store, durability, n)
            store.close()
        store = open_store(url)
        bench_many(store, 100_000)
        store.close()
        bench_opening(url)


if __name__ == "__main__":
    main()
