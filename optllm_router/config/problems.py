"""What is wrong with settings, in words: one `Problem` per mistake, with the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType
from typing import TYPE_CHECKING

from pydantic import BaseModel

from optllm_router.config.lines import KeyPath
from optllm_router.config.settings import (
    BudgetSettings,
    CallSettings,
    CandidateSettings,
    Config,
    GraderSettings,
    MatchSettings,
    PolicySettings,
    PredictorSettings,
    RetrainSettings,
)
from optllm_router.config.sources import Sources

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_HIDDEN = ("api_key_env", "feature_key", "name")  # may hold a secret, or show a default
_TABLES: Mapping[str, type[BaseModel]] = MappingProxyType(
    {
        "policy": PolicySettings,
        "retrain": RetrainSettings,
        "calls": CallSettings,
        "predictor": PredictorSettings,
        "candidates": CandidateSettings,
        "graders": GraderSettings,
        "budgets": BudgetSettings,
    }
)
_KEY_REFUSED = (
    "an API key does not belong in this file: put it into an environment variable and name that "
    'variable, api_key_env = "OPENAI_API_KEY"'
)


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake: the path of the setting, and what to tell the user."""

    path: KeyPath
    text: str


def misplaced_keys(sources: Sources) -> Iterator[Problem]:
    """Yield secrets that stand in the file where the settings' own rules do not see them."""
    for path in sources.lines:
        if path[-1] == "api_key" and "arguments" in path:
            yield Problem(path, f"`{_dotted(path)}`: {_KEY_REFUSED}")
    if "feature_key" in sources.document:
        text = (
            "`feature_key`: the key of the text hash does not belong in this file: set the "
            "environment variable OPTLLM_FEATURE_KEY"
        )
        yield Problem(("feature_key",), text)


def problems_between(settings: Mapping[str, object], sources: Sources) -> Iterator[Problem]:
    """Yield what is wrong between entries: no candidates, two of one name, a foreign default."""
    names = candidate_names(settings.get("candidates"))
    if names is None:
        return
    if not names:
        text = (
            "`candidates` is empty: a router needs at least one LLM to call: add a [[candidates]] "
            'table with model = "openai/gpt-4o-mini" (`optllm init` writes a starter file)'
        )
        yield Problem(("candidates",), text)
        return
    yield from _duplicates("candidates", names, sources)
    yield from _default_problems(settings.get("default"), names)
    yield from _budget_problems(settings.get("budgets"), names, sources)


def _duplicates(key: str, names: list[str], sources: Sources) -> Iterator[Problem]:
    for index, name in enumerate(names):
        first = names.index(name)
        if first < index:
            line = sources.line((key, first))
            other = f"{key}[{first}]" + (f" (line {line})" if line else "")
            text = (
                f"{key.removesuffix('s')} {name!r} has the same name as {other}: remove one of "
                "them, or give it a `name` of its own"
            )
            yield Problem((key, index), text)


def _budget_problems(budgets: object, names: list[str], sources: Sources) -> Iterator[Problem]:
    """Yield budgets of one name, and those for candidates that there are not."""
    if not isinstance(budgets, Sequence) or isinstance(budgets, str):
        return
    tables = [budget if isinstance(budget, Mapping) else {} for budget in budgets]
    called = [str(table.get("name", index)) for index, table in enumerate(tables)]
    yield from _duplicates("budgets", called, sources)
    for index, table in enumerate(tables):
        match = table.get("match")
        name = match.get("candidate") if isinstance(match, Mapping) else None
        if isinstance(name, str) and name not in names:
            listed = ", ".join(repr(one) for one in dict.fromkeys(names))
            text = (
                f"`budgets[{index}].match.candidate` = {name!r} is not among the candidates"
                f"{_did_you_mean(name, names)}: it must be the name of one of them ({listed})"
            )
            yield Problem(("budgets", index, "match", "candidate"), text)


def _default_problems(default: object, names: list[str]) -> Iterator[Problem]:
    listed = ", ".join(repr(name) for name in dict.fromkeys(names))
    if default is None and len(names) > 1:
        text = (
            "`default` is missing: name the candidate that answers while nothing is learned yet, "
            f"one of {listed}"
        )
        yield Problem(("default",), text)
    if isinstance(default, str) and default not in names:
        text = (
            f"`default` = {default!r} is not among the candidates{_did_you_mean(default, names)}: "
            f"it must be the name of one of them ({listed})"
        )
        yield Problem(("default",), text)


def candidate_names(candidates: object) -> list[str] | None:
    """Return the names of all candidates, None where they cannot all be read."""
    if candidates is None:
        return []
    if not isinstance(candidates, Sequence) or isinstance(candidates, str):
        return None
    names = [_name(candidate) for candidate in candidates]
    known = [name for name in names if isinstance(name, str)]
    return known if len(known) == len(names) else None


def _name(candidate: object) -> object:
    if isinstance(candidate, CandidateSettings):
        return candidate.name
    if isinstance(candidate, Mapping):
        return candidate.get("name") or candidate.get("model")
    return candidate


def explain(details: ErrorDetails, sources: Sources) -> Problem:
    """Say in one line what is wrong with one setting and what to write instead."""
    path, value = details["loc"], details["input"]
    if details["type"] == "extra_forbidden":
        return Problem(path, _explain_unknown(path, sources))
    key = _dotted(path).removesuffix("_")  # `schema_` stands for `schema`, a name of pydantic's
    if details["type"] == "missing":
        return Problem(path, f"`{key}` is missing")
    if details["type"] == "value_error":
        reason = str(details["ctx"]["error"])
    elif path in {("candidates",), ("budgets",)}:
        reason = f"{path[0]} are a list: write [[{path[0]}]], with two brackets, above each"
    else:
        reason = details["msg"][0].lower() + details["msg"][1:]
    hidden = path[-1] in _HIDDEN or isinstance(value, Mapping | None)
    return Problem(path, f"`{key}`: {reason}" if hidden else f"`{key}` = {_shown(value)}: {reason}")


def _explain_unknown(path: KeyPath, sources: Sources) -> str:
    """Name the nearest valid key, or the place where the key belongs."""
    key = str(path[-1])
    if key == "api_key":
        return f"`{_dotted(path)}`: {_KEY_REFUSED}"
    table = _table(path)
    valid = [info.alias or name for name, info in table.model_fields.items()]
    if sources.file is not None and table is Config:
        valid.remove("feature_key")
    if table is not Config and key in Config.model_fields and key not in valid:
        return (
            f"unknown key `{_dotted(path)}`: `{key}` is a top-level key, it must stand above the "
            "first [table] of the file"
        )
    return (
        f"unknown key `{_dotted(path)}`{_did_you_mean(key, valid)} (valid here: {', '.join(valid)})"
    )


def _table(path: KeyPath) -> type[BaseModel]:
    """Return the settings that a key stands among."""
    if len(path) == 1:
        return Config
    return MatchSettings if path[-2] == "match" else _TABLES[str(path[0])]


def _did_you_mean(word: str, words: Sequence[str]) -> str:
    nearest = difflib.get_close_matches(word, words, n=1, cutoff=0.6)
    return f", did you mean `{nearest[0]}`?" if nearest else ""


def _dotted(path: KeyPath) -> str:
    """Write a path as people do: candidates[0].model."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def _shown(value: object) -> str:
    text = str(value) if isinstance(value, Decimal) else repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
