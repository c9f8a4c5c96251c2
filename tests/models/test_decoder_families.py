"""Every causal family against Hugging Face's, on tiny checkpoints; see golden/make_decoders.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.models import base, zoo

NAMES = (
    "gpt2",
    "opt",
    "opt_post",
    "neox",
    "neox_serial",
    "gptj",
    "bloom",
    "llama3",
    "llama_linear",
    "mistral",
    "qwen2",
    "qwen3",
    "gemma",
    "gemma2",
    "gemma3",
    "phi3",
    "phi3_long",
)
LENGTHS = (5, 11)
# As in test_encoder_decoder.py: a few units in the last place of float32 per layer.
TOLERANCE = 2e-5


@jax.jit(static_argnames="taps")
@jax.default_matmul_precision("highest")
def forward(network, tokens, mask, positions=None, taps=base.TAPS):
    return network(tokens, mask, positions=positions, taps=taps, with_logits=True)


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def folder(name, golden):
    return golden / "decoders" / name


@pytest.fixture(scope="module")
def model(folder):
    return zoo.find(str(folder), None)


@pytest.fixture(scope="module")
def expected(folder):
    return dict(np.load(folder / "expected.npz"))


@pytest.fixture(scope="module")
def network(model, mesh):
    # On one device: what is divided over several is tested in test_encoder_decoder.py.
    return jax.device_put(model.load(mesh), jax.devices()[0])


def assert_close(found, expected, mask):
    """Compare each layer at the tokens that count, relative to the layer's largest value."""
    found, expected = np.asarray(found)[:, mask], expected[:, mask]
    assert found.shape == expected.shape
    scale = np.abs(expected).max(axis=(1, 2))
    worst = np.abs(found - expected).max(axis=(1, 2)) / scale
    np.testing.assert_array_less(worst, TOLERANCE)


@pytest.mark.parametrize("length", LENGTHS)
def test_matches_hugging_face(network, expected, length):
    """Every hidden state, what each sublayer adds, and all logits; padded and full rows."""
    tokens, mask = expected[f"tokens_{length}"], expected[f"mask_{length}"]
    assert mask.all(axis=1).any() and not mask.all()
    output = forward(network, tokens, mask)
    assert_close(output.hidden, expected[f"hidden_{length}"], mask)
    assert_close(output.logits[None], expected[f"logits_{length}"][None], mask)
    assert output.logits.dtype == jnp.float32 and output.cache is None
    if length == max(LENGTHS):
        for tap in ("attention", "mlp"):
            assert_close(output.taps[tap], expected[tap], mask)


def test_positions_may_begin_anywhere(network, expected, name):
    if name == "bloom":
        pytest.skip("Hugging Face's BLOOM takes no positions; see the test of packed rows")
    tokens, mask = expected["tokens_5"], expected["mask_5"]
    positions = np.broadcast_to(9 + np.arange(5), tokens.shape)
    output = forward(network, tokens, mask, positions)
    assert_close(output.hidden, expected["shifted"], mask)
