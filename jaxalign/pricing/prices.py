"""From work and a machine to hours, memory, disk and money; what cannot fit is refused."""

import math
from collections.abc import Collection, Iterator, Sequence
from typing import NamedTuple

from jaxalign.allocators import USABLE
from jaxalign.pricing.chips import Machine
from jaxalign.pricing.work import (
    NETWORKS,
    ON_ONE_DEVICE,
    Layout,
    Priced,
    Work,
    gib,
    quantity,
)

MOST_DEVICES = 256  # in which a mesh is sought for a job that does not fit


class Price(NamedTuple):
    """What work costs on a machine.

    Attributes:
      work: what was counted.
      seconds: on all of the machine.
      device_bytes: peak memory of a device.
      process_bytes: peak memory of the process on its host.
      money: in the currency of the rate; NaN where there is none.
    """

    work: Work
    seconds: float
    device_bytes: float
    process_bytes: float
    money: float


class Item(NamedTuple):
    """Something to be made: its name, its work, and whether it is there already."""

    name: str
    work: Priced
    is_done: bool = False


def seconds(work: Work, machine: Machine, layout: Layout, known: Collection[tuple] = ()) -> float:
    """Return how long work takes.

    Passes take as long as their arithmetic or as moving the weights, whichever is longer.
    Factorisations run on one device.

    Args:
      work: counted on the layout.
      machine: whose rates count.
      layout: of its devices.
      known: programs that are compiled already.
    """
    chip = machine.chip
    compiling = {"network": chip.network_compile_s, "solver": chip.solver_compile_s}
    devices = lambda kind: 1 if kind in ON_ONE_DEVICE or layout.is_cpu else layout.size
    spent = {kind: n / chip.rate(kind) / devices(kind) for kind, n in work.flop.items()}
    passing = sum(spent.pop(kind, 0.0) for kind in NETWORKS)
    return (
        max(passing, work.moved_bytes / chip.bandwidth)
        + sum(spent.values())
        + sum(compiling[kind] for kind, *_ in work.programs - frozenset(known))
        + work.fits * chip.fit_s
        + work.read_bytes / chip.read
        + work.host_s
    )


def price(
    work: Priced,
    machine: Machine,
    layout: Layout,
    rate: float = math.nan,
    known: Collection[tuple] = (),
) -> Price:
    """Return what work costs.

    Args:
      work: see `Item`.
      machine: on which it is done.
      layout: of its devices.
      rate: money for one device and hour; NaN: none is known.
      known: programs that are compiled already.
    """
    counted = work(layout)
    taken = seconds(counted, machine, layout, known)
    money = rate * machine.num_devices * taken / 3600
    return Price(counted, taken, counted.device_bytes, counted.process_bytes(layout), money)


def fits(found: Price, machine: Machine, layout: Layout) -> bool:
    """Whether work fits the memory that it needs on a machine.

    Args:
      found: its price.
      machine: on which it is done.
      layout: of its devices.
    """
    needed = found.process_bytes if layout.is_cpu else found.device_bytes
    return needed <= USABLE * machine.chip.memory


