"""Harry Potter: all words and TRs of the published arrays, with few voxels."""

import numpy as np
import pytest
from recordings import harry_potter, truncate, write_npy
from refusals import refused

from jaxalign.data import datasets, samples
from jaxalign.data.sets import wehbe2014

BOTH = ("F", "H")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    harry_potter(root, np.random.default_rng(0))
    return root


@pytest.fixture
def copy(tmp_path, rng):
    return harry_potter(tmp_path, rng)


def adapter(root, **options):
    return wehbe2014.Wehbe2014(root=root, **({"subjects": BOTH} | options))


def responses(folder):
    return adapter(folder.parent).responses()


def stimuli(folder):
    return adapter(folder.parent).stimuli()


def test_words_are_read_with_times_and_runs(whole):
    found = adapter(whole).stimuli()
    assert len(found) == 5176
    assert found.text[:2] == ["word0", "word1"]
    assert found.unit == "word"
    assert set(found.passage) == {"harry-potter-ch9"}
    assert [found.run.count(f"run-{k}") for k in (1, 2, 3, 4)] == [1272, 1300, 1302, 1302]
    np.testing.assert_array_equal(found.onset_s[:3], [10, 10.5, 11])
    np.testing.assert_array_equal(found.offset_s - found.onset_s, 0.5)
    # The second run begins with TR 326.
    assert found.onset_s[1272] == 652 + 10


def test_samples_keep_the_time_that_they_had_before_trimming(whole):
    found = adapter(whole).responses()
    assert found.values.shape == (1211, 6)
    lengths = {run: found.run.count(run) for run in dict.fromkeys(found.run)}
    assert lengths == {"run-1": 291, "run-2": 303, "run-3": 302, "run-4": 315}
    assert found.tr_s == 2.0
    assert (found.time_s[0], found.time_s[290]) == (40.0, 2.0 * (326 - 16))
    assert (found.time_s[291], found.time_s[-1]) == (652 + 40.0, 2.0 * (1351 - 16))
    assert found.subject == ["F"] * 3 + ["H"] * 3
    # Nobody shares a voxel with anybody.
    assert len(set(found.target)) == 6
    folder = whole / wehbe2014.FOLDER
    for i, subject in enumerate(BOTH):
        own = np.load(folder / f"fMRI/data_subject_{subject}.npy")
        np.testing.assert_array_equal(found.values[:, 3 * i : 3 * i + 3], own.astype(np.float32))


def test_four_words_fall_into_every_sample_while_words_are_shown(whole):
    words, found = adapter(whole).stimuli(), adapter(whole).responses()
    onto = samples.Placement(words, found, "sum", 4)
    counted = samples.from_stimuli(np.ones((len(words), 1)), onto)
    per_sample = counted.values[counted.recorded, 0]
    # Words end 300 or so TRs after a run's start, some of them before the last sample kept.
    assert (per_sample[:280] == 4).all()
    ends = {run: words.onset_s[np.array(words.run) == run].max() for run in set(found.run)}
    during = np.array([t + 2 <= ends[r] for t, r in zip(found.time_s, found.run, strict=True)])
    assert (per_sample[during] == 4).all()


def test_the_row_of_the_table_reads_all_eight(tmp_path, rng):
    harry_potter(tmp_path, rng, subjects=wehbe2014.SUBJECTS, num_voxels=1)
    found = datasets.find("wehbe2014", tmp_path)
    assert list(found.responses.subject) == list("FHIJKLMN")
    assert len(found.stimuli) == 5176


def test_words_may_be_bytes_and_overlong_ones_end_with_the_next(copy):
    path = copy / wehbe2014.WORD_TIMES
    times = np.load(path)
    times[1] -= 0.25
    write_npy(path, times)
    write_npy(copy / wehbe2014.WORDS, np.load(copy / wehbe2014.WORDS).astype("S"))
    found = stimuli(copy)
    assert found.text[0] == "word0"
    np.testing.assert_array_equal(found.offset_s[:2], [10.25, 10.75])


@pytest.mark.parametrize(
    "name", [wehbe2014.WORDS, wehbe2014.RUNS, wehbe2014.TR_TIMES, "fMRI/data_subject_H.npy"]
)
def test_a_missing_and_a_truncated_file_are_named(copy, name):
    read = stimuli if name == wehbe2014.WORDS else responses
    truncate(copy / name)
    with refused(copy / name, "must be a whole .npy"):
        read(copy)
    (copy / name).unlink()
    with refused("wehbe2014 needs", copy / name, "missing"):
        read(copy)


