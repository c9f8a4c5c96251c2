"""What the jobs of a sweep cost on the machine that each of them has."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from jaxalign.plans import Plan
from jaxalign.pricing import prices, truth
from jaxalign.pricing.chips import Machine
from jaxalign.pricing.prices import Item, Price
from jaxalign.pricing.work import PAGE, TABLES, Layout, Work, small
from jaxalign.sweeps.record import Job, Product, Record

# Seconds of a job before its first step, on the host: Python, JAX, reading data and planning. An
# estimate for small data on two cores; 7 to 10 were measured on cores that others used too.
START = Item("start", small(host_s=6.0, disk_bytes=0.0))
LAST = (START, Item("collect", TABLES), Item("report", PAGE))  # items of the last job


class Step(NamedTuple):
    """What is kept of a step of a run's plan: not the data that it holds.

    Attributes:
      item: it, counted on `layout`.
      layout: of the devices of the job.
      refused: why it cannot be made there; "": it can.
    """

    item: Item
    layout: Layout
    refused: str


def of_plan(plan: Plan, products: Sequence[Product], machine: Machine) -> dict[str, Step]:
    """Price the steps of a run, by what `--only` calls them.

    Args:
      plan: of the run.
      products: its artefacts; what is marked as done is not made.
      machine: of each job.

    Raises:
      InputError: if the mesh of the run does not use every device of the machine.
    """
    layout = machine.layout(plan.settings["mesh"])
    found = {}
    for step, product in zip(plan.steps, products, strict=True):
        item = Item(product.label, step.work, product.is_marked)
        refused = prices.why_not(item, machine, layout)
        counted = step.work(layout)
        kept = item._replace(work=lambda layout, counted=counted: counted)
        found[product.key] = Step(kept, layout, refused)
    return found


def of_job(
    steps: Mapping[str, Step], machine: Machine, compiled: set[tuple] | None = None
) -> dict[str, Any]:
    """Price a job that makes some steps one after the other, as plain JSON.

    Args:
      steps: those that it makes, by their keys; what is done costs nothing.
      machine: of the job.
      compiled: programs of the jobs before it, which it reads from the cache of compiled programs;
        its own are added.
    """
    todo = {key: x for key, x in steps.items() if not x.item.is_done}
    if not todo:
        return truth.planned(prices.total([]), machine) | {"makes": []}
    items, layout = [START, *(x.item for x in todo.values())], next(iter(todo.values())).layout
    refused = next((x.refused for x in todo.values() if x.refused), "")
    compiled = set() if compiled is None else compiled
    price = prices.total(prices.in_turn(items, machine, layout, known=compiled))
    compiled |= price.work.programs
    found = truth.planned(price, machine) | {"makes": [*todo]}
    return found | ({"refused": refused} if refused else {})


def of_last(machine: Machine) -> dict[str, Any]:
    """Price the job that collects and reports; see `of_job`."""
    layout = Layout(is_cpu=machine.chip.name == "cpu")
    return truth.planned(prices.total(prices.in_turn(LAST, machine, layout)), machine)


def price(planned: Mapping[str, Any], machine: Machine, rate: float = math.nan) -> Price:
    """Return the price that was written down.

    Args:
      planned: from `of_job`.
      machine: of the job.
      rate: money for one device and hour; NaN: none is known.
    """
    work = Work(flop=planned["flop"], disk_bytes=planned["disk_bytes"])
    money = rate * machine.num_devices * planned["seconds"] / 3600
    memory = planned["device_bytes"], planned["process_bytes"]
    return Price(work, planned["seconds"], *memory, money)


def table(record: Record, machine: Machine, rate: float = math.nan) -> str:
    """Return what the jobs of a sweep cost, a line for each, and all of them one after the other.

    Args:
      record: of the sweep, with prices.
      machine: of each job.
      rate: see `price`.
    """
    found = {x.name: price(x.planned, machine, rate) for x in record.jobs}
    names, every = [*found, f"all {len(found)}"], [*found.values(), prices.total([*found.values()])]
    return "\n".join(prices.lines(names, every, machine)) + "\n"


def whole(record: Record, machine: Machine, rate: float = math.nan) -> str:
    """Return the header and the last line of `table`; its arguments."""
    head, columns, *_, last = table(record, machine, rate).splitlines()
    return "\n".join([head, columns, last])


def refused(jobs: Iterable[Job]) -> dict[str, str]:
    """Return why jobs cannot be done on their machine, by the names of those that cannot."""
    return {x.name: x.planned["refused"] for x in jobs if "refused" in x.planned}


def refusal(record: Record) -> str:
    """Say in one line which jobs do not fit: the first and why, then the names of the others.

    Returns:
      "" if all do.
    """
    found = refused(record.jobs)
    if not found:
        return ""
    first, *others = found
    more = f" So it is with {len(others)} more: {', '.join(others)}." if others else ""
    return f"memory: job {first}: {found[first]}{more}"
