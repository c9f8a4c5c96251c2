"""Activations x responses -> held-out scores, ceilings and controls, as rows."""

import dataclasses
import functools
import importlib.metadata
import io
import json
import pathlib
import time
import zipfile
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from absl import logging
from jax.sharding import Mesh
from jaxtyping import Float
from tqdm import tqdm

from jaxalign.core import cv, features
from jaxalign.core import folds as folds_lib
from jaxalign.data import controls, samples, targets
from jaxalign.data.schema import Responses, Stimuli
from jaxalign.errors import InputError
from jaxalign.io import rows as rows_lib
from jaxalign.io import run_dir, store
from jaxalign.io.run_dir import Artefact
from jaxalign.stages import Job, Step, Upstream, trained, untrained

VERSION = 8
ROWS = "rows.parquet"
PLANTED = "responses.npz"  # as the simulate stage names it
PROTOCOL = "nested-ridge"
METRIC = "pearson_r"
DOWNSAMPLE = ("mean", "sum", "lanczos")
GROUPS = ("none", "passage")
SEARCH = ("adaptive", "grid")
EDGE = 0.25  # share of choices at an end of the grid that is worth a warning; noise goes there too


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the encoding stage."""

    alphas: tuple[float, ...] = tuple(10.0 ** (k / 2) for k in range(-2, 15))
    search: str = "adaptive"  # or "grid": compute the inner error of every penalty
    num_folds: int = 6
    gap: int = 0  # samples dropped from training on either side of a test block
    groups: str = "none"  # "passage": folds never divide a passage
    downsample: str = "mean"  # words to TRs: "mean" or "sum" within the TR, or "lanczos"
    delays: tuple[int, ...] = (0,)  # in TRs; responses to single stimuli take (0,)
    standardize: bool = True  # features to unit variance over each training set
    # Components of a network's features, fitted on each outer training set before delays, and
    # scaled as features are; 0: the features themselves.
    pca: int = 0
    controls: tuple[str, ...] = controls.DEFAULT
    shift: float = 1 / 3  # share of a run by which `shifted` is late, circularly
    layers: tuple[int, ...] = ()  # of every network; (): all
    rois: tuple[str, ...] = ()  # (): all
    ceiling_splits: int = 100  # random halves of the participants

    def __post_init__(self):
        for name, kind in (("alphas", (int, float)), ("delays", int), ("layers", int)):
            if wrong := [x for x in getattr(self, name) if not isinstance(x, kind)]:
                what = "integers" if kind is int else "numbers"
                raise InputError(f"encode.{name} must hold {what}, got {wrong[0]!r}.")
        if not self.alphas or not all(0 < alpha < np.inf for alpha in self.alphas):
            raise InputError(f"encode.alphas must be positive, got {self.alphas}.")
        for name, least in (
            ("num_folds", 3),
            ("gap", 0),
            ("pca", 0),
            ("ceiling_splits", 1),
        ):
            if getattr(self, name) < least:
                raise InputError(f"encode.{name} must be >= {least}, got {getattr(self, name)}.")
        if not 0 < self.shift < 1:
            raise InputError(f"encode.shift must lie between 0 and 1, got {self.shift}.")
        if not self.delays or min(self.delays) < 0 or len(set(self.delays)) < len(self.delays):
            raise InputError(f"encode.delays must be different and >= 0, got {self.delays}.")
        for name, allowed in (("downsample", DOWNSAMPLE), ("groups", GROUPS), ("search", SEARCH)):
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"encode.{name} must be one of {', '.join(allowed)}, "
                    f"got {getattr(self, name)!r}."
                )
        if unknown := set(self.controls) - set(controls.CONTROLS):
            raise InputError(
                f"encode.controls must be among {', '.join(controls.CONTROLS)}, "
                f"got {min(unknown)!r}."
            )
        for name in ("controls", "layers", "rois"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise InputError(f"encode.{name} must differ, got {getattr(self, name)}.")


class FeatureSet(NamedTuple):
    """What is scored: a network, or a control."""

    model: str  # of a control: its kind
    control_of: str
    source: Artefact  # the network's store, whose context and pooling the rows name


def plan(config: Config, job: Job, upstream: Upstream) -> list[Step]:
    """Plan one set of rows per network and control.

    Raises:
      InputError: if responses are missing or malformed, or a layer, ROI or control is not there.
    """
    stores = trained(upstream)
    random = untrained(upstream)
    simulated = upstream.get("simulate", ())
    if simulated:
        if config.rois:
            raise InputError(f"encode.rois must be () for simulated responses, got {config.rois}.")
        planned = _planned_samples(job.dataset.stimuli)
    else:
        planned = job.dataset.responses
        if unknown := [roi for roi in config.rois if roi not in planned.roi]:
            raise InputError(
                f"encode.rois must be among {', '.join(dict.fromkeys(planned.roi))}, "
                f"got {unknown[0]!r}."
            )
        kept, left_out = targets.select(planned, config.rois)
        if not kept.subject:
            raise InputError("responses must vary: every target is constant.")
        for subject in left_out:
            logging.warning(
                "encode: subject %s is left out: every target is constant (%d of %d subjects)",
                subject,
                len(left_out),
                len(set(planned.subject)),
            )
    folds = _checked_folds(config, planned, job.dataset.stimuli)
    shortest = min(len(fold.outer.train) for fold in folds)
    settings = {"version": VERSION, "seed": job.seed} | dataclasses.asdict(config)
    del settings["controls"]  # each control is a step of its own
    settings["responses_hash"] = "" if simulated else job.dataset.hash
    steps = []
    for name, source in stores.items():
        width = source.settings["width"]
        if config.pca > min(width, shortest - 1):
            raise InputError(
                f"encode.pca must be at most {min(width, shortest - 1)} for {name} ({width} units, "
                f"{shortest} training samples), got {config.pca}."
            )
        if bad := [x for x in config.layers if not 0 <= x <= source.settings["num_layers"]]:
            raise InputError(
                f"encode.layers must lie in 0..{source.settings['num_layers']} for {name}, "
                f"got {bad[0]}."
            )
        sets = [FeatureSet(name, "", source)]
        for control in config.controls:
            of_untrained = control in controls.UNTRAINED_CONTROLS
            if of_untrained and name not in random:
                raise InputError(
                    f"encode.controls has {control!r}, so extract.untrained_seed must be >= 0."
                )
            network = random[name] if of_untrained else source
            sets.append(FeatureSet(control, name, network))
        for features_of in sets:
            artefact = Artefact(
                workdir=job.workdir,
                stage="encode",
                name=name + (f" {features_of.model}" if features_of.control_of else ""),
                settings=settings
                | {
                    "model": features_of.model,
                    "control_of": features_of.control_of,
                    "shift": config.shift if features_of.model == "shifted" else 0,
                },
                inputs=(features_of.source, *simulated),
                cost=_cost(config, features_of, len(planned.run)),
            )
            make = functools.partial(_encode, config, job, features_of)
            steps.append(Step(artefact=artefact, make=make))
    return steps


def _planned_samples(stimuli: Stimuli) -> Responses:
    """Return the samples that the simulate stage will make, without targets."""
    return Responses(
        values=np.zeros((len(stimuli), 0)),
        run=stimuli.run,
        subject=[],
        roi=[],
        target=[],
        units="",
        stimulus_id=stimuli.stimulus_id,
    )


def _checked_folds(
    config: Config, responses: Responses, stimuli: Stimuli
) -> tuple[folds_lib.Fold, ...]:
    """Refuse settings that do not fit the samples, and samples that do not fit the stimuli."""
    if responses.is_timed and not stimuli.is_timed:
        raise InputError("responses are timed, so stimuli must have onset_s and offset_s.")
    if responses.is_timed and config.groups != "none":
        raise InputError(
            f"encode.groups must be 'none' for timed responses, got {config.groups!r}."
        )
    if not responses.is_timed and config.delays != (0,):
        raise InputError(
            f"encode.delays must be (0,) for responses to single stimuli, got {config.delays}."
        )
    known = set(stimuli.run if responses.is_timed else stimuli.stimulus_id)
    wanted = responses.run if responses.is_timed else responses.stimulus_id
    if lost := [x for x in wanted if x not in known]:
        kind = "run" if responses.is_timed else "stimulus_id"
        raise InputError(
            f"responses: every {kind} must be one of the stimuli's, found {lost[0]!r}."
        )
    if responses.is_timed:
        heard = {}
        for run, words in features.members(stimuli.run).items():
            other = heard.setdefault(tuple(stimuli.text[i] for i in words), run)
            if other != run:
                raise InputError(
                    f"runs must present different words, but {other!r} and {run!r} present the "
                    "same: one would be trained on to predict the other; average their responses."
                )
    short = [run for run, own in features.members(responses.run).items() if len(own) < 2]
    if "shifted" in config.controls and short:
        raise InputError(
            "encode.controls has 'shifted', so every run must have at least 2 samples: run "
            f"{short[0]!r} has 1."
        )
    try:
        return _folds(config, responses, stimuli)
    except ValueError as error:
        raise InputError(f"encode: {error}") from error


def _cost(config: Config, features_of: FeatureSet, n: int) -> str:
    settings = features_of.source.settings
    num_layers = _num_layers(features_of)
    layers = len(config.layers) or num_layers + 1 if num_layers else 1
    units = 2 if features_of.model in controls.STIMULUS_CONTROLS else settings["width"]
    p = (config.pca or units) * len(config.delays)
    k = config.num_folds
    training_sets = k + k * (k - 1) // 2
    small, large = sorted((n, p))
    # A product for the smaller of kernel and covariance, and its eigenvectors.
    flop = layers * training_sets * (2.0 * small**2 * large + 9.0 * small**3)
    return f"{layers} layers x {training_sets} training sets, {n} samples, {flop / 1e9:.1f} GFLOP"


def _num_layers(features_of: FeatureSet) -> int:
    """Blocks of the network; 0 for features without layers, or of the embedding alone."""
    has_layers = features_of.model not in (*controls.STIMULUS_CONTROLS, "random_embedding")
    return features_of.source.settings["num_layers"] if has_layers else 0


def _encode(config: Config, job: Job, features_of: FeatureSet, artefact: Artefact) -> dict:
    """Score layer by layer; a layer that an interrupted run has scored is not scored again."""
    start = time.monotonic()
    stimuli = job.dataset.stimuli
    responses = _responses(job, artefact)
    responses, left_out = targets.select(responses, config.rois)
    folds = _folds(config, responses, stimuli)
    goals = targets.assemble(
        responses,
        [fold.outer.test for fold in folds],
        num_splits=config.ceiling_splits,
        rng=np.random.default_rng(job.seed),
    )
    num_layers = _num_layers(features_of)
    layers = (config.layers or range(num_layers + 1)) if num_layers else (0,)
    scored = {}
    for layer in tqdm(layers, desc=f"encode {artefact.name}", unit=" layers", mininterval=1.0):
        path = artefact.path / f"layer_{layer:03d}.npz"
        result = _read_scores(path)
        if result is None:
            sampled = _samples(config, features_of, stimuli, responses, layer)
            result = _nested(config, sampled, goals.Y, folds, job.mesh)
            buffer = io.BytesIO()
            np.savez(buffer, **result._asdict())
            run_dir.write_atomic(path, buffer.getvalue())
        scored[layer] = result
    settings = artefact.inputs[0].settings
    common = {
        "schema_version": rows_lib.SCHEMA_VERSION,
        "dataset": job.dataset.name,
        "model": features_of.model,
        "control_of": features_of.control_of,
        "num_layers": num_layers,
        "protocol": PROTOCOL,
        "folds_hash": folds_lib.folds_hash(folds),
        "context": settings["context"],
        "pooling": settings["pooling"],
        "metric": METRIC,
        "num_samples": len(responses.run),
        "fingerprint": artefact.fingerprint,
        "git_commit": run_dir.git_commit(),
        "versions": json.dumps(_versions(), sort_keys=True),
    }
    rows = [
        common | {"layer": layer} | row
        for layer, result in scored.items()
        for row in _rows(result, goals, config)
    ]
    rows_lib.write(artefact.path / ROWS, rows)
    chosen = np.concatenate([result.alphas for result in scored.values()])
    low, high = cv.edges(chosen, np.array(config.alphas))
    if max(low, high) > EDGE and len(config.alphas) > 1:
        logging.warning(
            "encode %s: %.0f %% of the penalties chosen are the smallest of encode.alphas, %.0f %% "
            "the largest: a better one may lie beyond",
            artefact.name,
            100 * low,
            100 * high,
        )
    undefined = sum(row["num_nan"] for row in rows)
    if undefined:
        logging.warning("encode %s: %d fold scores are undefined", artefact.name, undefined)
    return {
        "left_out": left_out,
        "num_nan": undefined,
        "seconds": round(time.monotonic() - start, 3),
    }


def _read_scores(path: pathlib.Path) -> cv.Nested | None:
    """Read the scores of a layer; None if there are none, or the file is damaged."""
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            return cv.Nested(**file)
    except FileNotFoundError:
        return None
    except (ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        logging.warning("%s is damaged (%s) and made again", path, error)
        return None


def _responses(job: Job, artefact: Artefact) -> Responses:
    """Return the planted responses if the artefact is made from some, else the recorded ones."""
    for source in artefact.inputs:
        if source.stage == "simulate":
            return Responses.load(source.path / PLANTED)
    return job.dataset.responses


def _folds(config: Config, responses: Responses, stimuli: Stimuli) -> tuple[folds_lib.Fold, ...]:
    groups = samples.passages(stimuli, responses) if config.groups == "passage" else None
    items = None if responses.is_timed else responses.stimulus_id
    return folds_lib.contiguous_folds(
        responses.run, config.num_folds, gap=config.gap, groups=groups, items=items
    )


def _samples(
    config: Config, features_of: FeatureSet, stimuli: Stimuli, responses: Responses, layer: int
) -> samples.Samples:
    """Read or compute features of one layer, and bring them to the responses' samples."""
    lead = max(config.delays)
    if features_of.model == "position":
        return samples.positions(stimuli, responses, lead=lead)
    method = config.downsample
    if features_of.model == "word_rate":
        values, method = controls.word_rate(stimuli), "sum"
    elif features_of.model == "word_length":
        values = controls.word_length(stimuli)
    else:
        row = {name: i for i, name in enumerate(store.stimulus_ids(features_of.source))}
        values = store.open_artefact(features_of.source).read_layer(layer).astype(np.float64)
        values = values[[row[name] for name in stimuli.stimulus_id]]
    found = samples.from_stimuli(values, stimuli, responses, method=method, lead=lead)
    if features_of.model == "shifted":
        found = found._replace(values=features.shift(found.values, found.run, config.shift))
    return found


