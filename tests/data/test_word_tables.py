"""Frequency tables and word vectors: values by hand, formats, and what is refused."""

import math

import numpy as np
import pytest
from refusals import refused

from jaxalign.data import word_tables
from jaxalign.data.schema import Stimuli


def parts(*text):
    names = [str(i) for i in range(len(text))]
    return Stimuli(stimulus_id=names, text=text, passage=names, run=names, unit="sentence")


@pytest.fixture
def write(tmp_path):
    """Write a file; its path."""

    def make(name, content):
        path = tmp_path / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text(content, encoding="utf-8")
        return path

    return make


def test_words_lose_punctuation_at_their_ends():
    found = word_tables.words("\u201cDon't!\u201d -- said the mock-turtle (1865), \u00e9t\u00e9...")
    assert found == ["Don't", "said", "the", "mock-turtle", "1865", "\u00e9t\u00e9"]
    assert word_tables.words("-- ...") == []


# Frequencies


COUNTS = "Word,count\nthe,97\nThe,2\ncat,0\nsat,6\n"


def zipf(count, total=97 + 2 + 6, types=3):
    """Van Heuven et al.: per million words, of counts with one added, and three more."""
    return math.log10((count + 1) / ((total + types) / 1e6)) + 3


@pytest.mark.parametrize(
    "content",
    [COUNTS, COUNTS.replace(",", "\t"), "\ufeff" + COUNTS, COUNTS.replace("\n", "\r\n")],
    ids=["commas", "tabs", "mark", "carriage returns"],
)
def test_counts_become_zipf_values(write, content):
    stimuli = parts("The cat.", "Sat?", "A wug sat", "...")
    table = word_tables.read_frequencies(write("freq.csv", content), stimuli)
    found = word_tables.mean(table, stimuli)
    expected = [
        (zipf(99) + zipf(0)) / 2,
        zipf(6),
        # A word that is not listed has been seen no time.
        (zipf(0) + zipf(0) + zipf(6)) / 3,
        0.0,
    ]
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-12)
    assert word_tables.unknown(table, stimuli) == (["A", "wug"], 6)


def test_zipf_values_are_taken_before_counts_and_cases_added(write):
    content = "Word\tFREQcount\tZipf-value\nthe\t5\t7.0\nThe\t1\t6.0\ncat\t2\t4.5\n"
    stimuli = parts("the", "cat", "wug")
    table = word_tables.read_frequencies(write("subtlex.txt", content), stimuli)
    found = word_tables.mean(table, stimuli)[:, 0]
    np.testing.assert_allclose(found, [math.log10(1.1e7), 4.5, 4.5], rtol=1e-12)


def test_a_quotation_mark_among_tabs_is_a_word(write):
    path = write("freq.tsv", 'word\tcount\n"\t400\ncat\t3\n')
    table = word_tables.read_frequencies(path, parts("cat"))
    assert table.values["cat"][0] == pytest.approx(math.log10(4 / 405) + 9)


@pytest.mark.parametrize(
    "content,message",
    [
        ("", ["must begin with a header"]),
        ("word,count\n", ["must list at least one word"]),
        ("token,count\nthe,1\n", ["must have a column word, found ['token', 'count']"]),
        ("word,rank\nthe,1\n", ["must have a column zipf or zipf-value or count or freqcount"]),
        ("word,count,Count\nthe,1,1\n", ["must have one column 'count', found 2"]),
        ("word,count\nthe,many\n", ["count must hold numbers that are not negative", "'many'"]),
        ("word,count\nthe,-1\n", ["not negative, found '-1' in line 2 ('the')"]),
        ("word,count\nthe,inf\n", ["found 'inf'"]),
        ("word,zipf\nthe,nan\n", ["zipf must hold finite numbers, found 'nan' in line 2"]),
        ("word,count\nthe,1\ncat\n", ["2 cells in each row, found 1 in line 3"]),
        ("word,count\nthe,1\ncat,2\nthe,3\n", ["each word once, found 'the' again in line 4"]),
        ("word,count\ndog,1\n", ["must list words of the stimuli, but lists none"]),
        (b"word,count\nth\xff,1\n", ["must be a table in UTF-8"]),
    ],
)
def test_frequency_tables_that_are_refused(write, content, message):
    path = write("freq.csv", content)
    with refused(path, *message):
        word_tables.read_frequencies(path, parts("the cat"))


def test_a_frequency_table_that_is_not_there(tmp_path):
    with refused(tmp_path / "none.csv", "must be a table in UTF-8", "No such file"):
        word_tables.read_frequencies(tmp_path / "none.csv", parts("the"))


# Vectors


VECTORS = {"the": [1.0, 2.0, 3.0], "Cat": [0.5, -1.0, 4.0], "cat": [9.0, 9.0, 9.0]}
LINES = "".join(f"{word} {' '.join(map(str, x))}\n" for word, x in VECTORS.items())


def write_npy(folder, dtype=np.float64):
    np.save(folder / "vectors.npy", np.array(list(VECTORS.values()), dtype))
    (folder / "vectors.vocab").write_text("\n".join(VECTORS) + "\n")
    return folder / "vectors.npy"


def write_text(name, content):
    def make(folder):
        (folder / name).write_text(content)
        return folder / name

    return make


