"""Every causal family against Hugging Face's, on tiny checkpoints; see golden/make_decoders.py."""

import dataclasses
import functools
import json
import math

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
import safetensors.numpy
from decoder_names import NAMES
from hypothesis import given
from hypothesis import strategies as st
from networks import TOLERANCE, assert_layers_close, assert_same, parameters, relative_error

from jaxalign.core import mesh as mesh_lib
from jaxalign.models import generate, readers, weights, zoo
from jaxalign.models.families import base

forward = functools.partial(networks.forward, taps=base.TAPS)


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


@pytest.mark.parametrize("length", [pytest.param(5, marks=pytest.mark.slow), 11])
def test_matches_hugging_face(network, expected, length):
    """Every hidden state, what each sublayer adds, and all logits; padded and full rows.

    The short batch is padded to the long one's shape, which is compiled once.
    """
    tokens, mask = expected[f"tokens_{length}"], expected[f"mask_{length}"]
    assert mask.all(axis=1).any() and not mask.all()
    padding = [(0, 0), (0, 11 - length)]
    output = forward(network, np.pad(tokens, padding, constant_values=3), np.pad(mask, padding))
    assert_layers_close(output.hidden[:, :, :length], expected[f"hidden_{length}"], mask)
    assert_layers_close(output.logits[None, :, :length], expected[f"logits_{length}"][None], mask)
    assert output.logits.dtype == jnp.float32
    np.testing.assert_array_equal(output.hidden[-1], output.final)
    if length == 11:
        for tap in ("attention", "mlp"):
            assert_layers_close(output.taps[tap], expected[tap], mask)


@pytest.mark.slow
def test_positions_may_begin_anywhere(network, expected, name):
    if name == "bloom":
        pytest.skip("Hugging Face's BLOOM takes no positions; see the test of packed rows")
    tokens, mask = expected["tokens_11"], expected["mask_11"]
    positions = np.broadcast_to(9 + np.arange(11), tokens.shape)
    output = forward(network, tokens, mask, positions=positions)
    assert_layers_close(output.hidden, expected["shifted"], mask)


@pytest.mark.slow
def test_packed_texts_do_not_see_each_other(network, expected):
    """A text of five tokens and the beginning of another in one row, and padding after them."""
    first, second = expected["tokens_5"][0], expected["tokens_11"][1, :4]
    row = np.concatenate([first, second, [3, 3]])
    positions = np.array([0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5])
    mask = np.arange(11) < 9
    repeat = lambda x: np.repeat(x[None], 3, axis=0)
    hidden = forward(network, repeat(row), repeat(mask), positions=repeat(positions)).hidden
    whole = np.concatenate([expected["hidden_5"][:, 0], expected["hidden_11"][:, 1, :4]], axis=1)
    for i in range(3):
        assert_layers_close(hidden[:, i : i + 1, :9], whole[:, None], np.ones((1, 9), bool))


def test_earlier_states_do_not_depend_on_later_tokens(network, expected):
    tokens, mask = expected["tokens_11"], np.ones((3, 11), bool)
    other = tokens.copy()
    other[:, 7:] = 1 + tokens[:, 7:] % 100
    output, changed = forward(network, tokens, mask), forward(network, other, mask)
    for tap in base.TAPS:
        found, altered = np.asarray(output.taps[tap]), np.asarray(changed.taps[tap])
        np.testing.assert_array_equal(found[:, :, :7], altered[:, :, :7])
        assert np.abs(found - altered)[-1, :, 7:].max() > 1e-2


@pytest.mark.slow
def test_cache_continues_what_it_holds(network, expected):
    """Token by token, in rows of different lengths, equals the full pass."""
    tokens, mask = jnp.asarray(expected["tokens_11"]), jnp.asarray(expected["mask_11"])

    @jax.jit
    @jax.default_matmul_precision("highest")
    def one_by_one(network, tokens, mask):
        def step(cache, token_and_mask):
            token, counts = (x[:, None] for x in token_and_mask)
            output = network(token, counts, cache=cache)
            return output.cache, (output.hidden[:, :, 0], network.logits(output.final[:, 0]))

        # More slots than tokens: what is empty must not be seen.
        start = network.empty_cache(3, 14)
        cache, (hidden, logits) = jax.lax.scan(step, start, (tokens.T, mask.T))
        return cache.length, hidden.transpose(1, 2, 0, 3), logits.swapaxes(0, 1)

    length, hidden, logits = one_by_one(network, tokens, mask)
    assert length == 11
    mask = np.asarray(mask)
    assert_layers_close(hidden, expected["hidden_11"], mask)
    assert_layers_close(logits[None], expected["logits_11"][None], mask)


