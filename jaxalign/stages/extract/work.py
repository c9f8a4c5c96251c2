"""What the extraction stage's artefacts take, from a model's sizes and the planned passes."""

import dataclasses
import functools
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxalign.data.text.batches import Shape
from jaxalign.data.text.readouts import Reading
from jaxalign.errors import InputError
from jaxalign.io import store
from jaxalign.io.run_dir import Artefact
from jaxalign.models import answers, memory, weights, zoo
from jaxalign.pricing import networks
from jaxalign.pricing.work import Layout, Priced, Work, gib, quantity
from jaxalign.stages import Job
from jaxalign.stages.extract import reading as reading_lib
from jaxalign.stages.extract.config import Config
from jaxalign.stages.extract.shards import SHARDS_IN_FLIGHT

ANSWER_BYTES = 400.0  # of an answer in its files
FILES_BYTES = 2e4  # of what lies beside the arrays: ids, settings, the list of hashes


def of_passes(config: Config, model: zoo.Model, reading: Reading, *, is_trained: bool) -> Priced:
    """Return the work of all passes of a network over the stimuli.

    Args:
      config: settings.
      model: the network.
      reading: its passes.
      is_trained: whether weights are read; else they are drawn, which takes a program.
    """

    @functools.cache
    def count(layout: Layout) -> Work:
        network = zoo.abstract(model.design, model.config, config.compute_dtype)
        shapes = reading_lib.shapes(config, model, reading, layout.data)
        found = networks.extraction(model.config, network, shapes, layout)
        m, size = len(reading.passes.row), np.dtype(store.DTYPES[config.store_dtype]).itemsize
        one = (model.config.num_layers + 1) * model.config.width
        shard = one * min(config.shard_stimuli, m)
        largest = max(np.prod(x.shape) for x in weights.parameters(network).values())
        drawn = ("network", model.config, config.compute_dtype, layout, "weights")
        bits = 4.0 * m * (reading.predicted is not None)
        return dataclasses.replace(
            found,
            host_bytes=max(
                # Shards being filled and written; then a parameter on its way to the devices.
                2.0 * 4 * shard + SHARDS_IN_FLIGHT * size * shard,
                4.0 * largest * is_trained,
            ),
            # The last shard is as large as the others.
            disk_bytes=float(size * shard * -(-m // config.shard_stimuli) + bits + FILES_BYTES),
            read_bytes=found.read_bytes * is_trained,
            num_tokens=sum(map(len, reading.passes.rows)),
            programs=found.programs if is_trained else found.programs | {drawn},
        )

    return count


def flop(config: Config, model: zoo.Model, shapes: Mapping[Shape, int]) -> dict[str, float]:
    """Return the operations of passes that were made, by kind.

    Args:
      config: settings.
      model: the network.
      shapes: of the batches that passed, and how many there were of each.
    """
    network = zoo.abstract(model.design, model.config, config.compute_dtype)
    every = (number * networks.flop(model.config, network, x) for x, number in shapes.items())
    return {str(np.dtype(store.DTYPES[config.compute_dtype])): float(sum(every))}


def of_images(
    config: Config, model: zoo.Model, shape: Shape, num_images: int, *, is_trained: bool
) -> Priced:
    """Return the work of a vision tower over all images; the projection of patches is left out.

    Args:
      config: settings.
      model: the tower.
      shape: of a pass: images, and tokens of each.
      num_images: of the data set.
      is_trained: whether weights are read; else they are drawn.
    """

    @functools.cache
    def count(layout: Layout) -> Work:
        network = zoo.abstract(model.design, model.config, config.compute_dtype)
        found = networks.extraction(
            model.config, network, {shape: -(-num_images // shape.rows)}, layout
        )
        size = np.dtype(store.DTYPES[config.store_dtype]).itemsize
        shard = (model.config.num_layers + 2) * model.config.width * config.shard_stimuli
        shard = shard * min(1, num_images / config.shard_stimuli)
        return dataclasses.replace(
            found,
            host_bytes=2.0 * 4 * shard + SHARDS_IN_FLIGHT * size * shard,
            disk_bytes=float(size * shard * -(-num_images // config.shard_stimuli) + FILES_BYTES),
            read_bytes=found.read_bytes * is_trained,
            num_tokens=num_images * shape.length,
        )

    return count


class Answering(NamedTuple):
    """How images are asked about.

    Attributes:
      num_images: of a pass.
      num_stimuli: images of the data set.
      prompts: about each of them.
      vision_tokens: of an image in the tower.
      num_new: most tokens of an answer; 0: nothing is answered.
      num_stores: that are written.
      layer_units: numbers that a store has for an image.
    """

    num_images: int
    num_stimuli: int
    prompts: answers.Prompts
    vision_tokens: int
    num_new: int
    num_stores: int
    layer_units: int


def of_answers(config: Config, model: zoo.Model, asked: Answering, is_trained: bool) -> Priced:
    """Return the work of answering all instructions about all images; answers as long as they may.

    Args:
      config: settings.
      model: configured for the images.
      asked: what passes.
      is_trained: whether weights are read; else they are drawn.
    """

    @functools.cache
    def count(layout: Layout) -> Work:
        network = zoo.abstract(model.design, model.config, config.compute_dtype)
        passes = -(-asked.num_stimuli // asked.num_images)
        found = networks.answering(
            model.config,
            network,
            networks.Questions(
                asked.num_images,
                asked.vision_tokens,
                *asked.prompts.mask.shape,
                answers.num_shared(model.config, asked.prompts),
                asked.num_new,
            ),
            layout,
        )
        size = np.dtype(store.DTYPES[config.store_dtype]).itemsize
        shard = asked.layer_units * min(config.shard_stimuli, asked.num_stimuli) * asked.num_stores
        own = of_store(config, asked.layer_units, 1, asked.num_stimuli)(layout)
        whole = found.times(passes)
        tokens = asked.num_stimuli * (
            asked.prompts.mask.sum() + len(asked.prompts.mask) * asked.num_new
        )
        return dataclasses.replace(
            whole,
            # A shard being filled, its copies in the store's type, and those that are written.
            host_bytes=float((4 + size * (1 + SHARDS_IN_FLIGHT)) * shard),
            disk_bytes=asked.num_stores * own.disk_bytes,
            read_bytes=found.read_bytes * is_trained,
            num_tokens=int(tokens + asked.num_stimuli * asked.vision_tokens),
        )

    return count


def of_store(config: Config, width: int, num_layers: int, num_stimuli: int) -> Priced:
    """Return the work of a store that is filled with others: its files alone.

    Args:
      config: settings.
      width, num_layers: of the store.
      num_stimuli: of the data set.
    """
    size = np.dtype(store.DTYPES[config.store_dtype]).itemsize
    rows = min(config.shard_stimuli, num_stimuli)
    written = -(-num_stimuli // rows) * rows  # the last shard is as large as the others
    disk = size * width * num_layers * written + ANSWER_BYTES * num_stimuli + FILES_BYTES
    return lambda layout: Work(disk_bytes=float(disk))


def check_room(job: Job, lacking: Sequence[Artefact], priced: Priced) -> None:
    """Refuse, before anything is computed, stores that fit neither the disk nor the memory.

    Args:
      job: where they go, and on which devices they are made.
      lacking: those that are not finished.
      priced: from `of_answers`.

    Raises:
      InputError: naming what is too small, and both sizes.
    """
    layout = Layout(*(job.own_mesh.shape[x] for x in ("data", "model")), True)
    devices = job.own_mesh.devices.flat
    layout = layout._replace(is_cpu=devices[0].platform == "cpu")
    taken = priced(layout)
    name, advice = lacking[0].name, "give fewer images, instructions or layers a run"
    free = memory.host_bytes()
    if taken.process_bytes(layout) > free:
        raise InputError(
            f"extract {name}: the passes and a shard of all stores take "
            f"{gib(taken.process_bytes(layout))} of memory, and the host has {gib(free)}: choose a "
            "smaller extract.shard_stimuli or extract.batch_tokens."
        )
    for device in devices:
        left = memory.device_bytes(device)
        if left is not None and taken.device_bytes > left:
            raise InputError(
                f"extract {name}: a pass takes {gib(taken.device_bytes)} of device {device.id}, "
                f"which has {gib(left)}: choose a smaller extract.batch_tokens or a larger mesh."
            )
    if not isinstance(job.root, pathlib.Path):
        return
    there = next(x for x in (job.root, *job.root.parents) if x.exists())
    held = sum(file.stat().st_size for x in lacking for file in x.path.rglob("*") if file.is_file())
    if taken.disk_bytes - held > (room := shutil.disk_usage(there).free):
        raise InputError(
            f"extract {name}: {len(lacking)} stores take {quantity(taken.disk_bytes, 'B')}, and "
            f"{there} has {quantity(room, 'B')}: {advice}, or extract.store_dtype=float16."
        )


def of_embedding(config: Config, model: zoo.Model, reading: Reading) -> Priced:
    """Return the work of averaging rows of the embedding.

    Args:
      config: settings.
      model: whose embedding it is.
      reading: of the stimuli.
    """

    @functools.cache
    def count(layout: Layout) -> Work:
        del layout
        vocabulary, width = model.word_embedding_shape
        m, size = len(reading.passes.row), np.dtype(store.DTYPES[config.store_dtype]).itemsize
        return Work(
            host_bytes=4.0 * vocabulary * width + 16.0 * m * width,
            read_bytes=4.0 * vocabulary * width,
            disk_bytes=float(size * m * width + FILES_BYTES),
        )

    return count
