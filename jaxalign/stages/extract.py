"""Stimuli x model -> activations of all layers, and surprisal, in stores."""

import collections
import dataclasses
import functools
import time
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float
from tqdm import tqdm

from jaxalign.core import mesh as mesh_lib
from jaxalign.data import alignment, batches, contexts, controls, prompts, readouts, tokenizer_files
from jaxalign.data.batches import Batch, Reads
from jaxalign.errors import InputError
from jaxalign.io import run_dir, store
from jaxalign.io.run_dir import Artefact
from jaxalign.models import base, score, zoo
from jaxalign.models.t5 import TEXTS
from jaxalign.stages import Job, Step, Upstream

VERSION = 4
STREAM = "all"  # the one passage of `one_stream`
# Passes that are computed, and shards that are written, while the host prepares the next.
PASSES_IN_FLIGHT = 2
SHARDS_IN_FLIGHT = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the extraction stage."""

    models: tuple[str, ...]  # names in models/table.py, or directories
    context: str = "none"  # what a part is seen with: a rule of data/contexts.py
    one_stream: bool = False  # read all passages as one text, in their order, as Brain-Score does
    # "mean", "last", "first" or "sum" of the part's own tokens; "mean_all" of every token it sees,
    # as sentence encoders are pooled.
    pooling: str = "mean"
    # Of layers above 0, the embedding: "residual" is the stream after each block, "attention" and
    # "mlp" what that part of the block adds to it.
    tap: str = "residual"
    surprisal: bool = False  # keep that of every part too, in bits; causal models only
    # Keep the mean of the embedding's rows over each part's own tokens too, without position or
    # context: what encode's control of that name is made of.
    static_embedding: bool = False
    prompt: str = ""  # put before a part and its context, spaces included
    suffix: str = ""  # put after them
    chat: bool = False  # as a user's turn in the model's own chat template
    system: str = ""  # the system's turn before it
    bos: str = ""  # token to begin every row with, of tokenizers that add none
    joining: str = "text"  # how parts become a text: see data/alignment.py
    t5_text: str = "both"  # which stacks of a T5 read the text: see models/t5.py
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
        contexts.parse(self.context)
        for name, allowed in (
            ("pooling", readouts.POOLINGS),
            ("tap", base.TAPS),
            ("joining", alignment.JOININGS),
            ("t5_text", TEXTS),
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
        if self.system and not self.chat:
            raise InputError("extract.system must be empty unless extract.chat is set.")


# What the content of a store depends on beside the model and the stimuli.
READING = (
    "context",
    "one_stream",
    "pooling",
    "tap",
    "prompt",
    "suffix",
    "chat",
    "system",
    "bos",
    "joining",
    "t5_text",
    "compute_dtype",
    "store_dtype",
)


class Reading(NamedTuple):
    """How a model reads the stimuli."""

    passes: contexts.Passes
    pooled: readouts.Weights
    predicted: readouts.Surprisal | None


def plan(config: Config, job: Job, upstream: Upstream) -> list[Step]:
    """Find the models, plan their passes over the stimuli, and plan one store per network.

    Raises:
      InputError: if a model is missing, malformed or too large, or a part does not fit it.
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
        reading = read(config, model, stimuli)
        for seed in (-1,) if config.untrained_seed < 0 else (-1, config.untrained_seed):
            artefact = Artefact(
                workdir=job.workdir,
                stage="extract",
                name=model.name + ("" if seed < 0 else " untrained"),
                settings=_settings(config, job, model, seed),
                cost=_cost(config, model, reading.passes),
            )
            if not artefact.is_done:
                model.check_memory(job.mesh, dtype=config.compute_dtype)
            make = functools.partial(_extract, config, job, model, reading, stimuli.stimulus_id)
            steps.append(Step(artefact=artefact, make=make))
        if config.static_embedding:
            steps.append(_static_step(config, job, model, reading))
    return steps


def _static_step(config: Config, job: Job, model: zoo.Model, reading: Reading) -> Step:
    """Plan the store of the embedding's rows: one layer, as if it were a network without blocks."""
    artefact = Artefact(
        workdir=job.workdir,
        stage="extract",
        name=f"{model.name} static",
        settings=_settings(config, job, model, -1)
        | {
            "static": True,
            "num_layers": 0,
            "width": model.word_embedding_shape[1],
            "pooling": "mean",
            "surprisal": False,
        },
        cost=f"{len(reading.passes.row)} stimuli, rows of the embedding alone",
    )
    make = functools.partial(_embed, config, model, reading, job.dataset.stimuli.stimulus_id)
    return Step(artefact=artefact, make=make)


