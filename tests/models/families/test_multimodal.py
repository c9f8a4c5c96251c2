"""Models of images and text: files that are read, and what is refused before it is computed."""

import json
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy

from jaxalign.errors import InputError
from jaxalign.models import answers, generate, readers, zoo
from jaxalign.models.families.multimodal import Config


@pytest.fixture
def spoil(golden, tmp_path):
    """Copy a checkpoint, with tensors renamed, taken out (None) or added, and settings changed."""

    def copy(name, rename=lambda x: x, add=(), part=None, **changes):
        folder = tmp_path / "model"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        stored = safetensors.numpy.load_file(golden / "multimodal" / name / "model.safetensors")
        tensors = {rename(old): x for old, x in stored.items() if rename(old) is not None}
        tensors |= {new: np.zeros(3, np.float32) for new in add}
        safetensors.numpy.save_file(tensors, folder / "model.safetensors")
        config = json.loads((golden / "multimodal" / name / "config.json").read_text())
        (config[part] if part else config).update(changes)
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return copy


def begin(**pairs):
    """Replace the beginning of a name, the first that fits."""

    def rename(name):
        for old, new in pairs.items():
            old, new = old.replace("__", "."), new.replace("__", ".")
            if name.startswith(old):
                return new + name.removeprefix(old)
        return name

    return rename


PREFIXES = {
    "llava": [
        begin(vision_tower__="vision_tower.vision_model."),
        begin(
            language_model__lm_head="lm_head",
            language_model__model__="model.language_model.",
            vision_tower__="model.vision_tower.vision_model.",
            multi_modal_projector__="model.multi_modal_projector.",
        ),
    ],
    "paligemma": [
        begin(vision_tower__="vision_tower.vision_model."),
        begin(
            language_model__model__="model.language_model.",
            vision_tower__="model.vision_tower.",
            multi_modal_projector__="model.multi_modal_projector.",
        ),
    ],
    "qwen2_vl": [
        begin(
            model__="model.language_model.",
            visual__="model.visual.",
        )
    ],
    "idefics": [begin(model__="")],
    "gemma3": [
        begin(vision_tower__="vision_tower.vision_model."),  # as published
        begin(
            language_model__model__="model.language_model.",
            vision_tower__="model.vision_tower.",
            multi_modal_projector__="model.multi_modal_projector.",
        ),
    ],
    "qwen3_vl": [begin(model__visual__="visual.")],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PREFIXES)
def test_names_may_be_those_of_all_versions(golden, spoil, name):
    plain = zoo.find(str(golden / "multimodal" / name), None, whole=True)
    for rename in PREFIXES[name]:
        other = zoo.find(str(spoil(name, rename)), None, whole=True)
        assert set(other.names.values()) != set(plain.names.values())
        assert other.names.keys() == plain.names.keys()
        assert other.num_parameters == plain.num_parameters


def test_files_of_both_sets_of_names_differ(golden, spoil):
    """So that the test above tests something."""
    plain = zoo.find(str(golden / "multimodal" / "llava"), None)
    other = zoo.find(str(spoil("llava", PREFIXES["llava"][1])), None)
    assert set(plain.names.values()) != set(other.names.values())


