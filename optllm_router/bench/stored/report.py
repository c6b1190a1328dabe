"""A whole log, summed up."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from optllm_router.bench.stored.comparing import comparisons, full_information
from optllm_router.bench.stored.forecasts import forecasts
from optllm_router.bench.stored.groups import group_row
from optllm_router.bench.stored.reading import Log, read_log
from optllm_router.bench.stored.records import Group, StoredReport
from optllm_router.errors import ConfigError
from optllm_router.store.base import Store


def stored_report(store: Store, *, advance: Callable[[int], None] | None = None) -> StoredReport:
    """Say what a log knows of its own decisions: counts, exact money, grades, comparisons.

    Args:
        store: the log; it is only read.
        advance: told how many decisions were read since the last time, for a progress bar.

    Raises: ConfigError where the log is empty; StoreError.
    """
    from optllm_router.store.faults import shown

    log = read_log(store, advance=advance)
    if not log.groups:
        raise ConfigError(
            f"the log {shown(store.url)!r} has no decision yet, so there is nothing to evaluate: "
            "route calls through it, ask all candidates about a sample with `optllm probe`, or "
            "bring outcomes with `optllm import`. A table of outcomes is evaluated without a log: "
            "`optllm evaluate DATA`."
        )
    groups = tuple(map(group_row, log.groups))
    return StoredReport(
        source=shown(store.url),
        n_decisions=sum(group.n_decisions for group in groups),
        n_graded=sum(group.n_graded for group in groups),
        groups=groups,
        comparisons=comparisons(log),
        full_information=full_information(log),
        forecasts=forecasts(log),
        notes=tuple(_notes(log, groups)),
    )


def _notes(log: Log, groups: tuple[Group, ...]) -> Iterator[str]:
    if not any(group.n_graded for group in groups):
        yield (
            "No decision is graded, so the log knows costs but no scores: configure [graders], "
            "or send scores with `optllm feedback` or `Router.feedback`."
        )
    if any(group.kind == "batch" for group in groups):
        yield (
            "A query that a batch's budget refused was never asked and is not in the log: a "
            "batch's n counts what was asked."
        )
    if any((rows.text < 0).any() for rows in log.groups):
        yield (
            "Some decisions have no text key (`prompts = 'none'`): each of them counts as a text "
            "of its own in intervals, and cannot be matched with probes."
        )
    if any(group.kind == "import" for group in groups):
        yield "Imported rows cost this router nothing: their money is what their table says."
