"""Where targets lie: from the header of an image, from a user's file, or not known."""

import dataclasses

import nibabel as nib
import numpy as np
import own_scans
import pytest
from refusals import refused

from jaxalign.data.formats import coordinates
from jaxalign.data.schema import Responses

AFFINE = np.array([[-2.0, 0, 0, 90], [0, 2, 0, -126], [0, 0, 2, -72], [0, 0, 0, 1]])


@pytest.fixture
def responses(rng):
    return Responses(
        values=rng.standard_normal((4, 3)),
        run=["r"] * 4,
        subject=["s1", "s1", "s2"],
        roi=["A", "B", "A"],
        target=["t0", "t1", "t0"],
        units="z",
        stimulus_id=list("abcd"),
        coordinates=np.array([[1.0, 2, 3], [np.nan] * 3, [4, 5, 6]]),
        space=coordinates.MNI,
    )


def test_coordinates_stay_with_their_targets(responses, tmp_path):
    (tmp_path / "responses.npz").write_bytes(responses.to_bytes())
    found = Responses.load(tmp_path / "responses.npz").columns([False, True, True])
    np.testing.assert_array_equal(found.coordinates, [[np.nan] * 3, [4, 5, 6]])
    assert found.space == "MNI152"
    bare = dataclasses.replace(responses, coordinates=coordinates.NONE, space="")
    (tmp_path / "responses.npz").write_bytes(bare.to_bytes())
    found = Responses.load(tmp_path / "responses.npz").columns([True, False, True])
    assert found.coordinates.shape == (0, 3) and found.space == ""


def test_malformed_coordinates_are_refused(responses):
    for changes, words in (
        ({"space": ""}, ("coordinates must have a space", "''")),
        ({"coordinates": coordinates.NONE}, ("space 'MNI152' must have coordinates", "none")),
        ({"coordinates": np.zeros((2, 3))}, ("coordinates must be 3 x 3", "2 x 3")),
        ({"coordinates": np.zeros((3, 2))}, ("coordinates must be 3 x 3", "3 x 2")),
        (
            {"coordinates": np.array([[1, 2, np.nan], [1, 2, 3], [1, 2, 3]])},
            ("three numbers, or three NaN", "nan", "target 0"),
        ),
        ({"coordinates": np.full((3, 3), np.inf)}, ("three numbers", "inf")),
    ):
        with refused("responses", *words):
            dataclasses.replace(responses, **changes)


@pytest.fixture
def folder(tmp_path):
    return own_scans.Folder(tmp_path)


def mark(path, code):
    """Let the header say which space its affine leads to; 0: it has none."""
    image = nib.load(path, mmap=False)
    image = nib.Nifti1Image(np.asarray(image.dataobj), None, image.header)
    image.set_sform(AFFINE, code)
    image.set_qform(AFFINE, 0)
    nib.save(image, path)


def add(folder, rng, code, *, subjects=("s1", "s2"), targets="voxels"):
    folder.volume("atlas.nii", own_scans.ATLAS.astype(np.int16), affine=AFFINE)
    mark(folder.root / "atlas.nii", code)
    for subject in subjects:
        for run in ("r1", "r2"):
            name = f"{subject}.{run}.nii"
            folder.volume(name, rng.standard_normal((4, 8)), affine=AFFINE)
            mark(folder.root / name, code)
            options = {"run": run, "labels": "labels.csv", "targets": targets}
            folder.add(name, "atlas.nii", subject=subject, **options)


@pytest.mark.parametrize(("code", "space"), [(4, "MNI152"), (1, "scanner"), (3, "Talairach")])
def test_voxels_lie_where_the_header_says(folder, rng, code, space):
    add(folder, rng, code)
    found = folder.responses()
    assert found.space == space
    # Voxels x-y-z of the atlas in C order, through the affine by hand.
    index = np.argwhere(own_scans.ATLAS.reshape(2, 2, 2) > 0)
    expected = np.stack([90 - 2 * index[:, 0], 2 * index[:, 1] - 126, 2 * index[:, 2] - 72], axis=1)
    np.testing.assert_allclose(found.coordinates, np.r_[expected, expected])
    assert found.target[: len(index)] == ["-".join(map(str, x)) for x in index.tolist()]


def test_means_of_regions_lie_nowhere(folder, rng):
    add(folder, rng, 4, targets="means")
    assert folder.responses().space == ""


def test_without_a_code_nothing_is_known(folder, rng):
    """Neither is it where subjects' images are in different spaces."""
    add(folder, rng, 0)
    assert folder.responses().space == ""
    folder.rows.clear()
    add(folder, rng, 4, subjects=["s1"])
    add(folder, rng, 1, subjects=["s2"])
    assert folder.responses().space == "" and folder.responses().coordinates.shape == (0, 3)
