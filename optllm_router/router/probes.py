"""A router's probe, from the queries that a user passed to the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from optllm_router.dispatch.probing import ProbeReport, ProbeTally, probe_tasks
from optllm_router.dispatch.requests import Request, checked_requests, item_arguments
from optllm_router.dispatch.workers import BatchJob, run_batch
from optllm_router.errors import ConfigError
from optllm_router.grading import Grader, as_grader
from optllm_router.router.engine import FLUSH_S, Engine
from optllm_router.router.progress import progress_bar
from optllm_router.store.ids import new_id


def read_probe(
    engine: Engine,
    queries: Sequence[Any],
    *,
    references: Sequence[Any] | None,
    tasks: Sequence[str] | None,
    common: Mapping[str, Any],
) -> list[Request]:
    """Read the queries of a probe. Raises: ConfigError."""
    queries = checked_requests(queries)
    for name, values in (("references", references), ("tasks", tasks)):
        if values is not None and len(values) != len(queries):
            raise ConfigError(
                f"{len(values)} {name} for {len(queries)} queries: pass one per query"
            )
    read = []
    for i, item in enumerate(queries):
        own = {**common, **item_arguments(item)}
        if references is not None:
            own["reference"] = references[i]
        if tasks is not None:
            own["task"] = tasks[i]
        if own.get("stream"):
            raise ConfigError("`stream=True` in a probe: stream single calls, probe whole ones")
        read.append(engine.read_item(own, {}))
    return engine.embedded(read)


def run_probe(
    engine: Engine, requests: Sequence[Request], *, grader: Any, concurrency: int, progress: bool
) -> ProbeReport:
    """Ask, grade and log; waits for the gradings.

    Raises: ConfigError before anything is spent, also where no grader would grade anything.
    """
    tally = ProbeTally()
    work = probe_tasks(
        engine.state,
        requests,
        tally,
        grader_of=_grader_of(engine, requests, grader),
        batch_id=new_id(),
        caps=engine.desk.money.caps_of_batch(),
    )
    with progress_bar(len(work), "probes", show=progress) as advance:
        job = BatchJob.of_tasks(engine.state, work, advance)
        with engine.working_off(job):
            results = run_batch(engine.desk, job, concurrency)
    answered = [r for r, task in zip(results, work, strict=True) if task.grader is not None]
    n_gradings = sum(not isinstance(answer, BaseException) for answer in answered)
    all_ended = tally.wait(n_gradings, lambda: engine.writer.n_graded)
    engine.flush(FLUSH_S if all_ended else 0.0)
    engine.learn_newcomers()
    n_skipped = len(requests) * len(engine.state.candidates) - len(work)
    return tally.report(len(requests), n_skipped, results)


def _grader_of(
    engine: Engine, requests: Sequence[Request], given: Any
) -> Callable[[Request], Grader | None]:
    """Return what finds the grader of a request: the one given, else its task's.

    Raises: ConfigError where there is none for any of them.
    """
    chosen = None if given is None else as_grader(given)

    def grader_of(request: Request) -> Grader | None:
        return chosen or engine.desk.graders.for_task(request.query.task)

    if requests and not any(grader_of(request) for request in requests):
        raise ConfigError(
            "no grader grades these queries, so that a probe would spend money and learn "
            "nothing: pass `grader=`, or configure [graders.default] or one for their task"
        )
    return grader_of
