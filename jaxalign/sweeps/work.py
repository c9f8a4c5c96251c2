"""The process of a job: its log, its state, and whether it is started again when it has ended."""

import collections
import dataclasses
import json
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from jaxalign import command_line, stopping
from jaxalign.io import run_dir
from jaxalign.sweeps import outcome
from jaxalign.sweeps.record import Job

LOG, STATE = "log.txt", "state.json"  # in the folder of a job
DONE, BAD_INPUT = 0, command_line.REFUSED
INTERRUPTED, STOPPED = command_line.INTERRUPTED, stopping.EXIT_CODE
# How often a process is started again that was ended from outside: aborted, killed, stopped.
_AGAIN = {134: 3, 137: 3, STOPPED: 3}
_AGAIN_OTHERWISE = 1
BEAT_S = 10.0  # between two signs of life
SILENT_S = 60.0  # after which a job without one has been lost
FOLLOW_S = 0.5  # between looks at what the first of several tasks does
_GRACE_S = 60.0  # from being asked to stop until being killed


@dataclasses.dataclass(frozen=True, kw_only=True)
class State:
    """What is known of the process of a job.

    Attributes:
      tries: how often it was started.
      code: exit code of the last one that ended; None: none has.
      is_final: whether it will not be started again by itself.
      host: where the last one ran.
      pid: of the process that watches it.
      seconds: that all of its processes took.
      session: which of the times that an engine started the job this is; "": it does not say.
    """

    tries: int = 0
    code: int | None = None
    is_final: bool = False
    host: str = ""
    pid: int = 0
    seconds: float = 0.0
    session: str = ""

    @classmethod
    def read(cls, folder: pathlib.Path) -> "State":
        """Read the state of a job; that of one that was never started, if there is none."""
        try:
            return cls(**json.loads((folder / STATE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return cls()

    @property
    def has_failed(self) -> bool:
        """Whether it has ended for good, and not because somebody stopped it."""
        return self.is_final and self.code not in (DONE, STOPPED, INTERRUPTED)

    def write(self, folder: pathlib.Path) -> None:
        """Keep it."""
        run_dir.write_json(folder / STATE, dataclasses.asdict(self))


def is_alive(folder: pathlib.Path, state: State) -> bool:
    """Whether a process watches a job: it gives signs of life, on whatever machine.

    Their age is by the clock of the file system that holds the folder.
    """
    if state.is_final or not state.pid:
        return False
    if state.host == socket.gethostname():
        try:
            os.kill(state.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass
    try:
        return _now(folder) - (folder / STATE).stat().st_mtime < SILENT_S
    except OSError:
        return False


def _now(folder: pathlib.Path) -> float:
    """Return the time by the clock of a file system; by our own, where nothing can be written."""
    probe = folder / f".now-{os.getpid()}"
    try:
        probe.touch()
        try:
            return probe.stat().st_mtime
        finally:
            probe.unlink()
    except OSError:
        return time.time()


def command(job: Job) -> list[str]:
    """Return the command line of a job."""
    return [sys.executable, "-m", "jaxalign.main", *job.flags]


class Worker:
    """Runs the command of a job until it has ended for good.

    0 is done. 2, bad input, is never tried again. A process that was stopped or lost (143, 134,
    137) is, three times, and one that ended otherwise once: the same command goes on where it was.

    Args:
      argv: the command.
      folder: of the job.
      environment: variables that the command has beside ours.
      session: see `State`.
    """

    _log = LOG

    def __init__(
        self,
        argv: Sequence[str],
        folder: pathlib.Path,
        environment: Mapping[str, str] | None = None,
        session: str = "",
    ):
        self._argv = list(argv)
        self._folder = folder
        self._session = session
        self._environment = None if environment is None else {**os.environ, **environment}
        self._process: subprocess.Popen | None = None
        self._is_stopped = False

    def run(self) -> int:
        """Run the command, and return the exit code of its last process."""
        self._folder.mkdir(parents=True, exist_ok=True)
        seen: collections.Counter[int] = collections.Counter()
        while True:
            state = State.read(self._folder)
            state = dataclasses.replace(
                state,
                tries=state.tries + 1,
                is_final=False,
                host=socket.gethostname(),
                pid=os.getpid(),
                session=self._session,
            )
            state.write(self._folder)
            begin = time.monotonic()
            code = STOPPED if self._is_stopped else self._once(state.tries)
            seconds = round(state.seconds + time.monotonic() - begin, 3)
            seen[code] += 1
            if self._is_stopped:
                code = STOPPED if code not in (DONE, BAD_INPUT) else code
            is_final = (
                self._is_stopped
                or code in (DONE, BAD_INPUT, INTERRUPTED)
                or seen[code] > _AGAIN.get(code, _AGAIN_OTHERWISE)
            )
            if code == DONE:
                outcome.keep(self._folder, seconds)
            ended = dataclasses.replace(state, code=code, is_final=is_final, seconds=seconds)
            ended.write(self._folder)
            if is_final:
                return code

    def ask(self) -> None:
        """Ask the process to end; the worker starts none after it."""
        self._is_stopped = True
        if self._process is not None:
            self._process.terminate()  # does nothing to one that has ended

    def stop(self) -> None:
        """Ask the process to end, wait for it, and kill it if it does not."""
        self.ask()
        process = self._process
        if process is None:
            return
        end = time.monotonic() + _GRACE_S
        while process.poll() is None:
            if time.monotonic() > end:
                process.kill()
            # Without a timeout, `wait` holds a lock that `run` may be in, if this is a handler of a
            # signal that came there.
            time.sleep(0.1)

    def _once(self, number: int) -> int:
        with open(self._folder / self._log, "ab") as log:
            host, now = socket.gethostname(), time.strftime("%Y-%m-%d %H:%M:%S")
            log.write(f"--- try {number} on {host}, {now}\n".encode())
            log.flush()
            self._process = process = subprocess.Popen(
                self._argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environment,
            )
            if self._is_stopped:  # just before there was a process to ask
                process.terminate()
            beat = time.monotonic()
            while True:
                try:
                    code = process.wait(1.0)
                    break
                except subprocess.TimeoutExpired:
                    pass
                if time.monotonic() - beat > BEAT_S:
                    beat = time.monotonic()
                    os.utime(self._folder / STATE)
        return code if code >= 0 else 128 - code


class Follower(Worker):
    """Runs the command of one of several tasks that make a job together.

    The worker of the first task decides: whenever it starts its process, so does this one, and it
    ends when that has ended for good. A process that joined the others too early would meet those
    of the last try.

    Args:
      argv: the command.
      folder: of the job.
      session: of the first task, see `State`.
      number: of this task: 1, 2, ...
    """

    def __init__(self, argv: Sequence[str], folder: pathlib.Path, session: str, number: int):
        super().__init__(argv, folder, session=session)
        self._log = f"{LOG}.{number}"

    def run(self) -> int:
        """Follow the first task, and return the exit code of its last process."""
        tries = 0
        while not self._is_stopped:
            state = State.read(self._folder)
            if state.session == self._session:
                if state.is_final:
                    return state.code or DONE
                if state.tries > tries:
                    tries = state.tries
                    self._once(tries)
                    continue
            time.sleep(FOLLOW_S)
        return STOPPED
