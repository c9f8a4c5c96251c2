"""Claims: who is making an artefact, so that two runs that share a folder do no work twice.

A claim only saves work. What an artefact holds follows from its fingerprint, and its files are
written whole: two who make one at the same time harm nobody. So a claim may be lost, or taken from
one who seems dead.
"""

import contextlib
import json
import os
import pathlib
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from typing import NamedTuple

FOLDER = ".claims"  # in a work directory; a file for each artefact that is being made
BEAT_S = 10.0  # seconds between signs of life
DEAD_S = 60.0  # seconds without one after which a claim counts no more
# Where schedulers write what they call a job.
_JOBS = ("SLURM_JOB_ID", "SKYPILOT_TASK_ID", "JOB_NAME")


class Holder(NamedTuple):
    """Who makes an artefact."""

    host: str
    pid: int
    job: str  # of a scheduler, or ""
    machine: str  # tells apart machines of one name, and containers on one machine
    token: str  # of this claim alone

    def __str__(self) -> str:
        job = f", job {self.job}" if self.job else ""
        return f"process {self.pid} on {self.host}{job}"


def holder(workdir: pathlib.Path, name: str) -> Holder | None:
    """Return who is making an artefact; None where nobody is, or a claim is of the dead.

    Args:
      workdir: of the artefact.
      name: of the claim.
    """
    path = workdir / FOLDER / name
    try:
        beat_s, content = path.stat().st_mtime, path.read_text(encoding="utf-8")
    except OSError:
        return None
    try:
        found = Holder(**json.loads(content))
    except (ValueError, TypeError):  # half written
        found = Holder("an unknown host", 0, "", "", "")
    if _now_s(path.parent) - beat_s > DEAD_S:
        return None
    if found.machine == _machine() and found.pid and not _is_alive(found.pid):
        return None
    return found


@contextlib.contextmanager
def hold(workdir: pathlib.Path, name: str) -> Iterator[bool]:
    """Claim an artefact while this lasts; False if somebody else does.

    Where claims cannot be written, whoever asks may go on.

    Args:
      workdir: of the artefact.
      name: of the claim: letters, digits and "-".
    """
    job = next((os.environ[x] for x in _JOBS if os.environ.get(x)), "")
    mine = Holder(socket.gethostname(), os.getpid(), job, _machine(), uuid.uuid4().hex)
    path = workdir / FOLDER / name
    try:
        is_mine = _write(path, mine)
    except OSError:
        is_mine = None
    if not is_mine:
        yield is_mine is None
        return
    over = threading.Event()
    thread = threading.Thread(target=_beat, args=(path, mine, over), daemon=True)
    thread.start()
    try:
        yield True
    finally:
        over.set()
        thread.join()
        if _token(path) == mine.token:
            with contextlib.suppress(OSError):
                path.unlink()
        with contextlib.suppress(OSError):
            path.parent.rmdir()  # if it is empty


def _write(path: pathlib.Path, mine: Holder) -> bool:
    """Make the file of a claim, and return whether nobody else has."""
    if holder(path.parents[1], path.name) is not None:
        return False
    path.unlink(missing_ok=True)
    while True:
        path.parent.mkdir(exist_ok=True)
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            return False
        except FileNotFoundError:  # the folder was empty, and somebody has removed it
            continue
        with open(descriptor, "w", encoding="utf-8") as file:
            json.dump(mine._asdict(), file)
        return True


def _beat(path: pathlib.Path, mine: Holder, over: threading.Event) -> None:
    """Give a sign of life now and then: the time of the file, which its server sets."""
    while not over.wait(BEAT_S):
        if _token(path) != mine.token:
            return
        with contextlib.suppress(OSError):
            os.utime(path)


def _token(path: pathlib.Path) -> str:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["token"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""


def _now_s(folder: pathlib.Path) -> float:
    """Return the time by the clock that dates the files of a folder; hosts' own may differ."""
    try:
        with tempfile.NamedTemporaryFile(dir=folder) as file:
            file.write(b"now")
            file.flush()
            os.fsync(file.fileno())
            return os.stat(file.name).st_mtime
    except OSError:
        return time.time()


def _machine() -> str:
    """Return what tells this machine, and this container, from others; "" where nothing does."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        return True
    try:  # one that has ended, which nobody has asked for its end yet, is not alive
        state = pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2]
    except OSError:
        return True
    return not state.split()[:1] == ["Z"]
