"""GPT-2 as given and the mean of the language network: a run as users run it, and scikit-learn."""

import command
import numpy as np
import pandas as pd
import protocol_oracle as oracle
import pytest
from sklearn import linear_model, model_selection, preprocessing

from jaxalign.core import folds as folds_lib
from jaxalign.data.sets import pereira_mean

ALPHAS = 10.0 ** (np.arange(-2, 15) / 2)
MODEL = "gpt2-layer12"

pytestmark = pytest.mark.slow


def run(workdir, data_root, protocol=""):
    config = f"pereira_mean.py{protocol and ':' + protocol}"
    result = command.call(config, workdir, f"--data_root={data_root}", timeout=1800, is_long=True)
    assert result.returncode == 0, result.stderr
    return workdir / "report", result


@pytest.fixture(scope="module")
def data(data_root):
    """Activations, length, responses and topics, read without the package's adapters."""
    folder = data_root / pereira_mean.FOLDER
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    table = pd.read_csv(folder / "pereira2018_langnet_mean.csv")
    order = pd.read_csv(folder / "pereira2018_stimulus_set.csv").stimulus_id
    X = pd.DataFrame(np.load(folder / "GPT2_layer12_act_Pereira2018.npy"), index=order)
    words = table.sentence.str.split().str.len()
    letters = table.sentence.map(lambda text: sum(c.isalnum() for c in text))
    return (
        X.loc[table.stimulus_id].to_numpy(np.float64),
        np.stack([words, letters], axis=1).astype(np.float64),
        table.response.to_numpy(),
        table.story.to_numpy(),
    )


def paths(X, length, y, train, test):
    """Predict by ridge with every penalty: from X, from length, from X beside unpenalised length.

    One decomposition serves all penalties: each is of a copy of the response.
    """
    scale = lambda x: preprocessing.StandardScaler().fit(x[train]).transform(x)
    X, length = scale(X), scale(length)

    def ridge(X, y):
        model = linear_model.Ridge(alpha=ALPHAS, solver="svd")
        return model.fit(X[train], np.tile(y[train, None], len(ALPHAS))).predict(X[test])

    # What length explains is taken out of both, which is the joint fit without a penalty on it.
    both = np.c_[X, y]
    of_length = linear_model.LinearRegression().fit(length[train], both[train]).predict(length)
    rest = both - of_length
    joint = ridge(rest[:, :-1], rest[:, -1]) + of_length[test, -1:]
    return {"model": ridge(X, y), "controls": ridge(length, y), "joint": joint}


@pytest.fixture(scope="module")
def expected(data):
    """Held-out predictions with penalties chosen on the other folds, and scikit-learn's folds."""
    X, length, y, topics = data
    folds = model_selection.GroupKFold(10, shuffle=True, random_state=1234)
    splits = list(folds.split(X, groups=topics))
    errors = {}
    for i in range(10):
        for j in range(i):
            train = np.intersect1d(splits[i][0], splits[j][0])
            test = np.r_[splits[i][1], splits[j][1]]
            size = len(splits[i][1])
            for name, found in paths(X, length, y, train, test).items():
                square = (found - y[test, None]) ** 2
                # What is tested in one is left out of the other's training.
                errors[name, j, i] = square[:size].mean(axis=0)
                errors[name, i, j] = square[size:].mean(axis=0)
    predicted = {name: np.zeros(len(y)) for name in ("model", "controls", "joint")}
    alphas = {name: [] for name in predicted}
    for i, (train, test) in enumerate(splits):
        for name, found in paths(X, length, y, train, test).items():
            inner = sum(errors[name, i, j] for j in range(10) if j != i)
            predicted[name][test] = found[:, inner.argmin()]
            alphas[name].append(ALPHAS[inner.argmin()])
    return splits, predicted, alphas


@pytest.fixture(scope="module")
def report(data_root, data, tmp_path_factory):
    return run(tmp_path_factory.mktemp("pereira") / "work", data_root)


