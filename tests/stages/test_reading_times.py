import dataclasses

import numpy as np
import pandas as pd
import pytest
import reading
import tiny
from refusals import refused
from scipy import stats

from jaxalign.core.behavior import surprisal
from jaxalign.data import datasets
from jaxalign.io import store
from jaxalign.reporting.pages import behavior as report
from jaxalign.stages import Job, behavior, extract

CONFIG = behavior.Config()
LLAMA = tiny.llama(
    context="accumulate:restart", surprisal=True, batch_tokens=1024, shard_stimuli=256
)


@pytest.fixture
def root(tmp_path, rng):
    reading.write(tmp_path / "reading", rng)
    return tmp_path / "reading"


@pytest.fixture
def short(tmp_path, rng):
    """Fewer words, for networks to read."""
    reading.write(tmp_path / "short", rng, num_words=40)
    return tmp_path / "short"


@pytest.fixture
def make_job(tmp_path, mesh, root):
    def make(*, workdir="work", root=root, **options):
        return Job(
            workdir=tmp_path / workdir,
            data_root=None,
            dataset=reading.dataset(root, **options),
            mesh=mesh,
            seed=0,
        )

    return make


def change(root, **arrays):
    kept = {k: v for k, v in (reading.read(root) | arrays).items() if v is not None}
    np.savez(root / "reading.npz", **kept)


def score(job, config=CONFIG, upstream=None):
    """Make the tables; return them and the summary."""
    *_, page = tiny.make(behavior.plan(config, job, upstream or {}))
    read = lambda name: pd.read_csv(
        page.path / f"{name}.csv", keep_default_na=False, na_values=["nan"]
    )
    text = (page.path / behavior.SUMMARY).read_text()
    return read(behavior.SCORES), read(behavior.STORIES), text


def only(table, **values):
    values = {"model": "planted"} | values
    for name, value in values.items():
        table = table[table[name] == value]
    (index,) = table.index
    return table.loc[index]


@pytest.mark.slow
def test_correlation_is_that_of_mean_times_without_sentence_beginnings(make_job, root):
    table, _, _ = score(make_job())
    arrays = reading.read(root)
    mean = np.nanmean(arrays["times"], axis=1)
    keep = (arrays["position"] != 1) & np.isfinite(arrays["bits"])
    row = only(table, measure=report.CORRELATION, offset=0)
    expected = stats.pearsonr(arrays["bits"][keep], mean[keep]).statistic
    assert row.value == pytest.approx(expected) and row.r == pytest.approx(expected)
    assert row.num_words == keep.sum() == 600 - 75
    assert row.ci_low < row.value < row.ci_high
    before = only(table, measure=report.CORRELATION, offset=-1)
    after = only(table, measure=report.CORRELATION, offset=1)
    assert row.value > before.value > after.value + 0.1


@pytest.mark.slow
def test_baseline_is_correlated_as_surprisal_is(make_job, root):
    table, _, text = score(make_job())
    arrays = reading.read(root)
    keep = arrays["position"] != 1
    mean = np.nanmean(arrays["times"], axis=1)
    row = only(table, model="log_frequency")
    expected = stats.pearsonr(arrays["log_frequency"][keep], mean[keep]).statistic
    assert row.r == pytest.approx(expected) and row.value == abs(row.r)
    assert row.context == "control" and row.measure == report.CORRELATION
    assert "log_frequency (control)" in text


@pytest.mark.slow
def test_ceiling_is_of_all_words(make_job, root):
    table, _, text = score(make_job())
    arrays = reading.read(root)
    expected = surprisal.split_half_ceiling(arrays["times"], arrays["story"])
    row = only(table, measure=report.CORRELATION, offset=0)
    assert row.ceiling == pytest.approx(expected.value)
    assert (
        f"reliability of mean times: {expected.value:.4f}" in text
        and f"{expected.value**0.5:.4f}" in text
    )


