"""Graders: an answer's text, with or without a reference, → a score in [0, 1].

A grader never guesses: where it needs a reference and there is none, it returns None and the
answer stays ungraded. Only answers are graded; a call that failed is the provider's fault and says
nothing about quality. Patterns are the user's own code: one with nested repetition, such as
`(a+)+$`, can take exponential time on a hostile answer.
"""

from __future__ import annotations

import importlib
import inspect
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Real
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

import numpy as np

from optllm_router.config import GraderSettings
from optllm_router.errors import ConfigError

Normalise = Callable[[str], str]


@runtime_checkable
class Grader(Protocol):
    """Scores answers. Safe to call from many threads at once."""

    @property
    def name(self) -> str:
        """A short name; outcomes carry it as "grader:<name>"."""
        ...

    def grade(self, text: str, reference: str | None, *, response: object = None) -> float | None:
        """Return a score in [0, 1], or None when this answer cannot be graded.

        Args:
            text: the answer's text.
            reference: the right answer, if there is one.
            response: the whole response, for graders that look at more than its text.
        """
        ...


def check_score(score: object) -> float:
    """Return a score as a float.

    Args:
        score: a boolean, a number, or a numpy scalar.

    Raises:
        ConfigError: it is no number, NaN, or outside [0, 1].
    """
    if isinstance(score, Real | np.bool_) and 0 <= score <= 1:  # type: ignore[operator]  # typeshed leaves Real without an order
        return float(score)
    raise ConfigError(
        f"score {score!r}: a score is a number from 0 (useless) to 1 (right), or a boolean: "
        "rescale it first, for instance (stars - 1) / 4"
    )


def normaliser(*, strip: bool = True, casefold: bool = False) -> Normalise:
    """Return a function that removes outer blanks and differences of case before comparing."""

    def normalise(text: str) -> str:
        text = text.strip() if strip else text
        return text.casefold() if casefold else text

    return normalise


