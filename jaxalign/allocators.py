"""What a program takes of the machine's memory: heaps on the host, a share of each GPU."""

import ctypes
import os

_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h
# Share of a device's memory that arrays and programs can have.
USABLE = 0.95
# The old name too still counts for JAX, which takes one of the two.
_SHARES = ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION")


def set_up() -> None:
    """Do both, where the user has not; to be called before there are threads, and before JAX."""
    one_heap_for_each_core()
    if not any(os.environ.get(name) for name in _SHARES):
        # JAX takes three quarters, and plans reckon with more.
        os.environ[_SHARES[0]] = str(USABLE)


def one_heap_for_each_core() -> bool:
    """Let threads share as many heaps of the GNU C library as there are cores, not eight times.

    What a thread frees stays in its heap, for that heap alone. Programs of XLA run in whichever
    thread is free, and with eight heaps for each core some hundred megabytes end as leftovers.

    Returns:
      Whether there was anything to say it to: other C libraries have no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    return bool(mallopt and mallopt(_ARENA_MAX, os.cpu_count() or 1))
