"""Which scans of a BIDS data set are read, and what lies with them: JSON, masks, events, confounds.

The names are those of BIDS and of fMRIPrep: `_space-<space>_desc-preproc_bold.nii.gz` with
`_space-<space>_desc-brain_mask.nii.gz`, `_space-fsLR_den-91k_bold.dtseries.nii`,
`_hemi-<L|R>_space-<space>_bold.func.gii`, and `_desc-confounds_timeseries.tsv` (before version 20.2
`_desc-confounds_regressors.tsv`).

Source: BIDS specification 1.10; fMRIPrep, "Outputs of fMRIPrep", versions 20.2 to 25.1.
"""

import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from jaxalign.data.formats import bids, bids_names
from jaxalign.data.formats.bids_names import Name
from jaxalign.errors import InputError

NATIVE = "native"  # the space of scans whose names have none
KINDS = {".nii.gz": "volume", ".nii": "volume"}
KINDS |= {".dtseries.nii": "grayordinates", ".func.gii": "surface"}
# Spaces in which places are of one brain alone; in all others they are those of a template.
OWN_SPACES = (
    NATIVE,
    "T1w",
    "T2w",
    "func",
    "boldref",
    "bold",
    "anat",
    "orig",
    "individual",
    "scanner",
)
OWN_SPACES += ("fsnative",)
# What the newest fMRIPrep calls, in names of masks, the space of scans that have none in theirs.
_RUN = [{"space": "run"}, {"space": "boldref"}]
_CONFOUNDS = ("timeseries", "regressors")
_SHOWN = 6  # names in a message


class Wanted(NamedTuple):
    """Which scans are to be read; of what is empty, all, or the only one that there is.

    Attributes:
      subjects, sessions, tasks, runs: labels of entities.
      space: "MNI152NLin2009cAsym", or with a resolution or density "MNI152NLin2009cAsym:res-2".
      kind: one of `KINDS`.
      desc: of the scans; else "preproc", or none.
    """

    subjects: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    runs: tuple[str, ...] = ()
    space: str = ""
    kind: str = ""
    desc: str = ""


class Run(NamedTuple):
    """A run of a subject.

    Attributes:
      subject: its label, without "sub-".
      label: session, task, run and other entities: the same in every subject.
      images: the scan, or those of the left and the right hemisphere.
      sidecars: JSON files that apply to the (first) scan, the most general first.
      masks: the brain mask of the scan, where there is one.
      confounds: fMRIPrep's table, and the JSON file that belongs to it; () where there is none.
      events: the table of events; None: there is none.
    """

    subject: str
    label: str
    images: tuple[Name, ...]
    sidecars: tuple[pathlib.Path, ...]
    masks: tuple[pathlib.Path, ...]
    confounds: tuple[pathlib.Path, ...]
    events: pathlib.Path | None

    @property
    def task(self) -> str:
        """The label of its task."""
        return self.images[0].entities.get("task", "")


class Layout(NamedTuple):
    """What was found.

    Attributes:
      root: folder of the scans.
      raw: folder of the recorded data, where events may lie; or None.
      space: of the scans, or `NATIVE`.
      kind: of the scans.
      desc: of the scans, or "".
      runs: of each subject, in the same order of runs.
    """

    root: pathlib.Path
    raw: pathlib.Path | None
    space: str
    kind: str
    desc: str
    runs: list[Run]

    @property
    def is_shared(self) -> bool:
        """Whether a place in the scans is the same place in every subject."""
        return self.space.split(":")[0] not in OWN_SPACES


def is_bids(root: pathlib.Path) -> bool:
    """Whether a directory is a data set of BIDS, or derivatives of one; scans are not sought."""
    return (root / bids_names.DESCRIPTION).is_file() or bool(bids_names.subjects(root))


def find(root: pathlib.Path, wanted: Wanted, derivatives: str = "", raw: str = "") -> Layout:
    """Find the scans of a data set and what lies with them.

    Args:
      root: folder of recorded data or of derivatives.
      wanted: which scans.
      derivatives: folder in `derivatives/` of the recorded data; "": the only one with scans, or
        the recorded data themselves where there is none.
      raw: folder of the recorded data of derivatives; "": what the derivatives say, or the folder
        in whose `derivatives/` they lie.

    Raises:
      InputError: if there are no such scans, or it is open which of several are meant.
    """
    scans_root = _scans_root(root, derivatives)
    raw_root = _raw_root(scans_root, root, raw)
    every = {
        subject: [x for x in bids_names.functional(folder) if _is_scan(x)]
        for subject, folder in bids_names.subjects(scans_root).items()
    }
    if not any(every.values()):
        raise InputError(
            f"data set {scans_root} must hold scans, sub-*/func/*_bold.*, not of single echos: "
            "found none."
        )
    chosen = _chosen(scans_root, every, wanted)
    first = next(iter(chosen.values()))[0]
    found = [
        _run(scans_root, raw_root, subject, label, images)
        for subject, scans in chosen.items()
        for label, images in _by_run(scans).items()
    ]
    _check_same_runs(scans_root, found)
    return Layout(
        root=scans_root,
        raw=raw_root,
        space=first.space or NATIVE,
        kind=KINDS[first.extension],
        desc=first.entities.get("desc", ""),
        runs=found,
    )


