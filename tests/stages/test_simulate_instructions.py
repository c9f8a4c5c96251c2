"""A simulation of instructions: what is planted is found, and nothing where nothing is."""

import types

import numpy as np
import pandas as pd
import pytest
from refusals import refused
from scipy import stats as scipy_stats

from jaxalign.data.synthetic import planted_instructions as data
from jaxalign.io import rows as rows_lib
from jaxalign.reporting.findings import instructions as report
from jaxalign.stages import Job, simulate_instructions
from jaxalign.stages.artefacts import SimulatedInstructions

PLANTED = {"early": "IU1", "bodies": "IC", "noise": ""}
SMALL = simulate_instructions.Config(
    rois=tuple(PLANTED),
    planted=tuple(PLANTED.values()),
    beside=("", "", ""),
    first=("IC",),
    second=("IU2",),
    num_subjects=3,
    num_voxels=20,
    num_samples=201,
    num_units=5,
    # One penalty and three weights of the two bands: few enough to try all of them by hand.
    alphas=(10.0,),
    num_folds=3,
    partition_draws=0,
    partition_rounds=0,
)


@pytest.fixture(scope="module")
def made(tmp_path_factory, mesh):
    job = Job(
        workdir=tmp_path_factory.mktemp("work"), data_root=None, dataset=None, mesh=mesh, seed=0
    )
    (step,) = simulate_instructions.plan(SMALL, job, {})
    step.artefact.start()
    step.artefact.finish(**step.make(step.artefact))
    return step.artefact


@pytest.fixture(scope="module")
def simulated():
    codes = list(simulate_instructions._texts())
    planted = [codes.index(x) if x else data.NONE for x in SMALL.planted]
    setting = data.Setting(3, 20, 201, 5, SMALL.common, SMALL.beside_share, SMALL.noise_sd)
    return data.simulate(
        10,
        [data.Roi(*pair) for pair in zip(SMALL.rois, planted, strict=True)],
        setting,
        rng=np.random.default_rng(0),
    )


@pytest.mark.slow
def test_planted_winners_are_found(made):
    """In every ROI, in every subject and in nearly every voxel."""
    texts = simulate_instructions._texts()
    rows = rows_lib.read(made.path / SimulatedInstructions.ROWS)
    assert set(rows.instruction) == set(texts.values()) and len(texts) == 10
    assert (rows.num_units == 10).all()
    won = report.winners(rows).set_index("roi")
    targets = rows_lib.read_table(made.path / simulate_instructions.TARGETS)
    share = report.shares(targets).set_index(["roi", "instruction"]).share
    for roi, code in PLANTED.items():
        if code:
            assert won.outcome[roi] == "winner" and won.winner[roi] == texts[code]
            assert won.is_clear[roi] and won.num_agree[roi] == 3
            assert share[roi, texts[code]] > 0.95


def test_rows_are_means_of_voxels(made):
    rows = rows_lib.read(made.path / SimulatedInstructions.ROWS)
    targets = rows_lib.read_table(made.path / simulate_instructions.TARGETS)
    keys = ["subject", "roi", "instruction"]
    expected = targets.groupby(keys).score.mean()
    np.testing.assert_allclose(rows.set_index(keys).score.sort_index(), expected.sort_index())
    # The ceiling of a voxel is what noise of its signal's variance leaves.
    planted = rows[rows.roi != "noise"]
    np.testing.assert_allclose(planted.ceiling, 1 / np.sqrt(2), atol=0.03)
    assert (rows.ceiling_kind == "signal").all()
    assert rows[rows.roi == "noise"].ceiling.isna().all()


def test_low_ceilings_divide_no_voxel(rng):
    scored = types.SimpleNamespace(r=np.full((3, 4), 0.3), r2=np.zeros((3, 4)))
    targets = types.SimpleNamespace(Y=rng.standard_normal((201, 4)))
    ceilings = types.SimpleNamespace(signal_r=np.array([0.6, 0.05, 0.04, np.nan]))
    folds = simulate_instructions._folds(SMALL)
    found = dict(simulate_instructions._measures([scored], targets, ceilings, folds))
    (normalized,) = found[simulate_instructions.NORMALIZED]
    np.testing.assert_allclose(normalized, [0.5, 6.0, np.nan, np.nan])


def _ridge(X, Y, X_test, alpha):
    """Predict by ridge regression on features that are standardised already, with an intercept."""
    center, mean = X.mean(axis=0), Y.mean(axis=0)
    A = (X - center).T @ (X - center) + alpha * np.eye(X.shape[1])
    return (X_test - center) @ np.linalg.solve(A, (X - center).T @ (Y - mean)) + mean


