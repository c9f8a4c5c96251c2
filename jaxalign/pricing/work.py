"""What making an artefact takes: arithmetic, memory, disk, as numbers."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

from jax.sharding import AbstractMesh, AxisType

from jaxalign.core import mesh as mesh_lib

# Kinds of arithmetic, which run at rates of their own: passes of networks by their type, products
# over targets (float32 at highest precision), products and eigenproblems of factorisations
# (float64; an eigenproblem counts as `ridge.EIGENPROBLEM` times the cube of its size).
NETWORKS = ("bfloat16", "float32")
KINDS = (*NETWORKS, "sweep", "factor", "eigen")
# Factorisations run on one device, whatever the mesh.
ON_ONE_DEVICE = ("factor", "eigen")
# A TPU holds arrays in pieces of so many numbers along the last axis: of 17 penalties it holds 128.
LANES = 128
# What Python, JAX and its compiler hold on the host before any work: ru_maxrss of a run on CPU
# that had next to nothing to do.
BASE_BYTES = 0.75e9


class Layout(NamedTuple):
    """The devices that work is divided over.

    Attributes:
      data, model: sizes of the axes of the mesh.
      is_cpu: whether they are processors of the host, whose memory is theirs.
      is_tpu: whether they hold arrays in pieces of `LANES` numbers.
    """

    data: int = 1
    model: int = 1
    is_cpu: bool = True
    is_tpu: bool = False

    @property
    def size(self) -> int:
        """Number of devices."""
        return self.data * self.model

    @property
    def mesh(self) -> AbstractMesh:
        """The mesh without devices, from which shapes of shards follow."""
        types = (AxisType.Auto,) * len(mesh_lib.AXES)
        return AbstractMesh((self.data, self.model), mesh_lib.AXES, axis_types=types)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What making one artefact takes on a `Layout`, or several of them one after the other.

    Attributes:
      flop: floating-point operations, of all devices together, by kind of `KINDS`.
      device_bytes: peak memory of one device.
      host_bytes: peak memory of the host, in addition to `BASE_BYTES` and, on CPU, to that of the
        devices.
      disk_bytes: files that are written.
      read_bytes: weights that are read.
      moved_bytes: weights that go from a device's memory to its units, once for each pass.
      num_tokens: tokens that networks pass, without padding.
      passes: of networks.
      fits: regressions of one layer, each of which has calls that take time whatever their size.
      programs: to compile, each once in a process: "network" or "solver", and what it depends on.
      host_s: seconds on the host that no formula describes, such as drawing charts.
    """

    flop: Mapping[str, float] = dataclasses.field(default_factory=dict)
    device_bytes: float = 0.0
    host_bytes: float = 0.0
    disk_bytes: float = 0.0
    read_bytes: float = 0.0
    moved_bytes: float = 0.0
    num_tokens: int | float = 0
    passes: int | float = 0
    fits: int | float = 0
    programs: frozenset[tuple] = frozenset()
    host_s: float = 0.0

    @property
    def total_flop(self) -> float:
        """Floating-point operations of all kinds."""
        return float(sum(self.flop.values()))

    def __add__(self, other: "Work") -> "Work":
        """Add work that follows: memory is the larger of the two, all else adds up."""
        found = {}
        for field in dataclasses.fields(Work):
            a, b = getattr(self, field.name), getattr(other, field.name)
            if field.name == "flop":
                found["flop"] = {k: a.get(k, 0) + b.get(k, 0) for k in KINDS if k in a or k in b}
            elif field.name in ("device_bytes", "host_bytes"):
                found[field.name] = max(a, b)
            elif field.name == "programs":
                found["programs"] = a | b
            else:
                found[field.name] = a + b
        return Work(**found)

    def times(self, number: int | float) -> "Work":
        """Return the same work done several times; programs are compiled, and files written, once.

        Args:
          number: of times.
        """
        repeated = ("moved_bytes", "num_tokens", "passes", "fits", "host_s")
        changes = {
            name: type(getattr(self, name))(number * getattr(self, name)) for name in repeated
        }
        flop = {kind: number * value for kind, value in self.flop.items()}
        return dataclasses.replace(self, flop=flop, **changes)

    def process_bytes(self, layout: Layout) -> float:
        """Return the peak memory of the process on its host.

        Args:
          layout: on which the work was counted.
        """
        return BASE_BYTES + self.host_bytes + (layout.size * self.device_bytes * layout.is_cpu)

    def describe(self) -> str:
        """Return the numbers that matter as text."""
        parts = []
        if self.total_flop:
            parts.append(quantity(self.total_flop, "FLOP"))
        if self.device_bytes:
            parts.append(f"{gib(self.device_bytes)} a device")
        if self.host_bytes:
            parts.append(f"{gib(self.host_bytes)} on the host")
        if self.disk_bytes:
            parts.append(f"{quantity(self.disk_bytes, 'B')} on disk")
        return ", ".join(parts)


# Work that is counted when the devices are known.
Priced = Callable[[Layout], Work]


def small(host_s: float, disk_bytes: float) -> Priced:
    """Return work without arithmetic that counts, such as tables and pages.

    Args:
      host_s: seconds that it takes on the host, as measured.
      disk_bytes: that it writes.
    """
    return lambda layout: Work(host_s=host_s, disk_bytes=disk_bytes)


# Of a page with its charts and tables, or of tables alone, as measured on two cores.
PAGE = small(host_s=9.0, disk_bytes=2e6)
TABLES = small(host_s=0.5, disk_bytes=2e5)


def quantity(value: int | float, unit: str) -> str:
    """Write a number with three digits and a prefix: 1.23 TFLOP.

    Args:
      value: the number.
      unit: its unit.
    """
    for size, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}"


def gib(value: int | float) -> str:
    """Write a number of bytes in GiB, or in MiB where it is small.

    Args:
      value: bytes.
    """
    return f"{value / 2**30:.2f} GiB" if value >= 2**28 else f"{value / 2**20:.1f} MiB"
