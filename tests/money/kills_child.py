"""A process that works on batches until it is told to stop, or killed.

It writes down what it was promised, line by line, so that a kill -9 loses none of it: an attempt
whose `settle` has returned, and an answer that a caller was given.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optllm_router import BudgetExceededError, Router
from optllm_router.dispatch import resuming
from optllm_router.records import NANO_PER_USD
from optllm_router.store import batches

MAX_TOKENS = 100
INPUT_NUSD, OUTPUT_NUSD = 1_000, 2_000  # per token: 1 and 2 USD per million
RESERVE_TIMEOUT = "2m"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What one life of a process needs to know.

    `number` is the process's, `life` how often it was started before. Two neighbours share one
    budget per session. Leases of None are the product's own, 10 s for batches and 20 s for money.
    """

    store: str
    api_base: str
    folder: Path
    number: int
    life: int
    n_items: int
    concurrency: int
    session_nusd: int
    batch_lease_s: float | None
    money_lease_s: float | None

    @property
    def source(self) -> str:
        """Who asks, as the upstream sees it."""
        return f"{self.number}-{self.life}"

    @property
    def notes(self) -> Path:
        """Where the process writes down what it was promised, over all its lives."""
        return self.folder / f"notes {self.number}"

    @property
    def stop(self) -> Path:
        """Once it is there, no further batch is begun."""
        return self.folder / "stop"

    def batch_id(self, batch: int) -> str:
        """The name of one of the process's batches."""
        return f"process {self.number}, batch {batch}"

    def session_id(self, batch: int) -> str:
        """The session, and so the budget, that two neighbours share."""
        return f"pair {self.number // 2}, batch {batch}"

    def texts(self, batch: int) -> list[str]:
        """What a batch asks."""
        return [f"{self.batch_id(batch)}, item {item}" for item in range(self.n_items)]


def is_item(text: str) -> bool:
    """Whether a text belongs to a batch."""
    return ", batch " in text


def router_of(job: Job) -> Router:
    """Return a router under both budgets: one in total, one per session."""
    candidate = {
        "model": "openai/any",
        "api_base": job.api_base,
        "arguments": {"api_key": "sk-any"},
        "max_output_tokens": MAX_TOKENS,
        "input_usd_per_1m": INPUT_NUSD / 1_000,
        "output_usd_per_1m": OUTPUT_NUSD / 1_000,
    }
    session_usd = job.session_nusd / NANO_PER_USD
    router = Router(
        [candidate],
        store=job.store,
        budgets=[
            {"name": "all", "usd": 100.0, "per": "total"},
            {"name": "session", "usd": session_usd, "per": "session"},
        ],
        calls={"reserve_timeout": RESERVE_TIMEOUT},
        prompts="full",
        retrain={"enabled": False},
    )
    if job.money_lease_s is not None:
        ledger = router._engine.money.ledger
        ledger._lease_s = job.money_lease_s
        ledger.keep()
    return router


def live(job: Job) -> None:
    """Work on one batch after the other, the first unfinished one of earlier lives first."""
    logging.getLogger("optllm_router").setLevel(logging.CRITICAL)
    if job.batch_lease_s is not None:
        batches.LEASE_S, resuming.RENEW_S = job.batch_lease_s, job.batch_lease_s / 4
    begin = 1 + max((int(note[1]) for note in notes_of(job) if note[0] == "batch"), default=-1)
    notes = os.open(job.notes, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(*words: object) -> None:
        os.write(notes, (" ".join(map(str, words)) + "\n").encode())

    with router_of(job) as router:
        _note_settled(router, note)
        caller = threading.Thread(target=_call_now_and_then, args=(job, router, note), daemon=True)
        caller.start()
        for batch in itertools.count(begin):
            results = _work_off(job, router, batch)
            _check(job, batch, results)
            for result in results:
                if not isinstance(result, Exception):
                    note("answer", result._hidden_params["optllm"]["decision_id"])
            note("batch", batch)
            if job.stop.exists():
                caller.join()
                break


def notes_of(job: Job) -> list[list[str]]:
    """Return what a process has written down, the words of each whole line."""
    if not job.notes.exists():
        return []
    *lines, _ = job.notes.read_text().split("\n")  # the last may be cut short
    return [line.split() for line in lines]


def _note_settled(router: Router, note: Any) -> None:
    """Have it written down when the store has taken how an attempt ended."""
    store = router._engine.store
    settle = store.settle

    def noting(attempt: Any, **more: Any) -> None:
        settle(attempt, **more)
        note("settled", attempt.decision_id, attempt.id, attempt.status, attempt.cost_nusd)

    store.settle = noting


def _call_now_and_then(job: Job, router: Router, note: Any) -> None:
    """Make single calls beside the batch: their answers reach a caller one by one."""
    number = itertools.count()
    while not job.stop.exists():
        text = f"single call {next(number)} of {job.source}"
        response = router.complete(messages=[{"role": "user", "content": text}])
        note("answer", response._hidden_params["optllm"]["decision_id"])


def _work_off(job: Job, router: Router, batch: int) -> Sequence[Any]:
    """Every other process has threads, the others tasks."""
    how: dict[str, Any] = {
        "batch_id": job.batch_id(batch),
        "session_id": job.session_id(batch),
        "concurrency": job.concurrency,
    }
    if job.number % 2:
        return asyncio.run(router.acomplete_batch(job.texts(batch), **how))
    return router.complete_batch(job.texts(batch), **how)


def _check(job: Job, batch: int, results: Sequence[Any]) -> None:
    """Every item has its own answer, or was refused for want of money."""
    for text, result in zip(job.texts(batch), results, strict=True):
        if isinstance(result, BudgetExceededError):
            continue
        if isinstance(result, Exception):
            raise result
        said = result.choices[0].message.content
        if said != f"re: {text}":
            raise AssertionError(f"{text!r} was answered {said!r}")
