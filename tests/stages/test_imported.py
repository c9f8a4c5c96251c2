"""Activations that were given: they are scored as those that were extracted, or refused."""

import dataclasses
import json

import command
import numpy as np
import pandas as pd
import pytest
import tiny
from refusals import refused

from jaxalign.data import datasets
from jaxalign.io import rows, store
from jaxalign.stages import encode, extract, imported, localize, report, similarity
from jaxalign.stages.artefacts import Activations, Partition, Scores

SCORED = encode.Config(
    alphas=(1.0, 100.0, 10_000.0),
    num_folds=4,
    groups="passage",
    controls=("length", "shuffled"),
    partition_draws=0,
    partition_rounds=0,
)
LAYERS = (1, 3)


@pytest.fixture
def extracted(make_job, sentences):
    job = make_job(sentences)
    return job, tiny.make(extract.plan(tiny.bert(untrained_seed=-1), job, {}))


def given(path, source, rng, *, layers=LAYERS, **changes):
    """Write the layers of a store to an .npz, rows in another order."""
    ids = np.array(store.stimulus_ids(source))
    order = rng.permutation(len(ids))
    content = {f"layer_{i}": Activations(source).read_layer(i)[order] for i in layers}
    np.savez(path, **(content | {"stimulus_id": ids[order]} | changes))
    return imported.Config(models=(str(path),))


def plan(job, config, upstream=None):
    return imported.plan(config, job, upstream or {})


@pytest.mark.slow
def test_the_same_scores_as_extracted(extracted, tmp_path, rng):
    """Every column of scores and partitions, to the last bit; rows are joined by their ids."""
    job, stores = extracted
    layers = (3,)
    config = dataclasses.replace(SCORED, partition=("length",))
    mine = tiny.make(plan(job, given(tmp_path / "net.npz", stores[0], rng, layers=layers)))
    found = tiny.make(encode.plan(config, job, {"imported": mine}))
    config = dataclasses.replace(config, layers=layers)
    wanted = tiny.make(encode.plan(config, job, {"extract": stores}))
    assert len(wanted) == len(found) == 4
    for one, other in zip(wanted, found, strict=True):
        name = Partition.ROWS if one.kind == Partition.kind else Scores.ROWS
        a, b = rows.read(one.path / name), rows.read(other.path / name)
        own = [*a.columns[a.columns.str.contains("fingerprint|context|pooling|git")], "model"]
        # How others' networks read, and what their layers are, is not known.
        reading = "layer_name|final_norm|one_stream|tap|joining|bos|suffix|chat|system|t5_|compute_"
        own += [*a.columns[a.columns.str.contains(reading)]]
        own += ["control_of"] if name == Scores.ROWS else []
        if name == Scores.ROWS and b.num_layers.max():
            assert (b.layer.unique() == layers).all() and (b.num_layers == 3).all()
        pd.testing.assert_frame_equal(a.drop(columns=own), b.drop(columns=own))
        assert set(b.context) == {"unknown"}


@pytest.mark.slow
def test_beside_an_extracted_network(extracted, tmp_path, rng):
    """Both are scored and reported; only one of them has layer 0."""
    job, stores = extracted
    mine = tiny.make(plan(job, given(tmp_path / "net.npz", stores[0], rng), {"extract": stores}))
    upstream = {"extract": stores, "imported": mine}
    config = dataclasses.replace(SCORED, controls=("length",), alphas=(100.0,))
    upstream["encode"] = tiny.make(encode.plan(config, job, upstream))
    (made,) = tiny.make(report.plan(report.Config(), job, upstream))
    table = pd.read_csv(made.path / "controls.csv")
    assert set(table[table.model == "net"].control) == {"length"}
    assert set(table[table.model == "bert"].control) == {"layer 0", "length"}
    assert "unknown" in pd.read_csv(made.path / "scores.csv").context.tolist()


@pytest.mark.slow
def test_similarity(extracted, tmp_path, rng):
    job, stores = extracted
    config = similarity.Config(measures=("cka",), layers=LAYERS)
    mine = tiny.make(plan(job, given(tmp_path / "net.npz", stores[0], rng)))
    (a, _) = tiny.make(similarity.plan(config, job, {"extract": stores}))
    every = similarity.Config(measures=("cka",))
    (b, _) = tiny.make(similarity.plan(every, job, {"imported": mine}))
    a, b = (rows.read_table(x.path / similarity.SCORES) for x in (a, b))
    np.testing.assert_array_equal(a.value, b.value)
    np.testing.assert_array_equal(a.layer, b.layer)


