"""Flags of the machine that a plan is priced for, of all command lines that print prices."""

import math

from absl import flags

_CHIP = flags.DEFINE_string(
    "chip",
    "",
    "The machine of a run, or of each job of a sweep, such as v5e-8 or h200 "
    "(jaxalign/pricing/chips.py), for which its plan is priced. Default: the one at hand, or what "
    "the engine of a sweep says. With --dry_run, models and data sets that are not here are priced "
    "by their published sizes.",
)
_CALIBRATION = flags.DEFINE_string(
    "calibration",
    "",
    "File that `python -m jaxalign.calibrate` has written, whose rates count in the place of the "
    "table's. Default: that of the chip in ~/.cache/jaxalign/chips, where there is one.",
)
_PRICE_PER_HOUR = flags.DEFINE_float(
    "price_per_hour",
    None,
    "Money for one device and hour, in any currency. Default: none is shown.",
    lower_bound=0.0,
)


def chip() -> str:
    """Return the name of the machine; "": none was given."""
    return _CHIP.value


def calibration() -> str:
    """Return the file of measured rates; "": that of the chip, if there is one."""
    return _CALIBRATION.value


def rate() -> float:
    """Return the money for one device and hour; NaN: none was given."""
    return math.nan if _PRICE_PER_HOUR.value is None else _PRICE_PER_HOUR.value
