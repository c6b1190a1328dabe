"""The client protocol: the one seam between the router and whoever answers.

The rest of the package sees provider responses as opaque `Response` values: it hands them to the
caller as they came, and asks the client to `describe` them where it needs text, tokens or money.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from optllm_router.errors import BudgetExceededError
from optllm_router.records import Candidate, Usage

Response: TypeAlias = Any  # a litellm ModelResponse, its stream wrapper, or a replay's answer
Chunk: TypeAlias = Any  # a litellm stream chunk
Messages: TypeAlias = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one response says, for grading, money and the log.

    `usage` is None when the provider reported none. `cost_nusd` is set only by clients that bill
    by a table; otherwise cost is tokens times token price. `cache_hit` answers cost nothing.
    `billable_text` is all that is billed where that is more than `text` (reasoning, the further
    choices of `n`); it is counted while there is no usage.
    """

    text: str
    usage: Usage | None
    response_id: str | None
    cache_hit: bool = False
    cost_nusd: int | None = None
    billable_text: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What a failed call means for the next attempt.

    `remedy` is "retry" where the same candidate may answer in a moment, "another" where only others
    may, "none" where nobody will (the caller's own mistake, an interrupt). `is_ill` says that the
    candidate is at fault, not what it was asked. With `needs_room` only a larger context window
    helps. `retry_after_s` is how long the provider asks to wait, None where it does not say.
    """

    remedy: Literal["retry", "another", "none"]
    is_ill: bool = False
    needs_room: bool = False
    retry_after_s: float | None = None


class StreamMeter(Protocol):
    """Watches the chunks of one stream."""

    @property
    def has_begun(self) -> bool:
        """Whether the answer has begun: something was said, or the end of it was."""
        ...

    def add(self, chunk: Chunk) -> bool:
        """Take one chunk; return whether the caller should see it (hidden usage chunks: no)."""
        ...

    def answer(self) -> Answer:
        """Return what has arrived so far; `usage` is None while the provider reported none."""
        ...


class Client(Protocol):
    """Answers queries on behalf of candidates. Safe to call from many threads at once.

    `arguments` holds every keyword of the call but `model` (messages, temperature, stream, ...),
    None values already removed; the candidate's own `arguments` and key are added here.
    """

    def complete(self, candidate: Candidate, arguments: Mapping[str, Any]) -> Response:
        """Call the candidate and return its response, or its stream when `stream` is set.

        Raises: the provider's own exception (a LiteLLM/OpenAI class), untouched.
        """
        ...

    async def acomplete(self, candidate: Candidate, arguments: Mapping[str, Any]) -> Response:
        """Do what `complete` does without blocking the event loop."""
        ...

    def describe(self, response: Response) -> Answer:
        """Read text, usage, id and cost off a finished (non-streaming) response."""
        ...

    def dump(self, response: Response) -> Mapping[str, Any]:
        """Return a finished response as JSON values, for a batch that survives its process."""
        ...

    def restore(self, values: Mapping[str, Any]) -> Response:
        """Return the response that was dumped, equal to it in all that the provider said."""
        ...

    def meter(self, arguments: Mapping[str, Any], stream: Response) -> StreamMeter:
        """Return a fresh meter for a stream that was asked for with `arguments`."""
        ...

    def candidate(self, model: str, overrides: Mapping[str, Any] | None = None) -> Candidate:
        """Describe an LLM from local knowledge: price, limits, capabilities. No network.

        `overrides` are the config's own settings for it (see `config.CandidateSettings`).
        `price` is None on the result when nobody knows it; the caller decides what that means.
        """
        ...

    def count_tokens(
        self, messages: Messages, tools: Sequence[Any] | None = None, response_format: Any = None
    ) -> int:
        """Count the tokens of a prompt, all roles, tools and the format that is asked for."""
        ...

    def count_text(self, text: str) -> int:
        """Count the tokens of a text."""
        ...

    def is_empty(self, response: Response) -> bool:
        """Return whether a finished response, or a stream that said nothing, holds no answer."""
        ...

    def judge(self, error: BaseException) -> Failure:
        """Say of a failed call what it means for the next attempt."""
        ...

    def maybe_billed(self, error: BaseException) -> bool:
        """Return whether a failed call may have cost money (it reached the provider, then died)."""
        ...

    def budget_error(self, error: BudgetExceededError) -> BudgetExceededError:
        """Return the same error in the class that callers of this client catch."""
        ...

    def lost_error(
        self, kind: Literal["timeout", "empty"], candidate: Candidate, message: str
    ) -> Exception:
        """Return an error for an answer that took too long, or for one without content.

        It is of the class that callers of this client catch for it.
        """
        ...

    def warm_up(self) -> None:
        """Load what the first call would otherwise wait for (imports, tokenizer)."""
        ...
