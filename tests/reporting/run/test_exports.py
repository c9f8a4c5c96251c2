"""Scores leave as xarray and to trackers, and come back as they were."""

import importlib.util
import json

import numpy as np
import pandas as pd
import pytest
import score_rows
import xarray as xr
from refusals import refused
from score_rows import NAN

from jaxalign.reporting.run import exports

FINDINGS = pd.DataFrame(
    {
        "analysis": ["correlation", "gain"],
        "subset": ["tuned", "all"],
        "predictor": ["log10 parameters", "tuned"],
        "outcome": ["brain", "pereira2018"],
        "statistic": ["pearson_r", "percent"],
        "value": [0.946, NAN],
    }
)
LOG = pd.DataFrame({"step": [1, 2], "loss": [3.0, 2.5], "share_of_peak": [NAN, 0.25]})


def needs(package):
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed: extra `track`")


@pytest.fixture
def report(tmp_path):
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "index.html").write_text("<p>page</p>")
    (folder / "scores.csv").write_text("model,score\n")
    return folder


def test_score_has_the_attributes_of_brain_score():
    found = exports.to_score(score_rows.study(), model="net", dataset="toy")
    assert found.attrs["model_identifier"] == "net"
    assert found.attrs["benchmark_identifier"] == "toy-nested-ridge"
    # Layer 1 is best inside the training data of every subject in LATL, layer 2 in LIFG but of s3.
    raw = found.attrs["raw"]
    assert raw.dims == ("subject", "roi")
    expected = {"LATL": [0.30, 0.35, 0.28], "LIFG": [0.15, 0.20, 0.11]}
    for roi, values in expected.items():
        np.testing.assert_allclose(raw.sel(roi=roi, subject=["s1", "s2", "s3"]), values)
    assert (found.attrs["ceiling"] == 0.5).all()
    means = [np.mean(values) for values in expected.values()]
    assert float(found) == pytest.approx(np.mean(means) / 0.5)
    layers = found.attrs["layer_scores"]
    assert layers.layer.values.tolist() == [0, 1, 2]
    latl, lifg = (np.mean(score_rows.TABLE["net", "", roi], axis=0) for roi in ("LATL", "LIFG"))
    np.testing.assert_allclose(layers, (latl + lifg) / 2)


def test_published_scores_have_one_layer_and_no_folds():
    rows = [
        score_rows.row("net", "all", "language", -1, [0.3], ceiling=0.4, protocol="published:x")
        | {"fold_scores": [], "fold_inner_r2": []}
    ]
    found = exports.to_score(score_rows.frame(rows), model="net", dataset="toy")
    assert float(found) == pytest.approx(0.75)
    assert found.attrs["benchmark_identifier"] == "toy-published:x"
    unknown = exports.to_score(
        score_rows.frame([rows[0] | {"ceiling": NAN}]), model="net", dataset="toy"
    )
    assert np.isnan(unknown) and float(unknown.attrs["raw"].squeeze()) == 0.3


@pytest.mark.slow
def test_score_survives_a_file(tmp_path):
    score = exports.to_score(score_rows.study(), model="net", dataset="toy")
    exports.write_score(tmp_path / "net.nc", score)
    found = exports.read_score(tmp_path / "net.nc")
    assert float(found) == float(score)
    assert found.attrs.keys() == score.attrs.keys()
    for name in ("raw", "ceiling", "layer_scores"):
        xr.testing.assert_identical(found.attrs[name], score.attrs[name])
    assert [x.name for x in tmp_path.iterdir()] == ["net.nc"]


def test_scores_that_are_none_are_refused(tmp_path):
    rows = score_rows.study()
    with refused("rows of model 'other' on 'toy'"):
        exports.to_score(rows, model="other", dataset="toy")
    twice = pd.concat([rows, rows.assign(num_units=32)])
    with refused("net on toy must be of one num_units", "64", "32"):
        exports.to_score(twice, model="net", dataset="toy")
    nothing = rows.assign(fold_scores=[[] for _ in range(len(rows))])
    with refused("net on toy must have folds"):
        exports.to_score(nothing, model="net", dataset="toy")
    (tmp_path / "bad.nc").write_text("no netCDF")
    with refused("bad.nc", "netCDF"):
        exports.read_score(tmp_path / "bad.nc")
    xr.Dataset({"score": 1.0}).to_netcdf(tmp_path / "other.nc", engine="h5netcdf")
    with refused("other.nc", "'raw'"):
        exports.read_score(tmp_path / "other.nc")


