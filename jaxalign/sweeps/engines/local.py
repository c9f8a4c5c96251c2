"""Jobs as processes of this machine, each with devices of its own."""

import concurrent.futures
import functools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from absl import logging

from jaxalign.errors import InputError
from jaxalign.sweeps import work
from jaxalign.sweeps.engines import Options
from jaxalign.sweeps.record import LAST, RUN, Job, Record

_ASK = "import jax; x = jax.local_devices(); print(x[0].platform, len(x), x[0].device_kind)"


def check(options: Options) -> None:
    """Refuse more jobs or devices than this machine has.

    Raises:
      InputError: naming the flag.
    """
    slots(options)


def chip(options: Options) -> str:
    """Return what a job's devices are called in `pricing.chips`; "" if they are of none there."""
    platform, _, kind = _devices() if options.devices_per_job else ("cpu", [], "")
    if platform == "cpu":
        return f"cpu-{max(options.devices_per_job, 1)}"
    from jaxalign.pricing import chips  # --status need not wait for JAX

    found = chips.of_kind(kind)
    return f"{found.name}-{options.devices_per_job}" if found else ""


def slots(options: Options) -> list[dict[str, str]]:
    """Return the environment of each job that runs at a time: which devices it sees.

    Raises:
      InputError: if there are not as many devices.
    """
    if not options.devices_per_job:
        return [{"JAX_PLATFORMS": "cpu"} for _ in range(options.parallel or 1)]
    platform, visible, _ = _devices()
    if platform == "cpu":  # whose cores all jobs share
        return [{} for _ in range(options.parallel or 1)]
    size = options.devices_per_job
    groups = [visible[i : i + size] for i in range(0, len(visible) - size + 1, size)]
    if not groups:
        raise InputError(
            f"--devices_per_job must be at most {len(visible)}, the devices of this machine, got "
            f"{size}."
        )
    if options.parallel > len(groups):
        raise InputError(
            f"--parallel must be at most {len(groups)}, as {len(visible)} devices give as many "
            f"jobs of {size}, got {options.parallel}."
        )
    return [pinned(platform, x) for x in groups[: options.parallel or len(groups)]]


def pinned(platform: str, devices: Sequence[str]) -> dict[str, str]:
    """Return the environment in which a process sees some devices alone.

    The variables for TPUs are those of libtpu's documentation; they were not run here.
    """
    named = ",".join(devices)
    if platform != "tpu":
        return {"CUDA_VISIBLE_DEVICES": named, "ROCR_VISIBLE_DEVICES": named}
    bounds = {1: "1,1,1", 2: "1,2,1", 4: "2,2,1", 8: "2,4,1"}
    if len(devices) not in bounds:
        raise InputError(f"--devices_per_job must be 1, 2, 4 or 8 on a TPU, got {len(devices)}.")
    return {
        "TPU_VISIBLE_CHIPS": named,
        "TPU_CHIPS_PER_PROCESS_BOUNDS": bounds[len(devices)],
        "TPU_PROCESS_BOUNDS": "1,1,1",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    }


def _devices() -> tuple[str, list[str], str]:
    """Return the platform of this machine's devices, their numbers, and what JAX calls them."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return "cpu", [], "cpu"
    platform, count, kind = _asked()
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "") if platform != "tpu" else ""
    return platform, named.split(",") if named else [str(i) for i in range(count)], kind


@functools.cache
def _asked() -> tuple[str, int, str]:
    """Ask JAX for this machine's devices, in a process that gives them back."""
    asked = subprocess.run(
        [sys.executable, "-c", _ASK], capture_output=True, text=True, check=False
    )
    if asked.returncode:
        raise InputError(f"JAX finds no device here: {asked.stderr.strip().splitlines()[-1]}")
    platform, count, kind = asked.stdout.strip().splitlines()[-1].split(maxsplit=2)
    return platform, int(count), kind


def queue(record: Record) -> Mapping[str, str]:
    """Return what is known of waiting jobs: nothing that their states do not say."""
    del record
    return {}


