import numpy as np
import pytest

from jaxalign.core.ceilings import shared_targets


def test_columns_are_found_by_name_whatever_their_order():
    subjects = ["b", "a", "a", "b", "c"]
    names = [("LIFG", "1"), ("LIFG", "1"), ("LIFG", "2"), ("LIFG", "2"), ("LATL", "1")]
    found = shared_targets.find(subjects, names)
    assert found.subjects == ["b", "a", "c"]
    assert found.names == [("LIFG", "1"), ("LIFG", "2"), ("LATL", "1")]
    assert found.columns.tolist() == [[0, 1, -1], [3, 2, -1], [-1, -1, 4]]


def test_a_target_twice_is_reported():
    with pytest.raises(ValueError, match="A subject must have each target once, but has 'x' twice"):
        shared_targets.find(np.array(["a", "b", "a"]), np.array(["x", "x", "x"]))


def test_no_columns_are_no_targets():
    found = shared_targets.find([], [])
    assert found.columns.shape == (0, 0)
    assert shared_targets.divide(found.columns >= 0) == []


def test_targets_are_divided_by_their_subjects():
    member = np.array([[1, 1, 0], [1, 1, 1], [1, 0, 0], [1, 1, 0]], bool)
    found = [(rows.tolist(), people.tolist()) for rows, people in shared_targets.divide(member)]
    assert found == [([0, 3], [0, 1]), ([1], [0, 1, 2])]
