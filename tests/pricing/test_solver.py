"""Formulas of the solver, against products counted in the programs that are traced and run."""

import counted
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.core import folds as folds_lib
from jaxalign.core.solver import outline as outline_lib
from jaxalign.core.solver import ridge, sweep, tiles
from jaxalign.core.solver.method import Execution, Method
from jaxalign.core.solver.problem import Problem, workers
from jaxalign.pricing import solver
from jaxalign.pricing.work import Layout

ALPHAS = np.logspace(-1, 7, 17)


def sizes(n, p, v, method, **how):
    folds = folds_lib.contiguous_folds(np.zeros(n, int), 5, gap=0)
    execution = Execution(**how)
    known = {"num_samples": n, "num_features": p, "num_targets": v}
    return outline_lib.Outline(**known, folds=folds, method=method, execution=execution)


@pytest.mark.slow
@pytest.mark.parametrize(
    "n,p,method,how",
    [
        (120, 30, Method(ALPHAS), {"form": "primal"}),
        (120, 200, Method(ALPHAS), {"form": "dual"}),
        (120, 200, Method(ALPHAS, standardize=False), {"search": "bound"}),
        (600, 110, Method(ALPHAS), {"search": "bound", "form": "primal"}),
        (600, 110, Method(ALPHAS), {"search": "bound", "form": "sums"}),
        (120, 200, Method(ALPHAS, standardize=False), {"search": "adaptive"}),
        (600, 110, Method(ALPHAS), {"search": "adaptive", "form": "sums"}),
        (120, 200, Method(ALPHAS, intercept=False), {}),
        (300, 40, Method(ALPHAS), {"form": "sums"}),
        (120, 30, Method(ALPHAS, criterion="correlation"), {}),
        (120, 30, Method(ALPHAS, criterion="relative_error"), {}),
        (120, 30, Method(ALPHAS, scheme="loo"), {}),
        (120, 30, Method(ALPHAS, scheme="gcv"), {}),
    ],
)
def test_arithmetic_is_that_of_the_traced_programs(rng, n, p, method, how):
    outline = sizes(n, p, 20, method, **how)
    X, Y = rng.standard_normal((n, p)), rng.standard_normal((n, 20))
    problem = Problem(X, Y, outline.folds, method, outline.execution)
    inner, outer = problem.inner(), problem.outer()
    [targets] = problem.load()
    swept, run = 0.0, []

    def remember(function, shared, targets, *others, **static):
        run.append((function, shared, targets, others, static))
        return original(function, shared, targets, *others, **static)

    original, problem._run = problem._run, remember
    choice = problem.chooser()(targets)
    problem.score(outer, targets, choice.place)
    form = lambda values, offset: tiles.tile(problem.layout, values, offset)
    swept += counted.flop(form, targets.values, targets.offset)
    for function, shared, tile, others, static in run:
        static.pop("ranks", None)
        whole = lambda shared, targets, others, f=function, s=static: f(
            shared, targets, *others, **s
        )
        # The first round looks at every target, later ones at few.
        turns = (outline_lib.EXPECTED_PENALTIES - 1) * targets.size
        turns /= max(-(-targets.size // 8), 16)
        swept += counted.flop(whole, shared, tile.targets, others, turns=turns)
    found = solver.nested(outline, Layout())
    m = outline_lib.EXPECTED_FUNCTIONS
    assert outline.is_adaptive == any(x[0] is sweep.choose for x in run)
    # How many penalties make up the family depends on the spectrum.
    has_family = problem.family is not None
    is_grid = not (outline.is_adaptive or outline.at_once) and method.scheme == "folds"
    assert has_family == is_grid
    tolerance = 0.03 + 0.5 * (has_family and len(problem.family.pivots) != m)
    assert found.flop["sweep"] == pytest.approx(swept, rel=tolerance)
    assert inner.sets.design.basis.shape[0] == len(outline.folds) * (
        (len(outline.folds) - 1) / 2 if method.scheme == "folds" else 1
    )


@pytest.mark.parametrize("form,standardize", [("primal", True), ("dual", True), ("dual", False)])
def test_arithmetic_of_factorisations(form, standardize):
    n, p = 120, 30 if form == "primal" else 200
    outline = sizes(n, p, 20, Method(ALPHAS, standardize=standardize), form=form)
    inner = [[split] for fold in outline.folds for split in fold.inner]
    total = 0.0
    settings = ridge.Settings(standardize, False, form)
    groups = list(solver._inner(outline)), [[fold.outer] for fold in outline.folds]
    assert len(groups[0]) < len(inner)
    shared = None
    if not standardize:
        shared = ridge.Kernel(
            jax.ShapeDtypeStruct((n, n), jnp.float32), jax.ShapeDtypeStruct((n,), jnp.float32)
        )
        total += counted.flop(
            lambda X: ridge._kernel.__wrapped__(jnp, X, None, intercept=True),
            jax.ShapeDtypeStruct((n, p), jnp.float32),
        )
    for sets in groups:
        R = max(len(x[0].train) for x in sets)
        T = max(len(split.test) for x in sets for split in x)
        for one in sets:
            m = len(one)
            rows = ridge.Rows(
                *(np.zeros(R, int), np.ones(R, bool)),
                *(np.zeros((m, T), int), np.ones((m, T), bool)),
            )

            def whole(X, shared, rows=rows):
                if shared is None:
                    products = ridge._from_features.__wrapped__
                    found = products(jnp, X, rows, None, settings=settings)
                else:
                    found = ridge._from_kernel.__wrapped__(jnp, shared, rows, settings=settings)
                return ridge._rotate_with(jnp, found, rows, None, settings=settings)

            total += counted.flop(whole, jax.ShapeDtypeStruct((n, p), jnp.float32), shared)
    found = solver.nested(outline, Layout())
    assert found.flop["factor"] == pytest.approx(total, rel=0.05)


def test_large_factorisations_are_not_held_side_by_side():
    assert [workers(x) for x in (600, 8000, 16_000, 20_000)] == [8, 4, 1, 1]
