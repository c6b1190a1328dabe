"""The two worlds that the demo can run in: simulated LLMs on loopback, or a recorded table.

A world gives the queries, the candidates, the client that answers and the function that grades an
answer that was paid for. `truth` is for the comparison after a batch was served: what each query
would have scored and cost with one given candidate. No decision is made from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from optllm_router.completion.base import Client, Response
from optllm_router.completion.replay import ReplayClient
from optllm_router.demo.providers import SIMULATED_LLMS, SimulatedProvider
from optllm_router.demo.tasks import DemoQuery, make_queries
from optllm_router.errors import ConfigError
from optllm_router.outcomes import OutcomeTable, read_outcomes, sample, select
from optllm_router.records import NANO_PER_USD, Floats, Ints

Request = dict[str, Any]  # the arguments of one `Router.complete`


class World(Protocol):
    """What the run needs to know of where its queries and answers come from.

    Queries are in random order. `client` None is the Router's own; `grader` is a function's path,
    as in a config.
    """

    described: str
    truth_described: str
    tasks: Sequence[str]
    texts: Sequence[str]
    references: Sequence[str | None]
    candidates: Sequence[object]
    default: str
    client: Client | None
    grader: str

    def request(self, row: int) -> Request:
        """Return one query as the arguments of `Router.complete`."""
        ...

    def truth(self, candidate: str, rows: Ints) -> tuple[Floats, Floats]:
        """Return score and cost in USD that one candidate has on `rows`, shape (n_rows,) each."""
        ...


@contextmanager
def open_world(outcomes: str | Path | None, *, limit: int | None, seed: int) -> Iterator[World]:
    """Open the simulated world, or the recorded one when `outcomes` names a table.

    Args:
        outcomes: A file of recorded outcomes; None for the simulation.
        limit: Take so many queries, drawn by `seed`; None takes all.
        seed: Seed of the questions and simulated answers, or of the draw from the table.
    """
    if outcomes is not None:
        table = _complete_rows(read_outcomes(Path(outcomes)), Path(outcomes))
        n_queries = table.n_queries if limit is None else limit
        drawn = sample(table, n_queries, np.random.default_rng(seed))
        yield RecordedWorld(drawn, source=Path(outcomes))
        return
    queries = make_queries(seed=seed)[:limit]
    with SimulatedProvider(queries, seed=seed) as provider:
        yield SimulatedWorld(queries, provider, seed=seed)


def recorded(text: str, reference: str | None, *, response: Response) -> float:
    """Grade a replayed answer: return the recorded score that came with it."""
    del text, reference
    return float(response._hidden_params["replay"]["score"])  # noqa: SLF001  # LiteLLM's place


def _complete_rows(table: OutcomeTable, source: Path) -> OutcomeTable:
    """Keep the queries that every model answered: comparisons need the same queries for all."""
    known = np.isfinite(table.score) & np.isfinite(table.cost_usd)
    rows = np.flatnonzero(known.all(axis=1))
    if not rows.size:
        raise ConfigError(
            f"'{source}': no query has a score and a `cost_usd` of all {table.n_models} models, "
            "and the demo compares them on the same queries: complete the table, or leave the "
            "models with gaps out."
        )
    return table if rows.size == table.n_queries else select(table, rows)


class SimulatedWorld:
    """Questions made by code, answered by simulated LLMs over real loopback HTTP and LiteLLM."""

    grader = "optllm_router.demo.tasks:is_right"

    truth_described = (
        "What always asking one candidate would have cost and scored was read off the simulation "
        "after the batch was served, without calls and without money."
    )

    def __init__(
        self, queries: Sequence[DemoQuery], provider: SimulatedProvider, *, seed: int
    ) -> None:
        """Know the questions, the running server and the seed of its answers."""
        self._queries, self._seed = queries, seed
        self._llms = {llm.model: llm for llm in SIMULATED_LLMS}
        self.described = (
            f"SIMULATED: {len(self._llms)} simulated LLMs behind a loopback server answer "
            f"{len(queries):,} questions made by code; no real model, no network, no real money."
        )
        self.tasks: Sequence[str] = [query.task for query in queries]
        self.texts: Sequence[str] = [query.text for query in queries]
        self.references: Sequence[str | None] = [query.reference for query in queries]
        self.candidates: Sequence[object] = provider.candidates()
        self.default = SIMULATED_LLMS[-1].model
        self.client: Client | None = None  # the Router's own: the real LiteLLM

    def request(self, row: int) -> Request:
        """Return one question as the arguments of `Router.complete`."""
        return _request(self, row)

    def truth(self, candidate: str, rows: Ints) -> tuple[Floats, Floats]:
        """Read scores and costs off the simulation."""
        llm, queries = self._llms[candidate], [self._queries[int(row)] for row in rows]
        right = [llm.answers_right(query, seed=self._seed) for query in queries]
        cost = [llm.cost_nusd(query) / NANO_PER_USD for query in queries]
        return np.array(right, dtype=np.float64), np.array(cost, dtype=np.float64)


class RecordedWorld:
    """A table of recorded outcomes: answers are replayed, and billed as the table says."""

    grader = "optllm_router.demo.worlds:recorded"

    truth_described = (
        "What always asking one candidate would have cost and scored was read off the table "
        "after the batch was served."
    )

    def __init__(self, table: OutcomeTable, *, source: Path) -> None:
        """Replay `table`, the queries drawn from the file `source`."""
        self._table = table
        self.described = (
            f"RECORDED: {table.n_queries:,} queries drawn from {source}, whose {table.n_models} "
            "LLMs' recorded answers are replayed; no call is made, no money is spent."
        )
        self.tasks: Sequence[str] = table.tasks
        self.texts: Sequence[str] = table.queries
        self.references: Sequence[str | None] = table.references
        self.candidates: Sequence[object] = list(table.models)
        self.default = str(table.models[int(np.nanmax(table.cost_usd, axis=0).argmax())])
        self.client: Client | None = ReplayClient(table)

    def request(self, row: int) -> Request:
        """Return one recorded query; its id goes along, since several may share one text."""
        return _request(self, row) | {"metadata": {"query_id": self._table.query_ids[row]}}

    def truth(self, candidate: str, rows: Ints) -> tuple[Floats, Floats]:
        """Read scores and costs off the table."""
        column = self._table.models.index(candidate)
        return self._table.score[rows, column], self._table.cost_usd[rows, column]


def _request(world: World, row: int) -> Request:
    return {
        "messages": [{"role": "user", "content": world.texts[row]}],
        "task": world.tasks[row],
        "reference": world.references[row],
    }
