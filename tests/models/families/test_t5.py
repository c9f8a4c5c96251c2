"""T5 of both versions against Hugging Face's, in each way that a text can be read."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import scipy.stats
from jax.sharding import PartitionSpec
from networks import (
    TOLERANCE,
    assert_layers_close,
    assert_same,
    forward,
    parameters,
    place,
    relative_error,
    run,
)

from jaxalign.core import mesh as mesh_lib
from jaxalign.errors import InputError
from jaxalign.models import readers, weights, zoo
from jaxalign.models.families import base, encoder_decoder
from jaxalign.models.families.encoder_decoder import TEXTS

NAMES = ("t5_v1_0", "t5_v1_1")
STACKS = {"t5_v1_0": (2, 3), "t5_v1_1": (3, 2)}  # layers of encoder and decoder


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def expected(name, golden):
    return dict(np.load(golden / name / "expected.npz"))


@pytest.fixture(scope="module")
def models(name, golden):
    return {text: zoo.find(str(golden / name), None, t5_text=text) for text in TEXTS}


@pytest.fixture(scope="module")
def networks(models, mesh):
    return {text: model.load(mesh) for text, model in models.items()}


def states(expected, text, length):
    """What torch found, in the order of our layers; the start token left out."""
    prefix = "causal_" if text == "decoder" else ""
    decoder = expected[f"{prefix}decoder_{length}"][:, :, 1:]
    encoder = expected[f"encoder_{length}"]
    layers = {
        "both": np.concatenate([encoder, decoder[1:]]),
        "encoder": encoder,
        "decoder": decoder,
    }[text]
    return layers, expected[f"{prefix}logits_{length}"][:, 1:]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("length", [pytest.param(7, marks=pytest.mark.slow), 13])
def test_matches_hugging_face(networks, expected, mesh, text, length):
    """Every hidden state of both stacks and all logits, of padded and of full rows."""
    tokens, mask = expected[f"tokens_{length}"], expected[f"mask_{length}"]
    assert mask.all(axis=1).any() and not mask.all()
    output = run(networks[text], tokens, mask, mesh)
    hidden, logits = states(expected, text, length)
    assert_layers_close(output.hidden, hidden, mask)
    if text == "encoder":
        assert output.logits is None
    else:
        assert_layers_close(output.logits[None], logits[None], mask)


@pytest.mark.slow
@pytest.mark.parametrize("text", TEXTS)
def test_two_by_two_devices_match_too(models, expected, text):
    mesh = mesh_lib.make_mesh(2, 2)
    network = models[text].load(mesh)
    tokens, mask = expected["tokens_13"], expected["mask_13"]
    output = run(network, tokens, mask, mesh)
    assert_layers_close(output.hidden, states(expected, text, 13)[0], mask)
    query = network.encoder.blocks.attention.query.kernel[...]
    assert query.sharding.spec == PartitionSpec(None, None, "model")
    assert query.addressable_shards[0].data.shape[-1] == query.shape[-1] // 2
    assert network.encoder.distances.table[...].sharding.spec == PartitionSpec(None, "model")


@pytest.mark.parametrize("length", [pytest.param(7, marks=pytest.mark.slow), 13])
def test_parts_of_blocks_match_hugging_face(networks, expected, mesh, length):
    tokens, mask = expected[f"tokens_{length}"], expected[f"mask_{length}"]
    output = run(networks["both"], tokens, mask, mesh, taps=("mlp", "attention"))
    assert output.taps.keys() == {"mlp", "attention"}
    for tap in ("mlp", "attention"):
        assert_layers_close(output.taps[tap], expected[f"{tap}_{length}"], mask)


def test_parts_of_the_encoder_add_up_to_its_residual_stream(name, networks, expected, mesh):
    output = run(
        networks["encoder"], expected["tokens_7"], expected["mask_7"], mesh, taps=base.TAPS
    )
    residual = np.asarray(output.hidden)
    added = np.asarray(output.taps["attention"]) + np.asarray(output.taps["mlp"])
    assert len(added) == STACKS[name][0]
    # The last is normed.
    np.testing.assert_allclose(residual[:-2] + added[:-1], residual[1:-1], rtol=0, atol=2e-5)


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.slow
def test_layers_say_which_stack_is_theirs(name, models, networks, expected, mesh, text):
    encoder, decoder = STACKS[name]
    names = {
        "both": [f"encoder.{i + 1}" for i in range(encoder)]
        + [f"decoder.{i + 1}" for i in range(decoder)],
        "encoder": [f"encoder.{i + 1}" for i in range(encoder)],
        "decoder": [f"decoder.{i + 1}" for i in range(decoder)],
    }[text]
    output = run(networks[text], expected["tokens_7"], expected["mask_7"], mesh)
    assert models[text].layer_names == ("embedding", *names)
    assert len(output.hidden) == models[text].config.num_layers + 1 == len(names) + 1
    assert models[text].final_norm_applied is True


@pytest.mark.slow
def test_pooling_inside_the_scan_equals_pooling_outside(networks, expected, mesh):
    """Also where the decoder's rows are longer by the start token."""
    tokens, mask = expected["tokens_13"], expected["mask_13"]
    shares = (mask / mask.sum(axis=1, keepdims=True)).astype(np.float32)

    @jax.jit
    @jax.default_matmul_precision("highest")
    def pooled(network, tokens, mask, shares):
        pool = lambda x_BTD: jnp.einsum("BTD,BT->BD", x_BTD, shares)
        return network(tokens, mask, pool=pool).hidden

    inside = pooled(networks["both"], *(place(x, mesh) for x in (tokens, mask, shares)))
    outside = np.einsum("LBTD,BT->LBD", states(expected, "both", 13)[0].astype(float), shares)
    np.testing.assert_allclose(inside, outside, rtol=0, atol=TOLERANCE * np.abs(outside).max())


