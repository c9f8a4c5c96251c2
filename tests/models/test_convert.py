"""Conversion of torch files, of differences, and to Orbax; what is refused and what is resumed."""

import builtins
import contextlib
import json
import pathlib
import subprocess
import sys
import tracemalloc

import jax
import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy
from flax import nnx
from networks import assert_same, parameters

from jaxalign.core import mesh as mesh_lib
from jaxalign.errors import InputError
from jaxalign.io import checkpoint, orbax_tree
from jaxalign.models import convert, readers, torch_files, zoo

NAMES = ("roberta", "t5_v1_1", "llama_tied")


@contextlib.contextmanager
def refused(match):
    with pytest.raises(InputError, match=match) as info:
        yield
    assert "\n" not in str(info.value)


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="torch is not installed: .bin files need it")


def read(folder):
    return safetensors.numpy.load_file(folder / "model.safetensors")


def write(folder, tensors):
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")


def load(folder, mesh, **options):
    return parameters(zoo.find(str(folder), None).load(mesh, **options))


def to_bin(folder, torch, shards=1, legacy=False, dtype=None):
    """Write the weights of a folder as torch does, in the place of its safetensors."""
    tensors = {k: torch.from_numpy(v).to(dtype) for k, v in sorted(read(folder).items())}
    (folder / "model.safetensors").unlink()
    options = {"_use_new_zipfile_serialization": not legacy}
    if shards == 1:
        torch.save(tensors, folder / "pytorch_model.bin", **options)
        return tensors
    where = {}
    for i in range(shards):
        file = f"pytorch_model-{i + 1:05}-of-{shards:05}.bin"
        part = dict(list(tensors.items())[i::shards])
        torch.save(part, folder / file, **options)
        where |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": where}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return tensors


# Torch files.


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shards,legacy", [(1, False), (3, False), (1, True)])
def test_torch_files_become_safetensors(
    copy_golden, golden, tmp_path, mesh, torch, name, shards, legacy
):
    folder, target = copy_golden(name), tmp_path / "target"
    to_bin(folder, torch, shards, legacy)
    convert.convert(folder, target)
    assert_same(load(target, mesh), load(golden / name, mesh))
    assert sorted(x.name for x in target.iterdir()) == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert not (tmp_path / "target.unfinished").exists()


def test_an_encoder_alone_is_converted(copy_golden, golden, tmp_path):
    """As T5EncoderModel saves it; it is read with the encoder."""
    folder = copy_golden("t5_v1_1")
    tensors = {k: v for k, v in read(folder).items() if not k.startswith(("decoder.", "lm_head"))}
    write(folder, tensors)
    convert.convert(folder, tmp_path / "target")
    assert read(tmp_path / "target").keys() == tensors.keys()
    zoo.find(str(tmp_path / "target"), None, t5_text="encoder")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_types_are_kept_bit_by_bit(copy_golden, tmp_path, torch, dtype):
    folder, target = copy_golden("roberta"), tmp_path / "target"
    tensors = to_bin(folder, torch, dtype=getattr(torch, dtype))
    convert.convert(folder, target)
    for name, array in read(target).items():
        assert array.dtype == np.dtype(dtype)
        exact = tensors[name].view(torch.int16).numpy()
        np.testing.assert_array_equal(array.view(np.int16), exact)


def test_views_and_buffers_are_written(copy_golden, tmp_path, torch):
    """Transposed, shared and without axes; what torch knows and a network does not use."""
    folder, target = copy_golden("roberta"), tmp_path / "target"
    tensors = to_bin(folder, torch)
    name = "roberta.encoder.layer.0.output.dense.weight"
    tensors[name] = tensors[name].T.contiguous().T
    tensors["roberta.embeddings.position_ids"] = torch.arange(34)[None]
    tensors["classifier.scale"] = torch.tensor(2.5)
    tensors["classifier.seen"] = torch.tensor([True, False])
    torch.save(tensors, folder / "pytorch_model.bin")
    convert.convert(folder, target)
    found = read(target)
    np.testing.assert_array_equal(found[name], tensors[name].numpy())
    assert found["classifier.scale"] == 2.5 and found["classifier.seen"].tolist() == [True, False]


