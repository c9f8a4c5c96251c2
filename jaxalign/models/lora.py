"""Low-rank adapters on all linear maps of a network's blocks: added, and merged into the maps."""

from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxalign.core.mesh import Logical
from jaxalign.errors import InputError
from jaxalign.models.families import layers


class Adapter(nnx.Param):
    """A parameter of an adapter: all that is trained where there are some."""


class Matrix(NamedTuple):
    """A matrix of an adapter: its shape, those of all blocks together, and its own two axes."""

    shape: tuple[int, ...]
    logical: tuple[Logical, Logical]


def matrices(linear: layers.Linear, rank: int) -> tuple[Matrix, Matrix]:
    """Return what A and B of a map's adapter are like.

    Args:
      linear: the map.
      rank: columns of A, rows of B.
    """
    *stacked, inputs, outputs = linear.kernel.shape
    reads, writes = linear.kernel.get_metadata("logical")
    first = Matrix((*stacked, inputs, rank), (reads, None))
    return first, Matrix((*stacked, rank, outputs), (None, writes))


def is_adapted(network: nnx.Module) -> bool:
    """Return whether a network has adapters."""
    return any(linear.lora_a is not None for _, linear in maps(network))


def add(network: nnx.Module, *, rank: int, alpha: float, seed: int) -> None:
    """Add an adapter to every linear map: y = x W + (alpha / rank) (x A) B.

    All maps between the embedding and the head have one: attention, MLP, and projections of
    embeddings of another width. A is uniform within 1 / sqrt(inputs) and B is 0, so that the
    network computes what it did before.

    Args:
      network: any; it is changed.
      rank: columns of A, rows of B.
      alpha: what the product is scaled by, times the rank.
      seed: of A.

    Raises:
      InputError: if the rank is not positive, or exceeds that of a map.

    Source: Hu et al. (2021), arXiv 2106.09685, section 4.1; how A is drawn is PEFT's default
      (`torch.nn.init.kaiming_uniform_` with a = sqrt(5)).
    """
    found = list(maps(network))
    name, most = min(((x, min(y.kernel.shape[-2:])) for x, y in found), key=lambda x: x[1])
    if not 1 <= rank <= most:
        raise InputError(
            f"the rank of adapters must be from 1 to {most}, that of {name}: got {rank}."
        )
    for i, (_, linear) in enumerate(found):
        first, second = matrices(linear, rank)
        *stacked, inputs, _ = first.shape
        bound = inputs**-0.5
        drawn = np.random.default_rng([seed, i]).uniform(-bound, bound, (*stacked, inputs, rank))
        linear.lora_a = Adapter(jnp.asarray(drawn, jnp.float32), logical=first.logical)
        linear.lora_b = Adapter(jnp.zeros(second.shape, jnp.float32), logical=second.logical)
        linear.lora_scale = alpha / rank


def merge(network: nnx.Module) -> None:
    """Put what adapters add into the maps themselves, and take the adapters away.

    Args:
      network: any; it is changed. Products are computed in float32.
    """
    for _, linear in maps(network):
        if linear.lora_a is None:
            continue
        a, b = (x[...].astype(jnp.float32) for x in (linear.lora_a, linear.lora_b))
        added = linear.lora_scale * jnp.matmul(a, b, precision="highest")
        kernel = linear.kernel[...]
        linear.kernel[...] = (kernel.astype(jnp.float32) + added).astype(kernel.dtype)
        del linear.lora_a, linear.lora_b, linear.lora_scale


def maps(network: nnx.Module) -> Iterator[tuple[str, layers.Linear]]:
    """Yield the linear maps but the head's, by their names' order."""
    maps = {
        "/".join(map(str, path)): module
        for path, module in nnx.iter_modules(network)
        if isinstance(module, layers.Linear)
    }
    yield from ((name, maps[name]) for name in sorted(maps) if name != "head")
