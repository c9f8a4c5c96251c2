"""Controls by name, and networks joined with them, in the stage that scores both."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import tiny
from refusals import refused

from jaxalign.core import folds as folds_lib
from jaxalign.core.solver import banded, cv
from jaxalign.core.solver import partition as partition_lib
from jaxalign.data import controls
from jaxalign.data.schema import Responses
from jaxalign.io import arrays, rows, store
from jaxalign.stages import encode, extract, report
from jaxalign.stages.artefacts import Partition, Scores

ALPHAS = (1.0, 100.0, 10_000.0)
TIMED = encode.Config(alphas=ALPHAS, num_folds=4, gap=2, delays=(1, 2), controls=())
SENTENCES = encode.Config(alphas=ALPHAS, num_folds=4, groups="passage", controls=())
BERT = tiny.bert(untrained_seed=-1)

# Sentences have no pixels, and nobody was asked about them: see tests/data/images.
OF_SENTENCES = tuple(
    x for x in controls.CONTROLS if x not in (*controls.OF_IMAGES, *controls.OF_ANSWERS)
)


def read(artefacts):
    return pd.concat([rows.read(x.path / Scores.ROWS) for x in artefacts])


@pytest.fixture
def files(tmp_path):
    """Tables of the words of these tests; one word is in neither."""
    known = sorted(set(tiny.WORDS) - {"stone"})
    counts = "".join(f"{word},{10 * i}\n" for i, word in enumerate(known))
    (tmp_path / "freq.csv").write_text(f"word,count\n{counts}")
    vectors = np.random.default_rng(5).normal(size=(len(known), 7))
    lines = (f"{w} {' '.join(map(str, x))}\n" for w, x in zip(known, vectors, strict=True))
    (tmp_path / "glove.txt").write_text("".join(lines))
    return {
        "frequency_table": str(tmp_path / "freq.csv"),
        "word_vectors": str(tmp_path / "glove.txt"),
    }


@pytest.mark.slow
def test_every_control_is_scored(make_job, sentences, files, caplog):
    every = dataclasses.replace(SENTENCES, controls=OF_SENTENCES, layers=(1,), **files)
    extraction = tiny.bert(static_embedding=True)
    with caplog.at_level("WARNING", logger="absl"):
        _, encoded = tiny.run(make_job(sentences), extraction, every)
    found = read(encoded)
    assert set(found.model) == {"bert", *OF_SENTENCES}
    assert set(found[found.model != "bert"].control_of) == {"bert"}
    assert found.groupby("model").size().nunique() == 1
    # It predicts the training mean where passages are whole.
    assert found[found.model == "oasm"].score.isna().all()
    assert found[found.model != "oasm"].score.notna().all()
    texts = " ".join(make_job(sentences).dataset.stimuli.text).split()
    for artefact in encoded:
        name = artefact.settings["model"]
        assert artefact.facts()["unknown_words"] == (
            {name: texts.count("stone")} if name in controls.Lexicon._fields else {}
        )
    assert f"{texts.count('stone')} of {len(texts)} words are not listed (1 different ones" in (
        caplog.text
    )


@pytest.mark.slow
def test_controls_of_sentences(make_job, sentences, files, caplog):
    names = ("sentence_position", "frequency", "oasm")
    config = dataclasses.replace(SENTENCES, controls=names, layers=(1,), **files)
    with caplog.at_level("WARNING", logger="absl"):
        _, (_, position, frequency, oasm) = tiny.run(make_job(sentences), BERT, config)
    assert read([position, frequency]).score.notna().all()
    # It predicts the training mean where passages are whole.
    assert read([oasm]).score.isna().all()
    assert (read([oasm]).r2 < 1e-5).all()
    words = " ".join(make_job(sentences).dataset.stimuli.text).split()
    missing = words.count("stone")
    assert frequency.facts()["unknown_words"] == {"frequency": missing}
    assert position.facts()["unknown_words"] == {}
    assert f"{missing} of {len(words)} words are not listed (1 different ones" in caplog.text


@pytest.mark.slow
@pytest.mark.parametrize("column", ["zipf", "frequency_per_million"])
def test_frequencies_of_the_data_set_itself(make_job, timed, tmp_path, caplog, column):
    """A table of the same numbers by word gives the same scores; one word has none."""
    table = pd.read_csv(timed / "stimuli.csv")
    kinds = sorted(set(table.text))
    zipf = {word: 2 + 5 * i / len(kinds) for i, word in enumerate(kinds)}
    listed = "".join(f"{word},{zipf[word]}\n" for word in kinds[1:])
    (tmp_path / "zipf.csv").write_text(f"word,zipf\n{listed}")
    from_zipf = {"zipf": lambda x: x, "frequency_per_million": lambda x: 10 ** (x - 3)}[column]
    own = [from_zipf(zipf[word]) if word != kinds[0] else "" for word in table.text]
    config = dataclasses.replace(TIMED, controls=("frequency",), layers=(1,))
    by_word = dataclasses.replace(config, frequency_table=str(tmp_path / "zipf.csv"))
    _, (_, expected) = tiny.run(make_job(timed, workdir="a"), BERT, by_word)
    table.assign(**{column: own}).to_csv(timed / "stimuli.csv", index=False)
    _, (_, found) = tiny.run(make_job(timed, workdir="b"), BERT, config)
    assert read([expected]).score.notna().all()
    np.testing.assert_allclose(read([found]).score, read([expected]).score, atol=1e-5)
    num = int((table.text == kinds[0]).sum())
    assert found.facts()["unknown_words"] == {"frequency": num}
    said = f"{num} of {len(table)} stimuli have no value and take the least in data set"
    assert said in caplog.text


@pytest.mark.slow
def test_controls_of_timed_words(make_job, timed, files):
    names = ("length", "word_vectors", "shuffled", "static_embedding")
    config = dataclasses.replace(TIMED, controls=names, layers=(1,), **files)
    extraction = tiny.bert(static_embedding=True, untrained_seed=-1)
    _, encoded = tiny.run(make_job(timed), extraction, config)
    found = read(encoded)
    assert set(found.model) == {"bert", *names}
    score = found[found.subject != "group"].groupby("model").score.mean()
    # Responses follow the letters heard two TRs before.
    assert score["length"] > 0.5
    assert abs(score["shuffled"]) < 0.2
    assert set(found[found.model == "shuffled"].layer) == {1}
    assert set(found[found.model == "static_embedding"].layer) == {0}


@pytest.mark.slow
def test_shuffling_is_seeded_and_stays_within_runs_if_asked_to(make_job, timed):
    job = make_job(timed)
    stores = tiny.make(extract.plan(BERT, job, {}))

    def scores(job=job, **changes):
        config = dataclasses.replace(TIMED, controls=("shuffled",), layers=(2,), **changes)
        return read(tiny.make(encode.plan(config, job, {"extract": stores}))[1:]).score

    base = scores()
    np.testing.assert_array_equal(scores(shuffle="run"), base)
    assert np.abs(scores(shuffle="all") - base).max() > 0.01
    assert np.abs(scores(dataclasses.replace(job, seed=1)) - base).max() > 0.01


@pytest.mark.slow
def test_settings_of_other_controls_change_no_fingerprint(make_job, sentences, files):
    job = make_job(sentences)
    stores = tiny.make(extract.plan(tiny.bert(static_embedding=True), job, {}))

    def fingerprints(**changes):
        config = dataclasses.replace(SENTENCES, controls=OF_SENTENCES, **files)
        config = dataclasses.replace(config, **changes)
        steps = encode.plan(config, job, {"extract": stores})
        scored = [x.artefact for x in steps if "partition" not in x.artefact.settings]
        assert len(steps) == len(scored) + bool(config.partition)
        return {x.settings["model"]: x.fingerprint for x in scored}

    base = fingerprints()
    changed = lambda **changes: {x for x, f in fingerprints(**changes).items() if f != base[x]}
    assert changed(shuffle="all") == {"shuffled"}
    assert changed(oasm_sigma=2.0) == {"oasm"}
    moved = files["frequency_table"] + ".moved"
    with open(files["frequency_table"]) as file, open(moved, "w") as copy:
        copy.write(file.read())
    assert changed(frequency_table=moved) == set()
    with open(moved, "a") as file:
        file.write("stone,3\n")
    assert changed(frequency_table=moved) == {"frequency"}
    assert changed(partition=("length",)) == set()


# Networks joined with controls


@pytest.fixture
def mixed(make_job, sentences):
    """Responses made of layer 2 and of the number of words; two of them are nothing but noise."""
    job = make_job(sentences)
    stores = tiny.make(extract.plan(BERT, job, {}))
    stimuli = job.dataset.stimuli
    X = store.open_artefact(stores[0]).read_layer(2).astype(float)
    length = controls.sentence_length(stimuli)
    standard = lambda x: (x - x.mean(axis=0)) / x.std(axis=0)
    rng = np.random.default_rng(3)
    responses = Responses.load(sentences / "responses.npz")
    own = standard(standard(X) @ rng.normal(size=(32, responses.values.shape[1])))
    values = own + standard(length) + 0.5 * rng.normal(size=own.shape)
    values[:, -2:] = rng.normal(size=(len(own), 2))
    responses = dataclasses.replace(responses, values=values)
    (sentences / "responses.npz").write_bytes(responses.to_bytes())
    return make_job(sentences), stores, X, length


NAMES = ("sentence_length", "position")
JOINED = dataclasses.replace(
    SENTENCES, layers=(2,), partition=NAMES, partition_draws=2, partition_rounds=0
)


def parts(job, stores, config=JOINED):
    """Run the stage; the artefact of the network, of the partition, and the rows of that."""
    alone, joined = tiny.make(encode.plan(config, job, {"extract": stores}))
    return alone, joined, rows.read(joined.path / Partition.ROWS)


def ridge(X, Y, split, penalty):
    """Predict test samples; a penalty for each feature and target, NumPy in float64."""
    mean, sd = X[split.train].mean(axis=0), X[split.train].std(axis=0)
    Z = (X - mean) / sd
    R, centre = Z[split.train], Y[split.train].mean(axis=0)
    predicted = np.empty((len(split.test), Y.shape[1]))
    for j in range(Y.shape[1]):
        live = np.isfinite(penalty[:, j])
        A = R[:, live].T @ R[:, live] + np.diag(penalty[live, j])
        w = np.linalg.solve(A, R[:, live].T @ (Y[split.train, j] - centre[j]))
        predicted[:, j] = centre[j] + Z[split.test][:, live] @ w
    return predicted


@pytest.mark.slow
def test_rows_are_those_of_a_plain_float64_computation(mixed):
    """R2 of network, controls and both, with the penalties that were chosen; then the shares."""
    job, stores, X, length = mixed
    alone, joined, found = parts(job, stores)
    responses = job.dataset.responses
    values = responses.values
    Y = (values - values.mean(axis=0)) / values.std(axis=0)
    group = Y.reshape(len(Y), 3, 4).mean(axis=1)
    Y = np.hstack([Y, group])
    place = controls.position(job.dataset.stimuli.passage), controls.position(responses.run)
    nuisance = [length, np.hstack(place)]
    folds = folds_lib.contiguous_folds(responses.run, 4, gap=0, groups=job.dataset.stimuli.passage)
    of = {
        "model": ([X], arrays.read(alone.path / "layer_002.npz", cv.Nested)),
        "controls": (nuisance, arrays.read(joined.path / "controls.npz", banded.Nested)),
        "joint": ([X, *nuisance], arrays.read(joined.path / "layer_002.npz", banded.Nested)),
    }
    r2 = {}
    for name, (bands, chosen) in of.items():
        label = np.repeat(np.arange(len(bands)), [x.shape[1] for x in bands])
        error, total = np.zeros((2, Y.shape[1]))
        for i, fold in enumerate(folds):
            weights = chosen.weights[i] if len(bands) > 1 else np.ones((1, Y.shape[1]))
            with np.errstate(divide="ignore"):
                penalty = (chosen.alphas[i] / weights)[label]
            predicted = ridge(np.hstack(bands), Y, fold.outer, penalty)
            test = Y[fold.outer.test]
            error += ((test - predicted) ** 2).sum(axis=0)
            total += ((test - Y[fold.outer.train].mean(axis=0)) ** 2).sum(axis=0)
        r2[name] = 1 - error / total
    labels = [(s, r) for s in ("s0", "s1", "s2", "group") for r in "AAAB"]
    assert len(found) == 8
    for row in found.itertuples():
        own = [pair == (row.subject, row.roi) for pair in labels]
        mean = {name: x[own].mean() for name, x in r2.items()}
        clipped = {name: np.maximum(x[own], 0).mean() for name, x in r2.items()}
        for name, x in mean.items():
            assert getattr(row, f"r2_{name}") == pytest.approx(x, abs=1e-5)
            assert getattr(row, f"r2_{name}_clipped") == pytest.approx(clipped[name], abs=1e-5)
        assert row.unique_model == pytest.approx(mean["joint"] - mean["controls"], abs=1e-5)
        assert row.unique_controls == pytest.approx(mean["joint"] - mean["model"], abs=1e-5)
        shared = mean["model"] + mean["controls"] - mean["joint"]
        assert row.shared == pytest.approx(shared, abs=1e-5)
        for x, omega in ((mean, row.omega), (clipped, row.omega_clipped)):
            if x["model"] >= partition_lib.LEAST_R2:
                expected = (1 - (x["joint"] - x["controls"]) / x["model"]) * 100
                assert omega == pytest.approx(expected, abs=0.05)
            else:
                assert np.isnan(omega)
        assert row.num_negative == (r2["model"][own] < 0).sum()
    assert (found.num_undefined == 0).all()
    assert (found[found.roi == "A"].num_targets == 3).all()
    assert set(found.controls) == {"sentence_length + position"}
    assert set(found.folds_hash) == {folds_lib.folds_hash(folds)}
    planted = found[(found.roi == "A") & (found.subject == "s0")].iloc[0]
    assert planted.unique_model > 0.1 and planted.r2_controls > 0.1


@pytest.mark.slow
def test_constant_target_is_left_out_and_counted(mixed, sentences, make_job):
    job, stores, _, _ = mixed
    responses = job.dataset.responses
    values = responses.values.copy()
    values[:, 0] = 3.0
    changed = dataclasses.replace(responses, values=values)
    (sentences / "responses.npz").write_bytes(changed.to_bytes())
    config = dataclasses.replace(JOINED, partition=("sentence_length",))
    _, _, found = parts(make_job(sentences), stores, config)
    counts = found.set_index(["subject", "roi"]).num_undefined
    assert counts[("s0", "A")] == 1 and counts.sum() == 1
    assert found.r2_joint.notna().all()


@pytest.mark.slow
def test_what_is_finished_is_not_joined_again(mixed):
    job, stores, _, _ = mixed
    config = dataclasses.replace(JOINED, partition=("sentence_length",))
    _, joined, _ = parts(job, stores, config)
    first = (joined.path / Partition.ROWS).read_bytes()
    kept = joined.path / "controls.npz"
    time_ns = kept.stat().st_mtime_ns
    for name in ("layer_002.npz", Partition.ROWS, "done.json"):
        (joined.path / name).unlink()
    parts(job, stores, config)
    assert kept.stat().st_mtime_ns == time_ns
    assert (joined.path / Partition.ROWS).read_bytes() == first


@pytest.mark.slow
def test_scores_of_the_network_must_be_there(mixed):
    job, stores, _, _ = mixed
    config = dataclasses.replace(JOINED, partition=("sentence_length",))
    alone, step = encode.plan(config, job, {"extract": stores})
    tiny.make([alone])
    (alone.artefact.path / "layer_002.npz").unlink()
    with refused("layer_002.npz must hold scores; delete", alone.artefact.path, "and run again"):
        tiny.make([step])


@pytest.mark.slow
def test_components_of_the_network_alone(mixed):
    """All components, unscaled, are a rotation of the network's band, and leave controls alone."""
    job, stores, _, _ = mixed
    config = dataclasses.replace(JOINED, partition=("sentence_length",), standardize=False)
    _, _, plain = parts(job, stores, config)
    _, _, rotated = parts(job, stores, dataclasses.replace(config, pca=32))
    np.testing.assert_allclose(rotated.r2_joint, plain.r2_joint, atol=5e-3)
    np.testing.assert_array_equal(rotated.r2_controls, plain.r2_controls)


