"""What one fit publishes: predictor, cost forecasts, honest-accuracy table and recent traffic.

A snapshot is a value: fitted from a `TrainingSet` by `fit_snapshot`, written to bytes and read
back without loss. The bytes are a SHA-256 digest followed by a npz archive of plain arrays (no
pickle), so that a shared database cannot run code; size is capped before anything is unpacked.

*Optimism* is by how much the estimates flatter the columns that an argmax over them picks (the
winner's curse; Smith & Winkler, Management Science 52, 2006). It is measured on the training rows
with out-of-bag estimates: for a ladder of dual prices, per chosen column, mean estimate minus mean
observed score. Weighting the columns by how often a plan chooses them carries it to other traffic.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from optllm_router.core.amounts import AmountForecast
from optllm_router.core.features import FEATURE_VERSION, SparseText
from optllm_router.core.forest import ForestPredictor
from optllm_router.core.front import ParetoFront, pareto_front
from optllm_router.core.success import SuccessPredictor
from optllm_router.records import Floats, Ints, PredictorKind

FORMAT_VERSION = 1
MAX_BYTES = 512 * 1024 * 1024
MAX_TRAFFIC = 2_000
N_PRICES = 33
OPTIMISM_STRENGTH = 5.0

_FOREIGN = (
    KeyError,
    IndexError,
    TypeError,
    AttributeError,
    EOFError,
    OSError,
    MemoryError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
)
_PER_COLUMN = (
    "predictor_n_labels",
    "tokens_level",
    "tokens_task_offset",
    "usd_level",
    "usd_task_offset",
    "optimism_gap",
    "optimism_variance",
    "traffic_prob",
    "traffic_cost_usd",
    "column_score",
)
_STACKED = ("predictor_stack_mean", "predictor_stack_text", "predictor_stack_tasks")
_LARGEST = float(np.finfo(np.float64).max)

Predictor = SuccessPredictor | ForestPredictor
PREDICTORS: Mapping[PredictorKind, type[Predictor]] = MappingProxyType(
    {"ridge": SuccessPredictor, "forest": ForestPredictor}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingSet:
    """Logged answers as arrays; every (n_rows, n_columns) array has NaN where not observed.

    `shapes` is (n_rows, 5), `groups` names distinct texts, `cost_usd` holds costs of columns that
    are billed by a table (all NaN for columns that are priced by tokens).
    """

    columns: tuple[str, ...]
    texts: Sequence[SparseText]
    tasks: Sequence[str]
    groups: Sequence[str]
    shapes: Floats
    prompt_tokens: Floats
    scores: Floats
    output_tokens: Floats
    cost_usd: Floats


@dataclass(frozen=True, slots=True)
class Optimism:
    """Estimate minus truth of chosen columns, per rung of a ladder of dual prices.

    `price` is (n_rungs,), ascending, in successes per USD; `gap` and `variance` (of the gap, as
    an estimate) are (n_rungs, n_columns).
    """

    price: Floats
    gap: Floats
    variance: Floats

    def of(self, price: float, share: Floats) -> tuple[float, float]:
        """Return gap and its standard error for a plan at a dual price.

        The gap is never negative: out-of-bag rows are judged without their own repeats, which
        makes the estimates look worse than they are where real traffic repeats itself.

        Args:
            price: the plan's dual price.
            share: (n_columns,), the share of queries that choose each column; sums to 1.
        """
        if not self.price.size:
            return 0.0, 0.0
        nearest = np.abs(np.log1p(self.price) - np.log1p(min(price, _LARGEST)))
        rung = int(nearest.argmin())
        gap = max(float(share @ self.gap[rung]), 0.0)
        return gap, float(np.sqrt((share**2) @ self.variance[rung]))


@dataclass(frozen=True)
class Snapshot:
    """A fitted and versioned router state; see the module's docstring.

    `traffic_prob` and `traffic_cost_usd` are (n_traffic, n_columns) out-of-bag estimates of the
    newest training queries, NaN for columns without a label; `column_score` is every column's
    labelled mean score.
    """

    version: str
    columns: tuple[str, ...]
    predictor: Predictor
    output_tokens: AmountForecast
    cost_usd: AmountForecast
    optimism: Optimism
    traffic_prob: Floats
    traffic_cost_usd: Floats
    column_score: Floats
    metrics: Mapping[str, Any]

    @property
    def n_labels(self) -> int:
        """All labels that the predictor was fitted on."""
        return int(self.predictor.n_labels_.sum())

    @property
    def kind(self) -> PredictorKind:
        """What the predictor is, by its configured name."""
        return next(kind for kind, made in PREDICTORS.items() if isinstance(self.predictor, made))

    @cached_property
    def front(self) -> ParetoFront:
        """The front of recent traffic; empty while no column has both labels and a cost."""
        allowed = np.isfinite(self.traffic_prob) & np.isfinite(self.traffic_cost_usd)
        rows = allowed.any(axis=1)
        return pareto_front(self.traffic_prob[rows], self.traffic_cost_usd[rows], allowed[rows])

    def to_bytes(self) -> bytes:
        """Serialise; `from_bytes` gives back an equal snapshot."""
        meta = {
            "format": FORMAT_VERSION,
            "features": FEATURE_VERSION,
            "version": self.version,
            "kind": self.kind,
            "columns": self.columns,
            "metrics": dict(self.metrics),
        }
        arrays: dict[str, NDArray[np.generic]] = {
            "meta": np.frombuffer(json.dumps(meta).encode(), dtype=np.uint8),
            **{f"predictor_{k}": v for k, v in self.predictor.to_arrays().items()},
            **self.output_tokens.to_arrays("tokens"),
            **self.cost_usd.to_arrays("usd"),
            "optimism_price": self.optimism.price,
            "optimism_gap": self.optimism.gap,
            "optimism_variance": self.optimism.variance,
            "traffic_prob": self.traffic_prob,
            "traffic_cost_usd": self.traffic_cost_usd,
            "column_score": self.column_score,
        }
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # the stub wants allow_pickle
        packed = buffer.getvalue()
        return hashlib.sha256(packed).digest() + packed

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read a snapshot. Raises: ValueError when damaged, too large or of another format."""
        try:
            return cls._from_arrays(_read_archive(data))
        except _FOREIGN as error:
            raise ValueError(
                f"the predictor's bytes are none that this package wrote ({error!r}): refit"
            ) from error

    @classmethod
    def _from_arrays(cls, arrays: dict[str, NDArray[Any]]) -> Self:
        meta = json.loads(arrays.pop("meta").tobytes())
        if (meta["format"], meta["features"]) != (FORMAT_VERSION, FEATURE_VERSION):
            raise ValueError(
                f"predictor format {meta['format']}.{meta['features']} is not "
                f"{FORMAT_VERSION}.{FEATURE_VERSION}, which this version reads: refit"
            )
        inner = {k[10:]: v for k, v in arrays.items() if k.startswith("predictor_")}
        columns = tuple(meta["columns"])
        kind: PredictorKind = meta.get("kind", "ridge")  # there was no other one at first
        _check_width(arrays, len(columns), kind)
        return cls(
            version=meta["version"],
            columns=columns,
            predictor=PREDICTORS[kind].from_arrays(inner),
            output_tokens=AmountForecast.from_arrays(arrays, "tokens"),
            cost_usd=AmountForecast.from_arrays(arrays, "usd"),
            optimism=Optimism(
                *(_floats(arrays[f"optimism_{k}"]) for k in ("price", "gap", "variance"))
            ),
            traffic_prob=_floats(arrays["traffic_prob"]),
            traffic_cost_usd=_floats(arrays["traffic_cost_usd"]),
            column_score=_floats(arrays["column_score"]),
            metrics=meta["metrics"],
        )


