"""What a call costs besides the call: time that `Router.complete` spends outside its client.

12 columns, 50 bootstraps, a prompt of 400 characters, log on, SQLite, a client that answers at
once and whose own time is taken off. Every prompt is another one, so that each one's features are
written. The bar (2 idle cores, median of 5 runs): p50 <= 0.5 ms, p99 <= 1.5 ms.

Run: python tests/benchmarks/bench_router.py [--calls 2000] [--runs 5] [--budget] [--profile]
With `--budget` a shared budget binds every call; the bar is for calls without one.
Prints; asserts nothing.
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import override

from optllm_router import Knee, Router
from optllm_router.completion import counting
from optllm_router.completion.base import Messages, Response
from optllm_router.records import Candidate, Usage
from optllm_router.testing.scripted import Line, ScriptedClient

N_COLUMNS = 12
N_TRAINING = 600
PROMPT_CHARACTERS = 400
AMPLE = {"name": "ample", "usd": 1e6, "per": "day"}
TASKS = ("triage", "summary", "code")
WORDS = (
    *("the", "invoice", "of", "march", "was", "paid", "twice", "please", "say", "which"),
    *("account", "to", "refund", "and", "how", "long", "it", "takes", "when", "customers"),
)


class TimedClient(ScriptedClient):
    """Answers at once, counts tokens as the real client does, and adds up its own time."""

    spent_s = 0.0

    @override
    def complete(self, candidate: Candidate, arguments: Mapping[str, Any]) -> Response:
        start = time.perf_counter()
        try:
            return super().complete(candidate, arguments)
        finally:
            self.spent_s += time.perf_counter() - start

    @override
    def count_tokens(
        self, messages: Messages, tools: Any = None, response_format: Any = None
    ) -> int:
        return counting.count_messages(messages, tools, response_format)


def client() -> TimedClient:
    """Return a client with one candidate per column, each dearer than the one before."""
    names = [f"provider/llm-{j:02d}" for j in range(N_COLUMNS)]
    line = Line(text="ok", usage=Usage(prompt_tokens=100, completion_tokens=80))
    prices = {name: (0.1 * 1.5**j, 0.4 * 1.5**j) for j, name in enumerate(names)}
    return TimedClient(dict.fromkeys(names, line), prices=prices)


def prompts(n: int, seed: int) -> list[str]:
    """Return different prompts of 400 characters."""
    rng = np.random.default_rng(seed)
    texts = (" ".join(rng.choice(WORDS, 90)) for _ in range(n))
    return [text[:PROMPT_CHARACTERS].ljust(PROMPT_CHARACTERS, ".") for text in texts]


def trained_router(store: str, *, budgeted: bool = False) -> tuple[Router, TimedClient]:
    """Return a router that has probed and fitted, and its client; `budgeted` by an ample budget."""
    answering = client()
    names = list(answering._scripts)  # its models, in order
    router = Router(
        names,
        default=names[0],
        policy=Knee(),
        store=store,
        client=answering,
        retrain={"enabled": False},  # a refit of its own would publish first, or run beside
        budgets=[AMPLE] if budgeted else [],
    )
    rng = np.random.default_rng(0)
    sample = prompts(N_TRAINING, seed=1)
    tasks = [TASKS[i % len(TASKS)] for i in range(N_TRAINING)]
    router.probe(sample, tasks=tasks, grader=lambda _text, _reference: float(rng.random() < 0.6))
    report = router.retrain()
    if not report.published:
        raise SystemExit(f"nothing was published: {report.reason}")
    return router, answering


def run(router: Router, answering: TimedClient, texts: list[str]) -> tuple[float, float]:
    """Call once per text; return p50 and p99 of the time outside the client, in milliseconds."""
    times = []
    for text in texts:
        message = [{"role": "user", "content": text}]
        answering.spent_s = 0.0
        start = time.perf_counter()
        router.complete(messages=message, task=TASKS[0])
        times.append((time.perf_counter() - start - answering.spent_s) * 1e3)
    answering.calls.clear()
    return statistics.median(times), float(np.quantile(times, 0.99))


def main() -> None:
    """Measure, print, and profile if asked to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=2_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--budget", action="store_true", help="reserve and settle every call")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = f"sqlite:///{Path(folder) / 'bench.db'}"
        router, answering = trained_router(store, budgeted=asked.budget)
        run(router, answering, prompts(200, seed=2))  # warm
        results = []
        for number in range(asked.runs):
            results.append(run(router, answering, prompts(asked.calls, seed=10 + number)))
            print("run {}: p50 {:.3f} ms, p99 {:.3f} ms".format(number + 1, *results[-1]))
        p50, p99 = (statistics.median(values) for values in zip(*results, strict=True))
        print(
            f"median of {asked.runs} runs: p50 {p50:.3f} ms (bar 0.5), p99 {p99:.3f} ms (bar 1.5)"
        )
        if asked.profile:
            profile = cProfile.Profile()
            profile.runcall(run, router, answering, prompts(asked.calls, seed=99))
            pstats.Stats(profile).sort_stats("tottime").print_stats(35)
        router.close()


if __name__ == "__main__":
    main()