@pytest.mark.slow
def test_negative_correlation_is_made_absolute_with_its_interval(make_job, root):
    score_before = score(make_job(workdir="a"))[0]
    arrays = reading.read(root)
    change(
        root, bits=arrays["bits"].max(where=np.isfinite(arrays["bits"]), initial=0) - arrays["bits"]
    )
    after = only(score(make_job(workdir="b"))[0], measure=report.CORRELATION, offset=0)
    before = only(score_before, measure=report.CORRELATION, offset=0)
    for name in ("value", "ci_low", "ci_high"):
        assert after[name] == pytest.approx(before[name])
    assert after.r == pytest.approx(-before.r)


@pytest.mark.slow
def test_planted_surprisal_gains_likelihood_and_spillover_adds_to_it(make_job):
    table, stories, _ = score(make_job())
    alone, _, _ = score(make_job(), dataclasses.replace(CONFIG, spillover=0))
    for times in ("mean", "participants"):
        for evaluation in ("in_sample", "held_out_story"):
            keys = {"times": times, "evaluation": evaluation}
            row = only(table[table.measure == "delta_log_likelihood"], **keys)
            without = only(alone[alone.measure == "delta_log_likelihood"], **keys)
            assert row.value > without.value + 0.01 > 0.02
            assert row.ci_low > 0
            own = stories[(stories.measure == row.measure) & (stories.times == times)]
            own = own[own.evaluation == evaluation]
            assert list(own.story) == list(reading.STORIES)
            assert np.average(own.value, weights=own.num) == pytest.approx(row.value)
            assert own.num.sum() == row.num_observations
    # Noise of 60 ms for a participant, against 20 and 10 ms per bit of variance 8.
    row = only(table, times="participants", evaluation="held_out_story")
    assert row.value == pytest.approx(0.5 * np.log(1 + 8 * 500 / 3600), abs=0.06)


@pytest.mark.slow
def test_means_alone_have_no_ceiling_and_no_mixed_effects(make_job):
    table, _, text = score(make_job(only_mean=True))
    assert set(table.times) == {"mean"}
    assert table.ceiling.isna().all()
    assert "undefined, since times of single participants are not known" in text


@pytest.mark.slow
def test_times_are_joined_by_id(make_job):
    before, _, _ = score(make_job(workdir="a"))
    after, _, _ = score(make_job(workdir="b", backwards=True))
    provenance = ["fingerprint", "git_commit"]  # that of the data set has its options
    pd.testing.assert_frame_equal(before.drop(columns=provenance), after.drop(columns=provenance))


@pytest.mark.slow
def test_surprisal_of_a_network_is_read_from_its_store(make_job, short):
    job = make_job(root=short)
    config = dataclasses.replace(LLAMA, untrained_seed=0)
    stores = tiny.make(extract.plan(config, job, {}))
    table, _, text = score(job, upstream={"extract": stores})
    assert list(table.groupby(["model", "control_of"], sort=False).groups) == [
        ("llama", ""),
        ("untrained", "llama"),
        ("planted", ""),
        ("length", ""),
        ("log_frequency", ""),
    ]
    assert "untrained of llama" in text
    row = only(table, model="llama", measure=report.CORRELATION, offset=0)
    beside = store.open_artefact(stores[0])
    bits = store.open_vector(stores[0].path / store.SURPRISAL, beside).read().result()
    arrays = reading.read(short)
    keep = (arrays["position"] != 1) & np.isfinite(bits)
    mean = np.nanmean(arrays["times"], axis=1)
    expected = stats.pearsonr(bits[keep].astype(float), mean[keep]).statistic
    assert row.r == pytest.approx(expected)
    assert row.context == "accumulate:restart" and not row.one_stream


@pytest.mark.slow
def test_one_stream_lets_a_story_see_those_before_it(make_job, short):
    job = make_job(root=short)
    bits = {}
    for one_stream in (False, True):
        config = dataclasses.replace(LLAMA, one_stream=one_stream)
        (artefact,) = tiny.make(extract.plan(config, job, {}))
        beside = store.open_artefact(artefact)
        bits[one_stream] = (
            store.open_vector(artefact.path / store.SURPRISAL, beside).read().result()
        )
    np.testing.assert_allclose(bits[True][:40], bits[False][:40], atol=1e-3)
    assert np.abs(bits[True][40:45] - bits[False][40:45]).max() > 0.01


