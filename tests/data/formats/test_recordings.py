"""Arrays from files: what is refused by name, what is broken, and the rule for NaN."""

import logging
import pathlib
import pickle

import h5py
import numpy as np
import pytest
from recordings import truncate, write_hdf5
from refusals import refused

from jaxalign.data.formats import recordings
from jaxalign.data.formats.recordings import Recording

FILES = {run: pathlib.Path(f"run-{run}.npy") for run in "abcr"}


def recording(values, subject="s1"):
    v = np.shape(values)[1]
    names = [str(i) for i in range(v)]
    return Recording(subject, np.asarray(values), ["V1"] * v, names, FILES)


@pytest.mark.parametrize("name", ["x.pkl", "x.pickle", "S1_responses.jbl", "x.JOBLIB"])
def test_pickles_are_refused_by_their_name(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(b"never read")
    for read in (
        lambda: recordings.npy(path, shape=(None,)),
        lambda: recordings.hdf5(path).__enter__(),
    ):
        with refused(path, "is a pickle", "never opened", ".npy"):
            read()


class Trap:
    """Leaves a mark when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_under_another_name_is_not_opened(tmp_path):
    path = tmp_path / "values.npy"
    path.write_bytes(pickle.dumps(Trap(tmp_path / "mark")))
    with refused(path, "must be a whole .npy of plain values"):
        recordings.npy(path, shape=(None,))
    np.save(path, np.array([Trap(tmp_path / "mark")], dtype=object), allow_pickle=True)
    with refused(path, "must be a whole .npy of plain values"):
        recordings.npy(path, shape=(None,))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("shape", [(4,), (5, 1), (4, 2), (None, 2, 1)], ids=str)
def test_an_npy_of_another_shape_is_refused(tmp_path, shape):
    np.save(tmp_path / "x.npy", np.zeros((5, 2)))
    with refused(tmp_path / "x.npy", "must hold", "float64 of shape (5, 2)"):
        recordings.npy(tmp_path / "x.npy", shape=shape)
    assert recordings.npy(tmp_path / "x.npy", shape=(None, 2)).shape == (5, 2)


def test_an_npy_of_another_type_is_refused(tmp_path):
    np.save(tmp_path / "x.npy", np.array(["a"]))
    with refused(tmp_path / "x.npy", "'fiu'", "<U1"):
        recordings.npy(tmp_path / "x.npy", shape=(1,))


def test_a_truncated_npy_and_an_npz_are_refused(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.zeros(1000))
    truncate(path)
    with refused(path, "must be a whole .npy"):
        recordings.npy(path, shape=(1000,))
    with open(path, "wb") as file:
        np.savez(file, a=np.zeros(2))
    with refused(path, "one array"):
        recordings.npy(path, shape=(2,))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.95])
def test_a_truncated_hdf5_is_refused(tmp_path, rng, share):
    path = tmp_path / "x.hf5"
    write_hdf5(path, {"data": rng.normal(size=(400, 50))})
    truncate(path, share)
    with refused(path, "must be a whole HDF5 file"), recordings.hdf5(path) as file:
        recordings.dataset(file, "data", ndim=2)[()]


def test_names_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "x.hf5"
    write_hdf5(path, {"b": np.zeros(3), "a": np.zeros(3)})
    with recordings.hdf5(path) as file:
        assert recordings.names(file) == ["a", "b"]
    with h5py.File(path, "r+") as file:
        file[b"\xff"] = np.zeros(3)
    with refused(path, "must have names in UTF-8, found b'\\xff'"), recordings.hdf5(path) as file:
        recordings.dataset(file, "c", ndim=1)


@pytest.mark.parametrize("kind", [OSError, RuntimeError, ValueError, KeyError])
def test_whatever_is_raised_while_a_file_is_read_names_it(tmp_path, kind):
    path = tmp_path / "x.hf5"
    write_hdf5(path, {"data": np.zeros(3)})
    with refused(path, "must be a whole HDF5 file", "a group"), recordings.hdf5(path):
        raise kind("a group")


def test_an_npy_with_a_header_that_is_none_is_refused(tmp_path):
    path = tmp_path / "x.npy"
    np.save(path, np.zeros(3))
    content = bytearray(path.read_bytes())
    content[10:12] = b"(("
    path.write_bytes(bytes(content))
    with refused(path, "must be a whole .npy"):
        recordings.npy(path, shape=(3,))


def test_an_array_that_is_missing_or_something_else_is_named(tmp_path):
    path = tmp_path / "x.hf5"
    write_hdf5(path, {"data": np.zeros((3, 2)), "text": np.array([b"a"])})
    with h5py.File(path, "r+") as file:
        file.create_group("group")
    with recordings.hdf5(path) as file:
        with refused(path, "must hold the array 'resp'", "'data', 'group', 'text'"):
            recordings.dataset(file, "resp", ndim=2)
        with refused(path, "must hold the array 'group'"):
            recordings.dataset(file, "group", ndim=2)
        with refused(path, "'data' must hold numbers in 3 dimensions", "(3, 2)"):
            recordings.dataset(file, "data", ndim=3)
        with refused(path, "'text' must hold numbers"):
            recordings.dataset(file, "text", ndim=1)


def test_a_library_that_is_not_installed_is_named_with_its_remedy():
    with refused("scans are read with no_such_library", "pip install jaxalign[data]"):
        recordings.library("no_such_library", "scans")


@pytest.mark.parametrize("given", ["int16", "float16", "float32", "float64"])
def test_numbers_become_float32(given):
    values = np.array([0, 1, 2047], given)
    found = recordings.as_float32(values)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, values)


def test_numbers_beyond_float32_become_infinite_and_are_refused():
    values = recordings.as_float32(np.array([[1.0], [1e300]]))
    with refused("must be finite: 1 targets"):
        recordings.without_undefined(recording(values), ["a"] * 2)


def test_targets_that_are_nan_throughout_are_left_out_and_counted(rng, caplog):
    values = rng.normal(size=(6, 5)).astype(np.float32)
    values[:, [1, 4]] = np.nan
    with caplog.at_level(logging.WARNING):
        left, kept = recordings.without_undefined(recording(values), ["a"] * 6)
    assert kept.tolist() == [True, False, True, True, False]
    np.testing.assert_array_equal(left.values, values[:, [0, 2, 3]])
    assert left.target == ["0", "2", "3"]
    assert "subject s1: 2 of 5 targets are NaN throughout and left out" in caplog.text


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_block_that_is_not_finite_is_refused_with_its_subject_run_and_voxels(rng, bad):
    values = rng.normal(size=(6, 5))
    values[:, 0] = np.nan
    values[2:4, [1, 3]] = bad
    with refused(
        "run-b.npy: responses of subject 's1' must be finite: 2 targets",
        "2 of 6 samples, in run b",
        "V1/1, V1/3",
    ):
        recordings.without_undefined(recording(values), ["a", "a", "b", "b", "c", "c"])


def test_targets_that_are_nan_here_and_there_are_left_out_on_demand(rng, caplog):
    values = rng.normal(size=(6, 5))
    values[:, 0] = values[2, 3] = np.nan
    with refused("mend them, or set --config.nan=leave_out"):
        recordings.without_undefined(recording(values), ["a"] * 6, nan="refuse")
    with caplog.at_level(logging.WARNING):
        left, kept = recordings.without_undefined(recording(values), ["a"] * 6, nan="leave_out")
    assert kept.tolist() == [False, True, True, False, True]
    assert left.target == ["1", "2", "4"]
    assert "2 of 5 targets are NaN somewhere and left out" in caplog.text
    values[1, 1] = np.inf
    with refused("must be finite: 1 targets", "V1/1"):
        recordings.without_undefined(recording(values), ["a"] * 6, nan="leave_out")


def test_a_subject_of_whom_nothing_is_left_is_refused():
    with refused("run-a.npy: responses of subject 's1' must hold a number: every target is NaN"):
        recordings.without_undefined(recording(np.full((4, 2), np.nan)), ["a"] * 4)


def test_a_target_that_is_infinite_throughout_is_refused(rng):
    values = rng.normal(size=(4, 2))
    values[:, 0] = np.inf
    with refused("must be finite: 1 targets", "V1/0"):
        recordings.without_undefined(recording(values), ["a"] * 4)


def test_large_values_are_no_overflow():
    values = np.full((4, 2), 3e38, np.float32)
    left, kept = recordings.without_undefined(recording(values), ["a"] * 4)
    assert kept.all()
    assert left.values is not None and np.isfinite(left.values).all()


def test_subjects_stand_side_by_side(rng):
    one, two = rng.normal(size=(4, 2)), rng.normal(size=(4, 3))
    two[:, 1] = np.nan
    found = recordings.side_by_side([recording(one), recording(two, "s2")], ["r"] * 4)
    np.testing.assert_array_equal(found["values"], np.c_[one, two[:, [0, 2]]])
    assert found["subject"] == ["s1", "s1", "s2", "s2"]
    assert found["target"] == ["0", "1", "0", "2"]
    with refused("subject 's2' must have 5 samples, found 4"):
        recordings.side_by_side(
            [recording(rng.normal(size=(5, 1))), recording(two, "s2")], ["r"] * 5
        )


def test_voxels_of_a_subject_are_nobody_elses(rng):
    names = [
        recordings.voxels(s, rng.normal(size=(3, 2)), "cortex", FILES).target for s in ("a", "b")
    ]
    assert names == [["a.0", "a.1"], ["b.0", "b.1"]]
