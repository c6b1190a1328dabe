"""A router with an embedder: it learns what only embeddings tell, and never waits for them long."""

import asyncio
import json
import logging
import multiprocessing
import shutil
import threading
import time

import numpy as np
import pytest

from optllm_router import Budget, ConfigError, Router, WillingnessToPay
from optllm_router.core.features import hash_text, pack, unpack
from optllm_router.dispatch import embedding
from optllm_router.dispatch.embedding import AT_ONCE, Embeddings
from optllm_router.learning import RefitSettings, load_version, refit_in_child
from optllm_router.records import Usage
from optllm_router.testing.scripted import Line, ScriptedClient

N_DIMENSIONS = 16
OPEN_S = 30.0


def is_bright(text):
    """What decides, and no word or digit of a text tells: cheap is right on bright ones only."""
    number = int(text.split()[-1]) if text.split()[-1].isdigit() else 0
    return np.random.default_rng(number).random() < 0.5


def toy(texts):
    """Embed by one telling dimension beside fifteen of noise."""
    rows = np.array(
        [np.random.default_rng([1, len(t), *t.encode()[-4:]]).random(16) for t in texts]
    )
    return np.column_stack([[1.0 if is_bright(t) else -1.0 for t in texts], 0.3 * rows[:, 1:]])


class Watched:
    """An embedder that counts its calls and can be made to fail or to hang."""

    def __init__(self):
        self.calls = []
        self.error = None
        self.open = threading.Event()
        self.open.set()

    def __call__(self, texts):
        self.calls.append(list(texts))
        self.open.wait(OPEN_S)
        if self.error is not None:
            raise self.error
        return toy(texts)

    @property
    def asked(self):
        """The texts that it was asked for, but for those of its first call, which measures."""
        return [text for texts in self.calls[1:] for text in texts]


@pytest.fixture
def embedder():
    watched = Watched()
    yield watched
    watched.open.set()


POLICY = WillingnessToPay(0.002)
SAMPLE = [f"question number {i}" for i in range(100, 160)]
NEW = [f"question number {i}" for i in range(500, 560)]


def teach(router):
    """Pin every question to cheap and dear, say who was right, and fit."""
    for text in SAMPLE:
        for name in ("cheap", "dear"):
            response = router.complete(name, [{"role": "user", "content": text}])
            router.feedback(response, score=name == "dear" or is_bright(text))
    report = router.retrain()
    assert report.published, report.reason


@pytest.fixture(scope="module")
def lessons(tmp_path_factory):
    """The log of a router that has learned by embeddings, made once."""
    path = tmp_path_factory.mktemp("lessons") / "log.db"
    usage = Usage(prompt_tokens=100, completion_tokens=50)
    lines = {name: Line(text=f"{name} says", usage=usage) for name in ("cheap", "dear")}
    client = ScriptedClient(lines, prices={"cheap": (1, 1), "dear": (10, 10)})
    settings = {"store": f"sqlite:///{path}", "predictor": {"n_bootstraps": 5}, "client": client}
    with Router(["cheap", "dear"], default="dear", embedder=toy, **settings) as router:
        teach(router)
    return path


@pytest.fixture
def learned(make_router, embedder, lessons, tmp_path):
    shutil.copy(lessons, tmp_path / "log.db")
    return make_router(["cheap", "dear"], default="dear", policy=POLICY, embedder=embedder)


def candidate(response):
    return response._hidden_params["optllm"]["candidate"]


def wanted(texts):
    return ["cheap" if is_bright(text) else "dear" for text in texts]


def share_as_wanted(found, texts):
    return np.mean([one == other for one, other in zip(found, wanted(texts), strict=True)])


# -- learning ---------------------------------------------------------------------------------


def test_a_router_learns_what_only_the_embedding_tells(learned, make_router, ask):
    found = [candidate(learned.complete(messages=ask(text))) for text in NEW]

    assert share_as_wanted(found, NEW) > 0.95


def test_without_the_embedder_the_same_questions_teach_nothing(make_router, ask):
    router = make_router(["cheap", "dear"], default="dear", policy=POLICY)
    teach(router)
    found = {candidate(router.complete(messages=ask(text))) for text in NEW}

    assert 0 == router._engine.state.snapshot.predictor.n_dimensions_
    assert 1 == len(found)


