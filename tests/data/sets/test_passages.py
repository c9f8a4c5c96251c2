"""The embedded passages: what the demo promises of them."""

import collections
import re

import pytest
from refusals import refused

from jaxalign.data import datasets
from jaxalign.data.sets import passages


@pytest.fixture(scope="module")
def demo():
    return datasets.find("demo", None)


def test_there_are_320_sentences_in_32_passages_of_10(demo):
    stimuli = demo.stimuli
    sizes = collections.Counter(stimuli.passage)
    assert len(stimuli) == 320
    assert len(sizes) == 32
    assert set(sizes.values()) == {10}
    # Sentences of a passage are adjacent and numbered.
    assert stimuli.stimulus_id == [f"{name}.{i}" for name in sizes for i in range(10)]


def test_they_are_the_lines_of_the_file(demo):
    lines = passages.PATH.read_text(encoding="utf-8").splitlines()
    assert demo.stimuli.text == [x for x in lines if x and not x.startswith("#")]
    assert list(dict.fromkeys(demo.stimuli.passage)) == [x[2:] for x in lines if x.startswith("# ")]


def test_they_are_untimed_sentences_of_one_run(demo):
    assert demo.stimuli.unit == "sentence"
    assert not demo.stimuli.is_timed
    assert len(set(demo.stimuli.run)) == 1


def test_they_are_ascii_sentences_without_repetition(demo):
    text = demo.stimuli.text
    assert [x for x in text if not x.isascii() or x != x.strip()] == []
    assert [x for x in text if not re.fullmatch(r"[A-Z0-9\"'].*[.?!][\"']?", x)] == []
    assert len({x.lower() for x in text}) == 320


def test_nobody_was_recorded(demo):
    with refused("data set demo has no responses: nobody was recorded", "simulate"):
        _ = demo.responses


def test_no_data_folder_is_needed(demo, tmp_path):
    absent = datasets.find("demo", tmp_path / "absent")
    assert absent.hash == demo.hash
    assert absent.stimuli.hash == demo.stimuli.hash
