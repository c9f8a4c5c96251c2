"""Scans of one's own: NIfTI, CIFTI or GIFTI with masks or parcels, and a table that names them.

`stimuli.csv` is that of `data/sets/plain.py`. `images.csv` has a row per scan (GIFTI: per
hemisphere):

  subject, run     whose and which; runs are those of the stimuli
  image            4-D `.nii`/`.nii.gz`, `.dtseries.nii`, or `.func.gii` with an array per TR
  atlas            mask or labels on the same grid: 3-D `.nii`/`.nii.gz`, `.dlabel.nii` or
                   `.dscalar.nii`, `.label.gii` or `.shape.gii`; 0 is outside
  targets          "voxels" (or vertices): each is a target; "means": the mean of each label is
  tr_s             repetition time, which is held against the header
  start_s          start of the first TR on the clock of the stimuli; it may be empty where the scan
                   tells it: toffset (NIfTI), SeriesStart (CIFTI) or, in a JSON file of BIDS next
                   to it, StartTime. What differs is refused
  stimuli_start_s  optional: where the stimuli have another clock than the scan, when theirs begins
                   on that of the scan; start_s may then be empty, or is what results
  labels           optional: a CSV with the columns label and roi, where `atlas` has no names
  hemisphere       GIFTI only: L or R

Paths are relative to the directory. Voxels are comparable across subjects where all of these share
one atlas (or one per hemisphere), and means of labels always are. Voxels of volumes have
coordinates, in the space that the header names (sform_code, else qform_code; 4 is MNI152).
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float, Int

from jaxalign.data import word_columns
from jaxalign.data.adapter import Adapter
from jaxalign.data.formats import bids, coordinates, grids, imaging, recordings, scans, tables
from jaxalign.data.formats.grids import Grid
from jaxalign.data.formats.recordings import Recording
from jaxalign.data.schema import Behavior, Responses, Stimuli, naming
from jaxalign.data.sets import plain
from jaxalign.data.words import WordFacts
from jaxalign.errors import InputError

TABLE = "images.csv"
STIMULI = "stimuli.csv"
COLUMNS = ("subject", "run", "image", "atlas", "targets", "tr_s")
TARGETS = ("voxels", "means")
HEMISPHERES = ("L", "R")
_SHOWN = 8  # labels in a message
# What tables call label 0, which is no ROI.
_BACKGROUND = ("background", "bg", "unknown", "unlabeled", "unlabelled", "clear label", "exterior")
_BACKGROUND += ("outside", "none", "0", "???", "medial wall", "medial_wall")


class Row(NamedTuple):
    """A row of `images.csv`."""

    subject: str
    run: str
    image: pathlib.Path
    atlas: pathlib.Path
    targets: str
    tr_s: float
    start_s: float | None
    stimuli_start_s: float | None
    labels: pathlib.Path | None
    hemisphere: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scans(Adapter):
    """A directory with stimuli and a table of scans."""

    name: str = "of one's own"
    timed = True

    def files(self) -> list[pathlib.Path]:
        """Return both tables, and the images, atlases and labels that `images.csv` names."""
        both = self.need([self.root / STIMULI, self.root / TABLE])
        if others := [x for x in plain.RESPONSES if (self.root / x).is_file()]:
            raise InputError(f"data set {self.root} must hold {TABLE} or {others[0]}, found both.")
        named = [
            x
            for row in _rows(self.root)
            for x in (row.image, row.atlas, row.labels, bids.sidecar(row.image))
            if x
        ]
        times = self.root / plain.BEHAVIOR
        return self.need([*both, *dict.fromkeys(named), *([times] if times.is_file() else [])])

    def stimuli(self) -> Stimuli:
        """Read the table of stimuli."""
        return plain.read_stimuli(self.files()[0])

    def behavior(self) -> Behavior:
        """Read the reading times, as `data/sets/plain.py` does."""
        (path,) = self.need([self.root / plain.BEHAVIOR])
        return plain.read_behavior(path)

    def word_facts(self) -> WordFacts:
        """Read what the table of stimuli says of words."""
        return word_columns.read(self.files()[0], plain.STRUCTURE)

    def has(self, kind: str) -> bool:
        """Whether there is a file of it."""
        return super().has(kind) and (kind != "behavior" or (self.root / plain.BEHAVIOR).is_file())

    @property
    def has_frequencies(self) -> bool:
        """Whether the table of stimuli has a column of them."""
        return word_columns.has_frequencies(self.files()[0])

    def responses(self) -> Responses:
        """Read all scans: runs below each other, hemispheres and subjects side by side."""
        self.files()
        path = self.root / TABLE
        rows = _rows(self.root)
        tr_s = _same(path, rows, "tr_s")
        by_subject: dict[str, dict[tuple[str, str], Row]] = {}
        for row in rows:
            scans_of = by_subject.setdefault(row.subject, {})
            if (row.run, row.hemisphere) in scans_of:
                raise InputError(
                    f"{path} must have one row per subject, run and hemisphere, found two of "
                    f"{row.subject!r}, {row.run!r}{', ' * bool(row.hemisphere)}{row.hemisphere}."
                )
            scans_of[row.run, row.hemisphere] = row
        atlases = {(row.hemisphere, row.atlas) for row in rows}
        is_shared = len(atlases) == len({row.hemisphere for row in rows})
        lengths: dict[str, tuple[int, float]] = {}
        found = [
            _recording(path, subject, scans_of, lengths, is_shared)
            for subject, scans_of in by_subject.items()
        ]
        run = [name for name, (size, _) in lengths.items() for _ in range(size)]
        times = [start + tr_s * np.arange(size) for size, start in lengths.values()]
        columns = recordings.side_by_side(found, run)
        with naming(path):
            return Responses(
                run=run,
                units="as in the images",
                time_s=np.concatenate(times),
                tr_s=tr_s,
                **columns,
            )


def _recording(
    path: pathlib.Path,
    subject: str,
    rows: dict[tuple[str, str], Row],
    lengths: dict[str, tuple[int, float]],
    is_shared: bool,
) -> Recording:
    """Read the scans of a subject, and hold their lengths against those of the subjects before."""
    runs = list(dict.fromkeys(run for run, _ in rows))
    hemispheres = list(dict.fromkeys(hemisphere for _, hemisphere in rows))
    if len(rows) != len(runs) * len(hemispheres):
        raise InputError(f"{path} must have every hemisphere in every run of subject {subject!r}.")
    if lengths and set(runs) != set(lengths):
        raise InputError(
            f"{path} must have the same runs for every subject, {', '.join(lengths)}, but "
            f"{subject!r} has {', '.join(runs)}."
        )
    parts, names, places = [], None, []
    images: dict[str, list[Grid]] = {hemisphere: [] for hemisphere in hemispheres}
    for run in list(lengths) or runs:
        sides, own_names = [], []
        for hemisphere in hemispheres:
            row = rows[run, hemisphere]
            scan = scans.read(row.image, row.atlas, row.tr_s, row.hemisphere)
            values, roi, target, at, column = targets_of(row, scan, names_of(row, scan))
            found = (len(values), _start(path, row, scan.start_s))
            if lengths.setdefault(run, found) != found:
                raise InputError(
                    f"{row.image}: run {run!r} must have {lengths[run][0]} TRs from "
                    f"{lengths[run][1]} s on as in the rows before, found {found[0]} from "
                    f"{found[1]} s on."
                )
            prefix = "" if is_shared or row.targets == "means" else f"{subject}."
            side = f"{hemisphere}." if hemisphere else ""
            of_side = [(r, f"{prefix}{side}{t}") for r, t in zip(roi, target, strict=True)]
            images[hemisphere].append(grids.place(scan.frame, subject, column, of_side))
            own_names += of_side
            sides.append(values)
            places.append(at)
        if names not in (None, own_names):
            raise InputError(
                f"{path}: the atlas must mark the same targets in every run of subject "
                f"{subject!r}, but in {run!r} it marks others."
            )
        names = own_names
        parts.append(np.concatenate(sides, axis=1))
    labels = names or []
    # Two hemispheres are two images of one run, and the table names both.
    files = {run: row.image if len(hemispheres) == 1 else path for (run, _), row in rows.items()}
    return Recording(
        subject,
        np.concatenate(parts),
        [roi for roi, _ in labels],
        [name for _, name in labels],
        files,
        *where(places),
        grids=grids_of(path, images),
    )


def grids_of(path: pathlib.Path, images: dict[str, list[Grid]]) -> tuple[Grid, ...]:
    """Return the image of each hemisphere, or of the volume, if those of all runs are alike."""
    for found in images.values():
        first = found[0]
        if any(not x.is_like(first) or not np.array_equal(x.label, first.label) for x in found):
            logging.warning(
                "%s: the runs of subject %s lie on different grids, or have targets at different "
                "places: no maps of them can be written",
                *(path, first.subject),
            )
            return ()
    return tuple(found[0] for found in images.values())


class Places(NamedTuple):
    """Where the targets of a scan lie; see data/formats/coordinates.py."""

    coordinates: Float[np.ndarray, "_ 3"] = coordinates.NONE
    space: str = ""


def where(places: list[Places]) -> Places:
    """Return where the targets of a subject lie: known if all of the subject's scans agree."""
    first = places[0]
    agree = all(x.space == first.space for x in places) and all(
        np.abs(x.coordinates - first.coordinates).max(initial=0) < 1e-2 for x in places
    )
    return first if agree else Places()


