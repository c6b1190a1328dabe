"""What a router says about itself, its lifetime, and what it leaves alone."""

import inspect
import threading

import pytest

from optllm_router import (
    Budget,
    BudgetExceededError,
    Cheapest,
    ConfigError,
    Knee,
    MostAccurate,
    Router,
    TargetAccuracy,
    UnpricedCandidateError,
)
from optllm_router.core.amounts import AmountForecast
from optllm_router.records import Usage
from optllm_router.testing.scripted import Line, ScriptedClient


def test_explain_calls_and_logs_nothing(trained, client, logged):
    router = trained()

    explained = router.explain("easy question", policy=MostAccurate(), task="t")

    assert [] == client.calls
    assert [] == logged(router)
    assert "most accurate" == explained.policy == explained.reason
    assert "t" == explained.task
    assert ["cheap", "middling", "dear"] == [column.name for column in explained.columns]
    (chosen,) = (column for column in explained.columns if column.status == "chosen")
    assert explained.chosen == chosen.name
    assert max(column.prob for column in explained.columns) == chosen.prob
    assert [30, 30, 30] == [column.n_labels for column in explained.columns]
    assert explained.to_dict()["columns"][0]["name"] == "cheap"


def test_explain_says_what_would_happen_to_messages_before_a_fit(make_router, client, ask):
    router = make_router()

    explained = router.explain(messages=ask("x"), model="middling")

    assert ("middling", "not fitted: 0/50 labels") == (explained.chosen, explained.reason)
    assert [None] * 3 == [column.prob for column in explained.columns]
    assert all(column.worst_cost_usd > 0 for column in explained.columns)
    assert [] == client.calls


@pytest.fixture
def of_many_lengths(make_router):
    """A router whose candidates were probed: every fifth answer is 200 tokens long, others 20."""

    def line(arguments) -> Line:
        is_long = int(arguments["messages"][-1]["content"].split()[-1]) % 5 == 0
        n_tokens = 200 if is_long else 20
        return Line(text="right", usage=Usage(prompt_tokens=9, completion_tokens=n_tokens))

    client = ScriptedClient({"cheap": line, "dear": line}, prices={"cheap": (1, 1), "dear": (9, 9)})
    router = make_router(["cheap", "dear"], default="cheap", client=client)
    router.probe([f"question {i}" for i in range(40)], grader=lambda _text, _reference: 1.0)
    assert router.retrain().published
    return router


def test_explain_tells_the_range_of_costs_and_the_worst_case_apart(of_many_lengths):
    for one in of_many_lengths.explain("question 7").columns:
        rate, n_prompt = (1e-6 if one.name == "cheap" else 9e-6), 2
        low, mean, high = (
            usd / rate - n_prompt
            for usd in (one.low_cost_usd, one.expected_cost_usd, one.high_cost_usd)
        )

        assert (20, 56, 200) == pytest.approx((low, mean, high), rel=0.15)
        assert one.worst_cost_usd > 5 * one.high_cost_usd


def test_before_a_fit_costs_have_no_range(make_router):
    columns = make_router().explain("x").columns

    assert [(None, None)] * 3 == [(one.low_cost_usd, one.high_cost_usd) for one in columns]
    assert all(one.expected_cost_usd > 0 for one in columns)


def test_a_plans_range_is_the_sum_of_its_choices_ranges(of_many_lengths):
    texts = ["question 7", "a longer question than that one", "question 8"]
    plan = of_many_lengths.plan(texts, policy=Cheapest())
    each = [of_many_lengths.explain(text).columns[0] for text in texts]

    low, high = plan.cost_range_usd
    assert low < plan.expected_cost_usd < high < plan.worst_cost_usd
    assert sum(one.low_cost_usd for one in each) == pytest.approx(low)
    assert sum(one.high_cost_usd for one in each) == pytest.approx(high)
    assert sum(one.worst_cost_usd for one in each) == pytest.approx(plan.worst_cost_usd)
    assert (0.0, 0.0) == of_many_lengths.plan([]).cost_range_usd


