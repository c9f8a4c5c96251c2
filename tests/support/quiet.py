"""What tests of score_arrays share."""

import warnings

import numpy as np

import jaxalign


def score(*args, **options):
    """Score without the warnings of shuffled protocols and low ceilings, which have own tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", jaxalign.ShuffledFoldsWarning)
        warnings.simplefilter("ignore", jaxalign.CeilingWarning)
        return jaxalign.score_arrays(*args, **options)


def close(found, expected, atol=1e-5):
    """Compare within a tolerance alone: scores are of the order of 1."""
    np.testing.assert_allclose(found, expected, atol=atol)
