"""From an image to what a network is given, as a checkpoint's `preprocessor_config.json` says.

Resize with Pillow, crop, scale and normalise with NumPy: the same bits as the processors of
transformers that use Pillow (`transformers.models.M.image_processing_pil_M`), without PyTorch. Its
processors that use torchvision differ slightly.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import PIL.Image
from jaxtyping import Float32, UInt8

from jaxalign.data.images.stored import Pixels
from jaxalign.errors import InputError

FILE = "preprocessor_config.json"
WHOLE_FILE = "processor_config.json"  # of transformers 5, with the settings of images in it
_IN_WHOLE = "image_processor"
_THREADS = 8  # Pillow lets go of Python's lock
_RESAMPLES = {int(x): x for x in PIL.Image.Resampling}
_LARGEST = 100_000  # pixels of a side
_SLIM = 200  # times as long as wide, from which on Qwen-VL takes no image

_HALF = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
_OPENAI = {
    "image_mean": [0.48145466, 0.4578275, 0.40821073],
    "image_std": [0.26862954, 0.26130258, 0.27577711],
}
_EVERY = {
    "do_resize": True,
    "do_center_crop": False,
    "crop_size": None,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "default_to_square": True,
}
_BICUBIC, _BILINEAR = int(PIL.Image.Resampling.BICUBIC), int(PIL.Image.Resampling.BILINEAR)
_SQUARE = {"height": 224, "width": 224}
_CROPPED = {
    **_EVERY,
    **_OPENAI,
    "size": {"shortest_edge": 224},
    "resample": _BICUBIC,
    "do_center_crop": True,
    "crop_size": _SQUARE,
    "default_to_square": False,
}
# Processor -> what keys mean that a file leaves out, as in transformers.
_CLASSES: dict[str, dict[str, Any]] = {
    "Bit": _CROPPED,
    "Blip": {**_EVERY, **_OPENAI, "size": {"height": 384, "width": 384}, "resample": _BICUBIC},
    "CLIP": _CROPPED,
    "Gemma3": {**_EVERY, **_HALF, "size": _SQUARE, "resample": _BILINEAR},
    "Idefics": {**_EVERY, **_OPENAI, "size": _SQUARE, "resample": _BICUBIC, "image_size": None},
    "Llava": _CROPPED,
    "Qwen2VL": {
        **_EVERY,
        **_OPENAI,
        "size": {"shortest_edge": 56 * 56, "longest_edge": 28 * 28 * 1280},
        "resample": _BICUBIC,
        "default_to_square": False,
        "min_pixels": None,
        "max_pixels": None,
        "patch_size": 14,
        "merge_size": 2,
        "temporal_patch_size": 2,
    },
    "Siglip": {
        **_EVERY,
        **_HALF,
        "size": _SQUARE,
        "resample": _BICUBIC,
        "default_to_square": False,
    },
    "ViT": {**_EVERY, **_HALF, "size": _SQUARE, "resample": _BILINEAR},
}
# model_type -> processor, of files that name none.
_OF_MODELS = {
    "blip-2": "Blip",
    "blip_2_vision_model": "Blip",
    "clip": "CLIP",
    "clip_vision_model": "CLIP",
    "dinov2": "Bit",
    "dinov2_with_registers": "Bit",
    "gemma3": "Gemma3",
    "idefics": "Idefics",
    "instructblip": "Blip",
    "llava": "CLIP",
    "mplug-owl": "CLIP",
    "paligemma": "Siglip",
    "qwen2_5_vl": "Qwen2VL",
    "qwen2_vl": "Qwen2VL",
    "qwen3_vl": "Qwen2VL",
    "siglip": "Siglip",
    "siglip_vision_model": "Siglip",
    "vit": "ViT",
}
_ENDS = ("ImageProcessorFast", "ImageProcessorPil", "ImageProcessor", "FeatureExtractor")
# Without effect on the pixels of images that are read as 8-bit RGB already.
_INERT = frozenset(
    """
    _valid_processor_keys auto_map data_format device disable_grouping do_convert_rgb
    feature_extractor_type image_processor_type image_seq_length input_data_format processor_class
    image_num_channels pan_and_scan_max_num_crops pan_and_scan_min_crop_size
    pan_and_scan_min_ratio_to_activate return_tensors transformers_version
    """.split()
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """What is done to each image, in this order; a step that is left out is empty.

    Attributes:
      size: "exact" height and width; "shortest" edge; or "shortest" edge and the longest that it
        may have with that; or "area", the least and the most pixels of an image that keeps its
        shape as far as it can.
      multiple: of which sides are whole numbers, under "area".
      resample: Pillow's filter.
      crop: height and width of the middle that is kept; what an image lacks is black.
      factor: that the values 0..255 are multiplied by; 0: they stay.
      mean, sd: of each channel, which are subtracted and divided by.
    """

    size: tuple[str, int, int] | None = None
    multiple: int = 1
    resample: int = _BICUBIC
    crop: tuple[int, int] | None = None
    factor: float = 0.0
    mean: tuple[float, ...] = ()
    sd: tuple[float, ...] = ()

    @property
    def content(self) -> dict[str, Any]:
        """All of it that has a part in the pixels, as plain JSON."""
        found = json.loads(json.dumps(dataclasses.asdict(self)))
        if self.multiple == 1:
            del found["multiple"]
        return found

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Return height and width of what becomes of an image of a size."""
        return self.crop or self._resized(height, width)

    def apply(self, image: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "3 H W"]:
        """Prepare one image."""
        size = self._resized(*image.shape[:2])
        if self.size is not None:
            resized = PIL.Image.fromarray(image).resize((size[1], size[0]), self.resample)
            image = np.array(resized)
        if self.crop is not None:
            image = _middle(image, *self.crop)
        values = image
        if self.factor:
            values = (values.astype(np.float64) * self.factor).astype(np.float32)
        values = values.astype(np.float32)
        if self.mean:
            values = (values - np.asarray(self.mean, np.float32)) / np.asarray(self.sd, np.float32)
        return np.ascontiguousarray(values.transpose(2, 0, 1))

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if self.size is None:
            return height, width
        kind, first, second = self.size
        if kind == "exact":
            return first, second
        if kind == "area":
            return self._whole_groups(height, width)
        short, long = min(height, width), max(height, width)
        if not second:
            longer = int(first * long / short)
            return (longer, first) if width <= height else (first, longer)
        # As DETR had it: the shortest edge gives way where the longest would be too long.
        edge, exact = first, float(first)
        if long / short * first > second:
            exact = second * short / long
            edge = round(exact)
        if short == edge:
            return height, width
        longer = int(exact * long / short)
        return (longer, edge) if width < height else (edge, longer)

    def _whole_groups(self, height: int, width: int) -> tuple[int, int]:
        """Return the nearest multiples of both sides, made larger or smaller to fit the area."""
        assert self.size is not None
        _, least, most = self.size
        side = self.multiple
        if max(height, width) > _SLIM * min(height, width):
            raise InputError(
                f"images must be at most {_SLIM} times as long as wide, found {height} x {width}."
            )
        tall, wide = (round(n / side) * side for n in (height, width))
        if tall * wide > most:
            shrink = math.sqrt(height * width / most)
            tall, wide = (max(side, math.floor(n / shrink / side) * side) for n in (height, width))
        elif tall * wide < least:
            grow = math.sqrt(least / (height * width))
            tall, wide = (math.ceil(n * grow / side) * side for n in (height, width))
        return tall, wide


