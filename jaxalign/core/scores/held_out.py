"""What single test samples add to a score, by refitting with the penalties that were chosen."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from jaxalign.core.folds import Fold
from jaxalign.core.scores import scoring
from jaxalign.core.scores.protocol import Protocol
from jaxalign.core.solver import cv
from jaxalign.core.solver.method import ADAPTIVE, Execution

_AT_ONCE = 2**25  # numbers of the predictions of a tile of targets


class Counted(NamedTuple):
    """What the correlation of each fold and target counts in each of g sums.

    Attributes:
      alphas: penalties as `scoring.evaluate` returns them.
      weights: a correlation that is not defined plays no part, whatever its weight.
    """

    alphas: Float[np.ndarray, "k v"]
    weights: Float[np.ndarray, "k v g"]


def by_sample(
    design: scoring.Design,
    Y: Float[np.ndarray, "n v"],
    protocol: Protocol,
    folds: Sequence[Fold],
    counted: Counted,
    *,
    execution: Execution = ADAPTIVE,
) -> Float[np.ndarray, "g n"]:
    """Divide weighted sums of correlations over the samples that were tested.

    Pearson r of a fold is the mean over its test samples of the product of prediction and response,
    both with mean 0 and variance 1 over them; so a sum over targets and folds is one over samples.

    Args:
      design: from `scoring.design`.
      Y: responses; see `scoring.evaluate`.
      protocol: of kind "encoding" whose metric is a correlation.
      folds: on which scores were found.
      counted: penalties, and what each correlation counts.
      execution: how it is computed.

    Returns:
      What each sample adds to each sum; 0 of a sample that no fold tests.
    """
    penalty, scaling = protocol.encoding[1], protocol.scaling
    method = scoring.method_of(protocol)
    alphas, weights = counted
    squares = alphas**2 if penalty.squared else alphas
    found = np.zeros((weights.shape[2], len(Y)))
    for k, fold in enumerate(folds):
        used = np.flatnonzero((weights[k] != 0).any(axis=1))
        if not len(used):
            continue
        train, test = fold.outer.train, fold.outer.test
        X, responses = design(train), Y[:, used]
        if scaling.features == "each_side":
            X = scoring.scaled_apart(X, fold)
        if scaling.responses == "each_side":
            responses = scoring.scaled_apart(responses, fold)
        fit = cv.refit(X[train], responses[train], squares[k, used], method, execution=execution)
        tested = np.asarray(X[test], np.float64)
        size = max(1, _AT_ONCE // len(test))
        for start in range(0, len(used), size):
            part = np.arange(start, min(start + size, len(used)))
            predicted = _standard(tested @ fit.coef[:, part].astype(np.float64))
            product = predicted * _standard(np.asarray(responses[np.ix_(test, part)], np.float64))
            product = np.nan_to_num(product, nan=0.0)
            found[:, test] += (product @ weights[k, used[part]]).T / len(test)
    return found


def _standard(values: Float[np.ndarray, "t w"]) -> Float[np.ndarray, "t w"]:
    """Return columns with mean 0 and variance 1, NaN where they do not vary."""
    values = values - values.mean(axis=0)
    spread = np.sqrt((values**2).mean(axis=0))
    return values / np.where(spread > 0, spread, np.nan)


def layer_weights(
    defined: Float[np.ndarray, "l k v"], chosen: Int[np.ndarray, "k v"]
) -> Float[np.ndarray, "l k v"]:
    """Return what each layer's correlation counts in that of the layer chosen, or of their mean.

    Args:
      defined: scores, NaN where they are not defined.
      chosen: layer of each fold and target; -1: the mean over those that have a score.
    """
    there = np.isfinite(defined)
    mean = there / np.maximum(there.sum(axis=0), 1)
    one = (np.arange(len(defined))[:, None, None] == chosen) & there
    return np.where(chosen < 0, mean, one).astype(np.float64)
