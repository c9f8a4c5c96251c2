"""Whether a network's parameters fit in memory, checked before any of them is read."""

import collections
import importlib.util
import os
import pathlib
import sys
from collections.abc import Mapping

import jax
import numpy as np

from jaxalign.errors import InputError

_CGROUP = pathlib.Path("/sys/fs/cgroup")


def check(placed: Mapping[str, jax.ShapeDtypeStruct], *, source: str) -> None:
    """Refuse parameters that do not fit where they would go.

    Accelerators are asked how much memory they have left; CPU devices share what the host has left.
    Activations need memory too, so that a network that passes may still not run.

    Args:
      placed: parameter -> shape, dtype, and the sharding that it will have.
      source: what to call the network in an error.

    Raises:
      InputError: naming the memory that is too small, and both sizes.
    """
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
            raise InputError(_message(source, size, f"device {device.id}", free))
    if on_host and on_host > (free := host_bytes()):
        raise InputError(_message(source, on_host, "the host", free))


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


def _message(source: str, needed: int, where: str, free: int) -> str:
    return (
        f"{source}: its parameters must fit in memory: they need {needed / 2**30:.1f} GiB on "
        f"{where}, which has {free / 2**30:.1f} GiB left; use compute_dtype bfloat16, more devices "
        "along the mesh's model axis, or a smaller model."
    )