def _middle(image: UInt8[np.ndarray, "h w 3"], height: int, width: int) -> np.ndarray:
    """Cut out the middle; where an image is smaller, its edges are black."""
    found_height, found_width = image.shape[:2]
    tall, wide = max(height, found_height), max(width, found_width)
    top, left = (found_height - height) // 2, (found_width - width) // 2
    if (tall, wide) != (found_height, found_width):
        padded = np.zeros((tall, wide, 3), image.dtype)
        above, before = (
            math.ceil((a - b) / 2) for a, b in ((tall, found_height), (wide, found_width))
        )
        padded[above : above + found_height, before : before + found_width] = image
        image, top, left = padded, top + above, left + before
    return image[max(0, top) : top + height, max(0, left) : left + width]


def read(folder: pathlib.Path, model_type: str) -> Recipe:
    """Read how a checkpoint's images are prepared.

    Args:
      folder: of the checkpoint.
      model_type: of its `config.json`, for files that name no processor.

    Raises:
      InputError: if there is no such file, or it asks for something that is not built.
    """
    file, whole = folder / FILE, folder / WHOLE_FILE
    if file.is_file():
        return parse(_json(file), model_type, source=str(file))
    if whole.is_file() and isinstance(found := _json(whole).get(_IN_WHOLE), dict):
        return parse(found, model_type, source=f"{whole}: {_IN_WHOLE}")
    raise InputError(
        f"{folder} must hold {FILE}, which says how images become pixels: there is no such file."
    )