def test_large_output_is_divided(copy_golden, golden, tmp_path, mesh, torch):
    folder, target = copy_golden("t5_v1_0"), tmp_path / "target"
    to_bin(folder, torch)
    convert.convert(folder, target, shard_bytes=20_000)
    files = sorted(x.name for x in target.glob("*.safetensors"))
    assert len(files) > 4 and files[0] == f"model-00001-of-{len(files):05}.safetensors"
    assert max((target / file).stat().st_size for file in files) < 30_000
    assert_same(load(target, mesh), load(golden / "t5_v1_0", mesh))


def test_code_in_a_pickle_is_not_run(copy_golden, tmp_path, torch):
    folder = copy_golden("roberta")
    (folder / "model.safetensors").unlink()

    class Evil:
        def __reduce__(self):
            return (builtins.open, (str(tmp_path / "proof"), "w"))

    torch.save({"x": Evil()}, folder / "pytorch_model.bin")
    with refused("pytorch_model.bin must be a whole file of tensors alone"):
        convert.convert(folder, tmp_path / "target")
    assert not (tmp_path / "proof").exists()


@pytest.mark.parametrize("spoil", ["truncated", "missing", "nested"])
def test_torch_files_that_are_refused(copy_golden, tmp_path, torch, spoil):
    folder = copy_golden("roberta")
    tensors = to_bin(folder, torch, shards=2)
    file = folder / "pytorch_model-00002-of-00002.bin"
    if spoil == "truncated":
        file.write_bytes(file.read_bytes()[:3000])
    elif spoil == "missing":
        file.unlink()
    else:
        torch.save({"state_dict": tensors}, file)
    message = {
        "truncated": "must be a whole file of tensors alone",
        "missing": "must be there: the index names it",
        "nested": "must hold named tensors alone",
    }[spoil]
    with refused(f"00002-of-00002.bin {message}"):
        convert.convert(folder, tmp_path / "target")


def test_tensor_of_a_type_that_is_not_written(copy_golden, tmp_path, torch):
    folder = copy_golden("roberta")
    tensors = to_bin(folder, torch) | {"classifier.x": torch.zeros(2, dtype=torch.complex64)}
    torch.save(tensors, folder / "pytorch_model.bin")
    with refused("tensor classifier.x must be one of .*: complex64"):
        convert.convert(folder, tmp_path / "target")


def test_without_torch(copy_golden, tmp_path, monkeypatch):
    folder = copy_golden("roberta")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    monkeypatch.setitem(sys.modules, "torch", None)  # what an import then finds missing
    with refused(
        r"holds .bin files, which only torch reads: run pip install 'jaxalign\[convert\]'"
    ):
        convert.convert(folder, tmp_path / "target")


# Differences.


def make_delta(copy_golden, new_rows, dtype=np.float16):
    """Return folders of a difference and its base, and the tensors of their sum."""
    base, delta = copy_golden("llama"), copy_golden("llama_tied")
    (delta / "config.json").write_text((base / "config.json").read_text())
    rng = np.random.default_rng(0)
    tensors = {name: x.astype(dtype) for name, x in read(base).items()}
    write(base, tensors)
    difference, expected = {}, {}
    for name, x in tensors.items():
        table = new_rows and name in ("model.embed_tokens.weight", "lm_head.weight")
        shape = (x.shape[0] + 1, *x.shape[1:]) if table else x.shape
        difference[name] = rng.normal(size=shape).astype(dtype)
        padded = x.astype(np.float32)
        if table:
            row = np.zeros_like(padded[:1]) if new_rows == "zero" else padded.mean(0, keepdims=True)
            padded = np.concatenate([padded, row])
        expected[name] = (padded + difference[name].astype(np.float32)).astype(dtype)
    write(delta, difference)
    if new_rows:
        config = json.loads((delta / "config.json").read_text())
        (delta / "config.json").write_text(json.dumps(config | {"vocab_size": 128}))
    return delta, base, expected


@pytest.mark.parametrize("new_rows", ["", "zero", "mean"])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_delta_is_added(copy_golden, tmp_path, mesh, new_rows, dtype):
    delta, base, expected = make_delta(copy_golden, new_rows, dtype)
    convert.convert(delta, tmp_path / "target", base=base, new_rows=new_rows)
    found = read(tmp_path / "target")
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == dtype
        if new_rows == "mean":  # another order of summation
            a, b = found[name].astype(np.float32), array.astype(np.float32)
            np.testing.assert_allclose(a, b, rtol=float(ml_dtypes.finfo(dtype).eps), atol=1e-6)
        else:
            np.testing.assert_array_equal(found[name], array)
    assert zoo.find(str(tmp_path / "target"), None).config.vocab_size == 127 + bool(new_rows)