FORMATS = {
    "glove": write_text("glove.txt", LINES),
    "word2vec": write_text("vectors.vec", f"{len(VECTORS)} 3\n{LINES}"),
    # The program of word2vec ends lines with a space; GloVe's files hold words with spaces.
    "trailing space": write_text("vectors.txt", LINES.replace("\n", " \n")),
    "phrases": write_text("glove.txt", LINES + ". . . 1 2 3\n"),
    "carriage returns": write_text("glove.txt", LINES.replace("\n", "\r\n")),
    "unicode line": write_text("glove.txt", LINES + "\x85 1 2 3\n\u2028 1 2 3\n"),
    "npy": write_npy,
    "half": lambda folder: write_npy(folder, np.float16),
}


@pytest.mark.parametrize("name", FORMATS)
def test_vectors_of_every_format(tmp_path, name):
    stimuli = parts("The Cat", "cat wug.", "wug", "CAT!", "--")
    table = word_tables.read_vectors(FORMATS[name](tmp_path), stimuli)
    found = word_tables.mean(table, stimuli)
    the, capital, cat = map(np.array, VECTORS.values())
    np.testing.assert_array_equal(found, [(the + capital) / 2, cat, 0 * cat, cat, 0 * cat])
    assert word_tables.unknown(table, stimuli) == (["wug", "wug"], 6)


def test_words_that_are_not_needed_may_be_listed_twice(write):
    table = word_tables.read_vectors(write("glove.txt", "x 1 2\nthe 3 4\nx 5 6\n"), parts("the"))
    assert table.values["the"].tolist() == [3.0, 4.0]
    assert list(table.values) == ["the"]


@pytest.mark.parametrize(
    "content,message",
    [
        ("", ["must begin with a word and its numbers, found ''"]),
        ("the 1 2\ncat 1\n", ["a word and 2 numbers in each line", "1 after the first in line 2"]),
        ("2 2\nthe 1 2\ncat 1\n", ["2 numbers in each line", "found 1 after the first in line 3"]),
        ("the 1 2\ncat 1 2 3\n", ["2 numbers in each line", "3 after the first in line 2"]),
        ("the 1 2\n\ncat 1 2\n", ["0 after the first in line 2"]),
        ("3 2\nthe 1 2\ncat 1 2\n", ["must hold 3 words, as it says, found 2"]),
        ("1 2\nthe 1 2\ncat 1 2\n", ["must hold 1 words, as it says, found 2"]),
        ("the 1 2\ncat 1 2\nthe 3 4\n", ["each word once, found 'the' again in line 3"]),
        ("the 1 x\ncat 1 2\n", ["numbers after the word: line 1"]),
        ("the 1 nan\n", ["vectors must be finite, but that of 'the' is not"]),
        ("dog 1 2\n", ["must list words of the stimuli, but lists none of them"]),
        (b"the 1 2\nc\xff 1 2\n", ["must be word vectors as text in UTF-8"]),
    ],
)
def test_vectors_that_are_refused(write, content, message):
    path = write("glove.txt", content)
    with refused(path, *message):
        word_tables.read_vectors(path, parts("the cat"))


def test_truncation_anywhere_is_noticed(write):
    """Cut at any byte of the last line, but for its last digits, which nobody can miss."""
    whole = "2 3\nthe 1.5 2.5 3.5\ncat 4.5 5.5 6.5"
    for size in range(4, whole.rindex(" ") + 1):
        path = write("vectors.vec", whole[:size])
        with refused(path, "must"):
            word_tables.read_vectors(path, parts("the cat"))


def test_arrays_that_are_refused(tmp_path):
    path, stimuli = write_npy(tmp_path), parts("the cat")
    vocabulary = path.with_suffix(".vocab")

    vocabulary.write_text("the\ncat\n")
    with refused(vocabulary, "a word for each row of vectors.npy (3), found 2"):
        word_tables.read_vectors(path, stimuli)
    vocabulary.write_text("the\ncat\nthe\n")
    with refused(path, "each word once, found 'the' again in line 3"):
        word_tables.read_vectors(path, stimuli)
    vocabulary.unlink()
    with refused(vocabulary, "must list the words of vectors.npy", "No such file"):
        word_tables.read_vectors(path, stimuli)
    write_npy(tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[:-20])
    with refused(path, "must be an .npy array of numbers"):
        word_tables.read_vectors(path, stimuli)
    np.save(path, np.arange(3.0))
    with refused(path, "a row for each word, found float64 of shape (3,)"):
        word_tables.read_vectors(path, stimuli)
    np.save(path, np.array([["a", "b"]] * 3, object), allow_pickle=True)
    with refused(path, "must be an .npy array of numbers"):
        word_tables.read_vectors(path, stimuli)
    path.unlink()
    with refused(path, "must be an .npy array of numbers", "No such file"):
        word_tables.read_vectors(path, stimuli)


def test_the_words_of_an_array_are_a_file_of_the_table(tmp_path):
    path = tmp_path / "vectors.npy"
    assert word_tables.files(path) == [path, tmp_path / "vectors.vocab"]
    assert word_tables.files(tmp_path / "glove.txt") == [tmp_path / "glove.txt"]


def test_the_scale_is_that_of_occurrences_in_a_billion_words(write):
    """A word that is one in a thousand has 6."""
    content = "word,count\nthe,999\n" + "".join(f"w{i},99900\n" for i in range(10))
    table = word_tables.read_frequencies(write("freq.csv", content), parts("the"))
    assert table.values["the"][0] == pytest.approx(6, abs=1e-3)
