"""Every protocol finds what was planted, within the uncertainty that goes with its score.

A single experiment is held against an interval of 99.9 %, as no seed is chosen; the slow tests
count how often 95 % intervals cover, over 2,000 experiments. What is measured goes into the
properties of a junit report (`--junitxml=FILE -o junit_family=xunit1`).
"""

import warnings

import numpy as np
import planted
import pytest

import jaxalign
from jaxalign import api
from jaxalign.core import bootstrap, features, folds, scoring, stats
from jaxalign.core import ceiling as ceiling_lib
from jaxalign.data import protocols

SURE = 0.999
LARGE, SMALL = 600, 180  # samples
NUM_SIMULATIONS, NUM_TOGETHER = 2000, 10
ENCODING = [x.name for x in protocols.PROTOCOLS.values() if x.kind == "encoding"]
# One of each way of choosing a penalty; a protocol takes seconds to compile.
QUICK = ("jaxalign", "brainscore-linear-2026", "brainscore-ridge", "oota2025")
EVERY = [x if x in QUICK else pytest.param(x, marks=pytest.mark.slow) for x in ENCODING]


def score(*args, **options):
    """Score without the warning of shuffled protocols, which has its own test."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", api.ShuffledFoldsWarning)
        return jaxalign.score_arrays(*args, **options)


def is_shared(protocol):
    """Whether subjects share their signals.

    Not with a single test set: what it happens to hold would be in all of them, and an interval
    over subjects knows nothing of it (see the last test).
    """
    return protocol.encoding[0].rule != "test_set"


def evaluate(X, Y, protocol, samples):
    """Return what `score_arrays` summarises: the score of each fold and column."""
    given = planted.labels(protocol, samples)
    own = scoring.make_folds(protocol, len(Y), **given)
    run = given.get("runs")
    if protocol.scaling.within_runs != "none":
        Y = features.standardize(Y, np.zeros(len(Y), int) if run is None else run)
    result = scoring.evaluate(scoring.design(X, protocol, run=run), Y, protocol, own)
    return scoring.scores_of(result, protocol)


def by_subject(r, rule):
    """Summarise each subject's targets [s k]."""
    parts = np.split(r, planted.NUM_SUBJECTS, axis=1)
    return np.stack([scoring.summarize(part, rule).per_fold for part in parts])


@pytest.mark.parametrize("name", EVERY)
def test_a_planted_signal_is_recovered(rng, name, record_property):
    protocol = protocols.find(name)
    shared = is_shared(protocol)
    X, Y, _ = planted.draw(rng, planted.size(protocol, LARGE).samples, shared=shared)
    Y = Y.reshape(len(Y), -1)
    given = planted.labels(protocol, LARGE)
    found = score(X, Y, protocol=name, subjects=planted.SUBJECTS, **given)
    truth = planted.expected(protocol, rng, LARGE, shared=shared)
    r = evaluate(X, Y, protocol, LARGE)
    np.testing.assert_allclose(r.mean(axis=0), found.per_target, atol=1e-6)
    sure = planted.interval(by_subject(r, protocol.aggregation), SURE)
    half = (sure.high - sure.low) / 2
    record_property("raw, truth, half", (found.raw, truth, half))
    assert abs(found.raw - truth) <= half, (found.raw, truth, half)
    # It would not lie there by being wide.
    assert half < truth / 2, (half, truth)
    assert found.num_nan == 0


def coverage(name, rng, shared):
    """Return the coverage of 95 % intervals, its standard error, the mean score and the truth.

    Experiments by tens have their features in common, and their penalty where a protocol has one
    for all targets; the standard error takes tens for single ones.
    """
    protocol = protocols.find(name)
    truth = planted.expected(protocol, rng, SMALL, num=NUM_TOGETHER, shared=shared)
    covered, means = [], []
    for _ in range(NUM_SIMULATIONS // NUM_TOGETHER):
        n = planted.size(protocol, SMALL).samples
        X, Y, _ = planted.draw(rng, n, NUM_TOGETHER, shared=shared)
        r = evaluate(X, Y.reshape(n, -1), protocol, SMALL)
        for own in np.split(r, NUM_TOGETHER, axis=1):
            found = planted.interval(by_subject(own, protocol.aggregation), 0.95)
            covered.append(found.low <= truth <= found.high)
            means.append(scoring.summarize(own, protocol.aggregation, planted.SUBJECTS).score)
    sets = np.reshape(covered, (-1, NUM_TOGETHER)).mean(axis=1)
    return sets.mean(), sets.std(ddof=1) / np.sqrt(len(sets)), np.mean(means), truth


@pytest.mark.slow
@pytest.mark.parametrize("name", [x for x in ENCODING if "huth" not in x])
def test_intervals_cover_what_was_planted(rng, name, record_property):
    """Huth's chunks ask for 6,000 samples, and more than two minutes: see the test above."""
    rate, error, mean, truth = coverage(name, rng, is_shared(protocols.find(name)))
    record_property("covered, error, mean, truth", (rate, error, mean, truth))
    assert abs(mean - truth) <= 0.01, (mean, truth)
    assert 0.93 <= rate <= 0.97, (rate, error)