def test_batches_and_plans_and_explanations_look_at_embeddings(learned):
    answers = learned.complete_batch(NEW, policy=POLICY)
    plan = learned.plan(NEW, policy=POLICY)
    capped = learned.complete_batch(NEW, policy=Budget(usd=1.0))

    assert share_as_wanted([candidate(answer) for answer in answers], NEW) > 0.95
    assert share_as_wanted([plan.columns[j] for j in plan.choice], NEW) > 0.95
    assert share_as_wanted([learned.explain(text).chosen for text in NEW[:20]], NEW[:20]) > 0.9
    assert not [answer for answer in capped if isinstance(answer, Exception)]


def test_a_probe_embeds_each_query_once_and_a_refit_none(make_router, embedder):
    router = make_router(["cheap", "dear"], default="dear", policy=POLICY, embedder=embedder)
    router.probe(SAMPLE, grader=lambda _text, _reference: 1.0)
    router.retrain()

    assert sorted(SAMPLE) == sorted(embedder.asked)
    assert max(len(texts) for texts in embedder.calls) <= AT_ONCE
    assert N_DIMENSIONS == router._engine.state.snapshot.predictor.n_dimensions_


def test_imported_outcomes_are_embedded(make_router, embedder, tmp_path):
    router = make_router(["cheap", "dear"], default="dear", policy=POLICY, embedder=embedder)
    rows = [
        {"query": text, "model": name, "score": float(name == "dear" or is_bright(text))}
        for text in SAMPLE
        for name in ("cheap", "dear")
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    router.import_outcomes(path)
    assert router.retrain().published
    prob = router.plan(NEW).estimates.prob[:, 0]

    assert np.abs(prob - [is_bright(text) for text in NEW]).max() < 0.3
    assert SAMPLE == embedder.asked[: len(SAMPLE)]


def test_a_refit_in_a_child_process_needs_no_embedder(learned):
    engine = learned._engine
    report = refit_in_child(
        engine.store.url,
        engine.state.candidates,
        RefitSettings(n_bootstraps=5, n_dimensions=N_DIMENSIONS),
        price_version=engine.state.price_version,
    )
    here, there = engine.state.snapshot, load_version(engine.store, report.version)

    assert report.published, report.reason
    assert N_DIMENSIONS == there.predictor.n_dimensions_
    for name, array in here.predictor.to_arrays().items():
        assert array.tobytes() == there.predictor.to_arrays()[name].tobytes(), name


def test_a_log_from_before_the_embedder_goes_on_as_average(make_router, embedder, ask):
    old = make_router(["cheap", "dear"], default="dear", policy=POLICY)
    teach(old)
    old.close()
    router = make_router(["cheap", "dear"], default="dear", policy=POLICY, embedder=embedder)
    remark = "the published predictor does not look at these embeddings: the next refit may"
    assert remark in router.check()
    for text in NEW:
        for name in ("cheap", "dear"):
            response = router.complete(name, ask(text))
            router.feedback(response, score=name == "dear" or is_bright(text))
    assert router.retrain().published
    plan = router.plan([f"question number {i}" for i in range(900, 950)])

    assert remark not in router.check()
    assert {None, N_DIMENSIONS} == {
        None if features.dense is None else features.dense.size
        for features in (
            unpack(one.decision.features) for one in router._engine.store.decisions(limit=1000)
        )
    }
    texts = [f"question number {i}" for i in range(900, 950)]
    assert share_as_wanted([plan.columns[j] for j in plan.choice], texts) > 0.9


def test_a_text_that_was_logged_before_gains_its_embedding_when_it_comes_again(
    make_router, embedder, ask
):
    make_router().complete(messages=ask("one text"))
    router = make_router(embedder=embedder)
    router.complete(messages=ask("one text"))
    embedder.error = RuntimeError("no model")
    router.complete(messages=ask("one text"))

    assert [N_DIMENSIONS] * 3 == [unpack(features).dense.size for features in kept(router)]


# -- what is kept -----------------------------------------------------------------------------


def kept(router):
    return [one.decision.features for one in router._engine.store.decisions(limit=1000)]


def test_every_kind_of_call_keeps_its_embedding_beside_the_features(make_router, embedder, ask):
    router = make_router(embedder=embedder)
    text = NEW[0]
    router.complete(messages=ask(text))
    list(router.complete(messages=ask(text), stream=True))
    router.complete("other", ask(text))
    router.complete_batch([text])
    router.probe([text], grader=lambda _text, _reference: 1.0)

    (row,) = toy([text])
    row = (row / np.linalg.norm(row)).astype(np.float32).astype(np.float16)
    found = [unpack(features) for features in kept(router)]
    assert 4 + 3 == len(found)
    assert {tuple(row.astype(np.float32))} == {tuple(one.dense) for one in found}
    assert {hash_text(text).indices.tobytes()} == {one.indices.tobytes() for one in found}


def test_without_an_embedder_the_log_holds_the_bytes_it_always_held(make_router, ask):
    router = make_router()
    router.complete(messages=ask("one text"))

    assert [pack(hash_text("one text"))] == kept(router)


@pytest.mark.parametrize("level", ["none", "hash"])
def test_a_level_that_keeps_no_features_keeps_no_embedding_and_asks_for_none(
    make_router, embedder, ask, level
):
    router = make_router(embedder=embedder, prompts=level)
    router.complete(messages=ask("one text"))
    router.complete_batch(["two texts"])
    router.probe(["a probe"], grader=lambda _text, _reference: 1.0)

    assert {None} == set(kept(router))
    assert [] == embedder.asked


def test_a_level_that_keeps_none_still_serves_a_predictor_that_looks_at_them(
    learned, make_router, embedder, ask
):
    learned.close()
    router = make_router(
        ["cheap", "dear"], default="dear", policy=POLICY, embedder=embedder, prompts="hash"
    )
    found = [candidate(router.complete(messages=ask(text))) for text in NEW]

    assert share_as_wanted(found, NEW) > 0.95
    assert [None] * len(NEW) == kept(router)[: len(NEW)]


def test_the_log_is_said_to_hold_embeddings_that_no_key_protects(make_router, embedder):
    said = [r for r in make_router(embedder=embedder).check() if "no key protects" in r]
    other = make_router(embedder=embedder, prompts="hash").check()

    assert 1 == len(said)
    assert [] == [remark for remark in other if "no key protects" in remark]


def test_a_forest_is_said_not_to_look_at_them(make_router, embedder):
    router = make_router(embedder=embedder, predictor={"kind": "forest", "n_bootstraps": 2})

    assert "`embedder` is set, but forests do not look at embeddings" in router.check()


# -- an embedder that fails -------------------------------------------------------------------


@pytest.mark.parametrize("error", [RuntimeError("no model"), SystemExit(3)], ids=repr)
def test_an_embedder_that_raises_costs_no_answer_is_logged_once_and_counted(
    learned, embedder, ask, caplog, error
):
    embedder.error = error
    with caplog.at_level(logging.ERROR, "optllm_router"):
        answers = [learned.complete(messages=ask(text)) for text in NEW[:5]]
        answers += learned.complete_batch(NEW[:5])

    assert [None] * 5 == [unpack(features).dense for features in kept(learned)[:5]]
    assert 1 == len({candidate(answer) for answer in answers})
    (record,) = caplog.records
    assert "the embedder failed: queries go on without embeddings" in record.getMessage()
    assert record.exc_info
    assert 10 == learned._engine.embeddings.n_missed
    assert [r for r in learned.check() if "failed or took too long for 10 texts" in r]
    assert 0 == learned._engine.desk.decider.n_faults

    embedder.error = None
    found = [candidate(learned.complete(messages=ask(text))) for text in NEW]
    assert share_as_wanted(found, NEW) > 0.95


def test_a_text_that_the_embedder_cannot_take_costs_the_others_nothing(learned, embedder):
    def picky(texts):
        if any("\ud800" in text for text in texts):
            raise UnicodeError("surrogates not allowed")
        return toy(texts)

    learned._engine.embeddings._embedder = picky
    answers = learned.complete_batch([*NEW[:20], "broken \ud800", *NEW[20:]])
    without = [unpack(features).dense is None for features in kept(learned)[: len(NEW) + 1]]

    assert share_as_wanted([candidate(a) for a in answers[:20] + answers[21:]], NEW) > 0.95
    assert "says" in answers[20].choices[0].message.content
    assert 1 == sum(without)
    assert 1 == learned._engine.embeddings.n_missed


def test_an_embedder_that_is_down_is_not_called_for_every_text(learned, embedder):
    embedder.error = ConnectionError("down")
    del embedder.calls[:]
    learned.complete_batch(NEW)

    assert [AT_ONCE, 1, 1, 1, len(NEW) - AT_ONCE, 1, 1, 1] == [len(c) for c in embedder.calls]
    assert len(NEW) == learned._engine.embeddings.n_missed


def test_a_later_failure_is_logged_again_with_the_count(learned, embedder, ask, caplog):
    embedder.error = ConnectionError("down")
    for text in NEW[:2]:
        learned.complete(messages=ask(text))
    learned._engine.embeddings._told_at -= embedding.QUIET_S
    learned.complete(messages=ask(NEW[2]))

    assert [1, 3] == [int(m.split(" so far")[0].split()[-1]) for m in caplog.messages]


@pytest.mark.parametrize("vectors", [[1.0], [[1.0, 2.0]], [[np.nan] * N_DIMENSIONS], None], ids=str)
def test_wrong_vectors_in_service_cost_no_answer(learned, embedder, ask, caplog, vectors):
    learned._engine.embeddings._embedder = lambda _texts: vectors
    response = learned.complete(messages=ask("question number 7"))

    assert response.choices[0].message.content.endswith("says")
    assert "ConfigError" in caplog.text


def test_an_embedder_that_hangs_costs_one_wait_and_serves_again_once_it_is_back(
    learned, embedder, ask, monkeypatch, caplog
):
    monkeypatch.setattr(embedding, "PATIENCE_S", 0.2)
    embedder.open.clear()
    start = time.perf_counter()
    first = learned.complete(messages=ask(NEW[0]))
    waited = time.perf_counter() - start
    start = time.perf_counter()
    others = learned.complete_batch(NEW[:10])
    then = time.perf_counter() - start

    assert "says" in first.choices[0].message.content
    assert 10 == len([answer for answer in others if not isinstance(answer, Exception)])
    assert 0.2 <= waited < OPEN_S / 2
    assert then < OPEN_S / 2
    assert 11 == learned._engine.embeddings.n_missed
    assert 1 == caplog.text.count("the embedder took more than 0.2 s")

    monkeypatch.setattr(embedding, "PATIENCE_S", OPEN_S)
    embedder.open.set()
    while learned._engine.embeddings._is_working:
        time.sleep(0.01)
    found = [candidate(learned.complete(messages=ask(text))) for text in NEW]
    assert share_as_wanted(found, NEW) > 0.95


def test_whoever_waits_behind_a_hanging_call_goes_on_with_it(embedder, monkeypatch):
    monkeypatch.setattr(embedding, "PATIENCE_S", 0.3)
    embeddings = Embeddings(embedder)
    embedder.open.clear()
    found = []
    threads = [
        threading.Thread(target=lambda i=i: found.append(embeddings.of([f"text {i}"])))
        for i in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(OPEN_S / 2)

    assert [[None]] * 5 == found
    assert 5 == embeddings.n_missed
    assert 2 == len(embedder.calls)


# -- the two shells ---------------------------------------------------------------------------


def facts(response):
    kept_facts = dict(response._hidden_params["optllm"])
    del kept_facts["decision_id"]
    return kept_facts


def test_sync_and_async_decide_the_same_and_log_the_same(learned, ask):
    async def awaited():
        single = [await learned.acomplete(messages=ask(text)) for text in NEW[:8]]
        return single, await learned.acomplete_batch(NEW[:8])

    single, batch = asyncio.run(awaited())
    by_async = kept(learned)[:16]
    again = [learned.complete(messages=ask(text)) for text in NEW[:8]]
    batch_again = learned.complete_batch(NEW[:8], concurrency=1)
    by_sync = kept(learned)[:16]

    assert [facts(r) for r in again] == [facts(r) for r in single]
    assert [facts(r) for r in batch_again] == [facts(r) for r in batch]
    assert sorted(by_sync) == sorted(by_async)
    assert all(unpack(features).dense is not None for features in by_async)


async def test_a_slow_embedder_does_not_block_the_event_loop(learned, embedder, ask):
    await learned.acomplete(messages=ask("warm up"))
    embedder.open.clear()
    call = asyncio.create_task(learned.acomplete(messages=ask(NEW[0])))
    gaps, last = [], time.perf_counter()
    for _ in range(100):
        await asyncio.sleep(0.001)
        gaps.append(time.perf_counter() - last)
        last = time.perf_counter()
    assert not call.done()
    embedder.open.set()

    assert wanted(NEW[:1]) == [candidate(await call)]
    assert sorted(gaps)[-3] < 0.1


async def test_a_hanging_embedder_costs_no_async_answer(learned, embedder, ask, monkeypatch):
    monkeypatch.setattr(embedding, "PATIENCE_S", 0.2)
    embedder.open.clear()
    calls = [learned.acomplete(messages=ask(text)) for text in NEW[:20]]
    answers = await asyncio.wait_for(asyncio.gather(*calls), OPEN_S / 2)

    assert 20 == len(answers)
    assert 20 == learned._engine.embeddings.n_missed


async def test_calls_that_come_together_are_embedded_together(learned, embedder, ask):
    embedder.open.clear()
    calls = [asyncio.create_task(learned.acomplete(messages=ask(text))) for text in NEW]
    while len(learned._engine.embeddings._waiting) < len(NEW) - 1:
        await asyncio.sleep(0.01)
    embedder.open.set()
    found = [candidate(response) for response in await asyncio.gather(*calls)]

    assert [1, AT_ONCE, len(NEW) - 1 - AT_ONCE] == [len(texts) for texts in embedder.calls[1:]]
    assert sorted(NEW) == sorted(embedder.asked)
    assert share_as_wanted(found, NEW) > 0.95


async def test_a_cancelled_call_leaves_the_embedder_to_the_others(learned, embedder, ask):
    embedder.open.clear()
    first, second, third = (
        asyncio.create_task(learned.acomplete(messages=ask(text))) for text in NEW[:3]
    )
    await asyncio.sleep(0.05)
    first.cancel()
    second.cancel()
    embedder.open.set()

    assert wanted(NEW[2:3]) == [candidate(await third)]
    assert (True, True) == (first.cancelled(), second.cancelled())
    assert 0 == learned._engine.embeddings.n_missed


def test_the_embedder_is_called_once_at_a_time(embedder):
    inside, most = [], []

    def counting(texts):
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.002)
        inside.pop()
        return toy(texts)

    embeddings = Embeddings(counting)
    threads = [
        threading.Thread(target=embeddings.of, args=([f"text {i} {j}" for j in range(40)],))
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {1} == set(most)
    assert "optllm-embedder" not in {thread.name for thread in threading.enumerate()}


def embed_and_tell(embeddings, sending):
    (row,) = embeddings.of(["a text"])
    sending.send(None if row is None else row.tolist())


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_child_embeds_while_its_parent_waits(embedder):
    embeddings = Embeddings(embedder)
    receiving, sending = multiprocessing.Pipe()
    embeddings._is_working = True  # as if a thread of the parent's were at it
    child = multiprocessing.get_context("fork").Process(
        target=embed_and_tell, args=(embeddings, sending)
    )
    child.start()
    assert receiving.poll(OPEN_S)
    found = receiving.recv()
    child.join(OPEN_S)

    embeddings._is_working = False
    assert embeddings.of(["a text"])[0].tolist() == found


# -- set-up -----------------------------------------------------------------------------------

MODULE = """
import sqlite3

def embed(texts):
    return [[1.0, len(text)] for text in texts]

class Model:
    def encode(self, sentences):
        return embed(sentences)

class Shelf:
    model = Model()

def broken(texts):
    raise OSError("no file of weights")

def flat(texts):
    return [1.0 for _ in texts]

def zeros(texts):
    return [[0.0] for _ in texts]

def not_a_number(texts):
    return [[1.0, float("nan")] for _ in texts]

async def coroutine(texts):
    return embed(texts)

NUMBER = 7

CACHE = sqlite3.connect(":memory:")

def bound_to_a_thread(texts):
    CACHE.execute("SELECT 1")
    return embed(texts)
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_embedders.py").write_text(MODULE)
    (tmp_path / "my_lost_model.py").write_text("raise OSError('weights are not on this machine')")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("name", ["embed", "Model", "Shelf.model"])
def test_an_embedder_is_imported_by_its_path(make_router, module, ask, name):
    if name == "Model":
        with pytest.raises(ConfigError, match="missing 1 required positional argument"):
            make_router(embedder="my_embedders:Model")  # the class, not one of its objects
        return
    router = make_router(embedder=f"my_embedders:{name}")
    router.complete(messages=ask("a text"))

    assert 2 == router._engine.embeddings.n_dimensions
    assert [2] == [unpack(features).dense.size for features in kept(router)]


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("my_nowhere:embed", r"`embedder`: .*'my_nowhere:embed' cannot be imported"),
        ("my_embedders:nothing", "`embedder`: .*has no attribute 'nothing'"),
        ("my_lost_model:embed", r"OSError: weights are not on this machine\): mend its module"),
        ("my_embedders:broken", r"fails on 2 short texts \(OSError: no file of weights\)"),
        ("my_embedders:flat", r"embedder `flat` returned shape \(2,\) for 2 texts"),
        ("my_embedders:zeros", "returns zeros for"),
        ("my_embedders:not_a_number", "returned nan as number 1 of text 0"),
        ("my_embedders:coroutine", "must be a plain function"),
        ("my_embedders:bound_to_a_thread", "fails on 2 short texts .ProgrammingError: SQLite obj"),
        ("my_embedders:NUMBER", "must be a plain function"),
    ],
)
def test_an_embedder_that_does_not_work_is_an_error_before_any_call(
    make_router, module, tmp_path, path, said
):
    with pytest.raises(ConfigError, match=said):
        make_router(embedder=path)

    assert not (tmp_path / "log.db").exists()


def shorter(texts):
    return toy(texts)[:, :3]


def test_an_embedder_of_another_length_is_warned_of_and_learned_by_a_refit(
    learned, make_router, ask, caplog
):
    learned.close()
    router = make_router(["cheap", "dear"], default="dear", policy=POLICY, embedder=shorter)
    said = (
        "the published predictor was fitted on embeddings of 16 dimensions, those of `embedder` "
        "have 3: to it every query counts as an average one, until a refit learns from the new ones"
    )
    found = {candidate(router.complete(messages=ask(text))) for text in NEW[:5]}

    assert 1 == len(found)
    assert said in caplog.messages
    assert said in router.check()

    for text in NEW:
        router.feedback(router.complete("cheap", ask(text)), score=is_bright(text))
    assert router.retrain().published
    assert 3 == router._engine.state.snapshot.predictor.n_dimensions_
    assert said not in router.check()


def test_a_router_that_lost_its_embedder_answers_by_average_until_a_refit_and_says_so(
    learned, make_router, embedder, ask, caplog
):
    learned.close()
    router = make_router(["cheap", "dear"], default="dear", policy=POLICY)
    said = (
        "the published predictor was fitted on embeddings, but no `embedder` is set: to it every "
        "query counts as an average one. Set it again, or `retrain` without"
    )
    found = {candidate(router.complete(messages=ask(text))) for text in NEW}

    assert 1 == len(found)
    assert 1 == caplog.messages.count(said)
    assert said in router.check()

    assert router.retrain().published
    assert 0 == router._engine.state.snapshot.predictor.n_dimensions_
    assert said not in router.check()

    other = make_router(["cheap", "dear"], default="dear", embedder=embedder)
    assert other.retrain().published
    router._engine.take_over()
    assert 2 == caplog.messages.count(said)