def _by_hand(features, Y, weights, num_folds=3, alpha=10.0):
    """Score one or two sets of features: each voxel takes the weights of least inner error.

    Returns R2 out of sample over all folds, and the mean over folds of Pearson r.
    """
    blocks = np.array_split(np.arange(len(Y)), num_folds)
    sse, sst, r = np.zeros((2, Y.shape[1])), np.zeros(Y.shape[1]), []
    for test in blocks:
        train = np.setdiff1d(np.arange(len(Y)), test)
        inner = [b for b in blocks if b is not test]
        errors, predicted = [], []
        for gamma in weights:
            scaled = lambda rows, gamma=gamma: np.hstack(
                [
                    np.sqrt(g) * (X / X[rows].std(axis=0))
                    for g, X in zip(gamma, features, strict=True)
                ]
            )
            # A banded search takes scales from the outer training set, a single band from each.
            fixed = scaled(train)
            error = 0
            for held in inner:
                rest = np.setdiff1d(train, held)
                error += ((Y[held] - _ridge(fixed[rest], Y[rest], fixed[held], alpha)) ** 2).mean(0)
            errors.append(error)
            predicted.append(_ridge(fixed[train], Y[train], fixed[test], alpha))
        best = np.argmin(errors, axis=0)
        own = np.array(predicted)[best, :, np.arange(Y.shape[1])].T
        sse[0] += ((Y[test] - own) ** 2).sum(axis=0)
        sst += ((Y[test] - Y[train].mean(axis=0)) ** 2).sum(axis=0)
        r.append([np.corrcoef(a, b)[0, 1] for a, b in zip(own.T, Y[test].T, strict=True)])
    return 1 - sse[0] / sst, np.mean(r, axis=0)


def test_partition_agrees_with_one_by_hand(made, simulated):
    codes = list(simulate_instructions._texts())
    recorded = simulated.responses.values
    Y = (recorded - recorded.mean(axis=0)) / recorded.std(axis=0)
    one, other = (simulated.features[codes.index(x)] for x in ("IC", "IU2"))
    r2_one, r_one = _by_hand([one], Y, [(1.0,)])
    r2_other, r_other = _by_hand([other], Y, [(1.0,)])
    r2_both, r_both = _by_hand([one, other], Y, [(0.5, 0.5), (1.0, 0.0), (0.0, 1.0)])
    table = rows_lib.read_table(made.path / simulate_instructions.PARTITION)
    labels = pd.Series(simulated.responses.subject) + "/" + pd.Series(simulated.responses.roi)
    signal, blocks = simulated.responses.signal, np.array_split(np.arange(201), 3)
    with np.errstate(invalid="ignore", divide="ignore"):
        ceiling = np.mean(
            [
                [np.corrcoef(a, b)[0, 1] for a, b in zip(signal[i].T, Y[i].T, strict=True)]
                for i in blocks
            ],
            axis=0,
        )
    for measure, a, b, both in (
        (simulate_instructions.R2, r2_one, r2_other, r2_both),
        (simulate_instructions.NORMALIZED, r_one / ceiling, r_other / ceiling, r_both / ceiling),
    ):
        own = table[table.measure == measure]
        found = own.set_index(own.subject + "/" + own.roi)
        parts = pd.DataFrame(
            {"unique_first": both - b, "shared": a + b - both, "unique_second": both - a}
        )
        expected = parts.groupby(labels.to_numpy()).mean()
        np.testing.assert_allclose(
            found.loc[expected.index, expected.columns].to_numpy(), expected.to_numpy(), atol=2e-4
        )
    # In the ROI of the first, the other has nothing of its own.
    tidy = report.partitions(table).set_index(["roi", "measure", "part"]).sort_index()
    for measure in (simulate_instructions.R2, simulate_instructions.NORMALIZED):
        assert tidy.ci_low["bodies", measure, "unique_first"] > 0.1
        assert abs(tidy.value["bodies", measure, "unique_second"]) < 0.03
        assert tidy.value["bodies", measure, "shared"] > 0.1
        assert tidy.percent["bodies", measure].sum() == pytest.approx(100)
    assert tidy.percent["noise"].isna().all()


