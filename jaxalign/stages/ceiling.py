"""Responses -> every noise ceiling that they allow, with intervals; no model is needed."""

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Sequence
from typing import Annotated

import numpy as np
import pandas as pd
from absl import logging
from sklearn.model_selection import ShuffleSplit

from jaxalign import progress
from jaxalign.checks import (
    Count,
    Names,
    NotNegative,
    Rule,
    among,
    at_least,
    check,
    differ,
    one_of,
    open_unit,
    some,
)
from jaxalign.core import features, folds
from jaxalign.core.ceilings import ceiling, isc, isc_null, shared_targets
from jaxalign.core.inference.resampling import Bootstrap
from jaxalign.data import samples
from jaxalign.data.presentations import SignalToNoise
from jaxalign.data.schema import Responses, Stimuli
from jaxalign.errors import InputError
from jaxalign.io import rows as rows_lib
from jaxalign.io import run_dir
from jaxalign.io.place import Place
from jaxalign.io.run_dir import Artefact
from jaxalign.pricing import work
from jaxalign.reporting import page as page_lib
from jaxalign.reporting.page import SUMMARY
from jaxalign.reporting.pages import ceilings as report
from jaxalign.results import ceilings, finished, repeats, targets
from jaxalign.results import curves as ceiling_curves
from jaxalign.results.ceilings import Kind, Shared
from jaxalign.stages import Job, Step, Upstream
from jaxalign.stages import responses as responses_lib
from jaxalign.stages.artefacts import Ceilings, Page