@pytest.mark.parametrize("rows_are", ["stimuli", "table"])
def test_npy_whose_rows_are_stated(extracted, tmp_path, rng, rows_are):
    job, stores = extracted
    ids = np.array(store.stimulus_ids(stores[0]))
    order = np.arange(len(ids)) if rows_are == "stimuli" else rng.permutation(len(ids))
    values = Activations(stores[0]).read_layer(2)[order]
    np.save(tmp_path / "net.npy", values)
    table = tmp_path / "rows.csv"
    pd.DataFrame({"stimulus_id": ids[order], "text": "x"}).to_csv(table, index=False)
    config = imported.Config(
        models=(str(tmp_path / "net.npy"),),
        rows="stimuli" if rows_are == "stimuli" else str(table),
        layers=(2,),
        context="window:10",
        pooling="last",
    )
    (found,) = tiny.make(plan(job, config))
    np.testing.assert_array_equal(Activations(found).read_layer(2), values)
    assert store.stimulus_ids(found) == ids[order].tolist()
    with pytest.raises(ValueError):
        Activations(found).read_layer(0)
    attributes = store.open_artefact(found).attributes
    assert attributes.layer_names == ["layer 2"]
    assert attributes.reading == {"context": "window:10", "pooling": "last"}


def test_another_file_or_other_ids_are_another_artefact(extracted, tmp_path, rng):
    job, stores = extracted
    path = tmp_path / "net.npz"
    (first,) = plan(job, given(path, stores[0], rng))
    (again,) = plan(job, imported.Config(models=(str(path),)))
    assert first.artefact.fingerprint == again.artefact.fingerprint
    (other,) = plan(job, given(path, stores[0], rng))  # another order of rows
    assert first.artefact.fingerprint != other.artefact.fingerprint
    ids = job.dataset.stimuli.stimulus_id
    np.save(tmp_path / "net.npy", Activations(stores[0]).read_layer(1))
    prints = []
    for order in (ids, ids[::-1]):
        pd.DataFrame({"stimulus_id": order}).to_csv(tmp_path / "rows.csv", index=False)
        config = imported.Config(
            models=(str(tmp_path / "net.npy"),), rows=str(tmp_path / "rows.csv")
        )
        prints.append(plan(job, config)[0].artefact.fingerprint)
    assert prints[0] != prints[1]


def test_half_precision_stays(extracted, tmp_path, rng):
    job, stores = extracted
    for dtype, kept in (("float16", "float16"), ("float64", "float32")):
        values = Activations(stores[0]).read_layer(1).astype(dtype)
        np.savez(tmp_path / "net.npz", stimulus_id=store.stimulus_ids(stores[0]), layer_1=values)
        (found,) = tiny.make(plan(job, imported.Config(models=(str(tmp_path / "net.npz"),))))
        assert store.open_artefact(found).dtype == kept
        np.testing.assert_array_equal(Activations(found).read_layer(1), values.astype(kept))


def test_ids_that_are_not_the_stimuli(extracted, tmp_path, rng):
    job, stores = extracted
    path = tmp_path / "net.npz"
    ids = store.stimulus_ids(stores[0])
    values = Activations(stores[0]).read_layer(1)
    np.savez(path, stimulus_id=ids[1:], layer_1=values[1:])
    with refused(path, "every stimulus must have a row, found none", repr(ids[0]), "(1 such)"):
        plan(job, imported.Config(models=(str(path),)))
    np.savez(path, stimulus_id=[*ids, "extra"], layer_1=np.r_[values, values[:1]])
    with refused(path, "every row must be of a stimulus, found one", "'extra'"):
        plan(job, imported.Config(models=(str(path),)))


def test_values_are_checked(extracted, tmp_path):
    job, stores = extracted
    path = tmp_path / "net.npz"
    ids = store.stimulus_ids(stores[0])
    values = Activations(stores[0]).read_layer(1).astype(np.float64)
    for bad, message in ((np.nan, "must be finite, found nan"), (1e300, "must fit float32")):
        values[3, 2] = bad
        np.savez(path, stimulus_id=ids, layer_1=values)
        (step,) = plan(job, imported.Config(models=(str(path),)))
        step.artefact.start()
        with refused(path, message):
            step.make(step.artefact)
        assert not step.artefact.is_done


