"""A BIDS derivatives folder of maps: images, their JSON files, tables of targets and of maps."""

import json
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from jaxalign.data.formats import coordinates, grids, map_images
from jaxalign.data.formats.grids import Grid
from jaxalign.errors import InputError
from jaxalign.io import rows as rows_lib
from jaxalign.io import run_dir
from jaxalign.reporting.maps import contents
from jaxalign.reporting.maps.contents import Map
from jaxalign.results.target_tables import Tables

BIDS_VERSION = "1.10.0"
DESCRIPTION = "dataset_description.json"
# BIDS has no suffix for maps of statistics yet; nilearn and FitLins write this one.
SUFFIX = "statmap"
IGNORED = (f"*_{SUFFIX}.*", "targets.*", "differences.*", "index.html", "*.svg")
# Names of all that a call has written, which the next one replaces.
RECORD = ".jaxalign.json"
_SPACES = coordinates.NIFTI | {0: "unknown"}

README = """# Maps of {names}

Scores of encoding models, target by target, in the space that the responses came from, written by
jaxalign {version}. The folder is laid out as BIDS derivatives; maps are called
`*_{suffix}`, a suffix that BIDS does not have yet, and so they are listed in `.bidsignore`.

- `sub-*/func/*_{suffix}.*`: a map each, NaN wherever there is no target or no defined value; the
  JSON file beside it says model, protocol, folds, units and how the layer was chosen.
- `sub-*/func/*_desc-targets_mask.nii.gz`: the voxels that belong to a target.
- `targets.csv`, `targets.parquet`: all numbers, a row for each model or control and target.
- `differences.csv`, `differences.parquet`: differences of models, where there are several.
- `descriptions.tsv`: what each `desc-` is.
"""


def write(
    tables: Tables,
    differences: pd.DataFrame,
    folder: pathlib.Path,
    progress: Callable[[Sequence[Map]], Iterable[Map]],
) -> tuple[list[str], list[Map]]:
    """Write the folder.

    Args:
      tables: what runs hold of targets.
      differences: of models.
      folder: to write to; what an earlier call has written there, and this one does not, goes.
      progress: shows how far it is.

    Returns:
      Names of the files, relative to the folder; and the maps that were written.

    Raises:
      InputError: if the folder holds something that was not written here, or cannot be written.
    """
    before = _before(folder)
    maps = list(contents.every(tables, differences))
    labels = {x: contents.subjects(tables.grids[x]) for x in tables.grids}
    _refuse_same_subjects(labels)
    run_dir.check_writable(folder, "path")
    files: list[str] = []

    def put(name: str, data: bytes) -> None:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        run_dir.write_atomic(path, data)
        files.append(name)

    # First, so that a call that was killed is known as one of ours.
    names = dict.fromkeys(tables.targets.dataset)
    put(DESCRIPTION, _json(_description(names)))
    run_dir.write_json(folder / RECORD, {"files": sorted({*before, DESCRIPTION})})
    for found in progress(maps):
        for grid in tables.grids[found.dataset]:
            if grid.subject == found.subject:
                _write_map(found, grid, labels[found.dataset][grid.subject], put)
    for dataset, images in tables.grids.items():
        for grid in images:
            if grid.kind == grids.NIFTI:
                _write_mask(dataset, grid, labels[dataset][grid.subject], put)
    for name, table in (("targets", tables.targets), ("differences", differences)):
        if len(table):
            rows_lib.write_table(folder / name, table)
            files += [f"{name}.csv", f"{name}.parquet"]
    readme = README.format(
        names=", ".join(names), version=run_dir.versions()["jaxalign"], suffix=SUFFIX
    )
    put("README.md", readme.encode())
    put(".bidsignore", "".join(f"{x}\n" for x in IGNORED).encode())
    put("descriptions.tsv", _descriptions(maps).encode())
    for name in set(before) - set(files):
        (folder / name).unlink(missing_ok=True)
    run_dir.write_json(folder / RECORD, {"files": sorted(files)})
    return files, maps


def is_map(name: str) -> bool:
    """Whether a file is a map."""
    return f"_{SUFFIX}." in name and not name.endswith(".json")


