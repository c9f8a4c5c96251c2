"""Slices and surfaces of scores, drawn offline, or left out with a reason."""

import socket
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest

from jaxalign.data.formats import grids
from jaxalign.reporting.run import brain_maps

pytest.importorskip("nilearn", reason="nilearn is not installed: extra `brain`")
AFFINE = np.array([[-3.0, 0, 0, 60], [0, 3, 0, -90], [0, 0, 3, -40], [0, 0, 0, 1]])


@pytest.fixture(autouse=True)
def _no_network(monkeypatch):
    def refuse(*_):
        raise AssertionError("a picture must need no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def volume(rng, subject="s", code=4):
    voxel = np.argwhere(rng.random((40, 50, 40)) < 0.02)
    return place(subject, voxel, np.full(len(voxel), -1), code=code, shape=(40, 50, 40))


def place(subject, voxel, vertex, **fields):
    num = len(vertex)
    about = {"kind": grids.NIFTI, "affine": AFFINE} | fields
    frame = grids.Frame(voxel=voxel, vertex=vertex, structure=np.zeros(num, int), **about)
    return grids.place(frame, subject, np.arange(num), [("A", str(i)) for i in range(num)])


def hemisphere(side, num=10242, space="fsaverage5"):
    structure = grids.HEMISPHERES[side]
    options = {"kind": grids.GIFTI, "structures": (structure,), "entities": {"space": space}}
    return place("s", np.full((num, 3), -1), np.arange(num), affine=np.empty((0, 0)), **options)


def rows(grid, rng, model="m"):
    names = {"model": model, "dataset": "d", "instruction": "", "metric": "pearson_r"}
    labels = pd.DataFrame(grid.labels, columns=["roi", "target"])
    return labels.assign(**names, subject=grid.subject, score=rng.normal(size=len(labels)))


@pytest.mark.slow
def test_a_volume_is_drawn_in_slices(rng):
    grid = volume(rng)
    (figure,), reasons = brain_maps.draw([(rows(grid, rng), [grid])])
    assert reasons == [] and ElementTree.fromstring(figure.svg).tag.endswith("svg")
    assert "subject s, the first of 1" in figure.alt and figure.name == "map_d_m"
    assert b"<image" in figure.svg and b"z=" in figure.svg


@pytest.mark.slow
def test_hemispheres_are_drawn_on_the_surface_that_nilearn_has(rng):
    images = [hemisphere("L"), hemisphere("R")]
    values = [rng.normal(size=10242) for _ in images]
    values[0][:5000] = np.nan
    found = brain_maps.surfaces(images, values, 3.0)
    assert ElementTree.fromstring(found).tag.endswith("svg") and len(found) < 2_000_000
    for side in (b"left, lateral", b"right, medial"):
        assert side in found


def test_slices_lie_where_values_are(rng):
    grid = volume(rng)
    values = np.where(grid.voxel[:, 2] < 10, 1.0, np.nan)
    cuts = brain_maps._cuts(grid, values)
    assert len(cuts) == brain_maps.NUM_CUTS and -40 <= min(cuts) and max(cuts) <= -13


def test_what_cannot_be_drawn_has_a_reason(rng):
    images = [hemisphere("L", 40, "fsaverage6"), hemisphere("R", 40, "fsaverage6")]
    assert "these have 40 vertices of fsaverage6" in brain_maps.why_not(images)
    gray = place("s", np.full((2, 3), -1), np.arange(2), kind=grids.CIFTI)
    assert brain_maps.why_not([gray]).startswith("grayordinates are written as maps")
    grid = volume(rng)
    without = rows(grid, rng).assign(score=np.nan)
    drawn, reasons = brain_maps.draw([(without, [grid])])
    assert drawn == [] and reasons == ["m on d: no target of subject s has a defined score."]
