"""Where `jaxalign.report` writes: over a report of its own, and over nothing else."""

import os

import pandas as pd
import pytest
from refusals import refused
from score_rows import frame, row

from jaxalign.api import pages
from jaxalign.reporting.page import Page


@pytest.fixture
def write(tmp_path):
    def call(*names):
        tables = {name: pd.DataFrame({"model": ["a"]}) for name in names}
        made = Page(title="T", lead="L", sections=[], tables=tables, summary="S")
        return pages._write(made, frame([row("a", "s1", "A", 0, [0.1, 0.2])]), tmp_path)

    return call


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_report_replaces_its_own_files_alone(write, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    files = write("rois", "models")
    assert contents(tmp_path).keys() == {*files, "files.json", "notes.txt"}
    files = write("rois")
    assert contents(tmp_path).keys() == {*files, "files.json", "notes.txt"}
    assert not (tmp_path / "models.csv").exists()


@pytest.mark.parametrize("name", ["models.csv", "index.html", "scores.parquet", "files.json"])
def test_a_file_of_somebody_else_is_refused_and_kept(write, tmp_path, name):
    (tmp_path / name).write_text('["models.csv"]')
    before = contents(tmp_path)
    with refused("without files of these names that no report has written", f"1: {name}; move"):
        write("models")
    assert contents(tmp_path) == before


def test_a_file_that_was_changed_since_is_kept(write, tmp_path):
    write("rois", "models")
    (tmp_path / "models.csv").write_text("my,table\n")
    with refused("has 1: models.csv; move them, or choose another path"):
        write("rois", "models")
    write("rois")  # which has no such file
    assert (tmp_path / "models.csv").read_text() == "my,table\n"


def test_a_report_that_was_killed_may_be_written_again(write, tmp_path, monkeypatch):
    """Killed between two files, some are of the old report and some of the new one."""
    write("rois")
    replace, moved = os.replace, []

    def move_two(source, target):
        if source.parent != target.parent:  # from where it was drawn
            moved.append(target.name)
            if len(moved) > 2:
                raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", move_two)
    with pytest.raises(KeyboardInterrupt):
        write("rois", "models")
    monkeypatch.undo()
    files = write("models")
    assert contents(tmp_path).keys() == {*files, "files.json"}
