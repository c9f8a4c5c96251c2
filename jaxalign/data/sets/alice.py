"""Alice in Wonderland, chapter 1, heard in the scanner (Brennan et al. 2016).

28 subjects x 362 TRs of 2 s x 6 regions of the language network; words with hand-corrected times.
Subject s33 is constant in the published files. Licence CC BY 4.0.

Source: Brennan, Stabler, Van Wagenen, Luh and Hale (2016), Brain and Language 157-158, 81-94.
"""

import dataclasses
import hashlib
import pathlib
import re

import numpy as np
from absl import logging
from jaxtyping import Float

from jaxalign.data.adapter import Adapter
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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Alice(Adapter):
    """Words, and the time courses of regions of 6 or 10 mm radius."""

    name: str = "alice"
    timed = True
    radius_mm: int

    def files(self) -> list[pathlib.Path]:
        """Return the TextGrid and a table for each subject."""
        folder = self.root / FOLDER / f"alice_data_shared/{self.radius_mm}mm"
        grid = self.need([self.root / FOLDER / TEXTGRID])
        found = sorted(folder.glob("*-timecourses.txt"))
        if not found:
            raise InputError(
                f"data set {self.name} needs sNN-timecourses.txt in {folder}: none is there."
            )
        return [*grid, *found]

    def stimuli(self) -> Stimuli:
        """Read the words and their times; none may overlap."""
        path = self.files()[0]
        intervals = textgrids.read(path, "word")
        words = [(a, b, label.strip()) for a, b, label in intervals if label.strip() not in PAUSES]
        with naming(path):
            return Stimuli(
                stimulus_id=[f"{RUN}.{i:04d}" for i in range(len(words))],
                text=[text for _, _, text in words],
                passage=[RUN] * len(words),
                run=[RUN] * len(words),
                unit="word",
                language="en",
                onset_s=np.array([start for start, _, _ in words]),
                offset_s=np.array([end for _, end, _ in words]),
            )

    def responses(self) -> Responses:
        """Read the time courses of all subjects and regions, in the scanner's units."""
        paths = self.files()[1:]
        subjects = [_subject(path) for path in paths]
        columns = [_time_courses(*pair) for pair in zip(paths, subjects, strict=True)]
        folder = paths[0].parent
        if len(subjects) < NUM_SUBJECTS:
            logging.warning("%s holds %d of the %d subjects", folder, len(subjects), NUM_SUBJECTS)
        _report_copies(folder.parent)
        with naming(folder):
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


def _subject(path: pathlib.Path) -> str:
    match = re.fullmatch(r"s0*(\d+)-timecourses", path.stem, re.IGNORECASE)
    if match is None:
        raise InputError(f"{path}: the name must be sNN-timecourses.txt, NN the subject.")
    return f"s{int(match[1])}"


def _time_courses(path: pathlib.Path, subject: str) -> Float[np.ndarray, "n v"]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        table = np.loadtxt(lines, ndmin=2) if any(lines) else np.empty((0, 0))
    except ValueError as error:
        # Behind a semicolon, NumPy gives advice to those who call it.
        reason = str(error).partition(";")[0]
        raise InputError(f"{path} must be a table of numbers: {reason}.") from error
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
    return table


def _report_copies(folder: pathlib.Path) -> None:
    """Warn of subjects who share a word-rate file, as s24 and s35 do; none is read here."""
    seen = {}
    for path in sorted(folder.glob("*-rate.txt")):
        first = seen.setdefault(hashlib.sha256(path.read_bytes()).digest(), path)
        if first != path:
            logging.warning(
                "%s has the content of %s: word rate is computed from the words instead",
                *(path, first.name),
            )
