"""ds003020: stories as HDF5 and TextGrids, and which time a response has."""

import json
import logging

import numpy as np
import pytest
from recordings import SPOKEN, huth_stories, rewrite_hdf5, text_grid, truncate
from refusals import refused

from jaxalign.data import datasets, samples
from jaxalign.data.sets.lebel2023 import Lebel2023

STORIES = {
    "UTS01": {"life": 41, "souls": 45, "wheretheressmoke": 35},
    "UTS04": {"souls": 45, "wheretheressmoke": 35},
}
BOTH = ("UTS01", "UTS04")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    huth_stories(root, np.random.default_rng(0), STORIES)
    return root


@pytest.fixture
def copy(tmp_path, rng):
    return huth_stories(tmp_path, rng, STORIES)


def adapter(root, *subjects, **options):
    return Lebel2023(root=root, subjects=subjects or BOTH, **options)


def responses(folder, *subjects, **options):
    return adapter(folder.parents[1], *subjects, **options).responses()


def stimuli(folder, *subjects, **options):
    return adapter(folder.parents[1], *subjects, **options).stimuli()


def hf5(folder, subject="UTS01", story="souls"):
    return folder / f"preprocessed_data/{subject}/{story}.hf5"


def test_words_come_from_the_second_tier_without_breath_and_noise(whole):
    found = adapter(whole, "UTS01").stimuli()
    assert found.text == ["so", "there", "we"] * 3
    assert found.passage == ["life"] * 3 + ["souls"] * 3 + ["wheretheressmoke"] * 3
    assert list(found.run) == list(found.passage)
    np.testing.assert_array_equal(found.onset_s[:3], [0, 0.9, 2])
    np.testing.assert_array_equal(found.offset_s[:3], [0.5, 1.5, 2.75])
    assert found.stimulus_id[3] == "souls.0000"


def test_a_response_lies_ten_seconds_later_than_its_place_says(whole):
    """Simulate the lab's TRs, cut them as its features are cut, and compare the times."""
    found = adapter(whole, "UTS01").responses()
    expected = []
    for num_trs in STORIES["UTS01"].values():
        trs = np.arange(num_trs - 5) * 2.0 - 10.0  # relative to the sound, which starts at 10 s
        expected.append(trs[5 + 5 : -5])
    np.testing.assert_array_equal(found.time_s, np.concatenate(expected))
    assert found.time_s[0] == 10.0
    assert [found.run.count(s) for s in STORIES["UTS01"]] == [21, 25, 15]
    assert found.tr_s == 2.0


def test_values_are_those_of_the_files(whole):
    import h5py

    found = adapter(whole).responses()
    assert found.values.dtype == np.float32
    for i, subject in enumerate(BOTH):
        parts = []
        for story in ("souls", "wheretheressmoke"):
            with h5py.File(hf5(whole / "ds003020/derivative", subject, story)) as file:
                parts.append(file["data"][()])
        np.testing.assert_array_equal(found.values[:, 4 * i : 4 * i + 4], np.concatenate(parts))
    assert len(set(found.target)) == 8


def test_stories_are_those_that_all_subjects_have_unless_named(whole):
    assert set(adapter(whole).responses().run) == {"souls", "wheretheressmoke"}
    found = adapter(whole, stories=("souls",)).stimuli()
    assert set(found.run) == {"souls"}
    with refused("UTS04 was not recorded with story 'life'"):
        adapter(whole, stories=("life",)).responses()


def test_a_row_of_the_table_is_one_subject(whole):
    found = datasets.find("lebel2023-UTS04", whole)
    assert set(found.responses.subject) == {"UTS04"}
    assert set(found.stimuli.run) == {"souls", "wheretheressmoke"}


