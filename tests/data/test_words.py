import csv
import dataclasses

import numpy as np
import pytest
from parts import words as make_words
from refusals import refused

from jaxalign.core import surprisal
from jaxalign.data import natural_stories, natural_stories_words, words
from jaxalign.data.words import WordFacts

FREQUENCIES = """\
1.1.whole\t1\tMr.\t99\tNA
1.1.1\t1\tMr\t5\tNA
1.2.word\t1\tcame\t19\tNA
1.2.whole\t1\tcame .\t0\tNA
2.1.whole\t1\tSo\t0\tNA
2.1.word\t1\tSo\t0\tNA
"""
LOG_PROBS = """\
token,logprob,offset,model,time,id,story
Mr,,0,m,0,c,0
.,-1.0,2,m,0,c,0
 c,-0.5,3,m,0,c,0
ame.,-0.25,5,m,0,c,0
So,,0,m,0,c,1
"""


@pytest.fixture
def root(tmp_path):
    for name, text in (
        (natural_stories_words.FREQUENCIES, FREQUENCIES),
        (natural_stories_words.LOG_PROBS, LOG_PROBS),
    ):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    return tmp_path


STIMULI = make_words("Mr.", "came.", "So", passage=["1", "1", "2"])


def test_frequencies_are_of_the_word_without_punctuation(root):
    facts = natural_stories_words.word_facts(root, STIMULI)
    np.testing.assert_allclose(facts.log_frequency, np.log([100, 20, 1]))


def test_gpt3_tokens_are_added_up_to_words(root):
    bits = natural_stories_words.word_facts(root, STIMULI).surprisal_bits["gpt3-davinci"]
    np.testing.assert_allclose(bits, [np.nan, 0.75 / np.log(2), np.nan])


def test_first_words_of_a_story_suffice(root):
    stimuli = make_words("Mr.", "So", passage=["1", "2"])
    facts = natural_stories_words.word_facts(root, stimuli)
    np.testing.assert_allclose(facts.log_frequency, np.log([100, 1]))


@pytest.mark.parametrize(
    "name,before,after,parts",
    [
        (
            "FREQUENCIES",
            "\t19\tNA",
            "\t19",
            ["freqs-1.tsv", "must have 5 cells, found 4", "1.2.word"],
        ),
        ("FREQUENCIES", "\t19\t", "\tx\t", ["the count of 1.2.word must be a whole", "'x'"]),
        ("FREQUENCIES", "2.1.", "3.1.", ["a count for each word", "none for 2.1", "'So'"]),
        ("LOG_PROBS", "logprob", "lp", ["all_stories_gpt3.csv must have the column 'logprob'"]),
        ("LOG_PROBS", "-0.5", "?", ["line 4: story and logprob must be numbers", "'?'"]),
        ("LOG_PROBS", " c,", " k,", ["story 1 must hold the words", "'kame.' for 'came.'"]),
        ("LOG_PROBS", "So,,0,m,0,c,1", "", ["story 2 must hold the words", "'' for 'So'"]),
    ],
)
def test_files_of_other_words_or_none_are_refused(root, name, before, after, parts):
    path = root / getattr(natural_stories_words, name)
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))
    with refused(*parts):
        natural_stories_words.word_facts(root, STIMULI)


def test_tokens_of_several_words_are_refused(root):
    path = root / natural_stories_words.LOG_PROBS
    header, *_, last = path.read_text().splitlines()
    path.write_text("\n".join([header, "Mr. came.,,0,m,0,c,0", last]))
    with refused("a token with white space must begin each word of story 1, found 1", "2 words"):
        natural_stories_words.word_facts(root, STIMULI)


def test_missing_file_is_named(root):
    (root / natural_stories_words.LOG_PROBS).unlink()
    with refused("Natural Stories needs", "all_stories_gpt3.csv: there is no such file"):
        natural_stories_words.word_facts(root, STIMULI)


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


def test_gpt3_predicts_published_reading_times(data_root):
    """The published number is r = .206 with 9,775 words that do not begin a sentence."""
    folder = data_root / "naturalstories"
    stimuli = natural_stories.load(data_root, "word")
    facts = natural_stories_words.word_facts(data_root, stimuli)
    bits = facts.surprisal_bits[natural_stories_words.GPT3]
    # The first token of each story has no log-probability.
    assert np.isnan(bits).sum() == 10
    assert np.isfinite(facts.log_frequency).all()
    path = folder / "naturalstories_RTS/processed_wordinfo.tsv"
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    times = {(row["item"], int(row["zone"])): float(row["meanItemRT"]) for row in rows}
    first = np.r_[True, np.array(stimuli.passage[1:]) != stimuli.passage[:-1]]
    zone = np.arange(len(stimuli)) - np.maximum.accumulate(
        np.where(first, np.arange(len(stimuli)), 0)
    )
    mean = np.array([times[x, z + 1] for x, z in zip(stimuli.passage, zone, strict=True)])
    initial = sentence_initial(folder, stimuli, zone)
    assert initial.sum() == 485
    found = {}
    for offset in (-1, 0, 1):
        own = surprisal.neighbour(bits[:, None], stimuli.passage, offset)[:, 0]
        keep = np.isfinite(own) & ~initial
        found[offset] = surprisal.correlation(
            own[keep], mean[keep], np.array(stimuli.passage)[keep]
        )
    assert found[0].num == 10256 - 485
    assert found[0].value == pytest.approx(0.21, abs=0.01)
    assert found[0].value > max(found[-1].value, found[1].value) + 0.03
    assert 0 < found[0].low < found[0].high < 0.3


def sentence_initial(folder, stimuli, zone):
    """Words with which a sentence of the corpus's parses begins."""
    text = (folder / "parses/ud/stories-aligned.conllx").read_text(encoding="utf-8")
    begins = set()
    for sentence in text.strip().split("\n\n"):
        story, place = sentence.splitlines()[0].rpartition("TokenId=")[2].split(".")[:2]
        begins.add((story, int(place) - 1))
    return np.array([(x, z) in begins for x, z in zip(stimuli.passage, zone, strict=True)])
