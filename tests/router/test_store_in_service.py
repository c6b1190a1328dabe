"""A log that fails while calls are made: answers go on, rows wait, hard budgets refuse."""

import asyncio
import logging
import sqlite3
import threading
from contextlib import ExitStack, contextmanager

import pytest
from sqlalchemy import event

from optllm_router import Budget, Router, StoreError
from optllm_router.dispatch import journal
from optllm_router.router import engine
from optllm_router.testing.scripted import Line


@contextmanager
def broken(router, how="query_only"):
    """Have every write fail meanwhile: a read-only database, or one that may not grow."""
    database = router._engine.store._database
    statement, undo = {
        "query_only": ("query_only = ON", "query_only = OFF"),
        "disk full": ("max_page_count = 1", "max_page_count = 1000000"),
    }[how]

    now = [statement]

    def set_pragma(connection, _record) -> None:
        connection.execute(f"PRAGMA {now[0]}")

    with database._lock:  # nobody connects to write meanwhile
        event.listen(database.engine, "connect", set_pragma)
    database.close()  # the connections there are
    try:
        yield
    finally:
        now[0] = undo
        database.close()


@pytest.fixture(params=["query_only", "disk full"])
def fault(request):
    return request.param


def many(router, ask, n=40):
    """Enough calls to need new pages, with texts of their own."""
    return [router.complete(messages=ask(f"question {i} {'word ' * 50}{i}")) for i in range(n)]


def test_answers_go_on_and_the_rows_are_written_after_recovery_in_order(
    make_router, client, logged, ask, fault, caplog
):
    router = make_router()
    router.complete(messages=ask("before"))

    with broken(router, fault), caplog.at_level(logging.ERROR, "optllm_router"):
        during = many(router, ask)
        waiting = router.flush(0.2)
    after = router.complete(messages=ask("after"))
    left = router.flush(20)

    assert ["middling says"] * 40 == [r.choices[0].message.content for r in during]
    assert waiting > 0
    assert 0 == left
    assert "the log cannot be written; the entry waits in memory" in caplog.text
    rows = {one.decision.id: one for one in logged(router)}
    assert 42 == len(rows)
    for response in (*during, after):
        row = rows[response._hidden_params["optllm"]["decision_id"]]
        assert ["ok"] == [attempt.status for attempt in row.attempts]


@pytest.mark.parametrize("shell", ["sync", "async"])
@pytest.mark.parametrize("per", ["call", "batch"])
def test_under_a_hard_budget_the_first_call_is_refused_before_it_is_made(
    make_router, client, ask, shell, per
):
    router = make_router(policy=Budget(usd=1.0, per=per))

    with broken(router), pytest.raises(StoreError) as caught:
        if shell == "sync":
            router.complete(messages=ask())
        else:
            asyncio.run(router.acomplete(messages=ask()))

    assert "no call was made, since money that cannot be accounted for is not spent" in str(
        caught.value
    )
    assert [] == client.calls
    assert "middling says" == router.complete(messages=ask()).choices[0].message.content


@pytest.mark.parametrize("shell", ["sync", "async"])
def test_a_batch_under_a_budget_refuses_its_items_and_gives_their_reserve_back(
    trained, client, shell
):
    router = trained()
    lines = iter(range(100))

    def line(_arguments) -> Line:
        return Line(cost_nusd=1000 + next(lines))

    client._scripts = dict.fromkeys(client._scripts, line)
    texts = [f"easy question {i}" for i in range(12)]
    budget = Budget(usd=0.0085)  # two worst cases of the cheapest at a time

    with broken(router):
        if shell == "sync":
            results = router.complete_batch(texts, policy=budget, concurrency=4)
        else:
            results = asyncio.run(router.acomplete_batch(texts, policy=budget, concurrency=4))

    assert [StoreError] * 12 == [type(result) for result in results]
    assert [] == client.calls


