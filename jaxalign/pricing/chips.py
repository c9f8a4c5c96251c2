"""What chips can do: a table, what was measured in their place, and machines made of them."""

import dataclasses
import json
import math
import os
import pathlib
import re
from collections.abc import Mapping

import jax

from jaxalign.errors import InputError
from jaxalign.pricing.work import KINDS, Layout

# Where a calibration is kept, a file for each chip, unless a path is given.
CALIBRATIONS = "~/.cache/jaxalign/chips"
VERSION = 1  # of the file
# Operations in float32 and in float64 of a processor core in one second: 32 and 16 for each of 2.5
# GHz (two units of eight numbers that multiply and add).
_CORE = 8e10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """A kind of device.

    Attributes:
      name: in the table.
      kind: what JAX calls it begins with this (`Device.device_kind`).
      bfloat16, float32, float64: operations in one second, at most.
      memory: bytes.
      bandwidth: bytes in one second between its memory and its units.
      per_host: devices that one host has.
      efficiency: share of these operations that each kind of work reaches, see `work.KINDS`.
      network_compile_s, solver_compile_s: seconds to compile a program.
      fit_s: seconds that the regression of a layer takes, whatever its size.
      read: bytes of weights in one second from disk to the devices.
      source: of the numbers.
      measured: when the last seven were measured (`jaxalign.calibrate`); "": they are guesses.
    """

    name: str
    kind: str
    bfloat16: float
    float32: float
    float64: float
    memory: float
    bandwidth: float
    per_host: int
    source: str
    efficiency: Mapping[str, float]
    network_compile_s: float = 15.0
    solver_compile_s: float = 5.0
    fit_s: float = 0.05
    read: float = 1e9
    measured: str = ""

    def peak(self, kind: str) -> float:
        """Return the operations in one second, at most, that a kind of work could reach.

        Args:
          kind: of `work.KINDS`.
        """
        of = {"bfloat16": self.bfloat16, "factor": self.float64, "eigen": self.float64}
        return of.get(kind, self.float32)

    def rate(self, kind: str) -> float:
        """Return the operations in one second that a kind of work reaches.

        Args:
          kind: of `work.KINDS`.
        """
        return self.peak(kind) * self.efficiency[kind]

    def layout(self, data: int, model: int) -> Layout:
        """Return devices of this kind along the two axes of a mesh."""
        return Layout(data, model, self.name == "cpu", self.kind.startswith("TPU"))


_EFFICIENCY = {"bfloat16": 0.4, "float32": 0.4, "sweep": 0.3, "factor": 0.4, "eigen": 0.02}
_TPU = {"source": "scaling-book, tpus.md", "efficiency": _EFFICIENCY}
_GPU = {"source": "vendor", "efficiency": _EFFICIENCY, "network_compile_s": 6.0}
_V4 = {"source": "cloud.google.com/tpu/docs/v4", "efficiency": _EFFICIENCY}

# A TPU computes float32 at highest precision in six passes of bfloat16; it has no float64, which is
# made of pairs of float32 away from the matrix unit: that speed is a guess until it is calibrated.
CHIPS = {
    chip.name: chip
    for chip in (
        Chip(
            name="v4",
            kind="TPU v4",
            bfloat16=2.75e14,
            float32=2.75e14 / 6,
            float64=3e11,
            memory=32 * 2.0**30,
            bandwidth=1.2e12,
            per_host=4,
            **_V4,
        ),
        Chip(
            name="v5e",
            kind="TPU v5 lite",
            bfloat16=1.97e14,
            float32=1.97e14 / 6,
            float64=2e11,
            memory=16e9,
            bandwidth=8.1e11,
            per_host=8,
            **_TPU,
        ),
        Chip(
            name="v5p",
            kind="TPU v5p",
            bfloat16=4.59e14,
            float32=4.59e14 / 6,
            float64=4e11,
            memory=96e9,
            bandwidth=2.8e12,
            per_host=4,
            **_TPU,
        ),
        Chip(
            name="v6e",
            kind="TPU v6 lite",
            bfloat16=9.2e14,
            float32=9.2e14 / 6,
            float64=4e11,
            memory=32e9,
            bandwidth=1.6e12,
            per_host=8,
            **_TPU,
        ),
        # Of the A100 with 80 GB on SXM, and of the L4: their data sheets, without sparsity. Memory
        # is what nvidia-smi says of them, which is more than what they are named by.
        Chip(
            name="a100",
            kind="NVIDIA A100",
            bfloat16=3.12e14,
            float32=1.95e13,
            float64=1.95e13,
            memory=81_920 * 2.0**20,
            bandwidth=2.0e12,
            per_host=8,
            **_GPU,
        ),
        Chip(
            name="l4",
            kind="NVIDIA L4",
            bfloat16=1.21e14,
            float32=3.03e13,
            float64=4.7e11,  # a sixty-fourth of float32
            memory=23_034 * 2.0**20,
            bandwidth=3.0e11,
            per_host=8,
            **_GPU,
        ),
        Chip(
            name="h100",
            kind="NVIDIA H100",
            bfloat16=9.9e14,
            float32=6.7e13,
            float64=6.7e13,
            memory=81_559 * 2.0**20,
            bandwidth=3.35e12,
            per_host=8,
            **_GPU,
        ),
        Chip(
            name="h200",
            kind="NVIDIA H200",
            bfloat16=9.9e14,
            float32=6.7e13,
            float64=6.7e13,
            memory=143_771 * 2.0**20,
            bandwidth=4.8e12,
            per_host=8,
            **_GPU,
        ),
    )
}


