"""One's own responses as a Parquet table, long or wide, and one's own reading times."""

import numpy as np
import pandas as pd
import pytest
from refusals import refused

from jaxalign.data import datasets

SENTENCES = "stimulus_id,text,passage\na,The girl ran.,p1\nb,Why?,p1\nc,No one knew.,p2\n"
READINGS = (
    "stimulus_id,participant,reading_time_ms,word_in_sentence\n"
    "b,p2,310,2\na,p2,250.5,1\na,p1,300,1\n"
)
TARGETS = [("s1", "LATL", "mean"), ("s1", "LIFG", "mean"), ("s2", "LATL", "mean")]
VALUES = np.random.default_rng(0).normal(size=(3, 3))


@pytest.fixture
def write(make_folder):
    """Write a data set with a table of responses, or with readings, or with both."""

    def make(table=None, readings=None):
        folder = make_folder(SENTENCES)
        (folder / "responses.npz").unlink()
        if table is not None:
            table.to_parquet(folder / "responses.parquet", index=False)
        if readings is not None:
            (folder / "behavior.csv").write_text(readings)
        return folder

    return make


def wide(**changes):
    columns = {"stimulus_id": ["c", "a", "b"], "units": ["z"] * 3}
    columns |= {"/".join(x): VALUES[:, i] for i, x in enumerate(TARGETS)}
    return pd.DataFrame(columns | changes)


def long(**changes):
    rows = [
        (name, *target, VALUES[i, j], "z")
        for i, name in enumerate(["c", "a", "b"])
        for j, target in enumerate(TARGETS)
    ]
    names = ["stimulus_id", "subject", "roi", "target", "value", "units"]
    return pd.DataFrame(rows, columns=names).assign(**changes)


def timed(**changes):
    columns = {"time_s": [0.0, 1.5, 3.0], "tr_s": [1.5] * 3, "run": ["r"] * 3}
    return wide().drop(columns="stimulus_id").assign(**columns | changes)


def read(folder):
    return datasets.find(str(folder), None)


@pytest.mark.parametrize("table", [wide(), long()], ids=["wide", "long"])
def test_both_layouts_say_the_same(write, table):
    found = read(write(table)).responses
    np.testing.assert_array_equal(found.values, VALUES)
    assert found.stimulus_id == ["c", "a", "b"]
    assert list(zip(found.subject, found.roi, found.target, strict=True)) == TARGETS
    assert found.units == "z"
    assert len(set(found.run)) == 1


def test_rows_of_a_long_table_may_come_in_any_order(write):
    table = long().sample(frac=1, random_state=1)
    found = read(write(table)).responses
    column = {x: i for i, x in enumerate(TARGETS)}
    order = [column[x] for x in zip(found.subject, found.roi, found.target, strict=True)]
    rows = ["cab".index(x) for x in found.stimulus_id]
    np.testing.assert_array_equal(found.values, VALUES[np.ix_(rows, order)])


def test_numbers_may_name_stimuli_and_subjects(write):
    table = long(subject=[int(x[1]) for x in long()["subject"]])
    assert read(write(table)).responses.subject == ["1", "1", "2"]


def test_a_timed_table(write):
    found = read(write(timed())).responses
    assert found.is_timed and found.tr_s == 1.5
    np.testing.assert_array_equal(found.time_s, [0, 1.5, 3])
    assert found.run == ["r"] * 3
    np.testing.assert_array_equal(found.values, VALUES)


@pytest.mark.parametrize(
    "table,parts",
    [
        (wide(time_s=0.0), ["'stimulus_id' or 'time_s', and not both"]),
        (wide().drop(columns="stimulus_id"), ["'stimulus_id' or 'time_s'"]),
        (wide().drop(columns="units"), ["must have column 'units'"]),
        (wide(units=["z", "z", "%"]), ["units must be the same", "['z', '%']"]),
        (wide(units=None), ["units must be the same in all rows"]),
        (wide(s3=1.0), ["columns that are called subject/roi/target", "['s3']"]),
        (wide().iloc[:, :2], ["columns that are called subject/roi/target"]),
        (wide(**{"s1/LATL/mean": ["x", "y", "z"]}), ["s1/LATL/mean must hold numbers"]),
        (wide(**{"s1/LATL/mean": [1.0, np.nan, 2.0]}), ["must be finite", "sample 1 of", "'s1'"]),
        (wide(stimulus_id=["a", None, "b"]), ["stimulus_id must not be missing", "row 2"]),
        (long().drop(columns="roi"), ["must have column 'roi'"]),
        (long().iloc[:-1], ["s2/LATL/mean has none for sample 2"]),
        (pd.concat([long(), long().iloc[:1]]), ["row 10 repeats a sample and a column"]),
        (long(value="x"), ["value must hold numbers"]),
        (long(subject=None), ["subject must not be missing, but is in row 1"]),
        (timed().drop(columns="tr_s"), ["must have column 'tr_s'"]),
        (timed(time_s=["a", "b", "c"]), ["time_s must hold numbers"]),
        (timed(time_s=[0.0, 1.0, 2.0]), ["time_s must advance by tr_s"]),
    ],
)
def test_a_spoiled_table_is_refused(write, table, parts):
    folder = write(table)
    with refused(folder / "responses.parquet", *parts):
        _ = read(folder).responses


