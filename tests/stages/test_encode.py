import dataclasses
import itertools

import jax
import numpy as np
import pandas as pd
import pytest
import tiny
from jax.sharding import AxisType
from sklearn import model_selection

from jaxalign.core import folds as folds_lib
from jaxalign.core import mesh as mesh_lib
from jaxalign.core.ceilings import ceiling
from jaxalign.data import same_stimulus
from jaxalign.data.schema import Responses
from jaxalign.errors import InputError
from jaxalign.io import rows as rows_lib
from jaxalign.io import store
from jaxalign.results import significance
from jaxalign.stages import encode, extract
from jaxalign.stages.artefacts import Partition, Scores, Significance, among
from jaxalign.stages.encode import config as settings
from jaxalign.stages.encode import inputs

ALPHAS = (1.0, 100.0, 10_000.0)
TIMED = encode.Config(alphas=ALPHAS, num_folds=4, gap=2, delays=(1, 2, 3))
SENTENCES = encode.Config(alphas=ALPHAS, num_folds=4, groups="passage")


def read(artefacts):
    return pd.concat([rows_lib.read(x.path / Scores.ROWS) for x in artefacts])


def responses_of(root):
    return Responses.load(root / "responses.npz")


def save(root, responses):
    (root / "responses.npz").write_bytes(responses.to_bytes())


@pytest.mark.slow
def test_rows_of_timed_words(make_job, timed):
    """One row per model x layer x subject x ROI; the control that made the responses wins."""
    _, encoded = tiny.run(make_job(timed), tiny.bert(context="window:3"), TIMED)
    rows = read(encoded)
    assert set(rows.model) == {"bert", *encode.Config().controls}
    assert set(rows[rows.model != "bert"].control_of) == {"bert"}
    keys = ["model", "control_of", "layer", "subject", "roi"]
    assert not rows.duplicated(keys).any()
    own = rows[rows.model == "bert"]
    assert set(own.layer) == {0, 1, 2, 3}
    assert set(own.subject) == {"s0", "s1", "s2", "group"}
    assert len(own) == 4 * 4 * 2
    assert (own.context == "window:3").all()
    # Every TR has four words, but for those before a run: in the two blocks in which no run begins
    # the rate is constant and predicts nothing, and so the score is undefined.
    assert rows[rows.model == "word_rate"].score.isna().all()
    assert (rows[rows.model == "word_rate"].num_nan == 2).all()
    rows = rows[rows.model != "word_rate"]
    assert (rows.num_nan == 0).all()
    np.testing.assert_allclose(rows.score, [np.mean(x) for x in rows.fold_scores])
    best = rows[rows.subject != "group"].groupby("model").score.mean()
    # Responses follow the letters heard two TRs before; so do words of a fixed rate only by way
    # of their length.
    assert best["shifted"] < 0.2 < best["bert"]
    assert (rows.ceiling_kind == "split_half").eq(rows.subject == "group").all()
    assert rows.signal_ceiling.isna().all()
    # Features that entered; those of stimuli are not counted.
    units = {x: 32 if x in ("bert", "shifted", "untrained") else 0 for x in rows.model}
    assert dict(zip(rows.model, rows.num_units, strict=True)) == units


@pytest.mark.slow
def test_ceilings_are_those_of_the_test_blocks(make_job, timed):
    _, encoded = tiny.run(
        make_job(timed), tiny.bert(untrained_seed=-1), dataclasses.replace(TIMED, controls=())
    )
    rows = read(encoded)
    responses = responses_of(timed)
    folds = folds_lib.contiguous_folds(responses.run, 4, gap=2)
    runs = np.array(responses.run)
    standard = np.empty_like(responses.values)
    for run in ("run0", "run1"):
        own = responses.values[runs == run]
        standard[runs == run] = (own - own.mean(axis=0)) / own.std(axis=0)
    cube = standard.reshape(-1, 3, 2).transpose(1, 2, 0)
    blocks = [fold.outer.test for fold in folds]
    expected = ceiling.leave_one_subject_out(cube, blocks)
    for (s, subject), (r, roi) in itertools.product(
        enumerate(["s0", "s1", "s2"]), enumerate(["A", "B"])
    ):
        own = rows[(rows.subject == subject) & (rows.roi == roi)]
        np.testing.assert_allclose(own.ceiling, expected[s, r])
    assert set(rows.folds_hash) == {folds_lib.folds_hash(folds)}


