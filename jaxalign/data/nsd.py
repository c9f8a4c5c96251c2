"""The Natural Scenes Dataset: eight people see 10,000 photographs each, up to three times (7 T).

Responses are betas, one per trial: 16-bit integers that are percent signal change times 300. Each
voxel is z-scored within its session and then averaged over the trials of an image, in a mask
(`nsdgeneral`) and, if asked for, the labels of an atlas in it. The 1,000 images that everybody saw
are the test set. Sessions are read one at a time, and of them only voxels of the mask.

An image's id is `nsd` and its row in the file of pixels, counted from 0 (`nsdId`); `73KID` in
`responses.tsv` counts from 1.

Source: Allen et al. (2022), Nature Neuroscience 25; the NSD data manual (cvnlab.slite.page).
"""

import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from absl import logging
from jaxtyping import Bool, Float, Int

from jaxalign.data import arrays, imaging, plain
from jaxalign.data.arrays import Recording
from jaxalign.data.presentations import Images, Repeats
from jaxalign.data.schema import Responses, Stimuli, first_repeated
from jaxalign.errors import InputError

FOLDER = "nsd"
# Sessions that each subject came for.
NUM_SESSIONS = dict(
    zip((f"subj0{i}" for i in range(1, 9)), (40, 40, 32, 30, 40, 32, 40, 30), strict=True)
)
NUM_TRIALS = 750  # of a session
NUM_SHARED = 1000
MAX_REPEATS = 3
BETAS_PER_PERCENT = 300.0
MASK = "nsdgeneral"
INFO = "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
PIXELS = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
BRICK = "imgBrick"
CAPTIONS = "captions.csv"
TRAIN, TEST = "train", "test"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Which part of the data to read, and how prepared.

    Attributes:
      subjects: subj01 to subj08.
      images: "all" that the one subject saw, or the "shared" ones that every subject given saw.
      atlas: volume of labels in `roi/`, such as "prf-visualrois" or "floc-places"; voxels are
        those of the mask that bear a label, and every label is a ROI. The mask itself: one ROI.
      preparation: which betas.
      space: "func1pt8mm" or "func1mm".
      num_sessions: the first ones of each subject; 0: all.
    """

    subjects: tuple[str, ...]
    images: Literal["all", "shared"] = "all"
    atlas: str = MASK
    preparation: str = "betas_fithrf_GLMdenoise_RR"
    space: str = "func1pt8mm"
    num_sessions: int = 0

    def __post_init__(self):
        unknown = [s for s in self.subjects if s not in NUM_SESSIONS]
        if unknown or not self.subjects:
            raise InputError(
                f"data set nsd: subjects must be among {', '.join(NUM_SESSIONS)}, found "
                f"{unknown[0] if unknown else 'none'!r}."
            )
        if self.images not in ("all", "shared"):
            raise InputError(
                f"data set nsd: images must be 'all' or 'shared', found {self.images!r}."
            )
        if self.images == "all" and len(self.subjects) > 1:
            raise InputError(
                "data set nsd: images must be 'shared' for several subjects, who saw different "
                f"ones otherwise, found 'all' for {', '.join(self.subjects)}."
            )
        fewest = min(NUM_SESSIONS[s] for s in self.subjects)
        if not 0 <= self.num_sessions <= fewest:
            raise InputError(
                f"data set nsd: num_sessions must lie in 0..{fewest} for "
                f"{', '.join(self.subjects)}, found {self.num_sessions}."
            )

    def sessions(self, subject: str) -> range:
        """Return the sessions to read, which count from 1."""
        return range(1, 1 + (self.num_sessions or NUM_SESSIONS[subject]))


class Voxels(NamedTuple):
    """Where the targets of a subject lie."""

    mask: Bool[np.ndarray, "x y z"]
    roi: list[str]
    target: list[str]  # "subj01.x-y-z"


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
    paths = [folder / INFO]
    for subject in opts.subjects:
        paths += [_trials_path(folder, subject), _roi_path(folder, subject, opts, MASK)]
        if opts.atlas != MASK:
            paths += [
                _roi_path(folder, subject, opts, opts.atlas),
                _names_path(folder, subject, opts),
            ]
        paths += [_betas_path(folder, subject, opts, k) for k in opts.sessions(subject)]
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
    table = plain.read_table(path, ("nsdId", "caption"))
    if repeated := first_repeated(table["nsdId"].tolist()):
        raise InputError(f"{path} must have one caption per nsdId, found two of {repeated!r}.")
    caption = dict(zip(table["nsdId"].tolist(), table["caption"].tolist(), strict=True))
    if lost := [i for i in shown if str(i) not in caption]:
        raise InputError(
            f"{path} must have a caption of every image: {len(lost)} of {len(shown)} lack one, the "
            f"first is nsdId {lost[0]}."
        )
    names = [_name(i) for i in shown]
    return Stimuli(
        stimulus_id=names,
        text=[caption[str(i)] for i in shown],
        passage=names,
        run=_runs(shown, _shared(root / FOLDER)),
        unit="sentence",
    )


def images(root: pathlib.Path, **options: Any) -> Images:
    """Return the images in the order of the responses, and where their pixels are.

    Raises:
      InputError: if a file is missing.
    """
    files(root, **options)
    (pixels,) = arrays.need("nsd", [root / FOLDER / PIXELS])
    shown = _shown(root / FOLDER, Options(**options))
    return Images(
        stimulus_id=[_name(i) for i in shown],
        run=_runs(shown, _shared(root / FOLDER)),
        file=pixels,
        key=BRICK,
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
    run = _runs(shown, _shared(folder))
    recordings = (_means(folder, subject, opts, shown) for subject in opts.subjects)
    return Responses(
        run=run,
        units="z-scored percent signal change",
        stimulus_id=[_name(i) for i in shown],
        **arrays.beside(recordings, run),
    )


def repeats(root: pathlib.Path, **options: Any) -> Repeats:
    """Read the responses to each presentation of the shared images, by one subject.

    Raises:
      InputError: as `responses`.
    """
    opts = dataclasses.replace(Options(**options), images="shared")
    files(root, **dataclasses.asdict(opts))
    (subject,) = opts.subjects
    folder = root / FOLDER
    shown = _shown(folder, opts)
    where = _voxels(folder, subject, opts)
    row = {image: i for i, image in enumerate(shown)}
    values = np.full((MAX_REPEATS, len(shown), len(where.target)), np.nan, np.float32)
    seen = np.zeros(len(shown), int)
    measured = np.ones(len(where.target), bool)
    for shown_images, scored in _sessions(folder, subject, opts, where):
        measured &= np.isfinite(scored[0])
        for image, betas in zip(shown_images, scored, strict=True):
            if image in row:
                i = row[image]
                values[seen[i], i] = betas
                seen[i] += 1
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
    where = _voxels(folder, subject, opts)
    row = {image: i for i, image in enumerate(shown)}
    total = np.zeros((len(shown), len(where.target)), np.float32)
    seen = np.zeros(len(shown), np.float32)
    measured = np.ones(len(where.target), bool)
    for shown_images, scored in _sessions(folder, subject, opts, where):
        measured &= np.isfinite(scored[0])
        for image, betas in zip(shown_images, scored, strict=True):
            if image in row:
                total[row[image]] += betas
                seen[row[image]] += 1
    if not measured.all():
        logging.warning(
            "nsd %s: %d of %d voxels are constant in a session and left out",
            subject,
            int((~measured).sum()),
            len(measured),
        )
    total /= seen[:, None]
    recording = Recording(subject, total, where.roi, where.target)
    return recording if measured.all() else arrays.columns_of(recording, measured)


def _sessions(
    folder: pathlib.Path, subject: str, opts: Options, where: Voxels
) -> Iterator[tuple[list[int], Float[np.ndarray, "n v"]]]:
    """Yield the images of a session and their z-scored betas, NaN where a voxel is constant."""
    trials = _trial_images(folder, subject, opts)
    for number, shown_images in zip(opts.sessions(subject), trials, strict=True):
        betas = _betas(_betas_path(folder, subject, opts, number), where.mask)
        percent = betas.astype(np.float64) / BETAS_PER_PERCENT
        spread = percent.std(axis=0)
        centred = percent - percent.mean(axis=0)
        with np.errstate(invalid="ignore", divide="ignore"):
            scored = np.where(spread > 0, centred / spread, np.nan)
        yield shown_images.tolist(), scored.astype(np.float32)


def _betas(path: pathlib.Path, mask: Bool[np.ndarray, "x y z"]) -> Float[np.ndarray, "n v"]:
    """Read the integers of the voxels of a mask, in the order of `numpy.argwhere(mask)`."""
    if path.name.endswith(".nii.gz"):
        image = imaging.volume(path, ndim=4)
        slope, intercept = image.header.get_slope_inter()
        scaled = (slope or 1.0, intercept or 0.0) != (1.0, 0.0)
        _check_betas(path, image.get_data_dtype(), image.shape, mask, "x y z trials", scaled)
        return imaging.masked(image, path, mask)
    with arrays.hdf5(path) as file:
        betas = arrays.dataset(file, "betas", ndim=4)
        # MATLAB wrote it, whose first dimension is h5py's last.
        _check_betas(path, betas.dtype, betas.shape[::-1], mask, "x y z trials reversed", False)
        found = []
        for x in np.flatnonzero(mask.any(axis=(1, 2))):
            y, z = np.nonzero(mask[x])
            box = betas[:, z.min() : z.max() + 1, y.min() : y.max() + 1, x]
            found.append(box[:, z - z.min(), y - y.min()])
    return np.concatenate(found, axis=1).astype(np.float32)


def _check_betas(path, dtype, shape, mask, order: str, scaled: bool) -> None:
    wanted = (*mask.shape, NUM_TRIALS)
    if tuple(shape) != wanted:
        raise InputError(
            f"{path} must hold betas of {wanted} ({order}), the mask's grid and {NUM_TRIALS} "
            f"trials, found {tuple(shape)}."
        )
    if dtype != np.int16 or scaled:
        raise InputError(
            f"{path} must hold betas as 16-bit integers, percent signal change times "
            f"{BETAS_PER_PERCENT:g}, found {dtype}{' with a scale of its own' if scaled else ''}."
        )


def _voxels(folder: pathlib.Path, subject: str, opts: Options) -> Voxels:
    """Read mask and atlas; 0 is outside a label, and -1 outside the cortex."""
    path = _roi_path(folder, subject, opts, MASK)
    mask = imaging.label_volume(path)[0] > 0
    names = {1: MASK}
    labels = mask.astype(np.int64)
    if opts.atlas != MASK:
        path = _roi_path(folder, subject, opts, opts.atlas)
        labels = imaging.label_volume(path)[0]
        if labels.shape != mask.shape:
            raise InputError(
                f"{path} must have the grid of {MASK}, {mask.shape}, found {labels.shape}."
            )
        table = _names_path(folder, subject, opts)
        names = imaging.color_table(table)
        if unknown := sorted(set(labels[labels > 0].tolist()) - names.keys()):
            raise InputError(f"{table} must name every label of {path}: {unknown[0]} is missing.")
        mask &= labels > 0
    if not mask.any():
        raise InputError(f"{path} must mark at least one voxel of {MASK}, found none.")
    return Voxels(
        mask=mask,
        roi=[names[i] for i in labels[mask].tolist()],
        target=[f"{subject}.{x}-{y}-{z}" for x, y, z in np.argwhere(mask).tolist()],
    )


def _shown(folder: pathlib.Path, opts: Options) -> list[int]:
    """Return the nsdId of each image in the responses: those of the test set last."""
    shared = _shared(folder)
    own = [set(_trial_images(folder, s, opts).ravel().tolist()) for s in opts.subjects]
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


def _shared(folder: pathlib.Path) -> set[int]:
    """Return the nsdId of the images that everybody saw."""
    table = _info(folder, ["nsdId", "shared1000"])
    shared = set(table["nsdId"][table["shared1000"].astype(bool)].tolist())
    if len(shared) != NUM_SHARED:
        raise InputError(
            f"{folder / INFO}: shared1000 must mark {NUM_SHARED} images, found {len(shared)}."
        )
    return shared


def _info(folder: pathlib.Path, columns: list[str]) -> pd.DataFrame:
    return _numbers(folder / INFO, ",", columns)


def _numbers(path: pathlib.Path, separator: str, columns: list[str]) -> pd.DataFrame:
    """Read columns of whole numbers, or of truth values."""
    try:
        table = pd.read_csv(path, sep=separator, usecols=columns)
    except (ValueError, OSError) as error:
        raise InputError(
            f"{path} must be a table with the columns {', '.join(columns)}: {arrays.line(error)}."
        ) from error
    for name in columns:
        if table[name].dtype.kind not in "iub":
            raise InputError(f"{path}: {name} must hold whole numbers, found {table[name].dtype}.")
    return table


def _trial_images(folder: pathlib.Path, subject: str, opts: Options) -> Int[np.ndarray, "s n"]:
    """Return the nsdId of each trial of each session, as two tables tell alike."""
    path = _trials_path(folder, subject)
    table = _numbers(path, "\t", ["SESSION", "RUN", "TRIAL", "73KID"])
    sessions = opts.sessions(subject)
    table = table[table["SESSION"] <= sessions[-1]]
    order = table[["SESSION", "RUN", "TRIAL"]].to_numpy()
    later = np.lexsort(order.T[::-1])
    if (later != np.arange(len(later))).any():
        raise InputError(f"{path} must list trials by SESSION, RUN and TRIAL: it does not.")
    counts = table["SESSION"].value_counts()
    for number in sessions:
        if counts.get(number, 0) != NUM_TRIALS:
            raise InputError(
                f"{path} must list {NUM_TRIALS} trials of SESSION {number}, found "
                f"{counts.get(number, 0)}."
            )
    shown = table["73KID"].to_numpy(np.int64) - 1
    columns = [f"subject{int(subject[4:])}_rep{k}" for k in range(MAX_REPEATS)]
    info = _info(folder, ["nsdId", *columns])
    planned = np.full(1 + max(int(info[columns].to_numpy().max()), len(shown)), -1)
    for name in columns:  # trials count from 1; 0: not shown
        planned[info[name].to_numpy()] = info["nsdId"].to_numpy()
    differ = planned[1 : 1 + len(shown)] != shown
    if differ.any():
        i = int(differ.argmax())
        raise InputError(
            f"{path} and {folder / INFO} must tell of the same images: trial {i + 1} is nsdId "
            f"{shown[i]} (73KID less 1) in one and {planned[i + 1]} in the other."
        )
    return shown.reshape(len(sessions), NUM_TRIALS)


def _trials_path(folder: pathlib.Path, subject: str) -> pathlib.Path:
    return folder / f"nsddata/ppdata/{subject}/behav/responses.tsv"


def _roi_path(folder: pathlib.Path, subject: str, opts: Options, name: str) -> pathlib.Path:
    return folder / f"nsddata/ppdata/{subject}/{opts.space}/roi/{name}.nii.gz"


def _names_path(folder: pathlib.Path, subject: str, opts: Options) -> pathlib.Path:
    name = opts.atlas.removeprefix("lh.").removeprefix("rh.")
    return folder / f"nsddata/freesurfer/{subject}/label/{name}.mgz.ctab"


def _betas_path(folder: pathlib.Path, subject: str, opts: Options, number: int) -> pathlib.Path:
    """Return the HDF5 file of a session, or the NIfTI where that is the one there."""
    stem = folder / f"nsddata_betas/ppdata/{subject}/{opts.space}/{opts.preparation}"
    path = stem / f"betas_session{number:02d}.hdf5"
    compressed = path.with_suffix(".nii.gz")
    return compressed if compressed.exists() and not path.exists() else path