def read(config: Config, model: zoo.Model, stimuli) -> Reading:
    """Plan the passes of a model over stimuli.

    Raises:
      InputError: if tokenizer and model, or a part and the model, do not go together.
    """
    if config.surprisal and not model.causal:
        raise InputError(
            f"extract.surprisal must be False for {model.name}: only causal models predict words."
        )
    path = model.tokenizer_path
    tokenizer = tokenizer_files.load(path)
    tokenizer_files.check_vocabulary(tokenizer, model.config.vocab_size, model=model.name)
    if config.one_stream:
        stimuli = dataclasses.replace(stimuli, passage=[STREAM] * len(stimuli))
    frame = prompts.Frame(config.prompt, config.suffix)
    if config.chat:
        frame = prompts.chat(
            path if path.is_dir() else path.parent,
            stimuli.text,
            prompt=config.prompt,
            suffix=config.suffix,
            system=config.system,
        )
    passes = contexts.plan(
        tokenizer,
        stimuli,
        config.context,
        max_length=model.config.max_length,
        causal=model.causal,
        frame=frame,
        bos=config.bos,
        joining=config.joining,
    )
    predicted = readouts.surprisal(passes) if config.surprisal else None
    return Reading(passes, readouts.pool(passes, config.pooling), predicted)


def _settings(config: Config, job: Job, model: zoo.Model, seed: int) -> dict:
    stimuli = job.dataset.stimuli
    return {
        "version": VERSION,
        "dataset": job.dataset.name,
        "stimuli_hash": stimuli.hash,
        "model": model.name,
        "model_hash": run_dir.hash_text(
            model.config_hash + (model.weights_hash if seed < 0 else "")
        ),
        "tokenizer_hash": run_dir.hash_text(
            "".join(map(run_dir.hash_file, tokenizer_files.files(model.tokenizer_path)))
        ),
        "untrained_seed": seed,
        "num_layers": model.config.num_layers,
        "width": model.config.width,
        "num_stimuli": len(stimuli),
        "surprisal": config.surprisal,
        "batch_tokens": config.batch_tokens,
        "shard_stimuli": config.shard_stimuli,
    } | {name: getattr(config, name) for name in READING}


def _cost(config: Config, model: zoo.Model, passes: contexts.Passes) -> str:
    counts = passes.counts
    embedding = model.config.vocab_size * model.config.width
    flop = 2.0 * (model.num_parameters - embedding) * counts.tokens
    size = np.dtype(store.DTYPES[config.store_dtype]).itemsize
    stored = (model.config.num_layers + 1) * len(passes.row) * model.config.width * size
    saved = counts.separate_tokens / counts.tokens
    notes = [
        f"{len(passes.row)} stimuli in {counts.passes} passes",
        f"{counts.tokens} tokens ({saved:.3g} times as many one by one)",
        f"{flop / 1e9:.1f} GFLOP",
        f"store {stored / 1e6:.1f} MB",
    ]
    for number, what in (
        (counts.fallbacks, "parts apart, whose tokens depend on what follows"),
        (counts.truncated_parts, "parts cut on the left"),
    ):
        if number:
            notes.append(f"{number} {what}")
    return ", ".join(notes)


def _extract(config, job, model, reading: Reading, stimulus_ids, artefact) -> dict:
    """Write the shards that are missing."""
    activations = _open(config, model, artefact)
    run_dir.write_json(artefact.path / store.STIMULUS_IDS, list(stimulus_ids))
    shards = _Shards(activations, reading.predicted is not None, artefact)
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
    num_tokens = 0
    lacking = (x for x in batched(config, model, job.mesh, reading) if shards.lack(x.part))
    with tqdm(
        total=shards.num_missing, desc=f"extract {artefact.name}", unit=" stimuli", mininterval=1.0
    ) as progress:
        for batch, vectors, bits in run(network, lacking, job.mesh, tap=config.tap):
            shards.add(batch, vectors, bits)
            num_tokens += batch.num_tokens
            progress.update(shards.num_added - progress.n)
            progress.set_postfix_str(f"{num_tokens / (time.monotonic() - start):.0f} tokens/s")
    shards.finish()
    return {
        "num_tokens": num_tokens,
        "seconds": round(time.monotonic() - start, 3),
        "passes": reading.passes.counts._asdict(),
    }


