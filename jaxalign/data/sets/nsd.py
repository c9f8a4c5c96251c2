"""The Natural Scenes Dataset: eight people see 10,000 photographs each, up to three times (7 T).

Responses are betas, one per trial: 16-bit integers that are percent signal change times 300. Each
voxel is z-scored within its session and then averaged over the trials of an image, in a mask
(`nsdgeneral`) and, if asked for, in the labels of an atlas. The 1,000 images that everybody saw
are the test set. Sessions are read one at a time, and of them only voxels of the mask.

An image's id is `nsd` and its row in the file of pixels, counted from 0 (`nsdId`); `73KID` in
`responses.tsv` counts from 1.

Source: Allen et al. (2022), Nature Neuroscience 25; the NSD data manual (cvnlab.slite.page).
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Bool, Float

from jaxalign.data.formats import recordings as arrays
from jaxalign.data.formats import tables
from jaxalign.data.formats.recordings import Recording
from jaxalign.data.presentations import Images, Repeats
from jaxalign.data.schema import Responses, Stimuli, first_repeated, naming
from jaxalign.data.sets import nsd_files
from jaxalign.data.sets.nsd_files import FOLDER, Options, Voxels
from jaxalign.errors import InputError

CAPTIONS = "captions.csv"
TRAIN, TEST = "train", "test"


def files(root: pathlib.Path, **options: Any) -> list[pathlib.Path]:
    """Return tables, masks and betas; `captions.csv` too where there is one.

    Args:
      root: data root.
      **options: fields of `Options`.

    Raises:
      InputError: if a file is missing.
    """
    opts = Options(**options)
    folder = root / FOLDER
    paths = [folder / nsd_files.INFO]
    for subject in opts.subjects:
        paths += [
            nsd_files.trials_path(folder, subject),
            nsd_files.roi_path(folder, subject, opts, nsd_files.MASK),
        ]
        if opts.atlas != nsd_files.MASK:
            paths += [
                nsd_files.roi_path(folder, subject, opts, opts.atlas),
                nsd_files.names_path(folder, subject, opts),
            ]
        paths += [nsd_files.betas_path(folder, subject, opts, k) for k in opts.sessions(subject)]
    captions = folder / CAPTIONS
    return arrays.need("nsd", [*paths, *([captions] if captions.exists() else [])])


def stimuli(root: pathlib.Path, **options: Any) -> Stimuli:
    """Return a caption for each image, from `captions.csv` with the columns nsdId and caption.

    Raises:
      InputError: if there is no such file, for images have no text; or a caption is missing.
    """
    files(root, **options)
    path = root / FOLDER / CAPTIONS
    if not path.is_file():
        raise InputError(
            f"data set nsd presents images, so there is no text for a model to read: put captions "
            f"in {path} (columns nsdId and caption), or give the images to a model that sees."
        )
    shown = _shown(root / FOLDER, Options(**options))
    table = tables.read(path, ("nsdId", "caption"))
    if repeated := first_repeated(table["nsdId"].tolist()):
        raise InputError(f"{path} must have one caption per nsdId, found two of {repeated!r}.")
    caption = dict(zip(table["nsdId"].tolist(), table["caption"].tolist(), strict=True))
    if lost := [i for i in shown if str(i) not in caption]:
        raise InputError(
            f"{path} must have a caption of every image: {len(lost)} of {len(shown)} lack one, the "
            f"first is nsdId {lost[0]}."
        )
    names = [_name(i) for i in shown]
    with naming(path):
        return Stimuli(
            stimulus_id=names,
            text=[caption[str(i)] for i in shown],
            passage=names,
            run=_runs(shown, nsd_files.shared(root / FOLDER)),
            unit="sentence",
        )


def images(root: pathlib.Path, **options: Any) -> Images:
    """Return the images in the order of the responses, and where their pixels are.

    Raises:
      InputError: if a file is missing.
    """
    files(root, **options)
    (pixels,) = arrays.need("nsd", [root / FOLDER / nsd_files.PIXELS])
    shown = _shown(root / FOLDER, Options(**options))
    return Images(
        stimulus_id=[_name(i) for i in shown],
        run=_runs(shown, nsd_files.shared(root / FOLDER)),
        file=pixels,
        key=nsd_files.BRICK,
        row=np.array(shown),
    )


def responses(root: pathlib.Path, **options: Any) -> Responses:
    """Read the mean response to each image, training images first.

    Voxels that are constant in a session were not measured in it; they are left out, and counted.

    Raises:
      InputError: if a file is damaged, shapes differ, or trials and tables do not fit.
    """
    files(root, **options)
    opts = Options(**options)
    folder = root / FOLDER
    shown = _shown(folder, opts)
    run = _runs(shown, nsd_files.shared(folder))
    recordings = (_means(folder, subject, opts, shown) for subject in opts.subjects)
    columns = arrays.beside(recordings, run)
    with naming(folder):
        return Responses(
            run=run,
            units=("z-scored " if opts.zscore else "") + "percent signal change",
            stimulus_id=[_name(i) for i in shown],
            **columns,
        )


def repeats(root: pathlib.Path, *, subject: str = "", **options: Any) -> Repeats:
    """Read the responses to each presentation of the shared images, by one subject.

    Args:
      root: data root.
      subject: who, if `subjects` of the options does not say so.
      **options: see `Options`.

    Raises:
      InputError: as `responses`.
    """
    if subject:
        options["subjects"] = (subject,)
    opts = dataclasses.replace(Options(**options), images="shared")
    files(root, **dataclasses.asdict(opts))
    if len(opts.subjects) != 1:
        raise InputError(
            f"data set nsd: repeats must be of one subject, found {', '.join(opts.subjects)}."
        )
    subject = opts.subjects[0]
    folder = root / FOLDER
    shown = _shown(folder, opts)
    where = nsd_files.voxels(folder, subject, opts)
    values = np.full((nsd_files.MAX_REPEATS, len(shown), len(where.target)), np.nan, np.float32)
    seen = np.zeros(len(shown), int)

    def put(i: int, betas: Float[np.ndarray, " v"]) -> None:
        values[seen[i], i] = betas
        seen[i] += 1

    measured = _each_trial(folder, subject, opts, where, shown, put)
    index = np.flatnonzero(measured)
    return Repeats(
        values=values[:, :, index],
        run=[TEST] * len(shown),
        subject=[subject] * len(index),
        roi=[where.roi[i] for i in index],
        target=[where.target[i] for i in index],
        stimulus_id=[_name(i) for i in shown],
    )


def _means(folder: pathlib.Path, subject: str, opts: Options, shown: list[int]) -> Recording:
    """Average the trials of each image."""
    where = nsd_files.voxels(folder, subject, opts)
    total = np.zeros((len(shown), len(where.target)), np.float32)
    seen = np.zeros(len(shown), np.float32)

    def add(i: int, betas: Float[np.ndarray, " v"]) -> None:
        total[i] += betas
        seen[i] += 1

    measured = _each_trial(folder, subject, opts, where, shown, add)
    total /= seen[:, None]
    betas = nsd_files.betas_path(folder, subject, opts, 1).parent
    files_of: dict[str, pathlib.Path] = {TRAIN: betas, TEST: betas}
    recording = Recording(subject, total, where.roi, where.target, files_of)
    return recording if measured.all() else arrays.columns_of(recording, measured)


def _each_trial(
    folder: pathlib.Path,
    subject: str,
    opts: Options,
    where: Voxels,
    shown: list[int],
    take: Callable[[int, np.ndarray], None],
) -> Bool[np.ndarray, " v"]:
    """Give the betas of every trial of the images, with the image's place among them.

    Returns:
      Which voxels were measured in every session.
    """
    row = {image: i for i, image in enumerate(shown)}
    measured = np.ones(len(where.target), bool)
    for trials, scored in _sessions(folder, subject, opts, where):
        measured &= np.isfinite(scored[0])
        for image, betas in zip(trials, scored, strict=True):
            if image in row:
                take(row[image], betas)
    if not measured.all():
        logging.warning(
            "nsd %s: %d of %d voxels are constant in a session and left out",
            subject,
            int((~measured).sum()),
            len(measured),
        )
    return measured


def _sessions(
    folder: pathlib.Path, subject: str, opts: Options, where: Voxels
) -> Iterator[tuple[list[int], Float[np.ndarray, "n v"]]]:
    """Yield the images of a session and their betas, NaN where a voxel is constant."""
    trials = nsd_files.trial_images(folder, subject, opts)
    for number, images_shown in zip(opts.sessions(subject), trials, strict=True):
        stored = nsd_files.betas(nsd_files.betas_path(folder, subject, opts, number), where.mask)
        betas = stored.astype(np.float64) / nsd_files.BETAS_PER_PERCENT
        spread = betas.std(axis=0)
        if opts.zscore:
            betas -= betas.mean(axis=0)
            betas /= np.where(spread > 0, spread, np.nan)
        betas[:, spread == 0] = np.nan
        yield images_shown.tolist(), betas.astype(np.float32)


def _shown(folder: pathlib.Path, opts: Options) -> list[int]:
    """Return the nsdId of each image in the responses: those of the test set last."""
    shared = nsd_files.shared(folder)
    own = [set(nsd_files.trial_images(folder, s, opts).ravel().tolist()) for s in opts.subjects]
    test = sorted(set.intersection(*own) & shared)
    if not test:
        raise InputError(
            f"data set nsd: {', '.join(opts.subjects)} must have seen at least one shared image in "
            "these sessions, found none."
        )
    return test if opts.images == "shared" else [*sorted(own[0] - shared), *test]


def _runs(shown: list[int], shared: set[int]) -> list[str]:
    return [TEST if image in shared else TRAIN for image in shown]


def _name(image: int) -> str:
    return f"nsd{image:05d}"
