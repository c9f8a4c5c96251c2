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

from jaxalign.core import features
from jaxalign.data.adapter import Adapter
from jaxalign.data.formats import recordings
from jaxalign.data.formats.recordings import Recording
from jaxalign.data.images.resized import Resized
from jaxalign.data.images.stored import Hdf5
from jaxalign.data.presentations import Repeats, SignalToNoise
from jaxalign.data.schema import Responses, Stimuli, naming
from jaxalign.data.sets import nsd_captions, nsd_files, nsd_rois, nsd_trials
from jaxalign.data.sets.nsd_rois import MASK, Voxels
from jaxalign.data.sets.nsd_trials import NUM_SESSIONS, Experiment
from jaxalign.errors import InputError

FOLDER = "nsd"
PIXELS = "nsddata_stimuli/stimuli/nsd/nsd_stimuli.hdf5"
BRICK, SIDE = "imgBrick", 425  # and pixels of height and width
# How betas are scaled -> what responses are in.
SCALES = {
    "session": "z-scored percent signal change",
    "split": "percent signal change, z-scored in train and test apart",
    "none": "percent signal change",
}
GIVEN, EVERYBODY = "given", "everybody"
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
      zscore: "session": betas of a voxel are z-scored within their session; "split": their means
        over trials are, over training and test images apart; "none": percent signal change.
      test_repeats: of a shared image, presentations in these sessions that make it one of the test
        set, in each subject given; the others are left out.
      test_of: "everybody": all eight subjects must have seen it so often in all their sessions.
      caption: which of COCO's captions, 1 to 5: see `nsd_captions.read`.
      size: pixels of height and width to which images are brought before a model's own
        preprocessing; 0: as they are stored, 425.
    """

    name: str = "nsd"
    subjects: tuple[str, ...]
    images: str = "all"
    atlas: str = MASK
    rois: tuple[str, ...] = ()
    preparation: str = "betas_fithrf_GLMdenoise_RR"
    space: str = "func1pt8mm"
    num_sessions: int = 0
    zscore: str = "session"
    test_repeats: int = 1
    test_of: str = GIVEN
    caption: int = 1
    size: int = 0

    def __post_init__(self):
        self.check_option("subjects", self.subjects, NUM_SESSIONS)
        self.check_option("images", (self.images,), ("all", "shared"))
        self.check_option("zscore", (self.zscore,), SCALES)
        self.check_option("test_of", (self.test_of,), (GIVEN, EVERYBODY))
        for option, last in (
            ("test_repeats", nsd_trials.MAX_REPEATS),
            ("caption", nsd_captions.NUM),
        ):
            if not 1 <= getattr(self, option) <= last:
                raise InputError(
                    f"data set {self.name}: {option} must lie in 1..{last}, found "
                    f"{getattr(self, option)}."
                )
        if not 0 <= self.size <= SIDE:
            raise InputError(
                f"data set {self.name}: size must lie in 0..{SIDE}, found {self.size}."
            )
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
        """Return tables, masks and betas; captions and ncsnr too where they are there.

        The pixels are not among them: no response depends on them.
        """
        paths = []
        for subject in self.subjects:
            paths += self._experiment.files(subject)
            paths += [self._roi_path(subject, MASK)]
            for volume in nsd_rois.volumes(self.rois) or [self.atlas]:
                paths += self._atlas(subject, volume) if volume != MASK else ()
            paths += [self._betas_path(subject, number) for number in self._sessions(subject)]
            paths += [path for path in [self._ncsnr_path(subject)] if path.is_file()]
        return self.need(dict.fromkeys([*paths, *nsd_captions.files(self._folder)]))

    @property
    def has_images(self) -> bool:
        """Stimuli are images."""
        return True

    def stimuli(self) -> Stimuli:
        """Return the images in the order of the responses, and their captions if there are any."""
        self.files()
        shown = self._shown()
        names = [_name(i) for i in shown]
        pixels = Hdf5(file=self._folder / PIXELS, key=BRICK, row=np.array(shown))
        text = nsd_captions.read(self._experiment, shown, self.caption)
        with naming(self._folder):
            return Stimuli(
                stimulus_id=names,
                text=text,
                passage=names,
                run=self._runs(shown),
                unit="image",
                language="en",
                pixels=Resized(of=pixels, size=self.size) if self.size else pixels,
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
                units=SCALES[self.zscore],
                stimulus_id=[_name(i) for i in shown],
                **columns,
            )

    def repeats(self, subject: str) -> Repeats:
        """Read the responses of a subject to each presentation of the shared images."""
        adapter = dataclasses.replace(self, subjects=(subject,), images="shared")
        adapter.files()
        shown = adapter._shown()
        where = adapter._voxels(subject)
        values = np.full(
            (nsd_trials.MAX_REPEATS, len(shown), len(where.target)), np.nan, np.float32
        )
        seen = np.zeros(len(shown), int)

        def put(i: int, betas: Float[np.ndarray, " v"]) -> None:
            values[seen[i], i] = betas
            seen[i] += 1

        index = np.flatnonzero(adapter._each_trial(subject, where, shown, put))
        values = values[:, :, index]
        if self.zscore == "split":  # as their means are, which are the responses
            center, spread = _spread(_mean(values))
            varies = np.isfinite(spread)
            values = ((values - center) / spread)[:, :, varies].astype(np.float32)
            index = index[varies]
        return Repeats(
            values=values,
            run=[TEST] * len(shown),
            subject=[subject] * len(index),
            roi=[where.roi[i] for i in index],
            target=[where.target[i] for i in index],
            stimulus_id=[_name(i) for i in shown],
        )

    @property
    def has_ncsnr(self) -> bool:
        """Whether NSD's ratios of signal and noise lie beside the betas of every subject."""
        return all(self._ncsnr_path(subject).is_file() for subject in self.subjects)

    def ncsnr(self, subject: str) -> SignalToNoise:
        """Read NSD's ratios of a subject, with the trials of each image."""
        path = self._ncsnr_path(subject)
        self.need([path])
        if self.zscore != "session":
            raise InputError(
                f"{path} is of betas that are z-scored within sessions: zscore must be 'session', "
                f"found {self.zscore!r}."
            )
        where = self._voxels(subject)
        image, count = np.unique(self._trials(subject), return_counts=True)
        shown = self._shown()
        return SignalToNoise(
            ratio=nsd_files.ncsnr(path, where.mask)[where.voxel],
            repeats=count[np.searchsorted(image, shown)],
            stimulus_id=[_name(i) for i in shown],
            is_test=np.array([run == TEST for run in self._runs(shown)]),
            subject=subject,
            roi=where.roi,
            target=where.target,
        )

    @property
    def _folder(self) -> pathlib.Path:
        return self.root / FOLDER

    @property
    def _experiment(self) -> Experiment:
        return Experiment(self._folder)

    def _roi_path(self, subject: str, volume: str) -> pathlib.Path:
        return self._folder / f"nsddata/ppdata/{subject}/{self.space}/roi/{volume}.nii.gz"

    def _atlas(self, subject: str, volume: str) -> tuple[pathlib.Path, pathlib.Path]:
        """Return the volume of labels and their names, which both hemispheres share."""
        table = volume.removeprefix("lh.").removeprefix("rh.")
        names = self._folder / f"nsddata/freesurfer/{subject}/label/{table}.mgz.ctab"
        return self._roi_path(subject, volume), names

    def _betas_folder(self, subject: str) -> pathlib.Path:
        where = f"nsddata_betas/ppdata/{subject}/{self.space}/{self.preparation}"
        return self._folder / where

    def _ncsnr_path(self, subject: str) -> pathlib.Path:
        return self._betas_folder(subject) / "ncsnr.nii.gz"

    def _betas_path(self, subject: str, number: int) -> pathlib.Path:
        """Return the HDF5 file of a session, or the NIfTI where that is the one there."""
        path = self._betas_folder(subject) / f"betas_session{number:02d}.hdf5"
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
        return self._experiment.trials(subject, len(self._sessions(subject)))

    def _shown(self) -> list[int]:
        """Return the nsdId of each image in the responses: those of the test set last."""
        shared = self._experiment.shared()
        test, seen = set(shared), set[int]()
        for subject in self.subjects:
            image, count = np.unique(self._trials(subject), return_counts=True)
            test &= set(image[count >= self.test_repeats].tolist())
            seen = set(image.tolist())
        if self.test_of == EVERYBODY:
            test &= self._experiment.seen_by_everybody(self.test_repeats)
        if not test:
            often = "once" if self.test_repeats == 1 else f"{self.test_repeats} times"
            raise InputError(
                f"data set {self.name}: {', '.join(self.subjects)} must have seen at least one "
                f"shared image {often} in these sessions, found none."
            )
        logging.info(
            "nsd %s: %d of %d shared images are the test set",
            *(", ".join(self.subjects), len(test), len(shared)),
        )
        return sorted(test) if self.images == "shared" else [*sorted(seen - shared), *sorted(test)]

    def _runs(self, shown: list[int]) -> list[str]:
        shared = self._experiment.shared()
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
        if self.zscore == "split":
            for _, rows in features.members(self._runs(shown)).items():
                center, spread = _spread(total[rows])
                total[rows] = (total[rows] - center) / spread
                measured &= np.isfinite(spread)
        betas = self._betas_path(subject, 1).parent
        files: dict[str, pathlib.Path] = {TRAIN: betas, TEST: betas}
        recording = Recording(subject, total, where.roi, where.target, files, grids=(where.grid,))
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
            dead = list(dict.fromkeys(where.target[i] for i in np.flatnonzero(~measured)))
            logging.warning(
                "nsd %s: %d of %d voxels are constant in a session and left out (%s%s)",
                *(subject, len(dead), int(where.mask.sum())),
                *(", ".join(dead[:3]), ", ..." if len(dead) > 3 else ""),
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
            if self.zscore == "session":
                betas -= betas.mean(axis=0)
                betas /= np.where(spread > 0, spread, np.nan)
            betas[:, spread == 0] = np.nan
            yield images.tolist(), betas[:, where.voxel].astype(np.float32)


def _mean(values: Float[np.ndarray, "q n v"]) -> Float[np.ndarray, "n v"]:
    """Average the presentations that there were."""
    there = ~np.isnan(values)
    return (np.where(there, values, 0).sum(axis=0) / there.sum(axis=0)).astype(np.float32)


def _spread(
    values: Float[np.ndarray, "n v"],
) -> tuple[Float[np.ndarray, " v"], Float[np.ndarray, " v"]]:
    """Return mean and standard deviation of each voxel in float64, NaN where it does not vary."""
    spread = values.std(axis=0, dtype=np.float64)
    is_constant = values.max(axis=0) == values.min(axis=0)
    return values.mean(axis=0, dtype=np.float64), np.where(is_constant, np.nan, spread)


def _name(image: int) -> str:
    return f"nsd{image:05d}"
