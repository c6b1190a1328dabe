"""What an evaluation finds, as records: one run per router, seed and number of labels; a report."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from optllm_router.core.evaluation import Interval
from optllm_router.records import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A realised curve thinned out for drawing: total cost in USD and mean score, (n_drawn,)."""

    cost_usd: Floats
    score: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Reliability:
    """One candidate's bins of equal mass: mean probability, mean score and size, (n_bins,) each.

    `ece`, `brier` and `log_loss` are the candidate's own; NaN where they were not computed.
    """

    candidate: str
    prob: Floats
    score: Floats
    n: Floats
    ece: float = math.nan
    brier: float = math.nan
    log_loss: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One router on one split.

    `figures` holds every figure by its name in `FIGURES`; one that is not defined for the router is
    absent. `resampled` holds those of `RESAMPLED` under resampled test texts, (n_resamples,) each,
    NaN in a resample that leaves one undefined; the same resamples for every router of a split.
    """

    router: str
    n_labelled: int
    n_test: int
    seed: int
    figures: Mapping[str, float]
    resampled: Mapping[str, Floats]
    drawn: Drawn
    reliability: tuple[Reliability, ...] = ()
    seconds: float = 0.0
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One router at one number of labels, over all seeds.

    An interval's ends are NaN where a single run gives none. `against_zero` is the difference from
    the zero-router, of the headline figures, paired. `kinds` says per figure what an interval is
    over: "seeds and texts", which for one seed are its texts; "seeds"; or "none" where there is no
    interval. `against_kinds` says so of the differences.
    """

    router: str
    n_labelled: int
    n_seeds: int
    figures: Mapping[str, Interval]
    against_zero: Mapping[str, Interval]
    kinds: Mapping[str, str] = field(default_factory=dict)
    against_kinds: Mapping[str, str] = field(default_factory=dict)
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """How `ours` differs from another router, `router`, at one number of labels, over all seeds.

    `figures` are the paired differences of the headline figures, ours minus the other's; `kinds`
    are as in `Row`.
    """

    router: str
    n_labelled: int
    n_seeds: int
    figures: Mapping[str, Interval]
    kinds: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Single:
    """One candidate asked for every query: its mean score and its total cost."""

    candidate: str
    score: float
    cost_usd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraTable:
    """A table beside the figures, its cells written out: one title, one header, rows, a note."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """A whole evaluation of one table; `runs` are of every seed, `rows` sum them up.

    Per number of labels: `n_test` is the number of test queries, rounded where it differs between
    seeds, and `test_singles` are the candidates on the test parts, means over the seeds. `singles`
    are of the whole table. `ours_against` compares `ours` with every other router, where it ran.
    """

    source: str
    n_queries: int
    n_texts: int
    split: str
    costs: str
    n_seeds: int
    n_resamples: int
    n_test: Mapping[int, int]
    singles: tuple[Single, ...]
    test_singles: Mapping[int, tuple[Single, ...]]
    rows: tuple[Row, ...]
    runs: tuple[Run, ...]
    notes: tuple[str, ...] = field(default=())
    tables: tuple[ExtraTable, ...] = field(default=())
    ours_against: tuple[Against, ...] = field(default=())

    def rivals(self, n_labelled: int) -> tuple[Against, ...]:
        """Return the comparisons at one number of labels, for a table of them.

        None where there are only bounds to compare with: the zero-router, which has a table of its
        own, and the oracle.
        """
        found = tuple(one for one in self.ours_against if one.n_labelled == n_labelled)
        return found if {one.router for one in found} - {"zero", "oracle"} else ()


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