def _start(path: pathlib.Path, row: Row, header_s: float) -> float:
    """Return when the first TR of a scan starts on the clock of the stimuli.

    A header of 0 tells nothing: it is what programs write that know no better.
    """
    told: dict[str, float] = {}
    if header_s != 0:
        told["its header"] = header_s
    if found := bids.sidecar(row.image):
        timing = bids.timing(found)
        if timing.tr_s is not None and abs(timing.tr_s - row.tr_s) > 1e-3 * row.tr_s:
            raise InputError(
                f"{found}: RepetitionTime is {timing.tr_s:g} s, tr_s in {path} is {row.tr_s:g} s."
            )
        if timing.start_s is not None:
            told[f"StartTime in {found.name}"] = timing.start_s
        elif timing.slices_corrected and header_s == 0:
            logging.warning(
                "%s: slice timing was corrected, but StartTime does not say to which time: start_s "
                "must be the time that slices were moved to",
                found,
            )
    offset_s = row.stimuli_start_s or 0.0
    starts = {name: start - offset_s for name, start in told.items()}
    if row.start_s is not None:
        starts = {f"start_s in {path.name}": row.start_s} | starts
    if not starts:
        raise InputError(
            f"{path}: start_s must be given for {row.image.name}, neither its header nor a JSON "
            "file next to it tells it."
        )
    (first, start_s), *others = starts.items()
    for name, other in others:
        if abs(other - start_s) > 1e-3 * row.tr_s:
            raise InputError(
                f"{row.image}: its first TR starts at {start_s:g} s by {first}, and at {other:g} s "
                f"by {name}: correct one, leave start_s empty, or say in stimuli_start_s when the "
                "clock of the stimuli begins on that of the scan."
            )
    return start_s


