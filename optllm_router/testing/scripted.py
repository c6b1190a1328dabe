"""A client for tests whose candidates answer by a script: no LiteLLM, no network, no surprises.

    client = ScriptedClient(
        {
            "cheap": Line(text="4", usage=Usage(prompt_tokens=10, completion_tokens=1)),
            "dear": [Line(error=TimeoutError("slow"), billed=True), Line(text="four")],
            "clever": lambda arguments: Line(text=arguments["messages"][-1]["content"]),
        },
        prices={"cheap": (0.15, 0.6), "dear": (2.5, 10)},
    )

It is a full `completion.base.Client`: streams, usage, failures, latencies, capabilities and prices
are all part of the script, and `calls` keeps what was asked.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Literal, TypeAlias

from optllm_router.completion.base import Answer, Failure, Messages, Response, StreamMeter
from optllm_router.completion.metering import ChunkMeter, describe_response
from optllm_router.completion.responses import (
    PlainChoice,
    PlainChunk,
    PlainFunction,
    PlainMessage,
    PlainPiece,
    PlainResponse,
    PlainToolCall,
    PlainUsage,
    dump_plain,
    restore_plain,
)
from optllm_router.errors import BudgetExceededError, ConfigError
from optllm_router.records import Candidate, Capabilities, TokenPrice, Usage

CHARACTERS_PER_TOKEN = 4
FINAL = Failure(remedy="none")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What a candidate does on one call.

    It waits `latency_s`, then raises `error` or says `text` and the `tool_calls` (function name,
    JSON arguments). `usage` None counts four characters per token; `reports_usage=False` reports
    none. In a stream the text comes word by word, `chunk_latency_s` apart, and `error` is raised
    after `error_after` chunks if that is set. `billed` is what `maybe_billed(error)` will say,
    `failure` what `judge(error)` will; without it nobody is asked after this one.
    `cost_nusd` makes the client bill by it instead of by tokens.
    """

    text: str = "ok"
    tool_calls: Sequence[tuple[str, str]] = ()
    usage: Usage | None = None
    reports_usage: bool = True
    error: BaseException | None = None
    error_after: int | None = None
    billed: bool = False
    failure: Failure = FINAL
    latency_s: float = 0.0
    chunk_latency_s: float = 0.0
    cache_hit: bool = False
    cost_nusd: int | None = None


