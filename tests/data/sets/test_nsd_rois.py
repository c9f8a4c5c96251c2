"""ROIs of NSD on a small grid: groups of labels, several volumes, voxels of two ROIs."""

import logging

import nibabel as nib
import numpy as np
import pytest
from recordings import nsd
from refusals import refused

from jaxalign.data import datasets
from jaxalign.data.sets import nsd as nsd_set
from jaxalign.data.sets import nsd_rois
from jaxalign.data.sets.nsd import Nsd

OPTIONS = {"subjects": ("subj01",), "num_sessions": 1}


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    root = tmp_path_factory.mktemp("nsd")
    return root, nsd(root, np.random.default_rng(0), num_sessions=1)


def test_labels_of_a_group_are_one_roi_and_of_a_volume_all(stored):
    root, written = stored
    rois = ("V1", "pRF-Visual", "FFA", "early", "nsdgeneral")
    found = Nsd(root=root, **OPTIONS, rois=rois).responses()
    mask, labels = written["mask"] == 1, written["labels"]["subj01"]
    # By the numbers of the labels, in place of their names.
    expected = {
        "V1": np.isin(labels["prf-visualrois"], (1, 2)),
        "pRF-Visual": labels["prf-visualrois"] > 0,
        "FFA": np.isin(labels["floc-faces"], (2, 3)),
        "early": labels["streams"] == 1,
        "nsdgeneral": mask,
    }
    for roi, where in expected.items():
        own = [t for t, r in zip(found.target, found.roi, strict=True) if r == roi]
        assert own == [f"subj01.{x}-{y}-{z}" for x, y, z in np.argwhere(where & mask)], roi
    assert set(found.roi) == set(rois)
    # A voxel of several ROIs is the same column in each.
    whole = Nsd(root=root, **OPTIONS).responses()
    place = {name: i for i, name in enumerate(whole.target)}
    columns = [place[name] for name in found.target]
    assert max(columns.count(i) for i in columns) > 2
    np.testing.assert_array_equal(found.values, whole.values[:, columns])


def test_voxels_without_a_label_are_counted(stored, caplog):
    root, written = stored
    with caplog.at_level(logging.INFO):
        found = Nsd(root=root, **OPTIONS, rois=("FFA",)).repeats("subj01")
    inside = written["labels"]["subj01"]["floc-faces"][written["mask"] == 1]
    assert set(found.roi) == {"FFA"}
    assert (inside == 0).any() and (inside < 0).any()
    assert (
        f"of {len(inside)} voxels of nsdgeneral {(inside == 0).sum()} are of no ROI (label 0) and "
        f"{(inside < 0).sum()} outside"
    ) in caplog.text


def test_a_voxel_is_measured_or_left_out_in_all_of_its_rois(stored, tmp_path, rng, caplog):
    import h5py

    nsd(tmp_path, rng, num_sessions=1)
    folder = tmp_path / "nsd"
    path = next(folder.glob("nsddata_betas/**/betas_session01.hdf5"))
    with h5py.File(path, "r+") as file:
        file["betas"][:, 0, 0, 0] = 7  # a dead voxel, of V1d and of nsdgeneral
    with caplog.at_level(logging.WARNING):
        found = Nsd(root=tmp_path, **OPTIONS, rois=("V1", "nsdgeneral")).responses()
    assert "subj01.0-0-0" not in found.target
    num = int((nib.load(next(folder.glob("**/nsdgeneral.nii.gz"))).get_fdata() > 0).sum())
    assert f"subj01: 1 of {num} voxels are constant in a session" in caplog.text


def test_groups_name_labels_that_are_there():
    for roi, (volume, members) in nsd_rois.GROUPS.items():
        assert set(members) <= set(nsd_rois.LABELS[volume]), roi
    names = [name for names in nsd_rois.LABELS.values() for name in names]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "options,parts",
    [
        ({"rois": ("V5",)}, ["rois must be among nsdgeneral, V1, V2", "'V5'"]),
        ({"rois": ("V1", "V1")}, ["rois must differ", "V1, V1"]),
        ({"rois": ("V1",), "atlas": "streams"}, ["atlas must be left out", "'streams'"]),
        ({"rois": ("PPA",)}, ["nsd needs", "floc-places.nii.gz", "missing"]),
        ({"rois": ("hV4",)}, ["prf-visualrois.nii.gz", "as hV4", "leave that ROI out for subj01"]),
    ],
)
def test_rois_that_are_not_there_are_refused(stored, options, parts):
    with refused(*parts):
        Nsd(root=stored[0], **OPTIONS, **options).responses()


def test_options_are_settings_of_a_run(stored, monkeypatch):
    root, _ = stored
    monkeypatch.setitem(nsd_set.NUM_SESSIONS, "subj01", 1)
    found = datasets.find("nsd-subj01", root, options=("rois=V1,FFA", "zscore=none"))
    expected = Nsd(root=root, **OPTIONS, rois=("V1", "FFA"), zscore="none").responses()
    assert found.responses.hash == expected.hash
    assert found.name == "nsd-subj01"
    for option, parts in (
        ("subjects=subj02", ["must be NAME=VALUE with one of images", "the name fixes subjects"]),
        ("sessions=3", ["must be NAME=VALUE with one of", "num_sessions", "'sessions=3'"]),
        ("num_sessions", ["must be NAME=VALUE"]),
        ("num_sessions=x", ["num_sessions must be a whole number", "'x'"]),
    ):
        with refused("options of data set nsd-subj01", *parts):
            datasets.find("nsd-subj01", root, options=(option,))
    with refused("options of data set naturalstories: verify must be True or False", "'yes'"):
        datasets.find("naturalstories", root, options=("verify=yes",))
    with refused("zscore must be among session, split, none", "'yes'"):
        datasets.find("nsd-subj01", root, options=("zscore=yes",))
    with refused("num_sessions twice"):
        datasets.find("nsd-subj01", root, options=("num_sessions=1", "num_sessions=2"))
