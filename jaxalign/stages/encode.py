"""Activations x responses -> held-out scores, ceilings and controls, as rows."""

import dataclasses
import functools
import importlib.metadata
import io
import json
import pathlib
import time
import zipfile
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from absl import logging
from jax.sharding import Mesh
from jaxtyping import Float
from tqdm import tqdm

from jaxalign.core import cv, features, scoring
from jaxalign.core import folds as folds_lib
from jaxalign.core.protocol import Protocol
from jaxalign.data import controls, protocols, samples, score_rows, targets
from jaxalign.data.schema import Responses, Stimuli
from jaxalign.errors import InputError
from jaxalign.io import rows as rows_lib
from jaxalign.io import run_dir, store
from jaxalign.io.run_dir import Artefact
from jaxalign.stages import Job, Step, Upstream, trained, untrained

VERSION = 9
ROWS = "rows.parquet"
PLANTED = "responses.npz"  # as the simulate stage names it
# What a protocol by name fixes.
FIXED = ("alphas", "num_folds", "gap", "groups", "standardize", "pca")
DOWNSAMPLE = ("mean", "sum", "lanczos")
GROUPS = ("none", "passage")
SEARCH = ("adaptive", "grid")
EDGE = 0.25  # share of choices at an end of the grid that is worth a warning; noise goes there too


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the encoding stage."""

    # A protocol by name (data/protocols.py), which fixes what `FIXED` lists; "": the settings.
    protocol: str = ""
    test_runs: tuple[str, ...] = ()  # of protocols that need a test set
    protocol_ceiling: float = 0.0  # published for the protocol on these data; 0: none is known
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
        if self.protocol:
            self._check_protocol()
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

    def _check_protocol(self):
        kind = protocols.find(self.protocol).kind
        if kind != "encoding":
            raise InputError(
                f"encode.protocol must be of kind 'encoding', but {self.protocol} is of {kind!r}."
            )
        defaults = {field.name: field.default for field in dataclasses.fields(self)}
        for name in FIXED:
            if getattr(self, name) != defaults[name]:
                raise InputError(
                    f"encode.{name} must be left as it is, for protocol {self.protocol} fixes it: "
                    f"got {getattr(self, name)}."
                )


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
                cost=_cost(config, features_of, len(planned.run), len(folds)),
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


def _cost(config: Config, features_of: FeatureSet, n: int, k: int) -> str:
    settings = features_of.source.settings
    num_layers = _num_layers(features_of)
    layers = len(config.layers) or num_layers + 1 if num_layers else 1
    units = 2 if features_of.model in controls.STIMULUS_CONTROLS else settings["width"]
    p = (_protocol(config).scaling.pca or units) * len(config.delays)
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
    protocol = _protocol(config)
    data = Scored(protocol, responses, goals.Y, folds)
    if protocol.scaling.within_runs == "none":  # the group's mean is of standardised ones always
        recorded = responses.values
        data = data._replace(Y=np.c_[recorded, goals.Y[:, recorded.shape[1] :]])
    scored = _score_layers(config, job, features_of, data, artefact, "layer")
    alignment = None
    if config.protocol:
        alignment = _alignment(config, job, features_of, data, goals, scored, artefact)
    settings = artefact.inputs[0].settings
    common = {
        "schema_version": rows_lib.SCHEMA_VERSION,
        "dataset": job.dataset.name,
        "model": features_of.model,
        "control_of": features_of.control_of,
        "num_layers": _num_layers(features_of),
        "protocol": protocol.name,
        "folds_hash": folds_lib.folds_hash(folds),
        "context": settings["context"],
        "pooling": settings["pooling"],
        "metric": protocol.metric,
        "num_samples": len(responses.run),
        "fingerprint": artefact.fingerprint,
        "git_commit": run_dir.git_commit(),
        "versions": json.dumps(_versions(), sort_keys=True),
    }
    rows = [
        common | {"layer": layer} | row
        for layer, result in scored.items()
        for row in score_rows.by_subject_and_roi(result, goals, protocol)
    ]
    rows_lib.write(artefact.path / ROWS, rows)
    chosen = np.concatenate([result.alphas for result in scored.values()])
    grid = np.array(protocol.encoding[1].grid)
    low, high = cv.edges(chosen, grid)
    if max(low, high) > EDGE and len(grid) > 1:
        logging.warning(
            "encode %s: %.0f %% of the penalties chosen are the smallest of the grid, %.0f %% "
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
        "alignment": alignment,
        "seconds": round(time.monotonic() - start, 3),
    }


class Scored(NamedTuple):
    """Responses as a protocol takes them, and its folds."""

    protocol: Protocol
    responses: Responses
    Y: Float[np.ndarray, "n v"]
    folds: Sequence[folds_lib.Fold]


def _score_layers(
    config: Config, job: Job, features_of: FeatureSet, data: Scored, artefact: Artefact, name: str
) -> dict[int, cv.Nested]:
    """Score every layer, and keep each in a file of its own."""
    num_layers = _num_layers(features_of)
    layers = (config.layers or range(num_layers + 1)) if num_layers else (0,)
    scored = {}
    for layer in tqdm(layers, desc=f"encode {artefact.name}", unit=" layers", mininterval=1.0):
        path = artefact.path / f"{name}_{layer:03d}.npz"
        result = _read_scores(path)
        if result is None:
            sampled = _samples(config, features_of, job.dataset.stimuli, data.responses, layer)
            result = _nested(config, sampled, data, job.mesh)
            buffer = io.BytesIO()
            np.savez(buffer, **result._asdict())
            run_dir.write_atomic(path, buffer.getvalue())
        scored[layer] = result
    return scored


def _alignment(
    config: Config,
    job: Job,
    features_of: FeatureSet,
    data: Scored,
    goals: targets.Targets,
    scored: dict[int, cv.Nested],
    artefact: Artefact,
) -> dict:
    """Return the one score of a protocol over all subjects, and what belongs to it."""
    protocol = data.protocol
    contiguous = float("nan")
    if protocol.is_shuffled:
        other = scoring.unshuffled(protocol)
        folds = _folds(config, data.responses, job.dataset.stimuli, other)
        blocks = data._replace(protocol=other, folds=folds)
        results = _score_layers(config, job, features_of, blocks, artefact, "contiguous")
        contiguous = score_rows.whole(results, goals, other, folds).raw
    found = score_rows.whole(
        scored,
        goals,
        protocol,
        data.folds,
        ceiling=config.protocol_ceiling or np.nan,
        contiguous=contiguous,
    )
    if protocol.is_shuffled:
        logging.warning("encode %s: %s", artefact.name, scoring.caution(found))
    return {
        "model": features_of.model,
        "control_of": features_of.control_of,
        "layers": sorted(set(found.layers.ravel().tolist())),
    } | {
        name: getattr(found, name)
        for name in ("protocol", "folds_hash", "score", "raw", "ceiling", "contiguous", "num_nan")
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


def _protocol(config: Config) -> Protocol:
    """Return the protocol asked for, or that of the settings."""
    if config.protocol:
        return protocols.find(config.protocol)
    return protocols.nested_ridge(
        alphas=config.alphas,
        num_folds=config.num_folds,
        gap=config.gap,
        standardize=config.standardize,
        pca=config.pca,
    )


def _folds(
    config: Config, responses: Responses, stimuli: Stimuli, protocol: Protocol | None = None
) -> tuple[folds_lib.Fold, ...]:
    """Make the folds of a protocol, by default that of the settings.

    A protocol by name keeps passages together, or runs where responses are timed; it leaves no gap
    between passages, for single stimuli are no stream.
    """
    protocol = protocol or _protocol(config)
    runs, groups = responses.run, None
    if responses.is_timed:
        groups = responses.run if protocol.encoding[0].rule == "shuffled_groups" else None
    elif config.protocol:
        runs, groups = None, samples.passages(stimuli, responses)
    elif config.groups == "passage":
        groups = samples.passages(stimuli, responses)
    if unknown := set(config.test_runs) - set(responses.run):
        raise InputError(
            f"encode.test_runs must be among {', '.join(dict.fromkeys(responses.run))}, got "
            f"{min(unknown)!r}."
        )
    test = np.isin(responses.run, config.test_runs) if config.test_runs else None
    if test is None and protocol.encoding[0].rule == "test_set":
        raise InputError(
            f"encode.test_runs must name the runs that are the test set of protocol "
            f"{protocol.name}, got none."
        )
    return scoring.make_folds(
        protocol,
        len(responses.run),
        groups=groups,
        runs=runs,
        items=None if responses.is_timed else responses.stimulus_id,
        test=test,
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
    data: Scored,
    mesh: Mesh,
) -> cv.Nested:
    """Score the features of one layer; all devices divide the targets among them."""
    design = scoring.design(
        sampled.values,
        data.protocol,
        run=sampled.run,
        recorded=sampled.recorded,
        delays=config.delays,
    )
    return scoring.evaluate(
        design,
        data.Y,
        data.protocol,
        data.folds,
        search=config.search,
        mesh=mesh if mesh.size > 1 else None,
    )


def _versions() -> dict[str, str]:
    names = ("jaxalign", "jax", "jaxlib", "numpy")
    return {name: importlib.metadata.version(name) for name in names}
