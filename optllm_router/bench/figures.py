"""The figures of an evaluation: what tables call each, what it means, which way is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """What a figure is called in tables, what it means, and in which direction it is better."""

    name: str
    label: str
    unit: str
    better: str
    meaning: str


FIGURES: Mapping[str, Figure] = {
    figure.name: figure
    for figure in (
        Figure(
            name="saving_crossfit",
            label="saving, cross-fitted",
            unit="share",
            better="higher",
            meaning="cost saved at the best candidate's score less .005, the point picked on one "
            "half of the test texts and read off on the other",
        ),
        Figure(
            name="shortfall_crossfit",
            label="its shortfall",
            unit="score",
            better="lower",
            meaning="how far that point is below the best candidate's score on the other half",
        ),
        Figure(
            name="saving_at_best",
            label="saving at best",
            unit="share",
            better="higher",
            meaning="cost saved at the best candidate's score, the point picked in hindsight",
        ),
        Figure(
            name="max_accuracy",
            label="highest score",
            unit="score",
            better="higher",
            meaning="highest realised mean score on the curve",
        ),
        Figure(
            name="budget_area",
            label="budget area",
            unit="score",
            better="higher",
            meaning="mean realised score over 40 budgets between the cheapest candidate's cost and "
            "the best one's",
        ),
        Figure(
            name="overspend",
            label="overspend",
            unit="share",
            better="lower",
            meaning="by how much the points that the forecast picks for these budgets exceed them",
        ),
        Figure(
            name="target_shortfall",
            label="target: shortfall",
            unit="score",
            better="lower",
            meaning="TargetAccuracy(best on the labelled part): the best candidate's score minus "
            "the realised score",
        ),
        Figure(
            name="target_missed",
            label="target: missed by",
            unit="score",
            better="lower",
            meaning="TargetAccuracy(best on the labelled part): the asked minus the realised score",
        ),
        Figure(
            name="target_saving",
            label="target: saving",
            unit="share",
            better="higher",
            meaning="TargetAccuracy(best on the labelled part): cost saved against the best",
        ),
        Figure(
            name="budget_score",
            label="budget: score",
            unit="score",
            better="higher",
            meaning="Budget at 5 amounts between the cheapest and the best candidate's labelled "
            "mean cost: realised mean score",
        ),
        Figure(
            name="budget_overspend",
            label="budget: overspend",
            unit="share",
            better="lower",
            meaning="Budget at these amounts: mean share by which the realised cost exceeds them",
        ),
        Figure(
            name="ece",
            label="ECE",
            unit="score",
            better="lower",
            meaning="expected calibration error, 15 bins of equal mass, mean over the candidates",
        ),
        Figure(
            name="ece_pooled",
            label="ECE, pooled",
            unit="score",
            better="lower",
            meaning="the same over the probabilities of all candidates together",
        ),
        Figure(
            name="brier",
            label="Brier score",
            unit="score",
            better="lower",
            meaning="mean squared error of the probabilities, pooled",
        ),
        Figure(
            name="log_loss",
            label="log loss",
            unit="nat",
            better="lower",
            meaning="mean negative log likelihood of the scores, pooled",
        ),
        Figure(
            name="cost_error",
            label="cost forecast error",
            unit="share",
            better="lower",
            meaning="total forecast cost over total cost of every candidate, minus 1, absolute",
        ),
        Figure(
            name="cost_error_per_query",
            label="cost error per query",
            unit="USD",
            better="lower",
            meaning="mean absolute error of a query's forecast cost",
        ),
        Figure(
            name="aiq",
            label="AIQ",
            unit="score",
            better="higher",
            meaning="mean height of the non-decreasing hull of the realised curve, from the "
            "cheapest to the dearest candidate's cost; before its first point score x cost / its "
            "cost",
        ),
        Figure(
            name="qnc",
            label="QNC",
            unit="share",
            better="lower",
            meaning="least cost, relative to the best candidate's, that matches its score",
        ),
        Figure(
            name="igd",
            label="IGD",
            unit="distance",
            better="lower",
            meaning="mean distance from the exact front of the true outcomes, axes normalised",
        ),
        Figure(
            name="igd_plus",
            label="IGD+",
            unit="distance",
            better="lower",
            meaning="the same, counting only what is worse",
        ),
        Figure(
            name="hypervolume",
            label="hypervolume",
            unit="area",
            better="higher",
            meaning="area that the realised curve dominates, axes normalised",
        ),
        Figure(
            name="spread",
            label="spread",
            unit="ratio",
            better="lower",
            meaning="Deb's delta: how unevenly the points lie",
        ),
    )
}
HEADLINE = (
    "saving_crossfit",
    "shortfall_crossfit",
    "saving_at_best",
    "max_accuracy",
    "budget_area",
    "overspend",
)
"""The figures of a realised curve that an evaluation is read by."""

COMPARED = ("budget_area", "saving_at_best", "max_accuracy")
"""The headline figures that a table of ours against every other router shows."""

RESAMPLED = (
    *HEADLINE,
    "target_shortfall",
    "target_missed",
    "target_saving",
    "budget_score",
    "budget_overspend",
)
"""The figures that are resampled, and have intervals over seeds and test texts."""
