"""What is said of a data set before a model reads it."""

import numpy as np
import pandas as pd
import pytest
from recordings import write_table
from refusals import refused

from jaxalign.data import check
from jaxalign.data.schema import Responses


def said(capsys, *arguments):
    """Return the lines that are printed: a text by its title, several as one."""
    check.main([str(x) for x in arguments])
    found, title = {}, ""
    for line in capsys.readouterr().out.splitlines():
        title = line[:15].strip() or title
        found[title] = " | ".join(x for x in (found.get(title, ""), line[15:]) if x)
    return found


@pytest.fixture
def story(tmp_path, rng):
    """Twelve words of 1 s, of which one has no time, and 5 TRs of 2 s, of which one is left out."""
    folder = tmp_path / "story"
    folder.mkdir()
    times = [[i, i + 0.5] if i != 3 else ["n/a", "n/a"] for i in range(12)]
    write_table(
        folder / "stimuli.csv",
        ["stimulus_id", "text", "passage", "run", "onset_s", "offset_s", "zipf"],
        [[f"w{i}", "dog", "p", "r", *x, 5 if i else ""] for i, x in enumerate(times)],
    )
    values = rng.normal(size=(5, 4))
    values[:, 3] = 7.0
    responses = Responses(
        values=values,
        run=["r"] * 5,
        subject=["s1", "s1", "s2", "s3"],
        roi=["A", "B", "A", "A"],
        target=["m"] * 4,
        units="z",
        time_s=np.array([0.0, 2.0, 6.0, 8.0, 14.0]),
        tr_s=2.0,
    )
    (folder / "responses.npz").write_bytes(responses.to_bytes())
    return folder


def test_scans_of_a_story(story, capsys):
    """Two words are where TRs were left out (w4, w5), two at the end (w10, w11), one is nowhere."""
    found = said(capsys, story)
    assert found["data set"] == "story: responses, one for each TR"
    assert found["files"].startswith("2 files, ") and found["files"].endswith("responses.npz")
    assert found["stimuli"].startswith(
        "12 words with times in 1 passage and 1 run | the time of 1 "
    )
    assert found["responses"].startswith("5 TRs of 2 s in 'z'")
    assert found["responses"].endswith("run r: 5 TRs from 0 to 16 s; 3 between them are left out")
    assert found["subjects"] == "3 subjects (targets of each): s1 (2), s2 (1), s3 (1)"
    assert found["labels"] == "2 ROIs (targets of each): A (3), B (1)"
    assert found["targets"].startswith("4 voxels or other targets, without coordinates; of 2 names")
    assert found["words and TRs"] == (
        "1 of 12 words begin in no TR (1 because their time is not known); no word begins in 1 of "
        "5 TRs"
    )
    assert found["frequency"] == "of 11 of 12 words"
    assert found["undefined"] == (
        "scores of 1 target, constant: s3/A/m | 1 subject left out, all constant: s3"
    )
    assert f"configs/own.py:{story},MODEL" in found["next"]


def test_sentences_and_activations(make_folder, rng, capsys):
    folder = make_folder("stimulus_id,text,passage\na,One.,p\nb,Two.,p\nc,Three.,q\nd,Four.,q\n")
    path = folder / "network.npz"
    np.savez(path, stimulus_id=["d", "c", "b", "a"], layer_0=rng.normal(size=(4, 7)))
    found = said(capsys, folder, path)
    assert found["stimuli"] == "4 sentences in 2 passages and 1 run"
    assert found["responses"].startswith("of 3 stimuli in 1 run, in 'percent signal change'")
    assert found["activations"] == ("network.npz: layers 0; 7 units, float64; 4 rows, by id")
    assert found["undefined"] == "1 of 4 sentences have no response and are left out."
    np.save(folder / "network.npy", rng.normal(size=(2, 4, 7)))
    found = said(capsys, folder, folder / "network.npy")
    assert "layers 0, 1; 7 units" in found["activations"]
    assert found["activations"].endswith("4 rows, taken to be the stimuli in their order")
    np.savez(path, stimulus_id=["d", "c", "b", "x"], layer_0=rng.normal(size=(4, 7)))
    with refused(path, "every stimulus must have a row", "'a'"):
        check.main([str(folder), str(path)])
    with refused("ACTIVATIONS must be files .npz or .npy", "stimuli.csv"):
        check.main([str(folder), str(folder / "stimuli.csv")])


def test_reading_times_with_given_surprisal(tmp_path, capsys):
    rows = [[f"w{i}", "dog", f"p{i // 2}", 2.5] for i in range(4)]
    write_table(
        tmp_path / "stimuli.csv", ["stimulus_id", "text", "passage", "surprisal_bits_lm"], rows
    )
    times = [["w0", "p1", 300, 1], ["w1", "p1", 320, 2], ["w1", "p2", 340, 2]]
    columns = ["stimulus_id", "participant", "reading_time_ms", "word_in_sentence"]
    pd.DataFrame(times, columns=columns).to_csv(tmp_path / "behavior.csv", index=False)
    found = said(capsys, tmp_path)
    assert found["data set"].endswith(": reading times")
    assert found["reading times"] == (
        "3 of 2 words by 2 participants, median 320 ms, from 300 to 340 ms"
    )
    assert found["surprisal"] == "given, of lm: 4 of 4 words"
    assert found["undefined"] == "1 of 4 reading times, which are not there"


def test_what_is_refused(story, capsys):
    path = story / "stimuli.csv"
    path.write_text(path.read_text().replace(",r,", ",other,"))
    with refused("data set story: responses: every run must be one of the stimuli's", "'r'"):
        check.main([str(story)])
    assert "words with times" in capsys.readouterr().out
