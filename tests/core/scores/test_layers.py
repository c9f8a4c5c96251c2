import numpy as np
import pytest

from jaxalign.core.folds import Fold, Split
from jaxalign.core.scores import layers, scoring
from jaxalign.core.solver import cv
from jaxalign.literature import protocols

NAN, INF = np.nan, np.inf


@pytest.mark.parametrize(
    ("inner", "layer", "known"),
    [
        ([0.1, 0.3, 0.2], 1, True),
        ([0.3, 0.3, 0.2], 0, True),  # the first of equal ones
        ([NAN, -0.5, NAN], 1, True),
        ([NAN, -INF, NAN], 1, True),  # the worst score is a score
        ([-INF, -2.0, NAN], 1, True),
        ([NAN, NAN, NAN], 0, False),
        ([NAN], 0, True),  # of a single layer nothing is chosen
    ],
)
def test_the_best_inside_is_chosen_and_undefined_is_not(inner, layer, known):
    found = layers.choose(np.array(inner)[:, None])
    assert (found.layer.tolist(), found.known.tolist()) == ([layer], [known])


def test_each_group_of_targets_has_one_layer():
    # [L k v]: targets 0 and 2 are one subject's, 1 is another's; in fold 1 the latter has no score.
    inner = np.array([[[0.9, 0.1, 0.0], [0.2, NAN, NAN]], [[0.5, 0.2, 0.6], [0.1, NAN, 0.1]]])
    found = layers.choose_for_groups(inner, ["a", "b", "a"])
    assert found.layer.tolist() == [[1, 1, 1], [0, 0, 0]]
    assert found.known.tolist() == [[True, True, True], [True, False, True]]
    assert layers.choose_for_groups(inner).layer.tolist() == [[1, 1, 1], [0, 0, 0]]


def test_an_infinite_loss_of_one_target_counts_against_the_layer():
    inner = np.array([[[0.9, -INF]], [[0.1, 0.1]]])
    assert layers.choose_for_groups(inner).layer.tolist() == [[1, 1]]


def test_values_of_folds_that_can_choose_none_are_undefined():
    values = np.array([[1.0, 2.0], [3.0, 4.0]])
    choice = layers.choose(np.array([[0.1, NAN], [0.2, NAN]]))
    np.testing.assert_array_equal(layers.take(values, choice), [3.0, NAN])


def result(r, inner):
    """A result of 2 folds and 2 targets."""
    shape, one = (2, 2), np.ones(2)
    r, inner = (np.broadcast_to(np.array(x, float), shape) for x in (r, inner))
    counts = np.ones(shape, int)
    return cv.Nested(r, r, np.ones(shape), inner, r, r, counts, one.astype(int), counts[0], one)


def test_a_subject_without_inner_scores_has_no_layer_and_no_score_of_that_fold():
    results = [result(0.1, [[0.3, 0.3], [0.2, NAN]]), result(0.4, [[0.5, 0.1], [0.6, NAN]])]
    protocol = protocols.PROTOCOLS["jaxalign"]
    fold = Fold(Split(np.arange(3), np.arange(3, 5)), ())
    found = scoring.combine(results, protocol, [fold, fold], subjects=["a", "b"])
    assert found.layers.tolist() == [[1, 0], [1, 0]]
    # By default a target that is undefined in a fold has no score; one fold of b is.
    assert found.per_target[0] == 0.4 and np.isnan(found.per_target[1])
    assert found.num_nan == 1
