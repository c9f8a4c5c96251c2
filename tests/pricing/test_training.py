"""Formulas of training steps, against products counted in the traced gradients."""

import counted
import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from jaxalign.models import lora, zoo
from jaxalign.models.families import base
from jaxalign.pricing import training
from jaxalign.pricing.training import How
from jaxalign.pricing.work import Layout
from jaxalign.training import step
from jaxalign.training.batches import Batch

LLAMA = {
    "model_type": "llama",
    "vocab_size": 500,
    "max_position_embeddings": 512,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 172,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
ROWS, LENGTH = 4, 128


@pytest.mark.parametrize("rank,kept", [(0, "all"), (0, "inputs"), (4, "all"), (4, "inputs")])
def test_arithmetic_is_that_of_the_traced_gradients(rank, kept):
    design, config = zoo.configure(LLAMA, source="test")
    how = How(rank, kept, "float32")
    network = zoo.abstract(design, config)
    found = training.flop(config, network, how, ROWS, LENGTH)
    if rank:
        lora.add(network, rank=rank, alpha=8.0, seed=0)
    base.keep_for_gradients(network, kept)
    graph, trained, frozen = nnx.split(network, lora.Adapter if rank else nnx.Param, ...)
    if rank:
        assert sum(x.size for x in jax.tree.leaves(trained)) == how.num_trained(
            zoo.abstract(design, config)
        )
    struct = lambda dtype: jax.ShapeDtypeStruct((ROWS, LENGTH), dtype)
    batch = Batch(struct(jnp.int32), struct(bool), struct(jnp.int32), struct(jnp.float32))
    gradients = jax.value_and_grad(step.Losses(graph).of)
    assert found == pytest.approx(counted.flop(gradients, trained, frozen, batch), rel=0.08)


def test_what_is_trained_is_divided_and_what_is_kept_counts():
    design, config = zoo.configure(LLAMA, source="test")
    network = zoo.abstract(design, config)
    shape = (8, LENGTH)
    of = lambda rank, kept, *mesh: training.device_bytes(
        config, network, How(rank, kept, "float32"), shape, Layout(*mesh, False)
    )
    assert of(0, "inputs", 1, 1) < of(0, "products", 1, 1) < of(0, "all", 1, 1)
    assert of(4, "all", 1, 1) < of(0, "all", 1, 1)
    assert of(0, "all", 4, 1) < of(0, "all", 2, 1) < of(0, "all", 1, 1)
    whole = of(0, "inputs", 1, 1)
    assert whole > 16 * how_many(network)


def how_many(network):
    return How(0, "all", "float32").num_trained(network)
