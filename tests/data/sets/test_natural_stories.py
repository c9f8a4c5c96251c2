"""Natural Stories: both views of the means, participants, GPT-3, the real corpus, spoiled files."""

import csv

import numpy as np
import pandas as pd
import published_files as published
import pytest
from refusals import refused

from jaxalign.core.metrics import mean_defined
from jaxalign.data import datasets
from jaxalign.data.sets import natural_stories as adapter
from jaxalign.data.sets import natural_stories_words

WORDS = [f"{s}.{z + 1}" for s, own in published.STORIES.items() for z in range(len(own))]
POSITIONS = [1, 2, 3, 4, 5, 6, 1, 2, 3, 1, 2, 3, 4, 1, 2, 3]


def mean_ms(behavior):
    return mean_defined(behavior.reading_time_ms, axis=1)


@pytest.fixture
def root(tmp_path):
    published.stories(tmp_path)
    return tmp_path


def read(root, times, verify=False):
    return adapter.NaturalStories(root=root, times=times, verify=verify).behavior()


def edit(root, name, old, new):
    path = root / name
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    return path


def test_published_means_lie_where_they_were_published(root):
    found = read(root, "published")
    assert found.stimulus_id == WORDS
    assert found.participant == ["mean"]
    wanted = [published.mean_time(*w.split(".")[:1], int(w.split(".")[1])) for w in WORDS]
    np.testing.assert_array_equal(found.reading_time_ms[:, 0], wanted)
    np.testing.assert_array_equal(found.num_participants, [30 + int(w[2:]) for w in WORDS])
    assert found.word_in_sentence == POSITIONS
    assert found.alignment == "published"


def test_corrected_means_belong_to_the_next_word(root):
    """The first word of a story has no time, and nothing crosses into the next story."""
    found, before = read(root, "corrected"), read(root, "published")
    assert found.stimulus_id == WORDS and found.word_in_sentence == POSITIONS
    assert found.alignment == "corrected"
    first = [w.endswith(".1") for w in WORDS]
    np.testing.assert_array_equal(np.isnan(mean_ms(found)), first)
    np.testing.assert_array_equal(found.num_participants == 0, first)
    rest = ~np.array(first)
    np.testing.assert_array_equal(mean_ms(found)[rest], mean_ms(before)[np.roll(rest, -1)])
    assert mean_ms(found)[1] == published.mean_time("1", 1)
    assert mean_ms(found)[WORDS.index("2.2")] == published.mean_time("2", 1)


def test_a_word_that_was_never_timed_leaves_the_next_without_one(root):
    edit(root, adapter.MEANS, "peaked\t2\t2\t32\t1102.0\t1.5\t100.5\t1.25\n", "")
    assert "2.2" not in read(root, "published").stimulus_id
    found = read(root, "corrected")
    assert "2.2" not in found.stimulus_id
    assert np.isnan(mean_ms(found)[found.stimulus_id.index("2.3")])
    assert mean_ms(found)[found.stimulus_id.index("2.4")] == published.mean_time("2", 3)


def test_participants_have_their_words(root):
    found = read(root, "participants")
    assert found.stimulus_id == [w for w in WORDS if w.startswith("2.")]
    assert found.participant == ["p000", "p001"]
    np.testing.assert_array_equal(found.reading_time_ms[:, 0], 201 + np.arange(7))
    wanted = 301.0 + np.arange(7)
    wanted[2] = np.nan
    np.testing.assert_array_equal(found.reading_time_ms[:, 1], wanted)
    assert found.alignment == "corrected"
    assert len(found.num_participants) == 0


def test_surprisal_of_gpt3_is_joined_by_id(root):
    # Tokens of story 1: If, you, were, to, go, ",", go, ".", ... with 0, 1, 2, ... bits.
    bits = dict(zip(WORDS, adapter.gpt3_surprisal_bits(root, WORDS), strict=True))
    assert np.isnan(bits["1.1"]) and np.isnan(bits["2.1"])
    np.testing.assert_allclose([bits["1.2"], bits["1.4"], bits["1.5"]], [1, 3, 4 + 5])
    np.testing.assert_allclose(bits["1.6"], 6 + 7)
    assert np.isnan(bits["2.2"])  # it was given "peeked"
    np.testing.assert_allclose([bits["2.3"], bits["2.4"]], [2, 3 + 4])
    some = adapter.gpt3_surprisal_bits(root, ["2.3", "1.2"])
    np.testing.assert_allclose(some, [2, 1])


def test_a_token_across_two_words_makes_both_undefined():
    tokens = ["a", " b c", " d", " ", "e", "'s"]
    sums = adapter._per_word(tokens, np.array([1.0, 2, 4, 8, 16, 32]))
    np.testing.assert_array_equal(sums, [1, np.nan, np.nan, 4, 8 + 16 + 32])
    np.testing.assert_array_equal(adapter._per_word(["a b"], np.array([1.0])), [np.nan] * 2)
    np.testing.assert_array_equal(adapter._per_word(["a", "b c"], np.ones(2)), [np.nan] * 2)


