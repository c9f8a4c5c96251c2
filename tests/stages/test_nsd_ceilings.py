"""Ceilings of NSD in its own files, with planted ratios of signal and noise."""

import numpy as np
import pytest
import recordings
import tiny
from refusals import refused

from jaxalign.data.datasets import Dataset
from jaxalign.data.sets.nsd import Nsd
from jaxalign.io import rows
from jaxalign.stages import Job, ceiling
from jaxalign.stages.artefacts import Ceilings

RATIO = np.linspace(0.5, 1.5, 64).reshape(4, 4, 4)
RATIO[0, 0, 0] = 0  # a voxel without signal
# 50 shared images are seen three times, and 10 twice.
NOISE_LEFT = (50 / 3 + 10 / 2) / 60


@pytest.fixture
def make(tmp_path, rng, mesh):
    """Return a function from subjects and ratios to a job on the images that all of them saw."""

    def made(subjects, ratio, num_properties=2, **options):
        size = {"num_sessions": 1, "shape": ratio.shape, "num_properties": num_properties}
        recordings.nsd(tmp_path, rng, subjects=subjects, ncsnr=ratio, **size)
        shown = {"images": "shared", "num_sessions": 1} | options
        adapter = Nsd(name="scenes", root=tmp_path, subjects=subjects, **shown)
        work = tmp_path / "work"
        return Job(workdir=work, data_root=None, dataset=Dataset(adapter), mesh=mesh, seed=0)

    return made


def measure(job, **settings):
    artefact, page = tiny.make(ceiling.plan(ceiling.Config(**settings), job, {}))
    table = rows.read(artefact.path / Ceilings.ROWS)
    return page, table.set_index(["kind", "subject", "roi", "target"]).sort_index()


@pytest.mark.slow
def test_published_ratios_are_ceilings_beside_those_of_repeats(make):
    # So many properties that voxels are nearly independent, and their intervals can be counted.
    job = make(("subj01",), RATIO, num_properties=40)
    page, table = measure(job, kinds=("repeats", "published"), num_resamples=200)
    targets = job.dataset.responses.target
    of = lambda kind: table.loc[kind].loc["subj01", "nsdgeneral"].loc[list(targets)]
    ratio = np.array([RATIO[tuple(map(int, x.split(".")[1].split("-")))] for x in targets])
    share = ratio**2 / (ratio**2 + NOISE_LEFT)
    np.testing.assert_allclose(of("ncsnr_published").value, ratio, rtol=1e-6)
    np.testing.assert_allclose(of("noise_ceiling_published").value, share, rtol=1e-6)
    np.testing.assert_allclose(of("noise_ceiling_root").value, np.sqrt(share), rtol=1e-6)
    assert of("noise_ceiling_root").ci_low.isna().all()
    mean = table.value["noise_ceiling_root", "subj01", "nsdgeneral", ""]
    assert mean == pytest.approx(np.sqrt(share).mean())
    # What was planted, and published, lies where the repeats say.
    found = of("noise_ceiling")
    assert ((found.ci_low <= share) & (share <= found.ci_high)).mean() > 0.75
    assert abs((found.value - share).mean()) < 0.06
    assert "noise_ceiling_root" in (page.path / "summary.txt").read_text()


def test_published_ratios_are_refused_for_other_scales_or_where_there_are_none(make, tmp_path):
    job = make(("subj01",), RATIO, zscore="none")
    with refused("ncsnr.nii.gz", "zscore must be 'session'", "'none'"):
        ceiling.plan(ceiling.Config(), job, {})
    ceiling.plan(ceiling.Config(kinds=("repeats",)), job, {})
    next(tmp_path.glob("**/ncsnr.nii.gz")).unlink()
    ceiling.plan(ceiling.Config(), job, {})
    with refused("ceiling.kinds must hold one that data set scenes has", "no published ratios"):
        ceiling.plan(ceiling.Config(kinds=("published",)), job, {})


def test_asking_for_what_is_not_there_changes_no_fingerprint(make, tmp_path):
    job = make(("subj01",), RATIO)
    planned = lambda *kinds: ceiling.plan(ceiling.Config(kinds=kinds), job, {})[0].artefact
    assert planned("repeats", "published").fingerprint != planned("repeats").fingerprint
    next(tmp_path.glob("**/ncsnr.nii.gz")).unlink()
    found = {x: planned(*x).settings for x in (("repeats",), ("repeats", "published"))}
    one, two = ({k: v for k, v in x.items() if k != "repeats_hash"} for x in found.values())
    assert one == two


@pytest.mark.slow
def test_subjects_without_common_voxels_predict_one_another_on_shared_images(make):
    subjects = ("subj01", "subj02", "subj05", "subj07")
    job = make(subjects, np.full((2, 1, 3), 1.5))
    settings = {"num_curves": 5, "alphas": (10.0,), "num_resamples": 50}
    _, table = measure(job, kinds=("extrapolation", "published"), **settings)
    own = [table.value["noise_ceiling_root", x, "nsdgeneral", ""] for x in subjects]
    np.testing.assert_allclose(own, np.sqrt(1.5**2 / (1.5**2 + NOISE_LEFT)), rtol=1e-5)
    # Others who are as noisy predict nearly as much as the voxels' own signal allows.
    found = table.value["extrapolated", "group", "nsdgeneral", ""]
    assert 0.6 < found < own[0] + 0.03
