"""ROIs of the Natural Scenes Dataset: labels of its volumes, alone or several as one."""

import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Bool, Float, Int

from jaxalign.data.formats import grids, imaging
from jaxalign.data.formats.grids import Frame, Grid
from jaxalign.errors import InputError

MASK = "nsdgeneral"
# Volume of labels -> the names that its table gives them, from 1 on.
LABELS: dict[str, tuple[str, ...]] = {
    "prf-visualrois": ("V1v", "V1d", "V2v", "V2d", "V3v", "V3d", "hV4"),
    "prf-eccrois": ("ecc0pt5", "ecc1", "ecc2", "ecc4", "ecc4+"),
    "floc-faces": ("OFA", "FFA-1", "FFA-2", "mTL-faces", "aTL-faces"),
    "floc-bodies": ("EBA", "FBA-1", "FBA-2", "mTL-bodies"),
    "floc-places": ("OPA", "PPA", "RSC"),
    "floc-words": ("OWFA", "VWFA-1", "VWFA-2", "mfs-words", "mTL-words"),
    "streams": (
        *("early", "midventral", "midlateral", "midparietal", "ventral", "lateral", "parietal"),
    ),
}
# ROI -> its volume, and labels that are one in it. Those in capitals, and pRF-Visual, are the whole
# volumes, as Oota et al. (2025) call them.
GROUPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "V1": ("prf-visualrois", ("V1v", "V1d")),
    "V2": ("prf-visualrois", ("V2v", "V2d")),
    "V3": ("prf-visualrois", ("V3v", "V3d")),
    "FFA": ("floc-faces", ("FFA-1", "FFA-2")),
    "FBA": ("floc-bodies", ("FBA-1", "FBA-2")),
    "VWFA": ("floc-words", ("VWFA-1", "VWFA-2")),
    "pRF-Visual": ("prf-visualrois", LABELS["prf-visualrois"]),
    "FLOC-BODIES": ("floc-bodies", LABELS["floc-bodies"]),
    "FLOC-FACES": ("floc-faces", LABELS["floc-faces"]),
    "FLOC-PLACES": ("floc-places", LABELS["floc-places"]),
    "FLOC-WORDS": ("floc-words", LABELS["floc-words"]),
    # Labels that are ROIs as they are: hV4, PPA, the streams ...
    **{name: (volume, (name,)) for volume, names in LABELS.items() for name in names},
}
ROIS = (MASK, *GROUPS)


class Voxels(NamedTuple):
    """Where the targets of a subject lie."""

    mask: Bool[np.ndarray, "x y z"]  # voxels that are in a ROI
    # Of each target: its voxel, in the order of `numpy.argwhere(mask)`. One of two ROIs is there
    # twice, once in each.
    voxel: Int[np.ndarray, " v"]
    roi: list[str]
    target: list[str]  # "subj01.x-y-z"
    grid: Grid


def volumes(rois: Sequence[str]) -> list[str]:
    """Return the volumes of labels that some ROIs need.

    Args:
      rois: of `ROIS`.
    """
    return list(dict.fromkeys(GROUPS[roi][0] for roi in rois if roi != MASK))


def of_atlas(
    subject: str, mask_path: pathlib.Path, atlas: tuple[pathlib.Path, pathlib.Path] | None
) -> Voxels:
    """Read the mask, and an atlas of which every label is a ROI.

    Args:
      subject: whose voxels they are.
      mask_path: volume of the mask; without an atlas it is one ROI.
      atlas: volume of labels, and table of their names.

    Raises:
      InputError: if a file is damaged, grids differ, a label has no name, or no voxel is left.
    """
    mask, where = _mask(mask_path)
    if atlas is None:
        return _targets(subject, mask_path, {MASK: mask}, where)
    labels, names = _labels(subject, mask, atlas)
    found = {names[i]: labels == i for i in sorted(set(labels[labels > 0].tolist()))}
    return _targets(subject, atlas[0], found, where)


