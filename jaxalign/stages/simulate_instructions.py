"""Simulation: which instruction wins in which ROI, and what pairs share; nobody was recorded."""

import dataclasses
import functools
import time
from collections.abc import Mapping
from typing import Annotated

import numpy as np
import pandas as pd
from jaxtyping import Float

from jaxalign import progress, stopping
from jaxalign.checks import (
    Count,
    Names,
    NotNegative,
    Penalties,
    Rule,
    above_zero,
    at_least,
    check,
    fraction,
    some,
)
from jaxalign.core import folds as folds_lib
from jaxalign.core.folds import Fold
from jaxalign.core.scores import alignment, scoring
from jaxalign.core.scores.protocol import CEILING_FLOOR, Protocol
from jaxalign.core.solver import banded, cv, partition
from jaxalign.core.solver.method import ADAPTIVE
from jaxalign.data.schema import Responses
from jaxalign.data.synthetic import planted_instructions
from jaxalign.errors import InputError
from jaxalign.io import rows as rows_lib
from jaxalign.io import run_dir
from jaxalign.io.run_dir import Artefact
from jaxalign.literature import protocols, published
from jaxalign.pricing import work
from jaxalign.reporting import html
from jaxalign.reporting.findings import instructions as report
from jaxalign.reporting.page import SUMMARY
from jaxalign.results import finished
from jaxalign.results import scores as score_rows
from jaxalign.results import targets as targets_lib
from jaxalign.stages import Job, Step, Upstream
from jaxalign.stages.artefacts import SimulatedInstructions

