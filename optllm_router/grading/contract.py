"""What a grader is, and which scores and references are taken."""

from __future__ import annotations

from numbers import Real
from typing import Protocol, runtime_checkable

import numpy as np

from optllm_router.errors import ConfigError


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
