"""Exports against the files that transformers wrote, and against what is loaded again."""

import json
import os
import pathlib
import shutil

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from networks import assert_same, parameters

from jaxalign.data.text import tokenizer_files
from jaxalign.errors import InputError
from jaxalign.io import checkpoint, orbax_tree
from jaxalign.io.checkpoint import Safetensors
from jaxalign.models import adapter_files, directories, export, lora, planned, readers, weights, zoo

# One of each layout: maps apart, fused in a row and by head, stored [inputs outputs], with a bias
# on the head, without a prefix, with two stacks, and what is not linear.
QUICK = ("llama", "decoders/gpt2", "decoders/neox", "decoders/phi3")
LONG = (
    "decoders/gptj",
    "decoders/opt_post",
    "decoders/gemma3",
    "families/falcon_40b",
    "families/olmo2",
    "families/albert",
    "t5_v1_1",
    "multimodal/llava",
    "multimodal/qwen2_5_vl",
    "multimodal/smolvlm",
    "multimodal/qwen3_vl",
    "vision/dinov2_swiglu",
)
slow = pytest.mark.slow
EVERY = (slice(None),)


def stored(name, model):
    """Return the tensors of a golden folder that the network uses."""
    found = safetensors.numpy.load_file(name / "model.safetensors")
    for unused in export.Published(model).left_out():
        del found[unused]
    return found


@pytest.fixture
def to_orbax(golden, tmp_path):
    """Return a golden model in the layout of our own network, of any type."""

    def make(name, dtype=None):
        folder = tmp_path / "ours" / pathlib.Path(name).name
        folder.mkdir(parents=True)
        source = zoo.find(str(golden / name), None)
        shapes = weights.parameters(zoo.abstract(source.design, source.config))
        arrays = {
            path: source.parameter(path, x.shape, EVERY * len(x.shape))
            for path, x in shapes.items()
        }
        arrays = {path: x if dtype is None else x.astype(dtype) for path, x in arrays.items()}
        orbax_tree.save(folder / "orbax", arrays)
        directories.write_files(source, folder)
        return folder

    return make


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(x, marks=slow) for x in LONG)])
def test_names_and_values_are_those_of_transformers(golden, name):
    """What the network holds is written by the names, and in the layout, that it was read from."""
    model = zoo.find(str(golden / name), None)
    published, expected = export.Published(model), stored(golden / name, model)
    assert published.shapes() == {x: y.shape for x, y in expected.items()}
    for tensor, values in expected.items():
        np.testing.assert_array_equal(published.read(tensor, EVERY * values.ndim), values)


@slow
def test_gemma_3_is_written_with_its_tower_where_it_was_read(golden, tmp_path):
    source = golden / "multimodal/gemma3"
    model = zoo.find(str(source), None, whole=True)
    export.export(model, tmp_path / "out")
    files = (x / "model.safetensors" for x in (tmp_path / "out", source))
    found, expected = map(safetensors.numpy.load_file, files)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
    assert zoo.find(str(tmp_path / "out"), None, whole=True).config == model.config


@slow
def test_models_without_a_prefix_are_read_again_by_their_family(golden):
    for name in ("bert", "roberta", "vision/vit"):
        model = zoo.find(str(golden / name), None)
        family = readers.family(model.design)
        expected = {family.name(x): y.shape for x, y in stored(golden / name, model).items()}
        assert export.Published(model).shapes() == expected


@pytest.mark.parametrize("name", ["decoders/neox", pytest.param("t5_v1_0", marks=slow)])
def test_from_our_layout_to_files_and_back(golden, to_orbax, tmp_path, mesh, name):
    """In parts of a file each, with an index; the file's content is that of the original."""
    folder = to_orbax(name)
    said = export.export(zoo.find(str(folder), None), tmp_path / "out", shard_bytes=20_000)
    files = sorted(x.name for x in (tmp_path / "out").glob("*.safetensors"))
    assert len(files) > 2 and f"in {len(files)} files." in said
    assert max((tmp_path / "out" / x).stat().st_size for x in files) < 30_000
    assert {x.name for x in (tmp_path / "out").iterdir()} == {
        "config.json",
        "tokenizer.json",
        "model.safetensors.index.json",
        *files,
    }
    found, expected = Safetensors(tmp_path / "out"), Safetensors(golden / name)
    assert found.shapes() == expected.shapes()
    for tensor, shape in expected.shapes().items():
        np.testing.assert_array_equal(
            *(x.read(tensor, EVERY * len(shape)) for x in (found, expected))
        )
    load = lambda place: parameters(zoo.find(str(place), None).load(mesh))
    assert_same(load(tmp_path / "out"), load(folder))


