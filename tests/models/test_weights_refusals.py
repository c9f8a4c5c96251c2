"""Checkpoints in every storage form that is read, and a clear word for those that are not."""

import json
import re
import shutil

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from networks import assert_same
from networks import parameters as values
from refusals import refused

from jaxalign.data.text import tokenizer_files
from jaxalign.io.checkpoint import Llama2c
from jaxalign.models import zoo

INDEX = "model.safetensors.index.json"


def find(folder):
    return zoo.find(str(folder), None)


def read(folder):
    return safetensors.numpy.load_file(folder / "model.safetensors")


def write(folder, tensors):
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")


def shard(folder):
    """Split a checkpoint in two files; return their index."""
    tensors = read(folder)
    names = sorted(tensors)
    weight_map = {}
    for i, part in enumerate((names[::2], names[1::2]), start=1):
        file = f"model-{i:05}-of-00002.safetensors"
        safetensors.numpy.save_file({name: tensors[name] for name in part}, folder / file)
        weight_map |= dict.fromkeys(part, file)
    (folder / "model.safetensors").unlink()
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / INDEX).write_text(json.dumps(index))
    return index


# What is read.


@pytest.mark.parametrize("name", ["bert", "llama_tied"])
def test_shards_load_as_one_file(copy_golden, golden, mesh, name):
    folder = copy_golden(name)
    shard(folder)
    assert_same(find(folder).load(mesh), find(golden / name).load(mesh))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16], ids=["float16", "bfloat16"])
def test_half_precision_files_load(copy_golden, golden, mesh, dtype):
    """In float32 their values are exact."""
    folder = copy_golden("bert")
    write(folder, {name: x.astype(dtype) for name, x in read(folder).items()})
    found, exact = values(find(folder).load(mesh)), values(find(golden / "bert").load(mesh))
    for path, expected in exact.items():
        assert found[path].dtype == np.float32
        np.testing.assert_array_equal(found[path], expected.astype(dtype).astype(np.float32))
        assert (found[path] != expected).any()


def test_file_of_float32_loads_to_bfloat16_by_rounding(golden, mesh):
    model = find(golden / "bert")
    found, exact = values(model.load(mesh, dtype="bfloat16")), values(model.load(mesh))
    for path, expected in exact.items():
        np.testing.assert_array_equal(found[path], expected.astype(ml_dtypes.bfloat16))


def test_norms_as_tensorflow_called_them_load(copy_golden, golden, mesh):
    """bert-base-uncased as it is published: gamma and beta, beside heads."""
    folder = copy_golden("bert")
    ends = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    renamed = {}
    for name, tensor in read(folder).items():
        end = next((x for x in ends if name.endswith(x)), "")
        renamed[name.removesuffix(end) + ends.get(end, "")] = tensor
    assert "bert.embeddings.LayerNorm.gamma" in renamed and len(renamed) == len(read(folder))
    renamed["cls.predictions.transform.LayerNorm.gamma"] = np.ones(24, np.float32)
    write(folder, renamed)
    assert_same(find(folder).load(mesh), find(golden / "bert").load(mesh))


def test_hash_follows_the_content(copy_golden, golden):
    folder = copy_golden("bert")
    assert find(folder).weights_hash == find(golden / "bert").weights_hash
    tensors = read(folder)
    tensors["bert.embeddings.LayerNorm.bias"][3] += 1e-3
    write(folder, tensors)
    assert find(folder).weights_hash != find(golden / "bert").weights_hash
    assert find(folder).config_hash == find(golden / "bert").config_hash
    assert re.fullmatch("[0-9a-f]{16}", find(folder).weights_hash)


def test_config_hash_follows_the_architecture(copy_golden, golden):
    folder = copy_golden("llama_tied", rms_norm_eps=1e-4)
    assert find(folder).config_hash != find(golden / "llama_tied").config_hash
    assert find(folder).weights_hash == find(golden / "llama_tied").weights_hash


@pytest.mark.parametrize("name", ["bert", "llama_tied"])
def test_tokenizer_stays_inside_the_vocabulary(golden, name):
    model = find(golden / name)
    tokenizer = tokenizer_files.load(model.tokenizer_path)
    ids = tokenizer.encode("Nobody asked Zoë for 25 keys!").ids
    assert len(ids) > 8 and max(ids) < model.config.vocab_size
    assert tokenizer.get_vocab_size() <= model.config.vocab_size


