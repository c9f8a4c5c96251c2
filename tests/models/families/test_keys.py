"""Every key of a config.json is read, without effect, or refused by name; see families/keys.py."""

import dataclasses
import math

import pytest
from refusals import refused

from jaxalign.errors import InputError
from jaxalign.models import readers, zoo
from jaxalign.models.families import keys, multimodal, rotary

# The smallest file of each family, with values at which every other key could show.
SIZES = {
    "vocab_size": 50,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
LLAMA = SIZES | {"intermediate_size": 36, "num_key_value_heads": 2}
GEMMA = LLAMA | {"head_dim": 6}
ROPE = {"rope_scaling": {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0}}
ROPE["rope_scaling"] |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 32}
FILES = {
    "bert": SIZES | {"intermediate_size": 36},
    "bloom": {k: v for k, v in SIZES.items() if k != "max_position_embeddings"}
    | {"pretraining_tp": 2},
    "gemma": GEMMA | ROPE,
    "gemma2": GEMMA | ROPE,
    "gemma3_text": GEMMA,
    "gpt2": SIZES,
    "gpt_neox": SIZES | {"intermediate_size": 36, "rotary_pct": 1.0} | ROPE,
    "gptj": SIZES | {"rotary_dim": 4},
    "llama": LLAMA | ROPE,
    "mistral": LLAMA | ROPE,
    "opt": SIZES | {"ffn_dim": 36},
    "phi3": LLAMA
    | {"rope_scaling": {"type": "su", "short_factor": [1.1] * 3, "long_factor": [2.0] * 3}}
    | {"original_max_position_embeddings": 32},
    "qwen2": LLAMA | ROPE | {"use_sliding_window": True, "max_window_layers": 2},
    "qwen3": LLAMA | ROPE | {"use_sliding_window": True, "max_window_layers": 2},
    "roberta": SIZES | {"intermediate_size": 36},
    "t5": {"vocab_size": 50, "d_model": 24, "d_ff": 36, "num_layers": 3, "num_heads": 4},
}
FILES |= {
    "albert": SIZES | {"intermediate_size": 36},
    "camembert": SIZES | {"intermediate_size": 36},
    "cohere": LLAMA | ROPE,
    "ctrl": SIZES,
    "distilbert": {"vocab_size": 50, "dim": 24, "n_layers": 3, "n_heads": 4},
    "electra": SIZES | {"intermediate_size": 36},
    "falcon": SIZES | ROPE,
    "gpt_bigcode": SIZES,
    "gpt_neo": {"vocab_size": 50, "hidden_size": 24, "num_layers": 4, "num_heads": 4}
    | {"attention_types": [[["global", "local"], 2]]},
    "granite": LLAMA | ROPE,
    "mpt": {"vocab_size": 50, "d_model": 24, "n_layers": 3, "n_heads": 4},
    "olmo": LLAMA | ROPE,
    "olmo2": LLAMA | ROPE,
    "openai-gpt": SIZES,
    "phi": LLAMA | ROPE | {"partial_rotary_factor": 1.0},
    "smollm3": LLAMA
    | ROPE
    | {"use_sliding_window": True, "sliding_window": 4, "no_rope_layer_interval": 3},
    "stablelm": LLAMA | ROPE,
    "starcoder2": LLAMA | ROPE,
    "xlm": {"vocab_size": 50, "emb_dim": 24, "n_layers": 3, "n_heads": 4},
    "xlm-roberta": SIZES | {"intermediate_size": 36},
}
TOWER = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 36,
    "image_size": 224,
    "patch_size": 14,
}
TEXT = LLAMA | {"pad_token_id": 1}
TEXT.pop("num_key_value_heads")
DINOV2 = {k: v for k, v in TOWER.items() if k != "intermediate_size"}
FILES |= {
    "blip_2_vision_model": TOWER,
    "clip_text_model": TEXT,
    "clip_vision_model": TOWER,
    "dinov2": DINOV2,
    "dinov2_with_registers": DINOV2,
    "siglip_text_model": TEXT,
    "siglip_vision_model": TOWER,
    "vit": TOWER,
}
FILES = {family: {"model_type": family} | hf for family, hf in FILES.items()}
for both in ("clip", "siglip"):
    towers = {f"{x}_config": FILES[f"{both}_{x}_model"] for x in zoo.TOWERS}
    FILES[both] = {"model_type": both, **towers}