def _json(file: pathlib.Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} must be JSON: {error!r}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{file} must be a JSON object, found {type(content).__name__}.")
    return content


def parse(found: Mapping[str, Any], model_type: str, *, source: str) -> Recipe:
    """Make a recipe of the content of a `preprocessor_config.json`.

    Args:
      found: the content.
      model_type: see `read`.
      source: the file, for messages.

    Raises:
      InputError: if a value is wrong, or a key not known, or it asks for what is not built.
    """
    name = found.get("image_processor_type") or found.get("feature_extractor_type")
    kind = _OF_MODELS.get(model_type, model_type)
    if name is not None:
        kind = next((str(name).removesuffix(x) for x in _ENDS if str(name).endswith(x)), str(name))
    if kind not in _CLASSES:
        known = ", ".join(f"{x}ImageProcessor" for x in _CLASSES)
        raise InputError(f"{source}: image_processor_type must be one of {known}, found {kind!r}.")
    defaults = _CLASSES[kind]
    given = {key: value for key, value in found.items() if value is not None}
    if unknown := [key for key in given if key not in defaults and key not in _INERT]:
        key = unknown[0]
        if given[key] is not False:  # a step that is not done
            raise InputError(
                f"{source} must hold only keys that are known, found {key!r}: {given[key]!r}; take "
                "it out of the file if it changes nothing."
            )
    values = _Values(defaults | {key: given[key] for key in defaults if key in given}, source)
    size, multiple = None, 1
    if kind == "Qwen2VL":
        multiple = values.whole("patch_size") * values.whole("merge_size")
    if values.flag("do_resize"):
        if kind == "Qwen2VL":
            size = values.area()
        elif "image_size" in given:  # Idefics' square
            side = values.whole("image_size")
            size = ("exact", side, side)
        else:
            size = values.size()
    crop = values.crop() if values.flag("do_center_crop") else None
    scale = values.number("rescale_factor") if values.flag("do_rescale") else 0.0
    normed = values.flag("do_normalize")
    return Recipe(
        size=size,
        multiple=multiple,
        resample=values.resample(),
        crop=crop,
        factor=scale,
        mean=values.channels("image_mean") if normed else (),
        sd=values.channels("image_std", above=0.0) if normed else (),
    )


