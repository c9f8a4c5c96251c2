"""Scores of reading times -> tables, what the run prints, and the page."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from jaxalign.core.inference import stats
from jaxalign.reporting.html import Section
from jaxalign.reporting.page import Page
from jaxalign.reporting.pages import behavior_plots
from jaxalign.reporting.pages.behavior_plots import (
    BASELINE,
    CORRELATION,
    CORRELATIONS,
    GAIN,
    HELD_OUT,
    MEAN,
    OWN_CORRELATION,
    name,
    who,
)

_CORRELATIONS = (
    "r: Pearson correlation of surprisal in bits with mean reading times over the words of all "
    "stories; abs r: the score {}, raw, not divided by the ceiling. 95 % "
    "intervals over stories (jackknife). Controls: the same correlation of length and the like. "
    "ceiling: reliability of mean times, by which the protocol divides; ceiling_root: its root, "
    "which |r| of a predictor without error reaches."
)
_OFFSETS = (
    "r of each reading time with the surprisal of the word so many places after it (before it, if "
    "negative). Times that were assigned to the wrong words peak elsewhere than at 0; so does "
    "reading that slows after a surprising word."
)
_GAINS = (
    "Gain in log-likelihood, nats per 1000 reading times, of the regression with surprisal over "
    "the one without; 95 % intervals over stories (jackknife)."
)
_CONTROLS = (
    "Model minus control, paired by story: mean over stories with a 95 % t interval. abs r: "
    "correlations take the sign that they have over all stories. Gains are for held-out stories, "
    "in nats per 1000 times."
)


def correlation_name(sentence_initial: bool) -> str:
    """Name the correlation: the protocol leaves out words that begin a sentence."""
    return OWN_CORRELATION if sentence_initial else CORRELATION


class Regression(NamedTuple):
    """What reading times were regressed on."""

    baseline: Sequence[str]
    spillover: int
    log_times: bool
    sentence_initial: bool

    def describe(self) -> str:
        """Describe the regressions in one line."""
        terms = " and ".join(self.baseline) or "an intercept alone"
        times = "logarithms of times" if self.log_times else "times"
        initial = "kept" if self.sentence_initial else "left out"
        return (
            f"Regressions of {times} on {terms}, with or without surprisal, each with "
            f"{self.spillover} words before; words that begin a sentence {initial}."
        )


def tables(scores: pd.DataFrame, stories: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Divide the scores into tables by measure; gains stay in nats per reading time.

    Args:
      scores: of the stage behavior, one row per data set, model and measure.
      stories: the same, story by story.

    Returns:
      `correlations` [data set x model], `offsets`, `gains`, and `controls`: each model minus
      its controls.
    """
    found = scores[scores.measure.isin(CORRELATIONS)].rename(columns={"value": "abs_r"})
    part = ["dataset", "alignment", "num_participants", "model", "control_of", "context"]
    interval = ["ci_low", "ci_high"]
    correlations = [*part, "r", "abs_r", *interval, "ceiling", "ceiling_low", "ceiling_high"]
    correlations.append("ceiling_root")
    gains = [*part, "times", "evaluation", "value", *interval, "num_observations", "num_words"]
    return {
        "correlations": found[found.offset == 0][[*correlations, "num_words", "num_stories"]],
        "offsets": found[found.context != BASELINE][
            [*part, "offset", "r", "abs_r", *interval, "num_words"]
        ],
        "gains": scores[scores.measure == GAIN][[*gains, "num_stories"]],
        "controls": _against_controls(scores, stories),
    }


def _against_controls(scores: pd.DataFrame, stories: pd.DataFrame) -> pd.DataFrame:
    signs = scores[scores.measure.isin(CORRELATIONS) & (scores.offset == 0)]
    signs = signs.set_index(["dataset", "model", "control_of"]).r.map(np.sign)
    kept = stories[(stories.offset == 0) & stories.evaluation.isin(["all_words", HELD_OUT])]
    values = {}
    for key, part in kept.groupby(
        ["dataset", "measure", "times", "model", "control_of", "context"], sort=False
    ):
        sign = signs[key[0], key[3], key[4]] if key[1] in CORRELATIONS else 1.0
        values[key] = part.set_index("story").value * sign
    found = []
    for (dataset, measure, times, model, control_of, context), part in values.items():
        if control_of or context == BASELINE:
            continue
        for other, theirs in values.items():
            is_control = other[4] == model or other[5] == BASELINE
            if other[:3] != (dataset, measure, times) or not is_control:
                continue
            difference = stats.mean_interval((part - theirs).to_numpy(float))
            found.append(
                {
                    "dataset": dataset,
                    "measure": measure,
                    "times": times,
                    "model": model,
                    "control": other[3],
                    "difference": difference.mean,
                    "ci_low": difference.low,
                    "ci_high": difference.high,
                    "num_stories": difference.n,
                }
            )
    columns = ["dataset", "measure", "times", "model", "control", "difference", "ci_low"]
    return pd.DataFrame(found, columns=[*columns, "ci_high", "num_stories"])


