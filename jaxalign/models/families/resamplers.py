"""Connectors whose learned vectors gather what an image holds: IDEFICS' and mPLUG-Owl's.

In both a latent attends to the states of patches and to all latents, and nothing has positions.
"""

import dataclasses

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from jaxalign.models.families import attention, layers


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerceiverConfig:
    """Hyperparameters of `Perceiver`."""

    num_latents: int
    depth: int
    width: int  # of latents and of the states of patches
    num_heads: int
    head_size: int
    mlp_size: int
    qk_norm: bool = False
    norm_eps: float = 1e-5  # not in the configuration
    init_sd: float = 0.02


class _PerceiverBlock(nnx.Module):
    """Attention and MLP, each behind its norms and added to the latents."""

    def __init__(self, config: PerceiverConfig, init: layers.Init):
        c, D, inner = config, config.width, config.num_heads * config.head_size
        linear = lambda i, o, logical: layers.Linear(i, o, logical, init, bias=False)
        norm = lambda size: layers.LayerNorm(size, c.norm_eps, init.dtype)
        self.image_norm, self.latent_norm, self.mlp_norm = norm(D), norm(D), norm(D)
        self.query = linear(D, inner, ("embed", "heads"))
        self.key = linear(D, inner, ("embed", "heads"))
        self.value = linear(D, inner, ("embed", "heads"))
        self.out = linear(inner, D, ("heads", "embed"))
        self.query_norm = norm(c.head_size) if c.qk_norm else None
        self.key_norm = norm(c.head_size) if c.qk_norm else None
        self.mlp_in = linear(D, c.mlp_size, ("embed", "mlp"))
        self.mlp_out = linear(c.mlp_size, D, ("mlp", "embed"))
        self.config = config

    def __call__(self, x_BnD: Array, image_BSD: Array) -> Array:
        c = self.config
        latents = self.latent_norm(x_BnD)
        both = jnp.concatenate([self.image_norm(image_BSD), latents], axis=1)
        split = lambda x: attention.split_heads(x, c.num_heads)
        q, k, v = split(self.query(latents)), split(self.key(both)), split(self.value(both))
        if self.query_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        visible = jnp.ones((1, 1, k.shape[1]), bool)
        logits = attention.Logits(scale=c.head_size**-0.5)
        x_BnD = x_BnD + self.out(attention.attend(q, k, v, visible, logits))
        return x_BnD + self.mlp_out(jax.nn.relu(self.mlp_in(self.mlp_norm(x_BnD))))


class Perceiver(nnx.Module):
    """Latents that attend to the image again and again.

    Source: Alayrac et al. (2022), arXiv 2204.14198, section 2.1, and figure 5.
    """

    def __init__(self, config: PerceiverConfig, *, dtype, rngs: nnx.Rngs):
        """Draw the weights; latents have a standard deviation of 1."""
        c, init = config, layers.Init(config.init_sd, dtype, rngs)
        latents = init._replace(sd=1.0).draw(c.num_latents, c.width)
        self.latents = nnx.Param(latents, logical=(None, "embed"))
        self.blocks = init.stack(c.depth, lambda init: _PerceiverBlock(c, init))
        self.norm = layers.LayerNorm(c.width, c.norm_eps, dtype)

    def __call__(self, image_BSD: Float[Array, "B S D"]) -> Float[Array, "B n D"]:
        """Apply."""
        latents = self.latents[...][None]
        x = jnp.broadcast_to(latents, (len(image_BSD), *latents.shape[1:]))
        step = lambda x, block: (block(x, image_BSD), None)
        return self.norm(jax.lax.scan(step, x, self.blocks)[0])


@dataclasses.dataclass(frozen=True, kw_only=True)
class AbstractorConfig:
    """Hyperparameters of `Abstractor`."""

    num_latents: int
    depth: int
    width: int
    num_heads: int
    mlp_size: int  # as stored; see `Abstractor`
    image_width: int
    outputs: int  # width of the language model
    norm_eps: float = 1e-6  # of the norm inside the MLP
    init_sd: float = 0.02


_ABSTRACTOR_EPS = 1e-5  # of its other norms, which no configuration sets


class _AbstractorBlock(nnx.Module):
    """Attention to image and latents, and a gated MLP with a norm inside."""

    def __init__(self, config: AbstractorConfig, init: layers.Init):
        c, D, F = config, config.width, config.mlp_size
        linear = lambda i, o, logical: layers.Linear(i, o, logical, init, bias=True)
        norm = lambda size: layers.LayerNorm(size, _ABSTRACTOR_EPS, init.dtype)
        self.latent_norm, self.image_norm, self.mlp_norm = norm(D), norm(c.image_width), norm(D)
        self.query = linear(D, D, ("embed", "heads"))
        self.key = linear(c.image_width, D, ("embed", "heads"))
        self.value = linear(c.image_width, D, ("embed", "heads"))
        self.out = linear(D, D, ("heads", "embed"))
        self.mlp_gate = linear(D, F, ("embed", "mlp"))
        self.mlp_in = linear(D, F, ("embed", "mlp"))
        self.inner_norm = layers.LayerNorm(F, c.norm_eps, init.dtype)
        self.mlp_out = linear(F, D, ("mlp", "embed"))
        self.config = config

    def __call__(self, x_BnD: Array, image_BSM: Array) -> Array:
        c = self.config
        latents = self.latent_norm(x_BnD)
        both = jnp.concatenate([latents, self.image_norm(image_BSM)], axis=1)
        split = lambda x: attention.split_heads(x, c.num_heads)
        q, k, v = split(self.query(latents)), split(self.key(both)), split(self.value(both))
        visible = jnp.ones((1, 1, k.shape[1]), bool)
        logits = attention.Logits(scale=(c.width // c.num_heads) ** -0.5)
        # What is added to are the normed latents.
        y = latents + self.out(attention.attend(q, k, v, visible, logits))
        normed = self.mlp_norm(y)
        inner = jax.nn.silu(self.mlp_gate(normed)) * self.mlp_in(normed)
        return y + self.mlp_out(self.inner_norm(inner))


class Abstractor(nnx.Module):
    """The visual abstractor of mPLUG-Owl: its latents, and a vector that ends the image.

    Source: Ye et al. (2023), arXiv 2304.14178, section 3.1; X-PLUG/mPLUG-Owl,
    `modeling_mplug_owl.py`.
    """

    def __init__(self, config: AbstractorConfig, *, dtype, rngs: nnx.Rngs):
        """Draw the weights."""
        c, init = config, layers.Init(config.init_sd, dtype, rngs)
        param = lambda *shape: nnx.Param(init.draw(*shape), logical=(None, None, "embed"))
        self.latents = param(1, c.num_latents, c.width)
        self.blocks = init.stack(c.depth, lambda init: _AbstractorBlock(c, init))
        self.project = layers.Linear(c.width, c.outputs, ("embed", None), init, bias=True)
        self.end = param(1, 1, c.outputs)

    def __call__(self, image_BSM: Float[Array, "B S M"]) -> Float[Array, "B m E"]:
        """Return the latents' vectors and the one that ends the image."""
        rows = lambda x: jnp.broadcast_to(x[...], (len(image_BSM), *x[...].shape[1:]))
        step = lambda x, block: (block(x, image_BSM), None)
        x = jax.lax.scan(step, rows(self.latents), self.blocks)[0]
        return jnp.concatenate([self.project(x), rows(self.end)], axis=1)
