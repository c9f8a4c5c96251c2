"""One's own scans: volumes, grayordinates and surfaces, whole and spoiled."""

import nibabel as nib
import numpy as np
import pytest
from nibabel import cifti2
from recordings import truncate, write_table
from refusals import refused

from jaxalign.data import datasets

TR_S = 1.5
HEADER = ["subject", "run", "image", "atlas", "targets", "tr_s", "start_s", "labels", "hemisphere"]
AFFINE = np.diag([2.0, 2.0, 2.0, 1.0])
ATLAS = np.array([0, 1, 2, 2, 5, 0, 1, 5])  # of eight places


class Folder:
    """A directory with stimuli, to which scans are added."""

    def __init__(self, root):
        self.root = root
        self.rows = []
        words = [["a", "The", "p", "r1", 0, 1], ["b", "end", "p", "r2", 0, 1]]
        header = ["stimulus_id", "text", "passage", "run", "onset_s", "offset_s"]
        write_table(root / "stimuli.csv", header, words)
        self.named(range(6))

    def named(self, labels):
        write_table(self.root / "labels.csv", ["label", "roi"], [[i, f"A{i}"] for i in labels])

    def add(self, image, atlas, *, subject="s1", run="r1", targets="voxels", labels="", side=""):
        self.rows.append([subject, run, image, atlas, targets, TR_S, 0.5, labels, side])

    def change(self, name, value, row=-1):
        self.rows[row][HEADER.index(name)] = value

    def responses(self):
        write_table(self.root / "images.csv", HEADER, self.rows)
        return datasets.find(str(self.root), None).responses

    def volume(self, name, values, *, affine=AFFINE, tr_s=TR_S, unit="sec"):
        """Write places [T 8] as a volume of 2 x 2 x 2 in C order, or [8] as labels."""
        shape = (2, 2, 2)
        grid = values.T.reshape(*shape, -1) if values.ndim == 2 else values.reshape(shape)
        image = nib.Nifti1Image(grid, affine)
        if values.ndim == 2:
            image.header.set_xyzt_units("mm", unit)
            image.header.set_zooms((2.0, 2.0, 2.0, tr_s))
        nib.save(image, self.root / name)

    def surface(self, name, values, *, names=(), step=None, intent="NIFTI_INTENT_TIME_SERIES"):
        series = [nib.gifti.GiftiDataArray(x, intent=intent) for x in np.atleast_2d(values)]
        table = nib.gifti.GiftiLabelTable()
        for key, label in names:
            entry = nib.gifti.GiftiLabel(key=key)
            entry.label = label
            table.labels.append(entry)
        meta = nib.gifti.GiftiMetaData({} if step is None else {"TimeStep": step})
        image = nib.gifti.GiftiImage(darrays=series, labeltable=table, meta=meta)
        nib.save(image, self.root / name)


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


@pytest.fixture
def series(rng):
    return rng.normal(size=(40, 8)).astype(np.float32)


@pytest.fixture
def scanned(folder, series):
    folder.volume("bold.nii.gz", series)
    folder.volume("atlas.nii", ATLAS.astype(np.int16))
    folder.add("bold.nii.gz", "atlas.nii", labels="labels.csv")
    return folder


# Volumes


def test_voxels_of_labels(scanned, series):
    found = scanned.responses()
    inside = np.flatnonzero(ATLAS)
    np.testing.assert_array_equal(found.values, series[:, inside])
    assert found.roi == [f"A{ATLAS[i]}" for i in inside]
    assert found.target == ["0-0-1", "0-1-0", "0-1-1", "1-0-0", "1-1-0", "1-1-1"]
    np.testing.assert_allclose(found.time_s, 0.5 + 1.5 * np.arange(40))
    assert (found.tr_s, set(found.run)) == (1.5, {"r1"})
    assert datasets.find(str(scanned.root), None).stimuli.text == ["The", "end"]


def test_means_of_labels(scanned, series):
    scanned.change("targets", "means")
    found = scanned.responses()
    expected = [series[:, ATLAS == i].mean(axis=1, dtype=np.float64) for i in (1, 2, 5)]
    np.testing.assert_allclose(found.values, np.stack(expected, axis=1), atol=1e-6)
    assert found.roi == ["A1", "A2", "A5"]
    assert set(found.target) == {"mean"}


def test_a_mask_needs_no_names(scanned, series):
    scanned.volume("atlas.nii", (ATLAS > 0).astype(np.float64))
    scanned.change("labels", "")
    found = scanned.responses()
    assert set(found.roi) == {"atlas"}
    assert found.values.shape == (40, 6)


