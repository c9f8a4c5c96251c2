"""Without targets there is nothing to score: arrays are refused, and summaries are empty."""

import numpy as np
import pytest

import jaxalign
from jaxalign.core import folds
from jaxalign.core.ceilings import of_protocol, repeats
from jaxalign.core.inference.resampling import Bootstrap
from jaxalign.core.solver import banded, cv
from jaxalign.core.solver.method import Method
from jaxalign.errors import InputError
from jaxalign.literature import protocols

N = 60
NO_TARGETS = "Y must have at least one target, got none"
FOLDS = folds.contiguous_folds(np.zeros(N, int), 3, gap=0)


@pytest.mark.parametrize("name", ["jaxalign", "brainscore-linear-2026", "brainscore-ridge"])
@pytest.mark.parametrize("with_ceiling", [False, True])
def test_a_protocol_refuses_responses_without_targets(rng, name, with_ceiling):
    labels = {"subjects": [], "targets": []} if with_ceiling else {}
    labels["groups"] = np.arange(N) // 5
    with pytest.raises(InputError, match=NO_TARGETS):
        jaxalign.score_arrays(rng.normal(size=(N, 4)), np.empty((N, 0)), protocol=name, **labels)


def test_regressions_refuse_responses_without_targets(rng):
    X, Y, alphas = rng.normal(size=(N, 4)), np.empty((N, 0)), np.array([1.0, 10.0])
    bands = banded.Features(X, np.array([0, 0, 1, 1]))
    with pytest.raises(ValueError, match=NO_TARGETS):
        cv.nested(X, Y, FOLDS, Method(alphas))
    with pytest.raises(ValueError, match=NO_TARGETS):
        banded.nested(bands, Y, FOLDS, Method(alphas), banded.Budget(seed=0))
    with pytest.raises(ValueError, match=NO_TARGETS):
        of_protocol.leave_one_subject_out(
            of_protocol.Recorded(Y, [], []), FOLDS, protocols.PROTOCOLS["jaxalign"]
        )


def test_ceilings_of_no_targets_are_none(rng):
    Y = np.empty((3, 0, N))
    for function in (repeats.ncsnr, repeats.noise_ceiling, repeats.explainable_variance):
        assert all(part.shape == (0,) for part in function(Y, Bootstrap(rng)))
