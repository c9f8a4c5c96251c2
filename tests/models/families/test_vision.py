"""Vision towers against Hugging Face's, and the text towers that share a space with them."""

import dataclasses
import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from networks import TOLERANCE, place
from refusals import refused

from jaxalign.core import mesh as mesh_lib
from jaxalign.models import readers, weights, zoo
from jaxalign.models.families import base

FOLDERS = (
    *("vit", "clip", "siglip", "dinov2", "dinov2_swiglu", "dinov2_registers", "blip_2_vision"),
)
QUICK = ("clip", "dinov2_registers")  # with which every part but SigLIP's pooling is run


@pytest.fixture
def copy(copy_golden):
    return lambda name, **changes: copy_golden(f"vision/{name}", **changes)


@functools.cache
def arrays(golden, name):
    with np.load(golden / "vision" / name / "expected.npz") as file:
        return {key: jnp.asarray(file[key]) for key in file.files if key != "versions"}


def sizes(expected):
    return [key.removeprefix("pixels_") for key in expected if key.startswith("pixels_")]


def find(golden, name, **options):
    return zoo.find(str(golden / "vision" / name), None, **options)


@functools.partial(jax.jit, static_argnames=("taps",))
@jax.default_matmul_precision("highest")
def see(network, pixels, taps=("residual",)):
    output = network(pixels, taps=taps)
    return output, network.embed(output.final) if network.config.embeds else None


def assert_close(found, expected):
    """Compare, relative to the largest value."""
    found, expected = np.asarray(found), np.asarray(expected)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=TOLERANCE * np.abs(expected).max())


def assert_matches(network, expected):
    for size in sizes(expected):
        pixels = expected[f"pixels_{size}"]
        output, embeds = see(network, pixels)
        for found, layer in zip(output.hidden, expected[f"hidden_{size}"], strict=True):
            assert_close(found, layer)
        assert_close(output.final, expected[f"normed_{size}"])
        if f"embeds_{size}" in expected:
            assert_close(embeds, expected[f"embeds_{size}"])


@pytest.mark.parametrize(
    "name", [pytest.param(x, marks=() if x in QUICK else pytest.mark.slow) for x in FOLDERS]
)
def test_states_match_hugging_face(golden, mesh, name):
    model, expected = find(golden, name), arrays(golden, name)
    assert model.reads == "images" and not model.final_norm_applied
    assert all(f"hidden_{size}" in expected for size in sizes(expected))
    assert len(expected["pixels_" + sizes(expected)[0]]) >= 2
    assert_matches(model.load(mesh), expected)


@pytest.mark.slow
def test_sharded_weights_give_the_same_states(golden):
    mesh = mesh_lib.make_mesh(2, 2)
    for name in ("clip", "dinov2_swiglu"):
        network, expected = find(golden, name).load(mesh), arrays(golden, name)
        kernel = network.blocks.query.kernel[...]
        assert kernel.sharding.shard_shape(kernel.shape)[2] == kernel.shape[2] // 2
        size = sizes(expected)[0]
        pixels = place(expected[f"pixels_{size}"][:2], mesh)
        output, _ = see(network, pixels)
        assert_close(output.final, expected[f"normed_{size}"][:2])


@functools.partial(jax.jit, static_argnames=("layer",))
@jax.default_matmul_precision("highest")
def states(network, pixels, layer):
    found = network.states(pixels, layer)
    return found, network.patches(network.normed(found))


@pytest.mark.slow
def test_one_layer_is_computed_without_those_after_it(golden, mesh):
    network, expected = find(golden, "clip").load(mesh), arrays(golden, "clip")
    pixels, hidden = expected["pixels_20x20"], expected["hidden_20x20"]
    for layer in (0, -2, 3):
        found, patches = states(network, pixels, layer)
        assert_close(found, hidden[layer])
    assert_close(patches, expected["normed_20x20"][:, 1:])


def shapes(golden, name, *size, layer=0):
    """Return the shapes of a layer and of its patches, without computing."""
    model = find(golden, name)
    network = zoo.abstract(model.design, model.config)
    pixels = jax.ShapeDtypeStruct((2, 3, *size), jnp.float32)
    return [x.shape for x in jax.eval_shape(lambda x, p: states(x, p, layer), network, pixels)]


def test_prefix_tokens_are_no_patches(golden):
    assert shapes(golden, "dinov2_registers", 28, 45) == [(2, 27, 24), (2, 24, 24)]
    assert shapes(golden, "clip", 20, 20) == [(2, 17, 24), (2, 16, 24)]
    assert shapes(golden, "siglip", 20, 20) == [(2, 16, 24), (2, 16, 24)]