def targets_of(
    row: Row, scan: scans.Scan, names: Mapping[int, str]
) -> tuple[Float[np.ndarray, "n v"], list[str], list[str], Places, Int[np.ndarray, " p"]]:
    """Return the targets of a scan, with their ROIs and names, and where they lie.

    A mean over a label has no coordinates; it is at every place of the label.

    Args:
      row: how it is read.
      scan: from `scans.read`.
      names: the ROI of each of its labels, from `names_of`.

    Returns:
      Values, ROIs, names, coordinates, and of each place of the image the number of its target.
    """
    if row.targets == "voxels":
        roi = [names[i] for i in scan.label.tolist()]
        places = Places(scan.coordinates, scan.space)
        return scan.values, roi, scan.place, places, scan.column
    present = np.unique(scan.label)
    of_label = np.append(np.searchsorted(present, scan.label), grids.NOWHERE)
    means = [_mean(row, names[i], scan.values[:, scan.label == i]) for i in present.tolist()]
    return (
        np.stack(means, axis=1).astype(np.float32),
        [names[i] for i in present.tolist()],
        ["mean"] * len(present),
        Places(),
        of_label[scan.column],
    )


def _mean(row: Row, roi: str, values: Float[np.ndarray, "n v"]) -> Float[np.ndarray, " n"]:
    """Return the mean over the voxels of an ROI, without those outside the field of view.

    Those are NaN in every volume. If all are, so is the mean.
    """
    outside = np.asarray(np.isnan(values).all(axis=0))
    if outside.any() and not outside.all():
        logging.warning(
            "%s: %d of %d voxels of %s are NaN throughout and left out of its mean",
            *(row.image, outside.sum(), len(outside), roi),
        )
        values = values[:, ~outside]
    return values.mean(axis=1, dtype=np.float64)