def test_repeats_of_the_test_story_stand_apart(whole):
    found = adapter(whole).repeats("UTS01")
    mean = adapter(whole, "UTS01", stories=("wheretheressmoke",)).responses()
    assert found.values.shape == (5, 15, 4)
    np.testing.assert_allclose(found.values.mean(axis=0), mean.values, atol=1e-6)
    assert (found.run, found.target) == (list(mean.run), list(mean.target))
    with refused("souls.hf5 must hold the array 'individual_repeats', found 'data'"):
        adapter(whole).repeats("UTS01", "souls")


@pytest.mark.parametrize("kind", ["short", "chronological"])
def test_text_grids_of_other_kinds_are_read_too(tmp_path, rng, kind):
    huth_stories(tmp_path, rng, {"UTS02": {"souls": 40}}, kind=kind)
    assert adapter(tmp_path, "UTS02").stimuli().text == ["so", "there", "we"]


def test_words_that_overlap_the_next_end_with_its_start(copy, caplog):
    words = [(0.0, 2.0, "a"), (1.75, 2.5, "dog"), (2.5, 90.0, "sp")]
    grid = text_grid({"phone": [(0.0, 90.0, "S")], "word": words})
    (copy / "TextGrids/souls.TextGrid").write_text(grid)
    with caplog.at_level(logging.WARNING):
        found = stimuli(copy, stories=("souls",))
    np.testing.assert_array_equal(found.onset_s, [0, 1.75])
    np.testing.assert_array_equal(found.offset_s, [1.75, 2.5])
    assert "souls.TextGrid: 1 words overlap the next one" in caplog.text


def test_words_before_the_first_sample_reach_it_by_delays(whole):
    """Count words in TRs, five of which lead up to each story's first sample, at 10 s."""
    words, found = adapter(whole, "UTS01").stimuli(), adapter(whole, "UTS01").responses()
    onto = samples.Placement(words, found, "sum", 5)
    counted = samples.from_stimuli(np.ones((len(words), 1)), onto)
    for story in STORIES["UTS01"]:
        own = counted.values[np.asarray(counted.run) == story, 0]
        # "so" and "there" begin in the first 2 s of the story, "we" at 2 s.
        assert own[:3].tolist() == [2, 1, 0]
        assert own[3:].sum() == 0


@pytest.mark.parametrize("trs", [25, 44, 46])
def test_another_number_of_trs_than_the_scan_had_is_refused(copy, trs):
    table = copy / "respdict.json"
    table.write_text(json.dumps(STORIES["UTS01"] | {"souls": trs}))
    with refused(hf5(copy), "'data' must have", trs - 20, "less 20", "found 25 x 4"):
        responses(copy)


@pytest.mark.parametrize(
    "content,parts",
    [
        ("{", ["must be JSON"]),
        ("[]", ["'souls'", "None"]),
        ('{"wheretheressmoke": 35}', ["story 'souls'", "None"]),
        ('{"wheretheressmoke": 35, "souls": 20}', ["more than 20", "20"]),
        ('{"wheretheressmoke": 35, "souls": "45"}', ["'45'"]),
    ],
)
def test_a_table_of_lengths_that_does_not_tell_them_is_refused(copy, content, parts):
    (copy / "respdict.json").write_text(content)
    with refused(copy / "respdict.json", *parts):
        responses(copy)


def test_missing_files_are_named(copy, tmp_path):
    (copy / "TextGrids/souls.TextGrid").unlink()
    with refused("lebel2023 needs", "souls.TextGrid", "missing"):
        stimuli(copy)
    with refused("lebel2023 needs", "UTS01/naked.hf5", "missing"):
        (copy / "TextGrids/naked.TextGrid").touch()
        responses(copy, "UTS01", stories=("naked",))
    with refused("lebel2023 needs <story>.hf5 of UTS02", "no story"):
        responses(copy, "UTS02")
    with refused("subjects must be among UTS01", "'UTS09'"):
        responses(copy, "UTS09")
    with refused("lebel2023 needs", tmp_path / "x/ds003020/derivative", "missing"):
        adapter(tmp_path / "x").files()


