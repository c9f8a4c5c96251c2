"""Several processes that make one run together: what they agree on, and how they end.

Each has devices of its own; arrays lie on those of all. The first process decides and writes, since
decisions that each took by looking at the disk would differ, and the programs that all must run
together would not match. What is agreed on goes through the key-value store of JAX's coordination
service, which needs no device, so that waiting takes nothing and ends when another process does.

A thread in each process looks for news: that somebody was asked to stop, has ended, or gives no
sign of life.
"""

import contextlib
import json
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from absl import logging

from jaxalign import aborts, stopping, tasks
from jaxalign.errors import InputError, one_line

LOST = 134  # exit code where another process is gone: as of one that JAX ends for that
SILENT_S = 20.0  # without a sign of life a process counts as lost
# JAX ends the others itself when a process has been silent for this or half of it. That is for a
# process whose Python hangs; ours comes first.
HEARTBEAT_S = 60
SHUTDOWN_S = 30  # that a process waits for others when all is done
BEAT_S = 3.0
LOOK_S = 0.5  # between looks for news
SLICE_MS = 1000  # a wait is made of these, so that signals are heard
FLUSH_S = 20.0  # that a process waits for others to write what is under way, when all stop
LEAVE_S = 15.0  # at most, that the first process stays, for the others to read why it ends


# What the last line says of the work.
AGAIN = ": what is finished is kept; start all processes again, and they go on where they were."


class _Job:
    """The one job of this process."""

    def __init__(self, client: Any, index: int, count: int):
        self.client, self.index, self.count = client, index, count
        self.said = 0  # decisions so far
        self.is_alone = False  # the first process works, and the others wait
        self.asked = 0  # times that all have asked together whether to stop
        self.answered: int | None = None  # `asked` when the request to stop was seen
        self.last: int | None = None  # of `asked`, at which all stop
        self.lock = threading.Lock()
        self.is_over = threading.Event()
        self.news = threading.Thread(target=_look_for_news, args=(self,), daemon=True)
        self.signals = -1  # where their numbers are read
        self.beats: dict[int, tuple[Any, float]] = {}  # the last of each process, and since when
        self.looks = 0  # for news, that were answered
        self.let_go: Callable[[], None] = lambda: None  # of standard error

    def key(self, *parts: object) -> str:
        return "/".join(("jaxalign", *map(str, parts)))

    def put(self, key: str, value: object, *, again: bool = False) -> None:
        self.client.key_value_set(key, json.dumps(value), allow_overwrite=again)

    def look(self, key: str) -> Any:
        """Return a value; None if there is none yet."""
        try:
            return json.loads(self.client.key_value_try_get(key))
        except RuntimeError as error:
            if "NOT_FOUND" in str(error):
                return None
            raise

    def wait(self, key: str, until_s: float = float("inf")) -> Any:
        """Return a value as soon as there is one."""
        while True:
            try:
                return json.loads(self.client.blocking_key_value_get(key, SLICE_MS))
            except RuntimeError as error:
                if "DEADLINE_EXCEEDED" not in str(error) or time.monotonic() > until_s:
                    raise


_job: _Job | None = None


def start(
    coordinator: str = "",
    num_processes: int = 0,
    process_id: int = -1,
    local_devices: Sequence[int] = (),
) -> None:
    """Join the other processes of a job, if there are any; before JAX is asked for devices.

    Without arguments JAX finds them by itself on TPUs and under Slurm, if a job has several tasks;
    the GPUs of a node are divided over its tasks.

    Args:
      coordinator: HOST:PORT, where process 0 runs and a port is free.
      num_processes: of the job.
      process_id: 0, 1, ...
      local_devices: numbers of the devices of this process on its host; (): all.

    Raises:
      InputError: if some of the first three are given and others not, or they do not go together.
    """
    given = (bool(coordinator), bool(num_processes), process_id >= 0)
    if any(given) and not all(given):
        raise InputError(
            "--coordinator, --num_processes and --process_id go together: give all or none of them."
        )
    if all(given) and not process_id < num_processes:
        raise InputError(
            f"--process_id must lie in 0..{num_processes - 1}, got {process_id} of "
            f"{num_processes} processes."
        )
    if all(given) and not coordinator.rpartition(":")[2].isdigit():
        raise InputError(f"--coordinator must be HOST:PORT, got {coordinator!r}.")
    if not any(given) and not tasks.are_several(os.environ):
        return
    import jax
    from jax._src import distributed  # whose client has no public name; Orbax takes it, too

    jax.config.update("jax_enable_preemption_service", False)  # it takes SIGTERM for itself
    try:
        jax.distributed.initialize(
            coordinator or None,
            num_processes or None,
            process_id if process_id >= 0 else None,
            local_device_ids=list(local_devices) or tasks.own_devices(os.environ) or None,
            heartbeat_timeout_seconds=HEARTBEAT_S,
            shutdown_timeout_seconds=SHUTDOWN_S,
        )
    except (RuntimeError, ValueError) as error:
        raise InputError(f"processes must find one another: {one_line(error)}.") from error
    state = distributed.global_state
    if state.num_processes > 1:
        _join(_Job(state.client, state.process_id, state.num_processes))