@pytest.mark.slow
def test_the_report_shows_what_is_left_beyond_controls(mixed):
    job, stores, _, _ = mixed
    config = dataclasses.replace(JOINED, partition=("sentence_length",))
    encoded = tiny.make(encode.plan(config, job, {"extract": stores}))
    (made,) = tiny.make(report.plan(report.Config(), job, {"encode": encoded}))
    table = pd.read_csv(made.path / "beyond.csv")
    assert list(table.roi) == ["A", "B"]
    assert (table.layer == 2).all() and (table.num_subjects == 3).all()
    all_rows = pd.read_csv(made.path / "partition.csv")
    assert len(all_rows) == 4 * 2
    group = all_rows[(all_rows.subject == "group") & (all_rows.roi == "A")]
    assert table.group_omega[0] == pytest.approx(group.omega.iloc[0])
    assert "Beyond controls. R2 out of sample" in (made.path / report.SUMMARY).read_text()
    assert "<h2>Beyond controls</h2>" in (made.path / "index.html").read_text()
    # Without a partition nothing of it is there, also where one was before.
    (made,) = tiny.make(report.plan(report.Config(), job, {"encode": encoded[:1]}))
    assert not (made.path / "beyond.csv").exists()
    assert "Beyond" not in (made.path / "index.html").read_text()


