"""What came of a batch, as the lines and the summary that `optllm run` gives."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optllm_router.history import History

Line = dict[str, Any]


def answer_lines(history: History, responses: Sequence[Any]) -> list[Line]:
    """Return one line per item, in order: an answer, or the error in its place.

    Costs and scores are the log's.
    """
    return [
        _failure(i, response)
        if isinstance(response, BaseException)
        else _answer(i, response, history)
        for i, response in enumerate(responses)
    ]


def summarise(lines: Sequence[Line]) -> dict[str, Any]:
    """Return counts, money and mean score, per candidate and in all, and remarks on the rest."""
    answered = [line for line in lines if "error" not in line]
    names = sorted({line["candidate"] for line in answered})
    return {
        "n_queries": len(lines),
        "n_answered": len(answered),
        "n_failed": len(lines) - len(answered),
        "cost_usd": sum(line["cost_usd"] for line in lines),
        **_graded(answered),
        "candidates": [
            _of_candidate(name, [line for line in answered if line["candidate"] == name])
            for name in names
        ],
        "errors": dict(Counter(line["error_class"] for line in lines if "error" in line)),
        "remarks": list(_remarks(lines)),
    }


def _answer(index: int, response: Any, history: History) -> Line:
    from optllm_router.completion.metering import describe_response

    facts = response._hidden_params["optllm"]  # noqa: SLF001  # where LiteLLM's users look
    logged = history.decision(facts["decision_id"])
    return {
        "index": index,
        "candidate": facts["candidate"],
        "text": describe_response(response).text,
        "cost_usd": logged.cost_usd,
        "score": logged.score,
        "reason": facts["reason"],
        "decision_id": facts["decision_id"],
    }


def _failure(index: int, error: BaseException) -> Line:
    from optllm_router.dispatch.privacy import scrub
    from optllm_router.records import NANO_PER_USD

    attempts = getattr(error, "optllm_attempts", ())
    spent = sum(attempt.cost_nusd or 0 for attempt in attempts)
    line = {
        "index": index,
        "error": scrub(str(error)),
        "error_class": type(error).__name__,
        "cost_usd": spent / NANO_PER_USD,
    }
    return line | ({"decision_id": attempts[0].decision_id} if attempts else {})


def _of_candidate(name: str, lines: Sequence[Line]) -> Line:
    cost = sum(line["cost_usd"] for line in lines)
    return {"name": name, "n_answers": len(lines), "cost_usd": cost, **_graded(lines)}


def _graded(lines: Sequence[Line]) -> dict[str, Any]:
    scores = [line["score"] for line in lines if line["score"] is not None]
    mean = sum(scores) / len(scores) if scores else None
    return {"n_graded": len(scores), "mean_score": mean}


def _remarks(lines: Sequence[Line]) -> Iterator[str]:
    reasons = Counter(line["reason"] for line in lines if "error" not in line)
    for reason, n in reasons.most_common(5):
        yield f"{n:,} answered: {reason}"
    first: dict[str, Line] = {}
    for line in lines:
        if "error" in line:
            first.setdefault(line["error_class"], line)
    counts = Counter(line["error_class"] for line in lines if "error" in line)
    for name, n in counts.most_common():
        line = first[name]
        yield f"{n:,} failed: {name}, first at query {line['index']}: {_first_line(line['error'])}"


def _first_line(text: str) -> str:
    return next(iter(text.splitlines()), "")
