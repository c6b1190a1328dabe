"""Graders: which answer gets which score, what stays ungraded, and which settings are refused."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from optllm_router.config import GraderSettings, make_config
from optllm_router.errors import ConfigError
from optllm_router.grading import (
    CallableGrader,
    Contains,
    Exact,
    Grader,
    JsonSchema,
    Regex,
    as_grader,
    check_reference,
    check_score,
    grader_from_config,
    graders_from_config,
    normaliser,
)

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"$ref": "#/$defs/age"}},
    "required": ["name"],
    "$defs": {"age": {"type": "integer", "minimum": 0}},
}


def longest(text, reference):
    """A grader that a config can name."""
    return len(text) / 10


class Nested:
    @staticmethod
    def right(text):
        return text == "right"


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (0, 0.0),
        (1, 1.0),
        (True, 1.0),
        (False, 0.0),
        (0.25, 0.25),
        (-0.0, 0.0),
        (Fraction(1, 4), 0.25),
        (np.float32(0.5), 0.5),
        (np.float64(0.5), 0.5),
        (np.int64(1), 1.0),
        (np.bool_(1), 1.0),
    ],
)
def test_numbers_and_booleans_from_0_to_1_are_scores(score, expected):
    checked = check_score(score)

    assert type(checked) is float
    assert checked == expected


@pytest.mark.parametrize(
    "score",
    [
        math.nan,
        math.inf,
        -0.01,
        1.0000001,
        2,
        10**400,
        "1",
        None,
        [1],
        np.float64("nan"),
        np.array([1.0]),
    ],
)
def test_anything_else_is_no_score(score):
    with pytest.raises(ConfigError) as caught:
        check_score(score)

    assert str(caught.value) == (
        f"score {score!r}: a score is a number from 0 (useless) to 1 (right), or a boolean: "
        "rescale it first, for instance (stars - 1) / 4"
    )


@pytest.mark.parametrize(
    ("grader", "text", "reference", "score"),
    [
        (Exact(), " Paris\n", "Paris", 1.0),
        (Exact(), "paris", "Paris", 0.0),
        (Exact(), "", "", 1.0),
        (Exact(), "Paris", None, None),
        (Exact(normalise=normaliser(casefold=True)), "STRASSE ", "straße", 1.0),
        (Exact(normalise=normaliser(strip=False)), "a ", "a", 0.0),
        (Contains(), "It is Paris.", "Paris", 1.0),
        (Contains(), "It is London.", "Paris", 0.0),
        (Contains(), "anything", "", None),
        (Contains(), "anything", None, None),
        (Contains(normalise=normaliser(casefold=True)), "PARIS!", "paris", 1.0),
        (Regex(r"\bPar\w+"), "It is Paris.", None, 1.0),
        (Regex(r"\bPar\w+"), "It is London.", "Paris", 0.0),
        (Regex(r"\[(\w+)\]", 1), "first [No], then [Yes]", "Yes", 1.0),
        (Regex(r"\[(\w+)\]", 1), "first [Yes], then [No]", "Yes", 0.0),
        (Regex(r"\[(?P<answer>\w+)\]", "answer"), "[Yes]", "Yes", 1.0),
        (Regex(r"\[(\w+)\]", 1), "no brackets", "Yes", 0.0),
        (Regex(r"\[(\w+)\]", 1), "[Yes]", None, None),
        (Regex(r"(a)|(b)", 1), "b", "a", 0.0),
        (Regex(r"\[(\w+)\]", 1, normalise=normaliser(casefold=True)), "[YES]", "yes", 1.0),
        (JsonSchema(PERSON), '{"name": "Ada", "age": 36}', None, 1.0),
        (JsonSchema(PERSON), ' {"name": "Ada"}\n', None, 1.0),
        (JsonSchema(PERSON), '{"name": "Ada", "age": -1}', None, 0.0),
        (JsonSchema(PERSON), '{"age": 1}', None, 0.0),
        (JsonSchema(PERSON), 'Here it is: {"name": "Ada"}', None, 0.0),
        (JsonSchema(PERSON), "", None, 0.0),
        (JsonSchema({"type": "number"}), "NaN", None, 0.0),
        (JsonSchema({"type": "array"}), "[" * 100_000, None, 0.0),
    ],
)
def test_rules_score_answers(grader, text, reference, score):
    assert grader.grade(text, reference) == score


@pytest.mark.parametrize(
    ("grader", "name"),
    [
        (Exact(), "exact"),
        (Contains(), "contains"),
        (Regex("x"), "regex"),
        (JsonSchema({}), "json_schema"),
        (CallableGrader(longest), "longest"),
        (CallableGrader(longest, name="length"), "length"),
    ],
)
def test_every_grader_has_a_name_and_is_a_grader(grader, name):
    assert isinstance(grader, Grader)
    assert grader.name == name


@pytest.mark.parametrize(
    ("reference", "text", "score"),
    [
        (4, "4", 1.0),
        (4, "5", 0.0),
        (4.5, "4.5", 1.0),
        (True, "True", 1.0),
        (np.int64(4), "4", 1.0),
        (math.nan, "nan", None),
    ],
)
@pytest.mark.parametrize("grader", [Exact(), Contains(), Regex(r"\S+", 0)])
def test_numbers_are_compared_as_text(grader, reference, text, score):
    assert score == grader.grade(text, reference)


@pytest.mark.parametrize("grader", [Exact(), Contains(), Regex(r"(\d)", 1)])
def test_a_reference_that_is_no_text_is_refused(grader):
    for refuse in (check_reference, lambda one, wanted: one.grade("4", wanted)):
        with pytest.raises(
            ConfigError, match=r"^reference \['4'\] is a list: answers are compared"
        ):
            refuse(grader, ["4"])


def test_graders_that_compare_with_nothing_take_any_reference():
    for grader in (None, Regex(r"\d"), JsonSchema({}), CallableGrader(lambda text: 1.0)):
        check_reference(grader, ["4"])


def test_a_pattern_that_does_not_compile_is_refused_when_the_grader_is_built():
    with pytest.raises(ConfigError) as caught:
        Regex("(a")

    assert str(caught.value) == (
        "pattern '(a' is not a regular expression: missing ), unterminated subpattern at position "
        "0; in TOML write it in single quotes, so that backslashes stay"
    )


@pytest.mark.parametrize(("group", "shown"), [(3, "3"), ("result", "'result'")])
def test_a_group_that_the_pattern_does_not_have_is_refused(group, shown):
    with pytest.raises(ConfigError) as caught:
        Regex(r"(?P<answer>a)(b)", group)

    assert str(caught.value) == (
        f"group {shown} is not in pattern '(?P<answer>a)(b)': it has 0, 1, 2, 'answer'"
    )


def test_a_schema_that_is_none_is_refused_when_the_grader_is_built():
    with pytest.raises(ConfigError) as caught:
        JsonSchema({"properties": {"a": {"type": "strin"}}})

    assert str(caught.value).startswith("not a JSON schema, at properties/a/type: 'strin' is not ")


def test_a_schema_elsewhere_is_not_fetched():
    grader = JsonSchema({"$ref": "https://example.org/schema.json"})

    with pytest.raises(ConfigError) as caught:
        grader.grade("1", None)

    assert str(caught.value) == (
        "the JSON schema refers to 'https://example.org/schema.json', which is not inside it: put "
        "that definition under `$defs` of the schema, since none is fetched"
    )


def test_a_wrong_pattern_in_a_schema_is_refused_when_the_grader_is_built():
    with pytest.raises(ConfigError) as caught:
        JsonSchema({"properties": {"a": {"type": "string", "pattern": "(a"}}})

    assert str(caught.value) == (
        "not a JSON schema, at properties/a/pattern: '(a' is not a 'regex'"
    )


@pytest.mark.parametrize(
    ("function", "score"),
    [
        (lambda text, reference: text == reference, 1.0),
        (lambda text, reference=None: 0.5, 0.5),
        (lambda text: len(text) == 2, 1.0),
        (lambda *texts: len(texts) / 4, 0.5),
        (lambda text, reference, *, response: response["quality"], 0.75),
        (lambda text, response: response["quality"], 0.75),
        (lambda response: response["quality"], 0.75),
        (lambda text, reference, **others: len(others), 0.0),
        (lambda text, reference: np.float32(0.25), 0.25),
        (lambda text, reference: None, None),
    ],
)
def test_functions_get_the_arguments_that_they_take(function, score):
    grader = CallableGrader(function)

    assert grader.grade("ok", "ok", response={"quality": 0.75}) == score


@pytest.mark.parametrize("wrong", [1.5, math.nan, "good"])
def test_a_function_that_returns_no_score_is_named(wrong):
    def stars(text, reference):
        return wrong

    with pytest.raises(ConfigError) as caught:
        CallableGrader(stars).grade("a", "a")

    assert str(caught.value).startswith(
        f"grader `stars` returned a wrong value: score {wrong!r}: a score is a number from 0"
    )


def test_what_a_function_raises_is_passed_on():
    def broken(text, reference):
        raise KeyError("x")

    with pytest.raises(KeyError, match="x"):
        CallableGrader(broken).grade("a", "a")


async def _later(text, reference):
    return 1.0


@pytest.mark.parametrize("function", [_later, "exact", 3])
def test_a_grader_must_be_a_plain_function(function):
    with pytest.raises(ConfigError, match=r"must be a plain function \(text, reference\) -> score"):
        CallableGrader(function)


def test_as_grader_keeps_graders_and_wraps_functions():
    exact = Exact()

    assert as_grader(exact) is exact
    assert as_grader(longest).grade("12345", None) == 0.5


def test_graders_of_a_config_apply_to_their_task_and_default_to_the_others():
    config = make_config(
        candidates="a",
        graders={
            "default": {"kind": "exact", "casefold": True},
            "primes": {"kind": "regex", "pattern": r"\[(\w+)\]", "group": 1},
            "people": {"kind": "json_schema", "schema": PERSON},
            "search": {"kind": "contains", "strip": False},
        },
    )

    graders = graders_from_config(config.graders)

    assert graders.for_task("anything").grade("PARIS", "paris") == 1.0
    assert graders.for_task("primes").grade("[Yes]", "Yes") == 1.0
    assert graders.for_task("people").grade('{"name": 3}', None) == 0.0
    assert graders.for_task("search").grade("ab", "b ") == 0.0
    assert "default" not in graders.by_task


def test_without_a_default_other_tasks_are_not_graded():
    graders = graders_from_config({"a": GraderSettings(kind="exact")})

    assert graders.for_task("b") is None


def test_a_function_is_imported_by_its_path():
    grader = grader_from_config(GraderSettings(kind="callable", function="math:isclose"))

    assert grader.name == "isclose"

    nested = grader_from_config(GraderSettings(kind="callable", function="os:path.samefile"))

    assert nested.name == "samefile"


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("no_such_module_here:f", "No module named 'no_such_module_here'"),
        ("math:no_such", "module 'math' has no attribute 'no_such'"),
    ],
)
def test_a_function_that_cannot_be_imported_names_the_task_and_the_reason(path, reason):
    with pytest.raises(ConfigError) as caught:
        graders_from_config({"triage": GraderSettings(kind="callable", function=path)})

    assert str(caught.value) == (
        f"[graders.triage]: function {path!r} cannot be imported: {reason}; write it as "
        '"module:function", with the module installed or on PYTHONPATH'
    )
