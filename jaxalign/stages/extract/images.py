"""Images -> activations of all layers of a vision tower, in stores.

Layers are what the first block receives, what each block leaves in the residual stream, and one
more: what the final norm makes of the last of these.
"""

import collections
import dataclasses
import functools
import math
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Float
from tqdm import tqdm

from jaxalign import processes, stopping
from jaxalign.core import mesh as mesh_lib
from jaxalign.data.images import pixels as pixels_lib
from jaxalign.data.images.pixels import Recipe
from jaxalign.data.images.readouts import POOLINGS
from jaxalign.data.text.batches import Shape
from jaxalign.errors import InputError
from jaxalign.io import run_dir, store
from jaxalign.io.run_dir import Artefact
from jaxalign.models import zoo
from jaxalign.stages import Job, Step
from jaxalign.stages.artefacts import Activations
from jaxalign.stages.extract import work
from jaxalign.stages.extract.config import READING, Config
from jaxalign.stages.extract.shards import SHARDS_IN_FLIGHT, not_finite, open_store

VERSION = 1
_BATCHES_AHEAD = 2  # images that are decoded, and passes under way, while others are computed
# Settings of text, which images have no use for.
_OF_TEXT = (
    *("context", "one_stream", "surprisal", "static_embedding", "prompt", "suffix", "chat"),
    *("system", "bos", "joining"),
)


class Sizes(NamedTuple):
    """How many images are read at a time, and what each of them costs."""

    tokens: int  # of an image
    batch: int  # images of a pass
    height: int  # pixels of an image that is prepared
    width: int


def plan(config: Config, job: Job, model: zoo.Model) -> list[Step]:
    """Plan the stores of a vision tower, with its own weights and with random ones.

    Raises:
      InputError: if a setting is one of text, an image is missing, or the model does not take what
        its `preprocessor_config.json` makes of images.
    """
    _check(config, model)
    folder = model.tokenizer_path  # None of a plan for another machine, which has its files
    recipe = None if folder is None else pixels_lib.read(folder, model.model_type)
    job.dataset.check_images("extract")
    sizes = _sizes(config, job, model, recipe)
    steps = []
    for seed in (-1,) if config.untrained_seed < 0 else (-1, config.untrained_seed):
        artefact = Artefact(
            workdir=job.root,
            stage="extract",
            kind=Activations.TRAINED if seed < 0 else Activations.UNTRAINED,
            name=model.name + ("" if seed < 0 else " untrained"),
            settings=_settings(config, job, model, recipe, seed),
            cost=_cost(config, job, model, sizes),
        )
        if job.is_run_here and not artefact.is_done:
            model.check_memory(job.mesh, dtype=config.compute_dtype)
        make = functools.partial(extract, config, job, model, recipe, sizes)
        shape = Shape(sizes.batch, sizes.tokens, parts=1, entries=sizes.tokens)
        num = len(job.dataset.stimuli)
        taken = work.of_images(config, model, shape, num, is_trained=seed < 0)
        steps.append(Step(artefact=artefact, make=make, work=taken, together=True))
    return steps


def refuse_settings_of_text(config: Config, model: zoo.Model) -> None:
    """Refuse settings that play no part where images are read.

    Raises:
      InputError: naming the first that is not its default.
    """
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}
    for name in _OF_TEXT:
        if (value := getattr(config, name)) != defaults[name]:
            raise InputError(
                f"extract.{name} must be {defaults[name]!r} for {model.name}, which reads images, "
                f"got {value!r}."
            )


def _check(config: Config, model: zoo.Model) -> None:
    refuse_settings_of_text(config, model)
    if config.pooling not in POOLINGS:
        raise InputError(
            f"extract.pooling must be one of {', '.join(POOLINGS)} for {model.name}, which reads "
            f"images, got {config.pooling!r}."
        )
    if config.pooling == "cls" and not model.config.cls:
        raise InputError(
            f"extract.pooling must not be 'cls' for {model.name}, which has no such token: use "
            "'mean'."
        )
    if model.config.num_channels != 3:
        raise InputError(
            f"model {model.name} must take 3 channels (RGB), found {model.config.num_channels}."
        )


