"""What the extraction stage's artefacts take, from a model's sizes and the planned passes."""

import dataclasses
import functools

import numpy as np

from jaxalign.data.text.batches import Shape
from jaxalign.data.text.readouts import Reading
from jaxalign.io import store
from jaxalign.models import weights, zoo
from jaxalign.pricing import networks
from jaxalign.pricing.work import Layout, Priced, Work
from jaxalign.stages.extract import reading as reading_lib
from jaxalign.stages.extract.config import Config
from jaxalign.stages.extract.shards import SHARDS_IN_FLIGHT

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
