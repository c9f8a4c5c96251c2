"""What adapters of recordings share: arrays from files, the rule for NaN, subjects side by side."""

import contextlib
import importlib
import pathlib
import tokenize
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
from absl import logging
from jaxtyping import Bool, Float, Float32, Shaped

from jaxalign.data.formats import coordinates
from jaxalign.data.formats.grids import Grid
from jaxalign.errors import InputError, one_line

# Reading one of these runs whatever code it holds.
PICKLES = (".pkl", ".pickle", ".jbl", ".joblib")
_SHOWN = 8  # names in a message

# What becomes of targets that are NaN here and there.
NaN = Literal["refuse", "leave_out"]


class Recording(NamedTuple):
    """What was recorded of one subject, the names of its targets, and where each run was read."""

    subject: str
    values: Float[np.ndarray, "n v"]
    roi: Sequence[str]
    target: Sequence[str]
    files: Mapping[str, pathlib.Path]  # of each run, or the folder of several
    coordinates: Float[np.ndarray, "_ 3"] = coordinates.NONE  # see data/formats/coordinates.py
    space: str = ""
    grids: tuple[Grid, ...] = ()  # images that maps of targets may be written as


def library(name: str, reads: str) -> Any:
    """Import a library that only some data sets need.

    Args:
      name: of the module.
      reads: which files it reads, for the message.

    Raises:
      InputError: if it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise InputError(
            f"{reads} are read with {name}, which is not installed: pip install jaxalign[data]."
        ) from error


def refuse_pickle(path: pathlib.Path) -> None:
    """Refuse files whose format is Python's pickle, by their name.

    Raises:
      InputError: if the name ends as those of pickles do.
    """
    if path.suffix.lower() in PICKLES:
        raise InputError(
            f"{path} is a pickle, which can run any code when it is opened, and so is never "
            "opened: save its arrays as .npy, .npz or HDF5."
        )


def npy(path: pathlib.Path, *, shape: tuple[int | None, ...], kinds: str = "fiu") -> np.ndarray:
    """Read a `.npy` of numbers or of text.

    Args:
      path: the file.
      shape: what it must be; None: any size.
      kinds: NumPy's letters of the types that are allowed.

    Raises:
      InputError: if it is no whole `.npy`, or holds something else; objects are never unpickled.
    """
    refuse_pickle(path)
    try:
        # Opened here: np.load leaves its own handle open when the file is broken.
        with open(path, "rb") as opened:
            array = np.load(opened, allow_pickle=False)
    # The last two: of a header that is no Python expression.
    except (OSError, ValueError, EOFError, SyntaxError, tokenize.TokenError) as error:
        raise InputError(
            f"{path} must be a whole .npy of plain values: {one_line(error)}."
        ) from error
    if not isinstance(array, np.ndarray):
        raise InputError(f"{path} must be a .npy of one array, found an archive of several.")
    fits = array.ndim == len(shape) and all(
        wanted in (None, size) for wanted, size in zip(shape, array.shape, strict=True)
    )
    if not fits or array.dtype.kind not in kinds:
        raise InputError(
            f"{path} must hold {_described(shape)} values of type {kinds!r}, found {array.dtype} "
            f"of shape {array.shape}."
        )
    return array


def _described(shape: tuple[int | None, ...]) -> str:
    return " x ".join("any" if size is None else str(size) for size in shape)


@contextlib.contextmanager
def hdf5(path: pathlib.Path) -> Iterator[Any]:
    """Open an HDF5 file to read.

    Raises:
      InputError: if it is none, or ends early; also when that shows only while it is read.
    """
    refuse_pickle(path)
    h5py = library("h5py", "HDF5 files")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except InputError:
        raise
    # h5py raises the others over groups and types that are damaged.
    except (OSError, RuntimeError, ValueError, KeyError) as error:
        raise InputError(f"{path} must be a whole HDF5 file: {one_line(error)}.") from error


def names(file: Any) -> list[str]:
    """Return the names of what an HDF5 file holds, in alphabetical order.

    Args:
      file: from `hdf5`.

    Raises:
      InputError: if one is no text in UTF-8.
    """
    found = list(file)
    if wrong := [name for name in found if not isinstance(name, str)]:  # h5py gives bytes
        raise InputError(f"{file.filename} must have names in UTF-8, found {wrong[0]!r}.")
    return sorted(found)


def dataset(file: Any, key: str, *, ndim: int | tuple[int, ...]) -> Any:
    """Return an array of numbers of an HDF5 file, not read yet.

    Args:
      file: from `hdf5`.
      key: its name.
      ndim: dimensions that it may have.

    Raises:
      InputError: if it is not there, or is something else.
    """
    allowed = (ndim,) if isinstance(ndim, int) else ndim
    found = file.get(key)
    if found is None or not hasattr(found, "dtype"):
        keys = names(file)
        rest = ", ..." if len(keys) > _SHOWN else ""
        raise InputError(
            f"{file.filename} must hold the array {key!r}, found "
            f"{', '.join(map(repr, keys[:_SHOWN])) or 'nothing'}{rest}."
        )
    if found.ndim not in allowed or found.dtype.kind not in "fiu":
        raise InputError(
            f"{file.filename}: {key!r} must hold numbers in {' or '.join(map(str, allowed))} "
            f"dimensions, found {found.dtype} of shape {found.shape}."
        )
    return found


def as_float32(array: Shaped[np.ndarray, "..."]) -> Float32[np.ndarray, "..."]:
    """Return numbers in the precision in which the solver sweeps targets.

    Published recordings are often stored as float64: half of their memory would hold noise.
    """
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused
        return array.astype(np.float32, copy=False)


def mean_over_repeats(values: Float[np.ndarray, "q n v"]) -> Float[np.ndarray, "n v"]:
    """Average presentations, in float64 and back."""
    return values.mean(axis=0, dtype=np.float64).astype(values.dtype)


def without_undefined(
    recording: Recording, run: Sequence[str], *, nan: NaN | None = None
) -> tuple[Recording, Bool[np.ndarray, " v"]]:
    """Leave out the targets that are NaN in every sample, with a warning that counts them.

    Such targets lie outside the field of view. A target that is NaN here and there is another
    matter: no sample of it can be made up, so it is refused, or left out if that is asked for.

    Args:
      recording: of one subject.
      run: of each sample, for the message.
      nan: "leave_out": targets with any NaN are left out; "refuse": refused; None: refused, and
        the message names no such option.

    Returns:
      What is left, and which targets were kept.

    Raises:
      InputError: if a target that is not to be left out is not finite, or none is left.
    """
    if nan not in (None, *get_args(NaN)):
        raise InputError(f"nan must be one of {', '.join(get_args(NaN))}, found {nan!r}.")
    values = recording.values
    with np.errstate(over="ignore", invalid="ignore"):
        suspect = np.flatnonzero(~np.isfinite(values.sum(axis=0)))
    own = values[:, suspect]
    lacking = np.isnan(own).any(axis=0) if nan == "leave_out" else np.isnan(own).all(axis=0)
    bad = ~np.isfinite(own[:, ~lacking])
    if bad.any():
        columns = suspect[~lacking][bad.any(axis=0)].tolist()
        runs = list(dict.fromkeys(run[i] for i in np.flatnonzero(bad.any(axis=1)).tolist()))
        names = [f"{recording.roi[i]}/{recording.target[i]}" for i in columns[:_SHOWN]]
        rest = ", ..." if len(columns) > _SHOWN else ""
        hint = "mend or leave out" if nan is None else "mend them, or set --config.nan=leave_out"
        raise InputError(
            f"{recording.files[runs[0]]}: responses of subject {recording.subject!r} must be "
            f"finite: {len(columns)} targets are not in {int(bad.any(axis=1).sum())} of "
            f"{len(values)} samples, in run {', '.join(runs)}: {', '.join(names)}{rest}; {hint}."
        )
    kept = np.ones(values.shape[1], bool)
    kept[suspect[lacking]] = False
    if kept.all():
        return recording, kept
    if not kept.any():
        raise InputError(
            f"{recording.files[run[0]]}: responses of subject {recording.subject!r} must hold a "
            "number: every target is NaN."
        )
    lost = np.flatnonzero(~kept).tolist()
    logging.warning(
        "subject %s: %d of %d targets are NaN %s and left out: %s%s",
        *(recording.subject, len(lost), len(kept)),
        "somewhere" if nan == "leave_out" else "throughout",
        ", ".join(f"{recording.roi[i]}/{recording.target[i]}" for i in lost[:_SHOWN]),
        ", ..." if len(lost) > _SHOWN else "",
    )
    return columns_of(recording, kept), kept


def columns_of(recording: Recording, kept: Bool[np.ndarray, " v"]) -> Recording:
    """Return the recording of some targets."""
    index = np.flatnonzero(kept).tolist()
    return Recording(
        recording.subject,
        recording.values[:, index],
        [recording.roi[i] for i in index],
        [recording.target[i] for i in index],
        recording.files,
        recording.coordinates[index] if recording.space else recording.coordinates,
        recording.space,
        recording.grids,
    )


def side_by_side(
    recordings: Iterable[Recording], run: Sequence[str], *, nan: NaN | None = None
) -> dict[str, Any]:
    """Put subjects side by side, and return what `schema.Responses` is given about its columns.

    Args:
      recordings: of each subject, on the same samples.
      run: of each sample.
      nan: see `without_undefined`.

    Raises:
      InputError: if the subjects' samples differ in number, or a response is NaN here and there.
    """
    cleaned = []
    for recording in recordings:
        if len(recording.values) != len(run):
            raise InputError(
                f"responses of subject {recording.subject!r} must have {len(run)} samples, found "
                f"{len(recording.values)}."
            )
        cleaned.append(without_undefined(recording, run, nan=nan)[0])
    values = [r.values for r in cleaned]
    sizes = [len(r.target) for r in cleaned]
    places = [r.coordinates for r in cleaned]
    xyz, space = coordinates.stacked(places, sizes, [r.space for r in cleaned])
    return {
        "coordinates": xyz,
        "space": space,
        "grids": tuple(grid for r in cleaned for grid in r.grids),
        "values": values[0] if len(values) == 1 else np.concatenate(values, axis=1),
        "subject": [r.subject for r in cleaned for _ in r.target],
        "roi": [name for r in cleaned for name in r.roi],
        "target": [name for r in cleaned for name in r.target],
    }


def voxels(
    subject: str,
    values: Float[np.ndarray, "n v"],
    roi: str,
    files: Mapping[str, pathlib.Path],
) -> Recording:
    """Name the voxels of a subject's own brain by subject and position.

    Targets of the same name count as the same place in every subject; these are nobody else's, so
    their names hold the subject's.

    Args:
      subject: whose brain.
      values: of all voxels.
      roi: of all of them.
      files: see `Recording`.
    """
    num_targets = values.shape[1]
    names = [f"{subject}.{i}" for i in range(num_targets)]
    return Recording(subject, values, [roi] * num_targets, names, files)