@pytest.mark.slow
def test_greedy_tokens_are_those_of_generate(network, expected):
    """Prompts of three lengths in one batch against `generate`, each prompt alone."""
    prompts, mask = jnp.asarray(expected["prompts"]), jnp.asarray(expected["prompt_mask"])
    found = generate.greedy(network, prompts, mask, generate.Ending(8))
    np.testing.assert_array_equal(found.tokens, expected["greedy"])


@pytest.mark.slow
def test_every_mesh_loads_the_same(model, network):
    """Each device reads its own pieces of fused tensors, of whole heads."""
    divided = model.load(mesh_lib.make_mesh(1, 4))
    assert_same(divided, network)
    query = divided.blocks.query.kernel[...]
    parts = math.gcd(model.config.num_heads, 4)
    assert query.addressable_shards[0].data.shape[2] == query.shape[2] // parts


def test_parameters_are_all_that_is_stored(model, folder):
    stored = safetensors.numpy.load_file(folder / "model.safetensors")
    assert model.num_parameters == sum(x.size for x in stored.values())


def test_final_norm_is_declared(name, model):
    assert model.final_norm_applied is (name != "opt_post")


@pytest.mark.slow
def test_untrained_weights_have_hugging_faces_statistics(name, model, expected, mesh):
    """Mean, deviation and rows of zeros of each stored tensor, its parts drawn alike."""
    if name in ("neox_serial", "phi3_long"):
        pytest.skip("drawn as the family's other checkpoint is")
    statistics = json.loads(str(expected["init"]))
    tensors = readers.family(model.design).tensors(model.config)
    for path, values in parameters(model.load(mesh, untrained_seed=3)).items():
        tensor = tensors[path]
        stacked = path.startswith("blocks/")
        names = [model.names[tensor.name.format(layer=i)] for i in range(3 if stacked else 1)]
        for name, layer in zip(names, values if stacked else [values], strict=True):
            mean, deviation, num_zero = statistics[name]
            if deviation == 0:
                np.testing.assert_array_equal(layer, mean, err_msg=path)
                continue
            if path == "words/table":
                assert (layer == 0).all(axis=1).sum() == num_zero
            # Two samples, the smaller one ours: five deviations of the difference.
            error = 5 * np.sqrt(2 / layer.size)
            assert abs(layer.mean() - mean) < error * deviation, path
            assert abs(np.log(layer.std() / deviation)) < error, path


# What need not be seen of every family.


def small(golden, mesh, name, **settings):
    return zoo.find(str(golden / "decoders" / name), None).load(mesh, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "gemma3"])
def test_bfloat16_is_close_to_float32(golden, mesh, name):
    expected = np.load(golden / "decoders" / name / "expected.npz")
    network = small(golden, mesh, name, dtype="bfloat16")
    mask = expected["mask_11"]
    output = forward(network, expected["tokens_11"], mask)
    assert output.hidden.dtype == jnp.bfloat16 and output.logits.dtype == jnp.float32
    error = relative_error(output.hidden, expected["hidden_11"], mask)
    # Eight bits of mantissa: 2e-3 per rounding, and some ten roundings in a row per block.
    np.testing.assert_array_less(error, 0.03)
    assert (error[1:] > 1e-4).all()
    assert network.empty_cache(1, 4).keys.dtype == jnp.bfloat16


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gpt2", "gemma3"])
def test_program_does_not_grow_with_depth(golden, name):
    model = zoo.find(str(golden / "decoders" / name), None)

    def num_lines(times):
        config = dataclasses.replace(
            model.config, num_layers=3 * times, windows=model.config.windows * times
        )
        network = weights.abstract(readers.family(model.design).network, config, dtype=jnp.float32)
        tokens = jax.ShapeDtypeStruct((2, 8), jnp.int32)
        mask = jax.ShapeDtypeStruct((2, 8), jnp.bool)
        return len(networks.forward.lower(network, tokens, mask).as_text().splitlines())

    assert num_lines(1) == num_lines(8) > 50


