"""The demo's questions: made from a seed, all different, with answers that code can check."""

from __future__ import annotations

import json
import re
from datetime import date, timedelta

import pytest

from optllm_router.demo.tasks import KINDS, DemoQuery, is_right, make_queries, wrong_answer
from optllm_router.errors import ConfigError


def of(kind: str, pattern: str) -> list[tuple[re.Match[str], DemoQuery]]:
    found = [(re.fullmatch(pattern, q.text), q) for q in make_queries(600, seed=5)]
    return [(match, q) for match, q in found if match and q.task == kind]


def test_the_same_seed_makes_the_same_questions() -> None:
    assert make_queries(200, seed=3) == make_queries(200, seed=3)
    assert make_queries(200, seed=3) != make_queries(200, seed=4)


def test_texts_are_distinct_and_kinds_equally_frequent() -> None:
    queries = make_queries(seed=0)

    assert 1_500 == len(queries) == len({query.text for query in queries})
    assert dict.fromkeys(KINDS, 250) == {
        kind: sum(query.task == kind for query in queries) for kind in KINDS
    }


def test_difficulties_lie_between_zero_and_one() -> None:
    assert all(0 <= query.difficulty < 1 for query in make_queries(300, seed=1))


def test_no_questions_is_an_error_that_says_so() -> None:
    with pytest.raises(ConfigError, match="n_queries=0"):
        make_queries(0)


@pytest.mark.parametrize(
    ("pattern", "answer"),
    [
        (r"What is (\d+) plus (\d+)\?", lambda a, b: a + b),
        (r"Compute the product (\d+) \* (\d+) and subtract (\d+)\.", lambda a, b, c: a * b - c),
        (
            r"Evaluate the nested expression \(\((\d+) \* (\d+)\) \+ (\d+)\) \* (\d+) modulo 997\.",
            lambda a, b, c, d: (a * b + c) * d % 997,
        ),
    ],
)
def test_arithmetic_references_are_right(pattern, answer) -> None:
    matches = of("arithmetic", pattern)

    assert len(matches) > 10
    assert [str(answer(*map(int, match.groups()))) for match, _ in matches] == [
        query.reference for _, query in matches
    ]


def test_date_references_are_right() -> None:
    forward = of("dates", r"Which date is (\d+) days after (\S+)\?")
    back = of("dates", r"Go back (\d+) weeks and (\d+) days from (\S+)\. Which date is it\?")
    between = of("dates", r"How many days lie between (\S+) and (\S+), leap years counted\?")

    assert min(len(forward), len(back), len(between)) > 10
    for match, query in forward:
        day = date.fromisoformat(match[2]) + timedelta(days=int(match[1]))
        assert day.isoformat() == query.reference
    for match, query in back:
        day = date.fromisoformat(match[3]) - timedelta(weeks=int(match[1]), days=int(match[2]))
        assert day.isoformat() == query.reference
    for match, query in between:
        days = (date.fromisoformat(match[2]) - date.fromisoformat(match[1])).days
        assert str(days) == query.reference


def test_unit_references_are_right() -> None:
    times = of("units", r"Convert (\d+) days, (\d+) hours and (\d+) minutes to seconds\.")
    pumps = of(
        "units",
        r"A pump moves (\d+) litres per second for (\d+) hours and (\d+) minutes, then half as "
        r"much for (\d+) minutes\. How many litres is that in total\?",
    )

    assert min(len(times), len(pumps)) > 10
    for match, query in times:
        days, hours, minutes = map(int, match.groups())
        assert str(86_400 * days + 3_600 * hours + 60 * minutes) == query.reference
    for match, query in pumps:
        rate, hours, minutes, more = map(int, match.groups())
        total = rate * (3_600 * hours + 60 * minutes) + rate / 2 * 60 * more
        assert total == float(query.reference)


def test_extraction_references_are_json_found_in_the_note() -> None:
    queries = [q for q in make_queries(600, seed=5) if q.task == "extraction"]

    for query in queries:
        orders = re.findall(r"(\w+) wants (\d+) \w+", query.text)
        answer = json.loads(query.reference)
        if query.text.startswith("List the names"):
            assert [name for name, _ in orders] == answer
        elif query.text.startswith("Give the ordered"):
            assert [int(n) for _, n in orders] == answer
        else:
            limit = int(re.search(r">= (\d+)", query.text)[1])
            kept = [[name, int(n)] for name, n in orders if int(n) >= limit]
            assert sorted(kept, key=lambda pair: (-pair[1], pair[0])) == answer


def test_log_templates_match_their_lines() -> None:
    queries = [q for q in make_queries(600, seed=5) if q.task == "logs"]

    for query in queries:
        line = query.text.partition("by <*>: ")[2]
        pattern = re.escape(query.reference).replace(re.escape("<*>"), r"\S+?")
        assert re.fullmatch(pattern, line)
        assert "<*>" not in line


def test_word_references_are_right() -> None:
    for query in [q for q in make_queries(600, seed=5) if q.task == "words"]:
        words = query.text.partition(": ")[2].rstrip(".").split(", ")
        if query.text.startswith("Write"):
            expected = [word.upper() for word in words]
        elif query.text.startswith("Sort"):
            expected = sorted(words)
        else:
            expected = sorted((w[::-1] for w in words), key=lambda w: (w[-1], w))
        assert ", ".join(expected) == query.reference


def test_every_reference_is_right_and_every_wrong_answer_wrong() -> None:
    for query in make_queries(600, seed=2):
        assert is_right(query.reference, query.reference)
        for draw in range(4):
            assert not is_right(wrong_answer(query.reference, draw=draw), query.reference)


def test_wrong_answers_depend_on_their_draw_alone() -> None:
    assert wrong_answer("1234", draw=7) == wrong_answer("1234", draw=7)
    assert {wrong_answer("1234", draw=draw) for draw in range(60)} == {
        "1224", "1232", "1233", "1235", "1236", "1244",
    }  # fmt: skip


def test_the_last_line_of_an_answer_counts() -> None:
    assert is_right("Let me think: 41?\nAnswer: 42\n", "42")
    assert not is_right("42\nAnswer: 41", "42")
    assert not is_right("", "42")


def test_json_answers_are_compared_by_value() -> None:
    assert is_right('[["Ada",3], ["Bo", 2]]', '[["Ada", 3], ["Bo", 2]]')
    assert not is_right("[1, 2", "[1, 2]")
