"""Engines: what starts the jobs of a sweep. None is a scheduler of ours."""

import dataclasses
import importlib
from collections.abc import Mapping
from types import ModuleType

from jaxalign.errors import InputError

# Name -> module. Each has `check(options)`, which finds what is wrong before anything is planned,
# `chip(options)`, what the machine of a job is called in `pricing.chips` ("" if that is not known),
# `start(record, options)`, which returns an exit code, and `queue(record)`, what it knows of jobs
# that are not done: a word or two for each name, nothing of a job that it does not know.
ENGINES: Mapping[str, str] = {
    "local": "jaxalign.sweeps.engines.local",
    "slurm": "jaxalign.sweeps.engines.slurm",
    "skypilot": "jaxalign.sweeps.engines.skypilot",
    "jobset": "jaxalign.sweeps.engines.jobset",
    "tpu_vm": "jaxalign.sweeps.engines.tpu_vm",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What engines are told; each reads what it knows of.

    Attributes:
      devices_per_job: accelerators that a job has; 0: none, it computes on the CPU.
      parallel: jobs at a time; 0: as many as there are groups of devices.
      share: (index, count) of this machine among several that run the same sweep.
      partition: of a cluster; "": the usual one.
      hours: that a job may take on a cluster.
      cpus_per_job: cores that a job has on a cluster.
      memory_gb: that a job has on a cluster; 0: what is usual there.
      tasks_per_job: processes that make a job together on a cluster.
      nodes_per_job: of a cluster, which these are divided over.
      slurm: other options of sbatch, by name.
      folder: of the sweep, where it is not in the store; "": it is.
      config: the configuration file; what follows is for engines that write files.
      overrides: flags `--config.<name>=<value>` of all jobs.
      data_root: folder of published data here; "": none.
      remote_data: where that is on other machines.
      machines: how many there are.
      accelerator: what each has; a name of `machines.MACHINES`.
      spot: take machines that may be taken away.
      zone: of TPU VMs.
      bucket: of SkyPilot's store.
      image: of containers.
      volume: claim of a volume for the store.
      prepare: a shell command that every machine runs first, such as one that fetches weights.
    """

    devices_per_job: int = 1
    parallel: int = 0
    share: tuple[int, int] = (0, 1)
    partition: str = ""
    hours: float = 24.0
    cpus_per_job: int = 8
    memory_gb: float = 0.0
    tasks_per_job: int = 1
    nodes_per_job: int = 1
    slurm: Mapping[str, str] = dataclasses.field(default_factory=dict)
    folder: str = ""
    config: str = ""
    overrides: tuple[str, ...] = ()
    data_root: str = ""
    remote_data: str = ""
    machines: int = 1
    accelerator: str = ""
    spot: bool = True
    zone: str = ""
    bucket: str = ""
    image: str = ""
    volume: str = ""
    prepare: str = ""

    def on(self, remote_data: str) -> "Options":
        """Return the options for machines that have published data elsewhere."""
        return dataclasses.replace(self, remote_data=remote_data)


def find(name: str) -> ModuleType:
    """Return the module of an engine.

    Raises:
      InputError: if there is none of that name.
    """
    if name not in ENGINES:
        raise InputError(f"--to must be one of {', '.join(ENGINES)}, got {name!r}.")
    return importlib.import_module(ENGINES[name])
