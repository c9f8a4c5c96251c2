import re

import pytest
from refusals import refused

from jaxalign.data import datasets, localizer


def test_items_have_the_published_format():
    lists = localizer.draw(0)
    assert list(lists) == ["sentence", "nonwords"]
    for items in lists.values():
        assert len(items) == len(set(items)) == localizer.NUM_ITEMS
        assert {len(item.split()) for item in items} == {12}


def test_nonwords_have_the_letters_of_their_sentence_and_are_none_of_its_words():
    lists = localizer.draw(0)
    words = {word for item in lists["sentence"] for word in item.split()}
    for sentence, string in zip(*lists.values(), strict=True):
        assert [len(x) for x in string.split()] == [len(x) for x in sentence.split()]
        assert not words & set(string.split())
        for word in string.split():
            # Consonants and vowels in turn.
            assert not re.search(r"[aeiou]{2}|[^aeiou]{2}", word)


def test_items_follow_the_seed():
    assert localizer.draw(3, 10) == localizer.draw(3, 10)
    assert localizer.draw(3, 10) != localizer.draw(4, 10)


def test_embedded_stimuli_are_each_seen_alone():
    stimuli = datasets.find("localizer", None).stimuli
    assert len(stimuli) == 2 * localizer.NUM_ITEMS
    assert len(set(stimuli.passage)) == len(stimuli)
    kinds = localizer.conditions(stimuli.stimulus_id)
    assert kinds == ["sentence"] * 240 + ["nonwords"] * 240


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "sentences.txt").write_text("the dog sat\n\na bird flew\n")
    (tmp_path / "nonwords.txt").write_text("vek zup mib\nkaf nop tuz\nvob rin sep\n")
    return tmp_path


def test_lists_are_read_from_files(folder):
    found = datasets.find(str(folder), None)
    assert found.stimuli.text[:3] == ["the dog sat", "a bird flew", "vek zup mib"]
    assert found.stimuli.stimulus_id[1:3] == ["sentence.001", "nonwords.000"]
    before = found.hash
    (folder / "nonwords.txt").write_text("vek zup mib\nkaf nop tuz\n")
    assert datasets.find(str(folder), None).hash != before


@pytest.mark.parametrize(
    "name,content,parts",
    [
        ("nonwords.txt", b"vek zup\nkaf nop tuz\n", ["nonwords.txt", "(3), found 2 in 'vek zup'"]),
        ("sentences.txt", b"the dog sat\n", ["sentences.txt must hold at least two items", "1"]),
        ("nonwords.txt", b"a b c\na b c\n", ["nonwords.txt: items must differ"]),
        ("nonwords.txt", b"\xff\xfe", ["nonwords.txt must be text in UTF-8"]),
        ("nonwords.txt", None, ["needs", "nonwords.txt: it is missing"]),
    ],
)
def test_lists_that_are_none_are_refused(folder, name, content, parts):
    (folder / name).unlink() if content is None else (folder / name).write_bytes(content)
    with refused(*parts):
        _ = datasets.find(str(folder), None).stimuli


@pytest.mark.parametrize(
    "ids,parts",
    [
        (["p.0", "p.1"], ["at least 2 stimuli sentence.N, found 0"]),
        (["sentence.0", "sentence.1", "nonwords.0"], ["2 stimuli nonwords.N, found 1"]),
        (
            ["sentence.0", "sentence.1", "nonwords.0", "nonwords.1", "x"],
            ["must be sentence.N and nonwords.N, found 'x'"],
        ),
    ],
)
def test_conditions_are_told_by_ids(ids, parts):
    with refused(*parts):
        localizer.conditions(ids)


def test_nobody_was_recorded():
    with refused("data set localizer has no responses: nobody was recorded"):
        _ = datasets.find("localizer", None).responses
