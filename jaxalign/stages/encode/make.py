"""Making of the encoding stage's artefacts: scores of a feature set, and partitions of variance."""

import functools
import io
import json
import time
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from absl import logging

from jaxalign import processes, progress, stopping
from jaxalign.core import folds as folds_lib
from jaxalign.core import leaks
from jaxalign.core.scores import alignment, scoring
from jaxalign.core.scores.alignment import AlignmentScore
from jaxalign.core.scores.protocol import Protocol
from jaxalign.core.solver import banded, cv, partition
from jaxalign.core.solver.method import Execution
from jaxalign.data import controls, samples
from jaxalign.data.formats import grids
from jaxalign.data.schema import GROUP
from jaxalign.errors import InputError
from jaxalign.io import arrays, run_dir
from jaxalign.io import rows as rows_lib
from jaxalign.io.place import Place
from jaxalign.io.run_dir import Artefact
from jaxalign.results import finished, normalized, scores
from jaxalign.results import partition as partition_rows
from jaxalign.results import targets as targets_lib
from jaxalign.stages import Job, artefacts
from jaxalign.stages.artefacts import Partition, ProtocolCeiling, Scores
from jaxalign.stages.encode import config as config_lib
from jaxalign.stages.encode import inputs, work
from jaxalign.stages.encode.config import Config
from jaxalign.stages.encode.inputs import Features, Prepared

# Columns that say which rows of scores belong to a row of normalised ones.
PLACE = ("dataset", "model", "control_of", "instruction", "pooling", "protocol", "fingerprint")
EDGE = 0.25  # share of choices at an end of the grid that is worth a warning; noise goes there too


def encode(config: Config, job: Job, features: Features, artefact: Artefact) -> dict:
    """Score layer by layer; a layer that an interrupted run has scored is not scored again.

    Of several processes, which score together, the first one writes.
    """
    start = time.monotonic()
    data = inputs.prepare(config, job, artefact, (features.model,))
    unknown = _unknown_words(data, artefact)
    tried: dict[bool, list[float]] = {False: [], True: []}  # of layers that are scored now
    scored = _score_layers(features, data, artefact, tried[False])
    apart = _score_contiguous(features, data, artefact, tried[True]) if config.protocol else None
    if not processes.is_first():
        return {}
    ceilings = inputs.ceilings(data)
    shared = common(data, features, artefact) | {
        "num_layers": features.num_layers,
        "num_units": features.num_units(config, data.protocol),
        "protocol": data.protocol.name,
        "metric": data.protocol.metric,
    }
    rows = [
        {"layer": layer} | features.layer_columns(layer) | row
        for layer, result in scored.items()
        for row in scores.by_subject_and_roi(result, data.targets, ceilings, data.protocol)
    ]
    finished.write(artefact.path / Scores.ROWS, rows, shared)
    if config.ceilings == config_lib.PUBLISHED:
        found = _normalized(scored, data)
        table = pd.DataFrame([row | {x: shared[x] for x in PLACE} for row in found])
        rows_lib.write_table(artefact.path / Scores.NORMALIZED, table)
    _warn_of_edges(scored, data, artefact)
    undefined = sum(row["num_nan"] for row in rows)
    if undefined:
        logging.warning("encode %s: %d fold scores are undefined", artefact.name, undefined)
    whole = _whole(features, data, (scored, apart), artefact) if config.protocol else None
    _write_targets(scored, data, ceilings, artefact, shared, whole)
    return {
        "left_out": data.left_out,
        "num_nan": undefined,
        "unknown_words": unknown,
        "remarks": [*_unanswered(features, data), *_repeated(features, data, artefact)],
        "alignment": _summary(features, whole),
        "flop": work.flop(features, _sizes(data, apart), job.mesh, tried),
        "seconds": round(time.monotonic() - start, 3),
    }


def _normalized(scored: dict[int, cv.Nested], data: Prepared) -> list[dict]:
    """Divide the scores of the subjects' targets by their own ceilings."""
    chosen = normalized.choose(scored, data.responses, data.protocol)
    score = normalized.over_folds(chosen.r, data.protocol)
    ceiling = inputs.ceilings(data).ceiling[: len(score)]
    return normalized.by_subject_and_roi(score, ceiling, data.responses, data.protocol)


def common(data: Prepared, features: Features, artefact: Artefact) -> dict:
    """Return the columns that are the same in all rows of an artefact."""
    return {
        "dataset": data.job.dataset.name,
        "model": features.model,
        "control_of": features.control_of,
        "folds_hash": folds_lib.folds_hash(data.folds),
        **features.source.reading,
        **features.way,
        "num_samples": len(data.responses.run),
    } | finished.provenance(artefact.fingerprint, "jax", "jaxlib", "numpy")


