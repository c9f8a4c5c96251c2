"""Images as stimuli of one's own: a table that names image files, or an archive of arrays.

`stimuli.csv` has the columns stimulus_id and image, the path of a file from the table's folder;
and optionally caption, passage (what folds keep together; else each image is its own) and run.

`stimuli.npz`, in its place, has the arrays `stimulus_id` and `image`, [images height width 3] of 8
bits; and optionally those others. If `numpy.savez` wrote it, images are read a few at a time; what
`numpy.savez_compressed` wrote is held in memory as a whole.
"""

import pathlib
from typing import Any

import numpy as np

from jaxalign.data.formats import tables
from jaxalign.data.images import stored
from jaxalign.errors import InputError

ARCHIVE = "stimuli.npz"
ID, IMAGE, CAPTION, PASSAGE, RUN = "stimulus_id", "image", "caption", "passage", "run"
_OPTIONAL = (CAPTION, PASSAGE, RUN)
_SESSION = "session"


def has_images(path: pathlib.Path) -> bool:
    """Whether the stimuli of a table or an archive are images.

    Raises:
      InputError: if a table cannot be read.
    """
    return path.name == ARCHIVE or IMAGE in tables.read(path, (ID,))


def read(path: pathlib.Path) -> dict[str, Any]:
    """Return what `schema.Stimuli` is given about images; no pixels are read.

    Args:
      path: a table or an archive.

    Raises:
      InputError: if it lacks a column, a cell is empty, or an image is missing.
    """
    if path.name == ARCHIVE:
        columns = stored.npz_arrays(path, (ID, *_OPTIONAL))
        if ID not in columns:
            raise InputError(f"{path} must hold the array {ID!r}: it is missing.")
        found = {name: _texts(path, name, column) for name, column in columns.items()}
        pixels = stored.Npz(file=path, key=IMAGE, row=np.arange(len(found[ID])))
        if (count := pixels.num_stored) != len(found[ID]):
            raise InputError(
                f"{path}: {IMAGE!r} must hold an image for each stimulus_id ({len(found[ID])}), "
                f"found {count}."
            )
    else:
        table = tables.read(path, (ID, IMAGE))
        found = {name: table[name].tolist() for name in (ID, *_OPTIONAL) if name in table}
        names = table[IMAGE].tolist()
        if empty := [found[ID][i] for i, name in enumerate(names) if not name.strip()]:
            raise InputError(f"{path}: image must not be empty, but that of {empty[0]!r} is.")
        pixels = stored.Files(paths=tuple(path.parent / name for name in names))
    pixels.check()
    return {
        ID: found[ID],
        "text": found.get(CAPTION, ()),
        "passage": found.get(PASSAGE, found[ID]),
        "run": found.get(RUN, [_SESSION] * len(found[ID])),
        "pixels": pixels,
    }


def _texts(path: pathlib.Path, name: str, column: np.ndarray) -> list[str]:
    if column.ndim != 1 or column.dtype.kind not in "Uiu":
        raise InputError(
            f"{path}: {name} must be text in one dimension, found {column.dtype} of shape "
            f"{column.shape}."
        )
    return [str(x) for x in column]
