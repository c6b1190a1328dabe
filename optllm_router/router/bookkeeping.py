"""What a router does for shared budgets in the background: live, sweep, and pace.

Every few seconds it shows that this process lives, settles what dead ones left behind, and works
out anew what a live call may spend of the windows that policies aim at: no call waits for that.
"""

from __future__ import annotations

import logging

from optllm_router.core.planning import live_aim
from optllm_router.dispatch.deciding import RouterState
from optllm_router.dispatch.money import Money
from optllm_router.errors import StoreError

logger = logging.getLogger("optllm_router")


def look_after(money: Money, state: RouterState) -> None:
    """Do all of it once; a store that fails is asked again next time."""
    try:
        money.ledger.keep()
        allowances = money.allowances()
    except StoreError as error:
        logger.warning("the shared budgets cannot be looked after: %s", error)
        return
    state.allowances.update(allowances)
    if state.snapshot is None:
        return
    for policy, each in allowances.items():
        state.aims[policy] = live_aim(state.snapshot, policy, allowance_usd=each)
