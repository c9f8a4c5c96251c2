"""Scores of models on benchmarks: runs of stages, kept in a work directory."""

import dataclasses
import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from jaxalign import config, recipes, runner
from jaxalign.core.scores import alignment
from jaxalign.core.scores.alignment import AlignmentScore
from jaxalign.core.scores.protocol import Protocol
from jaxalign.errors import InputError
from jaxalign.io import rows as rows_lib
from jaxalign.io.place import Place
from jaxalign.io.run_dir import Artefact
from jaxalign.literature import protocols
from jaxalign.stages import artefacts
from jaxalign.stages.artefacts import Losses, Page, ReadingTimes, Scores

Path = str | os.PathLike[str]

WORKDIR = "runs/python"  # where nothing else is said
# What the arguments of `score` fix.
FIXED = ("dataset", "encode.protocol", "next_word.text")
FIXED += ("extract.models", "imported.models", "next_word.models")
COLUMNS = ("score", "raw", "raw_low", "raw_high", "ceiling", "ceiling_low", "ceiling_high")
COLUMNS += ("contiguous", "num_nan", "protocol", "folds_hash")


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkScore:
    """The score of a model on a benchmark, those of its controls, and where they come from.

    Every attribute of `AlignmentScore` can be asked for: `found.score`, `found.raw`,
    `found.ceiling`, `found.per_layer`.

    Attributes:
      model: its name.
      benchmark: its name, or `<data>-<protocol>`.
      dataset: name of the data set, or of the text.
      alignment: the score, and all that belongs to it.
      controls: the same of each control; of reading times also of surprisal that others published.
      rows: the rows that the stage made of model and controls; of recordings one for each layer,
        subject and ROI (`jaxalign/io/rows.py`).
      workdir: where the artefacts are.
      fingerprint: of the model's scores: a hash of everything that fixes them.
    """

    model: str
    benchmark: str
    dataset: str
    alignment: AlignmentScore
    controls: Mapping[str, AlignmentScore]
    rows: pd.DataFrame
    workdir: Place
    fingerprint: str

    def __getattr__(self, name: str) -> Any:
        """Return what belongs to the score."""
        if name in AlignmentScore._fields:
            return getattr(self.alignment, name)
        raise AttributeError(f"BenchmarkScore has no attribute {name!r}")

    def __dir__(self) -> list[str]:
        return sorted([*super().__dir__(), *AlignmentScore._fields])

    @property
    def table(self) -> pd.DataFrame:
        """One row for the model and for each control, with the attributes that are compared."""
        every = {self.model: self.alignment} | dict(self.controls)
        rows = {name: {x: getattr(one, x) for x in COLUMNS} for name, one in every.items()}
        return pd.DataFrame.from_dict(rows, orient="index").rename_axis("model")

    def __repr__(self) -> str:
        """Say in a few lines what a notebook's cell should show."""
        lines = [f"{self.model} on {self.benchmark}", repr(self.alignment)]
        if self.controls:
            each = (f"{name} {one.raw:.4f}" for name, one in self.controls.items())
            lines.append(f"  beside it, raw: {', '.join(each)}")
        lines.append(f"  {self.workdir} ({self.fingerprint})")
        return "\n".join(lines)


