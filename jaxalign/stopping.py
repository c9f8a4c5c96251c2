"""Stopping: a run that is asked to end finishes the batch, tile or layer at hand, and no more.

Schedulers say beforehand that they will take a machine: by SIGTERM, and submitit under Slurm by
SIGUSR2. Nothing depends on it, for a run may be killed at any moment; it saves what was under way.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

AGAIN_S = 0.1  # after which a request is heard again where `Stopped` could not end anything
EXIT_CODE = 143  # what shells take for a program that SIGTERM has ended
SIGNALS = (signal.SIGTERM, signal.SIGUSR2)

Item = TypeVar("Item")


class Stopped(BaseException):
    """The run ends here because it was asked to; like `KeyboardInterrupt`, no error."""


class _Asked:
    """What the signals have said, and whether work is at hand that is to be finished first."""

    is_asked = False
    has_work = False
    all_stop: Callable[[], bool] | None = None  # of several processes: see `agree_by`


def listen() -> None:
    """Take SIGTERM and SIGUSR2 as a request to stop, from now on; for command lines.

    While nothing is at hand (`at_work`), `Stopped` is raised at once.

    Raises:
      ValueError: in another thread than the main one.
    """
    for number in SIGNALS:
        signal.signal(number, _hear)
    sys.unraisablehook = _hear_again


def _hear(number, frame) -> None:
    del number, frame
    ask()
    if not _Asked.has_work:
        raise Stopped


def _hear_again(unraisable) -> None:
    """Repeat a request that came while objects were cleared away, where exceptions are ignored."""
    if not isinstance(unraisable.exc_value, Stopped):
        return sys.__unraisablehook__(unraisable)
    again = threading.Timer(AGAIN_S, os.kill, (os.getpid(), signal.SIGTERM))
    again.daemon = True
    return again.start()


def ask() -> None:
    """Ask this process to stop, as a signal does."""
    _Asked.is_asked = True


def was_asked() -> bool:
    """Return whether this process itself was asked to stop."""
    return _Asked.is_asked


def agree_by(all_stop: Callable[[], bool]) -> None:
    """Let several processes stop at the same place.

    Args:
      all_stop: whether they do, where all of them ask at the same time.
    """
    _Asked.all_stop = all_stop


@contextlib.contextmanager
def at_work() -> Iterator[None]:
    """While this lasts, a request to stop waits for `check`, or for the end.

    Raises:
      Stopped: at the end, if the run was asked to stop.
    """
    had_work, _Asked.has_work = _Asked.has_work, True
    try:
        yield
    finally:
        _Asked.has_work = had_work
    check()


def requested() -> bool:
    """Return whether the run is to stop here: ask where little is lost by it.

    Several processes get the same answer, so all of them must ask, as often as one another.
    """
    return _Asked.is_asked if _Asked.all_stop is None else _Asked.all_stop()


def check() -> None:
    """End here if the run is to stop; see `requested`.

    Raises:
      Stopped: if so.
    """
    # Other threads are not to end by themselves: the main one asks, too.
    if threading.current_thread() is threading.main_thread() and requested():
        raise Stopped


def watch(items: Iterable[Item]) -> Iterator[Item]:
    """Yield items, and ask before each whether to stop.

    Args:
      items: batches, tiles, layers: a few seconds of work each.

    Raises:
      Stopped: if the run was asked to.
    """
    for item in items:
        check()
        yield item


def until_requested(items: Iterable[Item]) -> Iterator[Item]:
    """Yield items until the run is asked to stop; what is under way can then be finished.

    Args:
      items: see `watch`.
    """
    for item in items:
        if requested():
            return
        yield item
