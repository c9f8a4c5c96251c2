"""How a program that was started from a command line ends: one line and an exit code."""

import contextlib
import sys
from collections.abc import Iterator

from absl import logging

from jaxalign import stopping
from jaxalign.errors import InputError, one_line

REFUSED = 2  # what the user can put right, in the command, in a file or on the machine
INTERRUPTED = 130  # what shells take for a program that was stopped by Ctrl-C


@contextlib.contextmanager
def ends_in_one_line(*, kept: str = "", smaller: str = "") -> Iterator[None]:
    """End the program with one line instead of a traceback, where no bug of ours is the reason.

    An `InputError` and an error of the system (a full disk, a folder without permission) end with
    exit code 2, and so does too little memory, on the host or on a device. Ctrl-C ends with 130,
    a request to stop with 143, where the program listens to it (`stopping.listen`). Any other
    exception is a bug, and keeps its traceback.

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
        _end(f"interrupted{so_far}.", INTERRUPTED)
    except stopping.Stopped:
        _end(f"stopped{so_far}.", stopping.EXIT_CODE)
    except MemoryError as error:
        _end(no_memory(error), REFUSED)
    except (InputError, OSError) as error:
        _end(f"error: {' '.join(str(error).split())}", REFUSED)
    except RuntimeError as error:  # JAX's own class of it says so in its text
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        _end(no_memory(error), REFUSED)


def _end(line: str, code: int) -> None:
    logging.flush()
    sys.stderr.write(f"{line}\n")
    sys.exit(code)