@pytest.mark.parametrize("text", TEXTS)
def test_padding_is_without_influence(networks, expected, mesh, text):
    tokens, mask = expected["tokens_13"], expected["mask_13"]
    other = np.where(mask, tokens, (tokens + 5) % 128)
    output, changed = (run(networks[text], x, mask, mesh) for x in (tokens, other))
    np.testing.assert_array_equal(
        np.asarray(output.hidden)[:, mask], np.asarray(changed.hidden)[:, mask]
    )


@pytest.mark.parametrize("text", TEXTS)
def test_only_the_decoder_alone_is_causal(models, networks, expected, mesh, text):
    tokens = expected["tokens_13"]
    mask = np.ones_like(expected["mask_13"])
    other = tokens.copy()
    other[:, -1] = 1 + tokens[:, -1] % 100
    output, changed = (
        np.asarray(run(networks[text], x, mask, mesh).hidden) for x in (tokens, other)
    )
    difference = np.abs(output - changed)[-1, :, :-1].max()
    assert models[text].config.causal is (text == "decoder")
    assert difference == 0 if text == "decoder" else difference > 1e-2


@pytest.mark.parametrize("num_buckets,max_distance", [(32, 128), (8, 10), (12, 40)])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_buckets_are_hugging_faces(expected, num_buckets, max_distance, bidirectional):
    found = encoder_decoder.buckets(
        jnp.arange(-300, 301),
        bidirectional=bidirectional,
        num_buckets=num_buckets,
        max_distance=max_distance,
    )
    key = f"buckets_{num_buckets}_{max_distance}_{int(bidirectional)}"
    np.testing.assert_array_equal(found, expected[key])
    assert len(set(expected[key].tolist())) > num_buckets / 2


@pytest.mark.slow
def test_bfloat16_is_close_to_float32(models, expected, mesh):
    tokens, mask = expected["tokens_13"], expected["mask_13"]
    network = models["both"].load(mesh, dtype="bfloat16")
    output = run(network, tokens, mask, mesh)
    assert output.hidden.dtype == output.logits.dtype == jnp.bfloat16
    error = relative_error(output.hidden, states(expected, "both", 13)[0], mask)
    # Eight bits of mantissa: 2e-3 per rounding, some twenty roundings per block, five blocks.
    np.testing.assert_array_less(error, 0.06)
    assert (error[1:] > 1e-4).all()


@pytest.mark.slow
def test_untrained_weights_have_hugging_faces_deviations(models, mesh):
    """The golden configurations ask for a factor of 0.5."""
    network = parameters(models["both"].load(mesh, untrained_seed=3))
    width, heads_size, head_size, mlp = 24, 20, 10, 40
    deviation = {
        "table": 1.0,
        "distances/table": width**-0.5,
        "head/kernel": 1.0,
        "query/kernel": (width * head_size) ** -0.5,
        "key/kernel": width**-0.5,
        "value/kernel": width**-0.5,
        "out/kernel": heads_size**-0.5,
        "mlp_in/kernel": width**-0.5,
        "mlp_gate/kernel": width**-0.5,
        "mlp_linear/kernel": width**-0.5,
        "mlp_out/kernel": mlp**-0.5,
    }
    drawn = []
    for path, array in network.items():
        if path.endswith("scale"):
            np.testing.assert_array_equal(array, 0.5, err_msg=path)
            continue
        key = max((key for key in deviation if path.endswith(key)), key=len)
        standard = array.ravel() / (0.5 * deviation[key])
        if standard.size > 100:  # the tables of distances are too short to tell
            assert scipy.stats.kstest(standard, "norm").pvalue > 1e-3, path
        drawn.append(standard)
    assert scipy.stats.kstest(np.concatenate(drawn), "norm").pvalue > 1e-3


