"""What serves a fitted predictor: its ensemble, and the ensemble's mean folded together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from optllm_router.core.projection import Projection
from optllm_router.core.success.ensemble import RidgeEnsemble
from optllm_router.records import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Serving:
    """What estimates a text, ready to use.

    `per_bucket` (N_FEATURES, n_columns), `of_rest` (n_tasks + 5 + n_dense, n_columns) and `centre`
    (n_columns,) are the ridges' mean.
    """

    ensemble: RidgeEnsemble
    projection: Projection
    centre: Floats
    per_bucket: NDArray[np.float32]
    of_rest: Floats

    @classmethod
    def of(cls, ensemble: RidgeEnsemble, projection: Projection) -> Self:
        """Fold the members' mean weights into the projection."""
        mean, r = ensemble.weights.mean(axis=1), projection.axes.shape[1]
        return cls(
            ensemble=ensemble,
            projection=projection,
            centre=ensemble.centre + mean[0].astype(np.float64),
            per_bucket=projection.fold(mean[1 : 1 + r]),
            of_rest=mean[1 + r :].astype(np.float64),
        )


def design_of(components: Floats, rest: Floats) -> Floats:
    """Return the ridges' design: intercept, text, tasks, shape, embedding components."""
    return np.hstack([np.ones((len(rest), 1)), components, rest])
