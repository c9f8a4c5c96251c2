"""A BIDS data set, or derivatives such as fMRIPrep's: scans, their clock, words, confounds.

Its page, docs/datasets/bids.md, says what is found where, and lists the options. The scans' clock
begins where BIDS has it: TR k starts at StartTime + k RepetitionTime, and onsets of events count
from the start of the acquisition.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float, Int

from jaxalign.data import word_columns
from jaxalign.data.adapter import Adapter
from jaxalign.data.formats import bids, confounds, grids, recordings, scans
from jaxalign.data.formats.grids import Grid
from jaxalign.data.formats.recordings import NaN, Recording
from jaxalign.data.schema import Responses, Stimuli, naming
from jaxalign.data.sets import bids_layout, bids_words, nifti, plain
from jaxalign.data.sets.bids_layout import Layout, Run
from jaxalign.data.words import WordFacts
from jaxalign.errors import InputError

_SHORTEST = 0.9  # of the longest scan of a run that another one may have
_CLEANING = confounds.Cleaning()  # how runs are cleaned where nothing is said
_MANY = 0.5  # share of a run's volumes that may be left out before a warning says it is too many
_UNKNOWN = float("nan")


class _Clock(NamedTuple):
    """When the volumes of a run were recorded."""

    tr_s: float
    start_s: float
    is_told: bool  # by StartTime, or the option; else it is 0, as BIDS has it


class _Read(NamedTuple):
    """A run of a subject: values of the volumes that are kept, their numbers, and all volumes."""

    values: Float[np.ndarray, "n v"]
    kept: Int[np.ndarray, " n"]
    num_volumes: int


class _Places(NamedTuple):
    """Names and places of a subject's targets."""

    names: list[tuple[str, str]]  # of ROI and target
    where: nifti.Places
    grids: tuple[Grid, ...]  # see data/formats/grids.py


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bids(Adapter):
    """Scans of a BIDS folder; its options are those of docs/datasets/bids.md."""

    name: str = "of one's own"
    timed = True
    subjects: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    space: str = ""
    kind: str = ""
    desc: str = ""
    derivatives: str = ""
    raw: str = ""
    words: str = ""
    column: str = ""
    tier: str = ""
    passage: str = ""
    trial_types: tuple[str, ...] = ()
    unit: str = ""
    skip: tuple[str, ...] = ()
    language: str = ""
    mask: str = ""
    atlas: str = ""
    labels: str = ""
    targets: str = ""
    strategy: tuple[str, ...] = _CLEANING.strategy
    motion: str = _CLEANING.motion
    wm_csf: str = _CLEANING.wm_csf
    global_signal: str = _CLEANING.global_signal
    num_compcor: int = _CLEANING.num_compcor
    fd_mm: float = _CLEANING.fd_mm
    std_dvars: float = _CLEANING.std_dvars
    segment: int = _CLEANING.segment
    high_pass_hz: float = _CLEANING.high_pass_hz
    standardize: str = _CLEANING.standardize
    tr_s: float = _UNKNOWN
    start_s: float = _UNKNOWN
    nan: NaN = "refuse"

    def __post_init__(self):
        confounds.check(self.cleaning)
        bids_words.check(self._reading)
        if self.targets not in ("", *nifti.TARGETS):
            raise InputError(
                f"targets must be one of {', '.join(nifti.TARGETS)}, found {self.targets!r}."
            )
        if self.targets == "means" and not self.atlas:
            raise InputError("targets=means must have an atlas, whose labels are averaged.")
        if self.labels and not self.atlas:
            raise InputError("labels must have an atlas, whose labels are named.")

    @property
    def cleaning(self) -> confounds.Cleaning:
        """How runs are cleaned."""
        return confounds.Cleaning(
            **{name: getattr(self, name) for name in confounds.Cleaning._fields}
        )

    @property
    def label(self) -> str:
        """The name, and behind it the space and what was done to the scans; for rows and pages."""
        layout = self.layout
        parts = [layout.space]
        if layout.desc not in ("", "preproc"):
            parts.append(f"desc-{layout.desc}")
        if self.atlas:
            parts.append(f"{self._targets} of {pathlib.Path(self.atlas).name.split('.')[0]}")
        return f"{self.name} ({', '.join([*parts, self.cleaning.label])})"

    @functools.cached_property
    def layout(self) -> Layout:
        """Which scans are read, and what lies with them."""
        names = ("subjects", "sessions", "tasks", "runs", "space", "kind", "desc")
        wanted = bids_layout.Wanted(**{name: getattr(self, name) for name in names})
        return bids_layout.find(self.root, wanted, self.derivatives, self.raw)

    def files(self) -> list[pathlib.Path]:
        """Return words, scans, and what lies with them; what is missing is refused by name."""
        layout, found = self.layout, []
        for run in layout.runs:
            self._clock(run)
            found += [image.path for image in run.images]
            found += run.sidecars
            if layout.kind == "volume" and not self.mask:
                found += self._masks(run)
            if self.cleaning.has_confounds:
                found += self._confounds(run)
            found += [x for image in run.images for x in self._atlas(run, image)]
        own = self.root / plain.STIMULI
        spoken = [own] if self._has_table else bids_words.files(layout, self._words)
        shared = [self._at(x, "mask") for x in (self.mask,) if x]
        return self.need(dict.fromkeys([*spoken, *shared, *found]))

    def stimuli(self) -> Stimuli:
        """Read the words of the runs, which all subjects have in common."""
        return self._spoken

    @functools.cached_property
    def _spoken(self) -> Stimuli:
        self.files()
        if self._has_table:
            return plain.read_stimuli(self.root / plain.STIMULI)
        tr_s = {run.label: self._clock(run).tr_s for run in self.layout.runs}
        return bids_words.read(self.layout, self._words, self._reading, tr_s)

    def word_facts(self) -> WordFacts:
        """Read what a table of stimuli says of words; events say nothing."""
        if not self._has_table:
            return super().word_facts()
        return word_columns.read(self.root / plain.STIMULI, plain.STRUCTURE)

    @property
    def has_frequencies(self) -> bool:
        """Whether a table of stimuli has a column of them."""
        return self._has_table and word_columns.has_frequencies(self.root / plain.STIMULI)

    def responses(self) -> Responses:
        """Read, clean and scrub all scans: runs below each other, subjects side by side.

        A volume that is scrubbed in one subject is no sample of any: all have the same samples.
        """
        return self._recorded[0]

    @property
    def left_out(self) -> str:
        """How many volumes are no samples, for each subject."""
        return self._recorded[1]

    @functools.cached_property
    def _recorded(self) -> tuple[Responses, str]:
        self.files()
        layout = self.layout
        clocks = self._clocks()
        by_subject: dict[str, list[Run]] = {}
        for run in layout.runs:
            by_subject.setdefault(run.subject, []).append(run)
        order = [run.label for run in next(iter(by_subject.values()))]
        is_own = layout.is_shared is False
        shared = None if is_own else self._within(layout.runs)
        known: dict[tuple, dict[int, str]] = {}
        read: dict[str, dict[str, _Read]] = {}
        places: dict[str, _Places] = {}
        for subject, runs in by_subject.items():
            within = self._within(runs) if is_own else shared
            read[subject], places[subject] = self._subject(runs, within, known)
        kept = {label: self._common(label, {s: read[s][label] for s in read}) for label in order}
        left_out = self._left_out(read, kept)
        if left_out:
            logging.warning("data set %s: %s", layout.root, left_out)
        run = [label for label in order for _ in kept[label]]
        found = (
            Recording(
                subject,
                np.concatenate(
                    [own[x].values[np.searchsorted(own[x].kept, kept[x])] for x in order]
                ),
                [roi for roi, _ in places[subject].names],
                [target for _, target in places[subject].names],
                {x.label: x.images[0].path for x in by_subject[subject]},
                *places[subject].where,
                grids=places[subject].grids,
            )
            for subject, own in read.items()
        )
        columns = recordings.side_by_side(found, run, nan=self.nan)
        times = [clocks[x].start_s + clocks[x].tr_s * kept[x] for x in order]
        units = "as in the images" if self.standardize == "none" else "standard deviations of a run"
        with naming(layout.root):
            found = Responses(
                run=run,
                units=units,
                time_s=np.concatenate(times),
                tr_s=clocks[order[0]].tr_s,
                **columns,
            )
        return found, left_out

    @property
    def _targets(self) -> str:
        return self.targets or ("means" if self.atlas else "voxels")

    @property
    def _has_table(self) -> bool:
        return not self.words and (self.root / plain.STIMULI).is_file()

    @property
    def _words(self) -> pathlib.Path | None:
        return self._at(self.words, "words") if self.words else None

    @property
    def _reading(self) -> bids_words.Reading:
        return bids_words.Reading(
            **{name: getattr(self, name) for name in bids_words.Reading._fields}
        )

    def _at(self, path: str, option: str) -> pathlib.Path:
        """Return a path that is given from the data set's folder, or from where the run starts."""
        places = [self.root / path, pathlib.Path(path)]
        found = next((x for x in places if x.exists()), None)
        if found is None:
            raise InputError(f"{option} must be a path, from {self.root} or from here: {path!r}.")
        return found

    def _clock(self, run: Run) -> _Clock:
        image = run.images[0].path
        timing = bids.timing(run.sidecars[-1], run.sidecars[:-1]) if run.sidecars else bids.Timing()
        told = f" (of {', '.join(x.name for x in run.sidecars)})" if run.sidecars else ""
        tr_s = _agreed(image, "RepetitionTime", timing.tr_s, "tr_s", self.tr_s)
        if tr_s is None:
            raise InputError(
                f"{image} needs a JSON file with RepetitionTime, next to it or above it"
                f"{told or ': there is none'}; or give tr_s=SECONDS, and start_s=SECONDS, when its "
                "first volume was recorded."
            )
        start_s = _agreed(image, "StartTime", timing.start_s, "start_s", self.start_s)
        if start_s is None and not run.sidecars:
            raise InputError(
                f"{image} has no JSON file, so that StartTime is not known, to which fMRIPrep "
                "moves the slices (half a TR): put the file back, or give start_s=SECONDS."
            )
        if start_s is None and timing.slices_corrected:
            raise InputError(
                f"{run.sidecars[-1]}: SliceTimingCorrected is true, so StartTime must say to which "
                "time slices were moved: give start_s=SECONDS (half a TR in fMRIPrep before 21.0, "
                "unless --slice-time-ref said otherwise)."
            )
        return _Clock(tr_s, start_s or 0.0, start_s is not None)

    def _clocks(self) -> dict[str, _Clock]:
        """Return the clock of each run, which must be that of every subject."""
        found: dict[str, _Clock] = {}
        for run in self.layout.runs:
            own = self._clock(run)
            known = found.setdefault(run.label, own)
            if max(abs(known.tr_s - own.tr_s), abs(known.start_s - own.start_s)) > 1e-3 * own.tr_s:
                raise InputError(
                    f"{run.images[0].path}: run {run.label} must have the RepetitionTime and "
                    f"StartTime of the subjects before, {known.tr_s:g} and {known.start_s:g} s, "
                    f"found {own.tr_s:g} and {own.start_s:g} s: choose by subjects."
                )
        trs = sorted({clock.tr_s for clock in found.values()})
        if trs[-1] - trs[0] > 1e-3 * trs[0]:
            raise InputError(
                f"data set {self.layout.root}: RepetitionTime must be the same in every run, found "
                f"{', '.join(f'{x:g}' for x in trs)} s: choose by tasks, sessions or runs."
            )
        return found

    def _masks(self, run: Run) -> list[pathlib.Path]:
        if not run.masks and not self.atlas:
            raise InputError(
                f"{run.images[0].path} needs a brain mask next to it, ..._desc-brain_mask.nii.gz: "
                "give a mask=PATH or an atlas=PATH on its grid."
            )
        return list(run.masks)

    def _confounds(self, run: Run) -> list[pathlib.Path]:
        if not run.confounds:
            raise InputError(
                f"{run.images[0].path} needs fMRIPrep's confounds next to it, "
                "..._desc-confounds_timeseries.tsv: set strategy=none in --config.options to "
                "regress out nothing."
            )
        return list(run.confounds)

    def _atlas(self, run: Run, image: bids_layout.Name) -> list[pathlib.Path]:
        """Return the atlas of a scan and the table of its labels, as far as there are any."""
        side = image.entities.get("hemi", "")
        names = {"{subject}": run.subject, "{run}": run.label, "{hemi}": side}
        found = []
        for option in ("atlas", "labels"):
            path = getattr(self, option)
            for key, value in names.items():
                path = path.replace(key, value)
            found += [self._at(path, option)] if path else []
        return found

    def _within(self, runs: Sequence[Run]) -> scans.Mask | None:
        """Return what all brain masks of some runs hold, or the one mask that was given."""
        if self.layout.kind != "volume":
            return None
        masks = [self._at(self.mask, "mask")] if self.mask else []
        masks = masks or [path for run in runs for path in self._masks(run)]
        return scans.common_mask(masks) if masks else None

    def _subject(
        self, runs: Sequence[Run], within: scans.Mask | None, known: dict[tuple, dict[int, str]]
    ) -> tuple[dict[str, _Read], _Places]:
        """Read and clean the runs of a subject, which must have the same targets."""
        found: dict[str, _Read] = {}
        names: list[tuple[str, str]] = []
        places: list[nifti.Places] = []
        images: dict[str, list[Grid]] = {}
        for run in runs:
            sides, own_names, num_volumes = [], [], 0
            for image in run.images:
                row = self._row(run, image)
                atlas = row.atlas if self.atlas else None
                scan = scans.read(row.image, atlas, row.tr_s, row.hemisphere, within=within)
                self._check_start(run, row.image, scan.start_s)
                key = (row.atlas if atlas else row.hemisphere, *np.unique(scan.label).tolist())
                if key not in known:
                    known[key] = nifti.names_of(row, scan)
                    if row.hemisphere and not atlas:
                        side = {"L": "left", "R": "right"}[row.hemisphere]
                        known[key] = {1: f"cortex_{side}"}
                values, roi, target, where, column = nifti.targets_of(row, scan, known[key])
                if row.targets == "voxels":
                    prefix = f"{row.hemisphere}." if row.hemisphere else ""
                    own = "" if self.layout.is_shared else f"{run.subject}."
                    target = [f"{own}{prefix}{x}" for x in target]
                elif row.hemisphere:
                    target = [f"{row.hemisphere}.{x}" for x in target]
                of_side = list(zip(roi, target, strict=True))
                placed = grids.place(scan.frame, run.subject, column, of_side)
                images.setdefault(row.hemisphere, []).append(placed)
                own_names += of_side
                sides.append(values)
                places.append(where)
            if len({len(x) for x in sides}) > 1:
                raise InputError(
                    f"{run.images[0].path}: both hemispheres must have as many TRs, found "
                    f"{' and '.join(str(len(x)) for x in sides)}."
                )
            if names and names != own_names:
                raise InputError(
                    f"{run.images[0].path}: every run of sub-{run.subject} must have the same "
                    f"targets, but {run.label} has {len(own_names)} for {len(names)} in "
                    f"{runs[0].label}, or others: give one mask or atlas."
                )
            names = own_names
            values = np.concatenate(sides, axis=1)
            num_volumes = len(values)
            found[run.label] = _Read(*self._cleaned(run, values), num_volumes)
            logging.info(
                "run %s of sub-%s is read: %d of %d volumes, %d targets (run %d of %d)",
                *(run.label, run.subject, len(found[run.label].kept), num_volumes),
                *(values.shape[1], self.layout.runs.index(run) + 1, len(self.layout.runs)),
            )
        of_all = nifti.grids_of(self.layout.root, images)
        return found, _Places(names, nifti.where(places), of_all)

    def _row(self, run: Run, image: bids_layout.Name) -> nifti.Row:
        atlas = self._atlas(run, image)
        return nifti.Row(
            subject=run.subject,
            run=run.label,
            image=image.path,
            atlas=atlas[0] if atlas else image.path,
            targets=self._targets,
            tr_s=self._clock(run).tr_s,
            start_s=None,
            stimuli_start_s=None,
            labels=atlas[1] if len(atlas) > 1 else None,
            hemisphere=image.entities.get("hemi", ""),
        )

    def _check_start(self, run: Run, image: pathlib.Path, header_s: float) -> None:
        """Refuse a header that has another start; of 0 it tells nothing."""
        clock = self._clock(run)
        if header_s and abs(header_s - clock.start_s) > 1e-3 * clock.tr_s:
            said = "StartTime is" if clock.is_told else "without a StartTime that is"
            raise InputError(
                f"{image}: its header starts at {header_s:g} s, {said} {clock.start_s:g} s: "
                "correct one of them, or give start_s=SECONDS where the JSON file has none."
            )

    def _cleaned(self, run: Run, values: Float[np.ndarray, "n v"]) -> confounds.Cleaned:
        how = self.cleaning
        found = confounds.Confounds(None, None)
        if how.has_confounds:
            images = [image.path for image in run.images]
            found = confounds.load(images, self._confounds(run)[0], how)
        where = str(self._confounds(run)[0] if how.has_confounds else run.images[0].path)
        return confounds.clean(values, found, how, self._clock(run).tr_s, where)

    def _common(self, label: str, read: dict[str, _Read]) -> Int[np.ndarray, " n"]:
        """Return the volumes of a run that are left in every subject."""
        sizes = {subject: own.num_volumes for subject, own in read.items()}
        shortest = min(sizes, key=lambda subject: sizes[subject])
        longest = max(sizes.values())
        if sizes[shortest] < _SHORTEST * longest:
            raise InputError(
                f"data set {self.layout.root}: run {label} of sub-{shortest} must be whole: it has "
                f"{sizes[shortest]} volumes, and others have {longest}: choose by subjects or runs."
            )
        kept = functools.reduce(np.intersect1d, [own.kept for own in read.values()])
        if not len(kept):
            raise InputError(
                f"data set {self.layout.root}: run {label} must have a volume that is scrubbed in "
                f"no subject, found none of {longest}: choose by subjects, or raise fd_mm."
            )
        return kept

    def _left_out(
        self, read: dict[str, dict[str, _Read]], kept: dict[str, Int[np.ndarray, " n"]]
    ) -> str:
        """Count the volumes that are no samples: scrubbed, or beyond the end of a shorter scan."""
        total = {label: max(own[label].num_volumes for own in read.values()) for label in kept}
        lost = sum(total.values()) - sum(map(len, kept.values()))
        if not lost:
            return ""
        each = [
            f"sub-{subject} {sum(total[x] - len(own[x].kept) for x in own)}"
            for subject, own in read.items()
        ]
        many = len(read) > 1 and lost > _MANY * sum(total.values())
        hint = ": read them one by one (subjects=)" if many else ""
        return (
            f"{lost} of {sum(total.values())} volumes are no samples, neither in training nor in "
            "test; their times are kept, for delays. Scrubbed, or beyond the end of a scan, are: "
            f"{', '.join(each)}. What one subject lacks is left out for all{hint}."
        )


def _agreed(
    image: pathlib.Path, key: str, told: float | None, option: str, given: float
) -> float | None:
    """Return a time that a JSON file tells, or an option gives; refuse two that differ."""
    if np.isnan(given):
        return told
    if told is not None and abs(told - given) > 1e-3 * max(abs(given), 1e-3):
        raise InputError(
            f"{image}: {key} of its JSON file is {told:g} s, and {option} is {given:g} s: leave "
            "the option out, or correct the file."
        )
    return given
