"""How single values are read: exactly and strictly, with an error that says what to write.

A text is never read as a number, nor a number as a switch. Errors are `ValueError`s, which pydantic
collects; `problems` words them with their place in the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BeforeValidator, Field, Strict

_CALL_ARGUMENTS = frozenset(
    ("model", "messages", "stream", "n", "max_tokens", "max_completion_tokens")
)
_REROUTING = frozenset(("fallbacks", "context_window_fallback_dict", "model_list"))
_LIMITS = ("n", "max_tokens", "max_completion_tokens", "max_output_tokens")
FUNCTION_PATH = r"^[\w.]+:[\w.]+$"
_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _seconds(value: object) -> object:
    """Read a duration such as "90s", "15m", "24h" or "7d" as seconds."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhd])", value) if isinstance(value, str) else None
    if match is None or float(match[1]) == 0:
        raise ValueError(
            "a duration is a text of a positive number and a unit, s, m, h or d: "
            'write for instance "90s", "15m", "24h" or "7d"'
        )
    return float(match[1]) * _SECONDS[match[2]]


def _usd_per_1m(value: object) -> object:
    """Read a token price exactly: a float means the decimal number that it prints as."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise ValueError("a token price is a number of USD per 1M tokens, such as 0.15")  # noqa: TRY004  # pydantic collects ValueError
    try:
        price = Decimal(str(value))
    except InvalidOperation:
        raise ValueError("a token price is a number of USD per 1M tokens, such as 0.15") from None
    if not price.is_finite() or price < 0:
        raise ValueError("a token price must be finite and not negative; write 0 if it is free")
    return price


def _key_variable(value: object) -> object:
    """Check that `api_key_env` names a variable, without ever repeating what may be a key."""
    if value is None or (isinstance(value, str) and re.fullmatch(r"[A-Za-z_]\w*", value)):
        return value
    raise ValueError(
        "`api_key_env` is the name of an environment variable, not a key: write "
        'api_key_env = "OPENAI_API_KEY" and set that variable where the router runs'
    )


def _embedder(value: object) -> object:
    """Check that an embedder is given by its path or, in code, as itself; it is called later."""
    is_path = isinstance(value, str) and re.fullmatch(FUNCTION_PATH, value) is not None
    is_itself = callable(getattr(value, "encode", value)) and not isinstance(value, str | bytes)
    if value is None or is_path or is_itself:
        return value
    raise ValueError(
        'an embedder is written as "package.module:name" of a function (texts) -> vectors or of an '
        "object with such a method `encode`; in code it is that function or object"
    )


def _timezone(value: object) -> object:
    """Check that a time zone is one that this machine knows."""
    try:
        known = isinstance(value, str) and bool(ZoneInfo(value))
    except (ZoneInfoNotFoundError, ValueError, OSError):  # no such file, or no name of one
        known = False
    if not known:
        raise ValueError(
            'a time zone is an IANA name, such as "UTC" or "Europe/Berlin"; where the machine has '
            "no time zones, `pip install tzdata` brings them"
        )
    return value


def _candidate_arguments(value: object) -> object:
    """Refuse arguments that belong to the call, or that would make worst cases untrue."""
    for name in sorted(_CALL_ARGUMENTS & set(value)) if isinstance(value, Mapping) else ():
        raise ValueError(
            f"`{name}` belongs to the call, not to every call of a candidate; output is limited by "
            "`max_output_tokens`"
        )
    for name in sorted(_REROUTING & set(value)) if isinstance(value, Mapping) else ():
        raise ValueError(
            f"`{name}` lets another model answer under this candidate's name and price: leave it "
            "out, and make that model a candidate"
        )
    body: Any = value.get("extra_body") if isinstance(value, Mapping) else None
    for name in _LIMITS if isinstance(body, Mapping) else ():
        if name in body:
            raise ValueError(
                f"`{name}` in `extra_body` would make worst cases untrue: leave it out; output is "
                "limited by `max_output_tokens`"
            )
    return value


def _group(value: object) -> object:
    """Check that a regex group is a number or a name (no union type: one mistake, one message)."""
    if value is None or (isinstance(value, int | str) and not isinstance(value, bool)):
        return value
    raise ValueError('a group is its number or its name, such as 1 or "answer"')


def _texts(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _bytes(value: object) -> object:
    return value.encode() if isinstance(value, str) else value


Positive = Annotated[int, Strict(), Field(ge=1)]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Switch = Annotated[bool, Strict()]
Text = Annotated[str, Strict(), Field(min_length=1)]
Price = Annotated[Decimal, BeforeValidator(_usd_per_1m)]
Duration = Annotated[float, BeforeValidator(_seconds)]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_texts)]
Secret = Annotated[bytes, BeforeValidator(_bytes)]
KeyVariable = Annotated[str | None, BeforeValidator(_key_variable)]
CandidateArguments = Annotated[dict[str, Any], BeforeValidator(_candidate_arguments)]
RegexGroup = Annotated[Any, BeforeValidator(_group)]
FunctionPath = Annotated[str, Strict(), Field(pattern=FUNCTION_PATH)]
EmbedderSetting = Annotated[Any, BeforeValidator(_embedder)]
Timezone = Annotated[str, BeforeValidator(_timezone)]
