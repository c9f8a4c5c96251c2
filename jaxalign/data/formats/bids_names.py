"""Files of BIDS by their names: entities, the label of a run, and the JSON files that apply.

Source: BIDS specification 1.10, "Entities", "The Inheritance Principle" and "Derivatives".
"""

import pathlib
import re
from collections.abc import Mapping
from typing import NamedTuple

DESCRIPTION = "dataset_description.json"
# Entities that say how a run was resampled or derived; the others say which run it is.
DERIVED = ("space", "res", "den", "hemi", "desc")
_ENTITY = re.compile(r"([a-zA-Z]+)-([a-zA-Z0-9+]+)")
_SUBJECT = re.compile(r"sub-[a-zA-Z0-9+]+")
_SESSION = re.compile(r"ses-[a-zA-Z0-9+]+")
# A JSON file may keep the kind of a series in its name: `x_bold.dtseries.json`.
JSON = (".json", ".dtseries.json", ".func.json")


class Name(NamedTuple):
    """What the name of a file says: `sub-01_task-x_bold.nii.gz`.

    Attributes:
      path: of the file.
      entities: by their keys, in the order of the name.
      suffix: what kind of data it holds: "bold".
      extension: all from the first dot on: ".nii.gz".
    """

    path: pathlib.Path
    entities: dict[str, str]
    suffix: str
    extension: str

    @property
    def whole_run(self) -> dict[str, str]:
        """Entities that say which run it is of, the subject among them."""
        return {key: value for key, value in self.entities.items() if key not in DERIVED}

    @property
    def run(self) -> str:
        """Which run of a subject it belongs to: session, task, acquisition, run and the like."""
        kept = {x: v for x, v in self.entities.items() if x not in ("sub", *DERIVED)}
        return "_".join(f"{key}-{value}" for key, value in kept.items())

    @property
    def space(self) -> str:
        """The space that its data are in, as fMRIPrep's option has it: "fsLR:den-91k", or ""."""
        known = [self.entities.get("space", "")]
        known += [f"{key}-{self.entities[key]}" for key in ("res", "den") if key in self.entities]
        return ":".join(known).strip(":")


def parse(path: pathlib.Path) -> Name | None:
    """Read the name of a file; None where it is no name of BIDS."""
    stem, dot, extension = path.name.partition(".")
    *parts, suffix = stem.split("_")
    found = [_ENTITY.fullmatch(part) for part in parts]
    if not dot or not all(found) or not suffix.isalnum():
        return None
    entities = {match[1]: match[2] for match in found if match}
    return Name(path, entities, suffix, dot + extension) if len(entities) == len(parts) else None


def subjects(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Return the folder of each subject, by label, in the order of the labels."""
    folders = sorted(root.glob("sub-*")) if root.is_dir() else []
    return {
        x.name.removeprefix("sub-"): x for x in folders if _SUBJECT.fullmatch(x.name) and x.is_dir()
    }


def functional(subject: pathlib.Path) -> list[Name]:
    """Return the files of a subject's functional runs, of all sessions, in the order of names."""
    sessions = [x for x in sorted(subject.glob("ses-*")) if _SESSION.fullmatch(x.name)]
    folders = [x / "func" for x in (subject, *sessions)]
    paths = [path for folder in folders if folder.is_dir() for path in sorted(folder.iterdir())]
    return [name for name in map(parse, paths) if name]


def inherited(
    entities: Mapping[str, str],
    folder: pathlib.Path,
    root: pathlib.Path,
    suffix: str,
    extensions: tuple[str, ...] = JSON,
) -> list[pathlib.Path]:
    """Return the files that apply to a run, the most general first.

    A file applies if it lies in the folder or in one above, up to the root, has the suffix, and no
    entity that the run lacks or has otherwise. Where two say something else, what lies deeper
    holds, and in one folder what has more entities.

    Args:
      entities: of the run, or of a scan.
      folder: where it lies.
      root: folder of the data set.
      suffix: of the files: that of the scan, "bold", or "events".
      extensions: that they may have.
    """
    folders = [folder]
    while folders[-1] != root and root in folders[-1].parents:
        folders.append(folders[-1].parent)
    found = []
    for place in reversed(folders):
        names = [x for x in map(parse, sorted(place.glob(f"*{suffix}.*"))) if x]
        own = [
            x
            for x in names
            if x.suffix == suffix
            and x.extension in extensions
            and x.entities.items() <= entities.items()
        ]
        found += [x.path for x in sorted(own, key=lambda x: len(x.entities))]
    return found