def test_an_unknown_subject_is_refused(whole):
    with refused("wehbe2014: subjects must be among F, H", "'G'"):
        adapter(whole, subjects=("G",))


@pytest.mark.parametrize(
    "name,shape",
    [
        (wehbe2014.WORD_TIMES, (5175,)),
        (wehbe2014.RUNS, (1211,)),
        ("fMRI/data_subject_F.npy", (1351, 3)),
    ],
)
def test_another_shape_is_refused(copy, name, shape):
    write_npy(copy / name, np.ones(shape))
    with refused(copy / name, "must hold", shape[0]):
        stimuli(copy)
        responses(copy)


def test_words_as_objects_are_not_unpickled(copy):
    np.save(copy / wehbe2014.WORDS, np.load(copy / wehbe2014.WORDS).astype(object))
    with refused(copy / wehbe2014.WORDS, "plain values"):
        stimuli(copy)


def test_times_that_do_not_ascend_or_fit_are_refused(copy):
    path = copy / wehbe2014.WORD_TIMES
    times = np.load(path)
    write_npy(path, np.r_[times[:100], times[100:][::-1]])
    with refused(path, "must ascend", "word 101"):
        stimuli(copy)
    write_npy(path, times + 2000)
    with refused(path, "during a TR"):
        stimuli(copy)
    write_npy(path, times - 21)
    with refused(path, "during a TR", "word 20 at -1.0 s"):
        stimuli(copy)
    # The first twenty may come before the scan.
    write_npy(path, times - 20)
    assert (stimuli(copy).onset_s[0], stimuli(copy).run[0]) == (-10.0, "run-1")


def test_runs_and_trs_that_are_not_those_are_refused(copy):
    path = copy / wehbe2014.RUNS
    runs = np.load(path)
    write_npy(path, np.minimum(runs, 3))
    with refused(path, "number the runs 1 to 4", "found 1, 2, 3"):
        responses(copy)
    for odd in (1.5, np.nan, np.inf):
        write_npy(path, np.where(np.arange(len(runs)) == 5, odd, runs))
        with refused(path, "number the runs 1 to 4", f"{odd:g}"):
            responses(copy)
    write_npy(path, runs[::-1])
    with refused(path, "ascending"):
        responses(copy)
    write_npy(path, np.repeat([1, 2, 3, 4], [30, 400, 400, 521]))
    with refused(path, "more than 35 TRs", "30"):
        responses(copy)
    write_npy(path, runs)
    times = np.load(copy / wehbe2014.TR_TIMES)
    write_npy(copy / wehbe2014.TR_TIMES, times * 1.5)
    with refused(copy / wehbe2014.TR_TIMES, "advance by 2.0 s", "3.0000 s"):
        responses(copy)


def test_times_that_are_no_numbers_are_refused(copy):
    for name in (wehbe2014.WORD_TIMES, wehbe2014.TR_TIMES):
        times = np.load(copy / name)
        write_npy(copy / name, np.where(np.arange(len(times)) == 700, np.nan, times))
        with refused(copy / name, "nan"):
            stimuli(copy)
        write_npy(copy / name, times)


def test_words_without_letters_are_refused(copy):
    words = np.load(copy / wehbe2014.WORDS)
    words[9] = ""
    write_npy(copy / wehbe2014.WORDS, words)
    with refused(copy / wehbe2014.WORDS, "text must not be empty", "harry-potter-ch9.0009"):
        stimuli(copy)


def test_a_copy_under_another_subject_is_refused(copy):
    values = np.load(copy / "fMRI/data_subject_F.npy")
    write_npy(copy / "fMRI/data_subject_H.npy", values)
    with refused(copy, "two subjects must differ", "'F' and 'H'"):
        responses(copy)


def test_nan_is_left_out_throughout_and_refused_in_part(copy):
    path = copy / "fMRI/data_subject_H.npy"
    values = np.load(path)
    values[:, 1] = np.nan
    write_npy(path, values)
    assert responses(copy).target == ["F.0", "F.1", "F.2", "H.0", "H.2"]
    values[300, 2] = np.nan
    write_npy(path, values)
    with refused(path, "subject 'H' must be finite: 1 targets", "run run-2", "brain/H.2"):
        responses(copy)
    found = adapter(copy.parent, nan="leave_out").responses()
    assert found.target == ["F.0", "F.1", "F.2", "H.0"]
