"""Both designs against Hugging Face's, on several meshes; and what must hold of any network."""

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
from jaxalign.models import readers, weights, zoo
from jaxalign.models.families import decoder, encoder, layers

NAMES = ("bert", "llama", "llama_tied")
CAUSAL = ("llama", "llama_tied")
MESHES = ((4, 1), (2, 2))
LENGTHS = (7, 13)


def abstract(model, **changes):
    config = dataclasses.replace(model.config, **changes)
    network = readers.family(model.design).network
    return weights.abstract(network, config, dtype=jnp.dtype("float32"))


@pytest.fixture(scope="module", params=NAMES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name, golden):
    return zoo.find(str(golden / name), None)


@pytest.fixture(scope="module")
def expected(name, golden):
    return dict(np.load(golden / name / "expected.npz"))


@pytest.fixture(scope="module")
def network(model, mesh):
    return model.load(mesh)


@pytest.mark.slow
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("shape", MESHES, ids=str)
def test_matches_hugging_face(name, model, expected, shape, length):
    """Every hidden state and all logits, of padded and of full rows.

    The short batch is padded to the long one's shape, which is compiled once.
    """
    mesh = mesh_lib.make_mesh(*shape)
    tokens, mask = expected[f"tokens_{length}"], expected[f"mask_{length}"]
    assert mask.all(axis=1).any() and not mask.all()  # the golden rows are of both kinds
    padding = [(0, 0), (0, 13 - length)]
    network = model.load(mesh)
    output = run(network, np.pad(tokens, padding, constant_values=3), np.pad(mask, padding), mesh)
    assert_layers_close(output.hidden[:, :, :length], expected[f"hidden_{length}"], mask)
    if name in CAUSAL:
        logits = output.logits[None, :, :length]
        assert_layers_close(logits, expected[f"logits_{length}"][None], mask)
    else:
        assert output.logits is None and f"logits_{length}" not in expected


def test_golden_files_say_what_made_them(expected):
    versions = json.loads(str(expected["versions"]))
    assert {"torch", "transformers", "numpy"} <= versions.keys()


def test_hidden_states_are_those_of_all_layers(model, network, expected, mesh):
    tokens, mask = expected["tokens_13"], expected["mask_13"]
    output = run(network, tokens, mask, mesh)
    assert output.hidden.shape == (model.config.num_layers + 1, 4, 13, model.config.width)


@pytest.mark.slow
def test_pooling_inside_the_scan_equals_pooling_outside(model, expected):
    mesh = mesh_lib.make_mesh(2, 2)
    network = model.load(mesh)
    tokens, mask = expected["tokens_13"], expected["mask_13"]
    shares = (mask / mask.sum(axis=1, keepdims=True)).astype(np.float32)

    @jax.jit
    def pooled(network, tokens, mask, shares):
        pool = lambda x_BTD: jnp.einsum("BTD,BT->BD", x_BTD, shares)
        return network(tokens, mask, pool=pool).hidden

    inside = pooled(network, *(place(x, mesh) for x in (tokens, mask, shares)))
    outside = np.einsum("LBTD,BT->LBD", expected["hidden_13"].astype(np.float64), shares)
    assert inside.shape == (model.config.num_layers + 1, 4, model.config.width)
    np.testing.assert_allclose(inside, outside, rtol=0, atol=TOLERANCE * np.abs(outside).max())


def test_final_norm_is_declared_and_true(name, model, network, expected, mesh):
    """The last layer has unit size per token once the final norm's scale is divided out."""
    output = run(network, expected["tokens_13"], expected["mask_13"], mesh)
    assert model.final_norm_applied is (name in CAUSAL)
    if name in CAUSAL:
        last = np.asarray(output.hidden[-1]) / np.asarray(network.final_norm.scale[...])
        np.testing.assert_allclose((last**2).mean(axis=-1), 1, atol=1e-2)
        table = network.words.table[...].T if name == "llama_tied" else network.head.kernel[...]
        logits = np.asarray(output.hidden[-1]) @ np.asarray(table)
        np.testing.assert_allclose(output.logits, logits, atol=1e-4)


def test_padding_is_without_influence(model, network, expected, mesh):
    tokens, mask = expected["tokens_13"], expected["mask_13"]
    other = np.where(mask, tokens, (tokens + 5) % model.config.vocab_size)
    assert (other != tokens).any()
    output, changed = (run(network, x, mask, mesh) for x in (tokens, other))
    np.testing.assert_array_equal(
        np.asarray(output.hidden)[:, mask], np.asarray(changed.hidden)[:, mask]
    )


