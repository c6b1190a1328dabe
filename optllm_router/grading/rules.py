"""Graders by rule: the answer equals, contains, matches, or is JSON that a schema allows.

Patterns are the user's own code: one with nested repetition, such as `(a+)+$`, can take exponential
time on a hostile answer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from optllm_router.errors import ConfigError
from optllm_router.grading.contract import Grader, as_reference

Normalise = Callable[[str], str]


def normaliser(*, strip: bool = True, casefold: bool = False) -> Normalise:
    """Return a function that removes outer blanks and differences of case before comparing."""

    def normalise(text: str) -> str:
        text = text.strip() if strip else text
        return text.casefold() if casefold else text

    return normalise


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


def check_reference(grader: Grader | None, reference: object) -> None:
    """Check, before money is spent, that a grader that compares texts can use a reference.

    Raises:
        ConfigError: it cannot.
    """
    compares = isinstance(grader, Exact | Contains)
    if compares or (isinstance(grader, Regex) and grader.group is not None):
        as_reference(reference)
