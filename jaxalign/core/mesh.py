"""Device mesh, and the rules from logical axis names to mesh axes."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "model")

# Logical axis of a parameter or activation -> mesh axis. What is not named here is replicated.
RULES = {
    "batch": "data",
    "vocab": "model",
    "heads": "model",
    "kv_heads": "model",
    "mlp": "model",
    "units": "model",  # of vectors that were read
}
# Of training: parameters, their gradients and averages are divided along the batch's axis too, so
# that each device keeps a part of them and gathers a layer when it computes it (fully sharded data
# parallelism).
TRAINING_RULES = RULES | {"embed": "data"}


def make_mesh(data: int, model: int) -> Mesh:
    """Arrange all devices as `data` x `model`.

    Args:
      data: devices along the batch; -1 takes what `model` leaves.
      model: devices that share one copy of the weights.

    Raises:
      ValueError: if the two do not multiply to the number of devices.
    """
    num_devices = jax.device_count()
    if model < 1 or (data != -1 and data < 1):
        raise ValueError(f"mesh must be (data >= 1 or -1, model >= 1), got ({data}, {model}).")
    if data == -1:
        data = max(num_devices // model, 1)
    if data * model != num_devices:
        raise ValueError(
            f"mesh must use every device: {data} x {model} = {data * model}, "
            f"but {num_devices} devices are visible."
        )
    # Auto axes: shardings are given at the borders and propagated by the compiler. The default
    # (Explicit) rejects the embedding gather.
    return jax.make_mesh((data, model), AXES, axis_types=(AxisType.Auto,) * len(AXES))


class Units(NamedTuple):
    """A logical axis of units that stay whole when it is divided, such as heads.

    Attributes:
      name: logical name.
      num: units along the axis.
      groups: equal groups of neighbouring units, as query heads have them that share a key-value
        head. A part is made of whole groups, or lies within one.
    """

    name: str
    num: int
    groups: int

    def parts(self, most: int) -> int:
        """Return the largest number of parts that divides the units and `most`."""
        fits = lambda d: self.num % d == 0 and (self.groups % d == 0 or d % self.groups == 0)
        return max(d for d in range(1, most + 1) if most % d == 0 and fits(d))


Logical = str | Units | None


def parts(
    shape: tuple[int, ...],
    logical: Sequence[Logical],
    devices: Mapping[str, int],
    rules: Mapping[str, str] = RULES,
) -> tuple[int, ...]:
    """Return into how many parts each axis of an array is divided.

    A mesh axis divides one axis of an array, the first that it can. Batches are divided over all
    devices of their mesh axis or not at all. Parameters are divided by as many as divide them,
    since JAX refuses uneven shards: 4 key-value heads lie on 8 devices twice, and a vocabulary of
    50,257 is replicated on two.

    Args:
      shape: of the array.
      logical: names of its axes.
      devices: devices along each mesh axis.
      rules: logical axis -> mesh axis.

    Raises:
      ValueError: if names and axes differ in number.
    """
    if len(logical) != len(shape):
        raise ValueError(f"One name per axis is needed: {tuple(logical)} for shape {shape}.")
    found, used = [], set()
    for axis, size in zip(logical, shape, strict=True):
        along = rules.get(axis.name if isinstance(axis, Units) else axis or "")
        number = 1
        if along is not None and along not in used:
            most = devices[along]
            number = axis.parts(most) if isinstance(axis, Units) else math.gcd(size, most)
            if along == "data" and number < most:
                number = 1
        if number > 1:
            used.add(along)
        found.append(number)
    return tuple(found)


def sharding(
    mesh: Mesh,
    logical: Sequence[Logical],
    shape: tuple[int, ...],
    rules: Mapping[str, str] = RULES,
) -> NamedSharding:
    """Return the sharding of an array whose axes carry these logical names; see `parts`.

    Raises:
      ValueError: if names and axes differ in number.
    """
    spec, over = [], mesh
    for axis, number in zip(logical, parts(shape, logical, mesh.shape, rules), strict=True):
        along = rules[axis.name if isinstance(axis, Units) else axis or ""] if number > 1 else None
        spec.append(along)
        if along is not None and number < mesh.shape[along]:
            over = _with_copies(mesh, number)
    return NamedSharding(over, PartitionSpec(*spec))


@functools.cache
def _with_copies(mesh: Mesh, parts: int) -> Mesh:
    """Return a mesh of the same devices in which neighbours along "model" hold the same part.

    Programs take arrays of both meshes, for which the order of devices counts and nothing else.
    """
    data, model = (mesh.shape[axis] for axis in AXES)
    devices = mesh.devices.reshape(data, parts, model // parts)
    return Mesh(devices, (*AXES, "copies"), axis_types=(AxisType.Auto,) * 3)


def own(mesh: Mesh) -> Mesh:
    """Arrange the devices of this process alone, of those of several."""
    devices = [x for x in mesh.devices.flat if x.process_index == jax.process_index()]
    shape, types = (len(devices), 1), (AxisType.Auto,) * len(AXES)
    return jax.make_mesh(shape, AXES, axis_types=types, devices=devices)


def place(x: np.ndarray, sharding: NamedSharding) -> jax.Array:
    """Put an array on devices, which may be those of several processes that all have it.

    There `jax.device_put` compares what the processes have, which takes 10 times as long, and fails
    on NaN.
    """
    if sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    return jax.make_array_from_callback(x.shape, sharding, lambda index: x[index])


def own_rows(sharding: NamedSharding, shape: tuple[int, ...]) -> range:
    """Return which rows of an array devices of this process hold, in one piece.

    Args:
      sharding: of the array, which divides its first axis at most.
      shape: of the array.
    """
    held = sharding.addressable_devices_indices_map(shape).values()
    ends = [x[0].indices(shape[0]) for x in held if x is not None]
    return range(min(x[0] for x in ends), max(x[1] for x in ends))


def place_rows(own: np.ndarray, first: int, num: int, sharding: NamedSharding) -> jax.Array:
    """Put an array on devices, of which each process has the rows that its devices hold.

    Args:
      own: rows of this process; see `own_rows`.
      first: which of all rows the first of them is.
      num: rows of the whole array.
      sharding: of the array, which divides its first axis at most.
    """
    shape = (num, *own.shape[1:])
    take = lambda index: own[slice(*(x - first for x in index[0].indices(num)[:2]))]
    return jax.make_array_from_callback(shape, sharding, take)


def to_host(x: jax.Array | np.ndarray) -> np.ndarray:
    """Return an array on the host, whole, though it may lie on devices of several processes.

    All processes must ask for it, in the same order.
    """
    if not isinstance(x, jax.Array) or x.is_fully_addressable:
        return np.asarray(x)
    if x.is_fully_replicated:
        return np.asarray(x.addressable_data(0))
    return multihost_utils.process_allgather(x, tiled=True)
