"""Attention: how queries, keys and values become what a sublayer adds."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int


def split_heads(x: Float[Array, "B T D"], num_heads: int) -> Float[Array, "B T N H"]:
    """Divide the last axis into heads."""
    return x.reshape(*x.shape[:-1], num_heads, -1)


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


def alibi_bias(
    slopes: np.ndarray, positions: Int[Array, "b S"], *, rounded: bool
) -> Float[Array, "b N S"]:
    """Return what raises the logits of each key: its position times the slope.

    Args:
      slopes: of the heads.
      positions: of the keys.
      rounded: whether slopes, positions and products are rounded to bfloat16, as Falcon's are:
        beyond position 256 neighbours then have the same bias.
    """
    # Not by casts, of which compilers may leave out pairs.
    bfloat16 = lambda x: jax.lax.reduce_precision(x, exponent_bits=8, mantissa_bits=7)
    rounding = bfloat16 if rounded else lambda x: x
    slopes = rounding(jnp.asarray(slopes))[None, :, None]
    return rounding(slopes * rounding(positions[:, None].astype(jnp.float32)))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Logits:
    """How queries and keys make the logits of attention.

    They are scale q k, then capped to cap tanh(logit / cap) unless cap is 0, then raised by each
    key's bias.

    Attributes:
      bias: of each key and head, [B or 1, N, S].
    """

    scale: float = dataclasses.field(metadata={"static": True})
    cap: float = dataclasses.field(default=0.0, metadata={"static": True})
    bias: Float[Array, "#B N S"] | None = None

    def softmax(self, products, visible, bias) -> Float[Array, "..."]:
        """Return what share of each value a query takes: the softmax over the last axis.

        Args:
          products: of queries and keys.
          visible: whether a query sees a key; broadcast to the products, as `bias` is.
          bias: the part of `self.bias` that belongs to these keys and heads.
        """
        logits = self.scale * products
        if self.cap:
            logits = self.cap * jnp.tanh(logits / self.cap)
        if bias is not None:
            logits = logits + bias
        return jax.nn.softmax(jnp.where(visible, logits, _UNSEEN), axis=-1)


# Queries of a causal row whose logits exist at once: few enough that most keys after a query are
# never computed, and enough for matrix products to be fast.
QUERIES = 128
_MOST_CHUNKS = 16  # each is compiled by itself
# Logit of a key that is not seen: finite, so that a row of padding, which sees nothing, has no NaN.
_UNSEEN = -0.5 * float(np.finfo(np.float32).max)


def attend(
    q_BTNH: Float[Array, "B T N H"],
    k_BSKH: Float[Array, "B S K H"],
    v_BSKH: Float[Array, "B S K H"],
    visible: Bool[Array, "#B #T S"],
    logits: Logits,
    *,
    causal: bool = False,
) -> Float[Array, "B T D"]:
    """Attend to the keys that each query sees; N query heads share K key-value heads.

    Logits and their softmax are in float32.

    Args:
      q_BTNH: queries.
      k_BSKH: keys.
      v_BSKH: values.
      visible: whether a query sees a key; T is 1 where no query differs.
      logits: how they are made.
      causal: whether no query sees a key that comes after it in the row (S is T): then most of
        what is not visible is not computed.
    """
    arguments = q_BTNH, k_BSKH, v_BSKH, visible, logits
    if not causal:
        return _attend_at_once(*arguments)
    # Of several devices each would gather all rows, to have them one after the other: 4 CPU devices
    # took 1.7 times as long as in chunks.
    if q_BTNH.shape[1] <= QUERIES or jax.device_count() > 1:
        return _attend_in_chunks(*arguments)
    return jax.lax.platform_dependent(*arguments, cpu=_attend_by_head, default=_attend_in_chunks)


def attend_behind(
    begin: tuple[Float[Array, "b P K H"], Float[Array, "b P K H"]],
    q_BTNH: Float[Array, "B T N H"],
    own: tuple[Float[Array, "B S K H"], Float[Array, "B S K H"]],
    visible: Bool[Array, "#B #T P+S"],
    logits: Logits,
) -> Float[Array, "B T D"]:
    """Attend to keys that neighbouring rows have in common, and to those of each row behind them.

    One softmax over both. The common ones are read once for all rows that have them, where a copy
    for each would be read as often: most of what a step of generation moves.

    Args:
      begin: keys and values of as many neighbouring rows each.
      q_BTNH: queries.
      own: keys and values of each row.
      visible: whether a query sees a key, of both.
      logits: how they are made.
    """
    (k_bPKH, v_bPKH), (k_BSKH, v_BSKH) = begin, own
    (B, T, N, H), (b, P, K, _) = q_BTNH.shape, k_bPKH.shape
    r, G = B // b, N // K  # rows of a beginning, query heads of a key
    exact = {"preferred_element_type": jnp.float32}
    q = q_BTNH.reshape(b, r, T, K, G, H)
    first = jnp.einsum("brTKGH,bPKH->brKGTP", q, k_bPKH, **exact).reshape(B, K, G, T, P)
    second = jnp.einsum("BTKGH,BSKH->BKGTS", q.reshape(B, T, K, G, H), k_BSKH, **exact)
    bias = logits.bias
    if bias is not None:
        bias = bias.reshape(-1, K, G, 1, bias.shape[-1])
    products = jnp.concatenate([first, second], axis=-1)
    shares = logits.softmax(products, visible[:, None, None], bias).astype(v_BSKH.dtype)
    first = shares[..., :P].reshape(b, r, K, G, T, P)
    out = jnp.einsum("brKGTP,bPKH->brTKGH", first, v_bPKH).reshape(B, T, K, G, H)
    out = out + jnp.einsum("BKGTS,BSKH->BTKGH", shares[..., P:], v_BSKH)
    return out.reshape(B, T, N * H)


def chunks(length: int) -> list[tuple[slice, slice]]:
    """Divide a row into chunks of queries, each with the keys up to the last of them.

    Args:
      length: of the row.
    """
    size = max(QUERIES, -(-length // _MOST_CHUNKS))
    return [(slice(i, i + size), slice(i + size)) for i in range(0, length, size)]


def _attend_in_chunks(q_BTNH, k_BSKH, v_BSKH, visible, logits: Logits):
    """Attend with some queries at a time."""

    def one_chunk(queries, keys):
        bias = None if logits.bias is None else logits.bias[..., keys]
        some = dataclasses.replace(logits, bias=bias)
        q, k, v = q_BTNH[:, queries], k_BSKH[:, keys], v_BSKH[:, keys]
        return _attend_at_once(q, k, v, visible[:, queries, keys], some)

    parts = [one_chunk(*chunk) for chunk in chunks(q_BTNH.shape[1])]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=1)


def _attend_by_head(q_BTNH, k_BSKH, v_BSKH, visible, logits: Logits):
    """Attend with one key-value head of one row after the other.

    Their logits stay in the caches of a processor then: for 4 rows of 1024 tokens and 10 heads
    this took .10 s, and all heads at once .3 s.
    """
    B, T, N, H = q_BTNH.shape
    K, S = k_BSKH.shape[2], k_BSKH.shape[1]
    q_BKGTH = q_BTNH.reshape(B, T, K, N // K, H).transpose(0, 2, 3, 1, 4)
    k_BKSH, v_BKSH = (x.transpose(0, 2, 1, 3) for x in (k_BSKH, v_BSKH))
    bias = logits.bias
    if bias is not None:
        bias = jnp.broadcast_to(bias, (B, N, S)).reshape(B, K, N // K, S)

    def one_row(row):
        *heads, seen = row
        return jax.lax.map(lambda head: _attend_one_head(*head, seen, logits), tuple(heads))

    visible = jnp.broadcast_to(visible, (B, T, S))
    out_BKGTH = jax.lax.map(one_row, (q_BKGTH, k_BKSH, v_BKSH, bias, visible))
    return out_BKGTH.transpose(0, 3, 1, 2, 4).reshape(B, T, N * H)


def _attend_one_head(q_GTH, k_SH, v_SH, bias_GS, visible_TS, logits: Logits):
    # Arrays of few dimensions: as one row and head of `_attend_at_once` this takes half again.
    def one_chunk(queries, keys):
        q, k, v = q_GTH[:, queries], k_SH[keys], v_SH[keys]
        products = jnp.einsum("GTH,SH->GTS", q, k, preferred_element_type=jnp.float32)
        bias = None if bias_GS is None else bias_GS[:, None, keys]
        shares = logits.softmax(products, visible_TS[None, queries, keys], bias)
        return jnp.einsum("GTS,SH->GTH", shares.astype(v.dtype), v)

    return jnp.concatenate([one_chunk(*chunk) for chunk in chunks(q_GTH.shape[1])], axis=1)


def _attend_at_once(q_BTNH, k_BSKH, v_BSKH, visible, logits: Logits):
    B, T, N, H = q_BTNH.shape
    K = k_BSKH.shape[2]
    q = q_BTNH.reshape(B, T, K, N // K, H)
    products = jnp.einsum("BTKGH,BSKH->BKGTS", q, k_BSKH, preferred_element_type=jnp.float32)
    bias = logits.bias
    if bias is not None:
        bias = bias.reshape(-1, K, N // K, 1, bias.shape[-1])
    shares = logits.softmax(products, visible[:, None, None], bias).astype(v_BSKH.dtype)
    return jnp.einsum("BKGTS,BSKH->BTKGH", shares, v_BSKH).reshape(B, T, N * H)
