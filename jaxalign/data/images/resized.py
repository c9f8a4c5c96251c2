"""Images in another size than that in which they are stored."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import PIL.Image
from jaxtyping import UInt8

from jaxalign.data.images.stored import Pixels
from jaxalign.io import run_dir


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resized(Pixels):
    """Images brought to one size, before a model's own preprocessing: see `stored.Pixels`.

    Attributes:
      of: the images as they are stored.
      size: pixels of height and width that they are brought to, by Pillow's bilinear filter.
    """

    of: Pixels
    size: int

    @property
    def places(self) -> Sequence[object]:
        """Those of the images as they are stored."""
        return self.of.places

    def check(self) -> None:
        """See `stored.Pixels`."""
        self.of.check()

    @property
    def shapes(self) -> set[tuple[int, int]]:
        """The one that all are brought to; see `stored.Pixels`."""
        self.of.check()
        return {(self.size, self.size)} if len(self.of.places) else set()

    @property
    def hash(self) -> str:
        """Hash of the images as they are stored, and of the size."""
        return run_dir.hash_text(f"{self.of.hash} bilinear {self.size}")

    def read(self, index: Sequence[int]) -> UInt8[np.ndarray, "k size size 3"]:
        """Read some of the images; see `stored.Pixels`."""
        to = (self.size, self.size)
        found = [
            np.asarray(PIL.Image.fromarray(image).resize(to, PIL.Image.Resampling.BILINEAR))
            for image in self.of.read(index)
        ]
        return np.stack(found) if found else np.empty((0, *to, 3), np.uint8)
