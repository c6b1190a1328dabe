"""Options that several commands share, so that one thing has one name, one check and one help."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from optllm_router.errors import ConfigError

if TYPE_CHECKING:
    from optllm_router.core.policy import Policy

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class PolicyName(StrEnum):
    """Policies that need no number."""

    KNEE = "knee"
    CHEAPEST = "cheapest"
    MOST_ACCURATE = "most_accurate"


class Group(StrEnum):
    """What the history is grouped by (see `store.base.GroupBy`)."""

    CANDIDATE = "candidate"
    TASK = "task"
    DAY = "day"
    POLICY = "policy"
    TAG = "tag"
    KIND = "kind"
    BATCH = "batch"


def read_moment(text: str) -> datetime:
    """Read a date or time (local where it names no zone), or an age such as 90d or 12h.

    Raises: typer.BadParameter.
    """
    age = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([smhdw])", text.strip())
    try:
        if age is not None:
            return datetime.now(tz=UTC) - timedelta(**{_UNITS[age[2]]: float(age[1])})
        return datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is no time: write a date (2026-01-31), a date with a time "
            "(2026-01-31T12:00), or an age (90d, 12h)."
        ) from None


ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="Settings.  [default: optllm.toml]"),
]
StoreUrl = Annotated[
    str | None,
    typer.Option("--store", metavar="URL", help="The log, instead of the one in the settings."),
]
DatabaseFile = Annotated[
    Path | None,
    typer.Option("--db", metavar="FILE", help="The log, as a SQLite file."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do it without asking.")]
Concurrency = Annotated[
    int, typer.Option("--concurrency", min=1, metavar="N", help="Calls at the same time.")
]
BudgetUsd = Annotated[
    float | None,
    typer.Option("--budget", metavar="USD", help="Spend no more than this on the whole file."),
]
Target = Annotated[
    float | None,
    typer.Option("--target", metavar="ACCURACY", help="Reach this accuracy, at the least cost."),
]
WorthOfSuccess = Annotated[
    float | None,
    typer.Option("--wtp", metavar="USD", help="Pay up to this for one more success."),
]
NamedPolicy = Annotated[
    PolicyName | None, typer.Option("--policy", help="Another place on the front.")
]
Since = Annotated[
    datetime | None,
    typer.Option(
        "--since", parser=read_moment, metavar="TIME", help="Only from then on: a date, or 24h, 7d."
    ),
]
Before = Annotated[
    datetime | None,
    typer.Option(
        "--before", parser=read_moment, metavar="TIME", help="Older than that: a date, or 90d."
    ),
]


def asked_policy(
    *,
    budget: float | None,
    target: float | None,
    wtp: float | None,
    name: PolicyName | None,
) -> Policy | None:
    """Return the policy that the options ask for; None leaves it to the settings.

    Raises: ConfigError where two are asked for, or one breaks a rule.
    """
    from optllm_router.core.policy import policy_from_config

    asked: dict[str, tuple[str, dict[str, object]]] = {}
    if budget is not None:
        asked["--budget"] = ("budget", {"usd": budget, "per": "batch"})
    if target is not None:
        asked["--target"] = ("target_accuracy", {"accuracy": target})
    if wtp is not None:
        asked["--wtp"] = ("willingness_to_pay", {"usd_per_success": wtp})
    if name is not None:
        asked["--policy"] = (name.value, {})
    if len(asked) > 1:
        raise ConfigError(f"{' and '.join(asked)} each ask for another policy: give one of them.")
    for kind, settings in asked.values():
        return policy_from_config(kind, **settings)
    return None
