"""Errors carry their facts, also through a pickle: pools and queues send them so."""

from __future__ import annotations

import pickle

import pytest

from optllm_router import errors
from optllm_router.completion.litellm_client import LiteLLMClient

ALL = [
    errors.RouterError("plain"),
    errors.ConfigError("wrong"),
    errors.UnpricedCandidateError("a"),
    errors.PolicyError("no"),
    errors.InfeasiblePolicyError("no point", asked=1.0, nearest=0.5),
    errors.NoCandidateError("nobody", reasons={"a": "it cannot see images"}),
    errors.BudgetExceededError("spent", budget="batch", limit_usd=1.0, left_usd=0.1),
    errors.NotTrainedError("unfit", n_labels=3, min_labels=50),
    errors.ItemInterruptedError("left behind", batch_id="b", item=3, decision_id="d1"),
    errors.UnknownDecisionError("d1"),
    errors.StoreError("down"),
    errors.BatchBusyError("taken", batch_id="b"),
    errors.SchemaVersionError("newer", found="9", expected="1"),
]


@pytest.mark.parametrize("error", ALL, ids=lambda error: type(error).__name__)
def test_an_error_survives_a_pickle_with_message_and_facts(error: errors.RouterError):
    again = pickle.loads(pickle.dumps(error))

    assert type(again) is type(error)
    assert str(again) == str(error)
    assert vars(again) == vars(error)


def test_the_budget_error_that_callers_get_comes_back_as_ours():
    error = LiteLLMClient().budget_error(
        errors.BudgetExceededError("spent", budget="batch", limit_usd=1.0, left_usd=0.1)
    )

    again = pickle.loads(pickle.dumps(error))

    assert type(again) is errors.BudgetExceededError
    assert (str(again), again.budget, again.left_usd) == ("spent", "batch", 0.1)


def test_every_class_of_the_tree_is_tested_here():
    tree = [each for each in vars(errors).values() if isinstance(each, type)]

    assert {type(error) for error in ALL} == {
        each for each in tree if issubclass(each, errors.RouterError)
    }
