"""What the engines share that write a file for somebody else's launcher, and start nothing."""

import pathlib
import re
import shlex
from collections.abc import Mapping

from absl import logging

import jaxalign
from jaxalign.errors import InputError
from jaxalign.io import run_dir
from jaxalign.sweeps import machines
from jaxalign.sweeps.engines import Options
from jaxalign.sweeps.record import Record

REPOSITORY = pathlib.Path(jaxalign.__file__).resolve().parents[1]
NOT_RUN = "Written by launch/sweep.py; not run on a cloud where jaxalign is developed."


def check(options: Options) -> None:
    """Refuse what cannot be written down.

    Raises:
      InputError: if there is no such machine, a job needs more devices than it has, the folder of
        the sweep is not in the store, which other machines have a copy of or mount, or the
        configuration is not in the repository, which is what other machines get.
    """
    if options.folder:
        raise InputError(
            "--folder, which a --store in a bucket needs, must be left out where machines are made "
            "for the sweep: what they have in common is a copy or a mount of the store's folder."
        )
    machine = machines.find(options.accelerator)
    if options.devices_per_job > machine.devices:
        raise InputError(
            f"--devices_per_job must be at most {machine.devices} on {options.accelerator}, got "
            f"{options.devices_per_job}."
        )
    configuration(options)


def chip(options: Options) -> str:
    """Return what a job's devices are called in `pricing.chips`; "" if it computes on the CPU."""
    number = options.devices_per_job
    return f"{machines.find(options.accelerator).chip}-{number}" if number else ""


def configuration(options: Options) -> str:
    """Return the configuration's path in the repository.

    Raises:
      InputError: if it is not there.
    """
    path = pathlib.Path(options.config).resolve()
    if REPOSITORY not in path.parents:
        raise InputError(
            f"--config must be a file of the repository {REPOSITORY}, which other machines get, "
            f"got {options.config!r}."
        )
    return path.relative_to(REPOSITORY).as_posix()


def name(record: Record) -> str:
    """Name what is launched: lower case, digits and dashes, as all of them allow."""
    return re.sub(r"[^a-z0-9]+", "-", f"jaxalign-{record.folder.name}".lower()).strip("-")[:50]


def command(options: Options, *, store: str, share: str, python: str = "python") -> str:
    """Return the command line by which a machine runs its share of the jobs, and goes on with it.

    Args:
      options: of the sweep.
      store: on that machine.
      share: "I/N", or a shell's expression for it; "": whoever runs the command adds it.
      python: of the machine.
    """
    given = ["launch/sweep.py", f"--config={configuration(options)}", "--to=local", "--resume"]
    given += [f"--devices_per_job={options.devices_per_job}", *options.overrides]
    if options.data_root:
        given.append(f"--data_root={options.remote_data}")
    shared = f' --share="{share}"' if share else ""
    return f"{python} {shlex.join(given)} --store={store}{shared}"


def write(record: Record, file: str, text: str) -> pathlib.Path:
    """Write a file into the folder of the sweep, and say where it is."""
    path = record.folder / file
    run_dir.write_atomic(path, text.encode())
    logging.info("%s is written, and nothing was started", path)
    return path


def queue(record: Record) -> Mapping[str, str]:
    """Return what is known of waiting jobs: nothing that their states do not say."""
    del record
    return {}
