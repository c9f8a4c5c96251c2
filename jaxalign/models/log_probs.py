"""Log-probabilities of a text's tokens, and of other targets, from a causal network's pass."""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxalign.models import seq2seq
from jaxalign.models.families import base

# What predicts the next token: a causal network, or a T5's decoder behind what was read.
Causal = nnx.Module | seq2seq.Decoder
# Logits that exist at once, in bytes: many enough for matrix products to be fast.
LOGIT_BYTES = 2**28


def token_log_probs(
    network: Causal,
    output: base.Output,
    tokens: Int[Array, "B T"],
    mask: Bool[Array, "B T"],
    *,
    positions: Int[Array, "B T"] | None = None,
    logit_bytes: int = LOGIT_BYTES,
) -> Float[Array, "B T"]:
    """Return the log-probability of each token given those before it, in nats.

    Logits are computed for a few tokens of each row at a time, and never all kept. Call it inside
    the `jit` of the forward pass, which then need not return `output.final`.

    Args:
      network: a causal network.
      output: of its pass over these tokens; no logits are needed.
      tokens: as they were passed.
      mask: as it was passed.
      positions: as they were passed.
      logit_bytes: size of the logits that exist at once, at least those of one token per row.

    Returns:
      In float32; NaN at padding, and at the first token of each text, which nothing predicts.

    Raises:
      ValueError: if the network predicts no tokens, or passed other tokens.
    """
    found = predict(network, output, jnp.roll(tokens, -1, axis=1), logit_bytes=logit_bytes)
    predicted = mask[:, 1:] & mask[:, :-1]
    if positions is not None:
        predicted &= positions[:, 1:] > positions[:, :-1]  # else a new text begins
    found = jnp.where(predicted, found.log_probs[:, :-1], jnp.nan)
    return jnp.pad(found, [(0, 0), (1, 0)], constant_values=jnp.nan)


class Predicted(NamedTuple):
    """What a network predicts for the token after each token of a row."""

    log_probs: Float[Array, "B T"]  # of the targets, in nats and float32
    most_probable: Int[Array, "B T"]  # token


def predict(
    network: Causal,
    output: base.Output,
    targets: Int[Array, "B T"],
    *,
    logit_bytes: int = LOGIT_BYTES,
) -> Predicted:
    """Return the log-probability of a target after each token of a pass.

    Args:
      network: as of `token_log_probs`.
      output: of its pass over some tokens.
      targets: the token after each of these; any token where none follows.
      logit_bytes: as of `token_log_probs`.

    Raises:
      ValueError: if the network predicts no tokens, or passed tokens of another shape.
    """
    if output.final is None:
        raise ValueError("network must predict tokens: it has no output.final.")
    if output.final.shape[:2] != targets.shape:
        raise ValueError(
            f"output must be of these tokens: of {output.final.shape[:2]}, not {targets.shape}."
        )
    B, T = targets.shape
    size = max(min(T, logit_bytes // (4 * B * network.config.vocab_size)), 1)
    num_chunks = -(-T // size)
    pad = [(0, 0), (0, num_chunks * size - T)]
    targets = jnp.pad(targets, pad)
    final = jnp.pad(output.final, [*pad, (0, 0)])

    def one_chunk(start):
        take = functools.partial(jax.lax.dynamic_slice_in_dim, start_index=start, slice_size=size)
        logits = network.logits(take(final, axis=1)).astype(jnp.float32)
        wanted = jnp.take_along_axis(logits, take(targets, axis=1)[..., None], axis=-1)[..., 0]
        return Predicted(wanted - jax.nn.logsumexp(logits, axis=-1), logits.argmax(axis=-1))

    # Gradients compute a chunk's logits again: kept, they would be those of all tokens.
    one_chunk = jax.checkpoint(one_chunk, prevent_cse=False)
    found = jax.lax.map(one_chunk, size * jnp.arange(num_chunks))  # [chunks B size]
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(B, -1)[:, :T], found)


def surprisal_bits(log_probs: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return -log2 p of log-probabilities in nats."""
    return -log_probs / math.log(2)