# Which model.


def test_unknown_name(tmp_path):
    with refused(
        "model must be a name in the table", "all-MiniLM-L6-v2, stories260K", "found 'gpt-17'"
    ):
        zoo.find("gpt-17", tmp_path)


def test_model_without_its_data_folder(tmp_path):
    with refused("model stories260K lies in the data folder", "--data_root", "JAXALIGN_DATA"):
        zoo.find("stories260K", None)
    with refused("model stories260K must lie at", tmp_path, "there is no such file"):
        zoo.find("stories260K", tmp_path)


def test_model_without_its_package(monkeypatch):
    row = zoo.Row(repository="", package="no_such_package_here", folder="model")
    monkeypatch.setitem(zoo.MODELS, "absent", row)
    with refused("model absent comes with the Python package no_such_package_here", "pip install"):
        zoo.find("absent", None)


def test_missing_configuration(copy_golden):
    folder = copy_golden("bert")
    (folder / "config.json").unlink()
    with refused("model bert", "must hold config.json", "there is no such file"):
        find(folder)


# config.json.


@pytest.mark.parametrize("text", ["{", "[1]", '{"hidden_size": 3}', '"bert"'])
def test_config_that_is_no_configuration(copy_golden, text):
    folder = copy_golden("bert")
    (folder / "config.json").write_text(text)
    with refused("config.json must be JSON with a model_type"):
        find(folder)


def test_unknown_model_type(copy_golden):
    folder = copy_golden("bert", model_type="rwkv")
    with refused("config.json: model_type must be one of albert, bert,", "llama", "found 'rwkv'"):
        find(folder)


@pytest.mark.parametrize(
    "name,key",
    [
        ("bert", "vocab_size"),
        ("bert", "max_position_embeddings"),
        ("bert", "hidden_size"),
        ("llama_tied", "hidden_size"),
        ("llama_tied", "intermediate_size"),
        ("llama_tied", "num_attention_heads"),
    ],
)
def test_config_without_a_key(copy_golden, name, key):
    folder = copy_golden(name, **{key: ...})
    with refused("config.json must set", key, "missing"):
        find(folder)


@pytest.mark.parametrize(
    "name,key,value,supported",
    [
        ("bert", "position_embedding_type", "relative_key", "absolute"),
        ("llama_tied", "pruned_heads", {"0": [1]}, {}),
        ("llama_tied", "is_causal", False, True),
    ],
)
def test_variant_that_is_not_built(copy_golden, name, key, value, supported):
    folder = copy_golden(name, **{key: value})
    with refused(f"config.json: {key} must be {supported!r}, found {value!r}"):
        find(folder)


@pytest.mark.parametrize(
    "changes,found",
    [
        ({"rope_parameters": {"rope_type": "axial", "rope_theta": 1e4, "factor": 8.0}}, "axial"),
        ({"rope_parameters": ..., "rope_scaling": {"rope_type": "mrope", "factor": 2.0}}, "mrope"),
        ({"rope_parameters": ..., "rope_scaling": {"type": "mrope", "factor": 2.0}}, "mrope"),
    ],
    ids=["transformers 5", "transformers 4", "older"],
)
def test_scaled_rotary_positions(copy_golden, changes, found):
    folder = copy_golden("llama_tied", **changes)
    with refused("config.json: rope_type must be one of default, linear", f"found {found!r}"):
        find(folder)


def test_quantised_checkpoint(copy_golden):
    folder = copy_golden("llama_tied", quantization_config={"quant_method": "gptq", "bits": 4})
    with refused("quantised checkpoints are not supported", "gptq", "use the original weights"):
        find(folder)


def test_quantisation_of_null_is_none(copy_golden):
    assert find(copy_golden("llama_tied", quantization_config=None)).config.num_layers == 3


def test_encoder_that_masks_what_follows(copy_golden):
    """Hugging Face runs it causally: bidirectional states would be another network's."""
    with refused("config.json: is_decoder must be False, found True"):
        find(copy_golden("bert", is_decoder=True))


def test_heads_that_do_not_divide_the_width(copy_golden):
    """No tensor's shape tells: only the configuration can be asked."""
    with refused("config.json", "num_attention_heads", "found 5"):
        find(copy_golden("bert", num_attention_heads=5))


# Tensors.