def fit_optimism(prob: Floats, cost_usd: Floats, scores: Floats) -> Optimism:
    """Measure optimism on rows with out-of-bag estimates.

    Args:
        prob: (n_rows, n_columns), NaN for columns that cannot be chosen.
        cost_usd: (n_rows, n_columns), forecasts; NaN likewise.
        scores: (n_rows, n_columns), NaN where not observed.

    A column that is chosen but hardly observed borrows from the mean over all chosen ones.
    """
    allowed = np.isfinite(prob) & np.isfinite(cost_usd)
    rows = np.flatnonzero(allowed.any(axis=1))
    if not rows.size:
        return Optimism(np.zeros(0), np.zeros((0, prob.shape[1])), np.zeros((0, prob.shape[1])))
    prob, cost_usd, scores = prob[rows], cost_usd[rows], scores[rows]
    front = pareto_front(prob, cost_usd, allowed[rows])
    points = np.unique(np.linspace(front.accuracy.size - 1, 0, N_PRICES).round().astype(np.int64))
    gaps = [_gaps(front.choice(int(k)), prob, scores) for k in points[::-1]]
    price = np.array([front.price(int(k)) for k in points[::-1]])
    finite = np.minimum(price, _LARGEST)
    return Optimism(finite, np.stack([g for g, _ in gaps]), np.stack([v for _, v in gaps]))