@pytest.mark.slow
def test_noise_has_no_winner_beyond_chance(mesh, tmp_path):
    """Each instruction wins as many voxels as any other, and no margin holds for other subjects."""
    config = simulate_instructions.Config(
        rois=("a", "b"),
        planted=("", ""),
        beside=("", ""),
        first=(),
        second=(),
        num_voxels=100,
        num_samples=120,
    )
    job = Job(workdir=tmp_path, data_root=None, dataset=None, mesh=mesh, seed=0)
    (step,) = simulate_instructions.plan(config, job, {})
    step.artefact.start()
    step.make(step.artefact)
    rows = rows_lib.read(step.artefact.path / SimulatedInstructions.ROWS)
    targets = rows_lib.read_table(step.artefact.path / simulate_instructions.TARGETS)
    share = report.shares(targets)
    won = share[share.outcome == report.WINNER].groupby("instruction").num_targets.sum()
    assert len(won) == 10
    assert scipy_stats.chisquare(won).pvalue > 0.001
    assert (share[share.outcome == report.NONE].num_targets > 0).all()
    np.testing.assert_allclose(share.groupby("roi").share.sum(), 1)
    assert not report.winners(rows).is_clear.any()
    assert rows.score.abs().max() < 0.1


def test_summary_says_that_it_is_a_simulation(made):
    text = (made.path / simulate_instructions.SUMMARY).read_text()
    assert text.startswith("SIMULATION of instructions: no model was asked anything")
    assert "bodies from IC" in text and "noise from noise alone" in text


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_in_large_samples_parts_are_as_planted(rng, share):
    """Least squares on many samples finds the shares that the docstring promises."""
    setting = data.Setting(
        num_subjects=2,
        num_voxels=10,
        num_samples=20_000,
        num_units=4,
        common=0.3,
        second_share=0.25,
        noise_sd=0.5,
    )
    found = data.simulate(3, [data.Roi("x", 1, 2 if share else data.NONE)], setting, rng=rng)
    Y = found.responses.values

    def r2(*index):
        X = np.hstack([found.features[i] for i in index])
        rest = Y - X @ np.linalg.lstsq(X, Y, rcond=None)[0]
        return 1 - (rest**2).sum(axis=0) / (Y**2).sum(axis=0)

    explained, own = 1 / 1.25, 0.7 / 1.25
    np.testing.assert_allclose(r2(1), explained - share * own, atol=0.02)
    np.testing.assert_allclose(r2(0), 0.3 * explained, atol=0.03)
    np.testing.assert_allclose(r2(2), 0.3 * explained + share * own, atol=0.03)
    np.testing.assert_allclose(r2(1, 2), explained, atol=0.02)
    np.testing.assert_allclose(r2(0, 1), explained - share * own, atol=0.02)
    assert (found.planted == 1).all()


def test_bad_settings_are_refused(mesh, tmp_path):
    job = Job(workdir=tmp_path, data_root=None, dataset=None, mesh=mesh, seed=0)
    for changes, words in (
        ({"planted": ("IU9", "IC", "VQ2", "VQ3", "")}, ("planted", "IU1", "'IU9'")),
        ({"first": ("IC",), "second": ("XX",)}, ("second", "'XX'")),
        ({"beside": ("", "", "", "", "IC")}, ("beside", "'IC'")),
        ({"beside": ("IU1", "", "", "", "")}, ("beside", "'IU1'")),
        ({"num_samples": 4, "num_folds": 5}, ("instructions: ",)),
    ):
        with refused(*words):
            simulate_instructions.plan(simulate_instructions.Config(**changes), job, {})
    for changes, words in (
        ({"rois": ("a", "a")}, ("rois", "differ")),
        ({"planted": ("IC",)}, ("planted", "rois", "1 for 5")),
        ({"beside": ("IC",)}, ("beside", "rois", "1 for 5")),
        ({"beside_share": 1.0}, ("beside_share", "between 0 and 1")),
        ({"first": ("IC",)}, ("second", "3 for 1")),
        ({"first": ("IC",), "second": ("IC",)}, ("second must differ from first", "'IC'")),
        ({"common": 1.5}, ("common", "0..1", "1.5")),
        ({"noise_sd": 0.0}, ("noise_sd", "> 0")),
        ({"alphas": (0.0,)}, ("alphas", "positive")),
        ({"num_folds": 2}, ("num_folds", ">= 3")),
    ):
        with refused(*words):
            simulate_instructions.Config(**changes)
    setting = data.Setting(2, 1, 5, 1, 0.5, 0.5, 1.0)
    for planted, second, message in (
        (3, -1, "planted must be -1..2, got 3"),
        (0, 3, "second must be -1..2, got 3"),
        (-1, 0, "second must be NONE where planted is"),
    ):
        with pytest.raises(ValueError, match=message):
            rng = np.random.default_rng(0)
            data.simulate(3, [data.Roi("a", planted, second)], setting, rng=rng)
