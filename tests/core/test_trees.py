"""Trees as plain arrays: they must say exactly what scikit-learn's say, on both ways down."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.tree import DecisionTreeClassifier

from optllm_router.core.trees import MANY_POINTS, Forests, GrownTree, Trees


def grown(n_trees=6, n_rows=60, depth=5, seed=0):
    """A fitted forest of scikit-learn, and the points that it was fitted on."""
    rng = np.random.default_rng(seed)
    points = rng.integers(0, 7, (n_rows, 3)).astype(np.float32) / np.float32(3)
    label = rng.random(n_rows) < 0.3 + 0.4 * (points[:, 0] > 1)
    label[:2] = [True, False]
    forest = RandomForestClassifier(n_trees, max_depth=depth, random_state=seed)
    return forest.fit(points, label), points


def taken_over(forest):
    trees = Trees.joined([GrownTree.of_classifier(tree.tree_) for tree in forest.estimators_])
    return trees, np.arange(len(forest.estimators_))[None, :]


def on_thresholds(forest, n, seed=1):
    """Points whose coordinates are thresholds, rounded to either side, and points in between."""
    rng = np.random.default_rng(seed)
    found = [t.tree_.threshold[t.tree_.children_left >= 0] for t in forest.estimators_]
    at = np.concatenate([*found, [0.0]]).astype(np.float32)
    near = np.concatenate([at, np.nextafter(at, np.float32(9)), np.nextafter(at, np.float32(-9))])
    return rng.choice(np.concatenate([near, rng.random(9, dtype=np.float32)]), (n, 3))


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 5), st.integers(2, 90), st.integers(1, 9), st.integers(0, 10_000))
def test_few_points_get_what_scikit_learn_says(n_trees, n_rows, depth, seed):
    forest, _ = grown(n_trees, n_rows, depth, seed)
    trees, forests = taken_over(forest)
    points = on_thresholds(forest, 40, seed)

    assert np.allclose(
        forest.predict_proba(points)[:, 1], trees.means(points, forests)[:, 0], rtol=0, atol=1e-6
    )


@settings(max_examples=8, deadline=None)
@given(st.integers(1, 5), st.integers(2, 90), st.integers(1, 9), st.integers(0, 10_000))
def test_many_points_get_what_few_points_get(n_trees, n_rows, depth, seed):
    trees, forests = taken_over(grown(n_trees, n_rows, depth, seed)[0])
    points = on_thresholds(grown(n_trees, n_rows, depth, seed)[0], MANY_POINTS, seed)
    few = np.concatenate([trees.means(part, forests) for part in np.array_split(points, 3)])

    assert np.allclose(few, trees.means(points, forests), rtol=0, atol=1e-12)


def test_a_tree_of_more_nodes_than_a_byte_holds_is_read_on_both_ways():
    rng = np.random.default_rng(4)
    points = rng.random((1_500, 3), dtype=np.float32)
    tree = DecisionTreeClassifier(random_state=0).fit(points, rng.random(1_500) < 0.5)
    trees = Trees.joined([GrownTree.of_classifier(tree.tree_)])
    asked = rng.random((MANY_POINTS, 3), dtype=np.float32)
    expected = tree.predict_proba(asked)[:, 1]

    assert trees.size[0] > 256
    assert (expected == trees.means(asked, np.zeros((1, 1), dtype=np.int64))[:, 0]).all()
    assert (expected[:9] == trees.means(asked[:9], np.zeros((1, 1), dtype=np.int64))[:, 0]).all()


@pytest.mark.parametrize("n_points", [0, 1, 3, MANY_POINTS])
def test_a_single_leaf_says_the_same_of_every_point(n_points):
    trees = Trees.joined([GrownTree.leaf(0.25), GrownTree.leaf(1.0)])
    points = np.zeros((n_points, 1), dtype=np.float32)

    assert (0, 1) == (trees.depth, trees.n_features)
    assert [[0.625, 1.0]] * n_points == trees.means(points, np.array([[0, 1], [1, 1]])).tolist()


def test_forests_answer_by_member_and_column():
    leaves = [GrownTree.leaf(share) for share in (0.0, 0.25, 0.5, 1.0)]
    forests = Forests(Trees.joined(leaves), np.array([[[0], [1], [2]], [[3], [3], [0]]]))
    members = forests.members(np.zeros((1, 1), dtype=np.float32))

    assert [[[0.0, 0.25, 0.5], [1.0, 1.0, 0.0]]] == members.tolist()


def test_arrays_bring_the_forests_back():
    trees, number = taken_over(grown()[0])
    forests = Forests(trees, number[None])
    again = Forests.from_arrays(forests.to_arrays())
    points = on_thresholds(grown()[0], 50)

    assert forests.members(points).tobytes() == again.members(points).tobytes()


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("trees_size", [2, 3]),
        ("trees_size", [3]),
        ("trees_size", [0, 4]),
        ("trees_feature", [0, -1, -1, 0]),
        ("trees_feature", [-1, -1, 0, -1]),
        ("trees_feature", [0, -7, -1, -1]),
        ("trees_value", [0.5]),
        ("forests", [[[2]]]),
        ("forests", [[[-1]]]),
        ("forests", [0]),
    ],
)
def test_arrays_that_are_no_forests_are_refused(name, wrong):
    arrays = {
        "trees_feature": np.array([0, -1, -1, -1], dtype=np.int16),
        "trees_value": np.array([0.5, 0.0, 1.0, 0.5], dtype=np.float32),
        "trees_size": np.array([3, 1], dtype=np.int32),
        "forests": np.array([[[0], [1]]], dtype=np.int32),
    }
    Forests.from_arrays(arrays)

    with pytest.raises(ValueError, match="refit"):
        Forests.from_arrays({**arrays, name: np.array(wrong)})
