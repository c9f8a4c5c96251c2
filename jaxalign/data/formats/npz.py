"""Numpy's `.npz` archives of plain arrays, whole or refused."""

import tokenize
import zipfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxalign.errors import InputError, one_line
from jaxalign.io import place
from jaxalign.io.place import Place

# NotImplementedError: of a compression that there is not.
DAMAGED = (
    *(OSError, ValueError, EOFError, KeyError, TypeError, NotImplementedError),
    *(zipfile.BadZipFile, zlib.error, SyntaxError, tokenize.TokenError),
)


def read(path: Place, take: Callable[[Any], Any]) -> Any:
    """Return what is taken of an archive.

    Args:
      path: of the archive.
      take: gets it open; arrays that it does not ask for are not read.

    Raises:
      InputError: if the archive is broken, or holds pickled objects.
    """
    try:
        # Opened here: np.load leaves its own handle open when the archive is broken.
        with place.at(path).open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return take(file)
    except DAMAGED as error:
        raise InputError(f"{path} must be an .npz of plain arrays: {one_line(error)}.") from error