FILES["gemma3"] = {"model_type": "gemma3", "text_config": FILES["gemma3_text"]}
# Another value of each key that is read; what is not here is the opposite or a larger number.
OTHERS = {
    "activation": "tanh",
    "activation_function": "tanh",
    "afn": "relu",
    "attention_types": [[["global"], 4]],
    "attn_config": {"clip_qkv": 3.0},
    "attn_logit_softcapping": 3.0,
    "cross_attention_hidden_size": 7,
    "dense_act_fn": "tanh",
    "feed_forward_proj": "gated-gelu",
    "final_logit_softcapping": 3.0,
    "hidden_act": "tanh",
    "hidden_activation": "tanh",
    "layer_types": ["full_attention", "sliding_attention", "full_attention"],
    "n_inner": 7,
    "pad_token_id": 5,
    "partial_rotary_factor": 0.5,
    "per_layer_config": {"0": {}},
    "position_embedding_type": "relative_key",
    "pruned_heads": {"0": [1]},
    "rope_parameters": {"rope_type": "linear", "factor": 2.0},
    "rope_scaling": {"rope_type": "linear", "factor": 2.0},
    "rotary_pct": 0.5,
    "scale_decoder_outputs": False,
    "sliding_window_pattern": 2,
    "_sliding_window_pattern": 2,
}
# What is heard only where another key is missing, or has another value.
CONDITIONS = {
    "rope_parameters": {"rope_scaling": None},
    "pretraining_tp": {"slow_but_exact": True},
    "n_positions": {"max_position_embeddings": None},
    "num_kv_heads": {"new_decoder_architecture": True},
}
IN_GPT_NEOX = {"rope_theta": "rotary_emb_base", "partial_rotary_factor": "rotary_pct"}


def read(hf):
    family = readers.family(hf["model_type"])
    if family.two_towers:
        return [family.config_from_hf(hf, tower=x) for x in zoo.TOWERS]
    return family.config_from_hf(hf)


def declared(family):
    return readers.family(family).keys


def other(name, value):
    """Return a value that the key does not have."""
    if name in OTHERS:
        return OTHERS[name]
    if name == "original_max_position_embeddings":
        return 16
    if isinstance(value, bool) or (value is None and name.startswith("is_")):
        return not value
    if value is None and name.startswith("tie_"):
        return False
    if isinstance(value, dict):
        return value | {"num_hidden_layers": 2}
    if isinstance(value, float):
        return 2 * value or 0.5
    return 2 * value if value else 7


def test_every_family_has_a_file():
    """But models of images and text: see test_multimodal.py."""
    parts = {x for x in readers.FAMILIES if readers.family(x).network is not multimodal.Network}
    assert FILES.keys() == parts


@pytest.mark.parametrize("family", FILES)
def test_every_key_that_is_read_matters(family):
    """Another value gives another configuration, or is refused by name."""
    base = FILES[family]
    expected = read(base)
    for name, key in declared(family).read.items():
        for n in (name, *key.names):
            file = {k: v for k, v in base.items() if k not in (name, *key.names)}
            file |= CONDITIONS.get(n, {})
            before = base.get(name, None if key.default is keys.REQUIRED else key.default)
            changed = file | {n: other(n, before)}
            if family == "gpt_neox" and n in IN_GPT_NEOX:
                changed.pop(IN_GPT_NEOX[n], None)
            try:
                found = read(changed)
            except InputError:
                continue
            assert found != expected, f"{family}: {n} is read, and has no effect"


@pytest.mark.slow
@pytest.mark.parametrize("family", FILES)
def test_every_key_of_transformers_is_known(family):
    """Of the family's class, of the base class, and of the settings of generation."""
    import transformers

    kind = transformers.CONFIG_MAPPING[family]
    written = kind().to_dict() | transformers.GenerationConfig().to_dict()
    fields = {x.name for x in dataclasses.fields(kind)} | set(kind.attribute_map)
    names = fields | written.keys() | {"torch_dtype", "num_labels", "name_or_path", "auto_map"}
    of = declared(family)
    known = {*of.read, *(n for key in of.read.values() for n in key.names), *of.inert}
    internal = {"default_theta"}  # a constant of the class, never in a file
    assert not {n for n in names - known - internal if not n.startswith("_from_")}
    # What transformers itself writes can be read.
    written = kind().to_dict()
    if family == "gemma3":
        written["text_config"]["vocab_size"] = 50
    read({name: value for name, value in written.items() if name != "dtype"})


# What has no business in a configuration.
WRONG = ["abc", None, [], [3], -1, 0, 2.5, math.nan, 1e308, math.inf, 10**400, True, {}, "\ud800"]


@pytest.mark.slow
@pytest.mark.parametrize("family", FILES)
def test_values_of_other_types_are_refused_in_one_line(family):
    """Whatever a key holds: a configuration, or one line that can be printed."""
    for name in declared(family).read:
        for value in [*WRONG, [[[]]] * 100, "x" * 10_000]:
            try:
                read(FILES[family] | {name: value})
            except InputError as error:
                line = str(error)
                assert "\n" not in line and len(line) < 600 and line.isascii(), line


@pytest.mark.parametrize("family", [x for x in FILES if "vocab_size" in FILES[x]])
def test_sizes_of_other_types_are_refused(family):
    for value in WRONG:
        with refused("config.json: vocab_size must be an integer from 1 to 2147483647, found"):
            read(FILES[family] | {"vocab_size": value})


@pytest.mark.slow
@pytest.mark.parametrize("place", ["rope_scaling", "rope_parameters"])
def test_rotary_settings_of_other_types_are_refused_in_one_line(place):
    for name in {n for kind in rotary.KINDS.values() for n in kind} | {"rope_type", "type"}:
        for kind in rotary.KINDS:
            for value in WRONG:
                found = {"rope_type": kind, "factor": 2.0, name: value}
                try:
                    read(FILES["llama"] | {"rope_scaling": None, place: found})
                except InputError as error:
                    assert "\n" not in str(error) and str(error).isascii()
    with refused(
        "rotary settings must hold only keys that are known of rope_type 'linear'", "mrope"
    ):
        read(LLAMA | {"model_type": "llama", place: OTHERS[place] | {"mrope_section": [1]}})


