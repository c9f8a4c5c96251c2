"""Plan and run the stages of a configuration: what the command line and Python both do."""

import contextlib
import dataclasses
import functools
import importlib.util
import json
import os
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any, cast

import ml_collections
from absl import logging

from jaxalign import config as config_lib
from jaxalign import plans, processes, stopping
from jaxalign.core import mesh
from jaxalign.data import datasets
from jaxalign.data.formats.recordings import NaN
from jaxalign.data.sets import download
from jaxalign.errors import InputError
from jaxalign.io import claims, place, run_dir
from jaxalign.io.place import Place, Remote
from jaxalign.io.run_dir import Artefact
from jaxalign.plans import Plan
from jaxalign.pricing import chips, prices, truth
from jaxalign.pricing.chips import Machine
from jaxalign.pricing.work import Layout
from jaxalign.stages import Job, Step

DATA_ROOT = "JAXALIGN_DATA"  # environment variable: the folder of published data
SETTINGS = "config.json"  # of the last run in a work directory
# Settings that may name places in a bucket: what runs have made.
ELSEWHERE = ("collect.runs", "properties.sources")
DRAWING_BYTES = 68 * 2**30  # see `check_address_space`
ORIGIN = "settings.json"  # in the folder of each artefact that was begun
POLL_S = 1.0  # between looks at what another run makes


@dataclasses.dataclass(frozen=True, kw_only=True)
class Places:
    """Where the artefacts and the devices of a run are, if not where they usually are.

    Attributes:
      store: folder of the artefacts that a fingerprint fixes, which runs may share; None: the work
        directory. What a work directory has once, its settings and its pages, stays there.
      is_here: whether the run will have the devices and the memory of this process.
    """

    store: str | os.PathLike[str] | Remote | None = None
    is_here: bool = True


def data_folder(path: str | os.PathLike[str] | None) -> pathlib.Path | None:
    """Return the folder of published data: the path, or what the environment names, or None."""
    found = path or os.environ.get(DATA_ROOT)
    place.refuse_urls("data_root", found)
    return pathlib.Path(found) if found else None


def plan(
    settings: ml_collections.ConfigDict,
    *,
    workdir: str | os.PathLike[str],
    data_root: str | os.PathLike[str] | None = None,
    places: Places | None = None,
    fetch: bool = False,
    machine: Machine | None = None,
) -> Plan:
    """Plan all stages of a configuration, which finds every error that needs no computing.

    Args:
      settings: from `config.pack`.
      workdir: where artefacts go, a folder or a URL (`io.place.at`); nothing is written yet.
      data_root: folder of published data; None: the environment variable JAXALIGN_DATA.
      places: where other things are than in the work directory and on this machine.
      fetch: download files of the data set, and instruction data of a published name, that are
        missing; see `data.sets.download`.
      machine: for which the plan is, and which it can only be priced for; None: the one at hand.

    Raises:
      InputError: if a setting, data set, model or device is not what it must be.
    """
    common, stages = config_lib.unpack(settings)
    places = places or Places()
    flags = {"--workdir": str(workdir), "--data_root": str(data_folder(data_root))}
    flags["--store"] = str(places.store)
    processes.check_same("configuration", config_lib.flatten(settings) | flags)
    where = place.at(workdir).absolute()
    _check_workdir(where)
    store = None if places.store is None else place.at(places.store).absolute()
    if store is not None:
        _check_workdir(store, "store")
    for name, value in config_lib.flatten(settings).items():
        if name not in ELSEWHERE:
            place.refuse_urls(name, value)
    root = data_folder(data_root)
    if fetch:
        for name in _published(common, stages):
            processes.decide(functools.partial(download.fetch, name, root))
    try:
        devices = mesh.make_mesh(*((-1, 1) if machine else common.mesh))
    except ValueError as error:
        raise InputError(str(error)) from error
    dataset = None
    if common.dataset:
        find = datasets.for_price if machine else datasets.find
        dataset = find(common.dataset, root, nan=cast(NaN, common.nan), options=common.options)
    elif common.options:
        raise InputError(f"options must be () where no data set is read, got {common.options}.")
    job = Job(
        workdir=where,
        data_root=root,
        dataset=dataset,
        mesh=devices,
        seed=common.seed,
        elsewhere=machine is not None,
        store=store,
        is_here=places.is_here,
    )
    layout = machine.layout(common.mesh) if machine else _layout(job)
    planned: dict[str, list[Step]] = {}
    upstream: dict[str, list[Artefact]] = {}
    for name, config in stages.items():
        planned[name] = config_lib.STAGES[name].load().plan(config, job, upstream)
        upstream[name] = [step.artefact for step in planned[name]]
    artefacts = [step.artefact for steps in planned.values() for step in steps]
    for artefact in artefacts:
        if artefact.latest_only:
            _check_folder(artefact.path)
            if places.is_here:
                check_address_space()
    made = {plans.label(artefact): artefact.fingerprint for artefact in artefacts}
    processes.check_same("data, models and versions", made)
    return Plan(
        settings=config_lib.flatten(settings),
        job=job,
        stages=planned,
        layout=layout,
        machine=machine or chips.at_hand(),
    )


