import dataclasses

import numpy as np
import pandas as pd
import pytest
import tiny
from refusals import refused
from scipy import stats
from scipy.spatial import distance

from jaxalign.data.schema import Responses
from jaxalign.io import store
from jaxalign.stages import extract, similarity, simulate_responses

CONFIG = similarity.Config()


def compare(job, extraction, config=CONFIG, upstream=None):
    stores = tiny.make(extract.plan(extraction, job, {}))
    found = tiny.make(similarity.plan(config, job, {"extract": stores} | (upstream or {})))
    page = found[-1].path
    table = pd.read_csv(page / "scores.csv", keep_default_na=False, na_values=["nan"])
    return stores, table, [(page / similarity.SUMMARY).read_text()]


def standard(x):
    return (x - x.mean(axis=0)) / x.std(axis=0)


def cka(X, Y):
    X, Y = X - X.mean(axis=0), Y - Y.mean(axis=0)
    norm = lambda A, B: np.linalg.norm(A.T @ B) ** 2
    return norm(X, Y) / np.sqrt(norm(X, X) * norm(Y, Y))


@pytest.mark.slow
def test_values_of_sentences_are_those_of_numpy_and_scipy(make_job, sentences):
    stores, table, texts = compare(make_job(sentences), tiny.bert(untrained_seed=-1))
    responses = Responses.load(sentences / "responses.npz")
    Y = standard(responses.values)
    subject = np.array(responses.subject)
    roi = np.array(responses.roi)
    for layer in range(4):
        X = standard(store.open_artefact(stores[0]).read_layer(layer).astype(float))
        for name in ("s0", "s2", "group"):
            if name == "group":
                own = np.mean([Y[:, (subject == s) & (roi == "A")] for s in set(subject)], axis=0)
            else:
                own = Y[:, (subject == name) & (roi == "A")]
            rows = table[(table.layer == layer) & (table.subject == name) & (table.roi == "A")]
            values = rows.set_index("measure").value
            assert values["cka"] == pytest.approx(cka(X, own), abs=1e-5)
            for kind, metric in (("pearson", "correlation"), ("cosine", "cosine")):
                a, b = distance.pdist(X, metric), distance.pdist(own, metric)
                expected = stats.spearmanr(a, b).statistic
                # Activations are float32.
                assert values[f"rsa_{kind}"] == pytest.approx(expected, abs=1e-4)
    assert len(table) == 4 * 4 * 2 * 4
    said = table[["tap", "joining", "bos", "chat", "compute_dtype", "final_norm"]]
    assert set(said.agg("|".join, axis=1)) == {"residual|text||no|float32|no"}
    names = table.drop_duplicates("layer").set_index("layer").layer_name
    assert names.to_dict() == {0: "embedding", 1: "block.1", 2: "block.2", 3: "block.3"}
    assert (table.num_samples == 60).all()
    assert (table.num_shifts == 0).all() and table.p.isna().all()
    check_page(stores[0].path.parents[1] / "similarity", stores[0])


def check_page(folder, source):
    """Hold layers x layers, means over subjects and the page against their sources."""
    matrix = pd.read_parquet(folder / "layer_matrix.parquet")
    assert len(matrix) == 16
    layers = [standard(store.open_artefact(source).read_layer(i).astype(float)) for i in range(4)]
    for row in matrix.itertuples():
        assert row.cka == pytest.approx(cka(layers[row.layer], layers[row.other]), abs=1e-5)
    table = pd.read_csv(folder / "scores.csv")
    profiles = pd.read_csv(folder / "profiles.csv")
    keys = {"roi": "A", "measure": "cka", "layer": 2}
    of = lambda x: x[(x[list(keys)] == list(keys.values())).all(axis=1)]
    subjects = of(table[table.subject != "group"]).value
    (row,) = of(profiles).itertuples()
    assert row.subjects_mean == pytest.approx(subjects.mean()) and row.num_subjects == 3
    half = stats.t.ppf(0.975, 2) * subjects.sem()
    assert row.ci_high - row.subjects_mean == pytest.approx(half)
    best = pd.read_csv(folder / "best.csv").set_index(["roi", "measure"])
    own = profiles[(profiles.roi == "A") & (profiles.measure == "cka")].set_index("layer")
    assert int(best.layer["A", "cka"]) == own.subjects_mean.idxmax()
    assert np.isnan(best.value["B", "rsa_pearson"]) and best.layer["B", "rsa_pearson"] == "–"
    text = (folder / "index.html").read_text()
    assert text.count('<figure class="chart">') == 2
    assert "one target is no pattern" in text


@pytest.mark.slow
def test_one_target_is_undefined_and_said_so(make_job, sentences, caplog):
    with caplog.at_level("WARNING", logger="absl"):
        _, table, texts = compare(make_job(sentences), tiny.bert(untrained_seed=-1))
    single = table[table.roi == "B"]
    is_rsa = single.measure.str.startswith("rsa")
    assert (single.num_targets == 1).all()
    assert single[is_rsa].value.isna().all() and single[~is_rsa].value.notna().all()
    remark = "RSA is undefined in 4 of 8 subjects and ROIs: one target is no pattern"
    assert remark in caplog.text and remark in texts[0]
    assert "rsa_pearson undefined" in texts[0]


