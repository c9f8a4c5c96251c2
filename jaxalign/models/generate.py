"""Continuing prompts with a causal network, by its most probable tokens or by drawn ones."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxalign.models.families import base
from jaxalign.models.log_probs import Causal

# Steps of decoding between two calls of a `StopWhen`.
_CHECK_EVERY = 16

# Of tokens so far [B n] and their number [B], on the host: which rows need no more.
StopWhen = Callable[[np.ndarray, np.ndarray], np.ndarray]


class Ending(NamedTuple):
    """When a continuation ends.

    Attributes:
      num_new: most tokens to add.
      stop_tokens: tokens that end their row; decoding ends with the last row.
      stop_when: asked every few tokens which rows end without a stop token, such as those whose
        text holds some words; they may have got some tokens more.
    """

    num_new: int
    stop_tokens: tuple[int, ...] = ()
    stop_when: StopWhen | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn.

    Attributes:
      temperature: what logits are divided by; below 1 favours the probable tokens.
      top_k: keep the k most probable tokens, and those as probable as the last of them; 0: all.
      top_p: then keep the fewest most probable tokens that together have at least this
        probability; 1: all.

    Raises:
      ValueError: if a setting is out of its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self):
        if not self.temperature > 0:
            raise ValueError(
                f"temperature must be > 0, got {self.temperature}; greedy is its limit at 0."
            )
        if self.top_k < 0:
            raise ValueError(f"top_k must be >= 0, got {self.top_k}.")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be in (0, 1], got {self.top_p}.")


class Continuation(NamedTuple):
    """What decoding adds to each prompt."""

    # After a row has ended: the first of the stop tokens again and again, -1 if there are none.
    tokens: Int[Array, "B n"]
    lengths: Int[Array, " B"]  # tokens up to the stop token, included


class Kept(NamedTuple):
    """States of the tokens that were fed back, of each layer and in float32.

    A token's state is the one at the position where the network reads it. So the last token of a
    row, which is never read, has none, and the position that predicts the first one is the
    prompt's.
    """

    total: Float[Array, "L B D"]  # their sum
    last: Float[Array, "L B D"]  # of the last of them; zero where there is none
    count: Int[Array, " B"]  # how many they are


class Prompted(NamedTuple):
    """Prompts that have passed, and what continues them."""

    network: Causal
    final: Float[Array, "B D"]  # of each prompt's last token; see `base.Output`
    cache: base.Cache  # with a free slot for each new token but the last


class Draws(NamedTuple):
    """How tokens are drawn, and from which key; see `sample`."""

    key: Key[Array, "*B"]
    sampling: Sampling


def greedy(
    network: Causal, prompts: Int[Array, "B P"], mask: Bool[Array, "B P"], ending: Ending
) -> Continuation:
    """Continue prompts with the most probable token, again and again.

    The prompts pass once, and then each new token alone: keys and values of those before it are
    kept.

    Args:
      network: a causal network with `empty_cache`.
      prompts: at least one token in each row, padded on the right.
      mask: False for padding.
      ending: when to stop.

    Raises:
      ValueError: if a prompt is empty or not padded on the right, or prompt and continuation are
        longer than the network takes.
    """
    return _continue(network, prompts, mask, ending)


def sample(
    network: Causal,
    prompts: Int[Array, "B P"],
    mask: Bool[Array, "B P"],
    ending: Ending,
    *,
    key: Key[Array, "*B"],
    sampling: Sampling,
) -> Continuation:
    """Continue prompts with tokens drawn from the network's predictions.

    Step i draws with `jax.random.fold_in(key, i)` from the logits that `restrict` leaves.

    Args:
      network: as of `greedy`.
      prompts: as of `greedy`.
      mask: as of `greedy`.
      ending: as of `greedy`.
      key: from `jax.random.key`; or one for each row, whose draws then do not depend on the other
        rows.
      sampling: which tokens may be drawn, and how often.

    Raises:
      ValueError: as `greedy` does.
    """
    return _continue(network, prompts, mask, ending, Draws(key, sampling))


def resume(
    prompted: Prompted, ending: Ending, draws: Draws | None = None, *, keep: bool = False
) -> tuple[Continuation, Kept | None]:
    """Continue prompts that have passed, as `greedy` and `sample` do.

    Args:
      prompted: the prompts; its cache is used up.
      ending: when to stop.
      draws: None: the most probable token.
      keep: whether to keep states of the new tokens, the second result.
    """
    top_k = 0 if draws is None else draws.sampling.top_k
    choice = _choice(ending, draws)
    state = _start(prompted, choice, num_new=ending.num_new, top_k=top_k, keep=keep)
    state = _until(prompted.network, state, choice, ending, top_k)
    return state.found, state.kept


def restrict(
    logits: Float[Array, "B V"], *, temperature: float | Array, top_k: int, top_p: float | Array
) -> Float[Array, "B V"]:
    """Divide logits by a temperature, and set those to -inf that are not to be drawn.

    Args:
      logits: of the next token.
      temperature: as of `Sampling`, which checks the ranges.
      top_k: as of `Sampling`.
      top_p: as of `Sampling`.
    """
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


class _Choice(NamedTuple):
    """How the next token is chosen, but for `top_k`, which programs are compiled for."""

    stop_tokens: Array  # at least one; -1, which is no token, where there is none
    key: Array | None = None  # None: the most probable token
    temperature: float | Array = 1.0
    top_p: float | Array = 1.0


class _State(NamedTuple):
    """What one step of decoding hands to the next."""

    step: Array  # tokens added so far
    last: Array  # [B] the last of them
    done: Array  # [B] whether the stop token has come
    found: Continuation
    cache: base.Cache
    kept: Kept | None


def _choice(ending: Ending, draws: Draws | None) -> _Choice:
    stop_tokens = jnp.asarray(ending.stop_tokens or (-1,), jnp.int32)
    if draws is None:
        return _Choice(stop_tokens)
    return _Choice(stop_tokens, draws.key, draws.sampling.temperature, draws.sampling.top_p)


def _continue(network, prompts, mask, ending: Ending, draws: Draws | None = None) -> Continuation:
    _check_prompts(network, mask, ending.num_new)
    choice, top_k = _choice(ending, draws), 0 if draws is None else draws.sampling.top_k
    state = _begin(network, prompts, mask, choice, num_new=ending.num_new, top_k=top_k)
    return _until(network, state, choice, ending, top_k).found


def _until(network, state, choice: _Choice, ending: Ending, top_k: int) -> _State:
    """Add tokens until the ending."""
    num_new = ending.num_new
    if ending.stop_when is None:
        return _advance(network, state, choice, num_new, top_k=top_k)
    limit = 1
    while limit < num_new:
        state = state._replace(done=state.done | ending.stop_when(*map(np.asarray, state.found)))
        if np.asarray(state.done).all():
            break
        limit = min(limit + _CHECK_EVERY, num_new)
        state = _advance(network, state, choice, limit, top_k=top_k)
    return state


def _check_prompts(network, mask, num_new: int) -> None:
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


@jax.jit(static_argnames=("num_new", "top_k"))
@jax.default_matmul_precision("highest")
def _begin(network, prompts, mask, choice: _Choice, *, num_new: int, top_k: int) -> _State:
    """Pass the prompts, and add the first token."""
    B, P = prompts.shape
    # The last token is never passed on.
    cache = network.empty_cache(B, P + num_new - 1)
    output = network(prompts, mask, taps=(), cache=cache)
    at = mask.sum(axis=1)[:, None, None] - 1
    final = jnp.take_along_axis(output.final, at, axis=1)[:, 0]
    prompted = Prompted(network, final, output.cache)
    return _first(prompted, choice, num_new=num_new, top_k=top_k)


@jax.jit(static_argnames=("num_new", "top_k", "keep"))
@jax.default_matmul_precision("highest")
def _start(prompted: Prompted, choice: _Choice, *, num_new: int, top_k: int, keep: bool) -> _State:
    """Add the first token to prompts that have passed."""
    return _first(prompted, choice, num_new=num_new, top_k=top_k, keep=keep)


def _first(prompted: Prompted, choice: _Choice, *, num_new: int, top_k: int, keep: bool = False):
    network, final, cache = prompted
    B = len(final)
    tokens = jnp.full((B, num_new), choice.stop_tokens[0], jnp.int32)
    kept = None
    if keep:
        zero = jnp.zeros((B, 1), jnp.int32)
        layers = jax.eval_shape(lambda: _read(network, zero, cache, keep=True).hidden)
        zeros = jnp.zeros(layers.shape, layers.dtype)
        kept = Kept(zeros, zeros, jnp.zeros(B, jnp.int32))
    state = _State(
        step=jnp.zeros((), jnp.int32),
        last=jnp.zeros(B, jnp.int32),
        done=jnp.zeros(B, bool),
        found=Continuation(tokens, lengths=jnp.zeros(B, jnp.int32)),
        cache=cache,
        kept=kept,
    )
    return _add(state, network.logits(final), choice, top_k)


def _read(network, tokens, cache, *, keep: bool) -> base.Output:
    """Pass one more token of each row; its states are [L B D]."""
    taps = ("residual",) if keep else ()
    first = lambda x_BTD: x_BTD[:, 0].astype(jnp.float32)
    return network(tokens, jnp.ones(tokens.shape, bool), taps=taps, pool=first, cache=cache)


@jax.jit(static_argnames="top_k", donate_argnames="state")
@jax.default_matmul_precision("highest")
def _advance(network, state: _State, choice: _Choice, limit, *, top_k: int) -> _State:
    """Add tokens until all rows are done, or there are `limit`."""

    def step(state: _State) -> _State:
        kept = state.kept
        output = _read(network, state.last[:, None], state.cache, keep=kept is not None)
        if kept is not None:
            going, x_LBD = ~state.done, output.hidden
            kept = Kept(
                total=kept.total + jnp.where(going[None, :, None], x_LBD, 0),
                last=jnp.where(going[None, :, None], x_LBD, kept.last),
                count=kept.count + going,
            )
        state = state._replace(cache=output.cache, kept=kept)
        return _add(state, network.logits(output.final[:, 0]), choice, top_k)

    going = lambda state: (state.step < limit) & ~state.done.all()
    return jax.lax.while_loop(going, step, state)


def _add(state: _State, logits, choice: _Choice, top_k: int) -> _State:
    """Choose a token of each row from logits [B V]."""
    picked = _pick(logits, state.step, choice, top_k)
    token = jnp.where(state.done, choice.stop_tokens[0], picked).astype(jnp.int32)
    found = Continuation(
        tokens=state.found.tokens.at[:, state.step].set(token),
        lengths=state.found.lengths + ~state.done,
    )
    done = state.done | jnp.isin(token, choice.stop_tokens)
    return _State(state.step + 1, token, done, found, state.cache, state.kept)


def _pick(logits, step, choice: _Choice, top_k: int):
    if choice.key is None:
        return logits.argmax(axis=-1)
    logits = restrict(logits, temperature=choice.temperature, top_k=top_k, top_p=choice.top_p)
    draw = lambda key, logits: jax.random.categorical(jax.random.fold_in(key, step), logits)
    return draw(choice.key, logits) if choice.key.ndim == 0 else jax.vmap(draw)(choice.key, logits)