def _join(job: _Job) -> None:
    global _job
    _job = job
    # Signals are heard though the main thread waits for a device: the number of each is written to
    # a pipe at once, while handlers run when Python does.
    heard, written = os.pipe()
    os.set_blocking(written, False)
    signal.set_wakeup_fd(written, warn_on_full_buffer=False)
    job.signals = heard
    _keep_stdout(is_shown=job.index == 0)
    stopping.agree_by(_all_stop)
    if job.index:
        job.let_go = aborts.replace(_end_alone)
        threading.Thread(target=_look_for_silence, args=(job,), daemon=True).start()
        logging.set_verbosity(logging.ERROR)  # one log
    job.news.start()


def _keep_stdout(*, is_shown: bool) -> None:
    """Keep standard output for what Python prints, in one process: Gloo talks there, too."""
    kept, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(2 if is_shown else nowhere, 1)
    sys.stdout = os.fdopen(kept, "w", encoding="utf-8")


def count() -> int:
    """Return the number of processes of this job."""
    return 1 if _job is None else _job.count


def index() -> int:
    """Return which of them this is: 0, 1, ..."""
    return 0 if _job is None else _job.index


def is_first() -> bool:
    """Whether this is the process that decides and writes; so is one that is alone."""
    return index() == 0


def check_alone(what: str) -> None:
    """Refuse to be one of several processes.

    Args:
      what: works in one alone.

    Raises:
      InputError: if it is.
    """
    if count() > 1 or (_job is None and tasks.are_several(os.environ)):
        raise InputError(
            f"{what} works in one process, and this is one of several: start it alone (a job of "
            "one task), with all devices of a host."
        )


def decide(find: Callable[[], Any]) -> Any:
    """Return in all processes what the first one finds.

    Args:
      find: called in the first process alone, while the others wait: it must run nothing on their
        devices. Returns what JSON can hold.
    """
    if _job is None or _job.is_alone:
        return find()
    key = _job.key("said", _job.said)
    _job.said += 1
    if _job.index:
        return _job.wait(key)
    _job.is_alone = True
    try:
        found = find()
    finally:
        _job.is_alone = False
    _job.put(key, found)
    return found


def gather(value: Any, until_s: float = float("inf")) -> list[Any]:
    """Return the values that all processes give, in their order.

    Args:
      value: what JSON can hold.
      until_s: of `time.monotonic`, when to give up.
    """
    if _job is None or _job.is_alone:
        return [value]
    job, number = _job, _job.said
    job.put(job.key("from", number, job.index), value)
    every = [job.wait(job.key("from", number, i), until_s) for i in range(job.count)]
    job.said += 1
    return every


def barrier() -> None:
    """Wait until all processes are here."""
    gather(None)


def check_same(what: str, named: dict[str, Any]) -> None:
    """Refuse processes that were given different values.

    Args:
      what: they are called in an error.
      named: by name; what JSON can hold.

    Raises:
      InputError: in all of them, naming the first that differs.
    """
    every = gather(named)
    for i, other in enumerate(every):
        for name in every[0] | other:
            values = [x.get(name, "nothing") for x in (every[0], other)]
            if values[0] != values[1]:
                raise InputError(
                    f"processes must be given the same {what}: {name} is {values[0]!r} in process "
                    f"0 and {values[1]!r} in process {i}."
                )


# Stopping.


def _all_stop() -> bool:
    """Whether all processes stop here: they ask at the same places, and get the same answers."""
    job = _job
    assert job is not None
    if job.is_alone:  # others wait, and are told when this one ends
        return stopping.was_asked() or job.answered is not None
    with job.lock:
        job.asked += 1
        here, answered = job.asked, job.answered
    if answered is None:
        return False
    if job.last is None:
        # The furthest of all cannot turn back, so that all go on to the next place after it.
        every = [job.wait(job.key("asked", i)) for i in range(job.count)]
        job.last = max(every) + 1
    return here >= job.last


def _look_for_news(job: _Job) -> None:
    """See that somebody was asked to stop, has ended or is lost; runs beside the work."""
    beat, next_beat_s = 0, 0.0
    while not job.is_over.is_set():
        ready, _, _ = select.select([job.signals], [], [], LOOK_S)
        if ready and set(os.read(job.signals, 64)) & set(stopping.SIGNALS):
            stopping.ask()
        try:
            _stop_together(job)
            ended = job.look(job.key("ended"))
            if ended and ended["process"] != job.index:
                _follow(job, ended)
            if time.monotonic() >= next_beat_s:
                beat, next_beat_s = beat + 1, time.monotonic() + BEAT_S
                job.put(job.key("beat", job.index), beat, again=True)
                _find_lost(job)
            job.looks += 1
        except RuntimeError:
            if not job.is_over.is_set():
                _end_alone(is_first_lost=True)


