"""Files of the Natural Scenes Dataset: which there are, which image a trial shows, its betas."""

import dataclasses
import itertools
import pathlib
from typing import NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float, Int

from jaxalign.data.formats import imaging, recordings
from jaxalign.errors import InputError

FOLDER = "nsd"
# Sessions that each subject came for.
NUM_SESSIONS = dict(
    zip((f"subj0{i}" for i in range(1, 9)), (40, 40, 32, 30, 40, 32, 40, 30), strict=True)
)
NUM_TRIALS = 750  # of a session
NUM_SHARED = 1000
MAX_REPEATS = 3
BETAS_PER_PERCENT = 300.0
MASK = "nsdgeneral"
INFO = "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
PIXELS = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
BRICK = "imgBrick"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which part of the data to read, and how prepared.

    Attributes:
      subjects: subj01 to subj08.
      images: "all" that the one subject saw, or the "shared" ones that every subject given saw.
      atlas: volume of labels in `roi/`, such as "prf-visualrois" or "floc-places"; voxels are
        those of the mask that bear a label, and every label is a ROI. The mask itself: one ROI.
      preparation: which betas.
      space: "func1pt8mm" or "func1mm".
      num_sessions: the first ones of each subject; 0: all.
      zscore: whether betas are z-scored within their session; else they are percent signal change.
    """

    subjects: tuple[str, ...]
    images: str = "all"
    atlas: str = MASK
    preparation: str = "betas_fithrf_GLMdenoise_RR"
    space: str = "func1pt8mm"
    num_sessions: int = 0
    zscore: bool = True

    def __post_init__(self):
        unknown = [s for s in self.subjects if s not in NUM_SESSIONS]
        if unknown or not self.subjects:
            raise InputError(
                f"data set nsd: subjects must be among {', '.join(NUM_SESSIONS)}, found "
                f"{unknown[0] if unknown else 'none'!r}."
            )
        if self.images not in ("all", "shared"):
            raise InputError(
                f"data set nsd: images must be 'all' or 'shared', found {self.images!r}."
            )
        if self.images == "all" and len(self.subjects) > 1:
            raise InputError(
                "data set nsd: images must be 'shared' for several subjects, who saw different "
                f"ones otherwise, found 'all' for {', '.join(self.subjects)}."
            )
        fewest = min(NUM_SESSIONS[s] for s in self.subjects)
        if not 0 <= self.num_sessions <= fewest:
            raise InputError(
                f"data set nsd: num_sessions must lie in 0..{fewest} for "
                f"{', '.join(self.subjects)}, found {self.num_sessions}."
            )

    def sessions(self, subject: str) -> range:
        """Return the sessions to read, which count from 1."""
        return range(1, 1 + (self.num_sessions or NUM_SESSIONS[subject]))


class Voxels(NamedTuple):
    """Where the targets of a subject lie."""

    mask: Bool[np.ndarray, "x y z"]
    roi: list[str]
    target: list[str]  # "subj01.x-y-z"


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


def voxels(folder: pathlib.Path, subject: str, opts: Options) -> Voxels:
    """Read mask and atlas; 0 is outside a label, and -1 outside the cortex.

    Raises:
      InputError: if a file is damaged, grids differ, a label has no name, or no voxel is left.
    """
    path = roi_path(folder, subject, opts, MASK)
    mask = imaging.label_volume(path)[0] > 0
    names = {1: MASK}
    labels = mask.astype(np.int64)
    if opts.atlas != MASK:
        path = roi_path(folder, subject, opts, opts.atlas)
        labels = imaging.label_volume(path)[0]
        if labels.shape != mask.shape:
            raise InputError(
                f"{path} must have the grid of {MASK}, {mask.shape}, found {labels.shape}."
            )
        table = names_path(folder, subject, opts)
        names = imaging.color_table(table)
        if unknown := sorted(set(labels[labels > 0].tolist()) - names.keys()):
            raise InputError(f"{table} must name every label of {path}: {unknown[0]} is missing.")
        mask &= labels > 0
    if not mask.any():
        raise InputError(f"{path} must mark at least one voxel of {MASK}, found none.")
    return Voxels(
        mask=mask,
        roi=[names[i] for i in labels[mask].tolist()],
        target=[f"{subject}.{x}-{y}-{z}" for x, y, z in np.argwhere(mask).tolist()],
    )


def shared(folder: pathlib.Path) -> set[int]:
    """Return the nsdId of the images that everybody saw.

    Raises:
      InputError: if there are not 1,000.
    """
    table = _numbers(folder / INFO, ",", ["nsdId", "shared1000"])
    found = set(table["nsdId"][table["shared1000"] > 0].tolist())
    if len(found) != NUM_SHARED:
        raise InputError(
            f"{folder / INFO}: shared1000 must mark {NUM_SHARED} images, found {len(found)}."
        )
    return found


def _numbers(
    path: pathlib.Path, separator: str, columns: list[str]
) -> dict[str, Int[np.ndarray, " m"]]:
    """Read columns of whole numbers, or of truth values."""
    try:
        table = pd.read_csv(path, sep=separator, usecols=columns)
    except (ValueError, OSError) as error:
        raise InputError(
            f"{path} must be a table with the columns {', '.join(columns)}: "
            f"{recordings.line(error)}."
        ) from error
    found = {name: np.asarray(table[name]) for name in columns}
    for name, values in found.items():
        if values.dtype.kind not in "iub":
            raise InputError(f"{path}: {name} must hold whole numbers, found {values.dtype}.")
    return {name: values.astype(np.int64) for name, values in found.items()}


def trial_images(folder: pathlib.Path, subject: str, opts: Options) -> Int[np.ndarray, "s n"]:
    """Return the nsdId of each trial of each session.

    Raises:
      InputError: if trials are missing or out of order, or `responses.tsv` and the table of images
        tell of different ones.
    """
    path = trials_path(folder, subject)
    table = _numbers(path, "\t", ["SESSION", "RUN", "TRIAL", "73KID"])
    sessions = opts.sessions(subject)
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
    info = _numbers(folder / INFO, ",", ["nsdId", *columns])
    planned = np.full(1 + max(len(shown), *(int(info[name].max()) for name in columns)), -1)
    for name in columns:  # trials count from 1; 0: not shown
        planned[info[name]] = info["nsdId"]
    differ = (planned[1 : 1 + len(shown)] != shown) | (shown < 0)
    if differ.any():
        i = int(differ.argmax())
        raise InputError(
            f"{path} and {folder / INFO} must tell of the same images: trial {i + 1} is nsdId "
            f"{shown[i]} (73KID less 1) in one and {planned[i + 1]} in the other."
        )
    return shown.reshape(len(sessions), NUM_TRIALS)


def trials_path(folder: pathlib.Path, subject: str) -> pathlib.Path:
    """Return the table of what a subject saw and answered."""
    return folder / f"nsddata/ppdata/{subject}/behav/responses.tsv"


def roi_path(folder: pathlib.Path, subject: str, opts: Options, name: str) -> pathlib.Path:
    """Return the volume of a mask or an atlas."""
    return folder / f"nsddata/ppdata/{subject}/{opts.space}/roi/{name}.nii.gz"


def names_path(folder: pathlib.Path, subject: str, opts: Options) -> pathlib.Path:
    """Return the names of an atlas's labels; both hemispheres share them."""
    name = opts.atlas.removeprefix("lh.").removeprefix("rh.")
    return folder / f"nsddata/freesurfer/{subject}/label/{name}.mgz.ctab"


def betas_path(folder: pathlib.Path, subject: str, opts: Options, number: int) -> pathlib.Path:
    """Return the HDF5 file of a session, or the NIfTI where that is the one there."""
    stem = folder / f"nsddata_betas/ppdata/{subject}/{opts.space}/{opts.preparation}"
    path = stem / f"betas_session{number:02d}.hdf5"
    compressed = path.with_suffix(".nii.gz")
    return compressed if compressed.exists() and not path.exists() else path
