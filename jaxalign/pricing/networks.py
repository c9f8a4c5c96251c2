"""Arithmetic and memory of passes of networks, from their configuration alone.

Matrix products are counted, with two operations for each multiplication and addition, over the
padded tokens of a batch; norms, rotations and the pooling of parts are not: they are a few
thousandths of it in networks of a thousand units.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from jaxalign.data.text.batches import Shape
from jaxalign.models import log_probs, weights
from jaxalign.models.families import attention, decoder, encoder_decoder
from jaxalign.pricing.work import Layout, Work

# Batches whose vectors are on the devices at a time, in addition to those of the pass under way.
IN_FLIGHT = 2


def flop(config: Any, network: nnx.Module, shape: Shape) -> float:
    """Return the operations of one pass.

    Args:
      config: of the network.
      network: it, with shapes in the place of arrays (`zoo.abstract`).
      shape: of the batch.
    """
    sizes = {name: float(np.prod(x.shape)) for name, x in weights.parameters(network).items()}
    if isinstance(config, encoder_decoder.Config):
        products = _of_two_stacks(config, sizes, shape)
    else:
        products = _of_one_stack(config, sizes, shape)
    if shape.predicted:
        products += shape.rows * shape.length * _head(config, sizes)
    return 2 * products


def _kernels(sizes: Mapping[str, float], prefix: str) -> float:
    """Count multiplications of one token with all matrices of a part of the network."""
    return sum(
        n for name, n in sizes.items() if name.startswith(prefix) and name.endswith("/kernel")
    )


def _head(config, sizes) -> float:
    """Count multiplications for the logits of one token."""
    table = sizes.get("head/kernel", sizes["words/table"])
    return table + sizes.get("project_out/kernel", 0.0)


def _of_one_stack(config, sizes, shape: Shape) -> float:
    T = shape.length
    is_decoder = isinstance(config, decoder.Config)
    inner = config.num_heads * config.head_size if is_decoder else config.width
    pairs = T * T
    if is_decoder:  # chunks of queries do not look at keys that come after all of them
        pairs = sum((q.stop - q.start) * min(k.stop, T) for q, k in _clipped(T))
    # ALBERT's blocks are applied several times each.
    blocks = _kernels(sizes, "blocks/") * getattr(config, "times", 1)
    one = T * (blocks + sizes.get("project_in/kernel", 0.0))
    return shape.rows * (one + config.num_layers * 2 * inner * pairs)


def _clipped(length: int):
    for queries, keys in attention.chunks(length):
        yield slice(queries.start, min(queries.stop, length)), keys


def _of_two_stacks(config, sizes, shape: Shape) -> float:
    T, inner = shape.length, config.num_heads * config.head_size
    read = 1 if config.text == "decoder" else T
    of_encoder = read * _kernels(sizes, "encoder/blocks/")
    of_encoder += config.num_encoder_layers * 2 * inner * read * read
    if config.text == "encoder":
        return shape.rows * of_encoder
    # Behind its start token the decoder reads one token more.
    memory = _kernels(sizes, "decoder/blocks/cross/key") + _kernels(
        sizes, "decoder/blocks/cross/value"
    )
    own = _kernels(sizes, "decoder/blocks/") - memory
    of_decoder = (T + 1) * own + read * memory
    of_decoder += config.num_decoder_layers * 2 * inner * (T + 1) * (T + 1 + read)
    return (1 if config.text == "decoder" else shape.rows) * of_encoder + shape.rows * of_decoder


def parameter_bytes(network: nnx.Module, layout: Layout) -> float:
    """Return what the parameters of a network take on one device.

    Args:
      network: with shapes in the place of arrays, in the type that is computed in.
      layout: of the devices.
    """
    devices = {"data": layout.data, "model": layout.model}
    return float(weights.bytes_per_device(network, devices))


def pass_bytes(config: Any, network: nnx.Module, shape: Shape, layout: Layout) -> float:
    """Return the peak memory of one device in one pass, its parameters included.

    A block holds the stream, its normed copy, and the larger of what attention and MLP keep inside;
    the vectors of all layers are held twice, as they are put behind the embedding's.

    Args:
      config: of the network.
      network: as of `parameter_bytes`.
      shape: of the batch.
      layout: of the devices.
    """
    rows, T = -(-shape.rows // layout.data), shape.length
    stored = next(iter(weights.parameters(network).values())).dtype.itemsize
    size = 4 if layout.is_cpu else stored  # processors compute bfloat16 in float32
    split = lambda count: count / layout.model if count % layout.model == 0 else count
    D, heads = config.width, config.num_heads
    is_decoder = isinstance(config, decoder.Config)
    head_size = getattr(config, "head_size", 0) or D // heads
    kv_heads = getattr(config, "num_kv_heads", heads)
    gated = getattr(config, "gated", False)
    attended = (split(heads) + 2 * split(kv_heads)) * head_size + D
    queries = min(T, attention.QUERIES) if is_decoder else T
    logits = split(heads) * queries * T * 4 * (1 if is_decoder else 2)
    if is_decoder and layout.is_cpu and queries < T:
        logits = queries * T * 4 * heads // kv_heads  # one key-value head after the other
    inside = max(
        rows * T * attended * size + rows * logits,
        rows * T * (2 + gated) * split(config.mlp_size) * size,
    )
    streams = 2 + 2 * isinstance(config, encoder_decoder.Config)
    vectors = _vectors(config, shape, layout)
    predicted = 0.0
    if shape.predicted:
        whole = rows * T * config.vocab_size * 4
        predicted = 2 * min(whole, log_probs.LOGIT_BYTES / layout.data)
    work = max(rows * T * D * streams * size + inside, predicted)
    return parameter_bytes(network, layout) + 2 * vectors + work


def _vectors(config: Any, shape: Shape, layout: Layout) -> float:
    """Return what the vectors of one batch take on one device, which divide along their units."""
    rows, own = -(-shape.rows // layout.data), config.width // math.gcd(config.width, layout.model)
    return 4.0 * (config.num_layers + 1) * rows * shape.parts * own


def extraction(
    config: Any,
    network: nnx.Module,
    shapes: Mapping[Shape, int],
    layout: Layout,
) -> Work:
    """Return the work of all passes of a network over some stimuli.

    Args:
      config: of the network.
      network: as of `parameter_bytes`.
      shapes: of its batches, and how many there are of each.
      layout: of the devices.
    """
    dtype = next(iter(weights.parameters(network).values())).dtype
    total = sum(number * flop(config, network, shape) for shape, number in shapes.items())
    held = parameter_bytes(network, layout)
    vectors = max(_vectors(config, x, layout) for x in shapes)
    peak = max(pass_bytes(config, network, shape, layout) for shape in shapes)
    passes = sum(shapes.values())
    return Work(
        flop={str(dtype): total},
        device_bytes=peak + IN_FLIGHT * vectors,
        read_bytes=float(dtype.itemsize * weights.count(network)),
        moved_bytes=held * passes,
        passes=passes,
        programs=frozenset(("network", config, str(dtype), layout, shape) for shape in shapes),
    )


class Questions(NamedTuple):
    """A pass of a model of images and text.

    Attributes:
      images: that are asked about at a time.
      vision_tokens: of each in the vision tower.
      prompts, length: about each image, and their tokens with padding.
      shared: tokens that all prompts begin with, which pass once for each image.
      num_new: most tokens of an answer.
    """

    images: int
    vision_tokens: int
    prompts: int
    length: int
    shared: int
    num_new: int


def answering(config: Any, network: nnx.Module, asked: Questions, layout: Layout) -> Work:
    """Return the work of one pass over images and prompts, with answers as long as they may be.

    Args:
      config: of a model of images and text (`multimodal.Config`).
      network: as of `parameter_bytes`.
      asked: what passes.
      layout: of the devices.
    """
    sizes = {name: float(np.prod(x.shape)) for name, x in weights.parameters(network).items()}
    dtype = next(iter(weights.parameters(network).values())).dtype
    B, V, Q, T, shared, n = asked
    R, own = B * Q, T - shared
    vision, language = config.vision, config.language
    encoder, decoder_ = ("encoder/", "decoder/") if config.has_encoder else ("", "")
    reads = _kernels(sizes, f"language/{encoder}") - sizes.get("language/head/kernel", 0.0)
    writes = _kernels(sizes, f"language/{decoder_}") if decoder_ else reads
    head = config.vocab_size * config.width
    depth = max(getattr(language, x, 0) for x in ("num_layers", "num_decoder_layers"))
    inner = language.num_heads * language.head_size
    pairs = B * shared**2 / 2 + R * own * (shared + own / 2)
    products = B * V * (_kernels(sizes, "vision/") + vision.num_layers * 2 * vision.width * V)
    products += (R if config.reads_instruction else B) * V * _kernels(sizes, "connector/")
    products += (B * shared + R * own) * reads + depth * 2 * inner * pairs
    products += R * n * (writes + head + depth * 2 * inner * (T + n / 2))
    held = parameter_bytes(network, layout)
    item, rows = dtype.itemsize, -(-R // layout.data)
    kv_heads = getattr(language, "num_kv_heads", language.num_heads)
    slots = rows * (own + n) + -(-B // layout.data) * shared
    cache = 2 * depth * slots * kv_heads * language.head_size * item / layout.model
    inside = rows * own * (4 * config.width + 3 * language.mlp_size) * item
    inside += rows * min(own, attention.QUERIES) * T * language.num_heads * 4
    images = -(-B // layout.data) * V
    seen = images * (4 * vision.width + 2 * vision.mlp_size) * item
    seen += images * V * vision.num_heads * 4
    kept = 5 * (depth + 1) * rows * config.width * 4 + rows * config.vocab_size * 8
    program = ("network", config, str(dtype), layout, asked)
    return Work(
        flop={str(dtype): 2 * products},
        device_bytes=held + cache + max(inside, seen) + kept,
        read_bytes=float(item * weights.count(network)),
        moved_bytes=held * (1 + n),
        passes=1 + n,
        programs=frozenset([(*program, "prompts"), (*program, "answers")]),
    )