@pytest.mark.slow
def test_order_of_samples_is_a_matter_of_ids(make_job, sentences):
    """Responses listed in another order of passages are joined by id, not by row."""
    config = dataclasses.replace(SENTENCES, controls=("word_rate",))
    job = make_job(sentences)
    _, encoded = tiny.run(job, tiny.bert(untrained_seed=-1), config)
    before = read(encoded)

    table = pd.read_csv(sentences / "stimuli.csv")
    order = np.arange(len(table)).reshape(-1, 5)[::-1].ravel()
    table.iloc[order].to_csv(sentences / "stimuli.csv", index=False)
    _, encoded = tiny.run(make_job(sentences, workdir="b"), tiny.bert(untrained_seed=-1), config)
    after = read(encoded)
    keys = ["model", "layer", "subject", "roi"]
    both = before.merge(after, on=keys, suffixes=("", "_after"))
    assert len(both) == len(before)
    # Activations are rounded in other batches, so not bit for bit.
    np.testing.assert_allclose(both.score_after, both.score, atol=1e-3)


@pytest.mark.slow
def test_rows_average_the_targets_of_a_region(make_job, sentences):
    _, encoded = tiny.run(
        make_job(sentences),
        tiny.bert(untrained_seed=-1),
        dataclasses.replace(SENTENCES, controls=(), layers=(2,)),
    )
    rows = read(encoded)
    with np.load(encoded[0].path / "layer_002.npz") as file:
        r, alphas = file["r"], file["alphas"]
    own = rows[(rows.subject == "s1") & (rows.roi == "A")].iloc[0]
    assert own.num_targets == 3
    np.testing.assert_allclose(own.score, r[:, 4:7].mean())
    np.testing.assert_allclose(own.fold_scores, r[:, 4:7].mean(axis=1))
    assert own.alpha_median == np.median(alphas[:, 4:7])
    assert own.alpha_high_share == (alphas[:, 4:7] == ALPHAS[-1]).mean()


@pytest.mark.slow
def test_constant_subject_is_left_out_and_named(make_job, timed, caplog):
    responses = responses_of(timed)
    values = responses.values.copy()
    values[:, 2:4] = 7.0
    save(timed, dataclasses.replace(responses, values=values))
    config = dataclasses.replace(TIMED, controls=())
    with caplog.at_level("WARNING", logger="absl"):
        _, encoded = tiny.run(make_job(timed), tiny.bert(untrained_seed=-1), config)
    assert "subject s1 is left out: every target is constant (1 of 3 subjects)" in caplog.text
    assert encoded[0].facts()["left_out"] == ["s1"]
    assert set(read(encoded).subject) == {"s0", "s2", "group"}


@pytest.mark.slow
def test_constant_target_is_undefined_and_counted(make_job, sentences):
    responses = responses_of(sentences)
    values = responses.values.copy()
    values[:, 3] = 0.1  # s0, region B, the only target
    values[:, 4] = 0.1  # s1, region A, one of three
    save(sentences, dataclasses.replace(responses, values=values))
    config = dataclasses.replace(SENTENCES, controls=(), layers=(1,))
    _, encoded = tiny.run(make_job(sentences), tiny.bert(untrained_seed=-1), config)
    rows = read(encoded).set_index(["subject", "roi"])
    assert np.isnan(rows.loc[("s0", "B")].score)
    assert rows.loc[("s0", "B")].num_nan == 4
    assert np.isfinite(rows.loc[("s1", "A")].score)
    assert rows.loc[("s1", "A")].num_nan == 4
    assert rows.loc[("s2", "A")].num_nan == 0
    assert encoded[0].facts()["num_nan"] == 8


@pytest.mark.slow
def test_finished_layers_are_not_scored_again(make_job, sentences):
    config = dataclasses.replace(SENTENCES, controls=())
    job = make_job(sentences)
    stores = tiny.make(extract.plan(tiny.bert(untrained_seed=-1), job, {}))
    (step,) = encode.plan(config, job, {"extract": stores})
    step.artefact.start()
    step.make(step.artefact)
    first = (step.artefact.path / Scores.ROWS).read_bytes()
    layers = sorted(step.artefact.path.glob("layer_*.npz"))
    layers[-1].unlink()
    (step.artefact.path / Scores.ROWS).unlink()
    kept = [path.stat().st_mtime_ns for path in layers[:-1]]
    tiny.make([step])
    assert [path.stat().st_mtime_ns for path in layers[:-1]] == kept
    assert (step.artefact.path / Scores.ROWS).read_bytes() == first