def test_only_the_encoder_sees_what_follows(name, network, expected, mesh):
    tokens = expected["tokens_13"]
    mask = np.ones_like(expected["mask_13"])
    other = tokens.copy()
    other[:, -1] = 1 + tokens[:, -1] % 100
    output, changed = (np.asarray(run(network, x, mask, mesh).hidden) for x in (tokens, other))
    difference = np.abs(output - changed)[-1, :, :-1].max()
    assert difference == 0 if name in CAUSAL else difference > 1e-2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "llama"], indirect=True, scope="module")
def test_bfloat16_is_close_to_float32(model, network, expected, mesh):
    tokens, mask = expected["tokens_13"], expected["mask_13"]
    coarse = model.load(mesh, dtype="bfloat16")
    assert {p.dtype for p in weights.parameters(coarse).values()} == {jnp.dtype("bfloat16")}
    output = run(coarse, tokens, mask, mesh)
    assert output.hidden.dtype == jnp.bfloat16
    error = relative_error(output.hidden, expected["hidden_13"], mask)
    # Eight bits of mantissa: 2e-3 per rounding, and some ten roundings in a row per block.
    np.testing.assert_array_less(error, 0.02)
    assert (error[1:] > 1e-4).all()


@pytest.mark.slow
def test_parameters_are_divided_over_the_model_axis(name, model):
    mesh = mesh_lib.make_mesh(2, 2)
    network = model.load(mesh)
    query = network.blocks.query.kernel[...]
    assert query.sharding.spec == PartitionSpec(None, None, "model")
    assert query.addressable_shards[0].data.shape == (3, 32, query.shape[2] // 2)
    table = network.words.table[...]
    rows = table.addressable_shards[0].data.shape[0]
    # 127 tokens do not divide by two devices: each holds all.
    assert (len(table), rows) == {"bert": (128, 64), "llama": (127, 127), "llama_tied": (128, 64)}[
        name
    ]


@pytest.mark.slow
def test_buffers_and_missing_prefix_change_nothing(copy_golden, golden, mesh):
    """A checkpoint of the bare encoder, as transformers 4 wrote it."""
    folder = copy_golden("bert")
    tensors = {
        key.removeprefix("bert."): value
        for key, value in safetensors.numpy.load_file(folder / "model.safetensors").items()
        if not key.startswith("cls.")
    } | {"embeddings.position_ids": np.arange(128)[None]}
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    found = parameters(zoo.find(str(folder), None).load(mesh))
    expected = parameters(zoo.find(str(golden / "bert"), None).load(mesh))
    assert_same(found, expected)
    assert len(found) == 5 + 16


def test_config_of_transformers_4_means_the_same(copy_golden, golden):
    """Rotary settings as keys of their own; head size and heads of keys left to their defaults."""
    folder = copy_golden(
        "llama", rope_parameters=..., rope_theta=500.0, rope_scaling=None, head_dim=...
    )
    config = zoo.find(str(folder), None).config
    assert config == zoo.find(str(golden / "llama"), None).config
    assert config.rope.theta == 500.0
    hf = json.loads((folder / "config.json").read_text())
    hf.pop("num_key_value_heads")
    assert readers.family("llama").config_from_hf(hf).num_kv_heads == 4


@pytest.mark.slow
def test_tied_checkpoint_may_hold_the_head_too(copy_golden):
    folder = copy_golden("llama_tied")
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"]
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(6, np.float32)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    assert "head/kernel" not in weights.parameters(abstract(zoo.find(str(folder), None)))


@pytest.fixture(scope="module", params=("bert", "llama"))
def untrained(request, golden, mesh):
    """Return name and parameters of each design; a tied head would only leave a draw away."""
    model = zoo.find(str(golden / request.param), None)
    return request.param, parameters(model.load(mesh, untrained_seed=3))


@pytest.mark.slow
def test_untrained_weights_have_hugging_faces_distribution(untrained):
    name, all_values = untrained
    drawn = []
    for path, values in all_values.items():
        if path.endswith("scale"):
            np.testing.assert_array_equal(values, 1, err_msg=path)
        elif path.endswith("bias"):
            np.testing.assert_array_equal(values, 0, err_msg=path)
        else:
            if (name, path) == ("bert", "words/table"):
                np.testing.assert_array_equal(values[0], 0)  # the padding token
                values = values[1:]
            # The golden configurations ask for 0.03.
            fit = scipy.stats.kstest(values.ravel() / 0.03, "norm")
            assert fit.pvalue > 1e-3, path
            drawn.append(values.ravel())
    # All together they tell a normal distribution from one that is cut off at two deviations.
    assert scipy.stats.kstest(np.concatenate(drawn) / 0.03, "norm").pvalue > 1e-3


def test_default_deviation_is_hugging_faces(golden):
    for name in ("bert", "llama"):
        hf = json.loads((golden / name / "config.json").read_text())
        del hf["initializer_range"]
        assert readers.family(name).config_from_hf(hf).init_sd == 0.02


@pytest.mark.slow
def test_untrained_parameters_are_drawn_independently(untrained):
    drawn = {}
    for path, values in untrained[1].items():
        if values.ndim > 1 and values.std() > 0:
            parts = values if path.startswith("blocks/") else values[None]
            drawn |= {f"{path}[{i}]": part.ravel() for i, part in enumerate(parts)}
    count = min(map(len, drawn.values()))
    # Tables are compared from their end: they may begin with a row of zeros.
    correlation = np.corrcoef([values[-count:] for values in drawn.values()])
    assert len(drawn) > 3 * 6
    np.fill_diagonal(correlation, 0)
    assert np.abs(correlation).max() < 6 / np.sqrt(count)


@pytest.mark.slow
def test_untrained_weights_follow_from_the_seed_alone(golden, mesh):
    """Not from the mesh that they are drawn on, and not from the checkpoint."""
    model = zoo.find(str(golden / "bert"), None)
    first = parameters(model.load(mesh, untrained_seed=3))
    again = parameters(model.load(mesh_lib.make_mesh(2, 2), untrained_seed=3))
    other = parameters(model.load(mesh, untrained_seed=4))
    trained = parameters(model.load(mesh))
    assert first.keys() == again.keys() == other.keys() == trained.keys()
    for path, values in first.items():
        np.testing.assert_array_equal(again[path], values, err_msg=path)
        assert trained[path].shape == values.shape and trained[path].dtype == values.dtype
        assert (trained[path] != values).mean() > 0.9, path
        if path.endswith(("kernel", "table")):
            assert (other[path] != values).mean() > 0.9, path


@pytest.mark.slow
def test_program_does_not_grow_with_depth(model):
    def num_lines(num_layers):
        tokens = jax.ShapeDtypeStruct((4, 8), jnp.int32)
        mask = jax.ShapeDtypeStruct((4, 8), jnp.bool)
        return len(
            forward.lower(abstract(model, num_layers=num_layers), tokens, mask)
            .as_text()
            .splitlines()
        )

    assert num_lines(2) == num_lines(12) > 50


@pytest.mark.slow
@pytest.mark.parametrize(
    "design,config,num_parameters,width",
    [
        # LLaMA 2 7B.
        (
            decoder,
            decoder.Config(
                vocab_size=32_000,
                num_layers=32,
                width=4096,
                num_heads=32,
                num_kv_heads=32,
                head_size=128,
                mlp_size=11_008,
                max_length=4096,
                rope=layers.Rope(size=128),
                norm_eps=1e-5,
                init_sd=0.02,
                tied_embeddings=False,
            ),
            6_738_415_616,
            4096,
        ),
        # BERT base, without its pooler of 768 x 769.
        (
            encoder,
            encoder.Config(
                vocab_size=30_522,
                num_layers=12,
                width=768,
                num_heads=12,
                mlp_size=3072,
                max_length=512,
                first_position=0,
                num_segments=2,
                padding_token=0,
                norm_eps=1e-12,
                init_sd=0.02,
            ),
            109_482_240 - 590_592,
            768,
        ),
    ],
    ids=["llama-2-7b", "bert-base"],
)
def test_full_size_has_the_published_number_of_parameters(design, config, num_parameters, width):
    network = weights.abstract(design.Network, config, dtype=jnp.dtype("bfloat16"))
    assert weights.count(network) == num_parameters
    hidden = jax.eval_shape(
        lambda network, tokens, mask: network(tokens, mask).hidden,
        network,
        jax.ShapeDtypeStruct((2, 512), jnp.int32),
        jax.ShapeDtypeStruct((2, 512), jnp.bool),
    )
    assert hidden.shape == (config.num_layers + 1, 2, 512, width)
    assert hidden.dtype == jnp.bfloat16
