"""What the JSON file next to a scan says of its clock, in the terms of BIDS."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxalign.errors import InputError, one_line

_ENDINGS = (".nii.gz", ".nii", ".gii")
_KINDS = (".dtseries", ".func")  # which BIDS keeps in the name of the JSON file, or leaves out


class Timing(NamedTuple):
    """What a JSON file says; None is not said.

    Attributes:
      tr_s: RepetitionTime.
      start_s: StartTime, when the first volume was recorded, or what slice timing correction moved
        it to, after the start of the acquisition.
      slices_corrected: SliceTimingCorrected.
    """

    tr_s: float | None = None
    start_s: float | None = None
    slices_corrected: bool = False


def sidecar(image: pathlib.Path) -> pathlib.Path | None:
    """Return the JSON file next to a scan, or None.

    Args:
      image: `x_bold.nii.gz` has `x_bold.json`; `x_bold.dtseries.nii` has that or
        `x_bold.dtseries.json`.
    """
    stem = next((image.name.removesuffix(x) for x in _ENDINGS if image.name.endswith(x)), "")
    stems = [stem, *(stem.removesuffix(kind) for kind in _KINDS)]
    found = (image.with_name(f"{name}.json") for name in dict.fromkeys(stems) if name)
    return next((path for path in found if path.is_file()), None)


def timing(path: pathlib.Path, above: Sequence[pathlib.Path] = ()) -> Timing:
    """Read what a JSON file says of time.

    Args:
      path: the file.
      above: files that hold for it too, where it says nothing else; the most general first.

    Raises:
      InputError: if it is no JSON object, a time is no number, or volumes were not recorded at
        even steps (VolumeTiming).
    """
    found: dict[str, Any] = {}
    for file in (*above, path):
        found |= content(file)
    tr_s, start_s = (_number(path, found, name) for name in ("RepetitionTime", "StartTime"))
    if "VolumeTiming" in found:
        tr_s, start_s = _even(path, found["VolumeTiming"], tr_s, start_s)
    corrected = found.get("SliceTimingCorrected", False)
    if not isinstance(corrected, bool):
        raise InputError(f"{path}: SliceTimingCorrected must be true or false, found {corrected}.")
    return Timing(tr_s, start_s, corrected)


def content(path: pathlib.Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
      InputError: if the file holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} must be a JSON object: {one_line(error)}.") from error
    if not isinstance(found, dict):
        raise InputError(f"{path} must be a JSON object, found {type(found).__name__}.")
    return found


def _number(path: pathlib.Path, found: dict, name: str) -> float | None:
    value = found.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise InputError(f"{path}: {name} must be a number of seconds, found {value!r}.")
    return float(value)


def _even(
    path: pathlib.Path, times: object, tr_s: float | None, start_s: float | None
) -> tuple[float | None, float | None]:
    """Return TR and start of volumes whose times are listed, if these advance evenly."""
    try:
        times_s = np.asarray(times, np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: VolumeTiming must be a list of seconds.") from error
    if times_s.ndim != 1 or len(times_s) < 2 or not np.isfinite(times_s).all():
        raise InputError(f"{path}: VolumeTiming must be a list of seconds, found {times!r:.40}.")
    steps = np.diff(times_s)
    if np.ptp(steps) > 2e-3 * abs(steps[0]):
        raise InputError(
            f"{path}: VolumeTiming must advance evenly, found steps from {steps.min():g} to "
            f"{steps.max():g} s: give the responses as responses.npz with the time_s of each."
        )
    step = float(np.median(steps))
    return tr_s if tr_s is not None else step, start_s if start_s is not None else float(times_s[0])