def start(record: Record, options: Options) -> int:
    """Run the jobs of a sweep that are not done, several at a time.

    Returns:
      0: all are done; 1: some have failed.

    Raises:
      InputError: if its jobs run already.
      KeyboardInterrupt: if it was interrupted, once its jobs have ended.
      stopping.Stopped: if it was asked to stop, likewise.
    """
    is_alone = options.share == (0, 1)
    running = [x.name for x in record.jobs if work.is_alive(x.path, work.State.read(x.path))]
    if is_alone and running:
        raise InputError(f"the sweep is under way, {running[0]} runs: see --status.")
    own = record if is_alone else record.share(*options.share)
    return _Run(own, record, slots(options)).all()


class _Run:
    """Jobs under way: which wait, which run on which devices, which have ended."""

    def __init__(self, record: Record, whole: Record, environments: Sequence[Mapping[str, str]]):
        self._record, self._whole = record, whole
        self._free = list(environments)
        self._width = len(environments)
        self._workers: dict[str, work.Worker] = {}
        self._done: set[str] = set()
        self._failed: set[str] = set()
        self._lock = threading.Lock()

    def all(self) -> int:
        """Run all; the last one when the others have ended."""
        waiting = [x for x in self._record.jobs if x.kind != LAST]
        for job in [x for x in waiting if x.is_done]:
            waiting.remove(job)
            self._done.add(job.name)
        logging.info(
            "%d jobs, %d of them done; %d at a time",
            *(len(waiting) + len(self._done), len(self._done), self._width),
        )
        with concurrent.futures.ThreadPoolExecutor(self._width) as pool:
            try:
                self._run(waiting, pool)
                last = self._record.last
                everything = all(x.is_done for x in self._whole.jobs if x.kind == RUN)
                is_ours = self._record is self._whole or everything
                if last is not None and is_ours and self._done:
                    self._end(last, pool.submit(self._one, last))
            except BaseException:
                self.stop()  # the pool waits for its threads
                raise
        return 1 if self._failed else 0

    def _run(self, waiting: list[Job], pool: concurrent.futures.Executor) -> None:
        """Run jobs as soon as those that they wait for are done."""
        running: dict[concurrent.futures.Future, Job] = {}
        while waiting or running:
            self._give_up(waiting)
            for job in [x for x in waiting if set(x.after) <= self._done]:
                if len(running) < self._width:
                    waiting.remove(job)
                    running[pool.submit(self._one, job)] = job
            ended, _ = concurrent.futures.wait(
                running, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for future in ended:
                self._end(running.pop(future), future)

    def _end(self, job: Job, future: concurrent.futures.Future) -> None:
        (self._failed if future.result() else self._done).add(job.name)

    def stop(self) -> None:
        """End all that run."""
        with self._lock:
            workers = list(self._workers.values())
        for worker in workers:
            worker.ask()
        for worker in workers:
            worker.stop()

    def _give_up(self, waiting: list[Job]) -> None:
        """Leave out jobs that wait for one that has failed."""
        for job in list(waiting):
            if lost := [x for x in job.after if x in self._failed]:
                logging.error("%s: not started, as %s has failed", job.name, lost[0])
                waiting.remove(job)
                self._failed.add(job.name)

    def _one(self, job: Job) -> int:
        begin = time.monotonic()
        with self._lock:
            environment = self._free.pop()
            worker = self._workers[job.name] = work.Worker(work.command(job), job.path, environment)
        where = "".join(f", {x}={y}" for x, y in list(environment.items())[:1])
        logging.info("%s: started%s; %s", job.name, where, job.path / work.LOG)
        try:
            code = worker.run()
        finally:
            with self._lock:
                self._free.append(environment)
                del self._workers[job.name]
        took = time.monotonic() - begin
        if code:
            logging.error("%s: failed with exit code %d after %.1f s", job.name, code, took)
        else:
            logging.info("%s: done in %.1f s", job.name, took)
        return code
