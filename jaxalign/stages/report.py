"""Score rows, and what is known of models -> tables, charts and one HTML page."""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from jaxalign.checks import check
from jaxalign.data.synthetic import planted_instructions
from jaxalign.errors import InputError
from jaxalign.io import rows as rows_lib
from jaxalign.io import run_dir
from jaxalign.io.run_dir import Artefact
from jaxalign.literature import properties, protocols, published
from jaxalign.pricing import work
from jaxalign.reporting import findings, tables
from jaxalign.reporting import page as page_lib
from jaxalign.reporting.findings import instructions, training
from jaxalign.reporting.html import Figure
from jaxalign.reporting.page import SUMMARY
from jaxalign.reporting.run import brain, brain_maps, build, exports, normalized
from jaxalign.reporting.run.contents import Contents, Instructions
from jaxalign.results import finished
from jaxalign.stages import Job, Step, Upstream, artefacts
from jaxalign.stages.artefacts import (
    CollectedScores,
    Comparison,
    Page,
    Partition,
    Properties,
    Rows,
    Scores,
    Significance,
    SimulatedInstructions,
    Tuning,
)
from jaxalign.stages.responses import PlantedResponses

VERSION = 18
INSTRUCTIONS = "oota2025/instructions"  # their texts and short names
MOST_VIEWS = 6  # of brains, half a second each


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the report stage."""

    title: str = "Brain alignment"
    # Of the comparison of models, which needs the stage properties; see reporting/findings.
    paper: str = ""  # whose printed numbers are held against its tables: "aw2024", "oota2025"
    apart: tuple[str, ...] = ()  # families that pooled numbers leave out, unless they name them
    predictors: tuple[str, ...] = ()  # properties to correlate with; (): all that vary
    instruction: str = ""  # whose scores count where a model was given several
    num_resamples: int = 9999
    track: str = (
        ""  # "mlflow" or "wandb", which the report is logged to; see reporting/run/exports.py
    )

    def __post_init__(self):
        check(self, "report")
        _options(self, 0)  # checks them


def _options(config: Config, seed: int) -> findings.Options:
    return findings.Options(
        paper=config.paper,
        apart=tuple(config.apart),
        predictors=tuple(config.predictors),
        instruction=config.instruction,
        num_resamples=config.num_resamples,
        seed=seed,
    )


def plan(config: Config, job: Job, upstream: Upstream) -> list[Step]:
    """Plan the one report of the run.

    Raises:
      InputError: if there is no stage with scores, a paper is named whose figures are not there,
        or the client of a tracker is not.
    """
    names = ("encode", "collect", "instructions")
    sources = [x for name in names for x in upstream.get(name, ())]
    if not sources:
        raise InputError(
            "a run must have the stage encode, collect or instructions, to have scores to report."
        )
    exports.check_tracker(config.track)
    known = tuple(upstream.get("properties", ()))
    tuned = tuple(upstream.get("tune", ()))
    if config.paper and not known:
        raise InputError(
            f"report.paper needs the stage properties, to compare models: {config.paper!r}."
        )
    if config.paper and not _may_have_figures(config.paper, sources):
        raise InputError(
            f"report.paper needs the figures of {config.paper!r}: name them in collect.published."
        )
    settings = _settings(config, job, sources, compares_models=bool(known))
    artefact = Artefact(
        workdir=job.workdir,
        stage="report",
        kind=Page.kind,
        name="",
        settings=settings,
        inputs=(*sources, *known, *tuned),
        cost="tables, charts, page",
        latest_only=True,
    )
    planted = artefacts.among(PlantedResponses, upstream.get("simulate", ()))
    make = functools.partial(_report, config, job.seed, planted[0].settings if planted else None)
    return [Step(artefact=artefact, make=make, work=work.PAGE, shows=SUMMARY)]


def _settings(
    config: Config, job: Job, sources: Sequence[Artefact], *, compares_models: bool
) -> dict:
    """Return what fixes the report, in addition to the scores: settings, and tables in the text."""
    found = {"version": VERSION, "page": page_lib.VERSION, "rows_schema": rows_lib.SCHEMA_VERSION}
    found |= {"title": config.title, "instruction": config.instruction, "track": config.track}
    if compares_models:
        names = ("paper", "apart", "predictors", "num_resamples")
        found |= {name: getattr(config, name) for name in names} | {"seed": job.seed}
    scored = [x.settings for x in artefacts.among(Scores, sources)]
    used = {x["protocol"]["name"] for x in scored} & protocols.PROTOCOLS.keys()
    collected = [x.settings for x in artefacts.among(CollectedScores, sources)]
    if collected:  # of any protocol
        used = {name for name, x in protocols.PROTOCOLS.items() if x.kind == "encoding"}
    texts = [protocols.describe(protocols.find(name)) for name in sorted(used)]
    found["descriptions"] = [run_dir.hash_text(text) for text in texts]
    papers = {paper for x in collected for paper in x["papers"]} | ({config.paper} - {""})
    asked = any(x["instruction"] for x in scored) or any(x["has_instructions"] for x in collected)
    if asked or artefacts.among(SimulatedInstructions, sources):
        papers.add(INSTRUCTIONS.partition("/")[0])
    return found | {"papers": {name: published.paper_hash(name) for name in sorted(papers)}}


def _may_have_figures(paper: str, sources: Sequence[Artefact]) -> bool:
    """Whether scores of a paper are collected, or those of runs, which may have them."""
    collected = [x.settings for x in artefacts.among(CollectedScores, sources)]
    return any(
        len(x["hashes"]) > len(x["published"])
        or any(name.partition("-")[0] == paper for name in x["published"])
        for x in collected
    )


def _report(config: Config, seed: int, planted: Mapping | None, artefact: Artefact) -> dict:
    encoded = artefacts.among(Scores, artefact.inputs)
    simulated = artefacts.among(SimulatedInstructions, artefact.inputs)
    rows = _read([*encoded, *artefacts.among(CollectedScores, artefact.inputs)])
    if rows is None:  # of a run with a simulation alone
        rows = rows_lib.frame([])
    known = _read(artefacts.among(Properties, artefact.inputs))
    rows_lib.write(artefact.path / finished.TABLE, rows.to_dict("records"))
    models = found = None
    if known is not None:
        models = properties.wide(known)
        if rows[rows.control_of == ""].model.nunique() > 1:
            behind = published.tables_behind(rows.protocol.unique())
            found = findings.of_run(rows, models, _options(config, seed), behind)
    tuned = artefacts.among(Tuning, artefact.inputs)
    alignments = [_alignment(x) for x in encoded]
    figures, not_drawn = _brains(encoded)
    of_grids = [(x.targets(), x.grids()) for x in encoded if x.has_grids]
    maps, no_maps = brain_maps.draw(of_grids)
    compared = artefacts.among(Comparison, artefact.inputs)
    names = {(x.settings["dataset"], x.settings["model"]) for x in compared}
    is_compared = [x in names for x in zip(rows.dataset, rows.model, strict=True)]
    rest = rows[~np.array(is_compared, bool)]  # of an empty list pandas would take no column
    contents = Contents(
        scores=rows,
        models=models,
        found=found,
        partition=_read(artefacts.among(Partition, artefact.inputs)),
        significance=_read(artefacts.among(Significance, artefact.inputs)),
        alignments=[x for x in alignments if x is not None],
        instruction=config.instruction,
        title=config.title,
        left_out=sorted({s for x in artefact.inputs for s in x.facts().get("left_out", ())}),
        remarks=list(
            dict.fromkeys(x for one in encoded for x in one.artefact.facts().get("remarks", ()))
        ),
        planted=planted,
        descriptions=protocols.descriptions(rows.protocol),
        folds=_folds(encoded[0].settings) if encoded else "outer folds",
        is_timed=bool(encoded) and all(x.settings["is_timed"] for x in encoded),
        figures=[*figures, *maps],
        not_drawn=[*not_drawn, *no_maps],
        normalized=_normalized(encoded),
        instructions=[*_compared(compared), *_asked(rest), *_simulated(simulated)],
        along=_along(rows, tuned, models),
        provenance=_provenance(rows, artefact),
    )
    files = build.build(contents).write(artefact.path)
    done = {"num_rows": len(rows), "files": [*files, finished.TABLE]}
    if config.track:
        numbers = exports.Numbers(
            rows,
            None if found is None else found.findings,
            {x.artefact.name: x.log() for x in tuned},
        )
        problem = exports.track(
            config.track, config.title, artefact.path, artefact.describe(), numbers
        )
        done |= {"tracked": not problem, "track_problem": problem}
    return done


def _alignment(scored: Scores) -> dict | None:
    """Return the one score of a protocol, and what the network was asked."""
    found = scored.artefact.facts()["alignment"]
    asked = scored.settings["instruction"]
    return found if found is None or not asked else {"instruction": asked} | found


def _read(sources: Sequence[Rows]) -> pd.DataFrame | None:
    """Read the rows of all artefacts of a kind; None if there are none."""
    if not sources:
        return None
    return pd.concat([x.rows() for x in sources], ignore_index=True)


def _along(
    rows: pd.DataFrame, tuned: Sequence[Tuning], models: pd.DataFrame | None
) -> training.Along | None:
    """Return what is found along the run's trainings, if their models were scored."""
    if not tuned:
        return None
    every = [rows_lib.read_table(x.artefact.path / Tuning.MODELS) for x in tuned]
    folded = tables.main_way(rows[rows.fold_scores.map(len) > 0])
    return training.of_run(folded, pd.concat(every, ignore_index=True), models)


