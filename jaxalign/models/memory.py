"""Whether a network's parameters fit in memory, checked before any of them is read."""

import collections
import importlib.util
import os
import pathlib
import sys
from collections.abc import Callable, Mapping

import jax
import numpy as np

from jaxalign.errors import InputError

_CGROUP = pathlib.Path("/sys/fs/cgroup")


def check(
    placed: Mapping[str, jax.ShapeDtypeStruct],
    *,
    source: str,
    on_each: Callable[[int], int] | None = None,
) -> None:
    """Refuse parameters that do not fit where they would go.

    Accelerators are asked how much memory they have left; CPU devices share what the host has left.
    Activations need memory too, so that a network that passes may still not run.

    Args:
      placed: parameter -> shape, dtype, and the sharding that it will have.
      source: what to call the network in an error.
      on_each: devices along the mesh's model axis -> bytes of the parameters on each of them.

    Raises:
      InputError: naming the memory that is too small, both sizes, and the least mesh that would do.
    """
    num_devices = max((len(x.sharding.device_set) for x in placed.values()), default=1)
    needed = collections.Counter()
    for struct in placed.values():
        size = int(np.prod(struct.sharding.shard_shape(struct.shape))) * struct.dtype.itemsize
        for device in struct.sharding.addressable_devices:
            needed[device] += size
    on_host = 0
    for device, size in needed.items():
        free = device_bytes(device)
        if free is None:
            on_host += size
        elif size > free:
            advice = _advice(on_each, free, num_devices)
            raise InputError(_message(source, size, f"device {device.id}", free) + advice)
    if on_host and on_host > (free := host_bytes()):
        share = sum(device_bytes(device) is None for device in needed)
        advice = _advice(on_each, free // share, num_devices, more=False)
        raise InputError(_message(source, on_host, "the host", free) + advice)


def device_bytes(device: jax.Device) -> int | None:
    """Return what a device has left, or None if its memory is the host's."""
    statistics = device.memory_stats() if device.platform != "cpu" else None
    if not statistics or "bytes_limit" not in statistics:
        return None
    return statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)


def host_bytes() -> int:
    """Return what the host has left, within the limits of its control group and of the process."""
    available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = pathlib.Path("/proc/meminfo")
    if meminfo.is_file():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
        available = int(fields["MemAvailable"].split()[0]) * 1024
    limit, current = _CGROUP / "memory.max", _CGROUP / "memory.current"
    if limit.is_file() and current.is_file() and (text := limit.read_text().strip()) != "max":
        # Cached files count as used there, and make room when memory is needed.
        fields = dict(line.split() for line in (_CGROUP / "memory.stat").read_text().splitlines())
        used = int(current.read_text()) - int(fields.get("inactive_file", 0))
        available = min(available, int(text) - used)
    return min(available, address_bytes())


def address_bytes() -> int:
    """Return how many bytes the process may still ask for: any number without `ulimit -v`.

    JAX ends the process where it gets none.
    """
    if importlib.util.find_spec("resource") is None:  # on Windows
        return sys.maxsize
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    statm = pathlib.Path("/proc/self/statm")
    if limit == resource.RLIM_INFINITY or not statm.is_file():
        return sys.maxsize
    return limit - int(statm.read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


DOUBLINGS = 8  # of the devices that are here, to what is proposed


def _message(source: str, needed: int, where: str, free: int) -> str:
    return (
        f"{source}: its parameters must fit in memory: they need {needed / 2**30:.1f} GiB on "
        f"{where}, which has {free / 2**30:.1f} GiB left; "
    )


def _advice(
    on_each: Callable[[int], int] | None, free: int, num_devices: int, *, more: bool = True
) -> str:
    """Name the shortest model axis whose devices hold the parameters, of those here or of more."""
    fits = lambda model: on_each is not None and on_each(model) <= free
    here = [x for x in range(1, num_devices + 1) if num_devices % x == 0]
    if found := next(filter(fits, here), 0):
        return f"mesh (-1, {found}) is the first that holds them."
    beyond = [num_devices * 2**i for i in range(1, DOUBLINGS) if more]
    if found := next(filter(fits, beyond), 0):
        return (
            f"mesh (-1, {found}), on {found} such devices, is the first that holds them; or use "
            "compute_dtype bfloat16, or a smaller model."
        )
    return (
        "use compute_dtype bfloat16, more devices along the mesh's model axis, or a smaller model."
    )
