"""The Pareto front of total cost against mean accuracy over every way to answer a batch.

Choosing one column per query under a total cost is the multiple-choice knapsack. Its LP relaxation
is solved for every budget at once by one sort (Sinha & Zoltners, Operations Research 27(3), 1979):
take each query's upper-left convex hull in the plane of cost and probability, and merge all hull
segments by slope, the steepest first. The rooms, in the order in which data passes through them:

    checks    the arrays at the edge, once
    hulls     each query's hull, as vertices from its cheapest column on
    chain     all steps merged by slope, and the cost and accuracy after each
    fill      what the money left at a point still buys, one query at a time
    pareto    the face: `pareto_front` and the `ParetoFront` that it returns
"""

from optllm_router.core.front.pareto import TOLERANCE, ParetoFront, pareto_front

__all__ = ["TOLERANCE", "ParetoFront", "pareto_front"]
