"""Models that are kept along a training, as directories that `models.zoo` reads."""

import dataclasses
import functools
import pathlib
import shutil
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pandas as pd
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Float

from jaxalign import processes
from jaxalign.core import mesh as mesh_lib
from jaxalign.io import run_dir
from jaxalign.models import directories, formats, lora, weights, zoo
from jaxalign.stages.artefacts import Tuning
from jaxalign.stages.tune.given import Given
from jaxalign.training import step as step_lib

UNFINISHED = ".unfinished"


@dataclasses.dataclass(frozen=True)
class Kept:
    """Where models of a training go.

    Attributes:
      model: that is tuned.
      parts: of the network, without what is trained.
      dtype: of models on disk.
      mesh: devices.
      made: the artefact.
    """

    model: zoo.Model
    parts: step_lib.Parts
    dtype: str
    mesh: Mesh
    made: Tuning

    def has(self, step: int) -> bool:
        """Whether the model after a step is there."""
        return processes.decide(lambda: self.made.folder_of(step).is_dir())

    def write(self, step: int, trained: Any) -> None:
        """Write the model after a step; its directory is there when all of it is.

        Args:
          step: steps that were taken.
          trained: the parameters that are trained.
        """
        from jaxalign.io import orbax_tree  # slow to import

        folder = self.made.folder_of(step)
        work = folder.with_name(folder.name + UNFINISHED)
        processes.decide(lambda: self._prepare(work, step))
        orbax_tree.save(work / formats.ORBAX, self._merge(trained, self.parts.frozen))
        if self._is_adapted(trained):
            flat = nnx.to_flat_state(trained)
            adapters = {weights.name_of(path): x.get_value() for path, x in flat}
            orbax_tree.save(work / formats.ADAPTER, adapters)
        processes.barrier()
        processes.decide(lambda: work.rename(folder) and None)

    def _prepare(self, work: pathlib.Path, step: int) -> None:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        directories.write_files(self.model, work)
        artefact = self.made.artefact
        about = {"name": self.made.name_of(step), "step": step, "fingerprint": artefact.fingerprint}
        run_dir.write_json(work / formats.ABOUT, about | {"settings": dict(artefact.settings)})

    def _is_adapted(self, trained: Any) -> bool:
        return any(isinstance(x, lora.Adapter) for _, x in nnx.to_flat_state(trained))

    @functools.cached_property
    def _merge(self) -> Callable[[Any, Any], dict[str, jax.Array]]:
        """A program for all parameters by name, adapters merged, as they are to lie on disk."""
        network = zoo.abstract(self.model.design, self.model.config, self.dtype)
        placed = weights.placements(network, self.mesh, rules=mesh_lib.TRAINING_RULES)
        shardings = tuple((name, x.sharding) for name, x in placed.items())
        return _program(self.parts.graph, self.dtype, shardings)


@functools.lru_cache(maxsize=4)  # as the step's
def _program(graph: Any, dtype: str, shardings: tuple[tuple[str, Any], ...]):
    merge = functools.partial(_merged, graph, dtype)
    return jax.jit(merge, out_shardings=dict(shardings))


def _merged(graph: Any, dtype: str, trained: Any, frozen: Any) -> dict[str, jax.Array]:
    network = nnx.merge(graph, trained, frozen)
    if lora.is_adapted(network):
        lora.merge(network)
    flat = nnx.to_flat_state(nnx.state(network))
    return {weights.name_of(path): x.get_value().astype(dtype) for path, x in flat}


def table(made: Tuning, given: Given, loss: Float[np.ndarray, " s"]) -> pd.DataFrame:
    """Return a row for each model: what it has seen, and the mean loss since the one before.

    Args:
      made: the artefact.
      given: the training.
      loss: of each step, before its update.
    """
    settings, rows, before = made.settings, [], 0
    tokens, targets = (np.r_[0, np.cumsum(x)] for x in (given.seen.tokens, given.seen.targets))
    for step in given.checkpoints:
        since = loss[before:step]
        rows.append(
            {
                "model": made.name_of(step),
                "base": settings["model"],
                "arm": given.arm,
                "training_seed": given.seed,
                "step": step,
                "tokens": int(tokens[step]),
                "target_tokens": int(targets[step]),
                "loss": float(since.mean()) if len(since) else np.nan,
                "fingerprint": made.artefact.fingerprint,
            }
        )
        before = step
    return pd.DataFrame(rows)
