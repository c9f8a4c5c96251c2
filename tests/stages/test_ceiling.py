"""Ceilings of one's own data, of simulated listeners and of Pie Man, against NumPy by hand."""

import itertools

import command
import h5py
import numpy as np
import pandas as pd
import pytest
import tiny
from refusals import refused
from scipy import io, stats

from jaxalign.data import datasets
from jaxalign.data.schema import Responses
from jaxalign.data.sets import gallant
from jaxalign.io import rows as rows_lib
from jaxalign.io.run_dir import Artefact
from jaxalign.reporting import page as page_lib
from jaxalign.stages import Job, ceiling
from jaxalign.stages.artefacts import Ceilings
from jaxalign.stages.responses import PlantedResponses

QUICK = {
    "num_resamples": 50,
    "num_nulls": 49,
    "num_splits": 6,
    "num_curves": 5,
    "subsets_per_subject": 3,
    "alphas": (10.0,),
}


def measure(job, upstream=None, **settings):
    artefact, _ = tiny.make(ceiling.plan(ceiling.Config(**QUICK | settings), job, upstream or {}))
    table = rows_lib.read(artefact.path / Ceilings.ROWS)
    return artefact, table.set_index(["kind", "subject", "roi", "target"]).sort_index()


def standard(values, runs):
    out = np.empty_like(values)
    for run in set(runs):
        own = np.array(runs) == run
        out[own] = (values[own] - values[own].mean(axis=0)) / values[own].std(axis=0)
    return out


def rewrite(path, change):
    with np.load(path) as file:
        arrays = dict(file)
    change(arrays)
    np.savez(path, **arrays)


def r(a, b):
    return np.corrcoef(a, b)[0, 1]


@pytest.mark.slow
def test_values_are_those_of_numpy(make_job, timed):
    artefact, table = measure(make_job(timed))
    responses = Responses.load(timed / "responses.npz")
    Y = standard(responses.values, responses.run)  # [120, 3 subjects x A, B]
    others = [(Y.sum(axis=1, keepdims=True) * 0 + Y[:, k::2]) for k in (0, 1)]
    blocks = np.split(np.arange(120), 6)
    for roi, own in zip("AB", others, strict=True):
        rest = [np.delete(own, s, axis=1).mean(axis=1) for s in range(3)]
        loo = [r(own[:, s], rest[s]) for s in range(3)]
        pairs = [r(own[:, i], own[:, j]) for i, j in itertools.combinations(range(3), 2)]
        blocked = [np.mean([r(own[b, s], rest[s][b]) for b in blocks]) for s in range(3)]
        for s in range(3):
            for target in ("", "mean"):
                key = (f"s{s}", roi, target)
                assert table.value["isc_leave_one_out", *key] == pytest.approx(loo[s], abs=1e-10)
                found = table.value["leave_one_subject_out", *key]
                assert found == pytest.approx(blocked[s], abs=1e-10)
        for target in ("", "mean"):
            value = lambda kind, key=("group", roi, target): table.value[kind, *key]
            assert value("isc_leave_one_out") == pytest.approx(np.mean(loo), abs=1e-10)
            assert value("isc_pairwise") == pytest.approx(np.mean(pairs), abs=1e-10)
            assert value("leave_one_subject_out") == pytest.approx(np.mean(blocked), abs=1e-10)
            # Of three subjects one half is a single one: three splits, some drawn again.
            splits = [r(own[:, s], rest[s]) for s in range(3)]
            lowest, highest = (2 * x / (1 + x) for x in (min(splits), max(splits)))
            assert lowest <= value("split_half") <= highest
            assert value("split_half_root") == pytest.approx(value("split_half") ** 0.5, abs=1e-10)
    group = table[(table.index.get_level_values("subject") == "group") & table.value.notna()]
    assert ((group.ci_low <= group.value) & (group.value <= group.ci_high)).mean() > 0.9
    assert group.ci_low.notna().all()
    page = artefact.path.parent
    text = (page / "summary.txt").read_text()
    assert "isc_pairwise" in text and "extrapolated" in text
    for path in (artefact.path / "ceilings.csv", artefact.path / "curves.csv"):
        assert path.stat().st_size
    for name in ("rois.svg", "isc.svg", "extrapolation.svg"):
        assert (page / name).stat().st_size
    assert "Noise ceilings: timed" in (page / "index.html").read_text()