class _Values:
    """Values of a file, checked as they are taken."""

    def __init__(self, values: Mapping[str, Any], source: str):
        self._values, self._source = values, source

    def _refuse(self, key: str, must: str) -> InputError:
        return InputError(f"{self._source}: {key} must {must}, found {self._values[key]!r}.")

    def flag(self, key: str) -> bool:
        if not isinstance(self._values[key], bool):
            raise self._refuse(key, "be true or false")
        return self._values[key]

    def number(self, key: str) -> float:
        value = self._values[key]
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise self._refuse(key, "be a positive number")
        return float(value)

    def whole(self, key: str) -> int:
        value = self._values[key]
        if type(value) is not int or not 0 < value <= _LARGEST:
            raise self._refuse(key, "be a whole number of pixels")
        return value

    def area(self) -> tuple[str, int, int]:
        """Return the least and the most pixels of an image; Qwen-VL has two names for each."""
        size = self._values["size"]
        names = {"min_pixels": "shortest_edge", "max_pixels": "longest_edge"}
        size = size if isinstance(size, dict) else {}
        least, most = (
            size.get(edge, size.get(name)) if self._values[name] is None else self._values[name]
            for name, edge in names.items()
        )
        if not (type(least) is int and type(most) is int and 0 < least <= most):
            raise self._refuse("size", "have shortest_edge and longest_edge, both in pixels of all")
        return "area", least, most

    def channels(self, key: str, above: float = -math.inf) -> tuple[float, ...]:
        value = self._values[key]
        value = [value] * 3 if type(value) in (int, float) else value
        fits = isinstance(value, list) and len(value) == 3
        if not fits or not all(type(x) in (int, float) and above < x < math.inf for x in value):
            must = "be three positive numbers" if above == 0 else "be three numbers"
            raise self._refuse(key, must)
        return tuple(float(x) for x in value)

    def resample(self) -> int:
        value = self._values["resample"]
        if type(value) is not int or value not in _RESAMPLES:
            raise self._refuse("resample", f"be one of Pillow's filters, {list(_RESAMPLES)}")
        return value

    def _sides(self, key: str) -> dict[str, int]:
        """Return sides by name, of an object or of the numbers that older files have."""
        value = self._values[key]
        if type(value) is int:
            square = key == "crop_size" or self.flag("default_to_square")
            value = {"height": value, "width": value} if square else {"shortest_edge": value}
        elif isinstance(value, list) and len(value) == 2:
            value = {"height": value[0], "width": value[1]}
        if not isinstance(value, dict):
            raise self._refuse(key, "be an object of sides")
        sides = {name: side for name, side in value.items() if side is not None}
        if not all(type(side) is int and 0 < side <= _LARGEST for side in sides.values()):
            raise self._refuse(key, "hold whole numbers of pixels")
        return sides

    def size(self) -> tuple[str, int, int]:
        sides = self._sides("size")
        if set(sides) == {"height", "width"}:
            return "exact", sides["height"], sides["width"]
        if "shortest_edge" in sides and set(sides) <= {"shortest_edge", "longest_edge"}:
            return "shortest", sides["shortest_edge"], sides.get("longest_edge", 0)
        raise self._refuse("size", "have height and width, or shortest_edge")

    def crop(self) -> tuple[int, int]:
        sides = self._sides("crop_size")
        if set(sides) != {"height", "width"}:
            raise self._refuse("crop_size", "have height and width")
        return sides["height"], sides["width"]


def common_shape(recipe: Recipe, images: Pixels) -> tuple[int, int]:
    """Return the height and width that all images are prepared to; none is read.

    Args:
      recipe: from `read`.
      images: of the stimuli.

    Raises:
      InputError: if there are several, or an image is missing.
    """
    prepared = {recipe.shape(*shape) for shape in images.shapes}
    if len(prepared) > 1:
        raise _uneven(prepared)
    return prepared.pop()


def _uneven(shapes: Collection[tuple[int, ...]]) -> InputError:
    return InputError(
        f"images must have one size when they are prepared, found {min(shapes)} and "
        f"{max(shapes)}: {FILE} neither crops them nor gives height and width."
    )


def batch(recipe: Recipe, images: Pixels, index: Sequence[int]) -> Float32[np.ndarray, "k 3 H W"]:
    """Read and prepare some images.

    Args:
      recipe: from `read`.
      images: of the stimuli.
      index: positions among them.

    Raises:
      InputError: if an image cannot be read, or they do not come out alike in size.
    """
    found = images.read(index)
    with ThreadPoolExecutor(_THREADS) as threads:
        prepared = list(threads.map(recipe.apply, found))
    if len(shapes := {x.shape[1:] for x in prepared}) > 1:
        raise _uneven(shapes)
    return np.stack(prepared)
