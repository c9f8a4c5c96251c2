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

from jaxalign.errors import PlaceError
from jaxalign.io.place import Place, Remote

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


def holder(workdir: Place, name: str) -> Holder | None:
    """Return who is making an artefact; None where nobody is, or a claim is of the dead.

    Args:
      workdir: of the artefact.
      name: of the claim.
    """
    looked = _look(workdir / FOLDER / name)
    if looked is None:
        return None
    content, silent_s = looked
    try:
        found = Holder(**json.loads(content))
    except (ValueError, TypeError):  # half written
        found = Holder("an unknown host", 0, "", "", "")
    if silent_s > DEAD_S:
        return None
    if found.machine == _machine() and found.pid and not _is_alive(found.pid):
        return None
    return found


@contextlib.contextmanager
def hold(workdir: Place, name: str) -> Iterator[bool]:
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
    except (OSError, PlaceError):
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
            with contextlib.suppress(OSError, PlaceError):
                path.unlink()
        if isinstance(path, pathlib.Path):
            _tidy(path.parent)


def _look(path: Place) -> tuple[str, float] | None:
    """Return what a claim says, and for how many seconds it has given no sign; None if it is gone.

    A store says of no object when it was written. So the sign of life there is a new content, and
    its time that at which this process first saw it.
    """
    try:
        if isinstance(path, pathlib.Path):
            beat_s, content = path.stat().st_mtime, path.read_text(encoding="utf-8")
            age_s = _now_s(path.parent) - beat_s
            _tidy(path.parent)  # whoever held it may have found the file of this look there
            return content, age_s
        looked = path.look()
    except (OSError, ValueError, PlaceError):
        return None
    if looked is None:
        return None
    data, generation = looked
    now_s = time.monotonic()
    return data.decode(errors="replace"), now_s - _seen.setdefault((str(path), generation), now_s)


_seen: dict[tuple[str, str], float] = {}


def _write(path: Place, mine: Holder) -> bool:
    """Make the file of a claim, and return whether nobody else has."""
    if holder(path.parents[1], path.name) is not None:
        return False
    if isinstance(path, Remote):
        looked = path.look()
        return path.swap(json.dumps(mine._asdict()).encode(), looked[1] if looked else "")
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


def _beat(path: Place, mine: Holder, over: threading.Event) -> None:
    """Give a sign of life now and then: the time of the file, which its server sets.

    In a bucket it is another content, a line longer each time.
    """
    content = json.dumps(mine._asdict()).encode()
    while not over.wait(BEAT_S):
        if _token(path) != mine.token:
            return
        with contextlib.suppress(OSError, PlaceError):
            if isinstance(path, pathlib.Path):
                os.utime(path)
            elif looked := path.look():
                content += b"\n"
                path.swap(content, looked[1])


def _token(path: Place) -> str:
    try:
        if isinstance(path, pathlib.Path):
            content = path.read_text(encoding="utf-8")
        else:
            looked = path.look()
            content = looked[0].decode() if looked else ""
        return json.loads(content)["token"]
    except (OSError, ValueError, KeyError, TypeError, PlaceError):
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


def _tidy(folder: pathlib.Path) -> None:
    """Remove the folder of claims if it is empty."""
    with contextlib.suppress(OSError):
        folder.rmdir()


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
