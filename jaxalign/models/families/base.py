"""The one interface of all networks: tokens in, activations of every layer out."""

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxalign.models.weights import Tensor

# Applied to the activations of one layer, [B T D] -> [B ... D], before they are kept.
Pool = Callable[[Array], Array]

# What can be read out of every layer.
TAPS = ("residual", "attention", "mlp")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Cache:
    """Keys and values of the tokens so far, for incremental decoding.

    Attributes:
      keys: [L B S K H], rotated where positions are rotary.
      values: [L B S K H].
      positions: [B S] of the token in each slot.
      mask: [B S]; False for padding and for slots that are still empty.
      length: slots in use, the same of every row.
    """

    keys: Float[Array, "L B S K H"]
    values: Float[Array, "L B S K H"]
    positions: Int[Array, "B S"]
    mask: Bool[Array, "B S"]
    length: Int[Array, ""]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Output:
    """What a forward pass returns.

    Attributes:
      taps: what was asked for. "residual" is [L+1 B T D]: entry 0 is what the first block
        receives, entry i the residual stream after block i. "attention" and "mlp" are [L B T D]:
        the sublayer's output as it is added to the residual stream. After a `Pool` they are
        [. B ... D].
      logits: [B T V] in float32 if asked for, else None.
      final_norm_applied: whether the last entry of "residual" has passed the network's final
        norm, as in Hugging Face's `hidden_states`. False where the design has none.
      cache: the updated cache, if one was given.
      final: [B T D], what `logits` are computed from, never pooled; None of encoders. It costs
        nothing where it is not used.
    """

    taps: dict[str, Array]
    logits: Array | None
    final_norm_applied: bool = dataclasses.field(metadata={"static": True})
    cache: Cache | None = None
    final: Array | None = None

    @property
    def hidden(self) -> Array:
        """The residual stream, [L+1 B T D], or [L+1 B ... D] after a `Pool`."""
        return self.taps["residual"]


class Config(Protocol):
    """What every design's configuration offers beside its own fields."""

    @property
    def num_layers(self) -> int:
        """Blocks; a pass emits one hidden state more."""
        ...

    @property
    def width(self) -> int:
        """Units of the residual stream."""
        ...

    @property
    def vocab_size(self) -> int:
        """Rows of the embedding."""
        ...

    @property
    def max_length(self) -> int:
        """Most tokens in one row."""
        ...

    @property
    def final_norm_applied(self) -> bool:
        """See `Output`."""
        ...

    @property
    def causal(self) -> bool:
        """Whether a token's states depend on no later token."""
        ...

    @property
    def layer_names(self) -> tuple[str, ...]:
        """What each entry of the residual stream is, where there is more than one stack of blocks.

        Empty where there is one.
        """
        ...


class Network(Protocol):
    """A network built from its configuration."""

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        mask: Bool[Array, "B T"],
        *,
        positions: Int[Array, "B T"] | None = None,
        taps: Sequence[str] = ("residual",),
        pool: Pool | None = None,
        with_logits: bool = False,
        cache: Cache | None = None,
    ) -> Output:
        """Run all layers.

        Args:
          tokens: token ids, padded on the right.
          mask: False for padding.
          positions: of each token in its text; None: 0, 1, ... A row may hold several texts, one
            after the other: where positions do not increase, a new text begins, and no token
            sees another text's.
          taps: what to return of each layer, names of `TAPS`.
          pool: reduces each layer's activations inside the scan, so that the unpooled ones of all
            layers never exist at once.
          with_logits: whether to compute logits.
          cache: of the tokens before these, which this pass continues; one text per row.
        """
        ...


class Family(NamedTuple):
    """How checkpoints of one model_type are read. A design's module lists them in `FAMILIES`."""

    network: type[nnx.Module]
    config_from_hf: Callable[..., Any]  # of the content of config.json
    tensors: Callable[[Any], Mapping[str, Tensor]]  # parameter path -> where it is stored
    # Patterns of tensors that a network of a configuration does not use: buffers, and heads.
    ignored: Callable[[Any], tuple[str, ...]]
    prefixes: tuple[str, ...] = ()  # that names may have; the first one that fits is cut off
    # The configuration, where it is the names of a checkpoint's tensors that decide.
    fit_checkpoint: Callable[[Any, Collection[str]], Any] | None = None


def check_taps(taps: Sequence[str]) -> None:
    """Refuse taps that no network has.

    Raises:
      ValueError: if a name is not one of `TAPS`.
    """
    if unknown := [tap for tap in taps if tap not in TAPS]:
        raise ValueError(f"taps must be of {', '.join(TAPS)}, got {unknown[0]!r}.")


def stack_layers(first: Float[Array, "..."], rest: Float[Array, "L ..."]) -> Array:
    """Put layer 0 in front of the scanned layers."""
    return jax.numpy.concatenate([first[None], rest], axis=0)


def next_position(cache: Cache) -> Int[Array, "B 1"]:
    """Return the position after each row's last token."""
    return jax.numpy.where(cache.mask, cache.positions + 1, 0).max(axis=1, keepdims=True)


def extend(cache: Cache, positions: Int[Array, "b T"], mask: Bool[Array, "B T"]) -> Cache:
    """Enter the tokens of a pass in the next free slots; keys and values follow in the blocks."""
    at = (0, cache.length)
    return dataclasses.replace(
        cache,
        positions=jax.lax.dynamic_update_slice(cache.positions, positions, at),
        mask=jax.lax.dynamic_update_slice(cache.mask, mask, at),
        length=cache.length + positions.shape[1],
    )
