"""Activations x responses -> CKA and RSA of every layer, without fitting, as a tidy table."""

import dataclasses
import functools
import pathlib
import time
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from absl import logging
from jaxtyping import Bool, Float
from tqdm import tqdm

from jaxalign.core import features
from jaxalign.core import similarity as core
from jaxalign.data import localizer, samples, targets
from jaxalign.data.schema import GROUP, Responses
from jaxalign.errors import InputError
from jaxalign.io import run_dir, store
from jaxalign.io.run_dir import Artefact
from jaxalign.stages import (
    Job,
    Step,
    Upstream,
    check_layers,
    given,
    layer_numbers,
    networks,
    read_layer,
    untrained,
)

VERSION = 1
SCORES = "scores.csv"
SUMMARY = "summary.txt"
PLANTED = "responses.npz"  # as the simulate stage names it
UNIT_SETS = ("language", "random")
ALL_LAYERS = -1  # in the place of a layer: units chosen from all of them
DOWNSAMPLE = ("mean", "sum", "lanczos")
CKA = ("cka", "cka_debiased")
RSA = tuple(f"rsa_{distance}" for distance in core.DISTANCES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the similarity stage; those that encode has too mean the same."""

    measures: tuple[str, ...] = (*CKA, *RSA)
    comparison: str = "spearman"  # of RDMs; or "pearson"
    downsample: str = "mean"
    delays: tuple[int, ...] = (0,)
    standardize: bool = True  # features to unit variance over the samples
    layers: tuple[int, ...] = ()  # of every network; (): all
    rois: tuple[str, ...] = ()  # (): all
    # A units.npz of the stage localize: the units it chooses, of all layers, are compared as one
    # set. Its `unit_set` is "language" or "random".
    units: str = ""
    unit_set: str = "language"

    def __post_init__(self):
        if unknown := set(self.measures) - {*CKA, *RSA}:
            raise InputError(
                f"similarity.measures must be among {', '.join((*CKA, *RSA))}, "
                f"got {min(unknown)!r}."
            )
        if not self.measures:
            raise InputError("similarity.measures must name at least one, got none.")
        if self.units and self.layers:
            raise InputError(
                f"similarity.layers must be () with similarity.units, which has units of all "
                f"layers, got {self.layers}."
            )
        for name, allowed in (
            ("comparison", core.COMPARISONS),
            ("downsample", DOWNSAMPLE),
            ("unit_set", UNIT_SETS),
        ):
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"similarity.{name} must be one of {', '.join(allowed)}, "
                    f"got {getattr(self, name)!r}."
                )
        if not self.delays or min(self.delays) < 0:
            raise InputError(f"similarity.delays must be >= 0, got {self.delays}.")
        for name in ("measures", "delays", "layers", "rois"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise InputError(f"similarity.{name} must differ, got {getattr(self, name)}.")


class Goals(NamedTuple):
    """The responses' side of every comparison, prepared once for all layers."""

    keys: list[tuple[str, str]]  # subject, ROI
    num_targets: list[int]
    centred: core.Centred
    rdms: dict[str, list[Float[np.ndarray, " m"]]]  # by measure and key, comparable


def plan(config: Config, job: Job, upstream: Upstream) -> list[Step]:
    """Plan one table for each network, with its own weights or random ones.

    Raises:
      InputError: if responses are missing or malformed, or a layer or ROI is not there.
    """
    simulated = upstream.get("simulate", ())
    if simulated:
        if config.rois:
            raise InputError(
                f"similarity.rois must be () for simulated responses, got {config.rois}."
            )
        n = len(job.dataset.stimuli)
    else:
        n = len(_checked(config, job).run)
    settings = {"version": VERSION, "seed": job.seed} | dataclasses.asdict(config)
    settings["responses_hash"] = "" if simulated else job.dataset.hash
    if config.units and not pathlib.Path(config.units).is_file():
        raise InputError(f"similarity.units must name a file, found {config.units!r}.")
    settings["units_hash"] = run_dir.hash_file(pathlib.Path(config.units)) if config.units else ""
    steps = []
    if config.units and given(upstream):
        raise InputError(
            "similarity.units must be '' with imported activations, which no localiser has read: "
            f"got {config.units!r}."
        )
    for stores in (networks(upstream), untrained(upstream)):
        for model, source in stores.items():
            check_layers("similarity", config.layers, source)
            _mask(config, source)
            random = source.settings["untrained_seed"] >= 0
            layers = 1 if config.units else len(config.layers or layer_numbers(source))
            artefact = Artefact(
                workdir=job.workdir,
                stage="similarity",
                name=model + (" untrained" if random else ""),
                settings=settings,
                inputs=(source, *simulated),
                cost=f"{layers} layers, {n} samples, {n * (n - 1) // 2} pairs",
            )
            make = functools.partial(_compare, config, job)
            steps.append(Step(artefact=artefact, make=make, shows=SUMMARY))
    return steps


def _mask(config: Config, source: Artefact) -> Bool[np.ndarray, "L u"] | None:
    """Read which units are compared; None: all, layer by layer."""
    if not config.units:
        return None
    shape = (source.settings["num_layers"] + 1, source.settings["width"])
    return localizer.read_units(pathlib.Path(config.units), config.unit_set, shape)


def _read(source: Artefact, layer: int, mask) -> Float[np.ndarray, "m u"]:
    """Read a layer, or the chosen units of all."""
    if mask is None:
        return read_layer(source, layer)
    opened = store.open_artefact(source)
    chosen = [opened.read_layer(i)[:, units] for i, units in enumerate(mask) if units.any()]
    return np.concatenate(chosen, axis=1)


def _checked(config: Config, job: Job) -> Responses:
    """Return the recorded responses; refuse settings and stimuli that do not fit them."""
    responses, stimuli = job.dataset.responses, job.dataset.stimuli
    if unknown := [roi for roi in config.rois if roi not in responses.roi]:
        raise InputError(
            f"similarity.rois must be among {', '.join(dict.fromkeys(responses.roi))}, "
            f"got {unknown[0]!r}."
        )
    if not targets.select(responses, config.rois)[0].subject:
        raise InputError("responses must vary: every target is constant.")
    if responses.is_timed and not stimuli.is_timed:
        raise InputError("responses are timed, so stimuli must have onset_s and offset_s.")
    if not responses.is_timed and config.delays != (0,):
        raise InputError(
            f"similarity.delays must be (0,) for responses to single stimuli, got {config.delays}."
        )
    known = set(stimuli.run if responses.is_timed else stimuli.stimulus_id)
    kind, wanted = (
        ("run", responses.run) if responses.is_timed else ("stimulus_id", responses.stimulus_id)
    )
    if lost := [x for x in wanted if x not in known]:
        raise InputError(
            f"responses: every {kind} must be one of the stimuli's, found {lost[0]!r}."
        )
    return responses


def _compare(config: Config, job: Job, artefact: Artefact) -> dict:
    start = time.monotonic()
    source, *simulated = artefact.inputs
    responses = Responses.load(simulated[0].path / PLANTED) if simulated else job.dataset.responses
    responses, left_out = targets.select(responses, config.rois)
    goals = _goals(config, job, responses)
    random = source.settings["untrained_seed"] >= 0
    common = {
        "dataset": job.dataset.name,
        "model": "untrained" if random else source.settings["model"],
        "control_of": source.settings["model"] if random else "",
        "num_layers": source.settings["num_layers"],
        "context": source.settings["context"],
        "pooling": source.settings["pooling"],
        "units": config.unit_set if config.units else "all",
        "num_samples": len(responses.run),
        "fingerprint": artefact.fingerprint,
        "git_commit": run_dir.git_commit(),
    }
    rows = []
    mask = _mask(config, source)
    layers = config.layers or layer_numbers(source)
    layers = layers if mask is None else [ALL_LAYERS]
    for layer in tqdm(layers, desc=f"similarity {artefact.name}", unit=" layers", mininterval=1.0):
        X = _features(config, job, source, responses, _read(source, layer, mask))
        for measure, values in _measure(config, X, goals).items():
            for key, num, value in zip(goals.keys, goals.num_targets, values, strict=True):
                rows.append(
                    common
                    | {
                        "layer": layer,
                        "subject": key[0],
                        "roi": key[1],
                        "measure": measure,
                        "comparison": config.comparison if measure in RSA else "",
                        "value": value,
                        "num_targets": num,
                    }
                )
    table = pd.DataFrame(rows)
    text = table.to_csv(index=False, na_rep="nan", lineterminator="\n")
    run_dir.write_atomic(artefact.path / SCORES, text.encode())
    remarks = _remarks(table)
    for remark in remarks:
        logging.warning("similarity %s: %s", artefact.name, remark)
    summary = _summary(config, artefact, table, remarks)
    run_dir.write_atomic(artefact.path / SUMMARY, summary.encode())
    return {
        "left_out": left_out,
        "num_nan": int(table.value.isna().sum()),
        "seconds": round(time.monotonic() - start, 3),
    }


def _goals(config: Config, job: Job, responses: Responses) -> Goals:
    """Standardise responses as encode does, with the group's mean, and prepare each ROI."""
    found = targets.assemble(
        responses,
        [np.arange(len(responses.run))],
        num_splits=1,
        rng=np.random.default_rng(job.seed),
    )
    keys = list(zip(found.subject, found.roi, strict=True))
    sizes = Counter(keys)
    rdms = {}
    for measure in config.measures:
        if measure in RSA:
            # In float32: all subjects and ROIs have to fit into memory.
            rdms[measure] = [
                _comparable(config, measure, found.Y[:, [key == x for x in keys]]).astype(
                    np.float32
                )
                for key in sizes
            ]
    return Goals(list(sizes), list(sizes.values()), core.centre(found.Y, _codes(keys)), rdms)


def _codes(keys: Sequence[tuple[str, str]]) -> list[int]:
    place = {key: i for i, key in enumerate(dict.fromkeys(keys))}
    return [place[key] for key in keys]


def _comparable(config: Config, measure: str, patterns) -> Float[np.ndarray, " m"]:
    distance = core.DISTANCES[RSA.index(measure)]
    return core.comparable(core.rdm(patterns, distance), config.comparison)


def _features(config: Config, job: Job, source: Artefact, responses: Responses, values):
    """Bring one layer to the responses' samples, as encode does."""
    stimuli = job.dataset.stimuli
    row = {name: i for i, name in enumerate(store.stimulus_ids(source))}
    values = values.astype(np.float64)[[row[name] for name in stimuli.stimulus_id]]
    lead = max(config.delays)
    found = samples.from_stimuli(values, stimuli, responses, method=config.downsample, lead=lead)
    X = features.delay(found.values, found.run, config.delays)[found.recorded]
    return features.standardize(X, [""] * len(X)) if config.standardize else X


def _measure(config: Config, X, goals: Goals) -> dict[str, Float[np.ndarray, " g"]]:
    found = {}
    if set(config.measures) & set(CKA):
        cka = core.linear_cka(core.centre(X), goals.centred)
        found = dict(zip(CKA, cka, strict=True))
    for measure, rdms in goals.rdms.items():
        own = _comparable(config, measure, X)
        found[measure] = np.array([float(own @ other.astype(np.float64)) for other in rdms])
    return {measure: found[measure] for measure in config.measures}


def _remarks(table: pd.DataFrame) -> list[str]:
    """Say what is undefined, and why."""
    found = []
    undefined = table[table.value.isna()]
    single = undefined[undefined.measure.isin(RSA) & (undefined.num_targets == 1)]
    if len(single):
        found.append(
            f"RSA is undefined in {len(single[['subject', 'roi']].drop_duplicates())} of "
            f"{len(table[['subject', 'roi']].drop_duplicates())} subjects and ROIs: one target "
            "is no pattern."
        )
    if len(undefined) > len(single):
        found.append(
            f"{len(undefined) - len(single)} of {len(table)} values are undefined: features or "
            "responses are constant, or samples too few."
        )
    return found


def _summary(
    config: Config, artefact: Artefact, table: pd.DataFrame, remarks: Sequence[str]
) -> str:
    """Name the best layer of each ROI and measure: for the group, or the mean over subjects."""
    what = f"{config.unit_set} units" if config.units else "best layers"
    lines = ["", f"Similarity of {artefact.name} with {table.dataset.iloc[0]}, {what}:"]
    own = table[table.subject == GROUP]
    who = "the group's mean response"
    if own.value.isna().all():
        own, who = table[table.subject != GROUP], "mean over subjects"
    layers = own.groupby(["roi", "measure", "layer"], sort=False).value.mean().reset_index()
    for roi, part in layers.groupby("roi", sort=False):
        cells = []
        for measure in config.measures:
            values = part[part.measure == measure].set_index("layer").value.dropna()
            where = "" if config.units else f" (layer {values.idxmax()})" if len(values) else ""
            best = f"{values.max():.3f}{where}" if len(values) else "undefined"
            cells.append(f"{measure} {best}")
        lines.append(f"  {roi}: " + ", ".join(cells))
    caution = "" if config.units else "; a maximum over layers is optimistic"
    lines.append(f"  Of {who}{caution}.")
    return "\n".join([*lines, *(f"  {remark}" for remark in remarks)]) + "\n"