def page(
    scores: pd.DataFrame, stories: pd.DataFrame, regression: Regression, provenance: str
) -> Page:
    """Lay the scores of all data sets out as a page.

    Args:
      scores: of the stage behavior, of all data sets.
      stories: the same, story by story.
      regression: what times were regressed on.
      provenance: preformatted text.
    """
    found = tables(scores, stories)
    return Page(
        title="Reading times and surprisal",
        lead=lead(scores, regression),
        sections=_sections(scores, stories, found, regression),
        tables={"scores": scores, "stories": stories} | found,
        summary=summary(scores, found, regression),
        provenance=provenance,
        unprinted=("scores", "stories"),
    )


def lead(scores: pd.DataFrame, regression: Regression) -> str:
    """Say what was found for the first model on the first data set."""
    part = scores[scores.dataset == scores.dataset.iloc[0]]
    model = part.model.iloc[0]
    correlations = part[part.measure.isin(CORRELATIONS) & (part.offset == 0)]
    first = correlations.iloc[0]
    others = [
        f"{name(row)} {row.value:.3f}"
        for row in correlations.iloc[1:].itertuples()
        if row.control_of == model or row.context == BASELINE
    ]
    gain = part[(part.measure == GAIN) & (part.evaluation == HELD_OUT)].iloc[0]
    return (
        f"On {first.dataset} ({first.alignment} alignment), the surprisal of {model} correlates "
        f"with mean reading times at |r| {_interval(first)}"
        + (f" ({', '.join(others)})" if others else "")
        + f"; beyond {' and '.join(regression.baseline) or 'an intercept'} it gains "
        f"{_interval(gain, 1000.0, 1)} nats per 1000 times of held-out stories."
    )


def summary(scores: pd.DataFrame, found: Mapping[str, pd.DataFrame], regression: Regression) -> str:
    """Lay out what the run prints: for each data set its ceiling, correlations and gains.

    Args:
      scores: of all data sets.
      found: from `tables`.
      regression: what times were regressed on.
    """
    lines = [
        "",
        "|r|: of surprisal in bits with mean reading times. Gains: of log-likelihood, in nats per",
        "reading time, in sample and for held-out stories. In brackets: 95 % intervals over",
        "stories (jackknife).",
        regression.describe(),
    ]
    for dataset, part in scores.groupby("dataset", sort=False):
        lines += ["", f"Reading times of {dataset} ({who(part.iloc[0])})", _ceiling(part.iloc[0])]
        cells = []
        for (model, control_of, context), rows in part.groupby(
            ["model", "control_of", "context"], sort=False
        ):
            row = {"": _label(model, control_of, context)}
            for x in rows[rows.offset == 0].itertuples():
                what = "|r|" if x.measure in CORRELATIONS else _kind(x.times, x.evaluation)
                row[what] = _interval(x, digits=4)
                if x.measure in CORRELATIONS:
                    row["words"] = str(x.num_words)
                    row["undefined"] = str(x.num_undefined)
            cells.append(row)
        lines.append(pd.DataFrame(cells).fillna("").to_string(index=False))
    part = found["controls"]
    if len(part):
        lines += ["", "Model minus control, paired by story (mean, 95 % t interval):"]
        lines += [
            f"  {row.dataset}, {'|r|' if row.measure in CORRELATIONS else f'gain, {row.times}'}: "
            f"{row.model} - {row.control} {row.difference:+.4f} [{row.ci_low:.4f}, "
            f"{row.ci_high:.4f}], {row.num_stories} stories"
            for row in part.itertuples()
        ]
    return "\n".join(lines) + "\n"