def test_half_precision_sum_is_that_of_half_precision_arithmetic(copy_golden, tmp_path):
    """The scripts that this stands for add in float16."""
    delta, base, expected = make_delta(copy_golden, "")
    direct = {name: x + read(delta)[name] for name, x in read(base).items()}
    for name, array in expected.items():
        np.testing.assert_array_equal(direct[name], array)


def test_buffers_are_not_added(copy_golden, tmp_path):
    delta, base, _ = make_delta(copy_golden, "")
    buffer = {"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(4, np.float32)}
    write(base, read(base) | buffer)
    convert.convert(delta, tmp_path / "target", base=base)
    assert not any("inv_freq" in name for name in read(tmp_path / "target"))


def test_longer_delta_needs_to_know_what_its_rows_are_added_to(copy_golden, tmp_path):
    delta, base, _ = make_delta(copy_golden, "zero")
    with refused("--new_rows must be given where .*zero for StableVicuna, mean for Alpaca"):
        convert.convert(delta, tmp_path / "target", base=base)


def test_new_rows_without_need(copy_golden, tmp_path):
    delta, base, _ = make_delta(copy_golden, "")
    with refused("only there .*found 'mean' with 0 rows"):
        convert.convert(delta, tmp_path / "target", base=base, new_rows="mean")
    with refused("--new_rows must come with --delta BASE"):
        convert.convert(delta, tmp_path / "other", new_rows="mean")


@pytest.mark.parametrize("spoil", ["missing", "extra", "shape", "infinite"])
def test_deltas_that_do_not_fit(copy_golden, tmp_path, spoil):
    delta, base, _ = make_delta(copy_golden, "")
    tensors = read(delta)
    if spoil == "missing":
        del tensors["model.norm.weight"]
    elif spoil == "extra":
        tensors["model.extra"] = np.ones(3, np.float16)
    elif spoil == "shape":
        tensors["model.norm.weight"] = np.ones(33, np.float16)
    else:
        tensors["model.norm.weight"] = np.full(32, np.inf, np.float16)
    write(delta, tensors)
    message = {
        "missing": "same tensors: model.norm.weight is in .*llama alone",
        "extra": "same tensors: model.extra is in .*llama_tied alone",
        "shape": r"model.norm.weight is \[33\] in .*\[32\] in",
        "infinite": "must be finite: model.norm.weight is not, in float16",
    }[spoil]
    with refused(message):
        convert.convert(delta, tmp_path / "target", base=base)
    assert not (tmp_path / "target").exists()


# Orbax.


@pytest.fixture(scope="module", params=NAMES)
def orbax(request, golden, tmp_path_factory):
    target = tmp_path_factory.mktemp("orbax") / request.param
    convert.convert(golden / request.param, target, output="orbax")
    return target


@pytest.mark.slow
def test_orbax_restores_onto_any_mesh(orbax, golden):
    source = golden / orbax.name
    alone = jax.sharding.Mesh(
        np.array(jax.devices()[:1]).reshape(1, 1),
        ("data", "model"),
        axis_types=(jax.sharding.AxisType.Auto,) * 2,
    )
    for mesh in (alone, mesh_lib.make_mesh(2, 2), mesh_lib.make_mesh(1, 4)):
        network = zoo.find(str(orbax), None).load(mesh)
        expected = zoo.find(str(source), None).load(mesh)
        assert_same(network, expected)
        shardings = lambda x: [p.sharding for p in jax.tree.leaves(nnx.state(x))]
        assert shardings(network) == shardings(expected)


@pytest.mark.slow
def test_orbax_rounds_as_safetensors_do(orbax, golden, mesh):
    found = load(orbax, mesh, dtype="bfloat16")
    assert_same(found, load(golden / orbax.name, mesh, dtype="bfloat16"))


def test_orbax_is_a_model_like_any_other(orbax, golden):
    model, source = (zoo.find(str(x), None) for x in (orbax, golden / orbax.name))
    assert model.config == source.config and model.config_hash == source.config_hash
    assert model.num_parameters == source.num_parameters
    assert len(model.weights_hash) == 16 and model.weights_hash != source.weights_hash
    assert sorted(x.name for x in orbax.iterdir()) == ["config.json", "orbax", "tokenizer.json"]


@pytest.mark.slow
def test_orbax_keeps_the_type(copy_golden, tmp_path, mesh):
    folder = copy_golden("roberta")
    write(folder, {k: v.astype(ml_dtypes.bfloat16) for k, v in read(folder).items()})
    convert.convert(folder, tmp_path / "target", output="orbax")
    arrays = orbax_tree.Arrays(tmp_path / "target" / "orbax")
    assert set(arrays.dtypes().values()) == {np.dtype(ml_dtypes.bfloat16)}
    assert_same(load(tmp_path / "target", mesh), load(folder, mesh))


@pytest.mark.slow
def test_encoder_is_read_from_an_orbax_of_both_stacks(golden, tmp_path, mesh):
    convert.convert(golden / "t5_v1_0", tmp_path / "target", output="orbax")
    find = lambda path: zoo.find(str(path), None, t5_text="encoder").load(mesh)
    assert_same(find(tmp_path / "target"), find(golden / "t5_v1_0"))


def test_delta_of_torch_files_to_orbax_at_once(copy_golden, tmp_path, mesh, torch):
    delta, base, expected = make_delta(copy_golden, "zero")
    to_bin(delta, torch, shards=2)
    to_bin(base, torch)
    convert.convert(delta, tmp_path / "a", base=base, new_rows="zero", output="orbax")
    table = zoo.find(str(tmp_path / "a"), None).load(mesh).words.table[...]
    np.testing.assert_array_equal(table, expected["model.embed_tokens.weight"].astype(np.float32))


@pytest.mark.slow
def test_orbax_that_does_not_fit_its_configuration(golden, tmp_path):
    target = tmp_path / "target"
    convert.convert(golden / "roberta", target, output="orbax")
    config = json.loads((target / "config.json").read_text())
    (target / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with refused(r"must hold blocks/\S+ \[3, .*found \[2, .*convert it again"):
        zoo.find(str(target), None)


def test_unfinished_orbax_is_refused(golden, tmp_path):
    target = tmp_path / "target"
    convert.convert(golden / "roberta", target, output="orbax")
    (target / "orbax" / "commit_success.txt").unlink()
    with refused("must be a whole Orbax checkpoint: there is no commit_success.txt"):
        zoo.find(str(target), None)
    with refused("is an Orbax checkpoint already"):
        convert.convert(target, tmp_path / "again")


# Interruption.


@pytest.mark.slow
@pytest.mark.parametrize("output", convert.FORMATS)
def test_interrupted_conversion_goes_on(copy_golden, golden, tmp_path, mesh, monkeypatch, output):
    """What is finished is not read again, and the result is that of one go."""
    folder, target = copy_golden("t5_v1_0"), tmp_path / "target"
    real, count = checkpoint.Safetensors.read, [0]

    def read_some(self, name, index):
        count[0] += 1
        if count[0] == 40:
            raise KeyboardInterrupt
        return real(self, name, index)

    options = {"output": output, "shard_bytes": 20_000}
    monkeypatch.setattr(checkpoint.Safetensors, "read", read_some)
    with pytest.raises(KeyboardInterrupt):
        convert.convert(folder, target, **options)
    assert not target.exists() and (tmp_path / "target.unfinished").is_dir()
    with refused("is there from another conversion"):
        convert.convert(golden / "t5_v1_0", target, **options)
    reads = []
    monkeypatch.setattr(
        checkpoint.Safetensors,
        "read",
        lambda self, name, index: reads.append(name) or real(self, name, index),
    )
    convert.convert(folder, target, **options)
    monkeypatch.setattr(checkpoint.Safetensors, "read", real)
    whole = len(checkpoint.Safetensors(folder).shapes())
    assert 0 < len(reads) < whole + 20
    if output == "safetensors":
        assert len(set(reads)) < whole
    assert_same(load(target, mesh), load(golden / "t5_v1_0", mesh))


def test_source_that_has_changed_is_not_gone_on_with(copy_golden, tmp_path, monkeypatch):
    folder, target = copy_golden("roberta"), tmp_path / "target"

    def fail(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "write_safetensors", fail)
    with pytest.raises(OSError, match="No space"):
        convert.convert(folder, target)
    monkeypatch.undo()
    write(folder, {k: v + 1 for k, v in read(folder).items()})
    with refused("target.unfinished is there from another conversion .*remove it"):
        convert.convert(folder, target)


# The command, and what it refuses.


def test_target_that_is_there(golden, tmp_path):
    with refused("TARGET must not be there yet"):
        convert.convert(golden / "roberta", tmp_path)


def test_source_without_weights_or_configuration(copy_golden, tmp_path):
    folder = copy_golden("roberta")
    with refused("SOURCE must be a directory with config.json"):
        convert.convert(tmp_path, tmp_path / "target")
    with refused("BASE must be a directory with config.json"):
        convert.convert(folder, tmp_path / "target", base=tmp_path)
    (folder / "model.safetensors").rename(folder / "weights.gguf")
    with refused("found weights.gguf: run python -m jaxalign.models.convert"):
        convert.convert(folder, tmp_path / "target")
    (folder / "weights.gguf").unlink()
    with refused("must hold pytorch_model.bin, model.safetensors, or an index"):
        convert.convert(folder, tmp_path / "target")


def test_weights_that_do_not_fit_their_configuration(copy_golden, tmp_path):
    with refused("must have shape"):
        convert.convert(copy_golden("roberta", vocab_size=77), tmp_path / "target")


@pytest.mark.slow
def test_command(golden, tmp_path, mesh):
    """In a process of its own, as people run it: no backend is started, and errors are one line."""
    run = lambda *args: subprocess.run(
        [sys.executable, "-m", "jaxalign.models.convert", *map(str, args)],
        capture_output=True,
        text=True,
        check=False,
    )
    target = tmp_path / "target"
    done = run(golden / "roberta", target, "--format", "orbax")
    assert done.returncode == 0, done.stderr
    assert "convert roberta: 100%" in done.stderr and "Traceback" not in done.stderr
    assert_same(load(target, mesh), load(golden / "roberta", mesh))
    again = run(golden / "roberta", target)
    assert again.returncode == 2
    assert again.stderr == f"error: TARGET must not be there yet: found {target}.\n"


# Memory.


@pytest.mark.slow
def test_host_memory_is_one_parameter_not_the_model(copy_golden, tmp_path, mesh):
    """40 MB in 48 tensors: what NumPy and safetensors take is bounded by the largest parameter."""
    folder = copy_golden("roberta", hidden_size=256, intermediate_size=1024, num_hidden_layers=12)
    _, config = zoo.configure(zoo.read_config(folder), source="")
    design = "bert"
    from jaxalign.models import weights

    rng = np.random.default_rng(0)
    tensors = {}
    for path, struct in weights.parameters(zoo.abstract(design, config)).items():
        tensor = readers.family(design).tensors(config)[path]
        stacked = "{layer}" in tensor.name
        shape = struct.shape[1:] if stacked else struct.shape
        for layer in range(struct.shape[0] if stacked else 1):
            array = rng.normal(size=shape[::-1] if tensor.transpose else shape)
            tensors["roberta." + tensor.name.format(layer=layer)] = array.astype(np.float32)
    write(folder, tensors)
    total = sum(x.nbytes for x in tensors.values())
    largest = 12 * 256 * 1024 * 4
    assert total > 35e6 and largest < total / 2.9
    del tensors, array

    def peak(work):
        tracemalloc.start()
        try:
            work()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # One parameter, the one before it if jax has not let it go, and what is not arrays. On a busy
    # machine jax may let go later, so the least of three counts.
    loading = min(peak(lambda: zoo.find(str(folder), None).load(mesh)) for _ in range(3))
    assert loading < 2 * largest + 2e6
    for output in convert.FORMATS:
        target = tmp_path / output
        # A tensor, its copy in order, and what Orbax has in flight.
        converting = peak(lambda out=output, to=target: convert.convert(folder, to, output=out))
        assert converting < largest, output


def test_torch_files_are_mapped(copy_golden, torch):
    """Tensors of a file lie where the file is, until they are read."""
    folder = copy_golden("roberta")
    to_bin(folder, torch)
    opened = torch_files.TorchFiles(folder)
    name = "roberta.embeddings.word_embeddings.weight"
    assert opened.shapes()[name] == (128, 24) and opened.dtypes()[name] == np.float32
    assert opened.read(name, (slice(2, 5), slice(None))).shape == (3, 24)
    if sys.platform == "linux":
        maps = pathlib.Path("/proc/self/maps").read_text()
        assert str(folder / "pytorch_model.bin") in maps
    assert len(opened.hash()) == 16
