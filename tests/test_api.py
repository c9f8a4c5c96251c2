"""Every protocol on arrays, against scikit-learn, himalaya and NumPy in float64."""

import dataclasses
import subprocess
import sys

import numpy as np
import protocol_oracle as oracle
import pytest
from quiet import close, score
from refusals import refused
from sklearn import linear_model, model_selection

import jaxalign
from jaxalign.core import folds as folds_lib
from jaxalign.core.scores import scoring
from jaxalign.literature import protocols

SLOW = pytest.mark.slow
# Two regimes: more samples than features, and fewer.
SHAPES = [(120, 12, 5), pytest.param(90, 110, 4, marks=SLOW)]
SMALL = (120, 12, 5)
AVERAGE = protocols.find("aw2024-average")


def problem(rng, n, p, v, *, noise=2.0):
    """Features of unlike scale, responses with a mean, in groups of unequal size."""
    X = rng.standard_normal((n, p)) * np.exp(rng.uniform(-1, 1, p)) + rng.standard_normal(p)
    Y = 3 + X @ rng.standard_normal((p, v)) / np.sqrt(p) + noise * rng.standard_normal((n, v))
    groups = np.sort(rng.integers(0, 20, n))
    return X, Y, np.array([f"story{i}" for i in groups])


# Brain-Score


