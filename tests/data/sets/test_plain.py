"""A directory of one's own, written by the test, found and read like any data set."""

import numpy as np
import pytest
from refusals import refused

from jaxalign.data import datasets
from jaxalign.data.schema import Responses

SENTENCES = "stimulus_id,text,passage\na,The girl ran.,p1\nb,Why?,p1\nc,No one knew.,p2\n"
WORDS = (
    "stimulus_id,text,passage,run,onset_s,offset_s\n"
    "a,The,p1,r1,0.5,0.75\nb,girl,p1,r1,0.75,1.25\nc,ran,p1,r1,2,2.5\n"
)


def read(folder):
    return datasets.find(str(folder), None)


def test_untimed_sentences_and_their_responses(make_folder, rng):
    responses = Responses(
        values=rng.normal(size=(3, 2)),
        run=["r"] * 3,
        subject=["s1", "s2"],
        roi=["LATL"] * 2,
        target=["mean"] * 2,
        units="z",
        stimulus_id=["c", "a", "b"],
    )
    found = read(make_folder(SENTENCES, responses))
    stimuli = found.stimuli
    assert found.name == "mine"
    assert stimuli.stimulus_id == ["a", "b", "c"]
    assert stimuli.text == ["The girl ran.", "Why?", "No one knew."]
    assert stimuli.passage == ["p1", "p1", "p2"]
    # Without a column of its own and without times, there is one run.
    assert len(set(stimuli.run)) == 1
    assert stimuli.unit == "sentence"
    assert not stimuli.is_timed
    np.testing.assert_array_equal(found.responses.values, responses.values)
    assert found.responses.stimulus_id == ["c", "a", "b"]


def test_timed_words_and_their_responses(make_folder, rng):
    responses = Responses(
        values=rng.normal(size=(5, 1)),
        run=["r1"] * 5,
        subject=["s1"],
        roi=["LIFG"],
        target=["mean"],
        units="z",
        time_s=np.arange(5) * 1.5,
        tr_s=1.5,
    )
    found = read(make_folder(WORDS, responses))
    stimuli = found.stimuli
    assert stimuli.unit == "word"
    assert stimuli.run == ["r1"] * 3
    np.testing.assert_array_equal(stimuli.onset_s, [0.5, 0.75, 2.0])
    np.testing.assert_array_equal(stimuli.offset_s, [0.75, 1.25, 2.5])
    assert found.responses.is_timed
    np.testing.assert_array_equal(found.responses.time_s, [0.0, 1.5, 3.0, 4.5, 6.0])


def test_the_clock_of_timed_words_is_their_passages_or_their_runs(make_folder):
    csv = "stimulus_id,text,passage,onset_s,offset_s\na,The,p1,5,6\nb,girl,p2,0.5,1\n"
    assert read(make_folder(csv)).stimuli.run == ["p1", "p2"]
    csv = csv.replace("passage", "passage,run").replace("p1,", "p1,r1,").replace("p2,", "p2,r2,")
    assert read(make_folder(csv)).stimuli.run == ["r1", "r2"]
    csv = "stimulus_id,text,passage,run\na,Yes.,p1,r1\nb,No.,p1,r2\n"
    assert read(make_folder(csv)).stimuli.run == ["r1", "r2"]


def test_cells_are_kept_as_they_are_written(make_folder):
    csv = (
        "\ufeffpassage,text,stimulus_id,note\r\n"
        '01,NA,007,x\r\n01,"null, he said",1e3,\r\n02,"""Why?""",nan,z\r\n'
    )
    stimuli = read(make_folder(csv)).stimuli
    assert stimuli.stimulus_id == ["007", "1e3", "nan"]
    assert stimuli.text == ["NA", "null, he said", '"Why?"']
    assert stimuli.passage == ["01", "01", "02"]


@pytest.mark.parametrize("name", ["stimuli.csv", "responses.npz"])
def test_a_missing_file_is_named(make_folder, name):
    folder = make_folder(SENTENCES)
    (folder / name).unlink()
    with refused(folder, f"must hold {name}", "no such file"):
        _ = read(folder).stimuli
    with refused(folder, f"must hold {name}", "no such file"):
        _ = read(folder).responses
    with refused(folder, f"must hold {name}", "no such file"):
        _ = read(folder).hash


@pytest.mark.parametrize("name", ["stimulus_id", "text", "passage"])
def test_a_missing_column_is_named(make_folder, name):
    folder = make_folder(SENTENCES.replace(name, "other", 1))
    with refused("stimuli.csv must have column", repr(name), "'other'"):
        _ = read(folder).stimuli


@pytest.mark.parametrize("name", ["onset_s", "offset_s"])
def test_half_of_the_times_is_refused(make_folder, name):
    folder = make_folder(WORDS.replace(name, "other", 1))
    with refused("stimuli.csv must have both onset_s and offset_s, or neither"):
        _ = read(folder).stimuli


@pytest.mark.parametrize("cell", ["soon", "0,5", "1s"])
def test_a_time_that_is_no_number_is_refused(make_folder, cell):
    folder = make_folder(WORDS.replace("r1,2,", f'r1,"{cell}",'))
    with refused("stimuli.csv: onset_s must hold numbers", repr(cell)):
        _ = read(folder).stimuli


@pytest.mark.parametrize("cell", ["", "n/a", "nan"])
def test_a_word_without_a_time_is_marked_by_empty_cells(make_folder, cell):
    folder = make_folder(WORDS.replace("r1,2,2.5", f"r1,{cell},{cell}"))
    found = read(folder).stimuli
    assert np.isnan(found.onset_s).tolist() == [name == "c" for name in found.stimulus_id]
    np.testing.assert_array_equal(np.isnan(found.onset_s), np.isnan(found.offset_s))


