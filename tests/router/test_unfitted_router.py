"""Before anything is learned: the default answers, and says why."""

import pytest

from optllm_router import Budget, BudgetExceededError, InfeasiblePolicyError, NotTrainedError


def reason(response):
    return response._hidden_params["optllm"]["reason"]


def test_the_reason_counts_the_labels(make_router, ask):
    router = make_router()
    for _ in range(12):
        router.feedback(router.complete(messages=ask()), score=1.0)

    response = router.complete(messages=ask())

    assert "not fitted: 12/50 labels" == reason(response)
    assert "middling" == response._hidden_params["optllm"]["candidate"]


def test_plan_and_front_say_that_nothing_is_learned(make_router):
    router = make_router()

    with pytest.raises(NotTrainedError) as planned:
        router.plan(["a question"])
    with pytest.raises(NotTrainedError) as shown:
        router.front()

    assert (0, 50) == (planned.value.n_labels, planned.value.min_labels)
    assert "not fitted: 0/50 labels" in str(planned.value)
    assert (0, 50) == (shown.value.n_labels, shown.value.min_labels)


@pytest.mark.parametrize(
    ("usd", "candidate"),
    [(0.0500, "middling"), (0.0130, "middling"), (0.0120, "cheap"), (0.0045, "cheap")],
)
def test_under_a_budget_the_default_answers_while_its_worst_case_fits_then_the_dearest_that_does(
    make_router, ask, usd, candidate
):
    router = make_router()  # worst cases: 0.0042, 0.0125 and 0.0417 USD

    response = router.complete(messages=ask(), policy=Budget(usd=usd))

    assert candidate == response._hidden_params["optllm"]["candidate"]
    assert reason(response).startswith("not fitted: 0/50 labels")


def test_the_dearest_that_fits_may_be_dearer_than_the_default(make_router, ask):
    router = make_router(
        [{"model": "cheap"}, {"model": "middling", "max_output_tokens": 100_000}, {"model": "dear"}]
    )

    response = router.complete(messages=ask(), policy=Budget(usd=0.05))

    assert "dear" == response._hidden_params["optllm"]["candidate"]
    assert reason(response) == (
        "not fitted: 0/50 labels; the default middling cannot serve it or does not fit the budget"
    )


def test_nothing_fits_and_nothing_is_spent(make_router, client, ask):
    router = make_router()

    with pytest.raises(BudgetExceededError) as caught:
        router.complete(messages=ask(), policy=Budget(usd=0.004))

    assert (0.004, 0.004) == (caught.value.limit_usd, caught.value.left_usd)
    assert "0.004164 USD, the worst case of the cheapest candidate" in str(caught.value)
    assert [] == client.calls


def test_a_tiny_budget_is_told_in_all_its_digits(make_router, ask):
    with pytest.raises(BudgetExceededError) as caught:
        make_router().complete(messages=ask(), policy=Budget(usd=2e-9))

    assert str(caught.value).startswith(
        "the call budget of 0.000000002 USD has 0.000000002 USD left, less than 0.004164 USD, the "
    )


def test_a_tiny_budget_per_call_is_told_in_all_its_digits(trained):
    with pytest.raises(InfeasiblePolicyError) as caught:
        trained().plan(["easy question"], policy=Budget(usd=1.5e-8, per="call"))

    assert str(caught.value).startswith("a budget of 0.000000015 USD per call is below the worst ")
    assert caught.value.nearest == pytest.approx(0.0042, abs=1e-4)


def test_after_a_probe_and_a_retrain_it_routes(trained, client, ask):
    router = trained()

    response = router.complete(messages=ask("easy question"))

    assert "cheap" == response._hidden_params["optllm"]["candidate"]
    assert reason(response) == "cheapest"
    assert 3 == router.plan(["easy question", "hard question", "x"]).choice.size
    assert router.front().points


def test_too_few_labels_are_not_published(make_router, client):
    router = make_router()
    router.probe(["a", "b"], grader=lambda text, reference: 1.0)

    report = router.retrain()

    assert (False, None, 6) == (report.published, report.version, report.n_labels)
    assert "not fitted: 6/50 labels" == report.reason


def test_a_candidate_without_a_label_is_not_offered_and_everybody_says_so(
    trained, make_router, client, ask
):
    trained().close()
    client._prices["new"] = (0.001, 0.001)
    client._scripts["new"] = client._scripts["cheap"]
    router = make_router(["cheap", "middling", "dear", "new"])

    response = router.complete(messages=ask("easy question"))

    assert "cheap" == response._hidden_params["optllm"]["candidate"]
    assert "new: no label yet, so it is not offered; `probe` it" in router.check()
    (column,) = (c for c in router.explain("easy question").columns if c.name == "new")
    assert "not offered: no label yet, see `probe`" == column.status
