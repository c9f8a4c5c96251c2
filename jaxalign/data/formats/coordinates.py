"""Where targets lie: millimetres in a space that has a name."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxalign.errors import InputError

MNI = "MNI152"  # in all its versions, which differ by millimetres
SCANNER = "scanner"  # a subject's own, which is nobody else's
# Codes of a NIfTI header (sform_code, else qform_code) -> the space of its affine. Of 2, aligned to
# another image, and 3, Talairach's atlas, nothing is drawn either, and so they keep a name apart.
NIFTI = {1: SCANNER, 2: "aligned", 3: "Talairach", 4: MNI, 5: "template"}
NONE = np.empty((0, 3))


def check(xyz: Float[np.ndarray, "c x"], space: str, num_targets: int) -> None:
    """Refuse coordinates that are not those of the targets.

    Args:
      xyz: in mm, with a row of NaN for a target that lies nowhere, such as a mean over a region;
        empty where none are known.
      space: its name; "" where none are known.
      num_targets: that must have a row each.

    Raises:
      InputError: naming `coordinates` or `space` of responses.
    """
    if not xyz.size:
        if space:
            raise InputError(f"responses: space {space!r} must have coordinates, found none.")
        return
    if xyz.shape != (num_targets, 3):
        raise InputError(
            f"responses: coordinates must be {num_targets} x 3, found "
            f"{' x '.join(map(str, xyz.shape))}."
        )
    if not space:
        raise InputError(
            f"responses: coordinates must have a space, such as {MNI!r} or {SCANNER!r}, found ''."
        )
    bad = ~(np.isfinite(xyz).all(axis=1) | np.isnan(xyz).all(axis=1))
    if bad.any():
        row = int(np.argmax(bad))
        raise InputError(
            f"responses: coordinates of a target must be three numbers, or three NaN, found "
            f"{xyz[row].tolist()} of target {row}."
        )


def stacked(
    parts: Sequence[Float[np.ndarray, "_ 3"]], sizes: Sequence[int], spaces: Sequence[str]
) -> tuple[Float[np.ndarray, "_ 3"], str]:
    """Put the coordinates of subjects below each other.

    Args:
      parts: of each subject; empty where none are known.
      sizes: targets of each.
      spaces: of each; "" where none are known.

    Returns:
      The coordinates and their space. Where subjects do not have the same one, those of none are
      known: nothing could be drawn of all of them together.
    """
    names = set(spaces)
    if len(names) != 1 or "" in names:
        return NONE, ""
    assert all(len(part) == size for part, size in zip(parts, sizes, strict=True))
    return np.concatenate(parts), names.pop()
