"""Models that another step of the same run makes: what is known of them before they are there."""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping

import jax
import numpy as np

from jaxalign.models import formats, zoo


class Planned:
    """The arrays of a model's directory that is made later; it is opened when they are read."""

    def __init__(self, folder: pathlib.Path, identity: str):
        """Take what fixes the content, as nothing can be hashed yet.

        Args:
          folder: of the model.
          identity: the same for the same content.
        """
        self.path, self._identity = folder / formats.ORBAX, identity

    @functools.cached_property
    def _opened(self):
        from jaxalign.io import orbax_tree  # slow to import

        return orbax_tree.Arrays(self.path)

    def hash(self) -> str:
        """Return what fixes the content."""
        return self._identity

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each array.

        Raises:
          InputError: if the checkpoint is not there, or incomplete.
        """
        return self._opened.shapes()

    def dtypes(self) -> dict[str, np.dtype]:
        """Return the type of each array; raises as `shapes`."""
        return self._opened.dtypes()

    def restore(self, wanted: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
        """Read arrays; raises as `shapes`.

        Args:
          wanted: see `orbax_tree.Arrays.restore`.
        """
        return self._opened.restore(wanted)

    def part(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """Read part of an array on the host; raises as `shapes`.

        Args:
          name, index: see `orbax_tree.Arrays.part`.
        """
        return self._opened.part(name, index)


def model(base: zoo.Model, name: str, folder: pathlib.Path, identity: str) -> zoo.Model:
    """Return a model of the same network with other weights, which are made later.

    Args:
      base: whose configuration and tokenizer it has.
      name: of the model.
      folder: where it will lie.
      identity: see `Planned`.
    """
    return dataclasses.replace(base, name=name, checkpoint=Planned(folder, identity), names={})
