"""Named tuples of arrays as `.npz` files: written whole, read back or made again.

A file names its own place, `<fingerprint>/<file>`: an unfinished artefact resumes what it finds,
and must not resume what was copied from another.
"""

import io
import zipfile
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
from absl import logging

from jaxalign import processes
from jaxalign.io import run_dir
from jaxalign.io.place import Place

Arrays = TypeVar("Arrays", bound=tuple)
PLACE = "written_as"  # beside the fields


def _place(path: Place) -> str:
    return f"{path.parent.name}/{path.name}"


def write(path: Place, arrays: Any) -> None:
    """Write the fields of a named tuple, atomically.

    Args:
      path: file to make.
      arrays: a `NamedTuple` of arrays.
    """
    buffer = io.BytesIO()
    np.savez(buffer, **arrays._asdict() | {PLACE: _place(path)})
    run_dir.write_atomic(path, buffer.getvalue())


def read(path: Place, kind: type[Arrays]) -> Arrays | None:
    """Read what `write` wrote there; None if there is no file, it is damaged, or of elsewhere.

    Args:
      path: the file.
      kind: the `NamedTuple`.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            found = dict(file)
        if (place := str(found.pop(PLACE, "nowhere"))) != _place(path):
            raise ValueError(f"it was written as {place}")
        return kind(**found)
    except FileNotFoundError:
        return None
    except (ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        logging.warning("%s is damaged or another's (%s) and made again", path, error)
        return None


def kept(path: Place, kind: type[Arrays], compute: Callable[[], Arrays]) -> Arrays | None:
    """Return what an earlier run has kept in a file; else compute it, and keep it there.

    Several processes compute it together, and the first one reads and writes: None in the others
    where it was there.

    Args:
      path: the file.
      kind: the `NamedTuple`.
      compute: called in all processes.
    """
    found = read(path, kind) if processes.is_first() else None
    if processes.decide(lambda: found is None):
        found = compute()
        if processes.is_first():
            write(path, found)
    return found
