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
from jax.sharding import Mesh
from jaxtyping import Array, Float
from tqdm import tqdm

from jaxalign import stopping
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
from jaxalign.stages.extract.shards import SHARDS_IN_FLIGHT, not_finite

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


def plan(config: Config, job: Job, model: zoo.Model) -> list[Step]:
    """Plan the stores of a vision tower, with its own weights and with random ones.

    Raises:
      InputError: if a setting is one of text, an image is missing, or the model does not take what
        its `preprocessor_config.json` makes of images.
    """
    _check(config, model)
    recipe = pixels_lib.read(model.tokenizer_path, model.design)
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
            model.check_memory(job.own_mesh, dtype=config.compute_dtype)
        make = functools.partial(extract, config, job, model, recipe, sizes)
        shape = Shape(sizes.batch, sizes.tokens, parts=1, entries=sizes.tokens)
        num = len(job.dataset.stimuli)
        taken = work.of_images(config, model, shape, num, is_trained=seed < 0)
        steps.append(Step(artefact=artefact, make=make, work=taken))
    return steps


def _check(config: Config, model: zoo.Model) -> None:
    defaults = {field.name: field.default for field in dataclasses.fields(Config)}
    for name in _OF_TEXT:
        if (value := getattr(config, name)) != defaults[name]:
            raise InputError(
                f"extract.{name} must be {defaults[name]!r} for {model.name}, which reads images, "
                f"got {value!r}."
            )
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


def _sizes(config: Config, job: Job, model: zoo.Model, recipe: Recipe) -> Sizes:
    """Look at the first image; refuse a size that the network does not take."""
    first = job.dataset.stimuli.pixels.read([0])[0]
    height, width = recipe.shape(*first.shape[:2])
    network = model.config
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
    share = job.own_mesh.shape["data"]
    return Sizes(tokens, math.ceil(math.ceil(shard / passes) / share) * share)


def _settings(config: Config, job: Job, model: zoo.Model, recipe: Recipe, seed: int) -> dict:
    stimuli, last = job.dataset.stimuli, model.config.num_layers
    names = ["embedding", *(f"block.{i + 1}" for i in range(last))]
    normed = config.tap == "residual"  # then there is one layer more
    return {
        "version": f"images {VERSION}",
        "store_format": store.FORMAT_VERSION,
        "dataset": job.dataset.name,
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
        "preprocessing": recipe.content,
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
    """Write the shards that are missing."""
    settings = artefact.settings
    activations = store.create(
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
            tokenizer_hash="",
            untrained_seed=settings["untrained_seed"],
            reading={name: settings[name] for name in READING},
            layer_names=settings["layer_names"],
            final_norm_applied=bool(settings["normed_layers"]),
            versions=run_dir.versions("jax", "flax", "pillow", "tensorstore", "numpy"),
        ),
    )
    run_dir.write_json(artefact.path / store.STIMULUS_IDS, list(job.dataset.stimuli.stimulus_id))
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
        job.own_mesh, dtype=config.compute_dtype, untrained_seed=settings["untrained_seed"]
    )
    rows = [activations.shards[i] for i in missing]
    total = sum(map(len, rows))
    read = functools.partial(pixels_lib.batch, recipe, job.dataset.stimuli.pixels)
    parts = (
        range(a, min(a + sizes.batch, own.stop))
        for own in rows
        for a in range(own.start, own.stop, sizes.batch)
    )
    writes: collections.deque = collections.deque()
    with tqdm(
        total=total, desc=f"extract {artefact.name}", unit=" images", mininterval=1.0
    ) as progress:
        batches = _prefetched(read, stopping.until_requested(parts))
        results = _results(network, batches, job.own_mesh, config, sizes.batch)
        for index, own in zip(missing, rows, strict=True):
            found, lacking = [], len(own)
            while lacking and (layers := next(results, None)) is not None:
                found.append(layers)
                lacking -= layers.shape[1]
                progress.update(layers.shape[1])
            if lacking:  # a stop was asked for
                break
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


def _prefetched(read, parts) -> Iterator[Float[np.ndarray, "k 3 H W"]]:
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
    network: nnx.Module, batches, mesh: Mesh, config: Config, size: int
) -> Iterator[Float[np.ndarray, "L k D"]]:
    """Yield the layers of each batch on the host; some passes are under way."""
    in_flight = collections.deque()

    def collect():
        count, layers = in_flight.popleft()
        return np.asarray(layers)[:, :count]

    for images in batches:
        count = len(images)
        # All passes have one shape, so that one program serves them.
        images = np.pad(images, [(0, size - count), (0, 0), (0, 0), (0, 0)])
        names = ("batch", None, None, None)
        placed = jax.device_put(images, mesh_lib.sharding(mesh, names, images.shape))
        layers = _forward(network, placed, tap=config.tap, pooling=config.pooling)
        in_flight.append((count, layers))
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
