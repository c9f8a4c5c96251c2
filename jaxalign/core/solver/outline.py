"""What a cross-validation will compute, decided from its sizes alone, before any data are there."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Int

from jaxalign.core.folds import Fold, Split
from jaxalign.core.solver.method import Execution, Form, Method

# Targets per tile on each device: what training sets rotate stays in the last cache of a CPU.
# Accelerators want more.
CPU_TILE, TILE = 1024, 8192
# With fewer directions than this the adaptive search gives way to the grid.
MIN_DIRECTIONS = 100
# Blocks of samples that always train and test together; with more of them sums do not pay.
MAX_BLOCKS = 64
# For the cost model alone: penalties that the adaptive search computes per target, by two products
# each (or one with a Gram matrix), and products that the whole grid takes (`search.family`).
EXPECTED_PENALTIES, EXPECTED_FUNCTIONS = 1.5, 14
# What a product of the adaptive search takes, in products of one size for all targets: it gathers
# targets, and writes what it knows of each.
GATHERING = 1.5
# Squares at every penalty take a matrix [r r] for each test set: of no more than so many numbers.
MOST_SQUARES = 2**28


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outline:
    """The sizes of a cross-validation, and what follows from them.

    Attributes:
      num_samples, num_features, num_targets: sizes of X [n p] and Y [n v].
      folds: outer and inner splits.
      method: what is asked for.
      execution: how it is computed.
    """

    num_samples: int
    num_features: int
    num_targets: int
    folds: Sequence[Fold]
    method: Method
    execution: Execution

    @property
    def num_devices(self) -> int:
        """Devices that divide the targets among them."""
        return 1 if self.execution.mesh is None else self.execution.mesh.size

    @functools.cached_property
    def splits(self) -> list[Split]:
        """All splits that are factorised: the outer ones, and the inner ones if they are used."""
        inner = [split for fold in self.folds for split in fold.inner]
        by_folds = self.method.scheme == "folds"
        return [fold.outer for fold in self.folds] + (inner if by_folds else [])

    @property
    def tile(self) -> int:
        """Targets of a tile, on all devices together.

        Raises:
          ValueError: if the execution asks for none.
        """
        default = CPU_TILE if jax.default_backend() == "cpu" else TILE
        width = default if self.execution.tile is None else self.execution.tile
        if width < 1:
            raise ValueError(f"tile must be >= 1, got {width}.")
        # Tiles of one size, so that the last is not mostly padding.
        number = -(-self.num_targets // (width * self.num_devices))
        even = -(-self.num_targets // number)
        return -(-even // (16 * self.num_devices)) * 16 * self.num_devices

    @functools.cached_property
    def blocks(self) -> tuple[Int[np.ndarray, " _"], ...]:
        """Blocks of samples that always train and test together."""
        return _blocks(self.num_samples, self.splits)

    @property
    def may_bound(self) -> bool:
        """Whether the search by bound may be used.

        The bound is for costs that are linear in q. With few directions the grid costs little.
        """
        longest = max(
            len(split.train) for fold in self.folds for split in (fold.outer, *fold.inner)
        )
        by_bound = self.method.criterion == "squared_error" and self.method.scheme == "folds"
        by_bound &= min(longest, self.num_features) >= MIN_DIRECTIONS
        return by_bound and self.execution.search != "grid" and len(self.method.alphas) > 1

    @property
    def is_adaptive(self) -> bool:
        """Whether the search by bound is used."""
        return self.may_bound and not self.at_once

    def _may_square(self, directions: int) -> bool:
        """Whether one product may give the squared predictions at every penalty."""
        tests = sum(len(fold.inner) for fold in self.folds)
        by_folds = self.method.scheme == "folds" and self.method.intercept
        by_folds &= self.execution.search != "bound"
        return by_folds and tests * directions**2 <= MOST_SQUARES

    def _looks(self, *, by_gram: bool) -> int | float:
        """Return how many products of predictions with all targets a search without it takes."""
        if not self.may_bound:
            return min(len(self.method.alphas), EXPECTED_FUNCTIONS)
        return GATHERING * EXPECTED_PENALTIES * (1 if by_gram else 2)

    @property
    def at_once(self) -> bool:
        """Whether one product gives the cost of every penalty (`core/solver/squares.py`).

        It takes directions times directions, where predictions take them times test samples.
        """
        inner = [split for fold in self.folds for split in fold.inner]
        if not inner:
            return False
        R, T = (max(len(x[i]) for x in inner) for i in (0, 1))
        if self.form == "sums":
            return self._may_square(self.num_features)
        r = R if self.form == "dual" else min(R, self.num_features)
        return self._may_square(r) and r < T * self._looks(by_gram=False)

    @functools.cached_property
    def form(self) -> Form:
        """The form with the least arithmetic, where float64 counts twice.

        "auto" means the smaller eigenproblem for each kind of training set.
        """
        if self.execution.form != "auto":
            return self.execution.form
        splits = self.splits
        n, p, v = self.num_samples, self.num_features, self.num_targets
        R = max(len(split.train) for split in splits)
        T = max(len(split.test) for split in splits)
        sets = len({split.train.tobytes() for split in splits})
        tests = len(splits)
        r = min(R, p)
        per_test = [T * self._looks(by_gram=False)] + [r] * self._may_square(r)
        products = [self._looks(by_gram=True)] + [1] * self._may_square(p)
        rows = sets * 2 * (2 * R * p * r + 9 * r**3)
        rows += v * (sets * 2 * R * r + tests * (T + min(per_test)) * 2 * r)
        sums = 2 * (2 * n * p * p + 9 * sets * p**3 + 4 * tests * p**3) + v * 2 * n * p
        sums += v * (sets * 2 * p * p + tests * (1 + min(products)) * 2 * p * p)
        by_folds = self.method.scheme == "folds" and self.method.intercept
        if not by_folds or len(self.blocks) > MAX_BLOCKS or p >= R:
            return "auto"
        return "sums" if sums < rows else "auto"


def _blocks(num_samples, splits):
    """Divide the samples that are used into blocks that always train and test together."""
    sides = {side.tobytes(): side for split in splits for side in split}
    member = np.zeros((num_samples, len(sides)), bool)
    for column, side in enumerate(sides.values()):
        member[side, column] = True
    _, label = np.unique(np.packbits(member, axis=1), axis=0, return_inverse=True)
    used = member.any(axis=1)
    return tuple(np.flatnonzero(label == x) for x in np.unique(label[used]))