@pytest.mark.slow
def test_samples_without_a_pattern_are_named(make_job, timed, caplog):
    table = pd.read_csv(timed / "stimuli.csv")
    silent = (table.run == "run1") & table.onset_s.between(4, 8, inclusive="left")
    table[~silent].to_csv(timed / "stimuli.csv", index=False)
    measures = ("rsa_pearson", "cka")
    config = dataclasses.replace(CONFIG, standardize=False, measures=measures)
    with caplog.at_level("WARNING", logger="absl"):
        _, found, _ = compare(make_job(timed), tiny.bert(untrained_seed=-1), config)
    assert found[found.measure == "rsa_pearson"].value.isna().all()
    remark = "features of layer 0: RSA (pearson) is undefined, since 2 of 120 samples are the same"
    assert remark in caplog.text and "the TR at 4 s of run 'run1'" in caplog.text


@pytest.mark.slow
def test_timed_responses_take_delays_and_only_the_rois_asked_for(make_job, timed):
    config = dataclasses.replace(CONFIG, delays=(1, 2, 3), rois=("B",), measures=("cka",))
    job = make_job(timed)
    _, table, _ = compare(job, tiny.bert(context="window:3", untrained_seed=-1), config)
    assert set(table.roi) == {"B"} and set(table.measure) == {"cka"}
    assert table.value.between(0, 1).all()
    assert (table.num_shifts == similarity.NUM_SHIFTS).all()
    assert table.p.between(1 / (1 + similarity.NUM_SHIFTS), 1).all()
    group = table[table.subject == "group"]
    assert (group.detrended > group.null_mean).all() and group.p.max() < 0.05
    late = dataclasses.replace(config, delays=(9,))
    _, wrong, _ = compare(job, tiny.bert(context="window:3", untrained_seed=-1), late)
    mean = lambda x: x[x.subject == "group"].value.mean()
    assert mean(table) > mean(wrong)


@pytest.mark.slow
def test_untrained_network_stands_beside_its_model(make_job, sentences):
    config = dataclasses.replace(CONFIG, layers=(1,), measures=("cka",), standardize=False)
    _, table, _ = compare(make_job(sentences), tiny.bert(), config)
    assert set(zip(table.model, table.control_of, strict=True)) == {
        ("bert", ""),
        ("untrained", "bert"),
    }
    assert set(table.layer) == {1}


@pytest.mark.slow
def test_planted_layer_is_the_most_alike(make_job, sentences):
    job = make_job(sentences)
    stores = tiny.make(extract.plan(tiny.bert(untrained_seed=-1), job, {}))
    planting = simulate_responses.Config(
        model="bert", layer=2, num_subjects=3, num_targets=40, noise_sd=0.1
    )
    planted = tiny.make(simulate_responses.plan(planting, job, {"extract": stores}))
    _, table, texts = compare(job, tiny.bert(untrained_seed=-1), upstream={"simulate": planted})
    group = table[table.subject == "group"]
    for measure in similarity.CKA:
        own = group[group.measure == measure].set_index("layer").value
        assert own.idxmax() == 2 and own[2] > 0.8
    assert "cka_debiased 0." in texts[0] and "(layer 2)" in texts[0]


@pytest.mark.slow
def test_order_of_samples_is_a_matter_of_ids(make_job, sentences):
    config = dataclasses.replace(CONFIG, measures=("cka", "rsa_pearson"))
    _, before, _ = compare(make_job(sentences), tiny.bert(untrained_seed=-1), config)
    table = pd.read_csv(sentences / "stimuli.csv")
    table.iloc[::-1].to_csv(sentences / "stimuli.csv", index=False)
    _, after, _ = compare(make_job(sentences, workdir="b"), tiny.bert(untrained_seed=-1), config)
    np.testing.assert_allclose(after.value, before.value, atol=1e-3)


def write_mask(path, shape=(4, 24), **arrays):
    mask = np.zeros(shape, bool)
    mask[1, 3] = mask[3, [0, 5]] = True
    np.savez(path, **{"language": mask, "random": ~mask} | arrays)
    return str(path)


