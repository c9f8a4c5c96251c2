"""Named tuples of arrays as `.npz` files: written whole, read back or made again."""

import io
import pathlib
import zipfile
from typing import Any, TypeVar

import numpy as np
from absl import logging

from jaxalign.io import run_dir

Arrays = TypeVar("Arrays", bound=tuple)


def write(path: pathlib.Path, arrays: Any) -> None:
    """Write the fields of a named tuple, atomically.

    Args:
      path: file to make.
      arrays: a `NamedTuple` of arrays.
    """
    buffer = io.BytesIO()
    np.savez(buffer, **arrays._asdict())
    run_dir.write_atomic(path, buffer.getvalue())


def read(path: pathlib.Path, kind: type[Arrays]) -> Arrays | None:
    """Read what `write` wrote; None if there is no file, or it is damaged.

    Args:
      path: the file.
      kind: the `NamedTuple`.
    """
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            return kind(**file)
    except FileNotFoundError:
        return None
    except (ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
        logging.warning("%s is damaged (%s) and made again", path, error)
        return None
