"""Harry Potter, chapter 9, read word by word in the scanner (Wehbe et al. 2014).

8 subjects, 4 runs, 5,176 words of 0.5 s, 1,351 TRs of 2 s. The arrays are those of Toneva and
Wehbe (2019): responses are detrended, smoothed, and without the first 20 and the last 15 TRs of
each run (1,211 are left), while words, times and runs are of all TRs.

Source: Wehbe et al. (2014), PLoS ONE 9, e112575; Toneva and Wehbe (2019), NeurIPS 32; files as in
github.com/mtoneva/brain_language_nlp, README.md and utils/utils.py.
"""

import dataclasses
import pathlib

import numpy as np
from jaxtyping import Float, Int

from jaxalign.data.adapter import Adapter
from jaxalign.data.formats import recordings
from jaxalign.data.formats.recordings import NaN
from jaxalign.data.schema import Responses, Stimuli, naming
from jaxalign.errors import InputError

FOLDER = "wehbe2014"
WORDS = "stimuli_words.npy"
WORD_TIMES = "fMRI/time_words_fmri.npy"
TR_TIMES = "fMRI/time_fmri.npy"
RUNS = "fMRI/runs_fmri.npy"
SUBJECTS = ("F", "H", "I", "J", "K", "L", "M", "N")
PASSAGE = "harry-potter-ch9"
NUM_WORDS = 5176
NUM_TRS = 1351
NUM_RUNS = 4
TR_S = 2.0
WORD_S = 0.5
# Words at the start that the published analysis leaves out; they may lie before the first TR.
NUM_SKIPPED = 20
# TRs that the published responses lack at the start and at the end of each run.
TRIMMED = (20, 15)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Wehbe2014(Adapter):
    """Words on the clock of the TRs, and voxels.

    Attributes:
      subjects: letters among `SUBJECTS`.
      nan: what becomes of targets that are NaN here and there.
    """

    name: str = "wehbe2014"
    timed = True
    subjects: tuple[str, ...] = SUBJECTS
    nan: NaN = "refuse"

    def __post_init__(self):
        self.check_option("subjects", self.subjects, SUBJECTS)

    def files(self) -> list[pathlib.Path]:
        """Return words, word times, TR times, runs, and the responses of each subject."""
        names = [WORDS, WORD_TIMES, TR_TIMES, RUNS]
        names += [f"fMRI/data_subject_{subject}.npy" for subject in self.subjects]
        return self.need(self.root / FOLDER / name for name in names)

    def stimuli(self) -> Stimuli:
        """Read all 5,176 words; they are one passage in four runs."""
        words_path, times_path, *_ = self.files()
        found = recordings.npy(words_path, shape=(NUM_WORDS,), kinds="US")
        words = [x.decode("utf-8") if isinstance(x, bytes) else str(x) for x in found.tolist()]
        onset_s = recordings.npy(times_path, shape=(NUM_WORDS,)).astype(np.float64)
        if not (np.diff(onset_s) > 0).all():
            i = int(np.argmin(np.diff(onset_s) > 0)) + 1
            raise InputError(f"{times_path}: times must ascend, but word {i} is at {onset_s[i]} s.")
        time_s, runs = self._trs()
        tr = np.searchsorted(time_s, onset_s, side="right") - 1
        outside = (tr < 0) | (onset_s >= time_s[tr] + TR_S)
        outside[:NUM_SKIPPED] &= tr[:NUM_SKIPPED] >= 0
        if outside.any():
            i = int(outside.argmax())
            raise InputError(
                f"{times_path}: words must be shown during a TR of {TR_TIMES}, but word {i} at "
                f"{onset_s[i]} s is not."
            )
        # A word is taken away by the next one, or after half a second.
        following = np.r_[onset_s[1:], np.inf]
        with naming(words_path):
            return Stimuli(
                stimulus_id=[f"{PASSAGE}.{i:04d}" for i in range(NUM_WORDS)],
                text=words,
                passage=[PASSAGE] * NUM_WORDS,
                run=[f"run-{k}" for k in runs[np.maximum(tr, 0)]],
                unit="word",
                language="en",
                onset_s=onset_s,
                offset_s=np.minimum(onset_s + WORD_S, following),
            )

    def responses(self) -> Responses:
        """Read the voxels of each subject; a sample's time is that of its TR before trimming."""
        time_s, runs = self._trs()
        kept = np.concatenate(
            [np.flatnonzero(runs == k)[TRIMMED[0] : -TRIMMED[1]] for k in range(1, NUM_RUNS + 1)]
        )
        run = [f"run-{k}" for k in runs[kept]]
        found = (
            recordings.voxels(
                subject,
                recordings.as_float32(recordings.npy(path, shape=(len(kept), None))),
                "brain",
                dict.fromkeys(run, path),
            )
            for path, subject in zip(self.files()[4:], self.subjects, strict=True)
        )
        columns = recordings.side_by_side(found, run, nan=self.nan)
        with naming(self.root / FOLDER):
            return Responses(
                run=run, units="detrended scanner units", time_s=time_s[kept], tr_s=TR_S, **columns
            )

    def _trs(self) -> tuple[Float[np.ndarray, " t"], Int[np.ndarray, " t"]]:
        """Read the start of each TR, in seconds, and its run, 1 to 4."""
        _, _, times_path, runs_path, *_ = self.files()
        time_s = recordings.npy(times_path, shape=(NUM_TRS,)).astype(np.float64)
        numbers = recordings.npy(runs_path, shape=(NUM_TRS,))
        wanted = list(range(1, NUM_RUNS + 1))
        found = sorted(set(numbers.tolist()))
        # Before they become integers, which what is not whole would be cut down to.
        if found != wanted or (np.diff(numbers) < 0).any():
            other = [x for x in found if x not in wanted] or found
            raise InputError(
                f"{runs_path} must number the runs 1 to {NUM_RUNS} in ascending order, found "
                f"{', '.join(f'{x:g}' for x in other[:NUM_RUNS])}."
            )
        runs = numbers.astype(np.int64)
        shortest = int(np.bincount(runs)[1:].min())
        if shortest <= sum(TRIMMED):
            raise InputError(
                f"{runs_path}: runs must have more than {sum(TRIMMED)} TRs, found {shortest}."
            )
        steps = np.diff(time_s)[np.diff(runs) == 0]
        if not np.abs(steps - TR_S).max() <= 1e-3 * TR_S:  # NaN is no such step, either
            raise InputError(
                f"{times_path}: times must advance by {TR_S} s within a run, found a step of "
                f"{steps[np.abs(steps - TR_S).argmax()]:.4f} s."
            )
        return time_s, runs
