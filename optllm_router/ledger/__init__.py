"""Money rules: reserve the worst case before a call, settle what it really cost after it.

cap        a budget of one call or one batch, in this process
binding    which budget binds which call, and the words in which one refuses
shared     budgets that all processes on one store share: a worker that reserves and lives
"""

from optllm_router.ledger.binding import binding, forecast_nusd, refusal, unpriced_refusal
from optllm_router.ledger.cap import Balance, Cap
from optllm_router.ledger.shared import LEASE_S, Ledger

__all__ = [
    "LEASE_S",
    "Balance",
    "Cap",
    "Ledger",
    "binding",
    "forecast_nusd",
    "refusal",
    "unpriced_refusal",
]
