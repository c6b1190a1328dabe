"""How good an answer was: said late, twice, by whom it concerns, and only in [0, 1]."""

import asyncio
import sqlite3

import pytest

from optllm_router import UnknownDecisionError


def outcomes(router):
    (one,) = router._engine.store.decisions()
    return [(outcome.source, outcome.score) for outcome in one.outcomes]


@pytest.mark.parametrize(
    "reference",
    [
        lambda response: response,
        lambda response: response._hidden_params["optllm"]["decision_id"],
        lambda response: response.id,
    ],
    ids=["response", "decision id", "response id"],
)
def test_feedback_takes_the_response_the_decision_id_and_the_response_id(
    make_router, ask, reference
):
    router = make_router()
    response = router.complete(messages=ask())

    changed = router.feedback(reference(response), score=0.5)

    assert changed is True
    assert [("feedback", 0.5)] == outcomes(router)


def test_the_same_score_again_changes_nothing(make_router, ask):
    router = make_router()
    response = router.complete(messages=ask())

    assert [True, False, False] == [router.feedback(response, score=1) for _ in range(3)]
    assert [("feedback", 1.0)] == outcomes(router)


def test_a_replaced_score_is_kept_in_the_outcome_history(make_router, ask, tmp_path):
    router = make_router()
    response = router.complete(messages=ask())

    assert router.feedback(response, score=1.0)
    assert router.feedback(response, score=0.25)

    assert [("feedback", 0.25)] == outcomes(router)
    connection = sqlite3.connect(tmp_path / "log.db")
    assert [("feedback", 1.0)] == connection.execute(
        "SELECT source, score FROM outcome_history"
    ).fetchall()
    connection.close()


@pytest.mark.parametrize("reference", ["nobody", "", "chatcmpl-\x00", "\ud800"])
def test_an_unknown_id_is_named(make_router, reference):
    router = make_router()

    with pytest.raises(UnknownDecisionError) as caught:
        router.feedback(reference, score=1.0)

    assert repr(reference) in str(caught.value)
    assert isinstance(caught.value, LookupError)


@pytest.mark.parametrize("score", [-0.1, 1.1, float("nan"), float("inf"), "good", None])
def test_a_score_outside_0_to_1_is_refused_and_nothing_is_written(make_router, ask, score):
    router = make_router()
    response = router.complete(messages=ask())

    with pytest.raises(ValueError, match="a score is a number from 0"):
        router.feedback(response, score=score)

    assert [] == outcomes(router)


def test_feedback_days_later_from_another_router_on_the_same_database(make_router, ask):
    router = make_router()
    asked = [router.complete(messages=ask()), asyncio.run(router.acomplete(messages=ask()))]
    ids = [asked[0].id, asked[1]._hidden_params["optllm"]["decision_id"]]
    router.close()
    later = make_router()

    assert [True, True] == [later.feedback(reference, score=0.0) for reference in ids]

    assert 2 == later._engine.state.n_labels


def test_feedback_on_a_stream_and_on_a_pin_counts(make_router, ask):
    router = make_router()
    stream = router.complete(messages=ask(), stream=True)
    assert list(stream)
    pinned = router.complete("dear", ask())

    assert router.feedback(stream, score=1.0)
    assert router.feedback(pinned, score=0.0)

    served = {row.served: row.score for row in router._engine.store.training_rows()}
    assert {"middling": 1.0, "dear": 0.0} == served