def test_a_truncated_story_is_refused(copy):
    truncate(hf5(copy, "UTS04"))
    with refused(hf5(copy, "UTS04"), "must be a whole HDF5 file"):
        responses(copy)


def test_an_array_under_another_key_or_of_another_shape_is_refused(copy, rng):
    values = rng.normal(size=(25, 4))
    rewrite_hdf5(hf5(copy), data=None, resp=values)
    with refused(hf5(copy), "must hold the array 'data', found 'resp'"):
        responses(copy)
    rewrite_hdf5(hf5(copy), data=values[None], resp=None)
    with refused(hf5(copy), "'data' must hold numbers in 2 dimensions"):
        responses(copy)
    rewrite_hdf5(hf5(copy, story="wheretheressmoke"), data=rng.normal(size=(15, 3)))
    rewrite_hdf5(hf5(copy), data=values)
    with refused("wheretheressmoke.hf5", "15 TRs", "x 4 voxels, found 15 x 3"):
        responses(copy)
    rewrite_hdf5(hf5(copy, story="wheretheressmoke"), data=rng.normal(size=(15, 4)))
    rewrite_hdf5(
        hf5(copy, story="wheretheressmoke"), individual_repeats=rng.normal(size=(5, 14, 4))
    )
    with refused("'individual_repeats' must be repeats x 15 TRs x 4 voxels", "(5, 14, 4)"):
        adapter(copy.parents[1]).repeats("UTS01")


def test_nan_in_a_story_is_refused_and_throughout_left_out(copy, rng):
    for story, n in (("souls", 25), ("wheretheressmoke", 15)):
        values = rng.normal(size=(n, 4))
        values[:, 2] = np.nan
        rewrite_hdf5(hf5(copy, "UTS01", story), data=values)
    assert responses(copy).target[:3] == ["UTS01.0", "UTS01.1", "UTS01.3"]
    values[3:5, 0] = np.nan
    rewrite_hdf5(hf5(copy, "UTS01", "wheretheressmoke"), data=values)
    path = hf5(copy, "UTS01", "wheretheressmoke")
    with refused(path, "'UTS01'", "1 targets", "2 of 40", "run wheretheressmoke", "cortex/UTS01.0"):
        responses(copy)
    found = responses(copy, "UTS01", stories=("souls", "wheretheressmoke"), nan="leave_out")
    assert found.target == ["UTS01.1", "UTS01.3"]
    # As the settings of a run say it.
    root = copy.parents[1]
    by_name = datasets.find("lebel2023-UTS01", root, nan="leave_out")
    assert "UTS01.0" not in by_name.responses.target
    assert by_name.hash != datasets.find("lebel2023-UTS01", root).hash
    with refused("nan must be 'refuse' for data set demo", "'leave_out'"):
        datasets.find("demo", None, nan="leave_out")


def test_a_copy_under_another_subject_is_refused(copy):
    for story in ("souls", "wheretheressmoke"):
        hf5(copy, "UTS04", story).write_bytes(hf5(copy, "UTS01", story).read_bytes())
    with refused(copy / "preprocessed_data", "two subjects must differ", "'UTS01' and 'UTS04'"):
        responses(copy)


def test_text_grids_without_words_are_refused(copy):
    path = copy / "TextGrids/souls.TextGrid"
    path.write_text(text_grid({"phone": list(SPOKEN), "word": [(0.0, 90.0, "sp")]}))
    with refused(path, "must hold words in its second tier"):
        stimuli(copy)
    path.write_text(text_grid({"word": list(SPOKEN)}))
    with refused(path, "at least 2 tiers"):
        stimuli(copy)
    path.write_text(text_grid({"phone": list(SPOKEN), "word": [(1.0, 2.0, "a"), (0.0, 3.0, "b")]}))
    with refused(path, "must be a TextGrid"):
        stimuli(copy)
