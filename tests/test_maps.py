"""Maps of a run on scans: equal to its scores voxel by voxel, in a folder that BIDS accepts."""

import json
import shutil
import subprocess

import nibabel as nib
import numpy as np
import pandas as pd
import planted_scans
import pytest
import tiny
from refusals import refused

import jaxalign
from jaxalign import maps
from jaxalign.data import datasets
from jaxalign.data.formats import grids
from jaxalign.io import rows
from jaxalign.reporting.maps import contents
from jaxalign.results import target_tables
from jaxalign.stages import Job, encode, report

CONFIG = encode.Config(
    alphas=(1.0, 100.0),
    num_folds=3,
    delays=(1, 2),
    controls=("word_length",),
    layers=(1, 2),
    permutations=9,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("maps")


@pytest.fixture(scope="module")
def made(folder, mesh):
    """The scores of the small encoder on scans, and the job that made them."""
    planted_scans.write(folder / "tale", np.random.default_rng(0))
    dataset = datasets.find(str(folder / "tale"), None)
    job = Job(workdir=folder / "work", data_root=None, dataset=dataset, mesh=mesh, seed=0)
    return job, tiny.run(job, tiny.bert(untrained_seed=-1), CONFIG)[1]


@pytest.fixture(scope="module")
def run(made):
    """The work directory."""
    return made[0].workdir


@pytest.fixture(scope="module")
def written(run, folder):
    return jaxalign.write_maps(run, path=folder / "out", minus="word_length")


def of(written, subject, column="score"):
    """Return a column of the model's targets of a subject, by their name."""
    rows = written.targets
    rows = rows[(rows.subject == subject) & (rows.control_of == "")]
    return dict(zip(rows.target, rows[column], strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("desc", "column"),
    [("bertScore", "score"), ("bertR2", "r2"), ("bertPenalty", "alpha"), ("bertP", "p")]
    + [("bertBestLayer", "best_layer"), ("bertPFdr", "p_fdr"), ("bertPMax", "p_max")],
)
def test_a_volume_is_that_of_the_table(written, folder, desc, column):
    image = nib.load(
        written.path / f"sub-s0/func/{planted_scans.VOLUME}_desc-{desc}_statmap.nii.gz"
    )
    scan = nib.load(next((folder / "tale").glob("sub-s0*.nii.gz")))
    np.testing.assert_array_equal(image.affine, scan.affine)
    assert image.header["sform_code"] == 4 and image.shape == planted_scans.INSIDE.shape
    values, expected = image.get_fdata(), of(written, "s0", column)
    assert (np.isfinite(values) <= (planted_scans.INSIDE == 1)).all()
    for target, value in expected.items():
        voxel = tuple(map(int, target.split(".")[-1].split("-")))
        np.testing.assert_array_equal(values[voxel], np.float32(value))


@pytest.mark.slow
def test_grayordinates_and_vertices_are_those_of_the_table(written):
    gray = nib.load(
        written.path / f"sub-s1/func/{planted_scans.GRAY}_desc-bertScore_statmap.dscalar.nii"
    )
    assert gray.header.get_axis(1) == planted_scans.models()
    values = gray.get_fdata()[0]
    assert np.isnan(values[[1, 5]]).all()
    expected = np.float32(list(of(written, "s1").values()))
    np.testing.assert_array_equal(values[[0, 2, 3, 4, 6]], expected)
    scores = of(written, "s2")
    for side, inside in planted_scans.VERTICES.items():
        name = planted_scans.SURFACE.format(side)
        found = nib.load(written.path / f"sub-s2/func/{name}_desc-bertScore_statmap.func.gii")
        values = found.darrays[0].data
        own = [np.float32(x) for target, x in scores.items() if f".{side}." in f".{target}"]
        np.testing.assert_array_equal(values[inside == 1], own)
        assert np.isnan(values[inside == 0]).all()


@pytest.mark.slow
def test_what_stands_beside_a_map(written, run):
    stem = f"sub-s0/func/{planted_scans.VOLUME}_desc-bertScore_statmap"
    about = json.loads((written.path / f"{stem}.json").read_text())
    row = written.targets.iloc[0]
    assert about["Units"] == about["Metric"] == "pearson_r"
    assert (about["Model"], about["FoldsHash"]) == ("bert", row.folds_hash)
    assert about["SpatialReference"].startswith("MNI152NLin6Asym") and about["Resolution"]
    assert about["NumTargets"] == about["NumDefined"] == planted_scans.INSIDE.sum()
    assert "chosen inside the training data" in about["Description"]
    layers = json.loads(
        (written.path / stem.replace("Score", "BestLayer")).with_suffix(".json").read_text()
    )
    assert layers["Layers"] == {"1": "block.1", "2": "block.2"}
    table = pd.read_parquet(written.path / "targets.parquet")
    assert set(table.name) == {"bert", "word_length of bert"}
    own = table[table.name == "bert"].set_index(["subject", "target"])
    other = table[table.name != "bert"].set_index(["subject", "target"]).score
    assert own.num_orders.eq(9).all() and (own.p_max >= own.p).all()
    assert table.p[table.name != "bert"].isna().all()
    difference = written.differences.set_index(["subject", "target"]).difference
    np.testing.assert_allclose(difference, (own.score - other).loc[difference.index])
    name = f"sub-s0/func/{planted_scans.VOLUME}_desc-bertMinusWordLengthOfBert_statmap.nii.gz"
    assert name in written.files


@pytest.mark.slow
def test_maps_are_written_in_the_place_of_others(run, written, folder, capsys):
    again = folder / "again"
    assert maps.main([str(run), f"--out={again}", "--minus=word_length"]) == 0
    assert "maps and 32 rows of targets in" in capsys.readouterr().out
    assert sorted(written.files) == json.loads((again / ".jaxalign.json").read_text())["files"]
    for name in written.files:
        assert (again / name).read_bytes() == (written.path / name).read_bytes()
    (again / "mine.txt").write_text("kept")
    jaxalign.write_maps(run, path=again)
    assert not list(again.glob("**/*Minus*")) and (again / "mine.txt").read_text() == "kept"


@pytest.mark.slow
def test_what_cannot_be_written_is_said(run, folder, tmp_path):
    with refused("minus must be among bert, word_length, got 'gpt'"):
        jaxalign.write_maps(run, path=tmp_path / "out", minus="gpt")
    with refused("path must be an empty folder or one that maps were written to", "tale"):
        jaxalign.write_maps(run, path=folder / "tale")
    with refused("must hold finished scores of the stage encode: found none"):
        jaxalign.write_maps(tmp_path, path=tmp_path / "out")
    shutil.copytree(run, tmp_path / "old")
    for path in (tmp_path / "old").glob("encode/*/targets.parquet"):
        path.unlink()
    with refused("targets.parquet is missing: scores of this run are of an earlier version"):
        jaxalign.write_maps(tmp_path / "old", path=tmp_path / "out")


@pytest.mark.slow
def test_the_validator_of_bids_accepts_the_folder(written):
    validator = shutil.which("bids-validator-deno")
    if validator is None:
        pytest.skip("bids-validator-deno is not installed")
    found = subprocess.run(
        [validator, "--json", str(written.path)], capture_output=True, text=True, check=False
    )
    issues = json.loads(found.stdout)["issues"]["issues"]
    assert [x for x in issues if x["severity"] == "error"] == []


@pytest.mark.slow
def test_the_page_shows_them_and_says_which_scores_count(made, written, folder):
    """With a report, the scores that it shows are written, and no others."""
    pytest.importorskip("nilearn", reason="nilearn is not installed: extra `brain`")
    job, encoded = made
    (page,) = tiny.make(report.plan(report.Config(), job, {"encode": encoded[:1]}))
    text = (page.path / "index.html").read_text()
    assert "Slices from below to above: pearson r of bert on tale for subject s0" in text
    assert (page.path / "map_tale_bert.svg").is_file()
    try:
        found = jaxalign.write_maps(job.workdir, path=folder / "shown")
    finally:
        shutil.rmtree(page.path)
    assert set(found.targets.name) == {"bert"} and found.targets.p.isna().all()
    name = f"sub-s0/func/{planted_scans.VOLUME}_desc-bertScore_statmap.nii.gz"
    assert (found.path / name).read_bytes() == (written.path / name).read_bytes()


# What there is a map of


def test_ceilings_are_of_a_data_set_and_other_labels_differ():
    frame = grids.Frame(
        kind=grids.NIFTI,
        voxel=np.array([[0, 0, 0], [0, 0, 1]]),
        vertex=np.full(2, -1),
        structure=np.zeros(2, int),
        shape=(1, 1, 2),
        affine=np.eye(4),
    )
    grid = grids.place(frame, "s", np.array([1, 0]), [("A", "0"), ("A", "1")])
    row = dict.fromkeys(rows.TARGETS.names, "") | dict.fromkeys(target_tables.TESTED, np.nan)
    row |= {"dataset": "d", "subject": "s", "roi": "A", "metric": "r", "versions": "{}"}
    row |= {"best_layer": -1, "layer": 0, "num_samples": 9, "fingerprint": "f"}
    row |= dict.fromkeys(("protocol_score", "r2", "alpha"), np.nan)
    table = pd.DataFrame(
        row | {"model": name, "name": name, "target": str(i), "score": 0.5, "ceiling": ceiling}
        for name in ("a/b", "a.b")
        for i, ceiling in enumerate([0.8, np.nan])
    )
    tables = target_tables.Tables(table, {"d": [grid]}, {"f": {0: "embedding"}})
    found = {x.desc: x for x in contents.every(tables, target_tables.differences(table))}
    assert set(found) == {"aBScore", "aBx2Score", "aBLayer", "aBx2Layer", "ceiling", "aBMinusABx2"}
    np.testing.assert_array_equal(grid.values(found["ceiling"].values), [np.nan, 0.8])
    assert found["ceiling"].model == "" and "Model" not in found["ceiling"].about
    assert found["aBLayer"].about["Layers"] == {"0": "embedding"}


# Pairs of models


def test_differences_are_of_what_shares_folds():
    def scored(model, score, **changes):
        same = dict.fromkeys(target_tables.SAME, "same") | {"subject": "s", "roi": "A"}
        row = same | {"model": model, "name": model, "control_of": ""} | changes
        return [row | {"target": str(i), "score": x} for i, x in enumerate(score)]

    table = pd.DataFrame(
        scored("a", [0.3, 0.5])
        + scored("b", [0.1, np.nan])
        + scored("c", [0.2, 0.2], folds_hash="other")
    )
    found = target_tables.differences(table)
    assert found[["name", "minus"]].drop_duplicates().to_numpy().tolist() == [["a", "b"]]
    np.testing.assert_allclose(found.difference, [0.2, np.nan])
    swapped = target_tables.differences(table, "a")
    np.testing.assert_allclose(swapped.difference, [-0.2, np.nan])
    with refused("minus must be scored on the same data set and folds", "'c' is not"):
        target_tables.differences(table, "c")
