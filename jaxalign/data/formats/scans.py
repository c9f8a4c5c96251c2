"""One scan and its mask or labels: volumes (NIfTI), grayordinates (CIFTI), surfaces (GIFTI)."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Bool, Float, Int

from jaxalign.data.formats import coordinates, grids, imaging
from jaxalign.data.formats.grids import Frame
from jaxalign.errors import InputError

BRAIN, SURFACE = "brain", "surface"  # ROIs where there is no atlas
_TIME_UNITS_S = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6, "unknown": 1.0}


class Scan(NamedTuple):
    """What a scan holds where its atlas is not 0."""

    values: Float[np.ndarray, "n v"]
    label: Int[np.ndarray, " v"]
    place: list[str]  # of each: x-y-z, or vertex, behind the structure in CIFTI
    names: dict[int, str]  # of labels, where the atlas has them; else empty
    frame: Frame  # the image: voxels of the mask, or all of its vertices or grayordinates
    column: Int[np.ndarray, " p"]  # of `values`, of each place of `frame`; -1 where there is none
    # Of volumes whose header names the space of their affine; see data/formats/coordinates.py.
    coordinates: Float[np.ndarray, "_ 3"] = coordinates.NONE
    space: str = ""
    start_s: float = 0.0  # of the first volume, as the header has it: 0 is what tells nothing


class Mask(NamedTuple):
    """What several masks of volumes have in common."""

    path: pathlib.Path  # of the first
    inside: Bool[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]


def common_mask(paths: Sequence[pathlib.Path]) -> Mask:
    """Read masks on one grid, and return the voxels that all of them hold; a message counts them.

    Args:
      paths: at least one.

    Raises:
      InputError: if one is damaged, or on another grid, or nothing is in all of them.
    """
    first, *others = paths
    labels, affine = imaging.label_volume(first)
    inside = _inside(labels, first)
    union = inside.copy()
    for path in others:
        labels, own = imaging.label_volume(path)
        imaging.same_grid(first, inside.shape, affine, path, labels.shape, own)
        union |= (marked := _inside(labels, path))
        inside &= marked
    if not inside.any():
        raise InputError(f"{first} must have a voxel that all of {len(paths)} masks hold.")
    if len(paths) > 1:
        logging.info(
            "%d of %d voxels of %d brain masks are in all of them, and are read",
            *(inside.sum(), union.sum(), len(paths)),
        )
    return Mask(first, inside, affine)


def read(
    image: pathlib.Path,
    atlas: pathlib.Path | None,
    tr_s: float,
    hemisphere: str = "",
    *,
    within: Mask | None = None,
) -> Scan:
    """Read a scan in a mask or in labels.

    Args:
      image: 4-D NIfTI, `.dtseries.nii`, or GIFTI with an array per TR.
      atlas: of the same kind, on the same grid; 0 is outside. None: all that `within` holds is
        "brain", or of CIFTI all structures by their names, or of GIFTI all vertices are "surface".
      tr_s: repetition time that the header must tell, where it tells any.
      hemisphere: "L" or "R" of GIFTI, which maps are named by.
      within: of volumes: what is not in it is outside.

    Raises:
      InputError: if a file is damaged, kinds or grids differ, or the header tells of another TR.
    """
    kinds = [_kind(path) for path in (image, *([] if atlas is None else [atlas]))]
    if atlas is not None and kinds[0] != kinds[-1]:
        raise InputError(f"{atlas} must be of the kind of {image}, {kinds[0]}, found {kinds[1]}.")
    assert within is None or kinds[0] == "NIfTI", "only volumes have masks"
    if kinds[0] == "GIFTI":
        scan = _surface(image, atlas, tr_s, hemisphere)
    elif kinds[0] == "CIFTI":
        scan = _grayordinates(image, atlas, tr_s)
    else:
        scan = _volumes(image, atlas, tr_s, within)
    if not len(scan.label):
        inside = f" within {within.path}" if within else ""
        raise InputError(f"{atlas or image} must mark something{inside}, found nothing above 0.")
    return scan


def _kind(path: pathlib.Path) -> str:
    if path.name.endswith((".dtseries.nii", ".dlabel.nii", ".dscalar.nii")):
        return "CIFTI"
    if path.name.endswith(".ptseries.nii"):
        raise InputError(
            f"{path} is parcellated already: give the .dtseries.nii and a .dlabel.nii."
        )
    if path.name.endswith((".nii", ".nii.gz")):
        return "NIfTI"
    if path.name.endswith(".gii"):
        return "GIFTI"
    raise InputError(f"{path} must be .nii, .nii.gz, .dtseries.nii or .gii, by its name.")


def _check_tr(path: pathlib.Path, found_s: float, tr_s: float) -> None:
    """Refuse another TR than expected; a header that has 0 tells of none, nor does one that has 1.

    Programs that do not know a TR write 1.
    """
    if found_s == 0 or abs(found_s - tr_s) <= 1e-3 * tr_s:
        return
    if found_s == 1:
        logging.warning(
            "%s: its header has a TR of 1, which programs write that know none; tr_s = %g s holds",
            *(path, tr_s),
        )
        return
    raise InputError(f"{path}: its header tells of a TR of {found_s:g} s, tr_s is {tr_s:g} s.")


def _volumes(
    image: pathlib.Path, atlas: pathlib.Path | None, tr_s: float, within: Mask | None
) -> Scan:
    opened = imaging.volume(image, ndim=4)
    labels = _labels(image, opened, atlas, within)
    unit = opened.header.get_xyzt_units()[1]
    if unit not in _TIME_UNITS_S:
        raise InputError(f"{image}: its fourth dimension must be time, found unit {unit!r}.")
    _check_tr(image, float(opened.header.get_zooms()[3]) * _TIME_UNITS_S[unit], tr_s)
    mask = labels > 0
    places = np.argwhere(mask)
    code = imaging.space_code(opened)
    space = coordinates.NIFTI.get(code, "")
    xyz = coordinates.NONE
    if space:
        xyz = places @ opened.affine[:3, :3].T + opened.affine[:3, 3]
    return Scan(
        values=imaging.masked(opened, image, mask),
        label=labels[mask],
        place=[f"{x}-{y}-{z}" for x, y, z in places.tolist()],
        names={} if atlas else {1: BRAIN},
        frame=Frame(
            kind="NIfTI",
            voxel=places,
            vertex=np.full(len(places), grids.NOWHERE),
            structure=np.zeros(len(places), int),
            shape=tuple(int(size) for size in labels.shape),
            affine=opened.affine,
            code=code,
            entities=grids.entities(image),
        ),
        column=np.arange(len(places)),
        coordinates=xyz,
        space=space,
        start_s=_start(image, float(opened.header["toffset"]) * _TIME_UNITS_S[unit]),
    )


def _labels(
    image: pathlib.Path, opened: Any, atlas: pathlib.Path | None, within: Mask | None
) -> Int[np.ndarray, "x y z"]:
    """Return the labels of an atlas, or 1, within a mask; else 0."""
    shape = opened.shape[:3]
    found = np.ones(shape, np.int64)
    if atlas is not None:
        labels, affine = imaging.label_volume(atlas)
        imaging.same_grid(image, shape, opened.affine, atlas, labels.shape, affine)
        found = np.where(_inside(labels, atlas), labels, 0)
    if within is not None:
        inside, affine = within.inside, within.affine
        imaging.same_grid(image, shape, opened.affine, within.path, inside.shape, affine)
        found = np.where(inside, found, 0)
    return found


def _start(path: pathlib.Path, start_s: float) -> float:
    if not np.isfinite(start_s):
        raise InputError(f"{path}: the time of its first volume must be finite, found {start_s}.")
    return start_s


def _grayordinates(image: pathlib.Path, atlas: pathlib.Path | None, tr_s: float) -> Scan:
    """Join data and labels by structure and vertex or voxel: files may leave out different ones."""
    with imaging.reading(image) as nib:
        data = nib.load(image)
        time, models = _axes(nib, data, image, nib.cifti2.SeriesAxis)
        values = np.asarray(data.dataobj)
    if time.unit != "SECOND":
        raise InputError(f"{image}: the first dimension must be time, found {time.unit!r}.")
    _check_tr(image, float(time.step), tr_s)
    start_s = _start(image, float(time.start))
    if atlas is None:
        # A place is its structure, a stop, and the vertex or voxel.
        places = _places(models)
        structures, label = np.unique([x.split(".")[0] for x in places], return_inverse=True)
        return Scan(
            values=values.astype(np.float32),
            label=label + 1,
            place=places,
            names={i + 1: str(name) for i, name in enumerate(structures)},
            frame=_frame_of_models(image, models),
            column=np.arange(len(places)),
            start_s=start_s,
        )
    with imaging.reading(atlas) as nib:
        labelled = nib.load(atlas)
        kinds = (nib.cifti2.LabelAxis, nib.cifti2.ScalarAxis)
        maps, label_models = _axes(nib, labelled, atlas, kinds)
        if len(maps) != 1:
            raise InputError(f"{atlas} must hold one map, found {len(maps)}.")
        label = imaging.whole_numbers(np.asarray(labelled.dataobj)[0], atlas)
        names = {}
        if isinstance(maps, nib.cifti2.LabelAxis):
            names = {int(key): name for key, (name, _) in maps.label[0].items()}
    _check_volumes(image, models, atlas, label_models)
    column = {place: i for i, place in enumerate(_places(models))}
    inside = np.flatnonzero(_inside(label, atlas))
    places = _places(label_models)
    wanted = [places[i] for i in inside]
    if lost := [place for place in wanted if place not in column]:
        raise InputError(
            f"{image} must hold every grayordinate that {atlas} labels: {len(lost)} of "
            f"{len(wanted)} are missing, the first is {lost[0]}."
        )
    index = [column[place] for place in wanted]
    at_place = np.full(len(models), grids.NOWHERE)
    at_place[index] = np.arange(len(index))
    return Scan(
        values=values[:, index].astype(np.float32),
        label=label[inside],
        place=wanted,
        names=names,
        frame=_frame_of_models(image, models),
        column=at_place,
        start_s=start_s,
    )


def _frame_of_models(image: pathlib.Path, models: Any) -> Frame:
    structures = tuple(dict.fromkeys(map(str, models.name)))
    number = {name: i for i, name in enumerate(structures)}
    has_voxels = models.volume_shape is not None
    return Frame(
        kind="CIFTI",
        voxel=np.asarray(models.voxel, int),
        vertex=np.asarray(models.vertex, int),
        structure=np.array([number[str(name)] for name in models.name]),
        structures=structures,
        num_vertices={str(name): int(size) for name, size in models.nvertices.items()},
        shape=tuple(int(size) for size in models.volume_shape) if has_voxels else (),
        affine=np.asarray(models.affine, float) if has_voxels else np.empty((0, 0)),
        entities=grids.entities(image),
    )


def _axes(nib: Any, image: Any, path: pathlib.Path, first: Any) -> tuple[Any, Any]:
    """Return both axes of a CIFTI image, the first of a given kind, the second of brain models."""
    if not isinstance(image, nib.Cifti2Image):
        raise InputError(f"{path} must be CIFTI, found {type(image).__name__}.")
    found = [image.header.get_axis(i) for i in range(len(image.shape))]
    wanted = (first, nib.cifti2.BrainModelAxis)
    if len(found) != 2 or not all(map(isinstance, found, wanted)):
        raise InputError(
            f"{path} must have rows of time or maps and columns of grayordinates, found "
            f"{' x '.join(type(axis).__name__ for axis in found)}."
        )
    return found[0], found[1]


def _inside(label: Int[np.ndarray, "..."], atlas: pathlib.Path) -> Bool[np.ndarray, "..."]:
    """Return where a label is above 0; negative ones are background, as 0 is, and counted."""
    if num := int((label < 0).sum()):
        logging.warning(
            "%s: %d of %d places have a negative label, from %d, and count as background",
            *(atlas, num, label.size, label.min()),
        )
    return label > 0


def _places(models: Any) -> list[str]:
    """Name each grayordinate by structure and vertex, or voxel."""
    short = [str(name).removeprefix("CIFTI_STRUCTURE_").lower() for name in models.name]
    return [
        f"{name}.{vertex}" if vertex >= 0 else f"{name}.{x}-{y}-{z}"
        for name, vertex, (x, y, z) in zip(
            short, models.vertex.tolist(), models.voxel.tolist(), strict=True
        )
    ]


def _check_volumes(image: pathlib.Path, models: Any, atlas: pathlib.Path, others: Any) -> None:
    """Hold surfaces and the grid of voxels against each other where both files have them."""
    for name in models.nvertices.keys() & others.nvertices.keys():
        if models.nvertices[name] != others.nvertices[name]:
            raise InputError(
                f"{atlas} must have the surface of {image}, {models.nvertices[name]} vertices of "
                f"{name}, found {others.nvertices[name]}."
            )
    if models.volume_shape is not None and others.volume_shape is not None:
        imaging.same_grid(
            image,
            tuple(models.volume_shape),
            models.affine,
            atlas,
            tuple(others.volume_shape),
            others.affine,
        )


def _surface(image: pathlib.Path, atlas: pathlib.Path | None, tr_s: float, hemisphere: str) -> Scan:
    with imaging.reading(image) as nib:
        data = nib.load(image)
        if not isinstance(data, nib.GiftiImage):
            raise InputError(f"{image} must be GIFTI, found {type(data).__name__}.")
        series = [array.data for array in data.darrays]
    if len(series) < 2 or any(array.ndim != 1 for array in series):
        shapes = sorted({array.shape for array in series})
        raise InputError(
            f"{image} must hold an array per TR, each of one value per vertex, found "
            f"{len(series)} of shape {', '.join(map(str, shapes))}."
        )
    sizes = sorted({len(array) for array in series})
    if len(sizes) != 1:
        raise InputError(f"{image} must have as many vertices in every TR, found {sizes}.")
    if atlas is None:
        label, names = np.ones(sizes[0], np.int64), {1: SURFACE}
    else:
        label, names = _vertex_labels(image, atlas, sizes[0])
    step = data.meta.get("TimeStep")
    if step is not None:
        _check_time_step(image, step, tr_s)
    inside = np.flatnonzero(_inside(label, atlas or image))
    values = np.stack([array[inside] for array in series]).astype(np.float32)
    structure = grids.HEMISPHERES.get(hemisphere, "CIFTI_STRUCTURE_CORTEX")
    at_place = np.full(len(label), grids.NOWHERE)
    at_place[inside] = np.arange(len(inside))
    return Scan(
        values=values,
        label=label[inside],
        place=[str(i) for i in inside.tolist()],
        names=names,
        frame=Frame(
            kind="GIFTI",
            voxel=np.full((len(label), 3), grids.NOWHERE),
            vertex=np.arange(len(label)),
            structure=np.zeros(len(label), int),
            structures=(structure,),
            num_vertices={structure: len(label)},
            entities=grids.entities(image),
        ),
        column=at_place,
    )


def _vertex_labels(
    image: pathlib.Path, atlas: pathlib.Path, num_vertices: int
) -> tuple[Int[np.ndarray, " v"], dict[int, str]]:
    with imaging.reading(atlas) as nib:
        labelled = nib.load(atlas)
        if len(labelled.darrays) != 1:
            raise InputError(f"{atlas} must hold one array, found {len(labelled.darrays)}.")
        label = imaging.whole_numbers(labelled.darrays[0].data, atlas)
        names = {int(key): name for key, name in labelled.labeltable.get_labels_as_dict().items()}
    if label.shape != (num_vertices,):
        raise InputError(
            f"{atlas} must have the vertices of {image}, {num_vertices}, found {label.shape}."
        )
    return label, names


def _check_time_step(path: pathlib.Path, step: str, tr_s: float) -> None:
    """Hold the header's step against the TR: some programs write it in seconds, some in ms."""
    try:
        found = float(step)
    except ValueError as error:
        raise InputError(f"{path}: TimeStep must be a number, found {step!r}.") from error
    _check_tr(path, found / 1000 if found > 100 * tr_s else found, tr_s)
