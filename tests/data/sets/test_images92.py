"""92 images: what was published, where the data are here, and what is refused."""

import dataclasses
import shutil

import numpy as np
import pytest
from refusals import refused
from scipy import io, stats

from jaxalign.data import datasets
from jaxalign.data.dissimilarities import Dissimilarities
from jaxalign.data.sets import images92


@pytest.fixture
def real(data_root):
    if not (data_root / images92.FOLDER).is_dir():
        pytest.skip("the data folder holds no images92")
    return datasets.find("images92", data_root)


def test_published_numbers(real):
    """Spearman with each person, mean of four."""
    people = real.dissimilarities
    assert people.values.shape == (8, 4186) and people.subjects == ["S1", "S2", "S3", "S4"]
    own = people.by_subject.mean(axis=1)
    agree = lambda x: np.mean([stats.spearmanr(x, y)[0] for y in own])
    flat = real.stimuli.pixels.read(range(92)).reshape(92, -1).astype(float)
    pixels = (1 - np.corrcoef(flat))[np.triu_indices(92, k=1)]
    assert agree(pixels) == pytest.approx(0.079, abs=5e-4)
    assert agree(people.others["monkeyIT"]) == pytest.approx(0.296, abs=5e-4)
    assert agree(people.others["animacy"]) == pytest.approx(0.386, abs=5e-4)
    assert real.adapter.has_images and not real.adapter.has("responses")
    with refused("data set images92 has no responses: dissimilarities of patterns were published"):
        real.responses  # noqa: B018


def test_damaged_files_are_named(real, tmp_path):
    folder = tmp_path / images92.FOLDER
    shutil.copytree(real.adapter.root / images92.FOLDER, folder)
    (folder / images92.BRAINS).write_bytes(b"no MATLAB")
    found = datasets.find("images92", tmp_path)
    with refused(f"{folder / images92.BRAINS} must be a whole MATLAB file"):
        found.dissimilarities  # noqa: B018
    io.savemat(folder / images92.BRAINS, {"other": [1]})
    with refused("92_brainRDMs.mat must hold 'RDMs', found other"):
        datasets.find("images92", tmp_path).dissimilarities  # noqa: B018
    (folder / images92.MODELS).unlink()
    with refused("data set images92 needs", "it is missing"):
        datasets.find("images92", tmp_path)


def people(**changes):
    given = {
        "stimulus_id": ["a", "b", "c"],
        "values": np.eye(3)[:2],
        "subject": ["S1", "S2"],
        "roi": "IT",
        "units": "1 - r",
    }
    return Dissimilarities(**given | changes)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"values": np.ones((2, 4))}, "must have 3 pairs of 3 stimuli, found 4"),
        ({"values": np.full((2, 3), np.nan)}, "must be finite"),
        ({"others": {"V1": np.ones(2)}}, "V1 must have 3 pairs"),
        ({"subject": ["S1"]}, "one entry per matrix (2), found 1"),
        ({"values": np.ones((3, 3)), "subject": ["S1", "S1", "S2"]}, "as many sessions"),
        ({"stimulus_id": ["a", "b", "b"]}, "must name three stimuli or more once"),
    ],
    ids=str,
)
def test_dissimilarities_are_checked(changes, message):
    with refused(message):
        people(**changes)


def test_all_content_is_hashed():
    assert len({people().hash, people(roi="V1").hash, people(values=np.eye(3)[1:]).hash}) == 3
    assert dataclasses.replace(people()).hash == people().hash