VERSION = 3
TABLE = "oota2025/instructions"
DATASET, MODEL = "simulated-instructions", "simulated"
# Tables of single subjects.
TARGETS, PARTITION = SimulatedInstructions.TARGETS, SimulatedInstructions.PARTITION
R2, NORMALIZED = "r2_out_of_sample", "normalized_r"
COLUMNS = ("dataset", "model", "first", "second", "measure", *planted_instructions.PARTITION)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the simulation of instructions."""

    rois: Annotated[Names, some("be there and differ")] = (
        "early visual",
        "bodies",
        "faces",
        "places",
        "noise",
    )
    # Code of the instruction that each ROI is planted from; "": noise alone. These follow what the
    # paper reports, and were chosen: finding them again shows that the method works, no more.
    planted: tuple[str, ...] = ("IU1", "IC", "VQ2", "VQ3", "")
    # A second one, with `beside_share` of what the signal does not have in common; "": none.
    beside: tuple[str, ...] = ("VQ2", "IU2", "", "IC", "")
    beside_share: Annotated[float, fraction] = 1 / 3
    # Pairs whose variance is partitioned, by their codes: the first of `first` and of `second`, ...
    first: tuple[str, ...] = ("IC", "IC", "IU1")
    second: tuple[str, ...] = ("IU2", "VQ3", "VQ2")
    num_subjects: Annotated[int, at_least(2)] = 4
    num_voxels: Count = 50  # of each subject in each ROI
    num_samples: Count = 300  # images
    num_units: Count = 10  # of the component that all share, and of each instruction's own
    # Share of a signal's variance that the shared component has.
    common: Annotated[float, Rule("lie in 0..1", lambda x: 0 <= x <= 1)] = 0.5
    # In units of the signal's standard deviation.
    noise_sd: Annotated[float, above_zero] = 1.0
    alphas: Penalties = tuple(10.0**k for k in range(-1, 5))
    num_folds: Annotated[int, at_least(3)] = 5
    # How many weights of the two bands are drawn, and rounds that refine them: see
    # core/solver/banded.py.
    partition_draws: NotNegative = 4
    partition_rounds: NotNegative = 2

    def __post_init__(self):
        check(self, "instructions")
        for name, other in (("planted", "rois"), ("beside", "rois"), ("second", "first")):
            if len(getattr(self, name)) != len(getattr(self, other)):
                raise InputError(
                    f"instructions.{name} must have an entry for each of {other}, got "
                    f"{len(getattr(self, name))} for {len(getattr(self, other))}."
                )
        if same := [a for a, b in zip(self.first, self.second, strict=True) if a == b]:
            raise InputError(f"instructions.second must differ from first, got {same[0]!r} twice.")


def plan(config: Config, job: Job, upstream: Upstream) -> list[Step]:
    """Plan the one simulation.

    Raises:
      InputError: if a code is of no instruction, or samples do not suffice for the folds.
    """
    del upstream
    texts = _texts()
    for first, second in zip(config.planted, config.beside, strict=True):
        if second and first in ("", second):
            raise InputError(
                "instructions.beside must be another than planted, and not beside noise alone: "
                f"got {second!r} beside {first!r}."
            )
    for name in ("planted", "beside", "first", "second"):
        if unknown := [x for x in getattr(config, name) if x and x not in texts]:
            raise InputError(
                f"instructions.{name} must be among {', '.join(texts)}, got {unknown[0]!r}."
            )
    try:
        _folds(config)
    except ValueError as error:
        raise InputError(f"instructions: {error}") from error
    settings = {
        "version": VERSION,
        "rows_schema": rows_lib.SCHEMA_VERSION,
        "seed": job.seed,
        "texts": texts,
        "protocol": _protocol(config).content,
    } | dataclasses.asdict(config)
    voxels = config.num_subjects * len(config.rois) * config.num_voxels
    artefact = Artefact(
        workdir=job.root,
        stage="instructions",
        kind=SimulatedInstructions.kind,
        name="simulation",
        settings=settings,
        cost=f"{len(texts)} instructions, {len(config.first)} pairs, {voxels} voxels, "
        f"{config.num_samples} samples",
    )
    make = functools.partial(_make, config, job, texts)
    return [Step(artefact=artefact, make=make, work=work.PAGE, shows=SUMMARY)]


def _texts() -> dict[str, str]:
    """Return the instructions of the paper by their codes."""
    table = published.table(TABLE)
    return dict(zip(table.code, table.instruction, strict=True))


def _protocol(config: Config) -> Protocol:
    return protocols.nested_ridge(
        alphas=config.alphas,
        num_folds=config.num_folds,
        gap=0,  # samples are independent
        group_seed=-1,
        standardize=True,
        pca=0,
    )


def _folds(config: Config) -> tuple[Fold, ...]:
    return scoring.make_folds(_protocol(config), config.num_samples)


def _make(config: Config, job: Job, texts: Mapping[str, str], artefact: Artefact) -> dict:
    start = time.monotonic()
    codes = list(texts)
    index = dict(zip(codes, range(len(codes)), strict=True)) | {"": planted_instructions.NONE}
    chosen = zip(config.rois, config.planted, config.beside, strict=True)
    setting = planted_instructions.Setting(
        num_subjects=config.num_subjects,
        num_voxels=config.num_voxels,
        num_samples=config.num_samples,
        num_units=config.num_units,
        common=config.common,
        second_share=config.beside_share,
        noise_sd=config.noise_sd,
    )
    simulated = planted_instructions.simulate(
        len(texts),
        [planted_instructions.Roi(roi, index[x], index[y]) for roi, x, y in chosen],
        setting,
        rng=np.random.default_rng(job.seed),
    )
    protocol, folds = _protocol(config), _folds(config)
    targets = targets_lib.assemble(simulated.responses)
    ceilings = targets_lib.ceilings(
        simulated.responses,
        [fold.outer.test for fold in folds],
        num_splits=1,  # voxels have no counterparts, and so no halves of subjects
        rng=np.random.default_rng(job.seed),
    )
    scored = {}
    given = list(zip(codes, simulated.features, strict=True))
    for code, values in progress.bar(given, "instructions", "instructions"):
        design = scoring.design(values, protocol)
        scored[code] = scoring.evaluate(design, targets.Y, protocol, folds)
    rows = _rows(config, texts, scored, targets, ceilings, artefact)
    rows_lib.write(artefact.path / SimulatedInstructions.ROWS, rows)
    place = {"dataset": DATASET, "model": MODEL}
    by_target = _targets(texts, scored, simulated.responses).assign(**place)
    parts = []
    for first, second in zip(config.first, config.second, strict=True):
        pair = tuple(codes.index(x) for x in (first, second))
        joint = _joint(config, job, simulated.features[list(pair)], targets, folds)
        names = {"first": texts[first], "second": texts[second]}
        every = (scored[first], scored[second], joint)
        for measure, scores in _measures(every, targets, ceilings, folds):
            found = planted_instructions.partition_by_roi(*scores, simulated.responses)
            parts += [place | names | {"measure": measure} | row for row in found]
    tables = {TARGETS: by_target, PARTITION: pd.DataFrame(parts, columns=COLUMNS)}
    for name, table in tables.items():
        rows_lib.write_table(artefact.path / name, table.assign(fingerprint=artefact.fingerprint))
    text = _summary(
        config, texts, rows_lib.read(artefact.path / SimulatedInstructions.ROWS), tables
    )
    run_dir.write_atomic(artefact.path / SUMMARY, text.encode())
    return {"left_out": [], "seconds": round(time.monotonic() - start, 3)}


def _rows(
    config: Config,
    texts: Mapping[str, str],
    scored: Mapping[str, cv.Nested],
    targets: targets_lib.Targets,
    ceilings: targets_lib.Ceilings,
    artefact: Artefact,
) -> list[dict]:
    """Return score rows; the ceiling is the noiseless signal's, which here is known."""
    protocol = _protocol(config)
    shared = {
        "dataset": DATASET,
        "model": MODEL,
        "control_of": "",
        "layer": 0,
        "num_layers": 0,
        **rows_lib.UNKNOWN_READING,
        "protocol": protocol.name,
        "folds_hash": folds_lib.folds_hash(_folds(config)),
        "context": "",
        "pooling": "",
        "num_units": 2 * config.num_units,
        "metric": protocol.metric,
        "num_samples": config.num_samples,
    } | finished.provenance(artefact.fingerprint, "jax", "jaxlib", "numpy")
    rows = [
        row
        | {"instruction": texts[code]}
        | {"ceiling": row["signal_ceiling"], "ceiling_kind": "signal"}
        for code, result in scored.items()
        for row in score_rows.by_subject_and_roi(result, targets, ceilings, protocol)
    ]
    return finished.finish(rows, shared)


