"""Activations x responses -> CKA and RSA of every layer, without fitting; layers x layers."""

import dataclasses
import functools
import itertools
import pathlib
import time
from collections import Counter
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np
import pandas as pd
from absl import logging
from jaxtyping import Bool, Float, Int

from jaxalign import progress
from jaxalign.checks import Names, Rule, among, check, differ, one_of, some
from jaxalign.core import clock, features
from jaxalign.core import similarity as core
from jaxalign.core.inference import orders as orders_lib
from jaxalign.core.inference import stats
from jaxalign.data import localizer
from jaxalign.data.samples import Placement
from jaxalign.data.schema import Responses
from jaxalign.errors import InputError
from jaxalign.io import rows as rows_lib
from jaxalign.io import run_dir
from jaxalign.io.run_dir import Artefact
from jaxalign.pricing import work
from jaxalign.reporting import page as page_lib
from jaxalign.reporting import tables
from jaxalign.reporting.page import SUMMARY
from jaxalign.reporting.pages import similarity as report
from jaxalign.results import targets
from jaxalign.stages import Job, Step, Upstream, artefacts
from jaxalign.stages import responses as responses_lib
from jaxalign.stages.artefacts import Activations, Page, Similarity

VERSION = 4
NUM_SHIFTS = 199  # of the null of time series; all there are where a recording has fewer
_ROUNDING = 1e-6  # of similarities in float32: nulls that differ by less are ties
SCORES, MATRIX = Similarity.SCORES, Similarity.MATRIX
UNIT_SETS = ("language", "random")
CKA = ("cka", "cka_debiased")
RSA = tuple(f"rsa_{distance}" for distance in core.DISTANCES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the similarity stage; those that encode has too mean the same."""

    measures: Annotated[Names, among((*CKA, *RSA)), some("name at least one")] = (*CKA, *RSA)
    comparison: Annotated[str, one_of(core.COMPARISONS)] = "spearman"  # of RDMs; or "pearson"
    downsample: Annotated[str, one_of(clock.DOWNSAMPLES)] = "mean"
    delays: Annotated[
        tuple[int, ...], Rule("be >= 0", lambda x: len(x) and min(x) >= 0), differ
    ] = (0,)
    standardize: bool = True  # features to unit variance over the samples
    layers: Annotated[tuple[int, ...], differ] = ()  # of every network; (): all
    rois: Names = ()  # (): all
    # A units.npz of the stage localize: the units it chooses, of all layers, are compared as one
    # set. Its `unit_set` is "language" or "random".
    units: str = ""
    unit_set: Annotated[str, one_of(UNIT_SETS)] = "language"
    # Compare the layers of each network with one another too, by debiased CKA. All of them are in
    # memory then.
    layer_matrix: bool = True

    def __post_init__(self):
        check(self, "similarity")
        if self.units and self.layers:
            raise InputError(
                f"similarity.layers must be () with similarity.units, which has units of all "
                f"layers, got {self.layers}."
            )


class Shifted(NamedTuple):
    """Time series without their drifts, and the orders that shift features against them."""

    orders: Int[np.ndarray, "_ n"]  # the first leaves all in its place
    centred: core.Centred
    pairs: Float[np.ndarray, "g m"]  # inner products of samples; empty where CKA is not asked for
    rdms: dict[str, Float[np.ndarray, "g m"]]  # by measure, comparable


class Prepared(NamedTuple):
    """The responses' side of every comparison, prepared once for all layers."""

    keys: list[tuple[str, str]]  # subject, ROI
    num_targets: list[int]
    centred: core.Centred
    rdms: dict[str, Float[np.ndarray, "g m"]]  # by measure, comparable
    without_pattern: list[str]  # what is said of samples that leave them undefined
    shifted: Shifted | None  # None: of single stimuli


def plan(config: Config, job: Job, upstream: Upstream) -> list[Step]:
    """Plan one table for each network, with its own weights or random ones, and their report.

    Raises:
      InputError: if responses are missing or malformed, or a layer or ROI is not there.
    """
    simulated = responses_lib.planted("similarity", config.rois, upstream)
    if simulated:
        _check_delays(config, is_timed=False)  # they are of single stimuli
        n = len(job.dataset.stimuli)
    else:
        n = len(_checked(config, job).run)
    if config.units and not pathlib.Path(config.units).is_file():
        raise InputError(f"similarity.units must name a file, found {config.units!r}.")
    settings = _settings(config, job, is_planted=bool(simulated))
    steps = []
    if config.units and artefacts.imported(upstream):
        raise InputError(
            "similarity.units must be '' with imported activations, which no localiser has read: "
            f"got {config.units!r}."
        )
    for stores in (artefacts.networks(upstream), artefacts.untrained(upstream)):
        for source in stores.values():
            source.check_layers("similarity", config.layers)
            _mask(config, source)
            layers = 1 if config.units else len(config.layers or source.layers)
            artefact = Artefact(
                workdir=job.root,
                stage="similarity",
                kind=Similarity.kind,
                name=source.artefact.name,
                settings=settings | _layers(config, source),
                inputs=(source.artefact, *simulated),
                cost=f"{layers} layers, {n} samples, {n * (n - 1) // 2} pairs",
            )
            make = functools.partial(_compare, config, job, source)
            # Gram matrices of the samples and of their distances, in each layer.
            products = layers * 4.0 * n**2 * source.width
            taken = lambda layout, products=products, n=n: work.Work(
                flop={"sweep": products}, host_bytes=32.0 * n**2, disk_bytes=1e5, host_s=1.0
            )
            steps.append(Step(artefact=artefact, make=make, work=taken))
    page = Artefact(
        workdir=job.workdir,
        stage="similarity",
        kind=Page.kind,
        name="report",
        settings={"version": VERSION, "page": page_lib.VERSION},
        inputs=tuple(step.artefact for step in steps),
        cost="tables, charts, page",
        latest_only=True,
    )
    return [*steps, Step(artefact=page, make=_report, work=work.PAGE, shows=SUMMARY)]


def _settings(config: Config, job: Job, *, is_planted: bool) -> dict:
    """Return what fixes the values of every network."""
    found: dict[str, object] = {
        "version": VERSION,
        "dataset": job.dataset.name,
        "stimuli_hash": job.dataset.stimuli.hash,
        "responses_hash": "",
        "measures": list(config.measures),
        "delays": list(config.delays),
        "standardize": config.standardize,
    }
    if not is_planted:
        found["responses_hash"] = targets.of_rois(job.dataset.responses, config.rois).hash
    if set(config.measures) & set(RSA):
        found["comparison"] = config.comparison
    if not is_planted and job.dataset.responses.is_timed:
        found["downsample"] = config.downsample
        found |= {"num_shifts": NUM_SHIFTS, "seed": job.seed}
    return found


def _layers(config: Config, source: Activations) -> dict:
    """Return what fixes which units of a network are compared, and with one another."""
    if config.units:
        units_hash = run_dir.hash_file(pathlib.Path(config.units))
        return {"units_hash": units_hash, "unit_set": config.unit_set}
    return {"layers": list(config.layers or source.layers), "layer_matrix": config.layer_matrix}


def _mask(config: Config, source: Activations) -> Bool[np.ndarray, "L u"] | None:
    """Read which units are compared; None: all, layer by layer."""
    if not config.units:
        return None
    shape = (source.num_layers + 1, source.width)
    return localizer.read_units(pathlib.Path(config.units), config.unit_set, shape)


def _checked(config: Config, job: Job) -> Responses:
    """Return the recorded responses; refuse settings and stimuli that do not fit them."""
    responses = job.dataset.responses
    targets.checked(responses, config.rois, stage="similarity")
    _check_delays(config, is_timed=responses.is_timed)
    job.dataset.check_samples(responses, max(config.delays))
    return responses


def _check_delays(config: Config, *, is_timed: bool) -> None:
    if not is_timed and config.delays != (0,):
        raise InputError(
            f"similarity.delays must be (0,) for responses to single stimuli, got {config.delays}."
        )


def _compare(config: Config, job: Job, source: Activations, artefact: Artefact) -> dict:
    start = time.monotonic()
    responses = responses_lib.read(job, artefact)
    responses, left_out = targets.select(responses, config.rois)
    prepared = _prepare(config, job.seed, responses)
    common = {
        "dataset": job.dataset.name,
        **source.names,
        "num_layers": source.num_layers,
        **source.reading,
        **rows_lib.UNKNOWN_READING,
        **source.way,
        "units": config.unit_set if config.units else "all",
        "num_samples": len(responses.run),
        "fingerprint": artefact.fingerprint,
        "git_commit": run_dir.git_commit(),
    }
    rows, compared = [], {}
    said: list[str] = []  # of the first layer with a sample that has no pattern
    mask = _mask(config, source)
    onto = Placement(job.dataset.stimuli, responses, config.downsample, max(config.delays))
    layers = config.layers or source.layers
    layers = layers if mask is None else [report.ALL_LAYERS]
    for layer in progress.bar(layers, f"similarity {artefact.name}", "layers"):
        values = source.read_layer(layer) if mask is None else source.read_units(mask)
        X = _features(config, source, values, onto)
        said = said or _samples_without(config, X, responses, f"features of layer {layer}")
        centred = core.centre(X)
        if config.layer_matrix and mask is None:
            compared[layer] = centred
        nulls = _nulls(config, X, centred, prepared)
        named = source.layer_columns(layer) if mask is None else {}
        for measure, values in _measure(config, X, centred, prepared).items():
            for i, (key, num) in enumerate(zip(prepared.keys, prepared.num_targets, strict=True)):
                rows.append(
                    common
                    | named
                    | {
                        "layer": layer,
                        "subject": key[0],
                        "roi": key[1],
                        "measure": measure,
                        "comparison": config.comparison if measure in RSA else "",
                        "value": values[i],
                        "num_targets": num,
                    }
                    | {name: column[i] for name, column in nulls[measure].items()}
                )
    table = pd.DataFrame(rows)
    rows_lib.write_table(artefact.path / SCORES, table)
    rows_lib.write_table(artefact.path / MATRIX, _layer_matrix(compared, common))
    for remark in [*report.remarks(table), *prepared.without_pattern, *said]:
        logging.warning("similarity %s: %s", artefact.name, remark)
    return {
        "left_out": left_out,
        "num_nan": int(table.value.isna().sum()),
        "seconds": round(time.monotonic() - start, 3),
    }


def _layer_matrix(compared: dict[int, core.Centred], common: dict) -> pd.DataFrame:
    """Compare each layer with each: one row per pair, either way round."""
    reading = ("context", "pooling", "instruction", *rows_lib.READING)
    keys = ("dataset", "model", "control_of", *reading, "num_samples")
    rows = []
    for first, second in itertools.combinations_with_replacement(compared, 2):
        found = core.linear_cka(compared[first], compared[second])
        value = {"cka": float(found.biased[0]), "cka_debiased": float(found.debiased[0])}
        for pair in dict.fromkeys([(first, second), (second, first)]):
            rows.append({x: common[x] for x in keys} | {"layer": pair[0], "other": pair[1]} | value)
    return pd.DataFrame(rows, columns=[*keys, "layer", "other", *CKA])


def _prepare(config: Config, seed: int, responses: Responses) -> Prepared:
    """Standardise responses as encode does, with the group's mean, and prepare each ROI."""
    found = targets.assemble(responses)
    keys = list(zip(found.subject, found.roi, strict=True))
    sizes, codes = Counter(keys), np.array(_codes(keys))
    said = [
        remark
        for code, (key, size) in enumerate(sizes.items())
        if size > 1
        for remark in _samples_without(config, found.Y[:, codes == code], responses, ", ".join(key))
    ]
    return Prepared(
        list(sizes),
        list(sizes.values()),
        core.centre(found.Y, codes.tolist()),
        _rdms(config, found.Y, codes),
        said,
        _shifted(config, seed, responses, found.Y, codes) if responses.is_timed else None,
    )


def _rdms(config: Config, Y, codes: Int[np.ndarray, " v"]) -> dict[str, Float[np.ndarray, "g m"]]:
    """Return the RDMs of each ROI, in float32: all subjects and ROIs have to fit into memory."""
    found = {}
    for measure in config.measures:
        if measure in RSA:
            rdms = (_comparable(config, measure, Y[:, codes == x]) for x in range(max(codes) + 1))
            found[measure] = np.stack([rdm.astype(np.float32) for rdm in rdms])
    return found


def _shifted(config: Config, seed: int, responses: Responses, Y, codes) -> Shifted | None:
    """Draw shifts within runs, the same for all networks, and prepare what they are compared with.

    Responses lose their drifts, as in permutation tests: those do not join end to end. None where
    a run has a single sample.
    """
    run, rng = responses.run, np.random.default_rng(seed)
    if min(Counter(run).values()) < 2:
        return None
    shifts = orders_lib.draw_shifts(run, num=NUM_SHIFTS, rng=rng)
    orders = np.vstack([np.arange(len(run)), orders_lib.shift_orders(run, shifts)])
    steady = features.detrend(Y, run, responses.time_s)
    centred = core.centre(steady, codes.tolist())
    has_cka = bool(set(config.measures) & set(CKA))
    pairs = core.gram_pairs(centred) if has_cka else np.empty((0, 0), np.float32)
    return Shifted(orders, centred, pairs, _rdms(config, steady, codes))


def _samples_without(config: Config, patterns, responses: Responses, whose: str) -> list[str]:
    """Name the first sample of some patterns for which a distance is undefined."""
    said = []
    for distance, measure in zip(core.DISTANCES, RSA, strict=True):
        lost = np.flatnonzero(~core.has_pattern(patterns, distance))
        if measure not in config.measures or not len(lost) or patterns.shape[1] < 2:
            continue
        i = lost[0]
        name = f"stimulus_id {responses.stimulus_id[i]!r}" if responses.stimulus_id else ""
        name = name or f"the TR at {responses.time_s[i]:g} s of run {responses.run[i]!r}"
        said.append(
            f"{whose}: RSA ({distance}) is undefined, since {len(lost)} of {len(patterns)} samples "
            f"are the same in all units, first {name}: leave them out of the responses"
        )
    return said


def _codes(keys: Sequence[tuple[str, str]]) -> list[int]:
    place = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return [place[key] for key in keys]


def _comparable(config: Config, measure: str, patterns) -> Float[np.ndarray, " m"]:
    distance = core.DISTANCES[RSA.index(measure)]
    return core.comparable(core.rdm(patterns, distance), config.comparison)


def _features(config: Config, source: Activations, values, onto: Placement):
    """Bring one layer to the responses' samples, as encode does."""
    found = source.samples(values, onto)
    X = features.delay(found.values, found.run, config.delays)[found.recorded]
    return features.standardize(X, [""] * len(X)) if config.standardize else X


def _measure(
    config: Config, X, centred: core.Centred, prepared: Prepared
) -> dict[str, Float[np.ndarray, " g"]]:
    found = {}
    if set(config.measures) & set(CKA):
        cka = core.linear_cka(centred, prepared.centred)
        found = dict(zip(CKA, cka, strict=True))
    for measure, rdms in prepared.rdms.items():
        own = _comparable(config, measure, X)
        found[measure] = np.array([float(own @ other.astype(np.float64)) for other in rdms])
    return {measure: found[measure] for measure in config.measures}


def _nulls(
    config: Config, X, centred: core.Centred, prepared: Prepared
) -> dict[str, dict[str, np.ndarray]]:
    """Compare each measure with its values for features that are shifted within runs.

    Returns:
      By measure, the columns `detrended` (the value without drifts of the responses), `null_mean`,
      `p` and `num_shifts`, an entry per subject and ROI; NaN and 0 of single stimuli.
    """
    shifted, num = prepared.shifted, len(prepared.keys)
    if shifted is None:
        nothing = dict.fromkeys(("detrended", "null_mean", "p"), np.full(num, np.nan))
        return dict.fromkeys(config.measures, nothing | {"num_shifts": np.zeros(num, int)})
    values = {}
    if set(config.measures) & set(CKA):
        cka = core.cka_in_orders(centred, shifted.centred, shifted.pairs, shifted.orders)
        values = dict(zip(CKA, cka, strict=True))
    for measure, rdms in shifted.rdms.items():
        own = _comparable(config, measure, X)
        values[measure] = core.dots_in_orders(own, rdms, shifted.orders)
    found = {}
    for measure in config.measures:
        detrended, nulls = values[measure][0], values[measure][1:]
        tested = stats.compare(detrended, nulls, rounding=_ROUNDING)
        found[measure] = {"detrended": detrended, "null_mean": tested.null_mean, "p": tested.p}
        found[measure]["num_shifts"] = np.full(num, len(nulls))
    return found


def _report(artefact: Artefact) -> dict:
    """Lay out the values of all networks as a page."""
    read = lambda name: pd.concat(
        [rows_lib.read_table(x.path / name) for x in artefact.inputs], ignore_index=True
    )
    scores, matrix = read(SCORES), read(MATRIX)
    left_out = sorted({s for x in artefact.inputs for s in x.facts()["left_out"]})
    provenance = page_lib.provenance(artefact, scores.git_commit.iloc[0])
    named = map(tables.names_with_instructions, (scores, matrix))
    page = report.page(*named, left_out, provenance)
    return {"num_rows": len(scores), "files": page.write(artefact.path, parquet=True)}
