"""Arithmetic and memory of training steps, from a network's configuration alone."""

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from jaxalign.core import mesh as mesh_lib
from jaxalign.data.text.batches import Shape
from jaxalign.models import log_probs, lora, weights
from jaxalign.models.families import attention as attention_lib
from jaxalign.models.families import decoder
from jaxalign.pricing import networks
from jaxalign.pricing.work import Layout

# Bytes of a parameter that is trained: itself and both averages of Adam, in float32; and a sum of
# its gradients, in float32 too.
STATE_BYTES, GRADIENT_BYTES = 12, 4


class How(NamedTuple):
    """How a network is trained.

    Attributes:
      rank: of adapters on all linear maps; 0: all parameters are trained.
      kept: what is kept for gradients, key of `base.KEPT`.
      dtype: of activations.
      micro_batches: parts of a step.
    """

    rank: int
    kept: str
    dtype: str
    micro_batches: int = 1

    def num_trained(self, network: nnx.Module) -> int:
        """Return the number of parameters that are trained.

        Args:
          network: without adapters, with shapes in the place of arrays.
        """
        if not self.rank:
            return weights.count(network)
        shapes = (x.shape for name, x in kernels(network).items() if name != "head/kernel")
        return sum(self.rank * (s[-2] + s[-1]) * int(np.prod(s[:-2])) for s in shapes)


def kernels(network: nnx.Module) -> dict[str, Any]:
    """Return the matrices of a network's linear maps, by name; those of blocks are stacked.

    Args:
      network: with shapes in the place of arrays.
    """
    found = weights.parameters(network)
    return {name: x for name, x in found.items() if name.endswith("/kernel")}


def flop(config: Any, network: nnx.Module, how: How, rows: int, length: int) -> float:
    """Return the operations of a micro-batch: forwards, backwards, and what is computed again.

    Backwards takes twice what forwards does, and once where the parameters have no gradients.
    Logits are computed again always, blocks where only their inputs are kept.

    Args:
      config: of the network.
      network: it, with shapes in the place of arrays.
      how: it is trained.
      rows, length: of the padded tokens.
    """
    blocks = networks.flop(config, network, Shape(rows, length, 0, 0))
    again = _head(config, network, rows, length) + blocks * (how.kept == "inputs")
    return useful(config, network, how, rows, length) + again


def useful(config: Any, network: nnx.Module, how: How, rows: int, length: int) -> float:
    """Return the operations of a micro-batch without what is computed again; arguments as `flop`.

    It is what shares of a chip's peak count.
    """
    blocks = networks.flop(config, network, Shape(rows, length, 0, 0))
    head = _head(config, network, rows, length)
    if not how.rank:
        return 3 * (blocks + head)
    maps = sum(int(np.prod(x.shape)) for n, x in kernels(network).items() if n != "head/kernel")
    linear = min(2.0 * rows * length * maps, blocks)
    # Both sides of the products within attention have gradients; maps that are kept have none.
    attention = 3 * (blocks - linear)
    return 2 * (linear + head) + attention + 6.0 * rows * length * how.num_trained(network)


def _head(config: Any, network: nnx.Module, rows: int, length: int) -> float:
    shape = Shape(rows, length, 0, 0)
    whole = networks.flop(config, network, shape._replace(predicted=1))
    return whole - networks.flop(config, network, shape)