@pytest.mark.slow
def test_finished_tables_are_not_made_again_and_settings_lead_elsewhere(make_job, root):
    job = make_job()
    step, page = behavior.plan(CONFIG, job, {})
    tiny.make([step, page])
    assert behavior.plan(CONFIG, job, {})[0].artefact.is_done
    other = behavior.plan(dataclasses.replace(CONFIG, spillover=1), job, {})[0].artefact
    assert not other.is_done
    change(root, log_frequency=reading.read(root)["log_frequency"] + 1)
    assert not behavior.plan(CONFIG, make_job(), {})[0].artefact.is_done
    assert page.shows == behavior.SUMMARY and not step.shows


@pytest.mark.slow
def test_words_that_begin_sentences_are_kept_where_asked_for(make_job):
    table, _, text = score(make_job(), dataclasses.replace(CONFIG, sentence_initial=True))
    own = report.correlation_name(True)
    assert only(table, measure=own, offset=0).num_words == 599
    assert set(table.measure) == {"futrell2018-pearsonr-own-reading", report.GAIN}
    assert "begin a sentence kept" in text


@pytest.mark.slow
def test_logarithms_of_times_change_the_gain_and_not_the_correlation(make_job):
    plain, _, _ = score(make_job())
    logs, _, _ = score(make_job(), dataclasses.replace(CONFIG, log_times=True))
    assert (plain.model == logs.model).all()
    both = plain.value - logs.value
    is_r = plain.measure == report.CORRELATION
    assert (both[is_r] == 0).all() and (both[~is_r] != 0).all()


@pytest.mark.slow
def test_surprisal_that_is_undefined_everywhere_is_counted(make_job, root):
    change(root, bits=np.full(600, np.nan))
    table, _, text = score(make_job(), dataclasses.replace(CONFIG, baseline=()))
    assert table.value.isna().all() and (table.num_undefined == 600).all()
    assert "nan" in text


@pytest.mark.parametrize(
    "settings,parts",
    [
        ({"baseline": ("length", "length")}, ["behavior.baseline must differ"]),
        ({"offsets": (1,)}, ["behavior.offsets must hold 0, got (1,)"]),
        ({"offsets": (0, 0)}, ["behavior.offsets must differ"]),
        ({"beside": ("x", "x")}, ["behavior.beside must differ"]),
        ({"spillover": -1}, ["behavior.spillover must be >= 0, got -1"]),
        ({"ceiling_splits": 0}, ["behavior.ceiling_splits must be >= 1"]),
    ],
)
def test_settings_out_of_range(settings, parts):
    with refused(*parts):
        dataclasses.replace(CONFIG, **settings)


def test_a_baseline_that_the_data_do_not_have_is_refused_when_planned(make_job):
    with refused("behavior.baseline must be among length", "'size'"):
        behavior.plan(dataclasses.replace(CONFIG, baseline=("size",)), make_job(), {})


@pytest.mark.slow
def test_data_without_frequencies_are_refused_before_anything_runs(make_job, root):
    change(root, log_frequency=None)
    with refused("behavior.baseline has 'log_frequency', which the data set does not give"):
        behavior.plan(CONFIG, make_job(), {})
    assert score(make_job(), dataclasses.replace(CONFIG, baseline=("length",)))


def test_surprisal_must_come_from_somewhere(make_job, root):
    with refused("behavior needs surprisal: add the stage extract"):
        behavior.plan(dataclasses.replace(CONFIG, published=False), make_job(), {})
    job = make_job()
    stores = [x.artefact for x in extract.plan(tiny.llama(), job, {})]
    with refused("extract.surprisal must be True"):
        behavior.plan(CONFIG, job, {"extract": stores})


def test_too_few_times_to_fit_are_refused(make_job, root):
    times = reading.read(root)["times"]
    times[[i for i in range(600) if i % 200 not in (10, 11)]] = np.nan
    change(root, times=times)
    with refused("behavior, surprisal of planted: 6 predictors and an intercept need more"):
        score(make_job())


