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
import functools
import pathlib
from collections.abc import Callable, Iterator

import numpy as np
from absl import logging
from jaxtyping import Bool, Float, Int

from jaxalign.data.adapter import Adapter
from jaxalign.data.formats import recordings, tables
from jaxalign.data.formats.recordings import Recording
from jaxalign.data.images.stored import Hdf5
from jaxalign.data.presentations import Repeats
from jaxalign.data.schema import Responses, Stimuli, naming
from jaxalign.data.sets import nsd_files, nsd_rois
from jaxalign.data.sets.nsd_rois import MASK, Voxels
from jaxalign.errors import InputError

FOLDER = "nsd"
INFO = "nsddata/experiments/nsd/nsd_stim_info_merged.csv"
PIXELS = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
CAPTIONS = "captions.csv"
BRICK = "imgBrick"
# Sessions that each subject came for.
NUM_SESSIONS = dict(
    zip((f"subj0{i}" for i in range(1, 9)), (40, 40, 32, 30, 40, 32, 40, 30), strict=True)
)
TRAIN, TEST = "train", "test"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Nsd(Adapter):
    """Images, and betas of voxels.

    Attributes:
      subjects: subj01 to subj08.
      images: "all" that the one subject saw, or the "shared" ones that every subject given saw.
      atlas: volume of labels in `roi/`, such as "prf-visualrois" or "floc-places"; voxels are
        those of the mask that bear a label, and every label is a ROI. The mask itself: one ROI.
      rois: ROIs by name instead, from `nsd_rois.ROIS`: of several volumes, and several labels may
        be one, such as V1. A voxel of two ROIs is a target of both.
      preparation: which betas.
      space: "func1pt8mm" or "func1mm".
      num_sessions: the first ones of each subject; 0: all.
      zscore: whether betas are z-scored within their session; else they are percent signal change.
    """

    name: str = "nsd"
    subjects: tuple[str, ...]
    images: str = "all"
    atlas: str = MASK
    rois: tuple[str, ...] = ()
    preparation: str = "betas_fithrf_GLMdenoise_RR"
    space: str = "func1pt8mm"
    num_sessions: int = 0
    zscore: bool = True

    def __post_init__(self):
        self.check_option("subjects", self.subjects, NUM_SESSIONS)
        self.check_option("images", (self.images,), ("all", "shared"))
        if self.images == "all" and len(self.subjects) > 1:
            raise InputError(
                f"data set {self.name}: images must be 'shared' for several subjects, who saw "
                f"different ones otherwise, found 'all' for {', '.join(self.subjects)}."
            )
        if self.rois:
            self.check_option("rois", self.rois, nsd_rois.ROIS)
            if len(set(self.rois)) < len(self.rois):
                raise InputError(
                    f"data set {self.name}: rois must differ, found {', '.join(self.rois)}."
                )
            if self.atlas != MASK:
                raise InputError(
                    f"data set {self.name}: atlas must be left out where rois name their own, "
                    f"found {self.atlas!r}."
                )
        fewest = min(NUM_SESSIONS[s] for s in self.subjects)
        if not 0 <= self.num_sessions <= fewest:
            raise InputError(
                f"data set {self.name}: num_sessions must lie in 0..{fewest} for "
                f"{', '.join(self.subjects)}, found {self.num_sessions}."
            )

    def files(self) -> list[pathlib.Path]:
        """Return tables, masks and betas; `captions.csv` too where there is one.

        The pixels are not among them: no response depends on them.
        """
        paths = [self._folder / INFO]
        for subject in self.subjects:
            paths += [self._trials_path(subject), self._roi_path(subject, MASK)]
            for volume in nsd_rois.volumes(self.rois) or [self.atlas]:
                paths += self._atlas(subject, volume) if volume != MASK else ()
            paths += [self._betas_path(subject, number) for number in self._sessions(subject)]
        captions = self._folder / CAPTIONS
        return self.need([*paths, *([captions] if captions.exists() else [])])

    @property
    def has_images(self) -> bool:
        """Stimuli are images."""
        return True

    def stimuli(self) -> Stimuli:
        """Return the images in the order of the responses, and what `captions.csv` says of them.

        The table has the columns nsdId and caption; without it there is no text.
        """
        self.files()
        shown = self._shown()
        names = [_name(i) for i in shown]
        path = self._folder / CAPTIONS
        with naming(path):
            return Stimuli(
                stimulus_id=names,
                text=_captions(path, shown) if path.is_file() else (),
                passage=names,
                run=self._runs(shown),
                unit="image",
                language="en",
                pixels=Hdf5(file=self._folder / PIXELS, key=BRICK, row=np.array(shown)),
            )

    def responses(self) -> Responses:
        """Read the mean response to each image, training images first.

        Voxels that are constant in a session were not measured in it; they are left out, and
        counted.
        """
        self.files()
        shown = self._shown()
        run = self._runs(shown)
        columns = recordings.side_by_side((self._means(s, shown) for s in self.subjects), run)
        with naming(self._folder):
            return Responses(
                run=run,
                units=("z-scored " if self.zscore else "") + "percent signal change",
                stimulus_id=[_name(i) for i in shown],
                **columns,
            )

    def repeats(self, subject: str) -> Repeats:
        """Read the responses of a subject to each presentation of the shared images."""
        adapter = dataclasses.replace(self, subjects=(subject,), images="shared")
        adapter.files()
        shown = adapter._shown()
        where = adapter._voxels(subject)
        values = np.full((nsd_files.MAX_REPEATS, len(shown), len(where.target)), np.nan, np.float32)
        seen = np.zeros(len(shown), int)

        def put(i: int, betas: Float[np.ndarray, " v"]) -> None:
            values[seen[i], i] = betas
            seen[i] += 1

        measured = adapter._each_trial(subject, where, shown, put)
        index = np.flatnonzero(measured)
        return Repeats(
            values=values[:, :, index],
            run=[TEST] * len(shown),
            subject=[subject] * len(index),
            roi=[where.roi[i] for i in index],
            target=[where.target[i] for i in index],
            stimulus_id=[_name(i) for i in shown],
        )

    @property
    def _folder(self) -> pathlib.Path:
        return self.root / FOLDER

    def _trials_path(self, subject: str) -> pathlib.Path:
        return self._folder / f"nsddata/ppdata/{subject}/behav/responses.tsv"

    def _roi_path(self, subject: str, volume: str) -> pathlib.Path:
        return self._folder / f"nsddata/ppdata/{subject}/{self.space}/roi/{volume}.nii.gz"

    def _atlas(self, subject: str, volume: str) -> tuple[pathlib.Path, pathlib.Path]:
        """Return the volume of labels and their names, which both hemispheres share."""
        table = volume.removeprefix("lh.").removeprefix("rh.")
        names = self._folder / f"nsddata/freesurfer/{subject}/label/{table}.mgz.ctab"
        return self._roi_path(subject, volume), names

    def _betas_path(self, subject: str, number: int) -> pathlib.Path:
        """Return the HDF5 file of a session, or the NIfTI where that is the one there."""
        stem = f"nsddata_betas/ppdata/{subject}/{self.space}/{self.preparation}"
        path = self._folder / stem / f"betas_session{number:02d}.hdf5"
        compressed = path.with_suffix(".nii.gz")
        return compressed if compressed.exists() and not path.exists() else path

    def _sessions(self, subject: str) -> range:
        return range(1, 1 + (self.num_sessions or NUM_SESSIONS[subject]))

    def _voxels(self, subject: str) -> Voxels:
        mask = self._roi_path(subject, MASK)
        atlas = functools.partial(self._atlas, subject)
        if self.rois:
            return nsd_rois.of_groups(subject, mask, atlas, self.rois)
        return nsd_rois.of_atlas(subject, mask, None if self.atlas == MASK else atlas(self.atlas))

    def _trials(self, subject: str) -> Int[np.ndarray, "s n"]:
        """Return the nsdId of each trial of each session."""
        return nsd_files.trial_images(
            self._trials_path(subject), self._folder / INFO, subject, self._sessions(subject)
        )

    def _shown(self) -> list[int]:
        """Return the nsdId of each image in the responses: those of the test set last."""
        shared = nsd_files.shared(self._folder / INFO)
        seen = [set(self._trials(subject).ravel().tolist()) for subject in self.subjects]
        test = sorted(set.intersection(*seen) & shared)
        if not test:
            raise InputError(
                f"data set {self.name}: {', '.join(self.subjects)} must have seen at least one "
                "shared image in these sessions, found none."
            )
        return test if self.images == "shared" else [*sorted(seen[0] - shared), *test]

    def _runs(self, shown: list[int]) -> list[str]:
        shared = nsd_files.shared(self._folder / INFO)
        return [TEST if image in shared else TRAIN for image in shown]

    def _means(self, subject: str, shown: list[int]) -> Recording:
        """Average the trials of each image."""
        where = self._voxels(subject)
        total = np.zeros((len(shown), len(where.target)), np.float32)
        seen = np.zeros(len(shown), np.float32)

        def add(i: int, betas: Float[np.ndarray, " v"]) -> None:
            total[i] += betas
            seen[i] += 1

        measured = self._each_trial(subject, where, shown, add)
        total /= seen[:, None]
        betas = self._betas_path(subject, 1).parent
        files: dict[str, pathlib.Path] = {TRAIN: betas, TEST: betas}
        recording = Recording(subject, total, where.roi, where.target, files)
        return recording if measured.all() else recordings.columns_of(recording, measured)

    def _each_trial(
        self,
        subject: str,
        where: Voxels,
        shown: list[int],
        take: Callable[[int, np.ndarray], None],
    ) -> Bool[np.ndarray, " v"]:
        """Hand over the betas of every trial of the images, with the image's place among them.

        Returns:
          Which voxels were measured in every session.
        """
        row = {image: i for i, image in enumerate(shown)}
        measured = np.ones(len(where.target), bool)
        for trials, scored in self._scored(subject, where):
            measured &= np.isfinite(scored[0])
            for image, betas in zip(trials, scored, strict=True):
                if image in row:
                    take(row[image], betas)
        if not measured.all():
            logging.warning(
                "nsd %s: %d of %d voxels are constant in a session and left out",
                subject,
                len(set(where.voxel[~measured].tolist())),
                int(where.mask.sum()),
            )
        return measured

    def _scored(
        self, subject: str, where: Voxels
    ) -> Iterator[tuple[list[int], Float[np.ndarray, "n v"]]]:
        """Yield the images of a session and their betas, NaN where a voxel is constant."""
        sessions = zip(self._sessions(subject), self._trials(subject), strict=True)
        for number, images in sessions:
            stored = nsd_files.betas(self._betas_path(subject, number), where.mask)
            betas = stored.astype(np.float64) / nsd_files.BETAS_PER_PERCENT
            spread = betas.std(axis=0)
            if self.zscore:
                betas -= betas.mean(axis=0)
                betas /= np.where(spread > 0, spread, np.nan)
            betas[:, spread == 0] = np.nan
            yield images.tolist(), betas[:, where.voxel].astype(np.float32)


def _captions(path: pathlib.Path, shown: list[int]) -> list[str]:
    table = tables.read(path, ("nsdId", "caption"))
    if repeated := tables.first_repeated(table["nsdId"].tolist()):
        raise InputError(f"{path} must have one caption per nsdId, found two of {repeated!r}.")
    caption = dict(zip(table["nsdId"].tolist(), table["caption"].tolist(), strict=True))
    if lost := [i for i in shown if str(i) not in caption]:
        raise InputError(
            f"{path} must have a caption of every image: {len(lost)} of {len(shown)} lack one, the "
            f"first is nsdId {lost[0]}."
        )
    return [caption[str(i)] for i in shown]


def _name(image: int) -> str:
    return f"nsd{image:05d}"
