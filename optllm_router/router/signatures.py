"""The parameter names of `litellm.completion` and `litellm.acompletion`, in their own order.

They differ from each other in order, and callers may pass any of them by position; everything is
forwarded by keyword.
"""

from __future__ import annotations

from typing import Any

COMPLETION: tuple[str, ...] = (
    "model",
    "messages",
    "timeout",
    "temperature",
    "top_p",
    "n",
    "stream",
    "stream_options",
    "stop",
    "max_completion_tokens",
    "max_tokens",
    "modalities",
    "prediction",
    "audio",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "user",
    "reasoning_effort",
    "verbosity",
    "response_format",
    "seed",
    "tools",
    "tool_choice",
    "logprobs",
    "top_logprobs",
    "parallel_tool_calls",
    "web_search_options",
    "include_server_side_tool_invocations",
    "deployment_id",
    "extra_headers",
    "safety_identifier",
    "service_tier",
    "store",
    "prompt_cache_key",
    "functions",
    "function_call",
    "base_url",
    "api_version",
    "api_key",
    "model_list",
    "thinking",
    "shared_session",
    "enable_json_schema_validation",
)
ACOMPLETION: tuple[str, ...] = (
    "model",
    "messages",
    "functions",
    "function_call",
    "timeout",
    "temperature",
    "top_p",
    "n",
    "stream",
    "stream_options",
    "stop",
    "max_tokens",
    "max_completion_tokens",
    "modalities",
    "prediction",
    "audio",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "user",
    "response_format",
    "seed",
    "tools",
    "tool_choice",
    "parallel_tool_calls",
    "logprobs",
    "top_logprobs",
    "deployment_id",
    "reasoning_effort",
    "verbosity",
    "safety_identifier",
    "service_tier",
    "store",
    "prompt_cache_key",
    "base_url",
    "api_version",
    "api_key",
    "model_list",
    "extra_headers",
    "thinking",
    "web_search_options",
    "include_server_side_tool_invocations",
    "shared_session",
    "enable_json_schema_validation",
)
BATCH_COMPLETION: tuple[str, ...] = (
    "model",
    "messages",
    "functions",
    "function_call",
    "temperature",
    "top_p",
    "n",
    "stream",
    "stop",
    "max_tokens",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "user",
    "deployment_id",
    "request_timeout",
    "timeout",
    "max_workers",
)


def by_name(
    names: tuple[str, ...], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """Bind positional arguments to names.

    Raises: TypeError as a function would, for too many or repeated arguments.
    """
    if len(args) > len(names):
        raise TypeError(f"takes {len(names)} positional arguments but {len(args)} were given")
    bound = dict(zip(names, args, strict=False))
    repeated = sorted(bound.keys() & kwargs.keys())
    if repeated:
        raise TypeError(f"got multiple values for argument {repeated[0]!r}")
    return {**bound, **kwargs}
