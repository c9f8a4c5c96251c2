"""NSD on a small grid: betas, their scale, z-scores, masks with all labels, repeats, images."""

import logging
import re
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
from recordings import nsd, rewrite_hdf5, truncate, write_hdf5, write_table
from refusals import refused

from jaxalign.data.sets import nsd_files
from jaxalign.data.sets.nsd import Nsd

OPTIONS = {"subjects": ("subj01",), "num_sessions": 2}
BETAS = "nsddata_betas/ppdata/subj01/func1pt8mm/betas_fithrf_GLMdenoise_RR/betas_session02"
ROI = "nsddata/ppdata/subj01/func1pt8mm/roi"


@pytest.fixture(scope="module", params=["hdf5", "nii.gz"])
def stored(request, tmp_path_factory):
    root = tmp_path_factory.mktemp("nsd")
    return root, nsd(root, np.random.default_rng(0), kind=request.param)


@pytest.fixture
def copy(tmp_path, rng):
    nsd(tmp_path, rng)
    return tmp_path / "nsd"


def responses(folder, **options):
    return Nsd(root=folder.parent, **(OPTIONS | options)).responses()


def expected_means(written, subject, mask, shown):
    """Z-score each session in float64 and average the trials of each image."""
    betas = written["betas"][subject][mask].T / 300.0
    sessions = betas.reshape(-1, 750, betas.shape[1])
    sessions = (sessions - sessions.mean(axis=1, keepdims=True)) / sessions.std(
        axis=1, keepdims=True
    )
    scored = sessions.reshape(betas.shape)
    trials = written["images"][subject]
    return np.stack([scored[trials == image].mean(axis=0) for image in shown])


def test_betas_are_scored_by_session_and_averaged_over_repeats(stored):
    root, written = stored
    found = Nsd(root=root, **OPTIONS).responses()
    shown = [int(name.removeprefix("nsd")) for name in found.stimulus_id]
    mask = written["mask"] == 1
    np.testing.assert_allclose(
        found.values, expected_means(written, "subj01", mask, shown), atol=1e-6
    )
    assert found.values.dtype == np.float32
    assert found.units == "z-scored percent signal change"
    assert found.target == [f"subj01.{x}-{y}-{z}" for x, y, z in np.argwhere(mask)]
    assert set(found.roi) == {"nsdgeneral"}


def test_without_z_scores_the_scale_is_percent(stored):
    root, written = stored
    found = Nsd(root=root, **OPTIONS, zscore="none").responses()
    shown = [int(name.removeprefix("nsd")) for name in found.stimulus_id]
    percent = written["betas"]["subj01"][written["mask"] == 1].T / 300.0
    trials = written["images"]["subj01"]
    expected = np.stack([percent[trials == image].mean(axis=0) for image in shown])
    np.testing.assert_allclose(found.values, expected, atol=1e-5)
    assert found.units == "percent signal change"


def test_images_of_ones_own_train_and_shared_ones_test(stored):
    root, written = stored
    found = Nsd(root=root, **OPTIONS).responses()
    shown = np.array([int(name.removeprefix("nsd")) for name in found.stimulus_id])
    assert sorted(shown.tolist()) == sorted(set(written["images"]["subj01"].tolist()))
    is_test = np.array(found.run) == "test"
    # Of the shared ones, 60 were shown; all others are 1,330.
    assert (is_test.sum(), (~is_test).sum()) == (60, 1330)
    np.testing.assert_array_equal(is_test, np.isin(shown, np.arange(0, 10000, 10)))
    only = Nsd(root=root, **OPTIONS, images="shared").responses()
    np.testing.assert_array_equal(only.values, found.values[is_test])
    assert set(only.run) == {"test"}


