"""One's own scans as volumes, and the table that names them, whole and spoiled."""

import json

import nibabel as nib
import numpy as np
import pytest
from own_scans import AFFINE, ATLAS, HEADER, Folder
from recordings import truncate, write_table
from refusals import refused

from jaxalign.data import datasets


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


@pytest.mark.parametrize(
    "rows,message",
    [
        (
            [[1, "A"], [2, "B"], [1, "Z"], [5, "C"]],
            "each label once, found 1 twice: as 'A' and 'Z'",
        ),
        (
            [[1.7, "A"], [2, "B"], [5, "C"]],
            "label must be a whole number, found 1.7 in row 1 ('A')",
        ),
        ([["nan", "A"], [1, "B"]], "label must be a whole number, found nan in row 1 ('A')"),
        ([["inf", "A"], [1, "B"]], "label must be a whole number, found inf in row 1 ('A')"),
        ([[1, " "], [2, "B"]], "roi must name label 1, but is empty in row 1"),
    ],
)
def test_a_table_of_labels_names_each_once(scanned, rows, message):
    write_table(scanned.root / "labels.csv", ["label", "roi"], rows)
    with refused("labels.csv", message):
        scanned.responses()


@pytest.mark.parametrize("scaled", [False, True])
def test_labels_that_were_rounded_are_meant_whole(scanned, scaled):
    """2.9999998 as float32, and integers that nibabel has scaled."""
    labels = np.where(ATLAS == 5, 4.9999998, ATLAS).reshape(2, 2, 2)
    image = nib.Nifti1Image(labels.astype(np.float64 if scaled else np.float32), AFFINE)
    image.set_data_dtype(np.int32 if scaled else np.float32)
    nib.save(image, scanned.root / "atlas.nii")
    assert scanned.responses().roi == [f"A{i}" for i in ATLAS[ATLAS > 0]]


@pytest.mark.parametrize(("name", "is_said"), [("Frontal Pole", True), ("Background", False)])
def test_an_roi_at_label_0_is_said_to_be_left_out(scanned, caplog, name, is_said):
    rows = [[0, name], [1, "A"], [2, "B"], [5, "C"]]
    write_table(scanned.root / "labels.csv", ["label", "roi"], rows)
    assert set(scanned.responses().roi) == {"A", "B", "C"}
    assert ("label 0 is the background, and 'Frontal Pole' is left out" in caplog.text) == is_said


def test_negative_labels_are_counted_as_background(scanned, caplog):
    labels = np.where(ATLAS == 2, -3, ATLAS).reshape(2, 2, 2).astype(np.int16)
    nib.save(nib.Nifti1Image(labels, AFFINE), scanned.root / "atlas.nii")
    assert set(scanned.responses().roi) == {"A1", "A5"}
    said = "atlas.nii: 2 of 8 places have a negative label, from -3, and count as background"
    assert said in caplog.text


def test_labels_that_are_not_in_the_image_are_named(scanned, caplog):
    rows = [[0, "background"], [1, "A"], [2, "B"], [5, "C"], [7, "Lost"]]
    write_table(scanned.root / "labels.csv", ["label", "roi"], rows)
    assert set(scanned.responses().roi) == {"A", "B", "C"}
    assert "labels.csv: 1 of 5 labels are not in atlas.nii: 7 (Lost)" in caplog.text


def test_an_roi_keeps_its_name_without_some_voxels(scanned, series, caplog):
    scanned.change("targets", "means")
    inside = np.flatnonzero(ATLAS == 1)
    series[:, inside[0]] = np.nan
    scanned.volume("bold.nii.gz", series)
    found = scanned.responses()
    assert found.roi == ["A1", "A2", "A5"]
    np.testing.assert_allclose(found.values[:, 0], series[:, inside[1:]].mean(axis=1), atol=1e-6)
    assert f"1 of {len(inside)} voxels of A1 are NaN throughout" in caplog.text
    series[:, inside] = np.nan
    scanned.volume("bold.nii.gz", series)
    assert scanned.responses().roi == ["A2", "A5"]
    assert "1 of 3 targets are NaN throughout and left out: A1/mean" in caplog.text


def test_the_hash_is_of_tables_scans_atlas_and_labels(scanned):
    scanned.responses()
    hashes = [datasets.find(str(scanned.root), None).hash]
    for name in ("stimuli.csv", "images.csv", "bold.nii.gz", "atlas.nii", "labels.csv"):
        (scanned.root / name).write_bytes((scanned.root / name).read_bytes() + b"\n")
        hashes.append(datasets.find(str(scanned.root), None).hash)
    assert len(set(hashes)) == 6


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


def test_a_header_of_one_second_tells_of_no_tr(scanned, series, caplog):
    scanned.volume("bold.nii.gz", series, tr_s=1.0, unit="unknown")
    assert scanned.responses().tr_s == 1.5
    assert "bold.nii.gz: its header has a TR of 1" in caplog.text


