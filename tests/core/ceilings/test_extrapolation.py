import numpy as np
import pytest
from scipy import io, optimize, stats
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import ShuffleSplit

from jaxalign.core import folds
from jaxalign.core.ceilings import extrapolation, isc, saturation, subsets


def exponential(x, v0, tau0):
    return v0 * (1 - np.exp(-x / tau0))


def planted(rng, *, s=6, v=5, k=4, noise_sd=0.03):
    """Scores that lie on a curve for each target, with independent noise; and its v0 [s v]."""
    members = subsets.members_of(s)
    v0 = rng.uniform(0.2, 0.8, (s, v))
    tau0 = rng.uniform(1, 3, (s, v))
    r = []
    for i in range(s):
        sizes = members[members[:, i]].sum(axis=1)
        means = exponential(sizes[:, None, None], v0[i], tau0[i])
        r.append(np.float32(means + noise_sd * rng.normal(size=(len(sizes), k, v))))
    columns = tuple(np.arange(s * v).reshape(s, v))
    return subsets.SubsetScores(tuple(r), members, columns, tuple(range(s))), v0.reshape(-1)


def published(scores, *, num_resamples, zero=False):
    """Bootstrap and fit target by target, in loops: v0 [q v]."""
    found = np.full((num_resamples, sum(map(len, scores.columns))), np.nan)
    for i, (r, columns) in enumerate(zip(scores.r, scores.columns, strict=True)):
        sizes = scores.subsets[scores.subsets[:, i]].sum(axis=1)
        for own, column in zip(np.moveaxis(r, 2, 0), columns, strict=True):
            own = np.where(np.isnan(own), 0, own) if zero else own
            draw = np.random.RandomState(0)
            for q in range(num_resamples):
                x, y = [], []
                for size in np.unique(sizes):
                    of_size = own[sizes == size]
                    values = of_size[~np.isnan(of_size).any(axis=1)].reshape(-1)
                    if len(values):
                        x.append(size)
                        y.append(draw.choice(values, size=len(values), replace=True).mean())
                if len(x) > 1:
                    found[q, column] = fit(np.array(x), np.array(y))
    return found


def fit(x, y):
    """Return the level of the best of SciPy's fits; from its own starting point it may get stuck.

    Where scores fall before they rise, as with about as many features as samples, that moved the
    median over targets by 2e-3.
    """
    options = {"bounds": ([0, 1e-9], [1, np.inf]), "max_nfev": 20000}
    options |= dict.fromkeys(("ftol", "xtol", "gtol"), 1e-14)
    fits = [
        optimize.curve_fit(exponential, x, y, p0=start, **options)[0]
        for start in ([0.5, 1.0], [0.9, 10.0], [0.3, 0.2])
    ]
    return min(fits, key=lambda params: ((exponential(x, *params) - y) ** 2).sum())[0]


@pytest.mark.slow
@pytest.mark.parametrize("undefined", ["omit", "zero"])
def test_matches_loops_over_targets_and_bootstraps(rng, undefined):
    scores, _ = planted(rng, s=5, v=3)
    scores.r[0][3, 2, 1] = np.nan  # a subset of one target
    sizes = scores.subsets[scores.subsets[:, 2]].sum(axis=1)
    scores.r[2][sizes == 4, :, 0] = np.nan  # a size of another
    expected = published(scores, num_resamples=3, zero=undefined == "zero")
    found = extrapolation.extrapolate(scores, num_resamples=3, undefined=undefined)
    np.testing.assert_allclose(found.v0, expected, atol=1e-5)
    np.testing.assert_allclose(found.targets.value, np.median(expected, axis=0), atol=1e-5)
    ends = np.percentile(expected, [2.5, 97.5], axis=0)
    np.testing.assert_allclose([found.targets.low, found.targets.high], ends, atol=1e-5)
    assert found.ceiling.value == pytest.approx(np.median(np.median(expected, axis=0)), abs=1e-5)
    assert found.num_undefined == 1 + (sizes == 4).sum() * 4
    scores_of = np.full((5, 3), 15 * 4)
    if undefined == "omit":
        scores_of[0, 1] -= 4
        scores_of[2, 0] -= 4 * (sizes == 4).sum()
    np.testing.assert_array_equal(found.targets.num, scores_of.reshape(-1))