def _sizes(data: Prepared, apart: "_Contiguous | None") -> work.Sizes:
    num_samples, num_targets = data.Y.shape
    folds = () if apart is None else apart.folds
    return work.Sizes(data.config, data.folds, num_samples, num_targets, folds)


def _score_layers(
    features: Features,
    data: Prepared,
    artefact: Artefact,
    tried: list[float],
    name: str = "layer",
) -> dict[int, cv.Nested]:
    """Score every layer, and keep each in a file of its own.

    `tried` gets the penalties that were tried for each target and fold of a layer that was not
    there.
    """
    scored = {}

    def compute(layer: int) -> cv.Nested:
        found = _nested(features, layer, data)
        tried.append(float(found.num_computed.mean()))
        return found

    for layer in _progress(features.layers(data.config), artefact):
        compute_this = functools.partial(compute, layer)
        scored[layer] = arrays.kept(_layer_path(artefact, layer, name), cv.Nested, compute_this)
    return scored


class _Contiguous(NamedTuple):
    """What a protocol with shuffled folds gives in contiguous ones."""

    protocol: Protocol
    folds: tuple[folds_lib.Fold, ...]
    scored: dict[int, cv.Nested]


def _score_contiguous(
    features: Features, data: Prepared, artefact: Artefact, tried: list[float]
) -> _Contiguous | None:
    """Score every layer in contiguous folds, where those of the protocol are shuffled."""
    protocol, config = data.protocol, data.config
    apart = protocol.is_shuffled and inputs.contiguous(config, data.responses, data.job.dataset)
    if not apart:
        return None
    other, folds = apart
    blocks = data._replace(protocol=other, folds=folds)
    return _Contiguous(other, folds, _score_layers(features, blocks, artefact, tried, "contiguous"))


def _warn_of_edges(scored: dict[int, cv.Nested], data: Prepared, artefact: Artefact) -> None:
    chosen = np.concatenate([result.alphas for result in scored.values()])
    grid = np.array(data.protocol.encoding[1].grid)
    low, high = cv.edges(chosen, grid)
    if max(low, high) > EDGE and len(grid) > 1:
        logging.warning(
            "encode %s: %.0f %% of the penalties chosen are the smallest of the grid, %.0f %% "
            "the largest: a better one may lie beyond",
            artefact.name,
            100 * low,
            100 * high,
        )


def _unanswered(features: Features, data: Prepared) -> list[str]:
    """Say beside a network how many stimuli have no response, or no activations."""
    if features.control_of:
        return []
    dataset, absent = data.job.dataset, features.source.absent
    said = [dataset.unanswered(data.responses, absent)]
    if absent:
        said.append(
            f"{len(absent)} of {len(dataset.stimuli)} images were answered by "
            f"{features.source.label} with nothing and are left out."
        )
    return [f"{dataset.name}: {x}" for x in said if x]


def _repeated(features: Features, data: Prepared, artefact: Artefact) -> list[str]:
    """Say of a network's test samples that they are trained on, or look so in its last layer."""
    if features.control_of:
        return []
    said = []
    if data.num_repeated:
        num_tested = sum(len(fold.outer.test) for fold in data.folds)
        known = leaks.Leak(data.num_repeated, num_tested)
        said.append(leaks.remark(data.protocol.name, known))
    # A word that comes again has the same vector where it is read by itself, and is no leak.
    if data.job.dataset.stimuli.unit != "word":
        last = features.samples(features.layers(data.config)[-1], data)
        found = leaks.count(data.folds, leaks.same_rows(last.values[last.recorded]))
        if found.num_repeated > data.num_repeated:
            said.append(
                f"features of {found} equal those of a sample that is trained on, though neither "
                "id nor text is the same: if they present the same stimulus, give it one "
                "stimulus_id"
            )
    for remark in said:
        logging.warning("encode %s: %s", artefact.name, remark)
    return [f"{artefact.name}: {remark}." for remark in said]


