"""A data set of reading times, with its adapter: three stories, times that follow a surprisal."""

import dataclasses

import numpy as np
import tiny

from jaxalign.core.behavior import surprisal
from jaxalign.data.adapter import Adapter
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
    return Dataset(Reading(root=root, **options))


def read(root):
    with np.load(root / "reading.npz") as file:
        return dict(file)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reading(Adapter):
    """What `write` has written; times come in another order than the words: both have ids."""

    name: str = "reading"
    only_mean: bool = False
    backwards: bool = False

    def files(self):
        return [self.root / "reading.npz"]

    def stimuli(self):
        arrays = read(self.root)
        return Stimuli(
            stimulus_id=_ids(arrays),
            text=arrays["text"].tolist(),
            passage=arrays["story"].tolist(),
            run=arrays["story"].tolist(),
            unit="word",
        )

    def behavior(self):
        arrays = read(self.root)
        times = arrays["times"]
        if self.only_mean:
            times = surprisal.mean_over_participants(times)[:, None]
        order = slice(None, None, -1) if self.backwards else slice(None)
        people = [MEAN] if self.only_mean else [f"p{i}" for i in range(times.shape[1])]
        return Behavior(
            stimulus_id=_ids(arrays)[order],
            reading_time_ms=times[order],
            participant=people,
            word_in_sentence=arrays["position"][order].tolist(),
            alignment="published",
        )

    def word_facts(self):
        arrays = read(self.root)
        return WordFacts(
            stimulus_id=_ids(arrays),
            log_frequency=arrays["log_frequency"] if "log_frequency" in arrays else np.empty(0),
            surprisal_bits={"planted": arrays["bits"]} if "bits" in arrays else {},
        )


def _ids(arrays):
    return [f"w{i}" for i in range(len(arrays["text"]))]