VERSION = 6  # intervals of extrapolations end at 1
TABLE = "ceilings.csv"
ISC, LEAVE_ONE_OUT, SPLIT_HALF, EXTRAPOLATION, REPEATS, PUBLISHED = KINDS = (
    *("isc", "leave_one_out", "split_half", "extrapolation", "repeats", "published"),
)
# Settings that only some kinds of ceilings read.
OF_BLOCKS = ("splits", "num_folds", "gap", "groups")
USED_BY = {
    **dict.fromkeys(OF_BLOCKS, (LEAVE_ONE_OUT, EXTRAPOLATION)),
    **dict.fromkeys(("null", "num_nulls"), (ISC,)),
    **dict.fromkeys(("alphas", "subsets_per_subject", "num_sizes", "num_curves"), (EXTRAPOLATION,)),
    "num_splits": (SPLIT_HALF,),
    "num_resamples": (SPLIT_HALF, EXTRAPOLATION, REPEATS),
    "block": (SPLIT_HALF, REPEATS),
}
SPLITS = ("contiguous", "shuffled")
GROUPS = ("none", "passage")
NULLS = ("shift", "phase")
ONE_SUBJECT = "needs at least 2 subjects, there is one"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the ceiling stage."""

    kinds: Annotated[Names, among(KINDS), some("hold at least one")] = KINDS
    rois: Names = ()  # (): all
    confidence: Annotated[float, open_unit] = 0.95
    num_resamples: Count = 1000  # bootstraps of intervals over samples, and of single targets
    block: Count = 10  # samples of a run that are resampled together, by split_half and repeats
    # isc: nulls, and how series are moved apart: circular shifts of each run, or random phases.
    null: Annotated[str, one_of(NULLS)] = "shift"
    num_nulls: Count = 1000
    # split_half: random halves of the subjects.
    num_splits: Count = 100
    # leave_one_out and extrapolation: test blocks as of encode, or the ten random tenths that
    # Brain-Score draws, which neighbours of a sample leak into.
    splits: Annotated[str, one_of(SPLITS)] = "contiguous"
    num_folds: Annotated[int, at_least(3)] = 6
    gap: NotNegative = 0  # samples dropped from training on either side of a test block
    groups: Annotated[str, one_of(GROUPS)] = "none"  # "passage": blocks never divide one
    # extrapolation: one penalty for all regressions, or several, of which leaving out single
    # samples chooses; (0.0,) is least squares, as published. Responses are standardised.
    alphas: Annotated[
        tuple[float, ...],
        some("hold at least one"),
        differ,
        Rule("be >= 0 and finite", lambda x: min(x) >= 0),
    ] = (1000.0,)
    subsets_per_subject: Count = 10  # of each size; with fewer, all
    # Sizes of subsets, spread evenly on a logarithmic scale; with fewer, all.
    num_sizes: Annotated[int, at_least(2)] = 9
    num_curves: Count = 100  # bootstraps of curves

    def __post_init__(self):
        check(self, "ceiling")


def plan(config: Config, job: Job, upstream: Upstream) -> list[Step]:
    """Plan the one table of ceilings, and its page, which is made again without them.

    Raises:
      InputError: if responses are missing or malformed, an ROI is not there, samples do not suffice
        for the blocks, or the data set has none of the kinds: no second subject and no repeat.
    """
    simulated = responses_lib.planted("ceiling", config.rois, upstream)
    _check_kinds(config, job, is_planted=bool(simulated))
    settings = _settings(config, job, is_planted=bool(simulated))
    if simulated:
        planted, stimuli = simulated[0].settings, job.dataset.stimuli
        s, v, n = planted["num_subjects"], planted["num_targets"], len(stimuli)
        _splits(config, stimuli.run, stimuli.passage, n)
    else:
        responses, left_out = targets.checked(job.dataset.responses, config.rois, stage="ceiling")
        for subject in left_out:
            logging.warning("ceiling: subject %s is left out: every target is constant", subject)
        s, v, n = len(set(responses.subject)), len(responses.subject), len(responses.run)
        _splits(config, responses.run, _passages(config, job, responses), n)
        published = _published(config, job)
        if s < 2 and not published and not (job.dataset.has_repeats and REPEATS in config.kinds):
            raise InputError(
                f"ceiling needs at least 2 subjects, or repeats of stimuli: data set "
                f"{job.dataset.name} has {s} that varies, and repeats are "
                + ("not among ceiling.kinds." if job.dataset.has_repeats else "not known.")
            )
    artefact = Artefact(
        workdir=job.root,
        stage="ceiling",
        kind=Ceilings.kind,
        name=job.dataset.name,
        settings=settings,
        inputs=simulated,
        cost=f"{s} subjects, {v} targets, {n} samples; {', '.join(config.kinds)}",
    )
    page = Artefact(
        workdir=job.workdir,
        stage="ceiling",
        kind=Page.kind,
        name="report",
        settings={"version": VERSION, "page": page_lib.VERSION},
        inputs=(artefact,),
        cost="tables, charts, page",
        latest_only=True,
    )
    write = functools.partial(_report, config)
    return [
        Step(
            artefact=artefact,
            make=functools.partial(_make, config, job),
            work=work.TABLES,
        ),
        Step(artefact=page, make=write, work=work.PAGE, shows=SUMMARY),
    ]


def _settings(config: Config, job: Job, *, is_planted: bool) -> dict:
    """Return what fixes the table: of settings those of the kinds of ceilings that are found."""
    found: dict[str, object] = {
        "version": VERSION,
        "rows_schema": rows_lib.SCHEMA_VERSION,
        "dataset": job.dataset.name,
        "seed": job.seed,
        "responses_hash": "",
    }
    # The ceiling of a signal that was planted has test blocks, too.
    has_signal = is_planted or job.dataset.responses.signal.size > 0
    for name, value in dataclasses.asdict(config).items():
        kinds = KINDS if has_signal and name in OF_BLOCKS else USED_BY.get(name, KINDS)
        if name != "rois" and set(kinds) & set(config.kinds):
            found[name] = value
    # Most data sets publish no ratios: to ask for them is to ask for nothing.
    published = [] if is_planted else _published(config, job)
    if not published:
        found["kinds"] = [kind for kind in config.kinds if kind != PUBLISHED]
    else:
        found["published_hash"] = run_dir.hash_text(
            "".join(_hash(x.ratio) + _hash(x.tested) for x in published)
        )
        found["rois"] = sorted(config.rois)
    if found.get("groups", "none") != "none":
        found["passages_hash"] = run_dir.hash_text(json.dumps(list(job.dataset.stimuli.passage)))
    if not is_planted:
        found["responses_hash"] = targets.of_rois(job.dataset.responses, config.rois).hash
        if REPEATS in config.kinds and job.dataset.has_repeats:
            found["repeats_hash"] = job.dataset.hash
            found["rois"] = sorted(config.rois)
    return found


def _check_kinds(config: Config, job: Job, *, is_planted: bool) -> None:
    """Refuse kinds of which the data set can have none."""
    of_data = {
        REPEATS: (job.dataset.has_repeats, "repeats of stimuli apart"),
        PUBLISHED: (job.dataset.has_ncsnr, "published ratios of signal and noise"),
    }
    lacks = [of_data[x][1] for x in config.kinds if x in of_data and not of_data[x][0]]
    if len(lacks) == len(config.kinds) or (is_planted and set(config.kinds) <= set(of_data)):
        raise InputError(
            f"ceiling.kinds must hold one that data set {job.dataset.name} has: it has no "
            f"{' and no '.join(lacks) or 'recordings'}."
        )


def _published(config: Config, job: Job) -> list[SignalToNoise]:
    """Return the published ratios of each subject, if they are asked for and are there."""
    if PUBLISHED not in config.kinds or not job.dataset.has_ncsnr:
        return []
    return [job.dataset.ncsnr(x) for x in dict.fromkeys(job.dataset.responses.subject)]


def _hash(values: np.ndarray) -> str:
    return run_dir.hash_text(f"{values.dtype} {values.tolist()}")


def _passages(config: Config, job: Job, responses: Responses) -> Sequence[str]:
    if config.groups == "none":
        return ()
    if responses.is_timed:
        raise InputError(
            f"ceiling.groups must be 'none' for timed responses, got {config.groups!r}."
        )
    stimuli: Stimuli = job.dataset.stimuli
    if lost := set(responses.stimulus_id) - set(stimuli.stimulus_id):
        raise InputError(
            f"responses: every stimulus_id must be one of the stimuli's, found {min(lost)!r}."
        )
    return samples.passages(stimuli, responses)


def _splits(config: Config, run: Sequence[str], passages: Sequence[str], n: int):
    """Return training and test samples; of contiguous ones the test sets are the blocks."""
    try:
        if config.splits == "shuffled":
            splitter = ShuffleSplit(10, train_size=0.9, random_state=1)
            return folds.splits(splitter, n)
        groups = passages if config.groups == "passage" else None
        found = folds.contiguous_folds(run, config.num_folds, gap=config.gap, groups=groups)
    except ValueError as error:
        raise InputError(f"ceiling: {error}") from error
    return tuple(fold.outer for fold in found)


def _make(config: Config, job: Job, artefact: Artefact) -> dict:
    start = time.monotonic()
    recorded = responses_lib.read(job, artefact)
    responses, left_out = targets.checked(recorded, config.rois, stage="ceiling")
    parts = _parts(config, job, responses, artefact)
    provenance = {
        "dataset": job.dataset.name,
        "num_samples": len(responses.run),
    } | finished.provenance(artefact.fingerprint, "jax", "jaxlib", "numpy", "scipy")
    tables = []
    for name, part in progress.bar(parts.items(), f"ceiling {artefact.name}", "kinds"):
        path = artefact.path / f"{name}.parquet"
        if not _is_there(path):
            finished.write(path, part(), provenance, rows_lib.CEILINGS)
        tables.append(rows_lib.read(path))
    table = pd.concat([x for x in tables if len(x)], ignore_index=True)
    rows_lib.write(artefact.path / Ceilings.ROWS, table.to_dict("records"), rows_lib.CEILINGS)
    short = table.drop(columns=["schema_version", "versions"])
    text = short.to_csv(index=False, na_rep="nan", lineterminator="\n")
    run_dir.write_atomic(artefact.path / TABLE, text.encode())
    return {
        "left_out": left_out,
        "num_nan": int(table.value.isna().sum()),
        "seconds": round(time.monotonic() - start, 3),
    }


def _is_there(path: Place) -> bool:
    """Whether an interrupted run has left a part, which can be read."""
    if not path.is_file():
        return False
    try:
        rows_lib.read(path)
    except InputError as error:
        logging.warning("ceiling: %s: made again", error)
        return False
    return True


def _report(config: Config, artefact: Artefact) -> dict:
    """Lay out the ceilings as a page."""
    [source] = artefact.inputs
    table = rows_lib.read(source.path / Ceilings.ROWS)
    curves = source.path / ceiling_curves.CURVES
    curves = rows_lib.read_table(curves) if rows_lib.has_table(curves) else None
    found = report.Found(table, curves, source.facts()["left_out"], config.confidence)
    row = table.iloc[0]
    page = report.page(found, page_lib.provenance(artefact, row.git_commit, row.versions))
    return {"num_rows": len(table), "files": page.write(artefact.path)}


def _parts(
    config: Config, job: Job, responses: Responses, artefact: Artefact
) -> dict[str, Callable[[], list[dict]]]:
    """Return what makes the rows of each kind; draws do not depend on which kinds are asked for."""
    data = ceilings.shared(responses)
    runs = targets.runs_of(responses)
    bootstrap = lambda kind: Bootstrap(
        np.random.default_rng([job.seed, KINDS.index(kind)]),
        config.confidence,
        config.num_resamples,
    )
    passages = _passages(config, job, responses)
    splits = _splits(config, responses.run, passages, len(runs))
    extrapolated = functools.partial(
        ceiling_curves.rows,
        responses,
        splits,
        bootstrap(EXTRAPOLATION),
        ceiling_curves.Extrapolate(
            config.alphas, config.subsets_per_subject, config.num_sizes, config.num_curves
        ),
        folder=artefact.path,
        progress=functools.partial(progress.bar, what="subsets", unit="chunks"),
    )
    every: dict[str, Callable[[], list[dict]]] = {
        ISC: lambda: _isc(config, data, runs, bootstrap(ISC)),
        LEAVE_ONE_OUT: lambda: _leave_one_out(config, data, splits),
        SPLIT_HALF: lambda: _split_half(config, data, runs, bootstrap(SPLIT_HALF)),
        EXTRAPOLATION: extrapolated,
        REPEATS: lambda: _repeats(
            config, job, responses, bool(artefact.inputs), bootstrap(REPEATS)
        ),
    }
    if artefact.inputs or not (published := _published(config, job)):
        logging.info("ceiling: data set %s publishes no ratios of noise", job.dataset.name)
    else:
        columns = set(zip(responses.subject, responses.roi, responses.target, strict=True))
        every[PUBLISHED] = lambda: [
            row
            for found in published
            for row in repeats.of_published(
                found, {(roi, target) for who, roi, target in columns if who == found.subject}
            )
        ]
    parts = {kind: every[kind] for kind in config.kinds if kind in every}
    if responses.signal.size:
        parts["signal"] = lambda: repeats.of_signal(responses, [split.test for split in splits])
    return parts


def _isc(config: Config, data: Shared, runs: Sequence[str], how: Bootstrap) -> list[dict]:
    kinds = [_over_subjects("isc_leave_one_out"), _over_subjects("isc_pairwise")]
    if len(data.subject) < 2:
        return [x for kind in kinds for x in _alone(kind, data)]
    values = isc.leave_one_out(data.Y)
    left_out = ceiling.without_each_subject(data.Y, [np.arange(data.Y.shape[2])])
    rows = [ceilings.over_subjects(kinds[0], values, left_out, data, how.confidence)]
    pairs = isc.pairwise(data.Y)
    found = isc.over_pairs(pairs, len(data.subject), confidence=how.confidence)
    means, _ = ceilings.by_roi(pairs, data.roi)
    rois = isc.over_pairs(means, len(data.subject), confidence=how.confidence)
    rows.append(ceilings.of_targets(kinds[1], found, data.whose, rois=rois))
    if not data.roi:
        return rows[0] + rows[1]
    for own, is_pairs in zip(rows, (False, True), strict=True):
        nulls = isc_null.draw(
            data.Y,
            runs,
            isc_null.Moves(config.null, config.num_nulls, how.rng),
            pairs=is_pairs,
            progress=functools.partial(progress.bar, what="nulls of ISC", unit="draws"),
        )
        # Over subjects as over targets: those that are undefined are left out.
        mean = ceilings.by_roi(values.T, [""] * len(values))[0][:, 0]
        observed = found.value if is_pairs else mean
        ceilings.add_significance(own, observed, nulls, data)
    return rows[0] + rows[1]


def _over_subjects(name: str) -> Kind:
    return Kind(name, interval=ceilings.OVER_SUBJECTS, remark=ceilings.FEW_SUBJECTS)


def _alone(kind: Kind, data: Shared) -> list[dict]:
    return ceilings.undefined_rois(kind, data, ONE_SUBJECT)


def _leave_one_out(config: Config, data: Shared, splits: Sequence[folds.Split]) -> list[dict]:
    kind = _over_subjects("leave_one_subject_out")
    if len(data.subject) < 2:
        return _alone(kind, data)
    blocks = [split.test for split in splits]
    values = ceiling.leave_one_subject_out(data.Y, blocks)
    left_out = ceiling.without_each_subject(data.Y, blocks)
    return ceilings.over_subjects(kind, values, left_out, data, config.confidence)


def _split_half(config: Config, data: Shared, runs: Sequence[str], how: Bootstrap) -> list[dict]:
    kinds = [
        Kind("split_half", "reliability"),
        Kind("split_half_root", remark="constant, or a reliability that does not differ from 0"),
    ]
    if len(data.subject) < 2:
        return [x for kind in kinds for x in _alone(kind, data)]
    seed = how.rng.integers(2**63)
    places = list(features.members(data.roi).values())
    r = np.full((1 + config.num_resamples, len(data.roi)), np.nan)
    share, value = np.full(len(data.roi), np.nan), np.full((3, len(data.roi)), np.nan)
    # Halves are of the subjects in whom a target varies: mostly all, and so once.
    for own, people in shared_targets.divide(data.varies.T):
        rng = np.random.default_rng(seed)  # the same resamples of all targets
        part = ceiling.split_half(
            data.Y[np.ix_(people, own)],
            ceiling.random_halves(len(people), config.num_splits, rng),
            how._replace(rng=rng, blocks=repeats.blocks(runs, config.block)),
        )
        r[:, own], share[own], value[:, own] = part.r, part.share, part.reliability[:3]
    whole = ceiling.Ceiling(*value, data.varies.sum(axis=0))
    of_each, rois = ceiling.roots(ceiling.SplitHalf(whole, r, share), places, how.confidence)
    rois = rois._replace(num=np.full(len(places), len(data.subject)))
    return [
        *ceilings.of_targets(kinds[0], whole, data.whose),
        *ceilings.of_targets(kinds[1], of_each, data.whose, rois=rois),
    ]


def _repeats(
    config: Config, job: Job, responses: Responses, is_simulated: bool, how: Bootstrap
) -> list[dict]:
    """Ceilings of each subject's own repeats; no rows where a data set does not have them apart."""
    if is_simulated or not job.dataset.has_repeats:
        logging.info("ceiling: data set %s has no repeats apart", job.dataset.name)
        return []
    return [
        row
        for subject in dict.fromkeys(responses.subject)
        for row in repeats.rows(job.dataset.repeats(subject), config.block, how, rois=config.rois)
    ]
