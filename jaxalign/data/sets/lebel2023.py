"""Stories heard in the scanner by eight people, up to 84 each (LeBel et al. 2023, ds003020).

The clock. A scan begins 10 s before its story; `respdict.json` tells how many TRs of 2 s it had, n.
The published responses lack 10 TRs at the start (5 of silence, 5 of story) and 10 at the end, so
they have n - 20; row k is TR k + 10 of the scan and begins 2 (k + 10) - 10 = 10 + 2 k seconds into
the story, on the clock of the TextGrids.

Source: LeBel et al. (2023), Scientific Data 10, 555; github.com/HuthLab/deep-fMRI-dataset,
encoding/ridge_utils/stimulus_utils.py (`load_simulated_trfiles`: sound starts at 10 s, 5 TRs are
padding at the end) and encoding/encoding_utils.py (features are cut to [5 + 5 : -5]).
"""

import itertools
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from jaxalign.data.formats import recordings as arrays
from jaxalign.data.formats import textgrids
from jaxalign.data.formats.recordings import NaN, Recording
from jaxalign.data.presentations import Repeats, repeats_of
from jaxalign.data.schema import Responses, Stimuli, naming
from jaxalign.errors import InputError

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


def files(
    root: pathlib.Path,
    *,
    subjects: Sequence[str],
    stories: Sequence[str] = (),
    nan: NaN = "refuse",
) -> list[pathlib.Path]:
    """Return `respdict.json`, the TextGrid of each story, and the responses to it.

    Args:
      root: data root.
      subjects: among `SUBJECTS`.
      stories: those to read; (): all that every one of these subjects has.
      nan: what becomes of targets that are NaN here and there; "refuse" or "leave_out".

    Raises:
      InputError: if a file is missing, or a subject or story unknown.
    """
    del nan
    folder, chosen = _stories(root, subjects, stories)
    grids = [folder / f"TextGrids/{story}.TextGrid" for story in chosen]
    own = [_path(folder, subject, story) for subject in subjects for story in chosen]
    life = _path(folder, "UTS04", "life")
    if life in own and not life.is_file():
        raise InputError("data set lebel2023: UTS04 was not recorded with story 'life'.")
    return arrays.need("lebel2023", [folder / "respdict.json", *grids, *own])


def stimuli(
    root: pathlib.Path,
    *,
    subjects: Sequence[str],
    stories: Sequence[str] = (),
    nan: NaN = "refuse",
) -> Stimuli:
    """Read the words of the stories; a story is a passage and a run.

    Raises:
      InputError: if a TextGrid is malformed or words overlap.
    """
    files(root, subjects=subjects, stories=stories, nan=nan)
    folder, chosen = _stories(root, subjects, stories)
    return read_words({story: folder / f"TextGrids/{story}.TextGrid" for story in chosen})


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


def responses(
    root: pathlib.Path,
    *,
    subjects: Sequence[str],
    stories: Sequence[str] = (),
    nan: NaN = "refuse",
) -> Responses:
    """Read the cortical voxels of each subject, in the units in which they were published.

    Of the test story these are the means over its repeats; `repeats` has them apart.

    Raises:
      InputError: if a file is damaged, or its number of TRs is not that of `respdict.json`.
    """
    files(root, subjects=subjects, stories=stories, nan=nan)
    folder, chosen = _stories(root, subjects, stories)
    lengths = _lengths(folder, chosen)
    run = [story for story in chosen for _ in range(lengths[story])]
    recordings = (_recording(folder, subject, lengths) for subject in subjects)
    columns = arrays.beside(recordings, run, nan=nan)
    start_s = TRIMMED[0] * TR_S - SILENCE_S
    with naming(folder / "preprocessed_data"):
        return Responses(
            run=run,
            units="BOLD as published",
            time_s=np.concatenate([start_s + TR_S * np.arange(lengths[s]) for s in chosen]),
            tr_s=TR_S,
            **columns,
        )


