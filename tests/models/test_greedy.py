"""Greedy continuation against one step at a time, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxalign.models import score, zoo


@pytest.fixture(scope="module")
def network(golden, mesh):
    # On one device: those of a mesh would each tell the whole story.
    return jax.device_put(zoo.find(str(golden / "llama"), None).load(mesh), jax.devices()[0])


def test_equals_one_step_at_a_time(network):
    """Each step sees the tokens so far and nothing else."""
    forward = jax.jit(
        lambda network, tokens, mask: network(tokens, mask, with_logits=True).logits[0]
    )
    prompt = [2, 17, 64, 101]
    expected = list(prompt)
    for _ in range(12):
        tokens = np.full((1, 16), 99)
        tokens[0, : len(expected)] = expected
        logits = forward(network, jnp.asarray(tokens), jnp.arange(16)[None] < 16)
        expected.append(int(logits[len(expected) - 1].argmax()))
    found = score.greedy(network, jnp.array(prompt), num_new=12, max_length=16)
    assert found.tolist() == expected
    assert len(set(expected[4:])) > 2  # the continuation is not one token again and again


def test_empty_prompt_is_refused(network):
    with pytest.raises(ValueError, match="tokens must hold at least one token"):
        score.greedy(network, jnp.zeros(0, int), num_new=1, max_length=16)


def test_too_long_a_text_is_refused(network):
    with pytest.raises(ValueError, match="must fit 16 tokens, got 17"):
        score.greedy(network, jnp.array([1]), num_new=16, max_length=16)
