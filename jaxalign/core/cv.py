"""Folds as index arrays, and nested cross-validation of the ridge."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from jaxalign.core import metrics, ridge
from jaxalign.core.features import Labels


class Split(NamedTuple):
    """Sample indices to train on and to test on."""

    train: Int[np.ndarray, " R"]
    test: Int[np.ndarray, " T"]


class Fold(NamedTuple):
    """An outer split, and the inner splits of its training set that choose the penalty."""

    outer: Split
    inner: tuple[Split, ...]


class Nested(NamedTuple):
    """Held-out scores; one row per outer fold, one column per target."""

    r: Float[np.ndarray, "k v"]  # Pearson correlation; NaN where undefined
    r2: Float[np.ndarray, "k v"]  # coefficient of determination; NaN where undefined
    alphas: Float[np.ndarray, "k v"]  # penalty chosen on the inner splits
    inner_r2: Float[np.ndarray, "k v"]  # 1 - error / error of the mean, on the inner splits
    num_constant: Int[np.ndarray, " k"]  # features that do not vary over the outer training set


def contiguous_folds(
    runs: Labels,
    num_folds: int,
    *,
    gap: int,
    groups: Labels | None = None,
    items: Labels | None = None,
) -> tuple[Fold, ...]:
    """Cut samples into contiguous test blocks; the inner test blocks are the other outer ones.

    Neighbouring samples are alike (haemodynamics, topic), so training samples within `gap` of a
    test block are left out of training. They are tested in their own fold: no sample is lost.
    Samples of another run are no neighbours. With `groups` (passages), blocks end where groups do.
    With `items` (stimuli), what a test block presents is not trained on in another block either.

    Args:
      runs: run of each sample; samples of a run are adjacent and in order of time.
      num_folds: outer blocks, at least 3 (two of them leave an inner training set).
      gap: samples dropped from training on either side of a test block.
      groups: group of each sample, never divided between blocks.
      items: what each sample presents, where it may be presented again.

    Raises:
      ValueError: if a block or a training set would be empty, or samples of one run or group are
        not adjacent.
    """
    n = len(runs)
    if num_folds < 3:
        raise ValueError(f"num_folds must be >= 3, got {num_folds}.")
    if gap < 0:
        raise ValueError(f"gap must be >= 0, got {gap}.")
    _starts(runs, "run")
    starts = np.arange(n) if groups is None else _starts(groups, "group")
    if num_folds > len(starts):
        raise ValueError(
            f"num_folds must leave samples for every block: {num_folds} blocks of {n} samples"
            + ("." if groups is None else f" in {len(starts)} groups.")
        )
    edges, place = [0], 0
    for i in range(1, num_folds):
        # The start nearest to an equal cut, with one left for every other block.
        nearest = int(np.argmin(np.abs(starts - n * i / num_folds)))
        place = min(max(nearest, place + 1), len(starts) - (num_folds - i))
        edges.append(int(starts[place]))
    edges.append(n)
    blocks = [np.arange(a, b) for a, b in zip(edges[:-1], edges[1:], strict=True)]
    reach = [_within(runs, block, gap) for block in blocks]
    if items is not None:
        labels = np.asarray(items)
        reach = [
            near | np.isin(labels, labels[block]) for near, block in zip(reach, blocks, strict=True)
        ]

    def without(*tested: int) -> Int[np.ndarray, " R"]:
        train = np.flatnonzero(~np.logical_or.reduce([reach[i] for i in tested]))
        if len(train) < 2:
            raise ValueError(
                f"gap must leave samples to train on: {gap} leaves {len(train)} of {n} with "
                f"{num_folds} blocks"
                + ("." if items is None else ", without those that repeat a test stimulus.")
            )
        return train

    return tuple(
        Fold(
            Split(without(i), blocks[i]),
            tuple(Split(without(i, j), blocks[j]) for j in range(num_folds) if j != i),
        )
        for i in range(num_folds)
    )


def _starts(labels: Labels, what: str) -> Int[np.ndarray, " b"]:
    array = np.asarray(labels)
    starts = np.flatnonzero(np.r_[True, array[1:] != array[:-1]])
    if len(starts) != len(np.unique(array)):
        raise ValueError(f"Samples of one {what} must be adjacent.")
    return starts


def _within(runs: Labels, block: Int[np.ndarray, " T"], gap: int) -> Bool[np.ndarray, " n"]:
    """Mark the samples that are in a block, or within `gap` of it in the same run."""
    labels = np.asarray(runs)
    place = np.arange(len(labels))
    first, last = block[0], block[-1]
    before = (place < first) & (place >= first - gap) & (labels == labels[first])
    after = (place > last) & (place <= last + gap) & (labels == labels[last])
    return before | after | ((place >= first) & (place <= last))


def folds_hash(folds: Sequence[Fold]) -> str:
    """Return 12 hexadecimal digits that change with any index of any split."""
    digest = hashlib.sha256()
    for fold in folds:
        for split in (fold.outer, *fold.inner):
            for indices in split:
                digest.update(np.asarray(indices, np.int64).tobytes() + b"|")
        digest.update(b"fold")
    return digest.hexdigest()[:12]


def nested(
    X: Float[np.ndarray, "n p"],
    Y: Float[np.ndarray, "n v"],
    folds: Sequence[Fold],
    alphas: Float[np.ndarray, " a"],
    *,
    standardize: bool = True,
) -> Nested:
    """Score a ridge on held-out folds; each target and fold chooses its own penalty inside.

    The penalty is the one with the least mean squared error, averaged over the inner splits; of
    equal ones the largest. The intercept is free. Means and scales come from training rows alone.

    Args:
      X: features.
      Y: responses, one column per target, without NaN.
      folds: outer and inner splits.
      alphas: penalties to choose from, positive.
      standardize: scale features to unit variance over each training set.

    Raises:
      ValueError: if X and Y differ in samples, hold NaN, or a penalty is not positive.
    """
    n, p = X.shape
    if Y.shape[0] != n:
        raise ValueError(f"Y must have one row per sample of X: X has {n}, Y has {Y.shape[0]}.")
    if not (np.isfinite(X).all() and np.isfinite(Y).all()):
        raise ValueError("X and Y must be finite: one of them holds NaN or infinity.")
    alphas = np.sort(np.asarray(alphas, np.float64))
    if not len(alphas) or not ((alphas > 0) & np.isfinite(alphas)).all():
        raise ValueError(f"alphas must be positive, got {alphas.tolist()}.")

    # Scores do not depend on a target's baseline and unit. Removing both in float64 keeps the
    # digits that float32 would lose on a large baseline, and squares within its range.
    Y = np.asarray(Y, np.float64)
    sd = Y.std(axis=0)
    targets = jnp.asarray((Y - Y.mean(axis=0)) / np.where(sd > 0, sd, 1), jnp.float32)
    grid = jnp.asarray(alphas, jnp.float32)
    k, v = len(folds), Y.shape[1]
    errors = np.zeros((k, len(alphas), v))
    null_errors = np.zeros((k, v))

    # An inner training set leaves out two blocks, and so serves two outer folds: factorise each
    # distinct one once.
    uses: dict[bytes, list[tuple[int, Split]]] = {}
    for i, fold in enumerate(folds):
        for split in fold.inner:
            uses.setdefault(np.asarray(split.train).tobytes(), []).append((i, split))
    splits = [split for fold in folds for split in (fold.outer, *fold.inner)]
    # One length for all training sets and one for all test sets: one compilation.
    longest_train = max(len(split.train) for split in splits)
    longest_test = max(len(split.test) for split in splits)
    form = ridge.choose_form(longest_train, p)

    def prepare(indices):
        train, mask = _pad(indices, longest_train)
        design = ridge.factorize(X, train, mask, standardize=standardize, form=form)
        return design, *ridge.rotate(design, targets, jnp.asarray(train), jnp.asarray(mask))

    for users in uses.values():
        design, rotated, mean = prepare(users[0][1].train)
        for i, split in users:
            test, mask = map(jnp.asarray, _pad(split.test, longest_test))
            error, null = ridge.squared_errors(design, rotated, mean, targets, test, mask, grid)
            errors[i] += np.asarray(error) / len(folds[i].inner)
            null_errors[i] += np.asarray(null) / len(folds[i].inner)

    # The last minimum of an ascending grid: ties go to the larger penalty.
    best = len(alphas) - 1 - errors[:, ::-1].argmin(axis=1)  # [k v]
    chosen = alphas[best]
    least = np.take_along_axis(errors, best[:, None], axis=1)[:, 0]
    inner_r2 = np.full((k, v), np.nan)
    np.divide(least, null_errors, out=inner_r2, where=null_errors > 0)

    r, r2, num_constant = np.empty((k, v)), np.empty((k, v)), np.empty(k, int)
    for i, fold in enumerate(folds):
        design, rotated, mean = prepare(fold.outer.train)
        test, mask = map(jnp.asarray, _pad(fold.outer.test, longest_test))
        penalties = jnp.asarray(chosen[i], jnp.float32)
        predicted = ridge.predict(design, rotated, test, penalties)
        weight = mask.astype(jnp.float32)
        r[i] = metrics.pearson_r(predicted, targets[test], weight)
        r2[i] = metrics.r2(mean[None] + predicted, targets[test], weight)
        # Nothing was learnt of these targets: their predictions are rounding.
        r[i, metrics.is_constant(Y[fold.outer.train])] = np.nan
        num_constant[i] = design.num_constant
    return Nested(r, r2, chosen, 1 - inner_r2, num_constant)


def _pad(indices, length):
    mask = np.arange(length) < len(indices)
    padded = np.zeros(length, np.int32)
    padded[: len(indices)] = indices
    return padded, mask