def _gaps(choice: Ints, prob: Floats, scores: Floats) -> tuple[Floats, Floats]:
    """Gap and its variance per column, for the rows that choose it and observe it."""
    each = np.arange(choice.size)
    gap = prob[each, choice] - scores[each, choice]
    seen = ~np.isnan(gap)
    n_columns = prob.shape[1]
    n = np.bincount(choice[seen], minlength=n_columns).astype(np.float64)
    total = np.bincount(choice[seen], weights=gap[seen], minlength=n_columns)
    overall = float(gap[seen].mean()) if seen.any() else 0.0
    # A score's own variance is at most 1/4: so it is taken until the rows say otherwise.
    squares = ((gap[seen] - overall) ** 2).sum() + OPTIMISM_STRENGTH * 0.25
    spread = squares / (n.sum() + OPTIMISM_STRENGTH)
    mean = (total + OPTIMISM_STRENGTH * overall) / (n + OPTIMISM_STRENGTH)
    return mean, spread / (n + OPTIMISM_STRENGTH)


def _read_archive(data: bytes) -> dict[str, NDArray[Any]]:
    digest, packed = data[:32], data[32:]
    if hashlib.sha256(packed).digest() != digest:
        raise ValueError("the predictor's bytes do not match their hash: it is damaged; refit")
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > MAX_BYTES:
        raise ValueError(f"the predictor unpacks to {size} bytes, more than {MAX_BYTES}: refit")
    with np.load(io.BytesIO(packed), allow_pickle=False) as loaded:
        return {name: loaded[name] for name in loaded.files}


def _check_width(arrays: Mapping[str, NDArray[Any]], n_columns: int, kind: PredictorKind) -> None:
    """Raise ValueError where an array is not about all columns."""
    widths = dict.fromkeys(_PER_COLUMN, n_columns)
    if kind == "ridge":
        mix = arrays.get("predictor_newcomer_mix")  # of what columns that joined are a mean
        widths["predictor_weights"] = n_columns if mix is None else mix.shape[-1]
        stacked = [name for name in _STACKED if name in arrays]
        widths |= dict.fromkeys(stacked, widths["predictor_weights"])
    for name, width in widths.items():
        if arrays[name].shape[-1:] != (width,):
            raise ValueError(f"the predictor's {name} does not fit its {n_columns} columns: refit")


def _floats(array: NDArray[np.generic]) -> Floats:
    return np.asarray(array, dtype=np.float64)