def device_bytes(
    config: Any, network: nnx.Module, how: How, shape: tuple[int, int], layout: Layout
) -> float:
    """Return the peak memory of one device in a step.

    What is trained is held in float32 with its averages, divided over all devices
    (`mesh.TRAINING_RULES`), and once more in the type of the activations if that is another.
    Gradients of a micro-batch have that type too, and their sum over several is held in float32.
    What is not trained is held in the type of the activations. To it come the inputs of blocks, or
    what is kept of them, and the larger of what the backward pass of one block and the logits take,
    with their maps gathered and the gradients of these before they are divided.

    Args:
      config: of the network.
      network: without adapters, with shapes in the place of float32 arrays.
      how: it is trained.
      shape: rows and padded length of a micro-batch.
      layout: of the devices.
    """
    size = 2 if how.dtype == "bfloat16" and not layout.is_cpu else 4
    stored = 2 if how.dtype == "bfloat16" else 4
    devices = {"data": layout.data, "model": layout.model}
    divided = weights.bytes_per_device(network, devices, mesh_lib.TRAINING_RULES) / 4
    trained = _adapters(network, how.rank, devices) if how.rank else divided
    held = stored * divided if how.rank else 0.0
    copy = stored if stored != 4 else 0
    held += trained * (STATE_BYTES + copy + stored + GRADIENT_BYTES * (how.micro_batches > 1))
    rows = -(-shape[0] // layout.data)
    kept, block = _of_blocks(config, how.kept, shape[1], layout, size)
    once = 1 if how.rank else 2  # maps alone, or their gradients too
    head = 3 * min(
        rows * shape[1] * config.vocab_size * 4 / layout.model, log_probs.LOGIT_BYTES / layout.data
    )
    gathered = 0.0
    if layout.data > 1:
        along = {"data": 1, "model": layout.model}
        of = lambda module: once * size * weights.bytes_per_device(module, along) / 4
        head += of(network.words if network.head is None else network.head)
        gathered = max(of(blocks) / depth for blocks, depth in _stacks(network))
    return held + rows * kept + max(gathered + rows * block, head)


def _stacks(network: nnx.Module) -> Iterator[tuple[nnx.Module, int]]:
    """Yield the stacks of blocks, and how many each has."""
    for path, module in nnx.iter_modules(network):
        if path and path[-1] == "blocks":
            yield module, next(iter(weights.parameters(module).values())).shape[0]


def _adapters(network: nnx.Module, rank: int, devices: Mapping[str, int]) -> float:
    """Return the parameters of adapters on one device."""
    total = 0
    for _, linear in lora.maps(network):
        for x in lora.matrices(linear, rank):
            logical = (None,) * (len(x.shape) - 2) + x.logical
            parts = mesh_lib.parts(x.shape, logical, devices, mesh_lib.TRAINING_RULES)
            total += math.prod(x.shape) // math.prod(parts)
    return float(total)


def _of_blocks(
    config: Any, kept: str, length: int, layout: Layout, size: int
) -> tuple[float, float]:
    """Return the bytes of a row: what is kept of all blocks, and what one takes backwards.

    Of the block at hand there are the results of its maps, the stream and its normed copies, and
    the shares of attention, in float32; and the gradients of the MLP's, or those of queries, keys,
    values and a chunk of logits, whichever are more.
    """
    T, D, heads = length, config.width, config.num_heads
    split = lambda count: count / layout.model if count % layout.model == 0 else count
    head_size = getattr(config, "head_size", 0) or D // heads
    kv_heads = getattr(config, "num_kv_heads", heads)
    attended = (2 * split(heads) + 2 * split(kv_heads)) * head_size
    mlp = (2 + getattr(config, "gated", False)) * split(config.mlp_size)
    products = attended + mlp + 2 * D
    is_decoder = isinstance(config, decoder.Config)
    chunks = attention_lib.chunks(T) if is_decoder else [(slice(0, T), slice(T))]
    pairs = [(min(q.stop, T) - q.start) * min(k.stop, T) for q, k in chunks]
    shares = 4 * split(heads) * sum(pairs)
    of_block = {
        "inputs": T * D * size,
        "products": T * (products + D) * size,
        "all": T * (products + 6 * D) * size + 2 * shares,
    }[kept]
    gradients = max(T * mlp * size, T * attended * size + 2 * 4 * split(heads) * max(pairs))
    inside = gradients
    if kept != "all":
        inside += T * (products * (kept == "inputs") + 4 * D) * size + shares
    depth = config.num_layers * (1 if is_decoder else 2)
    return float(depth * of_block), float(inside)
