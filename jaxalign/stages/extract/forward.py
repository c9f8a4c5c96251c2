"""Batches -> vectors and surprisal of their parts, a few passes at a time."""

import collections
from collections.abc import Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float

from jaxalign.core import mesh as mesh_lib
from jaxalign.data.text.batches import Batch, Reads
from jaxalign.models import log_probs as log_probs_lib

# Passes that are computed, and shards that are written, while the host prepares the next.
PASSES_IN_FLIGHT = 2


def run(
    network: nnx.Module, batched: Iterable[Batch], mesh: Mesh, *, tap: str
) -> Iterator[tuple[Batch, Float[np.ndarray, "L B P D"], Float[np.ndarray, "B Q"] | None]]:
    """Yield each batch with the vectors of its parts and their surprisal, on every host.

    A few passes are under way while the host prepares the next and takes results.

    Args:
      network: from `zoo.Model.load`.
      batched: from `reading.batched`.
      mesh: devices of the network.
      tap: see `config.Config`.
    """
    in_flight = collections.deque()

    def collect():
        batch, (vectors, bits) = in_flight.popleft()
        bits = None if bits is None else mesh_lib.to_host(bits)
        return batch, mesh_lib.to_host(vectors), bits

    for batch in batched:
        in_flight.append((batch, _start(network, batch, mesh, tap=tap)))
        if len(in_flight) > PASSES_IN_FLIGHT:
            yield collect()
    while in_flight:
        yield collect()


def _start(network, batch: Batch, mesh, *, tap: str):
    """Start one forward pass; its results are on their way to the host when they are asked for."""
    place = lambda x: mesh_lib.place(x, mesh_lib.sharding(mesh, ("batch", None), x.shape))
    arrays = jax.tree.map(place, (batch.tokens, batch.mask, batch.pooled, batch.predicted))
    parts = (batch.part, batch.predicted_part)
    num_sums = tuple(0 if x is None else x.shape[1] for x in parts)
    return _forward(network, arrays, num_sums=num_sums, tap=tap, mesh=mesh)


@jax.jit(static_argnames=("num_sums", "tap", "mesh"))
@jax.default_matmul_precision("highest")
def _forward(
    network, arrays: tuple[Array, Array, Reads, Reads | None], *, num_sums, tap, mesh=None
):
    """Return the vectors [L B P D] and the surprisal [B Q] of the parts of each row.

    Args:
      network: the network.
      arrays: tokens, mask, pooled and predicted of a `Batch`.
      num_sums: places in each row, of vectors and of surprisal.
      tap: what is read of every layer.
      mesh: devices that share one copy of the weights divide the units of vectors; None: one
        device.
    """
    tokens, mask, pooled, predicted = arrays

    def divide(x, *names):
        if mesh is None or mesh.shape["model"] == 1:
            return x
        return jax.lax.with_sharding_constraint(x, mesh_lib.sharding(mesh, names, x.shape))

    def pool(x_BTD):
        # What is summed is whole on every device, and so each sums its own units of it.
        whole = divide(x_BTD, "batch", None, None)
        sums = _sum(whole.astype(jnp.float32), pooled, num_sums[0])
        return divide(sums, "batch", None, "units")

    output = network(tokens, mask, taps=tuple(dict.fromkeys(("residual", tap))), pool=pool)
    vectors = output.hidden
    if tap != "residual":
        vectors = jnp.concatenate([vectors[:1], output.taps[tap]])
    vectors = divide(vectors, None, "batch", None, "units")
    if predicted is None:
        return vectors, None
    log_probs = log_probs_lib.token_log_probs(network, output, tokens, mask)
    bits = log_probs_lib.surprisal_bits(log_probs)[..., None]
    return vectors, _sum(bits, predicted, num_sums[1])[..., 0]


def _sum(values: Array, reads: Reads, num_sums: int) -> Array:
    """Sum values [B T D] over the entries of each part, to [B P D]."""

    def one(x, token, weight, slot):
        # What does not count may be undefined.
        entries = jnp.where(weight[:, None] != 0, x[token] * weight[:, None], 0.0)
        return jax.ops.segment_sum(entries, slot, num_sums)

    return jax.vmap(one)(values, *reads)
