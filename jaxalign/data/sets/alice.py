"""Alice in Wonderland, chapter 1, heard in the scanner (Brennan et al. 2016).

28 subjects x 362 TRs of 2 s x 6 regions of the language network; words with hand-corrected times.
Subject s33 is constant in the published files. Licence CC BY 4.0.

Source: Brennan, Stabler, Van Wagenen, Luh and Hale (2016), Brain and Language 157-158, 81-94.
"""

import hashlib
import pathlib
import re

import numpy as np
from absl import logging

from jaxalign.data.formats import textgrids
from jaxalign.data.schema import Responses, Stimuli, naming
from jaxalign.errors import InputError

FOLDER = "alice_fmri_rois"
TEXTGRID = "alice_stim_shared/DownTheRabbitHoleFinal_exp120_pad_1.TextGrid"
ROIS = ("LATL", "RATL", "LPTL", "LIPL", "LPreM", "LIFG")
NUM_SUBJECTS = 28
NUM_TRS = 362
TR_S = 2.0
# The audio begins with 20 s of silence, and the ten volumes of that time were discarded: the
# first sample lies at 20 s of the TextGrid's clock.
FIRST_SAMPLE_S = 20.0
RUN = "alice-ch1"
PAUSES = ("", "sp")


def files(root: pathlib.Path, *, radius_mm: int) -> list[pathlib.Path]:
    """Return the files that the data set consists of.

    Args:
      root: data root.
      radius_mm: radius of the regions, 6 or 10.

    Raises:
      InputError: if the folder or a file is missing.
    """
    folder = root / FOLDER
    time_courses = folder / f"alice_data_shared/{radius_mm}mm"
    for path in (folder, folder / TEXTGRID, time_courses):
        if not path.exists():
            raise InputError(f"data set alice needs {path}: it is missing.")
    found = sorted(time_courses.glob("*-timecourses.txt"))
    if not found:
        raise InputError(f"data set alice needs sNN-timecourses.txt in {time_courses}: none there.")
    return [folder / TEXTGRID, *found]


def stimuli(root: pathlib.Path, *, radius_mm: int) -> Stimuli:
    """Read the words and their times.

    Raises:
      InputError: if the TextGrid is malformed or words overlap.
    """
    path = files(root, radius_mm=radius_mm)[0]
    intervals = textgrids.read(path, "word")
    words = [(a, b, label.strip()) for a, b, label in intervals if label.strip() not in PAUSES]
    with naming(path):
        return Stimuli(
            stimulus_id=[f"{RUN}.{i:04d}" for i in range(len(words))],
            text=[text for _, _, text in words],
            passage=[RUN] * len(words),
            run=[RUN] * len(words),
            unit="word",
            onset_s=np.array([start for start, _, _ in words]),
            offset_s=np.array([end for _, end, _ in words]),
        )


def responses(root: pathlib.Path, *, radius_mm: int) -> Responses:
    """Read the time courses of all subjects and regions, in the scanner's units.

    Raises:
      InputError: if a file is not a table of 362 TRs x 6 regions, a value is not finite, or a
        subject is there twice.
    """
    paths = files(root, radius_mm=radius_mm)[1:]
    subjects, columns = [], []
    for path in paths:
        match = re.fullmatch(r"s0*(\d+)-timecourses", path.stem, re.IGNORECASE)
        if match is None:
            raise InputError(f"{path}: the name must be sNN-timecourses.txt, NN the subject.")
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
            table = np.loadtxt(lines, ndmin=2) if any(lines) else np.empty((0, 0))
        except ValueError as error:
            # NumPy goes on behind a semicolon, to those who call it.
            reason = str(error).partition(";")[0]
            raise InputError(f"{path} must be a table of numbers: {reason}.") from error
        subject = f"s{int(match[1])}"
        if table.shape != (NUM_TRS, len(ROIS)):
            raise InputError(
                f"{path} must have {NUM_TRS} TRs x {len(ROIS)} regions, "
                f"found {table.shape[0]} x {table.shape[1]}."
            )
        if len(bad := np.argwhere(~np.isfinite(table))):
            row, column = bad[0]
            raise InputError(
                f"{path}: time courses must be finite, found {table[row, column]} at sample {row} "
                f"of subject {subject!r}, roi {ROIS[column]!r} ({len(bad)} such)."
            )
        subjects.append(subject)
        columns.append(table)
    if len(subjects) < NUM_SUBJECTS:
        logging.warning(
            "%s holds %d of the %d subjects", paths[0].parent, len(subjects), NUM_SUBJECTS
        )
    _report_copies(root / FOLDER / "alice_data_shared")
    with naming(paths[0].parent):
        return Responses(
            values=np.concatenate(columns, axis=1),
            run=[RUN] * NUM_TRS,
            subject=[s for s in subjects for _ in ROIS],
            roi=list(ROIS) * len(subjects),
            target=["mean"] * (len(ROIS) * len(subjects)),
            units="scanner units",
            time_s=FIRST_SAMPLE_S + TR_S * np.arange(NUM_TRS),
            tr_s=TR_S,
        )


def _report_copies(folder: pathlib.Path) -> None:
    """Say which subjects share a word-rate file, as s24 and s35 do; no response is made of one."""
    seen = {}
    for path in sorted(folder.glob("*-rate.txt")):
        first = seen.setdefault(hashlib.sha256(path.read_bytes()).digest(), path)
        if first != path:
            logging.warning(
                "%s has the content of %s: word rate is computed from the words instead",
                *(path, first.name),
            )
