"""What is known of a query beside its text: its task and its shape, as numbers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np
from numpy.typing import NDArray

from optllm_router.records import Floats

MAX_TASKS = 64
TASK_SCALE = 0.7
SHAPE_SCALE = 0.5
N_SHAPES = 5


@dataclass(frozen=True, eq=False)
class Traits:
    """The tasks that have an indicator, the most frequent ones first, and the mean shape (5,)."""

    tasks: tuple[str, ...]
    shape_means: Floats

    @classmethod
    def fit(cls, tasks: Sequence[str], shapes: Floats) -> Self:
        """Note the most frequent tasks (ties in alphabetical order; "" is no task) and the means.

        `shapes` is (n_queries, 5).
        """
        counts = Counter(task for task in tasks if task)
        named = sorted(counts, key=lambda task: (-counts[task], task))[:MAX_TASKS]
        return cls(tuple(named), shapes.mean(axis=0))

    @property
    def n_tasks(self) -> int:
        """How many tasks have an indicator."""
        return len(self.tasks)

    @cached_property
    def _position(self) -> Mapping[str, int]:
        return {task: i for i, task in enumerate(self.tasks)}

    def of(self, tasks: Sequence[str], shapes: Floats | None = None) -> Floats:
        """Return task indicators, then shapes, (n_queries, n_tasks + 5).

        An unknown task has no indicator; without `shapes` they are average ones.
        """
        rest = np.zeros((len(tasks), self.n_tasks + N_SHAPES))
        for row, task in enumerate(tasks):
            if task in self._position:
                rest[row, self._position[task]] = TASK_SCALE
        if shapes is not None:
            rest[:, self.n_tasks :] = SHAPE_SCALE * (shapes - self.shape_means)
        return rest

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return plain arrays for an npz file."""
        return {"tasks": packed(self.tasks), "shape_means": self.shape_means}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, NDArray[np.generic]]) -> Self:
        """Rebuild from `to_arrays`."""
        return cls(
            tuple(json.loads(arrays["tasks"].tobytes())),
            np.asarray(arrays["shape_means"], dtype=np.float64),
        )


def packed(values: Sequence[str] | Sequence[int]) -> NDArray[np.generic]:
    """Return JSON as bytes, which keep what fixed-width text arrays cut."""
    return np.frombuffer(json.dumps(values).encode(), dtype=np.uint8)