@pytest.mark.slow
def test_components_come_from_training_samples(make_job, timed):
    """All components, unscaled, are a rotation: ridge gives the same scores."""
    config = dataclasses.replace(TIMED, controls=(), standardize=False, layers=(2,))
    job = make_job(timed)
    stores, plain = tiny.run(job, tiny.bert(untrained_seed=-1), config)
    rotated = dataclasses.replace(config, pca=32)
    few = dataclasses.replace(config, pca=3)
    _, with_pca = tiny.run(job, tiny.bert(untrained_seed=-1), rotated)
    _, with_few = tiny.run(job, tiny.bert(untrained_seed=-1), few)
    np.testing.assert_allclose(read(with_pca).score, read(plain).score, atol=2e-3)
    assert np.abs(read(with_few).score - read(plain).score).max() > 0.01
    assert [set(read(x).num_units) for x in (plain, with_pca, with_few)] == [{32}, {32}, {3}]


@pytest.mark.slow
def test_rows_name_what_the_model_was_asked(make_job, sentences):
    config = encode.Config(
        num_folds=3,
        alphas=(10.0,),
        controls=("length",),
        layers=(1, 3),
        partition=("length",),
        partition_draws=1,
        partition_rounds=0,
        permutations=9,
        orders="row",
    )
    job, asked = make_job(sentences), "what is this? "
    _, encoded = tiny.run(job, tiny.bert(untrained_seed=-1, prompt=asked), config)
    found = pd.concat([x.rows() for x in among(Scores, encoded)])
    assert set(found.instruction) == {asked}
    way = found[["tap", "joining", "bos", "chat", "compute_dtype", "layer_name", "final_norm"]]
    network = found.control_of == ""
    said = "residual|text||no|float32"
    assert set(way[network].agg("|".join, axis=1)) == {f"{said}|block.1|no", f"{said}|block.3|no"}
    assert (way[~network] == "").all(axis=None)
    # Rows of the other kinds name it as the scores do, and a layer that is any names none.
    columns = ["context", "pooling", "instruction", *rows_lib.READING]
    columns += ["layer", "layer_name", "final_norm"]
    of_layers = found[network][columns].drop_duplicates().reset_index(drop=True)
    for kind in (Partition, Significance):
        (artefact,) = among(kind, encoded)
        other = artefact.rows()
        at = other[other.layer >= 0][columns].drop_duplicates().reset_index(drop=True)
        pd.testing.assert_frame_equal(at, of_layers)
    at_any = other[other.layer == significance.ANY][["layer_name", "final_norm"]]
    assert len(at_any) and (at_any == "").all(axis=None)


