"""Maps of targets as NIfTI, CIFTI dscalar or GIFTI, in the grid that responses came from."""

import gzip
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from jaxalign.data.formats import grids, recordings
from jaxalign.data.formats.grids import Frame

ENDINGS = {grids.NIFTI: ".nii.gz", grids.CIFTI: ".dscalar.nii", grids.GIFTI: ".func.gii"}
# What an affine of which nothing is said leads to, for the code of NIfTI must not be 0.
_ALIGNED = 2
_ANATOMY = {"L": "CortexLeft", "R": "CortexRight", "": "Cortex"}


def image(frame: Frame, values: Float[np.ndarray, " p"], name: str) -> Any:
    """Return a map as an image of nibabel, float32, NaN wherever there is no value.

    Args:
      frame: its places.
      values: of each place.
      name: of the map, in files that hold names.

    Raises:
      InputError: if nibabel is not installed.
    """
    nib = recordings.library("nibabel", "maps")
    make = {grids.NIFTI: _volume, grids.CIFTI: _grayordinates, grids.GIFTI: _surface}[frame.kind]
    return make(nib, frame, values.astype(np.float32), name)


def to_bytes(frame: Frame, values: Float[np.ndarray, " p"], name: str) -> bytes:
    """Return the file of a map, which ends as `ENDINGS` says; the same for the same values.

    Args:
      frame, values, name: see `image`.
    """
    content = image(frame, values, name).to_bytes()
    return gzip.compress(content, 6, mtime=0) if frame.kind == grids.NIFTI else content


def mask_bytes(frame: Frame, inside: Bool[np.ndarray, " p"]) -> bytes:
    """Return the `.nii.gz` of a mask, 0 and 1, of a frame of voxels.

    Args:
      frame: its places.
      inside: whether each belongs to the mask.
    """
    nib = recordings.library("nibabel", "maps")
    volume = np.zeros(frame.shape, np.uint8)
    volume[tuple(frame.voxel.T)] = inside
    return gzip.compress(_placed(nib.Nifti1Image(volume, frame.affine), frame).to_bytes(), mtime=0)


def _volume(nib: Any, frame: Frame, values: Float[np.ndarray, " p"], name: str) -> Any:
    volume = np.full(frame.shape, np.nan, np.float32)
    volume[tuple(frame.voxel.T)] = values
    made = _placed(nib.Nifti1Image(volume, frame.affine), frame)
    made.header["descrip"] = name.encode("ascii", "replace")[:79]
    return made


def _placed(made: Any, frame: Frame) -> Any:
    code = frame.code or _ALIGNED
    made.set_sform(frame.affine, code)
    made.set_qform(frame.affine, code)
    made.header.set_xyzt_units("mm", "sec")
    return made


def _grayordinates(nib: Any, frame: Frame, values: Float[np.ndarray, " p"], name: str) -> Any:
    has_volume = bool(frame.shape)
    models = nib.cifti2.BrainModelAxis(
        np.array(frame.structures)[frame.structure],
        voxel=frame.voxel if has_volume else None,
        vertex=frame.vertex,
        affine=frame.affine if has_volume else None,
        volume_shape=frame.shape if has_volume else None,
        nvertices=dict(frame.num_vertices),
    )
    header = (nib.cifti2.ScalarAxis([name]), models)
    made = nib.Cifti2Image(values[None], header=header)
    made.nifti_header.set_intent("ConnDenseScalar")
    return made


def _surface(nib: Any, frame: Frame, values: Float[np.ndarray, " p"], name: str) -> Any:
    array = nib.gifti.GiftiDataArray(
        values, intent="NIFTI_INTENT_NONE", meta=nib.gifti.GiftiMetaData({"Name": name})
    )
    anatomy = _ANATOMY[frame.hemisphere]
    meta = nib.gifti.GiftiMetaData({"AnatomicalStructurePrimary": anatomy})
    return nib.gifti.GiftiImage(darrays=[array], meta=meta)
