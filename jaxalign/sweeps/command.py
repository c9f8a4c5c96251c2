"""The command line of sweeps.

python launch/sweep.py --config=configs/sweeps/demo.py --to=local --store=runs/sweep
"""

import os
import pathlib
import re
import sys

from absl import app, flags, logging

from jaxalign import command_line, price_flags, stopping
from jaxalign.errors import InputError, one_line
from jaxalign.io import place

_CONFIG = flags.DEFINE_string(
    "config",
    None,
    "Configuration file with sweep(), such as configs/sweeps/demo.py. --config.<name>=<value> "
    "changes a setting of all jobs.",
)
_TO = flags.DEFINE_string("to", "local", "Engine that starts the jobs: see docs/scale.md.")
_STORE = flags.DEFINE_string(
    "store",
    None,
    "Where all jobs put what they make: a folder, s3://BUCKET/PATH or gs://BUCKET/PATH. Default: "
    "runs/<configuration>.",
)
_FOLDER = flags.DEFINE_string(
    "folder",
    None,
    "Where the sweep itself is: settings, pages, logs and states of its jobs, in a folder that all "
    "machines see. Default: <store>/sweeps/<name>; must be given if the store is in a bucket.",
)
_NAME = flags.DEFINE_string(
    "name", None, "Of the sweep, whose folder is <store>/sweeps/<name>. Default: the configuration."
)
_DATA_ROOT = flags.DEFINE_string(
    "data_root", None, "Folder of published data. Default: environment variable JAXALIGN_DATA."
)
_DOWNLOAD = flags.DEFINE_bool(
    "download", False, "Fetch files of data sets that are missing, while the jobs are planned."
)
_DRY_RUN = flags.DEFINE_bool("dry_run", False, "Print the jobs and what they would do, and stop.")
_RESUME = flags.DEFINE_bool(
    "resume", False, "Go on with a sweep that was started: with all jobs that are not done."
)
_STATUS = flags.DEFINE_bool(
    "status", False, "Show how far the jobs are; on a terminal, until all have ended."
)
_DEVICES = flags.DEFINE_integer(
    "devices_per_job",
    None,
    "Accelerators of each job; 0: it computes on the CPU. Default: as many as --chip says, else 1.",
    lower_bound=0,
)
flags.adopt_module_key_flags(price_flags)  # --help lists them
_PARALLEL = flags.DEFINE_integer(
    "parallel",
    0,
    "local: jobs at a time. Default: as many as there are groups of devices; one on a CPU.",
    lower_bound=0,
)
_SHARE = flags.DEFINE_string(
    "share", "0/1", "local: I/N, the I-th of N machines, from 0, that run one sweep together."
)
_PARTITION = flags.DEFINE_string("partition", "", "slurm: partition, or several with commas.")
_HOURS = flags.DEFINE_float("hours", 24.0, "slurm: that a job may take.", lower_bound=0.0)
_TASKS = flags.DEFINE_integer(
    "tasks_per_job",
    1,
    "slurm: processes that make each job together, each with its part of the job's devices.",
    lower_bound=1,
)
_NODES = flags.DEFINE_integer(
    "nodes_per_job", 1, "slurm: nodes that the tasks of a job are divided over.", lower_bound=1
)
_CPUS = flags.DEFINE_integer("cpus_per_job", 8, "slurm: cores of each job.", lower_bound=1)
_MEMORY = flags.DEFINE_float(
    "memory_gb", 0.0, "slurm: memory of each job. Default: the cluster's.", lower_bound=0.0
)
_SLURM = flags.DEFINE_list(
    "slurm", [], "slurm: other options of sbatch, as in --slurm=account=lab,qos=long."
)
_ACCELERATOR = flags.DEFINE_string(
    "accelerator", "v5litepod-8", "skypilot, jobset, tpu_vm: what each machine has."
)
_MACHINES = flags.DEFINE_integer(
    "machines", 1, "skypilot, jobset, tpu_vm: machines that share the jobs.", lower_bound=1
)
_SPOT = flags.DEFINE_bool("spot", True, "skypilot, jobset, tpu_vm: machines may be taken away.")
_PREPARE = flags.DEFINE_string(
    "prepare", "", "skypilot, jobset, tpu_vm: shell command before the jobs, to fetch weights."
)
_ZONE = flags.DEFINE_string("zone", "", "tpu_vm: zone of Google Cloud.")
_BUCKET = flags.DEFINE_string("bucket", "", "skypilot: bucket that is the store.")
_IMAGE = flags.DEFINE_string("image", "", "jobset: image with the repository.")
_VOLUME = flags.DEFINE_string("volume", "", "jobset: claim of a volume for the store.")


