"""From features of stimuli to features of the responses' samples, joined by run, time and id."""

from typing import NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float, Int

from jaxalign.core import clock, features
from jaxalign.data import controls
from jaxalign.data.schema import Responses, Stimuli
from jaxalign.errors import InputError

_MANY = 0.05  # share of words or TRs from which on a warning counts them
_BEYOND = 20  # lengths of a run, between those of a session (a few) and a thousand


class Samples(NamedTuple):
    """Features on the grid of TRs (with those that lead up to a run), or of single stimuli."""

    values: Float[np.ndarray, "m u"]
    run: features.Labels
    recorded: Int[np.ndarray, " n"]  # rows that have a response, in the responses' order


class Placement(NamedTuple):
    """How features of stimuli come to the samples of responses.

    Attributes:
      stimuli: what was presented.
      responses: whose samples are wanted.
      downsample: how the words of a TR are combined; see `clock.downsample`.
      lead: TRs to add before each run, as many as the longest delay.
    """

    stimuli: Stimuli
    responses: Responses
    downsample: clock.Downsample
    lead: int


def from_stimuli(values: Float[np.ndarray, "m u"], onto: Placement) -> Samples:
    """Resample features of words to TRs run by run, or pick those of single stimuli by id.

    Args:
      values: one row per stimulus.
      onto: where they are to go.
    """
    stimuli, responses = onto.stimuli, onto.responses
    if not responses.is_timed:
        row = {name: i for i, name in enumerate(stimuli.stimulus_id)}
        chosen = values[[row[name] for name in responses.stimulus_id]]
        return Samples(chosen, responses.run, np.arange(len(chosen)))
    grid = clock.grid(responses.time_s, responses.run, responses.tr_s, onto.lead)
    words = features.members(stimuli.run)
    resampled = np.zeros((len(grid.time_s), values.shape[1]))
    for run, trs in features.members(grid.run).items():
        heard = words[run]
        onset_s, start_s = stimuli.onset_s[heard], grid.time_s[trs]
        resampled[trs] = clock.downsample(
            values[heard], onset_s, start_s, responses.tr_s, onto.downsample
        )
    return Samples(resampled, grid.run, grid.recorded)


def check_clock(
    name: str, stimuli: Stimuli, responses: Responses, lead: int
) -> tuple[int, int, int]:
    """Hold onsets of words against the TRs of their runs; warn of what does not meet.

    Words that begin in no TR are in no mean and no sum (under `lanczos` those within three TRs
    count), and TRs without a word have features of 0. Where either is a twentieth or more of all, a
    warning says so.

    Args:
      name: of the data set.
      stimuli: words with times.
      responses: to TRs; every run is one of the stimuli's.
      lead: TRs before each run that delays reach; words in them are in a TR.

    Returns:
      How many words begin in no TR; of how many of these the time is not known; and in how many
      recorded TRs no word begins.

    Raises:
      InputError: if no word of a run begins in one of its TRs, or their onsets are milliseconds.
    """
    grid = clock.grid(responses.time_s, responses.run, responses.tr_s, lead)
    recorded = np.isin(np.arange(len(grid.time_s)), grid.recorded)
    words = features.members(stimuli.run)
    outside = dict.fromkeys(features.members(grid.run), 0)
    heard = unknown = empty = 0
    for run, trs in features.members(grid.run).items():
        onset_s, time_s = stimuli.onset_s[words[run]], grid.time_s[trs]
        place = clock.tr_of_words(onset_s, time_s, responses.tr_s)
        if (place < 0).all():
            known = onset_s[~np.isnan(onset_s)]
            begin = (
                f"from {known.min():g} to {known.max():g} s" if len(known) else "at unknown times"
            )
            raise InputError(
                f"data set {name}: run {run!r}: words must begin within its {recorded[trs].sum()} "
                f"TRs, {time_s[recorded[trs]][0]:g} to {time_s[-1] + responses.tr_s:g} s, but all "
                f"{len(place)} begin {begin}: onset_s must be in seconds, on the clock of time_s, "
                "in every run."
            )
        if reason := _in_milliseconds(onset_s, time_s, responses.tr_s):
            raise InputError(f"data set {name}: run {run!r}: {reason}")
        heard += len(place)
        unknown += int(np.isnan(onset_s).sum())
        outside[run] = int((place < 0).sum())
        empty += len(np.setdiff1d(np.flatnonzero(recorded[trs]), place))
    lost, num_trs = sum(outside.values()), len(grid.recorded)
    if lost >= _MANY * heard:
        worst = max(outside, key=lambda run: outside[run] / len(words[run]))
        logging.warning(
            "data set %s: %d of %d words (%.1f %%) begin in no TR, %d of them because their time "
            "is not known; most in run %s (%d of %d). They are in no mean or sum of a TR; lanczos "
            "counts those within %d TRs",
            *(name, lost, heard, 100 * lost / heard, unknown),
            *(worst, outside[worst], len(words[worst]), clock.LANCZOS_LOBES),
        )
    if empty >= _MANY * num_trs:
        logging.warning(
            "data set %s: in %d of %d TRs (%.1f %%) no word begins; their features are 0",
            *(name, empty, num_trs, 100 * empty / num_trs),
        )
    return lost, unknown, empty


