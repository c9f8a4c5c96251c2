"""Encoded rows -> the arrays of a step: micro-batches, padded on the right, with weights."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxalign.core import mesh as mesh_lib
from jaxalign.errors import InputError
from jaxalign.training.encoding import Encoded

LOSS_AVERAGES = ("tokens", "rows")
# Rows are padded to a multiple of it, so that few lengths are compiled.
LENGTH_STEP = 64


class Batch(NamedTuple):
    """What a step is given; [A b T] is micro-batch, row, token.

    Attributes:
      tokens: of texts; of a T5 what its decoder has written before each of its targets.
      mask: False for padding.
      targets: the token that follows each token.
      weights: of each target's loss; those of a step sum to 1.
      positions: of each token in its text, if rows hold several texts; else None.
      read, read_mask: of a T5's encoder, [A b S]; else None.
    """

    tokens: Any
    mask: Any
    targets: Any
    weights: Any
    positions: Any = None
    read: Any = None
    read_mask: Any = None


class Shape(NamedTuple):
    """How rows become the arrays of a step.

    Attributes:
      micro_batches: parts of a step that pass one after the other.
      max_length: tokens of a row at most.
      packed: whether rows hold several texts; they are padded to `max_length` then.
      start: the token that a T5's decoder begins with; -1: the network is causal.
      loss_average: "tokens": each target of the step weighs the same. "rows": each group of rows
        weighs the same, and in it each target.
      group: rows of a group, which follow each other; 4 is what Alpaca's authors had on a device.
    """

    micro_batches: int
    max_length: int
    packed: bool = False
    start: int = -1
    loss_average: str = "tokens"
    group: int = 1

    def check(self, batch: int, mesh: Mesh) -> None:
        """Refuse a shape that does not fit the rows of a step or the devices.

        Args:
          batch: rows of a step.
          mesh: devices.

        Raises:
          InputError: naming what does not divide.
        """
        if self.loss_average not in LOSS_AVERAGES:
            raise InputError(
                f"loss_average must be one of {', '.join(LOSS_AVERAGES)}, got "
                f"{self.loss_average!r}."
            )
        along = mesh.shape["data"]
        if self.micro_batches < 1 or batch % (self.micro_batches * along):
            raise InputError(
                "the rows of a step must divide into micro-batches, and each of those over the "
                f"data axis of the mesh: {batch} rows, {self.micro_batches} micro-batches, "
                f"{along} devices."
            )
        if self.loss_average == "rows" and (self.group < 1 or batch % self.group):
            raise InputError(f"the {batch} rows of a step must divide into groups of {self.group}.")
        if self.packed and self.start >= 0:
            raise InputError("rows of a T5 must not be packed: its encoder would read all at once.")


def make(rows: Sequence[Sequence[Encoded]], shape: Shape) -> Batch:
    """Make the arrays of a step on the host.

    Args:
      rows: examples of each row of the step, several where they are packed.
      shape: of the arrays.

    Raises:
      InputError: if no target of the step is learned.
    """
    lengths = [sum(len(x.tokens) for x in row) for row in rows]
    width = shape.max_length if shape.packed else padded(max(lengths), shape.max_length)
    full = (len(rows), width)
    tokens, targets, positions = (np.zeros(full, np.int32) for _ in range(3))
    learned, mask = (np.zeros(full, bool) for _ in range(2))
    for i, row in enumerate(rows):
        at = 0
        for x in row:
            end = at + len(x.tokens)
            mask[i, at:end] = True
            positions[i, at:end] = np.arange(len(x.tokens))
            if shape.start >= 0:
                tokens[i, at:end] = [shape.start, *x.tokens[:-1]]
                targets[i, at:end], learned[i, at:end] = x.tokens, x.learned
            else:
                tokens[i, at:end] = x.tokens
                targets[i, at : end - 1], learned[i, at : end - 1] = x.tokens[1:], x.learned[1:]
            at = end
    weights = _weights(learned, shape)
    arrays = {"tokens": tokens, "mask": mask, "targets": targets, "weights": weights}
    if shape.packed:
        arrays["positions"] = positions
    if shape.start >= 0:
        arrays |= _read([x for row in rows for x in row], shape)
    divide = lambda x: x.reshape(shape.micro_batches, -1, x.shape[1])
    return Batch(**{name: divide(x) for name, x in arrays.items()})


def padded(length: int, most: int) -> int:
    """Return how many tokens a row is padded to.

    Args:
      length: of the longest row of a step.
      most: tokens of a row at most.
    """
    return min(-(-length // LENGTH_STEP) * LENGTH_STEP, most)


def _read(rows: Sequence[Encoded], shape: Shape) -> dict[str, np.ndarray]:
    width = padded(max(len(x.read) for x in rows), shape.max_length)
    read, mask = np.zeros((len(rows), width), np.int32), np.zeros((len(rows), width), bool)
    for i, x in enumerate(rows):
        read[i, : len(x.read)], mask[i, : len(x.read)] = x.read, True
    return {"read": read, "read_mask": mask}


def _weights(learned: np.ndarray, shape: Shape) -> np.ndarray:
    """Return each target's weight, by the rule for averages; groups without a target do not count.

    Raises:
      InputError: if there is no target.
    """
    group = len(learned) if shape.loss_average == "tokens" else shape.group
    targets = learned.reshape(-1, group, learned.shape[1]).sum(axis=(1, 2))  # [groups]
    if not targets.any():
        raise InputError(
            "a step must have something to learn: of its rows, all were cut before a response."
        )
    of_group = 1 / (np.maximum(targets, 1) * np.count_nonzero(targets))
    return (learned * np.repeat(of_group, group)[:, None]).astype(np.float32)


def place(batch: Batch, mesh: Mesh) -> Batch:
    """Put the arrays of a step on devices, the rows of each micro-batch divided over them."""
    put = lambda x: mesh_lib.place(x, mesh_lib.sharding(mesh, (None, "batch", None), x.shape))
    return jax.tree.map(put, batch)
