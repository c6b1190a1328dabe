"""Kill -9 at random moments, round after round, in a run of eight processes on one store.

Run: python tests/money/kills.py --rounds 30 [--store postgres] [--real-leases]

Each process works on batches that survive, through a real `Router` and LiteLLM, and makes single
calls beside; half of them with threads, half with tasks. All share one budget in total, every two
one per session, which has room for three quarters of what they ask. Whoever is killed is started
again and resumes its batch. In the end the log is held against what the upstream has counted by
itself, and against what the processes were promised before they died. Ends with 1 on any miss.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import kills_books as books
from crowd_databases import KINDS, databases
from crowd_shapes import fresh_processes
from crowd_upstream import Rules, Upstream
from kills_child import INPUT_NUSD, OUTPUT_NUSD, Job, is_item, live, notes_of, router_of

from optllm_router import Router
from optllm_router.store.sql import SqlStore

RULES = Rules(
    prompt_tokens=20,
    completion_tokens=50,
    input_nusd=INPUT_NUSD,
    output_nusd=OUTPUT_NUSD,
    delay_s=(0.02, 0.15),
)
ROOM = 0.75  # of what two neighbours ask, in the budget that they share
START_S, END_S = 120.0, 300.0
LOOK_S = 0.3
SWEEP_S = 10.0  # every process looks for dead ones every two seconds; a busy machine is slow


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How large a run is; leases of None are the product's own."""

    rounds: int = 30
    n_processes: int = 8
    concurrency: int = 4
    n_items: int = 150
    pause_s: float = 1.5
    batch_lease_s: float | None = 2.0
    money_lease_s: float | None = 6.0
    seed: int = 5


@dataclass(slots=True)
class Found:
    """What a run has come to: its figures, and what is not as promised."""

    figures: dict[str, object] = field(default_factory=dict)
    misses: list[str] = field(default_factory=list)


class Run:
    """The processes of one run, and who of them has been killed."""

    def __init__(self, upstream: Upstream, url: str, folder: Path, settings: Settings) -> None:
        self.settings = settings
        self.upstream = upstream
        self.account = upstream.open(RULES)
        self.jobs = [self._job(url, folder, number) for number in range(settings.n_processes)]
        self.killed: list[str] = []
        self._draw = random.Random(settings.seed)
        self._context = fresh_processes()
        self._processes: dict[int, BaseProcess] = {}

    def start(self, number: int) -> None:
        """Start a process, or start it again."""
        process = self._context.Process(target=live, args=(self.jobs[number],))
        process.start()
        self._processes[number] = process

    def kill_one(self) -> str:
        """Kill a process at a random moment, and start it again; return its name.

        One of five may be at anything, even starting; the others are asking.
        """
        is_any = self._draw.random() < 0.2
        number = self._draw.choice(self._asking(is_any=is_any))
        time.sleep(self._draw.uniform(0.0, self.settings.pause_s))
        process, job = self._processes[number], self.jobs[number]
        if not process.is_alive():
            raise RuntimeError(f"process {job.source} ended by itself, with {process.exitcode}")
        os.kill(process.pid or 0, signal.SIGKILL)
        process.join()
        if process.exitcode != -signal.SIGKILL:
            raise RuntimeError(f"process {job.source} was not killed: {process.exitcode}")
        self.killed.append(job.source)
        self.jobs[number] = self._reborn(job)
        self.start(number)
        return job.source

    def stop(self) -> list[str]:
        """Let all end what they are at; return who did not end well."""
        self.jobs[0].stop.touch()
        deadline = time.monotonic() + END_S
        for process in self._processes.values():
            process.join(max(deadline - time.monotonic(), 0.0))
        ended = {self.jobs[n].source: p.exitcode for n, p in self._processes.items()}
        return [f"process {who} ended with {code}" for who, code in ended.items() if code != 0]

    def end(self) -> None:
        """Leave nothing behind, whatever happened."""
        for process in self._processes.values():
            process.kill()
            process.join()

    def _asking(self, *, is_any: bool) -> list[int]:
        """Who may be killed: those whose batch goes on at this moment, or anybody."""
        deadline = time.monotonic() + START_S
        before = self._n_asked()
        while time.monotonic() < deadline:
            time.sleep(LOOK_S)
            now = self._n_asked()
            busy = [n for n, job in enumerate(self.jobs) if now[job.source] > before[job.source]]
            if is_any:
                return list(range(len(self.jobs)))
            if busy:
                return busy
            before = now
        raise RuntimeError("nobody asks anything")

    def _n_asked(self) -> Counter[str]:
        """How many items of batches each life of a process has asked."""
        asked = self.upstream.bill(self.account).asked
        return Counter(source for source, text in asked if is_item(text))

    def _job(self, url: str, folder: Path, number: int) -> Job:
        settings = self.settings
        each = books.cost_nusd(RULES.prompt_tokens, RULES.completion_tokens)
        return Job(
            store=url,
            api_base=self.upstream.url(self.account, f"{number}-0"),
            folder=folder,
            number=number,
            life=0,
            n_items=settings.n_items,
            concurrency=settings.concurrency,
            session_nusd=int(2 * settings.n_items * each * ROOM),
            batch_lease_s=settings.batch_lease_s,
            money_lease_s=settings.money_lease_s,
        )

    def _reborn(self, job: Job) -> Job:
        born = replace(job, life=job.life + 1)
        return replace(born, api_base=self.upstream.url(self.account, born.source))


