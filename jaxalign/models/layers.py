"""Parts that the designs share: linear maps, embeddings, norms, rotary positions, attention.

Parameters carry the logical names of their axes as plain metadata (`logical`), from which
`core.mesh` derives shardings. Under a scan they have a layer axis in front.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int


def _like(vector: Float[Array, " d"], x: Float[Array, "... d"]) -> Array:
    """Give a vector the rank of what it meets, since ranks are not promoted silently."""
    return jnp.expand_dims(vector, tuple(range(x.ndim - 1)))


class Init(NamedTuple):
    """How weights are drawn: from a normal distribution around zero."""

    sd: float
    dtype: Any
    rngs: nnx.Rngs

    def draw(self, *shape: int) -> Array:
        """Draw one array."""
        return (self.sd * jax.random.normal(self.rngs.params(), shape)).astype(self.dtype)

    def stack(self, count: int, make: Callable[["Init"], nnx.Module]) -> nnx.Module:
        """Draw modules of one kind independently, and stack their parameters for a scan."""
        keys = jax.random.split(self.rngs.params(), count)
        return jax.vmap(lambda key: make(self._replace(rngs=nnx.Rngs(key))))(keys)


class Linear(nnx.Module):
    """y = x W + b."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        logical: tuple[str | None, str | None],
        init: Init,
        *,
        bias: bool,
    ):
        """Draw W; b is zero."""
        self.kernel = nnx.Param(init.draw(inputs, outputs), logical=logical)
        zero = jnp.zeros(outputs, init.dtype)
        self.bias = nnx.Param(zero, logical=logical[1:]) if bias else None

    def __call__(self, x: Float[Array, "... i"]) -> Float[Array, "... o"]:
        """Apply."""
        y = x @ self.kernel[...]
        return y if self.bias is None else y + _like(self.bias[...], y)


class Embedding(nnx.Module):
    """A table of vectors."""

    def __init__(self, rows: int, width: int, logical: str, init: Init):
        """Draw the table."""
        self.table = nnx.Param(init.draw(rows, width), logical=(logical, "embed"))

    def __call__(self, index: Int[Array, "..."]) -> Float[Array, "... D"]:
        """Look up."""
        return self.table[...][index]


class LayerNorm(nnx.Module):
    """Layer norm with scale and bias, computed in float32."""

    def __init__(self, width: int, eps: float, dtype):
        """Scale 1, bias 0."""
        self.scale = nnx.Param(jnp.ones(width, dtype), logical=("embed",))
        self.bias = nnx.Param(jnp.zeros(width, dtype), logical=("embed",))
        self.eps = eps

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Apply."""
        # The two-pass variance: E[x²] - E[x]² cancels on the large means of trained networks.
        y = x.astype(jnp.float32)
        y = y - y.mean(axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt((y**2).mean(axis=-1, keepdims=True) + self.eps)
        return (y * _like(self.scale[...], y) + _like(self.bias[...], y)).astype(x.dtype)


class RMSNorm(nnx.Module):
    """Root-mean-square norm with scale, computed in float32."""

    def __init__(self, width: int, eps: float, dtype):
        """Scale 1."""
        self.scale = nnx.Param(jnp.ones(width, dtype), logical=("embed",))
        self.eps = eps

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Apply."""
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt((y**2).mean(axis=-1, keepdims=True) + self.eps)
        return (y * _like(self.scale[...], y)).astype(x.dtype)


def rotary(x: Float[Array, "B T N H"], theta: float) -> Float[Array, "B T N H"]:
    """Rotate half-split pairs (i, i + H/2) by their position.

    Source: Su et al. (2021), arXiv 2104.09864, eq. 34, in the order of Hugging Face checkpoints.
    """
    length, half = x.shape[1], x.shape[-1] // 2
    frequency = theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angle = jnp.arange(length, dtype=jnp.float32)[:, None] * frequency[None]  # [T H/2]
    cos, sin = jnp.cos(angle)[None, :, None], jnp.sin(angle)[None, :, None]  # [1 T 1 H/2]
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def attend(
    q_BTNH: Float[Array, "B T N H"],
    k_BSKH: Float[Array, "B S K H"],
    v_BSKH: Float[Array, "B S K H"],
    mask: Bool[Array, "B S"],
    *,
    causal: bool,
) -> Float[Array, "B T D"]:
    """Scaled dot-product attention; N query heads share K key-value heads."""
    out = jax.nn.dot_product_attention(
        q_BTNH, k_BSKH, v_BSKH, mask=mask[:, None, None, :], is_causal=causal, implementation="xla"
    )
    return out.reshape(*out.shape[:2], -1)


def split_heads(x: Float[Array, "B T D"], num_heads: int) -> Float[Array, "B T N H"]:
    """Divide the last axis into heads."""
    return x.reshape(*x.shape[:-1], num_heads, -1)
