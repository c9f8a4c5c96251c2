"""Pixels are those of transformers' processors, bit for bit; what is not built is refused."""

import importlib
import json

import numpy as np
import PIL.Image
import pytest
from refusals import refused
from sklearn import datasets as photographs

from jaxalign.data.images import opening, pixels, stored

# Processors of transformers that need Pillow and NumPy alone.
PROCESSORS = {
    "vit": "ViTImageProcessorPil",
    "clip": "CLIPImageProcessorPil",
    "siglip": "SiglipImageProcessorPil",
    "blip": "BlipImageProcessorPil",
    "bit": "BitImageProcessorPil",
    "idefics": "IdeficsImageProcessorPil",
    "gemma3": "Gemma3ImageProcessorPil",
}


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Photographs of five shapes and modes, as files."""
    folder = tmp_path_factory.mktemp("photos")
    china, flower = (
        PIL.Image.fromarray(photographs.load_sample_image(f"{x}.jpg")) for x in ("china", "flower")
    )
    made = {
        "wide.png": china,
        "grey.png": flower.crop((100, 0, 301, 427)).convert("L"),
        "cmyk.jpg": flower.resize((175, 175)).convert("CMYK"),
        "palette.png": china.rotate(90, expand=True).convert("P", palette=PIL.Image.ADAPTIVE),
        "tiny.png": china.crop((0, 0, 31, 20)),
    }
    clear = china.crop((0, 0, 300, 200)).convert("RGBA")
    clear.putalpha(PIL.Image.linear_gradient("L").resize(clear.size))
    made["clear.png"] = clear
    for name, image in made.items():
        image.save(folder / name)
    return [folder / name for name in made]


def processor(family, **settings):
    module = importlib.import_module(f"transformers.models.{family}.image_processing_pil_{family}")
    return getattr(module, PROCESSORS[family])(**settings)


def theirs(made, path):
    """Prepare an image as transformers does; those that do not convert it are given RGB."""
    with PIL.Image.open(path) as image:
        if not getattr(made, "do_convert_rgb", False):
            image = PIL.Image.fromarray(opening.to_rgb(image))
        found = made(image, return_tensors="np")
        return (found if isinstance(found, np.ndarray) else found["pixel_values"])[0]


def recipe(made):
    return pixels.parse(json.loads(made.to_json_string()), "none", source="file")


VARIANTS = [(family, {}) for family in PROCESSORS] + [
    ("clip", {"size": {"shortest_edge": 50}, "crop_size": {"height": 41, "width": 60}}),
    ("clip", {"size": {"height": 30, "width": 70}, "resample": 1, "do_center_crop": False}),
    ("clip", {"do_resize": False, "crop_size": {"height": 37, "width": 44}}),
    ("clip", {"size": {"shortest_edge": 60, "longest_edge": 75}}),
    ("vit", {"do_normalize": False, "resample": 0}),
    ("vit", {"do_rescale": False, "image_mean": [100.0, 120.0, 90.0], "image_std": [3.0] * 3}),
    ("siglip", {"rescale_factor": 0.01, "resample": 4}),
]


@pytest.mark.parametrize("family, settings", VARIANTS, ids=str)
def test_pixels_are_those_of_transformers(photos, family, settings):
    made = processor(family, **settings)
    ours = recipe(made)
    for path in photos:
        image, expected = opening.read(path), theirs(made, path)
        found = ours.apply(image)
        assert found.dtype == np.float32 and found.shape[1:] == ours.shape(*image.shape[:2])
        np.testing.assert_array_equal(found, expected, err_msg=path.name)


QWEN3 = {
    "patch_size": 16,
    "size": {"shortest_edge": 65_536, "longest_edge": 16_777_216},
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}


@pytest.mark.parametrize(
    "settings", [{}, {"min_pixels": 90_000, "max_pixels": 120_000}, QWEN3], ids=str
)
def test_pixels_of_qwen_vl_are_those_of_transformers(photos, settings):
    """Theirs come as patches: groups of four, two frames of each."""
    side = settings.get("patch_size", 14)
    module = importlib.import_module("transformers.models.qwen2_vl.image_processing_pil_qwen2_vl")
    made = module.Qwen2VLImageProcessorPil(**settings)
    ours = pixels.parse({"image_processor_type": "Qwen2VLImageProcessor"} | settings, "", source="")
    for path in photos:
        image = opening.read(path)
        if max(image.shape[:2]) < 28:
            continue
        found = ours.apply(image)
        theirs = made(image, return_tensors="np")
        _, rows, columns = theirs["image_grid_thw"][0]
        assert found.shape == (3, side * rows, side * columns)
        patches = found.reshape(3, rows // 2, 2, side, columns // 2, 2, side)
        patches = patches.transpose(1, 4, 2, 5, 0, 3, 6).reshape(rows * columns, 3, side * side)
        expected = theirs["pixel_values"].reshape(rows * columns, 3, 2, side * side)
        for frame in range(2):
            np.testing.assert_array_equal(patches, expected[:, :, frame], err_msg=path.name)


def test_what_a_file_leaves_out_is_what_the_class_has():
    for family, model_type in (("vit", "vit"), ("bit", "dinov2"), ("siglip", "siglip")):
        assert pixels.parse({}, model_type, source="file") == recipe(processor(family))
    named = pixels.parse({"feature_extractor_type": "CLIPFeatureExtractor"}, "vit", source="file")
    assert named == recipe(processor("clip"))


def test_sizes_of_older_files():
    clip = pixels.parse({"size": 50, "crop_size": 40}, "clip", source="file")
    assert clip.size == ("shortest", 50, 0) and clip.crop == (40, 40)
    assert pixels.parse({"size": 50}, "vit", source="file").size == ("exact", 50, 50)
    assert pixels.parse({"size": [5, 6]}, "vit", source="file").size == ("exact", 5, 6)


def test_settings_lie_in_either_file(tmp_path):
    with refused("must hold preprocessor_config.json, which says how images become pixels"):
        pixels.read(tmp_path, "vit")
    content = {"image_processor_type": "CLIPImageProcessorFast", "size": {"shortest_edge": 9}}
    (tmp_path / pixels.WHOLE_FILE).write_text(json.dumps({"image_processor": content}))
    whole = pixels.read(tmp_path, "vit")
    (tmp_path / pixels.FILE).write_text(json.dumps(content))
    assert pixels.read(tmp_path, "vit") == whole and whole.size == ("shortest", 9, 0)
    (tmp_path / pixels.FILE).write_text("{")
    with refused("preprocessor_config.json must be JSON"):
        pixels.read(tmp_path, "vit")


@pytest.mark.parametrize(
    "found, message",
    [
        ({"do_resize": 1}, "do_resize must be true or false, found 1"),
        ({"size": {"width": 3}}, "size must have height and width, or shortest_edge"),
        ({"size": {"height": 0, "width": 3}}, "size must hold whole numbers of pixels"),
        ({"resample": 9}, "resample must be one of Pillow's filters"),
        ({"image_std": [1, 1, 0]}, "image_std must be three positive numbers"),
        ({"image_mean": [1, 1]}, "image_mean must be three numbers"),
        ({"rescale_factor": "x"}, "rescale_factor must be a positive number"),
        ({"do_pad": True}, "only keys that are known, found 'do_pad': True"),
        (
            {"image_processor_type": "Gemma3ImageProcessor", "do_pan_and_scan": True},
            "only keys that are known, found 'do_pan_and_scan': True",
        ),
        (
            {"image_processor_type": "Qwen2VLImageProcessor", "max_pixels": 9},
            "size must have shortest_edge and longest_edge",
        ),
        (
            {"image_processor_type": "IdeficsImageProcessor", "image_size": "9"},
            "image_size must be a whole number of pixels",
        ),
        ({"image_processor_type": "SamImageProcessor"}, "image_processor_type must be one of"),
    ],
    ids=str,
)
def test_what_is_not_built_is_refused(found, message):
    with refused(message):
        pixels.parse(found, "vit", source="file")


def test_images_that_come_out_in_several_sizes_make_no_batch(photos):
    open_ended = pixels.Recipe(size=("shortest", 20, 0))
    with refused("images must have one size when they are prepared", "(20, 20)"):
        pixels.batch(open_ended, stored.Files(paths=tuple(photos)), [0, 2])
    square = pixels.batch(pixels.Recipe(crop=(5, 4)), stored.Files(paths=tuple(photos)), [0, 2])
    assert square.shape == (2, 3, 5, 4)