@pytest.mark.slow
def test_a_page_is_drawn_again_by_another_writer_without_the_ceilings(make_job, timed, monkeypatch):
    job, config = make_job(timed), ceiling.Config(**QUICK | {"kinds": ("isc",), "num_nulls": 9})
    ceilings, page = tiny.make(ceiling.plan(config, job, {}))
    made = (ceilings.path / "ceilings.csv").stat().st_mtime_ns
    monkeypatch.setattr(page_lib, "VERSION", page_lib.VERSION + 1)
    again = ceiling.plan(config, job, {})
    assert [step.artefact.is_done for step in again] == [True, False]
    tiny.make(again)
    assert (ceilings.path / "ceilings.csv").stat().st_mtime_ns == made
    assert again[1].artefact.fingerprint in (page.path / "index.html").read_text()


@pytest.mark.slow
def test_an_roi_called_na_is_in_every_figure(make_job, timed):
    """Names that other programs read as missing are names."""

    def rename(arrays):
        arrays["roi"] = np.array([{"A": "NA", "B": "None"}[x] for x in arrays["roi"]])

    rewrite(timed / "responses.npz", rename)
    kinds = ("isc", "extrapolation")
    artefact, _ = measure(make_job(timed), kinds=kinds, num_nulls=9)
    for name in ("rois.svg", "extrapolation.svg"):
        drawn = (artefact.path.parent / name).read_text()
        assert ">NA<" in drawn and ">None<" in drawn


@pytest.mark.slow
def test_what_is_shared_is_significant_and_what_is_not_is_not(make_job, sentences):
    """Random responses to sentences share nothing; a common column does."""

    def plant(arrays):
        arrays["values"][:, [0, 4, 8]] += 2 * np.sin(np.arange(60) * 1.7)[:, None]

    rewrite(sentences / "responses.npz", plant)
    artefact, table = measure(make_job(sentences), kinds=("isc",), num_nulls=199)
    for kind in ("isc_leave_one_out", "isc_pairwise"):
        own = table.loc[kind, "group"]
        p, adjusted = own.p["A", "t0"], own.p_adjusted
        assert p == 1 / 200
        targets = own[own.index.get_level_values("target") != ""]
        np.testing.assert_allclose(
            targets.p_adjusted, stats.false_discovery_control(targets.p), atol=1e-12
        )
        rois = own[own.index.get_level_values("target") == ""]
        np.testing.assert_allclose(
            rois.p_adjusted, stats.false_discovery_control(rois.p), atol=1e-12
        )
        assert adjusted["A", "t0"] == pytest.approx(4 / 200)
        assert (targets.p.drop(("A", "t0")) > 0.01).all()
        mean = own.value["A"].drop("").mean()
        assert own.value["A", ""] == pytest.approx(mean, abs=1e-10)
    assert table.loc["isc_leave_one_out", "s1"].p.isna().all()
    page = artefact.path.parent
    assert "targets at a false discovery rate" in (page / "summary.txt").read_text()


@pytest.mark.parametrize("null", ceiling.NULLS)
def test_either_null(make_job, timed, null):
    _, table = measure(make_job(timed), kinds=("isc",), null=null)
    assert (table.loc["isc_leave_one_out", "group"].p <= 0.04).all()


