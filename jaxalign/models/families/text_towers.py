"""The text towers of CLIP and SigLIP, and the place of a text in the space shared with images."""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int

from jaxalign.models.families import base, decoder, layers, vision

# The switches of `decoder.Config` that make it CLIP's.
CLIP = {
    "learned_positions": True,
    "norm": "layer",
    "qkv_bias": True,
    "attention_out_bias": True,
    "gated": False,
    "mlp_bias": True,
    "headless": True,
}
AnyConfig = TypeVar("AnyConfig")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipTextConfig(decoder.Config):
    """Hyperparameters of CLIP's text tower."""

    projection: int = 0  # units of the space shared with images; 0: there is none
    end_token: int = -1  # whose first place stands for a text; -1: that of the largest token


class ClipText(decoder.Network):
    """A causal decoder without a head, whose end token is projected to the shared space."""

    def __init__(self, config: ClipTextConfig, *, dtype, rngs: nnx.Rngs):
        """Draw the weights."""
        super().__init__(config, dtype=dtype, rngs=rngs)
        init = layers.Init(config.width**-0.5, dtype, rngs)
        make = lambda: layers.Linear(
            config.width, config.projection, ("embed", None), init, bias=False
        )
        self.projection = make() if config.projection else None

    def embed(
        self, final_BTD: Float[Array, "B T D"], tokens: Int[Array, "B T"]
    ) -> Float[Array, "B E"]:
        """Return the place of each text in the space that it shares with images.

        Args:
          final_BTD: `base.Output.final`.
          tokens: each row with the end token.

        Raises:
          ValueError: if there is no such space.
        """
        if self.projection is None:
            raise ValueError("a network without a projection has no space shared with images.")
        end = self.config.end_token
        at = jnp.argmax(tokens if end < 0 else tokens == end, axis=1)
        return self.projection(final_BTD[jnp.arange(len(tokens)), at])


@dataclasses.dataclass(frozen=True, kw_only=True)
class SiglipTextConfig(base.Config):
    """Hyperparameters of SigLIP's text tower."""

    vocab_size: int
    num_layers: int
    width: int
    num_heads: int
    mlp_size: int
    max_length: int
    norm_eps: float
    activation: str
    projection: int
    padding_token: int
    init_sd: float

    @property
    def final_norm_applied(self) -> bool:
        """The last state has passed the final norm, as in all networks of text."""
        return True


class SiglipText(nnx.Module):
    """An encoder that reads every text padded to all of its positions.

    Its authors trained it so, without a mask: padding is seen, and the last position, which most
    often is padding, stands for the text. A pass therefore pads rows itself, and its states do not
    depend on how long they were given.
    """

    def __init__(self, config: SiglipTextConfig, *, dtype, rngs: nnx.Rngs):
        """Draw the weights."""
        c, D = config, config.width
        init = layers.Init(c.init_sd, dtype, rngs)
        self.words = layers.Embedding(c.vocab_size, D, "vocab", init._replace(sd=D**-0.5))
        self.positions = layers.Embedding(c.max_length, D, "positions", init._replace(sd=D**-0.5))
        self.blocks = init.stack(c.num_layers, lambda init: vision.Block(_block(c), init))
        self.final_norm = layers.LayerNorm(D, c.norm_eps, dtype)
        self.shared = layers.Linear(
            D, c.projection, ("embed", None), init._replace(sd=D**-0.5), bias=True
        )
        self.config = config

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        mask: Bool[Array, "B T"],
        *,
        taps: Sequence[str] = ("residual",),
        pool: base.Pool | None = None,
    ) -> base.Output:
        """Run all layers; see `base.Network`.

        Raises:
          ValueError: if a tap is unknown, or a row longer than the table of positions.
        """
        c, T = self.config, tokens.shape[1]
        if T > c.max_length:
            raise ValueError(f"a row must have at most {c.max_length} tokens, got {T}.")
        cut = lambda x: x[:, :T]
        keep = base.Keep(taps, lambda x: pool(cut(x)) if pool else cut(x))
        x_BTD = embedded = self._embed(tokens, mask)
        visible = jnp.ones((1, c.max_length, c.max_length), bool)

        def step(x, block):
            x, attended, mlp = block(x, visible)
            return x, keep.of_block(x, attended, mlp)

        x_BTD, kept = jax.lax.scan(step, x_BTD, self.blocks)
        kept = keep.with_last(kept, self.final_norm(x_BTD))
        return base.Output(keep.with_first(kept, embedded))

    def embed(self, tokens: Int[Array, "B T"], mask: Bool[Array, "B T"]) -> Float[Array, "B E"]:
        """Return the place of each text in the space that it shares with images."""
        x_BTD = self._embed(tokens, mask)
        visible = jnp.ones((1, x_BTD.shape[1], x_BTD.shape[1]), bool)
        step = lambda x, block: (block(x, visible)[0], None)
        x_BTD, _ = jax.lax.scan(step, x_BTD, self.blocks)
        return self.shared(self.final_norm(x_BTD)[:, -1])

    def _embed(self, tokens, mask):
        c = self.config
        tokens = jnp.where(mask, tokens, c.padding_token)
        short = ((0, 0), (0, c.max_length - tokens.shape[1]))
        tokens = jnp.pad(tokens, short, constant_values=c.padding_token)
        return self.words(tokens) + self.positions(jnp.arange(c.max_length))[None]


def _block(config: SiglipTextConfig) -> vision.Config:
    """Return what `vision.Block` reads of a configuration."""
    c = config
    glorot = lambda first, second: (2 / (first + second)) ** 0.5
    return vision.Config(
        num_layers=c.num_layers,
        width=c.width,
        num_heads=c.num_heads,
        mlp_size=c.mlp_size,
        norm_eps=c.norm_eps,
        activation=c.activation,
        image_size=(1, 1),
        patch_size=(1, 1),
        init_sd=c.init_sd,
        qkv_sd=glorot(c.width, c.width),
        attention_out_sd=glorot(c.width, c.width),
        mlp_in_sd=glorot(c.width, c.mlp_size),
        mlp_out_sd=glorot(c.width, c.mlp_size),
    )


def without(config: AnyConfig, **missing: Any) -> AnyConfig:
    """Return a configuration without the parts that are missing."""
    lost = {name: type(getattr(config, name))() for name, is_lost in missing.items() if is_lost}
    return dataclasses.replace(config, **lost) if lost else config  # type: ignore[type-var]


def projected(config: AnyConfig, size: int) -> AnyConfig:
    """Return a configuration with a projection to a space of this size."""
    return dataclasses.replace(config, projection=size)  # type: ignore[type-var]