def _named(path: pathlib.Path) -> dict[int, str]:
    """Read a table of labels and ROIs; one with tabs has the columns that BIDS gives it."""
    tabs = path.suffix == ".tsv"
    label_column, roi_column = ("index", "name") if tabs else ("label", "roi")
    table = tables.read(path, (label_column, roi_column), tabs=tabs)
    numbers = tables.numbers(path, table, label_column)
    names: dict[int, str] = {}
    for i, (number, roi) in enumerate(zip(numbers.tolist(), table[roi_column], strict=True)):
        label = imaging.whole(number)
        if label is None:
            raise InputError(
                f"{path}: label must be a whole number, found {number:g} in row {i + 1} ({roi!r})."
            )
        if not roi.strip():
            raise InputError(f"{path}: roi must name label {label}, but is empty in row {i + 1}.")
        if label == 0 and roi.strip().casefold() not in _BACKGROUND:
            logging.warning(
                "%s: label 0 is the background, and %r is left out. If it is an ROI of the "
                "atlas, give it another label in both; if the table counts from 0 and the image "
                "from 1, add 1 to each label; else call it background, or leave out the row",
                *(path, roi),
            )
        if label in names:
            raise InputError(
                f"{path} must have each label once, found {label} twice: as {names[label]!r} and "
                f"{roi!r}."
            )
        names[label] = roi
    return names


def names_of(row: Row, scan: scans.Scan) -> dict[int, str]:
    """Return the ROI of each label in the scan.

    Raises:
      InputError: if a label has no name, or two that are averaged have the same.
    """
    found = set(scan.label.tolist())
    source = row.labels or row.atlas
    names = scan.names
    if row.labels:
        names = _named(row.labels)
        if absent := [x for x in names if x not in found and x != 0]:
            logging.warning(
                "%s: %d of %d labels are not in %s: %s%s",
                *(row.labels, len(absent), len(names), row.atlas.name),
                ", ".join(f"{x} ({names[x]})" for x in absent[:_SHOWN]),
                ", ..." if len(absent) > _SHOWN else "",
            )
    elif not names:
        if found != {1}:
            raise InputError(
                f"{row.atlas} has no names of labels, so it must be a mask of 0 and 1, found "
                f"{max(found)}: name them in a table of `labels`; 0 is the background."
            )
        return {1: row.atlas.name.split(".")[0]}
    if unknown := sorted(found - names.keys()):
        raise InputError(
            f"{source} must name every label of {row.atlas}: {unknown[0]} is missing. If it is the "
            "background, set it to 0 in the atlas."
        )
    if empty := [i for i in sorted(found) if not names[i].strip()]:
        raise InputError(f"{source} must name every label of {row.atlas}: {empty[0]} has no name.")
    used = [names[i] for i in sorted(found)]
    if row.targets == "means" and len(set(used)) < len(used):
        twice = next(x for x in used if used.count(x) > 1)
        raise InputError(f"{source} must name each label differently, found {twice!r} twice.")
    return names


def _given(column: np.ndarray | None, i: int) -> float | None:
    """Return a cell of a column of numbers; None where there is no column, or it is empty."""
    return None if column is None or np.isnan(column[i]) else float(column[i])


def _same(path: pathlib.Path, rows: list[Row], name: str) -> Any:
    values = list(dict.fromkeys(getattr(row, name) for row in rows))
    if len(values) != 1:
        raise InputError(f"{path}: {name} must be the same in every row, found {values}.")
    return values[0]


def _rows(root: pathlib.Path) -> list[Row]:
    path = root / TABLE
    table = tables.read(path, COLUMNS)
    tr_s = tables.numbers(path, table, "tr_s")
    start_s, stimuli_start_s = (
        tables.numbers(path, table, name, empty_is_nan=True) if name in table else None
        for name in ("start_s", "stimuli_start_s")
    )
    rows = []
    for i, cells in enumerate(table.to_dict("records")):
        for name in ("subject", "run", "image", "atlas"):
            if not cells[name].strip():
                raise InputError(f"{path}: {name} must not be empty, but is in row {i + 1}.")
        row = Row(
            subject=cells["subject"],
            run=cells["run"],
            image=root / cells["image"],
            atlas=root / cells["atlas"],
            targets=cells["targets"],
            tr_s=float(tr_s[i]),
            start_s=_given(start_s, i),
            stimuli_start_s=_given(stimuli_start_s, i),
            labels=root / cells["labels"] if cells.get("labels") else None,
            hemisphere=cells.get("hemisphere", ""),
        )
        is_surface = row.image.name.endswith(".gii")
        if row.hemisphere not in (HEMISPHERES if is_surface else ("",)):
            raise InputError(
                f"{path}: hemisphere must be L or R for GIFTI and empty otherwise, found "
                f"{row.hemisphere!r} in row {i + 1}."
            )
        if row.targets not in TARGETS:
            raise InputError(
                f"{path}: targets must be one of {', '.join(TARGETS)}, found {row.targets!r} in "
                f"row {i + 1}."
            )
        rows.append(row)
    if not rows:
        raise InputError(f"{path} must have at least one row, found none.")
    _same(path, rows, "targets")
    return rows
