"""Stories heard in the scanner by eight people, up to 84 each (LeBel et al. 2023, ds003020).

The clock. A scan begins 10 s before its story; `respdict.json` tells how many TRs of 2 s it had, n.
The published responses lack 10 TRs at the start (5 of silence, 5 of story) and 10 at the end, so
they have n - 20; row k is TR k + 10 of the scan and begins 2 (k + 10) - 10 = 10 + 2 k seconds into
the story, on the clock of the TextGrids.

Source: LeBel et al. (2023), Scientific Data 10, 555; github.com/HuthLab/deep-fMRI-dataset,
encoding/ridge_utils/stimulus_utils.py (`load_simulated_trfiles`: sound starts at 10 s, 5 TRs are
padding at the end) and encoding/encoding_utils.py (features are cut to [5 + 5 : -5]).
"""

import dataclasses
import itertools
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging

from jaxalign.data.adapter import Adapter
from jaxalign.data.formats import recordings, textgrids
from jaxalign.data.formats.recordings import NaN, Recording
from jaxalign.data.presentations import Repeats, repeats_of
from jaxalign.data.schema import Responses, Stimuli, naming
from jaxalign.errors import InputError, one_line

FOLDER = "ds003020"
SUBJECTS = tuple(f"UTS0{i}" for i in range(1, 9))
ROI = "cortex"
TEST_STORY = "wheretheressmoke"  # heard again and again
TR_S = 2.0
TRIMMED = (10, 10)  # TRs that the responses lack at the start and at the end of a scan
SILENCE_S = 10.0  # from the start of a scan to the start of its story
WORD_TIER = 1  # behind the phones
# What the TextGrids mark besides words: breath, laughter, noise, pause.
NO_WORDS = ("", "sentence_start", "sentence_end", "br", "lg", "ls", "ns", "sp")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lebel2023(Adapter):
    """Stories, and cortical voxels in the units in which they were published.

    Attributes:
      subjects: among `SUBJECTS`.
      stories: those to read; (): all that every one of these subjects has.
      nan: what becomes of targets that are NaN here and there.
    """

    name: str = "lebel2023"
    timed = True
    subjects: tuple[str, ...]
    stories: tuple[str, ...] = ()
    nan: NaN = "refuse"

    def __post_init__(self):
        self.check_option("subjects", self.subjects, SUBJECTS)

    def files(self) -> list[pathlib.Path]:
        """Return `respdict.json`, the TextGrid of each story, and the responses to it."""
        grids = self._grids()
        responses = [self._path(subject, story) for subject in self.subjects for story in grids]
        life = self._path("UTS04", "life")
        if life in responses and not life.is_file():
            raise InputError(f"data set {self.name}: UTS04 was not recorded with story 'life'.")
        return self.need([self._folder / "respdict.json", *grids.values(), *responses])

    def stimuli(self) -> Stimuli:
        """Read the words of the stories; a story is a passage and a run."""
        self.files()
        return read_words(self._grids())

    def responses(self) -> Responses:
        """Read the voxels of each subject; of the test story, the means over its repeats."""
        lengths = self._lengths()
        run = [story for story, size in lengths.items() for _ in range(size)]
        found = (self._recording(subject, lengths) for subject in self.subjects)
        columns = recordings.side_by_side(found, run, nan=self.nan)
        start_s = TRIMMED[0] * TR_S - SILENCE_S
        with naming(self._folder / "preprocessed_data"):
            return Responses(
                run=run,
                units="BOLD as published",
                time_s=np.concatenate([start_s + TR_S * np.arange(n) for n in lengths.values()]),
                tr_s=TR_S,
                **columns,
            )

    def repeats(self, subject: str, story: str = TEST_STORY) -> Repeats:
        """Read the responses to each repeat of a story, on the samples of `responses`."""
        (path,) = self.need([self._path(subject, story)])
        with recordings.hdf5(path) as file:
            mean = recordings.dataset(file, "data", ndim=2)
            single = recordings.dataset(file, "individual_repeats", ndim=3)
            if single.shape[1:] != mean.shape:
                raise InputError(
                    f"{file.filename}: 'individual_repeats' must be repeats x {mean.shape[0]} TRs "
                    f"x {mean.shape[1]} voxels, found {single.shape}."
                )
            values = recordings.as_float32(single[()])
            mean = recordings.as_float32(mean[()])
        whole = recordings.voxels(subject, mean, ROI, {story: path})
        return repeats_of(values, whole, story, nan=self.nan)

    @property
    def _folder(self) -> pathlib.Path:
        return self.root / FOLDER / "derivative"

    def _path(self, subject: str, story: str) -> pathlib.Path:
        return self._folder / "preprocessed_data" / subject / f"{story}.hf5"

    def _grids(self) -> dict[str, pathlib.Path]:
        """Return the TextGrid of each story to read."""
        if not self._folder.is_dir():
            raise InputError(f"data set {self.name} needs {self._folder}: it is missing.")
        stories = self.stories
        if not stories:
            folders = [self._path(subject, "x").parent for subject in self.subjects]
            each = [{path.stem for path in folder.glob("*.hf5")} for folder in folders]
            stories = sorted(set.intersection(*each))
        if not stories:
            raise InputError(
                f"data set {self.name} needs <story>.hf5 of {', '.join(self.subjects)} in "
                f"{self._folder / 'preprocessed_data'}: there is no story that all have."
            )
        return {story: self._folder / f"TextGrids/{story}.TextGrid" for story in stories}

    def _lengths(self) -> dict[str, int]:
        """Return the TRs that the responses to each story must have."""
        path, *_ = self.files()
        try:
            table: Any = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise InputError(f"{path} must be JSON: {one_line(error)}.") from error
        lengths = {}
        for story in self._grids():
            scanned = table.get(story) if isinstance(table, dict) else None
            if not isinstance(scanned, int) or scanned <= sum(TRIMMED):
                raise InputError(
                    f"{path} must tell the number of TRs of story {story!r}, more than "
                    f"{sum(TRIMMED)}, found {scanned!r}."
                )
            lengths[story] = scanned - sum(TRIMMED)
        return lengths

    def _recording(self, subject: str, lengths: dict[str, int]) -> Recording:
        """Read story after story into one array; a list of them would take twice the memory."""
        values, start = np.empty((0, 0), np.float32), 0
        for story, num_trs in lengths.items():
            with recordings.hdf5(self._path(subject, story)) as file:
                data = recordings.dataset(file, "data", ndim=2)
                if start == 0:
                    values = np.empty((sum(lengths.values()), data.shape[1]), np.float32)
                if data.shape != (num_trs, values.shape[1]):
                    raise InputError(
                        f"{file.filename}: 'data' must have {num_trs} TRs (respdict.json: "
                        f"{num_trs + sum(TRIMMED)}, less {sum(TRIMMED)}) x {values.shape[1]} "
                        f"voxels, found {data.shape[0]} x {data.shape[1]}."
                    )
                values[start : start + num_trs] = recordings.as_float32(data[()])
            start += num_trs
        files = {story: self._path(subject, story) for story in lengths}
        return recordings.voxels(subject, values, ROI, files)


