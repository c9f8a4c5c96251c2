import dataclasses

import numpy as np
import pytest
from parts import words as make_words
from refusals import refused

from jaxalign.core.behavior import surprisal
from jaxalign.data import datasets, words
from jaxalign.data.sets import natural_stories, natural_stories_words
from jaxalign.data.words import WordFacts

FREQUENCIES = """\
1.1.whole\t1\tMr.\t99\tNA
1.1.1\t1\tMr\t5\tNA
1.2.word\t1\tcame\t19\tNA
1.2.whole\t1\tcame .\t0\tNA
2.1.whole\t1\tSo\t0\tNA
2.1.word\t1\tSo\t0\tNA
"""
WORDS = ["1.1", "1.2", "2.1"]


@pytest.fixture
def root(tmp_path):
    path = tmp_path / natural_stories_words.FILE
    path.parent.mkdir(parents=True)
    path.write_text(FREQUENCIES)
    return tmp_path


def test_frequencies_are_of_the_word_without_punctuation(root):
    found = natural_stories_words.log_frequency(root, WORDS)
    np.testing.assert_allclose(found, np.log([100, 20, 1]))
    found = natural_stories_words.log_frequency(root, WORDS[:0:-1])
    np.testing.assert_allclose(found, np.log([1, 20]))


@pytest.mark.parametrize(
    "before,after,parts",
    [
        ("\t19\tNA", "\t19", ["freqs-1.tsv", "must have 5 cells, found 4", "1.2.word"]),
        ("\t19\t", "\tx\t", ["the count of 1.2.word must be a whole number", "'x'"]),
        ("2.1.", "3.1.", ["must have a count for each word, found none for 2.1"]),
    ],
)
def test_frequencies_of_other_words_or_none_are_refused(root, before, after, parts):
    path = root / natural_stories_words.FILE
    assert before in FREQUENCIES
    path.write_text(FREQUENCIES.replace(before, after))
    with refused(*parts):
        natural_stories_words.log_frequency(root, WORDS)


def test_frequencies_that_were_not_obtained_are_none(tmp_path):
    assert len(natural_stories_words.log_frequency(tmp_path, WORDS)) == 0


def test_values_are_joined_by_id():
    stimuli = make_words("a", "b", "c")
    ids = [stimuli.stimulus_id[2], stimuli.stimulus_id[0], "another"]
    found = words.align(np.array([1.0, 2.0, 3.0]), ids, stimuli)
    np.testing.assert_array_equal(found, [2, np.nan, 1])


def test_baseline_has_the_columns_asked_for():
    stimuli = make_words("Ah,", "bee")
    facts = WordFacts(stimulus_id=stimuli.stimulus_id[::-1], log_frequency=np.array([5.0, 7.0]))
    found = words.baseline(
        ("position", "length", "log_frequency"), stimuli, facts, np.array([1.0, 2.0])
    )
    np.testing.assert_array_equal(found, [[1, 2, 7], [2, 3, 5]])
    assert words.baseline((), stimuli, facts, np.array([1.0, 2.0])).shape == (2, 0)


def test_frequencies_that_are_not_there_are_asked_for():
    stimuli = make_words("a", "b")
    with refused("behavior.baseline has 'log_frequency', which the data set does not give"):
        words.baseline(
            ("log_frequency",), stimuli, WordFacts(stimulus_id=stimuli.stimulus_id), np.ones(2)
        )


@pytest.mark.parametrize(
    "change,parts",
    [
        ({"stimulus_id": ["a", "a"]}, ["stimulus_id must be unique"]),
        ({"log_frequency": np.ones(3)}, ["log_frequency must have 2 entries or none, found 3"]),
        ({"surprisal_bits": {"m": np.ones(1)}}, ["'m' must have 2 entries, found 1"]),
        ({"surprisal_bits": {"m": np.array([np.nan, -1])}}, ["'m' must be >= 0, found -1"]),
    ],
)
def test_facts_are_checked(change, parts):
    with refused(*parts):
        dataclasses.replace(WordFacts(stimulus_id=["a", "b"]), **change)


def test_hash_is_of_all_content():
    facts = [
        WordFacts(stimulus_id=["a"]),
        WordFacts(stimulus_id=["b"]),
        WordFacts(stimulus_id=["a"], log_frequency=np.array([1.0])),
        WordFacts(stimulus_id=["a"], surprisal_bits={"m": np.array([1.0])}),
        WordFacts(stimulus_id=["a"], surprisal_bits={"k": np.array([1.0])}),
    ]
    assert len({x.hash for x in facts}) == len(facts)


@pytest.mark.parametrize(
    "name,expected",
    [
        # Of each word's time with the surprisal of the word before it, of its own, and of the next.
        ("naturalstories", (0.112, 0.207, 0.173)),
        ("naturalstories-corrected", (0.241, 0.154, 0.029)),
    ],
)
def test_gpt3_predicts_reading_times(data_root, name, expected):
    """About .21 of the published means; the corrected ones follow the word before."""
    dataset = datasets.find(name, data_root)
    facts, behavior = dataset.word_facts, dataset.behavior
    bits = facts.surprisal_bits[natural_stories.GPT3_NAME]
    # The first token of each story has no log-probability, and one word is spelt otherwise.
    assert np.isnan(bits).sum() == 11
    assert np.isfinite(facts.log_frequency).all()
    story = np.array(dataset.stimuli.passage)
    assert list(behavior.stimulus_id) == list(dataset.stimuli.stimulus_id)
    counts = np.array(behavior.word_in_sentence) != 1
    mean = surprisal.mean_over_participants(behavior.reading_time_ms)
    found = []
    for offset in (-1, 0, 1):
        own = surprisal.neighbour(bits[:, None], story, offset)[:, 0]
        keep = np.isfinite(own) & np.isfinite(mean) & counts
        found.append(surprisal.correlation(own[keep], mean[keep], story[keep]))
    np.testing.assert_allclose([x.value for x in found], expected, atol=0.001)
    assert found[1].num == 10256 - 485 - 1
    assert found[1].low < found[1].value < found[1].high


def test_ceiling_of_88_participants(data_root):
    dataset = datasets.find("naturalstories-participants", data_root)
    story = dict(zip(dataset.stimuli.stimulus_id, dataset.stimuli.passage, strict=True))
    stories = [story[name] for name in dataset.behavior.stimulus_id]
    times = dataset.behavior.reading_time_ms
    assert times.shape == (5055, 88)
    found = surprisal.split_half_ceiling(times, stories)
    assert found.num_groups == 5
    assert 0 < found.low < found.value < found.high < 1
