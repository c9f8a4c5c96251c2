"""Score rows for other tools: Brain-Score's xarray scores, and trackers of experiments."""

import importlib.util
import itertools
import json
import os
import pathlib
import re
import tempfile
import time
import types
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from absl import logging

from jaxalign.errors import InputError
from jaxalign.io import place
from jaxalign.io.place import Place
from jaxalign.reporting import tables

# Tracker -> the package that it needs.
TRACKERS = {"mlflow": "mlflow", "wandb": "wandb"}
PROJECT = "jaxalign"  # experiment of MLflow, project of Weights & Biases
BATCH = 500  # metrics that one call of MLflow takes; its limit is 1000

_PARTS = ("raw", "ceiling", "layer_scores")
_NAMES = ("model_identifier", "benchmark_identifier")
_FEATURES = ["dataset", "model", "control_of"]
# What else may differ between rows of the same model, subject, ROI and layer.
_VARIANTS = ["protocol", "instruction", "num_units", "context", "pooling", "metric"]


def to_score(rows: pd.DataFrame, *, model: str, dataset: str) -> xr.DataArray:
    """Return the score of a model on a data set in the form that Brain-Score gives.

    A plain array without dimensions, as Brain-Score's `Score` is one: where that package is
    installed, `Score(found, attrs=found.attrs)` is one of its own. Its value is the raw score by
    the ceiling, each a mean over ROIs of means over subjects: not clipped, and NaN without a
    ceiling above 0. Layers are chosen inside the training data, for each subject and ROI.

    Args:
      rows: score rows in the schema of `io.rows`, of one protocol and setting; the group's mean
        response counts only where there are no subjects.
      model: name of a network, not of a control.
      dataset: name.

    Returns:
      With the attributes `raw` [subject roi], `ceiling` [subject roi], `layer_scores` [layer] (mean
      over ROIs of means over subjects), `model_identifier`, and `benchmark_identifier`, which is
      data set and protocol.

    Raises:
      InputError: if there are no such rows, or rows of several settings.
    """
    kept = rows[(rows.model == model) & (rows.dataset == dataset) & (rows.control_of == "")]
    if not len(kept):
        raise InputError(f"scores must have rows of model {model!r} on {dataset!r}, found none.")
    if varying := _variants(kept):
        values = kept[varying[0]].drop_duplicates().tolist()[:2]
        raise InputError(
            f"scores of {model} on {dataset} must be of one {varying[0]}, found "
            f"{values[0]!r} and {values[1]!r}: keep the rows of one."
        )
    kept = _people(kept)
    chosen = _chosen(kept)
    wide = lambda column: xr.DataArray(
        chosen.pivot(index="subject", columns="roi", values=column)
        .reindex(index=kept.subject.unique(), columns=kept.roi.unique())
        .to_numpy(float),
        coords={"subject": kept.subject.unique(), "roi": kept.roi.unique()},
        dims=("subject", "roi"),
    )
    raw, ceiling = wide("score"), wide("ceiling")
    layers = kept.groupby(["layer", "roi"]).score.mean().groupby("layer").mean()
    whole = float(ceiling.mean("subject").mean())
    value = float(raw.mean("subject").mean()) / whole if whole > 0 else np.nan
    return xr.DataArray(
        value,
        attrs={
            "raw": raw,
            "ceiling": ceiling,
            "layer_scores": xr.DataArray(
                layers.to_numpy(), coords={"layer": layers.index.to_numpy()}, dims="layer"
            ),
            "model_identifier": model,
            "benchmark_identifier": f"{dataset}-{kept.protocol.iloc[0]}",
        },
    )


def write_score(path: pathlib.Path, score: xr.DataArray) -> None:
    """Write a score to netCDF, atomically; attributes that are arrays become variables.

    Args:
      path: the file.
      score: from `to_score`.
    """
    variables = {"score": xr.DataArray(score.values)} | {x: score.attrs[x] for x in _PARTS}
    # `raw` and `ceiling` share their coordinates.
    found = xr.Dataset(variables, attrs={name: score.attrs[name] for name in _NAMES})
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        written = pathlib.Path(folder) / path.name
        found.to_netcdf(written, engine="h5netcdf")
        os.replace(written, path)