@pytest.mark.slow
def test_taps_are_pooled_inside_the_scan(golden, mesh):
    expected = np.load(golden / "decoders" / "gemma2" / "expected.npz")
    mask = expected["mask_11"]
    shares = jnp.asarray(mask / mask.sum(axis=1, keepdims=True), jnp.float32)

    @jax.jit
    @jax.default_matmul_precision("highest")
    def pooled(network, tokens, mask):
        pool = lambda x_BTD: jnp.einsum("BTD,BT->BD", x_BTD, shares)
        return network(tokens, mask, taps=("mlp", "residual"), pool=pool).taps

    taps = pooled(small(golden, mesh, "gemma2"), expected["tokens_11"], mask)
    assert taps.keys() == {"mlp", "residual"}
    for tap, whole in (("mlp", expected["mlp"]), ("residual", expected["hidden_11"])):
        outside = np.einsum("LBTD,BT->LBD", whole.astype(np.float64), shares)
        np.testing.assert_allclose(taps[tap], outside, atol=TOLERANCE * np.abs(outside).max())


@pytest.mark.slow
def test_unknown_tap_is_refused(golden, mesh):
    network = small(golden, mesh, "gpt2")
    with pytest.raises(ValueError, match="taps must be of residual, attention, mlp, got 'head'"):
        network(jnp.ones((1, 3), int), jnp.ones((1, 3), bool), taps=("head",))


@pytest.mark.slow
def test_rows_beyond_a_table_of_positions_are_refused(golden, mesh):
    network = small(golden, mesh, "opt")
    with pytest.raises(ValueError, match="a row must have at most 48 tokens, got 49"):
        network(jnp.ones((1, 49), int), jnp.ones((1, 49), bool))
    with pytest.raises(ValueError, match="a row must have at most 48 tokens, got 49"):
        network.empty_cache(1, 49)


def renamed(folder, rename, extra=None):
    """Rename the tensors of a copied checkpoint, and add some: values, or a tensor's name."""
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    tensors = {rename(name): values for name, values in tensors.items()}
    for name, values in (extra or {}).items():
        tensors[name] = tensors[values].copy() if isinstance(values, str) else values
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")


ONE = np.ones((1, 1), np.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name,rename,extra",
    [
        (
            "gpt2",
            lambda name: name.removeprefix("transformer."),
            {"h.0.attn.bias": ONE, "h.2.attn.masked_bias": ONE, "lm_head.weight": "wte.weight"},
        ),
        (
            "opt",
            lambda name: name.removeprefix("model."),
            {"lm_head.weight": "decoder.embed_tokens.weight"},
        ),
        ("bloom", lambda name: name.removeprefix("transformer."), {}),
        (
            "neox",
            lambda name: name,
            {
                "gpt_neox.layers.0.attention.bias": ONE,
                "gpt_neox.layers.0.attention.masked_bias": ONE,
                "gpt_neox.layers.0.attention.rotary_emb.inv_freq": ONE,
            },
        ),
        ("gptj", lambda name: name, {"transformer.h.1.attn.bias": ONE}),
        ("llama3", lambda name: name, {"model.layers.0.self_attn.rotary_emb.inv_freq": ONE}),
    ],
)
def test_older_checkpoints_mean_the_same(golden, copy_golden, mesh, name, rename, extra):
    """Without the prefix of the model with a head, and with buffers."""
    folder = copy_golden(f"decoders/{name}")
    renamed(folder, rename, extra)
    assert_same(zoo.find(str(folder), None).load(mesh), small(golden, mesh, name))


@pytest.mark.slow
@pytest.mark.parametrize("prefix", ["language_model.model.", "model.language_model."])
def test_gemma_3_with_a_vision_tower_is_read_as_text(golden, copy_golden, mesh, prefix):
    folder = copy_golden("decoders/gemma3")
    text = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3", "text_config": text}))
    extra = {"vision_tower.vision_model.x.weight": ONE, "multi_modal_projector.x.weight": ONE}
    renamed(folder, lambda name: prefix + name.removeprefix("model."), extra)
    assert_same(zoo.find(str(folder), None).load(mesh), small(golden, mesh, "gemma3"))


@pytest.mark.slow
@given(st.integers(0, 5), st.integers(1, 5), st.integers(0, 5), st.integers(0, 20), st.data())
def test_part_of_a_fused_axis(start, block, gap, last, data):
    """Its pieces are, in order, the entries that an index list would pick."""
    first = data.draw(st.integers(0, last))
    part = weights.Part(start, block, block + gap, total=1000)
    axis = np.arange(1000)
    whole = np.concatenate([axis[start + i * (block + gap) :][:block] for i in range(21)])
    pieces = [axis[piece] for piece in part.slices(first, last)]
    found = np.concatenate([axis[:0], *pieces])
    np.testing.assert_array_equal(found, whole[first:last])