def test_rows_that_are_not_known(extracted, tmp_path, rng):
    job, stores = extracted
    path = tmp_path / "net.npy"
    np.save(path, Activations(stores[0]).read_layer(1))
    config = imported.Config(models=(str(path),))
    for given_rows in ("", "nowhere.csv"):
        with refused("imported.rows must say what the rows of", path, repr(given_rows)):
            plan(job, dataclasses.replace(config, rows=given_rows))
    table = tmp_path / "rows.csv"
    table.write_text("id\na\n")
    with refused(table, "must have column 'stimulus_id'"):
        plan(job, dataclasses.replace(config, rows=str(table)))
    np.save(path, Activations(stores[0]).read_layer(1)[1:])
    with refused(path, "a row for each stimulus_id (60), found shape (59, "):
        plan(job, dataclasses.replace(config, rows="stimuli"))


@pytest.mark.parametrize(
    "settings,parts",
    [
        ({"models": ()}, ["imported.models must name at least one"]),
        ({"layers": (-1,)}, ["imported.layers must be integers >= 0, got -1"]),
        ({"context": ""}, ["imported.context must say what is known"]),
        ({"models": ("a.npz",), "rows": "stimuli"}, ["imported.rows must be left out"]),
        ({"models": ("a.npz",), "layers": (1,)}, ["imported.layers must be left out"]),
    ],
)
def test_settings_out_of_range(settings, parts):
    with refused(*parts):
        imported.Config(**({"models": ("a.npy",)} | settings))


@pytest.mark.parametrize("name", ["nowhere.npz", "bert", "nowhere.npy", "."])
def test_what_is_no_file(make_job, sentences, name):
    with refused("imported.models must name a file .npz or .npy: found", repr(name)):
        plan(make_job(sentences), imported.Config(models=(name,)))


def test_a_name_of_another_data_set_says_what_there_is(make_job, sentences, data_root):
    job = make_job(sentences)
    job = dataclasses.replace(job, dataset=datasets.find("pereira2018-mean", data_root))
    with refused("or 'gpt2-layer12' of pereira2018-mean: found 'gpt2-layer11'"):
        plan(job, imported.Config(models=("gpt2-layer11",)))


def test_names_are_of_one_network_each(extracted, tmp_path, rng):
    job, stores = extracted
    (tmp_path / "other").mkdir()
    paths = [tmp_path / "net.npz", tmp_path / "other/net.npz", tmp_path / "bert.npz"]
    paths.append(tmp_path / "length.npz")
    for path in paths:
        given(path, stores[0], rng)
    twice = imported.Config(models=tuple(map(str, paths[:2])))
    with refused("names of their own, found 'net' twice"):
        plan(job, twice)
    labelled = imported.Config(models=(str(paths[0]), f"second={paths[1]}"))
    assert [step.artefact.name for step in plan(job, labelled)] == ["net", "second"]
    with refused("names of their own, found 'bert' twice"):
        plan(job, imported.Config(models=(str(paths[2]),)), {"extract": stores})
    with refused("must not be called as a control is", "length.npz"):
        plan(job, imported.Config(models=(str(paths[3]),)))


@pytest.mark.parametrize("control", ["untrained", "random_embedding", "static_embedding"])
def test_controls_that_need_the_network(extracted, tmp_path, rng, control):
    job, stores = extracted
    steps = plan(job, given(tmp_path / "net.npz", stores[0], rng))
    upstream = {"imported": [x.artefact for x in steps]}
    config = dataclasses.replace(SCORED, controls=(control,))
    with refused(f"encode.controls must not have '{control}'", "of net there are only activations"):
        encode.plan(config, job, upstream)
    if control != "untrained":
        config = dataclasses.replace(SCORED, controls=(), partition=(control,))
        with refused(f"encode.partition must not have '{control}'"):
            encode.plan(config, job, upstream)


def test_layers_that_were_not_given(extracted, tmp_path, rng):
    job, stores = extracted
    steps = plan(job, given(tmp_path / "net.npz", stores[0], rng))
    upstream = {"imported": [x.artefact for x in steps]}
    with refused("encode.layers must be among [1, 3] for net, got 2"):
        encode.plan(dataclasses.replace(SCORED, layers=(2,)), job, upstream)
    with refused("similarity.layers must be among [1, 3] for net, got 0"):
        similarity.plan(similarity.Config(layers=(0,)), job, upstream)


