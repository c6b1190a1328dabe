"""The two shells of a batch: threads for the sync one, tasks for the async one.

Both take steps from one `BatchJob` until there are none left, and put every answer or exception
at its item's place. An interrupt or a cancellation hands out nothing more and lets calls in flight
end, so that nothing is asked without being logged.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from optllm_router.core.policy import Policy
from optllm_router.dispatch.admission import POLL_S
from optllm_router.dispatch.batch import Assignment, BatchRun, Refused, Step, Wait
from optllm_router.dispatch.calls import Desk, Task
from optllm_router.dispatch.deciding import RouterState
from optllm_router.dispatch.effects import arun, run
from optllm_router.dispatch.requests import Request
from optllm_router.dispatch.resuming import HeldBatch, Place
from optllm_router.ledger import Cap
from optllm_router.records import CapLine


@dataclass
class BatchJob:
    """What there is to do: planned items (`plan`), and items that are decided one by one (`live`).

    `results` has one place per item of the caller's list; items that could not be read hold their
    exception from the start. `caps` are those that `[[budgets]]` set for all items together.
    `tasks`, where given, are the live items' ready tasks. `held` is
    there where the batch survives its process: its known answers hold their places, too.
    """

    state: RouterState
    requests: Sequence[Request | Exception]
    plan: BatchRun | None
    live: Sequence[int]
    cap: Cap | None
    policy: Policy | None
    batch_id: str
    on_done: Callable[[], None]
    caps: Sequence[tuple[CapLine, Cap]] = ()
    tasks: Sequence[Task] | None = None
    held: HeldBatch | None = None
    results: list[Any] = field(init=False)
    _next_live: int = field(default=0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    _stopped: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self.results = [None] * len(self.requests)
        for item, request in enumerate(self.requests):
            if isinstance(request, Exception):
                self.finish(item, request)
        for item, result in (self.held.known if self.held is not None else {}).items():
            self.finish(item, result)

    @classmethod
    def of_tasks(
        cls, state: RouterState, tasks: Sequence[Task], on_done: Callable[[], None]
    ) -> BatchJob:
        """A job of ready tasks, in their order."""
        job = cls(
            state=state,
            requests=[task.request for task in tasks],
            plan=None,
            live=range(len(tasks)),
            cap=None,
            policy=None,
            batch_id="",
            on_done=on_done,
        )
        job.tasks = tasks
        return job

    def take(self) -> tuple[int, Task] | Wait | None:
        """Return the next item and its task; refused items are put in their place on the way."""
        while not self._stopped:
            live = self._take_live()
            if live is not None:
                return live
            step: Step = self.plan.take() if self.plan is not None else None
            if isinstance(step, Refused):
                self.finish(step.item, step.error)
            elif isinstance(step, Assignment) and self.plan is not None:
                return step.item, self._planned(self.plan, step)
            elif not isinstance(step, Assignment):
                return step
        return None

    def finish(self, item: int, result: Any) -> None:
        """Put an item's answer or exception in its place."""
        self.results[item] = result
        self.on_done()

    def stop(self) -> None:
        """Hand out nothing more."""
        self._stopped = True

    def _take_live(self) -> tuple[int, Task] | None:
        with self._lock:
            if self._next_live >= len(self.live):
                return None
            item = self.live[self._next_live]
            self._next_live += 1
        if self.tasks is not None:
            return item, self.tasks[item]
        task = Task(
            self._request(item),
            batch_id=self.batch_id,
            policy=self.policy,
            cap=self.cap,
            caps=self.caps,
            place=self._place(item),
        )
        return item, task

    def _planned(self, plan: BatchRun, step: Assignment) -> Task:
        return Task(
            self._request(step.item),
            decided=step.decided,
            batch_id=self.batch_id,
            policy=self.policy,
            cap=plan.cap,
            caps=self.caps,
            held_nusd=step.reserved_nusd,
            on_cost=lambda _cost: plan.finish(step),
            place=self._place(step.item),
        )

    def _place(self, item: int) -> Place | None:
        return None if self.held is None else self.held.place(item)

    def _request(self, item: int) -> Request:
        request = self.requests[item]
        if isinstance(request, Exception):  # never handed out: it stands in the results already
            raise request
        return request


def run_batch(desk: Desk, job: BatchJob, concurrency: int) -> list[Any]:
    """Work a batch off on `concurrency` threads; return its results in order."""

    def work() -> None:
        while (step := job.take()) is not None:
            if isinstance(step, Wait):
                time.sleep(POLL_S)
                continue
            item, task = step
            try:
                job.finish(item, run(desk.converse(job.state, task), desk.client))
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001  # the caller gets it in the item's place
                job.finish(item, error)

    concurrency = min(concurrency, max(len(job.requests), 1))
    with ThreadPoolExecutor(concurrency, thread_name_prefix="optllm-batch") as pool:
        try:
            workers = [pool.submit(work) for _ in range(concurrency)]
            for worker in workers:
                worker.result()
        except BaseException:
            job.stop()
            raise
    return job.results


async def arun_batch(
    desk: Desk, job: BatchJob, concurrency: int, store_thread: Executor
) -> list[Any]:
    """Work a batch off in `concurrency` tasks; planning runs off the event loop."""

    async def work() -> None:
        while (step := await asyncio.to_thread(job.take)) is not None:
            if isinstance(step, Wait):
                await asyncio.sleep(POLL_S)
                continue
            item, task = step
            try:
                answer = await arun(desk.converse(job.state, task), desk.client, store_thread)
                job.finish(item, answer)
            except asyncio.CancelledError as error:
                if _is_being_cancelled():
                    raise
                job.finish(item, error)  # a client gave up by itself: nobody cancels the batch
            except Exception as error:  # noqa: BLE001  # the caller gets it in the item's place
                job.finish(item, error)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(concurrency, len(job.requests))):
                group.create_task(work())
    finally:
        job.stop()
    return job.results


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