def test_layers_that_are_not_there_are_refused(golden):
    with pytest.raises(ValueError, match=r"layer must lie in -4..3, got 4"):
        shapes(golden, "clip", 20, 20, layer=4)


@pytest.mark.slow
def test_what_sublayers_add_makes_the_stream(golden, mesh):
    network, expected = find(golden, "dinov2").load(mesh), arrays(golden, "dinov2")
    output, _ = see(network, expected["pixels_35x35"], taps=base.TAPS)
    added = output.taps["attention"] + output.taps["mlp"]
    np.testing.assert_allclose(jnp.diff(output.hidden, axis=0), added, atol=1e-5)


@pytest.mark.slow
def test_bfloat16_is_close(golden, mesh):
    for name in ("vit", "dinov2"):
        network, expected = find(golden, name).load(mesh, dtype="bfloat16"), arrays(golden, name)
        size = sizes(expected)[-1]
        output, _ = see(network, expected[f"pixels_{size}"])
        assert output.hidden.dtype == jnp.bfloat16
        found, wanted = np.asarray(output.final, np.float32), expected[f"normed_{size}"]
        assert np.abs(found - wanted).mean() < 0.05 * np.abs(wanted).mean()


@pytest.mark.slow
def test_untrained_networks_follow_from_their_seed(golden, mesh):
    model = find(golden, "dinov2_swiglu")
    first, again, other = (model.load(mesh, untrained_seed=x) for x in (1, 1, 2))
    kernels = [np.asarray(x.blocks.query.kernel[...]) for x in (first, again, other)]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert (kernels[0] != kernels[2]).all() and (kernels[0][0] != kernels[0][1]).all()
    assert (np.asarray(first.blocks.mlp_scale[...]) == 1).all()


# Text towers.


@functools.partial(jax.jit, static_argnames=("is_causal",))
@jax.default_matmul_precision("highest")
def read(network, tokens, mask, *, is_causal):
    output = network(tokens, mask)
    if is_causal:
        return output.hidden, network.embed(output.final, tokens)
    return output.hidden, network.embed(tokens, mask)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["clip", "siglip"])
def test_text_towers_match_hugging_face(golden, mesh, name):
    """The last layer is the normed one, as of all networks that read text."""
    expected, model = arrays(golden, name), find(golden, name, tower="text")
    assert model.reads == "text" and model.final_norm_applied and not model.predicts
    tokens, mask = expected["tokens"], expected["mask"]
    if name == "siglip":  # padding is put there by the network
        mask = tokens != model.config.padding_token
        tokens = jnp.where(mask, tokens, 7)
    network = model.load(mesh)
    hidden, embeds = read(network, tokens, mask, is_causal=name == "clip")
    wanted = np.concatenate([expected["text_hidden"][:-1], expected["text_normed"][None]])
    seen = expected["mask"]
    for found, layer in zip(hidden, wanted, strict=True):
        assert_close(np.asarray(found)[seen], layer[seen])
    assert_close(embeds, expected["text_embeds"])


@pytest.mark.slow
def test_states_of_a_text_do_not_depend_on_how_long_rows_are(golden, mesh):
    network = find(golden, "siglip", tower="text").load(mesh)
    tokens, mask = arrays(golden, "siglip")["tokens"][1:2, :5], jnp.ones((1, 5), bool)
    short, embeds = read(network, tokens, mask, is_causal=False)
    assert short.shape[2] == 5
    assert_close(short[-1], arrays(golden, "siglip")["text_normed"][1:2, :5])
    assert_close(embeds, arrays(golden, "siglip")["text_embeds"][1:2])
    with pytest.raises(ValueError, match="a row must have at most 12 tokens, got 13"):
        network(jnp.ones((1, 13), jnp.int32), jnp.ones((1, 13), bool))


@pytest.mark.slow
def test_older_files_mean_the_largest_token_as_the_last_one(golden, copy, mesh):
    text = json.loads((golden / "vision/clip/config.json").read_text())["text_config"]
    folder = copy("clip", text_config=text | {"eos_token_id": 2})
    network = zoo.find(str(folder), None, tower="text").load(mesh)
    expected = arrays(golden, "clip")
    _, embeds = read(network, expected["tokens"], expected["mask"], is_causal=True)
    assert_close(embeds, expected["text_embeds"])


# Files.


