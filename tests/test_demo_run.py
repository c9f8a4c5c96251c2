"""The main job on its embedded default, run as a user runs it."""

import json
import pathlib
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import tensorstore as ts

from jaxalign.core import folds as folds_lib
from jaxalign.data.sets import passages

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]
PLANTED_LAYER = 4


def command(workdir, *arguments):
    return [
        sys.executable,
        "-m",
        "jaxalign.main",
        f"--config={REPOSITORY / 'configs/demo.py'}",
        f"--workdir={workdir}",
        *arguments,
    ]


def run(workdir, *arguments):
    result = subprocess.run(
        command(workdir, *arguments), capture_output=True, text=True, timeout=600, check=False
    )
    assert result.returncode == 0, result.stderr
    return result


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """The work directory of a finished run, and what it printed."""
    workdir = tmp_path_factory.mktemp("demo") / "work"
    return workdir, run(workdir)


def scores(workdir):
    return pd.read_csv(workdir / "report/scores.csv", keep_default_na=False, na_values=["nan"])


def artefact(workdir, stage, name):
    """Find an artefact by the name that it recorded."""
    for path in (workdir / stage).glob("*/settings.json"):
        if json.loads(path.read_text())["name"] == name:
            return path.parent
    raise AssertionError(f"no artefact {stage} {name}")


def test_table_has_the_columns_that_are_promised(demo):
    table = pd.read_csv(demo[0] / "report/scores.csv")
    wanted = "dataset model control_of layer subject roi protocol context metric score ceiling"
    assert set((wanted + " alpha_median num_nan").split()) <= set(table.columns)
    assert set(table.model) == {
        "all-MiniLM-L6-v2",
        "word_rate",
        "word_length",
        "position",
        "shifted",
        "untrained",
    }
    assert set(table.subject) == {"group", *(f"p{i:02d}" for i in range(1, 9))}
    assert (table.num_nan == 0).all()
    assert (demo[0] / "report/index.html").stat().st_size > 10_000


def test_planted_layer_is_named_with_its_margin(demo):
    workdir, result = demo
    assert f"Best layer: {PLANTED_LAYER} (the planted layer)" in result.stdout
    margins = pd.read_csv(workdir / "report/layers.csv").iloc[0]
    assert margins.best_layer == PLANTED_LAYER
    assert 0 < margins.ci_low < margins.margin < margins.ci_high
    table = scores(workdir)
    own = table[(table.model == "all-MiniLM-L6-v2") & (table.subject != "group")]
    layers = own.groupby("layer").score.mean()
    assert layers.idxmax() == PLANTED_LAYER
    top = layers.nlargest(2)
    assert margins.margin == pytest.approx(top.iloc[0] - top.iloc[1])


def test_ceilings_stand_beside_the_scores(demo):
    table = scores(demo[0])
    people = table[table.subject != "group"]
    assert people.ceiling.between(0.4, 0.7).all()
    # noise_sd is 1.2: 1 / sqrt(1 + 1.44).
    assert people.signal_ceiling.mean() == pytest.approx(0.640, abs=0.02)
    assert (people.score < people.signal_ceiling).all()


def test_score_is_that_of_a_plain_float64_ridge(demo):
    """Nested cross-validation by NumPy alone, on the stored activations and responses."""
    workdir, _ = demo
    store = artefact(workdir, "extract", "all-MiniLM-L6-v2") / "activations.zarr"
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(store)}}
    X = np.asarray(ts.open(spec).result()[PLANTED_LAYER].read().result(), np.float64)
    planted = artefact(workdir, "simulate", f"all-MiniLM-L6-v2 layer {PLANTED_LAYER}")
    with np.load(planted / "responses.npz") as file:
        Y, subject = file["values"], file["subject"]
    stimuli = passages.Passages().stimuli()
    folds = folds_lib.contiguous_folds(stimuli.run, 6, gap=0, groups=stimuli.passage)
    alphas = 10.0 ** (np.arange(-2, 15) / 2)

    def predict(train, test):
        mean, sd = X[train].mean(axis=0), X[train].std(axis=0)
        Z, Z_test = (X[train] - mean) / sd, (X[test] - mean) / sd
        centre = Y[train].mean(axis=0)
        spectrum, Q = np.linalg.eigh(Z @ Z.T)
        for alpha in alphas:
            dual = Q @ ((Q.T @ (Y[train] - centre)) / (spectrum + alpha)[:, None])
            yield centre + Z_test @ (Z.T @ dual)

    r = []
    for fold in folds:
        errors = sum(
            np.array([((p - Y[s.test]) ** 2).mean(axis=0) for p in predict(*s)]) for s in fold.inner
        )
        best = errors.argmin(axis=0)
        predicted = np.stack(list(predict(*fold.outer)))[best, :, np.arange(Y.shape[1])].T
        recorded = Y[fold.outer.test]
        pairs = zip(predicted.T, recorded.T, strict=True)
        r.append([np.corrcoef(a, b)[0, 1] for a, b in pairs])
    r = np.mean(r, axis=0)
    table = scores(workdir)
    own = table[(table.model == "all-MiniLM-L6-v2") & (table.layer == PLANTED_LAYER)]
    own = own.set_index("subject").score
    for name in np.unique(subject):
        assert own[name] == pytest.approx(r[subject == name].mean(), abs=1e-4)


def test_second_run_recomputes_nothing(demo):
    workdir, first = demo
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*.*") if p.name != "config.json"}
    second = run(workdir)
    after = {p: p.stat().st_mtime_ns for p in workdir.rglob("*.*") if p.name != "config.json"}
    assert after == before
    assert "Nothing to compute: all 10 artefacts are up to date." in second.stderr
    assert second.stdout == first.stdout
