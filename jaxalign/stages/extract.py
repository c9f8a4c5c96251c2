"""Stimuli x model -> activations of all layers, in a store."""

import collections
import dataclasses
import functools
import importlib.metadata
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jaxtyping import Array, Bool, Float, Int
from tqdm import tqdm

from jaxalign.core import mesh as mesh_lib
from jaxalign.data import controls, tokens
from jaxalign.errors import InputError
from jaxalign.io import run_dir, store
from jaxalign.io.run_dir import Artefact
from jaxalign.models import t5, zoo
from jaxalign.stages import Job, Step, Upstream

VERSION = 2
POOLINGS = ("mean", "last", "mean_all")
# Rows are padded to the next of these lengths: few shapes to compile, little padding.
BUCKETS = (16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768)
SHARDS_IN_FLIGHT = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the extraction stage."""

    models: tuple[str, ...]  # names in models/zoo.py, or directories
    context: str = "none"  # "none": each part alone; "window:N": with the N-1 parts before it
    # "mean" or "last" of the part's own tokens; "mean_all" of every token of the row, as sentence
    # encoders are pooled.
    pooling: str = "mean"
    # How a text reaches the stacks of a T5: "both", "encoder" or "decoder"; see models/t5.py.
    t5_text: str = "both"
    untrained_seed: int = 0  # of the same networks with random weights; -1: do not extract them
    compute_dtype: str = "float32"  # "bfloat16" halves memory and is faster on accelerators
    store_dtype: str = "float32"  # or "float16", "bfloat16"
    batch_tokens: int = 4096  # tokens of one forward pass, padding included
    shard_stimuli: int = 256  # stimuli of one file; what a killed run has to repeat at most

    def __post_init__(self):
        if not self.models:
            raise InputError("extract.models must name at least one model, got none.")
        if len(set(self.models)) < len(self.models):
            raise InputError(f"extract.models must differ, got {self.models}.")
        tokens.parse_context(self.context)
        for name, allowed in (
            ("pooling", POOLINGS),
            ("t5_text", t5.TEXTS),
            ("compute_dtype", zoo.COMPUTE_DTYPES),
            ("store_dtype", tuple(store.DTYPES)),
        ):
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"extract.{name} must be one of {', '.join(allowed)}, "
                    f"got {getattr(self, name)!r}."
                )
        for name, least in (("untrained_seed", -1), ("batch_tokens", 1), ("shard_stimuli", 1)):
            if getattr(self, name) < least:
                raise InputError(f"extract.{name} must be >= {least}, got {getattr(self, name)}.")


class Batch(NamedTuple):
    """Rows of similar length, padded to one shape."""

    rows: Int[np.ndarray, " b"]  # indices in the shard
    tokens: Int[np.ndarray, "B T"]
    mask: Bool[np.ndarray, "B T"]
    weights: Float[np.ndarray, "B T"]  # of each token in the pooled vector


def plan(config: Config, job: Job, upstream: Upstream) -> list[Step]:
    """Find the models, tokenise the stimuli, and plan one store per network.

    Raises:
      InputError: if a model is missing or malformed, or a part does not fit it.
    """
    del upstream
    stimuli = job.dataset.stimuli
    models = [zoo.find(name, job.data_root, t5_text=config.t5_text) for name in config.models]
    for model in models:
        if model.name in controls.CONTROLS:
            raise InputError(
                f"a model must not be called as a control is: rename the directory {model.name!r}."
            )
    if repeated := [x for x, n in collections.Counter(m.name for m in models).items() if n > 1]:
        raise InputError(f"extract.models must have different names, found {repeated[0]!r} twice.")
    steps = []
    for model in models:
        tokenizer = tokens.load_tokenizer(model.tokenizer_path)
        if tokenizer.get_vocab_size() > model.config.vocab_size:
            raise InputError(
                f"model {model.name}: the tokenizer must not know more tokens than the model: "
                f"{tokenizer.get_vocab_size()} > {model.config.vocab_size}."
            )
        rows = tokens.build_rows(
            tokenizer, stimuli, context=config.context, max_length=model.config.max_length
        )
        seeds = (-1,) if config.untrained_seed < 0 else (-1, config.untrained_seed)
        for seed in seeds:
            settings = {
                "version": VERSION,
                "dataset": job.dataset.name,
                "stimuli_hash": stimuli.hash,
                "model": model.name,
                "model_hash": run_dir.hash_text(
                    model.config_hash + (model.weights_hash if seed < 0 else "")
                ),
                "tokenizer_hash": run_dir.hash_file(model.tokenizer_path),
                "untrained_seed": seed,
                "num_layers": model.config.num_layers,
                "width": model.config.width,
                "num_stimuli": len(stimuli),
            } | {
                name: getattr(config, name)
                for name in (
                    "context",
                    "pooling",
                    "compute_dtype",
                    "store_dtype",
                    "batch_tokens",
                    "shard_stimuli",
                )
            }
            artefact = Artefact(
                workdir=job.workdir,
                stage="extract",
                name=model.name + ("" if seed < 0 else " untrained"),
                settings=settings,
                cost=_cost(config, model, rows),
            )
            make = functools.partial(_extract, config, job, model, rows, stimuli.stimulus_id)
            steps.append(Step(artefact=artefact, make=make))
    return steps


def _cost(config: Config, model: zoo.Model, rows: list[tokens.Row]) -> str:
    num_tokens = sum(len(row.tokens) for row in rows)
    embedding = model.config.vocab_size * model.config.width
    flop = 2.0 * (model.num_parameters - embedding) * num_tokens
    size = np.dtype(store.DTYPES[config.store_dtype]).itemsize
    stored = (model.config.num_layers + 1) * len(rows) * model.config.width * size
    return (
        f"{len(rows)} stimuli, {num_tokens} tokens, {flop / 1e9:.1f} GFLOP, "
        f"store {stored / 1e6:.1f} MB"
    )


def _extract(config, job, model, rows, stimulus_ids, artefact) -> dict:
    """Write the shards that are missing."""
    settings = artefact.settings
    activations = store.create(
        artefact.path / store.ARRAY,
        shape=(model.config.num_layers + 1, len(rows), model.config.width),
        dtype=config.store_dtype,
        shard_stimuli=config.shard_stimuli,
        attributes=store.Attributes(
            fingerprint=artefact.fingerprint,
            dataset=settings["dataset"],
            stimuli_hash=settings["stimuli_hash"],
            model=model.name,
            model_hash=settings["model_hash"],
            tokenizer_hash=settings["tokenizer_hash"],
            untrained_seed=settings["untrained_seed"],
            context=config.context,
            pooling=config.pooling,
            tap="residual",
            final_norm_applied=model.final_norm_applied,
            compute_dtype=config.compute_dtype,
            versions=_versions(),
        ),
    )
    run_dir.write_json(artefact.path / store.STIMULUS_IDS, list(stimulus_ids))
    missing = [i for i in range(len(activations.shards)) if not activations.has_whole_shard(i)]
    if len(missing) < len(activations.shards):
        logging.info(
            "extract %s: resuming, %d of %d shards are there",
            artefact.name,
            len(activations.shards) - len(missing),
            len(activations.shards),
        )
    start = time.monotonic()
    network = model.load(
        job.mesh, dtype=config.compute_dtype, untrained_seed=settings["untrained_seed"]
    )
    in_flight = collections.deque()
    num_tokens = 0
    total = sum(len(activations.shards[i]) for i in missing)
    with tqdm(
        total=total, desc=f"extract {artefact.name}", unit=" stimuli", mininterval=1.0
    ) as progress:
        for index in missing:
            shard = [rows[i] for i in activations.shards[index]]
            values = np.empty((activations.shape[0], len(shard), activations.shape[2]), np.float32)
            pending = [
                (batch.rows, _run_batch(network, batch, job.mesh))
                for batch in make_batches(shard, config, job.mesh.shape["data"])
            ]
            for places, pooled in pending:
                values[:, places] = np.asarray(pooled)[:, : len(places)]
                progress.update(len(places))
            with np.errstate(over="ignore"):  # what overflows is found below
                stored = values.astype(store.DTYPES[config.store_dtype])
            if not np.isfinite(stored).all():
                raise InputError(_not_finite(config, artefact, bool(np.isfinite(values).all())))
            num_tokens += sum(len(row.tokens) for row in shard)
            progress.set_postfix_str(f"{num_tokens / (time.monotonic() - start):.0f} tokens/s")
            in_flight.append(activations.write_shard(index, stored))
            while len(in_flight) > SHARDS_IN_FLIGHT:
                store.finish_write(in_flight.popleft(), artefact)
        for future in in_flight:
            store.finish_write(future, artefact)
    return {"num_tokens": num_tokens, "seconds": round(time.monotonic() - start, 3)}


def _not_finite(config: Config, artefact: Artefact, before_storing: bool) -> str:
    """Say why activations cannot be stored."""
    culprit = "store_dtype" if before_storing else "compute_dtype"
    dtype = getattr(config, culprit)
    found = f"extract {artefact.name}: activations must be finite, but are not"
    if dtype == "float32":
        return f"{found} in float32: the weights hold NaN, infinity or very large numbers."
    return f"{found} in {dtype}; use --config.extract.{culprit}=float32."


def make_batches(shard: list[tokens.Row], config: Config, num_shares: int) -> list[Batch]:
    """Sort the rows of a shard by length and pad them to a few shapes.

    Batches never reach beyond a shard: what a row is computed with, and so its rounding, does not
    depend on where an interrupted run was resumed.

    Args:
      shard: rows.
      config: for pooling and the size of a batch.
      num_shares: devices that divide a batch between them.
    """
    buckets = collections.defaultdict(list)
    for i, row in enumerate(shard):
        buckets[next(b for b in BUCKETS if b >= len(row.tokens))].append(i)
    batches = []
    for length, members in sorted(buckets.items()):
        size = -(-max(config.batch_tokens // length, 1) // num_shares) * num_shares
        for first in range(0, len(members), size):
            chosen = members[first : first + size]
            token_ids = np.zeros((size, length), np.int32)
            mask = np.zeros((size, length), bool)
            weights = np.zeros((size, length), np.float32)
            for b, i in enumerate(chosen):
                row = shard[i]
                token_ids[b, : len(row.tokens)] = row.tokens
                mask[b, : len(row.tokens)] = True
                own = {
                    "mean": slice(row.start, row.stop),
                    "last": slice(row.stop - 1, row.stop),
                    "mean_all": slice(0, len(row.tokens)),
                }[config.pooling]
                weights[b, own] = 1.0 / len(range(*own.indices(length)))
            # A row of padding attends to something, so that it stays finite.
            mask[len(chosen) :, 0] = True
            batches.append(Batch(np.array(chosen), token_ids, mask, weights))
    return batches


def _run_batch(network, batch: Batch, mesh) -> Array:
    """Start one forward pass; the result is on its way to the host when it is asked for."""
    place = lambda x: jax.device_put(x, mesh_lib.sharding(mesh, ("batch", None), x.shape))
    return _pooled(network, place(batch.tokens), place(batch.mask), place(batch.weights))


@jax.jit
@jax.default_matmul_precision("highest")
def _pooled(network, token_ids, mask, weights):
    pool = lambda x_BTD: jnp.einsum("BTD,BT->BD", x_BTD.astype(jnp.float32), weights)
    return network(token_ids, mask, pool=pool).hidden


def _versions() -> dict[str, str]:
    names = ("jaxalign", "jax", "flax", "tokenizers", "tensorstore", "numpy")
    return {name: importlib.metadata.version(name) for name in names}
