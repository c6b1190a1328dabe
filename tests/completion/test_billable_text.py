"""What is billed of an answer whose provider reports no usage, and what is graded of it."""

import litellm
import pytest

from optllm_router.completion.base import Answer
from optllm_router.completion.metering import describe_response
from optllm_router.dispatch.billing import bill
from optllm_router.records import Query
from optllm_router.testing.scripted import ScriptedClient

QUERY = Query(text="", task="", n_prompt_tokens=10)


def response(*messages, **usage):
    choices = [{"index": i, "message": message} for i, message in enumerate(messages)]
    return {"id": "r", "choices": choices, "usage": usage}


THOUGHT = {"role": "assistant", "content": "four", "reasoning_content": "two and two"}
OTHER = {"role": "assistant", "content": "five"}


def test_without_usage_reasoning_and_all_choices_are_billable_and_the_first_is_the_text():
    assert describe_response(response(THOUGHT, OTHER)) == Answer(
        text="four", usage=None, response_id="r", billable_text="two and twofourfive"
    )
    assert describe_response(response(OTHER)).billable_text is None
    assert describe_response(response(THOUGHT, prompt_tokens=1)).billable_text is None


@pytest.mark.parametrize(("messages", "n_tokens"), [((THOUGHT,), 4), ((OTHER,) * 8, 8)])
def test_the_bill_counts_all_that_is_billable(messages, n_tokens):
    client = ScriptedClient({"m": []}, prices={"m": (1, 2)})
    candidate = client.candidate("m")

    billed = bill(client, candidate, QUERY, client.describe(as_litellm(response(*messages))))

    assert (10, n_tokens, True) == (
        billed.usage.prompt_tokens,
        billed.usage.completion_tokens,
        billed.estimated,
    )
    assert 10 * 1_000 + n_tokens * 2_000 == billed.cost_nusd


def as_litellm(found):
    answer = litellm.ModelResponse(id="r", choices=found["choices"])
    answer._hidden_params = {}
    return answer
