"""The Gallant lab's HDF5: training runs, repeats of the test, feature spaces."""

import h5py
import numpy as np
import pytest
from recordings import rewrite_hdf5, shortclips, truncate
from refusals import refused

from jaxalign.data import datasets
from jaxalign.data.sets.gallant import ShortClips

BOTH = ("S01", "S02")


@pytest.fixture
def copy(tmp_path, rng):
    return shortclips(tmp_path, rng)


def path(folder, subject="S01"):
    return folder / f"responses/{subject}_responses.hdf"


def responses(folder, subjects=BOTH):
    return ShortClips(root=folder.parent, subjects=subjects).responses()


def features(folder, name="wordnet"):
    return ShortClips(root=folder.parent, subjects=BOTH).features(name)


def test_training_runs_come_first_and_the_mean_over_repeats_last(copy):
    found = responses(copy)
    assert found.run == ["train-00"] * 6 + ["train-01"] * 5 + ["train-02"] * 7 + ["test"] * 4
    expected = np.concatenate([2.0 * np.arange(n) for n in (6, 5, 7, 4)])
    np.testing.assert_array_equal(found.time_s, expected)
    assert found.is_timed and ShortClips.timed
    for i, subject in enumerate(BOTH):
        with h5py.File(path(copy, subject)) as file:
            train, test = file["Y_train"][()], file["Y_test"][()]
        own = found.values[:, 3 * i : 3 * i + 3]
        np.testing.assert_array_equal(own[:18], train)
        np.testing.assert_allclose(own[18:], test.astype(np.float64).mean(axis=0), rtol=1e-6)
    assert len(set(found.target)) == 6


def test_features_lie_on_the_same_samples(copy):
    found = features(copy)
    same = responses(copy)
    assert found.run == same.run
    np.testing.assert_array_equal(found.time_s, same.time_s)
    with h5py.File(copy / "features/wordnet.hdf") as file:
        expected = np.concatenate([file["X_train"][()], file["X_test"][()]])
    np.testing.assert_array_equal(found.values, expected.astype(np.float32))
    assert features(copy, "motion_energy").values.shape == (22, 2)


def test_repeats_stand_apart(copy):
    found = ShortClips(root=copy.parent, subjects=BOTH).repeats("S02")
    with h5py.File(path(copy, "S02")) as file:
        np.testing.assert_array_equal(found.values, file["Y_test"][()])
    same = responses(copy, ("S02",))
    assert (found.run, found.target) == (["test"] * 4, same.target)


def test_there_is_no_text_to_read(copy):
    found = datasets.find("shortclips-S01", copy.parent)
    assert found.responses.values.shape == (22, 3)
    with refused("shortclips-S01 has no stimuli: silent clips hold no text", "features"):
        _ = found.stimuli


def test_run_onsets_may_lie_with_the_features_instead(copy):
    expected = responses(copy).run
    for subject in BOTH:
        rewrite_hdf5(path(copy, subject), run_onsets=None)
    assert responses(copy).run == expected
    for name in ("wordnet", "motion_energy"):
        rewrite_hdf5(copy / f"features/{name}.hdf", run_onsets=None)
    with refused(path(copy), "must hold the array 'run_onsets': none does"):
        responses(copy)


@pytest.mark.parametrize("onsets", [[1, 6, 11], [0, 11, 6], [0, 6, 6], [0, 6, 18]], ids=str)
def test_run_onsets_that_are_none_are_refused(copy, onsets):
    rewrite_hdf5(path(copy), run_onsets=np.array(onsets))
    with refused(path(copy), "run_onsets must begin with 0 and ascend below the 18", onsets):
        responses(copy)


def test_subjects_with_other_samples_are_refused(copy, rng):
    rewrite_hdf5(path(copy, "S02"), Y_test=rng.normal(size=(3, 5, 3)))
    with refused("same samples", "S01", "4 test TRs", "S02", "5"):
        responses(copy)


def test_arrays_of_another_shape_are_refused(copy, rng):
    rewrite_hdf5(path(copy), Y_test=rng.normal(size=(4, 3)))
    with refused(path(copy), "'Y_test' must hold numbers in 3 dimensions"):
        responses(copy)
    rewrite_hdf5(path(copy), Y_test=rng.normal(size=(3, 4, 2)))
    with refused(path(copy), "Y_test must be repeats x TRs x 3 voxels", "(3, 4, 2)"):
        responses(copy)
    rewrite_hdf5(path(copy), Y_test=None)
    with refused(path(copy), "must hold the array 'Y_test', found 'Y_train', 'run_onsets'"):
        responses(copy)
    rewrite_hdf5(copy / "features/wordnet.hdf", X_train=rng.normal(size=(17, 5)))
    rewrite_hdf5(path(copy), Y_test=rng.normal(size=(3, 4, 3)))
    with refused("wordnet.hdf", "18 and 4 samples", "(17, 5)"):
        features(copy)


def test_features_that_are_not_there_or_not_finite_are_refused(copy, rng):
    with refused("features must be among motion_energy, wordnet", "'word2vec'"):
        features(copy, "word2vec")
    rewrite_hdf5(copy / "features/wordnet.hdf", X_test=np.full((4, 5), np.nan))
    with refused("wordnet.hdf", "features must be finite"):
        features(copy)


@pytest.mark.parametrize("name", ["responses/S02_responses.hdf", "features/wordnet.hdf"])
def test_a_truncated_file_is_refused(copy, name):
    truncate(copy / name)
    with refused(copy / name, "must be a whole HDF5 file"):
        features(copy)
        responses(copy)


def test_a_missing_file_is_named(copy):
    with refused("shortclips needs", path(copy, "S03"), "missing"):
        responses(copy, ("S03",))


def test_a_copy_under_another_subject_is_refused(copy):
    path(copy, "S02").write_bytes(path(copy).read_bytes())
    with refused(copy, "two subjects must differ", "'S01' and 'S02'"):
        responses(copy)


def test_voxels_without_a_number_are_left_out_of_means_and_repeats(copy, rng):
    train, test = rng.normal(size=(18, 3)), rng.normal(size=(3, 4, 3))
    train[:, 1] = test[:, :, 1] = np.nan
    rewrite_hdf5(path(copy), Y_train=train, Y_test=test)
    assert responses(copy).target[:2] == ["S01.0", "S01.2"]
    assert ShortClips(root=copy.parent, subjects=BOTH).repeats("S01").target == ["S01.0", "S01.2"]
    train[7, 0] = np.nan
    rewrite_hdf5(path(copy), Y_train=train)
    with refused(path(copy), "'S01'", "1 targets", "run train-01", "cortex/S01.0"):
        responses(copy)
    left = ShortClips(root=copy.parent, subjects=("S01",), nan="leave_out").responses()
    assert left.target == ["S01.2"]