def test_what_no_state_passes_need_not_be_there(spoil):
    """The last block of LLaVA's tower and the norm after it."""
    unused = ("encoder.layers.3.", "post_layernorm")
    folder = spoil("llava", lambda name: None if any(x in name for x in unused) else name)
    assert zoo.find(str(folder), None).config.vision.num_layers == 3


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "llava",
            {"add": ["vision_tower.encoder.layers.4.mlp.fc1.bias"]},
            "that the network does not use: found vision_tower.encoder.layers.4.mlp.fc1.bias",
        ),
        (
            "llava",
            {"rename": lambda x: None if x == "multi_modal_projector.linear_2.bias" else x},
            "must hold tensor multi_modal_projector.linear_2.bias .* it is missing",
        ),
        (
            "instructblip_vicuna",
            {"rename": lambda x: None if x == "query_tokens" else x},
            "must hold tensor query_tokens .* it is missing",
        ),
        (
            "blip2_opt",
            {"add": ["qformer.encoder.layer.1.crossattention.output.dense.bias"]},
            "does not use: found qformer.encoder.layer.1.crossattention.output.dense.bias",
        ),
        ("llava", {"image_seq_length": 8}, "image_seq_length must be the 9 states"),
        ("llava", {"vision_feature_layer": 7}, "vision_feature_layer must be one of the 4"),
        ("llava", {"projector_depth": 2}, "known of llava, found 'projector_depth': 2"),
        (
            "llava",
            {"part": "text_config", "wings": 2},
            "text_config must hold only keys .* found 'wings': 2",
        ),
        (
            "llava",
            {"part": "vision_config", "wings": 2},
            "vision_config must hold only keys .* found 'wings': 2",
        ),
        (
            "blip2_opt",
            {"part": "qformer_config", "wings": 2},
            "qformer_config must hold only keys .* found 'wings': 2",
        ),
        (
            "blip2_opt",
            {"part": "qformer_config", "cross_attention_frequency": 3},
            "whole groups of cross_attention_frequency.* found 4 and 3",
        ),
        (
            "llava",
            {"part": "text_config", "model_type": "mamba"},
            "text_config.model_type must be one of .*, found 'mamba'",
        ),
        ("llava", {"model_type": "kosmos"}, "model_type must be one of .*, found 'kosmos'"),
        ("paligemma", {"projection_dim": 31}, "projection_dim must be the language model's width"),
        ("idefics", {"use_resampler": False}, "use_resampler must be true"),
        ("idefics", {"cross_layer_interval": 3}, "must divide num_hidden_layers, found 3 and 4"),
        ("idefics", {"additional_vocab_size": 0}, "additional_vocab_size must be at least 1"),
        (
            "qwen2_vl",
            {"part": "text_config", "rope_parameters": {"mrope_section": [1, 1, 1]}},
            "mrope_section must be three numbers of pairs, 4 together",
        ),
        (
            "qwen3_vl",
            {"part": "vision_config", "deepstack_visual_indexes": [0, 3]},
            "must be of the 3 blocks of the vision tower, found 3",
        ),
        (
            "qwen3_vl",
            {"part": "vision_config", "num_position_embeddings": 24},
            "num_position_embeddings must be a square, found 24",
        ),
        ("gemma3", {"mm_tokens_per_image": 8}, "a square that divides the 6x6 patches"),
        (
            "gemma3",
            {"rename": lambda x: None if x.endswith("mm_soft_emb_norm.weight") else x},
            "must hold tensor multi_modal_projector.mm_soft_emb_norm.weight .* it is missing",
        ),
    ],
)
def test_other_files_are_refused(spoil, name, changes, message):
    with pytest.raises(InputError, match=message):
        zoo.find(str(spoil(name, **changes)), None, whole=True)


def test_texts_pass_the_language_model_of_gemma_3_alone(golden):
    """The same files, with the vision tower or without."""
    folder = str(golden / "multimodal" / "gemma3")
    text, whole = zoo.find(folder, None), zoo.find(folder, None, whole=True)
    assert (text.reads, whole.reads) == ("text", "images and text")
    assert text.model_type == whole.model_type == "gemma3"
    assert text.config == whole.config.language
    assert text.num_parameters < whole.num_parameters


def test_qwen_takes_images_of_any_size_in_whole_groups(golden):
    config = zoo.find(str(golden / "multimodal" / "qwen2_vl"), None).config
    sized = config.for_images(24, 32)
    assert sized.num_image_tokens == 12 and sized.grid == (3, 4)
    with pytest.raises(InputError, match="multiples of 8, got 24x30"):
        config.for_images(24, 30)


def test_other_towers_take_images_of_one_size(golden):
    config = zoo.find(str(golden / "multimodal" / "llava"), None).config
    assert config.for_images(15, 15) == config
    with pytest.raises(InputError, match="pixels must be 15x15, got 20x15"):
        config.for_images(20, 15)


# Whether the table of words predicts tokens is told by the tensors that a file holds.
TOLD_BY_TENSORS = {"tie_word_embeddings"}
# What is heard only where another key has another value.
CONDITIONS = {"alphas_initializer_range": {"alpha_initializer": "normal"}}
VALUES = (True, False, 7, 0.5, "tanh", "full", "vector", "ones", {"wings": 2})


