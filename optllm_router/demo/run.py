"""`optllm demo`: the whole loop through the real Router, from nothing learned to money saved.

Probe a small sample, fit, look at the front, serve a batch under a budget, grade it, learn from
it, serve a second batch under a target accuracy, and compare both with always asking the best
single candidate. What the comparison needs is read only after a batch was served.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.text import Text

from optllm_router.completion.base import Response
from optllm_router.config import make_config
from optllm_router.core.planning import Plan
from optllm_router.core.policy import Budget, Cheapest, Fixed, Policy, TargetAccuracy
from optllm_router.demo import database
from optllm_router.demo.comparing import ServedBatch, cheapest_row, compare, table_rows
from optllm_router.demo.draw import Mark, draw_front, policy_table, usd
from optllm_router.demo.report import DemoReport, PolicyResult
from optllm_router.demo.worlds import Request, World, open_world
from optllm_router.errors import ConfigError, InfeasiblePolicyError
from optllm_router.records import Floats, Ints
from optllm_router.router import Router

PROBE_SHARE, MIN_PROBE = 0.03, 45
BUDGET_SHARE = 0.4  # of what always asking the best single candidate is forecast to cost
MIN_QUERIES = 30
CONCURRENCY = 16


def run_demo(
    *,
    outcomes: str | Path | None = None,
    limit: int | None = None,
    seed: int = 0,
    db: str | Path = "optllm-demo.db",
    console: Console | None = None,
) -> DemoReport:
    """Run the loop and return what it found; the story is printed as it happens.

    Args:
        outcomes: A file of recorded outcomes to replay; None runs the simulation.
        limit: Take only so many queries, at random by `seed`; None takes all.
        seed: Seed of questions, simulated answers and draws.
        db: The SQLite file to leave behind. What an earlier demo left there is replaced.
        console: Where the story goes; None is standard error.

    Raises: ConfigError when there are fewer than 30 queries, or when `db` holds somebody's log.
    """
    console = console or Console(stderr=True)
    _check_enough(MIN_QUERIES if limit is None else limit)
    with open_world(outcomes, limit=limit, seed=seed) as world:
        _check_enough(len(world.texts))
        with database.claimed(Path(db)) as url, _router(world, url) as router:
            report = _Run(world=world, router=router, console=console, seed=seed).report()
    left = escape(str(db))
    console.print(
        f"\nEverything is in the log [bold]{left}[/]; read it with\n"
        f"  optllm history --db {left}\n  optllm front --db {left}"
    )
    return report


def _check_enough(n_queries: int) -> None:
    if n_queries < MIN_QUERIES:
        raise ConfigError(
            f"{n_queries} queries are too few: the demo needs at least {MIN_QUERIES}, to probe "
            "some and to serve two batches of the rest. Raise `--limit` or take a larger table."
        )


def _router(world: World, url: str) -> Router:
    config = make_config(
        candidates=world.candidates,
        default=world.default,
        store=url,
        graders={"default": {"kind": "callable", "function": world.grader}},
        retrain={"enabled": False},  # the demo refits at steps of its own, for all to see
    )
    return Router(config=config, client=world.client)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Probe:
    """What the probe found, as far as later steps need it; means per candidate."""

    best: str
    cheapest: str
    cost_usd: float
    accuracy: dict[str, float]
    mean_cost_usd: dict[str, float]


@dataclass(slots=True, kw_only=True)
class _Run:
    """One run of the loop; the methods stand in the order in which they are called."""

    world: World
    router: Router
    console: Console
    seed: int
    notes: list[str] = field(default_factory=list)

    def report(self) -> DemoReport:
        """Run all steps."""
        self._say(f"[bold]{escape(self.world.described)}[/]")
        sample, first, second = self._split()
        probe = self._probe(sample)
        self._learn("2. Fit")
        budget = self._compared(self._budget_batch(first, probe), probe)
        self._learn("4. Learn from the graded answers of that batch")
        target = self._compared(self._target_batch(second, probe), probe)
        return DemoReport(
            probe_cost_usd=probe.cost_usd,
            best_single=probe.best,
            cheapest=probe.cheapest,
            policies=(budget, target),
            notes=tuple(self.notes),
        )

    def _split(self) -> tuple[Ints, Ints, Ints]:
        """Split the queries, which are in random order: the probe's sample, then two halves."""
        n = len(self.world.texts)
        n_probe = min(max(MIN_PROBE, math.ceil(PROBE_SHARE * n)), n // 3)
        half = n_probe + (n - n_probe) // 2
        rows = np.arange(n)
        return rows[:n_probe], rows[n_probe:half], rows[half:]

    def _probe(self, rows: Ints) -> _Probe:
        self._step(
            f"1. Probe: {rows.size:,} of {len(self.world.texts):,} queries go to each of "
            f"{len(self.world.candidates)} candidates, and every answer is graded"
        )
        report = self.router.probe(
            self._requests(rows),
            concurrency=CONCURRENCY,
            progress=self.console.is_terminal,
        )
        cost, accuracy = dict(report.mean_cost_usd), dict(report.mean_score)
        probe = _Probe(
            best=max(accuracy, key=lambda name: (accuracy[name], -cost[name])),
            cheapest=min(cost, key=lambda name: cost[name]),
            cost_usd=report.cost_usd,
            accuracy=accuracy,
            mean_cost_usd=cost,
        )
        self._say(f"{report.n_calls:,} calls for {usd(report.cost_usd)}, apart from the batches.")
        for role, name in (("Best single", probe.best), ("Cheapest", probe.cheapest)):
            self._say(f"{role} candidate there: {escape(name)}, accuracy {accuracy[name]:.3f}.")
        return probe

    def _learn(self, title: str) -> None:
        self._step(title)
        report = self.router.retrain()
        verdict = "published" if report.published else f"kept the old one: {report.reason}"
        self._say(f"A predictor from {report.n_labels:,} graded answers: {escape(verdict)}.")

    def _budget_batch(self, rows: Ints, probe: _Probe) -> ServedBatch:
        requests = self._requests(rows)
        best = self.router.plan(requests, policy=Fixed(probe.best)).expected_cost_usd
        least = self.router.plan(requests, policy=Cheapest()).expected_cost_usd
        asked = _rounded_up(max(BUDGET_SHARE * best, 1.1 * least))
        self._step(f"3. A batch of {rows.size:,} queries under a budget of {usd(asked)}")
        self._say(
            f"Forecasts: always {escape(probe.best)} {usd(best)}, the cheapest allocation "
            f"{usd(least)}."
        )
        return self._served(rows, Budget(asked, per="batch"), "budget", asked, probe)

    def _target_batch(self, rows: Ints, probe: _Probe) -> ServedBatch:
        asked = probe.accuracy[probe.best]
        self._step(f"5. A batch of {rows.size:,} queries under a target accuracy of {asked:.3f}")
        self._say(f"That is what {escape(probe.best)} reached in the probe.")
        policy = self._promisable(rows, _target(asked))
        return self._served(rows, policy, "target_accuracy", asked, probe)

    def _promisable(self, rows: Ints, target: TargetAccuracy) -> Policy:
        """Return the target, or the highest one that the front of these queries can promise."""
        try:
            self.router.plan(self._requests(rows), policy=target)
        except InfeasiblePolicyError as error:
            self._note(
                f"The front cannot promise an accuracy of {target.accuracy:.3f} on this batch; "
                f"the highest it can promise is {error.nearest:.3f}, so that is aimed at instead."
            )
            return _target(error.nearest)
        return target

    def _served(
        self, rows: Ints, policy: Policy, name: str, asked: float, probe: _Probe
    ) -> ServedBatch:
        """Serve a batch through the Router, which grades every answer as it is configured."""
        requests = [each | {"tags": [f"demo:{name}"]} for each in self._requests(rows)]
        self._draw(self.router.plan(requests, policy=policy), name, probe)
        responses = self.router.complete_batch(
            requests,
            policy=policy,
            concurrency=CONCURRENCY,
            progress=self.console.is_terminal,
        )
        self.router.flush()  # grading runs in the background
        score, cost = self._logged(responses, f"demo:{name}")
        self._remark_failures(responses)
        return ServedBatch(policy=name, asked=asked, rows=rows, score=score, cost_usd=cost)

    def _logged(self, responses: Sequence[Response], tag: str) -> tuple[Floats, Floats]:
        """Read off the log what each answer scored and cost; zeros where there is no answer."""
        logged = self.router.history.decisions(tag=tag, limit=len(responses))
        found = {each.decision_id: (each.score or 0.0, each.cost_usd) for each in logged}
        pairs = [
            (0.0, 0.0)
            if isinstance(response, BaseException)
            else found[response._hidden_params["optllm"]["decision_id"]]  # noqa: SLF001  # the face
            for response in responses
        ]
        score, cost = np.array(pairs, dtype=np.float64).T
        return score, cost

    def _draw(self, plan: Plan, name: str, probe: _Probe) -> None:
        n = plan.choice.size
        marks = [
            Mark(name=each, cost_usd=n * cost, accuracy=probe.accuracy[each])
            for each, cost in sorted(probe.mean_cost_usd.items(), key=lambda item: item[1])
        ]
        current = Mark(
            name=f"where `{name}` stands",
            cost_usd=plan.expected_cost_usd,
            accuracy=plan.expected_accuracy,
        )
        front = plan.front.cost_usd, np.maximum.accumulate(plan.honest_accuracy)
        self.console.print(Text(f"\n{draw_front(*front, marks=marks, current=current)}"))
        self._say("[dim](the front as forecast for this batch, candidates as in the probe)[/]")

    def _remark_failures(self, responses: Sequence[Response]) -> None:
        failures = [each for each in responses if isinstance(each, BaseException)]
        if failures:
            self._note(
                f"{len(failures):,} of {len(responses):,} queries got no answer and score 0; the "
                f"first error: {type(failures[0]).__name__}: {failures[0]}"
            )

    def _compared(self, batch: ServedBatch, probe: _Probe) -> PolicyResult:
        result = compare(batch, self.world, best=probe.best, seed=self.seed)
        least = cheapest_row(
            batch, self.world, best=probe.best, cheapest=probe.cheapest, seed=self.seed
        )
        rows = table_rows(result, best=probe.best, cheapest=least)
        self.console.print()
        self.console.print(policy_table(f"{batch.rows.size:,} queries, served and graded", rows))
        self._say(f"[dim]{escape(self.world.truth_described)}[/]")
        return result

    def _requests(self, rows: Ints) -> list[Request]:
        return [self.world.request(row) for row in rows]

    def _step(self, title: str) -> None:
        self.console.print(f"\n[bold cyan]{escape(title)}[/]")

    def _say(self, text: str) -> None:
        self.console.print(text)

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.console.print(f"[yellow]{escape(text)}[/]")


def _target(accuracy: float) -> TargetAccuracy:
    return TargetAccuracy(min(max(accuracy, 1e-6), 1.0))  # where nobody is ever right


def _rounded_up(amount: float) -> float:
    """Round an amount up to three significant digits: a budget that people can read."""
    if amount <= 0:
        return 1e-9
    digits = 2 - math.floor(math.log10(amount))
    return math.ceil(amount * 10.0**digits) / 10.0**digits