def test_a_call_works_out_no_quantile(of_many_lengths, ask, monkeypatch):
    def refused(*_):
        raise AssertionError("quantiles are for people who look")

    monkeypatch.setattr(AmountForecast, "quantile", refused)

    single = of_many_lengths.complete(messages=ask("question 7"))
    (batched,) = of_many_lengths.complete_batch(["question 8"], policy=Budget(usd=0.1))
    for answer in (single, batched):
        assert "right" == answer.choices[0].message.content
    assert 0 == of_many_lengths._engine.desk.decider.n_faults


def test_explain_tells_what_a_call_does_from_one_estimate(trained, only, ask, monkeypatch):
    router = trained(policy=TargetAccuracy(0.8))
    predictor = router._engine.state.snapshot.predictor
    asked = []
    predict = type(predictor).predict_features
    monkeypatch.setattr(
        type(predictor),
        "predict_features",
        lambda *args, **kwargs: asked.append(1) or predict(*args, **kwargs),
    )

    explained = router.explain("hard question", tags=["a"])

    assert 1 == len(asked)
    router.complete(messages=ask("hard question"))
    decision, _ = only(router)
    (chosen,) = (column for column in explained.columns if column.status == "chosen")
    assert (decision.chosen, decision.reason) == (explained.chosen, explained.reason)
    assert (decision.policy, decision.dual_price) == (explained.policy, explained.dual_price)
    assert decision.expected_accuracy == pytest.approx(chosen.prob)


def test_explain_refuses_what_a_call_would_refuse(trained):
    with pytest.raises(BudgetExceededError):
        trained().explain("easy question", policy=Budget(usd=1e-6))


def test_explain_in_shadow_mode_shows_the_routed_choice(trained):
    router = trained(mode="shadow")

    assert "cheap" == router.explain("easy question").chosen


def test_plan_spends_and_logs_nothing(trained, client, logged):
    router = trained()

    plan = router.plan(["easy question", "hard question"], policy=Knee())

    assert ("cheap", "middling", "dear") == plan.columns
    assert (2,) == plan.choice.shape
    assert [] == client.calls
    assert [] == logged(router)


def test_check_remarks_on_what_is_missing(make_router, train, monkeypatch):
    monkeypatch.delenv("NOT_SET", raising=False)
    lonely = make_router([{"model": "cheap"}], default="cheap")

    remarks = lonely.check()

    assert [
        "there is one candidate only: nothing to choose between",
        "`route_models` is empty: only calls with model='auto' are routed",
        "not fitted: 0/50 labels: `probe`, `import` or `feedback`, then `retrain`",
        (
            "OPTLLM_FEATURE_KEY is not set: text hashes and features are not keyed, so whoever "
            "holds the log can test whether a known text is in it"
        ),
        "no graders are configured: outcomes come from `feedback`, `probe` and `import` only",
    ] == remarks


def test_a_complete_set_up_has_no_remark(trained):
    router = trained(
        route_models=["gpt-4o"], graders={"default": {"kind": "exact"}}, feature_key="key"
    )

    assert [] == router.check()


def test_model_list_and_default_params_are_litellms(make_router):
    router = make_router(route_models=["gpt-4o"])

    assert [
        {"model_name": name, "litellm_params": {"model": name}}
        for name in ("auto", "gpt-4o", "cheap", "middling", "dear")
    ] == router.model_list
    assert {} == router.default_litellm_params


def test_a_router_is_a_context_manager_and_may_be_closed_twice(make_router, ask):
    with make_router() as router:
        router.complete(messages=ask())

    assert [0, 0] == [router.close(), router.close()]
    assert not [t for t in threading.enumerate() if t.name in {"optllm-log", "optllm-housekeeping"}]


def test_an_exception_in_the_with_block_passes_and_the_router_is_closed(make_router, ask):
    with pytest.raises(KeyError, match="mine"), make_router() as router:
        router.complete(messages=ask())
        raise KeyError("mine")

    assert router._engine._closed