def _before(folder: pathlib.Path) -> list[str]:
    """Return what an earlier call has written; refuse what somebody else has."""
    if not folder.exists():
        return []
    if not folder.is_dir():
        raise InputError(f"path must be a folder, but {folder} is a file.")
    record = folder / RECORD
    if not record.is_file():
        if any(folder.iterdir()):
            raise InputError(
                f"path must be an empty folder or one that maps were written to, but {folder} has "
                "other files: choose another."
            )
        return []
    try:
        listed = json.loads(record.read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{record} must list files: delete {folder}.") from error
    inside = lambda x: (folder / x).resolve().is_relative_to(folder.resolve())
    return [str(x) for x in listed if inside(str(x))]


def _refuse_same_subjects(labels: Mapping[str, Mapping[str, str]]) -> None:
    """Refuse data sets that would have the same task and subject: their files would be the same."""
    seen: dict[tuple[str, str], str] = {}
    for dataset, own in labels.items():
        for label in own.values():
            key = (contents.alphanumeric(dataset).lower(), label)
            if seen.setdefault(key, dataset) != dataset:
                raise InputError(
                    f"data sets must differ in letters and digits: {seen[key]!r} and {dataset!r} "
                    "do not; write their maps apart."
                )


def _json(content: object) -> bytes:
    return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def _description(names: Iterable[str]) -> dict[str, object]:
    return {
        "Name": f"Maps of encoding models: {', '.join(names)}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [
            {
                "Name": "jaxalign",
                "Version": run_dir.versions()["jaxalign"],
                "Description": "python -m jaxalign.maps",
            }
        ],
    }


def _stem(dataset: str, grid: Grid, label: str) -> str:
    """Return the name of a file up to `desc-`, entities in the order of BIDS."""
    entities = {"task": contents.alphanumeric(dataset), **grid.entities}
    parts = [f"sub-{label}", f"task-{entities['task']}"]
    if grid.hemisphere:
        parts.append(f"hemi-{grid.hemisphere}")
    parts += [f"{x}-{entities[x]}" for x in ("space", "res", "den") if x in entities]
    return f"sub-{label}/func/" + "_".join(parts)


def _space(grid: Grid) -> dict[str, object]:
    """Say in the words of BIDS what the places of an image are in."""
    if grid.space:
        reference = f"{grid.space}, as the name of the responses' images says"
    elif grid.kind == grids.NIFTI:
        reference = f"the images of the responses; their header says: {_SPACES[grid.code]}"
    else:
        reference = "the surfaces of the responses"
    found: dict[str, object] = {"SpatialReference": reference}
    for entity, name in (("res", "Resolution"), ("den", "Density")):
        if entity in grid.entities:
            found[name] = f"{grid.entities[entity]}, as that of the responses"
    return found


def _write_map(found: Map, grid: Grid, label: str, put: Callable[[str, bytes], None]) -> None:
    values = grid.values(found.values)
    title = f"{found.model} {found.quantity.title}".strip()
    stem = f"{_stem(found.dataset, grid, label)}_desc-{found.desc}_{SUFFIX}"
    put(stem + map_images.ENDINGS[grid.kind], map_images.to_bytes(grid, values, title))
    about = {
        "Description": f"{title}. {found.quantity.text}",
        "Units": found.units,
        **_space(grid),
        **({"SkullStripped": True} if grid.kind == grids.NIFTI else {}),
        **found.about,
        "Subject": found.subject,
        "NumTargets": len(found.values),
        "NumDefined": contents.defined(found),
        "Undefined": "NaN",
    }
    put(f"{stem}.json", _json(about))


def _write_mask(dataset: str, grid: Grid, label: str, put: Callable[[str, bytes], None]) -> None:
    stem = f"{_stem(dataset, grid, label)}_desc-targets_mask"
    put(f"{stem}.nii.gz", map_images.mask_bytes(grid, np.asarray(grid.label >= 0)))
    about = {
        "Description": "Voxels that belong to a target of the responses.",
        "Type": "ROI",
        "Sources": [],
        **_space(grid),
    }
    put(f"{stem}.json", _json(about))


def _descriptions(maps: Sequence[Map]) -> str:
    lines = ["desc_id\tdescription", "desc-targets\tVoxels that belong to a target."]
    said = {x.desc: f"{x.model} {x.quantity.title}. {x.quantity.text}".strip() for x in maps}
    lines += [f"desc-{desc}\t{text}" for desc, text in said.items()]
    return "\n".join(lines) + "\n"
