"""The board of a finished run, by its command line."""

import pandas as pd
import pytest
import small
from refusals import refused

import jaxalign
from jaxalign import board
from jaxalign.results import board_rows


@pytest.mark.slow
def test_rows_of_a_run_are_sent_and_shown(tmp_path, capsys):
    data, workdir = small.write(tmp_path / "data"), tmp_path / "work"
    found = jaxalign.score(small.BERT, data, "jaxalign", controls=["word_length"], workdir=workdir)
    sent = tmp_path / "sent" / "ada.csv"
    board.main([str(workdir), "--by=Ada", f"--submit={sent}"])
    table = board_rows.read(sent)
    assert sorted(table.control_of) == ["", "bert"] and set(table.submitted_by) == {"Ada"}
    [row] = table[table.control_of == ""].to_dict("records")
    assert row["raw"] == pytest.approx(found.raw) and row["fingerprint"] == found.fingerprint
    assert row["folds_hash"] == found.folds_hash and row["jaxalign"] == jaxalign.__version__
    assert pd.isna(row["ceiling"]) == pd.isna(found.ceiling)
    # The same scores of a run and of a file are two people's, and stand in one group.
    board.main([str(workdir), str(sent.parent), f"--out={tmp_path / 'out'}"])
    assert "2 scores of 1 models and 2 of controls, in 1 group" in capsys.readouterr().out
    page = (tmp_path / "out/index.html").read_text()
    assert "Scores side by side" in page and "<script" in page
    with refused("must hold finished scores under a protocol"):
        (tmp_path / "other/encode").mkdir(parents=True)
        board.main([str(tmp_path / "other")])
