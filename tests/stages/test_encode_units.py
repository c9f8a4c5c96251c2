"""Features of as many units of each layer as are asked for."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import tiny
from refusals import refused

from jaxalign.core import folds as folds_lib
from jaxalign.core.solver import cv
from jaxalign.core.solver.method import Method
from jaxalign.io import rows, store
from jaxalign.stages import encode, extract
from jaxalign.stages.artefacts import Scores
from jaxalign.stages.encode import inputs

CONFIG = encode.Config(alphas=(1.0, 100.0), num_folds=4, groups="passage", controls=())
KEYS = ["model", "layer", "subject", "roi"]


def read(artefacts):
    return pd.concat([rows.read(x.path / Scores.ROWS) for x in artefacts]).set_index(KEYS)


@pytest.fixture
def scored(make_job, sentences):
    """Return a function from settings to the rows, and the store of the network."""
    job = make_job(sentences)
    stores = tiny.make(extract.plan(tiny.bert(untrained_seed=-1), job, {}))

    def score(**changes):
        config = dataclasses.replace(CONFIG, **changes)
        return read(tiny.make(encode.plan(config, job, {"extract": stores}))), stores[0], job

    return score


@pytest.mark.slow
def test_units_of_a_layer(scored):
    every, source, job = scored(layers=(1,))
    width = source.settings["width"]
    assert set(every.num_units["bert"]) == {width}
    whole, _, _ = scored(layers=(1,), units=width)
    pd.testing.assert_series_equal(whole.score, every.score)
    pd.testing.assert_series_equal(whole.r2, every.r2)
    assert not set(whole.fingerprint) & set(every.fingerprint)

    few, _, _ = scored(layers=(1,), units=5, controls=("shifted",))
    assert set(few.num_units["bert"]) == set(few.num_units["shifted"]) == {5}
    drawn = inputs.draw_units("bert", 1, width, 5, job.seed)
    X = store.open_artefact(source).read_layer(1).astype(np.float64)[:, drawn]
    responses, stimuli = job.dataset.responses, job.dataset.stimuli
    folds = folds_lib.grouped_folds(
        stimuli.passage, 4, gap=0, runs=stimuli.run, items=stimuli.stimulus_id
    )
    own = cv.nested(X, responses.values, folds, Method(CONFIG.alphas))
    subject, roi = np.array(responses.subject), np.array(responses.roi)
    for name in set(subject):
        for region in set(roi):
            at = (subject == name) & (roi == region)
            expected = own.r[:, at].mean()
            assert few.score["bert", 1, name, region] == pytest.approx(expected, abs=1e-5)
            assert abs(every.score["bert", 1, name, region] - expected) > 1e-4


def test_draws_are_reproducible_and_apart():
    """Of each model, layer and seed by itself; sorted, so that all of them are all in order."""
    draw = lambda *changes: inputs.draw_units(*changes).tolist()
    first = draw("bert", 1, 64, 10, 0)
    assert first == draw("bert", 1, 64, 10, 0) == sorted(set(first))
    others = [draw("bert", 2, 64, 10, 0), draw("gpt2", 1, 64, 10, 0), draw("bert", 1, 64, 10, 1)]
    assert all(other != first for other in others)
    assert draw("bert", 1, 64, 64, 0) == list(range(64))
    counts = np.bincount(np.concatenate([draw("bert", i, 64, 8, 0) for i in range(800)]))
    # 800 draws of 8 of 64 units: each 100 times on average, with a standard deviation of 9.4.
    assert len(counts) == 64 and counts.min() > 60 and counts.max() < 140


def test_bad_numbers_of_units_are_refused(make_job, sentences):
    job = make_job(sentences)
    stores = tiny.make(extract.plan(tiny.bert(untrained_seed=-1), job, {}))
    width = stores[0].settings["width"]
    with refused("encode.units", f"at most {width}, the width of bert", width + 1):
        encode.plan(dataclasses.replace(CONFIG, units=width + 1), job, {"extract": stores})
    with refused("encode.units must be >= 0", -1):
        dataclasses.replace(CONFIG, units=-1)
    with refused("encode.units must be 0", "5", "PCA to 3"):
        dataclasses.replace(CONFIG, units=5, pca=3)
