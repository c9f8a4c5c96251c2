"""One image file -> 8-bit RGB, by rules that are written down here.

- EXIF's orientation is applied: the image is what a viewer shows.
- Grey is repeated in three channels; a palette is looked up.
- Transparency is laid on white, as transformers 5 does.
- CMYK, YCbCr, Lab and HSV are converted by Pillow's formulas, without colour profiles.
- Of 16-bit channels the upper byte is taken: Pillow itself does so for colours, and here the same
  is done for grey.
- Grey in 32-bit integers or floating point is refused, since nothing says what is white; and so
  are files of several frames, since nothing says which one was shown.
"""

import contextlib
import pathlib
from collections.abc import Iterator

import numpy as np
import PIL.ExifTags
import PIL.Image
import PIL.ImageOps
from jaxtyping import UInt8

from jaxalign.errors import InputError, one_line

# What Pillow raises on damaged files: SyntaxError on broken PNG, and what its decoders let through.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, TypeError, IndexError, KeyError)
_DAMAGED += (PIL.Image.DecompressionBombError, OverflowError)
_WITHOUT_RANGE = ("I", "F")
_SIXTEEN_BITS = "I;16"
_TURNED = (5, 6, 7, 8)  # orientations of EXIF whose rows are columns


def read(path: pathlib.Path) -> UInt8[np.ndarray, "h w 3"]:
    """Read an image file.

    Raises:
      InputError: if it is missing, empty, damaged or truncated, or of a kind that is refused.
    """
    with _opened(path) as image:
        image.load()  # all of it: a file that ends early shows here
        return to_rgb(PIL.ImageOps.exif_transpose(image))


def look(path: pathlib.Path) -> tuple[int, int]:
    """Return height and width by a file's header, without reading the rest; see `read`.

    Raises:
      InputError: if it is missing, empty, no image, or of a kind that is refused.
    """
    with _opened(path) as image:
        width, height = image.size
        turned = image.getexif().get(PIL.ExifTags.Base.Orientation) in _TURNED
        return (width, height) if turned else (height, width)


@contextlib.contextmanager
def _opened(path: pathlib.Path) -> Iterator[PIL.Image.Image]:
    if not path.is_file():
        unfetched = ": it is a link to a file that was not fetched"
        raise InputError(f"image {path} is missing{unfetched if path.is_symlink() else ''}.")
    if not path.stat().st_size:
        raise InputError(f"image {path} must hold an image: the file is empty (0 bytes).")
    try:
        with PIL.Image.open(path) as image:
            _refuse(path, image)
            yield image
    except InputError:
        raise
    except _DAMAGED as error:
        raise InputError(
            f"image {path} must be a whole image that Pillow reads: {one_line(error)}."
        ) from error


def _refuse(path: pathlib.Path, image: PIL.Image.Image) -> None:
    if (frames := getattr(image, "n_frames", 1)) > 1:
        raise InputError(f"image {path} must be a single picture, found {frames} frames.")
    if image.mode in _WITHOUT_RANGE:
        raise InputError(
            f"image {path} must have 8 or 16 bits a channel: found 32 (Pillow's mode "
            f"{image.mode!r}), of which nothing says what is white; save it with 8 bits."
        )
    if 0 in image.size:
        width, height = image.size
        raise InputError(f"image {path} must have pixels, found {height} x {width}.")


def to_rgb(image: PIL.Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    """Convert an image of Pillow; see the module.

    Args:
      image: of any mode but 32-bit grey.
    """
    if image.mode.startswith(_SIXTEEN_BITS):
        grey = np.asarray(image).astype(np.uint16) >> 8
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
    if "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info:
        image = image.convert("RGBA")
        white = PIL.Image.new("RGBA", image.size, (255, 255, 255, 255))
        image = PIL.Image.alpha_composite(white, image)
    return np.array(image.convert("RGB"))