def _sizes(config: Config, job: Job, model: zoo.Model, recipe: Recipe | None) -> Sizes:
    """Plan the passes; refuse a size of images that the network does not take."""
    network = model.config
    height, width = network.image_size
    if recipe is not None:
        height, width = pixels_lib.common_shape(recipe, job.dataset.stimuli.pixels)
    if not network.stretch and (height, width) != network.image_size:
        wanted = " x ".join(map(str, network.image_size))
        raise InputError(
            f"model {model.name}: {pixels_lib.FILE} must make images of {wanted}, as config.json "
            f"has image_size, found {height} x {width}."
        )
    rows, columns = height // network.patch_size[0], width // network.patch_size[1]
    if not rows * columns:
        raise InputError(
            f"model {model.name}: images must be at least as large as a patch, found "
            f"{height} x {width}."
        )
    tokens = network.num_prefix + rows * columns
    shard = min(config.shard_stimuli, len(job.dataset.stimuli))
    # Passes of a shard are of one size, as even as can be; a device has as many images as another.
    passes = math.ceil(shard / max(1, config.batch_tokens // tokens))
    share = job.mesh.shape["data"]
    return Sizes(tokens, math.ceil(math.ceil(shard / passes) / share) * share, height, width)


def _settings(config: Config, job: Job, model: zoo.Model, recipe: Recipe | None, seed: int) -> dict:
    stimuli, last = job.dataset.stimuli, model.config.num_layers
    names = ["embedding", *(f"block.{i + 1}" for i in range(last))]
    normed = config.tap == "residual"  # then there is one layer more
    return {
        "version": f"images {VERSION}",
        "store_format": store.FORMAT_VERSION,
        "dataset": job.dataset.stimuli_name,
        "stimuli_hash": stimuli.hash,
        "model": model.name,
        "model_hash": run_dir.hash_text(
            model.config_hash + (model.weights_hash if seed < 0 else "")
        ),
        "tokenizer_hash": "",
        "untrained_seed": seed,
        "num_layers": last + normed,
        "width": model.config.width,
        "num_stimuli": len(stimuli),
        "shard_stimuli": config.shard_stimuli,
        **{name: getattr(config, name) for name in READING},
        "t5_text": "",
        "surprisal": False,
        "preprocessing": {} if recipe is None else recipe.content,
        "layer_names": [*names, *(["norm"] if normed else [])],
        "normed_layers": [last + 1] if normed else [],
    }


def _cost(config: Config, job: Job, model: zoo.Model, sizes: Sizes) -> str:
    num = len(job.dataset.stimuli)
    flop = 2.0 * model.num_parameters * sizes.tokens * num
    item = np.dtype(store.DTYPES[config.store_dtype]).itemsize
    stored = (model.config.num_layers + 2) * num * model.config.width * item
    return (
        f"{num} images of {sizes.tokens} tokens, {sizes.batch} in a pass, {flop / 1e9:.1f} GFLOP, "
        f"store {stored / 1e6:.1f} MB"
    )


def extract(
    config: Config, job: Job, model: zoo.Model, recipe: Recipe, sizes: Sizes, artefact: Artefact
) -> dict:
    """Write the shards that are missing, each by one process."""
    processes.decide(lambda: _begin(job, artefact))
    activations = _open(artefact)
    every = range(len(activations.shards))
    missing = processes.decide(lambda: [i for i in every if not activations.has_whole_shard(i)])
    if len(missing) < len(every):
        logging.info(
            "extract %s: resuming, %d of %d shards are there",
            artefact.name,
            len(every) - len(missing),
            len(every),
        )
    start = time.monotonic()
    seed = artefact.settings["untrained_seed"]
    network = model.load(job.mesh, dtype=config.compute_dtype, untrained_seed=seed)
    rows = [activations.shards[i] for i in missing]
    total = sum(map(len, rows))
    parts = (
        range(a, min(a + sizes.batch, own.stop))
        for own in rows
        for a in range(own.start, own.stop, sizes.batch)
    )
    read = functools.partial(_read, job, recipe, sizes)
    writes: collections.deque = collections.deque()
    with tqdm(
        total=total,
        desc=f"extract {artefact.name}",
        unit=" images",
        mininterval=1.0,
        disable=not processes.is_first(),
    ) as progress:
        batches = prefetched(read, stopping.until_requested(parts))
        results = _results(network, batches, job.mesh, config, sizes)
        for index, own in zip(missing, rows, strict=True):
            found, lacking = [], len(own)
            while lacking and (layers := next(results, None)) is not None:
                found.append(layers)
                lacking -= layers.shape[1]
                progress.update(layers.shape[1])
            if lacking:  # a stop was asked for
                break
            if index % processes.count() != processes.index():  # each has one writer
                continue
            vectors = np.concatenate(found, axis=1)
            with np.errstate(over="ignore"):  # what overflows is found below
                stored = vectors.astype(store.DTYPES[config.store_dtype])
            if not np.isfinite(stored).all():
                raise InputError(not_finite(artefact, vectors, stored))
            writes.append(activations.write_shard(index, stored))
            while len(writes) > SHARDS_IN_FLIGHT:
                store.finish_write(writes.popleft(), artefact)
    for future in writes:
        store.finish_write(future, artefact)
    stopping.check()
    seconds = time.monotonic() - start
    return {"num_images": total, "seconds": round(seconds, 3)}


def _begin(job: Job, artefact: Artefact) -> None:
    """Create the store, and the list of its rows."""
    _open(artefact)
    run_dir.write_json(artefact.path / store.STIMULUS_IDS, list(job.dataset.stimuli.stimulus_id))


def _open(artefact: Artefact) -> store.Store:
    settings = artefact.settings
    return open_store(
        artefact,
        layer_names=settings["layer_names"],
        final_norm_applied=bool(settings["normed_layers"]),
        libraries=("pillow",),
    )


class _Batch(NamedTuple):
    """Images of a pass."""

    num: int  # of all processes, without padding
    first: int  # row of the first of those that devices of this process have
    images: Float[np.ndarray, "k 3 H W"]  # these alone; black ones pad the last pass of a shard


def _read(job: Job, recipe: Recipe, sizes: Sizes, part: range) -> _Batch:
    """Read and prepare the images of a pass that devices of this process have."""
    sharding, shape = _sharding(job.mesh, sizes)
    own = mesh_lib.own_rows(sharding, shape)
    mine = part[own.start : own.stop]
    images = np.zeros((len(own), *shape[1:]), np.float32)
    if mine:
        found = pixels_lib.batch(recipe, job.dataset.stimuli.pixels, mine)
        if found.shape[1:] != images.shape[1:]:
            raise InputError(
                f"images must have one size when they are prepared, found {images.shape[2:]} and "
                f"{found.shape[2:]}: {pixels_lib.FILE} neither crops them nor gives height and "
                "width."
            )
        images[: len(mine)] = found
    return _Batch(len(part), own.start, images)


def _sharding(mesh: Mesh, sizes: Sizes) -> tuple[NamedSharding, tuple[int, ...]]:
    """Return how the images of a pass lie on devices, and their shape: one program serves all."""
    shape = (sizes.batch, 3, sizes.height, sizes.width)
    return mesh_lib.sharding(mesh, ("batch", None, None, None), shape), shape


def prefetched(read, parts) -> Iterator:
    """Yield prepared images; some batches are decoded ahead."""
    with ThreadPoolExecutor(1) as thread:
        ahead = collections.deque()
        for part in parts:
            ahead.append(thread.submit(read, part))
            if len(ahead) > _BATCHES_AHEAD:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _results(
    network: nnx.Module, batches: Iterator[_Batch], mesh: Mesh, config: Config, sizes: Sizes
) -> Iterator[Float[np.ndarray, "L k D"]]:
    """Yield the layers of each batch, on every host; some passes are under way."""
    in_flight = collections.deque()
    sharding, _ = _sharding(mesh, sizes)

    def collect():
        num, layers = in_flight.popleft()
        return mesh_lib.to_host(layers)[:, :num]

    for batch in batches:
        placed = mesh_lib.place_rows(batch.images, batch.first, sizes.batch, sharding)
        layers = _forward(network, placed, tap=config.tap, pooling=config.pooling)
        in_flight.append((batch.num, layers))
        if len(in_flight) > _BATCHES_AHEAD:
            yield collect()
    while in_flight:
        yield collect()


@jax.jit(static_argnames=("tap", "pooling"))
@jax.default_matmul_precision("highest")
def _forward(network, pixels: Float[Array, "B 3 H W"], *, tap: str, pooling: str) -> Array:
    """Return the pooled layers [L B D] in float32."""

    def pool(x_BTD):
        x_BTD = x_BTD.astype(jnp.float32)
        if pooling == "cls":
            return x_BTD[:, 0]
        return (network.patches(x_BTD) if pooling == "patches" else x_BTD).mean(axis=1)

    output = network(pixels, taps=tuple(dict.fromkeys(("residual", tap))), pool=pool)
    if tap != "residual":
        return jnp.concatenate([output.hidden[:1], output.taps[tap]])
    return jnp.concatenate([output.hidden, pool(output.final)[None]])
