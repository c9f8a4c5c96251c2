"""What a cross-validated ridge is asked for (`Method`), and how it is computed (`Execution`)."""

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

from jax.sharding import AbstractMesh, Mesh
from jaxtyping import Float, Int
from numpy import ndarray

from jaxalign.core.solver.ridge import CUTOFF
from jaxalign.core.solver.search import Criterion, Search

Form = Literal["auto", "primal", "dual", "sums"]
Scheme = Literal["folds", "loo", "gcv"]


class Method(NamedTuple):
    """How a ridge is fitted, and how penalties are chosen.

    Each target takes the penalty with the least cost, averaged over the inner splits; of equal
    costs the largest penalty. Means and scales come from training samples alone.

    Attributes:
      alphas: penalties to choose from, positive; a single 0 is least squares.
      standardize: scale features to unit variance over each training set. Kernels of training sets
        are then no parts of one kernel, and are computed for each.
      criterion: mean squared error on inner test samples; the same over the variance of the target
        in each inner test set; or the negative of Pearson r.
      scheme: "folds" takes the inner splits; "loo" leaves out single samples of each outer training
        set, in closed form; "gcv" is generalised cross-validation.
      intercept: leave a constant free of penalty; if not, neither side is centred.
      cutoff: fraction of the largest eigenvalue below which a direction is dropped.
      pool: a group (0, 1, ...) for each target; targets of a group choose one penalty, that of the
        least average cost, squared errors in the units of Y. None: each target for itself.
    """

    alphas: Float[ndarray, " a"] | Sequence[float] = ()
    standardize: bool = True
    criterion: Criterion = "squared_error"
    scheme: Scheme = "folds"
    intercept: bool = True
    cutoff: float = CUTOFF
    pool: Int[ndarray, " v"] | None = None


class Execution(NamedTuple):
    """How a cross-validation is computed; results depend on it by rounding alone.

    Attributes:
      search: "grid" computes the cost of every penalty; "adaptive" does too where one product gives
        all of them (`core/solver/squares.py`), and elsewhere, as "bound" always does, only those of
        penalties that could be best (`core/solver/search.py`). With a correlation, a pool, no inner
        splits, or few directions (`outline.MIN_DIRECTIONS`), all are computed.
      form: "primal" and "dual" factorise training samples, "sums" works on sums over blocks of
        samples that train and test together; "auto" takes what should cost least.
      tile: targets at a time on each device; None: what suits the device.
      mesh: devices that divide the targets among them; None: one device. Without devices
        (`AbstractMesh`) there are sizes alone, for plans.
      progress: wraps the list of tiles, `tqdm.tqdm` for instance.
    """

    search: Search = "grid"
    form: Form = "auto"
    tile: int | None = None
    mesh: Mesh | AbstractMesh | None = None
    progress: Callable[[Sequence], Iterable] = iter


GRID, ADAPTIVE = Execution(), Execution(search="adaptive")
