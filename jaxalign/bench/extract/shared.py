"""What all cases share: a checkpoint, and the row of a timing."""

import contextlib
import json
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxalign.bench import networks, timing
from jaxalign.bench.extract.config import Network
from jaxalign.data.text import tokenizer_files
from jaxalign.io import place
from jaxalign.io.run_dir import Artefact
from jaxalign.stages import Job

TOKENIZER = "tokenizers_gpt2"  # in the folder of published data


@contextlib.contextmanager
def checkpoint(network: Network, job: Job, artefact: Artefact) -> Iterator[pathlib.Path]:
    """Give the folder of a checkpoint that transformers drew and saved."""
    assert job.data_root is not None
    with place.scratch(artefact.path, "inputs.") as inside:
        folder = inside / "network"
        tokenizer = tokenizer_files.load(job.data_root / TOKENIZER)
        networks.write(folder, tokenizer, sizes=network, seed=job.seed)
        yield folder


def timing_row(solver: str, timed: timing.Timing, scale: float = 1.0) -> dict[str, Any]:
    """Describe the times of one solver, scaled from the part of the work that was done to all."""
    times = scale * np.array(timed.times_s)
    return {
        "solver": solver,
        "num_repeats": len(times),
        "median_s": float(np.median(times)),
        "min_s": times.min(),
        "max_s": times.max(),
        "first_s": timed.first_s,
        "scale": scale,
        "times_s": json.dumps(timed.times_s),
        "others_cores": timed.others_cores,
    }
