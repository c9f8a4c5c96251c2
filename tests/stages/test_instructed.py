"""Plans of comparisons of instructions, and of scores under published ceilings."""

import dataclasses
import functools

import nibabel as nib
import numpy as np
import pictured
import pytest
import recordings
from refusals import refused

from jaxalign.data import datasets
from jaxalign.data.datasets import Dataset
from jaxalign.data.sets.nsd import Nsd
from jaxalign.stages import Job, encode, extract, imported
from jaxalign.stages.artefacts import Comparison, Scores

CONFIG = encode.Config(
    alphas=(1.0, 10.0), num_folds=3, controls=("answer_length", "instruction_alone")
)
FIRST, SECOND = pictured.INSTRUCTIONS


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("instructed")
    pictured.write_images(root / "images", np.random.default_rng(3))
    pictured.write_model(root / "llava", "llava")
    return root


@pytest.fixture(scope="module")
def plan(folder, mesh):
    """Return what plans scores of a model that is asked, by name of each artefact."""
    dataset = datasets.find(str(folder / "images"), None)
    job = Job(workdir=folder / "work", data_root=None, dataset=dataset, mesh=mesh, seed=0)

    @functools.cache
    def stores(instructions, decoding):
        settings = extract.Config(
            models=(str(folder / "llava"),),
            instructions=instructions,
            answer_tokens=4,
            untrained_seed=-1,
            decoding=decoding,
            answer_pooling="generated" if decoding == "greedy" else "prompt_mean",
        )
        return [x.artefact for x in extract.plan(settings, job, {})]

    def planned(instructions=pictured.INSTRUCTIONS, decoding="greedy", **changes):
        config = dataclasses.replace(CONFIG, **changes)
        steps = encode.plan(config, job, {"extract": stores(instructions, decoding)})
        return {x.artefact.name: x.artefact for x in steps}

    return planned


def test_one_comparison_for_a_model(plan):
    found = plan(swaps=9, beside=FIRST)
    [compared] = [x for x in found.values() if Comparison.is_one(x)]
    assert compared.name == "llava: 2 instructions"
    assert compared.settings["instructions"] == list(pictured.INSTRUCTIONS)
    assert not [x for x in plan().values() if Comparison.is_one(x)]


@pytest.mark.parametrize("changes", [{"swaps": 11}, {"beside": SECOND}, {"beside": ""}], ids=str)
def test_settings_of_a_comparison_move_nothing_else(plan, changes):
    before, after = plan(swaps=9, beside=FIRST), plan(**{"swaps": 9, "beside": FIRST} | changes)
    moved = {x for x in before if before[x].fingerprint != after[x].fingerprint}
    assert moved == {"llava: 2 instructions"}


def test_controls_of_answers_are_made_of_the_store(plan):
    found = plan()
    for text in pictured.INSTRUCTIONS:
        for name in ("answer_length", "instruction_alone"):
            [source] = found[f"llava: {text} {name}"].inputs
            assert source.settings["prompt"] == text
    # Without an answer there is an instruction still.
    silent = plan(decoding="none")
    assert {x.settings["model"] for x in silent.values()} == {"llava", "instruction_alone"}


@pytest.mark.parametrize(
    "changes, says",
    [
        ({"beside": "Who?"}, "encode.beside must be an instruction that llava is given"),
        ({"ceilings": "published"}, "has no published ratios of signal and noise"),
        ({"ceilings": "known"}, "encode.ceilings must be one of computed, published"),
        ({"swaps": -1}, "encode.swaps must be >= 0"),
        (
            {"ceilings": "published", "max_subsets": 3},
            "encode.ceilings must be 'computed' where encode.protocol_ceiling or",
        ),
        ({"instructions": (FIRST,), "swaps": 9}, "unless a model is given two instructions"),
        (
            {"protocol": "himalaya", "swaps": 9, "alphas": CONFIG.__class__().alphas},
            "a protocol whose metric is a correlation, got himalaya",
        ),
    ],
    ids=str,
)
def test_what_cannot_be_compared_is_refused(plan, changes, says):
    if "protocol" in changes:
        changes = changes | {"num_folds": encode.Config().num_folds}
    with refused(says):
        plan(**changes)


@pytest.fixture
def scenes(tmp_path, rng, mesh):
    """A job on NSD with published ratios, and activations of its images."""
    recordings.nsd(tmp_path, rng, ncsnr=np.ones((2, 2, 3)), num_sessions=1, shape=(2, 2, 3))
    adapter = Nsd(name="scenes", root=tmp_path, subjects=("subj01",), num_sessions=1)
    job = Job(
        workdir=tmp_path / "work", data_root=None, dataset=Dataset(adapter), mesh=mesh, seed=0
    )
    ids = list(job.dataset.responses.stimulus_id)
    np.savez(tmp_path / "sees.npz", stimulus_id=ids, layer_1=rng.normal(size=(len(ids), 3)))
    settings = imported.Config(models=(str(tmp_path / "sees.npz"),))
    return job, [x.artefact for x in imported.plan(settings, job, {})]


def test_published_ratios_fix_scores(scenes, tmp_path):
    job, stores = scenes

    def fingerprints(**changes):
        config = dataclasses.replace(CONFIG, **{"controls": ("shuffled",)} | changes)
        steps = encode.plan(config, job, {"imported": stores})
        return {x.artefact.name: x.artefact.fingerprint for x in steps if Scores.is_one(x.artefact)}

    computed, published = fingerprints(), fingerprints(ceilings="published")
    assert not set(computed.values()) & set(published.values())
    [path] = tmp_path.glob("**/ncsnr.nii.gz")
    nib.save(nib.Nifti1Image(np.full((2, 2, 3), 2, np.float32), np.eye(4)), path)
    again = fingerprints(ceilings="published")
    assert not set(again.values()) & set(published.values())
    assert fingerprints() == computed
    with refused("encode.controls must not have 'answer_length' unless a network is given"):
        fingerprints(controls=("answer_length",))
    with refused("unless a model is given two instructions"):
        fingerprints(swaps=9)
