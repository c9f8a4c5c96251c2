"""Times and memory of a network by itself: a pass, its compilation, its loading."""

import dataclasses
import functools
import pathlib
import time

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxalign.bench import extract_page as tables
from jaxalign.bench import networks, timing
from jaxalign.bench.extract import shared
from jaxalign.bench.extract.config import Depths, Forward, Loading, Network
from jaxalign.core import mesh as mesh_lib
from jaxalign.data.sets import natural_stories
from jaxalign.data.text import joining, tokenizer_files
from jaxalign.io.run_dir import Artefact
from jaxalign.models import zoo
from jaxalign.stages import Job


@jax.jit
@jax.default_matmul_precision("highest")
def _hidden(network, tokens, mask):
    return network(tokens, mask).hidden


def measure_forward(case: Forward, network: Network, job: Job, artefact: Artefact) -> list[dict]:
    """Time the same batch of tokens."""
    assert job.data_root is not None
    tokenizer = tokenizer_files.load(job.data_root / shared.TOKENIZER)
    stimuli = natural_stories.load(job.data_root, "word")
    ids = np.array(tokenizer.encode(joining.join(list(stimuli.text)).text).ids, np.int32)
    tokens = np.resize(ids, (case.batch, case.length))
    mask = np.ones(tokens.shape, bool)
    with shared.checkpoint(network, job, artefact) as folder:
        ours = zoo.find(str(folder), None).load(job.mesh)
        peer = networks.load(folder)
    place = lambda x: jax.device_put(x, mesh_lib.sharding(job.mesh, ("batch", None), x.shape))
    timings = timing.take_turns(
        {
            tables.OURS: lambda: np.asarray(_hidden(ours, place(tokens), place(mask))),
            tables.TORCH: lambda: networks.hidden_states(peer, tokens, mask),
        },
        repeats={tables.OURS: case.num_repeats, tables.TORCH: case.num_repeats},
    )
    theirs = timings[tables.TORCH]
    difference = networks.relative_difference(list(timings[tables.OURS].result), theirs.result)
    rows = []
    for solver, timed in timings.items():
        row = shared.timing_row(solver, timed) | {"num_tokens": tokens.size}
        row |= {"length": case.length, "tokens_per_s": tokens.size / row["median_s"]}
        row["ratio"] = theirs.median_s / row["median_s"]
        if solver == tables.OURS:
            row |= {"difference": difference, "bar": case.bar}
        rows.append(row)
    return rows


def measure_depths(case: Depths, network: Network, job: Job, artefact: Artefact) -> list[dict]:
    """Time compilation, in a process that finds no compiled programs on disk."""
    del artefact
    assert job.data_root is not None
    vocab_size = tokenizer_files.load(job.data_root / shared.TOKENIZER).get_vocab_size()
    times = timing.in_new_process(_compile, network, case.num_layers, vocab_size, case.num_repeats)
    shortest = min(float(np.median(x)) for x in times.values())
    rows = []
    for num_layers, taken in times.items():
        row = {"solver": tables.OURS, "num_layers": num_layers, "num_repeats": len(taken)}
        row |= {"median_s": float(np.median(taken)), "min_s": min(taken), "max_s": max(taken)}
        rows.append(row | {"ratio": row["median_s"] / shortest, "bar": case.bar})
    return rows


def _compile(
    network: Network, depths: tuple[int, ...], vocab_size: int, num_repeats: int
) -> dict[int, list[float]]:
    """Return the seconds from call to program for each depth, taken in turns."""
    struct = lambda dtype: jax.ShapeDtypeStruct((1, 64), dtype)
    times: dict[int, list[float]] = {depth: [] for depth in depths}
    for turn in range(num_repeats + 1):
        for depth in depths:
            module = _abstract(dataclasses.replace(network, num_layers=depth), vocab_size)
            jax.clear_caches()
            start = time.perf_counter()
            _hidden.lower(module, struct(jnp.int32), struct(bool)).compile()
            if turn:  # the first one imports and warms up
                times[depth].append(time.perf_counter() - start)
    return times


def _abstract(network: Network, vocab_size: int) -> nnx.Module:
    if network.family == "gpt2":
        hf = {
            "n_layer": network.num_layers,
            "n_embd": network.width,
            "n_head": network.num_heads,
            "n_inner": network.mlp_size,
            "n_positions": network.max_length,
        }
    else:
        hf = {
            "num_hidden_layers": network.num_layers,
            "hidden_size": network.width,
            "num_attention_heads": network.num_heads,
            "intermediate_size": network.mlp_size,
            "max_position_embeddings": network.max_length,
        }
    hf |= {"model_type": network.family, "vocab_size": vocab_size}
    return zoo.abstract(*zoo.configure(hf, source="bench_extract"))


def measure_loading(case: Loading, network: Network, job: Job, artefact: Artefact) -> list[dict]:
    """Take the peak memory of a process that loads a checkpoint."""
    with shared.checkpoint(network, job, artefact) as folder:
        model = zoo.find(str(folder), None)
        memory = timing.peak_memory(functools.partial(_find, folder), _load)
    weights_mb = 4 * model.num_parameters / 1e6
    row = {"solver": tables.OURS, "weights_mb": weights_mb, "bar": case.bar, **memory}
    return [row | {"ratio": memory["peak_mb"] / weights_mb}]


def _find(folder: pathlib.Path) -> tuple[zoo.Model]:
    return (zoo.find(str(folder), None),)


def _load(model: zoo.Model) -> None:
    jax.block_until_ready(nnx.split(model.load(mesh_lib.make_mesh(-1, 1)))[1])
