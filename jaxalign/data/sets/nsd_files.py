"""Readers of the Natural Scenes Dataset: betas, and images of each trial."""

import itertools
import pathlib

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from jaxalign.data.formats import imaging, recordings
from jaxalign.errors import InputError, one_line

NUM_TRIALS = 750  # of a session
NUM_SHARED = 1000
MAX_REPEATS = 3
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


def shared(info: pathlib.Path) -> set[int]:
    """Return the nsdId of the images that everybody saw.

    Args:
      info: table of all images.

    Raises:
      InputError: if there are not 1,000.
    """
    table = _numbers(info, ",", ["nsdId", "shared1000"])
    found = set(table["nsdId"][table["shared1000"] > 0].tolist())
    if len(found) != NUM_SHARED:
        raise InputError(f"{info}: shared1000 must mark {NUM_SHARED} images, found {len(found)}.")
    return found


def _numbers(
    path: pathlib.Path, separator: str, columns: list[str]
) -> dict[str, Int[np.ndarray, " m"]]:
    """Read columns of whole numbers, or of truth values."""
    try:
        table = pd.read_csv(path, sep=separator, usecols=columns)
    except (ValueError, OSError) as error:
        raise InputError(
            f"{path} must be a table with the columns {', '.join(columns)}: {one_line(error)}."
        ) from error
    found = {name: np.asarray(table[name]) for name in columns}
    for name, values in found.items():
        if values.dtype.kind not in "iub":
            raise InputError(f"{path}: {name} must hold whole numbers, found {values.dtype}.")
    return {name: values.astype(np.int64) for name, values in found.items()}


def trial_images(
    path: pathlib.Path, info: pathlib.Path, subject: str, sessions: range
) -> Int[np.ndarray, "s n"]:
    """Return the nsdId of each trial of each session.

    Args:
      path: table of what the subject saw and answered.
      info: table of all images.
      subject: subj01, ...
      sessions: to read, the first of them being 1.

    Raises:
      InputError: if trials are missing or out of order, or the two tables tell of different images.
    """
    table = _numbers(path, "\t", ["SESSION", "RUN", "TRIAL", "73KID"])
    read = np.isin(table["SESSION"], sessions)
    session, run, trial, image = (values[read] for values in table.values())
    places = list(zip(session.tolist(), run.tolist(), trial.tolist(), strict=True))
    if late := [after for before, after in itertools.pairwise(places) if after <= before]:
        raise InputError(
            f"{path} must list each trial once, by SESSION, RUN and TRIAL, found {late[0]} after "
            "one that is not before it."
        )
    for number in sessions:
        if (num_trials := int((session == number).sum())) != NUM_TRIALS:
            raise InputError(
                f"{path} must list {NUM_TRIALS} trials of SESSION {number}, found {num_trials}."
            )
    shown = image - 1
    columns = [f"subject{int(subject[4:])}_rep{k}" for k in range(MAX_REPEATS)]
    planned_for = _numbers(info, ",", ["nsdId", *columns])
    last = max(len(shown), *(int(planned_for[name].max()) for name in columns))
    planned = np.full(1 + last, -1)
    for name in columns:  # trials count from 1; 0: not shown
        planned[planned_for[name]] = planned_for["nsdId"]
    differ = (planned[1 : 1 + len(shown)] != shown) | (shown < 0)
    if differ.any():
        i = int(differ.argmax())
        raise InputError(
            f"{path} and {info} must tell of the same images: trial {i + 1} is nsdId {shown[i]} "
            f"(73KID less 1) in one and {planned[i + 1]} in the other."
        )
    return shown.reshape(len(sessions), NUM_TRIALS)
