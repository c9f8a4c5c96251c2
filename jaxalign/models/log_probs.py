"""Reading a causal model's predictions: probabilities of a text's tokens, and continuations."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Key

from jaxalign.models import seq2seq
from jaxalign.models.families import base

# What predicts the next token: a causal network, or a T5's decoder behind what was read.
Causal = nnx.Module | seq2seq.Decoder
# Logits that exist at once, in bytes: many enough for matrix products to be fast.
_LOGIT_BYTES = 2**28
# Steps of decoding between two calls of a `StopWhen`.
_CHECK_EVERY = 16


def token_log_probs(
    network: Causal,
    output: base.Output,
    tokens: Int[Array, "B T"],
    mask: Bool[Array, "B T"],
    *,
    positions: Int[Array, "B T"] | None = None,
    logit_bytes: int = _LOGIT_BYTES,
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
    """What a network says of the token after each of a row."""

    log_probs: Float[Array, "B T"]  # of the targets, in nats and float32
    most_probable: Int[Array, "B T"]  # token


def predict(
    network: Causal,
    output: base.Output,
    targets: Int[Array, "B T"],
    *,
    logit_bytes: int = _LOGIT_BYTES,
) -> Predicted:
    """Return log-probabilities of targets, one behind each token of a pass.

    Args:
      network: as of `token_log_probs`.
      output: of its pass over some tokens.
      targets: the token after each of these; any where there is none.
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
        own = jnp.take_along_axis(logits, take(targets, axis=1)[..., None], axis=-1)[..., 0]
        return Predicted(own - jax.nn.logsumexp(logits, axis=-1), logits.argmax(axis=-1))

    found = jax.lax.map(one_chunk, size * jnp.arange(num_chunks))  # [chunks B size]
    return jax.tree.map(lambda x: x.swapaxes(0, 1).reshape(B, -1)[:, :T], found)


