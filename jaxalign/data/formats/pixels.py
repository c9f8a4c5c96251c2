"""Images in an array of an HDF5 file, read a few at a time."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int, UInt8

from jaxalign.data.formats import recordings
from jaxalign.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pixels:
    """Where the pixels of images lie.

    Attributes:
      file: HDF5 file of all pixels.
      key: array in it, [images height width 3] of 8 bits.
      row: of each image in that array.
    """

    file: pathlib.Path
    key: str
    row: Int[np.ndarray, " m"]

    def read(self, index: Sequence[int]) -> UInt8[np.ndarray, "k h w 3"]:
        """Read some of the images.

        Args:
          index: positions among these images, not rows of the file.

        Raises:
          InputError: if the file is missing or damaged, or has no such row.
        """
        if not self.file.is_file():
            raise InputError(f"the pixels of images must lie in {self.file}: it is missing.")
        with recordings.hdf5(self.file) as file:
            images = recordings.dataset(file, self.key, ndim=4)
            if images.dtype != np.uint8 or images.shape[3] != 3:
                raise InputError(
                    f"{self.file}: {self.key!r} must hold images [images height width 3] of 8 "
                    f"bits, found {images.dtype} of shape {images.shape}."
                )
            rows = [int(self.row[i]) for i in index]
            if rows and max(rows) >= len(images):
                raise InputError(
                    f"{self.file}: {self.key!r} must hold row {max(rows)}, found {len(images)} "
                    "rows."
                )
            # One by one: each image is a chunk of its own, and h5py wants ascending rows.
            found = [images[row] for row in rows]
            return np.stack(found) if found else np.empty((0, *images.shape[1:]), np.uint8)
