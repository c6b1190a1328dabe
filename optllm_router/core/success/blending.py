"""What is made of the ridges' estimates, judged on rows that did not take part.

They are drawn towards what the nearest labelled texts say (`neighbours`), a second estimate is
stacked on the result (`stacking`), and the columns' differences are shrunk (`personal`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from optllm_router.core.success import stacking
from optllm_router.core.success.labels import LeftOut, SuccessEstimate
from optllm_router.core.success.neighbours import Neighbours, fit_neighbours
from optllm_router.core.success.personal import Personal, scores_elsewhere
from optllm_router.core.success.stacking import Stack, fit_stack
from optllm_router.records import Floats, Ints

N_FOLDS = 8
MOST_SPREAD = 0.5  # of anything in [0, 1]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Blend:
    """What follows the ridges; `neighbours` and `stack` are None where they do not help."""

    neighbours: Neighbours | None
    stack: Stack | None
    personal: Personal
    left_out: LeftOut

    @classmethod
    def fit(  # noqa: PLR0913  # what it is fitted on, by keyword
        cls,
        ridge: SuccessEstimate,
        scores: Floats,
        *,
        places: Floats,
        components: Floats,
        tasks: Floats,
        texts: Ints,
        blocks: Ints,
    ) -> Self:
        """Choose the neighbours' say, the second estimate's and the columns'.

        Args:
            ridge: (n_rows, n_columns) each, the ridges' estimates without the row's text.
            scores: (n_rows, n_columns), NaN where not observed.
            places: (n_rows, n_dimensions), where the rows lie among their neighbours.
            components: (n_rows, n_components), of the texts.
            tasks: (n_rows, n_tasks), their indicators.
            texts: (n_rows,), from 0, equal for equal texts.
            blocks: (n_rows,), from 0 without gaps, the same for equal texts.
        """
        judged = fit_neighbours(places, scores, texts, ridge.prob)
        near, std = judged.neighbours, ridge.std.copy()
        if near is not None:
            near.estimate(places, ridge.prob, std)
        stack, own = fit_stack(
            components=components,
            tasks=tasks,
            first=judged.left_out,
            scores=scores,
            texts=texts,
            fold=blocks % stacking.N_FOLDS,
        )
        elsewhere = scores_elsewhere(own, scores, blocks % N_FOLDS)
        return cls(
            neighbours=near,
            stack=stack,
            personal=Personal.fit(own, judged.met_again, judged.met, scores),
            left_out=LeftOut(own, np.minimum(std, MOST_SPREAD), elsewhere),
        )
