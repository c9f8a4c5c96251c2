"""From planned passes to padded batches, in an order that follows from the plan alone."""

import collections
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from jaxalign.data.text.readouts import Reading, Weights

# Rows of a window are sorted by length, to share batches with little padding. A window has this
# many batches' worth of tokens or more, and at least as many parts as a shard.
WINDOW_BATCHES = 8
SHORTEST = 16
LONG = 512


class Reads(NamedTuple):
    """Weighted sums over the tokens of each row of a batch; zeros fill it.

    Attributes:
      token: position of each entry in its row.
      weight: of the token; 0 where there is no entry.
      slot: to which of the row's sums the entry belongs.
    """

    token: Int[np.ndarray, "B E"]
    weight: Float[np.ndarray, "B E"]
    slot: Int[np.ndarray, "B E"]


class Batch(NamedTuple):
    """Rows of similar length, padded to one shape.

    Attributes:
      tokens: of each row.
      mask: False for padding. A row of padding alone has one token, so that it stays finite.
      pooled: what makes up the vector of each part.
      part: whose vector each sum of a row is; -1: nobody's.
      predicted: which tokens make up the surprisal of each part, if that is asked for.
      predicted_part: whose surprisal each sum is; -1: nobody's.
      num_tokens: tokens that are not padding.
    """

    tokens: Int[np.ndarray, "B T"]
    mask: Bool[np.ndarray, "B T"]
    pooled: Reads
    part: Int[np.ndarray, "B P"]
    predicted: Reads | None
    predicted_part: Int[np.ndarray, "B Q"] | None
    num_tokens: int


class Shape(NamedTuple):
    """What the program of a batch depends on.

    Attributes:
      rows, length: of the padded tokens.
      parts, entries: vectors of each row, and tokens that they are made of, padding included.
      predicted, predicted_entries: the same of surprisal; 0 without it.
    """

    rows: int
    length: int
    parts: int
    entries: int
    predicted: int = 0
    predicted_entries: int = 0


class Groups(NamedTuple):
    """Rows of each batch of a plan, and the length they are padded to."""

    rows: list[Int[np.ndarray, " b"]]
    length: list[int]


