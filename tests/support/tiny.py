"""Small data sets, a small network, and the making of plans."""

import dataclasses
import pathlib
import shutil

import numpy as np
import pandas as pd
import safetensors.numpy

from jaxalign.data.schema import Responses
from jaxalign.stages import encode, extract

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden"
WORDS = "the dog sat on a mat and saw red birds fly over old stone walls at dawn".split()
TR_S = 2.0


def write_timed(root, rng, *, num_runs=2, num_trs=60, num_subjects=3):
    """Write words every half second, and responses to the letters heard two TRs before."""
    root.mkdir()
    words, values, runs, times = [], [], [], []
    signals = []
    for run in range(num_runs):
        for i in range(int(num_trs * TR_S / 0.5)):
            text = WORDS[rng.integers(len(WORDS))]
            words.append((f"r{run}.{i}", text, f"story{run}", f"run{run}", i / 2, i / 2 + 0.4))
        letters = [len(text) for _, text, _, r, _, _ in words if r == f"run{run}"]
        per_tr = np.array(letters, float).reshape(num_trs, -1).sum(axis=1)
        signals.append(np.r_[0, 0, per_tr[:-2]])
        runs += [f"run{run}"] * num_trs
        times.append(TR_S * np.arange(num_trs))
    columns = ["stimulus_id", "text", "passage", "run", "onset_s", "offset_s"]
    pd.DataFrame(words, columns=columns).to_csv(root / "stimuli.csv", index=False)
    signal = np.concatenate(signals)
    signal = (signal - signal.mean()) / signal.std()
    values = [signal + rng.standard_normal(len(signal)) for _ in range(2 * num_subjects)]
    responses = Responses(
        values=np.stack(values, axis=1),
        run=runs,
        subject=[f"s{i // 2}" for i in range(2 * num_subjects)],
        roi=["A", "B"] * num_subjects,
        target=["mean"] * (2 * num_subjects),
        units="z",
        time_s=np.concatenate(times),
        tr_s=TR_S,
    )
    (root / "responses.npz").write_bytes(responses.to_bytes())


def write_sentences(root, rng, *, num_passages=12, num_subjects=3):
    """Write sentences of three to nine words in passages of five, and random responses."""
    root.mkdir()
    rows = []
    for passage in range(num_passages):
        for i in range(5):
            text = " ".join(rng.choice(WORDS, rng.integers(3, 10)))
            rows.append((f"p{passage}.{i}", text, f"passage{passage}", "session"))
    table = pd.DataFrame(rows, columns=["stimulus_id", "text", "passage", "run"])
    table.to_csv(root / "stimuli.csv", index=False)
    responses = Responses(
        values=rng.standard_normal((len(rows), 4 * num_subjects)),
        run=["session"] * len(rows),
        subject=[f"s{i // 4}" for i in range(4 * num_subjects)],
        roi=["A", "A", "A", "B"] * num_subjects,
        target=["t0", "t1", "t2", "t3"] * num_subjects,
        units="z",
        stimulus_id=table.stimulus_id.tolist(),
    )
    (root / "responses.npz").write_bytes(responses.to_bytes())


def bert(**settings):
    """Return the settings of an extraction with the small encoder."""
    return extract.Config(
        models=(str(GOLDEN / "bert"),), **({"shard_stimuli": 16, "batch_tokens": 128} | settings)
    )


def llama(**settings):
    """Return the settings of an extraction with the small decoder."""
    return dataclasses.replace(bert(untrained_seed=-1, **settings), models=(str(GOLDEN / "llama"),))


def headless(parent):
    """Write the small decoder without the head that predicts tokens; return its folder."""
    folder = parent / "headless"
    shutil.copytree(GOLDEN / "llama", folder)
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    del tensors["lm_head.weight"]
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    return folder


def make(steps):
    """Make every artefact that is not finished; return them all."""
    for step in steps:
        if not step.artefact.is_done:
            step.artefact.start()
            step.artefact.finish(**step.make(step.artefact))
    return [step.artefact for step in steps]


def run(job, extraction, encoding):
    """Extract and encode; return the artefacts of both."""
    stores = make(extract.plan(extraction, job, {}))
    return stores, make(encode.plan(encoding, job, {"extract": stores}))