def _brains(encoded: Sequence[Scores]) -> tuple[list[Figure], list[str]]:
    """Draw the scores of targets that lie somewhere, and say of the others why they are not."""
    kept, reasons = [], []
    for targets in (x.targets() for x in encoded):
        targets = targets[(targets.space != "") & (targets.control_of == "")]
        for (dataset, model, _), part in targets.groupby(["dataset", "model", "instruction"]):
            name = f"{model} on {dataset}"
            if reason := brain.why_not(part):
                reasons.append(f"{name}: {reason}")
            elif len(kept) < MOST_VIEWS:
                kept.append(part)
            else:
                reasons.append(f"{name}: not drawn, as {MOST_VIEWS} others are.")
    # Colours mean the same in all views of a data set.
    limits: dict[tuple[str, str], float] = {}
    for part in kept:
        key = (part.dataset.iloc[0], part.metric.iloc[0])
        limits[key] = max(limits.get(key, 0.0), brain.largest(part))
    views = [_view(x, limits[x.dataset.iloc[0], x.metric.iloc[0]]) for x in kept]
    return views, reasons


def _view(part: pd.DataFrame, limit: float) -> Figure:
    """Draw the targets of one model on one data set."""
    row = part.iloc[0]
    asked = f" asked {row.instruction!r}" if row.instruction else ""
    text = (
        f"Glass brain from the left, the front, the right and above: "
        f"{row.metric.replace('_', ' ')} of {row.model}{asked} for {part.score.notna().sum()} "
        f"targets of {part.subject.nunique()} subjects on {row.dataset}, where each lies, the "
        "layer chosen inside the training data."
    )
    name = "_".join(x for x in ("brain", row.dataset, row.model, row.instruction) if x)
    return Figure(name, text, brain.glass_brain(part, limit))


