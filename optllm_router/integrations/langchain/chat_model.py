"""The chat model itself: LangChain's hooks, each one call to the Router."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, BaseMessage, convert_to_openai_messages
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict
from typing_extensions import override

from optllm_router.core.policy import Policy, describe
from optllm_router.integrations.langchain.messages import ChunkReader, chat_result
from optllm_router.integrations.langchain.structured import (
    Structure,
    Tool,
    json_parser,
    openai_tool_choice,
    parsed,
    response_format,
    tools_parser,
)
from optllm_router.router import Router

# LangChain's own, for its traces and its switches; no provider knows them.
_NOT_FORWARDED = ("ls_structured_output_format", "structured_output_format", "stream")


class ChatOptLLM(BaseChatModel):
    """A chat model that asks the candidate which its router chooses.

    A message's `response_metadata` says who answered (`model_name`) and why (`optllm`: the facts
    of `Router.complete`, with the `decision_id` that `Router.feedback` takes).

    `router` answers; its lifetime is the caller's. The other fields are arguments of
    `Router.complete`; None is unset, and what is bound or passed to a call wins over them:
    `llm.bind(session_id="s1", top_p=0.9)`. `tags` are LangChain's own tags of this model and stand
    in the router's log too. `batch` makes single calls, so a budget per batch holds for each of
    them; `Router.complete_batch` plans a batch as a whole. `streaming` streams inside `invoke`, so
    that callbacks see every token.
    """

    router: Router
    model: str = "auto"
    temperature: float | None = None
    max_tokens: int | None = None
    timeout: float | None = None
    max_retries: int | None = None
    stop: list[str] | None = None
    task: str | None = None
    session_id: str | None = None
    policy: Policy | None = None
    streaming: bool = False

    # A misspelt field is an error here, as it is everywhere else in this package.
    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    @property
    @override
    def _llm_type(self) -> str:
        return "optllm"

    @property
    @override
    def _identifying_params(self) -> Mapping[str, Any]:
        """What answers depend on: LangChain's cache and its traces tell models apart by it."""
        return {
            "model": self.model,
            "candidates": [candidate.name for candidate in self.router.candidates],
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "stop": self.stop,
            "task": self.task,
            "policy": None if self.policy is None else describe(self.policy),
        }

    @override
    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        params = super()._get_ls_params(stop=stop or self.stop, **kwargs)
        params["ls_provider"] = "optllm"
        return params

    @override
    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return chat_result(self.router.complete(**self._arguments(messages, stop, kwargs)))

    @override
    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return chat_result(await self.router.acomplete(**self._arguments(messages, stop, kwargs)))

    @override
    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        stream = self.router.complete(**self._stream_arguments(messages, stop, kwargs))
        reader = ChunkReader(stream)
        try:
            for chunk in stream:
                piece = reader.read(chunk)
                if piece is None:
                    continue
                if run_manager is not None:
                    run_manager.on_llm_new_token(piece.text, chunk=piece)
                yield piece
            yield reader.last()
        finally:  # also when the consumer walks away: what had arrived is billed and logged
            stream.close()

    @override
    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        stream = await self.router.acomplete(**self._stream_arguments(messages, stop, kwargs))
        reader = ChunkReader(stream)
        try:
            async for chunk in stream:
                piece = reader.read(chunk)
                if piece is None:
                    continue
                if run_manager is not None:
                    await run_manager.on_llm_new_token(piece.text, chunk=piece)
                yield piece
            yield reader.last()
        finally:  # also when the consumer walks away: what had arrived is billed and logged
            await stream.aclose()

    @override
    def bind_tools(
        self,
        tools: Sequence[Tool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return this model with tools that it may call.

        Args:
            tools: functions, pydantic classes, LangChain tools, or OpenAI tool dicts.
            tool_choice: "auto", "none", "required" ("any" and True mean the same), a tool's name,
                or OpenAI's dict; None and False leave it to the LLM.
            strict: ask for arguments that keep to the schema exactly, where candidates can.
            kwargs: further arguments of every call.

        Raises: ConfigError for a choice that names none of the tools.
        """
        converted = [convert_to_openai_tool(tool, strict=strict) for tool in tools]
        chosen = openai_tool_choice(tool_choice, converted)
        if chosen is not None:
            kwargs["tool_choice"] = chosen
        return self.bind(tools=converted, **kwargs)

    @override
    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        include_raw: bool = False,
        method: str = "function_calling",
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Structure]:
        """Return a runnable that answers with instances of a schema.

        Args:
            schema: a pydantic class (gives instances), or a TypedDict class, a JSON schema or an
                OpenAI tool (these give dicts).
            include_raw: give a dict with "raw", "parsed" and "parsing_error" instead.
            method: "function_calling" forces a tool call; "json_schema" asks for the answer itself
                in that form, "json_mode" for any JSON (describe it in the prompt). Candidates that
                cannot do it are not asked.
            strict: ask for answers that keep to the schema exactly, where candidates can.
            kwargs: further arguments of every call.

        Raises: ConfigError for another method.
        """
        traced = {"kwargs": {"method": method}, "schema": schema}
        if method == "function_calling":
            bound = self.bind_tools(
                [schema],
                tool_choice="any",
                strict=strict,
                ls_structured_output_format=traced,
                **kwargs,
            )
            return parsed(bound, tools_parser(schema), include_raw=include_raw)
        bound = self.bind(
            response_format=response_format(method, schema, strict),
            ls_structured_output_format=traced,
            **kwargs,
        )
        return parsed(bound, json_parser(schema), include_raw=include_raw)

    def _arguments(
        self, messages: list[BaseMessage], stop: list[str] | None, given: Mapping[str, Any]
    ) -> dict[str, Any]:
        """The arguments of `Router.complete`: the fields, what the call was given, the messages."""
        arguments = {
            "model": self.model,
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "timeout": self.timeout,
            "max_retries": self.max_retries,
            "task": self.task,
            "tags": self.tags,
            "session_id": self.session_id,
            "policy": self.policy,
            **given,
            "stop": stop or self.stop or None,
            "messages": convert_to_openai_messages(messages),
        }
        for name in _NOT_FORWARDED:
            arguments.pop(name, None)
        return arguments

    def _stream_arguments(
        self, messages: list[BaseMessage], stop: list[str] | None, given: Mapping[str, Any]
    ) -> dict[str, Any]:
        arguments = self._arguments(messages, stop, given)
        return {**arguments, "stream": True, "stream_options": {"include_usage": True}}
