"""Kill -9 at random moments of a batch, and go on in a new process, over real sockets."""

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest

from optllm_router.store.sql import open_store
from optllm_router.testing.openai_server import FakeOpenAIServer, Reply

ROOT = Path(__file__).parents[2]
N_ITEMS, CONCURRENCY, N_KILLS = 60, 4, 3
COST_NUSD = 10 * 1_000 + 5 * 2_000  # 10 + 5 tokens at 1 and 2 USD per million
CHILD = """
import asyncio, json, sys
from optllm_router import Router
from optllm_router.dispatch import resuming
from optllm_router.store import batches

batches.LEASE_S, resuming.RENEW_S = 1.0, 0.2  # the test need not wait ten seconds per kill
url, api_base, shell, n_items, concurrency = sys.argv[1:]
candidate = {
    "model": "openai/any", "api_base": api_base, "max_output_tokens": 100,
    "arguments": {"api_key": "sk-test", "max_retries": 0},
    "input_usd_per_1m": 1, "output_usd_per_1m": 2,
}
requests = [f"question {i}" for i in range(int(n_items))]
how = {"batch_id": "night", "concurrency": int(concurrency)}
with Router([candidate], store=url, retrain={"enabled": False}) as router:
    if shell == "sync":
        results = router.complete_batch(requests, **how)
    else:
        results = asyncio.run(router.acomplete_batch(requests, **how))
print(json.dumps([
    [r.choices[0].message.content, r.usage.total_tokens, r._hidden_params["optllm"]["decision_id"]]
    for r in results
]))
"""


class Counting:
    """The upstream's own count of what it was asked."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.n_left = 10**9
        self.is_time = threading.Event()

    def __call__(self, request):
        text = request["messages"][-1]["content"]
        self.asked[text] += 1
        self.n_left -= 1
        if self.n_left <= 0:
            self.is_time.set()
        return Reply(text=f"re: {text}", prompt_tokens=10, completion_tokens=5, delay_s=0.02)


def start(url, server, shell):
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, url, server.url, shell, str(N_ITEMS), str(CONCURRENCY)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def answered_now(store):
    return {i.item for i in store.batch_items("night") if i.status == "answered"}


@pytest.mark.parametrize("shell", ["sync", "async"])
def test_a_batch_that_is_killed_again_and_again_asks_nothing_finished_twice(tmp_path, shell):
    url, upstream, draw = f"sqlite:///{tmp_path / 'log.db'}", Counting(), random.Random(11)
    with FakeOpenAIServer(upstream) as server:
        for _ in range(N_KILLS):
            upstream.n_left = draw.randint(3, 20)
            upstream.is_time.clear()
            child = start(url, server, shell)
            assert upstream.is_time.wait(60)
            time.sleep(draw.uniform(0.0, 0.06))
            child.send_signal(signal.SIGKILL)
            assert -signal.SIGKILL == child.wait()
            child.stdout.close()
            time.sleep(0.1)  # what was sent arrives
            store = open_store(url)
            finished, before = answered_now(store), Counter(upstream.asked)
            store.close()
            assert len(finished) < N_ITEMS
        last = start(url, server, shell)
        said, _ = last.communicate(timeout=120)

    assert 0 == last.returncode
    results = json.loads(said)
    assert [[f"re: question {i}", 15] for i in range(N_ITEMS)] == [r[:2] for r in results]
    assert all(before[f"question {i}"] == upstream.asked[f"question {i}"] for i in finished)
    n_again = upstream.asked.total() - N_ITEMS
    assert 0 <= n_again <= N_KILLS * CONCURRENCY
    check_the_log(url, results, upstream)


def check_the_log(url, results, upstream):
    store = open_store(url)
    try:
        attempts = [a for one in store.decisions(limit=10_000) for a in one.attempts]
        kept = [item.decision_id for item in store.batch_items("night")]
        batch = store.batch("night")
    finally:
        store.close()
    ended = [attempt for attempt in attempts if attempt.status == "ok"]
    lost = [attempt for attempt in attempts if attempt.status != "ok"]
    assert [result[2] for result in results] == kept
    assert sorted(kept) == sorted(attempt.decision_id for attempt in ended)
    assert {(COST_NUSD, False)} == {(a.cost_nusd, a.estimated) for a in ended}
    assert {("abandoned", True)} >= {(a.status, a.estimated) for a in lost}
    assert all(attempt.cost_nusd > 0 for attempt in lost)
    assert len(lost) <= N_KILLS * CONCURRENCY
    assert upstream.asked.total() <= len(attempts)  # nothing was sent that is not in the log
    assert sum(attempt.cost_nusd for attempt in attempts) == batch.spent_nusd
    assert (N_ITEMS, 0, False) == (batch.n_answered, batch.n_open, batch.is_held)