def _write_targets(
    scored: dict[int, cv.Nested],
    data: Prepared,
    ceilings: targets_lib.Ceilings,
    artefact: Artefact,
    shared: dict,
    whole: AlignmentScore | None,
) -> None:
    """Write scores of single targets, and of a network the images that they come from."""
    found = scores.by_target(scored, data.responses, ceilings, data.protocol)
    found["protocol_score"] = whole.per_target if whole else np.full_like(found["score"], np.nan)
    shared = shared | {"space": data.responses.space, "ceiling_kind": ceilings.kind}
    rows_lib.write_columns(artefact.path / Scores.TARGETS, found, shared, rows_lib.TARGETS)
    if data.responses.grids and not shared["control_of"]:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **grids.to_arrays(data.responses.grids))
        run_dir.write_atomic(artefact.path / Scores.GRIDS, buffer.getvalue())


def _whole(
    features: Features,
    data: Prepared,
    every: tuple[dict[int, cv.Nested], _Contiguous | None],
    artefact: Artefact,
) -> AlignmentScore:
    """Return the one score of a protocol over all subjects, and what belongs to it."""
    config = data.config
    protocol = data.protocol
    scored, apart = every
    contiguous = float("nan")
    if apart is not None:
        contiguous = scores.whole(apart.scored, data.targets, apart.protocol, apart.folds).raw
    known = [x.read() for x in artefacts.among(ProtocolCeiling, artefact.inputs)]
    if config.ceilings == config_lib.PUBLISHED:
        known = [inputs.ceilings(data).ceiling[: len(data.responses.target)]]
    found = scores.whole(
        scored,
        data.targets,
        protocol,
        data.folds,
        known_ceiling=known[0] if known else config.protocol_ceiling or np.nan,
        contiguous=contiguous,
    )._replace(num_repeated=data.num_repeated)
    arrays.write(artefact.path / Scores.ALIGNMENT, found)
    if protocol.is_shuffled:
        logging.warning("encode %s: %s", artefact.name, scoring.caution(found))
    for remark in alignment.remarks(found, protocol):
        logging.warning("encode %s: %s", artefact.name, remark)
    return found


def _summary(features: Features, found: AlignmentScore | None) -> dict | None:
    if found is None:
        return None
    return {
        "model": features.model,
        "control_of": features.control_of,
        "layers": sorted(set(found.layers.ravel().tolist())),
    } | {
        name: getattr(found, name)
        for name in (
            *("protocol", "folds_hash", "score", "unclipped", "raw", "raw_low", "raw_high"),
            *("ceiling", "ceiling_low", "ceiling_high"),
            *("contiguous", "num_nan", "num_repeated", "num_below_floor"),
        )
    }


def _nested(features: Features, layer: int, data: Prepared) -> cv.Nested:
    """Score the features of one layer; all devices divide the targets among them.

    What images are made of is the same beside every network, and found once for all of them.
    """
    if features.model not in controls.OF_IMAGES:
        return evaluate(features, layer, data)
    fixed = json.dumps(data.protocol.content), folds_lib.folds_hash(data.folds)
    key = features.model, data.responses.hash, *fixed, data.config.search
    if key not in _of_images:
        _of_images[key] = evaluate(features, layer, data)
    return _of_images[key]


_of_images: dict[tuple, cv.Nested] = {}


def evaluate(features: Features, layer: int, data: Prepared) -> cv.Nested:
    """Score the features of one layer, whatever was scored before."""
    protocol = data.protocol
    if features.model in controls.STIMULUS_CONTROLS:
        # All columns of `oasm` have one scale; see there.
        protocol = scoring.without_pca(protocol, scale=features.model != "oasm")
    return scoring.evaluate(
        design(data, read(features, layer, data), protocol),
        data.Y,
        protocol,
        data.folds,
        # The group's mean has no say in a penalty that all subjects share.
        pool=np.array([subject == GROUP for subject in data.targets.subject], int),
        execution=execution(data),
    )


def read(features: Features, layer: int, data: Prepared) -> samples.Samples:
    """Return the features of one layer, in all processes; see `Features.samples`.

    Raises:
      DamagedError: in all processes, if one of them finds the store damaged.
    """
    return run_dir.read_together(lambda: features.samples(layer, data))


def execution(data: Prepared) -> Execution:
    """Return how the solver is to compute scores."""
    mesh = data.job.mesh
    return Execution(
        search=data.config.search,
        mesh=mesh if mesh.size > 1 else None,
        progress=stopping.watch,
    )


def design(data: Prepared, sampled: samples.Samples, protocol: Protocol) -> scoring.Design:
    """Return what makes features of samples, delayed; see `scoring.design`."""
    return scoring.design(
        sampled.values,
        protocol,
        run=sampled.run,
        recorded=sampled.recorded,
        delays=data.config.delays,
    )


