"""What the report of a run is made of."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import pandas as pd

from jaxalign.reporting.findings import Found
from jaxalign.reporting.findings.training import Along
from jaxalign.reporting.html import Figure


class Instructions(NamedTuple):
    """What was found of models that were given several instructions."""

    tables: Mapping[str, pd.DataFrame]  # as `reporting.findings.instructions.of_run` gives them
    notes: Sequence[str]  # what to know of them; the first before all numbers
    lead: str = ""  # a sentence before the alternative text of each chart


@dataclasses.dataclass(frozen=True, kw_only=True)
class Contents:
    """Score rows, with folds or published, and whatever else there is.

    Attributes:
      scores: rows in the schema of `io.rows`; none where there are instructions alone.
      models: properties, one row per model (index `model`), as `literature.properties.wide` gives
        them.
      found: findings about the models, as `findings.of_run` gives them.
      partition: rows of what models explain beyond controls.
      significance: rows of permutation tests.
      alignments: the one score of the protocol over all subjects, of each model.
      instruction: whose scores count where a model was given several; see `tables.main_way`.
      title: of the page.
      left_out: subjects without a score.
      remarks: sentences on how models were scored.
      planted: settings of a simulation: model, layer, noise_sd.
      descriptions: sentences for each named protocol.
      folds: what the outer folds of nested ridge are, for the methods.
      is_timed: whether responses are series of TRs, for the methods; of several data sets, all.
      figures: views of the brain.
      not_drawn: sentences on views that cannot be drawn.
      normalized: scores divided by the published ceilings of their targets, as `normalized.means`
        lays them out.
      instructions: what instructions give, of models in `scores` and of others.
      along: what was found along trainings, of the models that the run tunes.
      provenance: preformatted text.
    """

    scores: pd.DataFrame
    models: pd.DataFrame | None = None
    found: Found | None = None
    partition: pd.DataFrame | None = None
    significance: pd.DataFrame | None = None
    alignments: Sequence[Mapping[str, object]] = ()
    instruction: str = ""
    title: str = "Brain alignment"
    left_out: Sequence[str] = ()
    remarks: Sequence[str] = ()
    planted: Mapping[str, Any] | None = None
    descriptions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    folds: str = "outer folds"
    is_timed: bool = False
    figures: Sequence[Figure] = ()
    not_drawn: Sequence[str] = ()
    normalized: pd.DataFrame | None = None
    instructions: Sequence[Instructions] = ()
    along: Along | None = None
    provenance: str = ""
