"""The one interface of all networks: tokens in, hidden states of every layer out."""

import dataclasses
from collections.abc import Callable
from typing import Protocol

import jax
from jaxtyping import Array, Bool, Float, Int

# Applied to the hidden states of one layer, [B T D] -> [B ... D], before they are kept.
Pool = Callable[[Array], Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Output:
    """What a forward pass returns.

    Attributes:
      hidden: [L+1 B T D], or [L+1 B ... D] after a `Pool`. Layer 0 is what the first block
        receives; layer i is the residual stream after block i.
      logits: [B T V] if asked for, else None.
      final_norm_applied: whether hidden[-1] has passed the network's final norm, as in Hugging
        Face's `hidden_states`. False where the design has none.
    """

    hidden: Array
    logits: Array | None
    final_norm_applied: bool = dataclasses.field(metadata={"static": True})


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
        pool: Pool | None = None,
        with_logits: bool = False,
    ) -> Output:
        """Run all layers.

        Args:
          tokens: token ids, padded on the right.
          mask: False for padding.
          pool: reduces each layer's hidden states inside the scan, so that the unpooled states
            of all layers never exist at once.
          with_logits: whether to compute logits.
        """
        ...


def stack_layers(first: Float[Array, "..."], rest: Float[Array, "L ..."]) -> Array:
    """Put layer 0 in front of the scanned layers."""
    return jax.numpy.concatenate([first[None], rest], axis=0)
