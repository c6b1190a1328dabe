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
