"""Where the time of a nested ridge goes: factorisations, the choice of penalties, scores."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
from jaxtyping import Float
from numpy import ndarray

from jaxalign.core.folds import Fold
from jaxalign.core.solver.method import Execution, Method
from jaxalign.core.solver.problem import Problem

PHASES = ("factorise", "choose", "score")


def measure(
    X: Float[ndarray, "n p"], Y: Any, folds: Sequence[Fold], method: Method, execution: Execution
) -> dict[str, float]:
    """Do what `cv.nested` does, and return the seconds of each phase.

    Each tile is waited for twice, so that the sum is a little more than `cv.nested` takes.

    Args:
      X: features.
      Y: responses [n v].
      folds: outer and inner splits.
      method: what is asked for.
      execution: how it is computed.
    """
    spent = dict.fromkeys(PHASES, 0.0)

    @contextlib.contextmanager
    def phase(name) -> Iterator[None]:
        start = time.perf_counter()
        yield
        spent[name] += time.perf_counter() - start

    with phase("factorise"):
        problem = Problem(X, Y, folds, method, execution)
        choose = problem.chooser()
        outer = jax.block_until_ready(problem.outer())
    for targets in problem.load():
        with phase("choose"):
            choice = jax.block_until_ready(choose(targets))
        with phase("score"):
            problem.score(outer, targets, choice.place)
    return spent
