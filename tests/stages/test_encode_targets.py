"""Scores of single targets, of one's own data with coordinates: from responses to a picture."""

import dataclasses

import numpy as np
import pyarrow.parquet as pq
import pytest
import tiny

from jaxalign.data.formats import coordinates
from jaxalign.data.schema import Responses
from jaxalign.io import rows
from jaxalign.reporting import tables
from jaxalign.reporting.run import brain
from jaxalign.stages import encode
from jaxalign.stages.artefacts import Scores

CONFIG = encode.Config(
    alphas=(1.0, 100.0), num_folds=4, groups="passage", controls=("shifted",), layers=(0, 1, 3)
)


@pytest.fixture
def placed(sentences, rng):
    """Sentences whose responses lie somewhere."""
    path = sentences / "responses.npz"
    responses = Responses.load(path)
    xyz = rng.uniform(-50, 50, (len(responses.target), 3))
    found = dataclasses.replace(responses, coordinates=xyz, space=coordinates.MNI)
    path.write_bytes(found.to_bytes())
    return sentences, xyz


@pytest.mark.slow
def test_scores_of_targets_are_written_where_they_lie(make_job, placed):
    pytest.importorskip("nilearn", reason="nilearn is not installed: extra `brain`")
    data, xyz = placed
    job = make_job(data)
    _, encoded = tiny.run(job, tiny.bert(untrained_seed=-1), CONFIG)
    network, control = encoded
    assert set(rows.read(control.path / Scores.TARGETS).control_of) == {"bert"}
    found = rows.read(network.path / Scores.TARGETS)
    assert pq.read_schema(network.path / Scores.TARGETS).names == rows.TARGETS.names
    responses = job.dataset.responses
    assert found.target.tolist() == responses.target and set(found.model) == {"bert"}
    np.testing.assert_array_equal(found[["x", "y", "z"]], xyz)
    # Their means are what the report gives of subjects and regions.
    nested = tables.nested_layer(rows.read(network.path / Scores.ROWS))
    nested = nested[nested.subject != "group"].set_index(["subject", "roi"])
    assert nested.layers.map(set).map(len).max() > 1
    means = found.groupby(["subject", "roi"]).score.mean()
    np.testing.assert_allclose(means.loc[nested.index], nested.score)
    np.testing.assert_allclose(
        found.groupby(["subject", "roi"]).ceiling.mean().loc[nested.index], nested.ceiling
    )
    # By hand, of a target: the layer of each fold, and what was found with it.
    layers_of = dict(zip(nested.index, nested.layers, strict=True))
    row = found.iloc[-1]
    chosen = layers_of[row.subject, row.roi]
    every = {x: np.load(network.path / f"layer_{x:03d}.npz") for x in CONFIG.layers}
    of_fold = lambda name: [every[x][name][k, len(found) - 1] for k, x in enumerate(chosen)]
    assert row.score == pytest.approx(np.mean(of_fold("r")))
    assert row.r2 == pytest.approx(np.mean(of_fold("r2")))
    assert row.alpha == np.median(of_fold("alphas"))
    assert row.layer == max(CONFIG.layers, key=lambda x: (list(chosen).count(x), -x))
    inner = {x: every[x]["inner_score"][:, len(found) - 1].mean() for x in CONFIG.layers}
    assert row.best_layer == max(inner, key=inner.__getitem__)
    assert b"<svg" in brain.glass_brain(found)


@pytest.mark.slow
def test_without_coordinates_targets_lie_nowhere(make_job, sentences):
    config = dataclasses.replace(CONFIG, controls=(), layers=(1,))
    _, [network] = tiny.run(make_job(sentences), tiny.bert(untrained_seed=-1), config)
    found = rows.read(network.path / Scores.TARGETS)
    assert found[["x", "y", "z"]].isna().all(axis=None) and set(found.space) == {""}
    assert not (network.path / Scores.GRIDS).exists()
