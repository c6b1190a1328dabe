"""Graders that call a function of the user's."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from optllm_router.errors import ConfigError
from optllm_router.grading.contract import Grader, check_score


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


def load_function(path: str) -> Callable[..., object]:
    """Import a function by its path "module:function". Raises: ConfigError."""
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