def test_types_are_kept_or_rounded_and_said(to_orbax, tmp_path):
    folder = to_orbax("llama_tied", ml_dtypes.bfloat16)
    model = zoo.find(str(folder), None)
    said = export.export(model, tmp_path / "kept")
    assert "MB of bfloat16, in 1 file." in said and f"{model.num_parameters:,} parameters" in said
    found = Safetensors(tmp_path / "kept")
    assert set(found.dtypes().values()) == {np.dtype(ml_dtypes.bfloat16)}
    assert json.loads((tmp_path / "kept" / "config.json").read_text())["dtype"] == "bfloat16"
    export.export(model, tmp_path / "wide", dtype="float32")
    wide = Safetensors(tmp_path / "wide")
    for name, shape in found.shapes().items():
        values, more = (x.read(name, EVERY * len(shape)) for x in (found, wide))
        assert more.dtype == np.float32
        np.testing.assert_array_equal(values.astype(np.float32), more)
    assert json.loads((tmp_path / "wide" / "config.json").read_text())["dtype"] == "float32"


def test_values_beyond_the_type_are_refused(to_orbax, tmp_path):
    folder = to_orbax("llama_tied")
    model = zoo.find(str(folder), None)
    shapes = model.checkpoint.shapes()
    arrays = {x: model.parameter(x, y, EVERY * len(y)) for x, y in shapes.items()}
    arrays["final_norm/scale"] = np.full(shapes["final_norm/scale"], 1e5, np.float32)
    shutil.rmtree(folder / "orbax")
    orbax_tree.save(folder / "orbax", arrays)
    with pytest.raises(InputError, match=r"model.norm.weight must be finite in float16.*1e\+05"):
        export.export(zoo.find(str(folder), None), tmp_path / "out", dtype="float16")
    assert not (tmp_path / "out").exists()


def test_an_interrupted_export_goes_on(golden, tmp_path, monkeypatch):
    """Files that are whole stay; another model or type is refused."""
    model = zoo.find(str(golden / "llama"), None)
    write, count = checkpoint.write_safetensors, []

    def killed(path, tensors, read):
        if len(count) == 2:
            raise KeyboardInterrupt
        count.append(path)
        write(path, tensors, read)

    monkeypatch.setattr(checkpoint, "write_safetensors", killed)
    with pytest.raises(KeyboardInterrupt):
        export.export(model, tmp_path / "out", shard_bytes=20_000)
    assert not (tmp_path / "out").exists()
    before = {x: os.stat(x).st_mtime_ns for x in count}
    monkeypatch.setattr(checkpoint, "write_safetensors", write)
    with pytest.raises(InputError, match="another conversion"):
        export.export(model, tmp_path / "out", dtype="bfloat16", shard_bytes=20_000)
    export.export(model, tmp_path / "out", shard_bytes=20_000)
    assert not (tmp_path / "out.unfinished").exists()
    for path, time in before.items():
        assert os.stat(tmp_path / "out" / path.name).st_mtime_ns == time
    with pytest.raises(InputError, match="TARGET must not be there yet"):
        export.export(model, tmp_path / "out")
    with pytest.raises(InputError, match="TARGET must not lie in SOURCE"):
        export.export(model, golden / "llama/out")


