"""Formulas of networks' passes, against products counted in the traced programs."""

import counted
import jax
import jax.numpy as jnp
import pytest

from jaxalign.data.text.batches import Reads, Shape
from jaxalign.models import zoo
from jaxalign.pricing import networks
from jaxalign.pricing.work import Layout
from jaxalign.stages.extract import forward

GPT2 = {
    "model_type": "gpt2",
    "vocab_size": 1000,
    "n_positions": 1024,
    "n_embd": 64,
    "n_layer": 3,
    "n_head": 4,
}
LLAMA = {
    "model_type": "llama",
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 172,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
}
OPT = {
    "model_type": "opt",
    "vocab_size": 1000,
    "max_position_embeddings": 512,
    "hidden_size": 64,
    "word_embed_proj_dim": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_dim": 128,
    "do_layer_norm_before": False,
}
BERT = {
    "model_type": "bert",
    "vocab_size": 1000,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 512,
}
# Blocks that share their parameters, and query heads that share keys and values.
ALBERT = BERT | {"model_type": "albert", "embedding_size": 32}
FALCON = {name: x for name, x in BERT.items() if name != "intermediate_size"}
FALCON |= {"model_type": "falcon", "num_hidden_layers": 2}
T5 = {
    "model_type": "t5",
    "vocab_size": 1000,
    "d_model": 64,
    "d_kv": 16,
    "d_ff": 128,
    "num_layers": 2,
    "num_decoder_layers": 3,
    "num_heads": 4,
    "feed_forward_proj": "gated-gelu",
    "tie_word_embeddings": False,
}


def struct(shape, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(shape, dtype)


def arguments(shape):
    """Return the arrays of a batch of a shape, and the numbers of its sums."""
    tokens = (shape.rows, shape.length)

    def reads(entries):
        of = (shape.rows, entries)
        return Reads(struct(of, jnp.int32), struct(of), struct(of, jnp.int32))

    bits = reads(shape.predicted_entries) if shape.predicted else None
    arrays = (struct(tokens, jnp.int32), struct(tokens, bool), reads(shape.entries), bits)
    return arrays, (shape.parts, shape.predicted)


@pytest.mark.parametrize(
    "hf,shape,text",
    [
        (GPT2, Shape(4, 64, 2, 32), "both"),
        (GPT2, Shape(2, 384, 8, 64, 8, 64), "both"),
        (LLAMA, Shape(4, 64, 2, 32, 2, 32), "both"),
        (LLAMA, Shape(2, 400, 2, 32), "both"),
        (OPT, Shape(4, 96, 2, 32, 2, 32), "both"),
        (BERT, Shape(4, 192, 2, 32), "both"),
        (ALBERT, Shape(4, 192, 2, 32), "both"),
        (FALCON, Shape(4, 64, 2, 32, 2, 32), "both"),
        (T5, Shape(4, 96, 2, 32), "both"),
        (T5, Shape(4, 96, 2, 32), "encoder"),
        (T5, Shape(4, 96, 2, 32), "decoder"),
    ],
)
def test_arithmetic_is_that_of_the_traced_program(hf, shape, text):
    design, config = zoo.configure(hf, source="test", t5_text=text)
    network = zoo.abstract(design, config)
    arrays, num_sums = arguments(shape)
    run = lambda network, arrays: forward._forward.__wrapped__(
        network, arrays, num_sums=num_sums, tap="residual"
    )
    found = networks.flop(config, network, shape)
    assert found == pytest.approx(counted.flop(run, network, arrays), rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("hf", [GPT2, BERT])
def test_arithmetic_of_one_layer_is_that_of_the_compiler(hf):
    """XLA counts the body of a scan once, so that a network of one layer is counted right."""
    name = "n_layer" if "n_layer" in hf else "num_hidden_layers"
    sizes = {"n_embd": 256} if "n_layer" in hf else {"hidden_size": 256, "intermediate_size": 1024}
    design, config = zoo.configure(hf | sizes | {name: 1}, source="test")
    network, shape = zoo.abstract(design, config), Shape(8, 128, 2, 32)
    arrays, num_sums = arguments(shape)
    lowered = forward._forward.lower(network, arrays, num_sums=num_sums, tap="residual")
    counted_by_xla = lowered.compile().cost_analysis()["flops"]
    # It counts norms, activations and softmax too.
    assert networks.flop(config, network, shape) == pytest.approx(counted_by_xla, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    "hf,shape,dtype",
    [
        (GPT2 | {"n_embd": 256}, Shape(32, 128, 4, 64), "float32"),
        (LLAMA | {"hidden_size": 256, "intermediate_size": 688}, Shape(8, 512, 64, 64), "float32"),
    ],
)
def test_memory_is_that_of_the_compiled_program(hf, shape, dtype):
    design, config = zoo.configure(hf, source="test")
    network = zoo.abstract(design, config, dtype)
    arrays, num_sums = arguments(shape)
    lowered = forward._forward.lower(network, arrays, num_sums=num_sums, tap="residual")
    found = lowered.compile().memory_analysis()
    # On CPU the peak leaves out what is temporary.
    needed = found.argument_size_in_bytes + found.temp_size_in_bytes + found.output_size_in_bytes
    planned = networks.pass_bytes(config, network, shape, Layout())
    assert planned == pytest.approx(needed, rel=0.3)


def test_parameters_are_divided_over_the_model_axis_alone():
    design, config = zoo.configure(LLAMA, source="test")
    network = zoo.abstract(design, config, "bfloat16")
    whole = networks.parameter_bytes(network, Layout())
    assert networks.parameter_bytes(network, Layout(4, 1)) == whole
    halves = networks.parameter_bytes(network, Layout(1, 2))
    norms = 2 * (2 * 3 + 1) * 64
    assert halves == pytest.approx(norms + (whole - norms) / 2)
