"""Stages of a run. Each module has a frozen `Config` and a `plan` of steps; stages meet on disk."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

from jax.sharding import Mesh

from jaxalign.data.datasets import Dataset
from jaxalign.io.run_dir import Artefact


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What every stage is given besides its own settings."""

    workdir: pathlib.Path
    data_root: pathlib.Path | None
    dataset: Dataset | None  # None: of no stage that reads one
    mesh: Mesh
    seed: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One artefact, and how to make it.

    Planning is cheap and finds every error that can be found without computing; `make` does the
    work, resumes what an interrupted run left, and returns facts for the done-marker.
    """

    artefact: Artefact
    make: Callable[[Artefact], dict]
    # Artefacts of other steps whose files it reads too, though they do not fix what it makes.
    needs: tuple[Artefact, ...] = ()
    shows: str = ""  # a text file of the artefact to print at the end of the run


# Artefacts that earlier stages make, by stage.
Upstream = Mapping[str, Sequence[Artefact]]
