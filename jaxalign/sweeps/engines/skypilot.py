"""A task file for SkyPilot, whose managed jobs recover from the loss of spot machines."""

import importlib.util

import yaml
from absl import logging

from jaxalign.errors import InputError
from jaxalign.sweeps import machines, work
from jaxalign.sweeps.engines import Options, files
from jaxalign.sweeps.engines.files import chip, queue
from jaxalign.sweeps.record import Record

FILE = "skypilot.yaml"
_STORE, _DATA = "/outputs", "/data"

__all__ = ["check", "chip", "queue", "start", "task"]


def check(options: Options) -> None:
    """Refuse what cannot be written down.

    Raises:
      InputError: see `files.check`; and if there is no bucket for what is made.
    """
    files.check(options)
    if not options.bucket:
        raise InputError("--to=skypilot needs --bucket, which is mounted as the store.")


def task(record: Record, options: Options) -> dict:
    """Return the task of one machine; its share of the sweep is the variable SHARE."""
    options = options.on(_DATA)
    machine = machines.find(options.accelerator)
    again = [work.STOPPED, 134, 137]
    mounts: dict[str, object] = {_STORE: {"name": options.bucket, "store": "gcs", "mode": "MOUNT"}}
    if options.data_root:
        mounts[_DATA] = options.data_root
    extra = "[cuda12]" if machine.resource.startswith("nvidia") else "[tpu]"
    resources: dict[str, object] = {
        "accelerators": machine.sky,
        "use_spot": options.spot,
        "job_recovery": {
            "strategy": "EAGER_NEXT_REGION",
            "max_restarts_on_errors": 0,  # jobs have been tried again before the machine ends
            "recover_on_exit_codes": sorted(again),
        },
    }
    if machine.runtime:
        resources |= {
            "infra": "gcp",
            "accelerator_args": {"runtime_version": machine.runtime},
        }
    return {
        "name": files.name(record),
        "workdir": str(files.REPOSITORY),
        "resources": resources,
        "envs": {"SHARE": f"0/{options.machines}"},
        "file_mounts": mounts,
        "setup": f"python3 -m venv ~/env\n~/env/bin/pip install -e . 'jax{extra}'\n"
        + (f"{options.prepare}\n" if options.prepare else ""),
        "run": files.command(options, store=_STORE, share="$SHARE", python="~/env/bin/python")
        + "\n",
    }


def start(record: Record, options: Options) -> int:
    """Write the file, and have SkyPilot read it where it is installed.

    Returns:
      0: it is written.

    Raises:
      InputError: if SkyPilot refuses it.
    """
    name = files.name(record)
    launch = "\n".join(
        f"#   sky jobs launch -n {name}-{i} --env SHARE={i}/{options.machines} {FILE} -d -y"
        for i in range(options.machines)
    )
    head = f"# {files.NOT_RUN}\n# To start, in this folder:\n{launch}\n"
    path = files.write(record, FILE, head + yaml.safe_dump(task(record, options), sort_keys=False))
    if importlib.util.find_spec("sky") is None:
        logging.info("SkyPilot is not installed here: the file was not read by it")
        return 0
    import sky

    try:
        sky.Task.from_yaml(str(path))
    except ValueError as error:
        raise InputError(f"SkyPilot refuses {path}: {' '.join(str(error).split())}") from error
    return 0
