"""`ChatOptLLM` and langchain-litellm's `ChatLiteLLMRouter` over a real Router and real HTTP."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from optllm_router import Budget, ConfigError, MostAccurate, Router
from optllm_router.testing.openai_server import FakeOpenAIServer, Reply, ToolCall, in_order

pytest.importorskip("langchain_core")

from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate

from optllm_router.integrations.langchain import ChatOptLLM

pytestmark = [
    # LiteLLM drops its OpenAI clients with their connections open, and the event loop that it made
    # when it was imported; both are noticed at any later time.
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:unclosed event loop:ResourceWarning"),
]

SERVED = "openai/house-blend"
USAGE = {
    "input_tokens": 10,
    "output_tokens": 20,
    "total_tokens": 30,
    "input_token_details": {"cache_read": 4, "cache_creation": 0},
    "output_token_details": {"reasoning": 0},
}
COUNTED = {"prompt_tokens": 10, "completion_tokens": 20, "cached_tokens": 4}
FOUR = Reply(text="The answer is four.", **COUNTED)
CALL = ToolCall(name="weather", arguments='{"city": "Šibenik"}', id="call_7")


class Weather(BaseModel):
    """The weather in a city."""

    city: str
    celsius: float


def weather(city: str) -> str:
    """Look up the weather in a city."""
    return f"sunny in {city}"


@pytest.fixture
def routed(tmp_path: Path) -> Iterator[Callable[..., tuple[ChatOptLLM, FakeOpenAIServer]]]:
    """Start a server that gives these replies in order, and a chat model that asks it."""
    open_ones: list[Any] = []

    def start(*replies: Reply, **fields: Any) -> tuple[ChatOptLLM, FakeOpenAIServer]:
        server = FakeOpenAIServer(in_order(*replies)).start()
        router = Router(
            candidates=[
                {
                    "model": SERVED,
                    "api_base": server.url,
                    "input_usd_per_1m": 1,
                    "output_usd_per_1m": 2,
                    "arguments": {"api_key": "sk-test", "max_retries": 0},
                }
            ],
            store=f"sqlite:///{tmp_path}/log.db",
        )
        open_ones.extend((server.stop, router.close))
        return ChatOptLLM(router=router, **fields), server

    yield start
    for close in reversed(open_ones):
        close()


def facts(message: BaseMessage) -> dict[str, Any]:
    return message.response_metadata["optllm"]


def joined(chunks: list[AIMessageChunk]) -> AIMessageChunk:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    return whole


def attempt_of(llm: ChatOptLLM, message: BaseMessage) -> Any:
    (attempt,) = llm.router.history.decision(facts(message)["decision_id"]).attempts
    return attempt


def check_four(message: BaseMessage) -> None:
    """Hold a whole answer, streamed or not, against what the server said."""
    assert isinstance(message, AIMessage)
    assert "The answer is four." == message.content
    assert USAGE == message.usage_metadata
    assert SERVED == message.response_metadata["model_name"]
    assert "stop" == message.response_metadata["finish_reason"]
    assert SERVED == facts(message)["candidate"]


def test_invoke_returns_the_answer_with_usage_and_the_routers_facts(routed) -> None:
    llm, server = routed(FOUR)

    message = llm.invoke("What is 2 + 2?")

    check_four(message)
    assert "not fitted: 0/50 labels" == facts(message)["reason"]
    (seen,) = server.requests
    assert [{"role": "user", "content": "What is 2 + 2?"}] == seen.body["messages"]


async def test_ainvoke_returns_the_same(routed) -> None:
    llm, _ = routed(FOUR)

    check_four(await llm.ainvoke("What is 2 + 2?"))


def test_a_stream_adds_up_to_the_answer_and_its_usage_comes_last(routed) -> None:
    llm, _ = routed(FOUR)

    chunks = list(llm.stream("What is 2 + 2?"))

    check_four(joined(chunks))
    assert ["The ", "answer ", "is ", "four."] == [c.content for c in chunks if c.content]
    assert [chunks[-1]] == [chunk for chunk in chunks if chunk.usage_metadata]
    attempt = attempt_of(llm, chunks[0])
    assert ("ok", 10, 20) == (attempt.status, attempt.prompt_tokens, attempt.completion_tokens)


async def test_an_async_stream_adds_up_to_the_same(routed) -> None:
    llm, _ = routed(FOUR)

    chunks = [chunk async for chunk in llm.astream("What is 2 + 2?")]

    check_four(joined(chunks))
    assert [chunks[-1]] == [chunk for chunk in chunks if chunk.usage_metadata]
    assert "ok" == attempt_of(llm, chunks[0]).status


def test_a_batch_keeps_its_order_and_errors_stand_in_place(routed) -> None:
    llm, server = routed(FOUR)
    server._respond = lambda body: Reply(
        text=body["messages"][-1]["content"], status=400 if "bad" in str(body) else 200
    )

    first, bad, last = llm.batch(["one", "bad", "two"], return_exceptions=True)

    assert ("one", "two") == (first.content, last.content)
    assert "BadRequestError" == type(bad).__name__
    assert "error" == bad.optllm_attempts[0].status


async def test_an_async_batch_keeps_its_order(routed) -> None:
    llm, server = routed(FOUR)
    server._respond = lambda body: Reply(text=body["messages"][-1]["content"])

    assert ["one", "two"] == [m.content for m in await llm.abatch(["one", "two"])]


def test_a_chain_of_prompt_model_and_parser_works(routed) -> None:
    llm, server = routed(FOUR)
    prompt = ChatPromptTemplate([("system", "Be brief."), ("human", "What is {sum}?")])

    answer = (prompt | llm | StrOutputParser()).invoke({"sum": "2 + 2"})

    assert "The answer is four." == answer
    roles = [message["role"] for message in server.requests[0].body["messages"]]
    assert ["system", "user"] == roles


def test_the_callbacks_see_every_token_and_the_usage_per_model(routed) -> None:
    llm, _ = routed(FOUR)
    usage, tokens = UsageMetadataCallbackHandler(), []

    class Tokens(BaseCallbackHandler):
        def on_llm_new_token(self, token: str, **kwargs: Any) -> None:
            tokens.append(token)

    list(llm.stream("What is 2 + 2?", config={"callbacks": [Tokens(), usage]}))

    assert "The answer is four." == "".join(tokens)
    assert {SERVED: USAGE} == usage.usage_metadata


def test_invoke_streams_inside_where_the_model_says_so(routed) -> None:
    llm, server = routed(FOUR, streaming=True)

    check_four(llm.invoke("What is 2 + 2?"))

    assert server.requests[0].body["stream"]


def test_the_hooks_tell_a_run_manager_of_every_token(routed) -> None:
    llm, _ = routed(FOUR)
    seen = []

    class Manager:
        def on_llm_new_token(self, token: str, *, chunk: Any) -> None:
            seen.append((token, chunk.message.content))

    pieces = list(llm._stream([HumanMessage("What is 2 + 2?")], run_manager=Manager()))

    assert [(piece.text, piece.text) for piece in pieces[:-1]] == seen
    assert "The answer is four." == "".join(text for text, _ in seen)


def test_feedback_is_given_by_the_messages_decision_id(routed) -> None:
    llm, _ = routed(FOUR)
    invoked, streamed = llm.invoke("2 + 2?"), joined(list(llm.stream("2 + 2?")))

    for message, score in ((invoked, 1.0), (streamed, 0.25)):
        assert llm.router.feedback(facts(message)["decision_id"], score=score)

    scores = [
        llm.router.history.decision(facts(message)["decision_id"]).score
        for message in (invoked, streamed)
    ]
    assert [1.0, 0.25] == scores


def test_an_abandoned_stream_is_billed_for_what_arrived(routed) -> None:
    llm, _ = routed(Reply(text="word " * 200, chunk_delay_s=0.01))

    stream = llm.stream("Tell me a long story.")
    arrived = [next(stream) for _ in range(5)]
    stream.close()

    attempt = attempt_of(llm, arrived[0])
    assert "abandoned" == attempt.status
    assert attempt.estimated
    assert 0 < attempt.completion_tokens < 100
    assert attempt.cost_usd > 0


async def test_an_abandoned_async_stream_is_billed_for_what_arrived(routed) -> None:
    llm, _ = routed(Reply(text="word " * 200, chunk_delay_s=0.01))

    stream = llm.astream("Tell me a long story.")
    arrived = [await anext(stream) for _ in range(5)]
    await stream.aclose()
    for _ in range(200):  # LangChain leaves our generator to the event loop's own finaliser
        if attempt_of(llm, arrived[0]).status != "open":
            break
        await asyncio.sleep(0.01)

    attempt = attempt_of(llm, arrived[0])
    assert "abandoned" == attempt.status
    assert attempt.cost_usd > 0


def test_a_bound_tool_is_offered_and_its_call_comes_back(routed) -> None:
    llm, server = routed(Reply(tool_calls=[CALL], **COUNTED))

    message = llm.bind_tools([weather]).invoke("How is the weather in Šibenik?")

    (call,) = message.tool_calls
    assert ("weather", {"city": "Šibenik"}, "call_7") == (call["name"], call["args"], call["id"])
    assert "tool_calls" == message.response_metadata["finish_reason"]
    (seen,) = server.requests
    assert ["weather"] == [tool["function"]["name"] for tool in seen.body["tools"]]
    assert "tool_choice" not in seen.body


def test_a_streamed_tool_call_comes_back_whole(routed) -> None:
    llm, _ = routed(Reply(tool_calls=[CALL, ToolCall(name="weather", id="call_8")]))

    chunks = list(llm.bind_tools([weather]).stream("How is the weather in Šibenik?"))

    assert any(chunk.tool_call_chunks for chunk in chunks)
    calls = [(call["args"], call["id"]) for call in joined(chunks).tool_calls]
    assert [({"city": "Šibenik"}, "call_7"), ({}, "call_8")] == calls


def test_a_tools_result_goes_back_to_the_llm(routed) -> None:
    llm, server = routed(Reply(tool_calls=[CALL]), Reply(text="Sunny."))
    question = HumanMessage("How is the weather?")
    bound = llm.bind_tools([weather])
    asked = bound.invoke([SystemMessage("Use tools."), question])

    said = bound.invoke([question, asked, ToolMessage("sunny", tool_call_id="call_7")])

    assert "Sunny." == said.content
    _, call, result = server.requests[-1].body["messages"]
    assert "weather" == call["tool_calls"][0]["function"]["name"]
    assert {"city": "Šibenik"} == json.loads(call["tool_calls"][0]["function"]["arguments"])
    assert ("tool", "call_7", "sunny") == (
        result["role"],
        result["tool_call_id"],
        result["content"],
    )


@pytest.mark.parametrize("arguments", ["{'city': no}", "[1]"])
def test_tool_arguments_that_are_no_object_are_kept_as_an_invalid_call(routed, arguments) -> None:
    llm, _ = routed(Reply(tool_calls=[ToolCall(name="weather", arguments=arguments)]))

    message = llm.bind_tools([weather]).invoke("How is the weather?")

    assert [] == message.tool_calls
    assert [arguments] == [call["args"] for call in message.invalid_tool_calls]


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        ("any", "required"),
        (True, "required"),
        ("auto", "auto"),
        ("weather", {"type": "function", "function": {"name": "weather"}}),
        (None, None),
        (False, None),
    ],
)
def test_tool_choices_are_sent_in_openais_words(routed, asked: Any, sent: Any) -> None:
    llm, server = routed(Reply(tool_calls=[CALL]))

    llm.bind_tools([weather], tool_choice=asked).invoke("How is the weather?")

    assert sent == server.requests[0].body.get("tool_choice")


def test_a_tool_choice_that_names_no_tool_is_an_error(routed) -> None:
    llm, server = routed(FOUR)

    with pytest.raises(ConfigError, match=r"`tool_choice='wether'` names none of the tools"):
        llm.bind_tools([weather], tool_choice="wether")

    assert [] == server.requests


def test_structured_output_by_a_forced_tool_call(routed) -> None:
    text = '{"city": "Split", "celsius": 31.5}'
    llm, server = routed(Reply(tool_calls=[ToolCall(name="Weather", arguments=text)]))

    found = llm.with_structured_output(Weather).invoke("How is the weather in Split?")

    assert Weather(city="Split", celsius=31.5) == found
    assert "required" == server.requests[0].body["tool_choice"]
    assert not [name for name in server.requests[0].body if name.startswith("ls_")]


@pytest.mark.parametrize("stream", [False, True])
def test_structured_output_by_json_schema(routed, stream: bool) -> None:
    llm, server = routed(Reply(text='{"city": "Split", "celsius": 31.5}'))
    structured = llm.with_structured_output(Weather, method="json_schema", strict=True)

    if stream:
        *_, found = structured.stream("How is the weather in Split?")
    else:
        found = structured.invoke("How is the weather in Split?")

    assert Weather(city="Split", celsius=31.5) == found
    wanted = server.requests[0].body["response_format"]
    assert ("json_schema", "Weather", True) == (
        wanted["type"],
        wanted["json_schema"]["name"],
        wanted["json_schema"]["strict"],
    )
    assert {"city", "celsius"} == set(wanted["json_schema"]["schema"]["properties"])


@pytest.mark.parametrize("method", ["function_calling", "json_schema"])
async def test_a_schema_that_is_a_dict_gives_dicts(routed, method: str) -> None:
    text = '{"city": "Split", "celsius": 31.5}'
    if method == "json_schema":
        llm, _ = routed(Reply(text=text))
    else:
        llm, _ = routed(Reply(tool_calls=[ToolCall(name="Weather", arguments=text)]))

    structured = llm.with_structured_output(Weather.model_json_schema(), method=method)

    assert json.loads(text) == await structured.ainvoke("How is the weather in Split?")


def test_an_unparsable_answer_is_given_raw_where_that_was_asked(routed) -> None:
    llm, _ = routed(Reply(text="It is warm."))
    structured = llm.with_structured_output(Weather, method="json_schema", include_raw=True)

    found = structured.invoke("How is the weather in Split?")

    assert "It is warm." == found["raw"].content
    assert found["parsed"] is None
    assert "OutputParserException" == type(found["parsing_error"]).__name__


def test_json_mode_asks_for_any_json(routed) -> None:
    llm, server = routed(Reply(text='{"city": "Split", "celsius": 3}'))

    found = llm.with_structured_output(Weather, method="json_mode").invoke("As JSON, please.")

    assert Weather(city="Split", celsius=3) == found
    assert {"type": "json_object"} == server.requests[0].body["response_format"]


def test_an_unknown_method_of_structured_output_is_an_error(routed) -> None:
    llm, _ = routed(FOUR)

    with pytest.raises(ConfigError, match="'function_calling', 'json_schema' or 'json_mode'"):
        llm.with_structured_output(Weather, method="guess")


def test_the_fields_reach_the_provider_and_the_log_and_a_call_wins_over_them(routed) -> None:
    llm, server = routed(
        FOUR,
        temperature=0.25,
        max_tokens=50,
        timeout=20,
        max_retries=0,
        stop=["END"],
        task="sums",
        tags=["team-a"],
        session_id="s1",
        policy=MostAccurate(),
    )

    plain = llm.invoke("What is 2 + 2?")
    bound = llm.bind(session_id="s2", max_tokens=60).invoke("What is 2 + 2?", stop=["STOP"])

    sent = [(r.body["temperature"], r.body["max_tokens"], r.body["stop"]) for r in server.requests]
    assert [(0.25, 50, ["END"]), (0.25, 60, ["STOP"])] == sent
    logged = [llm.router.history.decision(facts(m)["decision_id"]) for m in (plain, bound)]
    assert [("sums", ("team-a",), session, "most accurate") for session in ("s1", "s2")] == [
        (one.task, one.tags, one.session_id, one.policy) for one in logged
    ]


def test_a_budget_refuses_before_any_money_is_spent(routed) -> None:
    llm, server = routed(FOUR, policy=Budget(0.000_001))

    with pytest.raises(Exception, match="budget") as caught:
        llm.invoke("What is 2 + 2?")

    assert "LiteLLMBudgetExceededError" == type(caught.value).__name__
    assert [] == server.requests


def test_a_budget_per_batch_holds_for_each_call_of_langchains_batch(routed) -> None:
    dear = Reply(text="A long answer.", prompt_tokens=10, completion_tokens=1_000)
    llm, _ = routed(dear, policy=Budget(0.003), max_tokens=1_000)

    answers = llm.batch(["What is 2 + 2?"] * 3)

    assert [0.002_01] * 3 == [facts(answer)["cost_usd"] for answer in answers]


def test_a_misspelt_field_and_a_thing_that_is_no_router_are_errors(routed) -> None:
    llm, _ = routed(FOUR)

    with pytest.raises(ValidationError, match="temprature"):
        ChatOptLLM(router=llm.router, temprature=0.1)
    with pytest.raises(ValidationError, match="instance of Router"):
        ChatOptLLM(router=object())


def test_traces_name_us_and_what_was_asked_for(routed) -> None:
    llm, _ = routed(FOUR, temperature=0.5, stop=["END"])

    assert {
        "ls_provider": "optllm",
        "ls_model_type": "chat",
        "ls_model_name": "other",
        "ls_temperature": 0.5,
        "ls_stop": ["END"],
    } == llm._get_ls_params(model="other")
    assert "optllm" == llm._llm_type


def test_reasoning_is_shown_as_a_reasoning_block(routed) -> None:
    llm, _ = routed(Reply(reasoning="Two and two.", text="Four."))

    for message in (llm.invoke("2 + 2?"), joined(list(llm.stream("2 + 2?")))):
        assert ["reasoning", "text"] == [block["type"] for block in message.content_blocks]
        assert "Two and two." == message.content_blocks[0]["reasoning"]


async def test_langchain_litellms_router_model_takes_our_router(routed) -> None:
    langchain_litellm = pytest.importorskip("langchain_litellm")
    ours, server = routed(FOUR)
    llm = langchain_litellm.ChatLiteLLMRouter(router=ours.router)

    invoked = llm.invoke("What is 2 + 2?")
    streamed = joined(list(llm.stream("What is 2 + 2?")))
    awaited = await llm.ainvoke("What is 2 + 2?")
    async_streamed = joined([chunk async for chunk in llm.astream("What is 2 + 2?")])

    for message in (invoked, streamed, awaited, async_streamed):
        assert "The answer is four." == message.content
        assert (10, 20) == (
            message.usage_metadata["input_tokens"],
            message.usage_metadata["output_tokens"],
        )
    assert ["house-blend"] * 4 == [request.body["model"] for request in server.requests]
    logged = ours.router.history.decisions()
    assert [("auto", SERVED, "ok", 50e-6)] * 4 == [
        (one.requested, one.served, one.attempts[0].status, one.cost_usd) for one in logged
    ]


def test_langchain_litellms_router_model_calls_tools_through_us(routed) -> None:
    langchain_litellm = pytest.importorskip("langchain_litellm")
    ours, server = routed(Reply(tool_calls=[CALL], **COUNTED))
    llm = langchain_litellm.ChatLiteLLMRouter(router=ours.router).bind_tools([weather])

    for message in (llm.invoke("How is it?"), joined(list(llm.stream("How is it?")))):
        assert [{"city": "Šibenik"}] == [call["args"] for call in message.tool_calls]
    assert ["weather"] == [t["function"]["name"] for t in server.requests[0].body["tools"]]


def test_without_langchain_core_the_error_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['langchain_core'] = None\n"
        "from optllm_router import ConfigError\n"
        "try:\n    import optllm_router.integrations.langchain\n"
        "except ConfigError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "pip install 'optllm-router[langchain]'" in done.stdout
