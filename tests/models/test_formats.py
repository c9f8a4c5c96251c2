"""Formats that are not read are refused by name; networks that do not fit, before they are read."""

import json

import jax
import jax.numpy as jnp
import pytest

from jaxalign.core import mesh as mesh_lib
from jaxalign.errors import InputError
from jaxalign.models import memory, weights, zoo


def refused(folder):
    with pytest.raises(InputError) as info:
        zoo.find(str(folder), None)
    assert "\n" not in str(info.value)
    return str(info.value)


@pytest.mark.parametrize(
    "settings,method",
    [
        ({"quant_method": "gptq", "bits": 4}, "gptq"),
        ({"quant_method": "awq"}, "awq"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ({"load_in_8bit": True}, "bitsandbytes"),
    ],
)
def test_quantised_weights(copy_golden, settings, method):
    text = refused(copy_golden("roberta", quantization_config=settings))
    assert f"not supported (found '{method}'); use the original weights" in text


@pytest.mark.parametrize(
    "file,method", [("quantize_config.json", "gptq"), ("quant_config.json", "awq")]
)
def test_quantised_weights_as_they_were_first_marked(copy_golden, file, method):
    folder = copy_golden("t5_v1_0")
    (folder / file).write_text(json.dumps({"bits": 4}))
    assert f"found '{method}'" in refused(folder)


@pytest.mark.parametrize(
    "file,parts",
    [
        ("model-Q4_K_M.gguf", ("found model-Q4_K_M.gguf", "python -m jaxalign.models.convert")),
        ("pytorch_model.bin", ("found pytorch_model.bin", "python -m jaxalign.models.convert")),
        ("pytorch_model-00001-of-00002.bin", ("-00001-of-00002.bin", "jaxalign.models.convert")),
        ("consolidated.00.pth", ("LLaMA's original layout", "convert_llama_weights_to_hf")),
        ("adapter_model.safetensors", ("holds an adapter alone", "merge_and_unload")),
    ],
)
def test_other_formats(copy_golden, file, parts):
    folder = copy_golden("roberta")
    (folder / "model.safetensors").rename(folder / file)
    text = refused(folder)
    assert all(part in text for part in (str(folder), *parts))


def test_bin_beside_safetensors_is_no_matter(copy_golden):
    folder = copy_golden("roberta")
    (folder / "pytorch_model.bin").write_bytes(b"")
    assert zoo.find(str(folder), None).config.num_layers == 2


def test_network_that_fits_no_host(mesh):
    """A whole LLaMA 65B in float32 on each of four devices that share the host's memory."""
    design, config = zoo.describe("llama-65b")
    placed = weights.placements(zoo.abstract(design, config), mesh)
    with pytest.raises(InputError, match="llama-65b: its parameters must fit.* GiB on the host"):
        memory.check(placed, source="model llama-65b")


@pytest.mark.slow
def test_model_is_refused_before_it_is_read(golden, mesh, monkeypatch):
    model = zoo.find(str(golden / "roberta"), None)
    needed = 4 * 4 * model.num_parameters  # float32, on each of four devices
    monkeypatch.setattr(memory, "host_bytes", lambda: needed - 1)
    monkeypatch.setattr(type(model.checkpoint), "read", lambda *_: pytest.fail("a tensor was read"))
    with pytest.raises(InputError, match="model roberta: its parameters must fit in memory"):
        model.load(mesh)
    with pytest.raises(InputError, match="must fit in memory"):
        model.load(mesh, untrained_seed=1)
    monkeypatch.undo()
    monkeypatch.setattr(memory, "host_bytes", lambda: needed)
    model.load(mesh)


def test_devices_with_memory_of_their_own(monkeypatch):
    """Each holds its part: halves along the model axis, whatever the number of copies."""
    mesh = mesh_lib.make_mesh(2, 2)
    struct = jax.ShapeDtypeStruct(
        (4, 6), jnp.bfloat16, sharding=mesh_lib.sharding(mesh, (None, "mlp"), (4, 6))
    )
    monkeypatch.setattr(memory, "host_bytes", lambda: 0)
    monkeypatch.setattr(memory, "device_bytes", lambda device: 24)
    memory.check({"x": struct}, source="model x")
    with pytest.raises(InputError, match="model x: .* on device [0-3], which has"):
        memory.check({"x": struct, "y": struct}, source="model x")


def test_host_has_memory():
    assert 2**20 < memory.host_bytes() < 2**50
    assert memory.device_bytes(jax.devices()[0]) is None