def prove(url: str, settings: Settings, *, is_told: bool = False) -> Found:
    """Let processes work, kill some of them, and look at all the books afterwards."""
    found = Found()
    with tempfile.TemporaryDirectory(prefix="optllm-kills-") as folder, Upstream() as upstream:
        run = Run(upstream, url, Path(folder), settings)
        with router_of(run.jobs[0]) as router:  # it makes no call, and sweeps like any other
            over = threading.Event()
            with ThreadPoolExecutor(1) as thread:
                watching = thread.submit(_watch, router, over, found)
                try:
                    _kill_all(run, router._engine.store, is_told=is_told)
                    found.misses += run.stop()
                finally:
                    run.end()
                    over.set()
                watching.result()
            _look(run, router._engine.store, found)
    return found


def _kill_all(run: Run, store: SqlStore, *, is_told: bool) -> None:
    """Start all processes, and kill one in every round."""
    for number in range(run.settings.n_processes):
        run.start(number)
    for number in range(1, run.settings.rounds + 1):
        killed = run.kill_one()
        if is_told:
            n_reserved = len(books.reservation_ages_s(store))
            print(f"{number:>3} killed {killed:<5} {n_reserved:>3} reserved", flush=True)


def _watch(router: Router, over: threading.Event, found: Found) -> None:
    """Look on until the end and until nothing is reserved: no overrun, nothing outlives a lease."""
    store, most_s = router._engine.store, router._engine.money.ledger._lease_s + SWEEP_S
    oldest_s, n_looks, n_left = 0.0, 0, 1
    while n_left or not over.is_set():
        over.wait(LOOK_S)
        ages_s = books.reservation_ages_s(store)
        n_left, oldest_s, n_looks = len(ages_s), max([oldest_s, *ages_s]), n_looks + 1
        found.misses += books.overruns(store)
        if oldest_s > most_s:
            found.misses.append(f"a reservation is live after {oldest_s:.1f} s")
            break
    found.figures |= {"looks while it ran": n_looks}
    found.figures |= {"oldest reservation seen, s": round(oldest_s, 1)}
    found.figures |= {"allowed: a lease and a look, s": most_s}
    found.figures |= {"reserved in the end": n_left}


def _look(run: Run, store: SqlStore, found: Found) -> None:
    """Hold the log against the upstream's bill and the processes' notes."""
    bill, log = run.upstream.bill(run.account), books.Log(store)
    notes = [note for job in run.jobs for note in notes_of(job)]
    again = books.asked_again(bill)
    found.misses += books.askings(log, bill)
    found.misses += books.acknowledged(log, notes)
    found.misses += books.money(store, log)
    for source, n in again.items():
        if n > (run.settings.concurrency if source in run.killed else 0):
            found.misses.append(f"{n} items of {source} were asked again")
    each = books.cost_nusd(RULES.prompt_tokens, RULES.completion_tokens)
    answered = [attempt for attempt in log.attempts if attempt.status == "ok"]
    if {each} != {attempt.cost_nusd for attempt in answered}:
        found.misses.append("an answer does not cost what the upstream charges for it")
    lost = len(log.attempts) - len(answered)
    ledger = sum(attempt.cost_nusd or 0 for attempt in log.attempts)
    full = [a for a in books.accounts_of(store) if a.budget == "session" and a.spent > a.limit / 2]
    found.figures |= {
        "processes killed": len(run.killed),
        "batches finished": sum(note[0] == "batch" for note in notes),
        "asked, by the upstream": bill.n_calls,
        "attempts, by the ledger": len(log.attempts),
        "settled at their forecast": lost,
        "asked twice, by the upstream": sum(again.values()),
        "asked twice per kill, at most": max(again.values(), default=0),
        "acknowledged": sum(note[0] != "batch" for note in notes),
        "windows filled": len(full),
        "least left of them, nano-USD": min((a.limit - a.spent for a in full), default=None),
        "billed, by the upstream, USD": bill.nusd / 1e9,
        "spent, by the ledger, USD": ledger / 1e9,
        "a call, nano-USD": each,
        "forecast of a lost call": sorted({a.cost_nusd for a in log.attempts if a.status != "ok"}),
        "open": books.n_open(store),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; return 1 where anything is not as promised."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--concurrency", type=int, default=4)
    parser.add_argument("--store", choices=KINDS, default="sqlite")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--real-leases", action="store_true", help="the product's own, not short")
    asked = parser.parse_args(arguments)
    settings = Settings(
        rounds=asked.rounds,
        n_processes=asked.processes,
        concurrency=asked.concurrency,
        seed=asked.seed,
    )
    if asked.real_leases:
        settings = replace(settings, batch_lease_s=None, money_lease_s=None)
    start = time.monotonic()
    with databases(asked.store) as fresh:
        found = prove(fresh(), settings, is_told=True)
    for what, figure in found.figures.items():
        print(f"{what:<36} {figure}")
    print(f"{'seconds':<36} {time.monotonic() - start:.0f}")
    print(f"{len(found.misses)} misses", *found.misses[:50], sep="\n", flush=True)
    return 1 if found.misses else 0


if __name__ == "__main__":
    sys.exit(main())