def join(
    config: Config,
    job: Job,
    network: Features,
    others: Sequence[Features],
    alone: Artefact,
    artefact: Artefact,
) -> dict:
    """Join each layer with all controls; what it explains alone is read from its own scores."""
    start = time.monotonic()
    others_lack = frozenset().union(*(x.source.absent for x in others)) - network.source.absent
    if others_lack:
        raise InputError(
            f"encode.partition needs features of the same images: {network.source.label} answered "
            f"about {min(others_lack)!r}, and what stands beside it did not ({len(others_lack)} "
            "such)."
        )
    data = inputs.prepare(config, job, artefact, config.partition)
    unknown = _unknown_words(data, artefact)
    bands = [read(x, 0, data) for x in others]
    outer = [fold.outer for fold in data.folds]
    shared = common(data, network, artefact) | {"controls": " + ".join(config.partition)}
    has_pca = data.protocol.scaling.pca > 0
    r2 = lambda result: partition.r2_out_of_sample(result.r2, data.Y, outer)

    def joined(name, bands, pca):
        compute = functools.partial(_banded, data, bands, pca)
        result = arrays.kept(artefact.path / name, banded.Nested, compute)
        return r2(result) if processes.is_first() else None

    of_controls = joined("controls.npz", bands, False)
    rows = []
    for layer in _progress(network.layers(config), artefact):
        sampled = read(network, layer, data)
        joint = joined(_layer_path(artefact, layer).name, [sampled, *bands], has_pca)
        of_model = run_dir.read_together(functools.partial(_scored, alone, layer))
        if of_model is None:
            continue
        found = np.stack([r2(of_model), of_controls, joint])
        for row in partition_rows.by_subject_and_roi(found, data.targets):
            rows.append({"layer": layer} | network.layer_columns(layer) | row)
    if not processes.is_first():
        return {}
    finished.write(artefact.path / Partition.ROWS, rows, shared, rows_lib.PARTITION)
    return {
        "left_out": data.left_out,
        "unknown_words": unknown,
        "seconds": round(time.monotonic() - start, 3),
    }


def _scored(alone: Artefact, layer: int) -> cv.Nested | None:
    """Return the scores of a network's layer by itself, in the first process; None in others."""
    if not processes.is_first():
        return None
    path = _layer_path(alone, layer)
    found = arrays.read(path, cv.Nested)
    if found is None:
        raise run_dir.DamagedError(alone.path, f"{path} must hold scores")
    return found


def _banded(data: Prepared, bands: Sequence[samples.Samples], pca: bool) -> banded.Nested:
    """Score feature sets together, each with a penalty of its own; PCA is of the first."""
    config, job = data.config, data.job
    with_pca, without = data.protocol, scoring.without_pca(data.protocol)
    rules = [with_pca if pca else without, *[without] * (len(bands) - 1)]
    designs = [design(data, band, rule) for band, rule in zip(bands, rules, strict=True)]

    method = scoring.method_of(data.protocol)
    budget = banded.Budget(job.seed, config.partition_draws, rounds=config.partition_rounds)

    def score(folds):
        parts = [design(folds[0].outer.train) for design in designs]
        label = np.repeat(np.arange(len(parts)), [x.shape[1] for x in parts])
        features = banded.Features(np.concatenate(parts, axis=1), label)
        how = execution(data)
        return banded.nested(features, data.Y, folds, method, budget, execution=how)

    # Components are those of each training set.
    apart = [[fold] for fold in data.folds] if pca else [data.folds]
    found = zip(*map(score, apart), strict=True)
    return banded.Nested(*map(np.concatenate, found))


def _unknown_words(data: Prepared, artefact: Artefact) -> dict[str, int]:
    """Count the words that the tables of some controls do not list, and say which."""
    unknown, stimuli = {}, data.job.dataset.stimuli
    for control, table in data.lexicon._asdict().items():
        if table is not None:
            unknown[control], clause = controls.report_unknown(table, stimuli)
            level = logging.WARNING if unknown[control] else logging.INFO
            own = ("", f"data set {data.job.dataset.name}")
            _, where = config_lib.files(data.config).get(control, own)
            logging.log(level, "encode %s: %s in %s", artefact.name, clause, where)
    return unknown


def _progress(layers: Sequence[int], artefact: Artefact) -> Iterator[int]:
    return progress.bar(layers, f"encode {artefact.name}", "layers")


def _layer_path(artefact: Artefact, layer: int, name: str = "layer") -> Place:
    return artefact.path / layer_name(layer, name)


def layer_name(layer: int, name: str = "layer") -> str:
    """Return the name of the file of a layer's scores."""
    return f"{name}_{layer:03d}.npz"
