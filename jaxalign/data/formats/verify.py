"""Whether files are those that were published: counts and sums, checked and reported."""

import pathlib
from collections.abc import Mapping

from absl import logging

from jaxalign.errors import InputError

Number = int | float
Range = tuple[Number, Number]


def exactly(value: Number) -> Range:
    """Expect this value."""
    return value, value


def about(value: Number) -> Range:
    """Expect this value, up to rounding in sums."""
    margin = abs(value) * 1e-6
    return value - margin, value + margin


def check(
    path: pathlib.Path, name: str, found: Mapping[str, Number], expected: Mapping[str, Range]
) -> None:
    """Hold facts about a file against those of the published one, and log them.

    Args:
      path: the file.
      name: the data set, as people know it.
      found: facts, by their names.
      expected: the lowest and highest value of some of them.

    Raises:
      InputError: if one lies outside.
    """
    for fact, (low, high) in expected.items():
        if not low <= found[fact] <= high:
            wanted = f"{low:.12g}" if low == high else f"{low:.12g} to {high:.12g}"
            raise InputError(
                f"{path}: {fact} must be {wanted} as in the published {name}, found "
                f"{found[fact]:.12g}: the file is another one."
            )
    facts = ", ".join(f"{fact} {found[fact]:.12g}" for fact in expected)
    logging.info("%s is the published %s: %s", path, name, facts)
