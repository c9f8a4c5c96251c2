"""A Slurm of one node on this machine, for tests: installed where apt may, started and stopped."""

import contextlib
import getpass
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import time

import pytest

_PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "squeue", "scontrol")
_CONFIGURATION = """\
ClusterName=j
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={controller}
SlurmdPort={node}
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,bf_interval=1
KillWait=15
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=low Nodes=ALL Default=YES MaxTime=INFINITE State=UP PriorityTier=1 \
PreemptMode=REQUEUE GraceTime=20
PartitionName=high Nodes=ALL MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
"""


def _install() -> None:
    """Install Slurm, or skip with the reason why it cannot be."""
    if all(shutil.which(x) for x in _PROGRAMS):
        return
    if getpass.getuser() != "root" or shutil.which("apt-get") is None:
        pytest.skip("there is no Slurm, and only root can install it: apt-get install slurm-wlm")
    packages = ["slurm-wlm", "munge"]
    for command in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        done = subprocess.run(
            ["apt-get", "-qq", *command], capture_output=True, text=True, check=False, timeout=300
        )
    if done.returncode or not all(shutil.which(x) for x in _PROGRAMS):
        pytest.skip(f"Slurm could not be installed: {done.stderr.strip()[-200:]}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextlib.contextmanager
def started(folder: pathlib.Path):
    """Start a cluster whose files are in a folder; yield the environment of its commands.

    The partition `high` takes nodes from `low`, whose jobs have 20 s to end and go back to the
    queue.
    """
    _install()
    if getpass.getuser() != "root":
        pytest.skip("a Slurm of one's own is started by root")
    for name in ("state", "spool", "munge"):
        (folder / name).mkdir(parents=True)
        (folder / name).chmod(0o755)
    host = socket.gethostname().partition(".")[0]
    path = folder / "slurm.conf"
    path.write_text(
        _CONFIGURATION.format(folder=folder, host=host, controller=_free_port(), node=_free_port())
    )
    key = folder / "munge/key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    environment = os.environ | {"SLURM_CONF": str(path)}
    munge = ["munged", "--force"]
    for option, name in (
        ("key-file", "key"),
        ("socket", "socket"),
        ("pid-file", "pid"),
        ("log-file", "log"),
        ("seed-file", "seed"),
    ):
        munge.append(f"--{option}={folder / 'munge' / name}")
    pids = [folder / x for x in ("slurmd.pid", "slurmctld.pid", "munge/pid")]
    try:
        for command in (munge, ["slurmctld", "-f", path], ["slurmd", "-f", path, "-N", host]):
            subprocess.run(list(map(str, command)), env=environment, check=True, timeout=60)
        _wait_for(environment, folder)
        yield environment
    finally:
        for pid in pids:
            with contextlib.suppress(OSError, ValueError):
                os.kill(int(pid.read_text()), signal.SIGTERM)
        # Their sockets and files go with the folder: let them end first.
        deadline = time.monotonic() + 20
        while any(x.exists() for x in pids) and time.monotonic() < deadline:
            time.sleep(0.2)


def _wait_for(environment, folder: pathlib.Path) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        said = subprocess.run(
            ["sinfo", "--noheader", "--format=%t"],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if "idle" in said.stdout:
            return
        time.sleep(0.5)
    log = (folder / "slurmctld.log").read_text()[-500:] if folder.exists() else ""
    pytest.skip(f"Slurm has not started: {said.stdout} {said.stderr} {log}")