def _published(common: config_lib.Common, stages: Mapping[str, Any]) -> list[str]:
    """Return what is to be fetched: the data set, and what the stage tune reads by its name."""
    data = stages["tune"].data if "tune" in stages else ""
    named = [data] if data in download.SOURCES else []
    return [common.dataset, *named] if common.dataset or not named else named


def _layout(job: Job) -> Layout:
    """Return how the devices at hand divide the work."""
    data, model = (job.mesh.shape[x] for x in ("data", "model"))
    platform = job.mesh.devices.flat[0].platform
    return Layout(data, model, platform == "cpu", platform == "tpu")


def run(plan: Plan, say: Callable[[str], None] = logging.info) -> int:
    """Make every artefact of a plan that is not finished, and keep what is.

    A run may be killed at any moment, and goes on where it was when it is started again. What
    another run makes in the same work directory is waited for, and not made twice.

    Args:
      plan: from `plan`.
      say: is called with a line about what is made, what it will take and what it took.

    Returns:
      How many artefacts were made.

    Raises:
      InputError: if the work directory cannot be written, or a stage meets what it refuses.
      stopping.Stopped: if a command line was asked to stop.
    """
    assert not plan.job.elsewhere  # it is for other devices than those at hand
    is_written = processes.decide(lambda: _prepare(plan))
    if is_written and not (plan.job.workdir / SETTINGS).is_file():
        raise InputError(
            f"workdir must lie where all processes can read it: process {processes.index()} does "
            f"not see {plan.job.workdir / SETTINGS}, which process 0 has written."
        )
    # Several processes stop at the same place, and not at once.
    with contextlib.nullcontext() if processes.count() == 1 else stopping.at_work():
        made = _Run(plan, say, is_writable=is_written).all()
    if not made:
        say(f"Nothing to compute: all {len(plan.steps)} artefacts are up to date.")
    return made


def _prepare(plan: Plan) -> bool:
    """Make the work directory ready; False if nothing can be written, and nothing has to be."""
    workdir, is_finished = plan.job.workdir, all(step.artefact.is_done for step in plan.steps)
    try:
        run_dir.check_writable(workdir)
        if plan.job.store is not None:
            run_dir.check_writable(plan.job.store, "store")
    except InputError:
        if not is_finished:  # what is finished can be read where nothing can be written
            raise
        return False
    run_dir.sweep(workdir)
    run_dir.write_json(workdir / SETTINGS, plan.settings)
    return True


class _Run:
    """The steps of a run on their way."""

    def __init__(self, plan: Plan, say: Callable[[str], None], *, is_writable: bool):
        self._plan, self._steps, self._say = plan, plan.steps, say
        self._is_writable = is_writable
        self._left = list(plan.steps)
        self._compiled: set[tuple] = set()
        self._awaited: set[Place] = set()
        self._repaired: set[Place] = set()

    def all(self) -> int:
        """Make what is not finished, and return how many that were."""
        made = 0
        while self._left:
            if processes.count() > 1:  # one alone ends at once, when nothing is at hand
                stopping.check()
            with contextlib.ExitStack() as held:
                place, is_done = processes.decide(lambda held=held: self._choose(held))
                if place < 0:
                    time.sleep(POLL_S)
                    continue
                step = self._left[place]
                if is_done:
                    self._say(f"{plans.label(step.artefact)}: up to date ({step.artefact.path})")
                else:
                    self._make(step)
                    made += 1
            del self._left[place]
        return made

    def _choose(self, held: contextlib.ExitStack) -> tuple[int, bool]:
        """Return which of the steps that are left comes next, and whether it is done.

        If it is not, it is claimed until `held` closes. -1: none, as others make them.
        """
        step = self._next()
        if step is None:
            return -1, False
        artefact, place = step.artefact, self._left.index(step)
        if artefact.is_done:
            if self._is_writable:
                run_dir.renew(artefact.path)
            return place, True
        is_mine = held.enter_context(claims.hold(artefact.workdir, _claim(artefact)))
        # Another run may have begun it, or have finished it, since the last look.
        return (place if is_mine else -1), is_mine and artefact.is_done

    def _next(self) -> Step | None:
        """Return the first step that nobody else makes, and which needs none of those left."""
        left = {step.artefact.fingerprint for step in self._left}
        for step in self._left:
            artefact = step.artefact
            if left & {x.fingerprint for x in (*artefact.inputs, *step.needs)}:
                continue
            other = claims.holder(artefact.workdir, _claim(artefact))
            if other is None or artefact.is_done:
                return step
            if artefact.path not in self._awaited:
                self._awaited.add(artefact.path)
                self._say(f"{plans.label(artefact)}: made by another run, {other}: waiting for it")
        return None

    def _make(self, step: Step) -> None:
        artefact = step.artefact
        if artefact.is_marked and not artefact.is_done:
            self._say(f"{plans.label(artefact)}: {plans.changed(artefact)}: made again")
        price = plans.price(self._plan, step, self._compiled)
        self._compiled |= price.work.programs
        self._say(f"{plans.label(artefact)}: {plans.cost(artefact, price) or 'starting'}")
        start = time.monotonic()
        with stopping.at_work():
            self._make_now(step, price)
        seconds = time.monotonic() - start
        took = truth.line(artefact.facts())
        self._say(f"{plans.label(artefact)}: done in {seconds:.1f} s, {took} ({artefact.path})")

    def _make_now(self, step: Step, price: prices.Price) -> None:
        """Make a step; of several processes the first one makes the folder and the marker."""
        artefact = step.artefact
        processes.decide(artefact.start)
        with truth.metered() as meter:
            facts = self._mended(step)
        processes.decide(lambda: self._finish(artefact, price, facts, meter))

    def _finish(
        self, artefact: Artefact, price: prices.Price, facts: dict, meter: truth.Meter
    ) -> None:
        """Write the marker, with what was planned and what it took beside what was found."""
        num_tokens = facts.get("num_tokens", 0) if price.work.passes else 0
        ran = truth.Ran(num_tokens, facts.pop("flop", None))
        found = truth.facts(price, self._plan.machine, self._plan.layout, meter, ran)
        artefact.finish(**facts, **found)

    def _mended(self, step: Step) -> dict:
        """Make a step; what it finds damaged of an earlier one is made again first, once.

        Several processes come here together, and go back together: an earlier step may need all of
        them, though this one does not, or one of them alone has found the damage.
        """
        while True:
            try:
                return _made(step)
            except run_dir.DamagedError as error:
                known = [x for x in self._steps if x.artefact.path == error.folder]
                if not known or error.folder in self._repaired:
                    raise
                self._repaired.add(error.folder)
                source = known[0]
                self._say(f"{plans.label(source.artefact)}: {error.problem}: made again")
                self._make_now(source, plans.price(self._plan, source, self._compiled))


