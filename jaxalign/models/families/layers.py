"""Parts that the designs share: linear maps, embeddings, norms, positions, attention.

Parameters carry the logical names of their axes as plain metadata (`logical`), from which
`core.mesh` derives shardings. Under a scan they have a layer axis in front.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
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


# "gelu" is Hugging Face's name of the exact one; its other names are of the one with tanh.
ACTIVATIONS = {
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "gelu_tanh": lambda x: jax.nn.gelu(x, approximate=True),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rope:
    """Rotary positions: entry pairs are turned by position times frequency.

    Frequency i of `size` / 2 is theta^(-2 i / size), and then changed by `scaling`:
    "linear": divided by factor. "llama3": divided by factor where the wavelength is longer than
    original_length / low_factor, kept where it is shorter than original_length / high_factor, and
    between them interpolated. "factors": divided by factors[i].

    Source: Su et al. (2021), arXiv 2104.09864, eq. 34; for "llama3" the reference code of Llama
    3.1 (meta-llama/llama-models); for "factors" Ding et al. (2024), arXiv 2402.13753.
    """

    size: int  # entries of each head that are rotated, the first ones
    theta: float = 10_000.0
    interleaved: bool = False  # pairs (2i, 2i + 1); else (i, i + size / 2)
    scaling: str = ""
    factor: float = 1.0
    low_factor: float = 1.0
    high_factor: float = 4.0
    original_length: int = 0
    factors: tuple[float, ...] = ()
    magnitude: float = 1.0  # of rotated entries, times their own

    def frequencies(self) -> np.ndarray:
        """Return the frequencies, in radians per position."""
        frequency = self.theta ** (-np.arange(0, self.size, 2) / self.size)
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
        return frequency.astype(np.float32)

    def turns(self, positions: Int[Array, "B T"]) -> tuple[Array, Array]:
        """Return cosine and sine of each token's angles, [B T 1 size/2]."""
        frequency = jnp.asarray(self.frequencies())[None, None]
        angle = positions[..., None].astype(jnp.float32) * frequency
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


def alibi_slopes(num_heads: int) -> np.ndarray:
    """Return by how much each head's attention falls per token of distance.

    Source: Press et al. (2022), arXiv 2108.12409, section 3, and for numbers of heads that are no
    power of two the authors' `get_slopes` (ofirpress/attention_with_linear_biases).
    """
    power = 2 ** math.floor(math.log2(num_heads))
    slopes = 2.0 ** (-8 / power * np.arange(1, power + 1))
    # The rest lie between the first ones, as in twice as many heads.
    between = 2.0 ** (-4 / power * np.arange(1, 2 * (num_heads - power), 2))
    return np.concatenate([slopes, between]).astype(np.float32)


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


# Queries whose logits exist at once, in rows where keys after a query need not be computed: few
# enough for that to pay, and enough for matrix products to be fast.
_QUERIES = 128
_MOST_CHUNKS = 16  # each is compiled by itself
# Logit of a key that is not seen: finite, so that a row of padding, which sees nothing, has no NaN.
_UNSEEN = -0.5 * float(np.finfo(np.float32).max)


def attend_visible(
    q_BTNH: Float[Array, "B T N H"],
    k_BSKH: Float[Array, "B S K H"],
    v_BSKH: Float[Array, "B S K H"],
    visible: Bool[Array, "#B T S"],
    *,
    scale: float,
    cap: float = 0.0,
    bias: Float[Array, "#B N S"] | None = None,
    causal: bool = False,
) -> Float[Array, "B T D"]:
    """Attention to the keys that each query sees; N query heads share K key-value heads.

    The logits are scale q k, then capped to cap tanh(logit / cap) unless cap is 0, then raised by
    each key's bias. They and their softmax are in float32.

    Args:
      q_BTNH: queries.
      k_BSKH: keys.
      v_BSKH: values.
      visible: whether a query sees a key.
      scale: of the logits.
      cap: largest logit; 0: none.
      bias: of each key and head.
      causal: whether no query sees a key that comes after it in the row (S is T): then most of
        what is not visible is not computed.
    """
    at_once = functools.partial(_attend_at_once, scale=scale, cap=cap)
    if not causal:
        return at_once(q_BTNH, k_BSKH, v_BSKH, visible, bias)
    in_chunks = functools.partial(_attend_in_chunks, at_once)
    if q_BTNH.shape[1] <= _QUERIES:
        return in_chunks(q_BTNH, k_BSKH, v_BSKH, visible, bias)
    return jax.lax.platform_dependent(
        q_BTNH,
        k_BSKH,
        v_BSKH,
        visible,
        bias,
        cpu=functools.partial(_attend_by_head, scale=scale, cap=cap),
        default=in_chunks,
    )


