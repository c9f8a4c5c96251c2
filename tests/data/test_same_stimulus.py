"""Samples that present the same: ids, texts in other spellings, and stories with a word more."""

import numpy as np
import pytest

from jaxalign.data import datasets, same_stimulus
from jaxalign.data.schema import Responses, Stimuli


def responses(**samples):
    n = len(next(iter(samples.values())))
    given = {"subject": ["s"], "roi": ["r"], "target": ["t"], "units": "z"}
    given |= {"run": ["run"] * n} | samples
    return Responses(values=np.arange(float(n))[:, None], **given)


def sentences(texts, passage=None):
    m = len(texts)
    names = [f"s{i}" for i in range(m)]
    passage = passage or names
    return Stimuli(stimulus_id=names, text=texts, passage=passage, run=["run"] * m, unit="sentence")


def story(texts):
    """Put the words of each run in its own passage, one a second."""
    rows = [(run, i, word) for run, text in enumerate(texts) for i, word in enumerate(text)]
    onset = np.array([float(i) for _, i, _ in rows])
    return Stimuli(
        stimulus_id=[f"{run}.{i}" for run, i, _ in rows],
        text=[word for _, _, word in rows],
        passage=[f"p{run}" for run, _, _ in rows],
        run=[f"r{run}" for run, _, _ in rows],
        unit="word",
        onset_s=onset,
        offset_s=onset + 0.5,
    )


def trs(num, runs=3):
    return responses(
        run=[f"r{run}" for run in range(runs) for _ in range(num)],
        time_s=np.tile(2.0 * np.arange(num), runs),
        tr_s=2.0,
    )


def words(start, num):
    return [f"word{i}" for i in range(start, start + num)]


def test_ids_and_texts_are_compared():
    stimuli = sentences(["A dog\u2019s bark.", "a  dog's bark", "Another dog's bark", "\u2026"])
    found = same_stimulus.items(stimuli, responses(stimulus_id=["s0", "s1", "s2", "s3", "s2"]))
    assert found is not None
    assert (found[:, None] == found).astype(int).tolist() == [
        [1, 1, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [0, 0, 1, 0, 1],
        [0, 0, 0, 1, 0],
        [0, 0, 1, 0, 1],
    ]
    assert same_stimulus.items(stimuli, responses(stimulus_id=["s1", "s2", "s3"])) is None


@pytest.mark.parametrize(
    "other, is_one",
    [
        (words(0, 60), True),
        ([*words(0, 60), "more"], True),
        (["more", *words(0, 60), *words(90, 50)], True),  # of the shorter one all
        ([*words(0, 25), *words(100, 35)], False),
        (words(0, 60)[::-1], False),
        (words(100, 60), False),
        (words(20, 10), False),  # a sentence of the story is not the story
    ],
)
def test_stories_that_share_most_words_are_one(other, is_one):
    stimuli = story([words(0, 60), words(500, 60), other])
    found = same_stimulus.items(stimuli, trs(25))
    if not is_one:
        assert found is None
        return
    assert found is not None
    label, own = found[0], np.r_[:25, 50:75]
    np.testing.assert_array_equal(np.flatnonzero(found == label), own)
    assert len(set(found)) == 26
    assert "'r0' and 'r2' present the same" in same_stimulus.example(trs(25), found)


def test_passages_that_share_most_words_have_one_name():
    found = same_stimulus.passages(story([words(0, 60), words(500, 60), ["more", *words(0, 60)]]))
    assert found == ["p0"] * 60 + ["p1"] * 60 + ["p0"] * 61


def test_short_stories_differ_in_a_word():
    stimuli = story([words(0, 8), [*words(0, 7), "other"], words(0, 8)])
    found = same_stimulus.items(stimuli, trs(4))
    assert found is not None
    assert (found[:4] == found[8:]).all() and len(set(found)) == 5


def test_a_template_makes_no_two_stimuli_one():
    told = [" ".join([*words(0, 16), *words(100 * i, 12)]) for i in range(1, 31)]
    assert same_stimulus.items(sentences(told), responses(stimulus_id=["s1", "s2"])) is None
    found = same_stimulus.of_stimuli(sentences([*told, told[4]]))
    assert len(set(found)) == 30 and found[4] == found[30]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["demo", "alice", "pereira2018-mean", "naturalstories"])
def test_published_stimuli_are_told_once(name, data_root):
    stimuli = datasets.find(name, data_root).stimuli
    assert len(set(same_stimulus.of_stimuli(stimuli))) == len(stimuli)


def test_a_data_set_compares_its_stories_once(tmp_path):
    """Every artefact of a run asks, and comparing 200,000 words takes seconds."""
    rows = [f"s{i},text {i % 3},p{i}" for i in range(6)]
    (tmp_path / "stimuli.csv").write_text("\n".join(["stimulus_id,text,passage", *rows]))
    some, others = ([f"s{i}" for i in x] for x in (range(6), (0, 1, 3)))
    recorded = responses(stimulus_id=some)
    (tmp_path / "responses.npz").write_bytes(recorded.to_bytes())
    dataset = datasets.find(str(tmp_path), None)
    found = dataset.items(dataset.responses)
    assert (
        found is not None
        and found.tolist() == same_stimulus.items(dataset.stimuli, recorded).tolist()
    )
    assert dataset.items(recorded) is found
    of_others = dataset.items(responses(stimulus_id=others))
    assert of_others is not None and of_others.tolist() == found[[0, 1, 3]].tolist()
    assert dataset.told is dataset.told