def as_reference(reference: object) -> str | None:
    """Return a reference as the text that answers are compared with; NaN is a missing one.

    Raises:
        ConfigError: it is neither a text nor a number.
    """
    if reference is None or isinstance(reference, str):
        return reference
    if isinstance(reference, Real | np.bool_):
        return None if reference != reference else str(reference)  # noqa: PLR0124  # only NaN differs from itself
    raise ConfigError(
        f"reference {reference!r} is a {type(reference).__name__}: answers are compared with a "
        "text or a number; pass one, or a grader of your own, which gets references as they are"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """1 when answer and reference are equal once both are normalised; needs a reference."""

    normalise: Normalise = str.strip
    name: str = "exact"

    def grade(self, text: str, reference: str | None, *, response: object = None) -> float | None:
        """Return 1.0 or 0.0, None without a reference."""
        del response
        wanted = as_reference(reference)
        if wanted is None:
            return None
        return float(self.normalise(text) == self.normalise(wanted))


@dataclass(frozen=True, slots=True, kw_only=True)
class Contains:
    """1 when the answer contains the reference, both normalised.

    Needs a reference that is not empty: every text contains the empty one.
    """

    normalise: Normalise = str.strip
    name: str = "contains"

    def grade(self, text: str, reference: str | None, *, response: object = None) -> float | None:
        """Return 1.0 or 0.0, None without a reference."""
        del response
        wanted = self.normalise(as_reference(reference) or "")
        return float(wanted in self.normalise(text)) if wanted else None


@dataclass(frozen=True, slots=True)
class Regex:
    """1 when the pattern is found; with a `group`, when that group equals the reference.

    The last match counts, since models conclude at the end. With a group, an answer without a
    match scores 0 and a missing reference is not graded.
    """

    pattern: str
    group: int | str | None = None
    normalise: Normalise = field(default=str.strip, kw_only=True)
    name: str = field(default="regex", kw_only=True)
    _compiled: re.Pattern[str] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Compile the pattern and check that the group exists.

        Raises:
            ConfigError: the pattern does not compile or has no such group.
        """
        try:
            compiled = re.compile(self.pattern)
        except re.error as error:
            raise ConfigError(
                f"pattern {self.pattern!r} is not a regular expression: {error}; in TOML write it "
                "in single quotes, so that backslashes stay"
            ) from None
        groups = {*range(compiled.groups + 1), *compiled.groupindex}
        if self.group is not None and self.group not in groups:
            known = ", ".join(repr(group) for group in sorted(groups, key=str))
            raise ConfigError(
                f"group {self.group!r} is not in pattern {self.pattern!r}: it has {known}"
            )
        object.__setattr__(self, "_compiled", compiled)  # frozen, and this is its construction

    def grade(self, text: str, reference: str | None, *, response: object = None) -> float | None:
        """Return 1.0 or 0.0, None when a group is asked for and there is no reference."""
        del response
        if self.group is None:
            return float(self._compiled.search(text) is not None)
        wanted = as_reference(reference)
        if wanted is None:
            return None
        found = None
        for match in self._compiled.finditer(text):
            found = match[self.group]
        return float(found is not None and self.normalise(found) == self.normalise(wanted))


@dataclass(frozen=True, slots=True)
class JsonSchema:
    """1 when the whole answer is JSON that the schema allows; needs no reference.

    References in the schema are resolved within it only: nothing is fetched.
    """

    schema: dict[str, Any]
    name: str = field(default="json_schema", kw_only=True)
    _validator: Any = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Check the schema itself.

        Raises:
            ConfigError: it is not a JSON schema.
        """
        from jsonschema.exceptions import SchemaError
        from jsonschema.validators import Draft202012Validator, validator_for
        from referencing import Registry

        kind = validator_for(self.schema, default=Draft202012Validator)
        try:
            kind.check_schema(self.schema)
        except SchemaError as error:
            where = "/".join(str(part) for part in error.path) or "its root"
            raise ConfigError(f"not a JSON schema, at {where}: {error.message}") from None
        object.__setattr__(self, "_validator", kind(self.schema, registry=Registry()))

    def grade(self, text: str, reference: str | None, *, response: object = None) -> float | None:
        """Return 1.0 or 0.0.

        Raises:
            ConfigError: the schema refers to another one.
        """
        from referencing.exceptions import Unresolvable

        del reference, response
        try:
            value = json.loads(text, parse_constant=_refuse_constant)
            return float(self._validator.is_valid(value))
        except Unresolvable as error:
            raise ConfigError(
                f"the JSON schema refers to {error.ref!r}, which is not inside it: put that "
                "definition under `$defs` of the schema, since none is fetched"
            ) from None
        except (ValueError, RecursionError):
            return 0.0


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


class CallableGrader:
    """Grades by a function of the user's.

    It is called with the text and the reference, `function(text, reference)`; with the text only
    when it takes one argument; and with `response=` when it has a parameter of that name. It
    returns a boolean, a number from 0 to 1, or None for "not graded"; what it raises is passed on.
    """

    def __init__(self, function: object, *, name: str | None = None) -> None:
        """Look at the function's parameters once.

        Raises:
            ConfigError: it is not callable, or a coroutine function.
        """
        if not callable(function) or inspect.iscoroutinefunction(function):
            raise ConfigError(
                f"grader {function!r} must be a plain function (text, reference) -> score, "
                "not a coroutine: graders run beside the calls, not in their event loop"
            )
        self.name: str = name or str(getattr(function, "__name__", "callable"))
        self._function = function
        self._n_texts, self._takes_response = _parameters(function)

    def grade(self, text: str, reference: str | None, *, response: object = None) -> float | None:
        """Call the function and check its score.

        Raises:
            ConfigError: the function returned something that is no score.
        """
        further = {"response": response} if self._takes_response else {}
        score = self._function(*(text, reference)[: self._n_texts], **further)
        if score is None:
            return None
        try:
            return check_score(score)
        except ConfigError as error:
            raise ConfigError(f"grader `{self.name}` returned a wrong value: {error}") from None


def check_reference(grader: Grader | None, reference: object) -> None:
    """Check, before money is spent, that a grader that compares texts can use a reference.

    Raises:
        ConfigError: it cannot.
    """
    compares = isinstance(grader, Exact | Contains)
    if compares or (isinstance(grader, Regex) and grader.group is not None):
        as_reference(reference)


def as_grader(grader: Grader | Callable[..., object]) -> Grader:
    """Return a grader as it is, and a plain function as a `CallableGrader`.

    Raises:
        ConfigError: it is neither.
    """
    if isinstance(grader, Grader):
        return grader
    return CallableGrader(grader)


def _parameters(function: Callable[..., object]) -> tuple[int, bool]:
    """Return how many texts a function takes by position, and whether it takes the response."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # some built-in functions do not tell
        return 2, False
    kinds = [each.kind for name, each in parameters.items() if name != "response"]
    by_place = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    n_texts = 2 if inspect.Parameter.VAR_POSITIONAL in kinds else sum(k in by_place for k in kinds)
    return min(n_texts, 2), "response" in parameters


@dataclass(frozen=True, slots=True, kw_only=True)
class Graders:
    """Which grader scores which task; `default` takes the tasks without their own."""

    by_task: Mapping[str, Grader] = field(default_factory=lambda: MappingProxyType({}))
    default: Grader | None = None

    def for_task(self, task: str) -> Grader | None:
        """Return the task's grader, the default one, or None."""
        return self.by_task.get(task, self.default)


def graders_from_config(settings: Mapping[str, GraderSettings]) -> Graders:
    """Build the graders of a config; its task "default" is the default.

    Raises:
        ConfigError: a grader cannot be built; the message names its task.
    """
    built: dict[str, Grader] = {}
    for task, setting in settings.items():
        try:
            built[task] = grader_from_config(setting)
        except ConfigError as error:
            raise ConfigError(f"[graders.{task}]: {error}") from error
    default = built.pop("default", None)
    return Graders(by_task=MappingProxyType(built), default=default)


def grader_from_config(settings: GraderSettings) -> Grader:
    """Build one grader from its settings.

    Raises:
        ConfigError: its pattern, schema or function does not work.
    """
    normalise = normaliser(strip=settings.strip is not False, casefold=settings.casefold is True)
    if settings.kind == "contains":
        return Contains(normalise=normalise)
    if settings.kind == "regex":
        return Regex(settings.pattern or "", settings.group, normalise=normalise)
    if settings.kind == "json_schema":
        return JsonSchema(settings.schema_ or {})
    if settings.kind == "callable":
        return CallableGrader(_load_function(settings.function or ""))
    return Exact(normalise=normalise)


def _load_function(path: str) -> Callable[..., object]:
    """Import a function by its path "module:function"."""
    module_name, _, name = path.partition(":")
    try:
        target: Any = importlib.import_module(module_name)
        for part in name.split("."):
            target = getattr(target, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f'function {path!r} cannot be imported: {error}; write it as "module:function", with '
            "the module installed or on PYTHONPATH"
        ) from error
    function: Callable[..., object] = target
    return function
