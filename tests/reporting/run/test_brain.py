"""Scores of targets where they lie: averaged, drawn offline, or left out with a reason."""

import socket
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest

from jaxalign.reporting.run import brain

pytest.importorskip("nilearn", reason="nilearn is not installed: extra `brain`")


def targets(xyz, score, space="MNI152"):
    found = pd.DataFrame(np.asarray(xyz, float), columns=["x", "y", "z"])
    return found.assign(score=score, space=space)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a picture must need no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_places_are_averaged_over_subjects():
    xyz = [[10, 20, 30], [10, 20, 30], [-10, 20, 30], [0, 0, 0], [np.nan] * 3]
    found = brain.places(targets(xyz, [0.2, 0.4, 0.1, np.nan, 0.9]))
    found = found.set_index("x")
    assert found.score.to_dict() == pytest.approx({10.0: 0.3, -10.0: 0.1})
    assert found.num_targets.to_dict() == {10.0: 2, -10.0: 1}


def test_many_places_are_cells_of_a_grid(rng):
    xyz = rng.uniform(-60, 60, (3000, 3))
    score = rng.normal(size=3000)
    found = brain.places(targets(xyz, score))
    assert found.num_targets.sum() == 3000
    assert np.average(found.score, weights=found.num_targets) == pytest.approx(score.mean())
    # The cell of the first target: its middle is at most half a cell away, in each direction.
    cell = found[(np.abs(found[["x", "y", "z"]] - xyz[0]) <= brain.CELL_MM / 2).all(axis=1)]
    assert len(cell) == 1
    middle = cell[["x", "y", "z"]].to_numpy()[0]
    own = (np.abs(xyz - middle) <= brain.CELL_MM / 2).all(axis=1)
    assert own[0]
    assert cell.score.item() == pytest.approx(score[own].mean())


@pytest.mark.slow
@pytest.mark.parametrize("num", [40, 3000])
def test_picture_is_drawn_offline(rng, no_network, num):
    table = targets(rng.uniform(-60, 60, (num, 3)), rng.normal(size=num))
    found = brain.glass_brain(table)
    root = ElementTree.fromstring(found)
    assert root.tag.endswith("svg")
    content = found.decode()
    # The ends of the colour bar are the largest absolute score, and the sides have names.
    limit = np.abs(brain.places(table).score).max()
    assert f"{limit:.2g}" in content and ">L<" in content and ">R<" in content
    assert 'href="http' not in content
    assert len(found) < 600_000
    assert found == brain.glass_brain(table)


def test_what_cannot_be_drawn_is_said():
    good = targets([[1, 2, 3]], [0.1])
    assert brain.why_not(good) == ""
    for table, words in (
        (good[:0], "no coordinates"),
        (good.assign(space="scanner"), "scanner space; a glass brain is drawn for MNI152 alone"),
        (good.assign(score=np.nan), "defined score"),
        (pd.concat([good, good.assign(space="Talairach")]), "MNI152, Talairach space"),
    ):
        assert words in brain.why_not(table)
        with pytest.raises(ValueError, match=words):
            brain.glass_brain(table)


def test_without_nilearn_there_is_a_reason(monkeypatch):
    monkeypatch.setattr(brain.importlib.util, "find_spec", lambda name: None)
    assert "pip install 'jaxalign[brain]'" in brain.why_not(targets([[1, 2, 3]], [0.1]))
