"""Counts prompt tokens: o200k, from the tokenizer files that litellm ships, without the network.

Every provider has a tokenizer of its own; one good estimate for all of them is what a forecast
needs, and what was really used is settled on the provider's own figures. litellm's counter is not
asked: for some model names it goes to the network on every call, and it takes three times as long.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tiktoken

    from optllm_router.completion.base import Messages

EXACT_CHARACTERS = 20_000  # beyond this, a text is counted from a sample: some 3 ms for any length
IMAGE_TOKENS = 1_600  # the largest that common providers bill for an ordinary image

_PIECES = 40
_PIECE_CHARACTERS = 500
_SAMPLE_MARGIN = 1.05  # pieces cut words at both ends, texts are uneven: rather too many
_MESSAGE_TOKENS = 4  # role and separators around every message
_BYTES_PER_TOKEN = 4  # of a file whose text nobody has looked at
_REPLY_TOKENS = 3  # every reply is primed with these
_CACHE_VARIABLE = "TIKTOKEN_CACHE_DIR"
_load_lock = threading.Lock()


def count_text(text: str) -> int:
    """Count the tokens of a text: 0 for an empty one; special tokens count as ordinary text.

    Up to `EXACT_CHARACTERS` the count is o200k's own. A longer text is estimated from 40 pieces
    spread evenly over it, plus 5 %.
    """
    encode = encoding().encode_ordinary
    if len(text) <= EXACT_CHARACTERS:
        return len(encode(text))
    step = (len(text) - _PIECE_CHARACTERS) / (_PIECES - 1)
    starts = (round(number * step) for number in range(_PIECES))
    counted = sum(len(encode(text[start : start + _PIECE_CHARACTERS])) for start in starts)
    per_character = counted / (_PIECES * _PIECE_CHARACTERS)
    return round(per_character * _SAMPLE_MARGIN * len(text))


def count_messages(
    messages: Messages, tools: Sequence[Any] | None = None, response_format: object = None
) -> int:
    """Count the tokens of a prompt: all roles, names, tool calls, tools and format (as JSON).

    Images and audio count as `IMAGE_TOKENS` each, whatever their size, files by their size, but
    at least as much. Messages may be mappings or the message objects of an earlier response, the
    format a mapping or a pydantic class, which is sent as its JSON schema.
    """
    total = _REPLY_TOKENS
    for message in messages:
        fields = _mapping(message)
        total += _MESSAGE_TOKENS + _count_content(fields.get("content"))
        for key in ("name", "tool_calls", "function_call", "tool_call_id"):
            if fields.get(key):
                total += _count_value(fields[key])
    total += _count_value(list(tools)) if tools else 0
    return total + (0 if response_format is None else _count_value(_format(response_format)))


@functools.cache
def encoding() -> tiktoken.Encoding:
    """Load the o200k tokenizer once (some 0.4 s); the environment is left as it was."""
    import tiktoken

    # tiktoken reads the folder from the environment while it loads, and would otherwise download.
    with _load_lock:
        before = os.environ.get(_CACHE_VARIABLE)
        bundled = _bundled_tokenizers()
        if bundled is not None:
            os.environ[_CACHE_VARIABLE] = str(bundled)
        try:
            return tiktoken.get_encoding("o200k_base")
        finally:
            if before is None:
                os.environ.pop(_CACHE_VARIABLE, None)
            else:
                os.environ[_CACHE_VARIABLE] = before


def _bundled_tokenizers() -> Path | None:
    """Find the folder of tokenizer files inside litellm without importing litellm (3 s)."""
    spec = importlib.util.find_spec("litellm")
    for root in (spec.submodule_search_locations or []) if spec else []:
        folder = Path(root) / "litellm_core_utils" / "tokenizers"
        if folder.is_dir():
            return folder
    return None


def _count_content(content: object) -> int:
    """Count a message's content: a string, a list of parts, or anything a caller may have sent."""
    if isinstance(content, str):
        return count_text(content)
    if isinstance(content, Sequence):
        return sum(_count_part(part) for part in content)
    return 0 if content is None else _count_value(content)


def _count_part(part: object) -> int:
    """Count one content part: text by its tokens, attachments at the fixed estimate."""
    if isinstance(part, str):
        return count_text(part)
    fields = _mapping(part)
    text = fields.get("text")
    if isinstance(text, str):
        return count_text(text)
    if "content" in fields:  # a tool result holds content parts of its own
        return _count_content(fields["content"])
    return max(IMAGE_TOKENS, _count_file(fields))


def _count_file(fields: Mapping[str, Any]) -> int:
    """Count a file by the size of its data, which is base64; 0 where a part holds no file's data.

    The keys are those of OpenAI's two interfaces and of Anthropic's documents.
    """
    is_document = fields.get("type") == "document"
    holders = (fields, _mapping(fields.get("file")), _mapping(fields.get("source")))
    keys = ("file_data", "data") if is_document else ("file_data",)
    data = [holder[key] for holder in holders for key in keys if key in holder]
    n_bytes = sum(len(one) * 3 // 4 if isinstance(one, str) else 0 for one in data)
    return -(-n_bytes // _BYTES_PER_TOKEN)


def _format(wanted: object) -> object:
    """Return what is sent for a `response_format`: a class's JSON schema, else the value itself."""
    schema = getattr(wanted, "model_json_schema", None)
    return schema() if isinstance(wanted, type) and callable(schema) else wanted


def _count_value(value: object) -> int:
    """Count a value by its JSON text."""
    if isinstance(value, str):
        return count_text(value)
    return count_text(json.dumps(value, ensure_ascii=False, default=_jsonable))


def _jsonable(value: object) -> object:
    """Make JSON of what `json` does not know: message objects by their fields, the rest as text."""
    fields = _mapping(value)
    return dict(fields) if fields else str(value)


def _mapping(value: object) -> Mapping[str, Any]:
    """Return a value's fields: a mapping as it is, a pydantic object dumped, else nothing."""
    if isinstance(value, Mapping):
        return value
    dump = None if isinstance(value, type) else getattr(value, "model_dump", None)
    return dump() if callable(dump) else {}
