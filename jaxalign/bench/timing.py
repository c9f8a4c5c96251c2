"""Wall-clock times, memory, and what both depend on: the machine and the versions."""

import concurrent.futures
import importlib.metadata
import multiprocessing
import os
import pathlib
import platform
import resource
import sys
import time
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from jaxalign import allocators

PACKAGES = ("jax", "jaxlib", "numpy", "torch", "transformers", "himalaya", "scikit-learn")
PRODUCT = 2000  # rows and columns of the matrix product that FLOP/s are compared with


class Timing(NamedTuple):
    """Times of one solver, and what it found."""

    first_s: float  # of the call that warms up, compilation included; NaN without one
    times_s: tuple[float, ...]  # of the calls after it
    others_cores: float  # that other processes kept busy meanwhile, on average; NaN if not known
    result: Any

    @property
    def median_s(self) -> float:
        """Median of the repeats."""
        return float(np.median(self.times_s))


def take_turns(
    solvers: Mapping[str, Callable[[], Any]],
    *,
    repeats: Mapping[str, int],
    cold: Collection[str] = (),
) -> dict[str, Timing]:
    """Time solvers in turn, so that slow changes of the machine fall on all of them alike.

    Other processes do not: threads that wait for each other by spinning (OpenMP, OpenBLAS) lose far
    more than their share. With one of two cores taken, calls of himalaya that take .1 s took 5 s,
    and ours, whose threads take work from a queue, .3 s instead of .06. So what others use is
    measured, and the times are worth nothing where it is not about 0.

    Args:
      solvers: by name; all are called once before the first of them is timed. Their results must
        be in memory when they return.
      repeats: timed calls of each.
      cold: those that are not called before.
    """
    first = dict.fromkeys(solvers, float("nan"))
    times: dict[str, list[float]] = {name: [] for name in solvers}
    others = dict.fromkeys(solvers, 0.0)
    results = {}

    def call(name):
        others_before, start = _others_cpu_s(), time.perf_counter()
        results[name] = solvers[name]()
        spent = time.perf_counter() - start
        taken = _others_cpu_s() - others_before
        logging.info(
            "bench: %s took %.3f s (%.2f cores used by others)", name, spent, taken / spent
        )
        return spent, taken

    for name in solvers:
        if name not in cold:
            first[name], _ = call(name)
    for turn in range(max(repeats.values())):
        for name in solvers:
            if turn < repeats[name]:
                spent, taken = call(name)
                times[name].append(spent)
                others[name] += taken
    return {
        name: Timing(
            first[name], tuple(times[name]), others[name] / sum(times[name]), results[name]
        )
        for name in solvers
    }


def _others_cpu_s() -> float:
    """Return the processor time of all other processes since the machine started; or NaN."""
    path = pathlib.Path("/proc/stat")
    if not path.exists():
        return float("nan")
    ticks = [int(x) for x in path.read_text(encoding="utf-8").splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _iowait, *interrupts_and_stolen = ticks
    busy = (user + nice + system + sum(interrupts_and_stolen)) / os.sysconf("SC_CLK_TCK")
    return busy - time.process_time()


def product_flop_per_s() -> dict[str, float]:
    """Return the median FLOP/s of float32 products of `PRODUCT` rows and columns, by who computes.

    "xla" is JAX's, on its device; "numpy" that of NumPy's BLAS, on a CPU alone.
    """
    shape = (PRODUCT, PRODUCT)
    matrix = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    on_device = jnp.asarray(matrix)
    multiply = jax.jit(lambda x: jnp.matmul(x, x, precision=jax.lax.Precision.HIGHEST))
    products: dict[str, Callable] = {"xla": lambda: multiply(on_device).block_until_ready()}
    if jax.default_backend() == "cpu":
        # Not by itself: of X'X NumPy computes half.
        other, out = matrix.copy(), np.empty(shape, np.float32)
        products["numpy"] = lambda: np.matmul(matrix, other, out=out)
    timed = take_turns(products, repeats=dict.fromkeys(products, 5))
    return {name: 2 * PRODUCT**3 / x.median_s for name, x in timed.items()}


def peak_memory(load: Callable[[], tuple], solve: Callable[..., Any]) -> dict[str, float]:
    """Return the memory, in MB, that a solver needs at its peak, in a process of its own.

    `peak_mb` is beyond the inputs, and compilation is part of it. `device_peak_mb`, of an
    accelerator only, has the inputs in it.

    Args:
      load: returns the arguments of the solver; it and the solver must be picklable.
      solve: is called once.
    """
    return in_new_process(_peak_memory, load, solve)


def in_new_process(call: Callable[..., Any], *arguments: Any) -> Any:
    """Return what a call returns in a process of its own, which keeps no compiled programs.

    Args:
      call: is called there; it, its arguments and its result must be picklable.
      *arguments: of the call.
    """
    # A forked process would start with this one's memory, and JAX does not survive a fork.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_call_afresh, call, *arguments).result()


def _call_afresh(call, *arguments):
    allocators.one_heap_for_each_core()  # as the command line does
    jax.config.update("jax_compilation_cache_dir", None)
    return call(*arguments)


def _peak_memory(load, solve):
    # Otherwise JAX takes most of an accelerator, part of which the parent holds already.
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    inputs = load()
    jnp.zeros(8).sum().block_until_ready()
    before, _ = _resident_bytes()
    solve(*inputs)
    _, peak = _resident_bytes()
    found = {"peak_mb": (peak - before) / 1e6}
    statistics = jax.devices()[0].memory_stats()  # None of a CPU
    if statistics:
        found["device_peak_mb"] = statistics["peak_bytes_in_use"] / 1e6
    return found


def _resident_bytes() -> tuple[int, int]:
    """Return the resident memory of this process, now and at its highest."""
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        # Not `getrusage`: on Linux its maximum starts from that of the parent, and this process
        # may stay below it.
        lines = dict(x.split(":", 1) for x in status.read_text().splitlines())
        now, peak = (1024 * int(lines[name].split()[0]) for name in ("VmRSS", "VmHWM"))
        return now, peak
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    peak *= 1 if sys.platform == "darwin" else 1024
    return peak, peak


def machine() -> dict[str, Any]:
    """Return what times depend on besides the problem: processor, device, versions."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [x.partition(":")[2].strip() for x in lines if x.startswith("model name")]
    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = ""
    affinity = getattr(os, "sched_getaffinity", None)  # macOS has none
    return {
        "cpu": names[0] if names else platform.processor() or platform.machine(),
        "num_cores": len(affinity(0)) if affinity else os.cpu_count(),
        "device": jax.devices()[0].device_kind,
        "num_devices": jax.device_count(),
        "versions": versions,
    }
