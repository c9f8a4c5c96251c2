"""Files of activations: both formats, and all that is refused."""

import zipfile

import numpy as np
import pytest
from refusals import refused

from jaxalign.io import activation_files

IDS = ["b", "a", "c"]


@pytest.fixture
def values(rng):
    return rng.normal(size=(2, 3, 4)).astype(np.float32)  # [L m u]


def npz(path, *, ids=IDS, **content):
    np.savez(path, stimulus_id=np.array(ids), **content)
    return path


@pytest.mark.parametrize("compressed", [False, True])
def test_an_array_for_each_layer(tmp_path, values, compressed):
    """Layers come in the order of their numbers, not in that of the file."""
    save = np.savez_compressed if compressed else np.savez
    path = tmp_path / "net.npz"
    save(path, layer_12=values[1], stimulus_id=np.array(IDS), layer_3=values[0])
    found = activation_files.open_npz(path)
    assert (found.stimulus_id, found.layers, found.width) == (IDS, (3, 12), 4)
    np.testing.assert_array_equal(found.read(), values)


@pytest.mark.parametrize("dtype", activation_files.DTYPES)
def test_one_array_of_all_layers(tmp_path, values, dtype):
    path = npz(tmp_path / "net.npz", activations=values.astype(dtype))
    found = activation_files.open_npz(path)
    assert (found.layers, found.dtype) == ((0, 1), dtype)
    assert found.read().dtype == dtype
    np.testing.assert_array_equal(found.read(), values.astype(dtype))


def test_numbers_of_layers(tmp_path, values):
    path = npz(tmp_path / "net.npz", activations=values, layer=np.array([6, 12]))
    assert activation_files.open_npz(path).layers == (6, 12)
    path = npz(tmp_path / "one.npz", activations=values[0], layer=np.array([6]))
    found = activation_files.open_npz(path)
    assert found.layers == (6,)
    np.testing.assert_array_equal(found.read(), values[:1])


@pytest.mark.parametrize("layers,expected", [((), (0, 1)), ((4, 9), (4, 9))])
@pytest.mark.parametrize("order", ["C", "F"])
def test_npy(tmp_path, values, layers, expected, order):
    path = tmp_path / "net.npy"
    np.save(path, np.asarray(values, order=order))
    found = activation_files.open_npy(path, IDS, layers=layers)
    assert found.layers == expected
    np.testing.assert_array_equal(found.read(), values)


def test_npy_of_one_layer(tmp_path, values):
    np.save(tmp_path / "net.npy", values[0])
    found = activation_files.open_npy(tmp_path / "net.npy", IDS)
    assert found.layers == (0,)
    np.testing.assert_array_equal(found.read(), values[:1])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_values_that_are_not_finite(tmp_path, values, bad):
    values[1, 2, 3] = bad
    path = npz(tmp_path / "net.npz", layer_3=values[0], layer_12=values[1])
    given = activation_files.open_npz(path)
    with refused(path, "must be finite", f"{bad} at layer 12, stimulus_id 'c', unit 3 (1 such)"):
        given.read()


@pytest.mark.parametrize("suffix", [".npz", ".npy"])
def test_cut_off(tmp_path, values, suffix):
    path = tmp_path / f"net{suffix}"
    if suffix == ".npz":
        npz(path, activations=values)
    else:
        np.save(path, values)
    content = path.read_bytes()
    for end in (len(content) - 3, 60, 0):
        path.write_bytes(content[:end])
        with refused(path, f"must be a whole {suffix} file of NumPy"):
            if suffix == ".npz":
                activation_files.open_npz(path)
            else:
                activation_files.open_npy(path, IDS)


def test_bytes_after_the_end(tmp_path, values):
    path = tmp_path / "net.npy"
    np.save(path, values)
    path.write_bytes(path.read_bytes() + b"more")
    with refused(path, "100 bytes of values where there should be 96"):
        activation_files.open_npy(path, IDS)


def test_a_damaged_member(tmp_path, values):
    """The checksum of an .npz is found wrong when the values are read."""
    path = npz(tmp_path / "net.npz", activations=values)
    given = activation_files.open_npz(path)
    content = bytearray(path.read_bytes())
    place = content.find(values.tobytes())
    assert place > 0
    content[place + 5] ^= 1
    path.write_bytes(content)
    with refused(path, "must be a whole .npz", "CRC"):
        given.read()


class Trap:
    """Fails the test if anybody unpickles it."""

    def __reduce__(self):
        return pytest.fail, ("unpickled",)