def smallest(work: Priced, machine: Machine, num_devices: int = 0) -> Layout | None:
    """Return the smallest mesh of a chip on which work fits; None if there is none.

    Of as many devices that with the fewest that share one copy of the weights.

    Args:
      work: see `Item`.
      machine: whose chip counts.
      num_devices: how many there are to be; 0: as few as possible.
    """
    is_cpu = machine.chip.name == "cpu"
    powers = [1 << i for i in range(MOST_DEVICES.bit_length())]
    for size in [num_devices] if num_devices else [1] if is_cpu else powers:
        for model in (x for x in powers if size % x == 0):
            layout = machine.chip.layout(size // model, model)
            if fits(price(work, machine, layout), machine, layout):
                return layout
    return None


def why_not(item: Item, machine: Machine, layout: Layout) -> str:
    """Say why work cannot be done on a machine; "" if it can.

    Args:
      item: what is to be made.
      machine: on which.
      layout: of its devices.
    """
    found = price(item.work, machine, layout)
    if item.is_done or fits(found, machine, layout):
        return ""
    needed = found.process_bytes if layout.is_cpu else found.device_bytes
    has = f"{gib(USABLE * machine.chip.memory)} of {gib(machine.chip.memory)}"
    said = (
        f"{item.name} needs {gib(needed)} of memory on each device of {machine.name} in a mesh of "
        f"({layout.data}, {layout.model}), which can give {has}"
    )
    least = smallest(item.work, machine)
    if least is None:
        return f"{said}: it fits no mesh of up to {MOST_DEVICES} such devices."
    here = smallest(item.work, machine, machine.num_devices)
    if here:
        return (
            f"{said}: the smallest mesh of these devices that can is ({here.data}, {here.model})."
        )
    return f"{said}: the smallest mesh that can is ({least.data}, {least.model})."


def refusal(items: Sequence[Item], machine: Machine, layout: Layout) -> str:
    """Say what cannot fit: the first, and how many more there are; "" if everything can.

    Args:
      items: what is to be made.
      machine: on which.
      layout: of its devices.
    """
    reasons = [reason for x in items if (reason := why_not(x, machine, layout))]
    if not reasons:
        return ""
    more = f" So it is with {len(reasons) - 1} more." if len(reasons) > 1 else ""
    return f"memory: {reasons[0]}{more}"


def total(prices: Sequence[Price]) -> Price:
    """Return the price of several things that are made one after the other."""
    work = sum((x.work for x in prices), Work())
    return Price(
        work,
        sum(x.seconds for x in prices),
        max((x.device_bytes for x in prices), default=0.0),
        max((x.process_bytes for x in prices), default=0.0),
        sum(x.money for x in prices),
    )


def table(items: Sequence[Item], machine: Machine, layout: Layout, rate: float) -> str:
    """Return what items and all of them together cost, a line for each.

    Args:
      items: what is to be made; what is done costs nothing.
      machine: on which.
      layout: of its devices.
      rate: see `price`.
    """
    todo = [x for x in items if not x.is_done]
    prices = in_turn(todo, machine, layout, rate)
    named = [x.name for x in todo]
    return "\n".join(lines([*named, "all"], [*prices, total(prices)], machine)) + "\n"


def in_turn(
    items: Sequence[Item],
    machine: Machine,
    layout: Layout,
    rate: float = math.nan,
    known: Collection[tuple] = (),
) -> list[Price]:
    """Return what items cost that are made one after the other.

    A program that several of them need is compiled for the first.

    Args:
      items: in their order.
      machine: on which.
      layout: of its devices.
      rate: see `price`.
      known: programs that are compiled already.
    """
    found, known = [], set(known)
    for item in items:
        found.append(price(item.work, machine, layout, rate, known))
        known |= found[-1].work.programs
    return found


def lines(names: Sequence[str], prices: Sequence[Price], machine: Machine) -> Iterator[str]:
    """Yield a table of prices, line by line.

    Args:
      names: of each.
      prices: of each.
      machine: on which.
    """
    chip = machine.chip
    known = f"calibrated {chip.measured}" if chip.measured else "efficiencies guessed"
    has_money = any(not math.isnan(x.money) for x in prices)
    width = max((len(x) for x in names), default=0)
    where = "process" if chip.name == "cpu" else "device"
    yield (
        f"{machine.name}: {chip.source}; {known}; each {where} has {gib(chip.memory)}, of which "
        f"{100 * USABLE:.0f} % can be used"
    )
    heads = [f"{x:>12}" for x in ("FLOP", "time", f"GiB/{where}", "disk", *["money"] * has_money)]
    yield f"{'':{width}} {' '.join(heads)}"
    for name, found in zip(names, prices, strict=True):
        memory = found.process_bytes if chip.name == "cpu" else found.device_bytes
        cells = [
            quantity(found.work.total_flop, ""),
            duration(found.seconds),
            f"{memory / 2**30:.2f}",
            quantity(found.work.disk_bytes, "B"),
            *([f"{found.money:.2f}"] if has_money else []),
        ]
        yield f"{name:{width}} {' '.join(f'{cell:>12}' for cell in cells)}"


def duration(seconds: int | float) -> str:
    """Write a time in seconds, minutes or hours.

    Args:
      seconds: the time.
    """
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
