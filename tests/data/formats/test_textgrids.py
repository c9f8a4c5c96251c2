"""TextGrids of every kind, whole and spoiled, against the library praatio."""

import pytest
from praatio import textgrid
from recordings import text_grid
from refusals import refused

from jaxalign.data.formats import textgrids

TIERS = {
    "phone": [(0.0, 1.0, "A"), (1.0, 4.0, "")],
    "word": [(0.0, 1.5, "so"), (1.5, 2.0, 'say "5 = 5"!'), (2.0, 4.0, "é")],
}
KINDS = ("long", "short", "chronological")


@pytest.fixture
def grid(tmp_path):
    return tmp_path / "a.TextGrid"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_tier_is_read_by_place_and_by_name(grid, kind, encoding):
    grid.write_text(text_grid(TIERS, kind=kind), encoding=encoding)
    assert textgrids.read(grid, 1) == TIERS["word"]
    assert textgrids.read(grid, "phone") == TIERS["phone"]


@pytest.mark.parametrize("kind", KINDS[:2])
def test_praatio_reads_the_same(grid, kind):
    grid.write_text(text_grid(TIERS, kind=kind), encoding="utf-8")
    other = textgrid.openTextgrid(str(grid), includeEmptyIntervals=True, reportingMode="error")
    for name in TIERS:
        assert textgrids.read(grid, name) == [tuple(x) for x in other.getTier(name).entries]


@pytest.mark.parametrize("kind", KINDS)
def test_a_grid_that_is_cut_anywhere_is_refused(grid, kind):
    whole = text_grid(TIERS, kind=kind).rstrip("\n")
    for size in range(0, len(whole), 3):
        grid.write_text(whole[:size], encoding="utf-8")
        with refused(grid, "must be a TextGrid"):
            textgrids.read(grid, 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_tier_that_is_not_there_is_refused(grid, kind):
    grid.write_text(text_grid({"phone": TIERS["phone"]}, kind=kind))
    with refused(grid, "must be a TextGrid with at least 2 tiers: it has 1"):
        textgrids.read(grid, 1)
    with refused(grid, "must be a TextGrid with a tier 'word': it has 'phone'"):
        textgrids.read(grid, "word")


def test_points_are_no_intervals(grid):
    grid.write_text(
        '"Praat chronological TextGrid text file"\n0 4\n2\n"TextTier" "tone" 0 4\n'
        '"IntervalTier" "word" 0 4\n1 0.5\n"H*"\n2 0 4\n"so"\n'
    )
    assert textgrids.read(grid, "word") == [(0.0, 4.0, "so")]
    with refused(grid, "holds points, not intervals"):
        textgrids.read(grid, "tone")


@pytest.mark.parametrize("kind", KINDS)
def test_intervals_that_overlap_are_refused_unless_they_may(grid, kind):
    words = [(0.0, 2.0, "so"), (1.5, 3.0, "it"), (3.0, 4.0, "is")]
    grid.write_text(text_grid({"word": words}, kind=kind))
    assert textgrids.read(grid, 0, may_overlap=True) == words
    with refused(grid, "must not overlap", "'so' ends at 2.0 s", "'it' begins at 1.5 s"):
        textgrids.read(grid, 0)


@pytest.mark.parametrize("kind", ["long", "short"])
def test_intervals_out_of_order_are_refused(grid, kind):
    grid.write_text(text_grid({"word": [(1.0, 2.0, "so"), (0.0, 4.0, "it")]}, kind=kind))
    with refused(grid, "'so'", "'it' begins at 0.0 s"):
        textgrids.read(grid, 0, may_overlap=True)
    grid.write_text(text_grid({"word": [(2.0, 1.0, "so"), (2.0, 4.0, "it")]}, kind=kind))
    with refused(grid, "'so' must end after it begins, 2.0 s, found 1.0 s"):
        textgrids.read(grid, 0)


@pytest.mark.parametrize(
    "content",
    [
        '"Praat chronological TextGrid text file"\n0 4\n1\n"IntervalTier" "w" 0 4\n2 0 4\n"so"\n',
        '"Praat chronological TextGrid text file"\n0 4\n1\n"Tier" "w" 0 4\n',
        'File type = "ooTextFile"\nObject class = "Pitch"\n',
        "so it is",
    ],
    ids=["no such tier", "no such class", "another object", "prose"],
)
def test_what_is_no_text_grid_is_refused(grid, content):
    grid.write_text(content)
    with refused(grid, "must be a TextGrid"):
        textgrids.read(grid, 0)
