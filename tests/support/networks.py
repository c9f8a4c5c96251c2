"""Passes of networks, compiled once for all tests that share their shapes, and comparisons."""

import functools
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from jaxalign.core import mesh as mesh_lib

# Both sides round to float32 along different orders of summation: a few units in the last place
# per layer. Any slip in a formula shows in the third digit.
TOLERANCE = 2e-5


class Pass(NamedTuple):
    """What a network returns, and the logits of all tokens; None of encoders."""

    taps: dict
    final: jax.Array | None
    logits: jax.Array | None

    @property
    def hidden(self):
        return self.taps["residual"]


@functools.partial(jax.jit, static_argnames="taps")
@jax.default_matmul_precision("highest")
def forward(network, tokens, mask, taps=("residual",), **options):
    output = network(tokens, mask, taps=taps, **options)
    logits = None if output.final is None else network.logits(output.final)
    return Pass(output.taps, output.final, logits)


def place(x, mesh):
    """Divide the rows of an array over a mesh."""
    return jax.device_put(x, mesh_lib.sharding(mesh, ("batch", *[None] * (x.ndim - 1)), x.shape))


def run(network, tokens, mask, mesh, **options):
    return forward(network, place(tokens, mesh), place(mask, mesh), **options)


def parameters(network):
    """Return path -> values on the host."""
    return {
        "/".join(map(str, path)): np.asarray(parameter[...])
        for path, parameter in nnx.to_flat_state(nnx.state(network))
    }


def assert_layers_close(found, expected, mask):
    """Compare each layer at the tokens that count, relative to the layer's largest value."""
    found, expected = np.asarray(found)[:, mask], np.asarray(expected)[:, mask]
    assert found.shape == expected.shape
    scale = np.abs(expected).max(axis=(1, 2))
    worst = np.abs(found - expected).max(axis=(1, 2)) / scale
    np.testing.assert_array_less(worst, TOLERANCE)


def assert_same(found, expected):
    """Compare two networks, or what `parameters` returns of them, value by value."""
    found, expected = (x if isinstance(x, dict) else parameters(x) for x in (found, expected))
    assert found.keys() == expected.keys()
    for path, array in expected.items():
        assert found[path].dtype == array.dtype
        np.testing.assert_array_equal(found[path], array, err_msg=path)


def relative_error(found, expected, mask):
    """Return the size of each layer's error at the tokens that count, relative to the layer's."""
    found, expected = np.asarray(found, np.float32)[:, mask], expected[:, mask]
    norm = lambda x: np.linalg.norm(x, axis=(1, 2))
    return norm(found - expected) / norm(expected)
