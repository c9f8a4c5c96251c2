"""MATLAB's files, up to version 7."""

import pathlib
import zlib
from typing import Any

from scipy import io

from jaxalign.data.formats import recordings
from jaxalign.errors import InputError, one_line

# scipy's reader trips over bytes that are not what they should be in many ways; NameError: a
# variable without value.
_DAMAGED = (OSError, ValueError, TypeError, LookupError, EOFError, NameError, zlib.error)
_DAMAGED += (io.matlab.MatReadError,)


def read(path: pathlib.Path) -> dict[str, Any]:
    """Read the variables of a `.mat` file.

    Raises:
      InputError: if it is damaged, or of version 7.3, which is HDF5.
    """
    recordings.refuse_pickle(path)
    try:
        content = io.loadmat(path)
    except NotImplementedError as error:
        raise InputError(
            f"{path} must be a MATLAB file up to version 7, found version 7.3: save it with -v7."
        ) from error
    except _DAMAGED as error:
        raise InputError(f"{path} must be a whole MATLAB file: {one_line(error)}.") from error
    return {name: x for name, x in content.items() if not name.startswith("__")}
