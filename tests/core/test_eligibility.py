"""Who can serve a query: only what is known filters."""

import pytest

from optllm_router.core.eligibility import reason_against
from optllm_router.records import Candidate, Capabilities, Query

DEMANDING = Query(
    text="",
    n_prompt_tokens=1_000,
    n_tools=1,
    n_images=1,
    wants_json_schema=True,
    parameters=frozenset({"seed", "logprobs"}),
)


def against(query=DEMANDING, **known):
    candidate = Candidate(name="a", model="a", price=None, capabilities=Capabilities(**known))
    return reason_against(candidate, query)


def test_unknown_capabilities_do_not_filter():
    assert against() is None


def test_known_and_sufficient_capabilities_do_not_filter():
    parameters = frozenset({"seed", "logprobs", "top_p"})

    assert (
        against(
            context_window=1_301, tools=True, vision=True, json_schema=True, parameters=parameters
        )
        is None
    )


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        ({"context_window": 999}, "the prompt has about 1000 tokens, its window is 999"),
        (
            {"context_window": 1_300},
            (
                "the prompt has about 1000 tokens, which may leave no room for an answer in its "
                "window of 1300 (set `max_tokens` to try all the same)"
            ),
        ),
        ({"tools": False}, "it cannot call tools"),
        ({"vision": False}, "it cannot see images"),
        ({"json_schema": False}, "it cannot follow a JSON schema"),
        ({"parameters": frozenset({"seed"})}, "it does not support `logprobs`"),
        ({"parameters": frozenset()}, "it does not support `logprobs`, `seed`"),
    ],
)
def test_a_missing_capability_is_named(known, reason):
    assert reason == against(**known)


def test_a_plain_query_needs_nothing():
    plain = Query(text="", n_prompt_tokens=5)

    assert (
        against(plain, tools=False, vision=False, json_schema=False, parameters=frozenset()) is None
    )
