"""Log-probabilities of tokens and of other targets against SciPy on all logits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from networks import forward

from jaxalign.models import log_probs, zoo
from jaxalign.models.families import base

PROMPTS = np.array([[2, 17, 64, 101], [5, 9, 99, 99], [33, 99, 99, 99]])
MASK = np.array([[1, 1, 1, 1], [1, 1, 0, 0], [1, 0, 0, 0]], bool)


@pytest.fixture(scope="module")
def network(golden, mesh):
    # On one device: those of a mesh would each tell the whole story.
    return jax.device_put(zoo.find(str(golden / "llama"), None).load(mesh), jax.devices()[0])


def arrays(*values):
    return [jnp.asarray(value) for value in values]


def find(network, tokens, mask, positions=None, **settings):
    @jax.jit
    @jax.default_matmul_precision("highest")
    def run(network, tokens, mask, positions):
        output = network(tokens, mask, positions=positions)
        return log_probs.token_log_probs(
            network, output, tokens, mask, positions=positions, **settings
        )

    return np.asarray(run(network, tokens, mask, positions))


# One token of each row at a time, a few, and all; the last chunk of a few is not full.
@pytest.mark.slow
@pytest.mark.parametrize("logit_bytes", [1, 4 * 3 * 127 * 3, 2**28])
def test_token_log_probs_match_log_softmax(network, rng, logit_bytes):
    tokens = rng.integers(0, 127, (3, 11))
    mask = np.arange(11)[None] < np.array([11, 1, 6])[:, None]
    logits = np.asarray(forward(network, tokens, mask).logits, np.float64)
    expected = np.full((3, 11), np.nan)
    predicted = scipy.special.log_softmax(logits[:, :-1], axis=-1)
    expected[:, 1:] = np.take_along_axis(predicted, tokens[:, 1:, None], axis=-1)[..., 0]
    expected[~mask] = np.nan
    found = find(network, tokens, mask, logit_bytes=logit_bytes)
    assert np.isfinite(found).sum() == 10 + 0 + 5
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-5 * np.abs(logits).max())


@pytest.mark.slow
def test_packed_texts_have_the_log_probs_of_single_ones(network, rng):
    tokens = rng.integers(0, 127, (1, 12))
    positions = np.array([[*range(5), *range(7)]])
    mask = np.ones((1, 12), bool)
    packed = find(network, tokens, mask, positions)
    single = [find(network, part, mask[:, : part.shape[1]]) for part in np.split(tokens, [5], 1)]
    np.testing.assert_allclose(packed, np.concatenate(single, axis=1), atol=2e-5)
    assert np.flatnonzero(np.isnan(packed[0])).tolist() == [0, 5]


@pytest.mark.slow
def test_log_probs_never_hold_all_logits(network):

    def run(network, tokens, mask):
        output = network(tokens, mask, taps=())
        return log_probs.token_log_probs(network, output, tokens, mask, logit_bytes=2**14)

    shape = (8, 100)
    lowered = jax.jit(run).lower(network, jnp.zeros(shape, int), jnp.ones(shape, bool))
    text = lowered.as_text()
    # 2^14 bytes are four tokens of each row.
    assert "tensor<8x4x127xf32>" in text
    assert "8x100x127x" not in text and "100x8x127x" not in text


def test_surprisal_is_in_bits():
    np.testing.assert_allclose(log_probs.surprisal_bits(jnp.log(jnp.array([0.5, 0.125]))), [1, 3])


@pytest.mark.slow
def test_predictions_are_those_of_all_logits(network, rng):
    """Targets need not be the row's own tokens."""
    tokens, targets = rng.integers(0, 127, (2, 3, 11))
    mask = np.ones((3, 11), bool)

    @jax.jit
    @jax.default_matmul_precision("highest")
    def run(network, tokens, mask, targets):
        output = network(tokens, mask, taps=())
        return log_probs.predict(network, output, targets, logit_bytes=4 * 3 * 127 * 3)

    found = run(network, *arrays(tokens, mask, targets))
    logits = np.asarray(forward(network, tokens, mask).logits, np.float64)
    expected = np.take_along_axis(
        scipy.special.log_softmax(logits, axis=-1), targets[..., None], axis=-1
    )[..., 0]
    np.testing.assert_allclose(found.log_probs, expected, atol=2e-5 * np.abs(logits).max())
    np.testing.assert_array_equal(found.most_probable, logits.argmax(axis=-1))


# Refusals.


@pytest.mark.slow
def test_log_probs_of_other_tokens(network):
    output = base.Output({}, final=forward(network, PROMPTS, MASK).final)
    with pytest.raises(ValueError, match=r"output must be of these tokens: of \(3, 4\)"):
        log_probs.token_log_probs(
            network, output, jnp.asarray(PROMPTS[:, 1:]), jnp.asarray(MASK[:, 1:])
        )


@pytest.mark.slow
def test_log_probs_of_an_encoder(golden, mesh):
    encoder = zoo.find(str(golden / "bert"), None).load(mesh)
    tokens, mask = jnp.asarray(PROMPTS), jnp.asarray(MASK)
    with pytest.raises(ValueError, match="network must predict tokens"):
        log_probs.token_log_probs(encoder, encoder(tokens, mask), tokens, mask)
