"""A table of outcomes as a problem to route: dense arrays, distinct texts, and its splits.

Everything fitted, tuned or chosen sees the labelled part only; of the test part a router sees what
it would see when it is asked: text, task and prompt length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from optllm_router.core.features import SparseText, hash_text, shape_features
from optllm_router.core.front.cells import LARGEST_TOTAL_USD
from optllm_router.errors import ConfigError
from optllm_router.outcomes import OutcomeTable
from optllm_router.records import Floats, Ints

SplitKind: TypeAlias = Literal["random", "text", "task", "time"]
DEFAULT_LABELS = 300


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Problem:
    """A complete table: every query with a score and a cost of every candidate.

    `scores` and `cost_usd` are (n_queries, n_candidates); `group` (n_queries,) numbers the distinct
    texts; `prompt_tokens` is (n_queries,). The queries stand in the file's order.
    """

    source: str
    candidates: tuple[str, ...]
    texts: Sequence[str]
    tasks: Sequence[str]
    features: Sequence[SparseText]
    group: Ints
    prompt_tokens: Floats
    scores: Floats
    cost_usd: Floats

    @property
    def n_queries(self) -> int:
        """How many queries the table has."""
        return len(self.texts)

    @property
    def n_texts(self) -> int:
        """How many of their texts differ."""
        return int(np.unique(self.group).size)

    @property
    def shapes(self) -> Floats:
        """Every query's shape, as the features know it, (n_queries, 5)."""
        one, none = np.ones(self.n_queries), np.zeros(self.n_queries)
        return shape_features(self.prompt_tokens, one, none, none, none)

    def rows(self, index: Ints) -> Problem:
        """Return the problem of some of the queries, in this order."""
        at = index.tolist()
        return Problem(
            source=self.source,
            candidates=self.candidates,
            texts=[self.texts[i] for i in at],
            tasks=[self.tasks[i] for i in at],
            features=[self.features[i] for i in at],
            group=self.group[index],
            prompt_tokens=self.prompt_tokens[index],
            scores=self.scores[index],
            cost_usd=self.cost_usd[index],
        )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Split:
    """One seed's labelled part and test part."""

    seed: int
    labelled: Problem
    test: Problem


def problem_of(table: OutcomeTable, source: str) -> tuple[Problem, int]:
    """Return a table's complete queries as a problem, and how many incomplete ones are left out.

    Raises:
        ConfigError: fewer than 2 candidates, no complete query, or costs whose total overflows.
    """
    complete = (np.isfinite(table.score) & np.isfinite(table.cost_usd)).all(axis=1)
    at = np.flatnonzero(complete).tolist()
    if not at or table.n_models < 2:
        raise ConfigError(
            f"'{source}' has {len(at)} queries with a score and a `cost_usd` of all of its "
            f"{table.n_models} models: an evaluation needs at least one, and 2 models or more"
        )
    _check_costs(table.cost_usd[at], source)
    texts = [table.queries[i] for i in at]
    number = {text: i for i, text in enumerate(dict.fromkeys(texts))}
    hashed = [hash_text(text) for text in number]
    group = np.array([number[text] for text in texts], dtype=np.int64)
    problem = Problem(
        source=source,
        candidates=tuple(table.models),
        texts=texts,
        tasks=[table.tasks[i] for i in at],
        features=[hashed[i] for i in group.tolist()],
        group=group,
        prompt_tokens=_prompt_tokens(table)[at],
        scores=table.score[at],
        cost_usd=table.cost_usd[at],
    )
    return problem, table.n_queries - len(at)


def _check_costs(cost_usd: Floats, source: str) -> None:
    """Refuse costs, (n_queries, n_candidates), that nobody can add up. Raises: ConfigError."""
    largest, limit = float(cost_usd.max()), LARGEST_TOTAL_USD / len(cost_usd)
    if largest > limit:
        raise ConfigError(
            f"'{source}' has a `cost_usd` of {largest:g}, above {limit:g}: the total of its "
            f"{len(cost_usd):,} queries would overflow. Give the cost of one query in USD"
        )


def _prompt_tokens(table: OutcomeTable) -> Floats:
    """Every query's prompt tokens: the table's, else a quarter of the text's characters.

    Whole, as a router counts them: it would misjudge costs by other lengths than it learned from.
    """
    known = np.where(table.prompt_tokens >= 0, table.prompt_tokens, 0).sum(axis=1)
    n_known = (table.prompt_tokens >= 0).sum(axis=1)
    guessed = np.array([len(query) / 4 for query in table.queries])
    mean: Floats = np.where(n_known > 0, known / np.maximum(n_known, 1), guessed)
    return mean.round()


def labelled_sizes(labels: Sequence[float] | None, n_queries: int) -> list[int]:
    """Return the distinct numbers of labelled queries, ascending.

    Without any given: `DEFAULT_LABELS`, but at most half of the queries, and at least 2.

    Raises:
        ConfigError: one is not positive, or nothing is left to test on.
    """
    if labels:
        return sorted({n_labelled(one, n_queries) for one in labels})
    if n_queries < 3:
        raise ConfigError(
            f"{n_queries} queries are too few: an evaluation labels at least 2 and tests on the "
            "others, so give DATA 3 complete queries or more"
        )
    return [min(DEFAULT_LABELS, max(n_queries // 2, 2))]


def n_labelled(labels: float, n_queries: int) -> int:
    """Return a number of labelled queries that is given as one, or as a fraction below 1.

    Raises:
        ConfigError: not positive, or nothing is left to test on.
    """
    n = round(labels * n_queries) if 0 < labels < 1 else labels
    if not 2 <= n < n_queries or n != int(n):  # the range first: NaN and infinity are no int
        raise ConfigError(
            f"`--labels {labels:g}` of {n_queries} queries: give a whole number from 2 to "
            f"{n_queries - 1}, or a fraction between 0 and 1"
        )
    return int(n)


def split(problem: Problem, kind: SplitKind, n: int, seed: int) -> Split:
    """Split into `n` labelled queries and the test part, by the seed's permutation.

    "random": the rest is the test part. "text": of the rest, the queries whose text is not among
    the labelled. "task": labelled queries come from some tasks, test queries from the others.
    "time": the table's first `n` queries are labelled, whatever the seed.

    Raises:
        ConfigError: the labelled part leaves nothing to test on.
    """
    order = np.random.default_rng(seed).permutation(problem.n_queries)
    if kind == "time":
        order = np.arange(problem.n_queries)
    labelled, rest = order[:n], order[n:]
    if kind == "text":
        rest = rest[~np.isin(problem.group[rest], problem.group[labelled])]
    if kind == "task":
        labelled, rest = _by_task(problem, order, n)
    if not rest.size:
        raise ConfigError(
            f"a split by {kind} with {n} labelled queries leaves no test query: take fewer labels "
            "or another `--split`"
        )
    return Split(
        seed=seed,
        labelled=problem.rows(np.sort(labelled)),
        test=problem.rows(np.sort(rest)),
    )


def _by_task(problem: Problem, order: Ints, n: int) -> tuple[Ints, Ints]:
    """Take whole tasks, in the permutation's order, until they hold `n` queries."""
    task = np.array([problem.tasks[int(i)] for i in order])
    taken: list[str] = []
    for name in dict.fromkeys(task.tolist()):
        if int(np.isin(task, taken).sum()) >= n:
            break
        taken.append(name)
    inside = np.isin(task, taken)
    return order[inside][:n], order[~inside]
