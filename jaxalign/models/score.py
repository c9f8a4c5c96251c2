"""Reading a causal model's predictions: greedy continuation."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Int


def greedy(
    network: nnx.Module, tokens: Int[Array, " T"], *, num_new: int, max_length: int
) -> Int[Array, " N"]:
    """Continue a prompt with the most probable token, again and again.

    Every step runs the whole buffer (no key-value cache), so the cost is num_new forward passes;
    one compiled loop holds them all.

    Args:
      network: a causal network in the sense of `base.Network`.
      tokens: the prompt, at least one token.
      num_new: tokens to add.
      max_length: most tokens that the network takes.

    Returns:
      Prompt and continuation.

    Raises:
      ValueError: if the prompt is empty or the result would be longer than max_length.
    """
    start, total = len(tokens), len(tokens) + num_new
    if start < 1:
        raise ValueError("tokens must hold at least one token.")
    if total > max_length:
        raise ValueError(f"prompt and continuation must fit {max_length} tokens, got {total}.")
    buffer = jnp.zeros((1, total), jnp.int32).at[0, :start].set(jnp.asarray(tokens, jnp.int32))
    return _continue(network, buffer, jnp.asarray(start), num_new)


@jax.jit(static_argnames=("num_new",))
@jax.default_matmul_precision("highest")
def _continue(network, buffer, start, num_new):
    positions = jnp.arange(buffer.shape[1])

    def step(i, buffer):
        known = start + i
        output = network(buffer, (positions < known)[None], with_logits=True)
        return buffer.at[0, known].set(output.logits[0, known - 1].argmax().astype(jnp.int32))

    return jax.lax.fori_loop(0, num_new, step, buffer)[0]