def padded_length(length: int, longest: int) -> int:
    """Return the next power of two, or one and a half times one: few shapes, little padding.

    Beyond `LONG`, where a pass takes longer than it takes to compile one, there are eight lengths
    between powers of two.

    Args:
      length: of a row.
      longest: what the model takes; no row is padded beyond it.
    """
    if length > LONG:
        step = _power(length) // 16
        size = -(-length // step) * step
    else:
        size = SHORTEST
        while size < length:
            size = size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3
    return max(min(size, longest), length)


def group(
    reading: Reading, *, batch_tokens: int, shard_stimuli: int, longest: int, num_shares: int
) -> Groups:
    """Divide the rows of a reading into batches.

    What a row is computed with, and so its rounding, follows from the plan alone.

    Args:
      reading: the plan, and what is read.
      batch_tokens: tokens of a batch, padding included, unless a single row has more.
      shard_stimuli: parts of a shard of the store.
      longest: tokens the model takes.
      num_shares: devices that divide a batch between them.
    """
    lengths = np.array([padded_length(len(row), longest) for row in reading.rows])
    parts = np.bincount(reading.passes.row, minlength=len(lengths))
    found = Groups([], [])
    for window in _windows(lengths, parts, WINDOW_BATCHES * batch_tokens, shard_stimuli):
        for length in np.unique(lengths[window]):
            rows = window[lengths[window] == length]
            size = -(-max(batch_tokens // length, 1) // num_shares) * num_shares
            for first in range(0, len(rows), size):
                found.rows.append(rows[first : first + size])
                found.length.append(int(length))
    return found


def _windows(lengths, parts, num_tokens, num_parts) -> Iterator[Int[np.ndarray, " w"]]:
    first = tokens = seen = 0
    for row in range(len(lengths)):
        tokens += lengths[row]
        seen += parts[row]
        if tokens >= num_tokens and seen >= num_parts:
            yield np.arange(first, row + 1)
            first, tokens, seen = row + 1, 0, 0
    if first < len(lengths):
        yield np.arange(first, len(lengths))


def pad(
    reading: Reading,
    rows: Int[np.ndarray, " b"],
    length: int,
    *,
    batch_tokens: int,
    num_shares: int,
) -> Batch:
    """Pad the rows of one batch.

    Args:
      reading: the plan, and what is read.
      rows: of the batch.
      length: that they are padded to.
      batch_tokens: see `group`.
      num_shares: see `group`.
    """
    passes, pooled, predicted = reading
    size = _padded_rows(len(rows), length, batch_tokens, num_shares)
    tokens = np.zeros((size, length), np.int32)
    mask = np.zeros((size, length), bool)
    mask[:, 0] = True
    for b, row in enumerate(rows):
        ids = passes.rows[row]
        tokens[b, : len(ids)] = ids
        mask[b, : len(ids)] = True
    sums, part = _sums(pooled, rows, size)
    bits, predicted_part = (None, None) if predicted is None else _sums(predicted[0], rows, size)
    return Batch(
        tokens=tokens,
        mask=mask,
        pooled=sums,
        part=part,
        predicted=bits,
        predicted_part=predicted_part,
        num_tokens=sum(len(passes.rows[row]) for row in rows),
    )


def _padded_rows(num_rows: int, length: int, batch_tokens: int, num_shares: int) -> int:
    """Return how many rows a batch has: the last one of a length is smaller than the others.

    There are as few more shapes as there are powers of two.
    """
    most = -(-max(batch_tokens // length, 1) // num_shares) * num_shares
    return min(_power(-(-num_rows // num_shares)) * num_shares, most)


def shapes(
    reading: Reading, groups: Groups, *, batch_tokens: int, num_shares: int
) -> collections.Counter[Shape]:
    """Count the batches of each shape, without making them.

    Args:
      reading: the plan, and what is read.
      groups: from `group`.
      batch_tokens: see `group`.
      num_shares: see `group`.
    """
    of_rows = _counts(reading.pooled)
    of_bits = None if reading.predicted is None else _counts(reading.predicted[0])
    found = collections.Counter()
    for rows, length in zip(*groups, strict=True):
        largest = lambda counts, rows=rows: [_power(int(x[rows].max())) for x in counts]
        size = _padded_rows(len(rows), length, batch_tokens, num_shares)
        bits = [0, 0] if of_bits is None else largest(of_bits)
        found[Shape(size, length, *largest(of_rows), *bits)] += 1
    return found


def shape(batch: Batch) -> Shape:
    """Return the shape of a batch."""
    rows, length = batch.tokens.shape
    found = Shape(rows, length, batch.part.shape[1], batch.pooled.token.shape[1])
    if batch.predicted is None or batch.predicted_part is None:
        return found
    bits, entries = batch.predicted_part.shape[1], batch.predicted.token.shape[1]
    return found._replace(predicted=bits, predicted_entries=entries)


def _counts(weights: Weights) -> tuple[Int[np.ndarray, " r"], Int[np.ndarray, " r"]]:
    """Return how many sums each row has, and of how many entries."""
    entries = np.diff(weights.indptr)
    row = np.repeat(np.arange(len(entries)), entries)
    pairs = np.unique(np.stack([row, weights.part]), axis=1)
    return np.bincount(pairs[0], minlength=len(entries)), entries


def _sums(weights: Weights, rows: Int[np.ndarray, " b"], size: int) -> tuple[Reads, np.ndarray]:
    """Return what each row's sums are made of, and whose they are."""
    entries = [_of_row(weights, row) for row in rows]
    parts = [np.unique(x.part) for x in entries]
    part = np.full((size, _power(max(map(len, parts)))), -1)
    shape = (size, _power(max(len(x.part) for x in entries)))
    token, slot = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    weight = np.zeros(shape, np.float32)
    for b, (read, present) in enumerate(zip(entries, parts, strict=True)):
        part[b, : len(present)] = present
        num = len(read.part)
        token[b, :num], weight[b, :num] = read.token, read.weight
        slot[b, :num] = np.searchsorted(present, read.part)
    return Reads(token, weight, slot), part


def _of_row(weights: Weights, row) -> Weights:
    of_row = slice(weights.indptr[row], weights.indptr[row + 1])
    return Weights(weights.indptr, *(column[of_row] for column in weights[1:]))


def _power(number: int) -> int:
    return 1 << max(int(number) - 1, 0).bit_length()