def score(
    model: Path,
    benchmark: Path,
    protocol: str | None = None,
    *,
    controls: Sequence[str] | None = None,
    workdir: Path | None = None,
    data_root: Path | None = None,
    settings: Mapping[str, Any] | None = None,
    download: bool = False,
) -> BenchmarkScore:
    """Score a model on a benchmark, as configs/score.py does.

    Everything that was computed is kept in the work directory under a hash of what fixes it, so a
    call that was made before returns at once, one that was killed goes on where it was, and two
    protocols on the same data read the stimuli once. What is made is said on stderr.

    Args:
      model: a name (`list_models`), a directory with `config.json`, weights and a tokenizer, or of
        recordings a file of activations (docs/datasets/own.md).
      benchmark: a name (`list_benchmarks`); or with a protocol the name or directory of a data set
        (docs/datasets), or a text file.
      protocol: in place of the benchmark's (`list_protocols`). A published ceiling is not used
        under another protocol.
      controls: to score beside the model (docs/controls.md), the more the longer; None: those that
        are usual. Of reading times and texts, "untrained" or nothing.
      workdir: where artefacts are kept; None: `runs/python`. Many scores may share it.
      data_root: folder of published data; None: the environment variable JAXALIGN_DATA.
      settings: any other setting of a stage, under the name that `--dry_run` gives it:
        `{"encode.max_subsets": 20}`.
      download: fetch what the data set publishes, where its checksum is known.

    Returns:
      The score. Where the protocol divides by a ceiling that is not known, `score` is NaN and `raw`
      is there.

    Raises:
      InputError: if an argument, a file or a setting is not what it must be.

    Example:
      >>> import jaxalign
      >>> found = jaxalign.score(
      ...     "path/to/model", "path/to/data", "jaxalign", controls=["word_length", "position"]
      ... )
      >>> found.benchmark, found.protocol, list(found.controls)
      ('data-jaxalign', 'jaxalign', ['word_length', 'position'])
      >>> bool(found.raw_low < found.raw < found.raw_high)
      True
      >>> found.table.columns[:3].tolist()
      ['score', 'raw', 'raw_low']
    """
    root = runner.data_folder(data_root)
    changes = dict(settings or {})
    name, chosen = recipes.find_benchmark(
        os.fspath(benchmark),
        protocol or "",
        root,
        nan=changes.get("nan", "refuse"),
        options=changes.get("options", ()),
    )
    packed = recipes.on_benchmark(os.fspath(model), chosen, beside=controls)
    if fixed := [x for x in changes if x in FIXED]:
        raise InputError(
            f"settings must leave {fixed[0]} alone, which the arguments of score name: got "
            f"{changes[fixed[0]]!r}."
        )
    plan = runner.plan(
        config.override(packed, changes),
        workdir=workdir or WORKDIR,
        data_root=root,
        fetch=download,
    )
    if not all(step.artefact.is_done for step in plan.steps):
        runner.run(plan, _say)
    made = {stage: [x.artefact for x in steps] for stage, steps in plan.stages.items()}
    rule = protocols.find(chosen.protocol)
    dataset = plan.job.dataset.name if plan.job.dataset else ""
    if rule.kind == "encoding":
        source, rows, found = _encoded(made["encode"])
    elif rule.kind == "reading_time":
        source, rows, found = _read(made["behavior"], dataset, rule)
    else:
        source, rows, found = _predicted(made["next_word"], rule)
        dataset = rows.text.iloc[0]
    trained, *others = found
    return BenchmarkScore(
        model=trained,
        benchmark=name,
        dataset=dataset,
        alignment=found[trained],
        controls={x: found[x] for x in others},
        rows=rows,
        workdir=plan.job.workdir,
        fingerprint=source.fingerprint,
    )


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")


def _encoded(
    made: Sequence[Artefact],
) -> tuple[Artefact, pd.DataFrame, dict[str, AlignmentScore]]:
    """Read the scores of recordings, the model's first."""
    scored = [x for x in artefacts.among(Scores, made) if x.artefact.facts().get("alignment")]
    found = {str(x.settings["model"]): x.alignment() for x in scored}
    rows = pd.concat([x.rows() for x in scored], ignore_index=True)
    return scored[0].artefact, rows, found


def _named(rule: Protocol, name: str) -> Protocol:
    """Return the protocol under the name that a row has: its own, or that of another reading."""
    return rule if name == rule.name else protocols.own_reading(rule)


def _read(
    made: Sequence[Artefact], dataset: str, rule: Protocol
) -> tuple[Artefact, pd.DataFrame, dict[str, AlignmentScore]]:
    """Read the scores of reading times, the model's first."""
    (source,) = [
        x.artefact for x in artefacts.among(ReadingTimes, made) if x.artefact.name == dataset
    ]
    rows = rows_lib.read_table(source.path / ReadingTimes.SCORES)
    found, names = {}, (rule.name, protocols.own_reading(rule).name)
    scored = pd.DataFrame(rows[rows.measure.isin(names) & (rows.offset == 0)])
    for row in scored.to_dict("records"):
        known = alignment.reference(row["ceiling"], 1, rule.aggregation)
        found[row["model"]] = alignment.without_fit(
            _named(rule, row["measure"]),
            row["value"],
            interval=(row["ci_low"], row["ci_high"]),
            ceiling=known._replace(low=row["ceiling_low"], high=row["ceiling_high"]),
            num_nan=row["num_undefined"],
        )
    return source, rows, found


def _predicted(
    made: Sequence[Artefact], rule: Protocol
) -> tuple[Artefact, pd.DataFrame, dict[str, AlignmentScore]]:
    """Read the losses on a text, the model's first."""
    (page,) = artefacts.among(Page, made)
    rows = rows_lib.read_table(page.artefact.path / Page.SCORES)
    found = {
        row["model"]: alignment.without_fit(
            _named(rule, row["protocol"]),
            row["loss_nats"],
            interval=(row["loss_low"], row["loss_high"]),
        )
        for row in rows.to_dict("records")
    }
    return artefacts.among(Losses, made)[0].artefact, rows, found
