"""How a program that was started from a command line ends: one line and an exit code."""

import contextlib
import traceback
from collections.abc import Iterator

from jaxalign import processes, stopping
from jaxalign.errors import InputError, PlaceError, one_line

BUG = 1
REFUSED = 2  # what the user can put right, in the command, in a file or on the machine
UNREACHABLE = 75  # a bucket that may answer later, sysexits' EX_TEMPFAIL
INTERRUPTED = 130  # what shells take for a program that was stopped by Ctrl-C


@contextlib.contextmanager
def ends_in_one_line(*, kept: str = "", smaller: str = "") -> Iterator[None]:
    """End the program with one line instead of a traceback, where no bug of ours is the reason.

    An `InputError` and an error of the system (a full disk, a folder without permission) end with
    exit code 2, and so does too little memory, on the host or on a device, and a bucket that must
    not be used; one that does not answer ends with 75. Ctrl-C ends with 130,
    a request to stop with 143, where the program listens to it (`stopping.listen`). Any other
    exception is a bug, and keeps its traceback; of several processes all end with it.

    Args:
      kept: what is said of the work so far, a sentence without a stop; "": nothing.
      smaller: what to make smaller where memory does not suffice, as "a smaller --batch_size".
    """
    so_far = f": {kept}" if kept else ""
    behind = f"; {kept}." if kept else "."
    helps = f"; {smaller or 'a smaller model'}, or a larger limit (ulimit -v) helps"
    no_memory = lambda error: f"error: there is not enough memory: {one_line(error)}{helps}{behind}"
    try:
        yield
    except KeyboardInterrupt:
        processes.end(f"interrupted{so_far}.", INTERRUPTED)
    except stopping.Stopped:
        processes.end(f"stopped{so_far}.", stopping.EXIT_CODE)
    except MemoryError as error:
        processes.end(no_memory(error), REFUSED)
    except (InputError, OSError) as error:
        processes.end(f"error: {' '.join(str(error).split())}", REFUSED)
    except PlaceError as error:
        code = UNREACHABLE if error.is_lost else REFUSED
        processes.end(f"error: {one_line(error)}.", code)
    except Exception as error:
        # JAX's own class of it says so in its text.
        if isinstance(error, RuntimeError) and "RESOURCE_EXHAUSTED" in str(error):
            processes.end(no_memory(error), REFUSED)
        if processes.count() == 1:
            raise
        if isinstance(error, RuntimeError):  # so says JAX where another process has ended
            processes.wait_for_cause()
        traceback.print_exc()
        processes.end(f"error: {type(error).__name__}: {one_line(error)}{behind}", BUG)
