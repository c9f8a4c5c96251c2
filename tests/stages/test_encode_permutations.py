"""Permutation tests of networks' scores in the encode stage, and their table in the report."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import tiny
from refusals import refused

from jaxalign.core import features
from jaxalign.core.inference import orders
from jaxalign.io import rows
from jaxalign.reporting.run import inference
from jaxalign.stages import encode, extract, report
from jaxalign.stages.artefacts import Scores, Significance
from jaxalign.stages.encode import permute

CONFIG = encode.Config(
    alphas=(1.0, 100.0, 10_000.0),
    num_folds=4,
    gap=2,
    delays=(1, 2),
    controls=(),
    layers=(1, 2),
    search="grid",
    permutations=12,
)
BERT = tiny.bert(untrained_seed=-1)


def read(artefact):
    return rows.read(artefact.path / Significance.ROWS)


def make(make_job, data, config):
    job = make_job(data)
    stores = tiny.make(extract.plan(BERT, job, {}))
    return job, stores, tiny.make(encode.plan(config, job, {"extract": stores}))


@pytest.mark.slow
def test_nulls_are_scores_of_shifted_responses(make_job, timed):
    """Of responses without drift, which the test takes out."""
    recorded = make_job(timed).dataset.responses
    flat = features.detrend(recorded.values, recorded.run, recorded.time_s)
    flat = flat.astype(recorded.values.dtype)
    (timed / "responses.npz").write_bytes(dataclasses.replace(recorded, values=flat).to_bytes())
    job, stores, (alone, permuted) = make(make_job, timed, CONFIG)
    found = read(permuted)
    scores = rows.read(alone.path / Scores.ROWS)
    merged = found.merge(scores, on=["layer", "subject", "roi"], suffixes=("", "_alone"))
    # Two layers, three subjects and the group, two ROIs; and the mean and the best layer.
    assert len(merged) == 16 and len(found) == 3 * 10
    np.testing.assert_allclose(merged.score, merged.score_alone, atol=1e-5)
    assert (found.num_orders == 12).all() and found.p.between(1 / 13, 1).all()

    # One null by hand: responses in that order, everything fitted anew.
    responses = job.dataset.responses
    rng = np.random.default_rng(job.seed)
    shifts = orders.draw_shifts(responses.run, num=12, rng=rng)
    drawn = orders.shift_orders(responses.run, shifts)
    assert not (drawn == np.arange(len(responses.run))).all(axis=1).any()
    permute = np.load(permuted.path / "nulls_002.npz")
    shuffled = dataclasses.replace(responses, values=responses.values[drawn[4]])
    (timed / "responses.npz").write_bytes(shuffled.to_bytes())
    other = make_job(timed)
    plain = dataclasses.replace(CONFIG, permutations=0)
    (again,) = tiny.make(encode.plan(plain, other, {"extract": stores}))
    expected = rows.read(again.path / Scores.ROWS)
    expected = expected[(expected.layer == 2) & (expected.subject != "group")].score
    np.testing.assert_allclose(permute["rows"][5, : len(expected)], expected, atol=1e-5)


@pytest.mark.slow
def test_an_interrupted_test_goes_on(make_job, timed, monkeypatch):
    job = make_job(timed)
    stores = tiny.make(extract.plan(BERT, job, {}))
    *_, step = encode.plan(CONFIG, job, {"extract": stores})
    compute, tested = permute._nulls, []

    def stopped(network, layer, *args):
        tested.append(layer)
        if layer == 2 and tested.count(2) == 1:
            raise KeyboardInterrupt
        return compute(network, layer, *args)

    monkeypatch.setattr(permute, "_nulls", stopped)
    step.artefact.start()
    with pytest.raises(KeyboardInterrupt):
        step.make(step.artefact)
    step.make(step.artefact)
    assert tested == [1, 2, 2]
    names = (Significance.ROWS, Significance.TARGETS)
    first = [(step.artefact.path / name).read_bytes() for name in names]
    # What is kept of a layer without the largest nulls of those before does not suffice.
    (step.artefact.path / "nulls_002.npz").unlink()
    step.make(step.artefact)
    assert tested == [1, 2, 2, 1, 2]
    assert [(step.artefact.path / name).read_bytes() for name in names] == first

    # By hand: each target's largest score of both layers, and of both under each order.
    found = rows.read(step.artefact.path / Significance.TARGETS)
    responses = job.dataset.responses
    assert found.target.tolist() == responses.target
    best = np.load(step.artefact.path / "nulls_002.npz")["best"][:, : len(responses.target)]
    assert best.shape == (13, 6)
    np.testing.assert_allclose(found.p, (1 + (best[1:] >= best[0] - 1e-5).sum(axis=0)) / 13)
    alone = [rows.read(step.artefact.path / Significance.ROWS)]
    alone = alone[0][(alone[0].subject == "s1") & (alone[0].roi == "A") & (alone[0].layer > 0)]
    own = (found.subject == "s1") & (found.roi == "A")
    assert own.sum() == 1
    np.testing.assert_allclose(found.score[own], alone.score.max(), atol=1e-6)


@pytest.mark.slow
def test_scores_do_not_depend_on_tests(make_job, timed):
    """Asking for tests later scores nothing again."""
    job, stores, (alone, _) = make(make_job, timed, CONFIG)
    plain = dataclasses.replace(CONFIG, permutations=0, orders="row")
    (step,) = encode.plan(plain, job, {"extract": stores})
    assert step.artefact.path == alone.path


@pytest.mark.slow
def test_report_shows_them(make_job, timed):
    job, stores, encoded = make(make_job, timed, CONFIG)
    (page,) = tiny.make(report.plan(report.Config(), job, {"encode": encoded}))
    table = pd.read_csv(page.path / "significance.csv")
    found = read(encoded[1])
    best = found[(found.layer == inference.ANY) & (found.roi == "A")].set_index("subject")
    own = table[table.roi == "A"].iloc[0]
    assert own.group_p == best.p["group"] and own.mean_p_adjusted == best.p_adjusted["mean"]
    people = best.drop(["group", "mean"])
    assert own.num_significant == (people.p_adjusted <= 0.05).sum() and own.num_subjects == 3
    assert "Permutations." in (page.path / report.SUMMARY).read_text()
    assert "shifted circularly" in (page.path / "index.html").read_text()


@pytest.mark.parametrize(
    "settings, named, must, got",
    [
        ({"permutations": -1}, "encode.permutations", ">= 0", "-1"),
        ({"orders": "any"}, "encode.orders", "shift, block, row", "'any'"),
        ({"orders": "block"}, "encode.order_block", ">= 1", "0"),
    ],
)
def test_bad_settings_are_refused(settings, named, must, got):
    with refused(named, must, got):
        dataclasses.replace(CONFIG, **settings)


@pytest.mark.parametrize(
    "settings, named, must, got",
    [
        ({"orders": "block", "order_block": 60}, "encode.permutations", "less than the 60", "60"),
        (
            {"protocol": "himalaya", "alphas": encode.Config().alphas, "num_folds": 6, "gap": 0},
            "encode.permutations",
            "must be 0 under protocol himalaya",
            "not a correlation",
        ),
    ],
)
def test_tests_that_samples_or_protocol_do_not_allow_are_refused(
    make_job, timed, settings, named, must, got
):
    job = make_job(timed)
    stores = [x.artefact for x in extract.plan(BERT, job, {})]
    with refused(named, must, got):
        encode.plan(dataclasses.replace(CONFIG, **settings), job, {"extract": stores})