def _label(model: str, control_of: str, context: str) -> str:
    if control_of:
        return f"{model} of {control_of}"
    return f"{model} (control)" if context == BASELINE else model


def _kind(times: str, evaluation: str) -> str:
    people = "gain" if times == MEAN else f"gain, {times}"
    return f"{people}, {evaluation.replace('_', ' ').removesuffix(' story')}"


def _ceiling(row) -> str:
    if np.isnan(row.ceiling):
        return "ceiling of |r|: undefined, since times of single participants are not known"
    return (
        f"reliability of mean times: {row.ceiling:.4f} [{row.ceiling_low:.4f}, "
        f"{row.ceiling_high:.4f}] (split halves of participants, Spearman-Brown), by which the "
        f"protocol divides; its root, which |r| without error reaches: {row.ceiling_root:.4f}"
    )


def _interval(row, factor: float = 1.0, digits: int = 3) -> str:
    value, low, high = (factor * x for x in (row.value, row.ci_low, row.ci_high))
    return f"{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _sections(
    scores: pd.DataFrame,
    stories: pd.DataFrame,
    found: Mapping[str, pd.DataFrame],
    regression: Regression,
) -> list[Section]:
    score = correlation_name(regression.sentence_initial).capitalize()
    shown = {key: _names(table) for key, table in found.items()}
    gains, controls = shown["gains"], shown["controls"]
    columns = ["value", "ci_low", "ci_high"]
    gains = gains.assign(**{x: 1000 * gains[x] for x in columns}).rename(columns={"value": "gain"})
    is_gain = controls.measure == GAIN
    for column in ("difference", "ci_low", "ci_high"):
        controls[column] = controls[column].where(~is_gain, 1000 * controls[column])
    controls["measure"] = np.where(is_gain, "gain", "abs r")
    return [
        Section("What to know first", text=_remarks(scores, regression)),
        Section(
            "Correlation",
            tables=[(_CORRELATIONS.format(score), shown["correlations"])],
            charts=[behavior_plots.correlations(scores)],
        ),
        Section(
            "Which word a time belongs to",
            tables=[(_OFFSETS, _by_offset(found["offsets"]))],
            charts=[behavior_plots.offsets(scores)],
        ),
        Section(
            "Gain in log-likelihood",
            tables=[(_GAINS, gains)],
            charts=[behavior_plots.gains(scores, stories)],
        ),
        Section("Model minus control", tables=[(_CONTROLS, controls)]),
        Section("Methods", text=[_methods(regression)]),
    ]


def _names(table: pd.DataFrame) -> pd.DataFrame:
    """Shorten a table for the page."""
    table = table.copy()
    if "control_of" in table:
        table["model"] = [name(row) for row in table.itertuples()]
    return table.drop(columns=["control_of", "alignment", "num_participants"], errors="ignore")


def _by_offset(table: pd.DataFrame) -> pd.DataFrame:
    table = table.assign(model=[name(row) for row in table.itertuples()])
    wide = table.pivot_table("r", ["dataset", "model"], "offset", sort=False, dropna=False)
    return wide[sorted(wide)].rename(columns=behavior_plots.signed).reset_index()


def _remarks(scores: pd.DataFrame, regression: Regression) -> list[str]:
    found = [regression.describe()]
    for dataset, part in scores.groupby("dataset", sort=False):
        row = part.iloc[0]
        lacking = part[(part.num_undefined > 0) & (part.context != BASELINE)]
        lacking = lacking.drop_duplicates(["model", "control_of"])
        text = f"{dataset}: {who(row)}; {_ceiling(row)}."
        for x in lacking.itertuples():
            text += f" {x.num_undefined} words have no surprisal under {name(x)}."
        found.append(text)
    return found


def _methods(regression: Regression) -> str:
    return (
        "Surprisal is summed over the tokens of a word. Correlations are over the words that have "
        "both a mean time and surprisal. The ceiling is the median over random halves of the "
        "participants of the Spearman-Brown corrected correlation of their mean times, over all "
        f"words; no root is taken. {regression.describe()} Normal errors, maximum likelihood; "
        "where single participants are known, also with a random intercept for each. Held out: "
        "each story's density under a model fitted to the others. Words of a story are not "
        "independent, so intervals are over stories; regressions take the words that have every "
        "predictor, those before them included."
    )
