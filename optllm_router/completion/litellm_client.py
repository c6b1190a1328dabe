"""The real client: LiteLLM. The only module of the package that imports it, and only when used.

Importing LiteLLM takes three seconds and, left alone, fetches a price list from the network. Here
it is imported by the first call that needs it, after the switches that keep it local. Nothing of
LiteLLM's global state is assigned beyond those, so that callbacks, caches and keys that a caller
has set up keep working exactly as they did.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Literal

from optllm_router.completion import counting, failing
from optllm_router.completion.base import Answer, Failure, Messages, Response, StreamMeter
from optllm_router.completion.metering import ChunkMeter, describe_response, read_usage
from optllm_router.completion.modelmap import Entry, build_candidate, find_entry
from optllm_router.errors import BudgetExceededError, ConfigError
from optllm_router.records import Candidate

# Where a candidate says where its calls go and who pays, a caller's arguments do not change it.
PROTECTED_ARGUMENTS = frozenset(
    {
        "api_base",
        "api_key",
        "api_version",
        "base_url",
        "custom_llm_provider",
        "extra_headers",
        "organization",
    }
)

_PLAIN = (str, int, float, bool, type(None))
_LOCAL_SWITCHES = ("LITELLM_LOCAL_MODEL_COST_MAP", "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS")


class LiteLLMClient:
    """Answers through `litellm.completion` and `litellm.acompletion`; a `base.Client`."""

    def complete(self, candidate: Candidate, arguments: Mapping[str, Any]) -> Response:
        """Call the candidate and return LiteLLM's own response, or its stream wrapper.

        Raises: ConfigError where the candidate's key variable is unset; else LiteLLM's exceptions.
        """
        return _litellm().completion(model=candidate.model, **_merged(candidate, arguments))

    async def acomplete(self, candidate: Candidate, arguments: Mapping[str, Any]) -> Response:
        """Do what `complete` does without blocking the event loop."""
        return await _litellm().acompletion(model=candidate.model, **_merged(candidate, arguments))

    def describe(self, response: Response) -> Answer:
        """Read text, usage and id off a finished response; tool calls are text, as JSON."""
        return describe_response(response)

    def dump(self, response: Response) -> Mapping[str, Any]:
        """Return a finished response as JSON values, hidden facts included but for headers."""
        hidden = response._hidden_params  # noqa: SLF001  # where LiteLLM's users look
        plain = {name: value for name, value in hidden.items() if isinstance(value, _PLAIN)}
        return {"response": response.model_dump(mode="json"), "hidden": plain}

    def restore(self, values: Mapping[str, Any]) -> Response:
        """Return the `ModelResponse` that was dumped."""
        response = _litellm().ModelResponse(**values["response"])
        response._hidden_params = dict(values["hidden"])  # noqa: SLF001  # likewise
        return response

    def meter(self, arguments: Mapping[str, Any], stream: Response) -> StreamMeter:
        """Return a fresh meter; it hides the usage chunk unless `arguments` ask for it.

        Usage counts as reported where the provider did: where it has not, LiteLLM makes one up at
        the end of the stream, by counting.
        """
        return ChunkMeter(arguments, is_reported=lambda: _has_reported_usage(stream))

    def candidate(self, model: str, overrides: Mapping[str, Any] | None = None) -> Candidate:
        """Describe an LLM from LiteLLM's local model map and its own settings, which win."""
        litellm = _litellm()
        entry = find_entry(litellm.model_cost, model)
        settings = overrides or {}
        return build_candidate(
            model, entry, settings, parameters=_parameters(litellm, model, entry, settings)
        )

    def count_tokens(
        self, messages: Messages, tools: Sequence[Any] | None = None, response_format: Any = None
    ) -> int:
        """Count the tokens of a prompt: all roles, tools as JSON, images at a fixed estimate."""
        return counting.count_messages(messages, tools, response_format)

    def count_text(self, text: str) -> int:
        """Count the tokens of a text; very long ones are estimated from a sample."""
        return counting.count_text(text)

    def is_empty(self, response: Response) -> bool:
        """Return whether a response has no choice, or a stream ended without its provider's finish.

        LiteLLM finishes such streams itself, with the reason "stop".
        """
        if not hasattr(response, "received_finish_reason"):
            return not response.choices
        return not _is_finished(response)

    def judge(self, error: BaseException) -> Failure:
        """Say of a failed call what it means for the next attempt; see `failing`."""
        return failing.judge(error)

    def maybe_billed(self, error: BaseException) -> bool:
        """Return whether a failed call may have cost money."""
        return failing.maybe_billed(error)

    def budget_error(self, error: BudgetExceededError) -> BudgetExceededError:
        """Return the same error in a class that `except litellm.BudgetExceededError` catches."""
        twin: BudgetExceededError = _budget_error_class()(
            str(error), budget=error.budget, limit_usd=error.limit_usd, left_usd=error.left_usd
        )
        return twin

    def lost_error(
        self, kind: Literal["timeout", "empty"], candidate: Candidate, message: str
    ) -> Exception:
        """Return `litellm.Timeout`, or for an empty answer `litellm.InternalServerError`."""
        litellm: Any = _litellm()
        error_class = litellm.Timeout if kind == "timeout" else litellm.InternalServerError
        provider = _provider(_litellm(), candidate.model, None) or ""
        error: Exception = error_class(message, model=candidate.model, llm_provider=provider)
        error.__cause__ = ValueError(message)  # as of answers that LiteLLM itself cannot read
        return error

    def warm_up(self) -> None:
        """Import LiteLLM (3 s) and load the tokenizer (0.4 s)."""
        _litellm()
        counting.encoding()