@pytest.mark.slow
def test_every_label_of_an_atlas_is_a_roi_inside_the_mask(stored):
    root, written = stored
    found = Nsd(root=root, **OPTIONS, atlas="prf-visualrois").responses()
    mask = (written["mask"] == 1) & (written["atlas"] > 0)
    names = {1: "V1v", 2: "V1d", 3: "V2v"}
    assert found.roi == [names[int(i)] for i in written["atlas"][mask]]
    assert set(found.roi) == set(names.values())
    whole = Nsd(root=root, **OPTIONS).responses()
    place = {name: i for i, name in enumerate(whole.target)}
    columns = [place[name] for name in found.target]
    np.testing.assert_array_equal(found.values, whole.values[:, columns])


def test_repeats_average_to_the_responses(stored):
    root, _ = stored
    found = Nsd(root=root, **OPTIONS).repeats("subj01")
    mean = Nsd(root=root, **OPTIONS, images="shared").responses()
    assert found.values.shape[:2] == (3, 60)
    seen = (~np.isnan(found.values).any(axis=2)).sum(axis=0)
    assert (seen == 3).sum() == 50 and (seen == 2).sum() == 10
    np.testing.assert_allclose(np.nanmean(found.values, axis=0), mean.values, atol=1e-6)
    assert list(found.stimulus_id) == list(mean.stimulus_id)
    assert found.target == mean.target


@pytest.mark.slow
def test_subjects_share_the_images_that_all_saw(tmp_path, rng):
    written = nsd(tmp_path, rng, subjects=("subj01", "subj05"), num_sessions=1)
    options = {"subjects": ("subj01", "subj05"), "images": "shared", "num_sessions": 1}
    found = Nsd(root=tmp_path, **options).responses()
    mask = written["mask"] == 1
    shown = [int(name.removeprefix("nsd")) for name in found.stimulus_id]
    assert shown == list(range(0, 600, 10))
    for i, subject in enumerate(options["subjects"]):
        own = found.values[:, i * mask.sum() : (i + 1) * mask.sum()]
        expected = expected_means(written, subject, mask, shown)
        np.testing.assert_allclose(own, expected, atol=1e-6)
    # The same place in two brains is not the same voxel.
    assert len(set(found.target)) == 2 * mask.sum()
    with refused("images must be 'shared' for several subjects", "'all' for subj01, subj05"):
        Nsd(root=tmp_path, subjects=("subj01", "subj05"))


@pytest.mark.parametrize("kind", ["hdf5", "nii.gz"])
def test_of_a_session_only_voxels_of_the_mask_are_held(tmp_path, rng, kind):
    shape = (12, 11, 10)
    stored = rng.integers(-3000, 3000, (*shape, 750)).astype(np.int16)
    path = tmp_path / f"betas_session01.{kind}"
    if kind == "hdf5":
        write_hdf5(path, {"betas": stored.transpose()}, chunks=(750, 1, 1, 1))
    else:
        nib.save(nib.Nifti1Image(stored, np.eye(4)), path)
    mask = np.zeros(shape, bool)
    mask[2, 3, 7:9] = mask[8, 0, 0] = True
    tracemalloc.start()
    found = nsd_files.betas(path, mask)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_array_equal(found, stored[mask].T)
    # A NIfTI is unpacked a few volumes at a time; a voxel of HDF5 is a chunk.
    assert peak < stored.nbytes / (10 if kind == "hdf5" else 3)


def test_a_voxel_that_is_constant_in_a_session_is_left_out(copy, caplog):
    path = copy / f"{BETAS}.hdf5"
    mask = np.argwhere(nib.load(copy / ROI / "nsdgeneral.nii.gz").get_fdata() > 0)
    import h5py

    with h5py.File(path, "r+") as file:
        x, y, z = mask[3]
        file["betas"][:, z, y, x] = 0
    with caplog.at_level(logging.WARNING):
        found = responses(copy)
    assert found.values.shape[1] == len(mask) - 1
    assert f"subj01.{x}-{y}-{z}" not in found.target
    assert f"nsd subj01: 1 of {len(mask)} voxels are constant in a session" in caplog.text
    assert Nsd(root=copy.parent, **OPTIONS).repeats("subj01").target == found.target


