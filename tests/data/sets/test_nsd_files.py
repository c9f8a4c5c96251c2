"""NSD's plan, COCO's captions, the authors' switches and published ratios, on a small grid."""

import json

import nibabel as nib
import numpy as np
import PIL.Image
import pytest
import scipy.io
from recordings import NSD_SPLITS, coco_captions, nsd, nsd_design, write_hdf5, write_table
from refusals import refused

from jaxalign.data.sets import nsd_trials
from jaxalign.data.sets.nsd import Nsd
from jaxalign.data.sets.nsd_trials import Experiment

OPTIONS = {"subjects": ("subj01",), "num_sessions": 1}
INFO, ANSWERS = nsd_trials.INFO, "nsddata/ppdata/subj01/behav/responses.tsv"
RATIO = np.linspace(0.2, 1.5, 12).reshape(2, 2, 3)


@pytest.fixture
def stored(tmp_path, rng):
    return tmp_path, nsd(tmp_path, rng, num_sessions=1, shape=(2, 2, 3), ncsnr=RATIO)


def stimuli(root, **options):
    return Nsd(root=root, **OPTIONS, **options).stimuli()


# The plan of the experiment


@pytest.mark.parametrize("absent", [(), (INFO,), (ANSWERS,), (INFO, ANSWERS)])
def test_the_plan_tells_what_tables_tell(stored, absent):
    root, written = stored
    expected = Nsd(root=root, **OPTIONS).responses()
    plan = nsd_design(root, written)
    for name in absent:
        (root / "nsd" / name).unlink()
    adapter = Nsd(root=root, **OPTIONS)
    assert plan in adapter.files()
    assert adapter.responses().hash == expected.hash


@pytest.mark.parametrize("name", [INFO, ANSWERS])
def test_without_the_plan_both_tables_are_needed(stored, name):
    root, _ = stored
    (root / "nsd" / name).unlink()
    with refused("nsd needs", name, "missing"):
        Nsd(root=root, **OPTIONS).responses()


def change(path, **variables):
    content = {k: x for k, x in scipy.io.loadmat(path).items() if not k.startswith("__")}
    scipy.io.savemat(path, content | variables)


def test_a_plan_that_differs_from_a_table_is_refused_by_both_names(stored):
    root, written = stored
    path = nsd_design(root, written)
    content = scipy.io.loadmat(path)
    order, shared = content["masterordering"], content["sharedix"]
    other = order.copy()
    other[0, 6] = 10000
    change(path, masterordering=other)
    for present in (ANSWERS, INFO):
        with refused(root / "nsd" / present, "and", path, "trial 7 is nsdId", "and nsdId 78999"):
            Nsd(root=root, **OPTIONS).responses()
        (root / "nsd" / ANSWERS).unlink(missing_ok=True)
    shared[0, 0] = 6
    change(path, masterordering=order, sharedix=shared)
    with refused(root / "nsd" / INFO, "and", path, "share the same images, but nsdId 0 is shared"):
        Nsd(root=root, **OPTIONS).responses()


def test_a_plan_that_is_no_plan_is_refused(stored):
    root, written = stored
    path = nsd_design(root, written)
    change(path, masterordering=np.ones((1, 700)))
    with refused(path, "masterordering must have at least 750 trials", "found 700"):
        Nsd(root=root, **OPTIONS).responses()
    change(path, masterordering=np.zeros((3, 3, 3)))
    with refused(path, "masterordering must hold 1 x any whole numbers", "(3, 3, 3)"):
        Nsd(root=root, **OPTIONS).responses()
    path.write_bytes(path.read_bytes()[:200])
    with refused(path, "must be a whole MATLAB file"):
        Nsd(root=root, **OPTIONS).responses()


# The test set


def test_test_images_are_those_that_were_seen_often_enough(stored, monkeypatch):
    root, written = stored
    shown = written["images"]["subj01"]
    for repeats, num in ((1, 60), (2, 60), (3, 50)):
        found = Nsd(root=root, **OPTIONS, test_repeats=repeats).responses()
        test = [
            int(x[3:]) for x, run in zip(found.stimulus_id, found.run, strict=True) if run == "test"
        ]
        image, count = np.unique(shown[shown % 10 == 0], return_counts=True)
        own = image < 10000
        assert test == image[own & (count >= repeats)].tolist() and len(test) == num
        # Shared images that are not tested are not trained on either.
        assert sum(run == "train" for run in found.run) == len(set(shown.tolist())) - 60
    # Nobody else saw anything in this copy; then the second subject sees what the first one saw.
    monkeypatch.setattr(nsd_trials, "NUM_SESSIONS", {"subj01": 1, "subj02": 1})
    with refused("subj01 must have seen at least one shared image 3 times"):
        Nsd(root=root, **OPTIONS, test_repeats=3, test_of="everybody").responses()
    path = root / "nsd" / INFO
    lines = [line.split(",") for line in path.read_text().splitlines()]
    a, b = (lines[0].index(f"subject{k}_rep0") for k in (1, 2))
    for i, line in enumerate(lines[1:]):
        if i < 200:  # twenty of them
            line[b : b + 3] = line[a : a + 3]
    path.write_text("\n".join(map(",".join, lines)) + "\n")
    found = Nsd(root=root, **OPTIONS, test_repeats=3, test_of="everybody").responses()
    assert found.run.count("test") == 20
    assert Experiment(root / "nsd").seen_by_everybody(3) == set(range(0, 200, 10))


# Captions


