"""Rotary positions with three axes: time, row and column of an image's tokens.

Source: Wang et al. (2024), arXiv 2409.12191, section 2.1 ("M-RoPE").
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxalign.models.families import base


def shift(grid: tuple[int, int]) -> int:
    """Return how far words after an image lie from their number in the row: 0 or less."""
    return max(grid) - grid[0] * grid[1]


def of_tokens(is_image: Bool[Array, "B T"], grid: tuple[int, int]) -> Int[Array, "3 B T"]:
    """Return time, row and column of each token of rows that hold at most one image.

    Args:
      is_image: where the image's tokens are, in one piece.
      grid: rows and columns of its tokens.
    """
    number = jnp.arange(is_image.shape[1], dtype=jnp.int32)[None]
    nth = jnp.cumsum(is_image, axis=1) - 1
    start = jnp.argmax(is_image, axis=1)[:, None]
    after = (nth + 1 == grid[0] * grid[1]) & ~is_image
    words = number + jnp.where(after, shift(grid), 0)
    places = jnp.stack([jnp.zeros_like(nth), nth // grid[1], nth % grid[1]])
    return jnp.where(is_image[None], start[None] + places, words[None]).astype(jnp.int32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Reader:
    """A decoder that reads texts about images: a causal network; see `decoder.Network`.

    Attributes:
      network: the decoder; see `seq2seq.Decoder`.
      shift: of words that continue a cache, which holds the image; see the function.
    """

    network: nnx.Module | None
    shift: int = dataclasses.field(metadata={"static": True})

    @property
    def config(self) -> Any:
        """The network's configuration."""
        return self.network.config

    def __call__(
        self, tokens: Int[Array, "B T"] | base.Merged, mask: Bool[Array, "B T"], **options: Any
    ) -> base.Output:
        """Run the decoder over a prompt with its image merged, or over tokens that continue it.

        Args:
          tokens: of the prompt, from `multimodal.Network.merge`, or ids of what follows.
          mask: False for padding.
          options: of `decoder.Network`.
        """
        if not isinstance(tokens, base.Merged):
            number = jnp.arange(tokens.shape[1], dtype=jnp.int32)[None]
            places = options["cache"].next_position() + number + self.shift
            places = jnp.broadcast_to(places, (3, *places.shape))
            tokens = base.Merged(self.network.embed_words(tokens), places=places)
        return self.network(tokens, mask, **options)

    def logits(self, final: Float[Array, "... D"]) -> Float[Array, "... V"]:
        """Predict the next token."""
        return self.network.logits(final)

    def empty_cache(self, batch: int, length: int) -> base.Cache:
        """Return a cache of the decoder's."""
        return self.network.empty_cache(batch, length)