Script: TypeAlias = Line | Sequence[Line] | Callable[[Mapping[str, Any]], Line]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call that the client received."""

    candidate: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


class ScriptedClient:
    """Answers by a script per candidate; a `completion.base.Client`.

    A script is one `Line` for every call, a sequence of lines (in order; the last one repeats), or
    a function from the call's arguments to a line. Keys are the candidates' `model` names. A model
    without a price has none; `prices` are (input, output) in USD per 1M tokens.

    Attributes:
        calls: every call so far, in order of arrival.
    """

    def __init__(
        self,
        scripts: Mapping[str, Script],
        *,
        prices: Mapping[str, tuple[float, float]] | None = None,
        capabilities: Mapping[str, Capabilities] | None = None,
    ) -> None:
        """Keep the scripts; nothing happens until a call."""
        self.calls: list[Call] = []
        self._lock = threading.Lock()
        self._scripts = {model: _lines(script) for model, script in scripts.items()}
        self._prices = dict(prices or {})
        self._capabilities = dict(capabilities or {})
        self._numbers = itertools.count(1)
        self._billed: list[BaseException] = []
        self._failures: list[tuple[BaseException, Failure]] = []

    def complete(self, candidate: Candidate, arguments: Mapping[str, Any]) -> Response:
        """Play the candidate's next line.

        Raises: the line's `error`, or ConfigError where the script does not have the candidate.
        """
        line, number = self._next(candidate, arguments)
        time.sleep(line.latency_s)
        return self._play(line, _Take(candidate.model, number, arguments))

    async def acomplete(self, candidate: Candidate, arguments: Mapping[str, Any]) -> Response:
        """Do what `complete` does without blocking the event loop."""
        line, number = self._next(candidate, arguments)
        await asyncio.sleep(line.latency_s)
        return self._play(line, _Take(candidate.model, number, arguments))

    def describe(self, response: Response) -> Answer:
        """Read a scripted response."""
        cost_nusd = response.get("_hidden_params").get("cost_nusd")
        return replace(describe_response(response), cost_nusd=cost_nusd)

    def dump(self, response: Response) -> Mapping[str, Any]:
        """Return a scripted response as JSON values."""
        return dump_plain(response)

    def restore(self, values: Mapping[str, Any]) -> Response:
        """Return the response that was dumped."""
        return restore_plain(values)

    def meter(
        self,
        arguments: Mapping[str, Any],
        stream: Response,  # noqa: ARG002  # the protocol's name
    ) -> StreamMeter:
        """Return a fresh meter, the same one that the real client uses."""
        return ChunkMeter(arguments)

    def candidate(self, model: str, overrides: Mapping[str, Any] | None = None) -> Candidate:
        """Describe a candidate by the prices and capabilities given; `overrides` win."""
        settings = {key: value for key, value in (overrides or {}).items() if value is not None}
        return Candidate(
            name=settings.get("name") or model,
            model=model,
            price=self._price(model, settings),
            capabilities=self._capabilities.get(model, Capabilities()),
            max_output_tokens=settings.get("max_output_tokens", 4096),
            arguments=settings.get("arguments", {}),
        )

    def count_tokens(
        self, messages: Messages, tools: Sequence[Any] | None = None, response_format: Any = None
    ) -> int:
        """Count four characters as a token, and at least one token."""
        contents = "".join(str(message.get("content") or "") for message in messages)
        contents += "" if not tools else str(list(tools))
        contents += "" if response_format is None else str(response_format)
        return self.count_text(contents) or 1

    def count_text(self, text: str) -> int:
        """Count four characters as a token, rounded up."""
        return -(-len(text) // CHARACTERS_PER_TOKEN)

    def is_empty(self, response: Response) -> bool:  # noqa: ARG002  # the protocol's name
        """Return False: every line is an answer, also an empty one."""
        return False

    def judge(self, error: BaseException) -> Failure:
        """Return what the line that raised this error says; else that another may answer."""
        said = [failure for raised, failure in self._failures if raised is error]
        return said[-1] if said else Failure(remedy="another")

    def maybe_billed(self, error: BaseException) -> bool:
        """Return what the line that raised this error says."""
        return any(error is billed for billed in self._billed)

    def budget_error(self, error: BudgetExceededError) -> BudgetExceededError:
        """Return the error as it is."""
        return error

    def lost_error(
        self,
        kind: Literal["timeout", "empty"],  # noqa: ARG002  # the protocol's name
        candidate: Candidate,
        message: str,
    ) -> Exception:
        """Return a `TimeoutError`, which may have been billed and is worth a retry."""
        error = TimeoutError(f"{candidate.name}: {message}")
        with self._lock:
            self._billed.append(error)
            self._failures.append((error, Failure(remedy="retry", is_ill=True)))
        return error

    def warm_up(self) -> None:
        """Do nothing: there is nothing to load."""

    def _next(self, candidate: Candidate, arguments: Mapping[str, Any]) -> tuple[Line, int]:
        """Take down a call and return its line and its number."""
        with self._lock:
            self.calls.append(Call(candidate=candidate.name, arguments=dict(arguments)))
            if candidate.model not in self._scripts:
                raise ConfigError(
                    f"the script has no candidate {candidate.model!r}: it has "
                    f"{', '.join(self._scripts) or 'none'}."
                )
            line = self._scripts[candidate.model](arguments)
            if line.error is not None:
                self._failures.append((line.error, line.failure))
            if line.error is not None and line.billed:
                self._billed.append(line.error)
            return line, next(self._numbers)

    def _play(self, line: Line, take: _Take) -> Response:
        """Raise, stream or answer, as the line says."""
        if take.arguments.get("stream"):
            if line.error is not None and line.error_after is None:
                raise line.error
            return ScriptedStream(line, list(_chunks(line, take)))
        if line.error is not None:
            raise line.error
        message = PlainMessage(content=line.text, tool_calls=_tool_calls(line) or None)
        return PlainResponse(
            id=take.id,
            model=take.model,
            choices=[PlainChoice(message=message)],
            usage=_usage(line, take),
            _hidden_params={"cache_hit": line.cache_hit, "cost_nusd": line.cost_nusd},
        )

    def _price(self, model: str, settings: Mapping[str, Any]) -> TokenPrice | None:
        listed = self._prices.get(model, (None, None))
        input_price = settings.get("input_usd_per_1m", listed[0])
        output_price = settings.get("output_usd_per_1m", listed[1])
        if input_price is None or output_price is None:
            return None
        return TokenPrice(
            input_per_1m=Decimal(str(input_price)), output_per_1m=Decimal(str(output_price))
        )


class ScriptedStream:
    """A stream of chunks, to be read synchronously or asynchronously, and closed early at will.

    Attributes:
        closed: whether it was closed before its end.
    """

    def __init__(self, line: Line, chunks: Sequence[PlainChunk]) -> None:
        """Keep the line for its timing and its failure, and the chunks."""
        self.closed = False
        self._line = line
        self._chunks: Iterator[tuple[int, PlainChunk]] = iter(enumerate(chunks))
        self._hidden_params: dict[str, Any] = {}

    def __iter__(self) -> Iterator[PlainChunk]:
        return self

    def __next__(self) -> PlainChunk:
        chunk = self._advance()
        if chunk is None:
            raise StopIteration
        time.sleep(self._line.chunk_latency_s)
        return chunk

    def __aiter__(self) -> AsyncIterator[PlainChunk]:
        return self

    async def __anext__(self) -> PlainChunk:
        chunk = self._advance()
        if chunk is None:
            raise StopAsyncIteration
        await asyncio.sleep(self._line.chunk_latency_s)
        return chunk

    def close(self) -> None:
        """End the stream here."""
        self.closed = True
        self._chunks = iter(())

    async def aclose(self) -> None:
        """End the stream here."""
        self.close()

    def _advance(self) -> PlainChunk | None:
        """Return the next chunk, None at the end; raise the line's error where it is due."""
        line = self._line
        for number, chunk in self._chunks:
            if line.error is not None and number == line.error_after:
                self._chunks = iter(())
                raise line.error
            return chunk
        return None


