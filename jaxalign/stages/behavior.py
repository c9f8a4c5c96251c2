"""Surprisal x reading times -> correlations, ceilings and gains in likelihood, as tidy tables."""

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Annotated, NamedTuple

import numpy as np
import pandas as pd
from absl import logging
from jaxtyping import Bool, Float

from jaxalign import stopping
from jaxalign.checks import Count, Names, NotNegative, Rule, check, differ
from jaxalign.core import features
from jaxalign.core.behavior import likelihood, surprisal
from jaxalign.core.behavior.surprisal import Estimate
from jaxalign.core.ceilings import ceiling as ceiling_lib
from jaxalign.data import datasets, words
from jaxalign.data.schema import MEAN, Behavior
from jaxalign.errors import InputError
from jaxalign.io import rows as rows_lib
from jaxalign.io import run_dir
from jaxalign.io.run_dir import Artefact
from jaxalign.pricing import regressions, work
from jaxalign.reporting import page as page_lib
from jaxalign.reporting.page import SUMMARY
from jaxalign.reporting.pages import behavior as report
from jaxalign.stages import Job, Step, Upstream, artefacts
from jaxalign.stages.artefacts import Activations, Page, ReadingTimes

VERSION = 4
SCORES, STORIES = ReadingTimes.SCORES, ReadingTimes.STORIES
PARTICIPANTS = "participants"
PUBLISHED = "published"
UNDEFINED = Estimate(np.nan, np.nan, np.nan, 0, 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the behaviour stage."""

    # What reading times are regressed on in addition to surprisal: "length", "log_frequency",
    # "position", or columns of numbers in the table of one's own words.
    baseline: Names = ("length", "log_frequency")
    spillover: NotNegative = 2  # words before each whose surprisal and baseline count too
    sentence_initial: bool = False  # keep the words that begin a sentence
    log_times: bool = False  # regress the logarithm of reading times
    mixed: bool = True  # random intercepts, where times of single participants are known
    published: bool = True  # score the surprisal that the data set comes with, too
    # Correlate each time with the surprisal of the word so many places after it: where times were
    # assigned to the wrong words, and how far reading lags behind, shows at others than 0.
    offsets: Annotated[tuple[int, ...], differ, Rule("hold 0", lambda x: 0 in x)] = (-1, 0, 1)
    ceiling_splits: Count = 10  # random halves of the participants
    # Data sets of the same words with other reading times (another alignment, single
    # participants), which are scored too and stand next to them in tables and charts.
    beside: Names = ()

    def __post_init__(self):
        check(self, "behavior")

    @property
    def measure(self) -> str:
        """What rows call the correlation: a protocol, or its name and "-own-reading"."""
        return report.correlation_name(self.sentence_initial)


class Source(NamedTuple):
    """Whose surprisal it is."""

    model: str
    control_of: str  # of an untrained network: the model it is compared with
    context: str  # what words were seen with; "published" where others say so
    store: Activations | None  # None: published with the data set


class Reading(NamedTuple):
    """Reading times and baseline of all stimuli, in the order of reading."""

    story: list[str]  # the passage of each word
    told: list[str]  # the same, or the first passage that shares most of its words
    times: Float[np.ndarray, "m s"]  # NaN where there is none, or the word does not count
    every_time: Float[np.ndarray, "m s"]  # of the words that begin sentences, too
    baseline: Float[np.ndarray, "m b"]


def plan(config: Config, job: Job, upstream: Upstream) -> list[Step]:
    """Plan the scores of every data set of reading times, and one report of all.

    Each takes all networks that were extracted, and published surprisal.

    Raises:
      InputError: if there are no reading times or no surprisal, the data set lacks what the
        baseline is made of, words that were read are not among the stimuli, or a data set beside
        has others.
    """
    jobs = [job, *(_beside(name, job) for name in config.beside)]
    steps = [_plan_scores(config, x, upstream) for x in jobs]
    artefact = Artefact(
        workdir=job.workdir,
        stage="behavior",
        kind=Page.kind,
        name="report",
        settings={"version": VERSION, "page": page_lib.VERSION},
        inputs=tuple(step.artefact for step in steps),
        cost="tables, charts, page",
        latest_only=True,
    )
    make = functools.partial(_report, config)
    return [*steps, Step(artefact=artefact, make=make, work=work.PAGE, shows=SUMMARY)]


def _beside(name: str, job: Job) -> Job:
    """Return the job on another data set of the same words."""
    dataset = datasets.find(name, job.data_root)
    if dataset.name == job.dataset.name:
        raise InputError(f"behavior.beside must name other data sets, got {name!r}.")
    if dataset.stimuli.hash != job.dataset.stimuli.hash:
        raise InputError(
            f"behavior.beside must name data sets of the words of {job.dataset.name}: {name} has "
            "others."
        )
    return dataclasses.replace(job, dataset=dataset)


def _plan_scores(config: Config, job: Job, upstream: Upstream) -> Step:
    stimuli, behavior = job.dataset.stimuli, job.dataset.behavior
    sources = _sources(config, job, upstream)
    if not sources:
        raise InputError(
            "behavior needs surprisal: add the stage extract, or a data set that has published one."
        )
    reading = _reading(config, job)
    stories = len({s for s, t in zip(reading.told, reading.times, strict=True) if any(t > 0)})
    again = {a: b for a, b in zip(reading.story, reading.told, strict=True) if a != b}
    also = f": {len(again)} share most of their words with another" if again else ""
    if stories < 2:
        raise InputError(
            f"behavior needs reading times of at least 2 passages, found {stories}{also}."
        )
    if again:
        one, other = next(iter(again.items()))
        logging.warning(
            "behavior: %d passages share most of their words with another, and count as one story "
            "with it (%r with %r)",
            len(again),
            one,
            other,
        )
    settings = {"version": VERSION, "seed": job.seed} | dataclasses.asdict(config)
    del settings["beside"]  # each is an artefact of its own
    if config.measure != report.CORRELATION:
        settings["measure"] = config.measure
    settings |= {
        "mixed": config.mixed and list(behavior.participant) != [MEAN],
        "published": [source.model for source in sources if source.store is None],
        "dataset": job.dataset.name,
        "behavior_hash": behavior.hash,
        "stimuli_hash": stimuli.hash,
        "facts_hash": job.dataset.word_facts.hash,
    }
    times = int((~np.isnan(reading.times)).sum())
    artefact = Artefact(
        workdir=job.root,
        stage="behavior",
        kind=ReadingTimes.kind,
        name=job.dataset.name,
        settings=settings,
        inputs=tuple(source.store.artefact for source in sources if source.store),
        cost=f"{len(sources)} x {times} reading times of {stories} stories, "
        f"{len(behavior.participant)} participants",
    )
    score = functools.partial(_score, config, job, sources)
    lags, columns = config.spillover + 1, reading.baseline.shape[1]
    takes = regressions.of_reading(
        int((~np.isnan(reading.times)).any(axis=1).sum()),
        times if settings["mixed"] else 0,
        stories,
        (lags * columns, lags * (columns + 1)),
        len(sources),
    )
    return Step(artefact=artefact, make=score, work=takes)


def _sources(config: Config, job: Job, upstream: Upstream) -> list[Source]:
    found = []
    every = artefacts.among(Activations, upstream.get("extract", ()))
    for kind in (Activations.TRAINED, Activations.UNTRAINED):
        for store in (x for x in every if x.artefact.kind == kind):
            if not store.settings["surprisal"]:
                raise InputError("extract.surprisal must be True for the stage behavior.")
            found.append(Source(**store.names, context=store.reading["context"], store=store))
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
    every = words.align(behavior.reading_time_ms, behavior.stimulus_id, stimuli)
    counts = config.sentence_initial | (position != 1)
    return Reading(
        story=list(stimuli.passage),
        told=job.dataset.told,
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
    return words.align(*source.store.surprisal(), job.dataset.stimuli)


def _score(config: Config, job: Job, sources: Sequence[Source], artefact: Artefact) -> dict:
    start = time.monotonic()
    reading, behavior = _reading(config, job), job.dataset.behavior
    # As Brain-Score has it: of all words, those that begin sentences too.
    ceiling = surprisal.split_half_ceiling(
        reading.every_time, reading.story, num_splits=config.ceiling_splits, seed=job.seed
    )
    known = list(behavior.participant) != [MEAN]
    shared = {
        "dataset": job.dataset.name,
        "alignment": behavior.alignment,
        "num_participants": len(behavior.participant) if known else 0,  # 0: means alone
    }
    rows, stories = [], []
    for source in stopping.watch(sources):
        common = shared | {
            "model": source.model,
            "control_of": source.control_of,
            "context": source.context,
            "one_stream": bool(source.store and source.store.settings["one_stream"]),
            "bos": source.store.settings["bos"] if source.store else "",
            "joining": source.store.settings["joining"] if source.store else "",
            "num_shared_tokens": _num_shared_tokens(source, job),
        }
        bits = _bits(source, job)
        undefined = int(np.isnan(bits).sum())
        if undefined:
            logging.info(
                "behavior %s: %d of %d words have no surprisal under %s",
                job.dataset.name,
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
    common = shared | {"control_of": "", "context": report.BASELINE, "one_stream": False}
    common |= {"bos": "", "joining": "", "num_shared_tokens": 0}
    mean = surprisal.mean_over_participants(reading.times)
    for name, column in zip(config.baseline, reading.baseline.T, strict=True):
        row, by_story = _correlation(column, mean, reading.told, ceiling, 0)
        row["measure"] = config.measure
        undefined = {"num_undefined": int(np.isnan(column).sum())}
        rows.append(common | {"model": name} | row | undefined)
        stories += [common | {"model": name} | _keys(row) | x for x in by_story]
    provenance = {"fingerprint": artefact.fingerprint, "git_commit": run_dir.git_commit()}
    table = pd.DataFrame([row | provenance for row in rows])
    first = ["dataset", "alignment", "num_participants", "model", "control_of", "context"]
    first += ["one_stream", "bos", "joining", "num_shared_tokens", *_keys(rows[0])]
    rows_lib.write_table(
        artefact.path / SCORES, table[[*first, *(x for x in table if x not in first)]]
    )
    rows_lib.write_table(
        artefact.path / STORIES, pd.DataFrame(stories, columns=[*first, "story", "value", "num"])
    )
    return {"seconds": round(time.monotonic() - start, 3)}


def _num_shared_tokens(source: Source, job: Job) -> int:
    """Return how many tokens reach into several words; each counts once, where it begins."""
    if source.store is None:
        return 0
    found = source.store.artefact.facts()["passes"]["shared_tokens"]
    if found:
        logging.warning(
            "behavior %s: %d tokens of %s reach into more than one word: each counts for the word "
            "where it begins, and words in which none begins have no surprisal",
            job.dataset.name,
            found,
            source.model,
        )
    return found


def _keys(row: dict) -> dict:
    return {name: row[name] for name in ("measure", "times", "evaluation", "offset")}


def _rows(config: Config, bits, reading: Reading, behavior: Behavior, ceiling: Estimate):
    """Yield each row of one source, and the rows of its stories."""
    mean = surprisal.mean_over_participants(reading.times)
    for offset in config.offsets:
        shifted = surprisal.neighbour(bits[:, None], reading.story, offset)[:, 0]
        row, by_story = _correlation(shifted, mean, reading.told, ceiling, offset)
        yield row | {"measure": config.measure}, by_story
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
        "measure": report.CORRELATION,
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
        "ceiling_root": float(ceiling_lib.root(np.array(ceiling.value))),
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
        "measure": report.GAIN,
        "times": kind,
        "evaluation": "held_out_story" if held_out else "in_sample",
        "offset": 0,
    }
    y = np.log(times[defined]) if config.log_times else times[defined]
    story = np.asarray(reading.told)[word]
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
    row |= dict.fromkeys(("ceiling", "ceiling_low", "ceiling_high", "ceiling_root"), np.nan)
    return row | _sizes(len(set(word)), len(word), found.num_groups), by_story


def _sizes(num_words: int, num_observations: int, num_stories: int) -> dict:
    return {
        "num_words": num_words,
        "num_observations": num_observations,
        "num_stories": num_stories,
    }


def _report(config: Config, artefact: Artefact) -> dict:
    """Lay out the scores of all data sets as a page."""
    read = lambda name: pd.concat(
        [rows_lib.read_table(x.path / name) for x in artefact.inputs], ignore_index=True
    )
    scores, stories = read(SCORES), read(STORIES)
    regression = report.Regression(
        config.baseline, config.spillover, config.log_times, config.sentence_initial
    )
    provenance = page_lib.provenance(artefact, scores.git_commit.iloc[0])
    found = report.page(scores, stories, regression, provenance)
    return {"num_rows": len(scores), "files": found.write(artefact.path, parquet=True)}