@pytest.mark.slow
def test_program_does_not_grow_with_depth(models):
    def num_lines(depth):
        config = dataclasses.replace(
            models["both"].config, num_encoder_layers=depth, num_decoder_layers=depth
        )
        network = zoo.abstract(models["both"].design, config)
        tokens = jax.ShapeDtypeStruct((4, 8), jnp.int32)
        mask = jax.ShapeDtypeStruct((4, 8), jnp.bool)
        return len(forward.lower(network, tokens, mask).as_text().splitlines())

    assert num_lines(2) == num_lines(12) > 50


def test_config_hash_follows_the_way_of_reading(models):
    assert len({model.config_hash for model in models.values()}) == 3
    assert len({model.weights_hash for model in models.values()}) == 1


@pytest.mark.slow
def test_encoder_is_loaded_without_the_decoder(models, networks):
    assert not any(path.startswith(("decoder", "head")) for path in parameters(networks["encoder"]))
    assert models["encoder"].num_parameters < models["both"].num_parameters


def test_checkpoint_of_the_encoder_alone(copy_golden, models, networks, mesh, name):
    """As T5EncoderModel saves it: enough to read with the encoder, and for nothing else."""
    folder = copy_golden(name)
    file = folder / "model.safetensors"
    tensors = safetensors.numpy.load_file(file)
    tensors = {k: v for k, v in tensors.items() if not k.startswith(("decoder.", "lm_head"))}
    tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"]
    safetensors.numpy.save_file(tensors, file)
    assert_same(zoo.find(str(folder), None, t5_text="encoder").load(mesh), networks["encoder"])
    with pytest.raises(InputError, match="an encoder alone: read it with extract.t5_text=enc"):
        zoo.find(str(folder), None, t5_text="both")


@pytest.mark.slow
def test_head_as_transformers_5_describes_it(copy_golden, golden):
    """It calls every T5 tied; an untied head shows in the file, and in logits without scaling."""
    folder = copy_golden("t5_v1_1", tie_word_embeddings=True)
    expected = zoo.find(str(golden / "t5_v1_1"), None).config
    assert zoo.find(str(folder), None).config == expected and not expected.tied_embeddings
    older = copy_golden("t5_v1_0", scale_decoder_outputs=..., tie_word_embeddings=...)
    config = zoo.find(str(older), None).config
    assert config.tied_embeddings and config.scaled_logits
    hf = json.loads((golden / "t5_v1_1" / "config.json").read_text())
    del hf["scale_decoder_outputs"]
    assert readers.family("t5").config_from_hf(hf) == expected


def test_keys_left_out_are_hugging_faces_defaults():
    config = readers.family("t5").config_from_hf(
        {"vocab_size": 10, "d_model": 8, "d_ff": 12, "num_layers": 3, "num_heads": 2}
    )
    assert (config.num_encoder_layers, config.num_decoder_layers) == (3, 3)
    assert (config.head_size, config.num_buckets, config.max_distance) == (64, 32, 128)
    assert (config.activation, config.norm_eps, config.init_factor) == ("relu", 1e-6, 1.0)
    assert (config.start_token, config.end_token, config.max_length) == (0, 1, 512)
    assert config.tied_embeddings and config.scaled_logits and config.text == "both"


@pytest.mark.parametrize(
    "changes,message",
    [
        (
            {"feed_forward_proj": "gated-swiglu"},
            "feed_forward_proj must be an activation or gated-",
        ),
        ({"eos_token_id": [1, 2]}, "eos_token_id must be an integer from 0 to"),
        ({"decoder_start_token_id": 10_000}, "must be a token of the .* of the vocabulary"),
        ({"relative_attention_num_buckets": 6}, "must be a multiple of 4.* found 6 and 10"),
        ({"relative_attention_max_distance": 4}, "more than half of it: found 8 and 4"),
        ({"d_model": ...}, "must set 'd_model': it is missing"),
    ],
)
def test_configurations_that_are_refused(copy_golden, changes, message):
    with pytest.raises(InputError, match=message):
        zoo.find(str(copy_golden("t5_v1_0", **changes)), None)


def test_unknown_way_of_reading_is_refused(golden):
    with pytest.raises(InputError, match="t5_text must be one of both, encoder, decoder, got 'x'"):
        zoo.find(str(golden / "t5_v1_0"), None, t5_text="x")


def test_golden_files_say_what_made_them(expected):
    versions = json.loads(str(expected["versions"]))
    assert {"torch", "transformers", "numpy"} <= versions.keys()


@pytest.mark.slow
def test_full_size_runs_in_shapes():
    design, config = zoo.describe("t5-xxl")
    network = zoo.abstract(design, config, "bfloat16")
    assert weights.count(network) == 11_135_332_352
    hidden = jax.eval_shape(
        lambda network, tokens, mask: network(tokens, mask).hidden,
        network,
        jax.ShapeDtypeStruct((2, 512), jnp.int32),
        jax.ShapeDtypeStruct((2, 512), jnp.bool),
    )
    assert hidden.shape == (49, 2, 512, 4096) and hidden.dtype == jnp.bfloat16