@pytest.mark.slow
def test_settings_that_play_no_part_change_no_fingerprint(make_job, sentences):
    job = make_job(sentences)
    stores = tiny.make(extract.plan(tiny.bert(), job, {}))

    def fingerprints(**changes):
        config = dataclasses.replace(SENTENCES, **changes)
        steps = encode.plan(config, job, {"extract": stores})
        return {step.artefact.settings["model"]: step.artefact.fingerprint for step in steps}

    base, shifted = fingerprints(), fingerprints(shift=0.25)
    assert [name for name in base if base[name] != shifted[name]] == ["shifted"]
    assert all(base[name] == x for name, x in fingerprints(controls=("position",)).items())
    assert not set(base.values()) & set(fingerprints(num_folds=5).values())


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"alphas": ()}, "encode.alphas must be positive"),
        ({"alphas": (0.0, 1.0)}, "encode.alphas must be positive"),
        ({"num_folds": 2}, "encode.num_folds must be >= 3, got 2"),
        ({"gap": -1}, "encode.gap must be >= 0"),
        ({"pca": -1}, "encode.pca must be >= 0"),
        ({"shift": 0.0}, "encode.shift must lie between 0 and 1"),
        ({"shift": 1.0}, "encode.shift must lie between 0 and 1"),
        ({"ceiling_splits": 0}, "encode.ceiling_splits must be >= 1"),
        ({"delays": ()}, "encode.delays must be different and >= 0"),
        ({"delays": (1, 1)}, "encode.delays must be different and >= 0"),
        ({"delays": (-1,)}, "encode.delays must be different and >= 0"),
        ({"downsample": "max"}, "encode.downsample must be one of mean, sum, lanczos"),
        ({"groups": "story"}, "encode.groups must be one of none, passage"),
        ({"layers": (1, 1)}, "encode.layers must differ"),
        ({"rois": ("A", "A")}, "encode.rois must differ"),
        ({"controls": ("position", "position")}, "encode.controls must differ"),
        ({"controls": ("noise",)}, "encode.controls must be among .*got 'noise'"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(InputError, match=message):
        encode.Config(**settings)


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"layers": (4,)}, r"encode.layers must lie in 0..3 for bert, got 4"),
        ({"layers": (-1,)}, r"encode.layers must lie in 0..3 for bert, got -1"),
        ({"rois": ("V1",)}, "encode.rois must be among A, B, got 'V1'"),
        ({"delays": (1,)}, r"encode.delays must be \(0,\) for responses to single stimuli"),
        ({"pca": 33}, r"encode.pca must be at most 32 for bert \(32 units, 45 training"),
        ({"num_folds": 13}, "groups must be at least 13, got 12: encode.num_folds of at most 12"),
        ({"gap": 60, "groups": "none"}, "gap must leave samples to train on"),
    ],
)
def test_settings_that_do_not_fit_the_data(make_job, sentences, settings, message):
    job = make_job(sentences)
    upstream = {"extract": [s.artefact for s in extract.plan(tiny.bert(), job, {})]}
    with pytest.raises(InputError, match=message):
        encode.plan(dataclasses.replace(SENTENCES, **settings), job, upstream)


def test_untrained_control_needs_untrained_networks(make_job, sentences):
    job = make_job(sentences)
    steps = extract.plan(tiny.bert(untrained_seed=-1), job, {})
    with pytest.raises(InputError, match="extract.untrained_seed must be >= 0"):
        encode.plan(SENTENCES, job, {"extract": [s.artefact for s in steps]})


@pytest.mark.slow
def test_random_embedding_is_layer_0_of_the_untrained_network(make_job, sentences):
    config = dataclasses.replace(SENTENCES, controls=("untrained", "random_embedding"))
    _, encoded = tiny.run(make_job(sentences), tiny.bert(), config)
    rows = read(encoded)
    keys = ["subject", "roi", "target"] if "target" in rows else ["subject", "roi"]
    alone = rows[rows.model == "random_embedding"].set_index(keys).score
    untrained = rows[(rows.model == "untrained") & (rows.layer == 0)].set_index(keys).score
    assert len(alone) == len(untrained) > 0
    np.testing.assert_array_equal(alone.sort_index(), untrained.sort_index())


@pytest.mark.slow
def test_devices_divide_the_targets(make_job, sentences):
    """Scores do not depend on how many devices there are."""
    config = dataclasses.replace(SENTENCES, controls=())
    alone = jax.make_mesh((1, 1), mesh_lib.AXES, (AxisType.Auto,) * 2, devices=jax.devices()[:1])
    one, four = (
        read(
            tiny.run(
                make_job(sentences, workdir=f"{mesh.size}", mesh=mesh),
                tiny.bert(untrained_seed=-1),
                config,
            )[1]
        )
        for mesh in (alone, mesh_lib.make_mesh(2, 2))
    )
    np.testing.assert_allclose(four.score, one.score, atol=1e-3)


def test_passages_of_timed_responses(make_job, timed):
    job = make_job(timed)
    upstream = {"extract": [s.artefact for s in extract.plan(tiny.bert(), job, {})]}
    config = dataclasses.replace(TIMED, groups="passage")
    with pytest.raises(InputError, match="encode.groups must be 'none' for timed responses"):
        encode.plan(config, job, upstream)