@pytest.mark.slow
def test_stimuli_are_images_with_captions_where_there_are_any(copy):
    adapter = Nsd(root=copy.parent, **OPTIONS)
    found, stimuli = responses(copy), adapter.stimuli()
    assert (stimuli.unit, list(stimuli.text)) == ("image", [])
    assert (stimuli.stimulus_id, stimuli.run) == (found.stimulus_id, found.run)
    # No image is context of another.
    assert len(set(stimuli.passage)) == len(stimuli)
    before = stimuli.hash
    shown = [int(name.removeprefix("nsd")) for name in found.stimulus_id]
    rows = [[i, f"A dog, number {i}."] for i in shown]
    write_table(copy / "captions.csv", ["nsdId", "caption"], rows)
    stimuli = adapter.stimuli()
    assert stimuli.text[0] == f"A dog, number {shown[0]}."
    assert stimuli.hash != before
    write_table(copy / "captions.csv", ["nsdId", "caption"], rows[1:])
    with refused(copy / "captions.csv", "1 of 1390 lack one", f"nsdId {shown[0]}"):
        adapter.stimuli()
    write_table(copy / "captions.csv", ["nsdId", "caption"], [*rows, rows[5]])
    with refused(copy / "captions.csv", "one caption per nsdId", f"'{shown[5]}'"):
        adapter.stimuli()


def test_pixels_are_read_by_image(copy, rng):
    pixels = Nsd(root=copy.parent, **OPTIONS).stimuli().pixels
    with refused("pixels of images must lie in", "nsd_stimuli.hdf5", "missing"):
        pixels.read([0])
    brick = rng.integers(0, 256, (12000, 2, 2, 3)).astype(np.uint8)
    path = copy / "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
    write_hdf5(path, {"imgBrick": brick})
    np.testing.assert_array_equal(pixels.read([5, 2, 5]), brick[pixels.row[[5, 2, 5]]])
    assert pixels.read([]).shape == (0, 2, 2, 3)
    write_hdf5(path, {"imgBrick": brick[:11]})
    with refused(path, "must hold row", "found 11 rows"):
        pixels.read([3])
    write_hdf5(path, {"imgBrick": brick.astype(float)})
    with refused(path, "of 8 bits", "float64"):
        pixels.read([3])


@pytest.mark.parametrize(
    "options,parts",
    [
        ({"subjects": ("subj09",)}, ["subjects must be among subj01", "'subj09'"]),
        ({"subjects": ()}, ["subjects must be among subj01"]),
        ({"images": "some"}, ["images must be among all, shared", "'some'"]),
        ({"num_sessions": 41}, ["num_sessions must lie in 0..40", "41"]),
        ({"num_sessions": 0}, ["nsd needs", "betas_session03.hdf5", "missing"]),
        ({"atlas": "floc-bodies"}, ["nsd needs", "floc-bodies.nii.gz", "missing"]),
        ({"preparation": "betas_assumehrf"}, ["nsd needs", "betas_assumehrf", "missing"]),
    ],
)
def test_options_are_checked(copy, options, parts):
    with refused(*parts):
        responses(copy, **options)


def test_truncated_betas_are_refused(copy):
    truncate(copy / f"{BETAS}.hdf5")
    with refused(copy / f"{BETAS}.hdf5", "must be a whole HDF5 file"):
        responses(copy)


def test_truncated_images_are_refused(tmp_path, rng):
    nsd(tmp_path, rng, kind="nii.gz")
    folder = tmp_path / "nsd"
    for name in (f"{BETAS}.nii.gz", f"{ROI}/nsdgeneral.nii.gz"):
        truncate(folder / name)
        with refused(folder / name, "must be a whole image"):
            responses(folder)


