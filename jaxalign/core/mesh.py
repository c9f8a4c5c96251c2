"""Device mesh, and the rules from logical axis names to mesh axes."""

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXES = ("data", "model")

# Logical axis of a parameter or activation -> mesh axis. What is not named here is replicated.
RULES = {"batch": "data", "vocab": "model", "heads": "model", "kv_heads": "model", "mlp": "model"}


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


def sharding(mesh: Mesh, logical: tuple[str | None, ...], shape: tuple[int, ...]) -> NamedSharding:
    """Return the sharding of an array whose axes carry these logical names.

    An axis that its mesh axis does not divide (a vocabulary of 50,257 on two devices) is
    replicated, since JAX refuses uneven shards.

    Raises:
      ValueError: if names and axes differ in number.
    """
    if len(logical) != len(shape):
        raise ValueError(f"One name per axis is needed: {logical} for shape {shape}.")
    spec, used = [], set()
    for name, size in zip(logical, shape, strict=True):
        axis = RULES.get(name) if name else None
        fits = axis is not None and axis not in used and size % mesh.shape[axis] == 0
        spec.append(axis if fits else None)
        if fits:
            used.add(axis)
    return NamedSharding(mesh, PartitionSpec(*spec))


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


def to_host(x: jax.Array | np.ndarray) -> np.ndarray:
    """Return an array on the host, whole, though it may lie on devices of several processes.

    All processes must ask for it, in the same order.
    """
    if not isinstance(x, jax.Array) or x.is_fully_addressable:
        return np.asarray(x)
    if x.is_fully_replicated:
        return np.asarray(x.addressable_data(0))
    return multihost_utils.process_allgather(x, tiled=True)
