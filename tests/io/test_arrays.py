"""Files that an interrupted run resumes: only what was written there, and whole."""

import shutil
from typing import NamedTuple

import numpy as np
import pytest

from jaxalign.io import arrays


class Pair(NamedTuple):
    x: np.ndarray
    y: np.ndarray


@pytest.fixture
def path(tmp_path):
    (tmp_path / "0123").mkdir()
    arrays.write(tmp_path / "0123/layer_001.npz", Pair(np.arange(3.0), np.zeros((2, 2))))
    return tmp_path / "0123/layer_001.npz"


def test_arrays_come_back(path):
    found = arrays.read(path, Pair)
    np.testing.assert_array_equal(found.x, [0, 1, 2])
    assert found.y.shape == (2, 2)
    assert arrays.read(path.with_name("layer_002.npz"), Pair) is None


@pytest.mark.parametrize("place", ["0123/layer_002.npz", "4567/layer_001.npz"])
def test_a_file_of_another_layer_or_model_is_not_resumed(path, place, caplog):
    other = path.parents[1] / place
    other.parent.mkdir(exist_ok=True)
    shutil.copy(path, other)
    assert arrays.read(other, Pair) is None
    assert f"{other} is damaged or another's (it was written as 0123/layer_001.npz)" in caplog.text


def test_a_run_may_be_moved(path, tmp_path):
    shutil.move(tmp_path / "0123", tmp_path / "runs/0123")
    assert arrays.read(tmp_path / "runs/0123/layer_001.npz", Pair) is not None


@pytest.mark.parametrize("damage", [b"", b"PK", None])
def test_a_damaged_file_is_made_again(path, damage, caplog):
    whole = path.read_bytes()
    middle = whole.index(np.arange(3.0).tobytes()) + 9
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    path.write_bytes(flipped if damage is None else damage)
    assert arrays.read(path, Pair) is None
    assert "layer_001.npz is damaged" in caplog.text
