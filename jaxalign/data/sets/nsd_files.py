"""Readers of volumes of the Natural Scenes Dataset: betas, and ratios of signal and noise."""

import pathlib

import numpy as np
from jaxtyping import Bool, Float

from jaxalign.data.formats import imaging, recordings
from jaxalign.data.sets.nsd_trials import NUM_TRIALS
from jaxalign.errors import InputError

BETAS_PER_PERCENT = 300.0


def betas(path: pathlib.Path, mask: Bool[np.ndarray, "x y z"]) -> Float[np.ndarray, "n v"]:
    """Read the integers of the voxels of a mask, in the order of `numpy.argwhere(mask)`.

    Args:
      path: a session, HDF5 or NIfTI.
      mask: voxels to read.

    Raises:
      InputError: if the file is damaged, or has another grid, number of trials or type.
    """
    if path.name.endswith(".nii.gz"):
        image = imaging.volume(path, ndim=4)
        # Of the array: nibabel clears the header's when it opens a file.
        is_scaled = (image.dataobj.slope, image.dataobj.inter) != (1.0, 0.0)
        _check_betas(path, image.get_data_dtype(), image.shape, mask, is_scaled=is_scaled)
        return imaging.masked(image, path, mask)
    with recordings.hdf5(path) as file:
        stored = recordings.dataset(file, "betas", ndim=4)
        # MATLAB wrote it: its first dimension is h5py's last.
        _check_betas(path, stored.dtype, stored.shape[::-1], mask, is_scaled=False)
        found = []
        # A voxel is a chunk, so of each line of voxels only the stretch in the mask is read.
        for x, y in np.argwhere(mask.any(axis=2)):
            z = np.flatnonzero(mask[x, y])
            found.append(stored[:, z[0] : z[-1] + 1, y, x][:, z - z[0]])
        return np.concatenate(found, axis=1).astype(np.float32)


def _check_betas(
    path: pathlib.Path,
    dtype: np.dtype,
    shape: tuple[int, ...],
    mask: Bool[np.ndarray, "x y z"],
    *,
    is_scaled: bool,
) -> None:
    wanted = (*mask.shape, NUM_TRIALS)
    if tuple(shape) != wanted:
        raise InputError(
            f"{path} must hold betas of {wanted}, the mask's grid and {NUM_TRIALS} trials (in h5py "
            f"the other way round), found {tuple(shape)}."
        )
    if dtype != np.int16 or is_scaled:
        scale = " with a scale of its own" if is_scaled else ""
        raise InputError(
            f"{path} must hold betas as 16-bit integers, percent signal change times "
            f"{BETAS_PER_PERCENT:g}, found {dtype}{scale}."
        )


def ncsnr(path: pathlib.Path, mask: Bool[np.ndarray, "x y z"]) -> Float[np.ndarray, " n"]:
    """Read the ratio of signal and noise of the voxels of a mask, in the order of `betas`.

    Args:
      path: volume that NSD publishes beside the betas.
      mask: voxels to read.

    Returns:
      Ratios of standard deviations, at least 0; NaN where NSD has none.

    Raises:
      InputError: if the file is damaged, has another grid, or holds something else.
    """
    image = imaging.volume(path, ndim=3)
    if image.shape != mask.shape:
        raise InputError(f"{path} must have the mask's grid, {mask.shape}, found {image.shape}.")
    with imaging.reading(path):
        found = np.asarray(image.dataobj, np.float64)[mask]
    if (found < 0).any() or np.isinf(found).any():
        bad = found[(found < 0) | np.isinf(found)]
        raise InputError(
            f"{path} must hold ratios of signal and noise, 0 or more, found {bad[0]:g}."
        )
    return found