@pytest.mark.slow
@pytest.mark.parametrize("n,p,v", SHAPES)
@pytest.mark.parametrize("year,epsilon", [(2023, 0.0), (2026, 1e-8)])
@pytest.mark.parametrize("unit", [1.0, 1e-7])
def test_shuffled_least_squares(rng, n, p, v, year, epsilon, unit):
    """In small units the epsilon of 2026 shrinks every correlation; that of 2023 has none."""
    X, Y, _ = problem(rng, n, p, v)
    expected = oracle.shuffled(X, Y * unit, epsilon=epsilon)
    found = score(X, Y * unit, protocol=f"brainscore-linear-{year}")
    close(found.raw, np.median(expected, axis=1).mean())
    close(found.per_fold, np.median(expected, axis=1))
    close(found.per_target, expected.mean(axis=0))
    assert np.isnan(found.score) and np.isnan(found.ceiling)
    assert (found.alphas == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("year", [2023, 2026])
def test_undefined_correlations_of_either_year(rng, year):
    """Skipped by the median in 2023, zeros in 2026; counted in both."""
    X, Y, _ = problem(rng, *SMALL)
    Y[:, 1] = 7.0
    expected = oracle.shuffled(X, Y, epsilon=1e-8 if year == 2026 else 0.0)
    expected[:, 1] = 0.0 if year == 2026 else np.nan
    found = score(X, Y, protocol=f"brainscore-linear-{year}")
    close(found.raw, np.nanmedian(expected, axis=1).mean())
    assert found.num_nan == 10
    assert (found.per_target[1] == 0.0) if year == 2026 else np.isnan(found.per_target[1])


@pytest.mark.slow
@pytest.mark.parametrize("n,p,v", SHAPES)
@pytest.mark.parametrize(
    "name,num", [("brainscore-ridge", 10), pytest.param("brainscore-ridge-8folds", 8, marks=SLOW)]
)
def test_grouped_ridge_with_one_penalty(rng, n, p, v, name, num):
    X, Y, groups = problem(rng, n, p, v)
    expected, alphas = oracle.grouped_ridge(X, Y, groups, num)
    found = score(X, Y, protocol=name, groups=groups)
    np.testing.assert_allclose(found.alphas, np.repeat(alphas[:, None], v, axis=1))
    close(found.raw, np.median(expected, axis=1).mean())
    close(found.per_target, expected.mean(axis=0))
    assert np.isnan(found.contiguous)


# Harry Potter, himalaya, the Huth lab, Oota et al.


@pytest.mark.slow
@pytest.mark.parametrize("p", [12, 200])
def test_wehbe(rng, p):
    n, runs = 150, np.repeat(["a", "b", "c"], 50)
    X, Y, _ = problem(rng, n, p, 4, noise=1.0)
    expected, alphas = oracle.wehbe(X, Y, runs, (1, 2, 3, 4))
    found = score(X, Y, protocol="wehbe2014", runs=runs, delays=(1, 2, 3, 4))
    close(found.per_fold, expected.mean(axis=1), 1e-4)
    close(found.per_target, expected.mean(axis=0), 1e-4)
    oracle.same_penalties(found.alphas, alphas)


def himalaya(X, Y, train, test, alphas):
    """Run the package itself, if it is installed."""
    pytest.importorskip("himalaya", reason="himalaya: pip install -e .[bench]")
    pytest.importorskip("packaging", reason="himalaya imports packaging")
    from himalaya.backend import set_backend
    from himalaya.ridge import RidgeCV

    set_backend("numpy")
    model = RidgeCV(alphas=alphas, solver_params={"warn": False}).fit(X[train], Y[train])
    return model.predict(X[test]), model.best_alphas_


@pytest.mark.slow
@pytest.mark.parametrize("n,p,v", SHAPES)
@pytest.mark.parametrize("solve", [himalaya, oracle.kfold_ridge])
def test_himalaya(rng, n, p, v, solve):
    X, Y, _ = problem(rng, n, p, v)
    alphas, expected, chosen = np.logspace(1, 20, 20), [], []
    for train, test in model_selection.KFold(5).split(X):
        predicted, best = solve(X, Y, train, test, alphas)
        expected.append(oracle.r2(predicted, Y[test]))
        chosen.append(best)
    found = score(X, Y, protocol="himalaya")
    close(found.per_target, np.mean(expected, axis=0), 1e-4)
    close(found.raw, np.mean(expected), 1e-4)
    oracle.same_penalties(found.alphas, chosen)


@pytest.mark.slow
@pytest.mark.parametrize("n,p,v", SHAPES)
@pytest.mark.parametrize("name,one", [("huth", False), ("huth-single-alpha", True)])
def test_huth(rng, n, p, v, name, one):
    X, Y, _ = problem(rng, n, p, v)
    X, Y = 20 * (X - X.mean(axis=0)), Y - Y.mean(axis=0)
    test = np.arange(n) >= n - 25
    own = protocols.find(name)
    sizes = {"chunk": 5, "num_chunks": 4}
    own = dataclasses.replace(own, penalty=dataclasses.replace(own.penalty, num=6, **sizes))
    sides = np.flatnonzero(~test), np.flatnonzero(test)
    expected, alphas = oracle.huth(X, Y, *sides, times=6, one=one, **sizes)
    found = score(X, Y, protocol=own, test=test)
    close(found.per_target, expected)
    close(found.raw, expected.mean())
    np.testing.assert_allclose(found.alphas[0], alphas)


@pytest.mark.slow
@pytest.mark.parametrize("n,p,v", SHAPES)
@pytest.mark.parametrize("solve", [pytest.param(himalaya, marks=SLOW), oracle.kfold_ridge])
def test_oota(rng, n, p, v, solve):
    """Of two layers the mean counts; correlation and R2 are both there."""
    X, Y, _ = problem(rng, n, p, v)
    layers = np.stack([X, X + rng.standard_normal(X.shape)])
    test = np.arange(n) % 4 == 0
    r, r2 = [], []
    for own in layers:
        Z, targets = np.empty_like(own), np.empty_like(Y)
        for side in (test, ~test):
            Z[side], targets[side] = oracle.zscore(own[side]), oracle.zscore(Y[side])
        sides = np.flatnonzero(~test), np.flatnonzero(test)
        predicted, _ = solve(Z, targets, *sides, np.logspace(1, 4, 60))
        r.append(oracle.pearson_r(predicted, targets[test]))
        r2.append(oracle.r2(predicted, targets[test]))
    found = score(layers, Y, protocol="oota2025", test=test, ceiling=np.full(v, 0.5))
    close(found.per_target, np.mean(r, axis=0), 1e-4)
    close(found.r2_per_target, np.mean(r2, axis=0), 1e-4)
    close(found.per_layer, np.mean(r, axis=1), 1e-4)
    close(found.score, np.mean(r) / 0.5, 1e-4)
    assert (found.layers == -1).all() and found.alphas.shape == (2, 1, v)


# The default


@pytest.mark.slow
@pytest.mark.parametrize("n,p,v", SHAPES)
@pytest.mark.parametrize(
    "mode", ["one run", pytest.param("groups", marks=SLOW), pytest.param("runs", marks=SLOW)]
)
def test_default(rng, n, p, v, mode):
    """Two layers, one that holds the signal of one subject, one that of the other."""
    X, Y, groups = problem(rng, n, p, v)
    other = rng.standard_normal((n, p))
    Y[:, -1] = other @ rng.standard_normal(p) / np.sqrt(p) + rng.standard_normal(n)
    layers = np.stack([X, other])
    subjects = ["one"] * (v - 1) + ["two"]
    own = dataclasses.replace(
        protocols.find("jaxalign"),
        penalty=dataclasses.replace(protocols.find("jaxalign").penalty, grid=(1.0, 10.0, 100.0)),
    )
    given, F, Z, runs = {}, layers, Y, None
    if mode == "groups":
        order = rng.permutation(n)  # groups need not be adjacent
        given = {"groups": groups[order]}
        layers, Y = layers[:, order], Y[order]
        F, Z = layers, Y
    elif mode == "runs":
        runs = np.repeat(["a", "b", "c"], n // 3)
        given = {"runs": runs, "delays": (0, 1)}
        Z = np.concatenate([oracle.zscore(Y[runs == run]) for run in "abc"])
        F = np.stack([late(X, runs, (0, 1)) for X in layers])
    blocks, near = oracle.blocks(n, given.get("groups"), runs)
    expected, alphas, picked = oracle.default(F, Z, blocks, near, own.penalty.grid, subjects)
    found = score(layers, Y, protocol=own, subjects=subjects, **given)
    np.testing.assert_array_equal(found.layers, picked)
    np.testing.assert_allclose(found.alphas, alphas)
    close(found.per_target, expected.mean(axis=0))
    close(found.raw, (expected[:, :-1].mean() + expected[:, -1].mean()) / 2)
    assert found.score == found.raw
    folds = scoring.make_folds(own, n, groups=given.get("groups"), runs=runs)
    assert found.protocol == "jaxalign" and found.folds_hash == folds_lib.folds_hash(folds)


def late(X, runs, delays):
    """Put features beside those of samples before; zeros before a run."""
    parts = [
        np.concatenate([np.r_[np.zeros((d, X.shape[1])), own[: len(own) - d]] for d in delays], 1)
        for own in (X[runs == run] for run in dict.fromkeys(runs))
    ]
    return np.concatenate(parts)


# Several layers and subjects, under the other protocols


def least_squares(X, Y, groups):
    return oracle.shuffled(X, Y)


def grouped_ridge(X, Y, groups):
    return oracle.grouped_ridge(X, Y, groups)[0]


def kfold_ridge(X, Y, groups):
    found = []
    for train, test in model_selection.KFold(5).split(X):
        predicted, _ = oracle.kfold_ridge(X, Y, train, test, np.logspace(1, 20, 20))
        found.append(oracle.r2(predicted, Y[test]))
    return np.array(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name,expect,pooled,atol",
    [
        ("brainscore-linear-2023", least_squares, True, 1e-5),
        pytest.param("brainscore-ridge", grouped_ridge, True, 1e-5, marks=SLOW),
        pytest.param("himalaya", kfold_ridge, False, 1e-4, marks=SLOW),
    ],
)
def test_the_best_of_several_layers(rng, name, expect, pooled, atol):
    """The middle one; by the median over the targets of all, or by the mean over subjects."""
    X, Y, groups = problem(rng, *SMALL)
    layers = np.stack([X + noise * rng.standard_normal(X.shape) for noise in (2.0, 0.0, 9.0)])
    subjects = np.array(["one"] * 4 + ["two"])
    per_layer = []
    for own in layers:
        values = expect(own, Y, groups)
        each = [values[:, subjects == x].mean() for x in ("one", "two")]
        per_layer.append(np.median(values, axis=1).mean() if pooled else np.mean(each))
    given = {"groups": groups} if name == "brainscore-ridge" else {}
    found = score(layers, Y, protocol=name, subjects=subjects, ceiling=np.nan, **given)
    close(found.per_layer, per_layer, atol)
    close(found.raw, max(per_layer), atol)
    assert (found.layers == np.argmax(per_layer)).all() and np.argmax(per_layer) == 1
    alone = score(layers[1], Y, protocol=name, ceiling=np.nan, **given)
    close(found.per_target, alone.per_target, 1e-7)


@pytest.mark.slow
@pytest.mark.parametrize("name,one", [("huth", False), ("huth-single-alpha", True)])
def test_huth_as_published(rng, name, one):
    """With 50 draws of 125 chunks of 40 samples."""
    X, Y, _ = problem(rng, 5600, 6, 3, noise=6.0)
    X, Y = 20 * (X - X.mean(axis=0)), Y - Y.mean(axis=0)
    test = np.arange(5600) >= 5300
    sides = np.flatnonzero(~test), np.flatnonzero(test)
    sizes = {"times": 50, "chunk": 40, "num_chunks": 125}
    expected, alphas = oracle.huth(X, Y, *sides, one=one, **sizes)
    found = score(X, Y, protocol=name, test=test)
    close(found.per_target, expected)
    np.testing.assert_allclose(found.alphas[0], alphas)


@pytest.mark.slow
def test_layers_are_chosen_inside(rng):
    """Of many layers of noise the best is above zero, and the chosen one is not."""
    n = 200
    layers, Y = rng.standard_normal((12, n, 5)), rng.standard_normal((n, 20))
    found = score(layers, Y)
    assert found.per_layer.max() > found.raw
    assert abs(found.raw) < 0.05


# What fits nothing, and averages


def test_reading_times(rng):
    n, s = 60, 7
    surprisal = rng.gamma(2.0, 2.0, n)
    times = 300 - 10 * surprisal[:, None] + 30 * rng.standard_normal((n, s))
    times[rng.random((n, s)) < 0.3] = np.nan
    surprisal[17] = np.nan
    sentences = np.repeat(np.arange(10), 6)
    keep = np.setdiff1d(np.arange(n), [*range(0, n, 6), 17])
    expected = np.corrcoef(surprisal[keep], np.nanmean(times[keep], axis=1))[0, 1]
    found = score(
        surprisal, times, protocol="futrell2018-pearsonr", groups=sentences, ceiling=0.858
    )
    assert expected < -0.3
    close(found.raw, -expected, 1e-12)
    close(found.score, -expected / 0.858, 1e-12)
    assert found.num_nan == 1


def test_next_word_loss(rng):
    from sklearn.metrics import log_loss

    logits, ids = 3 * rng.standard_normal((50, 9)), rng.integers(0, 9, 50)
    share = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    found = score(logits, ids, protocol="wikitext2-nwp")
    close(found.raw, log_loss(ids, share, labels=range(9)), 1e-12)
    assert found.score == found.raw


@pytest.mark.slow
def test_average_over_data_sets(rng):
    names = {"Pereira2018.243sentences": 100, "Pereira2018.384sentences": 110, "Blank2014": 120}
    data = {name: problem(rng, n, 8, 3) for name, n in (names | {"Wehbe2014": 130}).items()}
    X, Y = ({name: own[i] for name, own in data.items()} for i in range(2))
    X["Wehbe2014"] = rng.standard_normal((130, 12))
    found = score(X, Y, protocol="aw2024-average", delays={"Wehbe2014": (1, 2)})
    one = {name: score(X[name], Y[name], protocol="brainscore-linear-2023").raw for name in names}
    wehbe = score(X["Wehbe2014"], Y["Wehbe2014"], protocol="wehbe2014", delays=(1, 2)).raw
    pereira = (one["Pereira2018.243sentences"] + one["Pereira2018.384sentences"]) / 2
    close(found.raw, (pereira + one["Blank2014"] + wehbe) / 3, 1e-12)
    close(found.per_target, [pereira, one["Blank2014"], wehbe], 1e-12)


# What shuffled folds do


def smooth_blocks(rng, num_blocks, length, columns, width=4):
    """Noise that is smooth within blocks, and independent between them."""
    kernel = np.exp(-0.5 * (np.arange(-12, 13) / width) ** 2)
    return np.concatenate(
        [
            np.stack(
                [
                    np.convolve(rng.standard_normal(length + 24), kernel, "valid")
                    for _ in range(columns)
                ],
                axis=1,
            )
            for _ in range(num_blocks)
        ]
    )


@pytest.mark.slow
def test_shuffled_protocols_warn(rng):
    """With as many blocks as there are groups, if there are fewer than folds."""
    X, Y, _ = problem(rng, *SMALL)
    groups = np.arange(120) // 20
    with pytest.warns(jaxalign.ShuffledFoldsWarning, match="contiguous folds of the same data"):
        found = jaxalign.score_arrays(X, Y, protocol="brainscore-linear-2023", groups=groups)
    expected = []
    for i in range(6):
        test = groups == i
        model = linear_model.LinearRegression().fit(X[~test], Y[~test])
        expected.append(np.median(oracle.pearson_r(model.predict(X[test]), Y[test])))
    close(found.contiguous, np.mean(expected))
    two = score(X, Y, protocol="brainscore-linear-2023", groups=groups < 3)
    assert two.contiguous == score(X, Y, protocol="brainscore-linear-2023").contiguous


@pytest.mark.slow
def test_shuffled_folds_score_autocorrelation(rng):
    """Features and responses share nothing but that both are smooth."""
    X, Y = smooth_blocks(rng, 24, 16, 80), smooth_blocks(rng, 24, 16, 10)
    groups = np.repeat(np.arange(24), 16)
    with pytest.warns(jaxalign.ShuffledFoldsWarning, match="contiguous folds of the same data"):
        found = jaxalign.score_arrays(X, Y, protocol="brainscore-linear-2026", groups=groups)
    assert found.raw > 0.4
    assert abs(found.contiguous) < 0.1
    assert abs(score(X, Y, groups=groups).raw) < 0.1
    assert abs(score(X, Y, protocol="brainscore-ridge", groups=groups).raw) < 0.1


@pytest.mark.slow
def test_contiguous_score_is_that_of_contiguous_folds(rng):
    X, Y, groups = problem(rng, *SMALL)
    found = score(X, Y, protocol="brainscore-linear-2023", groups=groups)
    other = scoring.unshuffled(protocols.find("brainscore-linear-2023"))
    expected = []
    for fold in folds_lib.grouped_folds(groups, 10, gap=6):
        train, test = fold.outer
        model = linear_model.LinearRegression().fit(X[train], Y[train])
        expected.append(np.median(oracle.pearson_r(model.predict(X[test]), Y[test])))
    close(found.contiguous, np.mean(expected))
    assert score(X, Y, protocol=other, groups=groups).raw == found.contiguous


# Refusals, and the interface


@pytest.mark.slow
def test_interface_is_imported_when_asked_for():
    code = (
        "import sys, jaxalign; assert 'jaxalign.api' not in sys.modules; "
        "assert 'score_arrays' in dir(jaxalign); jaxalign.score_arrays; "
        "assert 'jaxalign.api' in sys.modules; jaxalign.nothing"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "module 'jaxalign' has no attribute 'nothing'" in result.stderr
    assert "AssertionError" not in result.stderr
    assert jaxalign.list_protocols() == tuple(protocols.PROTOCOLS)


@pytest.mark.parametrize(
    "options,message",
    [
        ({"protocol": "brain"}, "protocol must be one of jaxalign, .*got 'brain'"),
        ({"groups": ["a"] * 39}, "groups must have one entry per sample (40), got shape (39,)"),
        ({"subjects": ["a"]}, "subjects must have one entry per column of Y (2)"),
        ({"protocol": "brainscore-ridge"}, "groups must be at least 10, got 0: give groups"),
        (
            {"protocol": "brainscore-ridge", "groups": np.arange(40) // 5},
            "groups must be at least 10, got 8: protocol brainscore-ridge-8folds fits",
        ),
        ({"groups": np.arange(40) // 10}, "got 4: a copy of the protocol with folds.num 4 fits"),
        ({"protocol": "huth"}, "protocol huth needs a test set"),
        ({"test": np.zeros(40, int)}, "test must be a mask of True and False, got int64"),
        ({"test": np.zeros(40, bool)}, "makes its own folds: give no test set"),
        ({"ceiling": [0.1]}, "ceiling must be a number or one per target (2), got shape (1,)"),
        (
            {"protocol": "huth", "test": np.arange(40) > 30},
            "125 of 40 samples are held out, and 31 training samples have 0",
        ),
        (
            {"protocol": "futrell2018-pearsonr"},
            "X must hold the surprisal of each word [n], and Y reading times [n s]",
        ),
        ({"protocol": "wikitext2-nwp"}, "Y the ids of the tokens that came [n], integers"),
        ({"protocol": "aw2024-average"}, "X must map Pereira2018.243sentences,.*got ndarray"),
        (
            {"subjects": ["a", "a"], "targets": ["x", "x"]},
            "A subject must have each target once, but has 'x' twice",
        ),
    ],
)
def test_refusals(rng, options, message):
    with refused(*message.split(".*")):
        score(rng.standard_normal((40, 3)), rng.standard_normal((40, 2)), **options)


def test_shapes_and_undefined_values_are_refused(rng):
    X, Y = rng.standard_normal((30, 3)), rng.standard_normal((30, 2))
    with refused("X must be [n p] or [L n p]", "got (29, 3) and (30, 2)"):
        score(X[:-1], Y)
    Y[3, 1] = np.nan
    with refused("Y must hold finite numbers, got float64 with NaN or infinity"):
        score(X, Y)
    with refused("protocol futrell2018-pearsonr needs groups: the sentence of each word"):
        score(X[:, 0], Y, protocol="futrell2018-pearsonr")
    with refused("at least 3 words to correlate, found 0"):
        score(X[:, 0], Y, protocol="futrell2018-pearsonr", groups=np.arange(30))
    with refused("Y must hold ids in 0..2"):
        score(X, np.full(30, 3), protocol="wikitext2-nwp")


@pytest.mark.slow
def test_average_needs_every_data_set_under_its_protocol(rng):
    X, Y, groups = problem(rng, *SMALL)
    found = score(X, Y, protocol="brainscore-ridge", groups=groups)
    with refused("needs a score of 'Pereira2018.243sentences'"):
        jaxalign.average({"Blank2014": found})
    names = ["Pereira2018.243sentences", "Pereira2018.384sentences", "Blank2014", "Wehbe2014"]
    with refused("under brainscore-linear-2023, got 'brainscore-ridge'"):
        jaxalign.average(dict.fromkeys(names, found))


# Stimuli that are presented again


def presented_again(rng, num=60):
    """Features and responses that have nothing to do with one another, three times each."""
    X, Y = rng.standard_normal((num, 30)), rng.standard_normal((num, 6))
    order = np.concatenate([rng.permutation(num) for _ in range(3)])
    return X[order], Y[order] + 0.2 * rng.standard_normal((3 * num, 6)), order


@pytest.mark.slow
def test_presentations_are_not_looked_up(rng):
    X, Y, order = presented_again(rng)
    with pytest.warns(jaxalign.RepeatedStimuliWarning, match="X: features of 180 of 180 .* items"):
        found = jaxalign.score_arrays(X, Y)
    assert found.raw > 0.4 and found.num_repeated == 180
    assert "180 test samples present what is trained on" in repr(found)
    known = score(X, Y, items=order)
    assert abs(known.raw) < 0.15 and known.num_repeated == 0
    assert score(X, Y, items=range(180)).raw == pytest.approx(found.raw)  # all differ, one says


@pytest.mark.slow
def test_presentations_under_folds_of_others(rng):
    X, Y, order = presented_again(rng)
    few = np.where(order < 10, order, 60 + np.arange(180))
    with refused("protocol himalaya", "180 of 180 test samples", "average the responses"):
        jaxalign.score_arrays(X, Y, protocol="himalaya", items=order)
    with refused("items must have one entry per sample (180)"):
        jaxalign.score_arrays(X, Y, items=order[1:])
    with pytest.warns(jaxalign.RepeatedStimuliWarning, match="himalaya.* of 180 test samples"):
        found = jaxalign.score_arrays(X, Y, protocol="himalaya", items=few)
    assert 20 < found.num_repeated <= 30


def test_targets_keep_their_labels(rng):
    layers = rng.normal(size=(2, 60, 3))
    Y = layers[1] @ rng.normal(size=(3, 4)) + 0.1 * rng.normal(size=(60, 4))
    labels = {"subjects": ["a", "a", "b", "b"], "targets": ["x", "y", "x", "y"]}
    found = jaxalign.score_arrays(layers, Y, groups=np.repeat(np.arange(12), 5), **labels)
    table = jaxalign.per_target(found)
    assert table.subject.tolist() == labels["subjects"]
    assert table.target.tolist() == labels["targets"] and set(table.roi) == {""}
    np.testing.assert_array_equal(table.score, found.per_target)
    np.testing.assert_array_equal(table.ceiling, found.ceiling_per_target)
    assert set(table.layer) == {1}
    np.testing.assert_array_equal(table.alpha, np.median(found.alphas, axis=0))
    parts = ((("one", "other"), "jaxalign"),)
    both = dataclasses.replace(AVERAGE, name="both", parts=parts)
    whole = jaxalign.average({"one": found, "other": found}, both)
    assert jaxalign.per_target(whole).score.tolist() == whole.per_target.tolist()
    with refused("per_target needs what score or score_arrays returns, got DataFrame"):
        jaxalign.per_target(table)
