"""Families that share a design against Hugging Face's networks; see golden/make_families.py.

One program of each network serves all comparisons: positions are always given.
"""

import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from networks import assert_layers_close, forward, parameters
from refusals import refused

from jaxalign.models import readers, zoo
from jaxalign.models.families import attention, base

CAUSAL = """
cohere ctrl falcon_11b falcon_40b falcon_7b falcon_rw gpt_bigcode gpt_neo granite mpt olmo olmo2
openai-gpt phi smollm3 stablelm stablelm_parallel starcoder2
""".split()
ENCODERS = "albert camembert distilbert electra electra_base xlm xlm-roberta".split()
# Those whose untrained weights are not drawn as most are: with smaller residuals, a padding token,
# other deviations, shared blocks, sines. All were compared when they were made.
DRAWN = ("gpt_bigcode", "openai-gpt", "phi", "albert", "xlm")
LENGTH = 11


def find(golden, name):
    return zoo.find(str(golden / "families" / name), None)


def compare(found, expected, mask):
    for tap, key in {"residual": "hidden", "attention": "attention", "mlp": "mlp"}.items():
        assert_layers_close(found.taps[tap], expected[key], mask)


def check_untrained(model, mesh, expected):
    """Compare the mean and deviation of each stored tensor with Hugging Face's."""
    statistics = json.loads(str(expected["init"]))
    tensors = readers.family(model.design).tensors(model.config)
    for path, values in parameters(model.load(mesh, untrained_seed=3)).items():
        stacked = "{layer}" in tensors[path].name
        for i, layer in enumerate(values if stacked else [values]):
            name = model.names[tensors[path].of_layer(i)]
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


@pytest.mark.slow
@pytest.mark.parametrize("name", CAUSAL)
def test_causal_network_matches_hugging_face(golden, mesh, name):
    """States, sublayers and logits; shifted and packed rows; no look ahead; untrained weights."""
    expected = np.load(golden / "families" / name / "expected.npz")
    tokens, mask = expected["tokens"], expected["mask"]
    model = find(golden, name)
    network = jax.device_put(model.load(mesh), jax.devices()[0])
    run = lambda tokens, mask, places: forward(
        network, tokens, mask, taps=base.TAPS, positions=np.broadcast_to(places, tokens.shape)
    )
    found = run(tokens, mask, np.arange(LENGTH))
    compare(found, expected, mask)
    assert_layers_close(found.logits[None], expected["logits"][None], mask)
    if "shifted" in expected:
        shifted = run(tokens, mask, 5 + np.arange(LENGTH))
        assert_layers_close(shifted.hidden, expected["shifted"], mask)
    # The second row's beginning behind the first row's, in one row.
    packed = np.broadcast_to(np.concatenate([tokens[0, :4], tokens[1, :7]]), tokens.shape)
    places = np.concatenate([np.arange(4), np.arange(7)])
    whole = np.concatenate([expected["hidden"][:, 0, :4], expected["hidden"][:, 1, :7]], axis=1)
    hidden = run(packed, np.ones_like(mask), places).hidden[:, :1]
    assert_layers_close(hidden, whole[:, None], np.ones((1, LENGTH), bool))
    other = tokens.copy()
    other[:, 6:] = 4 + tokens[:, 6:] % 49
    changed = run(other, np.ones_like(mask), np.arange(LENGTH)).hidden
    full = run(tokens, np.ones_like(mask), np.arange(LENGTH)).hidden
    np.testing.assert_array_equal(changed[:, :, :6], full[:, :, :6])
    assert np.abs(changed - full)[-1, :, 6:].max() > 1e-2
    if name in DRAWN:
        check_untrained(model, mesh, expected)
    assert model.final_norm_applied is (name != "openai-gpt") and model.predicts


@pytest.mark.slow
@pytest.mark.parametrize("name", ENCODERS)
def test_encoder_matches_hugging_face(golden, mesh, name):
    expected = np.load(golden / "families" / name / "expected.npz")
    model = find(golden, name)
    network = jax.device_put(model.load(mesh), jax.devices()[0])
    found = forward(network, expected["tokens"], expected["mask"], taps=base.TAPS)
    compare(found, expected, expected["mask"])
    assert found.final is None and not model.predicts and not model.final_norm_applied
    if name in DRAWN:
        check_untrained(model, mesh, expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["falcon_rw", "smollm3"])
