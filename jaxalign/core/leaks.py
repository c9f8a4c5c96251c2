"""Test samples whose stimulus is trained on too: what counts as the same, and how many there are.

A response to a stimulus that is trained on can be looked up, whatever the features are: unrelated
ones then score as high as responses are reliable. Which samples present the same is known from ids
and texts (`data/same_stimulus.py`), or from who calls. Folds are made by that alone, so that all
features are scored on the same folds; rows of features that are equal are a hint, which is said.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from jaxalign.core.features import Labels
from jaxalign.core.folds import Fold

# Share of the test samples above which folds that cannot be changed are refused.
MOST = 0.5
# Features of fewer columns repeat by their nature: word rate, length, frequency.
_MIN_COLUMNS = 8
# Share of the distinct rows that come again: fewer are silence, or a few short texts.
_MIN_SHARE = 0.1
# Rows are equal if random projections of theirs differ by less, in standard deviations: the same
# stimulus in another batch differs by rounding.
_ROUNDING = 1e-5


class RepeatedStimuliWarning(UserWarning):
    """Test samples present stimuli that are trained on, or have the features of such."""


class Leak(NamedTuple):
    """How many test samples, over all folds, present what their fold trains on."""

    num_repeated: int
    num_tested: int

    def __str__(self) -> str:
        return f"{self.num_repeated} of {self.num_tested} test samples"


def count(folds: Sequence[Fold], items: Labels) -> Leak:
    """Count test samples that share their label with a training sample of the same fold.

    Args:
      folds: outer ones count.
      items: what each sample presents.
    """
    labels = np.asarray(items)
    pairs = [(labels[fold.outer.train], labels[fold.outer.test]) for fold in folds]
    repeated = sum(int(np.isin(test, train).sum()) for train, test in pairs)
    return Leak(repeated, sum(len(test) for _, test in pairs))


def remark(protocol: str, leak: Leak) -> str:
    """Say how many stimuli a protocol tests that it trains on."""
    return (
        f"protocol {protocol} trains on stimuli that it tests, whose responses can then be looked "
        f"up: {leak} present one that is trained on"
    )


def joined(first: Labels, second: Labels) -> Int[np.ndarray, " n"]:
    """Label samples so that those have the same that share a label, or are so joined by others.

    Args:
      first: a label of each sample.
      second: likewise, of another kind: labels of one kind never equal those of the other.
    """
    codes = [np.unique(np.asarray(x), return_inverse=True)[1].ravel() for x in (first, second)]
    start = int(codes[0].max(initial=-1)) + 1
    size = start + int(codes[1].max(initial=-1)) + 1
    edges = codes[0], start + codes[1]
    graph = sparse.coo_array((np.ones(len(edges[0]), bool), edges), shape=(size, size))
    return sparse.csgraph.connected_components(graph, directed=False)[1][codes[0]]


def same_rows(X: Float[np.ndarray, "n p"]) -> Int[np.ndarray, " n"]:
    """Label rows by what they hold, if that looks like stimuli that were presented again.

    Many features repeat without that: of few columns or few values (word rate, one-hot labels);
    held over neighbouring samples; or the same in all samples without a word. Then all labels
    differ.

    Args:
      X: features.
    """
    n, p = X.shape
    every = np.arange(n)
    scale = X.std(axis=0)
    typical = float(np.median(scale)) if p else 0.0
    if p < _MIN_COLUMNS or not typical > 0:
        return every
    # A column that hardly varies holds rounding, which must not count.
    weights = np.random.default_rng(0).standard_normal((p, 6)) / np.sqrt(p)
    weights /= np.maximum(scale, 1e-4 * typical)[:, None]
    projected = (X - X.mean(axis=0)) @ weights
    order = np.argsort(projected[:, 0], kind="stable")
    is_new = (np.abs(np.diff(projected[order], axis=0)) > _ROUNDING).any(axis=1)
    label = np.zeros(n, int)
    label[order] = np.r_[0, np.cumsum(is_new)]
    begins = np.flatnonzero(np.r_[True, label[1:] != label[:-1]])
    comes_again = np.bincount(label[begins]) > 1
    sampled = X[:, np.linspace(0, p - 1, min(p, 32)).astype(int)]
    num_values = np.median([len(np.unique(column)) for column in sampled.T])
    is_few = comes_again.sum() < max(_MIN_SHARE * len(comes_again), 2)
    if is_few or num_values < len(comes_again) / 2:
        return every
    return np.where(comes_again[label], label, n + every)
