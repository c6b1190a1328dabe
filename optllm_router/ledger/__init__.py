"""Money rules: reserve the worst case before a call, settle what it really cost after it.

cap        a budget of one call or one batch, in this process
binding    which budget binds which call, and the words in which one refuses
reports    where shared budgets stand, in USD
shared     budgets that all processes on one store share: a worker that reserves and lives
turns      the line in which callers of this process wait for money that others have reserved
"""

from optllm_router.ledger.binding import binding, forecast_nusd, refusal, unpriced_refusal
from optllm_router.ledger.cap import Balance, Cap
from optllm_router.ledger.reports import BudgetReport, budget_report
from optllm_router.ledger.shared import LEASE_S, Ledger
from optllm_router.ledger.turns import Ticket, Turns

__all__ = [
    "LEASE_S",
    "Balance",
    "BudgetReport",
    "Cap",
    "Ledger",
    "Ticket",
    "Turns",
    "binding",
    "budget_report",
    "forecast_nusd",
    "refusal",
    "unpriced_refusal",
]