def test_responses_to_something_unknown(make_job, timed, sentences):
    responses = responses_of(timed)
    save(
        timed,
        dataclasses.replace(
            responses,
            run=["elsewhere"] * len(responses.run),
            time_s=2.0 * np.arange(len(responses.run)),
        ),
    )
    job = make_job(timed)
    upstream = {"extract": [s.artefact for s in extract.plan(tiny.bert(), job, {})]}
    with pytest.raises(InputError, match="every run must be one of the stimuli's.*'elsewhere'"):
        encode.plan(TIMED, job, upstream)
    responses = responses_of(sentences)
    ids = ["nobody", *responses.stimulus_id[1:]]
    save(sentences, dataclasses.replace(responses, stimulus_id=ids))
    job = make_job(sentences)
    upstream = {"extract": [s.artefact for s in extract.plan(tiny.bert(), job, {})]}
    with pytest.raises(InputError, match="every stimulus_id must be one of.*'nobody'"):
        encode.plan(SENTENCES, job, upstream)


def test_shifted_needs_runs_of_two_samples(make_job, sentences):
    responses = responses_of(sentences)
    save(sentences, dataclasses.replace(responses, run=["first", *responses.run[1:]]))
    job = make_job(sentences)
    upstream = {"extract": [s.artefact for s in extract.plan(tiny.bert(), job, {})]}
    with pytest.raises(InputError, match="every run must have at least 2 samples: run 'first'"):
        encode.plan(SENTENCES, job, upstream)


def test_all_constant_responses(make_job, sentences):
    responses = responses_of(sentences)
    save(sentences, dataclasses.replace(responses, values=np.ones_like(responses.values)))
    job = make_job(sentences)
    upstream = {"extract": [s.artefact for s in extract.plan(tiny.bert(), job, {})]}
    with pytest.raises(InputError, match="every target is constant"):
        encode.plan(SENTENCES, job, upstream)


def test_timed_responses_to_untimed_stimuli(make_job, timed):
    table = pd.read_csv(timed / "stimuli.csv").drop(columns=["onset_s", "offset_s"])
    table.to_csv(timed / "stimuli.csv", index=False)
    job = make_job(timed)
    upstream = {"extract": [s.artefact for s in extract.plan(tiny.bert(), job, {})]}
    with pytest.raises(InputError, match="stimuli must have onset_s and offset_s"):
        encode.plan(TIMED, job, upstream)


def test_damaged_store_is_not_scored(make_job, sentences):
    job = make_job(sentences)
    stores = tiny.make(extract.plan(tiny.bert(untrained_seed=-1), job, {}))
    (shard,) = [p for p in (stores[0].path / store.ARRAY / "c/0").glob("1/0")]
    content = bytearray(shard.read_bytes())
    content[100] ^= 0xFF
    shard.write_bytes(content)
    steps = encode.plan(dataclasses.replace(SENTENCES, controls=()), job, {"extract": stores})
    with pytest.raises(InputError, match="cannot be read"):
        tiny.make(steps)
    assert not steps[0].artefact.is_done


@pytest.mark.slow
def test_damaged_scores_of_a_layer_are_made_again(make_job, sentences, caplog):
    config = dataclasses.replace(SENTENCES, controls=(), layers=(0, 1))
    _, (artefact,) = tiny.run(make_job(sentences), tiny.bert(untrained_seed=-1), config)
    expected = (artefact.path / Scores.ROWS).read_bytes()
    part = artefact.path / "layer_001.npz"
    part.write_bytes(part.read_bytes()[:-50])
    (artefact.path / "done.json").unlink()
    with caplog.at_level("WARNING", logger="absl"):
        tiny.run(make_job(sentences), tiny.bert(untrained_seed=-1), config)
    assert "layer_001.npz is damaged" in caplog.text
    assert (artefact.path / Scores.ROWS).read_bytes() == expected


@pytest.mark.slow
def test_repeated_stimuli_do_not_leak(make_job, sentences, rng):
    """Every sentence twice, noise locked to the sentence: only trained on, or only tested."""
    responses = responses_of(sentences)
    noise = rng.standard_normal(responses.values.shape)
    values = np.concatenate([noise, noise + 0.1 * rng.standard_normal(noise.shape)])
    ids = [*responses.stimulus_id, *responses.stimulus_id]
    save(
        sentences,
        dataclasses.replace(responses, values=values, stimulus_id=ids, run=["session"] * len(ids)),
    )
    config = dataclasses.replace(SENTENCES, controls=(), groups="none", layers=(1,), num_folds=6)
    _, encoded = tiny.run(make_job(sentences), tiny.bert(untrained_seed=-1), config)
    rows = read(encoded)
    assert abs(rows[rows.subject != "group"].score.mean()) < 0.2