@pytest.mark.slow
def test_chosen_units_of_all_layers_are_one_set(make_job, sentences, tmp_path):
    job = make_job(sentences)
    (source,) = tiny.make(extract.plan(tiny.bert(untrained_seed=-1), job, {}))
    opened = store.open_artefact(source)
    width = opened.shape[2]
    path = write_mask(tmp_path / "units.npz", (4, width))
    config = dataclasses.replace(CONFIG, units=path, measures=("cka",))
    _, table, texts = compare(job, tiny.bert(untrained_seed=-1), config)
    X = np.c_[opened.read_layer(1)[:, 3], opened.read_layer(3)[:, [0, 5]]].astype(float)
    Y = standard(Responses.load(sentences / "responses.npz").values)[:, :3]
    row = table[(table.subject == "s0") & (table.roi == "A")]
    assert list(row.layer) == [-1] and list(row.units) == ["language"]
    assert row.value.iloc[0] == pytest.approx(cka(standard(X), Y), abs=1e-5)
    assert "language units" in texts[0] and "layer" not in texts[0]
    other = dataclasses.replace(config, unit_set="random")
    _, random, _ = compare(job, tiny.bert(untrained_seed=-1), other)
    assert (random.value != table.value).all()


def test_masks_that_are_none_or_of_another_model_are_refused(make_job, sentences, tmp_path):
    job = make_job(sentences)
    stores = [x.artefact for x in extract.plan(tiny.bert(untrained_seed=-1), job, {})]
    path = tmp_path / "units.npz"

    def plan(**settings):
        config = dataclasses.replace(CONFIG, units=str(path), **settings)
        similarity.plan(config, job, {"extract": stores})

    with refused("similarity.units must name a file", "units.npz"):
        plan()
    write_mask(path, (9, 9))
    with refused("units.npz: language must be", "bool of shape (9, 9): is it of this model?"):
        plan()
    shape = (4, stores[0].settings["width"])
    write_mask(path, shape, random=np.zeros(shape, bool))
    plan()
    with refused("random must choose at least one unit, found none"):
        plan(unit_set="random")
    np.savez(path, t=np.zeros(shape))
    with refused("units.npz must be an .npz with the mask 'language'"):
        plan()
    path.write_bytes(b"PK")
    with refused("units.npz must be an .npz"):
        plan()


@pytest.mark.parametrize(
    "settings,parts",
    [
        ({"unit_set": "best"}, ["similarity.unit_set must be one of language, random"]),
        ({"units": "x", "layers": (1,)}, ["similarity.layers must be () with similarity.units"]),
        ({"measures": ("cca",)}, ["similarity.measures must be among cka", "'cca'"]),
        ({"measures": ()}, ["similarity.measures must name at least one"]),
        ({"measures": ("cka", "cka")}, ["similarity.measures must differ"]),
        ({"comparison": "kendall"}, ["similarity.comparison must be one of spearman, pearson"]),
        ({"downsample": "max"}, ["similarity.downsample must be one of mean, sum, lanczos"]),
        ({"delays": (-1,)}, ["similarity.delays must be >= 0"]),
        ({"delays": ()}, ["similarity.delays must be >= 0"]),
    ],
)
def test_settings_out_of_range(settings, parts):
    with refused(*parts):
        dataclasses.replace(CONFIG, **settings)


@pytest.mark.parametrize(
    "settings,parts",
    [
        ({"layers": (9,)}, ["similarity.layers must lie in 0..3 for bert, got 9"]),
        ({"rois": ("C",)}, ["similarity.rois must be among A, B, got 'C'"]),
        ({"delays": (1,)}, ["similarity.delays must be (0,) for responses to single stimuli"]),
    ],
)
def test_settings_that_do_not_fit_are_found_before_anything_runs(
    make_job, sentences, settings, parts
):
    job = make_job(sentences)
    stores = [x.artefact for x in extract.plan(tiny.bert(untrained_seed=-1), job, {})]
    with refused(*parts):
        similarity.plan(dataclasses.replace(CONFIG, **settings), job, {"extract": stores})
    planting = simulate_responses.Config(model="bert", layer=2)
    planted = [x.artefact for x in simulate_responses.plan(planting, job, {"extract": stores})]
    with refused("similarity.rois must be () for simulated responses"):
        similarity.plan(
            dataclasses.replace(CONFIG, rois=("A",)), job, {"extract": stores, "simulate": planted}
        )
    with refused("similarity.delays must be (0,) for responses to single stimuli, got (1,)"):
        similarity.plan(
            dataclasses.replace(CONFIG, delays=(1,)), job, {"extract": stores, "simulate": planted}
        )


def test_responses_to_other_stimuli_are_refused(make_job, sentences):
    responses = Responses.load(sentences / "responses.npz")
    changed = dataclasses.replace(responses, stimulus_id=["x", *responses.stimulus_id[1:]])
    (sentences / "responses.npz").write_bytes(changed.to_bytes())
    job = make_job(sentences)
    stores = [x.artefact for x in extract.plan(tiny.bert(untrained_seed=-1), job, {})]
    with refused("every stimulus_id must be one of the stimuli's, found 'x'"):
        similarity.plan(CONFIG, job, {"extract": stores})
    constant = dataclasses.replace(responses, values=np.ones_like(responses.values))
    (sentences / "responses.npz").write_bytes(constant.to_bytes())
    with refused("responses must vary: every target is constant"):
        similarity.plan(CONFIG, make_job(sentences), {"extract": stores})
