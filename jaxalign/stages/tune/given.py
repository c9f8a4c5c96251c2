"""What a training is given: rows in tokens, their order, and what each step has seen."""

import collections
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxalign.training import batches, order, packing
from jaxalign.training.batches import Batch, Shape
from jaxalign.training.encoding import Counts, Encoded
from jaxalign.training.optimizer import Recipe


class Rows(NamedTuple):
    """Rows of an arm.

    Attributes:
      examples: of each row; several where they are packed.
      counts: what became of the data.
    """

    examples: Sequence[Sequence[Encoded]]
    counts: Counts


class Seen(NamedTuple):
    """What each step is given, without padding and with it.

    Attributes:
      tokens: of the texts.
      targets: tokens that are learned.
      width: of the padded rows, both sides of a T5 together.
    """

    tokens: Int[np.ndarray, " s"]
    targets: Int[np.ndarray, " s"]
    width: Int[np.ndarray, " s"]


class Given(NamedTuple):
    """All that one training is made of but the model.

    Attributes:
      arm, seed: which one it is.
      rows: of the arm.
      batch: rows of a step.
      shape: of the arrays of a step.
      recipe: of the optimiser.
      checkpoints: steps after which the model is kept.
      seen: what each step is given.
    """

    arm: str
    seed: int
    rows: Rows
    batch: int
    shape: Shape
    recipe: Recipe
    checkpoints: tuple[int, ...]
    seen: Seen

    @property
    def num_steps(self) -> int:
        """Steps of the whole training."""
        return self.recipe.num_steps

    def batch_of(self, step: int) -> Batch:
        """Make the arrays of a step, which follow from the seed and the step alone.

        Args:
          step: from 0 on.

        Raises:
          InputError: if nothing of it is learned.
        """
        examples = self.rows.examples
        chosen = order.rows(step, seed=self.seed, batch=self.batch, num_rows=len(examples))
        return batches.make([examples[i] for i in chosen], self.shape)

    def widths(self) -> collections.Counter[int]:
        """Count the steps of each padded width."""
        return collections.Counter(map(int, self.seen.width))


def packed(rows: Sequence[Encoded], max_length: int) -> list[list[Encoded]]:
    """Put examples into rows of at most so many tokens."""
    planned = packing.best_fit([len(x.tokens) for x in rows], max_length)
    return [[rows[i] for i in row] for row in planned]


def seen(rows: Rows, shape: Shape, *, seed: int, batch: int, num_steps: int) -> Seen:
    """Count what each step is given.

    Args:
      rows: of the arm.
      shape: of the arrays of a step.
      seed: of the order.
      batch: rows of a step.
      num_steps: of the training.
    """
    of = lambda count: np.array([sum(map(count, x)) for x in rows.examples], np.int64)
    written, read = of(lambda x: len(x.tokens)), of(lambda x: len(x.read))
    learned = of(lambda x: int(x.learned.sum()))
    width = functools.partial(batches.padded, most=shape.max_length)
    found = []
    for step in range(num_steps):
        chosen = order.rows(step, seed=seed, batch=batch, num_rows=len(written))
        longest = [int(x[chosen].max()) for x in (written, read)]
        wide = shape.max_length if shape.packed else sum(width(x) for x in longest if x)
        found.append((int((written + read)[chosen].sum()), int(learned[chosen].sum()), wide))
    return Seen(*np.array(found, np.int64).T)
