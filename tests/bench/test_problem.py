"""Tables as problems, numbers of labels, and splits that leak nothing."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optllm_router.bench.problem import labelled_sizes, n_labelled, problem_of, split
from optllm_router.errors import ConfigError
from optllm_router.outcomes import OutcomeTable


def a_table(queries, *, score=None, cost_usd=None, prompt_tokens=None, models=("small", "large")):
    shape = (len(queries), len(models))
    return OutcomeTable(
        query_ids=[str(i) for i in range(len(queries))],
        tasks=["sum"] * len(queries),
        queries=list(queries),
        models=list(models),
        score=np.ones(shape) if score is None else np.array(score, dtype=np.float64),
        cost_usd=np.ones(shape) if cost_usd is None else np.array(cost_usd, dtype=np.float64),
        prompt_tokens=np.full(shape, -1) if prompt_tokens is None else np.array(prompt_tokens),
        completion_tokens=np.full(shape, -1),
        answers=None,
        references=[None] * len(queries),
    )


def numbers(part):
    """The queries of a part, which their prompt tokens tell apart."""
    return (part.prompt_tokens - 10).astype(int).tolist()


def test_equal_texts_share_a_group_and_queries_keep_their_order():
    problem, n_incomplete = problem_of(a_table(["x y", "z", "x y", "w"]), "t.csv")

    assert [0, 1, 0, 2] == problem.group.tolist()
    assert (4, 3, 0) == (problem.n_queries, problem.n_texts, n_incomplete)
    assert ["x y", "z", "x y", "w"] == problem.texts
    assert ("small", "large") == problem.candidates


def test_queries_without_every_score_and_cost_are_left_out_and_counted():
    nan = math.nan
    table = a_table(
        ["one", "two", "three", "four"],
        score=[[1, 0], [nan, 1], [0, 1], [1, 1]],
        cost_usd=[[1, 2], [1, 2], [1, nan], [3, 4]],
        prompt_tokens=[[7, 9], [1, 1], [1, 1], [-1, -1]],
    )

    problem, n_incomplete = problem_of(table, "t.csv")

    assert (["one", "four"], 2) == (problem.texts, n_incomplete)
    assert [[1, 0], [1, 1]] == problem.scores.tolist()
    assert [[1, 2], [3, 4]] == problem.cost_usd.tolist()
    assert [8.0, 1.0] == problem.prompt_tokens.tolist()  # a mean, and a quarter of "four"


def test_a_prompt_length_that_one_model_knows_is_that_one():
    problem, _ = problem_of(a_table(["one"], prompt_tokens=[[-1, 12]]), "t.csv")

    assert [12.0] == problem.prompt_tokens.tolist()


def test_prompt_lengths_are_whole_as_a_router_counts_them():
    table = a_table(["one", "letters", "x"], prompt_tokens=[[30, 31], [-1, -1], [7, 8]])

    problem, _ = problem_of(table, "t.csv")

    assert [30.0, 2.0, 8.0] == problem.prompt_tokens.tolist()  # halves to the even neighbour


@pytest.mark.parametrize(
    ("table", "n"),
    [
        (a_table(["one"], models=("small",)), 1),
        (a_table(["one", "two"], cost_usd=[[math.nan, 1], [1, math.nan]]), 0),
    ],
)
def test_a_table_without_two_models_or_a_complete_query_is_refused(table, n):
    with pytest.raises(ConfigError, match=rf"'t\.csv' has {n} queries with .*2 models or more"):
        problem_of(table, "t.csv")


@pytest.mark.parametrize(
    ("labels", "expected"), [(2, 2), (99, 99), (0.02, 2), (0.5, 50), (0.994, 99), (30.0, 30)]
)
def test_labels_are_a_number_or_a_fraction(labels, expected):
    assert expected == n_labelled(labels, 100)


@pytest.mark.parametrize(
    "labels", [0, 1, 100, 2.5, -3, 0.001, 0.999, math.nan, math.inf, -math.inf]
)
def test_labels_that_leave_nothing_to_learn_from_or_to_test_on_are_refused(labels):
    with pytest.raises(ConfigError, match="from 2 to 99, or a fraction") as caught:
        n_labelled(labels, 100)

    assert f"`--labels {labels:g}` of 100 queries" in str(caught.value)


@pytest.mark.parametrize(
    ("n_queries", "expected"), [(3, 2), (4, 2), (5, 2), (9, 4), (599, 299), (600, 300), (9999, 300)]
)
def test_without_a_number_of_labels_300_or_half_of_the_queries_are_labelled(n_queries, expected):
    assert [expected] == labelled_sizes(None, n_queries) == labelled_sizes([], n_queries)


@pytest.mark.parametrize("n_queries", [1, 2])
def test_too_few_queries_are_not_blamed_on_labels_that_nobody_gave(n_queries):
    with pytest.raises(ConfigError, match=r"too few: .* 3 complete queries or more") as caught:
        labelled_sizes(None, n_queries)

    assert "--labels" not in str(caught.value)


def test_given_numbers_of_labels_are_ascending_and_distinct():
    assert [2, 30, 50] == labelled_sizes([0.5, 30, 2, 50], 100)


def test_costs_whose_total_overflows_are_refused():
    with pytest.raises(ConfigError, match=r"'t\.csv' has a `cost_usd` of 6e\+299, above 5e\+299"):
        problem_of(a_table(["one", "two"], cost_usd=[[1, 6e299], [1, 1]]), "t.csv")

    problem, _ = problem_of(a_table(["one", "two"], cost_usd=[[1, 5e299], [1, 1]]), "t.csv")
    assert 5e299 == problem.cost_usd.max()


@given(seed=st.integers(0, 10**6), n=st.integers(2, 59), n_texts=st.integers(5, 60))
@settings(max_examples=40, deadline=None)
def test_a_random_split_labels_n_and_tests_the_rest(made, seed, n, n_texts):
    part = split(made(60, n_texts=n_texts), "random", n, seed)

    assert n == part.labelled.n_queries
    assert list(range(60)) == sorted(numbers(part.labelled) + numbers(part.test))


@given(seed=st.integers(0, 10**6), n=st.integers(2, 20), n_texts=st.integers(21, 60))
@settings(max_examples=40, deadline=None)
def test_a_split_by_text_tests_every_query_of_another_text_and_no_other(made, seed, n, n_texts):
    problem = made(60, n_texts=n_texts)

    part = split(problem, "text", n, seed)

    known = set(part.labelled.texts)
    assert not known & set(part.test.texts)
    assert [i for i in range(60) if problem.texts[i] not in known] == numbers(part.test)
    assert numbers(part.labelled) == numbers(split(problem, "random", n, seed).labelled)


@given(seed=st.integers(0, 10**6), n=st.integers(2, 45))
@settings(max_examples=40, deadline=None)
def test_a_split_by_task_shares_no_task_and_labels_n(made, seed, n):
    problem = made(60)

    part = split(problem, "task", n, seed)

    known = set(part.labelled.tasks)
    assert n == part.labelled.n_queries
    assert not known & set(part.test.tasks)
    assert [i for i in range(60) if problem.tasks[i] not in known] == numbers(part.test)
    assert -(-n // 15) == len(known)  # no task more than the number needs


def test_a_split_by_time_labels_the_first_whatever_the_seed(made):
    parts = [split(made(60), "time", 25, seed) for seed in (0, 1, 77)]

    for part in parts:
        assert list(range(25)) == numbers(part.labelled)
        assert list(range(25, 60)) == numbers(part.test)


def test_a_seed_always_gives_its_split_and_another_one_another(made):
    first, again, other = (split(made(60), "random", 25, seed) for seed in (3, 3, 4))

    assert numbers(first.labelled) == numbers(again.labelled)
    assert numbers(first.labelled) != numbers(other.labelled)


@pytest.mark.parametrize(("kind", "n", "n_texts"), [("text", 30, 1), ("task", 46, 60)])
def test_a_split_that_leaves_nothing_to_test_on_says_so(made, kind, n, n_texts):
    with pytest.raises(ConfigError, match=f"by {kind} with {n} labelled .* no test query"):
        split(made(60, n_texts=n_texts), kind, n, 0)


def test_a_part_keeps_every_array_in_step_and_counts_its_own_texts(made):
    problem = made(60, n_texts=20)

    part = problem.rows(np.array([41, 1, 7]))

    assert [problem.texts[i] for i in (41, 1, 7)] == part.texts
    assert [problem.tasks[i] for i in (41, 1, 7)] == part.tasks
    assert [problem.features[i] for i in (41, 1, 7)] == part.features
    for name in ("group", "prompt_tokens", "scores", "cost_usd"):
        assert getattr(problem, name)[[41, 1, 7]].tolist() == getattr(part, name).tolist()
    assert (3, 2) == (part.n_queries, part.n_texts)  # 41 and 1 are the same text
    assert (3, 5) == part.shapes.shape