def read_words(grids: Mapping[str, pathlib.Path]) -> Stimuli:
    """Read the words of stories, each a passage and a run.

    Args:
      grids: the TextGrid of each story, by its name.

    Raises:
      InputError: if a TextGrid is malformed, or holds no words.
    """
    ids, texts, passages, onsets, offsets = [], [], [], [], []
    for story, path in grids.items():
        words = spoken(path)
        if not words:
            raise InputError(f"{path} must hold words in its second tier, found none.")
        ids += [f"{story}.{i:04d}" for i in range(len(words))]
        passages += [story] * len(words)
        texts += [text for _, _, text in words]
        onsets += [start for start, _, _ in words]
        offsets += [end for _, end, _ in words]
    return Stimuli(
        stimulus_id=ids,
        text=texts,
        passage=passages,
        run=passages,
        unit="word",
        language="en",
        onset_s=np.array(onsets),
        offset_s=np.array(offsets),
    )


def spoken(path: pathlib.Path) -> list[textgrids.Interval]:
    """Read the words of a TextGrid of this lab, without breaths, noises and pauses.

    A word that ends after the next one begins ends with its beginning, with a warning that counts
    such words: onsets were set with more care than ends, and are what features go by.

    Raises:
      InputError: if it is malformed, or has no second tier.
    """
    intervals = textgrids.read(path, WORD_TIER, may_overlap=True)
    words = [(a, b, x.strip()) for a, b, x in intervals if x.strip("{} ").lower() not in NO_WORDS]
    cut = [(a, min(b, after[0]), x) for (a, b, x), after in itertools.pairwise(words)] + words[-1:]
    if changed := sum(x != y for x, y in zip(words, cut, strict=True)):
        logging.warning("%s: %d words overlap the next one, and end with its start", path, changed)
    return cut
