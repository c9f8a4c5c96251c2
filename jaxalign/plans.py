"""What a run makes: the artefacts of a configuration, and what there is to say of them."""

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from jaxalign.errors import InputError
from jaxalign.io import run_dir
from jaxalign.io.run_dir import Artefact
from jaxalign.pricing import assumed, prices, truth
from jaxalign.pricing.chips import Machine
from jaxalign.pricing.work import Layout
from jaxalign.stages import Job, Step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run makes, and from what.

    Attributes:
      settings: every setting under its dotted name, stages in their order.
      job: what all stages are given.
      stages: the steps of each stage, in the order in which they are made.
      layout: of the devices that it is for.
      machine: these devices; None: those at hand, which are of no chip of `pricing.chips`.
    """

    settings: Mapping[str, Any]
    job: Job
    stages: Mapping[str, Sequence[Step]]
    layout: Layout
    machine: Machine | None

    @property
    def steps(self) -> list[Step]:
        """Steps of all stages, in order."""
        return [step for steps in self.stages.values() for step in steps]

    @property
    def assumed(self) -> assumed.Assumed:
        """What its price takes for granted; nothing of a plan that can be run."""
        if not self.job.elsewhere:
            return assumed.Assumed()
        models = [*self.settings.get("extract.models", ())]
        data = self.settings.get("tune.data", "")
        if data:
            models.append(self.settings["tune.model"])
        found = assumed.of(models, self.job.dataset)
        return found | assumed.of_training(data, self.job.data_root)


def only(plan: Plan, names: Sequence[str]) -> Plan:
    """Return a plan with some of its artefacts alone, such as those that several runs share.

    Args:
      plan: from `plan`.
      names: `<stage>/<fingerprint>`, as their folders are called.

    Raises:
      InputError: if the plan has no such artefact.
    """
    known = {f"{x.artefact.stage}/{x.artefact.fingerprint}" for x in plan.steps}
    if unknown := [name for name in names if name not in known]:
        raise InputError(
            f"--only must name artefacts of the plan: {unknown[0]} is none. Were data, a model or "
            f"the package changed since it was planned? There are {', '.join(sorted(known))}."
        )
    kept = {
        stage: [x for x in steps if f"{stage}/{x.artefact.fingerprint}" in names]
        for stage, steps in plan.stages.items()
    }
    return dataclasses.replace(plan, stages={x: steps for x, steps in kept.items() if steps})


def price(plan: Plan, step: Step, compiled: Collection[tuple] = ()) -> prices.Price:
    """Return what a step costs; in time only where the machine is known."""
    if plan.machine is None:
        work = step.work(plan.layout)
        return prices.Price(
            work, math.nan, work.device_bytes, work.process_bytes(plan.layout), math.nan
        )
    return prices.price(step.work, plan.machine, plan.layout, known=compiled)


def cost(artefact: Artefact, price: prices.Price) -> str:
    """Say what making an artefact takes: counts of what it is made of, then numbers."""
    return ", ".join(x for x in (artefact.cost, price.work.describe()) if x)


def items(plan: Plan) -> list[prices.Item]:
    """Return what a plan makes, to be priced."""
    return [prices.Item(label(x.artefact), x.work, x.artefact.is_done) for x in plan.steps]


def compared(plan: Plan) -> str:
    """Return plan and truth of all artefacts of a finished run, as a table; "" if none has them."""
    found = [(label(step.artefact), step.artefact.facts()) for step in plan.steps]
    known = [(name, facts) for name, facts in found if "took" in facts]
    if not known:
        return ""
    names, facts = zip(*known, strict=True)
    return truth.table(names, facts)


def results(plan: Plan) -> str:
    """Return what the steps of a finished plan have to show, and where their pages lie."""
    texts, pages = [], []
    for step in plan.steps:
        artefact, shown = step.artefact, step.artefact.path / step.shows
        if not step.shows:
            continue
        if not artefact.is_marked:
            texts.append(f"{label(artefact)}: another run has replaced it: {artefact.path}\n")
            continue
        texts.append(shown.read_text(encoding="utf-8"))
        if (page := shown.with_name(run_dir.PAGE)).is_file():
            pages.append(f"Page: {page}\n")
    return "".join([*texts, *pages])


def describe(plan: Plan, rate: float = math.nan) -> str:
    """Say what a plan would do: each setting as the flag that overrides it, each step's price.

    Args:
      plan: from `plan`.
      rate: money for one device and hour; NaN: none is known.
    """
    job, machine = plan.job, plan.machine
    lines = ["# Configuration", *(f"--config.{k}={v!r}" for k, v in plan.settings.items())]
    lines += ["", "# Plan", f"workdir: {job.workdir}", f"data_root: {job.data_root}"]
    if job.store is not None:
        lines.append(f"store: {job.store}")
    lines += [f"assumed: {x}" for x in plan.assumed.lines]
    kind = job.mesh.devices.flat[0].device_kind
    if machine and job.elsewhere:
        kind = f"{machine.chip.kind}, as {plan.layout.data} x {plan.layout.model}"
    lines += [f"devices: {plan.layout.size} x {kind}"]
    for step in plan.steps:
        artefact = step.artefact
        status = "up to date" if artefact.is_done else "to do"
        if artefact.is_marked and not artefact.is_done:
            status += f" again, {changed(artefact)}"
        taken = cost(artefact, price(plan, step))
        lines.append(f"{label(artefact)}: {status}; {taken}; {artefact.path}")
    if machine is None:
        unknown = f"no price: {kind} is of no chip of jaxalign/pricing/chips.py; give --chip."
        return "\n".join([*lines, "", "# Price", unknown]) + "\n"
    lines += ["", "# Price", prices.table(items(plan), machine, plan.layout, rate)]
    return "\n".join(lines)


def label(artefact: Artefact) -> str:
    """Return what logs and tables call an artefact."""
    return f"{artefact.stage} {artefact.name}".strip()


def changed(artefact: Artefact) -> str:
    """Say which files of a finished artefact have changed since."""
    names = run_dir.changed(artefact.path)
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    verb = "is" if len(names) == 1 else "are"
    return f"{', '.join(names[:3])}{more} {verb} not what was written"
