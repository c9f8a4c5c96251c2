"""From features of stimuli to features of the responses' samples, joined by run, time and id."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxalign.core import features
from jaxalign.data import controls
from jaxalign.data.schema import Responses, Stimuli


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
      downsample: how the words of a TR are combined; see `features.downsample`.
      lead: TRs to add before each run, as many as the longest delay.
    """

    stimuli: Stimuli
    responses: Responses
    downsample: features.Downsample
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
    grid = features.lead_in(responses.time_s, responses.run, responses.tr_s, onto.lead)
    words = features.members(stimuli.run)
    resampled = np.zeros((len(grid.time_s), values.shape[1]))
    for run, trs in features.members(grid.run).items():
        heard = words[run]
        onset_s, start_s = stimuli.onset_s[heard], grid.time_s[trs]
        resampled[trs] = features.downsample(
            values[heard], onset_s, start_s, responses.tr_s, onto.downsample
        )
    return Samples(resampled, grid.run, grid.recorded)


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
        grid = features.lead_in(responses.time_s, responses.run, responses.tr_s, onto.lead)
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
        grid = features.lead_in(responses.time_s, responses.run, responses.tr_s, onto.lead)
        return Samples(controls.oasm(grid.run, sigma), grid.run, grid.recorded)
    groups = zip(responses.run, passages(onto.stimuli, responses), strict=True)
    values = controls.oasm([f"{run}\n{passage}" for run, passage in groups], sigma)
    return Samples(values, responses.run, np.arange(len(values)))
