"""What the demo found, as a record and as the JSON that `optllm demo --json` prints."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyResult:
    """One served batch: what was asked, what came of it, and the baseline on the same queries.

    `asked` is the policy's number: USD for `budget`, an accuracy in [0, 1] for `target_accuracy`.
    `n` counts all queries of the batch; one without an answer scores 0. `saving` is 1 minus cost
    over the cost of always asking the best single candidate, with a 95 % paired bootstrap interval.
    """

    policy: str
    asked: float
    n: int
    cost_usd: float
    accuracy: float
    saving: float
    saving_low: float
    saving_high: float
    baseline_cost_usd: float
    baseline_accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoReport:
    """The demo's results; `notes` are the remarks that were printed on the way.

    `best_single` is the candidate with the highest mean score in the probe (ties: the cheaper),
    `cheapest` the one with the lowest mean cost there. The probe's money stands apart from the
    batches'.
    """

    probe_cost_usd: float
    best_single: str
    cheapest: str
    policies: tuple[PolicyResult, ...]
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, object]:
        """Return the report as JSON values."""
        return {
            "probe_cost_usd": self.probe_cost_usd,
            "best_single": self.best_single,
            "cheapest": self.cheapest,
            "policies": [asdict(result) for result in self.policies],
        }
