"""The user's own outcome table into the log: labels and costs, not money that we spent."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from optllm_router.core.embedding import Dense
from optllm_router.core.features import clip_text
from optllm_router.dispatch.deciding import RouterState
from optllm_router.dispatch.privacy import Kept
from optllm_router.errors import ConfigError
from optllm_router.outcomes import ImportReport, OutcomeTable, check_outcomes
from optllm_router.records import NANO_PER_USD, Attempt, Decision, Outcome
from optllm_router.store.base import Store

CHUNK = 2_000
SOURCE = "import"

Entry = tuple[Decision, list[Attempt]]
Embed = Callable[[Sequence[str]], list[Dense | None]]


def import_table(
    path: str | Path,
    store: Store,
    state: RouterState,
    *,
    count_text: Callable[[str], int],
    embed: Embed,
) -> ImportReport:
    """Write every observed cell of a table as a decision with its attempt and outcome.

    Rows of models that are no candidates are left out (the report counts them). Ids are made from
    the content, so that importing a file again changes nothing.

    Raises: ConfigError for a table with errors; nothing is written.
    """
    names = {name for c in state.candidates for name in (c.name, c.model)}
    table, report = check_outcomes(path, candidates=names)
    if table is None:
        problems = "\n".join(f"'{path}': {text}" for text in report.problems)
        raise ConfigError(f"{problems}\nnothing was imported")
    n_imported = 0
    entries: list[Entry] = []
    outcomes: list[Outcome] = []
    for entry, outcome in _cells(table, state, count_text, embed):
        entries.append(entry)
        outcomes.append(outcome)
        n_imported += 1
        if len(entries) >= CHUNK:
            store.record_many(entries, outcomes)
            entries, outcomes = [], []
    if entries:
        store.record_many(entries, outcomes)
    return replace(report, n_imported=n_imported)


def _cells(
    table: OutcomeTable,
    state: RouterState,
    count_text: Callable[[str], int],
    embed: Embed,
) -> Iterator[tuple[Entry, Outcome]]:
    now = datetime.now(tz=UTC)
    columns = [(j, state.position(model)) for j, model in enumerate(table.models)]
    embeddings: list[Dense | None] = []
    for i, query in enumerate(table.queries):
        if i % CHUNK == 0:
            embeddings = embed(table.queries[i : i + CHUNK])
        text = clip_text(query)
        kept = state.privacy.keep(text, None, embeddings[i % CHUNK])
        n_tokens = count_text(query)
        for j, position in columns:
            if position < 0 or math.isnan(table.score[i, j]):
                continue
            name = state.candidates[position].name
            decision_id = _content_id(table.query_ids[i], table.tasks[i], query, name)
            entry = (
                _decision(decision_id, name, table.tasks[i], kept, (n_tokens, now)),
                [_attempt(table, (i, j), decision_id, name, now)],
            )
            outcome = Outcome(
                decision_id=decision_id,
                score=float(table.score[i, j]),
                source=SOURCE,
                created_at=now,
            )
            yield entry, outcome


def _decision(
    decision_id: str, name: str, task: str, kept: Kept, size: tuple[int, datetime]
) -> Decision:
    n_tokens, now = size
    return Decision(
        id=decision_id,
        created_at=now,
        kind="import",
        requested=name,
        chosen=name,
        served=name,
        policy="import",
        reason="imported",
        task=task,
        text_key=kept.text_key,
        features=kept.features,
        prompt=kept.prompt,
        n_prompt_tokens=n_tokens,
    )


def _attempt(
    table: OutcomeTable, cell: tuple[int, int], decision_id: str, name: str, now: datetime
) -> Attempt:
    cost = table.cost_usd[cell]
    return Attempt(
        id=decision_id + "-0",
        decision_id=decision_id,
        number=0,
        candidate=name,
        status="ok",
        started_at=now,
        prompt_tokens=_tokens(table.prompt_tokens[cell]),
        completion_tokens=_tokens(table.completion_tokens[cell]),
        cost_nusd=None if np.isnan(cost) else math.ceil(cost * NANO_PER_USD),
    )


def _tokens(value: np.int64) -> int | None:
    return int(value) if value >= 0 else None


def _content_id(*parts: str) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        encoded = part.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "big") + encoded)
    return "import-" + digest.hexdigest()
