"""Networks on meshes: how parameters divide, what is refused, and what devices tell each other."""

import json
import pathlib
import re
import subprocess
import sys

import jax
import numpy as np
import pytest
from absl import logging
from command import REPOSITORY
from jax.sharding import AxisType, Mesh

from jaxalign.core import mesh as mesh_lib
from jaxalign.errors import InputError
from jaxalign.models import memory, weights, zoo
from jaxalign.models.table import MODELS

AXES = (4, 8, 16, 32)  # devices along the model axis
# The largest of each family that does not fit one device, over how many devices its heads divide,
# and what all devices hold together, in copies of the network.
LARGE = {
    "llama-3-70b": ((4, 8, 16, 32), 1.06),
    "qwen2.5-72b": ((4, 8, 16, 32), 1.06),
    "qwen3-32b": ((4, 8, 16, 32), 1.07),
    "llama-65b": ((4, 8, 16, 32), 1.001),
    "llama-33b": ((4, 4, 4, 4), 3.3),  # 52 heads
    "bloom": ((4, 8, 16, 16), 1.34),  # 112
    "opt-66b": ((4, 8, 8, 8), 2.01),  # 72
    "pythia-12b": ((4, 8, 8, 8), 1.97),  # 40
    "gemma-2-27b": ((4, 8, 16, 32), 1.04),
    "falcon-40b": ((4, 8, 16, 32), 1.05),
    "t5-v1.0-11b": ((4, 8, 16, 32), 1.001),
}


def abstract(name):
    return zoo.abstract(*zoo.describe(name), "bfloat16")


@pytest.mark.parametrize("name", ["llama-3-70b", "opt-66b"])
def test_large_networks_divide(name):
    check_division(name)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(LARGE.keys() - {"llama-3-70b", "opt-66b"}))
def test_other_large_networks_divide(name):
    check_division(name)


def check_division(name):
    network, (heads, most) = abstract(name), LARGE[name]
    whole = weights.bytes_per_device(network, {"data": 1, "model": 1})
    assert whole == 2 * (MODELS[name].num_parameters - MODELS[name].num_unused)
    assert tuple(weights.head_parts(network, {"model": m}) for m in AXES) == heads
    sizes = [weights.bytes_per_device(network, {"data": 1, "model": m}) for m in AXES]
    assert all(whole / m <= size <= most * whole / m for m, size in zip(AXES, sizes, strict=True))
    assert sizes == sorted(sizes, reverse=True)


def test_bytes_are_those_of_the_placed_arrays():
    network, mesh = abstract("gpt2-xl"), mesh_lib.make_mesh(1, 4)
    placed = weights.placements(network, mesh).values()
    size = sum(np.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in placed)
    assert size == weights.bytes_per_device(network, mesh.shape)


@pytest.fixture
def chips(monkeypatch):
    """Four devices that each hold as many GiB as it is called with."""

    def hold(gib):
        monkeypatch.setattr(memory, "device_bytes", lambda device: int(gib * 2**30))

    return hold


def refusal(name, mesh, dtype="bfloat16"):
    design, config = zoo.describe(name)
    model = zoo.Model(
        name=name,
        design=design,
        config=config,
        checkpoint=None,
        tokenizer_path=pathlib.Path(),
        names={},
    )
    with pytest.raises(InputError) as error:
        model.check_memory(mesh, dtype=dtype)
    return str(error.value)


def test_the_refusal_names_the_mesh_that_holds_the_parameters(mesh, chips):
    chips(15)
    text = refusal("llama-33b", mesh)
    assert re.search(r"need 60.6 GiB on device [0-3], which has 15.0 GiB left; ", text)
    assert text.endswith("mesh (-1, 8), on 8 such devices, is the first that holds them; or use "
                         "compute_dtype bfloat16, or a smaller model.")  # fmt: skip
    assert "mesh (-1, 16), on 16 such devices" in refusal("llama-3-70b", mesh)
    chips(40)
    assert refusal("llama-3-70b", mesh).endswith("mesh (-1, 4) is the first that holds them.")
    assert refusal("llama-33b", mesh).endswith("mesh (-1, 2) is the first that holds them.")
    chips(0.001)
    assert refusal("llama-3-70b", mesh).endswith("or a smaller model.")
    assert "mesh (" not in refusal("llama-3-70b", mesh)


