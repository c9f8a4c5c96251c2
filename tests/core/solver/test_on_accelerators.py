"""What is compiled for accelerators, where CPUs have NumPy: run here, and compared with it."""

import numpy as np
import pytest

from jaxalign.core import folds as folds_lib
from jaxalign.core.solver import columns, cv, outline, problem, ridge
from jaxalign.core.solver.method import Execution, Method

N, P, V = 90, 40, 12


@pytest.mark.slow
@pytest.mark.parametrize(
    ("form", "how"),
    [
        ("dual", {"standardize": False}),
        ("dual", {"standardize": True}),
        ("primal", {"standardize": True, "intercept": False}),
        ("sums", {"standardize": True}),
    ],
)
def test_compiled_factorisations_give_the_scores_of_numpy(rng, monkeypatch, form, how):
    X = np.float32(rng.normal(size=(N, P)) * np.logspace(-2, 2, P) + 3)
    Y = X @ rng.normal(size=(P, V)) / 50 + 5 * rng.normal(size=(N, V))
    folds = folds_lib.contiguous_folds(np.zeros(N, int), 3, gap=0)
    method, execution = Method(np.logspace(-2, 4, 7), **how), Execution(form=form)
    expected = cv.nested(X, Y, folds, method, execution=execution)
    compiled = []
    for module in (columns, ridge):
        monkeypatch.setattr(module, "on_host", lambda: bool(compiled.append(1)))
    monkeypatch.setattr(problem.jax, "default_backend", lambda: "gpu")
    assert (
        outline.Outline(
            num_samples=N,
            num_features=P,
            num_targets=9000,
            folds=folds,
            method=method,
            execution=execution,
        ).tile
        == 4512
    )  # two even ones of at most 8192
    monkeypatch.setattr(columns.Columns.__init__, "__defaults__", (None, 9 * N))
    found = cv.nested(X, Y, folds, method, execution=execution)
    assert compiled
    np.testing.assert_array_equal(found.alphas, expected.alphas)
    np.testing.assert_allclose(found.r, expected.r, atol=2e-6)
    np.testing.assert_allclose(found.inner_score, expected.inner_score, atol=2e-6)
