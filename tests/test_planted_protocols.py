"""Every protocol finds what was planted, within the uncertainty that goes with its score.

A single experiment is held against an interval of 99.9 %, as no seed is chosen; the slow tests
count how often 95 % intervals cover, over 2,000 experiments. What is measured goes into the
properties of a junit report (`--junitxml=FILE -o junit_family=xunit1`).
"""

import numpy as np
import planted
import pytest
from quiet import score
from scipy import stats as scipy_stats

from jaxalign.core import features
from jaxalign.core.ceilings import ceiling as ceiling_lib
from jaxalign.core.ceilings import of_protocol
from jaxalign.core.inference import stats
from jaxalign.core.inference.resampling import Bootstrap
from jaxalign.core.scores import scoring
from jaxalign.literature import protocols

SURE = 0.999
LARGE, SMALL = 600, 180  # samples
NUM_SIMULATIONS = 2000
# Experiments that have their features in common, to save time: few where they share a penalty too.
NUM_TOGETHER, NUM_WITH_ONE_PENALTY = 40, 10
ENCODING = [x.name for x in protocols.PROTOCOLS.values() if x.kind == "encoding"]
# A protocol takes seconds to compile.
QUICK = ("jaxalign",)
EVERY = [x if x in QUICK else pytest.param(x, marks=pytest.mark.slow) for x in ENCODING]