@pytest.mark.parametrize("num_bytes", [5, 4000, -10])
def test_truncated_file(copy_golden, num_bytes):
    folder = copy_golden("bert")
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:num_bytes])
    with refused(file, "must be a whole safetensors file", "fetch it again"):
        find(folder)


@pytest.mark.parametrize(
    "name,tensor,shape",
    [
        ("bert", "encoder.layer.1.attention.self.query.weight", [32, 32]),
        ("bert", "embeddings.LayerNorm.bias", [32]),
        ("llama_tied", "layers.2.mlp.down_proj.weight", [32, 48]),
        ("llama_tied", "norm.weight", [32]),
    ],
)
def test_missing_tensor(copy_golden, name, tensor, shape):
    folder = copy_golden(name)
    tensors = read(folder)
    del tensors[("bert." if name == "bert" else "model.") + tensor]
    write(folder, tensors)
    with refused(f"model {name}", f"must hold tensor {tensor} {shape}", "missing"):
        find(folder)


@pytest.mark.slow
def test_tied_configuration_of_a_checkpoint_with_a_head_of_its_own(copy_golden, golden, mesh):
    """transformers 5 uses the head that is there, whatever the configuration says."""
    model, untied = find(copy_golden("llama", tie_word_embeddings=True)), find(golden / "llama")
    assert model.config == untied.config and not model.config.tied_embeddings
    assert_same(model.load(mesh), untied.load(mesh))


def test_head_that_copies_the_table_is_the_table(copy_golden, golden):
    folder = copy_golden("llama_tied")
    tensors = read(folder)
    write(folder, tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]})
    assert find(folder).config == find(golden / "llama_tied").config
    # And the other way round: transformers gives the table what the head holds.
    tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")
    write(folder, tensors)
    assert find(folder).names["embed_tokens.weight"] == "lm_head.weight"


@pytest.mark.slow
def test_checkpoint_without_a_head(copy_golden):
    """Embedding models and classifiers have hidden states, and no logits."""
    model = find(copy_golden("llama_tied", tie_word_embeddings=False))
    assert not model.predicts and find(copy_golden("llama")).predicts
    network = zoo.abstract(model.design, model.config)
    with pytest.raises(ValueError, match="without a head has no logits"):
        network.logits(jnp.zeros((1, 1, 32)))


def test_extra_tensors(copy_golden):
    folder = copy_golden("llama_tied")
    tensors = read(folder) | {"model.layers.0.self_attn.q_proj.bias": np.ones(48, np.float32)}
    write(folder, tensors)
    with refused("must hold no tensor", "found layers.0.self_attn.q_proj.bias."):
        find(folder)
    write(folder, tensors | {"model.layers.3.mlp.up_proj.weight": np.ones((48, 32), np.float32)})
    with refused("must hold no tensor", "q_proj.bias and 1 more"):
        find(folder)


def test_checkpoint_with_more_layers_than_its_configuration(copy_golden):
    with refused("must hold no tensor", "found encoder.layer.2.", "and 15 more"):
        find(copy_golden("bert", num_hidden_layers=2))


def test_misshapen_tensor(copy_golden):
    """The transpose has the right number of values and the wrong meaning."""
    folder = copy_golden("bert")
    tensors = read(folder)
    name = "bert.encoder.layer.1.output.dense.weight"
    tensors[name] = np.ascontiguousarray(tensors[name].T)
    write(folder, tensors)
    with refused(
        "tensor encoder.layer.1.output.dense.weight must have shape [32, 48], found [48, 32]"
    ):
        find(folder)


def test_weights_of_another_size(copy_golden):
    with refused("word_embeddings.weight must have shape [200, 32], found [128, 32]"):
        find(copy_golden("bert", vocab_size=200))


# Shards.


def test_neither_file_nor_index(copy_golden):
    folder = copy_golden("bert")
    (folder / "model.safetensors").unlink()
    with refused(folder, "must hold model.safetensors or model.safetensors.index.json"):
        find(folder)


def test_index_names_a_missing_shard(copy_golden):
    folder = copy_golden("bert")
    shard(folder)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with refused("model-00002-of-00002.safetensors must be a whole safetensors file", "No such"):
        find(folder)


def test_index_lacks_a_shard(copy_golden):
    folder = copy_golden("bert")
    index = shard(folder)
    first = {k: v for k, v in index["weight_map"].items() if v.startswith("model-00001")}
    (folder / INDEX).write_text(json.dumps(index | {"weight_map": first}))
    with refused("must hold tensor", "missing"):
        find(folder)