def test_targets_without_a_curve_are_undefined_and_left_out_of_the_median(rng):
    scores, _ = planted(rng)
    sizes = scores.subsets[scores.subsets[:, 1]].sum(axis=1)
    scores.r[1][:, 0, 3] = np.nan
    scores.r[1][sizes > 2, 0, 4] = np.nan  # one size is left
    found = extrapolation.extrapolate(scores, num_resamples=10)
    undefined = np.isin(np.arange(30), [8, 9])
    for part in found.targets[:3]:
        np.testing.assert_array_equal(np.isnan(part), undefined)
    assert found.ceiling.num == 28
    assert found.ceiling.value == pytest.approx(np.median(found.targets.value[~undefined]))


def test_nothing_defined_is_no_ceiling(rng):
    scores, _ = planted(rng, s=4, v=2)
    for r in scores.r:
        r[:] = np.nan
    found = extrapolation.extrapolate(scores, num_resamples=3)
    assert np.isnan(found.ceiling[:3]).all() and found.ceiling.num == 0
    zero = extrapolation.extrapolate(scores, num_resamples=3, undefined="zero")
    assert zero.ceiling[:3] == (0, 0, 0)


@pytest.mark.slow
def test_planted_levels_lie_within_their_intervals(rng):
    """Independent noise is what the bootstrap takes it to be: 95 % of 400 targets, about.

    Of the largest size there is one subset, and a bootstrap of its 10 scores is a little narrow.
    """
    scores, v0 = planted(rng, s=8, v=50, k=10, noise_sd=0.05)
    found = extrapolation.extrapolate(scores, num_resamples=200).targets
    covered = np.mean((found.low <= v0) & (v0 <= found.high))
    assert 0.88 < covered < 0.98
    np.testing.assert_allclose(found.value, v0, atol=0.05)


@pytest.mark.slow
def test_the_interval_narrows_with_confidence(rng):
    scores, _ = planted(rng)
    wide, narrow = (
        extrapolation.extrapolate(scores, num_resamples=50, confidence=c).targets
        for c in (0.95, 0.5)
    )
    np.testing.assert_array_equal(wide.value, narrow.value)
    assert (wide.low < narrow.low).all() and (narrow.high < wide.high).all()


def test_draws_are_those_of_the_seed(rng):
    scores, _ = planted(rng)
    draw = lambda seed: extrapolation.extrapolate(scores, num_resamples=5, seed=seed).v0
    np.testing.assert_array_equal(draw(0), draw(0))
    assert (draw(0) != draw(1)).all()


def respond(rng, *, s, v, n, noise_sd):
    """Responses whose targets are mixtures of variance 1 of two shared signals, and noise."""
    num_signals = 2
    signal = rng.normal(size=(n, num_signals))
    signal = np.linalg.qr(signal - signal.mean(axis=0))[0] * np.sqrt(n)
    mixing = rng.normal(size=(num_signals, s * v))
    mixing /= np.linalg.norm(mixing, axis=0)
    Y = signal @ mixing + noise_sd * rng.normal(size=(n, s * v))
    return Y, np.repeat(np.arange(s), v)


@pytest.mark.slow
@pytest.mark.parametrize("noise_sd", [0.7, 1.5])
def test_ceilings_of_simulated_subjects_are_recovered(rng, noise_sd):
    """The correlation of a noiseless signal with single responses is 1 / sqrt(1 + noise²).

    The published curve has levelled off below it, and above what the subjects there are reach.
    """
    # Samples are many for each feature: what a regression loses by too few is no noise.
    Y, subjects = respond(rng, s=6, v=3, n=1500, noise_sd=noise_sd)
    scores = subsets.score(Y, subjects, folds.splits(3, len(Y)))
    truth = 1 / np.sqrt(1 + noise_sd**2)
    found = extrapolation.leave_subjects_out(scores, family="reliability")
    assert found.low < truth < found.high
    bootstrapped = extrapolation.extrapolate(scores, family="reliability", num_resamples=10)
    assert bootstrapped.ceiling.value == pytest.approx(float(found.value), abs=0.02)
    exponential = extrapolation.extrapolate(scores, num_resamples=5).ceiling
    reached = np.median([r[-1].mean(axis=0) for r in scores.r])
    assert reached - 0.01 < exponential.value < truth - 0.01


