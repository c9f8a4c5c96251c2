"""The image that targets come from: mask, affine, vertices, and which target lies at each place."""

import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int

from jaxalign.errors import InputError

NIFTI, CIFTI, GIFTI = "NIfTI", "CIFTI", "GIFTI"
Kind = Literal["NIfTI", "CIFTI", "GIFTI"]
HEMISPHERES = {"L": "CIFTI_STRUCTURE_CORTEX_LEFT", "R": "CIFTI_STRUCTURE_CORTEX_RIGHT"}
NOWHERE = -1  # voxel of a vertex, vertex of a voxel, target of a place that has none
_PREFIX = "grid"  # of arrays in a file
# What BIDS says in the name of an image, and its derivatives keep.
ENTITIES = ("task", "space", "res", "den")


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """Places of one image, without targets: voxels of a mask, or all vertices and grayordinates.

    Attributes:
      kind: of the file.
      voxel: of each place, from 0; `NOWHERE` of vertices.
      vertex: number of each place on its surface; `NOWHERE` of voxels.
      structure: of each place, an index of `structures`.
      structures: as CIFTI names them, "CIFTI_STRUCTURE_CORTEX_LEFT" ...; ("",) of NIfTI.
      num_vertices: of the surface of each structure that has one, by its name.
      shape: of the volume that voxels belong to; () where there are none.
      affine: from voxels to mm; 0 x 0 where there are none.
      code: of the NIfTI header, what the affine leads to: 1 scanner, 2 aligned, 3 Talairach, 4
        MNI152, 5 another template; 0 where nothing is said.
      entities: what the name of the image says in the way of BIDS, of `ENTITIES`.
    """

    kind: Kind
    voxel: Int[np.ndarray, "p 3"]
    vertex: Int[np.ndarray, " p"]
    structure: Int[np.ndarray, " p"]
    structures: tuple[str, ...] = ("",)
    num_vertices: Mapping[str, int] = dataclasses.field(default_factory=dict)
    shape: tuple[int, ...] = ()
    affine: Float[np.ndarray, "a a"] = dataclasses.field(default_factory=lambda: np.empty((0, 0)))
    code: int = 0
    entities: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.vertex)

    @property
    def hemisphere(self) -> str:
        """Of GIFTI, "L" or "R"; else ""."""
        named = {name: letter for letter, name in HEMISPHERES.items()}
        return named.get(self.structures[0], "") if self.kind == GIFTI else ""

    @property
    def space(self) -> str:
        """The space as BIDS names it in the name of the image; "" where it does not."""
        return self.entities.get("space", "")

    def is_like(self, other: "Frame") -> bool:
        """Whether two images have the same places, in the same order and at the same mm."""
        fixed = ("kind", "structures", "num_vertices", "shape", "space")
        arrays = ("voxel", "vertex", "structure")
        return (
            all(getattr(self, x) == getattr(other, x) for x in fixed)
            and all(np.array_equal(getattr(self, x), getattr(other, x)) for x in arrays)
            and bool(np.abs(self.affine - other.affine).max(initial=0) < 1e-2)
        )


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Grid(Frame):
    """Places of one image of a subject, and the target of each.

    A target may have many places, as the mean of an ROI has, and is found by its names: what is
    left out of the responses later has no value here.

    Attributes:
      subject: as responses name it.
      labels: ROI and name of targets, as responses have them.
      label: of each place, an index of `labels`; `NOWHERE` where there is no target.
    """

    subject: str
    labels: tuple[tuple[str, str], ...]
    label: Int[np.ndarray, " p"]

    def __post_init__(self):
        p = len(self.vertex)
        for name, shape in (("voxel", (p, 3)), ("structure", (p,)), ("label", (p,))):
            if getattr(self, name).shape != shape:
                raise InputError(
                    f"grid of subject {self.subject!r}: {name} must be of shape {shape}, found "
                    f"{getattr(self, name).shape}."
                )
        for name, size in (("label", len(self.labels)), ("structure", len(self.structures))):
            found = getattr(self, name)
            if p and not (NOWHERE <= found.min() and found.max() < size):
                raise InputError(
                    f"grid of subject {self.subject!r}: {name} must be below {size}, found "
                    f"{found.min()} to {found.max()}."
                )

    def values(self, of_target: Mapping[tuple[str, str], float]) -> Float[np.ndarray, " p"]:
        """Return the value of each place; NaN where there is no target, or none with a value.

        Args:
          of_target: values by ROI and name.
        """
        known = np.array([of_target.get(x, np.nan) for x in self.labels] + [np.nan])
        return known[self.label]  # the last is that of `NOWHERE`


