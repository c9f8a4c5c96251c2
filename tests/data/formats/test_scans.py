"""One's own scans as grayordinates and surfaces, whole and spoiled."""

import nibabel as nib
import numpy as np
import pytest
from nibabel import cifti2
from own_scans import AFFINE, ATLAS, TR_S, Folder
from recordings import truncate
from refusals import refused


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


# Grayordinates


def models(left=(0, 1, 3), voxels=((0, 0, 1), (1, 1, 0)), *, affine=AFFINE):
    cortex = cifti2.BrainModelAxis.from_surface(list(left), 4, name="CortexLeft")
    inner = cifti2.BrainModelAxis(
        "thalamus_left", voxel=np.array(voxels), affine=affine, volume_shape=(2, 2, 2)
    )
    return cortex + inner


def dense(path, values, axis, models_axis):
    nib.save(cifti2.Cifti2Image(np.atleast_2d(values), header=(axis, models_axis)), path)


@pytest.fixture
def grays(folder, rng):
    folder.series = rng.normal(size=(40, 5)).astype(np.float32)
    time = cifti2.SeriesAxis(0, TR_S, 40)
    dense(folder.root / "bold.dtseries.nii", folder.series, time, models())
    table = {0: ("???", (0,) * 4), 1: ("V1", (0,) * 4), 2: ("THA", (0,) * 4)}
    folder.names = cifti2.LabelAxis(["parcels"], table)
    # Another order, a vertex more (outside), and a voxel less than the series has.
    other = models(left=(0, 1, 2, 3), voxels=((1, 1, 0),))
    dense(folder.root / "atlas.dlabel.nii", np.float32([1, 0, 0, 1, 2]), folder.names, other)
    folder.add("bold.dtseries.nii", "atlas.dlabel.nii")
    return folder


def test_grayordinates_are_joined_by_place(grays):
    found = grays.responses()
    # Columns of the series: vertices 0, 1, 3, then voxels 0-0-1 and 1-1-0.
    np.testing.assert_array_equal(found.values, grays.series[:, [0, 2, 4]])
    assert found.roi == ["V1", "V1", "THA"]
    assert found.target == ["cortex_left.0", "cortex_left.3", "thalamus_left.1-1-0"]


def test_parcels_of_grayordinates(grays):
    grays.change("targets", "means")
    found = grays.responses()
    np.testing.assert_allclose(found.values[:, 0], grays.series[:, [0, 2]].mean(axis=1), atol=1e-6)
    assert found.roi == ["V1", "THA"]


def test_a_mask_of_grayordinates(grays):
    axis = cifti2.ScalarAxis(["mask"])
    dense(grays.root / "mask.dscalar.nii", np.float32([0, 1, 0, 0, 1]), axis, models())
    grays.change("atlas", "mask.dscalar.nii")
    found = grays.responses()
    np.testing.assert_array_equal(found.values, grays.series[:, [1, 4]])
    assert set(found.roi) == {"mask"}


def test_grayordinates_that_do_not_fit_are_refused(grays):
    path = grays.root / "atlas.dlabel.nii"
    other = models(left=(0, 1, 2, 3), voxels=((1, 1, 0),))
    dense(path, np.float32([1, 0, 1, 1, 2]), grays.names, other)
    with refused("bold.dtseries.nii must hold every", "1 of 4 are missing", "cortex_left.2"):
        grays.responses()
    dense(path, np.float32([1, 0, 7, 1, 2]), grays.names, models())
    with refused("must name every label", "7 is missing"):
        grays.responses()
    dense(path, np.float32([1, 0, 0, 1, 2]), grays.names, models(affine=np.diag([3.0, 3, 3, 1])))
    with refused("must have the affine of", "bold.dtseries.nii"):
        grays.responses()
    cortex = cifti2.BrainModelAxis.from_surface([0, 1], 5, name="CortexLeft")
    dense(path, np.float32([1, 0]), grays.names, cortex)
    with refused("must have the surface of", "4 vertices", "found 5"):
        grays.responses()


def test_the_start_of_a_series_is_read(grays):
    path = grays.root / "bold.dtseries.nii"
    dense(path, grays.series, cifti2.SeriesAxis(0.75, TR_S, 40), models())
    with refused(path, "0.5 s by start_s in images.csv", "0.75 s by its header"):
        grays.responses()
    grays.change("start_s", "")
    assert grays.responses().time_s[0] == 0.75
    (grays.root / "bold.json").write_text('{"StartTime": 1.0}')
    with refused(path, "0.75 s by its header", "1 s by StartTime in bold.json"):
        grays.responses()