def test_copies_of_a_subject_are_refused(write):
    folder = write(wide(**{"s2/LATL/mean": VALUES[:, 0]}).drop(columns="s1/LIFG/mean"))
    with refused("responses.parquet", "those of 's1' and 's2' are identical"):
        _ = read(folder).responses


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.95])
def test_a_truncated_table_is_refused(write, kept):
    folder = write(wide())
    path = folder / "responses.parquet"
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with refused(path, "must be a whole Parquet file"):
        _ = read(folder).responses


def test_two_files_of_responses_are_refused(make_folder):
    folder = make_folder(SENTENCES)
    wide().to_parquet(folder / "responses.parquet")
    with refused("must hold one file of responses, found responses.npz and responses.parquet"):
        _ = read(folder).responses


def test_reading_times(write):
    found = read(write(readings=READINGS)).behavior
    assert found.stimulus_id == ["b", "a"]
    assert found.participant == ["p2", "p1"]
    np.testing.assert_array_equal(found.reading_time_ms, [[310, np.nan], [250.5, 300]])
    assert found.word_in_sentence == [2, 1]


def test_what_is_not_there_is_named(write, make_folder):
    folder = write(readings=READINGS)
    with refused("has no responses: it has stimuli.csv and behavior.csv"):
        _ = read(folder).responses
    assert len(read(folder).hash) == 16
    (folder / "behavior.csv").unlink()
    with refused("must hold responses.npz, responses.parquet, responses.csv or behavior.csv"):
        _ = read(folder).behavior
    with refused("has no behavior: it lacks behavior.csv"):
        _ = read(make_folder(SENTENCES)).behavior


@pytest.mark.parametrize(
    "old,new,parts",
    [
        ("participant", "reader", ["behavior.csv must have column 'participant'"]),
        ("310", "slow", ["behavior.csv: reading_time_ms must hold numbers", "'slow'"]),
        ("310", "", ["behavior.csv: reading_time_ms must hold numbers", "''"]),
        ("310", "-1", ["behavior.csv: behavior: reading_time_ms must be positive", "-1.0 for 'b'"]),
        ("310,2", "310,1.5", ["word_in_sentence must be the same whole number"]),
        ("250.5,1", "250.5,2", ["word_in_sentence must be the same whole number"]),
        ("310,2", "310,", ["word_in_sentence must hold numbers"]),
        ("310,2", "310,nan", ["word_in_sentence must be the same whole number"]),
        ("a,p1", "a,p2", ["behavior.csv: row 3 repeats"]),
        ("a,p1", "a,mean", ["participant 'mean' is the mean over participants"]),
        ("b,p2", "d,p2", ["data set mine: behavior must belong to the stimuli", "'d' is none"]),
        ("b,p2,310,2", "b,p2,310", ["row 1 must have 4 cells"]),
    ],
)
def test_spoiled_readings_are_refused(write, old, new, parts):
    assert old in READINGS
    folder = write(readings=READINGS.replace(old, new, 1))
    with refused(*parts):
        _ = read(folder).behavior


def test_no_readings_are_refused(write):
    folder = write(readings=READINGS.splitlines()[0] + "\n")
    with refused("behavior.csv: behavior: reading_time_ms must not be empty"):
        _ = read(folder).behavior


@pytest.mark.parametrize("table", [wide(), long(), timed()], ids=["wide", "long", "timed"])
def test_a_csv_is_read_as_the_parquet_table(write, table):
    folder = write(table)
    expected, is_timed = read(folder).responses, read(folder).adapter.is_timed
    (folder / "responses.parquet").unlink()
    table.to_csv(folder / "responses.csv", index=False)
    assert read(folder).responses.hash == expected.hash
    assert read(folder).adapter.is_timed == is_timed == (len(expected.time_s) > 0)


@pytest.mark.parametrize(
    "table,separator,parts",
    [
        (wide(**{"s1/LATL/mean": ["1", "x", "2"]}), ",", ["s1/LATL/mean must hold numbers"]),
        (wide(**{"s1/LATL/mean": ["1", "n/a", "2"]}), ",", ["must be finite", "sample 1 of"]),
        (long(subject=""), ",", ["subject must not be missing, but is in row 1"]),
        (wide(), ";", ["must have column 'units'", "separated by commas, found semicolons"]),
    ],
)
def test_a_spoiled_csv_is_refused(write, table, separator, parts):
    folder = write(table)
    (folder / "responses.parquet").unlink()
    table.to_csv(folder / "responses.csv", index=False, sep=separator)
    with refused(folder / "responses.csv", *parts):
        _ = read(folder).responses


def test_files_of_other_names_and_formats_are_named(write):
    folder = write(wide())
    (folder / "responses.parquet").rename(folder / "responses.xlsx")
    with refused("responses.csv or behavior.csv: there is no such file; it holds responses.xlsx, "):
        _ = read(folder).responses
    (folder / "stimuli.csv").rename(folder / "sentences.csv")
    with refused("must hold stimuli.csv", "it holds responses.xlsx, sentences.csv."):
        _ = read(folder).stimuli


def test_a_decimal_comma_is_named(write):
    folder = write(wide())
    (folder / "responses.parquet").unlink()
    table = wide(**{"s1/LATL/mean": ["0,5", "-1,25", "2"]})
    table.to_csv(folder / "responses.csv", index=False)
    with refused("s1/LATL/mean must hold numbers", "'0,5'; decimals follow a point."):
        _ = read(folder).responses