@pytest.mark.parametrize("name", ["stimulus_id", "activations", "layer_0"])
def test_pickled_objects_are_not_loaded(tmp_path, values, name):
    content = {"stimulus_id": np.array(IDS), "layer_0": values[0]}
    content[name] = np.array([Trap()] * 3, dtype=object)
    path = tmp_path / "net.npz"
    np.savez(path, **content)
    with refused(path, f"{name} holds pickled objects, which are never loaded"):
        activation_files.open_npz(path)
    np.save(tmp_path / "net.npy", content[name])
    with refused("net.npy", "it holds pickled objects, which are never loaded"):
        activation_files.open_npy(tmp_path / "net.npy", IDS)


def test_a_file_that_is_no_array(tmp_path):
    path = tmp_path / "net.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("stimulus_id.npy", b"b a c")
    with refused(path, "must be a whole .npz"):
        activation_files.open_npz(path)
    path = tmp_path / "net.npy"
    path.write_bytes(b"\x80\x04K\x01.")  # a pickle
    with refused(path, "must be a whole .npy"):
        activation_files.open_npy(path, IDS)


@pytest.mark.parametrize(
    "change,parts",
    [
        ({"stimulus_id": None}, ["must have an array 'stimulus_id', found ['activations']"]),
        ({"stimulus_id": [1, 2, 3]}, ["must hold a text for each row, found int64 of shape (3,)"]),
        ({"stimulus_id": ["a", "b", "a"]}, ["stimulus_id must be unique, found 'a' twice"]),
        ({"stimulus_id": ["a", "b"]}, ["a row for each stimulus_id (2), found shape (2, 3, 4)"]),
        ({"activations": None}, ["must hold stimulus_id and either activations"]),
        ({"weights": np.zeros((3, 4))}, ["must hold stimulus_id and either activations"]),
        ({"layer_0": np.zeros((3, 4))}, ["must hold stimulus_id and either activations"]),
        ({"activations": np.zeros(3)}, ["[layer, row, unit]", "found float64 of shape (3,)"]),
        ({"activations": np.zeros((0, 3, 4))}, ["found float64 of shape (0, 3, 4)"]),
        ({"activations": np.zeros((3, 4), int)}, ["of float16, float32, float64, found int64"]),
        ({"activations": np.zeros((3, 4), complex)}, ["found complex128"]),
        ({"layer": [1]}, ["numbers of layers must be 2 integers", "found [1]"]),
        ({"layer": [2, 1]}, ["that ascend from 0 or more, found [2, 1]"]),
        ({"layer": [-1, 1]}, ["found [-1, 1]"]),
        ({"layer": [0.0, 1.0]}, ["found [0.0, 1.0]"]),
    ],
)
def test_arrays_that_do_not_fit(tmp_path, values, change, parts):
    content = {"stimulus_id": IDS, "activations": values} | change
    path = tmp_path / "net.npz"
    np.savez(path, **{name: np.array(x) for name, x in content.items() if x is not None})
    with refused(path, *parts):
        activation_files.open_npz(path)


@pytest.mark.parametrize(
    "change,parts",
    [
        (
            {"layer_1": np.zeros((3, 5), np.float32)},
            ["layer_0 is float32 x 4", "layer_1 float32 x 5"],
        ),
        ({"layer_1": np.zeros((3, 4))}, ["layer_0 is float32 x 4 and layer_1 float64 x 4"]),
        (
            {"layer_1": np.zeros((2, 4), np.float32)},
            ["layer_1 must have a row for each stimulus_id"],
        ),
        ({"layer_1": np.zeros((1, 3, 4))}, ["layer_1 must be [row, unit], of", "(1, 3, 4)"]),
        ({"layer": np.array([0])}, ["must hold stimulus_id and either activations"]),
        ({"layer_x": np.zeros((3, 4))}, ["must hold stimulus_id and either activations"]),
    ],
)
def test_layers_that_do_not_fit(tmp_path, values, change, parts):
    path = npz(tmp_path / "net.npz", layer_0=values[0], **change)
    with refused(path, *parts):
        activation_files.open_npz(path)


def test_numbers_that_do_not_fit_an_npy(tmp_path, values):
    np.save(tmp_path / "net.npy", values)
    with refused("net.npy: the array: numbers of layers must be 2 integers", "found [12]"):
        activation_files.open_npy(tmp_path / "net.npy", IDS, layers=(12,))
