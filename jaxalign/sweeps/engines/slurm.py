"""Jobs in the queue of a Slurm cluster, through submitit: arrays, dependencies, requeuing."""

import getpass
import importlib.util
import json
import os
import pathlib
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from jaxalign.errors import InputError
from jaxalign.io import run_dir
from jaxalign.sweeps import status, work
from jaxalign.sweeps.engines import Options
from jaxalign.sweeps.record import LAST, Job, Record

IDS = "slurm.json"  # in the folder of a sweep: name of a job -> its last id
LOGS = "slurm"  # what submitit and Slurm write of jobs, apart from their own logs
# submitit counts a signal that comes late in a job's time as a timeout, and with limits below ten
# minutes each; what is finished is kept, so that there is no reason to count them.
_TIMEOUTS = 1000
# Signals that announce the end do nothing until submitit hears them. Before that, a Python that is
# still starting would die of them, and Slurm would count the job as failed.
_DEAF = """/bin/sh -c 'trap "" TERM CONT USR1 USR2; exec "$0" "$@"'"""
_LEFT_S = 120  # that tasks have to end in once one of them has
_UNDER_WAY = ("RUNNING", "COMPLETING", "CONFIGURING", "STAGE_OUT", "SIGNALING")
_WAIT_S = 60


class Command:
    """A job as submitit pickles it: its command line, and the jobs that must not have failed.

    Of a job of several tasks each calls it, and their processes make one run.
    """

    def __init__(self, argv: Sequence[str], needs: Sequence[Job]):
        self.argv = list(argv)
        self.needs = tuple(needs)
        self._worker: work.Worker | None = None

    def __call__(self) -> int:
        """Run it until it has ended for good.

        Raises:
          RuntimeError: if it, or one that it needs, has failed, so that Slurm counts the job as
            failed.
        """
        for job in self.needs:
            if work.State.read(job.path).has_failed and not job.is_done:
                raise RuntimeError(f"not started, as {job.name} has failed")
        [folder] = [x.partition("=")[2] for x in self.argv if x.startswith("--workdir=")]
        self._worker = self._make_worker(pathlib.Path(folder))
        code = self._worker.run()
        if code != work.DONE:
            raise RuntimeError(f"exit code {code}; its log is {folder}/{work.LOG}")
        return code

    def _make_worker(self, folder: pathlib.Path) -> work.Worker:
        """Return what watches the process of this task: the first decides, others follow."""
        names = ("SLURM_JOB_ID", "SLURM_RESTART_COUNT")
        session = ".".join(os.environ.get(x, "0") for x in names)
        task = int(os.environ.get("SLURM_PROCID", "0"))
        if task == 0:
            return work.Worker(self.argv, folder, session=session)
        follower = work.Follower(self.argv, folder, session, task)
        # submitit leaves the signal to the first task, which puts the job in the queue again.
        signal.signal(signal.SIGUSR2, lambda *_: follower.ask())
        return follower

    def checkpoint(self):
        """Stop the command, and say what to put in the queue again: the same.

        submitit calls this in the handler of the signal that announces the end.
        """
        from submitit.helpers import DelayedSubmission

        if self._worker is not None:
            self._worker.stop()
        return DelayedSubmission(Command(self.argv, self.needs))


def check(options: Options) -> None:
    """Refuse what cannot be submitted: Slurm, submitit or the partition is not there.

    Raises:
      InputError: naming what is missing.
    """
    _check_tasks(options)
    if shutil.which("sbatch") is None:
        raise InputError(
            "--to=slurm needs Slurm on this machine: there is no sbatch in the PATH; --to=local "
            "runs here."
        )
    if importlib.util.find_spec("submitit") is None:
        raise InputError("--to=slurm needs submitit: pip install -e .[slurm]")
    if options.partition:
        known = sorted(set(_ask("sinfo", "--noheader", "--format=%R").split()))
        for name in options.partition.split(","):
            if name not in known:
                raise InputError(f"--partition must be one of {', '.join(known)}, got {name!r}.")


def _check_tasks(options: Options) -> None:
    """Refuse what cannot be divided over the tasks of a job, and these over its nodes."""
    tasks, nodes = options.tasks_per_job, options.nodes_per_job
    if tasks % nodes:
        raise InputError(
            f"--tasks_per_job must be a multiple of --nodes_per_job={nodes}, got {tasks}."
        )
    for flag, number in (
        ("--cpus_per_job", options.cpus_per_job),
        ("--devices_per_job", options.devices_per_job),
    ):
        if number % tasks:
            raise InputError(f"{flag} must be a multiple of --tasks_per_job={tasks}, got {number}.")


def chip(options: Options) -> str:
    """Return "": which devices a partition's nodes have is not known here."""
    del options
    return ""


