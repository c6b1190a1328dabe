"""Answers from a recorded table of outcomes: real LLMs' answers, scores and costs, no network.

A call finds its row by the text of the last user message and its column by the candidate's
`model`; the recorded score rides along in `_hidden_params["replay"]`, where a grader finds it. A
call is billed what the table says that its row cost. Of rows that were not asked for nothing is
read but one number per column, its largest cost, which is what a call may cost at worst.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from optllm_router.completion import counting
from optllm_router.completion.base import Answer, Failure, Messages, Response, StreamMeter
from optllm_router.completion.metering import ChunkMeter, describe_response
from optllm_router.completion.responses import (
    PlainChoice,
    PlainMessage,
    PlainResponse,
    PlainUsage,
    dump_plain,
    restore_plain,
)
from optllm_router.errors import BudgetExceededError, ConfigError
from optllm_router.records import NANO_PER_USD, Candidate, Capabilities, Floats, Ints


class Recorded(Protocol):
    """What a replay needs of an outcome table (n queries, m models); see `optllm_router.outcomes`.

    `score` and `cost_usd` are (n, m), NaN where unknown; the token counts are (n, m), -1 where
    unknown; `answers` is (n, m) of text or None, or None as a whole.
    """

    @property
    def query_ids(self) -> Sequence[str]: ...  # noqa: D102  # described above
    @property
    def queries(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def models(self) -> Sequence[str]: ...  # noqa: D102
    @property
    def score(self) -> Floats: ...  # noqa: D102
    @property
    def cost_usd(self) -> Floats: ...  # noqa: D102
    @property
    def prompt_tokens(self) -> Ints: ...  # noqa: D102
    @property
    def completion_tokens(self) -> Ints: ...  # noqa: D102
    @property
    def answers(self) -> NDArray[np.object_] | None: ...  # noqa: D102


class ReplayClient:
    """Answers queries from a recorded table; a `base.Client` without streams.

    Several rows may share one text. A call that passes `metadata={"query_id": ...}` gets the row
    of that id, any other the first row with its text.
    """

    def __init__(self, table: Recorded) -> None:
        """Index the table's texts, ids and models; the table itself is kept, not copied."""
        self._table = table
        self._columns = {name: column for column, name in enumerate(table.models)}
        self._row_of_text: dict[str, int] = {}
        self._row_of_id: dict[str, int] = {}
        for row, (query_id, text) in enumerate(zip(table.query_ids, table.queries, strict=True)):
            self._row_of_text.setdefault(text, row)
            self._row_of_id.setdefault(query_id, row)

    def complete(self, candidate: Candidate, arguments: Mapping[str, Any]) -> Response:
        """Return the recorded answer of a candidate to a query.

        Raises: ConfigError where the query or the candidate is not in the table, where it has no
            recorded cost, or where a stream is asked for.
        """
        if arguments.get("stream"):
            raise ConfigError(
                "`stream=True` is not possible in a replay: a recorded table has finished answers "
                "only. Leave `stream` out."
            )
        row = self._row(arguments)
        return self._response(row, self._column(candidate.model), candidate.model)

    async def acomplete(self, candidate: Candidate, arguments: Mapping[str, Any]) -> Response:
        """Do what `complete` does; nothing is waited for."""
        return self.complete(candidate, arguments)

    def describe(self, response: Response) -> Answer:
        """Read a replayed response; its cost is the table's, exact, rounded up to 1 nano-USD."""
        answer = describe_response(response)
        recorded = response.get("_hidden_params")["replay"]
        return Answer(
            text=answer.text,
            usage=answer.usage,
            response_id=answer.response_id,
            cost_nusd=recorded["cost_nusd"],
        )

    def dump(self, response: Response) -> Mapping[str, Any]:
        """Return a replayed response as JSON values."""
        return dump_plain(response)

    def restore(self, values: Mapping[str, Any]) -> Response:
        """Return the response that was dumped."""
        return restore_plain(values)

    def meter(
        self,
        arguments: Mapping[str, Any],
        stream: Response,  # noqa: ARG002  # the protocol's name
    ) -> StreamMeter:
        """Return a meter, for the protocol's sake: there are no streams to watch."""
        return ChunkMeter(arguments)

    def candidate(self, model: str, overrides: Mapping[str, Any] | None = None) -> Candidate:
        """Describe a model of the table; its worst case is its largest recorded cost.

        Of `overrides` only `name` counts: a recorded model has no endpoint and no token price.
        Raises: ConfigError where the table has no such model or no cost for it.
        """
        costs = self._table.cost_usd[:, self._column(model)]
        if costs.size == 0 or np.isnan(costs).all():
            raise ConfigError(
                f"the table has no `cost_usd` for {model!r}, so a replay cannot bill it: leave "
                "this model out."
            )
        return Candidate(
            name=(overrides or {}).get("name") or model,
            model=model,
            price=None,
            capabilities=Capabilities(),
            worst_case_nusd=_nano_usd(float(np.nanmax(costs))),
        )

    def count_tokens(
        self, messages: Messages, tools: Sequence[Any] | None = None, response_format: Any = None
    ) -> int:
        """Count the tokens of a prompt."""
        return counting.count_messages(messages, tools, response_format)

    def count_text(self, text: str) -> int:
        """Count the tokens of a text."""
        return counting.count_text(text)

    def is_empty(self, response: Response) -> bool:  # noqa: ARG002  # the protocol's name
        """Return False: what was recorded is an answer, also where its text is not kept."""
        return False

    def judge(self, error: BaseException) -> Failure:  # noqa: ARG002  # the protocol's name
        """Say that nobody else is to be asked: a table will not hold more the next time."""
        return Failure(remedy="none")

    def maybe_billed(self, error: BaseException) -> bool:  # noqa: ARG002  # the protocol's name
        """Return False: a replay that fails has cost nothing."""
        return False

    def budget_error(self, error: BudgetExceededError) -> BudgetExceededError:
        """Return the error as it is: callers of a replay catch our own class."""
        return error

    def lost_error(
        self,
        kind: Literal["timeout", "empty"],  # noqa: ARG002  # the protocol's name
        candidate: Candidate,
        message: str,
    ) -> Exception:
        """Return a `TimeoutError`: nothing else can become of a recorded answer."""
        return TimeoutError(f"{candidate.name}: {message}")

    def warm_up(self) -> None:
        """Load the tokenizer."""
        counting.encoding()

    def _row(self, arguments: Mapping[str, Any]) -> int:
        """Find the row of a call: by its query id if it names one, else by its text."""
        query_id = (arguments.get("metadata") or {}).get("query_id")
        if query_id is not None:
            if query_id in self._row_of_id:
                return self._row_of_id[query_id]
            raise ConfigError(
                f"the table has no query with the id {query_id!r} (from `metadata`): pass an id "
                "of the table, or none to be found by text."
            )
        text = _last_user_text(arguments.get("messages") or [])
        if text in self._row_of_text:
            return self._row_of_text[text]
        raise ConfigError(
            f"the table has no query with the text {_shortened(text)!r}: a replay answers only "
            "queries that were recorded, letter by letter."
        )

    def _column(self, model: str) -> int:
        if model in self._columns:
            return self._columns[model]
        near = difflib.get_close_matches(model, self._columns, n=1)
        hint = f" (did you mean {near[0]!r}?)" if near else ""
        raise ConfigError(
            f"the table has no model {model!r}{hint}: it has {', '.join(self._columns) or 'none'}."
        )

    def _response(self, row: int, column: int, model: str) -> PlainResponse:
        """Build the response of one cell of the table."""
        cost_usd = float(self._table.cost_usd[row, column])
        query_id = self._table.query_ids[row]
        if math.isnan(cost_usd):
            raise ConfigError(
                f"the table has no `cost_usd` of {model!r} for query {query_id!r}, so a replay "
                "cannot bill it: leave this query or this model out."
            )
        answers = self._table.answers
        text = None if answers is None else answers[row, column]
        recorded = {
            "score": float(self._table.score[row, column]),
            "query_id": query_id,
            "cost_nusd": _nano_usd(cost_usd),
        }
        return PlainResponse(
            id=f"replay-{query_id}-{model}",
            model=model,
            choices=[PlainChoice(message=PlainMessage(content=text or ""))],
            usage=self._usage(row, column),
            _hidden_params={"replay": recorded, "response_cost": cost_usd},
        )

    def _usage(self, row: int, column: int) -> PlainUsage | None:
        """Return the recorded tokens, None where either count is unknown."""
        prompt = int(self._table.prompt_tokens[row, column])
        completion = int(self._table.completion_tokens[row, column])
        if prompt < 0 or completion < 0:
            return None
        return PlainUsage(
            prompt_tokens=prompt,
            completion_tokens=completion,
            total_tokens=prompt + completion,
        )


def _nano_usd(cost_usd: float) -> int:
    """Return the ceiling of a cost in nano-USD, taken at the decimal value that its text shows."""
    return math.ceil(Decimal(repr(cost_usd)) * NANO_PER_USD)


def _last_user_text(messages: Messages) -> str:
    """Return the text of the last user message, its text parts joined; "" where there is none."""
    for message in reversed(messages):
        if message.get("role") == "user":
            content = message.get("content") or ""
            if isinstance(content, str):
                return content
            return "".join(part.get("text", "") for part in content if isinstance(part, Mapping))
    return ""


def _shortened(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
