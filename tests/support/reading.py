"""A data set of reading times, with its adapter: three stories, times that follow a surprisal."""

import numpy as np
import tiny

from jaxalign.core.behavior import surprisal
from jaxalign.data.datasets import Dataset
from jaxalign.data.schema import MEAN, Behavior, Stimuli
from jaxalign.data.words import WordFacts

STORIES = ("s1", "s2", "s3")
NUM_WORDS = 200  # of each story
SENTENCE = 8  # words
MS_PER_BIT = (20.0, 10.0)  # of a word, and of the word before it


def write(root, rng, *, num_words=NUM_WORDS, num_participants=5):
    """Write the words, and the times of readers of whom each has skipped some."""
    root.mkdir()
    m = len(STORIES) * num_words
    bits = rng.gamma(2.0, 2.0, size=m)
    bits[0] = np.nan
    story = np.repeat(STORIES, num_words)
    lagged = np.nan_to_num(surprisal.spillover(bits[:, None], story, 1), nan=4.0)
    times = 300 + lagged @ MS_PER_BIT + 40 * rng.standard_normal(num_participants)[:, None]
    times = times.T + 60 * rng.standard_normal((m, num_participants))
    times = np.maximum(times, 50)
    times[rng.random(times.shape) < 0.1] = np.nan
    np.savez(
        root / "reading.npz",
        text=rng.choice(tiny.WORDS, m),
        story=story,
        position=1 + np.arange(m) % SENTENCE,
        times=times,
        bits=bits,
        log_frequency=rng.normal(size=m),
    )


def dataset(root, **options):
    return Dataset(name="reading", module="reading", root=root, options=options)


def read(root):
    with np.load(root / "reading.npz") as file:
        return dict(file)


def ids(arrays):
    return [f"w{i}" for i in range(len(arrays["text"]))]


def files(root, **options):
    return [root / "reading.npz"]


def stimuli(root, **options):
    arrays = read(root)
    return Stimuli(
        stimulus_id=ids(arrays),
        text=arrays["text"].tolist(),
        passage=arrays["story"].tolist(),
        run=arrays["story"].tolist(),
        unit="word",
    )


def behavior(root, *, only_mean=False, backwards=False):
    """Return the times in another order than the words: they are joined by id."""
    arrays = read(root)
    times = arrays["times"]
    if only_mean:
        times = surprisal.mean_over_participants(times)[:, None]
    order = slice(None, None, -1) if backwards else slice(None)
    return Behavior(
        stimulus_id=ids(arrays)[order],
        reading_time_ms=times[order],
        participant=[MEAN] if only_mean else [f"p{i}" for i in range(times.shape[1])],
        word_in_sentence=arrays["position"][order].tolist(),
        alignment="published",
    )


def word_facts(root, stimuli):
    arrays = read(root)
    return WordFacts(
        stimulus_id=ids(arrays),
        log_frequency=arrays["log_frequency"] if "log_frequency" in arrays else np.empty(0),
        surprisal_bits={"planted": arrays["bits"]} if "bits" in arrays else {},
    )