def test_runs_stand_below_and_subjects_beside_each_other(folder, rng):
    folder.volume("atlas.nii", ATLAS.astype(np.int16))
    folder.volume("own.nii", ATLAS[::-1].astype(np.int16))
    data = {}
    for subject in ("s1", "s2"):
        for run, n in (("r1", 40), ("r2", 30)):
            data[subject, run] = rng.normal(size=(n, 8)).astype(np.float32)
            folder.volume(f"{subject}_{run}.nii.gz", data[subject, run])
            folder.add(
                f"{subject}_{run}.nii.gz",
                "atlas.nii",
                subject=subject,
                run=run,
                labels="labels.csv",
            )
    inside = np.flatnonzero(ATLAS)
    expected = [np.concatenate([data[s, r][:, inside] for r in ("r1", "r2")]) for s in ("s1", "s2")]
    # The order of rows does not matter.
    for rows in (folder.rows, folder.rows[:2] + folder.rows[:1:-1]):
        folder.rows = rows
        found = folder.responses()
        np.testing.assert_array_equal(found.values, np.concatenate(expected, axis=1))
        assert found.run == ["r1"] * 40 + ["r2"] * 30
    # One atlas for all: the same place. An atlas of one's own: nobody else's.
    assert found.target[:6] == found.target[6:]
    for row in (2, 3):
        folder.change("atlas", "own.nii", row)
    found = folder.responses()
    assert len(set(found.target)) == 12


def test_large_scans_are_read_in_blocks(folder, rng):
    values = rng.normal(size=(101, 8)).astype(np.float32)
    folder.volume("bold.nii", values)
    folder.volume("atlas.nii", np.ones(8, np.uint8))
    folder.add("bold.nii", "atlas.nii")
    np.testing.assert_array_equal(folder.responses().values, values)


@pytest.mark.parametrize(
    "tr_s,unit,is_good",
    [
        (1.5, "sec", True),
        (1500, "msec", True),
        (1.5, "unknown", True),
        (0, "sec", True),
        (2.0, "sec", False),
        (1.5, "msec", False),
        (1.5, "hz", False),
    ],
)
def test_the_header_must_tell_of_the_same_tr(scanned, series, tr_s, unit, is_good):
    scanned.volume("bold.nii.gz", series, tr_s=tr_s, unit=unit)
    if is_good:
        assert scanned.responses().tr_s == 1.5
    else:
        with refused(scanned.root / "bold.nii.gz"):
            scanned.responses()


def test_grids_that_differ_are_refused(scanned):
    scanned.volume("atlas.nii", ATLAS.astype(np.int16), affine=np.diag([2.0, 2.0, 2.1, 1.0]))
    with refused("atlas.nii must have the affine of", "bold.nii.gz", "0.1 mm", "resample"):
        scanned.responses()
    image = nib.Nifti1Image(np.ones((2, 2, 3), np.int16), AFFINE)
    nib.save(image, scanned.root / "atlas.nii")
    with refused("atlas.nii must have the grid of", "(2, 2, 2)", "(2, 2, 3)"):
        scanned.responses()


def test_atlases_that_are_none_are_refused(scanned, series):
    path = scanned.root / "atlas.nii"
    scanned.volume("atlas.nii", ATLAS / 2)
    with refused(path, "whole numbers", "0.5"):
        scanned.responses()
    scanned.volume("atlas.nii", np.zeros(8, np.int16))
    with refused(path, "must mark something"):
        scanned.responses()
    scanned.volume("atlas.nii", series)
    with refused(path, "3 dimensions", "(2, 2, 2, 40)"):
        scanned.responses()


def test_labels_without_a_name_are_refused(scanned):
    scanned.named([1, 2])
    with refused("labels.csv must name every label of", "atlas.nii", "5 is missing"):
        scanned.responses()
    scanned.change("labels", "")
    with refused("atlas.nii has no names of labels", "mask of 0 and 1", "5"):
        scanned.responses()
    write_table(scanned.root / "labels.csv", ["label", "roi"], [[1, "A"], [2, "A"], [5, "B"]])
    scanned.change("labels", "labels.csv")
    assert set(scanned.responses().roi) == {"A", "B"}
    scanned.change("targets", "means")
    with refused("labels.csv must name each label differently", "'A' twice"):
        scanned.responses()
    write_table(scanned.root / "labels.csv", ["number", "roi"], [[1, "A"]])
    with refused("labels.csv must have column 'label'"):
        scanned.responses()


