"""Reading usage and chunks of the shapes that providers send."""

from types import SimpleNamespace

import pytest

from optllm_router.completion.base import Answer
from optllm_router.completion.metering import ChunkMeter, describe_response, read_usage
from optllm_router.records import Usage

USAGE = {"prompt_tokens": 9, "completion_tokens": 4}


def chunk(content=None, *, index=0, finish=None, **fields):
    delta = {"content": content, **fields}
    return {"id": "c", "choices": [{"index": index, "delta": delta, "finish_reason": finish}]}


def usage_chunk(choices):
    return {"id": "c", "choices": choices, "usage": USAGE}


@pytest.mark.parametrize("choices", [[], [{"index": 0, "delta": {"content": None}}], None])
def test_the_usage_chunk_is_hidden_whatever_its_choices(choices):
    meter = ChunkMeter({"stream": True})

    assert meter.add(chunk("hi")) is True
    assert meter.add(usage_chunk(choices)) is False
    assert meter.answer() == Answer(
        text="hi", usage=Usage(prompt_tokens=9, completion_tokens=4), response_id="c"
    )


@pytest.mark.parametrize("choices", [[], [{"index": 0, "delta": {"content": None}}]])
def test_the_usage_chunk_is_shown_to_those_who_ask(choices):
    meter = ChunkMeter({"stream_options": {"include_usage": True}})

    assert meter.add(usage_chunk(choices)) is True


def test_usage_that_rides_on_a_chunk_with_text_does_not_hide_it():
    meter = ChunkMeter({"stream_options": None})

    assert meter.add({**chunk("hi"), "usage": USAGE}) is True
    assert meter.add({**chunk(finish="stop"), "usage": USAGE}) is True
    assert meter.answer().usage == Usage(prompt_tokens=9, completion_tokens=4)


def test_empty_chunks_without_usage_are_shown():
    meter = ChunkMeter({})

    assert meter.add({"id": None, "choices": []}) is True
    assert meter.add(chunk(None)) is True
    assert meter.answer() == Answer(text="", usage=None, response_id="c")


def test_further_choices_are_counted_only_while_usage_is_unknown():
    meter = ChunkMeter({"n": 2})
    meter.add(chunk("first"))
    meter.add(chunk("second", index=1))

    assert meter.answer().text == "secondfirst"

    meter.add(usage_chunk([]))
    assert meter.answer().text == "first"


def test_tool_and_function_calls_are_collected():
    meter = ChunkMeter({})
    meter.add(chunk(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": ""}}]))
    meter.add(chunk(tool_calls=[{"index": 0, "function": {"name": None, "arguments": "{}"}}]))
    meter.add(chunk(function_call={"name": "g", "arguments": "[]"}))

    assert meter.answer().text == "f{}g[]"


def test_a_cached_stream_is_a_cache_hit():
    meter = ChunkMeter({})
    meter.add(SimpleNamespace(id="x", choices=[], _hidden_params={"cache_hit": True}))

    assert meter.answer().cache_hit is True


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        (None, None),
        ({"prompt_tokens": 0, "completion_tokens": 0}, None),
        (
            {**USAGE, "prompt_tokens_details": {"cached_tokens": 5}},
            Usage(prompt_tokens=9, completion_tokens=4, cached_tokens=5),
        ),
        (
            {**USAGE, "prompt_tokens_details": {"cached_tokens": None}},
            Usage(prompt_tokens=9, completion_tokens=4),
        ),
        (
            {**USAGE, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 3},
            Usage(prompt_tokens=9, completion_tokens=4, cached_tokens=5, cache_write_tokens=3),
        ),
        (
            {**USAGE, "cache_read_input_tokens": 50, "cache_creation_input_tokens": 3},
            Usage(prompt_tokens=9, completion_tokens=4, cached_tokens=9, cache_write_tokens=0),
        ),
    ],
)
def test_usage_is_read_in_both_dialects(usage, expected):
    assert read_usage(usage) == expected


def test_a_response_without_choices_has_no_text():
    assert describe_response({"id": "r", "choices": []}) == Answer(
        text="", usage=None, response_id="r"
    )


def test_content_in_parts_and_the_older_function_call_are_text():
    message = {
        "content": [{"type": "text", "text": "so "}, {"type": "image"}],
        "function_call": {"name": "f", "arguments": "{}"},
    }

    answer = describe_response({"choices": [{"message": message}, {"message": message}]})

    assert answer.text == 'so {"name": "f", "arguments": "{}"}'
