"""LinUCB: one ridge regression per arm, with a bonus for what an arm has not seen.

Li, Chu, Langford & Schapire, "A contextual-bandit approach to personalized news article
recommendation", 2010, algorithm 1 (disjoint linear models); MetaLLM (arXiv 2407.10834) routes with
it. Only the inverse of each arm's Gram matrix and its coefficients are kept: a rank-one update
(Sherman & Morrison, 1950) costs O(d^2), where inverting anew for every query costs O(d^3).
"""

from __future__ import annotations

import math

import numpy as np

from optllm_router.records import Bools, Floats, Ints

# An inverse that discounting blew up to this many times a new arm's gets its prior back: beyond,
# rounding errors would rule, and in the end the numbers overflow.
_WIND_UP = 1e6


class LinUCB:
    """Disjoint linear bandit: `inverse` is (n_arms, d, d), `weights` is (n_arms, d).

    Arm j keeps A_j = ridge I + sum x x' and b_j = sum r x over the rows whose reward was observed,
    as A_j^-1 and theta_j = A_j^-1 b_j. The ridge acts on every feature, an intercept column among
    them. Memory: n_arms * d * d float64.

    With `discount` g < 1 an update first ages what its arm knows: A_j <- g A_j + x x' and
    b_j <- g b_j + r x. An arm's memory is thus about 1 / (1 - g) of *its own* updates (arms that
    are not chosen do not age), and the ridge inside A_j fades with the data, g^t of it being left
    after t updates. In a direction that no new row touches A_j^-1 then grows without bound; where
    it reaches 1e6 times a new arm's, `ridge` is put back into A_j at the cost of one O(d^3) step.

    Raises: ValueError where a size, `ridge`, `exploration` or `discount` is out of range.
    """

    def __init__(
        self,
        n_arms: int,
        n_features: int,
        *,
        ridge: float = 1.0,
        exploration: float = 0.0,
        discount: float = 1.0,
    ) -> None:
        _check_settings(n_arms, n_features)
        _check_rates(ridge, exploration, discount)
        self.ridge, self.exploration, self.discount = ridge, exploration, discount
        self.inverse: Floats = np.tile(np.eye(n_features) / ridge, (n_arms, 1, 1))
        self.weights: Floats = np.zeros((n_arms, n_features))

    def warm_start(self, features: Floats, rewards: Floats) -> None:
        """Fit every arm to logged rows, undiscounted; what was known before is forgotten.

        Args:
            features: (n, d), finite.
            rewards: (n, n_arms), NaN = not observed; an arm without any is new again. n may be 0.

        Raises: ValueError where the shapes do not fit or a feature is not finite.
        """
        _check_rows(features, rewards, self.weights.shape)
        observed = ~np.isnan(rewards)
        patterns, pattern_of = np.unique(observed.T, axis=0, return_inverse=True)
        for number, rows in enumerate(patterns):
            arms = np.flatnonzero(pattern_of.reshape(-1) == number)
            self._fit(arms, rows, features, rewards)

    def _fit(self, arms: Ints, rows: Bools, features: Floats, rewards: Floats) -> None:
        """Fit arms that observed the same rows: they share one Gram matrix."""
        seen = features[rows]
        gram = seen.T @ seen + self.ridge * np.eye(seen.shape[1])
        root = np.linalg.solve(np.linalg.cholesky(gram), np.eye(seen.shape[1]))
        inverse = root.T @ root
        self.inverse[arms] = (inverse + inverse.T) / 2.0
        self.weights[arms] = (inverse @ (seen.T @ rewards[rows][:, arms])).T

    def scores(self, features: Floats) -> Floats:
        """Return x'theta_j + exploration * sqrt(x' A_j^-1 x), shape (n, n_arms), for (n, d) rows.

        Li et al. 2010, algorithm 1, line 8. A new arm scores exploration * |x| / sqrt(ridge).
        """
        expected: Floats = features @ self.weights.T
        if self.exploration > 0:
            expected = expected + self.exploration * self.widths(features)
        return expected

    def widths(self, features: Floats) -> Floats:
        """Return sqrt(x' A_j^-1 x), shape (n, n_arms): how little an arm knows in a direction."""
        columns = [((features @ inverse) * features).sum(axis=1) for inverse in self.inverse]
        widths: Floats = np.sqrt(np.maximum(np.stack(columns, axis=1), 0.0))
        return widths

    def choose(self, features: Floats, order: Ints | None = None) -> Ints:
        """Return the arm of highest score per row, shape (n,); ties as in `best_arms`."""
        return best_arms(self.scores(features), order)

    def update(self, arm: int, features_row: Floats, reward: float) -> None:
        """Teach one arm the reward of one row, shape (d,), in O(d^2); a NaN reward teaches nothing.

        Raises: ValueError where a feature or the reward is not finite; the arm stays as it was.
        """
        if math.isnan(reward):
            return
        inverse, weights = self.inverse[arm], self.weights[arm]
        direction = inverse @ features_row
        scale = self.discount + float(features_row @ direction)
        surprise = reward - float(features_row @ weights)
        if not math.isfinite(scale + surprise):
            raise ValueError(f"reward {reward!r} or a feature is not finite: nothing was learned")
        # (g A + x x')^-1 = (A^-1 - A^-1 x x' A^-1 / (g + x' A^-1 x)) / g, symmetric to the bit
        inverse -= np.outer(direction, direction) / scale
        weights += direction * (surprise / scale)
        if self.discount < 1:
            inverse /= self.discount
            self._restore_prior(arm)

    def _restore_prior(self, arm: int) -> None:
        """Put `ridge` back into A, in its eigenvectors, once the inverse has grown too far."""
        if np.trace(self.inverse[arm]) * self.ridge <= _WIND_UP * self.weights.shape[1]:
            return
        values, axes = np.linalg.eigh(self.inverse[arm])
        kept = 1.0 / (1.0 + self.ridge * np.maximum(values, 0.0))
        inverse = (axes * (np.maximum(values, 0.0) * kept)) @ axes.T
        self.inverse[arm] = (inverse + inverse.T) / 2.0
        self.weights[arm] = (axes * kept) @ (axes.T @ self.weights[arm])


