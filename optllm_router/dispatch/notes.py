"""What a call leaves beside its answer: facts on the response, attempts on the exception."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from optllm_router.completion.base import Response
from optllm_router.dispatch.privacy import scrub
from optllm_router.records import Attempt

_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")  # what providers' codes look like, and texts do not


def annotate(response: Response, facts: Mapping[str, object]) -> None:
    """Put our facts beside LiteLLM's own hidden parameters."""
    hidden = getattr(response, "_hidden_params", None)
    if isinstance(hidden, dict):
        hidden["optllm"] = dict(facts)


def attach(error: BaseException, attempts: tuple[Attempt, ...]) -> None:
    """Leave the attempts on the exception; a few classes take no attributes."""
    try:
        error.optllm_attempts = attempts  # type: ignore[attr-defined]  # documented in the README
    except AttributeError:
        error.add_note(f"attempts: {attempts!r}")


def error_facts(
    error: BaseException | None, *, prompt: str, keys: Sequence[str], is_quoted: bool
) -> dict[str, Any]:
    """Describe an error for the log: its class, and its text without keys and without the prompt.

    Unless it `is_quoted`, of a provider's text, which may echo any part of the messages, only the
    status and the provider's code are kept.
    """
    if error is None:
        return {}
    text = str(error) if is_quoted else _codes(error)
    return {
        "error_class": type(error).__name__,
        "error_text": scrub(text, prompt=prompt, keys=keys),
    }


def _codes(error: BaseException) -> str:
    """An error's status and code, such as "status 429, code rate_limit_exceeded"."""
    status, code = getattr(error, "status_code", None), getattr(error, "code", None)
    said = [f"status {status}"] if isinstance(status, int) else []
    if _CODE.fullmatch(str(code)) and code is not None and str(code) != str(status):
        said.append(f"code {code}")
    return ", ".join(said)