def _made(step: Step) -> dict:
    """Make a step by those processes that make it; what was found is known in the first one.

    Raises:
      DamagedError: in all processes, if one of them has found what it read damaged.
    """
    if step.together:
        return run_dir.read_together(lambda: step.make(step.artefact))
    facts = {}

    def alone() -> list[str] | None:
        try:
            facts.update(step.make(step.artefact))
        except run_dir.DamagedError as error:
            return [str(error.folder), error.problem]
        return None

    if found := processes.decide(alone):
        raise run_dir.DamagedError(place.at(found[0]), found[1])
    return facts


def _claim(artefact: Artefact) -> str:
    """Name the claim on the folder of an artefact."""
    return artefact.stage if artefact.latest_only else f"{artefact.stage}-{artefact.fingerprint}"


def _check_workdir(workdir: Place, called: str = "workdir") -> None:
    """Refuse a work directory that cannot be one, or in which a file of others would be replaced.

    Raises:
      InputError: if it is or lies below a file, or has a `config.json` that no run has written, as
        a model's directory has.
    """
    if isinstance(workdir, Remote):
        place.check_readable(workdir)
    else:
        there = next(x for x in (workdir, *workdir.parents) if x.exists())
        if not there.is_dir():
            raise InputError(f"{called} must be a directory, but {there} is a file.")
    path = workdir / SETTINGS
    if not path.is_file():
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        found = None
    if not isinstance(found, dict) or not {"dataset", "seed", "mesh"} <= found.keys():
        raise InputError(
            f"{called} must be a directory of runs, but {path} was not written by one (is it a "
            f"model's?): choose another --{called}, or move the file."
        )


def _check_folder(path: Place) -> None:
    """Refuse to replace what is in a stage's folder if no run has put it there.

    Raises:
      InputError: if a page would be written among files of others.
    """
    begun = (path / ORIGIN).is_file() or any(path.glob(f"*/{ORIGIN}"))
    if not begun and path.is_dir() and any(path.glob("[!.]*")):
        raise InputError(
            f"workdir: the page goes to {path}, which holds files that no run has written: "
            "choose another --workdir."
        )


def check_address_space() -> None:
    """Refuse a limit of the address space (`ulimit -v`) in which no chart can be drawn.

    The engine that draws charts reserves 64 GiB of addresses, of which it uses 0.1, and ends the
    process where it gets fewer: after all else was computed.

    Raises:
      InputError: with what is needed, what there is, and how to limit memory instead.
    """
    if importlib.util.find_spec("resource") is None:  # on Windows
        return
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    if limit != resource.RLIM_INFINITY and limit < DRAWING_BYTES:
        raise InputError(
            f"the limit of the address space (ulimit -v) must be >= {DRAWING_BYTES / 2**30:.0f} "
            f"GiB, which is reserved for drawing charts and hardly used, got "
            f"{limit / 2**30:.1f} GiB: lift it (ulimit -v unlimited), and limit the memory that is "
            "used instead (systemd-run --scope -p MemoryMax=8G, or a job's --mem)."
        )