# Refusals


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"oasm_sigma": 0.0}, "encode.oasm_sigma must be positive, got 0.0"),
        ({"oasm_sigma": float("inf")}, "encode.oasm_sigma must be positive, got inf"),
        ({"partition_draws": -1}, "encode.partition_draws must be >= 0, got -1"),
        ({"shuffle": "week"}, "encode.shuffle must be one of run, all, got 'week'"),
        ({"partition": ("word_vectors",)}, "encode.word_vectors must name the file that"),
        ({"partition": ("oasm",)}, "encode.partition must be among word_rate"),
        ({"partition": ("shifted",)}, "got 'shifted'"),
        ({"partition": ("length", "length")}, "encode.partition must differ"),
    ],
)
def test_settings_out_of_range(settings, message):
    with refused(message):
        encode.Config(**settings)


@pytest.mark.parametrize(
    "settings,message",
    [
        (
            {"controls": ("static_embedding",)},
            "encode.controls has 'static_embedding', so extract.static_embedding must be True",
        ),
        (
            {"partition": ("random_embedding",)},
            "encode.partition has 'random_embedding', so extract.untrained_seed must be >= 0",
        ),
        (
            {"controls": ("frequency",)},
            "encode.frequency_table must name the file that 'frequency' reads, for the data set",
        ),
        (
            {"partition": ("frequency",)},
            "encode.frequency_table must name the file that 'frequency' reads, for the data set",
        ),
        (
            {"controls": ("frequency",), "frequency_table": "nowhere.csv"},
            "encode.frequency_table must name a file, found none at 'nowhere.csv'",
        ),
    ],
)
def test_settings_that_do_not_fit_the_run(make_job, sentences, settings, message):
    job = make_job(sentences)
    upstream = {"extract": [s.artefact for s in extract.plan(BERT, job, {})]}
    with refused(message):
        encode.plan(dataclasses.replace(SENTENCES, **settings), job, upstream)


@pytest.mark.parametrize("where", ["controls", "partition"])
def test_controls_of_sentences_need_sentences(make_job, timed, where):
    job = make_job(timed)
    upstream = {"extract": [s.artefact for s in extract.plan(BERT, job, {})]}
    config = dataclasses.replace(TIMED, **{where: ("sentence_position",)})
    with refused("control sentence_position needs stimuli that are sentences"):
        encode.plan(config, job, upstream)


def test_shuffled_within_a_run_of_one_sample(make_job, sentences):
    responses = Responses.load(sentences / "responses.npz")
    changed = dataclasses.replace(responses, run=["first", *responses.run[1:]])
    (sentences / "responses.npz").write_bytes(changed.to_bytes())
    job = make_job(sentences)
    upstream = {"extract": [s.artefact for s in extract.plan(BERT, job, {})]}
    config = dataclasses.replace(SENTENCES, controls=("shuffled",))
    with refused("encode.controls has 'shuffled', so every run must have at least 2 samples"):
        encode.plan(config, job, upstream)
    encode.plan(dataclasses.replace(config, shuffle="all"), job, upstream)
