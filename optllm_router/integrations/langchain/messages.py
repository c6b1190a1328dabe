"""From the Router's responses and chunks to LangChain's messages, tool calls and token counts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    InvalidToolCall,
    ToolCall,
    ToolCallChunk,
    UsageMetadata,
)
from langchain_core.messages.ai import InputTokenDetails, OutputTokenDetails
from langchain_core.messages.tool import invalid_tool_call, tool_call, tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult

from optllm_router.completion.base import Chunk, Response
from optllm_router.completion.metering import read_usage


class ChunkReader:
    """Translates the chunks of one stream; facts go with the first, token counts with the last."""

    def __init__(self, stream: Response) -> None:
        self._metadata = _metadata(stream)
        self._usage: UsageMetadata | None = None

    def read(self, chunk: Chunk) -> ChatGenerationChunk | None:
        """Translate one chunk; None where it says nothing (its usage is kept for the last)."""
        # Some providers repeat a running total: only the newest counts, and only once.
        self._usage = _usage_metadata(getattr(chunk, "usage", None)) or self._usage
        for choice in chunk.choices:
            if choice.index == 0:  # further choices of `n` cannot be told apart in LangChain
                return self._piece(choice)
        return None

    def last(self) -> ChatGenerationChunk:
        """Return the chunk that ends the message."""
        return ChatGenerationChunk(
            message=AIMessageChunk(
                content="",
                usage_metadata=self._usage,
                response_metadata=self._take_metadata(),
                chunk_position="last",
            )
        )

    def _piece(self, choice: Any) -> ChatGenerationChunk | None:
        delta, reason = choice.delta, choice.finish_reason
        calls = [_call_chunk(call) for call in getattr(delta, "tool_calls", None) or []]
        beside = _reasoning(delta)
        if not (delta.content or calls or beside or reason or self._metadata):
            return None
        message = AIMessageChunk(
            content=delta.content or "",
            tool_call_chunks=calls,
            additional_kwargs=beside,
            response_metadata=self._take_metadata(),
        )
        return ChatGenerationChunk(
            message=message, generation_info={"finish_reason": reason} if reason else None
        )

    def _take_metadata(self) -> dict[str, Any]:
        """Give the metadata once: LangChain concatenates texts that two chunks both carry."""
        taken, self._metadata = self._metadata, {}
        return taken


def chat_result(response: Response) -> ChatResult:
    """Translate a finished response, one generation per choice."""
    usage, metadata = _usage_metadata(getattr(response, "usage", None)), _metadata(response)
    return ChatResult(
        generations=[
            ChatGeneration(
                message=_ai_message(choice.message, usage, metadata),
                generation_info={"finish_reason": choice.finish_reason},
            )
            for choice in response.choices
        ]
    )


def _ai_message(
    message: Any, usage: UsageMetadata | None, metadata: Mapping[str, Any]
) -> AIMessage:
    calls, invalid = _tool_calls(getattr(message, "tool_calls", None) or [])
    return AIMessage(
        content=message.content or "",
        tool_calls=calls,
        invalid_tool_calls=invalid,
        additional_kwargs=_reasoning(message),
        usage_metadata=usage,
        response_metadata=dict(metadata),
    )


def _tool_calls(raw: Sequence[Any]) -> tuple[list[ToolCall], list[InvalidToolCall]]:
    """Read tool calls; those whose arguments are no JSON object are kept apart, as text."""
    calls, invalid = [], []
    for call in raw:
        name, text = call.function.name or "", call.function.arguments or "{}"
        try:
            # Not strict: LLMs leave line breaks in JSON texts as they are.
            arguments = json.loads(text, strict=False)
            if not isinstance(arguments, dict):
                raise ValueError("the arguments are no JSON object")  # noqa: TRY004, TRY301  # as bad as no JSON
        except ValueError as error:
            invalid.append(invalid_tool_call(name=name, args=text, id=call.id, error=str(error)))
        else:
            calls.append(tool_call(name=name, args=arguments, id=call.id))
    return calls, invalid


def _call_chunk(call: Any) -> ToolCallChunk:
    function = call.function
    return tool_call_chunk(
        name=function.name, args=function.arguments, id=call.id, index=call.index
    )


def _reasoning(message: Any) -> dict[str, Any]:
    """What LangChain shows as a reasoning block; providers that have none leave it out."""
    reasoning = getattr(message, "reasoning_content", None)
    return {"reasoning_content": reasoning} if reasoning else {}


def _metadata(response: Response) -> dict[str, Any]:
    """Who served, and the router's facts; LangChain's usage callback asks for `model_name`."""
    facts = (getattr(response, "_hidden_params", None) or {}).get("optllm") or {}
    return {"model_name": facts.get("candidate"), "optllm": dict(facts)}


def _usage_metadata(usage: object) -> UsageMetadata | None:
    counted = read_usage(usage)
    if counted is None:
        return None
    details = getattr(usage, "completion_tokens_details", None)
    return UsageMetadata(
        input_tokens=counted.prompt_tokens,
        output_tokens=counted.completion_tokens,
        total_tokens=counted.prompt_tokens + counted.completion_tokens,
        input_token_details=InputTokenDetails(
            cache_read=counted.cached_tokens, cache_creation=counted.cache_write_tokens
        ),
        output_token_details=OutputTokenDetails(
            reasoning=getattr(details, "reasoning_tokens", None) or 0
        ),
    )
