"""How far a sweep is: from done-markers, the states of its jobs, their logs, and the queue."""

import pathlib
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from jaxalign.sweeps import work
from jaxalign.sweeps.record import LAST, Job, Record

WAITING, RUNNING, DONE, FAILED, STOPPED = "waiting", "running", "done", "failed", "stopped"
_TAIL_BYTES = 8192  # of a log
_LAST_LINES = 6  # of the log of a job that has failed
REFRESH_S = 2.0
# What tqdm writes: "extract gpt2:  45%|####     | 144/320 [00:10<00:12, 14.1 stimuli/s, ...]".
_PROGRESS = re.compile(
    r"(?P<what>[^|\r\n]+):\s+(?P<percent>\d+)%\|[^|]*\|\s*\S+\s*\[[\d:]+<(?P<left>[\d:?]+),\s*"
    r"(?P<rate>[^,\]]+)"
)


class Line(NamedTuple):
    """A job in the table.

    Attributes:
      name: of the job.
      state: one of the five.
      note: what it waits for, how far it is, or why it has failed.
      log: the last lines of its log, if it has failed.
    """

    name: str
    state: str
    note: str
    log: tuple[str, ...] = ()


def lines(record: Record, queue: Mapping[str, str]) -> list[Line]:
    """Return the state of each job.

    Args:
      record: of the sweep.
      queue: what the engine's queue says of jobs: "running", or why they wait.
    """
    found: dict[str, Line] = {}
    for job in record.jobs:
        found[job.name] = _line(job, queue.get(job.name, ""), found)
    return list(found.values())


def _line(job: Job, queued: str, before: Mapping[str, Line]) -> Line:
    state = work.State.read(job.path)
    alive = work.is_alive(job.path, state) or queued == RUNNING
    ended = state.is_final and not queued
    is_done = job.is_done if job.kind != LAST else ended and state.code == work.DONE
    if is_done:
        made = f"{len(job.products)} artefacts" if job.products else str(job.path / "report")
        return Line(job.name, DONE, made)
    if alive:
        return Line(job.name, RUNNING, _progress(job, state))
    lost = [x for x in job.after if before[x].state == FAILED] if job.kind != LAST else []
    if lost:
        return Line(job.name, FAILED, f"not started, as {lost[0]} has failed")
    if queued:
        again = f"try {state.tries + 1}, " if state.tries else ""
        return Line(job.name, WAITING, f"{again}{queued}")
    if ended and state.code in (work.STOPPED, work.INTERRUPTED):
        return Line(job.name, STOPPED, "--resume goes on where it was")
    if ended:
        return Line(job.name, FAILED, _why(state), tuple(_tail(job.path)[-_LAST_LINES:]))
    if state.tries:
        return Line(job.name, STOPPED, f"lost on {state.host}; --resume goes on where it was")
    waits = [x for x in job.after if before[x].state != DONE]
    more = f" and {len(waits) - 1} more" if len(waits) > 1 else ""
    return Line(job.name, WAITING, f"for {waits[0]}{more}" if waits else "for its turn")


def _why(state: work.State) -> str:
    if state.code == work.BAD_INPUT:
        return "bad input, not tried again"
    if state.code == work.DONE:
        return "it has ended, but what it made is not there"
    tries = "once" if state.tries == 1 else f"{state.tries} times"
    return f"exit code {state.code}, tried {tries}"


def _progress(job: Job, state: work.State) -> str:
    """Say what a job does, from its markers and the last progress bar of its log."""
    made = sum(x.is_marked for x in job.products)
    notes = [f"{made} of {len(job.products)} artefacts"] if job.products else []
    said = _tail(job.path)
    bars = [x for x in map(_PROGRESS.search, said[-3:]) if x]
    if bars:
        bar = bars[-1]
        notes.append(f"{bar['what'].strip()} {bar['percent']} %")
        if bar["left"] != "?":
            notes += [bar["rate"].strip(), f"{bar['left']} left"]
    if state.tries > 1:
        notes.append(f"try {state.tries}")
    return ", ".join(notes)


def _tail(folder: pathlib.Path) -> list[str]:
    """Return the last lines of a job's log; each state of a progress bar is one."""
    try:
        with open(folder / work.LOG, "rb") as file:
            file.seek(0, 2)
            file.seek(max(file.tell() - _TAIL_BYTES, 0))
            text = file.read().decode(errors="replace")
    except OSError:
        return []
    return [x.rstrip() for x in re.split(r"[\r\n]+", text) if x.strip()]


def table(found: list[Line]) -> str:
    """Write the states as a table, and below it the last lines of logs of jobs that failed."""
    width = max(len(x.name) for x in found)
    text = [f"{x.name:{width}}  {x.state:8}{x.note}".rstrip() for x in found]
    counts = [(state, sum(x.state == state for x in found)) for state in _ORDER]
    text.append(", ".join(f"{number} {state}" for state, number in counts if number))
    for x in found:
        if x.log:
            text += ["", f"{x.name}:", *(f"  {line}" for line in x.log)]
    return "\n".join(text) + "\n"


_ORDER = (DONE, RUNNING, WAITING, STOPPED, FAILED)


def has_ended(found: Sequence[Line]) -> bool:
    """Whether no job runs or waits any more."""
    return not any(x.state in (RUNNING, WAITING) for x in found)


def show(look: Callable[[], list[Line]], compared: Callable[[], str]) -> None:
    """Print the table; on a terminal again and again, until no job runs or waits.

    Args:
      look: returns the states of the jobs.
      compared: returns what stands above them when all have ended: plan and truth.
    """
    while True:
        found = look()
        text = (compared() if has_ended(found) else "") + table(found)
        if not sys.stdout.isatty():
            sys.stdout.write(text)
            return
        sys.stdout.write(f"\x1b[H\x1b[J{text}")
        sys.stdout.flush()
        if has_ended(found):
            return
        time.sleep(REFRESH_S)
