"""Every error this package raises, one root, each with its facts as attributes.

RouterError
├── ConfigError (ValueError)             a setting or an argument breaks a rule
│   └── UnpricedCandidateError           a candidate whose token price nobody knows
├── PolicyError                          the policy and the queries do not fit together
│   ├── InfeasiblePolicyError            no point of the front satisfies the policy
│   └── NoCandidateError                 a query that no candidate can serve
├── BudgetExceededError                  a hard budget refuses the call
├── NotTrainedError                      there is no predictor yet
├── ItemInterruptedError                 an item of a batch whose call an earlier run left behind
├── UnknownDecisionError (LookupError)   no such decision id or response id in the log
└── StoreError                           the log cannot be opened, read or written
    ├── BatchBusyError                   another process is working on this batch
    └── SchemaVersionError               the log's schema is not the one this code knows

A message gives the value, the rule it breaks and the way out. Provider failures are not here:
the caller gets the LiteLLM exception they would have got without us.
"""

from __future__ import annotations

from typing_extensions import override


class RouterError(Exception):
    """The root of all errors of this package; each survives being pickled, facts and all."""

    @override
    def __reduce__(self) -> tuple[object, ...]:
        # A class made at run time (the twin that LiteLLM's callers catch) comes back as its base.
        named = next(c for c in type(self).__mro__ if "<locals>" not in c.__qualname__)
        return _revived, (named, self.args, self.__dict__)


def _revived(
    error_class: type[RouterError], args: tuple[object, ...], facts: dict[str, object]
) -> RouterError:
    """Rebuild an error without its constructor, whose arguments are not the message."""
    error = error_class.__new__(error_class, *args)
    error.args = args
    error.__dict__.update(facts)
    return error


class ConfigError(RouterError, ValueError):
    """A setting or an argument breaks a rule; the message names it and the way out."""


class UnpricedCandidateError(ConfigError):
    """A candidate has no token price in the config or in LiteLLM's model map."""

    def __init__(self, candidate: str) -> None:
        """Build the message from the candidate's name."""
        super().__init__(
            f"candidate {candidate!r} has no token price: LiteLLM's local model map does not list "
            "it, and an unknown price is never taken for zero. Set `input_usd_per_1m` and "
            "`output_usd_per_1m` on the candidate (0 if it really is free)."
        )
        self.candidate = candidate


class PolicyError(RouterError):
    """The policy and the queries do not fit together."""


class InfeasiblePolicyError(PolicyError):
    """No point of the front satisfies the policy; carries the nearest feasible value."""

    def __init__(self, message: str, *, asked: float, nearest: float) -> None:
        """Keep the asked and the nearest feasible value beside the message."""
        super().__init__(message)
        self.asked = asked
        self.nearest = nearest


class NoCandidateError(PolicyError):
    """A query that no candidate can serve; carries the reasons per candidate."""

    def __init__(self, message: str, *, reasons: dict[str, str] | None = None) -> None:
        """Keep why each candidate was filtered out beside the message."""
        super().__init__(message)
        self.reasons = dict(reasons or {})


class BudgetExceededError(RouterError):
    """A hard budget refuses the call; no money was spent on it."""

    def __init__(self, message: str, *, budget: str, limit_usd: float, left_usd: float) -> None:
        """Keep the budget's name, its limit and what was left beside the message."""
        super().__init__(message)
        self.budget = budget
        self.limit_usd = limit_usd
        self.left_usd = left_usd


class NotTrainedError(RouterError):
    """There is no predictor yet; carries how many labels exist and how many are needed."""

    def __init__(self, message: str, *, n_labels: int = 0, min_labels: int = 0) -> None:
        """Keep the label counts beside the message."""
        super().__init__(message)
        self.n_labels = n_labels
        self.min_labels = min_labels


class ItemInterruptedError(RouterError):
    """An item of a batch that was being asked when an earlier run ended, and is not asked again."""

    def __init__(self, message: str, *, batch_id: str, item: int, decision_id: str) -> None:
        """Keep which item it is, and the decision of its lost call, beside the message."""
        super().__init__(message)
        self.batch_id = batch_id
        self.item = item
        self.decision_id = decision_id


class UnknownDecisionError(RouterError, LookupError):
    """No decision in the log has this id or this response id."""

    def __init__(self, reference: str) -> None:
        """Build the message from the reference that was looked up."""
        super().__init__(
            f"no decision in the log has the id or the response id {reference!r}: pass the "
            "response itself, its `_hidden_params['optllm']['decision_id']`, or its own `id`; "
            "`optllm history` lists the recent ones."
        )
        self.reference = reference


class StoreError(RouterError):
    """The log cannot be opened, read or written."""


class BatchBusyError(StoreError):
    """Another process is working on this batch; one at a time does."""

    def __init__(self, message: str, *, batch_id: str) -> None:
        """Keep the batch's name beside the message."""
        super().__init__(message)
        self.batch_id = batch_id


class SchemaVersionError(StoreError):
    """The log's schema is not the one this code knows; the message names the command to run."""

    def __init__(self, message: str, *, found: str | None, expected: str) -> None:
        """Keep the found and the expected revision beside the message."""
        super().__init__(message)
        self.found = found
        self.expected = expected