def _normalized(encoded: Sequence[Scores]) -> pd.DataFrame | None:
    """Return scores divided by published ceilings, where there are any."""
    found = [x for x in (x.normalized() for x in encoded) if x is not None]
    if not found:
        return None
    table = pd.concat(found, ignore_index=True)
    asked = table.instruction[table.instruction != ""]
    return normalized.means(table, _codes(asked))


def _compared(made: Sequence[Comparison]) -> list[Instructions]:
    """Return what was found of the instructions of each model that were compared."""
    found = []
    for one in made:
        rows, parts = one.rows(), one.tables()
        labels = _codes(pd.Series(one.settings["instructions"]))
        lacking = one.artefact.facts()["num_without_answer"]
        model, dataset = one.settings["model"], one.settings["dataset"]
        notes = [
            f"{model} was given {len(labels)} instructions on {dataset}, and scored under each by "
            f"itself; of the layers the {rows.layer_name.iloc[0]} counts."
            + (f" {lacking} images with an empty answer are left out of all." if lacking else ""),
            f"Instructions: {_texts(labels)}.",
        ]
        names = (Comparison.MARGINS, Comparison.ANSWERS)
        beside = {x: parts[x] for x in names if len(parts[x])}  # without swaps there is no test
        of_run = instructions.of_run(
            rows,
            parts[Comparison.TARGETS],
            parts[Comparison.PARTITION],
            labels=labels,
            beside=beside,
        )
        found.append(Instructions(of_run, notes))
    return found