def _is_scan(name: Name) -> bool:
    """Whether it is a series of volumes that is read; single echos and phases are not."""
    return (
        name.suffix == "bold"
        and name.extension in KINDS
        and "echo" not in name.entities
        and name.entities.get("part", "mag") == "mag"
    )


def _is_derived(root: pathlib.Path) -> bool:
    path = root / bids_names.DESCRIPTION
    if path.is_file() and bids.content(path).get("DatasetType") == "derivative":
        return True
    return any(
        _is_scan(name) and {"space", "desc"} & name.entities.keys()
        for folder in bids_names.subjects(root).values()
        for name in bids_names.functional(folder)
    )


def _scans_root(root: pathlib.Path, derivatives: str) -> pathlib.Path:
    if derivatives:
        chosen = root / "derivatives" / derivatives
        if not chosen.is_dir():
            raise InputError(f"derivatives must be a folder in {chosen.parent}: {derivatives!r}.")
        return chosen
    if _is_derived(root):
        return root
    folders = sorted((root / "derivatives").glob("*"))
    found = [
        x
        for x in folders
        if any(
            _is_scan(name)
            for folder in bids_names.subjects(x).values()
            for name in bids_names.functional(folder)
        )
    ]
    if len(found) > 1:
        raise InputError(
            f"data set {root} has several derivatives with scans: set derivatives=NAME in "
            f"--config.options, of {_listed(x.name for x in found)}."
        )
    return found[0] if found else root


def _raw_root(scans: pathlib.Path, root: pathlib.Path, raw: str) -> pathlib.Path | None:
    if raw:
        found = next((x for x in (root / raw, pathlib.Path(raw)) if x.is_dir()), None)
        if found is None:
            raise InputError(
                f"raw must be a folder of recorded data, from {root} or from here: found {raw!r}."
            )
        return found
    if scans != root:
        return root
    path = scans / bids_names.DESCRIPTION
    said = bids.content(path) if path.is_file() else {}
    links = said.get("DatasetLinks")
    sources = said.get("SourceDatasets")
    places = [links.get("raw")] if isinstance(links, dict) else []
    places += [x.get("URL") for x in sources or [] if isinstance(x, dict)]
    for place in places:
        # fMRIPrep writes the path that it was given, which is often one of a container.
        folder = scans / str(place).removeprefix("file://")
        if isinstance(place, str) and folder.is_dir() and folder != scans:
            return folder
    resolved = scans.resolve()
    above = resolved.parents[1] if resolved.parent.name == "derivatives" else None
    return above if above and is_bids(above) else None


def _chosen(
    root: pathlib.Path, every: Mapping[str, list[Name]], wanted: Wanted
) -> dict[str, list[Name]]:
    """Return the scans of each subject, all of one space, kind and description."""
    if lost := [x for x in wanted.subjects if x.removeprefix("sub-") not in every]:
        raise InputError(
            f"subjects of data set {root} must be among {_listed(every)}, found {lost[0]!r}."
        )
    asked = {x.removeprefix("sub-") for x in wanted.subjects}
    scans = {x: names for x, names in every.items() if (x in asked if asked else names)}
    for option, key in (("sessions", "ses"), ("tasks", "task"), ("runs", "run")):
        labels = getattr(wanted, option)
        if labels:
            scans = _with(root, scans, option, key, labels)
    for subject, names in scans.items():
        if not names:
            raise InputError(f"data set {root}: subject {subject} has no scan.")
    flat = [x for names in scans.values() for x in names]
    space = _one(root, "space", wanted.space, {x.space or NATIVE for x in flat})
    flat = [x for x in flat if (x.space or NATIVE) == space]
    kind = _one(root, "kind", wanted.kind, {KINDS[x.extension] for x in flat})
    flat = [x for x in flat if KINDS[x.extension] == kind]
    usual = {x.entities.get("desc", "") for x in flat}
    among = usual & {"preproc", ""} if usual & {"preproc", ""} and not wanted.desc else usual
    desc = _one(root, "desc", wanted.desc, among)
    kept = {x.path for x in flat if x.entities.get("desc", "") == desc}
    found = {subject: [x for x in names if x.path in kept] for subject, names in scans.items()}
    if lost := [subject for subject, names in found.items() if not names]:
        raise InputError(
            f"data set {root}: subject {lost[0]} has no scan in space {space}"
            f"{f' with desc-{desc}' if desc else ''}: choose others by subjects, or by space."
        )
    return found