@pytest.mark.parametrize(
    "name", [x for x in datasets.DATASETS if datasets.DATASETS[x][0].endswith(":NaturalStories")]
)
def test_rows_of_the_table_want_the_published_file(root, name):
    with refused("words must be", "as in the published Natural Stories", "another one"):
        _ = datasets.find(name, root).behavior


def test_it_has_no_responses(root):
    with refused("naturalstories has no responses: it has stimuli and behavior"):
        _ = datasets.find("naturalstories", root).responses


@pytest.mark.parametrize("name", [adapter.FILE, adapter.MEANS, adapter.PARSES])
def test_a_missing_file_is_named(root, name):
    (root / name).unlink()
    with refused(root / name, "missing"):
        adapter.NaturalStories(root=root, times="published").files()
    with refused(root / name, "missing"):
        read(root, "corrected")


def test_missing_participants_and_gpt3_are_named(root):
    for name in (adapter.PARTICIPANTS, adapter.GPT3):
        (root / name).unlink()
    with refused(root / adapter.PARTICIPANTS, "missing"):
        read(root, "participants")
    with refused(root / adapter.GPT3, "no such file"):
        adapter.gpt3_surprisal_bits(root, WORDS)


@pytest.mark.parametrize(
    "name,times,old,new,parts",
    [
        (adapter.FILE, "published", "zone\titem", "zone\tstory", ["must have column 'item'"]),
        (adapter.FILE, "published", "go,\t5\t1", "go,\t5", ["row 5 must have 3 cells", "2"]),
        (adapter.FILE, "published", "go,\t5\t1", "go,\tV\t1", ["must be whole", "'V'", "'go,'"]),
        (adapter.FILE, "published", "go,\t5\t1", "go,\t4\t1", ["stimulus_id must be unique"]),
        (adapter.MEANS, "published", "meanItemRT", "mean", ["must have column 'meanItemRT'"]),
        (adapter.MEANS, "published", "\t1102.0\t", "\tfast\t", ["meanItemRT must hold numbers"]),
        (adapter.MEANS, "published", "\t32\t", "\t32.5\t", ["nItem must hold counts"]),
        (adapter.MEANS, "published", "\t1102.0\t", "\t-1\t", ["must be positive", "'2.2'"]),
        (adapter.MEANS, "published", "\t1102.0\t1.5", "", ["row 11 must have 8 cells", "6"]),
        (adapter.MEANS, "published", "peaked\t2\t2", "peaked\t3\t2", ["item.zone 2.3 is there"]),
        (
            adapter.MEANS,
            "published",
            "peaked\t2",
            "peeked\t2",
            ["2.2 must be 'peaked'", "'peeked'"],
        ),
        (adapter.MEANS, "corrected", "peaked\t2\t2", "peaked\t2\t3", ["item.zone 3.2 must be in"]),
        (adapter.PARSES, "published", "TokenId=2.2\n", "\n", ["line", "must have a TokenId"]),
        (adapter.PARSES, "published", "TokenId=2.2\n", "TokenId=2.3\n", ["TokenId 2.2 is missing"]),
        (
            adapter.PARTICIPANTS,
            "participants",
            "p001",
            "p000",
            ["a column once, found 'p000' twice"],
        ),
        (adapter.PARTICIPANTS, "participants", "202", "x", ["p000 must hold numbers", "'x'"]),
        (adapter.PARTICIPANTS, "participants", ",202,302", ",202", ["row 2 must have 5 cells"]),
    ],
)
def test_a_spoiled_file_is_refused(root, name, times, old, new, parts):
    path = edit(root, name, old, new)
    with refused(path, *parts):
        read(root, times)


@pytest.mark.parametrize("name", [adapter.FILE, adapter.PARSES, adapter.MEANS])
def test_a_file_that_is_no_text_is_refused(root, name):
    (root / name).write_bytes(bytes(range(256)))
    with refused(root / name):
        read(root, "published")


def test_frequencies_that_are_no_text_or_cut_off_are_refused(root):
    path = root / natural_stories_words.FILE
    path.parent.mkdir()
    path.write_bytes(bytes(range(256)))
    with refused(path, "must be text in UTF-8"):
        natural_stories_words.log_frequency(root, WORDS)
    path.write_text("1.1.word\t1\tIf\t3\t")
    assert natural_stories_words.log_frequency(root, ["1.1"]) == np.log(4)
    path.write_text("1.1.word\t1\tIf\t3\t4\n1.2.word\t1\tyo")
    with refused(path, "lines must have 5 cells, found 3"):
        natural_stories_words.log_frequency(root, WORDS)
    path.write_text("1.1.word\t1\tIf\t3\t4\n")
    with refused(path, "found none for 1.2"):
        natural_stories_words.log_frequency(root, WORDS)
    path.write_text("1.1.word\t1\tIf\tmany\t4\n")
    with refused(path, "count of 1.1.word must be a whole number, found 'many'"):
        natural_stories_words.log_frequency(root, WORDS)


