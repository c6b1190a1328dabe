"""The log says what was chosen, what served instead, and never more than is known."""

from __future__ import annotations

import pytest

from optllm_router import Budget, ConfigError, MostAccurate


def test_an_item_that_slid_keeps_the_planned_column_and_has_no_propensity(trained, logged):
    router = trained()
    texts = [f"hard question number {100 + i}" for i in range(4)]
    plan = router.plan(texts, policy=MostAccurate())
    dear = plan.estimates.worst_nusd[0].max() / 1e9

    router.complete_batch(texts, policy=Budget(usd=dear * 0.9), concurrency=1)

    slid = [d.decision for d in logged(router) if d.decision.chosen != d.decision.served]
    assert {decision.chosen for decision in slid} == {"dear"}
    assert all(decision.propensity is None for decision in slid)
    assert all(d.decision.propensity == 1.0 for d in logged(router) if d.decision not in slid)


def test_what_nothing_was_learned_for_has_no_propensity(make_router, only, ask):
    router = make_router()

    router.complete(messages=ask())

    decision, _ = only(router)
    assert decision.propensity is None
    assert decision.allowed == ()


def test_a_probe_that_nobody_would_grade_is_refused_before_it_spends(make_router, client):
    router = make_router()

    with pytest.raises(ConfigError, match="no grader grades these queries"):
        router.probe(["one", "two"], ["1", "2"])

    assert client.calls == []


def test_tasks_of_a_probe_may_be_positional(make_router, client):
    router = make_router()

    report = router.probe(["one"], ["1"], ["counting"], grader=lambda _text, _reference: 1.0)

    assert report.n_graded == len(router.candidates)
    assert {d.task for d in router.history.decisions()} == {"counting"}


def test_enough_labels_without_a_fit_say_that_a_fit_is_missing(make_router, ask):
    router = make_router(retrain={"min_labels": 2, "enabled": False})
    for _ in range(2):
        router.feedback(router.complete(messages=ask()), score=1.0)

    reason = router.complete(messages=ask())._hidden_params["optllm"]["reason"]

    assert reason == "not fitted: 2/2 labels, enough to `retrain`"


def test_an_unreadable_publication_leaves_the_predictor_at_hand_in_place(trained, ask):
    router = trained()
    before = router.complete(messages=ask())._hidden_params["optllm"]["predictor_version"]
    router._engine.store.publish(version="zzz", artifact=b"elsewhere", metrics={}, front=[])

    router._engine.take_over()

    after = router.complete(messages=ask())._hidden_params["optllm"]["predictor_version"]
    assert (before is not None, after) == (True, before)


def test_a_tier_of_unknown_price_is_refused_under_a_hard_budget(trained, client, ask):
    router = trained()
    n_calls = len(client.calls)

    with pytest.raises(ConfigError, match="service_tier"):
        router.complete(messages=ask(), service_tier="priority", policy=Budget(usd=1.0))

    assert len(client.calls) == n_calls
