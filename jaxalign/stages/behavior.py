"""Surprisal x reading times -> correlations, ceilings and gains in likelihood, as tidy tables."""

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from absl import logging
from jaxtyping import Bool, Float

from jaxalign.core import features, likelihood, surprisal
from jaxalign.core.surprisal import Estimate
from jaxalign.data import words
from jaxalign.data.schema import MEAN, Behavior, Stimuli
from jaxalign.errors import InputError
from jaxalign.io import run_dir, store
from jaxalign.io.run_dir import Artefact
from jaxalign.stages import Job, Step, Upstream, trained, untrained

VERSION = 1
SCORES = "scores.csv"
STORIES = "stories.csv"
SUMMARY = "summary.txt"
PARTICIPANTS = "participants"
PUBLISHED = "published"
CONTROL = "control"  # in the place of a context: what the baseline is made of
PROTOCOL = "futrell2018-pearsonr"
UNDEFINED = Estimate(np.nan, np.nan, np.nan, 0, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the behaviour stage."""

    # What reading times are regressed on beside surprisal: "length", "log_frequency", "position".
    baseline: tuple[str, ...] = ("length", "log_frequency")
    spillover: int = 2  # words before each whose surprisal and baseline count too
    sentence_initial: bool = False  # keep the words that begin a sentence
    log_times: bool = False  # regress the logarithm of reading times
    mixed: bool = True  # random intercepts, where times of single participants are known
    published: bool = True  # score the surprisal that the data set comes with, too
    # Correlate each time with the surprisal of the word so many places after it: where times were
    # assigned to the wrong words, and how far reading lags behind, shows at others than 0.
    offsets: tuple[int, ...] = (-1, 0, 1)
    ceiling_splits: int = 10  # random halves of the participants

    def __post_init__(self):
        if unknown := set(self.baseline) - set(words.BASELINE):
            raise InputError(
                f"behavior.baseline must be among {', '.join(words.BASELINE)}, "
                f"got {min(unknown)!r}."
            )
        for name in ("baseline", "offsets"):
            if len(set(getattr(self, name))) < len(getattr(self, name)):
                raise InputError(f"behavior.{name} must differ, got {getattr(self, name)}.")
        if 0 not in self.offsets:
            raise InputError(f"behavior.offsets must hold 0, got {self.offsets}.")
        for name, least in (("spillover", 0), ("ceiling_splits", 1)):
            if getattr(self, name) < least:
                raise InputError(f"behavior.{name} must be >= {least}, got {getattr(self, name)}.")


class Source(NamedTuple):
    """Whose surprisal it is."""

    model: str
    control_of: str  # of an untrained network: the model it stands beside
    context: str  # what words were seen with; "published" where others say so
    store: Artefact | None  # None: published with the data set


class Reading(NamedTuple):
    """Reading times and baseline of all stimuli, in the order of reading."""

    story: list[str]
    times: Float[np.ndarray, "m s"]  # NaN where there is none, or the word does not count
    every_time: Float[np.ndarray, "m s"]  # of the words that begin sentences, too
    baseline: Float[np.ndarray, "m b"]


def plan(config: Config, job: Job, upstream: Upstream) -> list[Step]:
    """Plan the tables of all networks that were extracted, and of published surprisal.

    Raises:
      InputError: if there are no reading times or no surprisal, the data set lacks what the
        baseline is made of, or words that were read are not among the stimuli.
    """
    stimuli, behavior = job.dataset.stimuli, job.dataset.behavior
    sources = _sources(config, job, upstream)
    if not sources:
        raise InputError(
            "behavior needs surprisal: add the stage extract, or a data set that has published one."
        )
    reading = _reading(config, job)
    stories = len({s for s, t in zip(stimuli.passage, reading.times, strict=True) if any(t > 0)})
    if stories < 2:
        raise InputError(f"behavior needs reading times of at least 2 passages, found {stories}.")
    settings = {"version": VERSION, "seed": job.seed} | dataclasses.asdict(config)
    settings |= {"behavior_hash": job.dataset.hash, "stimuli_hash": stimuli.hash}
    settings["facts_hash"] = job.dataset.word_facts.hash
    times = int((~np.isnan(reading.times)).sum())
    artefact = Artefact(
        workdir=job.workdir,
        stage="behavior",
        name="",
        settings=settings,
        inputs=tuple(source.store for source in sources if source.store),
        cost=f"{len(sources)} x {times} reading times of {stories} stories, "
        f"{len(behavior.participant)} participants",
    )
    make = functools.partial(_score, config, job, sources)
    return [Step(artefact=artefact, make=make, shows=SUMMARY)]


def _sources(config: Config, job: Job, upstream: Upstream) -> list[Source]:
    found = []
    networks = (trained(upstream), untrained(upstream)) if "extract" in upstream else ({}, {})
    for stores in networks:
        for model, artefact in stores.items():
            if not artefact.settings["surprisal"]:
                raise InputError("extract.surprisal must be True for the stage behavior.")
            own = stores is networks[0]
            context = artefact.settings["context"]
            found.append(
                Source(model if own else "untrained", "" if own else model, context, artefact)
            )
    if config.published:
        published = job.dataset.word_facts.surprisal_bits
        if repeated := {source.model for source in found} & set(published):
            raise InputError(
                f"a model must not be called as published surprisal is: rename {min(repeated)!r}, "
                "or set behavior.published to False."
            )
        found += [Source(name, "", PUBLISHED, None) for name in published]
    return found


def _reading(config: Config, job: Job) -> Reading:
    """Bring reading times and baseline to the order of the stimuli, by id."""
    stimuli, behavior = job.dataset.stimuli, job.dataset.behavior
    position = words.align(
        np.asarray(behavior.word_in_sentence, np.float64), behavior.stimulus_id, stimuli
    )
    columns = [words.align(x, behavior.stimulus_id, stimuli) for x in behavior.reading_time_ms.T]
    every = np.stack(columns, axis=1)
    counts = config.sentence_initial | (position != 1)
    return Reading(
        story=list(stimuli.passage),
        times=np.where(counts[:, None], every, np.nan),
        every_time=every,
        baseline=words.baseline(config.baseline, stimuli, job.dataset.word_facts, position),
    )


def _bits(source: Source, job: Job) -> Float[np.ndarray, " m"]:
    """Return the surprisal of each stimulus."""
    if source.store is None:
        facts = job.dataset.word_facts
        return words.align(
            facts.surprisal_bits[source.model], facts.stimulus_id, job.dataset.stimuli
        )
    beside = store.open_artefact(source.store)
    values = store.open_vector(source.store.path / store.SURPRISAL, beside).read().result()
    return words.align(values, store.stimulus_ids(source.store), job.dataset.stimuli)


def _score(config: Config, job: Job, sources: Sequence[Source], artefact: Artefact) -> dict:
    start = time.monotonic()
    reading, behavior = _reading(config, job), job.dataset.behavior
    # As Brain-Score has it: of all words, those that begin sentences too.
    ceiling = surprisal.split_half_ceiling(
        reading.every_time, reading.story, num_splits=config.ceiling_splits, seed=job.seed
    )
    rows, stories = [], []
    for source in sources:
        common = {
            "dataset": job.dataset.name,
            "alignment": behavior.alignment,
            "model": source.model,
            "control_of": source.control_of,
            "context": source.context,
            "one_stream": bool(source.store and source.store.settings["one_stream"]),
        }
        bits = _bits(source, job)
        undefined = int(np.isnan(bits).sum())
        if undefined:
            logging.info(
                "behavior: %d of %d words have no surprisal under %s",
                undefined,
                len(bits),
                source.model,
            )
        try:
            found = list(_rows(config, bits, reading, behavior, ceiling))
        except ValueError as error:
            raise InputError(f"behavior, surprisal of {source.model}: {error}") from error
        for row, by_story in found:
            rows.append(common | row | {"num_undefined": undefined})
            stories += [common | _keys(row) | x for x in by_story]
    common = {"dataset": job.dataset.name, "alignment": behavior.alignment}
    common |= {"control_of": "", "context": CONTROL, "one_stream": False}
    mean = surprisal.mean_over_participants(reading.times)
    for name, column in zip(config.baseline, reading.baseline.T, strict=True):
        row, by_story = _correlation(column, mean, reading.story, ceiling, 0)
        undefined = {"num_undefined": int(np.isnan(column).sum())}
        rows.append(common | {"model": name} | row | undefined)
        stories += [common | {"model": name} | _keys(row) | x for x in by_story]
    provenance = {"fingerprint": artefact.fingerprint, "git_commit": run_dir.git_commit()}
    table = pd.DataFrame([row | provenance for row in rows])
    table.insert(2, "model", table.pop("model"))
    _write(artefact, SCORES, table)
    keys = ("dataset", "alignment", "model", "control_of", "context", "one_stream")
    columns = [*keys, *_keys(rows[0]), "story", "value", "num"]
    _write(artefact, STORIES, pd.DataFrame(stories, columns=columns))
    text = _summary(config, table, ceiling, job.dataset.stimuli, behavior)
    run_dir.write_atomic(artefact.path / SUMMARY, text.encode())
    return {"seconds": round(time.monotonic() - start, 3)}


def _write(artefact: Artefact, name: str, table: pd.DataFrame) -> None:
    text = table.to_csv(index=False, na_rep="nan", lineterminator="\n")
    run_dir.write_atomic(artefact.path / name, text.encode())


def _keys(row: dict) -> dict:
    return {name: row[name] for name in ("measure", "times", "evaluation", "offset")}


def _rows(config: Config, bits, reading: Reading, behavior: Behavior, ceiling: Estimate):
    """Yield each row of one source, and the rows of its stories."""
    mean = surprisal.mean_over_participants(reading.times)
    for offset in config.offsets:
        shifted = surprisal.neighbour(bits[:, None], reading.story, offset)[:, 0]
        yield _correlation(shifted, mean, reading.story, ceiling, offset)
    kinds = [(MEAN, mean[:, None])]
    if config.mixed and list(behavior.participant) != [MEAN]:
        kinds.append((PARTICIPANTS, reading.times))
    for kind, times in kinds:
        for held_out in (False, True):
            yield _gain(config, bits, times, reading, kind, held_out)


def _correlation(bits, mean, story, ceiling: Estimate, offset: int):
    keep = np.isfinite(bits) & np.isfinite(mean)
    own = np.asarray(story)[keep]
    bits, mean = bits[keep], mean[keep]
    found = surprisal.correlation(bits, mean, own) if len(own) else UNDEFINED
    low, high = (found.low, found.high) if not found.value < 0 else (-found.high, -found.low)
    row = {
        "measure": PROTOCOL,
        "times": MEAN,
        "evaluation": "all_words",
        "offset": offset,
        "value": abs(found.value),
        "ci_low": low,
        "ci_high": high,
        "r": found.value,
        "ceiling": ceiling.value,
        "ceiling_low": ceiling.low,
        "ceiling_high": ceiling.high,
    }
    by_story = [
        {"story": x, "value": surprisal.pearson_r(bits[at], mean[at]), "num": len(at)}
        for x, at in features.members(own).items()
    ]
    return row | _sizes(len(own), len(own), found.num_groups), by_story


def _gain(config: Config, bits, times, reading: Reading, kind: str, held_out: bool):
    """Compare regressions with and without surprisal, on the same words."""
    base = surprisal.spillover(reading.baseline, reading.story, config.spillover)
    lagged = surprisal.spillover(bits[:, None], reading.story, config.spillover)
    full = np.concatenate([base, lagged], axis=1)
    defined: Bool[np.ndarray, "m s"] = np.isfinite(full).all(axis=1)[:, None] & ~np.isnan(times)
    word, participant = np.nonzero(defined)
    row = {
        "measure": "delta_log_likelihood",
        "times": kind,
        "evaluation": "held_out_story" if held_out else "in_sample",
        "offset": 0,
    }
    y = np.log(times[defined]) if config.log_times else times[defined]
    story = np.asarray(reading.story)[word]
    if len(set(story)) < 2:
        found, by_story = UNDEFINED, []
    else:
        regress = likelihood.linear_log_likelihoods
        if kind == PARTICIPANTS:
            regress = functools.partial(likelihood.mixed_log_likelihoods, participants=participant)
        densities = regress(y, base[word], full[word], stories=story, held_out=held_out)
        found = likelihood.delta_log_likelihood(densities)
        by_story = [
            {"story": x, "value": gain, "num": num}
            for x, gain, num in zip(densities.story, densities.delta, densities.num, strict=True)
        ]
    row |= {"value": found.value, "ci_low": found.low, "ci_high": found.high, "r": np.nan}
    row |= dict.fromkeys(("ceiling", "ceiling_low", "ceiling_high"), np.nan)
    return row | _sizes(len(set(word)), len(word), found.num_groups), by_story


def _sizes(num_words: int, num_observations: int, num_stories: int) -> dict:
    return {
        "num_words": num_words,
        "num_observations": num_observations,
        "num_stories": num_stories,
    }


def _summary(
    config: Config, table: pd.DataFrame, ceiling: Estimate, stimuli: Stimuli, behavior: Behavior
) -> str:
    """Say in a few lines what was found."""
    people = (
        "mean over participants"
        if list(behavior.participant) == [MEAN]
        else f"{len(behavior.participant)} participants"
    )
    initial = "kept" if config.sentence_initial else "left out"
    terms = ", ".join(config.baseline) or "an intercept alone"
    lines = [
        "",
        f"Reading times of {table.dataset.iloc[0]} ({behavior.alignment} alignment, {people}; "
        f"{len(behavior.stimulus_id)} of {len(stimuli)} words; words that begin a sentence "
        f"{initial}).",
        "|r|: surprisal in bits against mean times. gain: of log-likelihood, in nats per "
        "reading time,",
        f"over {terms}, each with {config.spillover} words before, in sample and for held-out "
        "stories.",
        "In brackets: 95 % intervals over stories (jackknife).",
        "",
    ]
    if np.isnan(ceiling.value):
        lines.append("ceiling of |r|: undefined, times of single participants are not known")
    else:
        lines.append(
            f"ceiling of |r|: {_interval(ceiling)} (split halves of participants, Spearman-Brown)"
        )
    for (model, control_of), own in table.groupby(["model", "control_of"], sort=False):
        kind = " (control)" if (own.context == CONTROL).all() else ""
        lines.append(f"{model}{f' of {control_of}' if control_of else kind}")
        for row in own.itertuples():
            what = f"|r|, surprisal of word {row.offset:+d}" if row.offset else "|r|"
            if row.measure != PROTOCOL:
                what = f"gain, {row.times}, {row.evaluation.replace('_', ' ')}"
            estimate = Estimate(row.value, row.ci_low, row.ci_high, row.num_words, row.num_stories)
            lines.append(
                f"  {what:38} {_interval(estimate)}  {row.num_observations} times, "
                f"{row.num_words} words, {row.num_stories} stories"
            )
    return "\n".join(lines) + "\n"


def _interval(found: Estimate) -> str:
    return f"{found.value:.4f} [{found.low:.4f}, {found.high:.4f}]"
