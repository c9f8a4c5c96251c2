"""Siblings of the schema: images that were seen, and responses to each repeat of a stimulus."""

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, UInt8

from jaxalign.data.formats import recordings as arrays
from jaxalign.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Images:
    """Images that were presented: stimuli without text.

    `schema.Stimuli` stays what a language model reads; a data set of images has `Stimuli` of its
    captions where there are captions, and these for models that see.

    Attributes:
      stimulus_id: as in the responses.
      run: "train" or "test", as in the responses.
      file: HDF5 file of all pixels.
      key: array in it, [images height width 3] of 8 bits.
      row: of each image in that array.
    """

    stimulus_id: Sequence[str]
    run: Sequence[str]
    file: pathlib.Path
    key: str
    row: Int[np.ndarray, " m"]

    def __len__(self) -> int:
        return len(self.stimulus_id)

    def pixels(self, index: Sequence[int]) -> UInt8[np.ndarray, "k h w 3"]:
        """Read some of the images.

        Args:
          index: positions among these images, not rows of the file.

        Raises:
          InputError: if the file is damaged, or has no such row.
        """
        with arrays.hdf5(self.file) as file:
            brick = arrays.dataset(file, self.key, ndim=4)
            if brick.dtype != np.uint8 or brick.shape[3] != 3:
                raise InputError(
                    f"{self.file}: {self.key!r} must hold images [images height width 3] of 8 "
                    f"bits, found {brick.dtype} of shape {brick.shape}."
                )
            rows = [int(self.row[i]) for i in index]
            if rows and max(rows) >= len(brick):
                raise InputError(
                    f"{self.file}: {self.key!r} must hold row {max(rows)}, found {len(brick)} rows."
                )
            # One by one: each image is a chunk of its own, and h5py wants ascending rows.
            found = [brick[row] for row in rows]
            return np.stack(found) if found else np.empty((0, *brick.shape[1:]), np.uint8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Repeats:
    """Responses to each presentation of the stimuli that were presented again and again.

    `Responses` hold their mean; ceilings by repeats need them apart.

    Attributes:
      values: in the units of the responses; NaN where a repeat was not recorded.
      run: of each sample, as in the responses.
      subject, roi, target: of each column, as in the responses.
      stimulus_id: of each sample, where the responses have them; else empty, and the samples are
        all those of the responses in these runs, in their order.
    """

    values: Float[np.ndarray, "q n v"]
    run: Sequence[str]
    subject: Sequence[str]
    roi: Sequence[str]
    target: Sequence[str]
    stimulus_id: Sequence[str] = ()

    def __post_init__(self):
        _, n, v = self.values.shape
        for name, size in (("run", n), ("subject", v), ("roi", v), ("target", v)):
            if len(getattr(self, name)) != size:
                raise InputError(
                    f"repeats: {name} must have {size} entries for values "
                    f"{self.values.shape}, found {len(getattr(self, name))}."
                )
        if self.stimulus_id and len(self.stimulus_id) != n:
            raise InputError(
                f"repeats: stimulus_id must have {n} entries, found {len(self.stimulus_id)}."
            )


def repeats_of(
    recordings: Float[np.ndarray, "q n v"],
    mean: arrays.Recording,
    run: str,
    *,
    nan: arrays.NaN | None = None,
) -> Repeats:
    """Return the repeats of one run of one subject.

    Args:
      recordings: each presentation.
      mean: what `Responses` hold of them; targets that are NaN throughout it are left out.
      run: its name.
      nan: see `arrays.without_undefined`. Targets that are NaN in other runs alone stay: join with
        the responses by target.

    Raises:
      InputError: if the mean of a target is NaN here and there.
    """
    names = [run] * recordings.shape[1]
    left, kept = arrays.without_undefined(mean, names, nan=nan)
    return Repeats(
        values=recordings[:, :, kept],
        run=names,
        subject=[mean.subject] * len(left.target),
        roi=left.roi,
        target=left.target,
    )