def test_devices_that_share_the_host_are_never_more(mesh, monkeypatch):
    monkeypatch.setattr(memory, "host_bytes", lambda: 140 * 2**30)
    assert refusal("llama-3-70b", mesh).endswith("mesh (-1, 4) is the first that holds them.")
    monkeypatch.setattr(memory, "host_bytes", lambda: 130 * 2**30)
    assert "mesh (" not in refusal("llama-3-70b", mesh)


@pytest.mark.parametrize(
    "units, most, parts",
    [
        (("heads", 64, 8), 16, 16),
        (("kv_heads", 8, 8), 16, 8),
        (("heads", 28, 4), 8, 4),
        (("heads", 25, 25), 8, 1),
        (("heads", 12, 6), 8, 2),  # 4 parts of 3 heads would divide a pair
        (("heads", 12, 1), 8, 4),
    ],
)
def test_heads_stay_whole(units, most, parts):
    assert mesh_lib.Units(*units).parts(most) == parts


@pytest.mark.parametrize("most", [2, 4, 6, 8, 12, 16, 32])
@pytest.mark.parametrize("num, groups", [(12, 6), (12, 4), (64, 8), (40, 8), (36, 12), (30, 6)])
def test_each_part_has_the_key_value_heads_of_its_queries(num, groups, most):
    """The devices that hold a query head hold its key-value head."""
    queries = mesh_lib.Units("heads", num, groups).parts(most)
    keys = mesh_lib.Units("kv_heads", groups, groups).parts(most)
    for device in range(most):
        part, size = device // (most // queries), num // queries
        read = {head // (num // groups) for head in range(part * size, (part + 1) * size)}
        held, size = device // (most // keys), groups // keys
        assert read <= set(range(held * size, (held + 1) * size))


def test_what_divides_in_part_lies_on_neighbours():
    devices = np.array(jax.devices()).reshape(1, 4)
    mesh = Mesh(devices, ("data", "model"), axis_types=(AxisType.Auto,) * 2)
    logical = ("embed", mesh_lib.Units("kv_heads", 2, 2))
    placed = jax.device_put(np.arange(8.0)[None], mesh_lib.sharding(mesh, logical, (1, 8)))
    held = {x.device: x.data.tolist() for x in placed.addressable_shards}
    first, last = [[0.0, 1.0, 2.0, 3.0]], [[4.0, 5.0, 6.0, 7.0]]
    assert [held[device] for device in devices.flat] == [first, first, last, last]


def test_heads_that_leave_devices_without_work_are_said(golden, monkeypatch):
    said = []
    monkeypatch.setattr(logging, "warning", lambda text, *values: said.append(text % values))
    model = zoo.find(str(golden / "llama"), None)
    heads = model.config.num_heads
    model.load(mesh_lib.make_mesh(-1, 1))
    assert not said
    model.load(mesh_lib.make_mesh(1, 4))
    expected = [] if heads % 4 == 0 else [f"model llama: its heads divide over {np.gcd(heads, 4)}"]
    assert [text[: len(start)] for text, start in zip(said, expected, strict=True)] == expected


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What two networks found on meshes of 16 devices: 64 heads of 8 groups, and 28 of 4."""
    folder = tmp_path_factory.mktemp("networks")
    networks = ["64:8:16x1,1x16", "28:4:16x1,2x8"]
    command = [sys.executable, "-m", "tests.support.divided", str(folder), *networks]
    run = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads((folder / "found.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("network", [0, 1])
def test_devices_tell_each_other_two_sums_a_layer(found, network):
    """Also where heads lie on part of the devices; where rows are divided, nothing is told."""
    alone, divided = found[network]["found"]
    assert alone["collectives"] == {}
    # One for each sublayer, in the loop over layers, and one for the embedding.
    assert divided["collectives"] == {"all-reduce": 3, "in loops": 2}
    np.testing.assert_allclose(divided["vectors"], alone["vectors"], atol=2e-5)


@pytest.mark.slow
def test_weights_are_read_in_slices(found):
    """Of 64 heads with 8 key-value heads, on 16 devices: those of keys and values twice."""
    parameters, (alone, divided) = found[0]["parameters"], found[0]["found"]
    assert alone["on each device"] == parameters
    assert parameters / 16 <= divided["on each device"] < 1.15 * parameters / 16
    # Of the largest tensor of one layer a device's part.
    assert divided["largest read"] == 256 * 512 / 16
    assert alone["largest read"] == 256 * 512
