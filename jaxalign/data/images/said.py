"""What a model was asked about images and what it said, as features: length and words."""

import collections
from collections.abc import Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from jaxalign.errors import InputError

VERSION = 1
NUM_WORDS = 512  # columns of a bag of words
_LEAST = 2  # answers that a word must be in


def features(name: str, table: pd.DataFrame | None, ids: Sequence[str]) -> Float[np.ndarray, "m c"]:
    """Return a control that is made of an instruction or of the answers to it.

    `instruction_alone` is one column that is the same for every image: a model that is given the
    instruction and no image says the same about all. Nothing varies, so what is predicted is the
    training mean: correlations are undefined, and R2 is that of this mean, 0 at most.

    Args:
      name: of `controls.OF_ANSWERS`.
      table: answers, with `stimulus_id`, `answer` and `num_tokens`; None: nothing was answered.
      ids: stimuli, in the order of the rows.

    Raises:
      InputError: if there are no answers and the control is made of them, or one is missing.
    """
    if name == "instruction_alone":
        return np.ones((len(ids), 1))
    if table is None:
        raise InputError(f"control {name} is made of answers, and nothing was answered.")
    said = table.set_index("stimulus_id").reindex(ids)
    if lost := said.index[said.answer.isna()].tolist():
        raise InputError(f"answers must be there for every image: {lost[0]!r} has none.")
    texts = said.answer.tolist()
    if name == "answer_length":
        counts = [(n, len(x.split()), len(x)) for n, x in zip(said.num_tokens, texts, strict=True)]
        return np.array(counts, np.float64)
    return bag(texts)


def bag(texts: Sequence[str]) -> Float[np.ndarray, "m c"]:
    """Count words in texts: the most frequent `NUM_WORDS` that are in two of them or more.

    Words are lower case, without punctuation around them; equally frequent ones stand in alphabetic
    order. Columns that are left over are 0, so that all instructions have as many.
    """
    words = [[w for x in text.lower().split() if (w := x.strip(_PUNCTUATION))] for text in texts]
    frequency = collections.Counter(word for own in words for word in set(own))
    order = sorted((-n, word) for word, n in frequency.items() if n >= _LEAST)
    place = {word: i for i, (_, word) in enumerate(order[:NUM_WORDS])}
    found = np.zeros((len(texts), NUM_WORDS))
    for row, own in zip(found, words, strict=True):
        for word in own:
            if word in place:
                row[place[word]] += 1
    return found


_PUNCTUATION = ".,;:!?\"'()[]{}-*#`"
