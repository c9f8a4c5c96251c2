"""Do intervals of ceilings over subjects, and over samples, cover what they say?

Bars were set before the simulations ran; the seed is that of every other test. What is measured
goes into the properties of a junit report (`--junitxml=FILE -o junit_family=xunit1`).
"""

import numpy as np
import pytest
from scipy import signal

from jaxalign.core.ceilings import ceiling, isc
from jaxalign.core.inference.resampling import Bootstrap

pytestmark = pytest.mark.slow

NUM_SIMULATIONS, NUM_TOGETHER = 2000, 500
NUM_FRESH = 8  # sets of as many experiments, whose mean is the truth
NUM_SAMPLES, NUM_BLOCKS = 300, 6
BLOCKS = np.split(np.arange(NUM_SAMPLES), NUM_BLOCKS)


def experiments(rng, s):
    """Draw experiments [s v n], one per target, of subjects who follow the stimuli unlike well.

    Stimuli are those of the experiment; by blocks they are as long, so that every experiment's
    truth is the same.
    """
    stimuli = rng.standard_normal((NUM_TOGETHER, NUM_BLOCKS, NUM_SAMPLES // NUM_BLOCKS))
    stimuli -= stimuli.mean(axis=-1, keepdims=True)
    stimuli /= stimuli.std(axis=-1, keepdims=True)
    gain = rng.gamma(4.0, 0.25, (s, NUM_TOGETHER, 1))
    Y = gain * stimuli.reshape(NUM_TOGETHER, NUM_SAMPLES)
    Y = Y + rng.standard_normal((s, NUM_TOGETHER, NUM_SAMPLES))
    return (Y - Y.mean(axis=-1, keepdims=True)) / Y.std(axis=-1, keepdims=True)


def over_subjects(Y, blocks):
    values = ceiling.leave_one_subject_out(Y, blocks)
    return ceiling.over_subjects(values, ceiling.without_each_subject(Y, blocks))


INTERVALS = {
    "leave one subject out": lambda Y: over_subjects(Y, BLOCKS),
    "isc": lambda Y: over_subjects(Y, [np.arange(NUM_SAMPLES)]),
    "isc of pairs": lambda Y: isc.over_pairs(isc.pairwise(Y), len(Y)),
}


@pytest.mark.parametrize("s", [4, 6, 10, 25])
@pytest.mark.parametrize("kind", INTERVALS)
def test_intervals_over_subjects_cover_the_expected_ceiling(rng, kind, s, record_property):
    """Of new subjects, who hear the same.

    Measured: .942 to .955, see `ceiling.over_subjects` and `isc.over_pairs`.
    """
    find = INTERVALS[kind]
    fresh = [find(experiments(rng, s)).value.mean() for _ in range(NUM_FRESH)]
    truth = np.mean(fresh)
    covered = []
    for _ in range(NUM_SIMULATIONS // NUM_TOGETHER):
        found = find(experiments(rng, s))
        covered.append((found.low <= truth) & (truth <= found.high))
    rate = np.mean(covered)
    record_property("covered, truth, its error", (rate, truth, np.std(fresh) / NUM_FRESH**0.5))
    assert 0.93 <= rate <= 0.97, rate


@pytest.mark.parametrize("s", [4, 6, 10])
def test_intervals_of_split_halves_cover_what_more_samples_would_give(rng, s, record_property):
    """Of the same subjects: one with a stronger share in the stimulus stays the one he is."""
    num, together = 20, 100
    halves = np.stack([rng.permutation(s) < s // 2 for _ in range(num)])
    covered = []
    for _ in range(NUM_SIMULATIONS // together):
        gain = rng.gamma(4.0, 0.25, s)
        Y = gain[:, None, None] * rng.standard_normal((together, NUM_SAMPLES))
        Y = Y + rng.standard_normal(Y.shape)
        sides = [(gain[x].mean() ** 2, 1 / x.sum()) for h in halves for x in (h, ~h)]
        shares = np.sqrt([a / (a + b) for a, b in sides])
        truth = ceiling.reliability(np.mean(shares[::2] * shares[1::2], keepdims=True))
        found = ceiling.split_half(Y, halves, Bootstrap(rng, num_resamples=400)).reliability
        covered.append((found.low <= truth) & (truth <= found.high))
    record_property("covered", np.mean(covered))
    assert 0.93 <= np.mean(covered) <= 0.97


def test_intervals_of_split_halves_of_a_series_need_blocks(rng, record_property):
    """Autoregressive samples by tens, which are 30 blocks: as few are resampled too narrowly.

    Measured .93 with blocks, .86 without. The bar of .93 to .97 is held for independent samples.
    """
    s, together = 6, 100
    halves = np.stack([rng.permutation(s) < s // 2 for _ in range(20)])
    rates = {1: [], 10: []}
    for _ in range(NUM_SIMULATIONS // together):
        gain = rng.gamma(4.0, 0.25, s)
        series = rng.standard_normal((s + 1, together, NUM_SAMPLES + 50))
        series = signal.lfilter([0.75**0.5], [1, -0.5], series)[..., 50:]
        Y = gain[:, None, None] * series[0] + series[1:]
        sides = [(gain[x].mean() ** 2, 1 / x.sum()) for h in halves for x in (h, ~h)]
        shares = np.sqrt([a / (a + b) for a, b in sides])
        truth = ceiling.reliability(np.mean(shares[::2] * shares[1::2], keepdims=True))
        for size, covered in rates.items():
            how = Bootstrap(rng, num_resamples=400, blocks=np.arange(NUM_SAMPLES) // size)
            found = ceiling.split_half(Y, halves, how).reliability
            covered.append((found.low <= truth) & (truth <= found.high))
    rates = {size: np.mean(covered) for size, covered in rates.items()}
    record_property("covered", rates)
    assert rates[1] < 0.9 < rates[10] <= 0.97, rates
