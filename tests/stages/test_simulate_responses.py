import dataclasses

import numpy as np
import pandas as pd
import pytest
import tiny

from jaxalign.data.schema import Responses
from jaxalign.data.synthetic import planted as toy
from jaxalign.errors import InputError
from jaxalign.io import rows as rows_lib
from jaxalign.io import store
from jaxalign.stages import encode, extract, simulate_responses
from jaxalign.stages.artefacts import Scores
from jaxalign.stages.responses import PlantedResponses

CONFIG = simulate_responses.Config(model="bert", layer=2, num_subjects=3, num_targets=5)
ENCODE = encode.Config(alphas=(1.0, 10.0, 100.0), num_folds=4, groups="passage", controls=())


@pytest.mark.slow
def test_responses_are_made_of_the_layer_asked_for(make_job, sentences):
    job = make_job(sentences)
    stores = tiny.make(extract.plan(tiny.bert(untrained_seed=-1), job, {}))
    (planted,) = tiny.make(simulate_responses.plan(CONFIG, job, {"extract": stores}))
    found = Responses.load(planted.path / PlantedResponses.RESPONSES)
    features = store.open_artefact(stores[0]).read_layer(2).astype(np.float64)
    values, signal = toy.plant(
        features, num_subjects=3, num_targets=5, noise_sd=1.2, rng=np.random.default_rng(0)
    )
    np.testing.assert_array_equal(found.values.reshape(-1, 3, 5), values.transpose(1, 0, 2))
    np.testing.assert_array_equal(found.signal[:, 5:10], signal)
    assert list(found.stimulus_id) == list(job.dataset.stimuli.stimulus_id)
    assert found.subject[5:10] == ["p02"] * 5


@pytest.mark.slow
def test_encode_scores_what_was_planted(make_job, sentences):
    """The file's name and the step's inputs are all that the two stages share."""
    job = make_job(sentences)
    stores = tiny.make(extract.plan(tiny.bert(untrained_seed=-1), job, {}))
    config = dataclasses.replace(CONFIG, noise_sd=0.1)
    planted = tiny.make(simulate_responses.plan(config, job, {"extract": stores}))
    upstream = {"extract": stores, "simulate": planted}
    encoded = tiny.make(encode.plan(ENCODE, job, upstream))
    rows = pd.concat([rows_lib.read(x.path / Scores.ROWS) for x in encoded])
    subjects = rows[rows.subject != "group"]
    np.testing.assert_allclose(subjects.signal_ceiling, 1 / np.sqrt(1.01), atol=0.01)
    assert subjects.groupby("layer").score.mean().idxmax() == 2


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"layer": -1}, "simulate.layer must be >= 0"),
        ({"num_subjects": 1}, "simulate.num_subjects must be >= 2"),
        ({"num_targets": 0}, "simulate.num_targets must be >= 1"),
        ({"noise_sd": 0.0}, "simulate.noise_sd must be > 0"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(CONFIG, **settings)


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"model": "gpt"}, r"simulate.model must be one of the extracted models \(bert\)"),
        ({"layer": 4}, "simulate.layer must be at most 3 for bert, got 4"),
    ],
)
def test_settings_that_do_not_fit_the_networks(make_job, sentences, settings, message):
    job = make_job(sentences)
    upstream = {"extract": [s.artefact for s in extract.plan(tiny.bert(), job, {})]}
    with pytest.raises(InputError, match=message):
        simulate_responses.plan(dataclasses.replace(CONFIG, **settings), job, upstream)


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"rois": ("A",)}, r"encode.rois must be \(\) for simulated responses"),
        ({"num_folds": 13}, "encode.num_folds of at most 12 fits"),
    ],
)
def test_encode_settings_are_checked_before_anything_is_planted(
    make_job, sentences, settings, message
):
    job = make_job(sentences)
    upstream = {"extract": [s.artefact for s in extract.plan(tiny.bert(), job, {})]}
    upstream["simulate"] = [s.artefact for s in simulate_responses.plan(CONFIG, job, upstream)]
    with pytest.raises(InputError, match=message):
        encode.plan(dataclasses.replace(ENCODE, **settings), job, upstream)
    assert not job.workdir.exists()
