"""Activations x responses -> held-out scores, ceilings and controls, as rows."""

import dataclasses
import functools
import importlib.metadata
import json
import pathlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from absl import logging
from jax.sharding import Mesh
from jaxtyping import Float
from tqdm import tqdm

from jaxalign.core import banded, cv, features, partition
from jaxalign.core import folds as folds_lib
from jaxalign.data import controls, partition_rows, samples, targets
from jaxalign.data.schema import Responses, Stimuli
from jaxalign.errors import InputError
from jaxalign.io import arrays, run_dir, store
from jaxalign.io import rows as rows_lib
from jaxalign.io.run_dir import Artefact
from jaxalign.stages import Job, Step, Upstream, static, trained, untrained

VERSION = 8
ROWS = "rows.parquet"
PARTITION = "partition.parquet"
PLANTED = "responses.npz"  # as the simulate stage names it
PROTOCOL = "nested-ridge"
METRIC = "pearson_r"
DOWNSAMPLE = ("mean", "sum", "lanczos")
GROUPS = ("none", "passage")
SEARCH = ("adaptive", "grid")
SHUFFLE = ("run", "all")
EDGE = 0.25  # share of choices at an end of the grid that is worth a warning; noise goes there too

Scores = TypeVar("Scores", cv.Nested, banded.Nested)


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
    shuffle: str = "run"  # `shuffled` permutes the samples within each run, or with "all" all
    oasm_sigma: float = 1.0  # of `oasm`, in samples; published: 0.1 to 4.8
    frequency_table: str = ""  # file that `frequency` reads: see data/word_tables.py
    word_vectors: str = ""  # file that `word_vectors` reads
    # Controls that each network is joined with, all of them together, a band for each: what they
    # and the network explain alone and share, in rows of their own. (): no such rows.
    partition: tuple[str, ...] = ()
    # How many weights of these bands are drawn, and rounds that refine them: see core/banded.py.
    partition_draws: int = banded.BUDGET.num_draws
    partition_rounds: int = banded.BUDGET.rounds
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
            ("partition_draws", 0),
            ("partition_rounds", 0),
            ("ceiling_splits", 1),
        ):
            if getattr(self, name) < least:
                raise InputError(f"encode.{name} must be >= {least}, got {getattr(self, name)}.")
        if not 0 < self.shift < 1:
            raise InputError(f"encode.shift must lie between 0 and 1, got {self.shift}.")
        if not self.delays or min(self.delays) < 0 or len(set(self.delays)) < len(self.delays):
            raise InputError(f"encode.delays must be different and >= 0, got {self.delays}.")
        if not 0 < self.oasm_sigma < np.inf:
            raise InputError(f"encode.oasm_sigma must be positive, got {self.oasm_sigma}.")
        for name, allowed in (
            ("downsample", DOWNSAMPLE),
            ("groups", GROUPS),
            ("search", SEARCH),
            ("shuffle", SHUFFLE),
        ):
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"encode.{name} must be one of {', '.join(allowed)}, "
                    f"got {getattr(self, name)!r}."
                )
        for name, known in (("controls", controls.CONTROLS), ("partition", controls.PARTITION)):
            if unknown := set(getattr(self, name)) - set(known):
                raise InputError(
                    f"encode.{name} must be among {', '.join(known)}, got {min(unknown)!r}."
                )
        for control, (setting, path) in _files(self).items():
            if control in (*self.controls, *self.partition) and not path:
                raise InputError(f"encode.{setting} must name the file that {control!r} reads.")
        for name in ("controls", "partition", "layers", "rois"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise InputError(f"encode.{name} must differ, got {getattr(self, name)}.")


def _files(config: Config) -> dict[str, tuple[str, str]]:
    """Return controls that read a file, with the setting that names it and its value."""
    return {
        "frequency": ("frequency_table", config.frequency_table),
        "word_vectors": ("word_vectors", config.word_vectors),
    }


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
    for control in (*config.controls, *config.partition):
        controls.check(control, job.dataset.stimuli)
    steps = []
    for name, source in stores.items():
        _check_network(config, name, source, shortest)
        make_set = functools.partial(_feature_set, upstream, source)
        own = FeatureSet(name, "", source)
        first = len(steps)
        for features_of in (own, *(make_set("controls", x) for x in config.controls)):
            artefact = Artefact(
                workdir=job.workdir,
                stage="encode",
                name=name + (f" {features_of.model}" if features_of.control_of else ""),
                settings=_settings(config, job, bool(simulated))
                | {"model": features_of.model, "control_of": features_of.control_of}
                | _options(config, (features_of.model,)),
                inputs=(features_of.source, *simulated),
                cost=_cost(config, features_of, len(planned.run)),
            )
            make = functools.partial(_encode, config, job, features_of)
            steps.append(Step(artefact=artefact, make=make))
        if config.partition:
            beside = tuple(make_set("partition", x) for x in config.partition)
            steps.append(_joined(config, job, own, beside, steps[first], len(planned.run)))
    return steps


def _joined(
    config: Config,
    job: Job,
    own: FeatureSet,
    beside: Sequence[FeatureSet],
    alone: Step,
    n: int,
) -> Step:
    """Plan a network with all controls of the partition; `alone` is the step of its own scores."""
    artefact = Artefact(
        workdir=job.workdir,
        stage="encode",
        name=f"{own.model} with {' + '.join(config.partition)}",
        settings=dict(alone.artefact.settings)
        | _options(config, config.partition)
        | {
            "partition": config.partition,
            "partition_draws": config.partition_draws,
            "partition_rounds": config.partition_rounds,
        },
        inputs=(*alone.artefact.inputs, alone.artefact, *(x.source for x in beside)),
        cost=f"{_cost(config, own, n)}, for each weight of the bands",
    )
    make = functools.partial(_partition, config, job, own, beside, alone.artefact)
    return Step(artefact=artefact, make=make)


def _feature_set(upstream: Upstream, source: Artefact, where: str, control: str) -> FeatureSet:
    """Return what a control beside the network of `source` is made of."""
    name = source.settings["model"]
    stores, needed = {name: source}, ""
    if control in controls.UNTRAINED_CONTROLS:
        stores, needed = untrained(upstream), "untrained_seed must be >= 0"
    elif control == "static_embedding":
        stores, needed = static(upstream), "static_embedding must be True"
    if name not in stores:
        raise InputError(f"encode.{where} has {control!r}, so extract.{needed}.")
    return FeatureSet(control, name, stores[name])


def _settings(config: Config, job: Job, simulated: bool) -> dict:
    """Return what fixes the content of every artefact; that of some controls has `_options` too."""
    settings = {"version": VERSION, "seed": job.seed} | dataclasses.asdict(config)
    # Each control is a step of its own, and so is the partition.
    options = ("shuffle", "oasm_sigma", "frequency_table", "word_vectors")
    for name in ("controls", "partition", "partition_draws", "partition_rounds", *options):
        del settings[name]
    settings["responses_hash"] = "" if simulated else job.dataset.hash
    return settings


def _options(config: Config, names: Sequence[str]) -> dict:
    """Return the settings that only some controls have, of those that are named."""
    found: dict[str, object] = {"shift": config.shift if "shifted" in names else 0}
    if "shuffled" in names:
        found["shuffle"] = config.shuffle
    if "oasm" in names:
        found["oasm_sigma"] = config.oasm_sigma
    for control, (setting, path) in _files(config).items():
        if control in names:
            if not pathlib.Path(path).is_file():
                raise InputError(f"encode.{setting} must name a file, found none at {path!r}.")
            found[f"{setting}_hash"] = run_dir.hash_file(pathlib.Path(path))
    return found


def _check_network(config: Config, name: str, source: Artefact, shortest: int) -> None:
    """Refuse settings that do not fit a network."""
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
    moved = ("shifted", "shuffled") if config.shuffle == "run" else ("shifted",)
    if short and (found := [x for x in moved if x in config.controls]):
        raise InputError(
            f"encode.controls has {found[0]!r}, so every run must have at least 2 samples: run "
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
    units = config.pca or settings["width"]
    if features_of.model in controls.STIMULUS_CONTROLS:
        units = {"oasm": n, "word_vectors": 300}.get(features_of.model, 2)
    p = units * len(config.delays)
    k = config.num_folds
    training_sets = k + k * (k - 1) // 2
    small, large = sorted((n, p))
    # A product for the smaller of kernel and covariance, and its eigenvectors.
    flop = layers * training_sets * (2.0 * small**2 * large + 9.0 * small**3)
    return f"{layers} layers x {training_sets} training sets, {n} samples, {flop / 1e9:.1f} GFLOP"


def _num_layers(features_of: FeatureSet) -> int:
    """Blocks of the network; 0 for features without layers, or of the embedding alone."""
    has_layers = features_of.model not in controls.WITHOUT_LAYERS
    return features_of.source.settings["num_layers"] if has_layers else 0


class Prepared(NamedTuple):
    """What all feature sets of a data set are scored on."""

    stimuli: Stimuli
    responses: Responses
    left_out: list[str]  # subjects
    folds: tuple[folds_lib.Fold, ...]
    goals: targets.Targets


def _prepare(config: Config, job: Job, artefact: Artefact) -> Prepared:
    stimuli = job.dataset.stimuli
    responses, left_out = targets.select(_responses(job, artefact), config.rois)
    folds = _folds(config, responses, stimuli)
    goals = targets.assemble(
        responses,
        [fold.outer.test for fold in folds],
        num_splits=config.ceiling_splits,
        rng=np.random.default_rng(job.seed),
    )
    return Prepared(stimuli, responses, left_out, folds, goals)


def _common(job: Job, data: Prepared, artefact: Artefact) -> dict:
    """Return the columns that are the same in all rows of an artefact."""
    settings = artefact.inputs[0].settings
    return {
        "schema_version": rows_lib.SCHEMA_VERSION,
        "dataset": job.dataset.name,
        "folds_hash": folds_lib.folds_hash(data.folds),
        "context": settings["context"],
        "pooling": settings["pooling"],
        "num_samples": len(data.responses.run),
        "fingerprint": artefact.fingerprint,
        "git_commit": run_dir.git_commit(),
        "versions": json.dumps(_versions(), sort_keys=True),
    }


def _encode(config: Config, job: Job, features_of: FeatureSet, artefact: Artefact) -> dict:
    """Score layer by layer; a layer that an interrupted run has scored is not scored again."""
    start = time.monotonic()
    data = _prepare(config, job, artefact)
    lexicon, unknown = _lexicon(config, (features_of.model,), data.stimuli, artefact)
    num_layers = _num_layers(features_of)
    scored = {}
    for layer in _progress(config, num_layers, artefact):
        path = _layer_path(artefact, layer)
        result = arrays.read(path, cv.Nested)
        if result is None:
            sampled = _samples(config, job, features_of, data, lexicon, layer)
            result = _nested(config, features_of, sampled, data, job.mesh)
            arrays.write(path, result)
        scored[layer] = result
    common = _common(job, data, artefact) | {
        "model": features_of.model,
        "control_of": features_of.control_of,
        "num_layers": num_layers,
        "protocol": PROTOCOL,
        "metric": METRIC,
    }
    rows = [
        common | {"layer": layer} | row
        for layer, result in scored.items()
        for row in _rows(result, data.goals, config)
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
        "left_out": data.left_out,
        "num_nan": undefined,
        "unknown_words": unknown,
        "seconds": round(time.monotonic() - start, 3),
    }


def _partition(
    config: Config,
    job: Job,
    own: FeatureSet,
    beside: Sequence[FeatureSet],
    alone: Artefact,
    artefact: Artefact,
) -> dict:
    """Join each layer with all controls; what it explains alone is read from its own scores."""
    start = time.monotonic()
    data = _prepare(config, job, artefact)
    lexicon, unknown = _lexicon(config, config.partition, data.stimuli, artefact)
    bands = [_samples(config, job, x, data, lexicon, 0) for x in beside]
    outer = [fold.outer for fold in data.folds]
    common = _common(job, data, artefact)
    common |= {"model": own.model, "controls": " + ".join(config.partition)}
    r2 = lambda result: partition.r2_out_of_sample(result.r2, data.goals.Y, outer)

    def joined(name, bands, pca):
        result = arrays.read(artefact.path / name, banded.Nested)
        if result is None:
            result = _banded(config, job, bands, pca, data)
            arrays.write(artefact.path / name, result)
        return r2(result)

    of_controls = joined("controls.npz", bands, 0)
    rows = []
    for layer in _progress(config, _num_layers(own), artefact):
        path = _layer_path(alone, layer)
        of_model = arrays.read(path, cv.Nested)
        if of_model is None:
            raise InputError(f"{path} must hold scores: delete {alone.path} and run again.")
        sampled = _samples(config, job, own, data, lexicon, layer)
        joint = joined(_layer_path(artefact, layer).name, [sampled, *bands], config.pca)
        found = np.stack([r2(of_model), of_controls, joint])
        for row in partition_rows.by_subject_and_roi(found, data.goals):
            rows.append(common | {"layer": layer} | row)
    rows_lib.write(artefact.path / PARTITION, rows, rows_lib.PARTITION)
    return {
        "left_out": data.left_out,
        "unknown_words": unknown,
        "seconds": round(time.monotonic() - start, 3),
    }


def _lexicon(
    config: Config, names: Sequence[str], stimuli: Stimuli, artefact: Artefact
) -> tuple[controls.Lexicon, dict[str, int]]:
    """Read the tables that some controls need, and count the words that they do not list."""
    paths = {name: pathlib.Path(x) for name, (_, x) in _files(config).items() if name in names}
    lexicon = controls.read_lexicon(paths, stimuli)
    unknown = {}
    for control, path in paths.items():
        table = getattr(lexicon, control)
        unknown[control], clause = controls.report_unknown(table, stimuli)
        level = logging.WARNING if unknown[control] else logging.INFO
        logging.log(level, "encode %s: %s in %s", artefact.name, clause, path)
    return lexicon, unknown


def _progress(config: Config, num_layers: int, artefact: Artefact) -> Iterable[int]:
    layers = (config.layers or range(num_layers + 1)) if num_layers else (0,)
    return tqdm(layers, desc=f"encode {artefact.name}", unit=" layers", mininterval=1.0)


def _layer_path(artefact: Artefact, layer: int) -> pathlib.Path:
    return artefact.path / f"layer_{layer:03d}.npz"


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
    config: Config,
    job: Job,
    features_of: FeatureSet,
    data: Prepared,
    lexicon: controls.Lexicon,
    layer: int,
) -> samples.Samples:
    """Read or compute features of one layer, and bring them to the responses' samples."""
    name, stimuli = features_of.model, data.stimuli
    place = {"method": config.downsample, "lead": max(config.delays)}
    if name in controls.STIMULUS_CONTROLS:
        sigma = config.oasm_sigma
        return samples.of_control(
            name, stimuli, data.responses, lexicon=lexicon, oasm_sigma=sigma, **place
        )
    row = {name: i for i, name in enumerate(store.stimulus_ids(features_of.source))}
    values = store.open_artefact(features_of.source).read_layer(layer).astype(np.float64)
    values = values[[row[name] for name in stimuli.stimulus_id]]
    found = samples.from_stimuli(values, stimuli, data.responses, **place)
    if name == "shifted":
        return found._replace(values=features.shift(found.values, found.run, config.shift))
    if name == "shuffled":
        blocks = found.run if config.shuffle == "run" else np.zeros(len(found.values))
        rng = np.random.default_rng(job.seed)
        return found._replace(values=features.shuffle(found.values, blocks, rng))
    return found


def _nested(
    config: Config,
    features_of: FeatureSet,
    sampled: samples.Samples,
    data: Prepared,
    mesh: Mesh,
) -> cv.Nested:
    """Delay the features and score them; all devices divide the targets among them."""
    of_network = features_of.model not in controls.STIMULUS_CONTROLS

    def score(values, folds):
        return cv.nested(
            _delayed(config, values, sampled),
            data.goals.Y,
            folds,
            np.array(config.alphas),
            # All columns of `oasm` have one scale; see there.
            standardize=config.standardize and features_of.model != "oasm",
            search=config.search,
            mesh=mesh if mesh.size > 1 else None,
        )

    return _fold_by_fold(config.pca if of_network else 0, sampled, data.folds, score)


def _banded(
    config: Config, job: Job, bands: Sequence[samples.Samples], pca: int, data: Prepared
) -> banded.Nested:
    """Score feature sets together, each with a penalty of its own; PCA is of the first."""

    def score(values, folds):
        parts = [values, *(other.values for other in bands[1:])]
        delayed = [_delayed(config, x, own) for x, own in zip(parts, bands, strict=True)]
        return banded.nested(
            np.concatenate(delayed, axis=1),
            data.goals.Y,
            np.repeat(np.arange(len(delayed)), [x.shape[1] for x in delayed]),
            folds,
            np.array(config.alphas),
            seed=job.seed,
            budget=banded.BUDGET._replace(
                num_draws=config.partition_draws, rounds=config.partition_rounds
            ),
            method=cv.Method(standardize=config.standardize, search=config.search),
            mesh=job.mesh if job.mesh.size > 1 else None,
        )

    return _fold_by_fold(pca, bands[0], data.folds, score)


def _delayed(
    config: Config, values: Float[np.ndarray, "m u"], sampled: samples.Samples
) -> Float[np.ndarray, "n p"]:
    return features.delay(values, sampled.run, config.delays)[sampled.recorded]


def _fold_by_fold(
    pca: int,
    sampled: samples.Samples,
    folds: Sequence[folds_lib.Fold],
    score: Callable[[Float[np.ndarray, "m c"], Sequence[folds_lib.Fold]], Scores],
) -> Scores:
    """Score all folds at once; with PCA, one by one on components of its own training set."""
    values = sampled.values
    if not pca or pca > values.shape[1]:  # the latter: a narrow embedding
        return score(values, folds)
    parts = []
    for fold in folds:
        train = sampled.recorded[fold.outer.train]
        parts.append(score(features.principal_components(values, train, pca), [fold]))
    return type(parts[0])(*(np.concatenate(column) for column in zip(*parts, strict=True)))


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