PRICES = {"a": (1, 1), "b": (2, 2)}


def test_two_routers_share_no_state(tmp_path, ask):
    def build(name, policy):
        client = ScriptedClient({"a": Line(text=name), "b": Line(text=name)}, prices=PRICES)
        return Router(
            ["a", "b"],
            default="b",
            policy=policy,
            store=f"sqlite:///{tmp_path / name}.db",
            client=client,
            predictor={"n_bootstraps": 4},
        )

    with build("one", Cheapest()) as one, build("two", MostAccurate()) as two:
        one.probe([f"q{i}" for i in range(40)], grader=lambda text, reference: 1.0)
        one.retrain()
        first, second = one.complete(messages=ask()), two.complete(messages=ask())

        assert ["one", "two"] == [r.choices[0].message.content for r in (first, second)]
        assert "cheapest" == first._hidden_params["optllm"]["reason"]
        assert "not fitted: 0/50 labels" == second._hidden_params["optllm"]["reason"]
        assert 1 == len(two._engine.store.decisions())
        assert one.candidates == two.candidates


def test_sync_and_async_methods_have_the_same_parameters():
    for sync, asynchronous in (
        ("complete", "acomplete"),
        ("complete_batch", "acomplete_batch"),
        ("completion", "acompletion"),
    ):
        ours = inspect.signature(getattr(Router, sync)).parameters
        theirs = inspect.signature(getattr(Router, asynchronous)).parameters
        assert ours == theirs
        assert inspect.iscoroutinefunction(getattr(Router, asynchronous))


def test_a_candidate_without_a_price_is_refused_at_the_start(make_router):
    with pytest.raises(UnpricedCandidateError) as caught:
        make_router(["other"], default="other")

    assert "other" == caught.value.candidate


def test_duplicate_candidates_are_refused_at_the_start(make_router):
    with pytest.raises(ConfigError, match="cheap"):
        make_router(["cheap", "cheap"], default="cheap")


def test_a_probe_asks_every_candidate_that_can_and_reports(make_router, client):
    router = make_router(["cheap", "dear"], default="cheap")

    report = router.probe(
        ["a", "b"],
        ["cheap says", "nothing"],
        tasks=["t", "u"],
        grader=lambda text, reference: float(text == reference),
    )

    assert (2, 4, 0, 0, 4) == (
        report.n_queries,
        report.n_calls,
        report.n_errors,
        report.n_skipped,
        report.n_graded,
    )
    assert {"cheap": 0.5, "dear": 0.0} == report.mean_score
    assert {"cheap": 0.00015, "dear": 0.0015} == report.mean_cost_usd
    assert pytest.approx(0.0033) == report.cost_usd
    rows = router._engine.store.decisions()
    assert {"probe"} == {one.decision.kind for one in rows}
    assert {"t", "u"} == {one.decision.task for one in rows}
    assert 1 == len({one.decision.batch_id for one in rows})
    with pytest.raises(ConfigError, match="1 references for 2 queries: pass one per query"):
        router.probe(["a", "b"], ["only one"])
    with pytest.raises(ConfigError, match="`stream=True` in a probe"):
        router.probe(["a"], stream=True)


def test_configured_graders_grade_in_the_background(make_router, ask):
    router = make_router(graders={"sums": {"kind": "exact"}})
    right = router.complete(messages=ask(), task="sums", reference="middling says")
    wrong = router.complete(messages=ask(), task="sums", reference="else")
    ungraded = router.complete(messages=ask(), task="other", reference="else")
    router.flush()

    graded = [
        [
            (outcome.source, outcome.score)
            for outcome in router._engine.store.decision(
                response._hidden_params["optllm"]["decision_id"]
            ).outcomes
        ]
        for response in (right, wrong, ungraded)
    ]

    assert [[("grader:exact", 1.0)], [("grader:exact", 0.0)], []] == graded
