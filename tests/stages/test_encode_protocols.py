"""Protocols by name in the encoding stage: the code path of score_arrays, and rows that say so."""

import dataclasses
import warnings

import numpy as np
import pandas as pd
import pytest
import tiny
from refusals import refused

import jaxalign
from jaxalign.core.scores.protocol import READING, SAMPLING
from jaxalign.data.schema import Responses
from jaxalign.io import rows as rows_lib
from jaxalign.io import store
from jaxalign.literature import protocols
from jaxalign.stages import encode, extract
from jaxalign.stages.artefacts import Scores
from jaxalign.stages.encode import config as config_lib
from jaxalign.stages.encode.config import FIXED

PLAIN = encode.Config(controls=())
# As Brain-Score reads, which fixes it; `jaxalign` and `himalaya` leave it open.
EXTRACTION = tiny.bert(untrained_seed=-1, context="accumulate:slide", pooling="last")
NAMES = [name for name, x in protocols.PROTOCOLS.items() if x.kind == "encoding"]
CHANGED = {
    "alphas": (1.0,),
    "num_folds": 7,
    "gap": 2,
    "groups": "passage",
    "group_seed": 3,
    "standardize": False,
    "pca": 3,
    "units": 5,
    "downsample": "sum",
    "delays": (2,),
    "context": "window:3",
    "one_stream": True,
    "pooling": "sum",
    "tap": "mlp",
    "joining": "space",
    "bos": "<s>",
    "suffix": " Answer:",
    "chat": True,
    "system": "Read.",
}


def encoded(job, config, extraction=EXTRACTION):
    # Where a ceiling is found, it comes first.
    _, (*_, artefact) = tiny.run(job, extraction, config)
    return rows_lib.read(artefact.path / Scores.ROWS), artefact.facts()["alignment"]


def arrays(job):
    """Layers and responses, joined by id."""
    (source,) = [x.artefact for x in extract.plan(EXTRACTION, job, {})]
    responses = job.dataset.responses
    place = {name: i for i, name in enumerate(store.stimulus_ids(source))}
    rows = [place[name] for name in responses.stimulus_id]
    opened = store.open_artefact(source)
    layers = [opened.read_layer(i).astype(np.float64)[rows] for i in range(4)]
    return np.stack(layers), responses


@pytest.mark.slow
def test_default_settings_are_the_default_protocol(make_job, timed):
    """On words with times, six folds and a gap of six are what `jaxalign` means."""
    job = make_job(timed)
    settings = dataclasses.replace(PLAIN, delays=(1, 2, 3, 4), gap=6)
    named = dataclasses.replace(PLAIN, protocol="jaxalign")
    expected, nothing = encoded(job, settings)
    found, alignment = encoded(job, named)
    assert nothing is None and set(expected.protocol) == {"nested-ridge"}
    assert set(found.protocol) == {"jaxalign"}
    others = expected.columns.difference(["protocol", "fingerprint"])
    pd.testing.assert_frame_equal(found[others], expected[others])
    assert alignment["score"] == alignment["raw"]
    assert alignment["folds_hash"] == found.folds_hash[0]
    assert np.isfinite(alignment["ceiling"]) and np.isnan(alignment["contiguous"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "protocol", ["brainscore-ridge", "jaxalign", "brainscore-linear-2023", "himalaya"]
)
def test_sentences_score_as_arrays_do(make_job, sentences, protocol):
    job = make_job(sentences)
    ceiling = 0.0 if protocol in ("jaxalign", "himalaya") else 0.4
    config = dataclasses.replace(PLAIN, protocol=protocol, protocol_ceiling=ceiling)
    rows, alignment = encoded(job, config)
    X, responses = arrays(job)
    passages = [name.split(".")[0] for name in responses.stimulus_id]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jaxalign.ShuffledFoldsWarning)
        found = jaxalign.score_arrays(
            X,
            responses.values,
            protocol=protocol,
            groups=passages,
            subjects=responses.subject,
            targets=[f"{x} {y}" for x, y in zip(responses.roi, responses.target, strict=True)],
            ceiling=ceiling or None,
        )
    names = ("score", "raw", "raw_low", "raw_high", "ceiling", "ceiling_low", "ceiling_high")
    for name in (*names, "contiguous"):
        np.testing.assert_allclose(alignment[name], getattr(found, name), atol=1e-6, err_msg=name)
    assert alignment["folds_hash"] == found.folds_hash == rows.folds_hash[0]
    assert alignment["layers"] == sorted(set(found.layers.ravel().tolist()))
    assert set(rows.protocol) == {protocol}
    assert set(rows.metric) == {"r2" if protocol == "himalaya" else "pearson_r"}