def _chunks(length: int) -> list[tuple[slice, slice]]:
    """Divide a row into chunks of queries, each with the keys up to the last of them."""
    size = max(_QUERIES, -(-length // _MOST_CHUNKS))
    return [(slice(i, i + size), slice(i + size)) for i in range(0, length, size)]


def _attend_in_chunks(attend, q_BTNH, k_BSKH, v_BSKH, visible, bias):
    """Attend with some queries at a time."""
    chunks = [
        attend(
            q_BTNH[:, queries],
            k_BSKH[:, keys],
            v_BSKH[:, keys],
            visible[:, queries, keys],
            None if bias is None else bias[..., keys],
        )
        for queries, keys in _chunks(q_BTNH.shape[1])
    ]
    return chunks[0] if len(chunks) == 1 else jnp.concatenate(chunks, axis=1)


def _attend_by_head(q_BTNH, k_BSKH, v_BSKH, visible, bias, *, scale, cap):
    """Attend with one key-value head of one row after the other.

    Their logits stay in the caches of a processor then: for 4 rows of 1024 tokens and 10 heads
    this took .10 s, and all heads at once .3 s.
    """
    B, T, N, H = q_BTNH.shape
    K, S = k_BSKH.shape[2], k_BSKH.shape[1]
    q_BKGTH = q_BTNH.reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4)
    k_BKSH, v_BKSH = (x.transpose(0, 2, 1, 3) for x in (k_BSKH, v_BSKH))
    if bias is not None:
        bias = jnp.broadcast_to(bias, (B, N, S)).reshape(B, K, N // K, S)

    def one_row(row):
        *heads, seen = row

        def one_head(head):
            q, k, v, own = head
            chunks = [
                _attend_one_head(
                    q[:, queries],
                    k[keys],
                    v[keys],
                    seen[queries, keys],
                    None if own is None else own[:, keys],
                    scale=scale,
                    cap=cap,
                )
                for queries, keys in _chunks(T)
            ]
            return jnp.concatenate(chunks, axis=1)

        return jax.lax.map(one_head, heads)

    visible = jnp.broadcast_to(visible, (B, T, S))
    out_BKGTH = jax.lax.map(one_row, (q_BKGTH, k_BKSH, v_BKSH, bias, visible))
    return out_BKGTH.transpose(0, 3, 1, 2, 4).reshape(B, T, N * H)


def _attend_one_head(q_GTH, k_SH, v_SH, visible_TS, bias_GS, *, scale, cap):
    # Arrays of few dimensions: as one row and head of `_attend_at_once` this takes half again.
    logits = scale * jnp.einsum("GTH,SH->GTS", q_GTH, k_SH, preferred_element_type=jnp.float32)
    if bias_GS is not None:
        bias_GS = bias_GS[:, None]
    shares = _shares(logits, visible_TS[None], bias_GS, cap).astype(v_SH.dtype)
    return jnp.einsum("GTS,SH->GTH", shares, v_SH)


def _attend_at_once(q_BTNH, k_BSKH, v_BSKH, visible, bias, *, scale, cap):
    B, T, N, H = q_BTNH.shape
    K = k_BSKH.shape[2]
    q = q_BTNH.reshape(B, T, K, N // K, H)
    logits = scale * jnp.einsum("BTKGH,BSKH->BKGTS", q, k_BSKH, preferred_element_type=jnp.float32)
    if bias is not None:
        bias = bias.reshape(-1, K, N // K, 1, bias.shape[-1])
    shares = _shares(logits, visible[:, None, None], bias, cap).astype(v_BSKH.dtype)
    return jnp.einsum("BKGTS,BSKH->BTKGH", shares, v_BSKH).reshape(B, T, N * H)


def _shares(logits, visible, bias, cap):
    """Return the softmax over the last axis; `visible` and `bias` are broadcast to the logits."""
    if cap:
        logits = cap * jnp.tanh(logits / cap)
    if bias is not None:
        logits = logits + bias
    return jax.nn.softmax(jnp.where(visible, logits, _UNSEEN), axis=-1)


def split_heads(x: Float[Array, "B T D"], num_heads: int) -> Float[Array, "B T N H"]:
    """Divide the last axis into heads."""
    return x.reshape(*x.shape[:-1], num_heads, -1)
