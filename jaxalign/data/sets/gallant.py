"""Silent film clips seen in the scanner (Huth et al. 2012), in the Gallant lab's HDF5 layout.

5 subjects; 3,600 training TRs of 2 s in runs and 270 test TRs shown ten times. There is no text;
feature spaces come with the data, which `ShortClips.features` reads.

Source: Huth et al. (2012), Neuron 76; gin.g-node.org/gallantlab/shortclips; keys as in
github.com/gallantlab/voxelwise_tutorials, tutorials/shortclips.
"""

import dataclasses
import pathlib
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from jaxalign.data.adapter import Adapter
from jaxalign.data.formats import recordings
from jaxalign.data.formats.recordings import NaN, Recording
from jaxalign.data.presentations import Repeats, repeats_of
from jaxalign.data.schema import Responses, naming
from jaxalign.errors import InputError

FOLDER = "shortclips"
TR_S = 2.0
SUBJECTS = tuple(f"S0{i}" for i in range(1, 6))
TEST = "test"
ROI = "cortex"
_ONSETS = "run_onsets"  # first training sample of each run


class Features(NamedTuple):
    """A feature space on the samples of the responses."""

    values: Float[np.ndarray, "n p"]
    run: list[str]
    time_s: Float[np.ndarray, " n"]


class Samples(NamedTuple):
    """Samples that all subjects share.

    Attributes:
      num_train, num_test: how many there are, training samples first.
      run: of each.
      time_s: when in its run each begins.
    """

    num_train: int
    num_test: int
    run: list[str]
    time_s: Float[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShortClips(Adapter):
    """Voxels, and feature spaces of the clips.

    Attributes:
      subjects: among `SUBJECTS`.
      nan: what becomes of targets that are NaN here and there.
    """

    name: str = "shortclips"
    timed = True
    subjects: tuple[str, ...]
    nan: NaN = "refuse"
    absent = {
        "stimuli": "silent clips hold no text for a model to read; their feature spaces are read "
        "with jaxalign.data.sets.gallant.ShortClips.features and scored as arrays"
    }

    def __post_init__(self):
        self.check_option("subjects", self.subjects, SUBJECTS)

    def files(self) -> list[pathlib.Path]:
        """Return the responses of each subject and all files of features."""
        return self.need([*map(self._path, self.subjects), *self._features()])

    def features(self, name: str) -> Features:
        """Read a feature space, training samples first.

        Args:
          name: of the file, such as "wordnet" or "motion_energy".

        Raises:
          InputError: if there is no such file, it is damaged, or its samples are not those of the
            responses.
        """
        known = {path.stem: path for path in self._features()}
        self.check_option("features", (name,), known)
        samples = self._samples()
        with recordings.hdf5(known[name]) as file:
            train, test = (recordings.dataset(file, key, ndim=2) for key in ("X_train", "X_test"))
            wanted = samples.num_train, samples.num_test
            if (len(train), len(test)) != wanted or train.shape[1] != test.shape[1]:
                raise InputError(
                    f"{known[name]}: X_train and X_test must have {wanted[0]} and {wanted[1]} "
                    f"samples as the responses, of equal width, found {train.shape} and "
                    f"{test.shape}."
                )
            values = np.concatenate([recordings.as_float32(part[()]) for part in (train, test)])
        if not np.isfinite(values).all():
            raise InputError(f"{known[name]}: features must be finite, found NaN or infinity.")
        return Features(values, samples.run, samples.time_s)

    def responses(self) -> Responses:
        """Read the voxels of each subject: training runs, then the mean over the test's repeats."""
        self.files()
        samples = self._samples()
        found = (self._recording(subject, samples.run) for subject in self.subjects)
        columns = recordings.side_by_side(found, samples.run, nan=self.nan)
        with naming(self.root / FOLDER):
            return Responses(
                run=samples.run,
                units="BOLD as published",
                time_s=samples.time_s,
                tr_s=TR_S,
                **columns,
            )

    def repeats(self, subject: str) -> Repeats:
        """Read the test samples of each repeat, with the targets of `responses`."""
        (path,) = self.need([self._path(subject)])
        with recordings.hdf5(path) as file:
            values = recordings.as_float32(_arrays(file)[1][()])
        mean = recordings.mean_over_repeats(values)
        whole = recordings.voxels(subject, mean, ROI, {TEST: path})
        return repeats_of(values, whole, TEST, nan=self.nan)

    def _path(self, subject: str) -> pathlib.Path:
        return self.root / FOLDER / f"responses/{subject}_responses.hdf"

    def _features(self) -> list[pathlib.Path]:
        return sorted((self.root / FOLDER).glob("features/*.hdf"))

    def _recording(self, subject: str, run: list[str]) -> Recording:
        path = self._path(subject)
        with recordings.hdf5(path) as file:
            train, test = _arrays(file)
            mean = recordings.mean_over_repeats(recordings.as_float32(test[()]))
            values = np.concatenate([recordings.as_float32(train[()]), mean])
        return recordings.voxels(subject, values, ROI, dict.fromkeys(run, path))

    def _samples(self) -> Samples:
        """Find the runs of all subjects, who must have the same."""
        found = {}
        for subject in self.subjects:
            with recordings.hdf5(self._path(subject)) as file:
                train, test = _arrays(file)
                onsets = self._onsets(file)
                borders = [*onsets, len(train)]
                if borders[0] != 0 or (np.diff(borders) <= 0).any():
                    raise InputError(
                        f"{file.filename}: {_ONSETS} must begin with 0 and ascend below the "
                        f"{len(train)} training samples, found {onsets}."
                    )
                found[subject] = ([int(x) for x in np.diff(borders)], int(test.shape[1]))
        first, (runs, num_test) = next(iter(found.items()))
        for subject, other in found.items():
            if other != (runs, num_test):
                raise InputError(
                    f"data set {self.name}: subjects must have the same samples, but {first} has "
                    f"runs of {runs} and {num_test} test TRs, {subject} {other[0]} and {other[1]}."
                )
        names = [*(f"train-{i:02d}" for i in range(len(runs))), TEST]
        lengths = [*runs, num_test]
        return Samples(
            num_train=sum(runs),
            num_test=num_test,
            run=[name for name, size in zip(names, lengths, strict=True) for _ in range(size)],
            time_s=np.concatenate([TR_S * np.arange(size) for size in lengths]),
        )

    def _onsets(self, file: Any) -> list[int]:
        """Read where runs begin: from the responses' file, or else from the features'."""
        if _ONSETS in file:
            return [int(x) for x in recordings.dataset(file, _ONSETS, ndim=1)[()]]
        for path in self._features():
            with recordings.hdf5(path) as other:
                if _ONSETS in other:
                    return [int(x) for x in recordings.dataset(other, _ONSETS, ndim=1)[()]]
        raise InputError(
            f"{file.filename} or a file of features must hold the array {_ONSETS!r}: none does."
        )


def _arrays(file: Any) -> tuple[Any, Any]:
    """Return Y_train [n v] and Y_test [q n v], not read yet."""
    train = recordings.dataset(file, "Y_train", ndim=2)
    test = recordings.dataset(file, "Y_test", ndim=3)
    if train.shape[1] != test.shape[2] or not len(test):
        raise InputError(
            f"{file.filename}: Y_test must be repeats x TRs x {train.shape[1]} voxels as Y_train, "
            f"found {test.shape}."
        )
    return train, test
