"""The one interface of all networks: tokens in, hidden states of every layer out."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
from jaxtyping import Array, Bool, Float, Int

# Applied to the hidden states of one layer, [B T D] -> [B ... D], before they are kept.
Pool = Callable[[Array], Array]


# What a forward pass can keep of each block; see `Output.taps`.
TAPS = ("residual", "attention", "mlp")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Output:
    """What a forward pass returns.

    Attributes:
      taps: what was asked for, by name. "residual" [L+1 B T D]: layer 0 is what the first block
        receives, layer i the residual stream after block i. "attention" and "mlp" [L B T D]: what
        that part of block i + 1 adds to the residual stream. After a `Pool` the axes T D are what
        it made of them.
      logits: [B T V] if asked for, else None.
      final_norm_applied: whether residual[-1] has passed the network's final norm, as in Hugging
        Face's `hidden_states`. False where the design has none.
      layer_names: what each residual layer is, where a network has more than one stack of blocks;
        empty where it has one.
      cache: keys and values for what follows, of designs that continue a text.
    """

    taps: dict[str, Array]
    logits: Array | None
    final_norm_applied: bool = dataclasses.field(metadata={"static": True})
    layer_names: tuple[str, ...] = dataclasses.field(default=(), metadata={"static": True})
    cache: Any = None

    @property
    def hidden(self) -> Array:
        """The residual stream of all layers, [L+1 B T D]."""
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
        cache: Any = None,
    ) -> Output:
        """Run all layers.

        Args:
          tokens: token ids, padded on the right.
          mask: False for padding.
          positions: of each token in its text; None: 0, 1, 2, ...
          taps: what to keep of each block, of `TAPS`.
          pool: reduces what is kept inside the scan, so that the unpooled states of all layers
            never exist at once.
          with_logits: whether to compute logits.
          cache: from the pass over what comes before, where a design can continue a text.
        """
        ...


def stack_layers(first: Float[Array, "..."], rest: Float[Array, "L ..."]) -> Array:
    """Put layer 0 in front of the scanned layers."""
    return jax.numpy.concatenate([first[None], rest], axis=0)