@pytest.mark.slow
def test_shuffled_protocols_are_warned_of(make_job, sentences, caplog):
    with caplog.at_level("WARNING", logger="absl"):
        encoded(make_job(sentences), dataclasses.replace(PLAIN, protocol="brainscore-linear-2026"))
    assert "brainscore-linear-2026 draws single samples" in caplog.text
    assert "in contiguous folds of the same data" in caplog.text


@pytest.mark.slow
def test_harry_potter_on_timed_words(make_job, timed):
    """Components are fitted in training, then delayed; two runs are standardised apart."""
    job = make_job(timed)
    config = dataclasses.replace(PLAIN, protocol="wehbe2014", layers=(3,))
    extraction = tiny.bert(untrained_seed=-1, context="window:20", pooling="mean")
    rows, alignment = encoded(job, config, extraction)
    assert alignment["layers"] == [3] and len(rows.fold_scores[0]) == 4
    own = rows[rows.subject != "group"]
    np.testing.assert_allclose(own.groupby("subject").score.mean().mean(), alignment["raw"])


@pytest.mark.slow
def test_runs_as_the_test_set(make_job, timed):
    job = make_job(timed)
    config = dataclasses.replace(PLAIN, protocol="oota2025", test_runs=("run1",))
    extraction = tiny.bert(untrained_seed=-1, context="none", pooling="mean_all")
    rows, alignment = encoded(job, config, extraction)
    assert all(len(x) == 1 for x in rows.fold_scores)
    assert alignment["layers"] == [-1]


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"protocol": "best"}, "protocol must be one of jaxalign, .*got 'best'"),
        (
            {"protocol": "wikitext2-nwp"},
            "encode.protocol must be of kind 'encoding', but wikitext2-nwp is of 'next_word'",
        ),
        (
            {"protocol": "wikitext2-nwp-own-reading"},
            "one that fits responses with '-own-reading' added, got 'wikitext2-nwp-own-reading'",
        ),
    ],
)
def test_protocols_that_encode_nothing_are_refused(settings, message):
    with refused(*message.split(".*")):
        encode.Config(**settings)


@pytest.mark.parametrize("name", NAMES)
def test_every_setting_that_a_protocol_fixes_is_refused_otherwise(name):
    protocol = protocols.find(name)
    for setting in FIXED:
        with refused(f"encode.{setting} must be left as it is, for protocol {name} fixes it"):
            encode.Config(protocol=name, **{setting: CHANGED[setting]})
    own = f"{name}-own-reading"
    for setting in SAMPLING:
        changed = {setting: CHANGED[setting]}
        if setting in protocol.extraction.fixed:
            fixed = getattr(protocol.extraction, setting)
            with refused(f"encode.{setting} must be {fixed!r} under protocol {name}", own):
                encode.Config(protocol=name, **changed)
            assert encode.Config(protocol=name, **{setting: fixed}).protocol == name
        else:
            encode.Config(protocol=name, **changed)
        encode.Config(protocol=own, **changed)
    for setting in READING:
        changed = {setting: CHANGED[setting]}
        if setting in protocol.extraction.fixed:
            with refused(f"extract.{setting} must be", f"under protocol {name}", own):
                protocols.refuse_other_readings(protocol, changed, "extract")
        else:
            protocols.refuse_other_readings(protocol, changed, "extract")
        protocols.refuse_other_readings(protocols.find(own), changed, "extract")


