"""From the log to a published predictor: read, fit, validate, publish or keep.

The gate: a new predictor is published unless, on the labels that arrived since the current one was
fitted, it is worse by more than one standard error of the paired difference. There the current one
predicts afresh and the new one out of bag, so neither has seen the label it is judged on.

A background refit is `main` run in a child process (its settings as JSON on standard input), so
that a fit never takes the serving process's time.
"""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from optllm_router.core.features import SparseText, hash_text, shapes_of, unpack
from optllm_router.core.fitting import fit_snapshot
from optllm_router.core.snapshot import Snapshot, TrainingSet
from optllm_router.records import NANO_PER_USD, Candidate, Floats, PredictorKind, TrainingRow
from optllm_router.store.base import Store

logger = logging.getLogger("optllm_router")

MIN_JUDGED = 20
MAX_UNGRADED = 10_000
_CHILD = (  # finds this package even where it is imported from a source tree
    "import sys; sys.path.insert(0, sys.argv[1]); from optllm_router.learning import main; main()"
)
CHILD_TIMEOUT_S = 900.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RefitSettings:
    """How to fit: the first publication needs `min_labels` graded answers.

    `n_dimensions` is how many numbers the router's embeddings have, 0 for none: others in the log
    are not looked at, since no query will have them.
    """

    kind: PredictorKind = "ridge"
    n_bootstraps: int = 50
    seed: int = 0
    min_labels: int = 50
    n_dimensions: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RetrainReport:
    """What a refit found: whether it was published, and why."""

    published: bool
    version: str | None
    n_labels: int
    reason: str
    metrics: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


def refit(store: Store, candidates: Sequence[Candidate], settings: RefitSettings) -> RetrainReport:
    """Fit on everything the log holds of these candidates, and publish when it is not worse."""
    rows = store.training_rows()
    columns = tuple(candidate.name for candidate in candidates)
    training = _embedded(training_set(_worth_fitting(rows), candidates), settings.n_dimensions)
    n_labels = int((~np.isnan(training.scores)).sum())
    if n_labels < max(settings.min_labels, 1):
        return RetrainReport(
            published=False,
            version=None,
            n_labels=n_labels,
            reason=f"not fitted: {n_labels}/{settings.min_labels} labels",
        )
    current = load_current(store)
    snapshot = fit_snapshot(
        training,
        candidates,
        version=new_version(),
        kind=settings.kind,
        n_bootstraps=settings.n_bootstraps,
        seed=settings.seed,
    )
    worse = _worse_than(current, snapshot, training, rows)
    metrics = {
        **snapshot.metrics,
        "kind": snapshot.kind,
        "columns": list(columns),
        "n_labels_per_column": snapshot.predictor.n_labels_.tolist(),
        "fitted_until": max(row.scored_at for row in rows if row.scored_at).isoformat(),
    }
    publish(store, snapshot, metrics, status="published" if worse is None else "kept_out")
    return RetrainReport(
        published=worse is None,
        version=snapshot.version,
        n_labels=int(metrics["n_labels"]),
        reason="published" if worse is None else f"kept the current predictor: {worse}",
        metrics=metrics,
    )


def _embedded(training: TrainingSet, n_dimensions: int) -> TrainingSet:
    """A training set without embeddings of another length, see `RefitSettings`."""
    texts = [
        text if text.dense is None or text.dense.size == n_dimensions else replace(text, dense=None)
        for text in training.texts
    ]
    return replace(training, texts=texts)


def _worth_fitting(rows: Sequence[TrainingRow]) -> list[TrainingRow]:
    """All graded answers and the newest ungraded ones, which only say what traffic costs."""
    ungraded = [i for i, row in enumerate(rows) if row.score is None]
    left_out = set(ungraded[: max(0, len(ungraded) - MAX_UNGRADED)])
    return [row for i, row in enumerate(rows) if i not in left_out]


def load_current(store: Store) -> Snapshot | None:
    """Read the published snapshot; one that this version cannot read counts as none."""
    return load_version(store, store.current_predictor())


def load_version(store: Store, version: str | None) -> Snapshot | None:
    """Read a snapshot by its version; one that this version of us cannot read counts as none."""
    if version is None:
        return None
    try:
        return Snapshot.from_bytes(store.artifact(version))
    except ValueError as error:
        logger.warning("predictor %s is left aside: %s", version, error)
        return None


def new_version() -> str:
    """Return a version that sorts by time."""
    return datetime.now(tz=UTC).strftime("%Y%m%dT%H%M%S.%f")


def training_set(rows: Sequence[TrainingRow], candidates: Sequence[Candidate]) -> TrainingSet:
    """Arrange logged answers as arrays.

    Answers to one text (same task) share a row as long as they come from different columns: that
    is what a probe looks like, and nothing is averaged away when a column answered twice.
    """
    position = {candidate.name: j for j, candidate in enumerate(candidates)}
    places: dict[tuple[str, str], list[dict[int, TrainingRow]]] = {}
    table: list[dict[int, TrainingRow]] = []
    for row in rows:
        if row.served not in position:
            continue
        _place(row, position[row.served], places, table)
    first = [next(iter(cells.values())) for cells in table]
    return TrainingSet(
        columns=tuple(candidate.name for candidate in candidates),
        texts=[_features(row) for row in first],
        tasks=[row.task for row in first],
        groups=[row.text_key or row.decision_id for row in first],
        shapes=shapes_of(first),
        prompt_tokens=np.array([row.n_prompt_tokens for row in first], dtype=np.float64),
        scores=_spread(table, position, [_score] * len(candidates)),
        output_tokens=_spread(table, position, [_output_tokens] * len(candidates)),
        cost_usd=_spread(
            table, position, [_billed if c.price is None else _unbilled for c in candidates]
        ),
    )