@contextmanager
def locked(url):
    """Have another process hold SQLite's lock; give the function that lets it go."""
    file = url.removeprefix("sqlite:///")
    other = sqlite3.connect(file, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    yield lambda: other.execute("ROLLBACK")
    other.close()


@pytest.mark.parametrize("shell", ["sync", "async"])
def test_under_a_hard_budget_a_busy_log_is_waited_for_before_the_answer_is_given(
    make_router, client, only, ask, url, shell, monkeypatch
):
    monkeypatch.setattr(journal, "LOCKED_S", 0.05)
    router = make_router(budgets=[{"name": "room", "usd": 1.0, "per": "day"}])
    busy = ExitStack()

    def answer(_arguments) -> Line:
        let_go = busy.enter_context(locked(url))
        threading.Timer(0.3, let_go).start()
        return Line(text="late")

    client._scripts["cheap"] = answer
    if shell == "sync":
        router.complete(messages=ask())
    else:
        asyncio.run(router.acomplete(messages=ask()))

    assert 0 == router._engine.writer.n_waiting
    assert "ok" == only(router)[1].status
    busy.close()


def test_a_log_that_was_only_busy_refuses_no_call_under_a_hard_budget(
    make_router, logged, ask, url, monkeypatch
):
    monkeypatch.setattr(journal, "LOCKED_S", 0.5)
    budget = {"name": "room", "usd": 1.0, "per": "day", "match": {"tag": "team"}}
    router = make_router(budgets=[budget])
    with locked(url) as let_go:
        router.complete(messages=ask("written later"))
        assert 1 == router._engine.desk.journal.n_waiting
        threading.Timer(0.1, let_go).start()

        router.complete(messages=ask("in the meantime"), tags=["team"])

    assert [["ok"]] * 2 == [[a.status for a in one.attempts] for one in logged(router)]


def test_a_stream_that_began_before_the_fault_is_settled_after_it(make_router, only, ask):
    router = make_router()
    stream = router.complete(messages=ask(), stream=True)

    with broken(router):
        assert list(stream)
    assert 0 == router.flush(20)

    _, attempt = only(router)
    assert "ok" == attempt.status


def test_a_stream_of_the_fault_is_recorded_and_settled_in_order(make_router, only, ask):
    router = make_router()

    with broken(router):
        assert list(router.complete(messages=ask(), stream=True))
    assert 0 == router.flush(20)

    _, attempt = only(router)
    assert ("ok", True) == (attempt.status, attempt.streamed)


def test_what_is_still_unwritten_at_close_is_reported(make_router, ask, caplog, monkeypatch):
    monkeypatch.setattr(engine, "CLOSE_S", 0.3)
    router = make_router()

    with broken(router):
        router.complete(messages=ask("a"))
        router.complete(messages=ask("b"))
        with caplog.at_level(logging.ERROR):
            lost = router.close()

    assert 2 == lost
    assert "2 writes were never done" in caplog.text
    assert 0 == router.close()


def test_a_slow_grader_does_not_keep_the_log_down(make_router, logged, ask):
    router = make_router(graders={"default": {"kind": "exact"}})
    with broken(router):
        router.complete(messages=ask("a"))
    assert 0 == router.flush(20)
    release = threading.Event()
    router._engine.writer.submit(lambda: release.wait(10) and [])

    router.complete(messages=ask("b"))

    assert 2 == len(logged(router))
    release.set()


def test_a_store_that_cannot_be_opened_is_an_error_before_any_call(tmp_path, client):
    (tmp_path / "broken.db").write_bytes(b"this is no database, but long enough to look" * 40)

    for store in (
        f"sqlite:///{tmp_path / 'missing' / 'log.db'}",
        f"sqlite:///{tmp_path}",
        f"sqlite:///{tmp_path / 'broken.db'}",
    ):
        with pytest.raises(StoreError):
            Router(["cheap"], store=store, client=client)

    assert [] == client.calls