@pytest.mark.parametrize("setting", ["joining", "suffix"])
def test_parts_that_were_put_together_otherwise_are_refused(make_job, sentences, setting):
    job = make_job(sentences)
    other = dataclasses.replace(EXTRACTION, **{setting: CHANGED[setting]})
    upstream = {"extract": [x.artefact for x in extract.plan(other, job, {})]}
    config = dataclasses.replace(PLAIN, protocol="brainscore-linear-2026")
    with refused(f"extract.{setting} must be", "brainscore-linear-2026-own-reading"):
        encode.plan(config, job, upstream)
    encode.plan(
        dataclasses.replace(config, protocol=f"{config.protocol}-own-reading"), job, upstream
    )
    encode.plan(PLAIN, job, upstream)


def test_prompts_and_precision_are_free(make_job, sentences):
    job = make_job(sentences)
    other = dataclasses.replace(EXTRACTION, prompt="Read: ", compute_dtype="bfloat16")
    upstream = {"extract": [x.artefact for x in extract.plan(other, job, {})]}
    assert encode.plan(dataclasses.replace(PLAIN, protocol="brainscore-ridge"), job, upstream)


def test_defaults_are_what_the_protocol_fixes(make_job, timed, sentences):
    """Of timed responses alone: others have neither TRs nor delays."""
    huth = encode.Config(protocol="huth")
    found = config_lib.resolved(huth, is_timed=True)
    assert (found.downsample, found.delays) == ("lanczos", (1, 2, 3, 4))
    assert config_lib.resolved(huth, is_timed=False) == huth
    explicit = encode.Config(protocol="huth", downsample="lanczos", delays=(1, 2, 3, 4))
    assert config_lib.resolved(explicit, is_timed=True) == found
    # What is left open stays as it is set.
    own = encode.Config(protocol="huth-own-reading", downsample="sum", delays=(2,))
    assert config_lib.resolved(own, is_timed=True) == own
    # Artefacts name what was resolved.
    for data, delays in ((timed, (1, 2, 3, 4)), (sentences, (0,))):
        job = make_job(data)
        upstream = {"extract": [s.artefact for s in extract.plan(EXTRACTION, job, {})]}
        (*_, step) = encode.plan(dataclasses.replace(PLAIN, protocol="jaxalign"), job, upstream)
        assert tuple(step.artefact.settings["delays"]) == delays


def test_networks_that_were_read_otherwise_are_refused(make_job, sentences):
    job = make_job(sentences)
    reading = tiny.bert(untrained_seed=-1, context="window:3", pooling="last")
    upstream = {"extract": [s.artefact for s in extract.plan(reading, job, {})]}
    config = dataclasses.replace(PLAIN, protocol="brainscore-ridge")
    with refused("extract.context must be 'accumulate:slide'", "got 'window:3'"):
        encode.plan(config, job, upstream)
    own = dataclasses.replace(config, protocol="brainscore-ridge-own-reading")
    assert encode.plan(own, job, upstream)


def test_test_runs_are_refused(make_job, timed):
    job = make_job(timed)
    upstream = {"extract": [s.artefact for s in extract.plan(EXTRACTION, job, {})]}
    config = dataclasses.replace(PLAIN, protocol="oota2025")
    with refused("encode.test_runs must name the runs that are the test set of protocol oota2025"):
        encode.plan(config, job, upstream)
    unknown = dataclasses.replace(config, test_runs=("run7",))
    with refused("encode.test_runs must be among run0, run1, got 'run7'"):
        encode.plan(unknown, job, upstream)
    own = dataclasses.replace(config, protocol="himalaya", test_runs=("run1",))
    with refused("encode: protocol himalaya makes its own folds: give no test set"):
        encode.plan(own, job, upstream)


