"""Frequency, surprisal and other numbers in a table of one's own stimuli."""

import numpy as np
import pytest
from recordings import write_table
from refusals import refused

from jaxalign.data import word_columns
from jaxalign.data.sets import plain
from jaxalign.data.words import WordFacts

KNOWN = ("stimulus_id", "text", "passage")


@pytest.fixture
def read(tmp_path):
    def call(**columns):
        rows = [[f"w{i}", "dog", "p", *(x[i] for x in columns.values())] for i in range(3)]
        write_table(tmp_path / "stimuli.csv", [*KNOWN, *columns], rows)
        return word_columns.read(tmp_path / "stimuli.csv", KNOWN)

    return call


def test_every_kind_of_column(read):
    facts = read(
        frequency_per_million=[10, "n/a", 1],
        surprisal_bits_gpt3=["", 3.5, 0],
        age_of_acquisition_years=[4, 5.5, ""],
        remark=["fine", "5", ""],
    )
    assert list(facts.stimulus_id) == ["w0", "w1", "w2"]
    np.testing.assert_allclose(facts.log_frequency, [np.log(10_000), np.nan, np.log(1000)])
    assert list(facts.surprisal_bits) == ["gpt3"]
    np.testing.assert_array_equal(facts.surprisal_bits["gpt3"], [np.nan, 3.5, 0])
    assert list(facts.columns) == ["age_of_acquisition_years"]
    np.testing.assert_array_equal(facts.columns["age_of_acquisition_years"], [4, 5.5, np.nan])
    # 10 in a million are 10^4 in 10^9.
    zipf = read(zipf=[4, "", 3]).log_frequency
    np.testing.assert_allclose(zipf, facts.log_frequency)
    assert (
        len({facts.hash, read().hash, read(years=[1, 2, 3]).hash, read(zipf=[1, 2, 3]).hash}) == 4
    )
    assert read().hash == WordFacts(stimulus_id=["w0", "w1", "w2"]).hash


def test_columns_of_spaces_are_no_facts(tmp_path):
    rows = [[f"w{i}", "dog", "p", i % 2, 4 * i, 4 * i + 3] for i in range(3)]
    header = [*KNOWN, "space_before", "start_char", "end_char"]
    write_table(tmp_path / "stimuli.csv", header, rows)
    (tmp_path / "behavior.csv").touch()
    assert not plain.Tables(root=tmp_path).word_facts().columns


@pytest.mark.parametrize(
    "columns,message",
    [
        ({"surprisal": [1, 2, 3]}, "'surprisal' must say its unit and whose surprisal it is"),
        ({"surprisal_nats_x": [1, 2, 3]}, "'surprisal_nats_x' must say its unit"),
        ({"surprisal_bits_x": [1, -2, 3]}, "surprisal_bits_x must be finite and >= 0, "),
        ({"surprisal_bits_x": [1, "b", 3]}, "surprisal_bits_x must hold numbers"),
        ({"years": [1, "inf", 3]}, "years must be finite, and empty where it is not known"),
        ({"frequency_per_million": [1, 0, 3]}, "must be positive, and empty"),
        ({"frequency_per_million": [1, 1, 3], "zipf": [1, 2, 3]}, "one column of frequencies"),
    ],
)
def test_refusals(read, columns, message):
    with refused("stimuli.csv", message):
        read(**columns)
