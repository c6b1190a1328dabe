"""The public scripted client."""

import asyncio
import time
from decimal import Decimal

import pytest

from optllm_router.completion.base import Answer
from optllm_router.errors import BudgetExceededError, ConfigError
from optllm_router.records import Capabilities, TokenPrice, Usage
from optllm_router.testing.scripted import Call, Line, ScriptedClient

ASKED = {"messages": [{"role": "user", "content": "12345678"}]}


def alone(script, **settings):
    client = ScriptedClient({"a": script}, **settings)
    return client, client.candidate("a")


def test_a_line_is_said_and_counted():
    client, a = alone(Line(text="one two"))

    response = client.complete(a, ASKED)

    assert response.choices[0].message.content == "one two"
    assert client.describe(response) == Answer(
        text="one two",
        usage=Usage(prompt_tokens=2, completion_tokens=2),
        response_id="scripted-1",
    )
    assert client.calls == [Call(candidate="a", arguments=ASKED)]


def test_lines_come_in_order_and_the_last_repeats():
    client, a = alone([Line(text="1"), Line(text="2")])

    texts = [client.complete(a, ASKED).choices[0].message.content for _ in range(3)]

    assert texts == ["1", "2", "2"]


def test_a_function_may_answer():
    client, a = alone(lambda arguments: Line(text=arguments["messages"][0]["content"][::-1]))

    assert client.complete(a, ASKED).choices[0].message.content == "87654321"


def test_errors_are_raised_and_say_whether_they_cost():
    free, dear = ValueError("no"), TimeoutError("slow")
    client, a = alone([Line(error=free), Line(error=dear, billed=True)])

    with pytest.raises(ValueError, match="no"):
        client.complete(a, ASKED)
    with pytest.raises(TimeoutError, match="slow"):
        asyncio.run(client.acomplete(a, ASKED))

    assert (client.maybe_billed(free), client.maybe_billed(dear)) == (False, True)


def test_usage_costs_and_cache_hits_are_part_of_the_script():
    usage = Usage(prompt_tokens=9, completion_tokens=3, cached_tokens=4, cache_write_tokens=2)
    client, a = alone([Line(usage=usage, cost_nusd=7, cache_hit=True), Line(reports_usage=False)])

    first = client.describe(client.complete(a, ASKED))
    second = client.describe(client.complete(a, ASKED))

    assert (first.usage, first.cost_nusd, first.cache_hit) == (usage, 7, True)
    assert (second.usage, second.cost_nusd, second.cache_hit) == (None, None, False)


def test_streams_come_word_by_word_with_a_usage_chunk_at_the_end():
    client, a = alone(Line(text="one two", tool_calls=[("f", "{}")]))
    arguments = {**ASKED, "stream": True}
    stream = client.complete(a, arguments)
    meter = client.meter(arguments, stream)

    chunks = list(stream)
    shown = [chunk for chunk in chunks if meter.add(chunk)]

    assert [c.choices[0].delta.content for c in shown] == ["", "one ", "two", None, None]
    assert shown[-1].choices[0].finish_reason == "tool_calls"
    assert (len(chunks), chunks[-1].choices) == (6, [])
    assert meter.answer().text == "one twof{}"
    assert meter.answer().usage == Usage(prompt_tokens=2, completion_tokens=3)


def test_streams_can_be_awaited_fail_midway_and_be_closed():
    client, a = alone([Line(text="a b c", error=OSError("cut"), error_after=2), Line(text="a b")])

    async def read(arguments):
        seen = []
        try:
            async for chunk in await client.acomplete(a, arguments):
                seen.append(chunk.choices[0].delta.content)  # noqa: PERF401  # it fails midway
        except OSError as error:
            seen.append(str(error))
        return seen

    assert asyncio.run(read({**ASKED, "stream": True})) == ["", "a ", "cut"]
    stream = client.complete(a, {**ASKED, "stream": True})
    next(stream)
    stream.close()
    assert stream.closed is True
    assert list(stream) == []
    asyncio.run(stream.aclose())


def test_a_stream_that_fails_at_once_fails_at_the_call():
    client, a = alone(Line(error=OSError("refused")))

    with pytest.raises(OSError, match="refused"):
        client.complete(a, {**ASKED, "stream": True})


def test_latencies_are_kept():
    client, a = alone(Line(text="x", latency_s=0.05))

    started = time.perf_counter()
    client.complete(a, ASKED)
    asyncio.run(client.acomplete(a, ASKED))

    assert time.perf_counter() - started >= 0.1


def test_candidates_have_the_prices_and_abilities_given():
    abilities = Capabilities(tools=False)
    client = ScriptedClient({}, prices={"a": (0.1, 2)}, capabilities={"a": abilities})

    a = client.candidate("a", {"name": "A", "max_output_tokens": 9, "arguments": {"seed": 1}})
    b = client.candidate("b")
    priced = client.candidate("b", {"input_usd_per_1m": 1, "output_usd_per_1m": 0})

    assert a.price == TokenPrice(input_per_1m=Decimal("0.1"), output_per_1m=Decimal(2))
    assert (a.name, a.capabilities, a.max_output_tokens) == ("A", abilities, 9)
    assert (b.name, b.price) == ("b", None)
    assert priced.price == TokenPrice(input_per_1m=Decimal(1), output_per_1m=Decimal(0))


def test_an_unscripted_candidate_is_a_clear_error():
    client = ScriptedClient({"a": Line()})

    with pytest.raises(ConfigError, match="the script has no candidate 'b': it has a"):
        client.complete(client.candidate("b"), ASKED)


def test_the_rest_of_the_protocol():
    client = ScriptedClient({})
    error = BudgetExceededError("no", budget="b", limit_usd=1, left_usd=0)
    client.warm_up()

    assert client.budget_error(error) is error
    assert (client.count_text(""), client.count_text("12345")) == (0, 2)
    assert (client.count_tokens([]), client.count_tokens(ASKED["messages"], [{"x": 1}])) == (1, 5)
