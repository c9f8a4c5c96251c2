"""Eleven stories, each read word by word and heard by the same people (Deniz et al. 2019).

The clock. A scan has 5 TRs of 2.0045 s before its story and 5 after it, and the published responses
have them all; so row k begins (k - 5) 2.0045 seconds into the story. `trim` takes TRs off both ends
of every run, 10 and 10 as in the paper.

The release has recordings and transcripts, but no times of words: `stimuli` reads TextGrids that
are put beside them. LeBel et al. (2023) publish some for stories of the same series.

Source: Deniz et al. (2019), Journal of Neuroscience 39;
gin.g-node.org/denizenslab/narratives_reading_listening_fmri, README.md.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxalign.data.formats import recordings as arrays
from jaxalign.data.formats.recordings import NaN, Recording
from jaxalign.data.presentations import Repeats, repeats_of
from jaxalign.data.schema import Responses, Stimuli, naming
from jaxalign.data.sets import lebel2023
from jaxalign.errors import InputError

FOLDER = "narratives_reading_listening_fmri"
MODALITIES = ("reading", "listening")
TR_S = 2.0045
SILENT_TRS = 5  # before the story
PARTS = ("trn", "val")
ROI = "cortex"


def files(
    root: pathlib.Path,
    *,
    subjects: Sequence[str],
    modality: str,
    trim: tuple[int, int] = (0, 0),
    nan: NaN = "refuse",
) -> list[pathlib.Path]:
    """Return the responses of each subject, and the TextGrids that are there.

    Args:
      root: data root.
      subjects: 01 to 09.
      modality: "reading" or "listening".
      trim: TRs to take off the start and the end of each run.
      nan: what becomes of targets that are NaN here and there; "refuse" or "leave_out".

    Raises:
      InputError: if a file is missing, or an option is unknown.
    """
    del nan
    if modality not in MODALITIES:
        raise InputError(
            f"data set denizens: modality must be one of {', '.join(MODALITIES)}, found "
            f"{modality!r}."
        )
    if min(trim) < 0:
        raise InputError(f"data set denizens: trim must be two numbers >= 0, found {trim}.")
    own = [_path(root, subject, modality, part) for subject in subjects for part in PARTS]
    return arrays.need("denizens", [*own, *sorted((root / FOLDER).glob("stimuli/*.TextGrid"))])


def stimuli(
    root: pathlib.Path,
    *,
    subjects: Sequence[str],
    modality: str,
    trim: tuple[int, int] = (0, 0),
    nan: NaN = "refuse",
) -> Stimuli:
    """Read the words of each story in the responses from `stimuli/<story>.TextGrid`.

    Raises:
      InputError: if a TextGrid is missing or malformed, or holds no words.
    """
    files(root, subjects=subjects, modality=modality, trim=trim, nan=nan)
    stories = _lengths(root, subjects, modality)
    grids = {story: root / FOLDER / f"stimuli/{story}.TextGrid" for story in stories}
    for path in grids.values():
        if not path.is_file():
            raise InputError(
                f"data set denizens needs {path} for the times of words, which the release does "
                "not have: it is missing; see docs/datasets/denizens.md."
            )
    return lebel2023.read_words(grids)


def responses(
    root: pathlib.Path,
    *,
    subjects: Sequence[str],
    modality: str,
    trim: tuple[int, int] = (0, 0),
    nan: NaN = "refuse",
) -> Responses:
    """Read the cortical voxels: training stories, then the mean over the repeats of the test's.

    Raises:
      InputError: if a file is damaged, or subjects did not have the same stories and samples.
    """
    files(root, subjects=subjects, modality=modality, trim=trim, nan=nan)
    lengths = _lengths(root, subjects, modality)
    if (shortest := min(lengths.values())) <= sum(trim):
        raise InputError(
            f"data set denizens: trim must leave samples of every story, but one has {shortest} "
            f"TRs and {trim} are to be taken off."
        )
    kept = {story: slice(trim[0], size - trim[1]) for story, size in lengths.items()}
    run = [story for story, part in kept.items() for _ in range(part.start, part.stop)]
    recordings = (_recording(root, subject, modality, kept) for subject in subjects)
    columns = arrays.beside(recordings, run, nan=nan)
    with naming(root / FOLDER):
        return Responses(
            run=run,
            units="BOLD as published",
            time_s=np.concatenate([_time_s(size)[kept[story]] for story, size in lengths.items()]),
            tr_s=TR_S,
            **columns,
        )


def repeats(
    root: pathlib.Path,
    *,
    subject: str,
    modality: str,
    trim: tuple[int, int] = (0, 0),
    nan: NaN = "refuse",
) -> Repeats:
    """Read each repeat of the test story, with the samples and targets of `responses`.

    Raises:
      InputError: if a file is damaged, or a voxel is NaN here and there.
    """
    files(root, subjects=[subject], modality=modality, trim=trim)
    path = _path(root, subject, modality, "val")
    with arrays.hdf5(path) as file:
        story = _test_story(file)
        size = file[story].shape[1]
        values = arrays.as_float32(file[story][:, trim[0] : size - trim[1]])
    mean = arrays.voxels(subject, arrays.mean_over_repeats(values), ROI, {story: path})
    return repeats_of(values, mean, story, nan=nan)


def _path(root: pathlib.Path, subject: str, modality: str, part: str) -> pathlib.Path:
    return root / FOLDER / f"responses/subject{subject}_{modality}_fmri_data_{part}.hdf"


def _time_s(num_trs: int) -> Float[np.ndarray, " n"]:
    return TR_S * (np.arange(num_trs) - SILENT_TRS)


def _test_story(file: Any) -> str:
    stories = arrays.names(file)
    if len(stories) != 1:
        raise InputError(
            f"{file.filename} must hold one story, the test's, found {len(stories)}: {stories}."
        )
    arrays.dataset(file, stories[0], ndim=3)
    return stories[0]


def _lengths(root: pathlib.Path, subjects: Sequence[str], modality: str) -> dict[str, int]:
    """Return the TRs of each story, training stories first, the same for all subjects."""
    found = {}
    for subject in subjects:
        own = {}
        with arrays.hdf5(_path(root, subject, modality, "trn")) as file:
            for story in arrays.names(file):
                # Some stories are published as an array of one array.
                own[story] = int(arrays.dataset(file, story, ndim=(2, 3)).shape[-2])
        with arrays.hdf5(_path(root, subject, modality, "val")) as file:
            story = _test_story(file)
            if story in own:
                raise InputError(f"{file.filename}: {story!r} is a training story, too.")
            own[story] = int(file[story].shape[1])
        found[subject] = own
    first = next(iter(found))
    for subject, own in found.items():
        if own != found[first]:
            story = next(x for x in {**own, **found[first]} if own.get(x) != found[first].get(x))
            raise InputError(
                f"data set denizens: subjects must have the same stories and TRs, but of "
                f"{story!r} {first} has {found[first].get(story, 0)} and {subject} "
                f"{own.get(story, 0)}."
            )
    return found[first]


def _recording(
    root: pathlib.Path, subject: str, modality: str, kept: dict[str, slice]
) -> Recording:
    parts, files = [], {}
    for part in PARTS:
        path = _path(root, subject, modality, part)
        with arrays.hdf5(path) as file:
            for story in arrays.names(file):
                values = arrays.as_float32(file[story][()])
                if part == "val":
                    values = arrays.mean_over_repeats(values)
                elif values.ndim == 3:
                    if len(values) != 1:
                        raise InputError(
                            f"{file.filename}: {story!r} must be TRs x voxels, found "
                            f"{values.shape}."
                        )
                    values = values[0]
                if parts and values.shape[1] != parts[0].shape[1]:
                    raise InputError(
                        f"{file.filename}: {story!r} must have {parts[0].shape[1]} voxels, found "
                        f"{values.shape[1]}."
                    )
                parts.append(values[kept[story]])
                files[story] = path
    return arrays.voxels(subject, np.concatenate(parts), ROI, files)