@pytest.mark.parametrize(
    "told, start_s, stimuli_start_s, expected",
    [
        ({}, 0.5, "", 0.5),
        ({"start": 1.25}, "", "", 1.25),
        ({"start": 1.25}, 1.25, "", 1.25),
        ({"start": 1250.0, "unit": "msec", "tr_s": 1500}, "", "", 1.25),
        ({"StartTime": 0.75, "RepetitionTime": 1.5}, "", "", 0.75),
        ({"StartTime": 0.75, "start": 0.75}, "", "", 0.75),
        ({"StartTime": 0.75}, "", 10, -9.25),
        ({"StartTime": 0.75}, -9.25, 10, -9.25),
        ({"VolumeTiming": [0.75 + 1.5 * i for i in range(40)]}, "", "", 0.75),
    ],
)
def test_scans_tell_when_they_start(scanned, series, told, start_s, stimuli_start_s, expected):
    tell(scanned, series, told)
    scanned.change("start_s", start_s)
    scanned.change("stimuli_start_s", stimuli_start_s)
    np.testing.assert_allclose(scanned.responses().time_s[:2], [expected, expected + 1.5])


@pytest.mark.parametrize(
    "told, start_s, parts",
    [
        ({"start": 1.0}, 0, ["bold.nii.gz", "0 s by start_s in images.csv", "1 s by its header"]),
        ({"StartTime": 1.0}, 0, ["at 0 s by start_s", "1 s by StartTime in bold.json"]),
        ({"StartTime": 0}, 0.5, ["at 0.5 s by start_s", "0 s by StartTime", "stimuli_start_s"]),
        ({"StartTime": 1.0, "start": 0.5}, "", ["0.5 s by its header", "1 s by StartTime"]),
        ({"RepetitionTime": 2.0}, 0, ["bold.json: RepetitionTime is 2 s", "tr_s", "1.5 s"]),
        ({}, "", ["start_s must be given for bold.nii.gz"]),
        ({"start": np.inf}, 0, ["bold.nii.gz: the time of its first volume must be finite"]),
        ({"StartTime": "1"}, 0, ["bold.json: StartTime must be a number of seconds, found '1'"]),
        ({"VolumeTiming": [0, 1.5, 4.5]}, 0, ["bold.json: VolumeTiming must advance evenly"]),
        ({"VolumeTiming": "x"}, 0, ["bold.json: VolumeTiming must be a list of seconds"]),
        ({"SliceTimingCorrected": "no"}, 0, ["bold.json: SliceTimingCorrected must be true"]),
    ],
)
def test_starts_that_disagree_are_refused(scanned, series, told, start_s, parts):
    tell(scanned, series, told)
    scanned.change("start_s", start_s)
    with refused(*parts):
        scanned.responses()


def test_corrected_slices_whose_time_is_not_said_are_named(scanned, series, caplog):
    tell(scanned, series, {"SliceTimingCorrected": True})
    scanned.responses()
    assert "bold.json: slice timing was corrected, but StartTime does not say" in caplog.text


@pytest.mark.parametrize("content", ["[]", "{", "[" * 100_000])
def test_a_json_file_that_is_none_is_refused(scanned, content):
    (scanned.root / "bold.json").write_text(content)
    with refused("bold.json must be a JSON object"):
        scanned.responses()


def test_the_hash_is_of_the_json_file_too(scanned):
    scanned.responses()
    before = datasets.find(str(scanned.root), None).hash
    (scanned.root / "bold.json").write_text("{}")
    assert datasets.find(str(scanned.root), None).hash != before


def tell(folder, series, told):
    """Write the scan with what goes to its header, and a JSON file with the rest."""
    header = {name: told[name] for name in ("start", "unit", "tr_s") if name in told}
    folder.volume("bold.nii.gz", series, **header)
    if rest := {name: value for name, value in told.items() if name not in header}:
        (folder.root / "bold.json").write_text(json.dumps(rest))


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
    with refused("labels.csv must name every label of", "atlas.nii", "5 is missing", "set it to 0"):
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
    path = scanned.root / "bold.nii.gz"
    with refused(path, "'s1'", "1 targets", "20 of 40", "run r1", "A2/0-1-0"):
        scanned.responses()


def test_a_copy_under_another_subject_is_refused(scanned):
    scanned.add("bold.nii.gz", "atlas.nii", subject="s2", labels="labels.csv")
    with refused("images.csv", "two subjects must differ", "'s1' and 's2'"):
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
    write_table(scanned.root / "images.csv", HEADER[:-5], [row[:-5] for row in rows])
    with refused("images.csv must have column 'tr_s'"):
        _ = datasets.find(str(scanned.root), None).responses


def test_pickles_are_refused(scanned):
    (scanned.root / "bold.pkl").write_bytes(b"x")
    scanned.change("image", "bold.pkl")
    with refused("bold.pkl is a pickle"):
        scanned.responses()


@pytest.mark.slow
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