@pytest.mark.parametrize("name", ["bold.nii.gz", "atlas.nii"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.8])
def test_truncated_images_are_refused(scanned, name, share):
    truncate(scanned.root / name, share)
    with refused(scanned.root / name, "must be a whole image"):
        scanned.responses()


def test_nan_is_left_out_throughout_and_refused_in_part(scanned, series):
    series[:, 1] = np.nan
    scanned.volume("bold.nii.gz", series)
    assert scanned.responses().target[0] == "0-1-0"
    series[20:, 2] = np.nan
    scanned.volume("bold.nii.gz", series)
    with refused("'s1'", "1 targets", "20 of 40", "run r1", "A2/0-1-0"):
        scanned.responses()


# The table


@pytest.mark.parametrize(
    "name,value,parts",
    [
        ("subject", "", ["subject must not be empty", "row 1"]),
        ("targets", "parcels", ["targets must be one of voxels, means", "'parcels'", "row 1"]),
        ("tr_s", "fast", ["tr_s must hold numbers", "fast"]),
        ("hemisphere", "L", ["hemisphere must be L or R for GIFTI and empty otherwise", "'L'"]),
        ("image", "other.nii.gz", ["needs", "other.nii.gz", "missing"]),
        ("image", "stimuli.csv", ["stimuli.csv must be .nii, .nii.gz"]),
        ("image", "x.ptseries.nii", ["x.ptseries.nii is parcellated already", ".dlabel.nii"]),
        ("subject", "group", ["images.csv", "'group'"]),
    ],
)
def test_a_row_that_is_malformed_is_refused(scanned, name, value, parts):
    (scanned.root / "x.ptseries.nii").touch()
    scanned.change(name, value)
    with refused(*parts):
        scanned.responses()


def test_a_table_without_a_column_or_a_row_is_refused(scanned):
    rows, scanned.rows = scanned.rows, []
    with refused("images.csv must have at least one row"):
        scanned.responses()
    write_table(scanned.root / "images.csv", HEADER[:-4], [row[:-4] for row in rows])
    with refused("images.csv must have column 'tr_s'"):
        _ = datasets.find(str(scanned.root), None).responses


def test_pickles_are_refused(scanned):
    (scanned.root / "bold.pkl").write_bytes(b"x")
    scanned.change("image", "bold.pkl")
    with refused("bold.pkl is a pickle"):
        scanned.responses()


def test_subjects_must_have_the_same_runs_of_the_same_length(scanned, rng):
    scanned.volume("long.nii.gz", rng.normal(size=(41, 8)))
    scanned.add("long.nii.gz", "atlas.nii", subject="s2", labels="labels.csv")
    with refused("long.nii.gz: run 'r1' must have 40 TRs from 0.5 s on", "41"):
        scanned.responses()
    scanned.volume("long.nii.gz", rng.normal(size=(40, 8)))
    scanned.change("start_s", 0)
    with refused("must have 40 TRs from 0.5 s on", "40 from 0.0"):
        scanned.responses()
    scanned.change("start_s", 0.5)
    scanned.change("run", "r2")
    with refused("same runs for every subject, r1, but 's2' has r2"):
        scanned.responses()
    scanned.change("subject", "s1")
    scanned.change("run", "r1")
    with refused("one row per subject, run and hemisphere", "'s1', 'r1'"):
        scanned.responses()
    scanned.change("run", "r2")
    scanned.change("tr_s", 2)
    with refused("tr_s must be the same in every row", "[1.5, 2.0]"):
        scanned.responses()
    scanned.change("tr_s", 1.5)
    scanned.volume("other.nii", ATLAS[::-1].astype(np.int16))
    scanned.change("atlas", "other.nii")
    with refused("the atlas must mark the same targets in every run", "'s1'", "'r2'"):
        scanned.responses()


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


def test_kinds_that_differ_are_refused(grays, series):
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
        folder.add(f"{side}.func.gii", f"{side}.label.gii", side=side)
    return folder


def test_hemispheres_stand_side_by_side(surfaces):
    found = surfaces.responses()
    inside = np.flatnonzero(ATLAS)
    expected = [surfaces.series[side][:, inside] for side in "LR"]
    np.testing.assert_array_equal(found.values, np.concatenate(expected, axis=1))
    assert found.roi[:3] == ["V1", "V2", "V2"]
    assert found.target[:2] == ["s1.L.1", "s1.L.2"] or found.target[:2] == ["L.1", "L.2"]
    assert found.target[6].endswith("R.1")


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
    surfaces.add("L.func.gii", "L.label.gii", run="r2", side="L")
    with refused("every hemisphere in every run of subject 's1'"):
        surfaces.responses()