def test_two_names_of_one_key_must_agree():
    file = FILES["gpt2"] | {"n_embd": 24}
    assert read(file) == read(FILES["gpt2"]) == read(file | {"n_embd": None})
    with refused("hidden_size and n_embd must agree, found hidden_size 24 and n_embd 48"):
        read(file | {"n_embd": 48})


def test_unknown_keys_are_refused_by_name_and_null_asks_for_nothing():
    assert read(FILES["llama"] | {"new_kind_of_attention": None}) == read(FILES["llama"])
    with refused("only keys that are known of llama, found 'new_kind_of_attention': False; take"):
        read(FILES["llama"] | {"new_kind_of_attention": False})
    with refused("found 'a': 0, 'b': 0, 'c': 0 and 2 more; take a key out of the file if"):
        read(FILES["llama"] | dict.fromkeys("abcde", 0))


@pytest.mark.parametrize(
    "family,found",
    [
        ("gemma2", {"sliding_window_size": 4096}),  # gemma-2-9b
        ("gpt2", {"_num_labels": 1}),  # distilgpt2, and classifiers of transformers 2 and 3
        ("bert", {"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}),
        ("bert", {"sentence_transformers": {"version": "4.1.0"}}),  # cross-encoders
        ("llama", {"eos_token_ids": [1], "loss_type": "ForCausalLM"}),
    ],
)
def test_keys_of_published_files_that_no_class_has(family, found):
    assert read(FILES[family] | found) == read(FILES[family])


def test_deep_nesting_and_other_model_types(tmp_path):
    for text in ['{"a":' * 100_000, '{"model_type": ["llama"]}', '{"model_type": null}', "null"]:
        (tmp_path / "config.json").write_text(text)
        with refused("config.json must be JSON with a model_type"):
            zoo.find(str(tmp_path), None)
    nested = '{"model_type": "llama", "vocab_size": ' + "[" * 400 + "]" * 400 + "}"
    (tmp_path / "config.json").write_text(nested)
    with refused("vocab_size must be an integer"):
        zoo.find(str(tmp_path), None)


# Where transformers finds rotary settings.


def test_rope_scaling_beside_rope_parameters_is_heard():
    found = {"rope_parameters": {"rope_type": "default", "rope_theta": 77.0}, "rope_theta": 500.0}
    linear = {"rope_type": "linear", "factor": 4.0}
    base = LLAMA | {"model_type": "llama"}
    assert read(base | found | {"rope_scaling": linear}) == read(
        base | {"rope_parameters": linear | {"rope_theta": 500.0}}
    )


def test_original_length_at_the_top_level_is_heard():
    base = FILES["llama"]
    assert read(base | {"original_max_position_embeddings": 16}).rope.original_length == 16
    assert read(base).rope.original_length == 32


def test_gpt_neox_hears_its_own_names():
    base = SIZES | {"model_type": "gpt_neox", "intermediate_size": 36}
    own = base | {"rotary_pct": 0.34, "rotary_emb_base": 700}
    assert read(own | {"rope_theta": 9.0, "partial_rotary_factor": 1.0}) == read(own)
    rope = {"rope_type": "default", "rope_theta": 700, "partial_rotary_factor": 0.34}
    assert read(base | {"rope_parameters": rope}) == read(own)


def test_gemma_3_has_no_cap_in_its_attention():
    """transformers has never applied it; Gemma 2's it does."""
    for family, same in {"gemma3_text": True, "gemma2": False}.items():
        capped = FILES[family] | {"attn_logit_softcapping": 0.5}
        assert (read(capped) == read(FILES[family])) is same


def test_mistral_with_layer_types_alternates():
    base = FILES["mistral"] | {"sliding_window": 5}
    types = ["full_attention", "sliding_attention", "full_attention"]
    assert read(base | {"layer_types": types}).windows == (0, 5, 0)
    assert read(base | {"layer_types": None}).windows == (5, 5, 5)
    with refused("sliding_window must be set where layer_types names sliding_attention"):
        read(base | {"layer_types": types, "sliding_window": None})


def test_yarn_without_stretching_is_the_plain_rotation():
    plain = read(LLAMA | {"model_type": "llama"}).rope
    yarn = {"rope_type": "yarn", "factor": 1.0, "original_max_position_embeddings": 16}
    found = read(LLAMA | {"model_type": "llama", "rope_scaling": yarn}).rope
    assert found.frequencies() == pytest.approx(plain.frequencies()) and found.magnitude == 1.0
    dynamic = {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}
    assert read(LLAMA | {"model_type": "llama"} | dynamic).rope == plain


def test_messages_name_the_file(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert", "vocab_size": "abc"}')
    with refused(tmp_path, "config.json: vocab_size must be an integer", "found 'abc'"):
        zoo.find(str(tmp_path), None)