def keep_stdout_clean() -> None:
    """Stop LiteLLM from printing hints on failures to stdout, in a process that is all ours.

    It sets LiteLLM's `suppress_debug_info`: the command line calls it, a library must not.
    """
    litellm: Any = _litellm()
    litellm.suppress_debug_info = True


@functools.cache
def _litellm() -> ModuleType:
    """Import LiteLLM, local and quiet unless the caller has imported it before us."""
    ours = "litellm" not in sys.modules
    if ours:
        for switch in _LOCAL_SWITCHES:
            os.environ.setdefault(switch, "True")
    import litellm

    if ours:
        # Counting tokens of Llama models would otherwise ask huggingface.co on every call.
        litellm.disable_hf_tokenizer_download = True
    module: ModuleType = litellm
    return module


def _is_finished(stream: Response) -> bool:
    """Whether a stream's provider said that it was finished."""
    return bool(stream.received_finish_reason or stream.intermittent_finish_reason)


def _has_reported_usage(stream: Response) -> bool:
    """Whether a stream's provider said what it used, and got to its end.

    Some report what they have used so far with the first chunk.
    """
    if not hasattr(stream, "received_finish_reason"):
        return True
    usages = (getattr(chunk, "usage", None) for chunk in stream.chunks)
    return _is_finished(stream) and any(read_usage(usage) is not None for usage in usages)


def _merged(candidate: Candidate, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Join the candidate's arguments, the caller's and the key; ask streams for their usage."""
    given = {name: value for name, value in arguments.items() if value is not None}
    merged = {**candidate.arguments, **given}
    for name in PROTECTED_ARGUMENTS & candidate.arguments.keys():
        merged[name] = candidate.arguments[name]
    if candidate.api_key_env is not None:
        merged["api_key"] = _key(candidate)
    if merged.get("stream"):
        merged["stream_options"] = {**merged.get("stream_options", {}), "include_usage": True}
    return merged


def _key(candidate: Candidate) -> str:
    """Read the candidate's key from the environment.

    Raises: ConfigError where the variable is unset or empty.
    """
    key = os.environ.get(candidate.api_key_env or "")
    if not key:
        raise ConfigError(
            f"candidate {candidate.name!r} takes its key from the environment variable "
            f"`{candidate.api_key_env}`, which is not set: export it, or correct `api_key_env`."
        )
    return key


def _parameters(
    litellm: ModuleType, model: str, entry: Entry | None, settings: Mapping[str, Any]
) -> list[str] | None:
    """Return the optional arguments that a model takes; None where unknown or dropped silently.

    LiteLLM is told the provider, because finding it out may start a provider's login.
    """
    arguments = settings.get("arguments") or {}
    if litellm.drop_params or arguments.get("drop_params"):
        return None
    provider = arguments.get("custom_llm_provider") or _provider(litellm, model, entry)
    if provider is None:
        return None
    # As in a call, except for Azure, where a name without provider prints a notice to stdout.
    name = model if provider == "azure" else model.removeprefix(f"{provider}/")
    supported = litellm.get_supported_openai_params(model=name, custom_llm_provider=provider)
    if supported is None:
        return None
    return [*supported, *(arguments.get("allowed_openai_params") or [])]


def _provider(litellm: ModuleType, model: str, entry: Entry | None) -> str | None:
    """Return the provider that a model's name, or else its map entry, states."""
    listed = str((entry or {}).get("litellm_provider", ""))
    # The map names some by model family or route: `vertex_ai-language-models`, `bedrock_converse`.
    family = listed.split("-", 1)[0].removesuffix("_converse")
    for name in (model.split("/", 1)[0], listed, family):
        if name in litellm.provider_list and name != model:
            return name
    return None


@functools.cache
def _budget_error_class() -> type[BudgetExceededError]:
    """Make the class that is both our budget error and LiteLLM's."""
    litellm = _litellm()

    class LiteLLMBudgetExceededError(BudgetExceededError, litellm.BudgetExceededError):  # type: ignore[misc, name-defined]  # the base is only known once LiteLLM is imported
        """A hard budget refuses the call; no money was spent on it."""

        def __init__(self, message: str, *, budget: str, limit_usd: float, left_usd: float) -> None:
            # The two constructors take different facts and do not cooperate: call LiteLLM's, then
            # set ours.
            litellm.BudgetExceededError.__init__(
                self, current_cost=limit_usd - left_usd, max_budget=limit_usd, message=message
            )
            self.budget = budget
            self.limit_usd = limit_usd
            self.left_usd = left_usd
            self.status_code = 429  # what LiteLLM's proxy answers; its class has 422 by default

    return LiteLLMBudgetExceededError
