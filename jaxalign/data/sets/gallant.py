"""Silent film clips seen in the scanner (Huth et al. 2012), in the Gallant lab's HDF5 layout.

5 subjects; 3,600 training TRs of 2 s in runs and 270 test TRs shown ten times. There is no text:
feature spaces come with the data, `features` reads them, and `stimuli` says so.

Source: Huth et al. (2012), Neuron 76; gin.g-node.org/gallantlab/shortclips; keys as in
github.com/gallantlab/voxelwise_tutorials, tutorials/shortclips.
"""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
from jaxtyping import Float

from jaxalign.data.formats import recordings as arrays
from jaxalign.data.formats.recordings import NaN, Recording
from jaxalign.data.presentations import Repeats, repeats_of
from jaxalign.data.schema import Responses, naming
from jaxalign.errors import InputError

FOLDER = "shortclips"
TR_S = 2.0
TEST = "test"
ROI = "cortex"
_ONSETS = "run_onsets"  # first training sample of each run


class Features(NamedTuple):
    """A feature space on the samples of the responses."""

    values: Float[np.ndarray, "n p"]
    run: list[str]
    time_s: Float[np.ndarray, " n"]


def files(
    root: pathlib.Path, *, subjects: Sequence[str], nan: NaN = "refuse"
) -> list[pathlib.Path]:
    """Return the responses of each subject and all files of features.

    Args:
      root: data root.
      subjects: S01, ...
      nan: what becomes of targets that are NaN here and there; "refuse" or "leave_out".

    Raises:
      InputError: if one is missing.
    """
    del nan
    folder = root / FOLDER
    own = [_path(root, subject) for subject in subjects]
    return arrays.need("shortclips", [*own, *sorted(folder.glob("features/*.hdf"))])


def stimuli(root: pathlib.Path, *, subjects: Sequence[str], nan: NaN = "refuse") -> NoReturn:
    """Refuse: silent clips have no words.

    Raises:
      InputError: always.
    """
    del root, subjects, nan
    raise InputError(
        "data set shortclips presents silent clips, so there is no text for a model to read: its "
        "feature spaces are read with jaxalign.data.sets.gallant.features and scored as arrays."
    )


def features(root: pathlib.Path, name: str, *, subjects: Sequence[str]) -> Features:
    """Read a feature space, training samples first.

    Args:
      root: data root.
      name: of the file, such as "wordnet" or "motion_energy".
      subjects: whose responses the samples must fit.

    Raises:
      InputError: if there is no such file, it is damaged, or its samples are not the responses'.
    """
    path = root / FOLDER / f"features/{name}.hdf"
    if not path.is_file():
        known = sorted(p.stem for p in path.parent.glob("*.hdf"))
        raise InputError(
            f"data set shortclips: features must be among {', '.join(known) or 'none'}, found "
            f"{name!r}."
        )
    runs, num_test = _grid(root, subjects)
    with arrays.hdf5(path) as file:
        parts = [arrays.dataset(file, key, ndim=2) for key in ("X_train", "X_test")]
        num_samples = [sum(runs), num_test]
        if [len(part) for part in parts] != num_samples or parts[0].shape[1] != parts[1].shape[1]:
            raise InputError(
                f"{path}: X_train and X_test must have {num_samples[0]} and {num_samples[1]} "
                f"samples as the responses, of equal width, found {parts[0].shape} and "
                f"{parts[1].shape}."
            )
        values = np.concatenate([arrays.as_float32(part[()]) for part in parts])
    if not np.isfinite(values).all():
        raise InputError(f"{path}: features must be finite, found NaN or infinity.")
    return Features(values, *_samples(runs, num_test))


def responses(root: pathlib.Path, *, subjects: Sequence[str], nan: NaN = "refuse") -> Responses:
    """Read the voxels of each subject: training runs, then the mean over the test's repeats.

    Raises:
      InputError: if a file is damaged, or subjects do not have the same samples.
    """
    files(root, subjects=subjects, nan=nan)
    runs, num_test = _grid(root, subjects)
    run, time_s = _samples(runs, num_test)
    recordings = (_recording(root, subject, run) for subject in subjects)
    columns = arrays.beside(recordings, run, nan=nan)
    with naming(root / FOLDER):
        return Responses(run=run, units="BOLD as published", time_s=time_s, tr_s=TR_S, **columns)