def test_betas_of_another_grid_type_or_scale_are_refused(copy, rng):
    path = copy / f"{BETAS}.hdf5"
    good = rng.integers(-9, 9, (5, 4, 3, 750)).astype(np.int16)
    rewrite_hdf5(path, betas=good)
    with refused(path, "must hold betas of (5, 4, 3, 750)", "(750, 3, 4, 5)"):
        responses(copy)
    rewrite_hdf5(path, betas=good[..., :749].transpose())
    with refused(path, "750 trials", "(5, 4, 3, 749)"):
        responses(copy)
    rewrite_hdf5(path, betas=(good / 300).transpose())
    with refused(path, "16-bit integers", "times 300", "float64"):
        responses(copy)
    path.unlink()
    image = nib.Nifti1Image(good, np.eye(4))
    image.header.set_slope_inter(1 / 300, 0)
    nib.save(image, path.with_suffix(".nii.gz"))
    with refused(path.with_suffix(".nii.gz"), "16-bit integers", "a scale of its own"):
        responses(copy)


def test_masks_and_labels_that_do_not_fit_are_refused(copy):
    path = copy / ROI / "prf-visualrois.nii.gz"
    names = copy / "nsddata/freesurfer/subj01/label/prf-visualrois.mgz.ctab"
    names.write_text("0 Unknown\n1 V1v\n3 V2v\n")
    with refused(names, "must name every label of", path, "2 is missing"):
        responses(copy, atlas="prf-visualrois")
    names.write_text("V1v 1\n")
    with refused(names, "lines of number and name"):
        responses(copy, atlas="prf-visualrois")
    nib.save(nib.Nifti1Image(np.full((5, 4, 3), 0.5), np.eye(4)), path)
    with refused(path, "whole numbers", "0.5"):
        responses(copy, atlas="prf-visualrois")
    nib.save(nib.Nifti1Image(np.ones((5, 4, 2), np.int16), np.eye(4)), path)
    with refused(path, "grid of nsdgeneral, (5, 4, 3)", "(5, 4, 2)"):
        responses(copy, atlas="prf-visualrois")
    names.write_text("1 V1v\n")
    nib.save(nib.Nifti1Image(-np.ones((5, 4, 3), np.int16), np.eye(4)), path)
    with refused(path, "at least one voxel"):
        responses(copy, atlas="prf-visualrois")


def edit(path, change):
    lines = path.read_text().splitlines()
    path.write_text("\n".join(change(lines)) + "\n")


def test_trials_that_are_missing_out_of_order_or_of_other_images_are_refused(copy):
    path = copy / "nsddata/ppdata/subj01/behav/responses.tsv"
    whole = path.read_text()
    edit(path, lambda lines: lines[:-1])
    with refused(path, "750 trials of SESSION 2", "749"):
        responses(copy)
    path.write_text(whole)
    edit(path, lambda lines: [lines[0], lines[2], lines[1], *lines[3:]])
    with refused(path, "by SESSION, RUN and TRIAL", "found (1, 1, 1)"):
        responses(copy)
    path.write_text(whole)
    edit(path, lambda lines: [*lines[:2], lines[2].replace("\t2\t", "\t1\t", 1), *lines[3:]])
    with refused(path, "each trial once", "found (1, 1, 1)"):
        responses(copy)
    path.write_text(whole)
    cells = whole.splitlines()[1].split("\t")
    other = "\t".join([*cells[:4], str(int(cells[4]) + 1), *cells[5:]])
    edit(path, lambda lines: [lines[0], other, *lines[2:]])
    with refused(path, "same images", f"trial 1 is nsdId {cells[4]}", int(cells[4]) - 1):
        responses(copy)
    path.write_text(whole.replace("73KID", "IMAGE"))
    with refused(path, "with the columns SESSION, RUN, TRIAL, 73KID"):
        responses(copy)
    path.write_text(re.sub(r"\t(\d+)\t0\n", r"\tx\1\t0\n", whole, count=1))
    with refused(path, "73KID must hold whole numbers"):
        responses(copy)


def test_another_number_of_shared_images_is_refused(copy):
    path = copy / "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
    edit(
        path,
        lambda lines: [x.replace("True", "False") if i == 1 else x for i, x in enumerate(lines)],
    )
    with refused(path, "shared1000 must mark 1000 images, found 999"):
        responses(copy)
