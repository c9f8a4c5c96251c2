"""From a scan to a map in the same space: voxels, vertices and grayordinates, read by nilearn."""

import dataclasses

import nibabel as nib
import numpy as np
import pytest
from own_scans import ATLAS, Folder
from refusals import refused

from jaxalign.data import datasets
from jaxalign.data.formats import grids, map_images
from jaxalign.data.schema import Responses

# Turned, sheared a little, of unlike voxels, and one axis reversed.
TURNED = np.array(
    [[-2.0, 0.3, 0, 31.5], [0.2, 2.9, -0.4, -17.25], [0, 0.5, 3.1, 8], [0, 0, 0, 1]], np.float32
).astype(float)
STRUCTURES = ("CIFTI_STRUCTURE_CORTEX_LEFT", "CIFTI_STRUCTURE_THALAMUS_LEFT")


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def planted(responses, seed=0):
    """Return a value for each target, by its names."""
    values = np.random.default_rng(seed).normal(size=len(responses.target))
    return dict(zip(zip(responses.roi, responses.target, strict=True), values, strict=True))


def written(grid, values, tmp_path, name="sub-1_desc-planted_statmap"):
    """Write a map, and return its path."""
    path = tmp_path / f"{name}{map_images.ENDINGS[grid.kind]}"
    path.write_bytes(map_images.to_bytes(grid, grid.values(values), "planted"))
    return path


def models(shape=(2, 2, 2)):
    """Two vertices of a surface of five, and six voxels."""
    surface = nib.cifti2.BrainModelAxis.from_surface([0, 3], 5, name=STRUCTURES[0])
    voxels = np.argwhere(np.ones(shape))[:6]
    volume = nib.cifti2.BrainModelAxis(
        STRUCTURES[1], voxel=voxels, affine=TURNED, volume_shape=shape
    )
    return surface + volume


def test_a_volume_is_equal_voxel_by_voxel_and_in_the_world(folder, rng, tmp_path):
    folder.volume("sub-1_task-x_space-T1w_bold.nii.gz", rng.normal(size=(9, 8)), affine=TURNED)
    folder.volume("atlas.nii", ATLAS.astype(np.int16), affine=TURNED)
    folder.add("sub-1_task-x_space-T1w_bold.nii.gz", "atlas.nii", labels="labels.csv")
    responses = folder.responses()
    [grid] = responses.grids
    assert (grid.subject, grid.kind, grid.shape) == ("s1", "NIfTI", (2, 2, 2))
    assert grid.entities == {"task": "x", "space": "T1w"} and grid.space == "T1w"
    values = planted(responses)
    path = written(grid, values, tmp_path)
    nilearn = pytest.importorskip("nilearn.image", reason="extra `brain`")
    found = nilearn.load_img(path)
    np.testing.assert_array_equal(found.affine, TURNED)
    volume = found.get_fdata()
    assert (np.isnan(volume.ravel()) == (ATLAS == 0)).all()
    scan = nilearn.load_img(folder.root / "sub-1_task-x_space-T1w_bold.nii.gz")
    for (_, target), value in values.items():
        voxel = tuple(map(int, target.split("-")))
        assert volume[voxel] == np.float32(value)
        # A point of the world is the same voxel in scan and map.
        world = nilearn.coord_transform(*voxel, scan.affine)
        there = nilearn.coord_transform(*world, np.linalg.inv(found.affine))
        np.testing.assert_allclose(there, voxel, atol=1e-5)
    assert found.header["sform_code"] == scan.header["sform_code"] > 0
    assert path.read_bytes() == map_images.to_bytes(grid, grid.values(values), "planted")


def test_a_mean_is_at_every_voxel_of_its_label(folder, rng, tmp_path):
    folder.volume("bold.nii", rng.normal(size=(9, 8)))
    folder.volume("atlas.nii", ATLAS.astype(np.int16))
    folder.add("bold.nii", "atlas.nii", labels="labels.csv", targets="means")
    responses = folder.responses()
    found = nib.load(written(responses.grids[0], planted(responses), tmp_path)).get_fdata().ravel()
    for label in (1, 2, 5):
        assert set(found[ATLAS == label]) == {np.float32(planted(responses)[f"A{label}", "mean"])}
    assert np.isnan(found[ATLAS == 0]).all()


def test_targets_that_are_left_out_have_no_value(folder, rng, tmp_path):
    series = rng.normal(size=(9, 8)).astype(np.float32)
    series[:, 2] = np.nan  # 0-1-0 is NaN throughout
    folder.volume("bold.nii", series)
    folder.volume("atlas.nii", ATLAS.astype(np.int16))
    folder.add("bold.nii", "atlas.nii", labels="labels.csv")
    responses = folder.responses()
    part = responses.columns([roi != "A1" for roi in responses.roi])
    assert part.target == ["0-1-1", "1-0-0", "1-1-1"]
    found = nib.load(written(part.grids[0], planted(part), tmp_path)).get_fdata().ravel()
    assert np.flatnonzero(~np.isnan(found)).tolist() == [3, 4, 7]


