"""Low-level features of images: against pymoten, published colours, and by hand."""

import pathlib

import numpy as np
import pytest
from refusals import refused

from jaxalign.data import controls
from jaxalign.data.images import lowlevel
from jaxalign.data.images.stored import Hdf5, Held
from jaxalign.data.schema import Stimuli

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "golden/gabor/expected.npz"


def stimuli(images, **options):
    names = [f"i{k}" for k in range(len(images))]
    common = {"stimulus_id": names, "passage": names, "run": ["a"] * len(names), "text": ()}
    return Stimuli(**common | {"unit": "image", "pixels": Held(images=images)} | options)


@pytest.mark.parametrize("size", ["32x32", "24x40"])
def test_filters_are_those_of_pymoten(size):
    with np.load(GOLDEN) as golden:
        given, expected = golden[f"luminance_{size}"], golden[f"expected_{size}"]
    found = lowlevel.project(given.astype(np.float64))
    assert found.shape == expected.shape
    # pymoten adds up in another order: float64 throughout.
    np.testing.assert_allclose(found, expected, atol=1e-8)


def test_each_orientation_answers_to_its_own_grating():
    """Of all filters those of 8 cycles and its own orientation answer most to a grating."""
    side = lowlevel.GABOR_SIDE
    x, y = np.meshgrid(np.linspace(0, 1, side), np.linspace(0, 1, side))
    order = [
        (frequency, degrees, cycles)
        for frequency, num in ((2, 1), (4, 1), (8, 9), (16, 49))
        for degrees in lowlevel.ORIENTATIONS
        for _ in range(num)
        for cycles in ((frequency, 0) if degrees == 0 else (frequency,))
    ]
    assert len(order) == lowlevel.WIDTHS["gabor"]
    strongest = []
    for degrees in lowlevel.ORIENTATIONS:
        angle = np.deg2rad(degrees)
        wave = np.sin(2 * np.pi * 8 * (y * np.sin(angle) - x * np.cos(angle)))
        found = lowlevel.project(50 + 40 * wave[None])[0]
        oriented = [i for i, (_, _, cycles) in enumerate(order) if cycles]
        strongest.append(order[max(oriented, key=lambda i: found[i])])
    assert strongest == [(8, degrees, 8) for degrees in lowlevel.ORIENTATIONS]


@pytest.mark.parametrize(
    "rgb,expected",
    # CIELAB of sRGB's corners under D65.
    [
        ((255, 255, 255), 100.0),
        ((0, 0, 0), 0.0),
        ((255, 0, 0), 53.24),
        ((0, 255, 0), 87.73),
        ((0, 0, 255), 32.30),
        ((119, 119, 119), 50.03),
        ((5, 5, 5), 1.37),
    ],
)
def test_lightness_is_that_of_cielab(rgb, expected):
    image = np.full((2, 3, 3), rgb, np.uint8)
    np.testing.assert_allclose(lowlevel.lightness(image), expected, atol=0.01)


def test_shares_of_luminances_and_colors_by_hand():
    image = np.zeros((2, 4, 3), np.uint8)
    image[0] = 255
    image[1, :2] = (200, 10, 70)
    found = lowlevel.luminance(image)
    assert len(found) == lowlevel.WIDTHS["luminance"]
    values = lowlevel.lightness(image).astype(np.float64)
    np.testing.assert_allclose(found[:2], [values.mean(), values.std()], rtol=1e-6)
    assert found[-1] == 0.5 and found[2] == 0.25 and found[2:].sum() == 1
    shares = lowlevel.color(image).reshape(4, 4, 4)
    assert (shares[3, 3, 3], shares[3, 0, 1], shares[0, 0, 0]) == (0.5, 0.25, 0.25)
    assert shares.sum() == 1
    even = np.full((32, 32, 3), (10, 20, 30), np.uint8)
    np.testing.assert_allclose(
        lowlevel.grid(even).reshape(16, 16, 3), np.broadcast_to([10, 20, 30], (16, 16, 3)) / 255
    )


def test_images_of_any_shape_have_features_of_one_width(rng, tmp_path):
    image = rng.integers(0, 256, (40, 3, 30, 3), dtype=np.uint8)  # more than one batch
    given = stimuli(image)
    for name in controls.OF_IMAGES:
        found = controls.of_parts(name, given, controls.Lexicon())
        assert found.shape == (40, lowlevel.WIDTHS[name]) and np.isfinite(found).all()
        np.testing.assert_array_equal(
            found[33], np.float32(lowlevel.FEATURES[name](image[33])), err_msg=name
        )
    sentences = stimuli(image[:1], unit="sentence", text=["A dog."], pixels=None)
    with refused("control gabor is made of images, but the stimuli are sentences"):
        controls.check("gabor", sentences)
    absent = Hdf5(file=tmp_path / "none.hdf5", key="imgBrick", row=np.arange(1))
    with refused("pixels of images must lie in", "none.hdf5", "missing"):
        controls.check("color", stimuli(image[:1], pixels=absent))


def test_a_brighter_image_of_the_same_shapes_differs_in_luminance_alone():
    """Filters with cycles see contrast: a photograph in half the light has it halved."""
    side = lowlevel.GABOR_SIDE
    ramp = np.add.outer(np.arange(side), np.arange(side)) / (2 * side) * 60
    bright, dim = lowlevel.project(np.stack([ramp, ramp / 2]))
    np.testing.assert_allclose(bright - dim, np.log(2), atol=1e-3)