@pytest.mark.slow
def test_each_kind_is_the_same_alone_and_after_an_interruption(make_job, timed, monkeypatch):
    artefact, whole = measure(make_job(timed, workdir="whole"))
    _, alone = measure(make_job(timed, workdir="alone"), kinds=("split_half",))
    columns = ["value", "ci_low", "ci_high"]
    own = whole[whole.index.get_level_values("kind").str.startswith("split_half")]
    pd.testing.assert_frame_equal(alone[columns], own[columns])

    def killed(*args, **options):
        raise KeyboardInterrupt

    job = make_job(timed, workdir="again")
    with monkeypatch.context() as patch:
        patch.setattr(ceiling.ceiling, "split_half", killed)
        with pytest.raises(KeyboardInterrupt):
            measure(job)
    (left,) = (job.workdir / "ceiling").iterdir()
    made = (left / "isc.parquet").stat().st_mtime_ns
    cut = left / "leave_one_out.parquet"
    cut.write_bytes(cut.read_bytes()[:-9])
    assert not (left / "done.json").exists()
    _, again = measure(job)
    assert (left / "isc.parquet").stat().st_mtime_ns == made
    pd.testing.assert_frame_equal(again[columns], whole[columns])
    csv = lambda path: pd.read_csv(path / "ceilings.csv").drop(columns="fingerprint")
    pd.testing.assert_frame_equal(csv(left), csv(artefact.path))
    drawn = [x.parent / "extrapolation.svg" for x in (left, artefact.path)]
    assert drawn[0].read_bytes() == drawn[1].read_bytes()


@pytest.mark.slow
def test_few_subjects_are_said(make_job, sentences):
    def two(arrays):
        keep = np.array([s != "s2" for s in arrays["subject"]])
        arrays["values"] = arrays["values"][:, keep]
        for name in ("subject", "roi", "target"):
            arrays[name] = arrays[name][keep]

    rewrite(sentences / "responses.npz", two)
    artefact, table = measure(make_job(sentences))
    own = table.loc["extrapolated"]
    assert own.value.isna().all() and len(own) == 2
    assert (own.remark == "needs at least 3 subjects, there are 2").all()
    text = (artefact.path.parent / "summary.txt").read_text()
    assert "extrapolated: 2 ROIs undefined, needs at least 3 subjects, there are 2." in text
    assert table.loc["isc_pairwise", "group"].value.notna().all()


@pytest.mark.slow
def test_constant_and_unshared_targets_are_counted(make_job, sentences):
    """s1 has t1 constant, t2 varies in s0 alone, and t3 of s2 has another name."""

    def spoil(arrays):
        arrays["values"][:, [5, 6, 10]] = 0.7
        arrays["target"] = np.array(
            [*arrays["target"][:11].tolist(), "elsewhere"], arrays["target"].dtype.str[:2] + "9"
        )

    rewrite(sentences / "responses.npz", spoil)
    artefact, table = measure(make_job(sentences))
    for kind in ("isc_leave_one_out", "leave_one_subject_out", "isc_pairwise", "split_half"):
        own = table.loc[kind, "group"]
        assert own.num_undefined["A", ""] == 1 and own.num_targets["A", ""] == 2
        assert np.isnan(own.value["B", ""])
        assert own.remark["B", ""] == "none of 2 targets is in every subject and varies in two"
    responses = Responses.load(sentences / "responses.npz")
    both = r(responses.values[:, 1], responses.values[:, 9])  # s0 and s2
    assert table.value["split_half", "group", "A", "t1"] == pytest.approx(2 * both / (1 + both))
    assert table.num_subjects["isc_pairwise", "group", "A", "t1"] == 2
    loo = table.loc["isc_leave_one_out"]
    assert np.isnan(loo.value["s1", "A", "t1"]) and loo.remark["s1", "A", "t1"]
    assert loo.num_subjects["group", "A", "t1"] == 2
    extrapolated = table.loc["extrapolated"]
    assert np.isnan(extrapolated.value["s1", "A", "t1"])
    assert extrapolated.num_undefined["group", "A", ""] == 3
    assert "undefined" in (artefact.path.parent / "summary.txt").read_text()


