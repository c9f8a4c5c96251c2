"""How many heaps the memory allocator of the GNU C library keeps."""

import ctypes
import os

_ARENA_MAX = -8  # M_ARENA_MAX of malloc.h


def one_for_each_core() -> bool:
    """Let threads share as many heaps as there are cores, instead of eight times as many.

    What a thread frees stays in its heap, for that heap alone. Programs of XLA run in whichever
    thread is free, and with eight heaps for each core some hundred megabytes end as leftovers. To
    be called before there are threads.

    Returns:
      Whether there was anything to say it to: other C libraries have no such setting.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    return bool(mallopt and mallopt(_ARENA_MAX, os.cpu_count() or 1))