def test_another_tr_or_axis_is_refused(grays):
    path = grays.root / "bold.dtseries.nii"
    dense(path, grays.series, cifti2.SeriesAxis(0, 2.0, 40), models())
    with refused(path, "a TR of 2 s, tr_s is 1.5 s"):
        grays.responses()
    dense(path, grays.series, cifti2.SeriesAxis(0, TR_S, 40, unit="HERTZ"), models())
    with refused(path, "must be time", "'HERTZ'"):
        grays.responses()
    dense(path, grays.series[:1], cifti2.ScalarAxis(["x"]), models())
    with refused(path, "rows of time or maps", "ScalarAxis x BrainModelAxis"):
        grays.responses()


def test_kinds_that_differ_are_refused(grays):
    grays.volume("atlas.nii", ATLAS.astype(np.int16))
    grays.change("atlas", "atlas.nii")
    with refused("atlas.nii must be of the kind of", "CIFTI, found NIfTI"):
        grays.responses()


def test_truncated_grayordinates_are_refused(grays):
    truncate(grays.root / "bold.dtseries.nii", 0.9)
    with refused("bold.dtseries.nii", "must be a whole image"):
        grays.responses()


# Surfaces

NAMES = [(0, "???"), (1, "V1"), (2, "V2"), (5, "TE")]


@pytest.fixture
def surfaces(folder, rng):
    folder.series = {}
    for side in "LR":
        folder.series[side] = rng.normal(size=(40, 8)).astype(np.float32)
        folder.surface(f"{side}.func.gii", folder.series[side])
        labels = ATLAS.astype(np.int32)
        folder.surface(f"{side}.label.gii", labels, names=NAMES, intent="NIFTI_INTENT_LABEL")
        folder.add(f"{side}.func.gii", f"{side}.label.gii", hemisphere=side)
    return folder


def test_hemispheres_stand_side_by_side(surfaces):
    found = surfaces.responses()
    inside = np.flatnonzero(ATLAS)
    expected = [surfaces.series[side][:, inside] for side in "LR"]
    np.testing.assert_array_equal(found.values, np.concatenate(expected, axis=1))
    assert found.roi[:3] == ["V1", "V2", "V2"]
    assert found.target[:2] == ["L.1", "L.2"]
    assert found.target[6] == "R.1"


def test_parcels_of_hemispheres(surfaces):
    for row in (0, 1):
        surfaces.change("targets", "means", row)
    found = surfaces.responses()
    assert found.roi == ["V1", "V2", "TE"] * 2
    assert found.target == ["L.mean"] * 3 + ["R.mean"] * 3


@pytest.mark.parametrize(
    "step,is_good", [("1500.0", True), ("1.5", True), ("2000", False), ("2", False), ("x", False)]
)
def test_the_time_step_must_be_the_tr(surfaces, step, is_good):
    surfaces.surface("L.func.gii", surfaces.series["L"], step=step)
    if is_good:
        assert surfaces.responses().tr_s == 1.5
    else:
        with refused(surfaces.root / "L.func.gii"):
            surfaces.responses()


def test_surfaces_that_do_not_fit_are_refused(surfaces, rng):
    surfaces.surface("L.label.gii", ATLAS[:7].astype(np.int32), names=NAMES)
    with refused("L.label.gii must have the vertices of", "8", "(7,)"):
        surfaces.responses()
    surfaces.surface("L.label.gii", ATLAS.astype(np.int32), names=NAMES[:3])
    with refused("L.label.gii must name every label", "5 is missing"):
        surfaces.responses()
    path = surfaces.root / "L.func.gii"
    block = nib.gifti.GiftiDataArray(surfaces.series["L"].T.copy())
    nib.save(nib.gifti.GiftiImage(darrays=[block]), path)
    with refused(path, "an array per TR", "found 1 of shape (8, 40)"):
        surfaces.responses()
    truncate(surfaces.root / "R.label.gii", 0.8)
    surfaces.surface("L.func.gii", surfaces.series["L"])
    surfaces.surface("L.label.gii", ATLAS.astype(np.int32), names=NAMES)
    with refused("R.label.gii", "must be a whole image"):
        surfaces.responses()


def test_a_hemisphere_must_be_named_and_in_every_run(surfaces):
    surfaces.change("hemisphere", "", 0)
    with refused("hemisphere must be L or R for GIFTI", "''", "row 1"):
        surfaces.responses()
    surfaces.change("hemisphere", "L", 0)
    surfaces.add("L.func.gii", "L.label.gii", run="r2", hemisphere="L")
    with refused("every hemisphere in every run of subject 's1'"):
        surfaces.responses()
