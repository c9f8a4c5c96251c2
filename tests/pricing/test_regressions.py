"""What regressions of reading times take, against what they hold when they run."""

import tracemalloc

import numpy as np
import pytest

from jaxalign.core.behavior import likelihood
from jaxalign.pricing import regressions
from jaxalign.pricing.work import TABLES, Layout

WORDS, PEOPLE, STORIES = 600, 20, 4
PREDICTORS = (9, 12)


def takes(words=WORDS, times=WORDS * PEOPLE, stories=STORIES, sources=1):
    return regressions.of_reading(words, times, stories, PREDICTORS, sources)(Layout())


def test_memory_is_what_the_regression_of_all_participants_holds(rng):
    story = np.array([f"passage-{k}" for k in range(STORIES)]).repeat(WORDS // STORIES)
    base = rng.standard_normal((WORDS, PREDICTORS[0]))
    full = np.c_[base, rng.standard_normal((WORDS, PREDICTORS[1] - PREDICTORS[0]))]
    word, who = np.indices((WORDS, PEOPLE)).reshape(2, -1)
    times = 300 + 50 * rng.standard_normal(len(word))
    tracemalloc.start()
    try:
        likelihood.mixed_log_likelihoods(
            times, base[word], full[word], who, story[word], held_out=True
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert takes().host_bytes == pytest.approx(peak, rel=0.3)


def test_time_grows_with_times_stories_and_sources():
    few = takes().host_s - TABLES(Layout()).host_s
    more = lambda **sizes: (takes(**sizes).host_s - TABLES(Layout()).host_s) / few
    assert more(words=2 * WORDS, times=2 * WORDS * PEOPLE) == pytest.approx(2)
    assert more(stories=9) == pytest.approx(2)
    assert more(sources=3) == pytest.approx(3)
    assert more(times=0) < 0.3