@pytest.mark.slow
def test_undefined_correlations_are_counted(make_job, sentences):
    """Brain-Score of 2026 takes an undefined correlation for 0; it is counted all the same."""
    responses = Responses.load(sentences / "responses.npz")
    values = responses.values.copy()
    values[:, 2] = 4.0
    (sentences / "responses.npz").write_bytes(
        dataclasses.replace(responses, values=values).to_bytes()
    )
    config = dataclasses.replace(PLAIN, protocol="brainscore-ridge", layers=(1,))
    rows, alignment = encoded(make_job(sentences), config)
    assert alignment["num_nan"] == 10
    assert rows[(rows.subject == "s0") & (rows.roi == "A")].num_nan.tolist() == [10]


@pytest.mark.slow
def test_an_extrapolated_ceiling_is_that_of_arrays(make_job, sentences):
    job = make_job(sentences)
    config = dataclasses.replace(
        PLAIN, protocol="brainscore-linear-2023", max_subsets=2, layers=(1,)
    )
    _, alignment = encoded(job, config)
    X, responses = arrays(job)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jaxalign.ShuffledFoldsWarning)
        warnings.simplefilter("ignore", jaxalign.CeilingWarning)  # it is 0: noise has none
        found = jaxalign.score_arrays(
            X[1],
            responses.values,
            protocol="brainscore-linear-2023",
            groups=[name.split(".")[0] for name in responses.stimulus_id],
            subjects=responses.subject,
            max_subsets=2,
        )
    for name in ("raw", "ceiling", "ceiling_low", "ceiling_high", "score"):
        np.testing.assert_allclose(alignment[name], getattr(found, name), atol=1e-6, err_msg=name)


@pytest.mark.slow
def test_ceilings_that_cannot_be_extrapolated_are_refused(make_job, sentences):
    job = make_job(sentences)
    responses = job.dataset.responses
    two = responses.columns([s != "s2" for s in responses.subject])
    (sentences / "responses.npz").write_bytes(two.to_bytes())
    config = dataclasses.replace(PLAIN, protocol="brainscore-linear-2023", max_subsets=2)
    with refused("encode.max_subsets must be 0 for 2 subjects", "needs 3"):
        tiny.run(make_job(sentences), EXTRACTION, config)
    with refused("encode.max_subsets must be >= 0", "-1"):
        dataclasses.replace(PLAIN, max_subsets=-1)


def test_samples_that_do_not_suffice_for_contiguous_folds(make_job, tmp_path, rng, caplog):
    """The score stands; what it would be compared with is undefined, and said when planned."""
    tiny.write_sentences(tmp_path / "few", rng, num_passages=2)
    job = make_job(tmp_path / "few")
    upstream = {"extract": [x.artefact for x in extract.plan(EXTRACTION, job, {})]}
    config = dataclasses.replace(PLAIN, protocol="brainscore-linear-2023")
    with caplog.at_level("WARNING", logger="absl"):
        assert encode.plan(config, job, upstream)
    assert "samples do not suffice for contiguous folds" in caplog.text


@pytest.mark.slow
def test_test_stimuli_that_are_trained_on(make_job, sentences, caplog):
    """Known from ids and texts: refused where they are most, and said where they are some."""
    table = pd.read_csv(sentences / "stimuli.csv")
    job = make_job(sentences)
    upstream = {"extract": [x.artefact for x in extract.plan(EXTRACTION, job, {})]}
    config = dataclasses.replace(PLAIN, protocol="himalaya")
    table.loc[30:, "text"] = table.text[:30].str.upper().to_numpy()
    table.to_csv(sentences / "stimuli.csv", index=False)
    with refused("encode: protocol himalaya", "60 of 60 test samples", "'p0.0' and 'p6.4' present"):
        encode.plan(config, make_job(sentences), upstream)
    table.loc[35:, "text"] = [f"word {i}" for i in range(25)]
    table.to_csv(sentences / "stimuli.csv", index=False)
    with caplog.at_level("WARNING", logger="absl"):
        _, found = encoded(make_job(sentences), config)
    assert found["num_repeated"] == 10
    assert "himalaya trains on stimuli that it tests" in caplog.text