def _look_for_silence(job: _Job) -> None:
    """End if the first process does not answer, of which `_look_for_news` waits for an answer.

    Looks are counted, and no clock is read: this process may have been held up itself.
    """
    looks, silent = 0, 0
    while not job.is_over.wait(LOOK_S):
        looks, silent = job.looks, 0 if job.looks != looks else silent + 1
        if silent * LOOK_S > SILENT_S:
            _end_alone(is_first_lost=True)


def _stop_together(job: _Job) -> None:
    """Tell others that this process was asked to stop, and how far it is when one was."""
    if job.answered is not None:
        return
    if stopping.was_asked():
        job.put(job.key("stop"), True, again=True)
    if job.look(job.key("stop")):
        with job.lock:
            job.answered = job.asked
        job.put(job.key("asked", job.index), job.answered)


def _find_lost(job: _Job) -> None:
    """End if a process gives no sign of life: all look at the first, and that at all others."""
    now = time.monotonic()
    for i in range(1, job.count) if job.index == 0 else [0]:
        beat = job.look(job.key("beat", i))
        known, since = job.beats.get(i, (None, now))
        job.beats[i] = (beat, since if beat == known else now)
        if now - job.beats[i][1] <= SILENT_S:
            continue
        if i == 0:
            _end_alone(is_first_lost=True)
        _end_all(job, LOST, f"error: process {i} is lost{AGAIN}", absent=i)


# Ending.


def _say(line: str) -> None:
    logging.flush()
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


_alone = threading.Lock()  # of which nobody lets go: one thread ends this process


def _end_alone(is_first_lost: bool) -> NoReturn:
    """End this process without the others, who find out as it does."""
    if not _alone.acquire(blocking=False):
        time.sleep(LEAVE_S)
    lost = "process 0 is lost" if is_first_lost else "JAX has lost a process"
    _say(f"error: {lost}{AGAIN}")
    os._exit(LOST)


def _follow(job: _Job, ended: dict) -> NoReturn:
    """End as another process has."""
    if job.index == 0:
        _say(f"{ended['line'].rstrip('.')} (process {ended['process']}).")
        _wait_for_others(job, absent=ended["process"])
    else:
        job.put(job.key("left", job.index), True)
        job.let_go()
    os._exit(ended["code"])


def _end_all(job: _Job, code: int, line: str, *, absent: int = -1) -> NoReturn:
    """Say why, and end this process; the others read it and end, too."""
    if job.index:  # what is wrong for all is said by the first
        time.sleep(2 * LOOK_S)
    try:
        job.put(job.key("ended"), {"code": code, "line": line, "process": job.index})
    except RuntimeError:  # somebody was faster, or the first process is gone
        with contextlib.suppress(RuntimeError):
            if ended := job.look(job.key("ended")):
                _follow(job, ended)
    _say(line)
    if job.index == 0:
        _wait_for_others(job, absent=absent)
    job.let_go()
    os._exit(code)


def _wait_for_others(job: _Job, *, absent: int) -> None:
    """Stay until all others have read how this job ends, and a moment longer.

    The store goes with the first process, and JAX aborts a process that loses it while it ends.
    """
    until_s = time.monotonic() + LEAVE_S
    for i in range(1, job.count):
        if i != absent:
            try:
                job.wait(job.key("left", i), until_s)
            except RuntimeError:
                return
    time.sleep(LOOK_S)


def end(line: str, code: int) -> NoReturn:
    """End this process, and all others of its job, with a line and an exit code.

    Args:
      line: is written once, by the first process, and by the one that failed.
      code: of all processes.
    """
    job = _job
    if job is None:
        _say(line)
        sys.exit(code)
    if job.last is None or code != stopping.EXIT_CODE:
        _end_all(job, code, line)
    # All stop here: each has written what it had.
    job.is_over.set()
    try:
        gather(None, time.monotonic() + FLUSH_S)
        job.put(job.key("left", job.index), True)
    except RuntimeError:
        logging.warning("not all processes have ended in time")
    if job.index == 0:
        _say(line)
        _wait_for_others(job, absent=-1)
    job.let_go()
    os._exit(code)


def wait_for_cause() -> None:
    """Wait for news after an error that another process may have caused by its end.

    Returns if there are none: then the error is this process's own.
    """
    if _job is not None:
        time.sleep(SILENT_S + 3 * BEAT_S)


def finish() -> None:
    """Leave the job, when all is done; waits for the others."""
    global _job
    job = _job
    if job is None:
        return
    import jax

    barrier()
    job.is_over.set()
    job.news.join()
    _job = None
    jax.distributed.shutdown()
    job.let_go()