@slow
def test_gemma_3_is_written_without_its_tower(golden, tmp_path):
    """As the model of text that transformers knows, since no more is in the network."""
    text = golden / "decoders/gemma3"
    tensors = safetensors.numpy.load_file(text / "model.safetensors")
    whole = {f"language_model.{x}": y for x, y in tensors.items()}
    whole["vision_tower.weight"] = np.zeros(3, np.float32)
    folder = tmp_path / "whole"
    folder.mkdir()
    safetensors.numpy.save_file(whole, folder / "model.safetensors")
    config = json.loads((text / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps({"model_type": "gemma3", "text_config": config, "vision_config": {}})
    )
    shutil.copyfile(text / "tokenizer.json", folder / "tokenizer.json")
    said = export.export(zoo.find(str(folder), None), tmp_path / "out")
    assert said.endswith(
        "not written, because no activation passes through: 1 (vision_tower.weight)."
    )
    written = safetensors.numpy.load_file(tmp_path / "out" / "model.safetensors")
    assert written.keys() == tensors.keys()
    for name, values in tensors.items():
        np.testing.assert_array_equal(written[name], values)
    found = json.loads((tmp_path / "out" / "config.json").read_text())
    assert found["model_type"] == "gemma3_text"
    assert zoo.find(str(tmp_path / "out"), None).config == zoo.find(str(text), None).config


@pytest.mark.parametrize("name", ["vision/clip", "vision/siglip"])
def test_what_cannot_be_turned_round_is_refused_by_name(golden, tmp_path, name):
    model = zoo.find(str(golden / name), None)
    with pytest.raises(InputError, match=f"a {model.design} cannot be exported"):
        export.export(model, tmp_path / "out")
    assert not list(tmp_path.iterdir())


@slow
def test_a_llama2c_file_becomes_a_folder(data_root, tmp_path, mesh, capsys):
    """With the same network, the same tokens, and a tokenizer that transformers reads."""
    export.main(["stories260K", str(tmp_path / "out"), f"--data_root={data_root}"])
    assert "260,032 parameters, 1.0 MB of float32, in 1 file." in capsys.readouterr().out
    source, found = zoo.find("stories260K", data_root), zoo.find(str(tmp_path / "out"), None)
    assert found.config_hash == source.config_hash
    assert_same(parameters(found.load(mesh)), parameters(source.load(mesh)))
    hashes = {
        tokenizer_files.hash_of(tokenizer_files.load(x.tokenizer_path)) for x in (source, found)
    }
    assert len(hashes) == 1


def test_a_model_that_another_step_makes_is_read_when_it_is_there(golden, to_orbax):
    """Its table of words, of which controls are made, as of any other directory."""
    folder, base = to_orbax("llama_tied"), zoo.find(str(golden / "llama_tied"), None)
    made = planned.model(base, "made", folder, "0123")
    np.testing.assert_array_equal(made.word_embedding(), base.word_embedding())


# Adapters.


@slow
@pytest.mark.parametrize("name", ["llama", "decoders/gpt2", "decoders/neox", "t5_v1_1"])
def test_adapters_add_to_modules_what_they_add_to_maps(golden, tmp_path, mesh, name):
    """(alpha / rank) B A of each module is the difference that merging makes, in its layout."""
    model = zoo.find(str(golden / name), None)
    network = model.load(mesh)
    lora.add(network, rank=2, alpha=3.0, seed=0)
    rng = np.random.default_rng(1)
    for _, linear in lora.maps(network):
        linear.lora_b[...] = rng.normal(0, 1, linear.lora_b.shape).astype(np.float32)
    adapters = adapter_files.of_network(network)
    adapter_files.write(tmp_path, model, adapters, base="organisation/base")
    config = json.loads((tmp_path / adapter_files.CONFIG).read_text())
    stored = safetensors.numpy.load_file(tmp_path / adapter_files.WEIGHTS)
    modules = {x.rpartition(".lora_")[0] for x in stored}
    assert config["base_model_name_or_path"] == "organisation/base" and config["r"] == 2
    assert config["fan_in_fan_out"] == (name == "decoders/gpt2")

    before = parameters(model.load(mesh))
    lora.merge(network)
    tensors = readers.family(model.design).tensors(model.config)
    expected = {}
    for path, values in parameters(network).items():
        added, tensor = values.astype(np.float64) - before[path], tensors[path]
        for layer in range(len(added)) if "{layer}" in tensor.name else (None,):
            full = model.names[tensor.of_layer(layer or 0)]
            whole = expected.setdefault(full, np.zeros(model.checkpoint.shapes()[full]))
            tensor.write(whole, added if layer is None else added[layer])
    total = 0
    for full, difference in expected.items():
        module = f"base_model.model.{full.removesuffix('.weight')}"
        if module not in modules:
            assert not difference.any(), full
            continue
        end = next(x for x in config["target_modules"] if module.endswith("." + x))
        rank = config["rank_pattern"].get(end, config["r"])
        alpha = config["alpha_pattern"].get(end, config["lora_alpha"])
        a, b = (stored[f"{module}.lora_{x}.weight"].astype(np.float64) for x in "AB")
        assert a.shape[0] == b.shape[1] == rank
        product = alpha / rank * b @ a
        product = product.T if config["fan_in_fan_out"] else product
        np.testing.assert_allclose(product, difference, atol=2e-6)
        total += 1
    assert total == len(modules) > 0


@slow
def test_adapters_of_a_tuned_model_are_written_by_the_command(
    golden, to_orbax, tmp_path, mesh, capsys
):
    """The same files as of the network in memory; what is incomplete is refused."""
    folder, target = to_orbax("llama_tied"), tmp_path / "out"
    command = [str(folder), str(target), "--adapter=organisation/base"]
    with pytest.raises(InputError, match=r"must hold adapters \(adapter/\): it has none"):
        export.main(command)
    model = zoo.find(str(folder), None)
    network = model.load(mesh)
    lora.add(network, rank=2, alpha=3.0, seed=0)
    adapters = adapter_files.of_network(network)
    arrays = {
        f"{path}/lora_{letter}": x
        for path, pair in adapters.arrays.items()
        for letter, x in zip("ab", pair, strict=True)
    }
    orbax_tree.save(folder / "adapter", arrays)
    with pytest.raises(InputError, match="must say lora_alpha in its settings"):
        export.main(command)
    (folder / "tuning.json").write_text(json.dumps({"settings": {"lora_alpha": 3.0}}))
    export.main(command)
    assert "rank 2 on 7 kinds of maps, alpha 3, " in capsys.readouterr().out
    adapter_files.write(tmp_path / "direct", model, adapters, base="organisation/base")
    for name in (adapter_files.CONFIG, adapter_files.WEIGHTS):
        assert (target / name).read_bytes() == (tmp_path / "direct" / name).read_bytes()


@slow
def test_adapters_that_have_no_form_are_refused(golden, tmp_path, mesh):
    model = zoo.find(str(golden / "vision/vit"), None)
    network = model.load(mesh)
    with pytest.raises(InputError, match="must have adapters"):
        adapter_files.of_network(network)
    lora.add(network, rank=1, alpha=1.0, seed=0)
    adapters = adapter_files.of_network(network)
    with pytest.raises(InputError, match=r"patch_embeddings.projection.weight has no form"):
        adapter_files.write(tmp_path / "out", model, adapters, base="base")
    assert not (tmp_path / "out").exists()
