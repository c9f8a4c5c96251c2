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


def from_stimuli(
    values: Float[np.ndarray, "m u"],
    stimuli: Stimuli,
    responses: Responses,
    *,
    method: features.Downsample,
    lead: int,
) -> Samples:
    """Resample features of words to TRs run by run, or pick those of single stimuli by id.

    Args:
      values: one row per stimulus.
      stimuli: what the rows belong to.
      responses: whose samples are wanted.
      method: how the words of a TR are combined; see `features.downsample`.
      lead: TRs to add before each run, as many as the longest delay.
    """
    if not responses.is_timed:
        row = {name: i for i, name in enumerate(stimuli.stimulus_id)}
        chosen = values[[row[name] for name in responses.stimulus_id]]
        return Samples(chosen, responses.run, np.arange(len(chosen)))
    grid = features.lead_in(responses.time_s, responses.run, responses.tr_s, lead)
    words = features.members(stimuli.run)
    resampled = np.zeros((len(grid.time_s), values.shape[1]))
    for run, trs in features.members(grid.run).items():
        own = words[run]
        resampled[trs] = features.downsample(
            values[own], stimuli.onset_s[own], grid.time_s[trs], responses.tr_s, method
        )
    return Samples(resampled, grid.run, grid.recorded)


def of_control(
    name: str,
    stimuli: Stimuli,
    responses: Responses,
    *,
    method: features.Downsample,
    lead: int,
    lexicon: controls.Lexicon,
    oasm_sigma: float,
) -> Samples:
    """Return a control that is made of the stimuli, or of the order of samples, alone.

    Args:
      name: of `controls.STIMULUS_CONTROLS`.
      stimuli: what was presented.
      responses: whose samples are wanted.
      method: see `from_stimuli`; numbers of words and letters are added up instead.
      lead: TRs to add before each run.
      lexicon: see `controls.of_parts`.
      oasm_sigma: see `controls.oasm`; in TRs, or in stimuli.

    Raises:
      InputError: see `controls.check`.
    """
    if name == "position":
        return positions(stimuli, responses, lead=lead)
    if name == "oasm":
        return blocks(stimuli, responses, oasm_sigma, lead=lead)
    values = controls.of_parts(name, stimuli, lexicon)
    method = "sum" if name in controls.COUNTS else method
    return from_stimuli(values, stimuli, responses, method=method, lead=lead)


def passages(stimuli: Stimuli, responses: Responses) -> list[str]:
    """Return the passage of each sample of responses to single stimuli."""
    passage = dict(zip(stimuli.stimulus_id, stimuli.passage, strict=True))
    return [passage[name] for name in responses.stimulus_id]


def positions(stimuli: Stimuli, responses: Responses, *, lead: int) -> Samples:
    """Position of each sample in its run; in its passage too, where samples are stimuli.

    Args:
      stimuli: for the passages.
      responses: whose samples are wanted.
      lead: TRs to add before each run.
    """
    if responses.is_timed:
        grid = features.lead_in(responses.time_s, responses.run, responses.tr_s, lead)
        return Samples(controls.position(grid.run), grid.run, grid.recorded)
    groups = (passages(stimuli, responses), responses.run)
    values = np.concatenate([controls.position(x) for x in groups], axis=1)
    return Samples(values, responses.run, np.arange(len(values)))


def blocks(stimuli: Stimuli, responses: Responses, sigma: float, *, lead: int) -> Samples:
    """Identity of each sample, smoothed within its run, or its passage where samples are stimuli.

    Args:
      stimuli: for the passages.
      responses: whose samples are wanted.
      sigma: see `controls.oasm`.
      lead: TRs to add before each run.
    """
    if responses.is_timed:
        grid = features.lead_in(responses.time_s, responses.run, responses.tr_s, lead)
        return Samples(controls.oasm(grid.run, sigma), grid.run, grid.recorded)
    own = [
        f"{run}\n{x}" for run, x in zip(responses.run, passages(stimuli, responses), strict=True)
    ]
    values = controls.oasm(own, sigma)
    return Samples(values, responses.run, np.arange(len(values)))