def is_shared(protocol):
    """Whether subjects share their signals.

    Not with a single test set: what it happens to hold would be in all of them, and an interval
    over subjects knows nothing of it.
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


@pytest.mark.slow
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

    Experiments of a set have their features in common, and their penalty where a protocol has one
    for all targets; the standard error takes sets for single ones.
    """
    protocol = protocols.find(name)
    one = not protocol.encoding[1].per_target and len(protocol.encoding[1].grid) > 1
    together = NUM_WITH_ONE_PENALTY if one else NUM_TOGETHER
    truth = planted.expected(protocol, rng, SMALL, num=together, shared=shared)
    covered, means = [], []
    for _ in range(NUM_SIMULATIONS // together):
        n = planted.size(protocol, SMALL).samples
        X, Y, _ = planted.draw(rng, n, together, shared=shared)
        r = evaluate(X, Y.reshape(n, -1), protocol, SMALL)
        for own in np.split(r, together, axis=1):
            found = planted.interval(by_subject(own, protocol.aggregation), 0.95)
            covered.append(found.low <= truth <= found.high)
            means.append(scoring.summarize(own, protocol.aggregation, planted.SUBJECTS).score)
    sets = np.reshape(covered, (-1, together)).mean(axis=1)
    return sets.mean(), sets.std(ddof=1) / np.sqrt(len(sets)), np.mean(means), truth


# Of those that take a minute. Ridge with one penalty for all targets takes longer, and two designs
# with trimmed or unshuffled folds have not been counted.
COUNTED = (
    "jaxalign",
    "brainscore-linear-2023",
    "brainscore-linear-2026",
    "brainscore-ridge-8folds",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", COUNTED)
def test_intervals_cover_what_was_planted(rng, name, record_property):
    rate, error, mean, truth = coverage(name, rng, shared=True)
    record_property("covered, error, mean, truth", (rate, error, mean, truth))
    assert abs(mean - truth) <= 0.01, (mean, truth)
    assert 0.93 <= rate <= 0.97, (rate, error)


@pytest.mark.slow
def test_intervals_over_subjects_of_one_test_set_are_too_narrow(rng, record_property):
    """All subjects have its stimuli, and no fold to tell what these do, though signals differ.

    Only one of these protocols is simulated: Huth's chunks ask for 6,000 samples at a time.
    """
    rate, error, mean, truth = coverage("oota2025", rng, shared=False)
    record_property("covered, error, mean, truth", (rate, error, mean, truth))
    assert abs(mean - truth) <= 0.01, (mean, truth)
    assert 0.88 <= rate < 0.95, (rate, error)


# Ceilings


def ceilings(Y, protocol):
    """Return leave-one-subject-out ceilings as `score_arrays` has them, fold by fold [s k]."""
    own = scoring.make_folds(protocol, len(Y), **planted.labels(protocol, len(Y)))
    of_fold = lambda fold: of_protocol.leave_one_subject_out(
        of_protocol.Recorded(Y, planted.SUBJECTS, planted.TARGETS), [fold], protocol
    )
    found = [of_fold(x).per_target for x in own]
    return np.stack(found, axis=1).reshape(planted.NUM_SUBJECTS, -1, len(own)).mean(axis=1)


@pytest.mark.slow
def test_a_planted_ceiling_is_recovered(rng, record_property):
    """The default divides nothing by it: score and ceiling stand side by side."""
    protocol = protocols.find("jaxalign")
    X, Y, _ = planted.draw(rng, LARGE)
    Y = Y.reshape(LARGE, -1)
    given = planted.labels(protocol, LARGE)
    columns = {"subjects": planted.SUBJECTS, "targets": planted.TARGETS}
    found = score(X, Y, **given, **columns)
    variance = planted.NOISE_SD**2
    truth = 1 / np.sqrt((1 + variance) * (1 + variance / (planted.NUM_SUBJECTS - 1)))
    sure = stats.crossed_interval(ceilings(Y, protocol), SURE)
    record_property("ceiling, truth, half", (found.ceiling, truth, (sure.high - sure.low) / 2))
    assert found.ceiling == pytest.approx(sure.mean)
    assert sure.low <= truth <= sure.high
    assert sure.high - sure.low < truth / 2
    assert found.ceiling_low < found.ceiling < found.ceiling_high
    assert found.score == found.raw


# What fits nothing, and averages


@pytest.mark.slow
def test_planted_reading_times_are_recovered(rng, record_property):
    """Of the slope and the noise of participants follow the correlation and its ceiling."""
    num_words, num_participants, slope, noise_ms = 1000, 6, 10.0, 80.0
    surprisal = rng.gamma(2.0, 2.0, num_words)  # of variance 8
    noise = noise_ms * rng.standard_normal((num_words, num_participants))
    times = 300 + slope * surprisal[:, None] + noise
    signal = slope**2 * 8
    reliability = signal / (signal + noise_ms**2 / num_participants)
    sentences = np.arange(num_words) // 10
    kept = np.flatnonzero(np.arange(num_words) % 10)
    halves = ceiling_lib.random_halves(num_participants, 20, rng)
    how = Bootstrap(rng, SURE, 4000)
    known = ceiling_lib.split_half(times[kept].T[:, None], halves, how).reliability
    found = score(
        surprisal,
        times,
        protocol="futrell2018-pearsonr",
        groups=sentences,
        ceiling=known.value[0],
    )
    correlate = lambda x, y, axis: scipy_stats.pearsonr(x, y, axis=axis).statistic
    pair = surprisal[kept], times[kept].mean(axis=1)
    options = {"paired": True, "n_resamples": 8000, "confidence_level": SURE, "rng": rng}
    sure = scipy_stats.bootstrap(pair, correlate, **options).confidence_interval
    record_property("raw, truth", (found.raw, np.sqrt(reliability)))
    record_property("ceiling, truth", (found.ceiling, reliability))
    assert found.raw == pytest.approx(correlate(*pair, axis=0))
    assert sure.low <= np.sqrt(reliability) <= sure.high
    assert sure.high - sure.low < 0.2
    assert known.low[0] <= reliability <= known.high[0]
    assert found.score == pytest.approx(min(found.raw / known.value[0], 1))


def test_a_planted_next_word_loss_is_recovered(rng, record_property):
    """Words drawn from what the model says cost its entropy, and from anything else more."""
    logits = 2 * rng.standard_normal((3000, 30))
    share = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    entropy = -(share * np.log(share)).sum(axis=1)
    ids = (share.cumsum(axis=1) < rng.random((3000, 1))).sum(axis=1)
    found = score(logits, ids, protocol="wikitext2-nwp")
    apart = stats.mean_interval(-np.log(share[np.arange(3000), ids]) - entropy, SURE)
    half = (apart.high - apart.low) / 2
    record_property("loss, entropy, half", (found.raw, entropy.mean(), half))
    assert abs(found.raw - entropy.mean()) <= half < 0.1
    assert score(logits[::-1], ids, protocol="wikitext2-nwp").raw > entropy.mean() + 10 * half


@pytest.mark.slow
def test_a_planted_average_is_recovered(rng, record_property):
    """Data sets of unlike noise, each under its own protocol; their variances add up."""
    average = protocols.find("aw2024-average")
    noise_sd = dict(
        zip([x for names, _ in average.parts for x in names], (1, 1.5, 2, 1), strict=True)
    )
    X, Y, runs, truth, variance = {}, {}, {}, 0.0, 0.0
    for names, part in average.parts:
        protocol = protocols.find(part)
        for name in names:
            X[name], own, _ = planted.draw(rng, LARGE, noise_sd=noise_sd[name])
            Y[name] = own.reshape(LARGE, -1)
            runs[name] = planted.labels(protocol, LARGE).get("runs")
            weight = 1 / len(names) / len(average.parts)
            truth += weight * planted.expected(protocol, rng, LARGE, noise_sd=noise_sd[name])
            values = by_subject(evaluate(X[name], Y[name], protocol, LARGE), protocol.aggregation)
            sure = stats.crossed_interval(values, SURE)
            variance += (weight * (sure.high - sure.low) / 2) ** 2
    found = score(X, Y, protocol="aw2024-average", runs=runs, subjects=planted.SUBJECTS)
    half = np.sqrt(variance)
    record_property("raw, truth, half", (found.raw, truth, half))
    assert abs(found.raw - truth) <= half < truth / 4