def test_grayordinates_keep_the_axis_of_the_series(folder, rng, tmp_path):
    axis = models()
    header = (nib.cifti2.SeriesAxis(0.5, 1.5, 9), axis)
    series = rng.normal(size=(9, 8)).astype(np.float32)
    nib.save(nib.Cifti2Image(series, header=header), folder.root / "bold.dtseries.nii")
    # The mask lists other grayordinates, in another order.
    mask = nib.cifti2.ScalarAxis(["mask"]), axis[[7, 0, 3, 1]]
    marked = np.array([[1, 1, 0, 1]], np.float32)
    nib.save(nib.Cifti2Image(marked, header=mask), folder.root / "mask.dscalar.nii")
    folder.add("bold.dtseries.nii", "mask.dscalar.nii")
    responses = folder.responses()
    np.testing.assert_array_equal(responses.values, series[:, [7, 0, 1]])
    found = nib.load(written(responses.grids[0], planted(responses), tmp_path))
    assert found.header.get_axis(1) == axis
    assert isinstance(found.header.get_axis(0), nib.cifti2.ScalarAxis)
    expected = np.full(8, np.nan, np.float32)
    expected[[7, 0, 1]] = list(planted(responses).values())
    np.testing.assert_array_equal(found.get_fdata()[0], expected)


def test_both_hemispheres_keep_their_vertices(folder, rng, tmp_path):
    label = {"L": np.array([0, 1, 0, 2, 2]), "R": np.array([1, 0, 1, 0])}
    for side, labels in label.items():
        series = rng.normal(size=(9, len(labels))).astype(np.float32)
        folder.surface(f"{side}.func.gii", series)
        label_array = labels.astype(np.int32)
        folder.surface(f"{side}.label.gii", label_array, intent="NIFTI_INTENT_LABEL")
        cells = {"labels": "labels.csv", "hemisphere": side}
        folder.add(f"{side}.func.gii", f"{side}.label.gii", **cells)
    responses = folder.responses()
    values = planted(responses)
    surface = pytest.importorskip("nilearn.surface", reason="extra `brain`")
    for grid in responses.grids:
        path = written(grid, values, tmp_path, f"hemi-{grid.hemisphere}")
        found = surface.load_surf_data(path)
        inside = np.flatnonzero(label[grid.hemisphere])
        expected = [
            values[f"A{label[grid.hemisphere][i]}", f"{grid.hemisphere}.{i}"] for i in inside
        ]
        np.testing.assert_array_equal(found[inside], np.float32(expected))
        assert np.isnan(np.delete(found, inside)).all()
        anatomy = {"L": "CortexLeft", "R": "CortexRight"}[grid.hemisphere]
        assert nib.load(path).meta["AnatomicalStructurePrimary"] == anatomy


def test_runs_on_other_grids_have_no_map(folder, rng, caplog):
    folder.volume("atlas.nii", ATLAS.astype(np.int16))
    folder.volume("moved.nii", ATLAS.astype(np.int16), affine=TURNED)
    for run, atlas in (("r1", "atlas.nii"), ("r2", "moved.nii")):
        affine = nib.load(folder.root / atlas).affine
        folder.volume(f"{run}.nii", rng.normal(size=(9, 8)), affine=affine)
        folder.add(f"{run}.nii", atlas, run=run, labels="labels.csv")
    assert folder.responses().grids == ()
    assert "the runs of subject s1 lie on different grids" in caplog.text


def test_grids_are_stored_with_responses_and_move_their_hash(folder, rng, tmp_path):
    folder.volume("bold.nii", rng.normal(size=(9, 8)))
    folder.volume("atlas.nii", ATLAS.astype(np.int16))
    folder.add("bold.nii", "atlas.nii", labels="labels.csv")
    responses = folder.responses()
    path = tmp_path / "stored.npz"
    path.write_bytes(responses.to_bytes())
    read = Responses.load(path)
    assert grids.digest(read.grids) == grids.digest(responses.grids)
    assert read.grids[0].is_like(responses.grids[0])
    without = dataclasses.replace(responses, grids=())
    turned = dataclasses.replace(responses.grids[0], affine=TURNED)
    moved = dataclasses.replace(responses, grids=(turned,))
    assert len({x.hash for x in (responses, without, moved)}) == 3
    arrays = grids.to_arrays(responses.grids)
    del arrays["grid0_vertex"]
    with refused("grid0_*: the grid of an image must be whole", "vertex"):
        grids.from_arrays(arrays)
    assert datasets.find(str(folder.root), None).responses.hash == responses.hash
