"""Scores that a user gives on the command line or in a file, checked as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from optllm_router.errors import ConfigError
from optllm_router.grading import check_score
from optllm_router.outcomes.columns import as_numbers, as_texts, listed, read_columns
from optllm_router.store.base import Store

COLUMNS = ("decision_id", "score")


def given_scores(
    reference: str | None, score: float | None, file: Path | None
) -> Mapping[str, float]:
    """Return the scores of one command, by reference; a reference that comes twice: the last.

    Raises: ConfigError where both or neither are given, or a score breaks the rule.
    """
    if file is not None:
        if reference is not None or score is not None:
            raise ConfigError("REF SCORE and --file both give scores: give one of them.")
        return _read_scores(file)
    if reference is None or score is None:
        raise ConfigError("give a decision or response id and its score, or a file with --file.")
    return {reference: check_score(score)}


def write_feedback(store: Store, given: Mapping[str, float]) -> int:
    """Write all scores in one transaction; return how many were new or changed.

    Raises: UnknownDecisionError, for the first reference that is not in the log.
    """
    from optllm_router.router.feedback import feedback_outcome

    outcomes = [feedback_outcome(store, reference, score) for reference, score in given.items()]
    return store.add_outcomes(outcomes)


def _read_scores(file: Path) -> Mapping[str, float]:
    columns = read_columns(file, COLUMNS)
    missing = [name for name in COLUMNS if name not in columns.cells]
    if missing:
        needed = " and ".join(f"`{name}`" for name in missing)
        raise ConfigError(f"'{file}' has no column {needed}: it needs `decision_id` and `score`.")
    references, not_text = as_texts(columns.cells["decision_id"])
    scores, ungraded, not_number = as_numbers(columns.cells["score"])
    wrong = not_text | not_number | ~(ungraded | ((scores >= 0) & (scores <= 1)))
    unnamed = [reference is None for reference in references]
    bad = columns.at[(wrong | unnamed) & ~ungraded].tolist()
    if bad:
        raise ConfigError(
            f"'{file}': {listed(bad, columns.unit)}: a row is a decision id and a score from 0 to "
            "1 (an empty score is passed over); nothing was written."
        )
    return {
        str(reference): float(score)
        for reference, score, skip in zip(references, scores, ungraded, strict=True)
        if not skip
    }
