"""Grown decision trees as plain arrays, and what they say: numpy only, no pickle.

A tree is stored breadth first, so that the children of its k-th inner node are its nodes 2k + 1 and
2k + 2, and a feature and a number per node say everything. Few points walk down all trees side by
side. For many points every tree is evaluated bottom up instead (each inner node picks between its
children's answers by bit operations on whole columns of points), which is about four times as fast.
Both find the same leaf that scikit-learn finds: it compares in single precision with a double
precision threshold, for which the threshold rounded down to single precision is as good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from optllm_router.records import Floats, Ints

LEAF = -1
MANY_POINTS = 4_096  # from here on bottom up is faster
_WALKS_AT_ONCE = 1 << 15  # in cache
_FEATURE_BITS = 16


@dataclass(frozen=True, slots=True)
class GrownTree:
    """One tree, breadth first: `feature` (n_nodes,), -1 at a leaf; `value` (n_nodes,).

    `value` is an inner node's threshold (a point at most this large goes left) or a leaf's answer.
    """

    feature: NDArray[np.int16]
    value: NDArray[np.float32]

    @classmethod
    def leaf(cls, answer: float) -> Self:
        """Return the tree that says the same of every point."""
        return cls(np.full(1, LEAF, dtype=np.int16), np.array([answer], dtype=np.float32))

    @classmethod
    def of_classifier(cls, tree: Any) -> Self:
        """Take over the `tree_` of a fitted two-class scikit-learn tree: its share of class 1."""
        order = _breadth_first(tree.children_left.tolist(), tree.children_right.tolist())
        inner = tree.children_left[order] >= 0
        value = np.where(inner, _rounded_down(tree.threshold[order]), tree.value[order, 0, 1])
        feature = np.where(inner, tree.feature[order], LEAF)
        return cls(feature.astype(np.int16), value.astype(np.float32))


class Trees:
    """Many trees, ready to answer.

    Args:
        feature: (n_nodes,), the nodes of all trees one after another, -1 at a leaf.
        value: (n_nodes,), thresholds and answers.
        size: (n_trees,), the number of nodes of each tree.

    Raises:
        ValueError: arrays that are no trees.
    """

    def __init__(
        self, feature: NDArray[np.int16], value: NDArray[np.float32], size: NDArray[np.int32]
    ) -> None:
        self.feature, self.value, self.size = feature, value, size
        self.start = np.concatenate([[0], np.cumsum(size, dtype=np.int64)])
        inner = feature != LEAF
        self._left = self._left_children(inner)
        features = np.where(inner, feature, 0).astype(np.int64)
        self._step = (self._left << _FEATURE_BITS) | features  # both in one look-up
        self._threshold = np.where(inner, value, np.float32(np.inf)).astype(np.float32)
        self.n_features = int(features.max(initial=0)) + 1
        self.depth = self._deepest(inner)

    @classmethod
    def joined(cls, trees: Sequence[GrownTree]) -> Self:
        """Put single trees, at least one, one after another."""
        return cls(
            np.concatenate([tree.feature for tree in trees]),
            np.concatenate([tree.value for tree in trees]),
            np.array([tree.feature.size for tree in trees], dtype=np.int32),
        )

    def means(self, points: NDArray[np.float32], forests: Ints) -> Floats:
        """Average the trees of every forest.

        Args:
            points: (n_points, n_features).
            forests: (n_forests, n_trees), the trees of each forest by their number.

        Returns: shape (n_points, n_forests).
        """
        if len(points) >= MANY_POINTS:
            return self._means_bottom_up(points, forests)
        return self._means_walking(points, forests)

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return plain arrays."""
        return {"trees_feature": self.feature, "trees_value": self.value, "trees_size": self.size}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.generic]]) -> Self:
        """Rebuild the trees from `to_arrays`. Raises: ValueError when they are none."""
        return cls(
            np.asarray(arrays["trees_feature"], dtype=np.int16),
            np.asarray(arrays["trees_value"], dtype=np.float32),
            np.asarray(arrays["trees_size"], dtype=np.int32),
        )

    def _left_children(self, inner: NDArray[np.bool_]) -> Ints:
        """Every node's left child; the right one follows it. A leaf stays where it is."""
        start, size = self.start[:-1], self.size
        n_inner = np.concatenate([[0], np.cumsum(inner, dtype=np.int64)])
        if (
            (size < 1).any()
            or (self.feature < LEAF).any()
            or self.start[-1] != inner.size
            or self.value.shape != inner.shape
            or (size != 2 * (n_inner[self.start[1:]] - n_inner[start]) + 1).any()
        ):
            raise ValueError("these arrays are no trees: refit")
        here = np.arange(inner.size)
        before = n_inner[:-1] - np.repeat(n_inner[start], size)
        left = np.where(inner, np.repeat(start, size) + 2 * before + 1, here)
        if (left[inner] <= here[inner]).any():
            raise ValueError("these arrays are no trees: refit")
        return left

    def _deepest(self, inner: NDArray[np.bool_]) -> int:
        level, depth = self.start[:-1], 0
        while (level := level[inner[level]]).size:
            level = np.concatenate([self._left[level], self._left[level] + 1])
            depth += 1
        return depth

    def _means_walking(self, points: NDArray[np.float32], forests: Ints) -> Floats:
        means = np.empty((len(points), len(forests)))
        n_rows = max(1, min(len(points), _WALKS_AT_ONCE // forests.shape[1]))
        n_forests = max(1, _WALKS_AT_ONCE // (n_rows * forests.shape[1]))
        for row in range(0, len(points), n_rows):
            rows = points[row : row + n_rows]
            for first in range(0, len(forests), n_forests):
                trees = forests[first : first + n_forests]
                leaves = self._leaves(rows, self.start[trees.ravel()])
                answers = self.value.take(leaves).reshape(*trees.shape, len(rows))
                means[row : row + n_rows, first : first + n_forests] = answers.mean(
                    axis=1, dtype=np.float64
                ).T
        return means

    def _leaves(self, points: NDArray[np.float32], roots: Ints) -> Ints:
        """The leaf of every tree that every point ends in, (n_trees, n_points)."""
        flat = points.ravel()
        of_point = np.arange(len(points)) * points.shape[1]
        node = np.repeat(roots[:, None], len(points), axis=1)
        step, place = np.empty_like(node), np.empty_like(node)
        coordinate = np.empty(node.shape, dtype=np.float32)
        threshold = np.empty_like(coordinate)
        for _ in range(self.depth):
            np.take(self._step, node, out=step, mode="clip")
            np.bitwise_and(step, (1 << _FEATURE_BITS) - 1, out=place)
            place += of_point
            np.take(flat, place, out=coordinate, mode="clip")
            np.take(self._threshold, node, out=threshold, mode="clip")
            np.right_shift(step, _FEATURE_BITS, out=node)
            node += coordinate > threshold
        return node

    def _means_bottom_up(self, points: NDArray[np.float32], forests: Ints) -> Floats:
        columns = np.ascontiguousarray(points.T)
        means = np.empty((len(points), len(forests)))
        for number, trees in enumerate(forests.tolist()):
            total = np.zeros(len(points))
            for tree in trees:
                total += self._answers(columns, tree)
            means[:, number] = total / len(trees)
        return means

    def _answers(self, columns: NDArray[np.float32], tree: int) -> NDArray[np.float32]:
        """One tree's answers to all points, given by feature; shape (n_points,) or a single one."""
        nodes = slice(int(self.start[tree]), int(self.start[tree + 1]))
        values = self.value[nodes]
        if values.size == 1:
            return values
        left = (self._left[nodes] - nodes.start).tolist()
        leaf = _Leaves(columns, self.feature[nodes].tolist(), values, left)
        return values.take(leaf.below(0, 0))


@dataclass(frozen=True, slots=True)
class Forests:
    """An ensemble's forests: `number`, (n_members, n_columns, n_trees), of each one's trees."""

    trees: Trees
    number: Ints

    def members(self, points: NDArray[np.float32]) -> Floats:
        """Return every forest's mean, (n_points, n_members, n_columns).

        `points` is (n_points, n_features).
        """
        n_members, n_columns, n_trees = self.number.shape
        means = self.trees.means(points, self.number.reshape(-1, n_trees))
        return means.reshape(len(points), n_members, n_columns)

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """Return plain arrays."""
        return {"forests": self.number.astype(np.int32), **self.trees.to_arrays()}

    @classmethod
    def from_arrays(cls, arrays: dict[str, NDArray[np.generic]]) -> Self:
        """Rebuild the forests from `to_arrays`. Raises: ValueError when they are none."""
        number = np.asarray(arrays["forests"], dtype=np.int64)
        trees = Trees.from_arrays(arrays)
        if number.ndim != 3 or not ((number >= 0) & (number < trees.size.size)).all():
            raise ValueError("these arrays are no forests: refit")
        return cls(trees, number)


class _Leaves:
    """The leaf of one tree that every point ends in, found from the bottom up.

    Leaves go by their number in the tree, in as few bytes as hold it.
    """

    def __init__(
        self,
        columns: NDArray[np.float32],
        feature: list[int],
        threshold: NDArray[np.float32],
        left: list[int],
    ) -> None:
        self.columns, self.feature, self.threshold, self.left = columns, feature, threshold, left
        self.number: type[np.unsignedinteger[Any]] = (
            np.uint8 if len(left) <= np.iinfo(np.uint8).max + 1 else np.uint16
        )
        n_points = columns.shape[1]
        self.goes_left = np.empty(n_points, dtype=np.bool_)
        self.mask = np.empty(n_points, dtype=self.number)
        self.found: list[NDArray[np.unsignedinteger[Any]]] = []  # by depth

    def below(self, node: int, depth: int) -> NDArray[np.unsignedinteger[Any]]:
        """The leaf below a node, (n_points,), valid until the next call at this depth."""
        if self.feature[node] == LEAF:
            return np.array(node, dtype=self.number)
        if depth == len(self.found):
            self.found.append(np.empty_like(self.mask))
        leaf = self.found[depth]
        left = self.below(self.left[node], depth)
        right = self.below(self.left[node] + 1, depth + 1)
        column = self.columns[self.feature[node]]
        np.less_equal(column, self.threshold[node], out=self.goes_left)
        np.negative(self.goes_left.view(np.uint8), out=self.mask, dtype=self.number)  # 0 or all 1
        np.bitwise_xor(left, right, out=leaf)
        np.bitwise_and(leaf, self.mask, out=leaf)
        np.bitwise_xor(leaf, right, out=leaf)
        return leaf


def _breadth_first(left: list[int], right: list[int]) -> Ints:
    """The nodes of a tree level by level, from left to right."""
    order = [0]
    for node in order:  # grows meanwhile
        if left[node] >= 0:
            order += (left[node], right[node])
    return np.array(order, dtype=np.int64)


def _rounded_down(threshold: Floats) -> NDArray[np.float32]:
    """The largest single precision numbers that are not above the thresholds."""
    nearest = threshold.astype(np.float32)
    below = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest > threshold, below, nearest)