@pytest.mark.slow
def test_names_and_values_of_metrics():
    found = exports.metrics(score_rows.study(rename=lambda x: x.replace("_", "+")), FINDINGS)
    assert found["scores/toy/net/LATL"] == pytest.approx(np.mean([0.30, 0.35, 0.28]))
    assert found["scores/toy/word_2b_rate/of net/LATL"] == pytest.approx(0.2)
    name = "findings/correlation/tuned/log10 parameters/brain/pearson_r"
    assert found[name] == 0.946
    rows = score_rows.study()
    found = exports.metrics(pd.concat([rows, rows.assign(instruction="Name it/them")]))
    assert "scores/toy/net/Name it_2f_them/LATL" in found and len(found) == 12


def test_trackers_are_checked_before_anything_is_made(monkeypatch):
    exports.check_tracker("")
    with refused("report.track", "mlflow, wandb", "'comet'"):
        exports.check_tracker("comet")
    monkeypatch.setattr(exports, "TRACKERS", {"mlflow": "no_such_package"})
    with refused("report.track 'mlflow'", "not installed", "jaxalign[track]"):
        exports.check_tracker("mlflow")


@pytest.mark.slow
@needs("mlflow")
def test_mlflow_has_settings_metrics_and_files(tmp_path, report, monkeypatch):
    """In its store of plain files, which needs no server."""
    import mlflow

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    settings = {"title": "Brains", "encode": {"alphas": (1.0, 10.0)}, "long": "x" * 1000}
    numbers = exports.Numbers(score_rows.study(), FINDINGS, {"net+frozen-s0": LOG})
    assert exports.track("mlflow", "a run", report, settings, numbers) == ""
    client = mlflow.MlflowClient()
    [run] = client.search_runs([client.get_experiment_by_name("jaxalign").experiment_id])
    assert run.info.run_name == "a run" and run.info.status == "FINISHED"
    expected = exports.metrics(score_rows.study(), FINDINGS)
    undefined = [name for name, value in expected.items() if np.isnan(value)]
    assert len(undefined) == 1 and run.data.params["undefined_metrics"] == "1"
    expected.pop(undefined[0])
    loss, share = (f"training/net_2b_frozen-s0/{x}" for x in ("loss", "share_of_peak"))
    expected |= {loss: 2.5, share: 0.25}  # the last of each curve
    for name, points in {loss: [(1, 3.0), (2, 2.5)], share: [(2, 0.25)]}.items():
        found = client.get_metric_history(run.info.run_id, name)
        assert [(x.step, x.value) for x in found] == points
    assert run.data.metrics == pytest.approx(expected)
    assert run.data.params["title"] == "Brains"
    assert run.data.params["encode.alphas"] == "(1.0, 10.0)" and "long" not in run.data.params
    files = {x.path for x in client.list_artifacts(run.info.run_id, "report")}
    assert files == {"report/index.html", "report/scores.csv"}
    config = client.download_artifacts(run.info.run_id, "config.json", str(tmp_path))
    with open(config, encoding="utf-8") as file:
        assert json.load(file)["long"] == "x" * 1000


@pytest.mark.slow
@needs("mlflow")
def test_a_tracker_that_fails_takes_nothing_with_it(tmp_path, report, monkeypatch, caplog):
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "false")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    before = {x.name: x.read_text() for x in report.iterdir()}
    with caplog.at_level("WARNING", logger="absl"):
        problem = exports.track("mlflow", "a run", report, {}, exports.Numbers(score_rows.study()))
    assert "MLFLOW_ALLOW_FILE_STORE" in problem and "\n" not in problem
    assert "mlflow did not take it" in caplog.text
    assert {x.name: x.read_text() for x in report.iterdir()} == before


@pytest.mark.slow
@needs("wandb")
def test_wandb_works_offline(tmp_path, report, monkeypatch):
    import wandb

    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    settings = {"title": "Brains", "encode": {"alphas": (1.0, 10.0)}}
    numbers = exports.Numbers(score_rows.study(), logs={"net+frozen-s0": LOG})
    assert exports.track("wandb", "a run", report, settings, numbers) == ""
    # Its process writes behind; a program that ends waits for it, as this does.
    wandb.teardown()
    [log] = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    content = log.read_bytes()
    texts = ("scores/toy/net/LATL", "index.html", "scores.csv", "Brains", "a run")
    for text in (*texts, "training/net_2b_frozen-s0/loss", "training/step"):
        assert text.encode() in content