def main(argv: list[str]) -> int:
    """Plan a sweep and start it, or show how far it is.

    Returns:
      0: all jobs are done, or were handed over; 1: some have failed.
    """
    overrides = [x for x in argv[1:] if _is_override(x)]
    if rest := [x for x in argv[1:] if not _is_override(x)]:
        raise InputError(f"only flags are understood, got argument {rest[0]!r}.")
    if _CONFIG.value is None:
        raise InputError("--config must name a configuration file, such as configs/sweeps/demo.py.")
    from jaxalign.sweeps import engines, outcome, status
    from jaxalign.sweeps import record as record_lib

    stem = pathlib.Path(_CONFIG.value).stem
    store = place.at(_STORE.value or f"runs/{stem}").absolute()
    name, own = _NAME.value or stem, _own_folder(store)
    engine, options = engines.find(_TO.value), _options(overrides)
    if _STATUS.value:
        record = record_lib.read(own or record_lib.folder(store, name))
        look = lambda: status.lines(record, engine.queue(record))
        status.show(look, lambda: outcome.table(record))
        return 0
    is_elsewhere = _DRY_RUN.value and bool(price_flags.chip())
    if not is_elsewhere:
        engine.check(options)
    # Imported here: --help, --status and a bad flag need not wait for JAX.
    from jaxalign.sweeps import costs, planning

    machine = _machine(price_flags.chip() or engine.chip(options), options.parallel)
    where = planning.Where(
        store=store,
        name=name,
        own=own,
        data_root=_data_root(),
        fetch=_DOWNLOAD.value,
        machine=machine,
        is_elsewhere=is_elsewhere,
    )
    if not _DRY_RUN.value:
        planning.check_store(where, is_resumed=_RESUME.value)
    record = planning.read_and_plan(_CONFIG.value, overrides, where, options.devices_per_job)
    rate = price_flags.rate()
    if _DRY_RUN.value:
        sys.stdout.write(planning.describe(record, machine, rate))
        sys.stdout.flush()
    if reason := costs.refusal(record):
        share = f" {options.parallel} jobs at a time share this memory: see --parallel."
        is_shared = machine and machine.chip.name == "cpu" and options.parallel > 1
        raise InputError(reason + share * bool(is_shared))
    if _DRY_RUN.value:
        return 0
    if machine:
        logging.info("%s", costs.whole(record, machine, rate))
    if _RESUME.value and (where.folder / record_lib.RECORD).is_file():
        record = record.resumed(record_lib.read(where.folder))
    record.write()
    code = engine.start(record, options)
    logging.flush()
    found = status.lines(record, engine.queue(record))
    compared = outcome.table(record) if status.has_ended(found) else ""
    sys.stdout.write(compared + status.table(found))
    return code


def _own_folder(store: place.Place) -> pathlib.Path | None:
    """Return the folder of the sweep, where it is not in the store."""
    if "://" in (_FOLDER.value or ""):
        raise InputError(
            f"--folder must be a folder of a file system that all machines see, got {_FOLDER.value}"
        )
    if _FOLDER.value:
        if _NAME.value:
            raise InputError("--name must be left out with --folder: it is a folder of the store.")
        return pathlib.Path(_FOLDER.value).absolute()
    if isinstance(store, place.Remote):
        raise InputError(
            f"--folder must be given with --store={store}: logs grow and states change while jobs "
            "run, which needs a folder of a file system that all machines see."
        )
    return None


