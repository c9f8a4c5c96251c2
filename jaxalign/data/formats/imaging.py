"""Brain images through nibabel: opened, checked, and read a block of volumes at a time."""

import contextlib
import pathlib
import zlib
from collections.abc import Iterator
from typing import Any
from xml.parsers.expat import ExpatError

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from jaxalign.data.formats import recordings
from jaxalign.errors import InputError, one_line

_BLOCK = 32  # volumes held at once
# By which a label may differ from a whole number: a float, or integers that were scaled.
_ROUNDED = 1e-3
_AFFINE_MM = 1e-3  # by which two writers may round the same affine differently


@contextlib.contextmanager
def reading(path: pathlib.Path) -> Iterator[Any]:
    """Give nibabel, and turn what it raises over a broken file into one kind of error.

    Raises:
      InputError: if the file is damaged, ends early, or is no image.
    """
    recordings.refuse_pickle(path)
    nib = recordings.library("nibabel", "brain images")
    broken = (
        OSError,
        EOFError,
        ValueError,
        LookupError,  # of CIFTI's attributes
        ExpatError,
        zlib.error,
        nib.filebasedimages.ImageFileError,
        nib.spatialimages.HeaderDataError,
        nib.cifti2.Cifti2HeaderError,
    )
    try:
        yield nib
    except InputError:
        raise
    except broken as error:
        raise InputError(f"{path} must be a whole image: {one_line(error)}.") from error


def volume(path: pathlib.Path, *, ndim: int) -> Any:
    """Open a NIfTI image.

    Args:
      path: `.nii` or `.nii.gz`.
      ndim: dimensions that it must have.

    Raises:
      InputError: if it is damaged, no NIfTI, or of other dimensions.
    """
    with reading(path) as nib:
        # One open handle: a compressed file is otherwise unpacked from its start for each block.
        image = nib.load(path, keep_file_open=True)
        if not isinstance(image, nib.Nifti1Image):
            raise InputError(f"{path} must be a NIfTI volume, found {type(image).__name__}.")
        if len(image.shape) != ndim:
            raise InputError(
                f"{path} must be an image of {ndim} dimensions, found shape {image.shape}."
            )
        return image


def space_code(image: Any) -> int:
    """Return what the affine of a NIfTI image leads to, as its header says: see `grids.Frame`.

    nibabel takes the affine of the sform, and where that has no code of the qform.
    """
    return int(image.header["sform_code"]) or int(image.header["qform_code"])


def label_volume(path: pathlib.Path) -> tuple[Int[np.ndarray, "x y z"], Float[np.ndarray, "4 4"]]:
    """Read a mask or labels, and the affine.

    Raises:
      InputError: if it is damaged, not of three dimensions, or not of whole numbers.
    """
    image = volume(path, ndim=3)
    with reading(path):
        values = np.asarray(image.dataobj)
    return whole_numbers(values, path), image.affine


def whole_numbers(values: Shaped[np.ndarray, "..."], path: pathlib.Path) -> Int[np.ndarray, "..."]:
    """Return labels as integers; those that were rounded when they were saved are meant whole.

    Raises:
      InputError: if some are not whole, as in a map of probabilities.
    """
    if values.dtype.kind in "iub":
        return values.astype(np.int64)
    with np.errstate(invalid="ignore"):  # infinity is no whole number
        bad = ~(np.abs(values - np.rint(values)) <= _ROUNDED)
    if bad.any():
        found = values[bad][0]
        hint = "; the background must be 0" if np.isnan(found) else ""
        raise InputError(
            f"{path} must hold labels, whole numbers, found {found} and {int(bad.sum()) - 1} more "
            f"that are not{hint}."
        )
    return np.rint(values).astype(np.int64)


def whole(number: float) -> int | None:
    """Return a label that was written as a number; None if it is not whole."""
    is_whole = np.isfinite(number) and abs(number - np.rint(number)) <= _ROUNDED
    return round(number) if is_whole else None


def same_grid(
    path: pathlib.Path,
    shape: tuple[int, ...],
    affine: Float[np.ndarray, "4 4"],
    other: pathlib.Path,
    other_shape: tuple[int, ...],
    other_affine: Float[np.ndarray, "4 4"],
) -> None:
    """Refuse two volumes whose voxels do not lie in the same places.

    Raises:
      InputError: if shape or affine differ.
    """
    if shape != other_shape:
        raise InputError(
            f"{other} must have the grid of {path}, {shape}, found {other_shape}: resample it."
        )
    gap = float(np.abs(affine - other_affine).max())
    if not gap <= _AFFINE_MM:
        raise InputError(
            f"{other} must have the affine of {path}, but an entry differs by {gap:.4g} mm: "
            "resample it."
        )


def masked(
    image: Any, path: pathlib.Path, mask: Bool[np.ndarray, "x y z"]
) -> Float[np.ndarray, "n v"]:
    """Read the voxels of a mask from an image of four dimensions, volume by volume.

    Args:
      image: from `volume`.
      path: its file, for the message.
      mask: voxels to read; they come in the order of `numpy.argwhere(mask)`.

    Raises:
      InputError: if the file is damaged.
    """
    num_volumes = image.shape[3]
    found = np.empty((num_volumes, int(mask.sum())), np.float32)
    with reading(path):
        for start in range(0, num_volumes, _BLOCK):
            block = np.asarray(image.dataobj[..., start : start + _BLOCK])
            found[start : start + _BLOCK] = block[mask].T
    return found


def color_table(path: pathlib.Path) -> dict[int, str]:
    """Read FreeSurfer's names of labels: lines of number and name, colours behind them or not.

    Raises:
      InputError: if a line is something else.
    """
    names = {}
    try:
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.strip():
                number, name, *_ = line.split()
                if names.setdefault(int(number), name) != name:
                    raise ValueError(f"label {number} is there twice")
    except (ValueError, OSError) as error:
        raise InputError(
            f"{path} must hold lines of number and name: {one_line(error)}."
        ) from error
    return names
