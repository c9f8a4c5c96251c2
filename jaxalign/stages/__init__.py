"""Stages of a run. Each module has a frozen `Config` and a `plan` of steps; stages meet on disk."""

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

from jax.sharding import Mesh

from jaxalign import processes
from jaxalign.core import mesh as mesh_lib
from jaxalign.data.datasets import Dataset
from jaxalign.io.place import Place
from jaxalign.io.run_dir import Artefact
from jaxalign.pricing.work import Priced, small


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """What every stage is given besides its own settings.

    Attributes:
      workdir: of this run, for what there is once in it: its pages.
      data_root: folder of published data.
      dataset: None of no stage that reads one.
      mesh: devices.
      seed: of every random draw.
      elsewhere: whether the plan is priced for another machine, and not run on this one.
      store: where artefacts go that other runs may share; None: to `workdir`.
      is_here: whether the devices are those that the run will have; a sweep is planned elsewhere.
    """

    workdir: Place
    data_root: pathlib.Path | None
    dataset: Dataset | None
    mesh: Mesh
    seed: int
    elsewhere: bool = False
    store: Place | None = None
    is_here: bool = True

    @property
    def root(self) -> Place:
        """Where artefacts go that are fixed by their fingerprint."""
        return self.store or self.workdir

    @property
    def is_run_here(self) -> bool:
        """Whether memory and devices of this machine matter."""
        return self.is_here and not self.elsewhere

    @property
    def own_mesh(self) -> Mesh:
        """Devices of this process alone, for what the first one makes by itself."""
        return self.mesh if processes.count() == 1 else mesh_lib.own(self.mesh)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
    """One artefact, and how to make it.

    Planning is cheap and finds every error that can be found without computing; `make` does the
    work, resumes what an interrupted run left, and returns facts for the done-marker.
    """

    artefact: Artefact
    make: Callable[[Artefact], dict]
    # Artefacts of other steps that are made before it, though they do not fix what it makes: it
    # reads their files too, or is made together with them.
    needs: tuple[Artefact, ...] = ()
    # Whether all processes of a job make it, each with its devices; else the first one alone.
    together: bool = False
    work: Priced = small(host_s=0.0, disk_bytes=0.0)  # what that takes
    shows: str = ""  # a text file of the artefact to print at the end of the run


# Artefacts that earlier stages make, by stage.
Upstream = Mapping[str, Sequence[Artefact]]