def read_score(path: pathlib.Path) -> xr.DataArray:
    """Read what `write_score` has written.

    Raises:
      InputError: if the file cannot be read, or is no such score.
    """
    try:
        with xr.open_dataset(path, engine="h5netcdf") as file:
            found = file.load()
    except (OSError, ValueError) as error:
        raise InputError(f"{path} must be a netCDF file: {str(error).splitlines()[0]}.") from error
    present = {*found.variables, *found.attrs}
    if missing := [x for x in ("score", *_PARTS, *_NAMES) if x not in present]:
        raise InputError(f"{path} must hold {missing[0]!r}, which is missing.")
    names = {name: found.attrs[name] for name in _NAMES}
    parts = {name: found[name].rename(None) for name in _PARTS}
    return xr.DataArray(found["score"].values, attrs=parts | names)


def check_tracker(kind: str) -> None:
    """Refuse a tracker that is not known, or whose client is not installed.

    Args:
      kind: "mlflow", "wandb", or "" for none.

    Raises:
      InputError: naming the setting `report.track`.
    """
    if not kind:
        return
    if kind not in TRACKERS:
        raise InputError(f"report.track must be one of {', '.join(TRACKERS)} or '', got {kind!r}.")
    if importlib.util.find_spec(TRACKERS[kind]) is None:
        raise InputError(
            f"report.track {kind!r} needs its client, which is not installed: pip install "
            "'jaxalign[track]'."
        )


class Numbers(NamedTuple):
    """What a tracker is given as numbers.

    Attributes:
      scores: score rows.
      findings: rows of `findings.csv`, where there are any.
      logs: name of a training -> its log: a column "step", and others, each a curve.
    """

    scores: pd.DataFrame
    findings: pd.DataFrame | None = None
    logs: Mapping[str, pd.DataFrame] = types.MappingProxyType({})

    def curves(self) -> list[tuple[str, int, float]]:
        """Return name, step and value of each defined number of the logs; see `track`."""
        return [
            (_name("training", training, column), int(step), float(value))
            for training, log in self.logs.items()
            for column in log.columns.drop("step")
            for step, value in zip(log.step, log[column], strict=True)
            if np.isfinite(value)
        ]


def track(
    kind: str,
    name: str,
    folder: Place,
    settings: Mapping[str, object],
    numbers: Numbers,
) -> str:
    """Log a finished report to MLflow or Weights & Biases.

    Where it goes, and who is logged in, is the client's own setting (MLFLOW_TRACKING_URI,
    WANDB_MODE, WANDB_DIR, ...); both work without a network. Metrics are those of `metrics`, and of
    logs "training/NAME/COLUMN", a value for each step; those that are undefined are not logged. All
    files of the folder are logged as they are.

    Args:
      kind: "mlflow" or "wandb"; see `check_tracker`.
      name: of the run.
      folder: of the report, written before: nothing in it is changed.
      settings: that fix the report, of any depth, as JSON can hold them.
      numbers: what is logged as metrics.

    Returns:
      What went wrong, which is logged as a warning too; "" if nothing did. The report does not
      depend on it.
    """
    values = metrics(numbers.scores, numbers.findings)
    defined = {key: value for key, value in values.items() if np.isfinite(value)}
    flat = _flatten(settings) | {"undefined_metrics": len(values) - len(defined)}
    run = {"mlflow": _mlflow, "wandb": _wandb}[kind]
    with place.copied(folder) as files:
        problem = run(name, files, flat, defined, numbers.curves())
    if problem:
        problem = " ".join(problem.split())
        logging.warning("report: it is complete, but %s did not take it: %s", kind, problem)
    return problem


