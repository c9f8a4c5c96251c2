"""Images as stimuli: a network that saw them is scored, and what reads text refuses them."""

import numpy as np
import pytest
import recordings
import tiny
from refusals import refused

from jaxalign.data.datasets import Dataset
from jaxalign.data.sets.nsd import Nsd
from jaxalign.io import rows
from jaxalign.stages import Job, encode, extract, imported
from jaxalign.stages.artefacts import Scores

SCORED = encode.Config(alphas=(100.0,), num_folds=3, controls=("position",))


@pytest.fixture
def job(tmp_path, rng, mesh):
    """Return a job on 60 images that one subject saw, without captions."""
    recordings.nsd(tmp_path, rng, num_sessions=1, shape=(3, 2, 3))
    adapter = Nsd(
        name="scenes", root=tmp_path, subjects=("subj01",), images="shared", num_sessions=1
    )
    work = tmp_path / "work"
    return Job(workdir=work, data_root=None, dataset=Dataset(adapter), mesh=mesh, seed=0)


def test_a_stage_that_reads_text_refuses_images(job):
    with refused("extract reads words or sentences, but data set scenes has images without"):
        extract.plan(tiny.bert(), job, {})


@pytest.fixture
def upstream(job, tmp_path, rng):
    """Return activations of a network that saw the images."""
    ids = job.dataset.stimuli.stimulus_id
    np.savez(tmp_path / "sees.npz", stimulus_id=ids[::-1], layer_1=rng.normal(size=(len(ids), 4)))
    config = imported.Config(models=(str(tmp_path / "sees.npz"),))
    return {"imported": tiny.make(imported.plan(config, job, {}))}


@pytest.mark.parametrize("control", ["word_rate", "frequency", "sentence_position"])
def test_controls_that_are_made_of_text_refuse_images(job, upstream, control):
    config = encode.Config(controls=(control,), frequency_table="words.csv")
    with refused(f"control {control} is made of text, but the stimuli are images without captions"):
        encode.plan(config, job, upstream)


@pytest.mark.slow
def test_activations_of_images_are_scored(job, upstream):
    scored = tiny.make(encode.plan(SCORED, job, upstream))
    found = rows.read(scored[0].path / Scores.ROWS)
    assert set(found.dataset) == {"scenes"} and np.isfinite(found.score).any()