def start(record: Record, options: Options) -> int:
    """Submit all jobs that are neither done nor in the queue.

    Jobs that wait for the same others are one array.

    Returns:
      0: Slurm has them.
    """
    ids, queued = _ids(record), queue(record)
    done = {x.name for x in record.jobs if x.kind != LAST and x.is_done}
    waiting = [x for x in record.jobs if x.name not in done and x.name not in queued]
    executor = _executor(record, options)
    while waiting:
        names = {x.name for x in waiting}
        ready = [x for x in waiting if not names & set(x.after)]
        arrays: dict[tuple[str, ...], list[Job]] = {}
        for job in ready:
            arrays.setdefault(tuple(x for x in job.after if x not in done), []).append(job)
        for after, jobs in arrays.items():
            commands = {x.name: _command(record, x) for x in jobs}
            ids |= _submit(executor, commands, [ids[x] for x in after], options)
            run_dir.write_json(record.folder / IDS, ids)
        waiting = [x for x in waiting if x not in ready]
    return 0


def queue(record: Record) -> Mapping[str, str]:
    """Return what the queue says of the jobs that are in it: "running", or why they wait."""
    names = {number: name for name, number in _ids(record).items()}
    if not names:
        return {}
    said = _ask(
        "squeue", "--noheader", "--array", "--format=%i|%T|%r", f"--user={getpass.getuser()}"
    )
    found = {}
    for line in said.splitlines():
        number, state, reason = line.strip().split("|", 2)
        if number in names:
            waits = f"{state.lower()} in Slurm ({reason})"
            found[names[number]] = status.RUNNING if state in _UNDER_WAY else waits
    return found


def _ids(record: Record) -> dict[str, str]:
    try:
        return json.loads((record.folder / IDS).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}


def python() -> str:
    """Return how jobs start Python, as a shell reads it."""
    return f"{_DEAF} {shlex.quote(sys.executable)}"


def _executor(record: Record, options: Options):
    import submitit

    nodes, cpus = options.nodes_per_job, options.cpus_per_job // options.tasks_per_job
    executor = submitit.AutoExecutor(
        folder=record.folder / LOGS,
        cluster="slurm",
        slurm_max_num_timeout=_TIMEOUTS,
        slurm_python=python(),
    )
    executor.update_parameters(
        name=f"jaxalign-{record.folder.name}",
        timeout_min=max(round(options.hours * 60), 1),
        nodes=nodes,
        tasks_per_node=options.tasks_per_job // nodes,
        cpus_per_task=cpus,
        **({"gpus_per_node": options.devices_per_job // nodes} if options.devices_per_job else {}),
        **({"mem_gb": options.memory_gb / nodes} if options.memory_gb else {}),
        **({"slurm_partition": options.partition} if options.partition else {}),
        # From 22.05 on `srun` does not read how many cores the tasks of its job have.
        slurm_srun_args=[f"--cpus-per-task={cpus}", f"--wait={_LEFT_S}"],
    )
    return executor


def _command(record: Record, job: Job) -> Command:
    # The last job takes what there is; others need all that they wait for.
    needs = () if job.kind == LAST else job.after
    return Command(work.command(job), [record.job(x) for x in needs])


def _submit(
    executor, commands: Mapping[str, Command], after: Sequence[str], options: Options
) -> dict[str, str]:
    """Submit jobs, by name, as one array, and return their ids."""
    extra: dict[str, Any] = {"requeue": True} | dict(options.slurm)
    if after:
        # Jobs ask themselves whether what they need has failed, and make what is missing. By
        # `afterok` Slurm drops them when a job has made everything but ends by a signal, or when
        # it is not put back in the queue because it took longer to end than pre-emption allows.
        extra["dependency"] = ":".join(["afterany", *after])
    executor.update_parameters(slurm_additional_parameters=extra)
    try:
        with executor.batch():
            submitted = [executor.submit(x) for x in commands.values()]
    except RuntimeError as error:  # submitit's name for what sbatch refuses
        reason = " ".join(str(error).split())
        raise InputError(f"Slurm refuses the jobs: {reason}") from error
    found = {name: x.job_id for name, x in zip(commands, submitted, strict=True)}
    for name, number in found.items():
        logging.info("%s: job %s", name, number)
    return found


def _ask(*command: str) -> str:
    """Return what a command of Slurm prints.

    Raises:
      InputError: if Slurm does not answer.
    """
    if shutil.which(command[0]) is None:
        raise InputError(f"--to=slurm needs Slurm on this machine: there is no {command[0]}.")
    try:
        asked = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_WAIT_S)
    except subprocess.CalledProcessError as error:
        raise InputError(f"{command[0]}: {' '.join(error.stderr.split())}") from error
    except subprocess.TimeoutExpired as error:
        raise InputError(f"{command[0]}: no answer within {_WAIT_S} s") from error
    return asked.stdout