def _targets(
    texts: Mapping[str, str], scored: Mapping[str, cv.Nested], responses: Responses
) -> pd.DataFrame:
    """Return the mean r over folds of each voxel and instruction."""
    names = {name: list(getattr(responses, name)) for name in ("subject", "roi", "target")}
    return pd.concat(
        [
            pd.DataFrame(names | {"instruction": texts[code], "score": result.r.mean(axis=0)})
            for code, result in scored.items()
        ]
    )


def _joint(
    config: Config,
    job: Job,
    features: Float[np.ndarray, "2 n p"],
    targets: targets_lib.Targets,
    folds: tuple[Fold, ...],
) -> banded.Nested:
    """Score two instructions together, each with a penalty of its own."""
    label = np.repeat([0, 1], features.shape[2])
    return banded.nested(
        banded.Features(np.concatenate(features, axis=1), label),
        targets.Y,
        folds,
        scoring.method_of(_protocol(config)),
        banded.Budget(job.seed, config.partition_draws, rounds=config.partition_rounds),
        execution=ADAPTIVE._replace(
            mesh=job.own_mesh if job.own_mesh.size > 1 else None, progress=stopping.watch
        ),
    )


def _measures(results, targets, ceilings, folds):
    """Yield what is partitioned, and its values of the two instructions and of both together."""
    outer = [fold.outer for fold in folds]
    yield R2, [partition.r2_out_of_sample(x.r2, targets.Y, outer) for x in results]
    # Where nothing was planted there is no ceiling to divide by. Such voxels, and those whose
    # ceiling is too low, are undefined and counted with the parts.
    yield NORMALIZED, [alignment.ratio(x.r.mean(axis=0), ceilings.signal_r)[1] for x in results]


def _summary(
    config: Config,
    texts: Mapping[str, str],
    rows: pd.DataFrame,
    tables: Mapping[str, pd.DataFrame],
) -> str:
    labels = {text: code for code, text in texts.items()}
    show = lambda table: table.drop(columns=["dataset", "model"], errors="ignore").to_string(
        index=False, float_format=lambda x: html.cell(float(x)), na_rep="–"
    )
    planted = planted_instructions.describe(config.rois, config.planted, config.beside)
    found = report.of_run(rows, tables[TARGETS], tables[PARTITION], labels=labels)
    won = found["instruction_winners"].drop(columns=["winner", "second"])
    share = found["instruction_shares"]
    share = share[share.num_targets > 0].drop(columns="instruction")
    pairs = []
    if "instruction_partition" in found:  # pairs were asked for
        parts = report.side_by_side(found["instruction_partition"])
        pairs = [
            "",
            "Variance partitioning, mean over subjects; percent of what both explain, negative "
            "parts as they are. normalized_r: r by the ceiling of each voxel, where that is "
            f"{CEILING_FLOOR:g} or more.",
            show(parts.drop(columns=["panel", "label"])),
        ]
    return "\n".join(
        [
            "SIMULATION of instructions: no model was asked anything and no brain was recorded.",
            f"Planted: {planted}. Shared by all instructions: {config.common:.0%} of a signal's "
            f"variance; noise {config.noise_sd:g} times the signal.",
            "",
            "Winner of each ROI and margin over the second, both picked on these scores; 95 % "
            "interval over subjects and folds.",
            show(won),
            "",
            "Shares of voxels, mean over subjects. tie: equal scores; none: no score above 0.",
            show(share),
            *pairs,
            "",
        ]
    )
