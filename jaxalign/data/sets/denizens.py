"""Eleven stories, each read word by word and heard by the same people (Deniz et al. 2019).

The clock. A scan has 5 TRs of 2.0045 s before its story and 5 after it, and the published responses
have them all; so row k begins (k - 5) 2.0045 seconds into the story. `trim` takes TRs off both ends
of every run, 10 and 10 as in the paper.

The release has recordings and transcripts, but no times of words: `stimuli` reads TextGrids that
are put next to them. LeBel et al. (2023) publish some for stories of the same series.

Source: Deniz et al. (2019), Journal of Neuroscience 39;
gin.g-node.org/denizenslab/narratives_reading_listening_fmri, README.md.
"""

import dataclasses
import pathlib
from typing import Any

import numpy as np

from jaxalign.data.adapter import Adapter
from jaxalign.data.formats import recordings
from jaxalign.data.formats.recordings import NaN, Recording
from jaxalign.data.presentations import Repeats, repeats_of
from jaxalign.data.schema import Responses, Stimuli, naming
from jaxalign.data.sets import lebel2023
from jaxalign.errors import InputError

FOLDER = "narratives_reading_listening_fmri"
SUBJECTS = tuple(f"0{i}" for i in range(1, 10))
MODALITIES = ("reading", "listening")
TR_S = 2.0045
SILENT_TRS = 5  # before the story
PARTS = ("trn", "val")
ROI = "cortex"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Denizens(Adapter):
    """Stories, and cortical voxels.

    Attributes:
      subjects: among `SUBJECTS`.
      modality: "reading" or "listening".
      trim: TRs to take off the start and the end of each run.
      nan: what becomes of targets that are NaN here and there.
    """

    name: str = "denizens"
    timed = True
    subjects: tuple[str, ...]
    modality: str
    trim: tuple[int, int] = (0, 0)
    nan: NaN = "refuse"

    def __post_init__(self):
        self.check_option("subjects", self.subjects, SUBJECTS)
        self.check_option("modality", (self.modality,), MODALITIES)
        if min(self.trim) < 0:
            raise InputError(
                f"data set {self.name}: trim must be two numbers >= 0, found {self.trim}."
            )

    def files(self) -> list[pathlib.Path]:
        """Return the responses of each subject, and the TextGrids that are there."""
        responses = [self._path(subject, part) for subject in self.subjects for part in PARTS]
        return self.need([*responses, *sorted((self.root / FOLDER).glob("stimuli/*.TextGrid"))])

    def stimuli(self) -> Stimuli:
        """Read the words of each story in the responses from `stimuli/<story>.TextGrid`."""
        stories = self._lengths()
        grids = {story: self.root / FOLDER / f"stimuli/{story}.TextGrid" for story in stories}
        for path in grids.values():
            if not path.is_file():
                raise InputError(
                    f"data set {self.name} needs {path} for the times of words, which the release "
                    "does not have: it is missing; see docs/datasets/denizens.md."
                )
        return lebel2023.read_words(grids)

    def responses(self) -> Responses:
        """Read the voxels: training stories, then the mean over the repeats of the test's."""
        lengths = self._lengths()
        if (shortest := min(lengths.values())) <= sum(self.trim):
            raise InputError(
                f"data set {self.name}: trim must leave samples of every story, but one has "
                f"{shortest} TRs and {self.trim} are to be taken off."
            )
        kept = {story: self._kept(size) for story, size in lengths.items()}
        run = [story for story, part in kept.items() for _ in range(part.start, part.stop)]
        found = (self._recording(subject, kept) for subject in self.subjects)
        columns = recordings.side_by_side(found, run, nan=self.nan)
        times = [TR_S * (np.arange(x.start, x.stop) - SILENT_TRS) for x in kept.values()]
        with naming(self.root / FOLDER):
            return Responses(
                run=run,
                units="BOLD as published",
                time_s=np.concatenate(times),
                tr_s=TR_S,
                **columns,
            )

    def repeats(self, subject: str) -> Repeats:
        """Read each repeat of the test story, with the samples and targets of `responses`."""
        (path,) = self.need([self._path(subject, "val")])
        with recordings.hdf5(path) as file:
            story = _test_story(file)
            values = recordings.as_float32(file[story][:, self._kept(file[story].shape[1])])
        mean = recordings.mean_over_repeats(values)
        whole = recordings.voxels(subject, mean, ROI, {story: path})
        return repeats_of(values, whole, story, nan=self.nan)

    def _path(self, subject: str, part: str) -> pathlib.Path:
        name = f"subject{subject}_{self.modality}_fmri_data_{part}.hdf"
        return self.root / FOLDER / "responses" / name

    def _kept(self, num_trs: int) -> slice:
        return slice(self.trim[0], num_trs - self.trim[1])

    def _lengths(self) -> dict[str, int]:
        """Return the TRs of each story, training stories first, the same for all subjects."""
        self.files()
        found = {}
        for subject in self.subjects:
            lengths = {}
            with recordings.hdf5(self._path(subject, "trn")) as file:
                for story in recordings.names(file):
                    # Some stories are published as an array of one array.
                    data = recordings.dataset(file, story, ndim=(2, 3))
                    lengths[story] = int(data.shape[-2])
            with recordings.hdf5(self._path(subject, "val")) as file:
                story = _test_story(file)
                if story in lengths:
                    raise InputError(f"{file.filename}: {story!r} is a training story, too.")
                lengths[story] = int(file[story].shape[1])
            found[subject] = lengths
        first, same = next(iter(found.items()))
        for subject, other in found.items():
            if other != same:
                story = next(x for x in {**other, **same} if other.get(x) != same.get(x))
                raise InputError(
                    f"data set {self.name}: subjects must have the same stories and TRs, but of "
                    f"{story!r} {first} has {same.get(story, 0)} and {subject} "
                    f"{other.get(story, 0)}."
                )
        return same

    def _recording(self, subject: str, kept: dict[str, slice]) -> Recording:
        parts, files = [], {}
        for part in PARTS:
            path = self._path(subject, part)
            with recordings.hdf5(path) as file:
                for story in recordings.names(file):
                    values = recordings.as_float32(file[story][()])
                    if part == "val":
                        values = recordings.mean_over_repeats(values)
                    elif values.ndim == 3 and len(values) == 1:
                        values = values[0]
                    if values.ndim != 2:
                        raise InputError(
                            f"{path}: {story!r} must be TRs x voxels, found {values.shape}."
                        )
                    if parts and values.shape[1] != parts[0].shape[1]:
                        raise InputError(
                            f"{path}: {story!r} must have {parts[0].shape[1]} voxels, found "
                            f"{values.shape[1]}."
                        )
                    parts.append(values[kept[story]])
                    files[story] = path
        return recordings.voxels(subject, np.concatenate(parts), ROI, files)


def _test_story(file: Any) -> str:
    stories = recordings.names(file)
    if len(stories) != 1:
        raise InputError(
            f"{file.filename} must hold one story, the test's, found {len(stories)}: {stories}."
        )
    recordings.dataset(file, stories[0], ndim=3)
    return stories[0]