def best_arms(scores: Floats, order: Ints | None = None) -> Ints:
    """Return the arm of highest score per row, shape (n,), for scores (n, n_arms).

    Exact ties go to the arm that comes first in `order`, shape (n_arms,), such as the arms from
    the cheapest to the dearest; without an order, to the lowest index.
    """
    if order is None:
        return np.asarray(scores.argmax(axis=1), dtype=np.int64)
    return np.asarray(order[scores[:, order].argmax(axis=1)], dtype=np.int64)


def _check_settings(n_arms: int, n_features: int) -> None:
    if n_arms < 1 or n_features < 1:
        raise ValueError(f"{n_arms!r} arms and {n_features!r} features: pass at least 1 of each")


def _check_rates(ridge: float, exploration: float, discount: float) -> None:
    if not (math.isfinite(ridge) and ridge > 0):
        raise ValueError(f"`ridge={ridge!r}` is not a positive number: A is not invertible at 0")
    if not (math.isfinite(exploration) and exploration >= 0):
        raise ValueError(f"`exploration={exploration!r}` is negative or infinite: pass 0 for none")
    if not 0 < discount <= 1:
        raise ValueError(f"`discount={discount!r}` is outside (0, 1]: pass 1.0 to forget nothing")


def _check_rows(features: Floats, rewards: Floats, shape: tuple[int, ...]) -> None:
    n_arms, n_features = shape
    n = len(features)
    if features.shape != (n, n_features) or rewards.shape != (n, n_arms):
        raise ValueError(
            f"features {features.shape} and rewards {rewards.shape} do not fit: pass "
            f"(n, {n_features}) and (n, {n_arms})"
        )
    if not np.isfinite(features).all() or np.isinf(rewards).any():
        raise ValueError("a feature is not finite or a reward is infinite: only rewards may be NaN")
