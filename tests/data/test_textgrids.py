"""TextGrids of either kind, whole and cut."""

import pytest
from recordings import text_grid
from refusals import refused

from jaxalign.data import textgrids

TIERS = {"phone": [(0.0, 1.0, "A"), (1.0, 4.0, "")], "word": [(0.0, 1.5, "so"), (1.5, 4.0, "it")]}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("is_short", [False, True], ids=["long", "short"])
def test_a_tier_is_read_by_place_and_by_name(tmp_path, is_short, encoding):
    path = tmp_path / "a.TextGrid"
    path.write_text(text_grid(TIERS, is_short=is_short), encoding=encoding)
    assert textgrids.read(path, 1) == TIERS["word"]
    assert textgrids.read(path, "phone") == TIERS["phone"]


@pytest.mark.parametrize("is_short", [False, True], ids=["long", "short"])
def test_a_grid_that_ends_between_two_intervals_is_refused(tmp_path, is_short):
    path = tmp_path / "a.TextGrid"
    whole = text_grid(TIERS, is_short=is_short)
    path.write_text(whole[: whole.index('"so"') + 4] + "\n")
    with refused(path, "must be a TextGrid"):
        textgrids.read(path, 1)


def test_a_tier_that_is_not_there_is_refused(tmp_path):
    path = tmp_path / "a.TextGrid"
    path.write_text(text_grid({"phone": TIERS["phone"]}))
    with refused(path, "must be a TextGrid with at least 2 tiers"):
        textgrids.read(path, 1)
    with refused(path, "must be a TextGrid with a tier 'word'"):
        textgrids.read(path, "word")
