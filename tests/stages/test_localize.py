import dataclasses

import numpy as np
import pandas as pd
import pytest
import tiny
from refusals import refused
from scipy import stats

from jaxalign.data import localizer
from jaxalign.io import store
from jaxalign.stages import extract, localize
from jaxalign.stages.artefacts import Masks

CONFIG = localize.Config(percent=10.0)
BERT = tiny.bert(pooling="last", untrained_seed=-1)


@pytest.fixture
def items(tmp_path):
    """Write 20 items of either list, in words that the small tokenizer has."""
    root = tmp_path / "items"
    root.mkdir()
    rng = np.random.default_rng(0)
    for name in localizer.FILES.values():
        lines = [" ".join(rng.choice(tiny.WORDS, 12)) for _ in range(20)]
        (root / name).write_text("\n".join(lines))
    return root


def run(job, config=CONFIG, extraction=BERT):
    stores = tiny.make(extract.plan(extraction, job, {}))
    found = tiny.make(localize.plan(config, job, {"extract": stores}))
    return stores, found[:-1]


def load(artefact):
    with np.load(artefact.path / Masks.UNITS) as file:
        return dict(file)


@pytest.mark.slow
def test_masks_hold_the_units_with_the_largest_t(make_job, items):
    (source,), (artefact,) = run(make_job(items))
    opened = store.open_artefact(source)
    units = load(artefact)
    for layer in range(1, 4):
        values = np.abs(opened.read_layer(layer).astype(float))
        expected = stats.ttest_ind(values[:20], values[20:], equal_var=False).statistic
        np.testing.assert_allclose(units["t"][layer], expected, atol=1e-6)
    num = int(3 * opened.shape[2] * 0.1)
    assert units["language"].sum() == units["random"].sum() == num
    assert not (units["language"] & units["random"]).any()
    assert not units["language"][0].any() and not units["random"][0].any()
    rest = units["t"][1:][~units["language"][1:]]
    assert units["t"][units["language"]].min() >= np.nanmax(rest)
    text = (artefact.path.parent / localize.SUMMARY).read_text()
    assert f"bert: {num}, t from" in text
    page = artefact.path.parent
    layers = pd.read_csv(page / "layers.csv").set_index(["units", "layer"])
    for kind in ("language", "random"):
        assert list(layers.num[kind]) == units[kind].sum(axis=1).tolist()
    sets = pd.read_parquet(page / "units.parquet").set_index("units")
    for kind in ("language", "random"):
        assert sets.mean_t[kind] == pytest.approx(units["t"][units[kind]].mean())
    # 20 items of words at random in either list: what a half chooses is chance.
    assert sets.held_out_half_t["language"] < sets.half_t["language"] - 1
    assert (page / "index.html").read_text().count('<figure class="chart">') == 2


@pytest.mark.slow
def test_embedding_takes_part_where_asked_for(make_job, items):
    config = dataclasses.replace(CONFIG, embedding=True, num_units=7)
    _, (artefact,) = run(make_job(items), config)
    units = load(artefact)
    assert units["language"].sum() == 7
    assert np.isfinite(units["t"][0]).any()


@pytest.mark.slow
def test_seed_draws_other_random_units_and_the_same_chosen(make_job, items):
    job = make_job(items)
    _, (first,) = run(job)
    _, (second,) = run(dataclasses.replace(job, seed=1))
    a, b = load(first), load(second)
    np.testing.assert_array_equal(a["language"], b["language"])
    assert (a["random"] != b["random"]).any()


@pytest.mark.parametrize(
    "settings,parts",
    [
        ({"percent": 0.0}, ["localize.percent must lie above 0"]),
        ({"percent": 51.0}, ["localize.percent must", "be at most 50"]),
        ({"num_units": -1}, ["localize.num_units must be >= 0"]),
    ],
)
def test_settings_out_of_range(settings, parts):
    with refused(*parts):
        dataclasses.replace(CONFIG, **settings)


@pytest.mark.parametrize("settings", [{"num_units": 10_000}, {"percent": 1e-4}])
def test_numbers_of_units_that_do_not_fit(make_job, items, settings):
    job = make_job(items)
    stores = [x.artefact for x in extract.plan(BERT, job, {})]
    with refused("localize must choose between 1 and", "units of bert"):
        localize.plan(dataclasses.replace(CONFIG, **settings), job, {"extract": stores})


def test_other_data_are_refused(make_job, sentences):
    job = make_job(sentences)
    stores = [x.artefact for x in extract.plan(BERT, job, {})]
    with refused("a localiser must have at least 2 stimuli sentence.N, found 0"):
        localize.plan(CONFIG, job, {"extract": stores})
