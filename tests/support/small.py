"""A small data set of one's own and small networks, for tests of the interface."""

import pathlib

import numpy as np
import pandas as pd

from jaxalign.data.schema import Responses
from jaxalign.data.sets import passages

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"
BERT, LLAMA, BLOOM = GOLDEN / "bert", GOLDEN / "llama", GOLDEN / "decoders/bloom"


def write(folder, *, seed=0, num_passages=20, num_sentences=2, num_subjects=3):
    """Write sentences of the embedded stimuli, and responses to their length with noise."""
    folder.mkdir(parents=True)
    every = passages.Passages().stimuli()
    kept = [i for i, x in enumerate(every.stimulus_id) if int(x.split(".")[-1]) < num_sentences]
    kept = kept[: num_passages * num_sentences]
    table = pd.DataFrame(
        {
            name: [getattr(every, name)[i] for i in kept]
            for name in ("stimulus_id", "text", "passage")
        }
    )
    # Of much the same length, and so of few shapes.
    table["text"] = [" ".join(text.split()[:5]) for text in table.text]
    table.to_csv(folder / "stimuli.csv", index=False)
    rng = np.random.default_rng(seed)
    length = table.text.str.len().to_numpy(float)
    signal = (length - length.mean()) / length.std()
    values = signal[:, None] + rng.standard_normal((len(table), 2 * num_subjects))
    responses = Responses(
        values=values,
        run=["session"] * len(table),
        subject=[f"s{i // 2}" for i in range(2 * num_subjects)],
        roi=["A", "B"] * num_subjects,
        target=["mean"] * (2 * num_subjects),
        units="z",
        stimulus_id=table.stimulus_id.tolist(),
    )
    (folder / "responses.npz").write_bytes(responses.to_bytes())
    return folder


def write_reading(folder, *, seed=0):
    """Write the same sentences word by word, with reading times of two passages and more."""
    folder.mkdir(parents=True)
    every = passages.Passages().stimuli()
    rows = [
        (f"{name}.{i}", word, passage, i + 1)
        for name, text, passage in zip(
            every.stimulus_id[:20], every.text[:20], every.passage[:20], strict=True
        )
        for i, word in enumerate(text.split())
    ]
    table = pd.DataFrame(rows, columns=["stimulus_id", "text", "passage", "word_in_sentence"])
    table[["stimulus_id", "text", "passage"]].to_csv(folder / "stimuli.csv", index=False)
    rng = np.random.default_rng(seed)
    table["participant"] = "mean"
    table["reading_time_ms"] = 300 + 50 * rng.random(len(table))
    columns = ["stimulus_id", "participant", "reading_time_ms", "word_in_sentence"]
    table[columns].to_csv(folder / "behavior.csv", index=False)
    return folder
