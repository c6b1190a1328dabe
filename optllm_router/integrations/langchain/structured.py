"""Tools and schemas: what is asked of the LLM, and what reads its answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, TypeGuard

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import (
    JsonOutputKeyToolsParser,
    PydanticToolsParser,
)
from langchain_core.runnables import Runnable, RunnableMap, RunnablePassthrough
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import BaseModel

from optllm_router.errors import ConfigError

Tool = dict[str, Any] | type | Callable[..., Any] | BaseTool
Structure = dict[str, Any] | BaseModel


def openai_tool_choice(
    asked: str | dict[str, Any] | bool | None, tools: Sequence[Mapping[str, Any]]
) -> str | dict[str, Any] | None:
    """Translate LangChain's ways to choose a tool into OpenAI's; None leaves it to the LLM.

    Raises: ConfigError for a name that none of the tools has.
    """
    if asked is None or asked is False:
        return None
    if asked is True or asked == "any":
        return "required"
    if isinstance(asked, dict) or asked in {"auto", "none", "required"}:
        return asked
    names = [tool["function"]["name"] for tool in tools if "function" in tool]
    if asked in names:
        return {"type": "function", "function": {"name": asked}}
    raise ConfigError(
        f"`tool_choice={asked!r}` names none of the tools: choose one of {names}, or 'auto', "
        "'any' or 'none'"
    )


def response_format(
    method: str, schema: dict[str, Any] | type, strict: bool | None
) -> dict[str, Any]:
    """Return OpenAI's `response_format` for a method of structured output.

    Raises: ConfigError for a method that there is not.
    """
    if method == "json_mode":
        return {"type": "json_object"}
    if method != "json_schema":
        raise ConfigError(
            f"`method={method!r}` is unknown: structured output works by 'function_calling', "
            "'json_schema' or 'json_mode'"
        )
    function = convert_to_openai_tool(schema, strict=strict)["function"]
    form = {"name": function["name"], "schema": function["parameters"]}
    return {
        "type": "json_schema",
        "json_schema": form if strict is None else {**form, "strict": strict},
    }


def tools_parser(schema: dict[str, Any] | type) -> Runnable[AIMessage, Any]:
    """Return what reads a schema's instance off the first call of its tool."""
    if _is_pydantic(schema):
        return PydanticToolsParser(tools=[schema], first_tool_only=True)
    name = convert_to_openai_tool(schema)["function"]["name"]
    return JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)


def json_parser(schema: dict[str, Any] | type) -> Runnable[AIMessage, Any]:
    """Return what reads a schema's instance off an answer that is JSON."""
    return (
        PydanticOutputParser(pydantic_object=schema) if _is_pydantic(schema) else JsonOutputParser()
    )


def _is_pydantic(schema: object) -> TypeGuard[type[BaseModel]]:
    # LangChain's own check also knows pydantic 1's classes, which its parsers take.
    return isinstance(schema, type) and is_basemodel_subclass(schema)


def parsed(
    bound: Runnable[LanguageModelInput, AIMessage],
    parser: Runnable[AIMessage, Any],
    *,
    include_raw: bool,
) -> Runnable[LanguageModelInput, Structure]:
    """Put a parser behind a model; with `include_raw`, what cannot be parsed is no error."""
    if not include_raw:
        return bound | parser
    success = RunnablePassthrough.assign(
        parsed=itemgetter("raw") | parser, parsing_error=lambda _: None
    )
    failure = RunnablePassthrough.assign(parsed=lambda _: None)
    return RunnableMap(raw=bound) | success.with_fallbacks([failure], exception_key="parsing_error")