def test_runs_of_the_same_words(make_job, timed):
    table = pd.read_csv(timed / "stimuli.csv")
    first = table[table.run == "run0"].text.tolist()
    table.loc[table.run == "run1", "text"] = first
    table.to_csv(timed / "stimuli.csv", index=False)
    job = make_job(timed)
    upstream = {"extract": [s.artefact for s in extract.plan(tiny.bert(), job, {})]}
    with pytest.raises(InputError, match="'run0' and 'run1' present the same"):
        encode.plan(TIMED, job, upstream)


def test_runs_of_one_story(make_job, tmp_path, rng):
    """Of three stories in four runs, the one that is told twice is one block."""
    tiny.write_timed(tmp_path / "told", rng, num_runs=4, num_trs=30)
    table = pd.read_csv(tmp_path / "told/stimuli.csv")
    told, again = (table[table.run == run].index for run in ("run1", "run3"))
    table.loc[again[:-1], "text"] = table.text[told[:-1]].to_numpy()
    table.loc[again[-1], "text"] = "otherwise"
    table.to_csv(tmp_path / "told/stimuli.csv", index=False)
    job = make_job(tmp_path / "told")
    responses = job.dataset.responses
    items = same_stimulus.items(job.dataset.stimuli, responses)
    config = dataclasses.replace(TIMED, num_folds=3)
    protocol = settings.protocol(config)
    folds = inputs.make_folds(config, protocol, responses, kept=None, items=items)
    run = np.array(responses.run)
    assert ["run1" in run[x.outer.test] for x in folds].count(True) == 1
    for fold in folds:
        for split in (fold.outer, *fold.inner):
            tells = [np.isin(run[side], ["run1", "run3"]).any() for side in split]
            assert not all(tells)


def test_region_in_which_everybody_is_constant(make_job, sentences):
    responses = responses_of(sentences)
    values = responses.values.copy()
    values[:, 3::4] = 1.0  # region B
    save(sentences, dataclasses.replace(responses, values=values))
    job = make_job(sentences)
    upstream = {"extract": [s.artefact for s in extract.plan(tiny.bert(), job, {})]}
    with pytest.raises(InputError, match="every target is constant"):
        encode.plan(dataclasses.replace(SENTENCES, rois=("B",)), job, upstream)


def test_ceiling_of_a_subject_may_be_negative_and_that_of_the_group_not(make_job, sentences):
    """Random responses: about half of the ceilings are below zero."""
    config = dataclasses.replace(SENTENCES, controls=(), layers=(0,))
    _, encoded = tiny.run(make_job(sentences), tiny.bert(untrained_seed=-1), config)
    rows = read(encoded)
    people = rows[rows.subject != "group"]
    assert people.ceiling.notna().all() and (people.ceiling < 0).any()
    assert not (rows[rows.subject == "group"].ceiling <= 0).any()


def test_groups_are_drawn_as_scikit_learn_does(make_job, sentences):
    """The outer folds of GroupKFold, index by index; the inner ones are the other outer blocks."""
    job = make_job(sentences)
    config = encode.Config(num_folds=4, groups="passage", group_seed=5, controls=())
    responses, passages = job.dataset.responses, job.dataset.stimuli.passage
    kept = inputs.groups(config, responses, job.dataset)
    found = inputs.make_folds(config, settings.protocol(config), responses, kept=kept, items=None)
    splitter = model_selection.GroupKFold(4, shuffle=True, random_state=5)
    expected = list(splitter.split(passages, groups=passages))
    for i, (fold, (train, test)) in enumerate(zip(found, expected, strict=True)):
        np.testing.assert_array_equal(fold.outer.train, train)
        np.testing.assert_array_equal(fold.outer.test, test)
        others = [test for j, (_, test) in enumerate(expected) if j != i]
        for inner, block in zip(fold.inner, others, strict=True):
            np.testing.assert_array_equal(inner.test, block)
            assert not set(inner.train) & (set(block) | set(test))


@pytest.mark.parametrize("given", [{"groups": "none"}, {"groups": "passage", "gap": 1}])
def test_groups_that_cannot_be_drawn(given):
    with pytest.raises(
        InputError, match="encode.group_seed needs encode.groups, and leaves no gap"
    ):
        encode.Config(group_seed=0, **given)