def test_without_noise_the_ceiling_is_one(rng):
    Y, subjects = respond(rng, s=4, v=3, n=60, noise_sd=0.0)
    scores = subsets.score(Y, subjects, folds.splits(3, len(Y)))
    found = extrapolation.extrapolate(scores, num_resamples=5).ceiling
    np.testing.assert_allclose(found[:3], 1, atol=1e-5)


@pytest.mark.slow
def test_noise_alone_has_about_no_ceiling(rng):
    Y, subjects = respond(rng, s=5, v=8, n=300, noise_sd=100.0)
    scores = subsets.score(Y, subjects, folds.splits(3, len(Y)))
    assert extrapolation.extrapolate(scores, num_resamples=20).ceiling.value < 0.05


@pytest.mark.slow
@pytest.mark.parametrize("family", ["exponential", "reliability"])
def test_leaving_subjects_out_is_extrapolating_without_them(rng, family):
    Y, subjects = respond(rng, s=5, v=3, n=80, noise_sd=1.0)
    splits = folds.splits(3, len(Y))
    found = extrapolation.leave_subjects_out(subsets.score(Y, subjects, splits), family=family)

    def level(kept):
        scores = subsets.score(Y[:, kept], subjects[kept], splits)
        v0 = []
        for i, r in enumerate(scores.r):
            sizes = scores.subsets[scores.subsets[:, i]].sum(axis=1)
            x = np.unique(sizes)
            means = np.array([r[sizes == k].mean(axis=(0, 1)) for k in x]).T
            count = x if family == "exponential" else x - 1
            v0.append(saturation.fit(count.astype(float), means, family=family).v0)
        return np.median(np.concatenate(v0))

    value = level(subjects >= 0)
    parts = [level(subjects != i) for i in range(5)]
    half = stats.t.ppf(0.975, 4) * np.sqrt(4 / 5 * np.sum((parts - np.mean(parts)) ** 2))
    z = np.arctanh(value) + half / (1 - value**2) * np.array([-1, 1])
    expected = (value, *np.tanh(z))
    np.testing.assert_allclose(found[:3], expected, atol=1e-4)
    assert found.num == 5


def test_refusals(rng):
    scores, _ = planted(rng, s=3)
    with pytest.raises(ValueError, match="needs at least 4 of them, got 3"):
        extrapolation.leave_subjects_out(scores)
    with pytest.raises(ValueError, match="num_resamples must be >= 1, got 0"):
        extrapolation.extrapolate(scores, num_resamples=0)
    with pytest.raises(ValueError, match="confidence must lie in"):
        extrapolation.extrapolate(scores, confidence=1.0)


def exhaustive(Y, subjects, splits, num_resamples):
    """The published way, in full: regressions, bootstraps and fits in loops."""
    names = np.unique(subjects)
    members = subsets.members_of(len(names))
    r = [[] for _ in names]
    for subset in members:
        for i in np.flatnonzero(subset):
            pool = np.isin(subjects, names[subset]) & (subjects != names[i])
            mine = subjects == names[i]
            rows = []
            for train, test in splits:
                fitted = LinearRegression().fit(Y[train][:, pool], Y[train][:, mine])
                pairs = zip(fitted.predict(Y[test][:, pool]).T, Y[test][:, mine].T, strict=True)
                rows.append([stats.pearsonr(a, b).statistic for a, b in pairs])
            r[i].append(rows)
    columns = tuple(np.flatnonzero(subjects == name) for name in names)
    scores = subsets.SubsetScores(tuple(map(np.array, r)), members, columns, tuple(names))
    return scores, published(scores, num_resamples=num_resamples)