def test_captions_are_those_of_coco(stored):
    root, _ = stored
    assert list(stimuli(root).text) == []
    images = [int(x[3:]) for x in stimuli(root).stimulus_id]
    texts = lambda i: [
        f"A  dog,\n number {i}.",
        *(f"Caption {k} of {i}" for k in range(2, 6 + i % 2)),
    ]
    coco_captions(root, images, texts)
    first = stimuli(root)
    assert list(first.text) == [f"A dog, number {i}." for i in images]
    assert list(stimuli(root, caption=5).text) == [f"Caption 5 of {i}" for i in images]
    assert first.hash != stimuli(root, caption=5).hash
    # One's own table goes before them, and has one of each.
    rows = [[i, f"Mine {i}"] for i in images]
    write_table(root / "nsd/captions.csv", ["nsdId", "caption"], rows)
    assert list(stimuli(root).text) == [f"Mine {i}" for i in images]
    with refused("caption must be 1 unless", root / "nsd/captions.csv", "one of each", "found 2"):
        stimuli(root, caption=2)


def test_captions_that_are_not_there_are_refused(stored):
    root, _ = stored
    with refused("caption must be 1 unless captions are those of COCO, but there are none"):
        stimuli(root, caption=3)
    with refused("caption must lie in 1..5, found 6"):
        stimuli(root, caption=6)
    images = [int(x[3:]) for x in stimuli(root).stimulus_id]
    coco_captions(root, images, lambda i: ["one", "two"][: 1 + (i != images[3])])
    paths = [root / f"nsd/annotations/captions_{split}.json" for split in NSD_SPLITS]
    own = paths[images[3] % 2]
    with refused(own, f"2 captions of image {100 + images[3]} (nsdId {images[3]}), found 1"):
        stimuli(root, caption=2)
    content = json.loads(own.read_text())
    own.write_text(json.dumps({"annotations": [{"image_id": 1, "caption": "no id"}]}))
    with refused(own, "must be COCO's captions, annotations with image_id, id and caption"):
        stimuli(root)
    own.write_text(json.dumps(content))
    paths[1].unlink()
    with refused("captions of images of val2017 lie in", paths[1], "missing"):
        stimuli(root)


# Scales, and the size of images


def test_z_scores_of_splits_are_of_training_and_test_means(stored):
    root, _ = stored
    raw = Nsd(root=root, **OPTIONS, zscore="none").responses()
    found = Nsd(root=root, **OPTIONS, zscore="split").responses()
    is_test = np.array(raw.run) == "test"
    for rows in (is_test, ~is_test):
        own = raw.values[rows].astype(np.float64)
        expected = (own - own.mean(axis=0)) / own.std(axis=0)
        np.testing.assert_allclose(found.values[rows], expected, atol=1e-5)
    assert found.units == "percent signal change, z-scored in train and test apart"
    repeats = Nsd(root=root, **OPTIONS, zscore="split").repeats("subj01")
    mean = np.nanmean(repeats.values, axis=0)
    np.testing.assert_allclose(mean, found.values[is_test], atol=1e-5)
    with refused("zscore must be among session, split, none", "'run'"):
        Nsd(root=root, **OPTIONS, zscore="run")


def test_images_come_in_another_size(stored, rng):
    root, _ = stored
    brick = rng.integers(0, 256, (10750, 9, 9, 3)).astype(np.uint8)
    write_hdf5(root / "nsd/nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5", {"imgBrick": brick})
    whole, small = stimuli(root), stimuli(root, size=5)
    row = whole.pixels.row[4]
    expected = PIL.Image.fromarray(brick[row]).resize((5, 5), PIL.Image.BILINEAR)
    np.testing.assert_array_equal(small.pixels.read([2, 4])[1], np.asarray(expected))
    assert small.pixels.read([]).shape == (0, 5, 5, 3)
    small.pixels.check()
    assert len({whole.hash, small.hash, stimuli(root, size=6).hash}) == 3
    assert small.pixels.places == whole.pixels.places
    with refused("size must lie in 0..425, found 426"):
        stimuli(root, size=426)


# Published ratios of signal and noise


def test_ratios_are_those_of_the_targets(stored):
    root, written = stored
    adapter = Nsd(root=root, **OPTIONS, rois=("V1", "nsdgeneral"))
    assert adapter.has_ncsnr
    found, responses = adapter.ncsnr("subj01"), adapter.responses()
    assert (found.roi, found.target) == (responses.roi, responses.target)
    ratio = {f"subj01.{x}-{y}-{z}": RATIO[x, y, z] for x, y, z in np.argwhere(RATIO > 0)}
    np.testing.assert_allclose(found.ratio, [ratio[x] for x in found.target], rtol=1e-6)
    assert found.stimulus_id == responses.stimulus_id
    assert sorted(found.repeats[found.is_test].tolist()) == [2] * 10 + [3] * 50
    assert set(found.repeats[~found.is_test].tolist()) == {1}
    assert Nsd(root=root, **OPTIONS, test_repeats=3).ncsnr("subj01").is_test.sum() == 50
    with refused("ncsnr.nii.gz", "z-scored within sessions", "zscore must be 'session'", "'none'"):
        Nsd(root=root, **OPTIONS, zscore="none").ncsnr("subj01")


def test_ratios_that_are_none_are_refused(stored):
    root, _ = stored
    adapter = Nsd(root=root, **OPTIONS)
    path = next((root / "nsd").glob("**/ncsnr.nii.gz"))
    nib.save(nib.Nifti1Image(np.ones((2, 2, 4), np.float32), np.eye(4)), path)
    with refused(path, "the mask's grid, (2, 2, 3)", "(2, 2, 4)"):
        adapter.ncsnr("subj01")
    nib.save(nib.Nifti1Image(np.full((2, 2, 3), -0.5, np.float32), np.eye(4)), path)
    with refused(path, "0 or more", "-0.5"):
        adapter.ncsnr("subj01")
    path.unlink()
    assert not adapter.has_ncsnr
    with refused("nsd needs", path, "missing"):
        adapter.ncsnr("subj01")
