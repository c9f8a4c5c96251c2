"""What knows only its neighbours in time: high in shuffled folds, nothing in contiguous ones."""

import dataclasses
import warnings

import numpy as np
import pytest
from scipy import signal

import jaxalign
from jaxalign.core.scores import scoring
from jaxalign.data import controls
from jaxalign.literature import protocols

NUM_PASSAGES, LENGTH, NUM_TARGETS, PHI = 40, 10, 20, 0.9
PASSAGES = np.repeat(np.arange(NUM_PASSAGES), LENGTH)
SHUFFLED = ("brainscore-linear-2023", "brainscore-linear-2026")


def drifting(rng, num, length):
    """Responses that drift within each of some blocks, and begin anew with the next."""
    noise = rng.standard_normal((num, length, NUM_TARGETS)) * np.sqrt(1 - PHI**2)
    noise[:, 0] /= np.sqrt(1 - PHI**2)
    return signal.lfilter([1], [1, -PHI], noise, axis=1).reshape(-1, NUM_TARGETS)


def score(X, Y, name, **options):
    """Return a score, and the warning that came with it, if any."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = jaxalign.score_arrays(X, Y, protocol=name, **options)
    return found, [str(x.message) for x in caught if x.category is jaxalign.ShuffledFoldsWarning]


@pytest.mark.parametrize("name", [SHUFFLED[1], pytest.param(SHUFFLED[0], marks=pytest.mark.slow)])
def test_oasm_in_shuffled_folds(rng, name, record_property):
    """High where single samples are drawn; the score in contiguous folds says what it is worth.

    No held-out passage has a neighbour in training, so that predictions do not vary there: their
    correlation is 0 by the rules of 2026, and undefined by those of 2023.
    """
    Y = drifting(rng, NUM_PASSAGES, LENGTH)
    found, warned = score(controls.oasm(PASSAGES, 1.0), Y, name, groups=PASSAGES)
    record_property("shuffled, contiguous", (found.raw, found.contiguous))
    assert found.raw > 0.7
    if name == "brainscore-linear-2026":
        assert abs(found.contiguous) < 1e-6
    else:
        assert np.isnan(found.contiguous)
    assert len(warned) == 1
    assert f"raw score {found.raw:.3f}, in contiguous folds" in warned[0]
    difference = f"{found.contiguous:.3f} (difference {found.raw - found.contiguous:+.3f})"
    assert ("undefined" if np.isnan(found.contiguous) else difference) in warned[0]


@pytest.mark.parametrize("num_groups", [1, 2])
def test_too_few_samples_for_contiguous_folds(rng, num_groups):
    """The comparison is undefined; the protocol's own score needs none of it."""
    X = rng.standard_normal((12, 3))
    Y, groups = X @ rng.standard_normal((3, 2)), np.arange(12) * num_groups // 12
    found, warned = score(X, Y, SHUFFLED[0], groups=groups)
    assert found.raw == pytest.approx(1, abs=1e-5) and np.isnan(found.contiguous)
    assert "undefined, as samples are too few" in warned[0]


@pytest.mark.slow
def test_oasm_in_whole_passages(rng, record_property):
    """The default says nothing about it, as there is nothing; and does not call that 0."""
    Y = drifting(rng, NUM_PASSAGES, LENGTH)
    found, warned = score(controls.oasm(PASSAGES, 1.0), Y, "jaxalign", groups=PASSAGES)
    record_property("jaxalign", (found.raw, found.r2_per_target.mean()))
    assert np.isnan(found.raw) and np.isnan(found.score)
    assert found.num_nan == 6 * NUM_TARGETS
    assert not warned


def in_blocks(X, Y, gap):
    """Score under the default, OASM unscaled (see there), with another gap."""
    plain = scoring.without_pca(protocols.find("jaxalign"), scale=False)
    own = dataclasses.replace(plain.encoding[0], gap=gap)
    return score(X, Y, dataclasses.replace(plain, folds=own))[0]


@pytest.mark.slow
def test_oasm_of_one_long_run(rng, record_property):
    """Blocks cut through the drift: what crosses the gap is little."""
    n = NUM_PASSAGES * LENGTH
    X, Y = controls.oasm(np.zeros(n, int), 1.0), drifting(rng, 1, n)
    shuffled, warned = score(X, Y, "brainscore-linear-2026")
    blocks = in_blocks(X, Y, 6)
    record_property("shuffled, contiguous", (shuffled.raw, shuffled.contiguous, blocks.raw))
    assert shuffled.raw > 0.7
    assert abs(shuffled.contiguous) < 0.1
    assert abs(blocks.raw) < 0.1
    assert len(warned) == 1


@pytest.mark.slow
def test_a_gap_must_be_longer_than_what_responses_remember(rng, record_property):
    """Six samples are not, where neighbours are alike by .9: seven samples apart .48 is left.

    OASM as wide as the widest that was published finds it, on either side of every block. A gap of
    20 samples leaves .11, and about nothing of the score.
    """
    n = NUM_PASSAGES * LENGTH
    X, Y = controls.oasm(np.zeros(n, int), 4.8), drifting(rng, 1, n)
    near, far = (in_blocks(X, Y, gap) for gap in (6, 20))
    record_property("gap 6, gap 20", (near.raw, far.raw))
    assert near.raw > 0.1
    assert abs(far.raw) < 0.1