@pytest.mark.parametrize(
    "text",
    ["{", "[]", "null", "7", '{"metadata": {}}', '{"weight_map": []}', '{"weight_map": {"a": 3}}']
    + ['{"weight_map": {"a": "\\ud800"}}', '{"weight_map": {"a": "../b"}}', "[" * 5000],
    ids=str.strip,
)
def test_index_without_a_weight_map(copy_golden, text):
    folder = copy_golden("bert")
    shard(folder)
    (folder / INDEX).write_text(text)
    with refused(INDEX, "weight_map"):
        find(folder)


# llama2.c.


@pytest.fixture
def llama2c(tmp_path):
    """A file of zeros with one layer of width 8; return a function that writes it spoilt."""
    dim, hidden, layers, heads, kv_heads, vocab, length = header = (8, 12, 1, 2, 1, 10, 6)
    count = (
        vocab * dim
        + layers * (2 * dim + 2 * dim * dim + 2 * dim * kv_heads * dim // heads + 3 * dim * hidden)
        + dim
        + length * dim // heads
    )

    def write(*, header=header, drop=0, add=0):
        data = np.array(header, np.int32).tobytes() + bytes(4 * count)
        path = tmp_path / "tiny.bin"
        path.write_bytes(data[: len(data) - drop] + bytes(add))
        return path

    return write


def test_whole_llama2c_file_opens(llama2c):
    shapes = Llama2c(llama2c()).shapes()
    assert shapes["model.layers.0.self_attn.k_proj.weight"] == (4, 8) and len(shapes) == 11


@pytest.mark.parametrize("spoilt", [{"drop": 1}, {"drop": 400}, {"add": 4}])
def test_llama2c_file_of_the_wrong_size(llama2c, spoilt):
    path = llama2c(**spoilt)
    size = path.stat().st_size
    whole = size + spoilt.get("drop", 0) - spoilt.get("add", 0)
    with refused(path, f"must have {whole} bytes", f"found {size}; fetch it again"):
        Llama2c(path)


@pytest.mark.parametrize(
    "header",
    [
        (0, 12, 1, 2, 1, 10, 6),
        (8, 12, -1, 2, 1, 10, 6),
        (8, 12, 1, 3, 1, 10, 6),
        (8, 12, 1, 2, 1, 10, 0),
        (8, 12, 1, 2, 1),
    ],
    ids=["no width", "negative layers", "heads do not divide", "no length", "too short"],
)
def test_llama2c_file_with_an_impossible_header(llama2c, tmp_path, header):
    path = llama2c(header=header)
    if len(header) < 7:
        path.write_bytes(np.array(header, np.int32).tobytes())
    with refused(path, "must begin with a llama2.c version 0 header"):
        Llama2c(path)


def test_truncated_stories(data_root, tmp_path):
    source = data_root / "stories260K"
    if not source.is_dir():
        pytest.skip("the data folder holds no stories260K")
    target = tmp_path / "stories260K"
    shutil.copytree(source, target)
    target.chmod(0o755)
    file = target / "stories260K.bin"
    file.chmod(0o644)
    file.write_bytes(file.read_bytes()[:-1000])
    with refused("stories260K.bin must have 1056540 bytes", "found 1055540; fetch it again"):
        zoo.find("stories260K", tmp_path)


def test_tensor_with_and_without_prefix_is_refused(copy_golden):
    folder = copy_golden("bert")
    tensors = read(folder)
    name = "embeddings.word_embeddings.weight"
    write(folder, tensors | {name: np.zeros_like(tensors[f"bert.{name}"])})
    with refused("must hold each tensor once", name):
        find(folder)


@pytest.mark.parametrize(
    "stored,message",
    [
        ("I8", "tensor embeddings.LayerNorm.bias must hold floating-point numbers, found int8"),
        ("F8_E4M3", "bert.embeddings.LayerNorm.bias is F8_E4M3"),
    ],
)
def test_tensor_of_a_quantised_type(copy_golden, stored, message):
    """Without a quantization_config that says so."""
    folder = copy_golden("bert")
    name, tensors = "bert.embeddings.LayerNorm.bias", read(folder)
    write(folder, tensors | {name: tensors[name].astype(np.int8)})
    file = folder / "model.safetensors"
    data = file.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    header[name]["dtype"] = stored
    text = json.dumps(header).encode()
    file.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + size :])
    with refused(folder, message):
        find(folder)
