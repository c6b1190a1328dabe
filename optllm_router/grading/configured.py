"""The graders that a config asks for, by task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from optllm_router.config import GraderSettings
from optllm_router.errors import ConfigError
from optllm_router.grading.contract import Grader
from optllm_router.grading.functions import CallableGrader, load_function
from optllm_router.grading.rules import Contains, Exact, JsonSchema, Regex, normaliser


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
        return CallableGrader(load_function(settings.function or ""))
    return Exact(normalise=normalise)
