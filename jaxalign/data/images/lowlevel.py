"""What is in an image before anything is seen in it: pixels, luminance, colours, Gabor filters.

Features that know nothing of objects, for controls. All images are brought to one size where a
feature has places, whatever shape they have.
"""

import functools
import itertools
from collections.abc import Callable

import numpy as np
import PIL.Image
from jaxtyping import Float, Float32, UInt8

from jaxalign import progress
from jaxalign.data.images.stored import Pixels

VERSION = 1
_AT_ONCE = 32  # images that are read at a time
PIXELS_SIDE = 16  # of the grid of `pixels`
GABOR_SIDE = 96  # pixels of height and width that filters see
NUM_LUMINANCES = 16  # bins of L*, from 0 to 100
NUM_COLORS = 4  # bins of each of red, green and blue
# The static Gabor pyramid of pymoten 0.1.3: cycles in an image, and degrees. 0 cycles: how bright
# it is, at the places of each other frequency.
FREQUENCIES, ORIENTATIONS = (0, 2, 4, 8, 16), (0, 45, 90, 135)
_CYCLES = 0.6  # standard deviation of a filter's Gaussian, in cycles of its frequency
_MAX_SPREAD = 0.3  # and at most, in images
_SPACING = 3.5  # between filters, in standard deviations
_LEAST = 1e-3  # where sine and cosine of a filter are smaller together, it is 0
_OFFSET = 1e-5  # before the logarithm
# Columns of each feature.
WIDTHS = {
    "pixels": 3 * PIXELS_SIDE**2,
    "luminance": 2 + NUM_LUMINANCES,
    "color": NUM_COLORS**3,
    "gabor": 300,
}
# sRGB (IEC 61966-2-1) to luminance, and luminance to CIELAB's L*.
_WEIGHTS = (0.2126, 0.7152, 0.0722)
_BEND = (6 / 29) ** 3


def of_images(name: str, pixels: Pixels) -> Float32[np.ndarray, "m c"]:
    """Return a feature of every image; a few are in memory at a time.

    Args:
      name: of `FEATURES`.
      pixels: where the images lie.

    Raises:
      InputError: if an image is missing or damaged.
    """
    make, num = FEATURES[name], len(pixels.places)
    found = np.empty((num, WIDTHS[name]), np.float32)
    for start in progress.bar(range(0, num, _AT_ONCE), f"{name} of images", "batches"):
        index = range(start, min(start + _AT_ONCE, num))
        found[start : start + len(index)] = [make(image) for image in pixels.read(index)]
    return found


def grid(image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, " c"]:
    """Return the image as 16 x 16 pixels of three colours, 0 to 1."""
    return _resized(image, PIXELS_SIDE).reshape(-1) / 255.0


def luminance(image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, " c"]:
    """Return mean and standard deviation of L*, and the share of pixels in each bin of it."""
    values = lightness(image)
    counts = np.histogram(values, NUM_LUMINANCES, (0.0, 100.0))[0]
    return np.r_[values.mean(dtype=np.float64), values.std(dtype=np.float64), counts / values.size]


def color(image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, " c"]:
    """Return the share of pixels in each of 4 x 4 x 4 bins of red, green and blue."""
    bins = (image.reshape(-1, 3).astype(np.int64) * NUM_COLORS) // 256
    place = (bins[:, 0] * NUM_COLORS + bins[:, 1]) * NUM_COLORS + bins[:, 2]
    return np.bincount(place, minlength=NUM_COLORS**3) / len(place)


def gabor(image: UInt8[np.ndarray, "h w 3"]) -> Float[np.ndarray, " c"]:
    """Return the response of each filter to the luminance: see `project`."""
    return project(lightness(_resized(image, GABOR_SIDE))[None])[0]


# Name of a feature -> what makes it of an image.
FEATURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "pixels": grid,
    "luminance": luminance,
    "color": color,
    "gabor": gabor,
}


def lightness(image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w"]:
    """Return CIELAB's L* of sRGB under its own white (D65), 0 to 100."""
    y = sum(table[image[..., i]] for i, table in enumerate(_luminances()))
    curved = np.where(y > _BEND, np.cbrt(y), y / (3 * (6 / 29) ** 2) + 4 / 29)
    # Black and white may be rounded to either side of the ends.
    return np.clip(116 * curved - 16, 0, 100).astype(np.float32)


def project(luminances: Float[np.ndarray, "m h w"]) -> Float[np.ndarray, "m c"]:
    """Return log(sqrt(s² + c²) + 1e-5) of the sine and cosine of each filter of the pyramid.

    Filters of a frequency tile the image in steps of 3.5 standard deviations of their Gaussian,
    around the middle. In the order of frequencies, orientations, places from left to right, and in
    each from top to bottom; the filter of no frequency follows that of 0 degrees at its place.

    Args:
      luminances: 0 to 100.

    Source: Nishimoto et al. (2011), Current Biology 21, 1641-1646, Experimental Procedures; the
      numbers are those of pymoten 0.1.3, StimulusStaticGaborPyramid.
    """
    m, h, w = luminances.shape
    flat = luminances.reshape(m, -1).astype(np.float64)
    sine, cosine = (flat @ part for part in filters(h, w))
    return np.log(np.sqrt(sine**2 + cosine**2) + _OFFSET)


@functools.lru_cache(maxsize=2)
def filters(h: int, w: int) -> tuple[Float[np.ndarray, "n c"], Float[np.ndarray, "n c"]]:
    """Return sine and cosine of every filter, by pixel; see `project`.

    Args:
      h: pixels of height, one unit of length.
      w: of width.
    """
    width = w / h
    x, y = np.meshgrid(np.linspace(0, width, w), np.linspace(0, 1, h))
    waves = []
    for frequency, degrees in itertools.product(FREQUENCIES[1:], ORIENTATIONS):
        spread = min(_CYCLES / frequency, _MAX_SPREAD)
        places = itertools.product(_places(width, spread), _places(1.0, spread))
        for (at_x, at_y), cycles in itertools.product(
            places, (frequency, 0) if degrees == 0 else (frequency,)
        ):
            across, down = x - at_x, y - at_y
            angle = np.deg2rad(degrees)
            phase = 2 * np.pi * cycles * (down * np.sin(angle) - across * np.cos(angle))
            wave = np.exp(-(across**2 + down**2) / (2 * spread**2) + 1j * phase)
            waves.append(np.where(abs(wave.real) + abs(wave.imag) > _LEAST, wave, 0).reshape(-1))
    found = np.stack(waves, axis=1)
    return np.ascontiguousarray(np.imag(found)), np.ascontiguousarray(np.real(found))


def _places(length: float, spread: float) -> Float[np.ndarray, " k"]:
    """Return the middles of filters along one side, as many as fit to either side of its own."""
    step = _SPACING * spread
    num = max(np.floor((length - step) / step / 2), 0)
    return step * np.arange(-num, num + 1) + length / 2


@functools.cache
def _luminances() -> list[Float[np.ndarray, "256"]]:
    """Return what each level of red, green and blue adds to the luminance of white, which is 1."""
    level = np.arange(256) / 255
    linear = np.where(level <= 0.04045, level / 12.92, ((level + 0.055) / 1.055) ** 2.4)
    return [weight * linear for weight in _WEIGHTS]


def _resized(image: UInt8[np.ndarray, "h w 3"], side: int) -> UInt8[np.ndarray, "side side 3"]:
    how = PIL.Image.Resampling.LANCZOS
    return np.asarray(PIL.Image.fromarray(image).resize((side, side), how))
