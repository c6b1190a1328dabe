"""The policies themselves: what a user may want, checked when it is said."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from decimal import Decimal
from numbers import Real

from optllm_router.core.policy.wording import did_you_mean, plain, quoted, usd_text
from optllm_router.errors import ConfigError

OWN_PER = ("call", "batch")
"""What a budget may be for that is counted anew each time, in the process that spends it."""

WINDOW_PER = ("session", "hour", "day", "week", "month", "total")
"""Windows across calls, which all processes on a store share."""

SUPPORTED_PER = (*OWN_PER, *WINDOW_PER)
"""All that a budget may be for."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Aim at spending `usd` on every call, every batch or in every window, and never more.

    `per="batch"`: the batch's total; a single call is a batch of one. `per="call"`: each query's
    own cost, so that each gets its most probable column of at most `usd`. Any other `per` is a
    window across calls ("session", "hour", "day", "week", "month" in UTC, or "total") that all
    processes on a store share; live calls get what is left of it, spread over the calls that are
    expected until it ends.
    """

    usd: float
    per: str = field(default="batch", kw_only=True)

    def __post_init__(self) -> None:
        usd = _number("usd", self.usd)
        if not 0.0 < usd < math.inf:
            raise ConfigError(
                f"`usd` is {self.usd!r}, but a budget is a positive, finite amount: give one, or "
                "use `Cheapest()` to spend as little as possible."
            )
        object.__setattr__(self, "usd", usd)
        _require_supported(self.per)

    @property
    def is_shared(self) -> bool:
        """Whether it is a window across calls."""
        return self.per in WINDOW_PER


@dataclass(frozen=True, slots=True)
class TargetAccuracy:
    """Reach a mean success probability at the least cost.

    `confidence` is how sure to be that the batch reaches it: 0.5 takes the cross-fitted estimate as
    it is, more takes a lower bound of it; whoever calls `select` brings that array.
    """

    accuracy: float
    confidence: float = field(default=0.5, kw_only=True)

    def __post_init__(self) -> None:
        accuracy = _number("accuracy", self.accuracy)
        confidence = _number("confidence", self.confidence)
        if not 0.0 < accuracy <= 1.0:
            raise ConfigError(
                f"`accuracy` is {self.accuracy!r}, but a target lies in (0, 1]: 90 % is 0.9."
            )
        if not 0.0 < confidence < 1.0:
            raise ConfigError(
                f"`confidence` is {self.confidence!r}, but it lies strictly between 0 and 1: 0.5 "
                "takes the estimate as it is, 0.9 leaves a margin."
            )
        object.__setattr__(self, "accuracy", accuracy)
        object.__setattr__(self, "confidence", confidence)


@dataclass(frozen=True, slots=True)
class WillingnessToPay:
    """Upgrade a query as long as one more success costs less than `usd_per_success`."""

    usd_per_success: float

    def __post_init__(self) -> None:
        usd = _number("usd_per_success", self.usd_per_success)
        if not 0.0 < usd < math.inf:
            raise ConfigError(
                f"`usd_per_success` is {self.usd_per_success!r}, but the worth of a success is a "
                "positive, finite amount: give one, or use `Cheapest()` or `MostAccurate()`."
            )
        object.__setattr__(self, "usd_per_success", usd)

    @property
    def dual_price(self) -> float:
        """The same as successes per USD."""
        return 1.0 / self.usd_per_success


@dataclass(frozen=True, slots=True)
class Knee:
    """Stand where the front bends most: beyond it, accuracy gets dear."""


@dataclass(frozen=True, slots=True)
class Cheapest:
    """Send every query to its cheapest column."""


@dataclass(frozen=True, slots=True)
class MostAccurate:
    """Send every query to its most accurate column, whatever it costs."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """Send every query that can use it to one named column, the others to their most accurate."""

    column: str

    def __post_init__(self) -> None:
        named: object = self.column
        if not isinstance(named, str) or not named:
            raise ConfigError(
                f"`column` is {self.column!r}, but it names one candidate: give its name, "
                "such as 'openai/gpt-4o'."
            )


Policy = Budget | TargetAccuracy | WillingnessToPay | Knee | Cheapest | MostAccurate | Fixed

KINDS: dict[str, type[Policy]] = {
    "budget": Budget,
    "target_accuracy": TargetAccuracy,
    "willingness_to_pay": WillingnessToPay,
    "knee": Knee,
    "cheapest": Cheapest,
    "most_accurate": MostAccurate,
    "fixed": Fixed,
}


def policy_from_config(kind: str, **settings: object) -> Policy:
    """Build a policy from its configured kind and settings, such as `kind="budget", usd=2.0`.

    Raises:
        ConfigError: An unknown kind or key, with the nearest valid one; a missing key; a value
            that the policy refuses.
    """
    policy = KINDS.get(str(kind))
    if policy is None:
        raise ConfigError(
            f"there is no policy of kind {kind!r}{did_you_mean(kind, KINDS)}: the kinds are "
            f"{quoted(KINDS)}."
        )
    known = {setting.name: setting for setting in fields(policy)}
    for key in settings:
        if key not in known:
            takes = f"it takes {quoted(known)}" if known else "it takes no settings"
            raise ConfigError(
                f"the policy {kind!r} has no setting {key!r}{did_you_mean(key, known)}: {takes}."
            )
    for key, setting in known.items():
        if setting.default is MISSING and key not in settings:
            raise ConfigError(f"the policy {kind!r} needs the setting {key!r}: give it a value.")
    build: Callable[..., Policy] = policy  # each policy checks the types of its own settings
    return build(**settings)


def describe(policy: Policy) -> str:
    """Return a short text for logs, such as "budget 5.00 USD per batch"."""
    match policy:
        case Budget(usd=usd, per=per):
            return f"budget {usd_text(usd)} USD per {per}"
        case TargetAccuracy(accuracy=accuracy, confidence=0.5):
            return f"target accuracy {plain(accuracy)}"
        case TargetAccuracy(accuracy=accuracy, confidence=confidence):
            return f"target accuracy {plain(accuracy)} at confidence {plain(confidence)}"
        case WillingnessToPay(usd_per_success=usd):
            return f"willingness to pay {usd_text(usd)} USD per success"
        case Fixed(column=column):
            return f"fixed on {column!r}"
    return {Knee: "knee", Cheapest: "cheapest", MostAccurate: "most accurate"}[type(policy)]


def _number(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, Real | Decimal) or math.isnan(value):
        raise ConfigError(f"`{name}` is {value!r}, but a number is needed: give one such as 0.5.")
    return float(value)


def _require_supported(per: object) -> None:
    if per not in SUPPORTED_PER:
        raise ConfigError(
            f"`per` is {per!r}{did_you_mean(per, SUPPORTED_PER)}: a budget is per "
            f"{quoted(SUPPORTED_PER)}."
        )
