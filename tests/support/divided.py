"""A small grouped-query network on meshes of 16 simulated devices; writes what it found as JSON.

Run in a process of its own, since the number of devices is fixed when JAX starts.
"""

import collections
import json
import pathlib
import re
import sys

import jax
import numpy as np
import safetensors.numpy

from jaxalign.core import mesh as mesh_lib
from jaxalign.data.text.batches import Reads
from jaxalign.models import readers, weights, zoo
from jaxalign.stages.extract import forward

HEAD, LAYERS, VOCABULARY, ROWS = 4, 2, 96, 16
# Over a chunk of attention, where a CPU alone would take heads one after the other.
TOKENS = 160
COLLECTIVES = "all-reduce|all-gather|all-to-all|collective-permute|reduce-scatter"


def write(folder: pathlib.Path, heads: int, kv_heads: int) -> None:
    """Write a checkpoint whose heads are in the ratio of LLaMA 3 70B."""
    width = heads * HEAD
    hf = {
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 512,
        "hidden_size": width,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "intermediate_size": 2 * width,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
    }
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(hf))
    design, config = zoo.configure(hf, source="here")
    tensors, rng = readers.family(design).tensors(config), np.random.default_rng(0)
    stored = {}
    for path, param in weights.parameters(zoo.abstract(design, config)).items():
        tensor = tensors[path]
        stacked = "{layer}" in tensor.name
        shape = tensor.stored_shape(param.shape[1:] if stacked else param.shape)
        for layer in range(LAYERS if stacked else 1):
            drawn = 0.1 * rng.standard_normal(shape).astype(np.float32)
            stored[tensor.name.format(layer=layer)] = drawn
    safetensors.numpy.save_file(stored, folder / "model.safetensors")


def collectives(compiled: jax.stages.Compiled) -> dict[str, int]:
    """Count the collectives of a program, those of a loop once, and those that are in loops."""
    found, inside = collections.Counter(), ""
    for line in compiled.as_text().splitlines():
        inside = line.split(" ", 1)[0] if line and not line.startswith(" ") else inside
        if match := re.search(rf"\b({COLLECTIVES})(-start)?\(", line):
            found[match[1]] += 1
            found["in loops"] += inside != "ENTRY"
    return dict(found)


def passed(model: zoo.Model, data: int, along: int) -> dict:
    """Load a model on a mesh, and pass one batch through it."""
    mesh = mesh_lib.make_mesh(data, along)
    read, most = 0, 0
    tensor = model.checkpoint.read

    def counted(name, where):
        nonlocal read, most
        values = tensor(name, where)
        read, most = read + values.size, max(most, values.size)
        return values

    object.__setattr__(model.checkpoint, "read", counted)
    network = model.load(mesh)
    object.__setattr__(model.checkpoint, "read", tensor)
    B, T = ROWS, TOKENS
    rng = np.random.default_rng(1)
    place = lambda x: jax.device_put(x, mesh_lib.sharding(mesh, ("batch", None), x.shape))
    every = np.arange(T, dtype=np.int32)[None].repeat(B, axis=0)
    reads = Reads(every, np.full((B, T), 1 / T, np.float32), np.zeros((B, T), np.int32))
    tokens = rng.integers(VOCABULARY, size=(B, T)).astype(np.int32)
    arrays = jax.tree.map(place, (tokens, np.ones((B, T), bool), reads, None))
    program = forward._forward.lower(
        network, arrays, num_sums=(1, 0), tap="residual", mesh=mesh
    ).compile()
    vectors, _ = program(network, arrays)
    placed = weights.placements(zoo.abstract(model.design, model.config), mesh)
    sizes = [np.prod(x.sharding.shard_shape(x.shape)) for x in placed.values()]
    return {
        "mesh": [data, along],
        "collectives": collectives(program),
        "read": int(read),
        "largest read": int(most),
        "on each device": int(sum(sizes)),
        "vectors": np.asarray(vectors)[:, ::8, 0].tolist(),
    }


def main() -> None:
    """Write, for each network of the command line, what each of its meshes found.

    A network is its heads, its key-value heads and its meshes, such as 28:4:16x1,2x8.
    """
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", ROWS)
    folder, *networks = sys.argv[1:]
    results = []
    for network in networks:
        heads, kv_heads, meshes = network.split(":")
        path = pathlib.Path(folder) / f"{heads} heads"
        write(path, int(heads), int(kv_heads))
        model = zoo.find(str(path), None)
        found = [passed(model, *map(int, mesh.split("x"))) for mesh in meshes.split(",")]
        results.append({"parameters": model.num_parameters, "found": found})
    (pathlib.Path(folder) / "found.json").write_text(json.dumps(results))


if __name__ == "__main__":
    main()