def _in_milliseconds(
    onset_s: Float[np.ndarray, " m"], time_s: Float[np.ndarray, " n"], tr_s: float
) -> str:
    """Say that the onsets of a run are milliseconds, where they can be nothing else; else "".

    The first words of a run begin within it in either unit, so that some are always in a TR. Most
    are `_BEYOND` runs' lengths away from its start, where no clock of a session leads: those of a
    run that come after so many others are outside with all of its words.
    """
    known = onset_s[np.isfinite(onset_s)]
    length = time_s[-1] + tr_s - time_s[0]
    if np.median(known - time_s[0]) <= _BEYOND * length:
        return ""
    return (
        f"onset_s must be in seconds, but half of its {len(known)} words begin after "
        f"{np.median(known):g} s, and its {len(time_s)} TRs end at {time_s[-1] + tr_s:g} s: "
        "milliseconds are to be divided by 1000."
    )


def of_control(
    name: str, onto: Placement, *, lexicon: controls.Lexicon, oasm_sigma: float
) -> Samples:
    """Return a control that is made of the stimuli, or of the order of samples, alone.

    Args:
      name: of `controls.STIMULUS_CONTROLS`.
      onto: where it is to go; numbers of words and letters are always added up.
      lexicon: see `controls.of_parts`.
      oasm_sigma: see `controls.oasm`; in TRs, or in stimuli.

    Raises:
      InputError: see `controls.check`.
    """
    if name == "position":
        return positions(onto)
    if name == "oasm":
        return blocks(onto, oasm_sigma)
    values = controls.of_parts(name, onto.stimuli, lexicon)
    return from_stimuli(
        values, onto._replace(downsample="sum") if name in controls.COUNTS else onto
    )


def passages(stimuli: Stimuli, responses: Responses) -> list[str]:
    """Return the passage of each sample of responses to single stimuli."""
    passage = dict(zip(stimuli.stimulus_id, stimuli.passage, strict=True))
    return [passage[name] for name in responses.stimulus_id]


def positions(onto: Placement) -> Samples:
    """Return the position of each sample in its run; in its passage too, of single stimuli."""
    responses = onto.responses
    if responses.is_timed:
        grid = clock.grid(responses.time_s, responses.run, responses.tr_s, onto.lead)
        return Samples(controls.position(grid.run), grid.run, grid.recorded)
    groups = (passages(onto.stimuli, responses), responses.run)
    values = np.concatenate([controls.position(x) for x in groups], axis=1)
    return Samples(values, responses.run, np.arange(len(values)))


def blocks(onto: Placement, sigma: float) -> Samples:
    """Return the identity of each sample, smoothed in its run, or of single stimuli its passage.

    Args:
      onto: whose samples.
      sigma: see `controls.oasm`.
    """
    responses = onto.responses
    if responses.is_timed:
        grid = clock.grid(responses.time_s, responses.run, responses.tr_s, onto.lead)
        return Samples(controls.oasm(grid.run, sigma), grid.run, grid.recorded)
    groups = zip(responses.run, passages(onto.stimuli, responses), strict=True)
    values = controls.oasm([f"{run}\n{passage}" for run, passage in groups], sigma)
    return Samples(values, responses.run, np.arange(len(values)))