def test_stages_that_need_a_network(extracted, tmp_path, rng):
    job, stores = extracted
    steps = plan(job, given(tmp_path / "net.npz", stores[0], rng))
    upstream = {"imported": [x.artefact for x in steps]}
    units = tmp_path / "units.npz"
    units.write_bytes(b"")
    with refused("similarity.units must be '' with imported activations"):
        similarity.plan(similarity.Config(units=str(units)), job, upstream)
    with refused("a run must have the stage extract or imported"):
        encode.plan(SCORED, job, {})
    localizer = dataclasses.replace(job, dataset=datasets.find("localizer", None))
    with refused("a run must have the stage extract, for a stage that needs networks"):
        localize.plan(localize.Config(), localizer, upstream)


@pytest.mark.slow
def test_one_subject_alone(make_job, tmp_path, rng):
    """No group and no ceiling over subjects: the report says so, and has no empty column."""
    root = tmp_path / "alone"
    tiny.write_sentences(root, rng, num_subjects=1)
    job = make_job(root)
    ids = job.dataset.stimuli.stimulus_id
    np.savez(tmp_path / "net.npz", stimulus_id=ids, activations=rng.normal(size=(len(ids), 5)))
    upstream = {
        "imported": tiny.make(plan(job, imported.Config(models=(str(tmp_path / "net.npz"),))))
    }
    config = dataclasses.replace(SCORED, alphas=(100.0,), controls=("length",), group_seed=3)
    config = dataclasses.replace(config, partition=("length",))
    upstream["encode"] = tiny.make(encode.plan(config, job, upstream))
    (made,) = tiny.make(report.plan(report.Config(), job, upstream))
    text = (made.path / report.SUMMARY).read_text()
    assert "There is one column of subjects, 's0': so no group" in text
    for word in ("Empty", "nan", "group_score"):
        assert word not in text
    page = (made.path / "index.html").read_text()
    assert "predicts B best: r " in page or "predicts A best: r " in page
    assert "outer folds of whole passages, drawn with seed 3" in page
    table = pd.read_csv(made.path / "beyond.csv")
    found = rows.read(upstream["encode"][-1].path / Partition.ROWS)
    np.testing.assert_allclose(table.subjects_joint, found.r2_joint)
    np.testing.assert_allclose(table.subjects_shared, found.shared)
    np.testing.assert_allclose(table.subjects_omega, found.omega)


def call(workdir, argument, *flags):
    return command.call(f"own.py:{argument}", workdir, *flags)


@pytest.mark.slow
def test_from_the_command_line(extracted, sentences, tmp_path, rng):
    """One's own data and activations; then one value is spoiled."""
    _, stores = extracted
    path = tmp_path / "net.npz"
    given(path, stores[0], rng)
    flags = ("--config.encode.num_folds=4", "--config.encode.alphas=(100.0,)")
    result = call(tmp_path / "cli", f"{sentences},{path}", *flags)
    assert result.returncode == 0, result.stderr
    table = pd.read_csv(tmp_path / "cli/report/scores.csv", keep_default_na=False)
    own = table[table.control_of == ""]
    assert set(own.model) == {"net"} and set(own.layer) == set(LAYERS)
    assert "untrained" not in set(table.model) and "length" in set(table.model)
    spoiled = Activations(stores[0]).read_layer(1)
    spoiled[0, 0] = np.inf
    np.savez(path, stimulus_id=store.stimulus_ids(stores[0]), layer_1=spoiled)
    result = call(tmp_path / "cli", f"{sentences},{path}")
    assert result.returncode == 2
    assert f"error: {path}: activations must be finite, found inf" in result.stderr
    lines = [line for line in result.stderr.splitlines() if line.startswith("error")]
    assert len(lines) == 1


@pytest.mark.slow
def test_refused_from_the_command_line(sentences, tmp_path):
    path = tmp_path / "net.npz"
    np.savez(path, stimulus_id=np.array(["a", None], dtype=object), layer_1=np.zeros((2, 3)))
    result = call(tmp_path / "cli", f"{sentences},{path}")
    assert result.returncode == 2
    assert result.stderr == (
        f"error: {path} must hold plain numbers and text, but stimulus_id holds pickled objects, "
        "which are never loaded.\n"
    )
    assert not (tmp_path / "cli").exists()


def test_settings_name_the_layers(extracted, tmp_path, rng):
    job, stores = extracted
    (found,) = tiny.make(plan(job, given(tmp_path / "net.npz", stores[0], rng)))
    settings = json.loads((found.path / "settings.json").read_text())["settings"]
    assert settings["layers"] == list(LAYERS) and settings["num_layers"] == 3