def cpu() -> Chip:
    """Return the processor at hand, as one device: its cores, and the memory of the host."""
    cores = os.cpu_count() or 1
    return Chip(
        name="cpu",
        kind="cpu",
        bfloat16=cores * _CORE,  # computed in float32
        float32=cores * _CORE,
        float64=cores * _CORE / 2,
        memory=float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")),
        bandwidth=2e10,
        per_host=1,
        source=f"{cores} cores of 2.5 GHz",
        efficiency={"bfloat16": 0.2, "float32": 0.4, "sweep": 0.25, "factor": 0.4, "eigen": 0.15},
        network_compile_s=1.5,
        solver_compile_s=0.5,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
    """Devices of one kind that work together."""

    chip: Chip
    num_devices: int

    @property
    def name(self) -> str:
        """Name as `find` takes it."""
        return self.chip.name if self.num_devices == 1 else f"{self.chip.name}-{self.num_devices}"

    @property
    def hosts(self) -> int:
        """Hosts that have these devices."""
        return math.ceil(self.num_devices / self.chip.per_host)

    def layout(self, mesh: tuple[int, ...]) -> Layout:
        """Return the devices of a mesh (data, model); -1: all that the model leaves.

        Raises:
          InputError: if the mesh does not use every device.
        """
        data, model = mesh
        data = max(self.num_devices // model, 1) if data == -1 else data
        if data * model != self.num_devices:
            raise InputError(
                f"mesh must use every device of {self.name}: {data} x {model} = {data * model}, "
                f"but there are {self.num_devices}."
            )
        return self.chip.layout(data, model)


def shared(machine: Machine, number: int) -> Machine:
    """Return what each of several jobs has of a machine on which they run at a time.

    Devices are each job's own, but on CPUs, where the memory of devices is the host's.

    Args:
      machine: of one job, if it were alone.
      number: of jobs.
    """
    if machine.chip.name != "cpu" or number < 2:
        return machine
    part = dataclasses.replace(machine.chip, memory=machine.chip.memory / number)
    return dataclasses.replace(machine, chip=part)


def find(name: str) -> Machine:
    """Find a machine by name: a chip of the table, and how many of them, such as v5e-8 or h200.

    Raises:
      InputError: if there is no such chip.
    """
    chip, _, number = name.lower().partition("-")
    if (chip not in CHIPS and chip != "cpu") or not re.fullmatch(r"([1-9]\d*)?", number):
        raise InputError(
            f"chip must be one of {', '.join(CHIPS)}, cpu, with a number of devices behind it (as "
            f"in v5e-8), got {name!r}."
        )
    return Machine(chip=cpu() if chip == "cpu" else CHIPS[chip], num_devices=int(number or 1))


def at_hand() -> Machine | None:
    """Return the devices that JAX sees; None if they are of no chip of the table."""
    device, number = jax.devices()[0], jax.device_count()
    chip = cpu() if device.platform == "cpu" else of_kind(device.device_kind)
    return None if chip is None else Machine(chip=chip, num_devices=number)


def of_kind(kind: str) -> Chip | None:
    """Return the chip of the table that JAX calls so (`Device.device_kind`); None: there is none.

    An L40 is no L4: what follows the name must not go on with it.
    """
    same = lambda chip: re.match(rf"{re.escape(chip.kind)}(?!\w)", kind)
    return next((chip for chip in CHIPS.values() if same(chip)), None)


def calibration_path(chip: Chip, path: str = "") -> pathlib.Path:
    """Return the file of a chip's calibration.

    Args:
      chip: of the table, or the processor at hand.
      path: of the file; "": the usual place.
    """
    return pathlib.Path(path or f"{CALIBRATIONS}/{chip.name}.json").expanduser()


def calibrated(machine: Machine, path: str = "") -> Machine:
    """Return a machine with what was measured in the place of the table's guesses.

    Args:
      machine: from `find` or `at_hand`.
      path: file of a calibration, which must be there; "": that of the chip, if there is one.

    Raises:
      InputError: if the file is not there, is no calibration, or is of another chip.
    """
    file = calibration_path(machine.chip, path)
    if not path and not file.is_file():
        return machine
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if found["version"] != VERSION:
            raise ValueError(f"version {found['version']}")
        changes = {name: float(found[name]) for name in MEASURED}
        efficiency = {kind: float(found["efficiency"][kind]) for kind in KINDS}
        if not all(0 < x < math.inf for x in (*changes.values(), *efficiency.values())):
            raise ValueError("a number that is not positive")
        changes |= {"efficiency": efficiency, "measured": str(found["measured"])}
        name = found["chip"]
    except OSError as error:
        raise InputError(f"calibration must be a file: {file}: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file} must be what `python -m jaxalign.calibrate` wrote: {error!r}; run it again."
        ) from error
    if name != machine.chip.name:
        raise InputError(f"{file} is of {name}, and not of {machine.chip.name}.")
    return dataclasses.replace(machine, chip=dataclasses.replace(machine.chip, **changes))


# Fields of a chip that a calibration measures, its efficiencies apart.
MEASURED = ("network_compile_s", "solver_compile_s", "fit_s", "read")
