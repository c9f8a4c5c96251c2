"""Futrell2018 as Brain-Score packages it."""

import numpy as np
import published_files as published
import pytest
from refusals import refused

from jaxalign.data.sets import natural_stories
from jaxalign.data.sets.brainscore_behavior import Futrell2018


def test_all_participants_have_a_column(tmp_path, rng):
    path, data = published.futrell(tmp_path, rng)
    found = Futrell2018(root=tmp_path, verify=False).behavior()
    np.testing.assert_array_equal(found.reading_time_ms, data)
    assert found.participant == ["A1", "A2", "A3"]
    assert found.alignment == "published"
    assert found.word_in_sentence == [1, 2, 3, 4, 5, 6, 1, 2, 3, 1, 2, 3, 4, 1, 2, 3]
    assert Futrell2018(root=tmp_path, verify=False).files() == [path]


@pytest.mark.slow
def test_words_have_the_codes_of_the_corpus(tmp_path, rng):
    published.futrell(tmp_path, rng)
    published.stories(tmp_path)
    found = Futrell2018(root=tmp_path, verify=False).stimuli()
    corpus = natural_stories.load(tmp_path, "word")
    assert found.stimulus_id == corpus.stimulus_id
    assert found.text == corpus.text
    assert found.passage == corpus.passage
    assert Futrell2018(root=tmp_path, verify=False).behavior().stimulus_id == corpus.stimulus_id


def test_another_file_than_the_published_one_is_refused(tmp_path, rng):
    path, _ = published.futrell(tmp_path, rng)
    with refused(path, "words must be 10256 as in the published Futrell2018, found 16"):
        Futrell2018(root=tmp_path, verify=True).behavior()


@pytest.mark.parametrize(
    "changes,parts",
    [
        ({"drop": ["subject_id"]}, ["must hold the label 'subject_id' of each subject"]),
        ({"drop": ["word"]}, ["must hold the label 'word' of each presentation"]),
        ({"drop": ["word_within_sentence_id"]}, ["label 'word_within_sentence_id'"]),
        ({"word_within_sentence_id": ["x"] * 16}, ["word_within_sentence_id", "found 'x'"]),
        ({"word_within_sentence_id": [0] * 16}, ["word_in_sentence must be >= 1"]),
        ({"subject_id": ["A1", "A2", "A1"]}, ["participant must be unique, found 'A1' twice"]),
        ({"word_id": [1] * 16}, ["stimulus_id must be unique, found '1.1' twice"]),
        ({"values": np.full((16, 3), np.nan)}, ["participant 'A1'", "found only NaN"]),
        ({"values": np.full((16, 3), -1.0)}, ["must be positive", "found -1.0 for '1.1'"]),
    ],
    ids=lambda x: str(x)[:40],
)
def test_a_spoiled_file_is_refused(tmp_path, rng, changes, parts):
    path, _ = published.futrell(tmp_path, rng, **changes)
    with refused(path, *parts):
        Futrell2018(root=tmp_path, verify=False).behavior()


def test_a_truncated_or_missing_file_is_refused(tmp_path, rng):
    path, _ = published.futrell(tmp_path, rng)
    path.write_bytes(path.read_bytes()[:3000])
    found = Futrell2018(root=tmp_path, verify=False)
    for read in (found.stimuli, found.behavior):
        with refused(path, "must be a whole netCDF4 file"):
            read()
    path.unlink()
    with refused(path, "it is missing"):
        found.behavior()