def metrics(rows: pd.DataFrame, findings: pd.DataFrame | None = None) -> dict[str, float]:
    """Return what is logged of scores and findings, by name.

    Args:
      rows: score rows.
      findings: with the columns analysis, subset, predictor, outcome, statistic and value.

    Returns:
      "scores/DATASET/MODEL/ROI", of a control "scores/DATASET/CONTROL/of MODEL/ROI": the mean over
      subjects with the layer chosen inside the training data. Where one model has rows of several
      protocols, instructions and the like, their names come before the ROI. "findings/..." has the
      five texts of a finding. Characters that MLflow does not take in names are written as their
      number, such as _2b_ for +.
    """
    found = {}
    varying = _variants(rows)
    for key, kept in rows.groupby([*_FEATURES, *varying], sort=False):
        dataset, model, control_of, *variant = key
        control = [f"of {control_of}"] if control_of else []
        for roi, score in _chosen(_people(kept)).groupby("roi", sort=False).score:
            name = _name("scores", dataset, model, *control, *map(str, variant), roi)
            found[name] = float(score.mean())
    for row in [] if findings is None else findings.to_dict("records"):
        texts = [row[x] for x in ("analysis", "subset", "predictor", "outcome", "statistic")]
        found[_name("findings", *texts)] = float(row["value"])
    return found


def _name(*parts: str) -> str:
    escape = lambda part: re.sub(r"[^\w\-. :]", lambda x: f"_{ord(x[0]):x}_", part, flags=re.ASCII)
    return "/".join(escape(part) for part in parts if part)


def _variants(rows: pd.DataFrame) -> list[str]:
    """Return the columns in which rows of the same model and place differ."""
    place = rows.groupby([*_FEATURES, "layer", "subject", "roi"], sort=False)
    return [name for name in _VARIANTS if (place[name].nunique() > 1).any()]


def _people(rows: pd.DataFrame) -> pd.DataFrame:
    """Leave the group's mean response out, unless there are no subjects."""
    people = rows[rows.subject != tables.GROUP]
    return people if len(people) else rows


def _chosen(rows: pd.DataFrame) -> pd.DataFrame:
    """Return score and ceiling of each subject and ROI; published rows have no folds to choose in.

    Raises:
      InputError: if there are several layers, and no folds.
    """
    if (rows.fold_scores.map(len) > 0).all():
        return tables.nested_layer(rows)
    if rows.duplicated(["subject", "roi"]).any():
        raise InputError(
            f"scores of {rows.model.iloc[0]} on {rows.dataset.iloc[0]} must have folds to choose "
            "one of several layers by, found none."
        )
    return rows


def _flatten(settings: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    flat = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def _mlflow(name, folder, settings, values, curves):
    import mlflow
    from mlflow.entities import Metric

    # A server that does not answer is an MlflowException too.
    try:
        mlflow.set_experiment(PROJECT)
        with mlflow.start_run(run_name=name) as run:
            # Parameters are short texts; the file has them all.
            mlflow.log_dict(json.loads(json.dumps(settings, default=str)), "config.json")
            texts = {key: str(value) for key, value in settings.items()}
            mlflow.log_params({_name(k): x for k, x in texts.items() if len(x) <= 250})
            for batch in _batches(sorted(values), BATCH):
                mlflow.log_metrics({key: values[key] for key in batch})
            client, now = mlflow.MlflowClient(), int(1000 * time.time())
            for batch in _batches(curves, BATCH):
                points = [Metric(key, x, now, step) for key, step, x in batch]
                client.log_batch(run.info.run_id, metrics=points)
            mlflow.log_artifacts(str(folder), "report")
    except (mlflow.MlflowException, OSError) as error:
        return str(error) or type(error).__name__
    return ""


def _wandb(name, folder, settings, values, curves):
    import wandb

    try:
        quiet = wandb.Settings(silent=True, console="off")
        config = json.loads(json.dumps(settings, default=str))
        run = wandb.init(project=PROJECT, name=name, config=config, settings=quiet)
        try:
            run.summary.update(values)
            # Its own steps only rise; those of trainings are an axis that their curves name.
            run.define_metric("training/step")
            run.define_metric("training/*", step_metric="training/step")
            for step, points in itertools.groupby(sorted(curves, key=_step), key=_step):
                run.log({"training/step": step} | {key: x for key, _, x in points})
            artifact = wandb.Artifact("report", type="report")
            artifact.add_dir(str(folder))
            run.log_artifact(artifact)
        finally:
            run.finish()
    except (wandb.Error, OSError) as error:
        return str(error) or type(error).__name__
    return ""


def _step(point: tuple[str, int, float]) -> int:
    return point[1]


def _batches(items: Sequence[Any], size: int) -> list[Sequence[Any]]:
    return [items[i : i + size] for i in range(0, len(items), size)]
