"""What making an artefact really took: time, memory, compilation, files; and a plan beside it."""

import contextlib
import dataclasses
import pathlib
import resource
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from jaxalign.pricing.chips import Machine
from jaxalign.pricing.prices import Price, duration
from jaxalign.pricing.work import Layout, quantity

# Of these each program has one, which do not overlap; traces of functions lie inside each other.
_COMPILING = (
    "/jax/core/compile/jaxpr_to_mlir_module_duration",
    "/jax/core/compile/backend_compile_duration",
)
LONGEST = 3  # programs that are named
_STATUS = pathlib.Path("/proc/self/status")


@dataclasses.dataclass
class Meter:
    """What was measured between the beginning and the end of `metered`.

    Attributes:
      seconds: of the clock.
      cpu_seconds: of all threads of this process, on all cores.
      peak_bytes: most memory that was held.
      peak_of: whose: "devices", of the one that held most; or "process", of the host, where devices
        have no statistics (as CPUs).
      peak_since: "step", or where the kernel does not begin anew at the beginning of the step,
        "start" of the process; memory of devices is always counted from there.
      compile_seconds: to lower and compile programs, or to read them from the cache.
      programs: seconds of each program by the name of its function.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_bytes: int = 0
    peak_of: str = "process"
    peak_since: str = "start"
    compile_seconds: float = 0.0
    programs: dict[str, float] = dataclasses.field(default_factory=dict)


class Ran(NamedTuple):
    """What a step has counted of its own work, which of one that was resumed is a part.

    Attributes:
      num_tokens: that networks passed; 0: none.
      flop: operations by kind, by the sizes of what was computed; None: not counted.
    """

    num_tokens: int | float = 0
    flop: Mapping[str, float] | None = None


_current: list[Meter] = []  # the meters that are running; events belong to the last
_listening = False


def _listen(event: str, seconds: float, **details: Any) -> None:
    if event not in _COMPILING or not _current:
        return
    meter, name = _current[-1], str(details.get("fun_name", ""))
    meter.compile_seconds += seconds
    if name:
        meter.programs[name] = meter.programs.get(name, 0.0) + seconds


@contextlib.contextmanager
def metered() -> Iterator[Meter]:
    """Measure what happens inside."""
    global _listening
    if not _listening:
        jax.monitoring.register_event_duration_secs_listener(_listen)
        _listening = True
    meter = Meter(peak_since="step" if _forget_peak() else "start")
    _current.append(meter)
    start, cpu = time.monotonic(), time.process_time()
    try:
        yield meter
    finally:
        meter.seconds = time.monotonic() - start
        meter.cpu_seconds = time.process_time() - cpu
        _current.remove(meter)
        of_devices = [_peak_of(device) for device in jax.local_devices()]
        if any(of_devices):
            meter.peak_bytes, meter.peak_of, meter.peak_since = max(of_devices), "devices", "start"
        else:
            meter.peak_bytes = _peak_of_process()


def _peak_of(device: jax.Device) -> int:
    """Return the most memory that a device has held; 0 where it does not say."""
    return (device.memory_stats() or {}).get("peak_bytes_in_use", 0)


def _forget_peak() -> bool:
    """Let the kernel count the largest memory of the process anew, and return whether it does."""
    try:
        pathlib.Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return _STATUS.is_file()


def _peak_of_process() -> int:
    if _STATUS.is_file():
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found if sys.platform == "darwin" else found * 1024


def written(found: Mapping[str, Any]) -> int:
    """Return the bytes of the files of a finished artefact.

    Args:
      found: its done-marker.
    """
    return sum(stamp["size"] for stamp in found["files"].values())


def facts(
    price: Price, machine: Machine | None, layout: Layout, meter: Meter, ran: Ran
) -> dict[str, Any]:
    """Return a plan and what became of it, as plain JSON for the done-marker.

    Args:
      price: what was planned; seconds are NaN where the machine is unknown.
      machine: on which it ran; None: devices of no chip of the table.
      layout: of its devices.
      meter: what was measured.
      ran: what the step has counted; operations are those planned where it has not.
    """
    took: dict[str, Any] = {
        "seconds": round(meter.seconds, 3),
        "cpu_seconds": round(meter.cpu_seconds, 3),
        "peak_bytes": meter.peak_bytes,
        "peak_of": meter.peak_of,
        "peak_since": meter.peak_since,
        "compile_seconds": round(meter.compile_seconds, 3),
        "longest_programs": _longest(meter.programs),
    }
    if ran.num_tokens:
        took["tokens_per_s"] = round(ran.num_tokens / meter.seconds, 1)
    flop = price.work.flop if ran.flop is None else ran.flop
    if ran.flop is not None:
        took["flop"] = dict(ran.flop)
    if sum(flop.values()):
        took["flop_per_s"] = sum(flop.values()) / meter.seconds
        if machine:
            at_peak = sum(n / machine.chip.peak(kind) for kind, n in flop.items())
            devices = 1 if layout.is_cpu else layout.size
            took["share_of_peak"] = at_peak / devices / meter.seconds
    return {"planned": planned(price, machine), "took": took}


def planned(price: Price, machine: Machine | None) -> dict[str, Any]:
    """Return a plan as plain JSON; in time only where the machine is known.

    Args:
      price: what was planned.
      machine: see `facts`.
    """
    found: dict[str, Any] = {
        "flop": dict(price.work.flop),
        "device_bytes": price.device_bytes,
        "process_bytes": price.process_bytes,
        "disk_bytes": price.work.disk_bytes,
        "machine": machine.name if machine else "",
        "calibrated": machine.chip.measured if machine else "",
    }
    if machine:
        found["seconds"] = round(price.seconds, 3)
    return found


def _longest(programs: Mapping[str, float]) -> list[list]:
    order = sorted(programs.items(), key=lambda x: -x[1])
    return [[name, round(seconds, 3)] for name, seconds in order[:LONGEST]]


def line(found: Mapping[str, Any]) -> str:
    """Say what an artefact took, in the order in which one asks.

    Args:
      found: its done-marker, with `facts` in it.
    """
    took = found["took"]
    parts = [f"{took['compile_seconds']:.1f} s of it compiling"]
    if "tokens_per_s" in took:
        parts.append(f"{took['tokens_per_s']:.0f} tokens/s")
    if "flop_per_s" in took:
        share = took.get("share_of_peak")
        of_peak = "" if share is None else f" ({100 * share:.1f} % of peak)"
        parts.append(quantity(took["flop_per_s"], "FLOP/s") + of_peak)
    parts.append(f"{took['peak_bytes'] / 2**30:.2f} GiB at most")
    parts.append(f"{quantity(written(found), 'B')} written")
    return ", ".join(parts)


def table(names: Sequence[str], found: Sequence[Mapping[str, Any]]) -> str:
    """Return plans beside what was measured, a line for each artefact and one for all.

    Args:
      names: of the artefacts.
      found: done-marker of each, with `facts` in it.
    """
    width = max(map(len, names))
    whose = {x["took"]["peak_of"] for x in found}
    heads = ("time planned", "took", "GiB planned", "took", "disk planned", "took")
    heads += ("FLOP planned", "counted", "FLOP/s")
    lines = [
        f"Plan and truth (memory of the {' or '.join(sorted(whose))}):",
        f"{'':{width}} {' '.join(f'{x:>12}' for x in heads)}",
    ]
    for name, x in zip(names, found, strict=True):
        lines.append(f"{name:{width}} {_cells(x['planned'], x['took'], written(x))}")
    planned = {
        "disk_bytes": sum(x["planned"]["disk_bytes"] for x in found),
        "process_bytes": max(x["planned"]["process_bytes"] for x in found),
        "device_bytes": max(x["planned"]["device_bytes"] for x in found),
    }
    planned["flop"] = {"all": sum(sum(x["planned"]["flop"].values()) for x in found)}
    if all("seconds" in x["planned"] for x in found):
        planned["seconds"] = sum(x["planned"]["seconds"] for x in found)
    took = {
        "seconds": sum(x["took"]["seconds"] for x in found),
        "peak_bytes": max(x["took"]["peak_bytes"] for x in found),
        "peak_of": found[0]["took"]["peak_of"],
    }
    if all("flop" in x["took"] or not any(x["planned"]["flop"].values()) for x in found):
        took["flop"] = {"all": sum(sum(x["took"].get("flop", {}).values()) for x in found)}
    whole = _cells(planned, took, sum(map(written, found)))
    return "\n".join([*lines, f"{'all':{width}} {whole}"])


def _cells(planned: Mapping[str, Any], took: Mapping[str, Any], num_bytes: int) -> str:
    of_process = took["peak_of"] == "process"
    memory = planned["process_bytes" if of_process else "device_bytes"]
    count = lambda found: quantity(x, "") if (x := sum(found.get("flop", {}).values())) else "-"
    cells = [
        duration(planned["seconds"]) if "seconds" in planned else "-",
        duration(took["seconds"]),
        f"{memory / 2**30:.2f}",
        f"{took['peak_bytes'] / 2**30:.2f}",
        quantity(planned["disk_bytes"], "B"),
        quantity(num_bytes, "B"),
        count(planned),
        count(took),
        quantity(took["flop_per_s"], "") if "flop_per_s" in took else "-",
    ]
    return " ".join(f"{x:>12}" for x in cells)