def _embed(config, model, reading: Reading, stimulus_ids, artefact) -> dict:
    """Average the embedding's rows over the tokens of each part, as the model reads them."""
    start = time.monotonic()
    opened = _open(config, model, artefact)
    run_dir.write_json(artefact.path / store.STIMULUS_IDS, list(stimulus_ids))
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
        raise InputError(_not_finite(artefact, bool(np.isfinite(values).all())))
    for i, own in enumerate(opened.shards):
        store.finish_write(opened.write_shard(i, stored[:, own.start : own.stop]), artefact)
    return {"num_tokens": int(ends[-1]), "seconds": round(time.monotonic() - start, 3)}


def _open(config: Config, model: zoo.Model, artefact: Artefact) -> store.Store:
    settings = artefact.settings
    static = settings.get("static", False)
    return store.create(
        artefact.path / store.ARRAY,
        shape=(settings["num_layers"] + 1, settings["num_stimuli"], settings["width"]),
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
            reading={name: settings[name] for name in READING},
            layer_names=[] if static else list(model.layer_names),
            final_norm_applied=model.final_norm_applied and not static,
            versions=run_dir.versions("jax", "flax", "tokenizers", "tensorstore", "numpy"),
        ),
    )


def batched(config: Config, model: zoo.Model, mesh: Mesh, reading: Reading) -> Iterator[Batch]:
    """Yield all padded batches of a reading, in an order that follows from it alone."""
    num_shares = mesh.shape["data"]
    groups = batches.group(
        reading.passes,
        batch_tokens=config.batch_tokens,
        shard_stimuli=config.shard_stimuli,
        longest=model.config.max_length,
        num_shares=num_shares,
    )
    for rows, length in zip(*groups, strict=True):
        yield batches.pad(
            *reading,
            rows,
            length,
            batch_tokens=config.batch_tokens,
            num_shares=num_shares,
        )


def run(
    network: nnx.Module, batched: Iterable[Batch], mesh: Mesh, *, tap: str
) -> Iterator[tuple[Batch, Float[np.ndarray, "L B P D"], Float[np.ndarray, "B P"] | None]]:
    """Yield each batch with the vectors of its parts and their surprisal, on the host.

    A few passes are under way while the host prepares the next and takes results.

    Args:
      network: from `zoo.Model.load`.
      batched: from `batched`.
      mesh: devices of the network.
      tap: see `Config`.
    """
    in_flight = collections.deque()

    def collect():
        batch, (vectors, bits) = in_flight.popleft()
        return batch, np.asarray(vectors), None if bits is None else np.asarray(bits)

    for batch in batched:
        in_flight.append((batch, _start(network, batch, mesh, tap=tap)))
        if len(in_flight) > PASSES_IN_FLIGHT:
            yield collect()
    while in_flight:
        yield collect()