def _data_root() -> pathlib.Path | None:
    found = _DATA_ROOT.value or os.environ.get("JAXALIGN_DATA")
    return pathlib.Path(found).absolute() if found else None


def _machine(name: str, parallel: int):
    """Return the machine of a job by its name; None of "".

    Jobs that run at a time on a CPU share its memory.
    """
    from jaxalign.pricing import chips

    if not name:
        return None
    return chips.shared(chips.calibrated(chips.find(name), price_flags.calibration()), parallel)


def _devices_per_job() -> int:
    """Return how many devices each job has: as many as its machine, if that is named."""
    if not price_flags.chip():
        return 1 if _DEVICES.value is None else _DEVICES.value
    from jaxalign.pricing import chips

    machine = chips.find(price_flags.chip())
    number = 0 if machine.chip.name == "cpu" and machine.num_devices == 1 else machine.num_devices
    if _DEVICES.value not in (None, number):
        given = f"with --chip={price_flags.chip()}, got {_DEVICES.value}"
        raise InputError(f"--devices_per_job must be {number} {given}.")
    return number


def _options(overrides: list[str]):
    from jaxalign.sweeps.engines import Options

    share = re.fullmatch(r"(\d+)/([1-9]\d*)", _SHARE.value)
    if share is None or int(share[1]) >= int(share[2]):
        raise InputError(f"--share must be I/N with 0 <= I < N, got {_SHARE.value!r}.")
    if bad := [x for x in _SLURM.value if "=" not in x]:
        raise InputError(f"--slurm must be NAME=VALUE[,NAME=VALUE...], got {bad[0]!r}.")
    if _TO.value != "slurm" and (_TASKS.value, _NODES.value) != (1, 1):
        raise InputError(
            f"--tasks_per_job and --nodes_per_job go with --to=slurm, got {_TO.value}."
        )
    return Options(
        devices_per_job=_devices_per_job(),
        parallel=_PARALLEL.value,
        share=(int(share[1]), int(share[2])),
        folder=_FOLDER.value or "",
        partition=_PARTITION.value,
        hours=_HOURS.value,
        cpus_per_job=_CPUS.value,
        memory_gb=_MEMORY.value,
        tasks_per_job=_TASKS.value,
        nodes_per_job=_NODES.value,
        slurm=dict(x.split("=", 1) for x in _SLURM.value),
        config=_CONFIG.value,
        overrides=tuple(overrides),
        data_root=str(_data_root() or ""),
        machines=_MACHINES.value,
        accelerator=_ACCELERATOR.value,
        spot=_SPOT.value,
        zone=_ZONE.value,
        bucket=_BUCKET.value,
        image=_IMAGE.value,
        volume=_VOLUME.value,
        prepare=_PREPARE.value,
    )


def _is_override(argument: str) -> bool:
    return argument.lstrip("-").startswith("config.")


def _parse(argv: list[str]) -> list[str]:
    """Parse flags; those that change settings stay, for each job's configuration."""
    try:
        rest = flags.FLAGS([x for x in argv if not _is_override(x)])
    except flags.Error as error:
        raise InputError(f"{one_line(error)} (--help lists the flags)") from error
    return [*rest, *(x for x in argv if _is_override(x))]


def cli() -> None:
    """Run `main`; report what the user can put right in one line, with exit code 2."""
    logging.use_absl_handler()
    logging.set_verbosity(logging.INFO)
    stopping.listen()
    kept = "what is finished is kept; --resume goes on where it was"
    with command_line.ends_in_one_line(kept=kept):
        app.run(main, flags_parser=_parse)