def surprisal_bits(log_probs: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return -log2 p of log-probabilities in nats."""
    return -log_probs / math.log(2)


class Continuation(NamedTuple):
    """What decoding adds to each prompt."""

    tokens: Int[Array, "B n"]  # after the stop token: the stop token again and again
    lengths: Int[Array, " B"]  # tokens up to the stop token, included


# Of tokens so far [B n] and their number [B], on the host: which rows need no more.
StopWhen = Callable[[np.ndarray, np.ndarray], np.ndarray]


def greedy(
    network: Causal,
    prompts: Int[Array, "B P"],
    mask: Bool[Array, "B P"],
    *,
    num_new: int,
    stop_token: int = -1,
    stop_when: StopWhen | None = None,
) -> Continuation:
    """Continue prompts with the most probable token, again and again.

    The prompts pass once, and each new token alone, beside the keys and values of those before it.

    Args:
      network: a causal network with `empty_cache`.
      prompts: at least one token in each row, padded on the right.
      mask: False for padding.
      num_new: tokens to add.
      stop_token: ends a row; decoding ends with the last row. -1: none.
      stop_when: asked every few tokens, which rows end without a stop token, as those whose text
        holds some words; they may have got some tokens more.

    Raises:
      ValueError: if a prompt is empty or not padded on the right, or prompt and continuation are
        longer than the network takes.
    """
    _check_prompts(network, prompts, mask, num_new)
    return _continue(network, prompts, mask, None, 0, num_new, stop_token, stop_when)


def sample(
    network: Causal,
    prompts: Int[Array, "B P"],
    mask: Bool[Array, "B P"],
    *,
    key: Key[Array, "*B"],
    num_new: int,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    stop_token: int = -1,
    stop_when: StopWhen | None = None,
) -> Continuation:
    """Continue prompts with tokens drawn from the network's predictions.

    Step i draws with `jax.random.fold_in(key, i)` from the logits that `restrict` leaves.

    Args:
      network: as of `greedy`.
      prompts: as of `greedy`.
      mask: as of `greedy`.
      key: from `jax.random.key`; or one for each row, whose draws then do not depend on the rows
        beside it.
      num_new: tokens to add.
      temperature: see `restrict`.
      top_k: see `restrict`.
      top_p: see `restrict`.
      stop_token: as of `greedy`.
      stop_when: as of `greedy`.

    Raises:
      ValueError: as `greedy` and `restrict` do.
    """
    _check_prompts(network, prompts, mask, num_new)
    _check_restriction(temperature, top_k, top_p)
    draw = _Draw(key, temperature, top_p)
    return _continue(network, prompts, mask, draw, top_k, num_new, stop_token, stop_when)


def restrict(
    logits: Float[Array, "B V"], *, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0
) -> Float[Array, "B V"]:
    """Divide logits by a temperature, and set those to -inf that are not to be drawn.

    Args:
      logits: of the next token.
      temperature: positive; below 1 favours the probable tokens.
      top_k: keep the k most probable tokens, and those as probable as the last of them; 0: all.
      top_p: then keep the fewest most probable tokens that together have at least this
        probability, in (0, 1]; 1: all.

    Raises:
      ValueError: if a setting is out of its range.
    """
    _check_restriction(temperature, top_k, top_p)
    return _restrict(logits, temperature, top_p, top_k=top_k)


def _restrict(logits, temperature, top_p, *, top_k: int):
    logits = logits / temperature
    if 0 < top_k < logits.shape[-1]:
        least = jax.lax.top_k(logits, top_k)[0][:, -1:]
        logits = jnp.where(logits >= least, logits, -jnp.inf)
    order = jnp.argsort(-logits, axis=-1)
    probabilities = jnp.take_along_axis(jax.nn.softmax(logits, axis=-1), order, axis=-1)
    before = jnp.cumsum(probabilities, axis=-1) - probabilities
    # Rounding must not drop a token where nothing is to be dropped.
    kept = (before < top_p) | (top_p >= 1)
    kept = jnp.take_along_axis(kept, jnp.argsort(order, axis=-1), axis=-1)
    return jnp.where(kept, logits, -jnp.inf)


def _check_restriction(temperature: float, top_k: int, top_p: float) -> None:
    if not temperature > 0:
        raise ValueError(f"temperature must be > 0, got {temperature}; greedy is its limit at 0.")
    if top_k < 0:
        raise ValueError(f"top_k must be >= 0, got {top_k}.")
    if not 0 < top_p <= 1:
        raise ValueError(f"top_p must be in (0, 1], got {top_p}.")


def _check_prompts(network, prompts, mask, num_new: int) -> None:
    if num_new < 1:
        raise ValueError(f"num_new must be >= 1, got {num_new}.")
    mask = np.asarray(mask)
    if not mask.any(axis=1).all():
        raise ValueError("prompts must hold at least one token in each row.")
    if (mask[:, 1:] & ~mask[:, :-1]).any():
        raise ValueError("prompts must be padded on the right: mask has True after False.")
    longest, most = int(mask.sum(axis=1).max()) + num_new, network.config.max_length
    if longest > most:
        raise ValueError(f"prompt and continuation must fit {most} tokens, got {longest}.")


class _Draw(NamedTuple):
    """How tokens are drawn."""

    key: Array
    temperature: Array
    top_p: Array


class _State(NamedTuple):
    """What one step of decoding hands to the next."""

    step: Array  # tokens added so far
    last: Array  # [B] the last of them
    done: Array  # [B] whether the stop token has come
    found: Continuation
    cache: base.Cache


def _continue(network, prompts, mask, draw, top_k, num_new, stop_token, stop_when) -> Continuation:
    how = {"top_k": top_k, "stop_token": stop_token}
    state = _begin(network, prompts, mask, draw, num_new=num_new, **how)
    if stop_when is None:
        return _advance(network, state, draw, num_new, **how).found
    limit = 1
    while limit < num_new:
        state = state._replace(done=state.done | stop_when(*map(np.asarray, state.found)))
        if np.asarray(state.done).all():
            break
        limit = min(limit + _CHECK_EVERY, num_new)
        state = _advance(network, state, draw, limit, **how)
    return state.found


@jax.jit(static_argnames=("top_k", "num_new", "stop_token"))
@jax.default_matmul_precision("highest")
def _begin(network, prompts, mask, draw, *, top_k, num_new, stop_token) -> _State:
    """Pass the prompts, and add the first token."""
    B, P = prompts.shape
    # The last token is never passed on.
    cache = network.empty_cache(B, P + num_new - 1)
    output = network(prompts, mask, taps=(), cache=cache)
    at = mask.sum(axis=1)[:, None, None] - 1
    final = jnp.take_along_axis(output.final, at, axis=1)[:, 0]
    nothing = Continuation(jnp.full((B, num_new), stop_token, jnp.int32), jnp.zeros(B, jnp.int32))
    state = _State(
        step=jnp.zeros((), jnp.int32),
        last=jnp.zeros(B, jnp.int32),
        done=jnp.zeros(B, bool),
        found=nothing,
        cache=output.cache,
    )
    return _add(state, network.logits(final), draw, top_k, stop_token)


@jax.jit(static_argnames=("top_k", "stop_token"), donate_argnames="state")
@jax.default_matmul_precision("highest")
def _advance(network, state, draw, limit, *, top_k, stop_token) -> _State:
    """Add tokens until all rows are done, or there are `limit`."""

    def step(state: _State) -> _State:
        alone = jnp.ones((len(state.last), 1), bool)
        output = network(state.last[:, None], alone, taps=(), cache=state.cache)
        state = state._replace(cache=output.cache)
        return _add(state, network.logits(output.final[:, 0]), draw, top_k, stop_token)

    going = lambda state: (state.step < limit) & ~state.done.all()
    return jax.lax.while_loop(going, step, state)


def _add(state: _State, logits, draw, top_k: int, stop_token: int) -> _State:
    """Choose a token of each row from logits [B V]."""
    picked = logits.argmax(axis=-1) if draw is None else _pick(logits, state.step, draw, top_k)
    token = jnp.where(state.done, stop_token, picked).astype(jnp.int32)
    found = Continuation(
        tokens=state.found.tokens.at[:, state.step].set(token),
        lengths=state.found.lengths + ~state.done,
    )
    done = state.done | (token == stop_token)
    return _State(state.step + 1, token, done, found, state.cache)


def _pick(logits, step, draw: _Draw, top_k: int):
    logits = _restrict(logits, draw.temperature, draw.top_p, top_k=top_k)
    if draw.key.ndim == 0:
        return jax.random.categorical(jax.random.fold_in(draw.key, step), logits)
    one = lambda key, logits: jax.random.categorical(jax.random.fold_in(key, step), logits)
    return jax.vmap(one)(draw.key, logits)