@dataclass(frozen=True, slots=True)
class _Take:
    """One call being played."""

    model: str
    number: int
    arguments: Mapping[str, Any]

    @property
    def id(self) -> str:
        return f"scripted-{self.number}"


def _lines(script: Script) -> Callable[[Mapping[str, Any]], Line]:
    """Return a function from a call's arguments to its line."""
    if callable(script):
        return script
    lines = [script] if isinstance(script, Line) else list(script)

    def in_order(_arguments: Mapping[str, Any]) -> Line:
        return lines.pop(0) if len(lines) > 1 else lines[0]

    return in_order


def _chunks(line: Line, take: _Take) -> Iterator[PlainChunk]:
    """Yield a stream's chunks: role, words, tool calls, finish, usage."""
    opening = PlainMessage(content="", role="assistant")
    yield _chunk(take, PlainPiece(delta=opening))
    words = line.text.split(" ")
    for number, word in enumerate(words):
        text = word if number == len(words) - 1 else word + " "
        yield _chunk(take, PlainPiece(delta=PlainMessage(content=text, role=None)))
    for call in _tool_calls(line):
        delta = PlainMessage(content=None, role=None, tool_calls=[call])
        yield _chunk(take, PlainPiece(delta=delta))
    closing = PlainMessage(content=None, role=None)
    reason = "tool_calls" if line.tool_calls else "stop"
    yield _chunk(take, PlainPiece(delta=closing, finish_reason=reason))
    if line.reports_usage:  # the real client asks every stream for its usage, so all have it
        yield PlainChunk(id=take.id, model=take.model, choices=[], usage=_usage(line, take))


def _chunk(take: _Take, piece: PlainPiece) -> PlainChunk:
    return PlainChunk(id=take.id, model=take.model, choices=[piece])


def _tool_calls(line: Line) -> list[PlainToolCall]:
    return [
        PlainToolCall(
            id=f"call_{index}", index=index, function=PlainFunction(name=name, arguments=arguments)
        )
        for index, (name, arguments) in enumerate(line.tool_calls)
    ]


def _usage(line: Line, take: _Take) -> PlainUsage | None:
    """Return the line's usage, or an honest count of four characters per token."""
    if not line.reports_usage:
        return None
    usage = line.usage or _counted(line, take)
    return PlainUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
        cache_read_input_tokens=usage.cached_tokens,
        cache_creation_input_tokens=usage.cache_write_tokens,
    )


def _counted(line: Line, take: _Take) -> Usage:
    prompt = "".join(str(m.get("content") or "") for m in take.arguments.get("messages") or [])
    said = line.text + "".join(name + arguments for name, arguments in line.tool_calls)
    return Usage(
        prompt_tokens=max(1, -(-len(prompt) // CHARACTERS_PER_TOKEN)),
        completion_tokens=-(-len(said) // CHARACTERS_PER_TOKEN),
    )
