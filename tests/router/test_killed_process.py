"""Kill -9 in the middle of a batch: what reached the caller is in the log."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from optllm_router.store.sql import open_store

ROOT = Path(__file__).parents[2]
CHILD = """
import asyncio, os, sys
from optllm_router import Budget, Router
from optllm_router.testing.scripted import Line, ScriptedClient

url, reached, shell = sys.argv[1:]
client = ScriptedClient({"m": Line(latency_s=0.003)}, prices={"m": (1, 1)})
router = Router(["m"], store=url, client=client)
fd = os.open(reached, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def note(result):
    facts = result._hidden_params["optllm"]
    os.write(fd, (facts["decision_id"] + " " + result.id + "\\n").encode())

async def calls(name):
    i = 0
    while True:
        i += 1
        note(await router.acomplete(messages=[{"role": "user", "content": f"{name} {i}"}]))

async def many():
    await asyncio.gather(*(calls(name) for name in range(8)))

if shell == "async":
    asyncio.run(many())
while True:
    policy = Budget(usd=1.0) if shell == "budget" else None
    for result in router.complete_batch([f"q{i}" for i in range(20)], policy=policy):
        note(result)
"""


@pytest.mark.parametrize("shell", ["batch", "budget", "async"])
def test_every_answer_that_reached_the_caller_has_its_decision_and_attempt(tmp_path, shell):
    url, reached = f"sqlite:///{tmp_path / 'log.db'}", tmp_path / "reached"
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, url, str(reached), shell],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and (not reached.exists() or reached.stat().st_size < 9000):
        time.sleep(0.01)
    child.send_signal(signal.SIGKILL)
    assert -signal.SIGKILL == child.wait()

    answers = [line.split() for line in reached.read_text().splitlines() if line.count(" ") == 1]
    assert len(answers) > 50
    store = open_store(url)
    try:
        for decision_id, response_id in answers[:-1]:
            logged = store.decision(decision_id)
            (attempt,) = logged.attempts
            assert ("ok", "m") == (attempt.status, logged.decision.served)
            assert response_id == attempt.response_id
        for logged in store.decisions(limit=100_000):  # nothing half-written either
            assert 1 == len(logged.attempts)
    finally:
        store.close()
