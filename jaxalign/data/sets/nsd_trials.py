"""Which image each trial of the Natural Scenes Dataset showed, and which ones everybody saw.

Three files tell of it, and any that are there must agree: `nsd_stim_info_merged.csv` (all images),
`responses.tsv` (what a subject saw and answered), and `nsd_expdesign.mat` (the plan).
"""

import dataclasses
import itertools
import pathlib

import numpy as np
import pandas as pd
from jaxtyping import Int

from jaxalign.data.formats import matlab
from jaxalign.errors import InputError, one_line

INFO = "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
DESIGN = "nsddata/experiments/nsd/nsd_expdesign.mat"
NUM_TRIALS = 750  # of a session
NUM_SHARED = 1000
MAX_REPEATS = 3
# Sessions that each subject came for.
NUM_SESSIONS = dict(
    zip((f"subj0{i}" for i in range(1, 9)), (40, 40, 32, 30, 40, 32, 40, 30), strict=True)
)
_NUM_IMAGES, _NUM_SUBJECTS = 10000, 8  # of the plan; images of each subject
_UNKNOWN = -1  # no image is known of a trial


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What the files of a copy say of the order of trials.

    Attributes:
      folder: of the data set.
    """

    folder: pathlib.Path

    @property
    def info(self) -> pathlib.Path:
        """Table of all images."""
        return self.folder / INFO

    @property
    def design(self) -> pathlib.Path:
        """Plan of the experiment."""
        return self.folder / DESIGN

    def answers(self, subject: str) -> pathlib.Path:
        """Table of what a subject saw and answered."""
        return self.folder / f"nsddata/ppdata/{subject}/behav/responses.tsv"

    def files(self, subject: str) -> list[pathlib.Path]:
        """Return the files that are read for a subject; without the plan both tables must be."""
        tables = [self.info, self.answers(subject)]
        if not self.design.is_file():
            return tables
        return [*(path for path in tables if path.is_file()), self.design]

    def trials(self, subject: str, num_sessions: int) -> Int[np.ndarray, "s n"]:
        """Return the nsdId of each trial of the first sessions.

        Args:
          subject: subj01, ...
          num_sessions: how many are read.

        Raises:
          InputError: if trials are missing or out of order, or two files tell of different images.
        """
        told = {}
        if self.answers(subject).is_file():
            told[self.answers(subject)] = self._answered(subject, num_sessions)
        told |= self._planned(subject, NUM_TRIALS * num_sessions)
        (path, shown), *others = told.items()
        for other, found in others:
            differ = np.flatnonzero(shown != found)
            if len(differ):
                i = int(differ[0])
                raise InputError(
                    f"{path} and {other} must tell of the same images: trial {i + 1} is "
                    f"{_named(int(shown[i]))} in one and {_named(int(found[i]))} in the other."
                )
        if (shown == _UNKNOWN).any():
            raise InputError(
                f"{path} must say which image trial {int((shown == _UNKNOWN).argmax()) + 1} of "
                f"{subject} showed, found none."
            )
        return shown.reshape(num_sessions, NUM_TRIALS)

    def shared(self) -> set[int]:
        """Return the nsdId of the images that were meant for everybody.

        Raises:
          InputError: if there are not 1,000, or two files tell of different ones.
        """
        told = {}
        if self.info.is_file():
            table = _numbers(self.info, ",", ["nsdId", "shared1000"])
            found = table["nsdId"][table["shared1000"] > 0]
            if len(found) != NUM_SHARED:
                raise InputError(
                    f"{self.info}: shared1000 must mark {NUM_SHARED} images, found {len(found)}."
                )
            told[self.info] = set(found.tolist())
        if self.design.is_file():
            told[self.design] = set((self._plan("sharedix", (1, NUM_SHARED))[0] - 1).tolist())
        (path, found), *others = told.items()
        for other, again in others:
            if different := found ^ again:
                raise InputError(
                    f"{path} and {other} must share the same images, but nsdId {min(different)} is "
                    f"shared in one alone."
                )
        return found

    def seen_by_everybody(self, num_repeats: int) -> set[int]:
        """Return the nsdId of images that all eight subjects saw so often in all their sessions.

        Args:
          num_repeats: presentations, at least.

        Raises:
          InputError: as `trials`.
        """
        found = self.shared()
        for subject, num_sessions in NUM_SESSIONS.items():
            # The plan alone: what others answered need not be there.
            shown = next(iter(self._planned(subject, NUM_TRIALS * num_sessions).values()))
            image, count = np.unique(shown, return_counts=True)
            found &= set(image[count >= num_repeats].tolist())
        return found

    def coco(self, shown: list[int]) -> dict[int, tuple[str, int]]:
        """Return where images come from: COCO's split and its id of each, by nsdId.

        Raises:
          InputError: if the table of images is not there, or lacks one.
        """
        if not self.info.is_file():
            raise InputError(f"captions of COCO need {self.info}: it is missing.")
        table = _table(self.info, ",", ["nsdId", "cocoId", "cocoSplit"])
        rows = zip(table["nsdId"], table["cocoSplit"], table["cocoId"], strict=True)
        found = {int(image): (str(split), int(coco)) for image, split, coco in rows}
        if lost := [image for image in shown if image not in found]:
            raise InputError(f"{self.info} must have a row of nsdId {lost[0]}, found none.")
        return found

    def _planned(self, subject: str, num: int) -> dict[pathlib.Path, Int[np.ndarray, " t"]]:
        """Return the nsdId of the first trials of a subject, by the file that says it."""
        number = int(subject[4:])
        told = {}
        if self.info.is_file():
            columns = [f"subject{number}_rep{k}" for k in range(MAX_REPEATS)]
            table = _numbers(self.info, ",", ["nsdId", *columns])
            found = np.full(1 + max(num, *(int(table[name].max()) for name in columns)), _UNKNOWN)
            for name in columns:  # trials count from 1; 0: not shown
                found[table[name]] = table["nsdId"]
            told[self.info] = found[1 : 1 + num]
        if self.design.is_file():
            order = self._plan("masterordering", (1, None))[0]
            images = self._plan("subjectim", (_NUM_SUBJECTS, _NUM_IMAGES))[number - 1]
            if len(order) < num or order.min() < 1 or order.max() > _NUM_IMAGES:
                raise InputError(
                    f"{self.design}: masterordering must have at least {num} trials of images "
                    f"1..{_NUM_IMAGES}, found {len(order)} of {order.min()}..{order.max()}."
                )
            told[self.design] = images[order[:num] - 1] - 1
        return told

    def _plan(self, name: str, shape: tuple[int, int | None]) -> Int[np.ndarray, "a b"]:
        """Read one variable of the plan; MATLAB counts images from 1 and has numbers as doubles."""
        content = matlab.read(self.design)
        found = np.asarray(content.get(name, np.empty(0)))
        fits = found.ndim == 2 and all(
            wanted in (None, size) for wanted, size in zip(shape, found.shape, strict=True)
        )
        if not fits or found.dtype.kind not in "iuf" or not (found == np.rint(found)).all():
            wanted = " x ".join("any" if size is None else str(size) for size in shape)
            raise InputError(
                f"{self.design}: {name} must hold {wanted} whole numbers, found "
                f"{found.dtype} of shape {found.shape}."
            )
        return found.astype(np.int64)

    def _answered(self, subject: str, num_sessions: int) -> Int[np.ndarray, " t"]:
        """Return the nsdId of the trials that a subject answered."""
        path = self.answers(subject)
        table = _numbers(path, "\t", ["SESSION", "RUN", "TRIAL", "73KID"])
        sessions = range(1, 1 + num_sessions)
        read = np.isin(table["SESSION"], sessions)
        session, run, trial, image = (values[read] for values in table.values())
        places = list(zip(session.tolist(), run.tolist(), trial.tolist(), strict=True))
        if late := [after for before, after in itertools.pairwise(places) if after <= before]:
            raise InputError(
                f"{path} must list each trial once, by SESSION, RUN and TRIAL, found {late[0]} "
                "after one that is not before it."
            )
        for number in sessions:
            if (num_trials := int((session == number).sum())) != NUM_TRIALS:
                raise InputError(
                    f"{path} must list {NUM_TRIALS} trials of SESSION {number}, found {num_trials}."
                )
        if (image < 1).any():
            raise InputError(f"{path}: 73KID must be 1 or more, found {image.min()}.")
        return image - 1


def _named(image: int) -> str:
    return "unknown" if image == _UNKNOWN else f"nsdId {image}"


def _table(path: pathlib.Path, separator: str, columns: list[str]) -> pd.DataFrame:
    try:
        return pd.read_csv(path, sep=separator, usecols=columns)
    except (ValueError, OSError) as error:
        raise InputError(
            f"{path} must be a table with the columns {', '.join(columns)}: {one_line(error)}."
        ) from error


def _numbers(
    path: pathlib.Path, separator: str, columns: list[str]
) -> dict[str, Int[np.ndarray, " m"]]:
    """Read columns of whole numbers, or of truth values."""
    table = _table(path, separator, columns)
    found = {name: np.asarray(table[name]) for name in columns}
    for name, values in found.items():
        if values.dtype.kind not in "iub":
            raise InputError(f"{path}: {name} must hold whole numbers, found {values.dtype}.")
    return {name: values.astype(np.int64) for name, values in found.items()}
