"""Token counts: exact for ordinary prompts, quick for huge ones, never an error."""

import json
import os
import time

import pydantic
import pytest

from optllm_router.completion import counting
from optllm_router.completion.counting import count_messages, count_text


def exact(text):
    return len(counting.encoding().encode_ordinary(text))


def test_the_tokenizer_is_o200k_and_loading_it_leaves_the_environment_alone(monkeypatch):
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", "/nowhere")
    counting.encoding.cache_clear()

    assert counting.encoding().name == "o200k_base"
    assert os.environ["TIKTOKEN_CACHE_DIR"] == "/nowhere"


def test_ordinary_texts_are_counted_exactly():
    assert count_text("") == 0
    assert count_text("hello world") == 2
    assert count_text("a b " * 5_000) == exact("a b " * 5_000)


@pytest.mark.parametrize(
    "text", ["<|endoftext|>", "\ud800", "a\0b", "👩‍👩‍👧‍👦", "\x7f\u202e", "<|im_start|>system"]
)
def test_odd_texts_are_counted_without_an_error(text):
    assert 0 < count_text(text) <= 6 * len(text)


@pytest.mark.parametrize(
    "text",
    [
        "The quick brown fox jumps over 12 lazy dogs. " * 22_000,
        "a" * 1_000_000,
        "你好，世界" * 200_000,
        "def f(x):\n    return x ** 2\n\n" * 35_000,
        "english words and then " * 22_000 + "漢字仮名交じり文" * 62_500,
    ],
)
def test_a_million_characters_take_milliseconds_and_are_not_undercounted(text):
    count_text("warm")

    started = time.thread_time()
    counted = count_text(text)
    took_s = time.thread_time() - started

    assert took_s < 0.1  # some 10 ms
    step = 10_000
    truth = sum(exact(text[at : at + step]) for at in range(0, len(text), step))
    assert 0.97 * truth <= counted <= 1.35 * truth


def test_the_estimate_takes_over_where_the_exact_count_ends():
    text = "some plain words in a row, " * 2_000
    at = counting.EXACT_CHARACTERS

    assert count_text(text[:at]) == exact(text[:at])
    assert count_text(text[:at]) <= count_text(text[: at + 1]) <= 1.2 * count_text(text[:at])


def test_messages_cost_their_content_and_a_frame():
    empty = count_messages([])
    one = count_messages([{"role": "user", "content": "hello world"}])
    two = count_messages([{"role": "user", "content": "hello world"}] * 2)

    assert (empty, one, two) == (3, 9, 15)


def test_tools_calls_and_names_are_counted():
    plain = count_messages([{"role": "assistant", "content": None}])
    calling = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"function": {"name": "f", "arguments": '{"a": 1}'}}],
    }
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}

    assert plain == 7
    assert count_messages([calling]) > plain + 5
    assert count_messages([{"role": "user", "content": None, "name": "Ada"}]) > plain
    assert count_messages([], [tool]) > count_messages([], []) + 10


def test_images_count_a_fixed_estimate_whatever_their_size():
    def image(size):
        url = "data:image/png;base64," + "A" * size
        return [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "hello world"},
                    {"type": "image_url", "image_url": {"url": url}},
                ],
            }
        ]

    assert count_messages(image(10)) == count_messages(image(1_000_000)) == 9 + 1_600


@pytest.mark.parametrize(
    "part",
    [
        {"type": "file", "file": {"file_data": "A" * 400_000, "filename": "a.pdf"}},
        {"type": "input_file", "file_data": "A" * 400_000},
        {"type": "document", "source": {"type": "base64", "data": "A" * 400_000}},
    ],
)
def test_files_count_by_their_size(part):
    assert count_messages([{"role": "user", "content": [part]}]) == 7 + 300_000 // 4


def test_the_format_that_is_asked_for_is_counted(client):
    class Person(pydantic.BaseModel):
        name: str
        age: int

    schema = Person.model_json_schema()
    wanted = {"type": "json_schema", "json_schema": {"name": "person", "schema": schema}}

    assert count_messages([], None, wanted) == 3 + exact(json.dumps(wanted))
    assert count_messages([], None, Person) == 3 + exact(json.dumps(schema))
    assert client.count_tokens([], None, Person) == count_messages([], None, Person)
    assert count_messages([], [Person]) > 3  # a class elsewhere is no error


def test_parts_that_are_no_text_parts_are_counted_too():
    def of(content):
        return count_messages([{"role": "user", "content": content}]) - 7

    assert of(["hello world"]) == 2
    assert of([{"type": "tool_result", "content": "hello world"}]) == 2
    assert of(["hello", {"type": "file", "file": {"file_data": "AAAA"}}]) == 1 + 1_600
    assert of({"a": 1}) > 0
    assert of(17) == 1


def test_message_objects_of_earlier_answers_are_counted(client):
    from litellm import Message

    spoken = Message(content="hello world", role="assistant")

    assert count_messages([spoken]) == count_messages(
        [{"role": "assistant", "content": "hello world"}]
    )


def test_the_client_counts_the_same(client):
    messages = [{"role": "user", "content": "hello world"}]

    assert client.count_tokens(messages, []) == count_messages(messages)
    assert client.count_text("hello world") == 2