class _Shards:
    """Results on their way into the stores: a shard is written when all its parts are there."""

    def __init__(self, activations: store.Store, with_surprisal: bool, artefact: Artefact):
        self._activations = activations
        self._artefact = artefact
        self._surprisal = None
        if with_surprisal:
            self._surprisal = store.open_vector(
                artefact.path / store.SURPRISAL, activations, create=True
            )
        self._rows = activations.shards
        self._missing = [not self._is_done(i) for i in range(len(self._rows))]
        self.num_done = self._missing.count(False)
        self.num_missing = sum(
            len(rows) for rows, missing in zip(self._rows, self._missing, strict=True) if missing
        )
        self.num_added = 0
        self._parts: dict[int, _Partial] = {}
        self._writes = collections.deque()

    def _is_done(self, index: int) -> bool:
        # The surprisal of a shard is written before its activations.
        return self._activations.has_whole_shard(index)

    def _shard(self, part):
        return part // len(self._rows[0])

    def lack(self, part) -> bool:
        """Whether any of these parts is in a missing shard."""
        return any(self._missing[i] for i in np.unique(self._shard(part[part >= 0])))

    def add(self, batch: Batch, vectors, bits) -> None:
        """Take the results of a batch, vectors [L B P D] and bits [B P], and write full shards."""
        row, slot = np.nonzero(batch.part >= 0)
        part = batch.part[row, slot]
        for index in map(int, np.unique(self._shard(part))):
            if not self._missing[index]:
                continue
            own = self._shard(part) == index
            partial = self._parts.get(index) or self._begin(index)
            place = part[own] - self._rows[index].start
            partial.vectors[:, place] = vectors[:, row[own], slot[own]]
            if bits is not None:
                partial.bits[place] = bits[row[own], slot[own]]
            partial.num_left -= len(place)
            self.num_added += len(place)
            if not partial.num_left:
                self._write(index, self._parts.pop(index))

    def _begin(self, index: int) -> "_Partial":
        layers, _, units = self._activations.shape
        size = len(self._rows[index])
        self._parts[index] = _Partial(
            np.empty((layers, size, units), np.float32), np.full(size, np.nan, np.float32), size
        )
        return self._parts[index]

    def _write(self, index: int, partial: "_Partial") -> None:
        with np.errstate(over="ignore"):  # what overflows is found below
            stored = partial.vectors.astype(store.DTYPES[self._activations.dtype])
        if not np.isfinite(stored).all():
            overflows = bool(np.isfinite(partial.vectors).all())
            raise InputError(_not_finite(self._artefact, overflows))
        if self._surprisal is not None:
            rows = self._rows[index]
            store.finish_write(
                self._surprisal[rows.start : rows.stop].write(partial.bits).commit, self._artefact
            )
        self._writes.append(self._activations.write_shard(index, stored))
        while len(self._writes) > SHARDS_IN_FLIGHT:
            store.finish_write(self._writes.popleft(), self._artefact)

    def finish(self) -> None:
        """Wait for the disk."""
        assert not self._parts
        for future in self._writes:
            store.finish_write(future, self._artefact)


@dataclasses.dataclass
class _Partial:
    vectors: Float[np.ndarray, "L n D"]
    bits: Float[np.ndarray, " n"]
    num_left: int


def _not_finite(artefact: Artefact, before_storing: bool) -> str:
    """Say why activations cannot be stored."""
    culprit = "store_dtype" if before_storing else "compute_dtype"
    dtype = artefact.settings[culprit]
    found = f"extract {artefact.name}: activations must be finite, but are not"
    if dtype == "float32":
        return f"{found} in float32: the weights hold NaN, infinity or very large numbers."
    return f"{found} in {dtype}; use --config.extract.{culprit}=float32."


def _start(network, batch: Batch, mesh, *, tap: str):
    """Start one forward pass; its results are on their way to the host when they are asked for."""
    place = lambda x: jax.device_put(x, mesh_lib.sharding(mesh, ("batch", None), x.shape))
    arrays = jax.tree.map(place, (batch.tokens, batch.mask, batch.pooled, batch.predicted))
    return _forward(network, *arrays, num_parts=batch.part.shape[1], tap=tap)


@jax.jit(static_argnames=("num_parts", "tap"))
@jax.default_matmul_precision("highest")
def _forward(network, tokens, mask, pooled: Reads, predicted: Reads | None, *, num_parts, tap):
    """Return the vectors [L B P D] and the surprisal [B P] of the parts of each row."""
    pool = lambda x_BTD: _sum(x_BTD.astype(jnp.float32), pooled, num_parts)
    output = network(tokens, mask, taps=tuple(dict.fromkeys(("residual", tap))), pool=pool)
    vectors = output.hidden
    if tap != "residual":
        vectors = jnp.concatenate([vectors[:1], output.taps[tap]])
    if predicted is None:
        return vectors, None
    log_probs = score.token_log_probs(network, output, tokens, mask)
    bits = _sum(score.surprisal_bits(log_probs)[..., None], predicted, num_parts)[..., 0]
    has_any = _sum(jnp.ones((*tokens.shape, 1)), predicted, num_parts)[..., 0] > 0
    return vectors, jnp.where(has_any, bits, jnp.nan)


def _sum(values: Array, reads: Reads, num_parts: int) -> Array:
    """Sum values [B T D] over the entries of each part, to [B P D]."""

    def one(x, token, weight, slot):
        # What does not count may be undefined.
        entries = jnp.where(weight[:, None] != 0, x[token] * weight[:, None], 0.0)
        return jax.ops.segment_sum(entries, slot, num_parts)

    return jax.vmap(one)(values, *reads)