@pytest.mark.parametrize(
    "name",
    ["llava", "blip2_opt", "paligemma", "idefics", "smolvlm", "qwen2_vl", "qwen3_vl", "gemma3"],
)
def test_every_key_that_is_read_counts(golden, name):
    """Another value makes another network, or is refused."""
    hf = json.loads((golden / "multimodal" / name / "config.json").read_text())
    family = readers.family(readers.whole(hf["model_type"]))
    # Which Qwen may have at the top level, where there is no text_config.
    of_text = readers.family("qwen2").keys.read.keys() if name == "qwen2_vl" else ()
    for key, declared in family.keys.read.items():
        if key in of_text or key in TOLD_BY_TENSORS:
            continue
        given = hf | CONDITIONS.get(key, {})
        value = given.get(key, declared.default)
        if isinstance(value, dict):
            changed = value | {"wings": 2}
        else:
            others = [x for x in VALUES if x != value]
            changed = next((x for x in others if declared.rule.holds(x)), others[0])
        try:
            found = family.config_from_hf(given | {key: changed})
        except InputError:
            continue
        assert found != family.config_from_hf(given), (key, changed)


def prompts(tokens, mask=None):
    tokens = np.array(tokens, np.int32)
    return answers.Prompts(tokens, np.ones(tokens.shape, bool) if mask is None else mask)


IMAGE = [60] * 9
ENDING = generate.Ending(20)


@pytest.mark.parametrize(
    ("name", "asked", "poolings", "ending", "message"),
    [
        ("llava", prompts([IMAGE]), ["mean"], ENDING, "poolings must be of .*, got 'mean'"),
        ("llava", prompts([IMAGE]), ["qformer"], ENDING, "that the network has, got 'qformer'"),
        ("blip2_t5", prompts([IMAGE[:5]]), ["all"], ENDING, "that the network has, got 'all'"),
        ("llava", prompts([IMAGE]), ["generated"], None, "network has, got 'generated'"),
        ("llava", prompts([[5, *IMAGE[1:]]]), [], ENDING, "image's token 9 times, got \\[8\\]"),
        ("llava", prompts([IMAGE + [5] * 52]), [], ENDING, "must fit 80 tokens, got 81"),
        ("llava", prompts([IMAGE]), [], generate.Ending(0), "num_new must be >= 1"),
        (
            "llava",
            prompts([[5, *IMAGE]], np.array([[False] + [True] * 9])),
            [],
            ENDING,
            "padded on the right",
        ),
    ],
)
def test_what_cannot_be_answered_is_refused(golden, name, asked, poolings, ending, message):
    config = zoo.find(str(golden / "multimodal" / name), None).config
    with pytest.raises(ValueError, match=message):
        answers.check(config, asked, poolings, ending)


def test_only_what_no_instruction_changes_is_shared(golden):
    """The beginning of all prompts, if the image is in it, but for one token of each."""
    config = lambda name: zoo.find(str(golden / "multimodal" / name), None).config
    llava: Config = config("llava")
    asked = prompts([[1, *IMAGE, 5, 6], [1, *IMAGE, 5, 7]])
    assert answers.num_shared(llava, asked) == 11
    assert answers.num_shared(llava, prompts([[1, *IMAGE, 5]] * 2)) == 10
    assert answers.num_shared(llava, prompts([[1, *IMAGE, 5]])) == 0
    assert answers.num_shared(llava, prompts([[1, 5, *IMAGE], [1, 6, *IMAGE]])) == 0
    for name in ("instructblip_vicuna", "paligemma", "blip2_t5"):
        assert answers.num_shared(config(name), asked) == 0


@pytest.mark.slow
def test_twins_and_bfloat16(golden, mesh):
    """Untrained networks follow from a seed; each image is seen once, however much is asked."""
    model = zoo.find(str(golden / "multimodal" / "llava"), None)
    expected = np.load(golden / "multimodal" / "llava" / "expected.npz")
    asked = answers.Prompts(expected["tokens_shared"], expected["mask_shared"])
    found = []
    for seed in (1, 1, 2):
        network = model.load(mesh, dtype="bfloat16", untrained_seed=seed)
        network = jax.device_put(network, jax.devices()[0])
        pixels = jax.numpy.asarray(expected["pixels"])
        found.append(answers.answer(network, pixels, asked, ("generated", "vision"), ENDING))
    first, again, other = (x.features["generated"] for x in found)
    assert np.isfinite(first).all() and first.dtype == np.float32
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).max() > 1e-3
    assert found[0].features["vision"].shape == (4, 2, 24)
