"""Parts that all networks share: linear maps, embeddings, norms, activations, rotary positions.

Parameters carry the logical names of their axes as plain metadata (`logical`), from which
`core.mesh` derives shardings. Under a scan they have a layer axis in front.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Int

from jaxalign.core.mesh import Logical, Units


def _like(vector: Float[Array, " d"], x: Float[Array, "... d"]) -> Array:
    """Give a vector the rank of `x`, since ranks are not promoted silently."""
    return jnp.expand_dims(vector, tuple(range(x.ndim - 1)))


def heads(num: int, num_kv: int | None = None) -> tuple[Units, Units]:
    """Return the logical axes of query heads and of key-value heads, which are fewer or as many."""
    num_kv = num if num_kv is None else num_kv
    return Units("heads", num, num_kv), Units("kv_heads", num_kv, num_kv)


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
    """y = x W + b, and what an adapter adds if it has one (`models.lora`)."""

    # Of the class: an attribute of a module that holds nothing could hold no parameter later.
    lora_a = lora_b = None
    lora_scale = 0.0

    def __init__(
        self,
        inputs: int,
        outputs: int,
        logical: tuple[Logical, Logical],
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
        if self.lora_a is not None:
            y = y + self.lora_scale * ((x @ self.lora_a[...]) @ self.lora_b[...])
        return y if self.bias is None else y + _like(self.bias[...], y)


class Bias(nnx.Module):
    """A vector that is added."""

    def __init__(self, width: int, logical: str, dtype):
        """Zero."""
        self.bias = nnx.Param(jnp.zeros(width, dtype), logical=(logical,))


class Embedding(nnx.Module):
    """A table of vectors."""

    placed = None  # the sharding of what is looked up; None: as the compiler chooses

    def __init__(self, rows: int, width: int, logical: str, init: Init):
        """Draw the table."""
        self.table = nnx.Param(init.draw(rows, width), logical=(logical, "embed"))

    def __call__(self, index: Int[Array, "..."]) -> Float[Array, "... D"]:
        """Look up."""
        found = self.table[...][index]
        return (
            found if self.placed is None else jax.lax.with_sharding_constraint(found, self.placed)
        )


class LayerNorm(nnx.Module):
    """Layer norm, with a scale, and perhaps a bias, if it is `affine`, computed in float32."""

    def __init__(self, width: int, eps: float, dtype, *, affine: bool = True, bias: bool = True):
        """Scale 1, bias 0."""
        param = lambda x, there: nnx.Param(x, logical=("embed",)) if there else None
        self.scale = param(jnp.ones(width, dtype), affine)
        self.bias = param(jnp.zeros(width, dtype), affine and bias)
        self.eps = eps

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Apply."""
        # The two-pass variance: E[x²] - E[x]² cancels on the large means of trained networks.
        y = x.astype(jnp.float32)
        y = y - y.mean(axis=-1, keepdims=True)
        y = y * jax.lax.rsqrt((y**2).mean(axis=-1, keepdims=True) + self.eps)
        if self.scale is not None:
            y = y * _like(self.scale[...], y)
        if self.bias is not None:
            y = y + _like(self.bias[...], y)
        return y.astype(x.dtype)


