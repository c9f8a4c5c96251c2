"""Activations and surprisal, in stores."""

import collections
import time

import numpy as np
from absl import logging
from tqdm import tqdm

from jaxalign import processes, stopping
from jaxalign.data.text import batches
from jaxalign.data.text.readouts import Reading
from jaxalign.errors import InputError
from jaxalign.io import run_dir, store
from jaxalign.io.run_dir import Artefact
from jaxalign.models import zoo
from jaxalign.stages.artefacts import Activations
from jaxalign.stages.extract import alike, forward, work
from jaxalign.stages.extract import reading as reading_lib
from jaxalign.stages.extract.shards import Shards, not_finite, open_store


def extract(config, job, model, reading: Reading, stimulus_ids, artefact) -> dict:
    """Write the shards that are missing, each by one process."""
    processes.decide(lambda: _begin(model, artefact, stimulus_ids))
    activations = _open(model, artefact)
    shards = Shards(activations, reading.predicted, artefact)
    if shards.num_done:
        logging.info(
            "extract %s: resuming, %d of %d shards are there",
            artefact.name,
            shards.num_done,
            len(activations.shards),
        )
    start = time.monotonic()
    network = model.load(
        job.mesh,
        dtype=config.compute_dtype,
        untrained_seed=artefact.settings["untrained_seed"],
    )
    num_tokens, passed = 0, collections.Counter()
    batched = reading_lib.batched(config, model, job.mesh, reading)
    lacking = stopping.until_requested(x for x in batched if shards.lack(x))
    with tqdm(
        total=shards.num_missing,
        desc=f"extract {artefact.name}",
        unit=" stimuli",
        mininterval=1.0,
        disable=not processes.is_first(),
    ) as progress:
        for batch, vectors, bits in forward.run(network, lacking, job.mesh, tap=config.tap):
            shards.add(batch, vectors, bits)
            num_tokens += batch.num_tokens
            passed[batches.shape(batch)] += 1
            progress.update(shards.num_added - progress.n)
            progress.set_postfix_str(f"{num_tokens / (time.monotonic() - start):.0f} tokens/s")
    shards.finish()
    stopping.check()
    processes.barrier()  # so that all shards are there
    if not processes.is_first():
        return {}
    texts = job.dataset.stimuli.text
    layers = map(activations.read_layer, range(activations.shape[0]))
    found = alike.count(layers, texts)
    alike.warn(artefact.name, found, len(set(texts)))
    return {
        "alike": {str(layer): number for layer, number in found.items()},
        "num_tokens": num_tokens,
        "flop": work.flop(config, model, passed),
        "seconds": round(time.monotonic() - start, 3),
        "passes": reading.passes.counts._asdict(),
    }


def _begin(model: zoo.Model, artefact: Artefact, stimulus_ids) -> None:
    """Create the store, and the list of its rows."""
    _open(model, artefact)
    run_dir.write_json(artefact.path / store.STIMULUS_IDS, list(stimulus_ids))


def embed(config, model, reading: Reading, stimulus_ids, artefact) -> dict:
    """Average the embedding's rows over the tokens of each part, as the model reads them."""
    start = time.monotonic()
    _begin(model, artefact, stimulus_ids)
    opened = _open(model, artefact)
    passes = reading.passes
    parts = zip(passes.row, passes.start, passes.stop, strict=True)
    tokens = [passes.rows[row][first:last] for row, first, last in parts]
    used, place = np.unique(np.concatenate(tokens), return_inverse=True)
    rows = model.word_embedding()[used].astype(np.float64)
    ends = np.cumsum([len(x) for x in tokens])
    values = np.stack([rows[own].mean(axis=0) for own in np.split(place, ends[:-1])])
    with np.errstate(over="ignore"):  # what overflows is found below
        stored = values.astype(store.DTYPES[config.store_dtype])[None]
    if not np.isfinite(stored).all():
        raise InputError(not_finite(artefact, values[None], stored))
    for i, own in enumerate(opened.shards):
        store.finish_write(opened.write_shard(i, stored[:, own.start : own.stop]), artefact)
    return {"num_tokens": int(ends[-1]), "seconds": round(time.monotonic() - start, 3)}


def _open(model: zoo.Model, artefact: Artefact) -> store.Store:
    static = artefact.kind == Activations.STATIC
    return open_store(
        artefact,
        layer_names=[] if static else model.layer_names,
        final_norm_applied=model.final_norm_applied and not static,
        libraries=("tokenizers",),
    )
