"""Folds as data: which samples train and which test, as index arrays."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int, Shaped

from jaxalign.core.features import Labels


class Split(NamedTuple):
    """Sample indices to train on and to test on."""

    train: Int[np.ndarray, " R"]
    test: Int[np.ndarray, " T"]


class Fold(NamedTuple):
    """An outer split, and the inner splits of its training set that choose the penalty."""

    outer: Split
    inner: tuple[Split, ...]


@runtime_checkable
class Splitter(Protocol):
    """What scikit-learn calls a cross-validation splitter."""

    def split(self, X: Any, y: Any = None, groups: Any = None) -> Iterable[tuple[Any, Any]]:
        """Yield training and test indices."""
        ...


# A splitter, a number of contiguous blocks, or the pairs of index arrays (or Boolean masks) that a
# splitter would yield.
CV = Splitter | int | np.integer | Iterable[tuple[Any, Any]]


def splits(
    cv: CV, num_samples: int, *, groups: Shaped[np.ndarray, " n"] | None = None
) -> tuple[Split, ...]:
    """Return the splits of a splitter, checked.

    Splits may differ in size, leave samples out, and test a sample more than once.

    Args:
      cv: a scikit-learn splitter, a number of contiguous blocks, or pairs of indices or masks.
      num_samples: how many samples there are.
      groups: label of each sample, for splitters that ask for it.

    Raises:
      ValueError: if there is no split, or one has an empty side, a sample twice on one side or on
        both sides, or an index out of range.
    """
    if isinstance(cv, bool):
        raise ValueError(
            f"cv must be a number of blocks, a splitter or pairs of indices, got {cv}."
        )
    if isinstance(cv, int | np.integer):
        if not 2 <= cv <= num_samples:
            raise ValueError(f"cv must lie in 2..{num_samples} blocks (samples), got {cv}.")
        blocks = np.array_split(np.arange(num_samples), cv)
        every = np.arange(num_samples)
        pairs = [(np.setdiff1d(every, block), block) for block in blocks]
    elif isinstance(cv, Splitter):
        pairs = cv.split(np.zeros((num_samples, 1)), None, groups)
    else:
        pairs = cv
    found = tuple(
        Split(_indices(train, num_samples), _indices(test, num_samples)) for train, test in pairs
    )
    if not found:
        raise ValueError("cv must yield at least one split, got none.")
    for number, split in enumerate(found):
        for side, indices in split._asdict().items():
            if not len(indices):
                raise ValueError(f"Split {number} must have samples to {side} on, got none.")
            if len(np.unique(indices)) < len(indices):
                raise ValueError(f"Split {number} has a sample more than once in {side}.")
        if len(np.intersect1d(*split)):
            raise ValueError(
                f"Split {number} must not test on samples it trains on: sample "
                f"{np.intersect1d(*split)[0]} is on both sides."
            )
        if len(split.train) < 2:
            raise ValueError(f"Split {number} must train on at least 2 samples, got 1.")
    return found


def _indices(side: Any, num_samples: int) -> Int[np.ndarray, " i"]:
    array = np.asarray(side)
    if array.dtype == bool:
        if array.shape != (num_samples,):
            raise ValueError(
                f"A mask must have one entry per sample: {num_samples}, got {array.shape}."
            )
        return np.flatnonzero(array)
    if array.ndim != 1 or not (np.issubdtype(array.dtype, np.integer) or not array.size):
        raise ValueError(f"Indices must be a row of integers, got {array.dtype} {array.shape}.")
    if array.size and not (0 <= array.min() and array.max() < num_samples):
        raise ValueError(
            f"Indices must lie in 0..{num_samples - 1}, got {array.min()}..{array.max()}."
        )
    return array.astype(np.intp)


def nest(
    outer: CV,
    inner: CV,
    num_samples: int,
    *,
    groups: Shaped[np.ndarray, " n"] | None = None,
) -> tuple[Fold, ...]:
    """Split the samples, and each training set again.

    Args:
      outer: splits all samples.
      inner: splits each outer training set (of which it sees the positions, and
        `groups[train]`); not a fixed list of indices, which could not fit training sets that
        differ.
      num_samples: how many samples there are.
      groups: label of each sample.

    Raises:
      ValueError: see `splits`; the message names the outer fold.
    """
    if not (isinstance(inner, int | np.integer | Splitter)):
        raise ValueError(
            "inner_cv must be a number or a splitter, for it splits every outer training set; "
            f"got {type(inner).__name__}."
        )
    folds = []
    for number, split in enumerate(splits(outer, num_samples, groups=groups)):
        labels = None if groups is None else groups[split.train]
        try:
            parts = splits(inner, len(split.train), groups=labels)
        except ValueError as error:
            raise ValueError(f"Outer fold {number}: {error}") from error
        folds.append(Fold(split, tuple(Split(split.train[a], split.train[b]) for a, b in parts)))
    return tuple(folds)


def cross(outer: Sequence[Split]) -> tuple[Fold, ...]:
    """Take the other outer test sets for the inner ones of each fold.

    The inner training set is what two outer folds both train on, so it is used by both of them.

    Args:
      outer: at least 3 splits whose test sets share no sample.

    Raises:
      ValueError: if test sets share a sample, there are too few, or a training set would be empty.
    """
    if len(outer) < 3:
        raise ValueError(f"outer must be at least 3 splits, to leave out two, got {len(outer)}.")
    tested = np.concatenate([split.test for split in outer])
    if len(np.unique(tested)) < len(tested):
        raise ValueError(
            "Outer test sets that share samples cannot be inner ones too; give inner splits."
        )

    def inner(one, other):
        train = np.intersect1d(one.train, other.train)
        test = np.intersect1d(other.test, one.train)
        if len(train) < 2 or not len(test):
            raise ValueError("Outer training sets must share samples, to train inner ones on.")
        return Split(train, test)

    return tuple(
        Fold(one, tuple(inner(one, other) for other in outer if other is not one)) for one in outer
    )


def without_repeats(outer: Sequence[Split], items: Labels | None) -> tuple[Split, ...]:
    """Leave out of each training set what presents a stimulus of the test set.

    Args:
      outer: splits.
      items: what each sample presents; None: nothing is presented again.

    Raises:
      ValueError: if fewer than 2 training samples are left.
    """
    if items is None:
        return tuple(outer)
    labels = np.asarray(items)
    found = [Split(train[~np.isin(labels[train], labels[test])], test) for train, test in outer]
    if left := [len(split.train) for split in found if len(split.train) < 2]:
        raise _repeats_leave(left[0], len(labels))
    return tuple(found)


def _repeats_leave(num_left: int, num_samples: int) -> ValueError:
    return ValueError(
        "groups must keep the presentations of a stimulus together, for samples that repeat a test "
        f"stimulus are not trained on: that leaves {num_left} of {num_samples}. Without groups "
        "blocks are of whole stimuli; or average the responses to each stimulus."
    )


def trimmed_folds(num_samples: int, num_folds: int, *, trim: int) -> tuple[Split, ...]:
    """Cut samples into contiguous test blocks, as for the Harry Potter data.

    Blocks are of n // num_folds samples, the last has the rest too. Only one side of a border is
    trimmed: of the first fold the training set loses its first samples, of the last its last ones,
    and of the others the test block loses samples at either end.

    Args:
      num_samples: n.
      num_folds: blocks.
      trim: samples lost.

    Raises:
      ValueError: if a side would be empty.

    Source: `run_class_time_CV_fmri_crossval_ridge` of mtoneva/brain_language_nlp at 0f6677c.
    """
    size = num_samples // num_folds
    if num_folds < 2 or trim < 0 or size <= 2 * trim:
        raise ValueError(
            f"Blocks must be longer than what is trimmed: {num_samples} samples in {num_folds} "
            f"blocks, {trim} trimmed on either side."
        )
    every = np.arange(num_samples)
    edges = [*(size * i for i in range(num_folds)), num_samples]
    found = []
    for i, (start, stop) in enumerate(zip(edges[:-1], edges[1:], strict=True)):
        train, test = np.r_[every[:start], every[stop:]], every[start:stop]
        if i == 0:
            train = train[trim:]
        elif i == num_folds - 1:
            train = train[: len(train) - trim]
        else:
            test = test[trim : len(test) - trim]
        found.append(Split(train, test))
    return tuple(found)


def chunked_splits(
    train: Int[np.ndarray, " R"], times: int, *, chunk: int, num_chunks: int, seed: int
) -> tuple[Split, ...]:
    """Hold out random chunks of a training set, again and again.

    What remains after the last whole chunk is always trained on. Chunks are drawn without
    replacement, each time anew.

    Args:
      train: training samples, in order of time.
      times: how often.
      chunk: samples of a chunk.
      num_chunks: chunks held out each time.
      seed: of the draws.

    Raises:
      ValueError: if no chunk would be left to train on.

    Source: `bootstrap_ridge` of the Huth lab's ridge_utils, which draws without a seed.
    """
    whole = len(train) // chunk
    if not 0 < num_chunks < whole:
        raise ValueError(
            f"Chunks held out must leave some to train on: {num_chunks} of {chunk} samples are "
            f"held out, and {len(train)} training samples have {whole}."
        )
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(times):
        held = np.sort(rng.permutation(whole)[:num_chunks])
        test = (held[:, None] * chunk + np.arange(chunk)).ravel()
        found.append(Split(np.delete(train, test), train[test]))
    return tuple(found)


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
    return _blocked(blocks, runs, gap, items)


def grouped_folds(
    groups: Labels,
    num_folds: int,
    *,
    gap: int,
    runs: Labels | None = None,
    items: Labels | None = None,
) -> tuple[Fold, ...]:
    """Do what `contiguous_folds` does for groups whose samples need not be adjacent.

    Groups are taken in the order of their first samples, and cut into blocks of whole groups of
    about the same number of samples.

    Args:
      groups: group of each sample, never divided between blocks.
      num_folds: outer blocks, at least 3.
      gap: samples of the same run dropped from training on either side of each test sample.
      runs: run of each sample; None: each group is a run, so that nothing is dropped.
      items: see `contiguous_folds`.

    Raises:
      ValueError: see `contiguous_folds`.
    """
    if gap < 0:
        raise ValueError(f"gap must be >= 0, got {gap}.")
    labels = np.asarray(groups)
    _, first, rank = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(first[rank], kind="stable")
    ordered = contiguous_folds(np.zeros(len(labels), int), num_folds, gap=0, groups=labels[order])
    blocks = [np.sort(order[fold.outer.test]) for fold in ordered]
    if runs is not None:
        _starts(runs, "run")
    return _blocked(blocks, labels if runs is None else runs, gap, items)


def _blocked(blocks, runs, gap, items) -> tuple[Fold, ...]:
    """Test each block; the inner test sets are the other blocks."""
    num_folds, n = len(blocks), len(runs)
    reach = [_within(runs, block, gap) for block in blocks]
    if items is not None:
        labels = np.asarray(items)
        reach = [
            near | np.isin(labels, labels[block]) for near, block in zip(reach, blocks, strict=True)
        ]

    def without(*tested: int) -> Int[np.ndarray, " R"]:
        train = np.flatnonzero(~np.logical_or.reduce([reach[i] for i in tested]))
        if len(train) < 2:
            near = np.logical_or.reduce([_within(runs, blocks[i], gap) for i in tested])
            if (~near).sum() >= 2:
                raise _repeats_leave(len(train), n)
            raise ValueError(
                f"gap must leave samples to train on: {gap} leaves {len(train)} of {n} with "
                f"{num_folds} blocks."
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
    """Mark the samples that are in a block, or within `gap` of one of it in the same run."""
    labels = np.asarray(runs)
    marked = np.zeros(len(labels), bool)
    near = (block[:, None] + np.arange(-gap, gap + 1)[None]).clip(0, len(labels) - 1)
    marked[near[labels[near] == labels[block][:, None]]] = True
    return marked


def folds_hash(folds: Sequence[Fold]) -> str:
    """Return 12 hexadecimal digits that change with any index of any split."""
    digest = hashlib.sha256()
    for fold in folds:
        for split in (fold.outer, *fold.inner):
            for indices in split:
                digest.update(np.asarray(indices, np.int64).tobytes() + b"|")
        digest.update(b"fold")
    return digest.hexdigest()[:12]
