"""Attention in chunks and head by head against a float64 pass over all logits."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

from jaxalign.core import mesh as mesh_lib
from jaxalign.models.families import attention

B, N, K, H = 2, 4, 2, 8
PLAIN = attention.Logits(scale=1.0)


def inputs(rng, length, *, with_bias=False):
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    q, k, v = draw(B, length, N, H), draw(B, length, K, H), draw(B, length, K, H)
    visible = np.tril(np.ones((length, length), bool))[None].repeat(B, axis=0)
    visible[1, :, -7:] = False  # padding
    return q, k, v, visible, draw(1, N, length) if with_bias else None


def expected(q, k, v, visible, bias, *, scale, cap):
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    k, v = (x.repeat(N // K, axis=2) for x in (k, v))
    logits = scale * np.einsum("btnh,bsnh->bnts", q, k)
    if cap:
        logits = cap * np.tanh(logits / cap)
    if bias is not None:
        logits = logits + bias[:, :, None]
    logits = np.where(visible[:, None], logits, -np.inf)
    out = np.einsum("bnts,bsnh->btnh", scipy.special.softmax(logits, axis=-1), v)
    return out.reshape(*out.shape[:2], -1)


# One chunk; one and a bit; several; more than are compiled at the usual size.
@pytest.mark.parametrize(
    "length", [10, 17, *(pytest.param(x, marks=pytest.mark.slow) for x in (16, 50, 260))]
)
@pytest.mark.parametrize("cap,with_bias", [(0.0, False), (1.5, True)])
@pytest.mark.parametrize("attend", [attention._attend_by_head, attention._attend_in_chunks])
def test_causal_attention_computes_what_is_visible(
    rng, length, cap, with_bias, attend, monkeypatch
):
    monkeypatch.setattr(attention, "QUERIES", 16)
    arrays = inputs(rng, length, with_bias=with_bias)
    settings = {"scale": 0.7, "cap": cap}
    bias = None if arrays[-1] is None else jnp.asarray(arrays[-1])
    logits = attention.Logits(bias=bias, **settings)
    found = jax.jit(attend)(*arrays[:-1], logits)
    np.testing.assert_allclose(found, expected(*arrays, **settings), atol=3e-6)


@pytest.mark.slow
def test_causal_attention_never_reads_later_keys(rng):
    q, k, v, visible, _ = inputs(rng, 300)
    attend = jax.jit(functools.partial(attention.attend, logits=PLAIN, causal=True))
    whole = attend(q, k, v, visible)
    changed = v.copy()
    changed[:, 200:] = np.nan
    np.testing.assert_array_equal(attend(q, k, changed, visible)[:, :128], whole[:, :128])


def test_causal_attention_on_a_mesh(rng):
    """Rows over data, heads over model."""
    q, k, v, visible, _ = inputs(rng, 200)
    mesh = mesh_lib.make_mesh(2, 2)
    spec = jax.sharding.PartitionSpec
    place = lambda x, *axes: jax.device_put(x, jax.NamedSharding(mesh, spec(*axes)))
    attend = jax.jit(functools.partial(attention.attend, logits=PLAIN, causal=True))
    heads = [place(x, "data", None, "model", None) for x in (q, k, v)]
    found = attend(*heads, place(visible, "data", None, None))
    np.testing.assert_allclose(
        found, expected(q, k, v, visible, None, scale=1.0, cap=0.0), atol=3e-6
    )


@pytest.mark.slow
def test_one_row_of_visibility_serves_all(rng):
    q, k, v, visible, _ = inputs(rng, 150)
    visible = visible[:1]
    found = attention.attend(*map(jnp.asarray, (q, k, v, visible)), PLAIN, causal=True)
    np.testing.assert_allclose(
        found, expected(q, k, v, visible, None, scale=1.0, cap=0.0), atol=3e-6
    )


@pytest.mark.parametrize("cap,with_bias", [(0.0, False), (1.5, True)])
def test_what_rows_begin_with_is_attended_to_as_if_each_had_it(rng, cap, with_bias):
    """Three rows for each of two beginnings; one softmax over both parts."""
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    first, own, rows = 5, 4, 3
    begin = draw(2, B, first, K, H)
    q, k, v = draw(B * rows, 2, N, H), *draw(2, B * rows, own, K, H)
    visible = rng.random((B * rows, 2, first + own)) < 0.7
    visible[..., 0] = True
    bias = draw(1, N, first + own) if with_bias else None
    settings = {"scale": 0.7, "cap": cap}
    logits = attention.Logits(bias=None if bias is None else jnp.asarray(bias), **settings)
    found = jax.jit(attention.attend_behind)(tuple(begin), q, (k, v), visible, logits)
    whole = [
        np.concatenate(x, axis=1) for x in zip(begin.repeat(rows, axis=1), (k, v), strict=True)
    ]
    wanted = expected(q, *whole, visible, bias, **settings)
    np.testing.assert_allclose(found, wanted, atol=3e-6)
