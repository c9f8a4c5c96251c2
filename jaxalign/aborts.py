"""One line in the place of a stack trace, where JAX ends a process because the first one is gone.

JAX's client keeps a call to the service in the first process open, which fails the moment that
process ends. A thread of its own then writes a fatal error with its stack, and aborts. No thread of
Python is as fast, and Python is not asked: JAX takes a `missed_heartbeat_callback`, but the status
that it is called with has no type in Python, so that the call ends in `std::bad_cast` and an abort.
So standard error of native code goes through a pipe to a thread that knows the words, and the abort
waits for that thread: for six seconds, should it not get to run.
"""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import NoReturn

_FATAL = b"the JAX distributed service detected fatal errors"
_NO_ANSWER = b"Failed to send RPC to coordination service"
# What the client says before, and of what is no error for us to show.
_SAID_BEFORE = b"Polled an error from coordination service"


def replace(end: Callable[[bool], NoReturn]) -> Callable[[], None]:
    """End this process by a function where JAX would abort it.

    Args:
      end: writes a line to `sys.stderr` and ends the process; called in another thread with whether
        the first process is gone, or else JAX ends this one for another reason.

    Returns:
      A function that shows what has been said so far, and lets standard error be as it was: to be
      called before the process ends in another way.
    """
    shown = os.fdopen(os.dup(2), "wb")
    heard, said = os.pipe()
    sys.stderr = os.fdopen(os.dup(2), "w", buffering=1, errors="backslashreplace")
    os.dup2(said, 2)
    os.close(said)
    thread = threading.Thread(target=_relay, args=(heard, shown, end), daemon=True)
    thread.start()
    _delay_aborts()

    def let_go() -> None:
        os.dup2(shown.fileno(), 2)  # nobody else writes to the pipe, so that it ends
        thread.join(1.0)

    return let_go


def _relay(heard: int, shown, end: Callable[[bool], NoReturn]) -> None:
    with os.fdopen(heard, "rb") as lines:
        for line in lines:
            if _FATAL in line:
                end(_NO_ANSWER in line)
            if _SAID_BEFORE not in line:
                shown.write(line)
                shown.flush()


def _delay_aborts() -> None:
    """Let the thread that aborts sleep before: `sleep` takes the signal's number, 6, as seconds.

    It is no handler of Python's, which would only be noted, to run when the process is gone.
    """
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = (ctypes.c_int, ctypes.c_void_p), ctypes.c_void_p
    libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))