def place(
    frame: Frame,
    subject: str,
    column: Int[np.ndarray, " p"],
    labels: Sequence[tuple[str, str]],
) -> Grid:
    """Say which target lies at each place of an image.

    Args:
      frame: places.
      subject: whose.
      column: of each place, an index of `labels`; `NOWHERE` for none.
      labels: ROI and name of each target.
    """
    fields = {x.name: getattr(frame, x.name) for x in dataclasses.fields(Frame)}
    return Grid(**fields, subject=subject, labels=tuple(labels), label=column)


def entities(path: pathlib.Path) -> dict[str, str]:
    """Read what BIDS says in the name of an image, `sub-01_task-x_space-MNI_bold.nii.gz`."""
    found = dict(re.findall(r"(?:^|_)([a-z]+)-([A-Za-z0-9]+)(?=_)", path.name))
    return {name: found[name] for name in ENTITIES if name in found}


def digest(grids: Sequence[Grid]) -> bytes:
    """Return a hash of all content; b"" of none, so that what has none is hashed without them."""
    found = hashlib.sha256()
    if not grids:
        return b""
    for name, array in to_arrays(grids).items():
        found.update(f"{name} {array.dtype} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.digest()


def to_arrays(grids: Iterable[Grid]) -> dict[str, np.ndarray]:
    """Return the content as named arrays, which `from_arrays` reads."""
    found = {}
    for i, grid in enumerate(grids):
        for name in ("voxel", "vertex", "structure", "label"):
            found[f"{_PREFIX}{i}_{name}"] = getattr(grid, name).astype(np.int32)
        found[f"{_PREFIX}{i}_affine"] = grid.affine.astype(np.float64)
        found[f"{_PREFIX}{i}_labels"] = np.array(grid.labels, str).reshape(-1, 2)
        plain = ("subject", "kind", "structures", "num_vertices", "shape", "code", "entities")
        text = json.dumps({name: getattr(grid, name) for name in plain}, sort_keys=True)
        found[f"{_PREFIX}{i}_about"] = np.array(text)
    return found


def is_array(name: str) -> bool:
    """Whether a named array is one of `to_arrays`."""
    return re.match(rf"{_PREFIX}\d+_", name) is not None


def from_arrays(arrays: Mapping[str, np.ndarray]) -> tuple[Grid, ...]:
    """Read what `to_arrays` gave; other arrays may be among them.

    Raises:
      InputError: if one is missing, or is not what it must be.
    """
    grids = []
    while f"{_PREFIX}{len(grids)}_about" in arrays:
        start = f"{_PREFIX}{len(grids)}_"
        try:
            about: dict[str, Any] = json.loads(str(arrays[start + "about"]))
            about |= {
                x: arrays[start + x].astype(np.int64)
                for x in ("voxel", "vertex", "structure", "label")
            }
            labels = tuple((str(roi), str(target)) for roi, target in arrays[start + "labels"])
            about["structures"] = tuple(about["structures"])
            about["shape"] = tuple(about["shape"])
            grids.append(Grid(**about, labels=labels, affine=arrays[start + "affine"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{start}*: the grid of an image must be whole: {error}.") from error
    return tuple(grids)