def test_one_story_is_refused(make_job, root):
    times = reading.read(root)["times"]
    times[200:] = np.nan
    change(root, times=times)
    with refused("behavior needs reading times of at least 2 passages, found 1"):
        behavior.plan(CONFIG, make_job(), {})


def test_stories_told_again_are_one(make_job, root, caplog):
    arrays = reading.read(root)
    text = arrays["text"]
    text[400:599] = text[:199]  # the third is the first, but for its last word
    change(root, text=text)
    with caplog.at_level("WARNING", logger="absl"):
        behavior.plan(CONFIG, make_job(), {})
    assert "1 passages share most of their words with another" in caplog.text
    assert "'s3' with 's1'" in caplog.text
    times = arrays["times"]
    times[200:400] = np.nan
    change(root, times=times)
    with refused("at least 2 passages, found 1: 1 share most of their words with another"):
        behavior.plan(CONFIG, make_job(), {})


@pytest.fixture
def other(tmp_path, root, monkeypatch):
    """The same words with other times, by a name that can be given."""
    arrays = reading.read(root)
    folder = tmp_path / "other"
    folder.mkdir()
    np.savez(folder / "reading.npz", **arrays | {"times": arrays["times"][:, :1]})
    named = lambda key, _: datasets.Dataset(reading.Reading(name=key, root=folder))
    monkeypatch.setattr(datasets, "find", named)
    return folder


@pytest.mark.slow
def test_other_times_of_the_same_words_stand_beside(make_job, other):
    config = dataclasses.replace(CONFIG, beside=("second",))
    *scored, page = tiny.make(behavior.plan(config, make_job(), {}))
    assert [x.name for x in scored] == ["reading", "second"]
    table = pd.read_parquet(page.path / "scores.parquet")
    assert list(dict.fromkeys(table.dataset)) == ["reading", "second"]
    assert len(table[table.dataset == "second"]) > 5
    correlations = pd.read_csv(page.path / "correlations.csv")
    assert set(zip(correlations.dataset, correlations.num_participants, strict=True)) == {
        ("reading", 5),
        ("second", 1),
    }
    text = (page.path / "index.html").read_text()
    assert "second" in text and text.count('<figure class="chart">') == 3
    assert all((page.path / name).is_file() for name in page.facts()["files"])
    # Alone, each is scored as it is beside the other.
    alone = behavior.plan(CONFIG, make_job(), {})[0].artefact
    assert alone.is_done and alone.path == scored[0].path


def test_other_words_beside_are_refused(make_job, root, other):
    arrays = reading.read(root)
    np.savez(other / "reading.npz", **arrays | {"text": arrays["text"][::-1]})
    with refused("behavior.beside must name data sets of the words of reading: second has others"):
        behavior.plan(dataclasses.replace(CONFIG, beside=("second",)), make_job(), {})
    with refused("behavior.beside must name other data sets, got 'reading'"):
        behavior.plan(dataclasses.replace(CONFIG, beside=("reading",)), make_job(), {})


@pytest.mark.slow
def test_model_minus_control_is_paired_by_story(make_job):
    _, stories, _ = score(make_job())
    page = behavior.plan(CONFIG, make_job(), {})[-1].artefact
    table = pd.read_csv(page.path / "controls.csv").set_index(["measure", "control"])
    own = stories[(stories.measure == report.CORRELATION) & (stories.offset == 0)]
    own = own.pivot(index="story", columns="model", values="value")
    expected = own.planted - own.length * np.sign(
        only(score(make_job())[0], model="length", offset=0).r
    )
    row = table.loc[report.CORRELATION, "length"]
    assert row.difference == pytest.approx(expected.mean()) and row.num_stories == 3
    half = stats.t.ppf(0.975, 2) * expected.sem()
    assert row.ci_high - row.difference == pytest.approx(half)


def test_data_without_reading_times_are_refused(tmp_path, mesh):
    dataset = datasets.find("demo", None)
    job = Job(workdir=tmp_path, data_root=None, dataset=dataset, mesh=mesh, seed=0)
    with refused("data set demo has no behavior"):
        behavior.plan(CONFIG, job, {})
