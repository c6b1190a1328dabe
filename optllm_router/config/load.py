"""Builds a `Config` from argument, environment and file, and reports every mistake at once.

All mistakes of all sources go into one `ConfigError`, one per line, each with the file and line,
the environment variable or the argument it came from: a file is mended in one round, not in ten.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError

from optllm_router.config.lines import key_lines
from optllm_router.config.problems import (
    candidate_names,
    explain,
    misplaced_keys,
    problems_between,
)
from optllm_router.config.settings import Config, PolicySettings
from optllm_router.config.sources import Sources, parse_toml, read_environment, read_text
from optllm_router.core.cost import usd_to_nusd
from optllm_router.core.policy import Policy, policy_from_config
from optllm_router.errors import ConfigError
from optllm_router.records import BudgetLine, CapLine


def load_config(path: str | Path = "optllm.toml", **overrides: Any) -> Config:
    """Read a config file under environment and overrides.

    Args:
        path: the TOML file.
        overrides: settings that win over everything else; None means unset. `retrain`,
            `calls`, `predictor` (a text is its kind) and `graders` are merged key by key, all
            others replace.

    Raises:
        ConfigError: the file is missing or unreadable, or it or another source breaks a rule;
            the message has one line per mistake.
    """
    text = read_text(Path(path))
    document = parse_toml(text, str(path))
    given = {key: value for key, value in overrides.items() if value is not None}
    return _build(Sources(str(path), document, key_lines(text), read_environment(), given))


def make_config(**settings: Any) -> Config:
    """Build a config from arguments over the environment, without a file.

    Args:
        settings: as in the file; None means unset. A candidate is a model name, a mapping or
            `CandidateSettings`; `policy` may be a policy object, which is kept.

    Raises:
        ConfigError: a setting breaks a rule; the message has one line per mistake.
    """
    given = {key: value for key, value in settings.items() if value is not None}
    return _build(Sources(None, {}, {}, read_environment(), given))


def build_policy(config: Config) -> Policy:
    """Return the policy object that a config describes or holds.

    Raises:
        ConfigError: the settings break a rule of the policy.
    """
    if not isinstance(config.policy, PolicySettings):
        policy: Policy = config.policy
        return policy
    return policy_from_config(config.policy.kind, **config.policy.settings())


def cap_lines(config: Config) -> tuple[CapLine, ...]:
    """Return the budgets of each call, and of each batch, by itself."""
    return tuple(
        CapLine(
            name=budget.name,
            limit_nusd=usd_to_nusd(budget.usd),
            per=budget.per,
            scope=budget.scope,
            value=budget.value,
            at_cap=budget.at_cap,
        )
        for budget in config.budgets
        if budget.per == "call" or budget.per == "batch"  # noqa: PLR1714  # mypy narrows this
    )


def budget_lines(config: Config) -> tuple[BudgetLine, ...]:
    """Return the budgets that processes share; those per call and per batch are not among them."""
    return tuple(
        BudgetLine(
            name=budget.name,
            limit_nusd=usd_to_nusd(budget.usd),
            per=budget.per,
            scope=budget.scope,
            value=budget.value,
            rolling=budget.rolling,
            timezone=budget.timezone,
            warn_at=budget.warn_at,
            at_cap=budget.at_cap,
        )
        for budget in config.budgets
        if budget.per != "call" and budget.per != "batch"  # noqa: PLR1714  # mypy narrows this
    )


def _build(sources: Sources) -> Config:
    """Validate everything, then raise all problems together."""
    settings = sources.merged()
    problems = [*misplaced_keys(sources), *problems_between(settings, sources)]
    if "feature_key" in sources.document:
        settings.pop("feature_key")  # reported as misplaced
    names = candidate_names(settings.get("candidates"))
    settings.setdefault("default", names[0] if names else "?")
    settings.setdefault("candidates", [])
    try:
        config = Config.model_validate(settings)
    except ValidationError as error:
        problems.extend(explain(details, sources) for details in error.errors())
    else:
        if not problems:
            return config
    problems.sort(key=lambda problem: sources.line(problem.path))
    lines = (f"{sources.where(problem.path)}: {problem.text}" for problem in problems)
    raise ConfigError("\n".join(lines))