def of_groups(
    subject: str,
    mask_path: pathlib.Path,
    atlas: Callable[[str], tuple[pathlib.Path, pathlib.Path]],
    rois: Sequence[str],
) -> Voxels:
    """Read the mask, and ROIs by their names; labels of one group are one ROI.

    Args:
      subject: whose voxels they are.
      mask_path: volume of the mask.
      atlas: gives a volume of labels, and the table of their names.
      rois: of `ROIS`.

    Raises:
      InputError: see `of_atlas`; and if a ROI has no voxel, or a table lacks a label.
    """
    mask, where = _mask(mask_path)
    read = {name: _labels(subject, mask, atlas(name)) for name in volumes(rois)}
    found = {}
    for roi in rois:
        if roi == MASK:
            found[roi] = mask
            continue
        volume, members = GROUPS[roi]
        labels, names = read[volume]
        path, table = atlas(volume)
        if lost := [x for x in members if x not in names.values()]:
            raise InputError(f"{table} must name the label {lost[0]} of {roi}, found none.")
        numbers = [number for number, name in names.items() if name in members]
        found[roi] = np.isin(labels, numbers)
        if not found[roi].any():
            raise InputError(
                f"{path} must mark at least one voxel of {MASK} as {roi}, found none: leave that "
                f"ROI out for {subject}."
            )
    return _targets(subject, mask_path, found, where)


class _Affine(NamedTuple):
    """From voxels to mm, and what these are in (`Frame.code`)."""

    affine: Float[np.ndarray, "4 4"]
    code: int


def _mask(path: pathlib.Path) -> tuple[Bool[np.ndarray, "x y z"], _Affine]:
    labels, affine = imaging.label_volume(path)
    return labels > 0, _Affine(affine, imaging.space_code(imaging.volume(path, ndim=3)))


def _labels(
    subject: str, mask: Bool[np.ndarray, "x y z"], atlas: tuple[pathlib.Path, pathlib.Path]
) -> tuple[Int[np.ndarray, "x y z"], dict[int, str]]:
    """Read labels inside the mask, 0 outside of it, and their names."""
    path, table = atlas
    labels = imaging.label_volume(path)[0]
    if labels.shape != mask.shape:
        raise InputError(
            f"{path} must have the grid of {MASK}, {mask.shape}, found {labels.shape}."
        )
    names = imaging.color_table(table)
    if unknown := sorted(set(labels[labels > 0].tolist()) - names.keys()):
        raise InputError(f"{table} must name every label of {path}: {unknown[0]} is missing.")
    inside = labels[mask]
    logging.info(
        "nsd %s: %s: of %d voxels of %s %d are of no ROI (label 0) and %d outside the cortex it "
        "was drawn on (-1): left out",
        *(subject, path.name, inside.size, MASK),
        *(int((inside == 0).sum()), int((inside < 0).sum())),
    )
    return np.where(mask, labels, 0), {i: name for i, name in names.items() if i > 0}


def _targets(
    subject: str,
    path: pathlib.Path,
    found: dict[str, Bool[np.ndarray, "x y z"]],
    where: _Affine,
) -> Voxels:
    """Put ROIs side by side: voxels in their order, and of a voxel the ROIs in theirs."""
    if not any(part.any() for part in found.values()):
        raise InputError(f"{path} must mark at least one voxel of {MASK}, found none.")
    each = np.stack(list(found.values()))
    mask = np.asarray(each.any(axis=0))
    places = np.argwhere(mask)
    voxel, roi = np.nonzero(each[:, mask].T)
    names = list(found)
    rois = [names[i] for i in roi]
    targets = ["{}.{}-{}-{}".format(subject, *places[i].tolist()) for i in voxel]
    # A map has one value at a voxel: that of its first ROI.
    first = np.unique(voxel, return_index=True)[1]
    frame = Frame(
        kind=grids.NIFTI,
        voxel=places,
        vertex=np.full(len(places), grids.NOWHERE),
        structure=np.zeros(len(places), int),
        shape=mask.shape,
        affine=where.affine,
        code=where.code,
    )
    return Voxels(
        mask=mask,
        voxel=voxel,
        roi=rois,
        target=targets,
        grid=grids.place(frame, subject, first, list(zip(rois, targets, strict=True))),
    )
