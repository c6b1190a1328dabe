"""Plain responses in LiteLLM's shape, for clients that answer without LiteLLM.

Callers read a response as `response.choices[0].message.content`, `response["choices"]` or
`response.get("usage")`; all three work here. Records otherwise are frozen; these are not, since
callers and the router write into a response's `_hidden_params`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any


class Readable:
    """Lets fields be read as attributes, as `["key"]` and by `.get`, as LiteLLM's objects do."""

    __slots__ = ()

    def __getitem__(self, key: str) -> Any:
        try:
            return getattr(self, key)
        except AttributeError:
            raise KeyError(key) from None

    def get(self, key: str, default: Any = None) -> Any:
        """Return a field, or `default` where there is none of that name."""
        return getattr(self, key, default)


@dataclass(slots=True, kw_only=True)
class PlainFunction(Readable):
    """The function of a tool call: its name and its arguments as JSON text."""

    name: str | None
    arguments: str


@dataclass(slots=True, kw_only=True)
class PlainToolCall(Readable):
    """One function that an LLM wants called; `index` says which one in a stream."""

    function: PlainFunction
    id: str | None = None
    type: str = "function"
    index: int = 0


@dataclass(slots=True, kw_only=True)
class PlainMessage(Readable):
    """An assistant's message, or the piece of one that a stream chunk adds."""

    content: str | None
    role: str | None = "assistant"
    tool_calls: Sequence[PlainToolCall] | None = None


@dataclass(slots=True, kw_only=True)
class PlainChoice(Readable):
    """One of the answers of a finished response."""

    message: PlainMessage
    index: int = 0
    finish_reason: str | None = "stop"


@dataclass(slots=True, kw_only=True)
class PlainPiece(Readable):
    """What one stream chunk adds to one of the answers."""

    delta: PlainMessage
    index: int = 0
    finish_reason: str | None = None


@dataclass(slots=True, kw_only=True)
class PlainUsage(Readable):
    """Tokens of a call."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0


@dataclass(slots=True, kw_only=True)
class PlainResponse(Readable):
    """A finished response."""

    id: str
    model: str
    choices: list[PlainChoice]
    usage: PlainUsage | None
    object: str = "chat.completion"
    _hidden_params: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class PlainChunk(Readable):
    """A chunk of a stream; only the usage chunk has `usage`, and then no choices."""

    id: str
    model: str
    choices: list[PlainPiece]
    usage: PlainUsage | None = None
    object: str = "chat.completion.chunk"
    _hidden_params: dict[str, Any] = field(default_factory=dict)


def dump_plain(response: PlainResponse) -> dict[str, Any]:
    """Return a finished plain response as JSON values."""
    return asdict(response)


def restore_plain(values: Mapping[str, Any]) -> PlainResponse:
    """Return the response that `dump_plain` was given."""
    usage = values["usage"]
    return PlainResponse(
        **{
            **values,
            "choices": [_choice(choice) for choice in values["choices"]],
            "usage": None if usage is None else PlainUsage(**usage),
        }
    )


def _choice(values: Mapping[str, Any]) -> PlainChoice:
    message = values["message"]
    calls = message["tool_calls"]
    said = PlainMessage(
        **{**message, "tool_calls": None if calls is None else list(map(_tool_call, calls))}
    )
    return PlainChoice(**{**values, "message": said})


def _tool_call(values: Mapping[str, Any]) -> PlainToolCall:
    return PlainToolCall(**{**values, "function": PlainFunction(**values["function"])})
