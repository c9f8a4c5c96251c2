"""Words or sentences of the runs of a BIDS data set: from events, or from files that lie beside it.

Rules, each counted in one warning:

- a row whose text is empty or `n/a` is no word (a key press, a fixation), and is left out;
- a word whose onset is `n/a` keeps its place in the text: it is read in the context of those that
  follow, and is in no TR;
- a word whose duration is `n/a` ends with the onset of the next one; the last one has no length;
- a word that ends after the next one begins ends with its beginning.

Rows are taken in the order of their onsets; a row without one stays behind the row before it.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from absl import logging
from jaxtyping import Float

from jaxalign.data.formats import tables, textgrids
from jaxalign.data.schema import Stimuli, naming
from jaxalign.data.sets.bids_layout import Layout, Run
from jaxalign.errors import InputError

TEXTS = ("word", "text", "sentence")  # columns that are looked for
UNITS = ("word", "sentence")
_ONSETS = ("onset", "onset_s", "start")
_ENDS = ("offset", "offset_s", "end")
_ENDINGS = (".TextGrid", ".tsv", ".csv")
_TIERS = ("word", "words")  # that are looked for, in any case of letters
_JITTER = 0.1  # TRs by which onsets of subjects may differ


class Reading(NamedTuple):
    """How words are found in a table or a TextGrid.

    Attributes:
      column: of the text; "": the one of `TEXTS` that is there.
      tier: of TextGrids; "": the one that is called "word" or "words", or the only one.
      passage: column of the text that a row belongs to; "": the run, or of sentences each its own.
      trial_types: rows of events that are read, by the column trial_type; (): all.
      unit: one of `UNITS`; "": "sentence" if the column is called so, else "word".
      skip: texts that are no words, as "sp" for a pause.
      language: of the text, as "en"; "": not said.
    """

    column: str = ""
    tier: str = ""
    passage: str = ""
    trial_types: tuple[str, ...] = ()
    unit: str = ""
    skip: tuple[str, ...] = ()
    language: str = ""


class _Told(NamedTuple):
    """What was presented in a run, in its order; NaN: not known."""

    text: list[str]
    onset_s: Float[np.ndarray, " m"]
    offset_s: Float[np.ndarray, " m"]
    passage: list[str]
    unit: str


class _Odd(NamedTuple):
    """How many rows of a run are one of the cases that have a rule."""

    no_text: int = 0
    no_onset: int = 0
    no_duration: int = 0
    overlaps: int = 0


def check(how: Reading) -> None:
    """Refuse a unit that there is not.

    Raises:
      InputError: naming the option.
    """
    if how.unit not in ("", *UNITS):
        raise InputError(f"unit must be one of {', '.join(UNITS)}, found {how.unit!r}.")


def files(layout: Layout, words: pathlib.Path | None) -> list[pathlib.Path]:
    """Return the files that words are read from.

    Args:
      layout: of the data set.
      words: file or folder of words; None: events.

    Raises:
      InputError: if a run has none.
    """
    found: list[pathlib.Path] = []
    for run in layout.runs:
        if words is None:
            found.append(_events(run))
        else:
            found += [path for path, _, _ in _sources(run, words)]
            found += [run.events] if run.events and words.is_dir() else []
    return list(dict.fromkeys(found))


def read(
    layout: Layout, words: pathlib.Path | None, how: Reading, tr_s: Mapping[str, float]
) -> Stimuli:
    """Read what was presented in the runs, which all subjects have in common.

    Args:
      layout: of the data set.
      words: file or folder of words; None: events.
      how: what is read of them.
      tr_s: repetition time of each run.

    Raises:
      InputError: if a run has no words, a table or TextGrid is not what it must be, or subjects
        were presented other words, or the same at other times.
    """
    told: dict[str, tuple[str, _Told]] = {}
    total = np.zeros(len(_Odd()), int)
    num_rows = 0
    for run in layout.runs:
        own, odd = _of_run(run, words, how)
        if not own.text:
            raise InputError(
                f"{words or run.events}: run {run.label} of sub-{run.subject} must hold words, "
                "found none: choose runs by tasks, sessions or runs."
            )
        total += np.array(odd)
        num_rows += len(own.text) + odd.no_text
        if run.label not in told:
            told[run.label] = (run.subject, own)
            continue
        first, known = told[run.label]
        told[run.label] = first, _common(run, known, own, first, _JITTER * tr_s[run.label])
    _say(layout.root, _Odd(*total.tolist()), num_rows)
    every = [(label, own) for label, (_, own) in told.items()]
    unit = every[0][1].unit
    with naming(words or layout.root):
        return Stimuli(
            stimulus_id=[f"{run}.{i:04d}" for run, own in every for i in range(len(own.text))],
            text=[x for _, own in every for x in own.text],
            passage=[
                f"{run}.{i:04d}" if unit == "sentence" and not how.passage else own.passage[i]
                for run, own in every
                for i in range(len(own.text))
            ],
            run=[run for run, own in every for _ in own.text],
            unit="sentence" if unit == "sentence" else "word",
            language=how.language,
            onset_s=np.concatenate([own.onset_s for _, own in every]),
            offset_s=np.concatenate([own.offset_s for _, own in every]),
        )


def _events(run: Run) -> pathlib.Path:
    if run.events is None:
        raise InputError(
            f"run {run.label} of sub-{run.subject} has no events.tsv, beside the scan, above it or "
            "in the recorded data: name the folder of these by raw=PATH, a file or folder of words "
            "by words=PATH, or other runs by tasks, sessions or runs."
        )
    return run.events


def _of_run(run: Run, words: pathlib.Path | None, how: Reading) -> tuple[_Told, _Odd]:
    if words is None:
        return _tidy(*_from_table(_events(run), how, run), skip=how.skip)
    parts = []
    for path, start_s, story in _sources(run, words):
        if path.suffix == ".TextGrid":
            text, onset_s, offset_s = _from_grid(path, how)
            passage, unit = [story or run.label] * len(text), how.unit or "word"
        else:
            text, onset_s, offset_s, passage, unit = _from_table(path, how, run, story)
        parts.append(_Told(text, onset_s + start_s, offset_s + start_s, passage, unit))
    whole = _Told(
        [x for part in parts for x in part.text],
        np.concatenate([part.onset_s for part in parts]),
        np.concatenate([part.offset_s for part in parts]),
        [x for part in parts for x in part.passage],
        parts[0].unit,
    )
    return _tidy(*whole, skip=how.skip)


def _sources(run: Run, words: pathlib.Path) -> list[tuple[pathlib.Path, float, str]]:
    """Return the files of a run's words, when the clock of each begins, and the name of its story.

    A folder holds a file for each `stim_file` of the events, whose onset begins the clock; else
    for the run, or for the task, on the clock of the scan.
    """
    if not words.exists():
        raise InputError(f"words must be a file or a folder of words: there is no {words}.")
    if words.is_file():
        return [(words, 0.0, "")]
    played = _played(run) if run.events else []
    found = []
    for name, onset_s in played:
        if path := _named(words, name):
            if np.isnan(onset_s):
                raise InputError(
                    f"{run.events}: onset must tell when {name} begins, whose words are in {path}, "
                    "found n/a."
                )
            found.append((path, onset_s, pathlib.PurePath(name).stem))
    if found:
        return found
    for name in (run.label, f"sub-{run.subject}_{run.label}", f"task-{run.task}", run.task):
        if path := _named(words, name):
            return [(path, 0.0, "")]
    tried = [name for name, _ in played] + [run.label, run.task]
    raise InputError(
        f"words: {words} must hold a {', '.join(_ENDINGS)} for run {run.label} of "
        f"sub-{run.subject}, called as its stim_file, run or task ({', '.join(tried)}): found none."
    )


def _played(run: Run) -> list[tuple[str, float]]:
    assert run.events is not None
    table = tables.read(run.events, ("onset",), tabs=True)
    if "stim_file" not in table:
        return []
    onset_s = tables.numbers(run.events, table, "onset", empty_is_nan=True)
    rows = zip(table["stim_file"], onset_s.tolist(), strict=True)
    return [(name, onset) for name, onset in rows if name not in tables.EMPTY]


def _named(folder: pathlib.Path, name: str) -> pathlib.Path | None:
    stem = pathlib.PurePath(name).stem
    paths = [folder / f"{x}{ending}" for x in (name, stem) for ending in _ENDINGS]
    return next((path for path in paths if path.is_file()), None)


def _from_grid(
    path: pathlib.Path, how: Reading
) -> tuple[list[str], Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    tier: str | int = how.tier
    if not how.tier:
        names = textgrids.names(path)
        usual = [x for x in names if x.lower() in _TIERS]
        if len(names) > 1 and len(usual) != 1:
            raise InputError(
                f"{path} must have one tier of words, called {' or '.join(_TIERS)}, or tier=NAME "
                f"must choose one: found {', '.join(map(repr, names))}."
            )
        tier = usual[0] if usual else 0
    elif how.tier.isdigit():
        tier = int(how.tier)
    found = textgrids.read(path, tier, may_overlap=True)
    times = np.array([x[:2] for x in found], np.float64).reshape(-1, 2)
    return [text for _, _, text in found], times[:, 0], times[:, 1]


def _from_table(path: pathlib.Path, how: Reading, run: Run, story: str = "") -> _Told:
    """Read the rows of events, or of a table of words, that belong to a run."""
    is_events = path == run.events
    table = tables.read(path, (), tabs=path.suffix == ".tsv")
    if is_events and how.trial_types:
        if "trial_type" not in table:
            raise InputError(f"{path} must have column 'trial_type', found {list(table)[:12]}.")
        table = table.loc[table["trial_type"].isin(how.trial_types)]
    if not is_events and "run" in table:
        table = table.loc[table["run"] == run.label]
    column = _column(path, table, how, is_events)
    onset = _first(path, table, _ONSETS)
    onset_s = tables.numbers(path, table, onset, empty_is_nan=True)
    if "duration" in table:
        offset_s = onset_s + tables.numbers(path, table, "duration", empty_is_nan=True)
    else:
        end = _first(path, table, _ENDS, "duration")
        offset_s = tables.numbers(path, table, end, empty_is_nan=True)
    if how.passage and how.passage not in table:
        raise InputError(
            f"{path} must have column {how.passage!r} (passage), found {list(table)[:12]}."
        )
    passage = table[how.passage].tolist() if how.passage else [story or run.label] * len(table)
    unit = how.unit or ("sentence" if column == "sentence" else "word")
    return _Told(table[column].tolist(), onset_s, offset_s, passage, unit)


def _column(path: pathlib.Path, table: pd.DataFrame, how: Reading, is_events: bool) -> str:
    if how.column:
        if how.column not in table:
            raise InputError(
                f"{path} must have column {how.column!r} (column), found {list(table)[:12]}."
            )
        return how.column
    found = [x for x in TEXTS if x in table]
    if len(found) == 1:
        return found[0]
    hint = ", or words=PATH a folder with the words of its stim_file" if is_events else ""
    raise InputError(
        f"{path} must have one of the columns {', '.join(TEXTS)}, or column=NAME must name that of "
        f"words or sentences{hint}: found {', '.join(list(table)[:12])}."
    )


def _first(path: pathlib.Path, table: pd.DataFrame, names: Sequence[str], *others: str) -> str:
    found = [x for x in names if x in table]
    if len(found) != 1:
        raise InputError(
            f"{path} must have one of the columns {', '.join((*names, *others))}, found "
            f"{', '.join(found or list(table)[:12])}."
        )
    return found[0]


def _tidy(
    text: Sequence[str],
    onset_s: Float[np.ndarray, " m"],
    offset_s: Float[np.ndarray, " m"],
    passage: Sequence[str],
    unit: str,
    *,
    skip: Sequence[str] = (),
) -> tuple[_Told, _Odd]:
    """Apply the rules of the module to the rows of a run, and count."""
    is_text = [x.strip() not in (*tables.EMPTY, *skip) for x in text]
    rows = np.flatnonzero(is_text)
    place = pd.Series(onset_s[rows]).ffill().fillna(-np.inf).to_numpy()
    rows = rows[np.argsort(place, kind="stable")]
    onset_s, offset_s = onset_s[rows], offset_s[rows].copy()
    known = np.flatnonzero(~np.isnan(onset_s))
    offset_s[np.isnan(onset_s)] = np.nan
    after = np.r_[onset_s[known][1:], np.inf]  # onset of the next word with a time
    ends = offset_s[known]
    no_end = np.isnan(ends)
    last = np.where(np.isinf(after), onset_s[known], after)
    ends = np.where(no_end, last, ends)
    too_late = ends > after
    offset_s[known] = np.where(too_late, after, ends)
    odd = _Odd(
        no_text=len(text) - len(rows),
        no_onset=len(rows) - len(known),
        no_duration=int(no_end.sum()),
        # Rounded times of words that follow each other are no overlap.
        overlaps=int((ends > after + 1e-6).sum()),
    )
    chosen = rows.tolist()
    own = [str(text[i]).strip() for i in chosen]
    return _Told(own, onset_s, offset_s, [str(passage[i]) for i in chosen], unit), odd


def _common(run: Run, known: _Told, own: _Told, first: str, jitter_s: float) -> _Told:
    """Refuse words or times that differ from those of the subjects before."""
    hint = f"read one by itself, subjects={run.subject}"
    where = f"run {run.label}: sub-{run.subject}"
    if own.text != known.text:
        size = f"{len(own.text)} for {len(known.text)}"
        at = next(
            (f"{a!r} for {b!r}" for a, b in zip(own.text, known.text, strict=False) if a != b),
            size,
        )
        raise InputError(
            f"{where} must have been presented the words of sub-{first}, found {at}: {hint}."
        )
    gap = np.abs(own.onset_s - known.onset_s)
    if (gap > jitter_s).any():
        i = int(np.nanargmax(gap))
        raise InputError(
            f"{where} must have been presented words when sub-{first} was, to {jitter_s:g} s (a "
            f"tenth of a TR), but {own.text[i]!r} begins at {own.onset_s[i]:g} for "
            f"{known.onset_s[i]:g} s: {hint}."
        )
    unknown = np.isnan(known.onset_s)
    onset_s = np.where(unknown, own.onset_s, known.onset_s)
    offset_s = np.where(unknown, own.offset_s, known.offset_s)
    # By their jitter a word of one may reach into the next one of the other.
    return _tidy(known.text, onset_s, offset_s, known.passage, known.unit)[0]


def _say(root: pathlib.Path, odd: _Odd, num_rows: int) -> None:
    said = [
        f"{odd.no_text} have no text, and are no words" * bool(odd.no_text),
        f"{odd.no_onset} words have no onset, and are in no TR" * bool(odd.no_onset),
        f"{odd.no_duration} have no duration, and end with the next word" * bool(odd.no_duration),
        f"{odd.overlaps} overlap the next word, and end with its start" * bool(odd.overlaps),
    ]
    if any(said):
        logging.warning(
            "data set %s: of %d rows %s", root, num_rows, "; ".join(x for x in said if x)
        )