def test_scores_are_those_of_scikit_learn(report, data, expected):
    splits, predicted, alphas = expected
    rows = pd.read_parquet(report[0] / "scores.parquet").set_index("model")
    outer = [folds_lib.Split(*split) for split in splits]
    assert set(rows.folds_hash) == {folds_lib.folds_hash(folds_lib.cross(outer))}
    y = data[2]
    for model, name in ((MODEL, "model"), ("length", "controls")):
        r = [np.corrcoef(predicted[name][test], y[test])[0, 1] for _, test in splits]
        np.testing.assert_allclose(rows.fold_scores[model], r, atol=1e-4)
        np.testing.assert_allclose(rows.fold_alphas[model], alphas[name])


def test_length_is_ahead_of_gpt2_and_other_sentences_say_nothing(report):
    rows = pd.read_csv(report[0] / "scores.csv", keep_default_na=False).set_index("model")
    assert rows.layer[MODEL] == 12
    assert rows.score[MODEL] == pytest.approx(0.38, abs=0.02)
    assert rows.score["length"] == pytest.approx(0.42, abs=0.02)
    assert abs(rows.score["shuffled"]) < 0.1
    assert "participants' mean" in report[1].stdout


def as_a_band(features, y, splits):
    """Predict by ridge, scaled once by the outer training set, as bands are."""
    predicted = np.zeros(len(y))
    for train, test in splits:
        Z = preprocessing.StandardScaler().fit(features[train]).transform(features)

        def ridge(own, alpha, Z=Z):
            return linear_model.Ridge(alpha=alpha, solver="svd").fit(Z[own], y[own])

        errors = np.zeros(len(ALPHAS))
        for _, block in splits:
            if block is test:
                continue
            own = np.setdiff1d(train, block)
            for a, alpha in enumerate(ALPHAS):
                errors[a] += ((ridge(own, alpha).predict(Z[block]) - y[block]) ** 2).mean()
        predicted[test] = ridge(train, ALPHAS[errors.argmin()]).predict(Z[test])
    return predicted


def test_what_length_and_gpt2_share(report, data, expected):
    """Alone to 1e-4; together a little apart, for there length has no penalty and no search."""
    splits, predicted, _ = expected
    y = data[2]
    predicted = predicted | {"controls": as_a_band(data[1], y, splits)}
    total = sum(((y[test] - y[train].mean()) ** 2).sum() for train, test in splits)
    r2 = {name: 1 - ((x - y) ** 2).sum() / total for name, x in predicted.items()}
    (found,) = pd.read_csv(report[0] / "partition.csv").itertuples()
    assert found.r2_model == pytest.approx(r2["model"], abs=1e-4)
    assert found.r2_controls == pytest.approx(r2["controls"], abs=1e-4)
    assert found.r2_joint == pytest.approx(r2["joint"], abs=0.02)
    assert found.unique_model == pytest.approx(r2["joint"] - r2["controls"], abs=0.02)
    assert found.shared == pytest.approx(r2["model"] + r2["controls"] - r2["joint"], abs=0.02)


@pytest.mark.parametrize("protocol", ["brainscore-ridge", "brainscore-linear-2026"])
def test_protocols(data_root, data, tmp_path, protocol):
    X, _, y, topics = data
    folder, _ = run(tmp_path / "work", data_root, protocol)
    rows = pd.read_parquet(folder / "scores.parquet").set_index("model")
    if protocol == "brainscore-ridge":
        r, _ = oracle.grouped_ridge(X, y[:, None], topics)
    else:
        r = oracle.shuffled(X, y[:, None], epsilon=1e-8)
    np.testing.assert_allclose(rows.fold_scores[MODEL], r[:, 0], atol=1e-3)
    found = pd.read_csv(folder / "alignment.csv").set_index("model")
    assert found.raw[MODEL] == pytest.approx(r.mean(), abs=1e-3)
