"""A crowd of calls that begin at once: from threads, from tasks, or from eight processes.

Every process of a crowd is a fresh one. They are forked from a server that has loaded LiteLLM once
and has neither a router nor a connection.
"""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any, Literal, TypeAlias

Shape = Literal["threads", "asyncio", "processes"]
Shell = Literal["threads", "asyncio"]
Outcomes: TypeAlias = Counter[str]  # "served", "refused", or the class of an error

SHAPES: tuple[Shape, ...] = ("threads", "asyncio", "processes")
N_PROCESSES = 8
START_S = 120.0

_HERE = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Part:
    """What one process of a crowd does: so many calls from its own threads, or tasks."""

    number: int
    shell: Shell
    n_calls: int


Work: TypeAlias = Callable[[Part, Any, Barrier], Outcomes]


def parts(shape: Shape, n_calls: int) -> list[Part]:
    """Divide calls among processes; of eight, every other one has threads."""
    if shape != "processes":
        return [Part(0, shape, n_calls)]
    shells: tuple[Shell, Shell] = ("threads", "asyncio")
    return [Part(n, shells[n % 2], n_calls // N_PROCESSES) for n in range(N_PROCESSES)]


def fresh_processes() -> ForkServerContext:
    """Return a context whose processes have loaded what `crowd_warm` loads, and nothing else."""
    before = os.environ.get("PYTHONPATH")
    path = [str(_HERE), str(_HERE.parents[1]), *([] if before is None else [before])]
    os.environ["PYTHONPATH"] = os.pathsep.join(path)
    try:
        forkserver.set_forkserver_preload(["crowd_warm"])
        forkserver.ensure_running()
    finally:
        os.environ.pop("PYTHONPATH")
        os.environ |= {} if before is None else {"PYTHONPATH": before}
    return multiprocessing.get_context("forkserver")


def at_once(crowd: Sequence[Part], work: Work, job: Any) -> tuple[Outcomes, float]:
    """Have processes work, all beginning at once; return what came of it and the seconds it took.

    `work` gets ready, waits at the barrier, and makes its calls.
    """
    context = fresh_processes()
    barrier = context.Barrier(len(crowd) + 1)
    ends: list[Connection] = []
    processes = []
    for part in crowd:
        end, other = context.Pipe(duplex=False)
        process = context.Process(target=_play, args=(work, part, job, barrier, other))
        process.start()
        other.close()
        ends.append(end)
        processes.append(process)
    barrier.wait(START_S)
    start = time.perf_counter()
    outcomes = sum((end.recv() for end in ends), Counter())
    seconds = time.perf_counter() - start
    for process in processes:
        process.join()
        if process.exitcode:
            raise RuntimeError(f"a process of the crowd ended with {process.exitcode}")
    return outcomes, seconds


def from_threads(n_calls: int, call: Callable[[int], str], barrier: Barrier) -> Outcomes:
    """Make calls from as many threads."""
    together = threading.Barrier(n_calls, action=lambda: barrier.wait(START_S))

    def one(number: int) -> str:
        together.wait(START_S)
        return call(number)

    with ThreadPoolExecutor(n_calls) as threads:
        return Counter(threads.map(one, range(n_calls)))


async def from_tasks(
    n_calls: int, call: Callable[[int], Awaitable[str]], barrier: Barrier
) -> Outcomes:
    """Make calls from as many tasks."""
    barrier.wait(START_S)
    return Counter(await asyncio.gather(*(call(number) for number in range(n_calls))))


def _play(work: Work, part: Part, job: Any, barrier: Barrier, end: Connection) -> None:
    for name in ("optllm_router", "LiteLLM", "LiteLLM Router"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    end.send(work(part, job, barrier))