def test_repeats_of_a_single_subject(tmp_path, mesh, rng):
    """What a subject's own repeats allow; the rest needs others."""
    folder = tmp_path / "shortclips/responses"
    folder.mkdir(parents=True)
    signal = rng.normal(size=(60, 3))
    repeated = np.stack([signal + rng.normal(size=(60, 3)) for _ in range(4)])
    with h5py.File(folder / "S01_responses.hdf", "w") as file:
        file["Y_train"] = rng.normal(size=(90, 3)).astype(np.float32)
        file["Y_test"] = repeated.astype(np.float32)
        file["run_onsets"] = np.array([0, 45])
    dataset = datasets.Dataset(gallant.ShortClips(name="clips", root=tmp_path, subjects=("S01",)))
    job = Job(workdir=tmp_path / "work", data_root=None, dataset=dataset, mesh=mesh, seed=0)
    _, table = measure(job)
    own = table.loc["explainable_variance", "S01"]
    z = (repeated - repeated.mean(axis=1, keepdims=True)) / repeated.std(axis=1, keepdims=True)
    share = z.mean(axis=0).var(axis=0)
    expected = share - (1 - share) / 3
    np.testing.assert_allclose(own.value.iloc[1:], expected, atol=1e-5)
    assert own.value.iloc[0] == pytest.approx(expected.mean(), abs=1e-5)
    assert own.interval.iloc[0] == "blocks of samples, mean of the targets' ends"
    assert (own.ci_low < own.value).all() and (own.value < own.ci_high).all()
    ratio, share = (table.loc[kind, "S01"].value for kind in ("ncsnr", "noise_ceiling"))
    np.testing.assert_allclose(share.iloc[1:], (ratio**2 / (ratio**2 + 1 / 4)).iloc[1:])
    for kind in ("isc_leave_one_out", "split_half", "extrapolated"):
        assert table.loc[kind].value.isna().all()
        assert table.loc[kind].remark.str.startswith("needs at least").all()
    with refused("ceiling needs at least 2 subjects", "clips has 1", "not among ceiling.kinds"):
        ceiling.plan(ceiling.Config(kinds=("isc",)), job, {})


@pytest.mark.slow
def test_simulated_listeners_have_their_true_ceilings(make_job, sentences, rng):
    """The noiseless signal correlates with responses at about 1 / sqrt(1 + noise²)."""
    job = make_job(sentences)
    stimuli = job.dataset.stimuli
    signal = rng.normal(size=(len(stimuli), 8))
    signal = (signal - signal.mean(axis=0)) / signal.std(axis=0)
    responses = Responses(
        values=np.concatenate([signal + rng.normal(size=signal.shape) for _ in range(5)], axis=1),
        run=stimuli.run,
        subject=[f"p{i}" for i in range(5) for _ in range(8)],
        roi=["planted"] * 40,
        target=[f"t{j}" for _ in range(5) for j in range(8)],
        units="sd",
        stimulus_id=stimuli.stimulus_id,
        signal=np.tile(signal, (1, 5)),
    )
    source = Artefact(
        workdir=job.workdir,
        stage="simulate",
        kind=PlantedResponses.kind,
        name="planted",
        settings={"num_subjects": 5, "num_targets": 8},
    )
    source.start()
    (source.path / PlantedResponses.RESPONSES).write_bytes(responses.to_bytes())
    source.finish()
    _, table = measure(job, {"simulate": [source]}, groups="passage")
    true = table.loc["signal"].value.mean()
    assert true == pytest.approx(0.5**0.5, abs=0.03)
    group = lambda kind: table.value[kind, "group", "planted", ""]
    # The others' mean of four has a quarter of the noise.
    assert group("isc_leave_one_out") == pytest.approx((0.5 / 1.25) ** 0.5, abs=0.04)
    assert group("isc_pairwise") == pytest.approx(0.5, abs=0.05)
    assert group("split_half_root") == pytest.approx((5 / 6) ** 0.5, abs=0.03)
    with refused("ceiling.rois must be () for simulated responses, got ('A',)"):
        ceiling.plan(ceiling.Config(rois=("A",)), job, {"simulate": [source]})


REFUSED = [
    ({"kinds": ("iscs",)}, "ceiling.kinds must be among isc, leave_one_out, split_half"),
    ({"kinds": ()}, "ceiling.kinds must hold at least one"),
    ({"kinds": ("isc", "isc")}, "ceiling.kinds must differ"),
    ({"null": "rows"}, "ceiling.null must be one of shift, phase, got 'rows'"),
    ({"splits": "random"}, "ceiling.splits must be one of contiguous, shuffled"),
    ({"groups": "run"}, "ceiling.groups must be one of none, passage"),
    ({"num_folds": 2}, "ceiling.num_folds must be >= 3, got 2"),
    ({"gap": -1}, "ceiling.gap must be >= 0, got -1"),
    ({"num_sizes": 1}, "ceiling.num_sizes must be >= 2, got 1"),
    ({"confidence": 1.0}, "ceiling.confidence must lie in (0, 1), got 1.0"),
    ({"alphas": ()}, "ceiling.alphas must hold at least one"),
    ({"alphas": (-1.0,)}, "ceiling.alphas must be >= 0 and finite, got (-1.0,)"),
]


