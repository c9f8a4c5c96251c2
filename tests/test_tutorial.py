"""The tutorial does what it says, from the first cell to the last."""

import ast
import pathlib
import re
import runpy

import pytest

import jaxalign

TUTORIAL = pathlib.Path(__file__).resolve().parents[1] / "docs/tutorial.py"


def test_cells():
    """Every cell is code or a text of comments, in the way that editors and jupytext read."""
    first, *cells = re.split(r"^# %%", TUTORIAL.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert not first and len(cells) > 10
    for cell in cells[1:]:
        head, _, body = cell.partition("\n")
        assert head.strip() in ("", "[markdown]")
        is_text = all(not line or line.startswith("#") for line in body.splitlines())
        assert is_text == (head.strip() == "[markdown]")
        ast.parse(body)


@pytest.mark.slow
def test_tutorial_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JAXALIGN_DATA", raising=False)
    names = runpy.run_path(str(TUTORIAL))
    found, scores = names["found"], names["scores"]
    printed = capsys.readouterr().out
    assert "all-MiniLM-L6-v2 on data-jaxalign" in printed
    # What the text says of the numbers: the control is ahead, and only regions with a signal have
    # one.
    assert found.raw < found.controls["length"].raw
    assert found.raw > 0.1 > abs(found.controls["position"].raw)
    people = scores[(scores.model == "length") & (scores.subject != "group")]
    by_roi = people.groupby("roi").score.mean()
    assert min(by_roi["frontal"], by_roi["temporal"]) > 0.4 > abs(by_roi["motor"])
    assert names["of_arrays"].raw == pytest.approx(found.controls["length"].raw, abs=0.05)
    assert (tmp_path / "tutorial/report/index.html").is_file()
    assert isinstance(found, jaxalign.BenchmarkScore)