class RMSNorm(nnx.Module):
    """Root-mean-square norm with scale, computed in float32."""

    def __init__(self, width: int, eps: float, dtype, *, centred: bool = False):
        """Scale 1; or 0, where the scale is kept as its difference from 1 (`centred`)."""
        scale = jnp.zeros(width, dtype) if centred else jnp.ones(width, dtype)
        self.scale = nnx.Param(scale, logical=("embed",))
        self.eps = eps
        self.centred = centred

    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Apply."""
        y = x.astype(jnp.float32)
        y = y * jax.lax.rsqrt((y**2).mean(axis=-1, keepdims=True) + self.eps)
        scale = _like(self.scale[...], y).astype(jnp.float32)
        return (y * (1 + scale if self.centred else scale)).astype(x.dtype)


_gelu = lambda x: jax.nn.gelu(x, approximate=False)
# What transformers' table holds, without those that have parameters (prelu, xielu). Names that mean
# one function are in `hf_reading`.
ACTIVATIONS = {
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "gelu": _gelu,
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
    "gelu_10": lambda x: jnp.clip(_gelu(x), -10, 10),
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "hardswish": jax.nn.hard_swish,
    "laplace": lambda x: 0.5 * (1 + jax.lax.erf((x - 0.707107) / (0.282095 * math.sqrt(2)))),
    "leaky_relu": lambda x: jax.nn.leaky_relu(x, 0.01),
    "linear": lambda x: x,
    "mish": jax.nn.mish,
    "relu2": lambda x: jnp.square(jax.nn.relu(x)),
    "relu6": jax.nn.relu6,
    "sigmoid": jax.nn.sigmoid,
    "sqrtsoftplus": lambda x: jnp.sqrt(jax.nn.softplus(x)),
    "tanh": jnp.tanh,
}


def sinusoids(positions: Int[Array, "b T"], width: int) -> Float[Array, "b T D"]:
    """Return sines, and behind them cosines, of each position at falling frequencies.

    Source: Vaswani et al. (2017), arXiv 1706.03762, section 3.5, which interleaves the two; CTRL
    does not.
    """
    frequency = jnp.asarray(10_000.0 ** (-np.arange(0, width, 2) / width), jnp.float32)
    angle = positions[..., None].astype(jnp.float32) * frequency[None, None]
    return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary positions: entry pairs are turned by position times frequency.

    Frequency i of `size` / 2 is theta^(-2 i / size), and then changed by `scaling`:
    "linear": divided by factor. "llama3": divided by factor where the wavelength is longer than
    original_length / low_factor, kept where it is shorter than original_length / high_factor, and
    between them interpolated. "factors": divided by factors[i]. "yarn": as "llama3", but linear in
    i between the two pairs that turn high_factor and low_factor times in original_length.

    Source: Su et al. (2021), arXiv 2104.09864, eq. 34; for "llama3" the reference code of Llama
    3.1 (meta-llama/llama-models); for "factors" Ding et al. (2024), arXiv 2402.13753; for "yarn"
    Peng et al. (2023), arXiv 2309.00071, section 3.2.
    """

    size: int  # entries of each head that are rotated, the first ones
    odd: bool = False  # whether frequencies are those of one entry less, rounded up to pairs
    theta: float = 10_000.0
    interleaved: bool = False  # pairs (2i, 2i + 1); else (i, i + size / 2)
    scaling: str = ""
    factor: float = 1.0
    low_factor: float = 1.0
    high_factor: float = 4.0
    original_length: int = 0
    factors: tuple[float, ...] = ()
    whole_pairs: bool = True  # of "yarn": whether its two pairs are rounded to whole numbers
    magnitude: float = 1.0  # what rotated entries are multiplied by
    axes: tuple[int, ...] = ()  # of positions with three axes, by pair: the one it turns with

    def frequencies(self) -> np.ndarray:
        """Return the frequencies, in radians per position."""
        frequency = self.theta ** (-np.arange(0, self.size, 2) / (self.size - self.odd))
        if self.scaling == "linear":
            frequency = frequency / self.factor
        elif self.scaling == "llama3":
            # Turns in the original length: few are stretched, many are kept.
            turns = self.original_length * frequency / (2 * math.pi)
            kept = (turns - self.low_factor) / (self.high_factor - self.low_factor)
            kept = np.clip(kept, 0, 1)
            frequency = kept * frequency + (1 - kept) * frequency / self.factor
        elif self.scaling == "factors":
            frequency = frequency / np.array(self.factors)
        elif self.scaling == "yarn":
            kept = 1 - self._stretched_share()
            frequency = kept * frequency + (1 - kept) * frequency / self.factor
        return frequency.astype(np.float32)

    def _stretched_share(self) -> np.ndarray:
        """Return how far each pair is stretched under "yarn", between 0 and 1."""
        first, last = (
            self.size
            * math.log(self.original_length / (2 * math.pi * turns))
            / (2 * math.log(self.theta))
            for turns in (self.high_factor, self.low_factor)
        )
        if self.whole_pairs:
            first, last = math.floor(first), math.ceil(last)
        first, last = max(first, 0), min(last, self.size - 1)
        last += 0.001 * (first == last)  # a step, as in the reference code
        return np.clip((np.arange(self.size // 2) - first) / (last - first), 0, 1)

    def turns(self, positions: Int[Array, "B T"] | Int[Array, "3 B T"]) -> tuple[Array, Array]:
        """Return cosine and sine of each token's angles, [B T 1 size/2]."""
        frequency = jnp.asarray(self.frequencies())[None, None]
        if positions.ndim == 3:
            by_pair = jnp.moveaxis(positions[np.array(self.axes)], 0, -1)
        else:
            by_pair = positions[..., None]
        angle = by_pair.astype(jnp.float32) * frequency
        cos, sin = (self.magnitude * f(angle)[:, :, None] for f in (jnp.cos, jnp.sin))
        return cos, sin

    def rotate(
        self, x: Float[Array, "B T N H"], turns: tuple[Array, Array]
    ) -> Float[Array, "B T N H"]:
        """Rotate the first entries of each head."""
        cos, sin = turns
        y, rest = x[..., : self.size].astype(jnp.float32), x[..., self.size :]
        a, b = (y[..., 0::2], y[..., 1::2]) if self.interleaved else jnp.split(y, 2, axis=-1)
        a, b = a * cos - b * sin, b * cos + a * sin
        if self.interleaved:
            y = jnp.stack([a, b], axis=-1).reshape(y.shape)
        else:
            y = jnp.concatenate([a, b], axis=-1)
        return jnp.concatenate([y.astype(x.dtype), rest], axis=-1)