@pytest.mark.parametrize("settings,message", REFUSED)
def test_settings_out_of_range(settings, message):
    with refused(message):
        ceiling.Config(**settings)


def test_settings_that_do_not_fit_the_data(make_job, timed, sentences):
    plan = lambda data, **settings: ceiling.plan(ceiling.Config(**settings), make_job(data), {})
    with refused("ceiling.rois must be among A, B, got 'C'"):
        plan(timed, rois=("C",))
    with refused("ceiling: num_folds must leave samples for every block: 200 blocks of 120"):
        plan(timed, num_folds=200)
    with refused("ceiling.groups must be 'none' for timed responses, got 'passage'"):
        plan(timed, groups="passage")
    assert plan(sentences, groups="passage", splits="shuffled")

    def alone(arrays):
        keep = arrays["subject"] == "s0"
        arrays["values"] = arrays["values"][:, keep]
        for name in ("subject", "roi", "target"):
            arrays[name] = arrays[name][keep]

    rewrite(timed / "responses.npz", alone)
    with refused("ceiling needs at least 2 subjects", "timed has 1", "repeats are not known"):
        plan(timed)


@pytest.mark.slow
def test_refusals_of_the_command_line(tmp_path):
    numbers = "ceiling.alphas must hold numbers, got 'a'"
    for config, flag, message in (
        ("ceilings.py:pieman", f"--data_root={tmp_path}", "data set pieman needs"),
        ("ceilings.py", "--config.ceiling.alphas=('a',)", numbers),
    ):
        result = command.call(config, tmp_path / "work", flag)
        assert result.returncode == 2
        assert result.stderr.count("\n") == 1 and result.stderr.startswith("error: ")
        assert message in result.stderr
    assert not (tmp_path / "work").exists()


@pytest.mark.slow
def test_pie_man(data_root, tmp_path):
    """From the command line; ISC of all nodes, against NumPy on the file itself."""
    path = data_root / "pieman_fmri_36subj/examples/sample_data/weights.mat"
    if not path.is_file():
        pytest.skip(f"{path} is not there")
    quick = [f"--config.ceiling.{k}={v}" for k, v in QUICK.items() if k != "alphas"]
    result = command.call(
        "ceilings.py",
        tmp_path,
        f"--data_root={data_root}",
        "--config.ceiling.kinds=('isc', 'split_half')",
        *quick,
    )
    assert result.returncode == 0, result.stderr
    (table,) = (tmp_path / "ceiling").glob("*/ceilings.csv")
    table = pd.read_csv(table, keep_default_na=False, na_values=["nan"])
    group = table[(table.subject == "group") & (table.target != "")]
    cells = np.stack([*io.loadmat(path)["weights"][0]]).astype(np.float64)  # [36 300 100]
    z = (cells - cells.mean(axis=1, keepdims=True)) / cells.std(axis=1, keepdims=True)
    loo = np.array(
        [
            [r(z[s, :, v], np.delete(z[:, :, v], s, axis=0).mean(axis=0)) for s in range(36)]
            for v in range(100)
        ]
    )
    found = group[group.kind == "isc_leave_one_out"].set_index("target").value
    np.testing.assert_allclose(found.sort_index(), loo.mean(axis=1), atol=1e-10)
    pairs = np.einsum("itv,jtv->ijv", z, z)[np.triu_indices(36, 1)] / 300
    found = group[group.kind == "isc_pairwise"].set_index("target").value
    np.testing.assert_allclose(found.sort_index(), pairs.mean(axis=0), atol=1e-10)
    assert "isc_leave_one_out: ISC" in result.stdout
