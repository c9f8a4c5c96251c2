"""Stories read and heard: the silence around them, and words from TextGrids put beside them."""

import h5py
import numpy as np
import pytest
from recordings import SPOKEN, denizens, rewrite_hdf5, text_grid, truncate
from refusals import refused

from jaxalign.data import datasets
from jaxalign.data.sets.denizens import Denizens

OPTIONS = {"subjects": ("01", "02"), "modality": "listening"}


@pytest.fixture
def copy(tmp_path, rng):
    folder = denizens(tmp_path, rng)
    (folder / "stimuli").mkdir()
    for story in ("story_01", "story_02", "story_11"):
        grid = text_grid({"phone": [(0.0, 50.0, "S")], "word": [*SPOKEN, (2.0, 50.0, "we")]})
        (folder / f"stimuli/{story}.TextGrid").write_text(grid)
    return folder


def path(folder, part="trn", subject="01"):
    return folder / f"responses/subject{subject}_listening_fmri_data_{part}.hdf"


def responses(folder, **options):
    return Denizens(root=folder.parent, **(OPTIONS | options)).responses()


def test_the_first_sample_lies_five_trs_before_the_story(copy):
    found = responses(copy)
    assert [found.run.count(s) for s in ("story_01", "story_02", "story_11")] == [30, 26, 28]
    expected = [2.0045 * np.arange(-5, n - 5) for n in (30, 26, 28)]
    np.testing.assert_allclose(found.time_s, np.concatenate(expected), atol=1e-12)
    assert found.tr_s == 2.0045


def test_trimming_takes_samples_and_their_times(copy):
    found, whole = responses(copy, trim=(10, 4)), responses(copy)
    kept = np.r_[10:26, 40:52, 66:80]
    np.testing.assert_array_equal(found.values, whole.values[kept])
    np.testing.assert_array_equal(found.time_s, whole.time_s[kept])
    assert found.run == [whole.run[i] for i in kept]


def test_values_are_those_of_the_files(copy):
    found = responses(copy)
    with h5py.File(path(copy)) as train, h5py.File(path(copy, "val")) as test:
        expected = [train["story_01"][()], train["story_02"][0], test["story_11"][()].mean(axis=0)]
    # The mean is of float32, the numbers of order 1.
    np.testing.assert_allclose(found.values[:, :3], np.concatenate(expected), atol=1e-6)


def test_repeats_are_trimmed_as_the_mean_is(copy):
    found = Denizens(root=copy.parent, **OPTIONS, trim=(10, 4)).repeats("02")
    mean = responses(copy, subjects=("02",), trim=(10, 4))
    np.testing.assert_allclose(found.values.mean(axis=0), mean.values[-14:], atol=1e-6)
    assert found.run == mean.run[-14:]
    assert found.target == mean.target


def test_words_are_read_where_text_grids_lie_beside_the_recordings(copy):
    found = datasets.find("denizens-listening-01", copy.parent)
    assert found.stimuli.text == ["so", "there", "we"] * 3
    assert list(dict.fromkeys(found.stimuli.run)) == list(dict.fromkeys(found.responses.run))
    (copy / "stimuli/story_02.TextGrid").unlink()
    with refused("denizens needs", "story_02.TextGrid", "times of words", "denizens.md"):
        Denizens(root=copy.parent, **OPTIONS).stimuli()


def test_options_are_checked(copy):
    with refused("modality must be among reading, listening", "'smelling'"):
        responses(copy, modality="smelling")
    with refused("trim must be two numbers >= 0", "(-1, 0)"):
        responses(copy, trim=(-1, 0))
    with refused("trim must leave samples", "26", "(20, 6)"):
        responses(copy, trim=(20, 6))
    with refused("denizens needs", "subject01_reading", "missing"):
        responses(copy, modality="reading")


def test_subjects_with_other_stories_or_lengths_are_refused(copy, rng):
    rewrite_hdf5(path(copy, subject="02"), story_01=rng.normal(size=(29, 3)))
    with refused("same stories and TRs", "'story_01' 01 has 30 and 02 29"):
        responses(copy)
    rewrite_hdf5(path(copy, subject="02"), story_01=None)
    with refused("same stories and TRs", "'story_01' 01 has 30 and 02 0"):
        responses(copy)


def test_arrays_of_another_shape_are_refused(copy, rng):
    rewrite_hdf5(path(copy), story_02=rng.normal(size=(2, 26, 3)))
    with refused(path(copy), "'story_02' must be TRs x voxels", "(2, 26, 3)"):
        responses(copy)
    rewrite_hdf5(path(copy), story_02=rng.normal(size=(26, 2)))
    with refused(path(copy), "'story_02' must have 3 voxels, found 2"):
        responses(copy)
    rewrite_hdf5(path(copy, "val"), story_11=rng.normal(size=(28, 3)))
    with refused(path(copy, "val"), "'story_11' must hold numbers in 3 dimensions"):
        responses(copy)
    rewrite_hdf5(path(copy, "val"), story_11=None)
    with refused(path(copy, "val"), "must hold one story", "found 0"):
        responses(copy)
    rewrite_hdf5(path(copy, "val"), story_01=rng.normal(size=(2, 28, 3)))
    with refused(path(copy, "val"), "'story_01' is a training story, too"):
        responses(copy)


def test_a_truncated_file_is_refused(copy):
    truncate(path(copy, "val", "02"))
    with refused(path(copy, "val", "02"), "must be a whole HDF5 file"):
        responses(copy)


def test_text_grids_without_words_are_refused(copy):
    grid = copy / "stimuli/story_02.TextGrid"
    pauses = [(0.0, 50.0, "sp")]
    grid.write_text(text_grid({"phone": pauses, "word": pauses}))
    with refused(grid, "must hold words in its second tier"):
        Denizens(root=copy.parent, **OPTIONS).stimuli()


def test_a_copy_under_another_subject_is_refused(copy):
    for part in ("trn", "val"):
        path(copy, part, "02").write_bytes(path(copy, part).read_bytes())
    with refused(copy, "two subjects must differ", "'01' and '02'"):
        responses(copy)


def test_nan_in_one_repeat_is_refused(copy, rng):
    values = rng.normal(size=(2, 28, 3))
    values[1, 4, 2] = np.nan
    rewrite_hdf5(path(copy, "val"), story_11=values)
    with refused(path(copy, "val"), "'01'", "1 of 84 samples", "run story_11", "cortex/01.2"):
        responses(copy)
    assert responses(copy, subjects=("01",), nan="leave_out").target == ["01.0", "01.1"]
    found = Denizens(root=copy.parent, **OPTIONS, nan="leave_out").repeats("01")
    assert found.target == ["01.0", "01.1"]