def test_cache_continues_what_it_holds(golden, mesh, name):
    """Token by token; positions of keys, and which layers are rotated, come from the cache."""
    expected = np.load(golden / "families" / name / "expected.npz")
    network = jax.device_put(find(golden, name).load(mesh), jax.devices()[0])

    @jax.jit
    @jax.default_matmul_precision("highest")
    def one_by_one(network, tokens, mask):
        def step(cache, token_and_mask):
            token, counts = (x[:, None] for x in token_and_mask)
            output = network(token, counts, cache=cache)
            return output.cache, output.hidden[:, :, 0]

        start = network.empty_cache(3, LENGTH + 2)
        return jax.lax.scan(step, start, (tokens.T, mask.T))[1].transpose(1, 2, 0, 3)

    hidden = one_by_one(network, jnp.asarray(expected["tokens"]), jnp.asarray(expected["mask"]))
    assert_layers_close(hidden, expected["hidden"], expected["mask"])


def test_every_folder_is_read(golden):
    folders = sorted(folder.name for folder in (golden / "families").iterdir())
    assert folders == sorted(CAUSAL + ENCODERS)


def test_falcons_bias_is_rounded():
    """By ml_dtypes: slopes, positions, and then their products."""
    bfloat16 = lambda x: np.asarray(x, np.float32).astype(ml_dtypes.bfloat16)
    slopes, positions = attention.alibi_slopes(6), np.arange(1000)[None]
    found = attention.alibi_bias(slopes, jnp.asarray(positions), rounded=True)
    expected = bfloat16(slopes)[:, None] * bfloat16(positions)
    np.testing.assert_array_equal(found[0], expected.astype(np.float32))
    exact = attention.alibi_bias(slopes, jnp.asarray(positions), rounded=False)
    np.testing.assert_allclose(exact[0], slopes[:, None] * positions, rtol=1e-6)


HASHES = {
    "llama": "c938db982dccec9d",
    "decoders/gpt2": "1c33ce89e5123666",
    "decoders/bloom": "3ea372380e676cbf",
    "roberta": "1a92b1ede234d161",
}


def test_new_switches_leave_hashes_of_older_networks(golden):
    """They are in the fingerprints of all that was extracted."""
    for name, expected in HASHES.items():
        assert zoo.find(str(golden / name), None).config_hash == expected


@pytest.mark.parametrize(
    "name,changes,found",
    [
        ("gpt_neo", {"attention_types": [[["global"], 3]]}, "must name all 2 layers"),
        ("gpt_neo", {"attention_types": [[["sparse"], 2]]}, "must be pairs of a list of global"),
        ("gpt_neo", {"attention_layers": ["local", "global"]}, "as attention_layers does"),
        ("falcon_40b", {"parallel_attn": False}, "parallel_attn must be true"),
        ("falcon_7b", {"num_ln_in_parallel_attn": 2}, "num_ln_in_parallel_attn 1 without it"),
        ("mpt", {"attn_config": {"alibi_bias_max": 16}}, "alibi_bias_max must be 8, found 16"),
        ("mpt", {"attn_config": {"qk_ln": True}}, "qk_ln must be False, found True"),
        ("ctrl", {"n_embd": 15, "n_head": 5}, "n_embd must be even"),
        ("ctrl", {"layer_norm_epsilon": 1e-3}, "layer_norm_epsilon must be 1e-06"),
        ("stablelm", {"qk_layernorm": True}, "qk_layernorm must be False, found True"),
        ("smollm3", {"no_rope_layers": [1]}, "must have a number for each of 2 layers, found 1"),
        ("cohere", {"use_qk_norm": True}, "use_qk_norm must be False, found True"),
        ("cohere", {"logit_scale": None}, "logit_scale must be a number, found None"),
        ("albert", {"num_hidden_groups": 3}, "num_hidden_groups must divide num_hidden_layers 4"),
        ("albert", {"inner_group_num": 2}, "inner_group_num must be 1, found 2"),
        ("distilbert", {"n_heads": 3}, "must divide the width 16, found 3"),
        ("xlm", {"causal": True}, "causal must be False, found True"),
        ("xlm", {"emb_dim": 15, "n_heads": 3}, "the width must be even, for sines, found 15"),
    ],
)
def test_variants_that_are_not_built(golden, name, changes, found):
    hf = json.loads((golden / "families" / name / "config.json").read_text())
    with refused(found):
        readers.family(hf["model_type"]).config_from_hf(hf | changes)
