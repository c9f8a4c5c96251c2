"""Noise ceilings of dissimilarities: how well any model could agree with those of each subject."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from jaxalign.core import similarity
from jaxalign.core.similarity import Comparison


class Bounds(NamedTuple):
    """Agreement of each subject's dissimilarities with those of all, one entry per subject.

    Attributes:
      lower: with the mean of the other subjects, which no model should be below.
      upper: with the mean of all, this one included, which no model can exceed by much.
      sessions: mean over pairs of this subject's sessions; NaN of a single one.
    """

    lower: Float[np.ndarray, " s"]
    upper: Float[np.ndarray, " s"]
    sessions: Float[np.ndarray, " s"]


def bounds(rdms: Float[np.ndarray, "s k m"], comparison: Comparison) -> Bounds:
    """Return the noise ceiling of each subject, whose dissimilarities are means over sessions.

    Means over subjects are of what is compared: of ranks for Spearman's correlation, of
    standardised dissimilarities for Pearson's. No other RDM agrees better with all on average.

    Args:
      rdms: of each subject's sessions.
      comparison: by which models are compared, too.

    Raises:
      ValueError: if there are fewer than two subjects, or the comparison is unknown.

    Source: Nili et al. (2014), PLoS Comput Biol 10(4): e1003553.
    """
    num_subjects, num_sessions, _ = rdms.shape
    if num_subjects < 2:
        raise ValueError(f"a noise ceiling needs two subjects, got {num_subjects}.")
    ready = lambda x: similarity.comparable(x, comparison)
    agree = lambda a, b: float(ready(a) @ ready(b))
    # Ranks themselves: sums of them are exact, so that ties stay ties.
    averaged = rankdata if comparison == "spearman" else ready
    own = np.stack([averaged(x) for x in rdms.mean(axis=1)])
    lower = [agree(x, np.delete(own, i, axis=0).mean(axis=0)) for i, x in enumerate(own)]
    upper = [agree(x, own.mean(axis=0)) for x in own]
    first, second = np.triu_indices(num_sessions, k=1)
    between = [
        np.mean([agree(x[i], x[j]) for i, j in zip(first, second, strict=True)])
        if num_sessions > 1
        else np.nan
        for x in rdms
    ]
    return Bounds(np.array(lower), np.array(upper), np.array(between, float))
