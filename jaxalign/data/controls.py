"""Features that know nothing of a language model, scored by the same path as one."""

import numpy as np
from jaxtyping import Float

from jaxalign.core import features
from jaxalign.data.schema import Stimuli

# Beside these, two controls are made of a network: `shifted` (its features at the wrong time) and
# `untrained` (the same architecture with random weights).
STIMULUS_CONTROLS = ("word_rate", "word_length", "position")
NETWORK_CONTROLS = ("shifted", "untrained")
CONTROLS = STIMULUS_CONTROLS + NETWORK_CONTROLS


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
