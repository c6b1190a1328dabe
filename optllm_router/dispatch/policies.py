"""Which of the policies around a call is aimed at, and which budgets among them cap it."""

from __future__ import annotations

from collections.abc import Sequence

from optllm_router.core.cost import usd_to_nusd
from optllm_router.core.policy import Budget, Fixed, Policy, describe
from optllm_router.errors import ConfigError
from optllm_router.ledger import Cap
from optllm_router.records import Candidate


def effective_policy(configured: Policy, *asked: Policy | None) -> tuple[Policy, int | None]:
    """Return the policy to aim at and the tightest cap, in nano-USD, of the budgets among all.

    The last policy that was asked for replaces the aim, but none loosens another's budget. Windows
    across calls are no caps of one call: the ledger holds them (see `shared_budgets`).
    """
    given = [configured, *(policy for policy in asked if policy is not None)]
    budgets = [policy for policy in given if isinstance(policy, Budget)]
    own = min((b for b in budgets if not b.is_shared), key=lambda budget: budget.usd, default=None)
    aim = given[-1]
    if isinstance(aim, Budget):
        per = aim.per if aim.is_shared else None
        alike = [b for b in budgets if (b.per if b.is_shared else None) == per]
        aim = min(alike, key=lambda budget: budget.usd)
    return aim, None if own is None else usd_to_nusd(own.usd)


def shared_budgets(*policies: Policy | None) -> list[Budget]:
    """Return the budgets of windows across calls that are among the policies, each once."""
    found = [p for p in policies if isinstance(p, Budget) and p.is_shared]
    return list(dict.fromkeys(found))


def check_policy(policy: object, candidates: Sequence[Candidate]) -> None:
    """Refuse what is no policy, or one fixed on no candidate. Raises: ConfigError."""
    if policy is None:
        return
    if not isinstance(policy, Policy):
        raise ConfigError(
            f"`policy={policy!r}` is no policy: pass an object such as Cheapest() or "
            "Budget(usd=2.0)"
        )
    names = [candidate.name for candidate in candidates]
    if isinstance(policy, Fixed) and policy.column not in names:
        raise ConfigError(
            f"the policy {describe(policy)} names no candidate: the candidates are "
            f"{', '.join(repr(name) for name in names)}"
        )


def batch_policy(configured: Policy, asked: Policy | None) -> tuple[Policy, Cap | None]:
    """The policy of a batch and its hard cap.

    A batch's own policy replaces the configured aim; of two budgets per batch the lower one caps.
    """
    policy = configured if asked is None else asked
    budgets = [p for p in (configured, asked) if isinstance(p, Budget) and p.per == "batch"]
    if not budgets:
        return policy, None
    lowest = min(budgets, key=lambda budget: budget.usd)
    if isinstance(policy, Budget) and policy.per == "batch":
        policy = lowest
    return policy, Cap("batch", usd_to_nusd(lowest.usd))


def call_cap(*policies: Policy | None) -> int | None:
    """Return the tightest budget per call among policies, in nano-USD."""
    caps = [p.usd for p in policies if isinstance(p, Budget) and p.per == "call"]
    return usd_to_nusd(min(caps)) if caps else None
