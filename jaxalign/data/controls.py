"""Features that know nothing of a language model, scored by the same path as one."""

import numpy as np
from jaxtyping import Float

from jaxalign.core import features
from jaxalign.data.schema import Stimuli

# Beside these, controls are made of a network: `shifted` (its features at the wrong time),
# `untrained` (the same architecture with random weights), and `random_embedding` (the embedding of
# that: a random vector for each token, which knows words and no context).
STIMULUS_CONTROLS = ("word_rate", "word_length", "position")
UNTRAINED_CONTROLS = ("untrained", "random_embedding")
CONTROLS = (*STIMULUS_CONTROLS, "shifted", *UNTRAINED_CONTROLS)
# Those that are scored unless others are asked for: `untrained` has the random embedding as its
# layer 0.
DEFAULT = (*STIMULUS_CONTROLS, "shifted", "untrained")


def word_rate(stimuli: Stimuli) -> Float[np.ndarray, "m 1"]:
    """Words in each part; summed within a TR it is the number of words heard."""
    return np.array([[len(text.split())] for text in stimuli.text], np.float64)


def word_length(stimuli: Stimuli) -> Float[np.ndarray, "m 1"]:
    """Mean number of letters and digits per word of each part."""
    letters = lambda word: sum(c.isalnum() for c in word)
    return np.array(
        [[np.mean([letters(word) for word in text.split()])] for text in stimuli.text], np.float64
    )


def position(groups: features.Labels) -> Float[np.ndarray, "n 2"]:
    """Position of each sample in its group (run or passage), from -1 to 1, and its square."""
    place = np.zeros(len(groups))
    for own in features.members(groups).values():
        place[own] = np.linspace(-1, 1, len(own)) if len(own) > 1 else 0.0
    return np.stack([place, place**2], axis=1)