def test_a_time_that_is_not_finite_is_refused(make_folder):
    folder = make_folder(WORDS.replace("r1,2,2.5", "r1,nan,2.5"))
    with refused("stimuli:", "'ran' (c, nan s)"):
        _ = read(folder).stimuli


@pytest.mark.parametrize(
    "csv",
    [b"", b'stimulus_id,text,passage\na,"The girl ran.,p\n', "\u00e9,text\n".encode("latin-1")],
    ids=["empty", "open quote", "Latin-1"],
)
def test_a_file_that_is_no_csv_is_refused(make_folder, csv):
    folder = make_folder(csv)
    with refused(folder / "stimuli.csv", "must be a CSV table"):
        _ = read(folder).stimuli


@pytest.mark.parametrize(
    "lines",
    ["a,The girl ran.,p,x,y", "a,The girl ran.", "a,Hello, world,p", "a,Yes,p\nb,Hello, world,p"],
    ids=["two cells more", "one cell less", "a comma in every text", "a comma in one text"],
)
def test_lines_of_another_length_than_the_header_are_refused(make_folder, lines):
    folder = make_folder(f"stimulus_id,text,passage\n{lines}\n")
    with refused(folder / "stimuli.csv"):
        _ = read(folder).stimuli


def test_a_table_without_stimuli_is_refused(make_folder):
    folder = make_folder("stimulus_id,text,passage\n")
    with refused(folder / "stimuli.csv", "at least one sentence"):
        _ = read(folder).stimuli


def test_stimuli_are_checked_like_any_others(make_folder):
    with refused("stimuli.csv: stimuli: stimulus_id must be unique", "'a' twice"):
        _ = read(make_folder(SENTENCES.replace("\nb,", "\na,"))).stimuli
    with refused("stimuli.csv: stimuli: text must not be empty", "'b'"):
        _ = read(make_folder(SENTENCES.replace("Why?", " "))).stimuli
    with refused("stimuli.csv: stimuli: words must not overlap", "'ran' (c, 1.0 s)"):
        _ = read(make_folder(WORDS.replace("r1,2,", "r1,1,"))).stimuli


def test_responses_are_checked_like_any_others(make_folder):
    folder = make_folder(SENTENCES)
    np.savez(folder / "responses.npz", values=np.ones((3, 1)))
    with refused("responses.npz must hold array 'roi'"):
        _ = read(folder).responses


def spoiled(folder, **changes):
    """Write the responses of the folder with some arrays replaced."""
    path = folder / "responses.npz"
    with np.load(path) as file:
        arrays = dict(file) | changes
    np.savez_compressed(path, **arrays)
    return path


@pytest.mark.parametrize(
    "changes,parts",
    [
        ({"values": [[1, 2], [3, np.nan], [5, 6]]}, ["must be finite", "nan at sample 1", "'s2'"]),
        ({"values": [[1, 1], [3, 3], [5, 5]]}, ["those of 's1' and 's2' are identical"]),
        ({"values": [[1, 2], [3, 4]]}, ["run must have 2 entries for values 2 x 2, found 3"]),
        ({"subject": ["s1", "s1"]}, ["subject 's1', roi 'LATL', target 'mean'", "found twice"]),
        ({"stimulus_id": ["a", "b"]}, ["stimulus_id must have 3 entries, found 2"]),
        ({"time_s": [0.0, 1, 2]}, ["either time_s or stimulus_id"]),
    ],
    ids=lambda x: str(x)[:30],
)
def test_spoiled_responses_are_named(make_folder, changes, parts):
    path = spoiled(make_folder(SENTENCES), **changes)
    with refused(path, "responses", *parts):
        _ = read(path.parent).responses


def test_a_damaged_archive_is_refused(make_folder):
    """Its directory, its compression, or what was compressed."""
    path = spoiled(make_folder(SENTENCES))
    whole = path.read_bytes()
    # Of the first entry: the method, and what is behind its name and its extra field.
    start = 30 + int.from_bytes(whole[26:28], "little") + int.from_bytes(whole[28:30], "little")
    method = whole.index(b"PK\x01\x02") + 10
    for content in (
        whole[: len(whole) // 2],
        whole[:start] + bytes([255] * 40) + whole[start + 40 :],
        whole[:method] + b"\x63" + whole[method + 1 :],
    ):
        path.write_bytes(content)
        with refused(path, "must be an .npz of plain arrays"):
            _ = read(path.parent).responses


def test_ids_that_are_none_of_the_stimuli_are_named(make_folder):
    folder = make_folder(SENTENCES)
    found = read(folder)
    found.check_samples(found.responses)
    spoiled(folder, stimulus_id=["a", "x", "c"])
    found = read(folder)
    with refused("data set mine", "every stimulus_id", "the stimuli's, found 'x' (1 such)"):
        found.check_samples(found.responses)
    timed = {"time_s": np.arange(3.0), "tr_s": 1.0, "stimulus_id": np.empty(0, "U1")}
    spoiled(folder, **timed)
    found = read(folder)
    with refused("data set mine", "every run", "found 'r' (3 such)"):
        found.check_samples(found.responses)


def test_stimuli_without_a_response_are_counted(make_folder, caplog):
    """Those with one are scored; a note says how many are not."""
    found = read(make_folder(SENTENCES + "d,Where?,p2\ne,When?,p2\n"))
    found.check_samples(found.responses)
    assert "data set mine: 2 of 5 sentences have no response and are left out." in caplog.text
    assert read(make_folder(SENTENCES)).unanswered(found.responses) == ""
