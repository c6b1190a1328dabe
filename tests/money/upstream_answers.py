"""What the provider of the money tests says, uses and does wrong, drawn from its own dice.

Tokens are counted by a tokenizer of its own (cl100k, with a drift per LLM), the text is made up
word by word. The same seed, prompt, LLM and repetition give the same answer, in any order.
"""

from __future__ import annotations

import functools
import os
import random
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from own_bill import Tokens
from price_sheet import SHEET

MISHAPS = {
    "429": 0.02,
    "429 with Retry-After": 0.02,
    "500": 0.02,
    "503": 0.02,
    "reset": 0.02,
    "truncated": 0.02,
    "garbage": 0.02,
    "empty": 0.015,
    "slow": 0.01,
    "drop": 0.02,
    "without usage": 0.04,
    "over its limit": 0.005,
}
DRIFT = {"thrifty": 1.0, "caching": 1.02, "tiered": 0.98, "thinking": 1.03}
DEFAULT_LIMIT = 4096
MOST_OVER = 200  # so that only short limits are passed
_KEY = re.compile(r"\[(\w+)\]")
_TEXT = (
    "time year people way day man thing woman life child world school state family student group "
    "country problem hand part place case week company system program question work government "
    "number night point home water room mother area money story fact month lot right study book "
    "eye job word business issue side kind head house service friend father power hour game line "
    "end member law car city community name president team minute idea body information back "
    "parent face others level office door health person art war history party result change "
    "morning reason research girl guy moment air teacher force education"
)
_WORDS = _TEXT.split()


@dataclass(frozen=True, kw_only=True)
class Planned:
    """What one request is answered with, and what goes wrong on the way.

    `texts` are the choices; `reasoning` is sent before them, `hidden` is thought in silence.
    `share` is how far a spoilt answer gets.
    """

    mishap: str
    share: float
    texts: tuple[str, ...]
    reasoning: str
    hidden: int
    tokens: Tokens
    finish: str


def key_of(body: dict[str, Any]) -> str:
    """What the prompt begins with: its number, in brackets."""
    found = _KEY.match(_content(body["messages"][-1]))
    return "" if found is None else found[1]


def plan(seed: int, body: dict[str, Any], repetition: int) -> Planned:
    """Draw the answer to a request; `repetition` says how often it was asked before."""
    model = body["model"]
    dice = random.Random(f"{seed}|{model}|{repetition}|{_content(body['messages'][-1])[:40]}")
    mishap = dice.choices([*MISHAPS, ""], [*MISHAPS.values(), 1.0 - sum(MISHAPS.values())])[0]
    limit = body.get("max_completion_tokens") or body.get("max_tokens") or DEFAULT_LIMIT
    thought = _words(dice, min(_length(dice, SHEET[model].reasoning_tokens), limit // 2))
    is_hidden = dice.random() < 0.3
    left = limit - count(thought)
    texts = tuple(
        _said(dice, model, min(_length(dice, SHEET[model].answer_tokens), left))
        for _ in range(body.get("n") or 1)
    )
    completion = count(thought) + sum(map(count, texts))
    if mishap == "over its limit":
        completion += min(limit, MOST_OVER)
    return Planned(
        mishap=mishap,
        share=dice.random(),
        texts=texts,
        reasoning="" if is_hidden else thought,
        hidden=count(thought) if is_hidden else 0,
        tokens=_used(dice, model, body, completion, count(thought)),
        finish="length" if completion >= limit else "stop",
    )


def _used(
    dice: random.Random, model: str, body: dict[str, Any], completion: int, reasoning: int
) -> Tokens:
    counted = 3 + sum(4 + count(_content(message)) for message in body["messages"])
    prompt = max(round(counted * DRIFT[model] * dice.uniform(0.97, 1.03)), 1)
    cached = dice.randint(0, prompt) if dice.random() < 0.2 else 0
    written = dice.randint(0, prompt - cached) if dice.random() < 0.2 else 0
    return Tokens(
        prompt=prompt,
        cached=cached,
        written=written,
        completion=completion,
        reasoning=reasoning,
    )


def usage(tokens: Tokens) -> dict[str, Any]:
    """Tokens as the provider reports them."""
    return {
        "prompt_tokens": tokens.prompt,
        "completion_tokens": tokens.completion,
        "total_tokens": tokens.prompt + tokens.completion,
        "prompt_tokens_details": {
            "cached_tokens": tokens.cached,
            "cache_creation_tokens": tokens.written,
        },
        "completion_tokens_details": {"reasoning_tokens": tokens.reasoning},
    }


def count(text: str) -> int:
    """Tokens of a text, as this provider counts."""
    return len(_tokenizer().encode_ordinary(text))


def pieces(text: str, n_words: int = 3) -> list[str]:
    """Cut a text as it is streamed."""
    words = re.findall(r"\s*\S+", text)
    return ["".join(words[at : at + n_words]) for at in range(0, len(words), n_words)]


def _content(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def _length(dice: random.Random, median: int) -> int:
    return 0 if median == 0 else max(round(median * dice.lognormvariate(0.0, 0.4)), 2)


def _said(dice: random.Random, model: str, n_tokens: int) -> str:
    opening = "sure" if dice.random() < SHEET[model].quality else "sorry"
    return _cut(f"{opening} {_words(dice, n_tokens)}", n_tokens)


def _words(dice: random.Random, n_tokens: int) -> str:
    return _cut(" ".join(dice.choices(_WORDS, k=n_tokens)), n_tokens)


def _cut(text: str, n_tokens: int) -> str:
    tokenizer = _tokenizer()
    return tokenizer.decode(tokenizer.encode_ordinary(text)[:n_tokens])


@functools.cache
def _tokenizer() -> Any:
    """cl100k, from the files that come with LiteLLM: nothing is fetched."""
    package = find_spec("litellm")
    (folder,) = (package.submodule_search_locations or []) if package else []
    os.environ["TIKTOKEN_CACHE_DIR"] = str(Path(folder) / "litellm_core_utils" / "tokenizers")
    import tiktoken

    return tiktoken.get_encoding("cl100k_base")
