"""Arithmetic and memory of training steps, from a network's configuration alone."""

from typing import Any, NamedTuple

import numpy as np
from flax import nnx

from jaxalign.core import mesh as mesh_lib
from jaxalign.data.text.batches import Shape
from jaxalign.models import log_probs, weights
from jaxalign.models.families import attention as attention_lib
from jaxalign.models.families import decoder
from jaxalign.pricing import networks
from jaxalign.pricing.work import Layout

# Bytes of a parameter that is trained: itself and both averages of Adam, in float32, and its
# gradient, in float32 too.
STATE_BYTES, GRADIENT_BYTES = 12, 4


class How(NamedTuple):
    """How a network is trained.

    Attributes:
      rank: of adapters on all linear maps; 0: all parameters are trained.
      kept: what is kept for gradients, key of `base.KEPT`.
      dtype: of activations.
    """

    rank: int
    kept: str
    dtype: str

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

    What is trained is held in float32 with its averages and gradients, divided over all devices
    (`mesh.TRAINING_RULES`), and once more in the type of the activations if that is another. What
    is not trained is held in that type. A block is gathered while it is computed.

    Args:
      config: of the network.
      network: without adapters, with shapes in the place of float32 arrays.
      how: it is trained.
      shape: rows and padded length of a micro-batch.
      layout: of the devices.
    """
    size = 2 if how.dtype == "bfloat16" and not layout.is_cpu else 4
    devices = {"data": layout.data, "model": layout.model}
    divided = weights.bytes_per_device(network, devices, mesh_lib.TRAINING_RULES) / 4
    copy = 2 if how.dtype == "bfloat16" else 0
    if how.rank:
        trained = how.num_trained(network) / layout.size
        held = divided * (2 if how.dtype == "bfloat16" else 4)
    else:
        trained, held = divided, 0.0
    held += trained * (STATE_BYTES + GRADIENT_BYTES + copy)
    whole = weights.bytes_per_device(network, {"data": 1, "model": layout.model}) / 4
    depth = max(getattr(config, x, 0) for x in ("num_layers", "num_decoder_layers"))
    gathered = 2 * size * whole / depth if layout.data > 1 else 0.0
    return held + gathered + _activations(config, how.kept, shape, layout, size)


def _activations(config, kept: str, shape: tuple[int, int], layout: Layout, size: int) -> float:
    """Return the bytes of activations that are kept, and of the block and the logits at hand."""
    rows, T = -(-shape[0] // layout.data), shape[1]
    split = lambda count: count / layout.model if count % layout.model == 0 else count
    D, heads = config.width, config.num_heads
    depth = config.num_layers
    head_size = getattr(config, "head_size", 0) or D // heads
    kv_heads = getattr(config, "num_kv_heads", heads)
    products = (2 * split(heads) + 2 * split(kv_heads)) * head_size
    products += (2 + getattr(config, "gated", False)) * split(config.mlp_size) + 2 * D
    queries = T if kept == "all" else min(T, attention_lib.QUERIES)
    logits = split(heads) * queries * T * 4
    inside = T * (products + 4 * D) * size + 3 * logits
    of_block = {
        "inputs": T * D * size,
        "products": T * (products + D) * size,
        "all": T * (products + 6 * D) * size + 2 * logits,
    }[kept]
    vocabulary = rows * T * config.vocab_size * 4 / layout.model
    at_once = 3 * min(vocabulary, log_probs.LOGIT_BYTES / layout.data)
    is_decoder = isinstance(config, decoder.Config)
    return rows * (depth * of_block * (1 if is_decoder else 2) + 2 * inside) + at_once
