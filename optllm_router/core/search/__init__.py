"""OptLLM's destroy-and-repair search, as published, for fidelity and for comparison.

Liu, Zhang, Miao, Le & Li, "OptLLM: Optimal Assignment of Queries to Large Language Models", ICWS
2024 (arXiv 2405.15130). The search stops where no upgrade of a query is steeper than a downgrade
of another, and that is a point of the chain that `core.front` finds by one sort: with one table of
estimates it can only return some of the exact front's supported trade-offs. The rooms:

    moves      what leaving any column of any query brings, tabulated once
    repair     the reconstruction: trading the best upgrade for the best downgrade
    ends       the two extreme allocations, the destruction, and the walk from both ends
    aims       the single-objective mode: one budget spent, or one accuracy reached
"""

from optllm_router.core.search.aims import reach_accuracy, spend_budget
from optllm_router.core.search.ends import SearchResult, destroy_repair

__all__ = ["SearchResult", "destroy_repair", "reach_accuracy", "spend_budget"]
