"""Features that know nothing of a language model, scored by the same path as one."""

import collections
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from jaxalign.core import features
from jaxalign.data import word_tables
from jaxalign.data.images import lowlevel
from jaxalign.data.schema import Stimuli
from jaxalign.data.word_tables import Table
from jaxalign.errors import InputError

# Made of what images are before anything is seen in them: see `images/lowlevel.py`.
OF_IMAGES = tuple(lowlevel.FEATURES)
# Made of what a model was asked about images, and of what it said: see `images/said.py`.
OF_ANSWERS = ("instruction_alone", "answer_length", "answer_words")
# Made of the stimuli or of the order of samples alone; or of answers, and of no activation.
STIMULUS_CONTROLS = (
    "word_rate",
    "word_length",
    "position",
    "length",
    "sentence_length",
    "sentence_position",
    "frequency",
    "word_vectors",
    "oasm",
    *OF_IMAGES,
    *OF_ANSWERS,
)
# Beside these, controls are made of a network: `shifted` (its features at the wrong time),
# `shuffled` (in any order), `static_embedding` (the rows of its embedding, without position or
# context), `untrained` (the same architecture with random weights), and `random_embedding` (the
# embedding of that: a random vector for each token, which knows words and no context).
UNTRAINED_CONTROLS = ("untrained", "random_embedding")
CONTROLS = (
    *STIMULUS_CONTROLS,
    "shifted",
    "shuffled",
    "static_embedding",
    *UNTRAINED_CONTROLS,
)
# Those that are scored unless others are asked for: `untrained` has the random embedding as its
# layer 0.
DEFAULT = ("word_rate", "word_length", "position", "shifted", "untrained")
# Those that have the same features beside every layer of a network.
WITHOUT_LAYERS = (*STIMULUS_CONTROLS, "static_embedding", "random_embedding")
# Those that may share a partition of variance with a network. `oasm` would say nothing there: folds
# are contiguous.
PARTITION = tuple(name for name in WITHOUT_LAYERS if name != "oasm")
# Made of the text of stimuli; the others are made of images, or of the order of samples.
OF_TEXT = tuple(
    x for x in STIMULUS_CONTROLS if x not in ("position", "oasm", *OF_IMAGES, *OF_ANSWERS)
)
# Of whole sentences.
OF_SENTENCES = ("sentence_length", "sentence_position")
# Added up over the words of a TR, where the others are averaged.
COUNTS = ("word_rate", "length")


class Given(NamedTuple):
    """A control that the data set itself has, for each stimulus."""

    values: Float[np.ndarray, "m c"]
    num_unknown: int  # stimuli that have none of their own


class Lexicon(NamedTuple):
    """Tables of those controls that read one; None where it is not asked for."""

    frequency: Table | Given | None = None
    word_vectors: Table | None = None


def read_lexicon(paths: Mapping[str, pathlib.Path], stimuli: Stimuli) -> Lexicon:
    """Read the tables of some controls.

    Args:
      paths: file of each control, of `Lexicon`'s fields.
      stimuli: whose words are looked up.

    Raises:
      InputError: see `word_tables.read_frequencies` and `word_tables.read_vectors`.
    """
    readers = {
        "frequency": word_tables.read_frequencies,
        "word_vectors": word_tables.read_vectors,
    }
    return Lexicon(**{name: readers[name](path, stimuli) for name, path in paths.items()})


def of_parts(name: str, stimuli: Stimuli, lexicon: Lexicon) -> Float[np.ndarray, "m c"]:
    """Return a control that has a row for each part.

    Args:
      name: of `STIMULUS_CONTROLS`, but not `position` or `oasm`, which have one for each sample,
        nor of `OF_ANSWERS`, which are no property of a part.
      stimuli: parts.
      lexicon: tables, which `frequency` and `word_vectors` need.

    Raises:
      InputError: see `check`.
    """
    check(name, stimuli)
    if name in OF_IMAGES and stimuli.pixels is not None:
        return lowlevel.of_images(name, stimuli.pixels)
    if name in Lexicon._fields:
        table = getattr(lexicon, name)
        return table.values if isinstance(table, Given) else word_tables.mean(table, stimuli)
    make = {
        "word_rate": word_rate,
        "word_length": word_length,
        "length": length,
        "sentence_length": sentence_length,
        "sentence_position": sentence_position,
    }
    return make[name](stimuli)


