"""When a candidate joins the published predictor: as soon as the log has labels of it.

A refit, which waits for many outcomes, fits every candidate anew. Until then one that the published
predictor has no label of joins it (see `core.joining`), and again as its labels grow by half:
nothing else is read or fitted, and the others' estimates stay as they are. What joined is published
as a predictor of its own, so that decisions log the version they were made with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from optllm_router.config import Config
from optllm_router.core.joining import join_columns
from optllm_router.core.snapshot import Snapshot
from optllm_router.core.success import SuccessPredictor
from optllm_router.dispatch.deciding import RouterState
from optllm_router.learning import new_version, publish, training_set
from optllm_router.records import Candidate, TrainingRow
from optllm_router.store.base import Store

MAX_LABELS = 1_000  # of a candidate that are read, the newest ones
JOINED_TO = "joined_to"  # a metric that no predictor has which was fitted and not joined


class Joins:
    """Joins candidates on one store, unless the config has learning switched off."""

    def __init__(self, store: Store, config: Config) -> None:
        self._store = store
        self._enabled = config.retrain.enabled
        self._looked_at = ""
        self._enough: float = 0

    def when_due(self, state: RouterState, n_graded: int) -> tuple[str, ...]:
        """Publish a predictor with the candidates that have labels now; return their names.

        Nothing is done, and () returned, while no candidate waits, too few outcomes are new since
        it was looked for last, or another predictor was published meanwhile.
        """
        snapshot = state.snapshot
        if not self._enabled or snapshot is None:
            return ()
        if self._looked_at == snapshot.version and n_graded < self._enough:
            return ()
        n_known = unfitted(snapshot, state.candidates)
        rows = {
            name: self._store.training_rows(limit=MAX_LABELS, graded_of=name) for name in n_known
        }
        missing = {name: _wanted(n_known[name]) - len(own) for name, own in rows.items()}
        self._looked_at = snapshot.version
        self._enough = n_graded + max(min(missing.values(), default=math.inf), 1)
        due = {name: own for name, own in rows.items() if missing[name] <= 0}
        return self._join(snapshot, state.candidates, due) if due else ()

    def _join(
        self,
        snapshot: Snapshot,
        candidates: Sequence[Candidate],
        due: Mapping[str, Sequence[TrainingRow]],
    ) -> tuple[str, ...]:
        names, new = tuple(due), [c for c in candidates if c.name in due]
        rows = [row for own in due.values() for row in own]
        joined = join_columns(snapshot, training_set(rows, new), new, version=new_version())
        metrics = _metrics(snapshot, joined, names, rows)
        done = publish(self._store, joined, metrics, replaces=snapshot.version)
        return names if done else ()


def unfitted(snapshot: Snapshot, candidates: Sequence[Candidate]) -> dict[str, int]:
    """Return the candidates that can join a snapshot, each with the number of labels it has there.

    None can join a predictor that is no `SuccessPredictor`.
    """
    predictor = snapshot.predictor
    if not isinstance(predictor, SuccessPredictor):
        return {}
    fitted = dict(zip(snapshot.columns, predictor.fitted_.tolist(), strict=True))
    n_labels = dict(zip(snapshot.columns, predictor.n_labels_.tolist(), strict=True))
    names = [candidate.name for candidate in candidates]
    return {name: n_labels.get(name, 0) for name in names if not fitted.get(name, False)}


def _wanted(n_known: int) -> int:
    """How many labels it takes to join, or to join again: half as many more, at least one."""
    return n_known + max(n_known // 2, 1)


def _metrics(
    snapshot: Snapshot, joined: Snapshot, names: Sequence[str], rows: Sequence[TrainingRow]
) -> Mapping[str, Any]:
    """The figures of the fit, with what was joined to it, and until when its labels came."""
    n_labels = joined.predictor.n_labels_
    until = [row.scored_at.isoformat() for row in rows if row.scored_at is not None]
    return {
        **snapshot.metrics,
        "columns": list(joined.columns),
        "n_labels": int(n_labels.sum()),
        "n_labels_per_column": n_labels.tolist(),
        JOINED_TO: snapshot.metrics.get(JOINED_TO, snapshot.version),
        "joined": sorted({*snapshot.metrics.get("joined", ()), *names}),
        "joined_until": max([*until, str(snapshot.metrics.get("joined_until", ""))]),
    }