@pytest.mark.slow
@pytest.mark.parametrize("v", [4, 9])
def test_matches_the_exhaustive_way(rng, v):
    Y, subjects = respond(rng, s=4, v=v, n=60, noise_sd=1.0)
    splits = folds.splits(ShuffleSplit(10, train_size=0.9, random_state=1), len(Y))
    expected, v0 = exhaustive(Y, subjects, splits, 10)
    scores = subsets.score(Y, subjects, splits)
    for a, b in zip(scores.r, expected.r, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    found = extrapolation.extrapolate(scores, num_resamples=10)
    assert found.ceiling.value == pytest.approx(np.median(np.median(v0, axis=0)), abs=1e-5)


@pytest.fixture(scope="module")
def pie_man(data_root):
    """36 subjects x 300 TR x 100 nodes."""
    path = data_root / "pieman_fmri_36subj/examples/sample_data/weights.mat"
    return np.stack([*io.loadmat(path)["weights"][0]])


@pytest.mark.slow
def test_pie_man_ceilings_of_a_few_nodes(pie_man):
    """Six listeners, and the eight nodes in which the other thirty agree most."""
    agreement = isc.leave_one_out(pie_man[6:].transpose(0, 2, 1)).mean(axis=0)
    Y = pie_man[:6, :, np.sort(np.argsort(agreement)[-8:])]
    subjects = np.repeat(np.arange(6), 8)
    blocks = folds.contiguous_folds(["run"] * 300, 5, gap=5)
    splits = [fold.outer for fold in blocks]
    scores = subsets.score(Y.transpose(1, 0, 2).reshape(300, 48), subjects, splits)
    # One of the subsets, by hand.
    pool = np.flatnonzero(np.isin(subjects, [0, 2]))
    flat = Y.transpose(1, 0, 2).reshape(300, 48)
    place = (
        scores.subsets[scores.subsets[:, 3]].tolist().index([True, False, True, True] + [False] * 2)
    )
    for number, (train, test) in enumerate(splits):
        predicted = LinearRegression().fit(flat[train][:, pool], flat[train][:, 24:32])
        for a, b, r in zip(
            predicted.predict(flat[test][:, pool]).T,
            flat[test][:, 24:32].T,
            scores.r[3][place, number],
            strict=True,
        ):
            assert r == pytest.approx(stats.pearsonr(a, b).statistic, abs=1e-5)
    found = extrapolation.extrapolate(scores)
    assert 0 < found.ceiling.low < found.ceiling.value < found.ceiling.high < 1
    assert found.num_undefined == 0 and found.ceiling.num == 48


def test_some_targets_by_themselves(rng):
    """Averages by size, and ceilings of a part of the targets, with the scores they have in all."""
    Y, subjects = respond(rng, s=4, v=3, n=60, noise_sd=1.0)
    scores = subsets.score(Y, subjects, folds.splits(3, len(Y)))
    keep = np.arange(12) % 3 != 1
    part = extrapolation.of_targets(scores, keep)
    every = extrapolation.averages(scores)
    np.testing.assert_allclose(extrapolation.averages(part), every[keep])
    sizes = scores.subsets[scores.subsets[:, 2]].sum(axis=1)
    expected = [scores.r[2][sizes == k][:, :, 0].mean() for k in (2, 3, 4)]
    np.testing.assert_allclose(every[6], expected, rtol=1e-5)
    whole = extrapolation.extrapolate(scores, num_resamples=5)
    found = extrapolation.extrapolate(part, num_resamples=5)
    np.testing.assert_allclose(found.targets.value, whole.targets.value[keep])
    over = extrapolation.resample_subjects(whole.targets.value, scores.columns, rng=rng)
    assert over.value == whole.ceiling.value
    medians = [np.median(whole.targets.value[own]) for own in scores.columns]
    assert min(medians) <= over.low <= over.value <= over.high <= max(medians)
    with pytest.raises(ValueError, match="keep must have one entry per target: 12, got 3"):
        extrapolation.of_targets(scores, keep[:3])
