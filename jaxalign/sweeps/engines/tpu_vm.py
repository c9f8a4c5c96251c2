"""A shell script that keeps TPU VMs at work: creates them, runs, brings results home."""

import shlex
from collections.abc import Mapping

from jaxalign.errors import InputError
from jaxalign.sweeps import machines, status, together, work
from jaxalign.sweeps.engines import Options, files
from jaxalign.sweeps.engines.files import chip
from jaxalign.sweeps.record import RECORD, Record

FILE = "tpu_vm.sh"

__all__ = ["check", "chip", "queue", "script", "start"]

# Folders of the repository that a machine has no use for: its own environment is made there.
_NOT_COPIED = (".git", ".venv", "runs", "build", ".pytest_cache", ".ruff_cache", ".hypothesis")

_TEXT = r"""#!/usr/bin/env bash
# @NOT_RUN@
# Asks for @MACHINES@ TPU VM(s) through queued resources, runs a share of the sweep on each, copies
# what is finished to @STORE@ every ten minutes, and asks again for a machine that was taken away.
# To start, from any machine with gcloud:   bash tpu_vm.sh
set -euo pipefail

name=@NAME@
zone=@ZONE@
repository=@REPOSITORY@
store=@STORE@
data=@DATA@ # folder of published data; empty: none is needed
machines=@MACHINES@
# shellcheck disable=SC2016 # a shell of the machine expands it
prepare=@PREPARE@

tpus() { gcloud compute tpus "$@" --zone="$zone"; }

state() {
  tpus queued-resources describe "$1" --format='value(state.state)' 2>/dev/null || echo NONE
}

create() {
  tpus queued-resources create "$1" --node-id="$1" --accelerator-type=@TYPE@ \
    --runtime-version=@RUNTIME@ @SPOT@
}

delete() {
  tpus queued-resources delete "$1" --quiet --force || true
}

# Runs a command on every host of a machine.
on_all() {
  tpus tpu-vm ssh "$1" --worker=all --command="$2"
}

# Copies a folder with what is in it, but for what further arguments exclude. All machines of this
# script have one host.
copy() {
  tar -C "$2" "${@:4}" -czf - . |
    tpus tpu-vm ssh "$1" --worker=all --command="mkdir -p $3 && tar -C $3 -xzf -"
}

# Copies what is there home; files are whole, as each is written under another name first.
fetch() {
  mkdir -p "$store"
  tpus tpu-vm ssh "$1" --worker=0 \
    --command='mkdir -p store && tar -C store --exclude=@RECORD@ -czf - .' | tar -C "$store" -xzf -
}

install() {
  copy "$1" "$repository" jaxalign @EXCLUDE@ &&
    copy "$1" "$store" store &&
    { [ -z "$data" ] || copy "$1" "$data" data; } &&
    on_all "$1" "python3 -m venv env && env/bin/pip install -q -e jaxalign 'jax[tpu]'" &&
    on_all "$1" "$prepare"
}

# Runs the share of one machine until it has ended for good.
babysit() {
  local id="$name-$1" code fetching
  while :; do
    case $(state "$id") in
      NONE) create "$id" || sleep 60 ;;
      ACTIVE)
        code=0
        install "$id" || code=$?
        if [ "$code" = 0 ]; then
          while sleep 600; do fetch "$id" || true; done &
          fetching=$!
          # shellcheck disable=SC2016 # flags stand as they were given
          on_all "$id" "cd jaxalign && "@RUN@" --share=$1/$machines" || code=$?
          kill "$fetching"
          fetch "$id" || code=143
        fi
        # 0: done; 1: some jobs have failed for good; 2: bad input. Else the machine was lost.
        if [ "$code" -le 2 ] && [ "$(state "$id")" = ACTIVE ]; then
          delete "$id"
          return "$code"
        fi
        sleep 60
        ;;
      # A spot slice that was taken away cannot be started, only deleted and asked for again.
      FAILED | SUSPENDING | SUSPENDED) delete "$id" ;;
      *) sleep 30 ;;
    esac
  done
}

babysitters=()
for ((i = 0; i < machines; i++)); do
  babysit "$i" &
  babysitters+=("$!")
done
failed=0
for pid in "${babysitters[@]}"; do wait "$pid" || failed=1; done
# All results are here: collect them, and report.
@COLLECT@
exit "$failed"
"""


def check(options: Options) -> None:
    """Refuse what cannot be written down.

    Raises:
      InputError: see `files.check`; and if the machine is no TPU, or no zone is named.
    """
    files.check(options)
    if not machines.find(options.accelerator).runtime:
        raise InputError(f"--to=tpu_vm needs a TPU, got --accelerator={options.accelerator}.")
    if not options.zone:
        raise InputError("--to=tpu_vm needs --zone, such as us-west4-a.")


def script(record: Record, options: Options) -> str:
    """Return the script."""
    options = options.on("../data")
    machine = machines.find(options.accelerator)
    python = "../env/bin/python"
    run = files.command(options, store="../store", share="", python=python)
    collect = ["python", "-m", "jaxalign.main"]
    collect += [f"--config={together.__file__}:{record.folder}"]
    collect += [f"--workdir={record.folder / 'collect'}"]
    values = {
        "NOT_RUN": files.NOT_RUN,
        "NAME": files.name(record),
        "ZONE": shlex.quote(options.zone),
        "REPOSITORY": shlex.quote(str(files.REPOSITORY)),
        "STORE": shlex.quote(str(record.folder.parents[1])),
        "DATA": shlex.quote(options.data_root),
        "MACHINES": str(options.machines),
        "TYPE": options.accelerator,
        "RUNTIME": machine.runtime,
        "SPOT": "--spot" if options.spot else "",
        "EXCLUDE": " ".join(f"--exclude=./{x}" for x in _NOT_COPIED) + " --exclude=__pycache__",
        "RECORD": RECORD,
        "PREPARE": shlex.quote(options.prepare or "true"),
        "RUN": shlex.quote(run),
        "COLLECT": shlex.join(collect) if record.last else "true",
    }
    text = _TEXT
    for name, value in values.items():
        text = text.replace(f"@{name}@", value)
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def queue(record: Record) -> Mapping[str, str]:
    """Return the jobs that were under way when their states were copied here last."""
    states = {x.name: work.State.read(x.path) for x in record.jobs}
    return {x: status.RUNNING for x, state in states.items() if state.tries and not state.is_final}


def start(record: Record, options: Options) -> int:
    """Write the script.

    Returns:
      0: it is written.
    """
    path = files.write(record, FILE, script(record, options))
    path.chmod(0o755)
    return 0