def _asked(rows: pd.DataFrame) -> list[Instructions]:
    """Return what is found of the run's models that were given several instructions, if any."""
    asked, left_out = instructions.asked(rows)
    if asked.empty and not left_out:
        return []
    labels = _codes(asked.instruction)
    notes = []
    if len(asked):
        counts = asked.groupby(["dataset", "model"], sort=False).instruction.nunique()
        each = ", ".join(f"{model} on {dataset} {n}" for (dataset, model), n in counts.items())
        notes = [
            f"Models were given instructions, and scored under each by itself: {each}. Layers are "
            "chosen inside the training data.",
            f"Instructions: {_texts(labels)}.",
        ]
    return [Instructions(instructions.of_run(asked, labels=labels), [*notes, *left_out])]


def _codes(texts: pd.Series) -> dict[str, str]:
    """Name instructions as the paper does, and others P1, P2 in their order."""
    table = published.table(INSTRUCTIONS)
    known = dict(zip(table.instruction, table.code, strict=True))
    codes, num_others = {}, 0
    for text in dict.fromkeys(texts):
        code = known.get(text.strip())
        if code is None or code in codes.values():
            num_others += 1
            code = f"P{num_others}"
        codes[text] = code
    return codes


def _texts(labels: Mapping[str, str]) -> str:
    return "; ".join(f"{code}: {text!r}" for text, code in labels.items())


def _simulated(made: Sequence[SimulatedInstructions]) -> list[Instructions]:
    """Return what instructions give in the simulation of them, and that it is one."""
    if not made:
        return []
    [simulated] = made
    settings = simulated.settings
    labels = {text: code for code, text in settings["texts"].items()}
    found = instructions.of_run(simulated.rows(), *simulated.tables(), labels=labels)
    planted = planted_instructions.describe(*(settings[x] for x in ("rois", "planted", "beside")))
    lead = "This is a SIMULATION: no model was asked anything and no brain was recorded."
    note = (
        f"{lead} Responses were planted: {planted}. To find that again shows that the method "
        "works, and nothing about brains."
    )
    return [Instructions(found, [note, f"Instructions of the simulation: {_texts(labels)}."], lead)]


def _folds(settings: Mapping[str, object]) -> str:
    """Say what the outer folds of the encoding stage are."""
    if settings["groups"] == "none":
        return "contiguous outer folds"
    whole = {"passage": "passages", "dataset": "groups of the data set"}[settings["groups"]]
    rule = settings["protocol"]["folds"]
    drawn = f", drawn with seed {rule['seed']}" if rule["rule"] == "shuffled_groups" else ""
    return f"outer folds of whole {whole}{drawn}"


def _provenance(rows: pd.DataFrame, artefact: Artefact) -> str:
    described = json.dumps(artefact.describe(), indent=1)
    if rows.empty:
        return described
    row = rows.iloc[0]
    return f"commit {row.git_commit or 'unknown'}\nversions {row.versions}\n{described}"