def _nested(
    config: Config,
    sampled: samples.Samples,
    Y: Float[np.ndarray, "n v"],
    folds: Sequence[folds_lib.Fold],
    mesh: Mesh,
) -> cv.Nested:
    """Delay the features and score them; with PCA, fold by fold on components of its own.

    All devices divide the targets among them.
    """

    def score(values, folds):
        X = features.delay(values, sampled.run, config.delays)[sampled.recorded]
        alphas = np.array(config.alphas)
        return cv.nested(
            X,
            Y,
            folds,
            alphas,
            standardize=config.standardize,
            search=config.search,
            mesh=mesh if mesh.size > 1 else None,
        )

    values = sampled.values
    if not config.pca or config.pca > values.shape[1]:  # the latter: a stimulus control
        return score(values, folds)
    parts = []
    for fold in folds:
        train = sampled.recorded[fold.outer.train]
        parts.append(score(features.principal_components(values, train, config.pca), [fold]))
    return cv.Nested(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _rows(result: cv.Nested, goals: targets.Targets, config: Config) -> list[dict]:
    """Average targets within each subject and ROI.

    A target whose score is undefined in any fold has no score; a row's score is the mean over
    the targets that have one, and NaN where none has.
    """
    alphas = np.sort(config.alphas)
    columns = defaultdict(list)
    for i, pair in enumerate(zip(goals.subject, goals.roi, strict=True)):
        columns[pair].append(i)
    rows = []
    for (subject, roi), own in columns.items():
        chosen = result.alphas[:, own]
        rows.append(
            {
                "subject": subject,
                "roi": roi,
                "score": _mean(result.r[:, own].mean(axis=0)),
                "ceiling": _ceiling(goals.ceiling[own], subject),
                "ceiling_kind": "split_half"
                if subject == targets.GROUP
                else "leave_one_subject_out",
                "signal_ceiling": _mean(goals.signal_r[own]),
                "fold_scores": _mean_rows(result.r[:, own]),
                "r2": _mean(result.r2[:, own].mean(axis=0)),
                "fold_r2": _mean_rows(result.r2[:, own]),
                "fold_inner_r2": _mean_rows(result.inner_score[:, own]),
                "alpha_median": float(np.median(chosen)),
                "fold_alphas": np.median(chosen, axis=1).tolist(),
                "alpha_low_share": float((chosen == alphas[0]).mean()),
                "alpha_high_share": float((chosen == alphas[-1]).mean()),
                "num_targets": len(own),
                "num_nan": int(np.isnan(result.r[:, own]).sum()),
                "num_constant_features": int(result.num_constant.max()),
            }
        )
    return rows


def _ceiling(values: Float[np.ndarray, " v"], subject: str) -> float:
    """Mean over targets.

    The group's is NaN where it is not positive: a root of a negative reliability means nothing. A
    subject's is a correlation, and stays what it is: leaving out the subjects in whom it is
    negative would raise the mean over subjects.
    """
    mean = _mean(values)
    return mean if subject != targets.GROUP or mean > 0 else float("nan")


def _mean(values: Float[np.ndarray, " v"]) -> float:
    """Mean of the defined values; NaN without any."""
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def _mean_rows(values: Float[np.ndarray, "k v"]) -> list[float]:
    return [_mean(row) for row in values]


def _versions() -> dict[str, str]:
    names = ("jaxalign", "jax", "jaxlib", "numpy")
    return {name: importlib.metadata.version(name) for name in names}