def repeats(
    root: pathlib.Path, *, subject: str, story: str = TEST_STORY, nan: NaN = "refuse"
) -> Repeats:
    """Read the responses to each repeat of a story, on the samples of `responses`.

    Targets that are NaN throughout the mean are left out, as they are there.

    Raises:
      InputError: if the file holds no repeats, or their shape is not that of the mean.
    """
    files(root, subjects=[subject], stories=[story])
    folder, _ = _stories(root, [subject], [story])
    path = _path(folder, subject, story)
    with arrays.hdf5(path) as file:
        mean = arrays.dataset(file, "data", ndim=2)
        single = arrays.dataset(file, "individual_repeats", ndim=3)
        if single.shape[1:] != mean.shape:
            raise InputError(
                f"{file.filename}: 'individual_repeats' must be repeats x {mean.shape[0]} TRs x "
                f"{mean.shape[1]} voxels, found {single.shape}."
            )
        values = arrays.as_float32(single[()])
        whole = arrays.voxels(subject, arrays.as_float32(mean[()]), ROI, {story: path})
    return repeats_of(values, whole, story, nan=nan)


def _stories(
    root: pathlib.Path, subjects: Sequence[str], stories: Sequence[str]
) -> tuple[pathlib.Path, list[str]]:
    """Return the folder of derivatives and the stories chosen."""
    if unknown := [s for s in subjects if s not in SUBJECTS]:
        raise InputError(
            f"data set lebel2023: subjects must be among {', '.join(SUBJECTS)}, found "
            f"{unknown[0]!r}."
        )
    folder = root / FOLDER / "derivative"
    if not folder.is_dir():
        raise InputError(f"data set lebel2023 needs {folder}: it is missing.")
    if stories:
        return folder, list(stories)
    own = [{p.stem for p in _path(folder, s, "x").parent.glob("*.hf5")} for s in subjects]
    shared = sorted(set.intersection(*own))
    if not shared:
        raise InputError(
            f"data set lebel2023 needs <story>.hf5 of {', '.join(subjects)} in "
            f"{folder / 'preprocessed_data'}: there is no story that all have."
        )
    return folder, shared


def _path(folder: pathlib.Path, subject: str, story: str) -> pathlib.Path:
    return folder / "preprocessed_data" / subject / f"{story}.hf5"


def _lengths(folder: pathlib.Path, stories: Sequence[str]) -> dict[str, int]:
    """Return the TRs that the responses to each story must have."""
    path = folder / "respdict.json"
    try:
        table: Any = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path} must be JSON: {arrays.line(error)}.") from error
    lengths = {}
    for story in stories:
        scanned = table.get(story) if isinstance(table, dict) else None
        if not isinstance(scanned, int) or scanned <= sum(TRIMMED):
            raise InputError(
                f"{path} must tell the number of TRs of story {story!r}, more than "
                f"{sum(TRIMMED)}, found {scanned!r}."
            )
        lengths[story] = scanned - sum(TRIMMED)
    return lengths


def _recording(folder: pathlib.Path, subject: str, lengths: dict[str, int]) -> Recording:
    """Read story after story into one array; a list of them would take twice the memory."""
    values, start = None, 0
    for story, num_trs in lengths.items():
        with arrays.hdf5(_path(folder, subject, story)) as file:
            data = arrays.dataset(file, "data", ndim=2)
            if values is None:
                values = np.empty((sum(lengths.values()), data.shape[1]), np.float32)
            if data.shape != (num_trs, values.shape[1]):
                raise InputError(
                    f"{file.filename}: 'data' must have {num_trs} TRs (respdict.json: "
                    f"{num_trs + sum(TRIMMED)}, less {sum(TRIMMED)}) x {values.shape[1]} voxels, "
                    f"found {data.shape[0]} x {data.shape[1]}."
                )
            values[start : start + num_trs] = arrays.as_float32(data[()])
        start += num_trs
    assert values is not None  # there is a story, or `_stories` refuses
    files = {story: _path(folder, subject, story) for story in lengths}
    return arrays.voxels(subject, values, ROI, files)