@pytest.mark.parametrize(
    "old,new,parts",
    [
        ("logprob", "p", ["must have column 'logprob'"]),
        (" you,", " you all,", ["offset of token 2 of story 0 must be 10", "found 6"]),
        (" you,", " y u,", ["story 0 must have the 9 words of story 1", "found 10"]),
        (",0\r\n", ",first\r\n", ["story must be a number from 0, found 'first'"]),
        ("-0.693", "x-0.693", ["logprob must hold numbers"]),
    ],
)
def test_spoiled_log_probabilities_are_refused(root, old, new, parts):
    path = root / adapter.GPT3
    content = path.read_bytes().decode()
    assert old in content
    path.write_bytes(content.replace(old, new, 1).encode())
    with refused(path, *parts):
        adapter.gpt3_surprisal_bits(root, WORDS)


def test_surprisal_of_an_unknown_word_is_refused(root):
    with refused("stimulus_id must be that of a word of", "'1.0'"):
        adapter.gpt3_surprisal_bits(root, ["1.1", "1.0"])


def correlation(x, y):
    known = np.isfinite(x) & np.isfinite(y)
    return np.corrcoef(x[known], y[known])[0, 1], known.sum()


@pytest.fixture(scope="module")
def real(data_root):
    if not (data_root / adapter.FILE).is_file():
        pytest.skip(f"{data_root / adapter.FILE} is not there")
    return data_root


@pytest.mark.slow
def test_the_corpus_is_whole(real):
    """Counts and sums are held against the published ones; 485 sentences, as its authors say."""
    found = datasets.find("naturalstories", real)
    assert len(found.stimuli) == len(found.behavior) == 10256
    assert sum(x == 1 for x in found.behavior.word_in_sentence) == 485
    assert found.groups["10.939"] == "10"
    participants = datasets.find("naturalstories-participants", real).behavior
    assert participants.reading_time_ms.shape == (5055, 88)


@pytest.mark.slow
def test_correcting_the_means_gives_the_corrected_copy(real):
    """That copy was made apart, by moving the published rows."""
    path = real / adapter.FOLDER / "processed_wordinfo_shifted2025.tsv"
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    wanted = {f"{x['item']}.{x['zone']}": float(x["meanItemRT"] or "nan") for x in rows}
    found = datasets.find("naturalstories-corrected", real).behavior
    np.testing.assert_array_equal(mean_ms(found), [wanted[x] for x in found.stimulus_id])


@pytest.mark.slow
def test_participants_agree_with_the_corrected_means(real):
    """They were aligned from raw times by themselves, and are part of the means."""
    own = datasets.find("naturalstories-participants", real).behavior
    r = {}
    for name in ("naturalstories", "naturalstories-corrected"):
        other = datasets.find(name, real).behavior
        mean = dict(zip(other.stimulus_id, mean_ms(other), strict=True))
        r[name], _ = correlation(mean_ms(own), np.array([mean[x] for x in own.stimulus_id]))
    assert r["naturalstories-corrected"] > 0.8
    assert r["naturalstories"] < 0.6


@pytest.mark.slow
def test_participants_are_made_of_the_raw_times(real):
    """As docs/datasets/naturalstories.md says: a word's time lies in the raw row behind it."""
    path = real / adapter.FOLDER / "naturalstories_RTS" / "batch2_raw.txt"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    raw = pd.read_csv(path)
    raw = raw[(raw.correct > 4) & (raw.RT > 100) & (raw.RT < 3000)]
    raw = raw.assign(code=raw.item.astype(str) + "." + (raw.zone - 1).astype(str))
    times = raw.pivot(index="code", columns="WorkerId", values="RT")
    found = datasets.find("naturalstories-participants", real).behavior
    np.testing.assert_array_equal(times.loc[found.stimulus_id], found.reading_time_ms)


@pytest.mark.slow
def test_gpt3_against_the_published_means(real):
    """Known from a computation apart: r = .206 on words that do not begin a sentence."""
    found = datasets.find("naturalstories", real).behavior
    bits = adapter.gpt3_surprisal_bits(real, found.stimulus_id)
    undefined = [x for x, b in zip(found.stimulus_id, bits, strict=True) if np.isnan(b)]
    assert undefined == sorted(
        [*(f"{i}.1" for i in range(1, 11)), "2.749"],
        key=lambda x: (int(x.split(".")[0]), int(x.split(".")[1])),
    )
    later = np.array(found.word_in_sentence) > 1
    r, count = correlation(bits[later], mean_ms(found)[later])
    assert count == 9770
    assert r == pytest.approx(0.206, abs=0.002)