def _with(
    root: pathlib.Path,
    scans: Mapping[str, list[Name]],
    option: str,
    key: str,
    labels: Sequence[str],
) -> dict[str, list[Name]]:
    """Return the scans that have one of some labels; of numbers, zeros in front do not count."""
    plain = lambda label: label.removeprefix(f"{key}-").lstrip("0") if label else label
    present = {x.entities[key] for names in scans.values() for x in names if key in x.entities}
    known = {plain(x) for x in present}
    if lost := [x for x in labels if plain(x) not in known]:
        raise InputError(
            f"{option} of data set {root} must be among {_listed(sorted(present))}, found "
            f"{lost[0]!r}."
        )
    asked = {plain(x) for x in labels}
    return {
        subject: [x for x in names if plain(x.entities.get(key, "")) in asked]
        for subject, names in scans.items()
    }


def _one(root: pathlib.Path, option: str, asked: str, present: set[str]) -> str:
    """Return what was asked for, or the only one that there is."""
    named = sorted(x or "''" for x in present)
    matching = sorted(present)
    if asked:
        matching = [x for x in matching if asked == x] or [
            x for x in matching if asked == x.split(":")[0]
        ]
    if len(matching) == 1:
        return matching[0]
    if asked and not matching:
        raise InputError(
            f"{option} of data set {root} must be one of {_listed(named)}, found {asked!r}."
        )
    raise InputError(
        f"data set {root} has scans with more than one {option}: set {option}=NAME in "
        f"--config.options, of {_listed(matching if asked else named)}."
    )


def _by_run(scans: Iterable[Name]) -> dict[str, tuple[Name, ...]]:
    """Return the scans of each run: one, or those of both hemispheres, left first."""
    found: dict[str, list[Name]] = {}
    for scan in scans:
        found.setdefault(scan.run, []).append(scan)
    for label, images in found.items():
        images.sort(key=lambda x: x.entities.get("hemi", ""))
        sides = [x.entities.get("hemi", "") for x in images]
        if sides not in (["L", "R"], [""]):
            where = images[0].path
            expected = "one scan" if "" in sides else "hemi-L and hemi-R"
            raise InputError(
                f"{where.parent}: run {label} must have {expected}, found "
                f"{_listed(x.path.name for x in images)}."
            )
    return {label: tuple(images) for label, images in found.items()}


def _run(
    root: pathlib.Path,
    raw: pathlib.Path | None,
    subject: str,
    label: str,
    images: tuple[Name, ...],
) -> Run:
    first = images[0]
    folder = first.path.parent
    beside = [x for x in map(bids_names.parse, sorted(folder.iterdir())) if x]
    masked = [first.entities | {"desc": "brain"} | x for x in ({}, *([] if first.space else _RUN))]
    confounds = [
        x.path
        for x in beside
        if x.suffix in _CONFOUNDS
        and x.extension == ".tsv"
        and x.entities == first.whole_run | {"desc": "confounds"}
    ]
    about = [x.with_suffix(".json") for x in confounds]
    places = [(folder, root)]
    if raw and raw != root:
        places.append((raw / folder.relative_to(root), raw))
    events = [
        path
        for place, top in reversed(places)
        for path in bids_names.inherited(first.whole_run, place, top, "events", (".tsv",))
    ]
    masks = [
        x.path
        for x in beside
        if x.suffix == "mask" and x.entities in masked and x.extension in KINDS
    ]
    return Run(
        subject=subject,
        label=label,
        images=images,
        sidecars=tuple(bids_names.inherited(first.entities, folder, root, "bold")),
        masks=tuple(masks[:1]) if KINDS[first.extension] == "volume" else (),
        confounds=(*confounds[:1], *(x for x in about[:1] if x.is_file())),
        events=events[-1] if events else None,
    )


def _check_same_runs(root: pathlib.Path, runs: Sequence[Run]) -> None:
    """Refuse subjects who do not all have the same runs: samples are shared."""
    labels: dict[str, list[str]] = {}
    for run in runs:
        labels.setdefault(run.subject, []).append(run.label)
    (first, known), *others = labels.items()
    for subject, own in others:
        if set(own) != set(known):
            lacking, one = sorted(set(known) ^ set(own)), (first, subject)
            other = one[0] if lacking[0] in own else one[1]
            raise InputError(
                f"data set {root}: every subject must have the same runs, but sub-{other} lacks "
                f"{lacking[0]} ({len(lacking)} such): choose by subjects, sessions, tasks or runs."
            )


def _listed(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(found[:_SHOWN]) + (", ..." if len(found) > _SHOWN else "")