def repeats(root: pathlib.Path, *, subject: str, nan: NaN = "refuse") -> Repeats:
    """Read the test samples of each repeat, with the targets of `responses`.

    Raises:
      InputError: if the file is damaged.
    """
    files(root, subjects=[subject])
    with arrays.hdf5(_path(root, subject)) as file:
        values = arrays.as_float32(_arrays(file)[1][()])
    files_of = {TEST: _path(root, subject)}
    mean = arrays.voxels(subject, arrays.mean_over_repeats(values), ROI, files_of)
    return repeats_of(values, mean, TEST, nan=nan)


def _path(root: pathlib.Path, subject: str) -> pathlib.Path:
    return root / FOLDER / f"responses/{subject}_responses.hdf"


def _recording(root: pathlib.Path, subject: str, run: Sequence[str]) -> Recording:
    path = _path(root, subject)
    with arrays.hdf5(path) as file:
        train, test = _arrays(file)
        mean = arrays.mean_over_repeats(arrays.as_float32(test[()]))
        values = np.concatenate([arrays.as_float32(train[()]), mean])
    return arrays.voxels(subject, values, ROI, dict.fromkeys(run, path))


def _arrays(file: Any) -> tuple[Any, Any]:
    """Return Y_train [n v] and Y_test [q n v], not read yet."""
    train = arrays.dataset(file, "Y_train", ndim=2)
    test = arrays.dataset(file, "Y_test", ndim=3)
    if train.shape[1] != test.shape[2] or not len(test):
        raise InputError(
            f"{file.filename}: Y_test must be repeats x TRs x {train.shape[1]} voxels as Y_train, "
            f"found {test.shape}."
        )
    return train, test


def _grid(root: pathlib.Path, subjects: Sequence[str]) -> tuple[list[int], int]:
    """Return the TRs of each training run and of the test, the same for all subjects."""
    found = {}
    for subject in subjects:
        with arrays.hdf5(_path(root, subject)) as file:
            train, test = _arrays(file)
            onsets = _onsets(file, root)
            borders = [*onsets, len(train)]
            if borders[0] != 0 or (np.diff(borders) <= 0).any():
                raise InputError(
                    f"{file.filename}: {_ONSETS} must begin with 0 and ascend below the "
                    f"{len(train)} training samples, found {onsets}."
                )
            found[subject] = ([int(x) for x in np.diff(borders)], int(test.shape[1]))
    first = next(iter(found))
    for subject, grid in found.items():
        if grid != found[first]:
            raise InputError(
                f"data set shortclips: subjects must have the same samples, but {first} has runs "
                f"of {found[first][0]} and {found[first][1]} test TRs, {subject} {grid[0]} and "
                f"{grid[1]}."
            )
    return found[first]


def _onsets(file: Any, root: pathlib.Path) -> list[int]:
    """Read where runs begin: of the responses' file, or else of the features'."""
    if _ONSETS in file:
        return [int(x) for x in arrays.dataset(file, _ONSETS, ndim=1)[()]]
    for path in sorted((root / FOLDER).glob("features/*.hdf")):
        with arrays.hdf5(path) as other:
            if _ONSETS in other:
                return [int(x) for x in arrays.dataset(other, _ONSETS, ndim=1)[()]]
    raise InputError(
        f"{file.filename} or a file of features must hold the array {_ONSETS!r}: none does."
    )


def _samples(runs: list[int], num_test: int) -> tuple[list[str], Float[np.ndarray, " n"]]:
    """Name the run of each sample, and find when in it the sample begins."""
    names = [*(f"train-{i:02d}" for i in range(len(runs))), TEST]
    lengths = [*runs, num_test]
    run = [name for name, size in zip(names, lengths, strict=True) for _ in range(size)]
    return run, np.concatenate([TR_S * np.arange(size) for size in lengths])