def check(name: str, stimuli: Stimuli) -> None:
    """Refuse a control that these stimuli cannot have.

    Raises:
      InputError: if it is one of sentences and the stimuli are words, or one of text and the
        stimuli are images without captions, or one of images and there are none, or their pixels
        are not there.
    """
    if name in OF_IMAGES:
        if stimuli.pixels is None:
            raise InputError(
                f"control {name} is made of images, but the stimuli are {stimuli.unit}s."
            )
        stimuli.pixels.check()
    if name in OF_TEXT and not stimuli.text:
        raise InputError(
            f"control {name} is made of text, but the stimuli are {stimuli.unit}s without captions."
        )
    if name in OF_SENTENCES and stimuli.unit == "word":
        raise InputError(
            f"control {name} needs stimuli that are sentences; these are {stimuli.unit}s."
        )


def word_rate(stimuli: Stimuli) -> Float[np.ndarray, "m 1"]:
    """Words in each part; summed within a TR it is the number of words heard."""
    return np.array([[len(text.split())] for text in stimuli.text], np.float64)


def word_length(stimuli: Stimuli) -> Float[np.ndarray, "m 1"]:
    """Mean number of letters and digits per word of each part."""
    return np.array(
        [[np.mean([_letters(word) for word in text.split()])] for text in stimuli.text], np.float64
    )


def length(stimuli: Stimuli) -> Float[np.ndarray, "m 2"]:
    """Words, and letters and digits, in each part."""
    return np.array([[len(text.split()), _letters(text)] for text in stimuli.text], np.float64)


def sentence_length(stimuli: Stimuli) -> Float[np.ndarray, "m 1"]:
    """Words in each sentence."""
    return word_rate(stimuli)


def sentence_position(stimuli: Stimuli) -> Float[np.ndarray, "m c"]:
    """Place of each sentence in its passage, one column for the first, one for the second ...

    Source: Hadidi, Feghhi et al. (2025), bioRxiv 2025.03.09.642245.
    """
    place = np.empty(len(stimuli), int)
    for own in features.members(stimuli.passage).values():
        place[own] = np.arange(len(own))
    return np.eye(place.max() + 1)[place]


def position(groups: features.Labels) -> Float[np.ndarray, "n 2"]:
    """Position of each sample in its group (run or passage), from -1 to 1, and its square."""
    place = np.zeros(len(groups))
    for own in features.members(groups).values():
        place[own] = np.linspace(-1, 1, len(own)) if len(own) > 1 else 0.0
    return np.stack([place, place**2], axis=1)


def oasm(blocks: features.Labels, sigma: float) -> Float[np.ndarray, "n n"]:
    """Orthogonal autocorrelated sequences: who one's neighbours are, and nothing of a stimulus.

    The identity over samples, smoothed along time within each block by a Gaussian (reflected at a
    block's ends); between samples of different blocks it is 0. What it predicts on held-out
    samples, it predicts by neighbours of theirs in training. All of it is scaled by one number, so
    that columns have a variance of 1 on average.

    It must not be scaled column by column: that of a held-out sample a few steps from the nearest
    training sample is nearly constant in training, and would be blown up.

    Args:
      blocks: of each sample, in order of time: its passage, or its run.
      sigma: standard deviation of the Gaussian, in samples.

    Source: Feghhi, Hadidi et al. (2024), arXiv 2406.01538, where sigma was one of 0.1 .. 4.8.
    """
    found = np.zeros((len(blocks), len(blocks)))
    for own in features.members(blocks).values():
        found[np.ix_(own, own)] = ndimage.gaussian_filter1d(
            np.eye(len(own)), sigma, axis=0, mode="reflect"
        )
    scale = np.sqrt(found.var(axis=0).mean())
    return found / scale if scale > 0 else found


def report_unknown(table: Table | Given, stimuli: Stimuli) -> tuple[int, str]:
    """Count the words that a table does not list, and say which.

    Returns:
      Their number, occurrences counted, and a clause such as "3 of 500 words are not listed (2
      different ones: Wug, blicket)"; at most five are named, the most frequent first. Of given
      values the number of stimuli that have none.
    """
    if isinstance(table, Given):
        num = table.num_unknown
        return num, f"{num} of {len(stimuli)} stimuli have no value and take the least"
    missing, size = word_tables.unknown(table, stimuli)
    kinds = collections.Counter(missing)
    names = ", ".join(word for word, _ in kinds.most_common(5))
    clause = f"{len(missing)} of {size} words are not listed"
    if missing:
        clause += f" ({len(kinds)} different ones: {names}{' ...' if len(kinds) > 5 else ''})"
    return len(missing), clause


def _letters(text):
    return sum(c.isalnum() for c in text)
