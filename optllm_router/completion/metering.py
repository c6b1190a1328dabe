"""Reads text and usage off responses and stream chunks of the OpenAI shape.

What LiteLLM returns, what a replay returns and what the scripted client returns all have that
shape, so one reader serves them. It asks for attributes by name and takes absent ones as unset:
providers leave out what they have nothing to say about.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from optllm_router.completion.base import Answer, Chunk, Response
from optllm_router.records import Usage


def describe_response(response: Response) -> Answer:
    """Read a finished response: the first choice's content, then its tool calls as JSON text.

    Without usage, the reasoning and the other choices are read, too, since they are billed.
    """
    hidden = _get(response, "_hidden_params") or {}
    usage = read_usage(_get(response, "usage"))
    messages = [_get(choice, "message") for choice in _get(response, "choices") or []]
    text = "".join(part for message in messages[:1] for part in _message_text(message))
    billable = "" if usage is not None else "".join(map(_billable_text, messages))
    return Answer(
        text=text,
        usage=usage,
        response_id=_get(response, "id"),
        cache_hit=bool(hidden.get("cache_hit")),
        billable_text=billable if len(billable) > len(text) else None,
    )


def read_usage(usage: object) -> Usage | None:
    """Translate a provider's usage; None where it is absent or all zero (which means the same).

    Cached tokens come from `prompt_tokens_details` (OpenAI's way) or from
    `cache_read_input_tokens` and `cache_creation_input_tokens` (Anthropic's); both are taken as
    part of `prompt_tokens`, as LiteLLM reports them.
    """
    prompt = _count(usage, "prompt_tokens")
    completion = _count(usage, "completion_tokens")
    if prompt == 0 and completion == 0:
        return None
    details = _get(usage, "prompt_tokens_details")
    cached = _count(details, "cached_tokens") or _count(usage, "cache_read_input_tokens")
    written = _count(usage, "cache_creation_input_tokens") or _count(
        details, "cache_creation_tokens"
    )
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=completion,
        cached_tokens=min(cached, prompt),
        cache_write_tokens=min(written, prompt - min(cached, prompt)),
    )


class ChunkMeter:
    """Collects what a stream says, and hides the usage chunk that only we asked for.

    A usage chunk has no text: its `choices` are empty (OpenAI) or hold one empty delta (LiteLLM).
    """

    def __init__(
        self, arguments: Mapping[str, Any], *, is_reported: Callable[[], bool] = lambda: True
    ) -> None:
        """Remember whether the caller wants to see the usage chunk.

        `is_reported` says, at the end, whether the usage that came is the provider's own.
        """
        self._is_reported = is_reported
        options = arguments.get("stream_options") or {}
        self._shows_usage = bool(_get(options, "include_usage"))
        self._text: list[str] = []
        self._calls: list[str] = []
        self._beside: list[str] = []
        self._usage: Usage | None = None
        self._id: str | None = None
        self._cache_hit = False
        self._is_finished = False

    @property
    def has_begun(self) -> bool:
        """Whether something was said, or the stream says that it is finished."""
        return self._is_finished or any(map(any, (self._text, self._calls, self._beside)))

    def add(self, chunk: Chunk) -> bool:
        """Take one chunk; return whether the caller should see it."""
        self._id = self._id or _get(chunk, "id")
        self._cache_hit = self._cache_hit or bool(
            (_get(chunk, "_hidden_params") or {}).get("cache_hit")
        )
        usage = read_usage(_get(chunk, "usage"))
        self._usage = usage or self._usage
        said = [self._take(choice) for choice in _get(chunk, "choices") or []]
        return any(said) or self._shows_usage or _get(chunk, "usage") is None

    def answer(self) -> Answer:
        """Return what has arrived so far.

        While no usage was reported, the text also holds what is billed beside the answer
        (reasoning, the further choices of `n`), first, so that counting its tokens does not fall
        short.
        """
        usage = self._usage if self._usage is None or self._is_reported() else None
        parts = self._text + self._calls
        if usage is None:
            parts = self._beside + parts
        return Answer(
            text="".join(parts),
            usage=usage,
            response_id=self._id,
            cache_hit=self._cache_hit,
        )

    def _take(self, choice: object) -> bool:
        """Collect one choice's delta; return whether there is anything in it for the caller."""
        delta = _get(choice, "delta")
        content = _get(delta, "content") or ""
        reasoning = _get(delta, "reasoning_content") or ""
        calls = list(_call_pieces(delta))
        if _get(choice, "index"):
            self._beside += [reasoning, content, *calls]
        else:
            self._beside.append(reasoning)
            self._text.append(content)
            self._calls += calls
        role, finish = _get(delta, "role"), _get(choice, "finish_reason")
        self._is_finished = self._is_finished or finish is not None
        return bool(content or reasoning or calls or role or finish)


def _message_text(message: object) -> Iterator[str]:
    """Yield a message's content and tool calls."""
    yield _content_text(_get(message, "content"))
    yield from _whole_calls(message)


def _billable_text(message: object) -> str:
    """Return all that a message says, reasoning first."""
    return "".join((_content_text(_get(message, "reasoning_content")), *_message_text(message)))


def _content_text(content: object) -> str:
    """Return a content's text, whether it is a string or a list of parts."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, Iterable) else []
    return "".join(str(_get(part, "text") or "") for part in parts)


def _whole_calls(message: object) -> Iterator[str]:
    """Yield each finished tool call (and the older function call) as JSON text."""
    calls = [_get(call, "function") for call in _get(message, "tool_calls") or []]
    for call in [*calls, _get(message, "function_call")]:
        if call is not None:
            fields = {"name": _get(call, "name"), "arguments": _get(call, "arguments")}
            yield json.dumps(fields, ensure_ascii=False)


def _call_pieces(delta: object) -> Iterator[str]:
    """Yield the names and argument pieces of the tool calls in one delta."""
    calls = [_get(call, "function") for call in _get(delta, "tool_calls") or []]
    for call in [*calls, _get(delta, "function_call")]:
        yield from filter(None, (_get(call, "name"), _get(call, "arguments")))


def _count(value: object, name: str) -> int:
    """Return a token count, 0 where it is absent, None or not a number."""
    count = _get(value, name)
    return count if isinstance(count, int) and count > 0 else 0


def _get(value: object, name: str) -> Any:
    """Return a field of an object or a mapping, None where it is absent."""
    if isinstance(value, Mapping):
        return value.get(name)
    return getattr(value, name, None)
