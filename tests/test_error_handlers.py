"""Handlers of every exception stand only where they are listed, each with its reason."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "optllm_router"
WIDE = {"Exception", "BaseException"}

ALLOWED = {
    # Guards: the traceback is logged and the fault counted, and serving goes on.
    "dispatch/deciding.py:Decider.decide": "the router's guard: the default candidate answers",
    "dispatch/deciding.py:Decider._shadowed": "the same in shadow mode: what was asked answers",
    "dispatch/deciding.py:Decider._forecast": "a call as asked goes out, at its worst case",
    "dispatch/prepare.py:prepare_batch": "the same for a batch: its items are decided singly",
    "dispatch/calls.py:_Call._read": "an answer that we cannot read is the caller's all the same",
    "dispatch/embedding.py:Embeddings._embed": "the user's embedder; queries go on without",
    "dispatch/resuming.py:Place.answered": "one that we cannot keep, too",
    "dispatch/journal.py:Journal.write": "a log that fails costs nobody an answer; it is repeated",
    "dispatch/attempts.py:Attempts._following": "the caller gets the provider's own error",
    "router/engine.py:Engine._try_out": "what a decision will need, done early, on no one's call",
    "router/housekeeping.py:_keep": "the refit worker: serving goes on with the old predictor",
    "store/background.py:BackgroundWriter._grade": "user-supplied graders; the others go on",
    "store/background.py:BackgroundWriter._try": "a write that can never succeed; the others go on",
    # Hand-overs: nothing is swallowed, the exception goes where the caller finds it.
    "dispatch/effects.py:run": "a call's conversation is told, and decides",
    "dispatch/effects.py:arun": "the same, awaited",
    "dispatch/watch.py:_Errand": "who waits for the errand gets the exception",
    "dispatch/workers.py:run_batch": "an item's exception stands in its place, interrupts pass",
    "dispatch/workers.py:arun_batch": "an item's exception stands in its place",
    "dispatch/embedding.py:_imported": "at the start: the user's module, as a ConfigError",
    "dispatch/embedding.py:_on_a_thread": "at the start: whoever waits for the rows gets it",
    "dispatch/embedding.py:_measured": "at the start: the user's embedder, as a ConfigError",
    "router/store_thread.py:_on_its_own": "whoever waits for the result gets the exception",
    # Clean-ups: raised again once what has to be written or released is.
    "dispatch/admission.py:Admission.prepared": "what may be reserved for it is given back first",
    "dispatch/attempts.py:Attempts.run": "the failed attempt is booked first, and judged",
    "dispatch/calls.py:_Call.converse": "an attempt that is cut off is booked first",
    "dispatch/calls.py:_Call._held": "the failed call is logged first",
    "dispatch/watch.py:_on_a_thread": "an errand that is waited for no more is told so",
    "dispatch/calls.py:_Call._streaming": "a stream that never reached its caller is settled first",
    "dispatch/streams.py:RoutedStream.__next__": "a stream that fails is settled first",
    "dispatch/streams.py:RoutedStream.__anext__": "the same, awaited",
    "dispatch/journal.py:Journal._write_later": "the count of waiting entries is kept right",
    "dispatch/resuming.py:hold_batch": "a batch that cannot go on is let go first",
    "router/engine.py:Engine.batch": "the same",
    "ledger/shared.py:Ledger.reserve": "a reservation that may be there is settled later",
    "router/engine.py:Engine.__init__": "a store that was opened is closed first",
    "store/database.py:Database._written_on_file": "the connection is dropped, lock and all",
    "store/sql.py:open_store": "connections that were opened are closed first",
}


def names(node: ast.expr | None) -> set[str]:
    """The classes that a handler names; a bare one catches everything."""
    if node is None:
        return {"BaseException"}
    if isinstance(node, ast.Tuple):
        return {name for element in node.elts for name in names(element)}
    return {node.id} if isinstance(node, ast.Name) else set()


def is_wide(node: ast.AST) -> bool:
    if isinstance(node, ast.ExceptHandler):
        return bool(names(node.type) & WIDE)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name | ast.Attribute):
        name = node.func.id if isinstance(node.func, ast.Name) else node.func.attr
        return name == "suppress" and any(names(argument) & WIDE for argument in node.args)
    return False


def wide_handlers(tree: ast.AST, scope: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the qualified name of the public scope around every wide handler."""
    for node in ast.iter_child_nodes(tree):
        inner = scope
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inner = (*scope, node.name)
        if is_wide(node):
            yield ".".join(scope)
        yield from wide_handlers(node, inner)


def outermost(scope: str) -> str:
    """A nested function belongs to the function, or the method, that it stands in."""
    parts = scope.split(".")
    return ".".join(parts[:2] if parts[0][:1].isupper() or parts[0].startswith("_C") else parts[:1])


def test_wide_handlers_stand_only_where_they_are_listed():
    found = Counter(
        f"{path.relative_to(PACKAGE).as_posix()}:{outermost(scope)}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for scope in wide_handlers(ast.parse(path.read_text()))
    )

    assert sorted(ALLOWED) == sorted(found)


def test_guards_log_the_traceback():
    """Whatever swallows an exception tells the log about it, with its traceback."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not (isinstance(node, ast.ExceptHandler) and is_wide(node)):
                continue
            body = "\n".join(ast.unparse(statement) for statement in node.body)
            tells = (
                "logger.exception",
                "raise",
                "job.finish(item, error)",
                "_give_up",
                "raised",
                "set_exception",
            )
            assert any(word in body for word in tells), f"{path}:{node.lineno} swallows: {body}"