def rewrite(folder, change):
    """Write a checkpoint's tensors anew."""
    file = folder / "model.safetensors"
    safetensors.numpy.save_file(change(safetensors.numpy.load_file(file)), file)
    return str(folder)


@pytest.mark.parametrize("name", FOLDERS)
def test_every_tensor_is_needed_and_none_is_unknown(golden, copy, name):
    model = find(golden, name)
    shapes = weights.parameters(zoo.abstract(model.design, model.config))
    tensors = readers.family(model.design).tensors(model.config)
    used = {tensors[path].name for path in shapes}
    some = sorted(used)[:: max(1, len(used) // 3)]
    for tensor in some:
        stored = model.names[tensor.format(layer=1)]
        folder = copy(name)
        rewrite(folder, lambda x, stored=stored: {k: v for k, v in x.items() if k != stored})
        if "projection.weight" not in tensor or "patch" in tensor:
            with refused("must hold tensor", "it is missing"):
                zoo.find(str(folder), None)
        shutil.rmtree(folder)
    with refused("must hold no tensor that the network does not use: found blocks.new"):
        zoo.find(rewrite(copy(name), lambda x: x | {"blocks.new": np.zeros(2, "f4")}), None)


def test_a_kernel_of_another_size_is_refused(copy):
    with refused("embeddings.patch_embeddings.projection.weight must have shape [24, 3, 7, 5]"):
        zoo.find(str(copy("dinov2", patch_size=[7, 5])), None)


BARE = {"vision_config": ..., "text_config": ...}


def test_a_tower_by_itself_is_read_with_and_without_its_prefix(golden, copy):
    vision = json.loads((golden / "vision/clip/config.json").read_text())["vision_config"]
    own = lambda x: {k: v for k, v in x.items() if k.startswith("vision_model.")}
    bare = lambda x: {k.removeprefix("vision_model."): v for k, v in own(x).items()}
    for change in (own, bare):
        folder = copy("clip", **(BARE | vision))
        model = zoo.find(rewrite(folder, change), None)
        assert model.design == "clip_vision_model" and not model.config.embeds
        assert model.config == dataclasses.replace(find(golden, "clip").config, projection=0)
        shutil.rmtree(folder)
    keeps = lambda x: own(x) | {"visual_projection.weight": x["visual_projection.weight"]}
    folder = copy("clip", **(BARE | vision | {"projection_dim": 10}))
    assert zoo.find(rewrite(folder, keeps), None).config.projection == 10


def test_siglip_without_its_pooling_has_no_shared_space(golden, copy):
    own = lambda x: {k: v for k, v in x.items() if "vision_model.head" not in k}
    model = zoo.find(rewrite(copy("siglip"), own), None)
    assert model.config == dataclasses.replace(find(golden, "siglip").config, attention_pool=False)


@pytest.mark.parametrize(
    "name, changes, message",
    [
        ("vit", {"image_size": [15]}, "image_size must be a positive integer, or a list of two"),
        ("vit", {"image_size": 0}, "image_size must be a positive integer, or a list of two"),
        ("vit", {"patch_size": 16}, "patch_size must be at most image_size [15, 20]"),
        ("vit", {"num_attention_heads": 5}, "num_attention_heads must divide hidden_size 24"),
        ("vit", {"rope_theta": 7}, "known of vit, found 'rope_theta': 7"),
        ("clip", {"vision_config": 3}, "vision_config must be an object, or null, found 3"),
        ("clip", {"vision_config": {"depth": 3}}, "known of the family, found 'depth': 3"),
        ("dinov2", {"mlp_ratio": 0}, "mlp_ratio must be a number above 0"),
        ("dinov2", {"model_type": "dinov4"}, "model_type must be one of albert, "),
    ],
)
def test_files_that_ask_for_something_else_are_refused(copy, name, changes, message):
    with refused(message):
        zoo.find(str(copy(name, **changes)), None)


def test_settings_under_their_first_name_are_what_counts(golden, copy):
    vision = json.loads((golden / "vision/clip/config.json").read_text())["vision_config"]
    folder = copy("clip", vision_config={"hidden_size": 96}, vision_config_dict=vision)
    assert zoo.find(str(folder), None).config == find(golden, "clip").config


def test_images_of_another_size_are_refused(golden):
    with pytest.raises(ValueError, match="pixels must be 3 x 15x20, got 3 x 20x20"):
        shapes(golden, "vit", 20, 20)
    with pytest.raises(ValueError, match="3 x images of any size, got 3 x 6x20"):
        shapes(golden, "dinov2", 6, 20)
