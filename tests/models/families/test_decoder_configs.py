"""Published config.json files: their parameters, what they leave out, and what is refused."""

import json
import re

import jax.numpy as jnp
import numpy as np
import published_configs
import pytest
from refusals import refused

from jaxalign.errors import InputError
from jaxalign.models import readers, weights, zoo
from jaxalign.models.families import attention, decoder, layers

# The keys that shape the network, as the files on the hub write them, and the numbers of
# parameters that their checkpoints hold.
PUBLISHED = {
    "gpt2": (
        {"model_type": "gpt2", "activation_function": "gelu_new", "n_ctx": 1024, "n_embd": 768}
        | {"n_head": 12, "n_layer": 12, "n_positions": 1024, "vocab_size": 50257}
        | {"layer_norm_epsilon": 1e-5, "initializer_range": 0.02},
        124_439_808,
    ),
    "opt-125m": (
        {"model_type": "opt", "hidden_size": 768, "ffn_dim": 3072, "num_attention_heads": 12}
        | {"num_hidden_layers": 12, "vocab_size": 50272, "word_embed_proj_dim": 768}
        | {"do_layer_norm_before": True, "_remove_final_layer_norm": False, "pad_token_id": 1}
        | {"activation_function": "relu", "init_std": 0.02, "max_position_embeddings": 2048},
        125_239_296,
    ),
    "opt-350m": (
        {"model_type": "opt", "hidden_size": 1024, "ffn_dim": 4096, "num_attention_heads": 16}
        | {"num_hidden_layers": 24, "vocab_size": 50272, "word_embed_proj_dim": 512}
        | {"do_layer_norm_before": False, "max_position_embeddings": 2048},
        331_196_416,
    ),
    "pythia-70m": (
        {"model_type": "gpt_neox", "hidden_size": 512, "intermediate_size": 2048}
        | {"num_attention_heads": 8, "num_hidden_layers": 6, "vocab_size": 50304}
        | {"rotary_pct": 0.25, "rotary_emb_base": 10000, "use_parallel_residual": True}
        | {"hidden_act": "gelu", "layer_norm_eps": 1e-5, "tie_word_embeddings": False},
        70_426_624,
    ),
    "gpt-j-6b": (
        {"model_type": "gptj", "n_embd": 4096, "n_head": 16, "n_layer": 28, "n_inner": None}
        | {"n_positions": 2048, "rotary_dim": 64, "rotary": True, "vocab_size": 50400}
        | {"scale_attn_weights": True, "tie_word_embeddings": False},
        6_050_882_784,
    ),
    "bloom-560m": (
        {"model_type": "bloom", "n_embed": 1024, "n_layer": 24, "num_attention_heads": 16}
        | {"n_inner": None, "vocab_size": 250880, "seq_length": 2048}
        | {"apply_residual_connection_post_layernorm": False},
        559_214_592,
    ),
    "llama-7b": (
        {"model_type": "llama", "hidden_act": "silu", "hidden_size": 4096}
        | {"intermediate_size": 11008, "num_attention_heads": 32, "num_hidden_layers": 32}
        | {"rms_norm_eps": 1e-6, "vocab_size": 32000, "max_sequence_length": 2048},
        6_738_415_616,
    ),
    "llama-3.2-1b": (
        {"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "head_dim": 64}
        | {"num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 16}
        | {"max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "vocab_size": 128256}
        | {"rope_theta": 500000.0, "tie_word_embeddings": True, "pretraining_tp": 1}
        | {
            "rope_scaling": {"factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0}
            | {"original_max_position_embeddings": 8192, "rope_type": "llama3"}
        },
        1_235_814_400,
    ),
    "mistral-7b": (
        {"model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336}
        | {"num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 32}
        | {"max_position_embeddings": 32768, "rms_norm_eps": 1e-5, "rope_theta": 10000.0}
        | {"sliding_window": 4096, "vocab_size": 32000, "tie_word_embeddings": False},
        7_241_732_096,
    ),
    "qwen2-0.5b": (
        {"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864}
        | {"num_attention_heads": 14, "num_key_value_heads": 2, "num_hidden_layers": 24}
        | {"max_position_embeddings": 131072, "max_window_layers": 24, "sliding_window": 131072}
        | {"use_sliding_window": False, "tie_word_embeddings": True, "rope_theta": 1e6}
        | {"vocab_size": 151936, "rms_norm_eps": 1e-6},
        494_032_768,
    ),
    "qwen3-0.6b": (
        {"model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "head_dim": 128}
        | {"num_attention_heads": 16, "num_key_value_heads": 8, "num_hidden_layers": 28}
        | {"max_position_embeddings": 40960, "sliding_window": None, "rope_scaling": None}
        | {"use_sliding_window": False, "tie_word_embeddings": True, "rope_theta": 1000000}
        | {"vocab_size": 151936, "attention_bias": False},
        596_049_920,
    ),
    "gemma-2b": (
        {"model_type": "gemma", "hidden_act": "gelu", "hidden_size": 2048, "head_dim": 256}
        | {"intermediate_size": 16384, "num_attention_heads": 8, "num_key_value_heads": 1}
        | {"num_hidden_layers": 18, "vocab_size": 256000, "rope_theta": 10000.0},
        2_506_172_416,
    ),
    "gemma-2-2b": (
        {"model_type": "gemma2", "hidden_activation": "gelu_pytorch_tanh", "hidden_size": 2304}
        | {"intermediate_size": 9216, "num_attention_heads": 8, "num_key_value_heads": 4}
        | {"num_hidden_layers": 26, "vocab_size": 256000, "sliding_window": 4096, "head_dim": 256}
        | {"query_pre_attn_scalar": 256, "attn_logit_softcapping": 50.0}
        | {"final_logit_softcapping": 30.0, "cache_implementation": "hybrid"},
        2_614_341_888,
    ),
    "gemma-3-1b": (
        {"model_type": "gemma3_text", "hidden_size": 1152, "intermediate_size": 6912}
        | {"num_attention_heads": 4, "num_key_value_heads": 1, "num_hidden_layers": 26}
        | {"head_dim": 256, "vocab_size": 262144, "sliding_window": 512}
        | {"sliding_window_pattern": 6, "rope_theta": 1000000, "rope_local_base_freq": 10000}
        | {"rope_scaling": None, "max_position_embeddings": 32768},
        999_885_952,
    ),
    # The file of the 4B model leaves out heads and vocabulary; without its vision tower.
    "gemma-3-4b": (
        {"model_type": "gemma3", "vision_config": {"hidden_size": 1152}}
        | {
            "text_config": {"model_type": "gemma3_text", "hidden_size": 2560}
            | {"intermediate_size": 10240, "num_hidden_layers": 34, "sliding_window": 1024}
            | {"rope_scaling": {"factor": 8.0, "rope_type": "linear"}}
        },
        3_880_263_168,
    ),
    "phi-3-mini-4k": (
        {"model_type": "phi3", "hidden_size": 3072, "intermediate_size": 8192}
        | {"num_attention_heads": 32, "num_key_value_heads": 32, "num_hidden_layers": 32}
        | {"max_position_embeddings": 4096, "original_max_position_embeddings": 4096}
        | {"rope_scaling": None, "rope_theta": 10000.0, "sliding_window": 2047}
        | {"rms_norm_eps": 1e-5, "vocab_size": 32064, "attention_bias": False},
        3_821_079_552,
    ),
} | published_configs.LATER


def read(hf):
    return readers.family(hf["model_type"]).config_from_hf(hf)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_files_have_the_published_number_of_parameters(name):
    hf, num_parameters = PUBLISHED[name]
    family, config = readers.family(hf["model_type"]), read(hf)
    network = weights.abstract(family.network, config, dtype=jnp.dtype("bfloat16"))
    assert weights.count(network) == num_parameters
    assert weights.parameters(network).keys() <= family.tensors(config).keys()


def test_every_decoder_of_the_zoo_is_published():
    decoders = {k for k in readers.FAMILIES if readers.family(k).network is decoder.Network}
    assert decoders == {hf["model_type"] for hf, _ in PUBLISHED.values()}


def test_what_files_leave_out():
    """Values that no count of parameters tells, as Hugging Face's classes have them."""
    config = {name: read(hf) for name, (hf, _) in PUBLISHED.items()}
    assert config["llama-7b"].max_length == 2048
    assert config["llama-7b"].rope == layers.Rope(size=128)
    assert config["gpt2"].tied_embeddings and config["opt-125m"].tied_embeddings
    assert config["gpt2"].residual_init_sd == pytest.approx(0.02 / 24**0.5)
    assert config["bloom-560m"].num_heads == 16 and config["bloom-560m"].tied_embeddings
    assert config["gpt-j-6b"].mlp_size == 16384 and config["gpt-j-6b"].norm_eps == 1e-5
    assert config["gpt-j-6b"].rope == layers.Rope(size=64, interleaved=True)
    assert config["pythia-70m"].rope == layers.Rope(size=16)
    assert config["pythia-70m"].max_length == 2048
    assert config["qwen2-0.5b"].windows == config["qwen3-0.6b"].windows == ()
    assert config["mistral-7b"].windows == (4096,) * 32
    assert config["gemma-2b"].activation == "gelu_tanh" and config["gemma-2b"].tied_embeddings
    assert config["gemma-2-2b"].windows == (4096, 0) * 13
    assert config["gemma-3-1b"].windows == ((512,) * 5 + (0,)) * 4 + (512,) * 2
    four = config["gemma-3-4b"]
    assert (four.num_heads, four.num_kv_heads, four.vocab_size) == (8, 4, 262208)
    assert four.rope == layers.Rope(size=256, theta=1e6, scaling="linear", factor=8.0)
    assert four.local_rope == layers.Rope(size=256, theta=1e4)
    assert four.attention_scale == 1 / 16 and four.max_length == 131072
    assert config["phi-3-mini-4k"].windows == (2047,) * 32


def test_windows_of_null_are_none():
    hf, _ = PUBLISHED["mistral-7b"]
    assert read(hf | {"sliding_window": None}).windows == ()
    del (without := dict(hf))["sliding_window"]
    assert read(without).windows == (4096,) * 32  # Hugging Face's default


def test_qwen_slides_from_max_window_layers_on():
    hf, _ = PUBLISHED["qwen2-0.5b"]
    sliding = hf | {"use_sliding_window": True, "sliding_window": 64, "max_window_layers": 20}
    assert read(sliding).windows == (0,) * 20 + (64,) * 4


def test_long_phi_3_stops_where_its_frequencies_would_change():
    """Beyond the original length all tokens, also the first ones, are turned otherwise."""
    hf, _ = PUBLISHED["phi-3-mini-4k"]
    factors = [1.0 + i / 48 for i in range(48)]
    scaling = {"type": "su", "short_factor": factors, "long_factor": [9.0] * 48}
    config = read(hf | {"max_position_embeddings": 131072, "rope_scaling": scaling})
    assert config.max_length == 4096
    assert config.rope.magnitude == pytest.approx((1 + np.log(32) / np.log(4096)) ** 0.5)
    plain = layers.Rope(size=96).frequencies()
    np.testing.assert_allclose(config.rope.frequencies(), plain / np.array(factors), rtol=1e-6)


def test_longrope_stops_there_in_every_family():
    scaling = {"rope_type": "longrope", "factor": 4.0, "original_max_position_embeddings": 500}
    scaling |= {"short_factor": [1.0] * 64, "long_factor": [9.0] * 64}
    assert read(PUBLISHED["mistral-7b"][0] | {"rope_scaling": scaling}).max_length == 500
    scaling |= {"short_factor": [1.0] * 8}
    assert read(PUBLISHED["pythia-70m"][0] | {"rope_scaling": scaling}).max_length == 500


def test_llama_3_keeps_fast_turns_and_stretches_slow_ones():
    rope = read(PUBLISHED["llama-3.2-1b"][0]).rope
    plain = layers.Rope(size=64, theta=500_000.0).frequencies()
    ratio = plain / rope.frequencies()
    wavelength = 2 * np.pi / plain
    np.testing.assert_allclose(ratio[wavelength < 8192 / 4], 1, rtol=1e-6)
    np.testing.assert_allclose(ratio[wavelength > 8192], 32, rtol=1e-6)
    between = ratio[(wavelength > 8192 / 4) & (wavelength < 8192)]
    assert len(between) > 1 and ((between > 1) & (between < 32)).all()
    assert (np.diff(between) > 0).all()


def test_alibi_slopes():
    """Of eight heads 1/2, 1/4, ... 1/256; of twelve with every other of sixteen's between."""
    np.testing.assert_allclose(attention.alibi_slopes(8), 0.5 ** np.arange(1, 9))
    expected = [*0.5 ** np.arange(1, 9), *0.5 ** np.array([0.5, 1.5, 2.5, 3.5])]
    np.testing.assert_allclose(attention.alibi_slopes(12), expected, rtol=1e-6)


# Refusals.


@pytest.mark.parametrize(
    "name,changes,found",
    [
        ("gpt2", {"add_cross_attention": True}, "must be False, found True"),
        ("gpt2", {"activation_function": "swiglu"}, "must be one of relu, silu, gelu"),
        ("pythia-70m", {"rotary_pct": 0.01}, "must be an even number up to 64, found 0"),
        ("pythia-70m", {"rope_theta": 500.0, "rotary_emb_base": None}, "must be called rotary_emb"),
        ("gpt-j-6b", {"rotary_dim": None}, "must be an integer from 1 to 2147483647, found None"),
        ("gpt-j-6b", {"rotary_dim": 63}, "must be an even number up to 256, found 63"),
        ("bloom-560m", {"n_inner": 7}, "must be 4096, four times the width"),
        ("llama-7b", {"hidden_act": "xielu"}, "must be one of relu, silu, gelu"),
        ("llama-7b", {"partial_rotary_factor": 0.5}, "must be 1 in this family, found 0.5"),
        ("llama-7b", {"sliding_window": 7}, "'sliding_window': 7; take a key out"),
        ("llama-7b", {"is_causal": False}, "must be True, found False"),
        (
            "mistral-7b",
            {"layer_types": ["sliding_attention"] * 3},
            "found 3 of 'sliding_attention'",
        ),
        ("phi-3-mini-4k", {"lm_head_bias": True}, "must be False, found True"),
        ("qwen2-0.5b", {"layer_types": ["chunked_attention"] * 24}, "must name each layer"),
        ("gemma-2b", {"hidden_activation": "silu"}, "must agree, found 'gelu' and 'silu'"),
        ("gemma-2-2b", {"use_bidirectional_attention": True}, "must be False, found True"),
        ("gemma-3-1b", {"layer_types": ["full_attention"]}, "must name each layer"),
    ],
)
def test_variants_that_are_not_built(name, changes, found):
    hf, _ = PUBLISHED[name]
    with pytest.raises(InputError, match=re.escape(found)) as error:
        read(hf | changes)
    assert str(error.value).startswith("config.json") and next(iter(changes)) in str(error.value)


def test_bloom_without_two_of_its_biases():
    """transformers leaves them out of a sum over slices: no network that was trained."""
    hf, _ = PUBLISHED["bloom-560m"]
    assert read(hf | {"slow_but_exact": True}) == read(hf | {"pretraining_tp": 4}) == read(hf)
    with refused("slow_but_exact must be false where pretraining_tp is above 1, found 4"):
        read(hf | {"slow_but_exact": True, "pretraining_tp": 4})


@pytest.mark.parametrize("name", ["llama-3.2-1b", "qwen2-0.5b", "pythia-70m", "gemma-3-1b"])
@pytest.mark.parametrize("kind", ["proportional", "mrope"])
def test_rotary_scalings_that_are_not_built(name, kind):
    hf, _ = PUBLISHED[name]
    with refused("config.json: rope_type must be one of default, linear", f"found {kind!r}"):
        read(hf | {"rope_scaling": {"rope_type": kind, "factor": 2.0}})


def test_long_factors_of_another_number():
    hf, _ = PUBLISHED["phi-3-mini-4k"]
    scaling = {"type": "longrope", "short_factor": [1.0] * 3, "long_factor": [1.0] * 3}
    with refused("short_factor must have 48 numbers, found 3"):
        read(hf | {"rope_scaling": scaling})


def test_heads_that_do_not_divide():
    with refused("num_key_value_heads must divide num_attention_heads", "found 5, 32 and 4096"):
        read(PUBLISHED["mistral-7b"][0] | {"num_key_value_heads": 5})
    with refused("must divide", "found 7, 7 and 768"):
        read(PUBLISHED["gpt2"][0] | {"n_head": 7})


@pytest.mark.slow
def test_fused_tensor_of_another_size(copy_golden):
    """The stored tensor is named with the shape that all its parts need."""
    folder = copy_golden("decoders/phi3", num_key_value_heads=4)
    name = "layers.0.self_attn.qkv_proj.weight"
    with refused(f"tensor {name} must have shape [72, 24], found [48, 24]"):
        zoo.find(str(folder), None)
    assert json.loads((folder / "config.json").read_text())["num_key_value_heads"] == 4
