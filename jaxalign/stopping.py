"""Stopping: a run that is asked to end finishes the batch, tile or layer at hand, and no more.

Schedulers say beforehand that they will take a machine: by SIGTERM, and submitit under Slurm by
SIGUSR2. Nothing depends on it, for a run may be killed at any moment; it saves what was under way.
"""

import contextlib
import signal
import threading
from collections.abc import Iterable, Iterator
from typing import TypeVar

EXIT_CODE = 143  # what shells take for a program that SIGTERM has ended
SIGNALS = (signal.SIGTERM, signal.SIGUSR2)

Item = TypeVar("Item")


class Stopped(BaseException):
    """The run ends here because it was asked to; like `KeyboardInterrupt`, no error."""


class _Asked:
    """What the signals have said, and whether work is at hand that is to be finished first."""

    is_asked = False
    has_work = False


def listen() -> None:
    """Take SIGTERM and SIGUSR2 as a request to stop, from now on; for command lines.

    While nothing is at hand (`at_work`), `Stopped` is raised at once.

    Raises:
      ValueError: in another thread than the main one.
    """
    for number in SIGNALS:
        signal.signal(number, _hear)


def _hear(number, frame) -> None:
    del number, frame
    _Asked.is_asked = True
    if not _Asked.has_work:
        raise Stopped


@contextlib.contextmanager
def at_work() -> Iterator[None]:
    """While this lasts, a request to stop waits for `check`, or for the end.

    Raises:
      Stopped: at the end, if the run was asked to stop.
    """
    _Asked.has_work = True
    try:
        yield
    finally:
        _Asked.has_work = False
    check()


def requested() -> bool:
    """Return whether the run was asked to stop: ask where little is lost by it."""
    return _Asked.is_asked


def check() -> None:
    """End here if the run was asked to stop.

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