def _place(
    row: TrainingRow,
    column: int,
    places: dict[tuple[str, str], list[dict[int, TrainingRow]]],
    table: list[dict[int, TrainingRow]],
) -> None:
    """Put an answer into the first row of its text whose column is free, or into a new one."""
    key = (row.text_key or row.decision_id, row.task)
    rows = places.setdefault(key, [])
    for cells in rows:
        if column not in cells:
            cells[column] = row
            return
    rows.append({column: row})
    table.append(rows[-1])


def _spread(
    table: Sequence[dict[int, TrainingRow]], position: Mapping[str, int], read: Sequence[Any]
) -> Floats:
    values = np.full((len(table), len(position)), np.nan)
    for i, cells in enumerate(table):
        for j, row in cells.items():
            values[i, j] = read[j](row)
    return values


def _score(row: TrainingRow) -> float:
    return np.nan if row.score is None else row.score


def _output_tokens(row: TrainingRow) -> float:
    return np.nan if row.completion_tokens is None else row.completion_tokens


def _billed(row: TrainingRow) -> float:
    return np.nan if row.cost_nusd is None else row.cost_nusd / NANO_PER_USD


def _unbilled(_row: TrainingRow) -> float:
    return np.nan


def _features(row: TrainingRow) -> SparseText:
    found = unpack(row.features) if row.features else None
    return hash_text("") if found is None else found


def _worse_than(
    current: Snapshot | None, new: Snapshot, training: TrainingSet, rows: Sequence[TrainingRow]
) -> str | None:
    """Return why the new snapshot is worse than the current one, None when it is not."""
    out_of_bag = new.predictor.oob_
    if current is None or out_of_bag is None or set(current.columns) != set(new.columns):
        return None
    fresh = _fresh_rows(current, training, rows)
    if fresh.size == 0:
        return None
    texts, tasks = [training.texts[i] for i in fresh], [training.tasks[i] for i in fresh]
    before = current.predictor.predict_features(texts, tasks=tasks, shapes=training.shapes[fresh])
    aligned = before.prob[:, [current.columns.index(name) for name in new.columns]]
    scores = training.scores[fresh]
    difference = (out_of_bag.prob[fresh] - scores) ** 2 - (aligned - scores) ** 2
    seen = difference[~np.isnan(difference)]
    if seen.size < MIN_JUDGED:
        return None
    error = float(seen.std() / np.sqrt(seen.size))
    if seen.mean() <= error:
        return None
    return (
        f"on {seen.size} labels that are new since {current.version} its Brier score is "
        f"{seen.mean():.4f} (standard error {error:.4f}) worse"
    )


def _fresh_rows(
    current: Snapshot, training: TrainingSet, rows: Sequence[TrainingRow]
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Rows of the training set with a text of which the current snapshot has seen no label."""
    fitted_until = str(current.metrics.get("fitted_until", ""))
    joined_until = max(fitted_until, str(current.metrics.get("joined_until", "")))
    joined = current.metrics.get("joined", ())
    known = {
        row.text_key or row.decision_id
        for row in rows
        if row.scored_at is not None
        and row.scored_at.isoformat() <= (joined_until if row.served in joined else fitted_until)
    }
    return np.array([i for i, g in enumerate(training.groups) if g not in known], dtype=np.int64)


def publish(
    store: Store,
    snapshot: Snapshot,
    metrics: Mapping[str, Any],
    *,
    status: Literal["published", "kept_out"] = "published",
    replaces: str | None = None,
) -> bool:
    """Write a snapshot with these metrics and its front; see `Store.publish`."""
    final = replace(snapshot, metrics=metrics)
    front = final.front
    points = np.unique(np.linspace(0, front.n_points - 1, 200).round().astype(np.int64))
    return store.publish(
        version=final.version,
        artifact=final.to_bytes(),
        metrics=metrics,
        front=[(float(front.cost_usd[k]), float(front.accuracy[k])) for k in points],
        status=status,
        replaces=replaces,
    )


def refit_in_child(
    store_url: str,
    candidates: Sequence[Candidate],
    settings: RefitSettings,
    *,
    price_version: str,
) -> RetrainReport:
    """Run `refit` in a child process on a database that it opens itself.

    Raises: RuntimeError when the child fails (its standard error is in the message) or hangs.
    """
    order = {
        "store": store_url,
        "price_version": price_version,
        "settings": asdict(settings),
        "candidates": [
            [c.name, c.model, c.max_output_tokens, c.worst_case_nusd] for c in candidates
        ],
    }
    try:
        child = subprocess.run(  # noqa: S603  # our own interpreter on our own code
            [sys.executable, "-c", _CHILD, str(Path(__file__).parents[1])],
            input=json.dumps(order),
            capture_output=True,
            text=True,
            check=False,
            timeout=CHILD_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"the refit process took more than {CHILD_TIMEOUT_S} s") from error
    if child.returncode != 0:
        raise RuntimeError(f"the refit process failed: {child.stderr[-2000:]}")
    return RetrainReport(**json.loads(child.stdout))


def main() -> None:
    """Refit as ordered on standard input; print the report as JSON."""
    from optllm_router.store.sql import open_store

    order = json.loads(sys.stdin.read())
    store = open_store(order["store"])
    try:
        prices = store.prices(order["price_version"])
        candidates = [
            Candidate(
                name=name,
                model=model,
                price=prices.get(name),
                max_output_tokens=limit,
                worst_case_nusd=worst,
            )
            for name, model, limit, worst in order["candidates"]
        ]
        report = refit(store, candidates, RefitSettings(**order["settings"]))
    finally:
        store.close()
    sys.stdout.write(json.dumps(report.to_dict()))
