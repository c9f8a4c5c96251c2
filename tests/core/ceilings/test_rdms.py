"""Noise ceilings of dissimilarities against SciPy, and what must hold of them."""

import numpy as np
import pytest
from scipy import stats

from jaxalign.core.ceilings import rdms


@pytest.mark.parametrize("comparison", ["spearman", "pearson"])
def test_bounds_are_correlations_with_means(rng, comparison):
    values = rng.random((4, 2, 45)) + rng.random(45)
    found = rdms.bounds(values, comparison)
    correlate = lambda a, b: getattr(stats, f"{comparison}r")(a, b)[0]
    own = values.mean(axis=1)
    averaged = [stats.rankdata(x) if comparison == "spearman" else stats.zscore(x) for x in own]
    for i in range(4):
        others = np.mean([averaged[j] for j in range(4) if j != i], axis=0)
        np.testing.assert_allclose(found.lower[i], correlate(own[i], others), atol=1e-12)
        np.testing.assert_allclose(
            found.upper[i], correlate(own[i], np.mean(averaged, axis=0)), atol=1e-12
        )
        sessions = correlate(values[i, 0], values[i, 1])
        np.testing.assert_allclose(found.sessions[i], sessions, atol=1e-12)
    assert (found.lower < found.upper).all()


def test_subjects_that_agree_reach_one(rng):
    same = np.repeat(rng.random((1, 1, 10)), 3, axis=0)
    found = rdms.bounds(same, "spearman")
    np.testing.assert_allclose([found.lower, found.upper], 1)
    assert np.isnan(found.sessions).all()
    with pytest.raises(ValueError, match="a noise ceiling needs two subjects, got 1"):
        rdms.bounds(same[:1], "spearman")
