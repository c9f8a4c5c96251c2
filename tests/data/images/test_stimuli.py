"""Images as stimuli: files of every kind, arrays, what is refused, and what fixes them."""

import dataclasses
import os

import numpy as np
import PIL.Image
import pytest
from refusals import refused

from jaxalign.data import datasets, same_stimulus
from jaxalign.data.images import opening, stored

RESPONSES = {
    "run": ["session"] * 4,
    "subject": ["s1"] * 2,
    "roi": ["V1"] * 2,
    "target": ["a", "b"],
    "units": "percent",
    "stimulus_id": ["i0", "i1", "i2", "i3"],
}


@pytest.fixture
def rgb(rng):
    return rng.integers(0, 256, (4, 6, 5, 3), dtype=np.uint8)


def write_responses(root, rng):
    np.savez(root / "responses.npz", values=rng.normal(size=(4, 2)), **RESPONSES)


@pytest.fixture
def folder(tmp_path, rgb, rng):
    """Four images in files, with captions."""
    root = tmp_path / "own"
    (root / "shown").mkdir(parents=True)
    rows = ["stimulus_id,image,caption"]
    for i, image in enumerate(rgb):
        PIL.Image.fromarray(image).save(root / f"shown/{i}.png")
        rows.append(f"i{i},shown/{i}.png,Picture {i}.")
    (root / "stimuli.csv").write_text("\n".join(rows))
    write_responses(root, rng)
    return root


def stimuli(root):
    return datasets.find(str(root), None).stimuli


def test_a_table_names_image_files(folder, rgb):
    found = stimuli(folder)
    assert found.unit == "image" and found.text[2] == "Picture 2."
    assert found.passage == found.stimulus_id
    np.testing.assert_array_equal(np.stack(found.pixels.read([3, 1])), rgb[[3, 1]])
    adapter = datasets.unopened(str(folder))
    assert adapter.has_images and not adapter.has_times and not adapter.has_frequencies
    assert adapter.word_facts().stimulus_id == found.stimulus_id


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_archive_holds_them_in_one_array(tmp_path, rgb, rng, save, order):
    write_responses(tmp_path, rng)
    ids = RESPONSES["stimulus_id"]
    save(tmp_path / "stimuli.npz", stimulus_id=ids, image=np.asarray(rgb, order=order))
    found = stimuli(tmp_path)
    assert found.text == () and found.stimulus_id == ids
    np.testing.assert_array_equal(found.pixels.read([3, 1]), rgb[[3, 1]])
    mapped = isinstance(found.pixels._images, np.memmap)
    assert mapped == (save is np.savez)


def test_an_archive_must_hold_images(tmp_path, rgb, rng):
    write_responses(tmp_path, rng)
    path, ids = tmp_path / "stimuli.npz", RESPONSES["stimulus_id"]
    for arrays, message in (
        ({"stimulus_id": ids}, "must hold the array 'image'"),
        ({"image": rgb}, "must hold the array 'stimulus_id'"),
        ({"stimulus_id": ids, "image": rgb[:3]}, "for each stimulus_id (4), found 3"),
        ({"stimulus_id": ids, "image": rgb[..., 0]}, "[images height width 3] of 8 bits"),
        ({"stimulus_id": ids, "image": rgb * 1.0}, "found float64"),
        ({"stimulus_id": ids, "image": rgb[:, :0]}, "must have pixels, found 0 x 5"),
    ):
        np.savez(path, **arrays)
        with refused(message):
            stimuli(tmp_path)
    path.write_bytes(path.read_bytes()[:-30])
    with refused("must be an .npz of plain arrays"):
        stimuli(tmp_path)


def test_pixels_are_part_of_what_fixes_stimuli(folder):
    before = stimuli(folder).hash
    image = np.array(PIL.Image.open(folder / "shown/2.png"))
    image[0, 0, 0] ^= 1
    PIL.Image.fromarray(image).save(folder / "shown/2.png")
    assert stimuli(folder).hash != before


def test_pixels_of_arrays_are_part_of_it_too(tmp_path, rgb):
    np.savez(tmp_path / "a.npz", image=rgb)
    pixels = stored.Npz(file=tmp_path / "a.npz", key="image", row=np.array([2, 0]))
    before = pixels.hash
    assert dataclasses.replace(pixels, row=np.array([2])).hash != before
    other = rgb.copy()
    other[1] = 0  # which is none of theirs
    np.savez(tmp_path / "a.npz", image=other)
    os.utime(tmp_path / "a.npz", (0, 0))
    assert pixels.hash == before
    other[0] = 0
    np.savez(tmp_path / "a.npz", image=other)
    assert dataclasses.replace(pixels).hash != before


def test_copies_of_a_file_are_one_image(folder):
    (folder / "shown/3.png").write_bytes((folder / "shown/1.png").read_bytes())
    label = same_stimulus.of_stimuli(stimuli(folder))
    assert label[1] == label[3] and len(set(label)) == 3


def test_missing_empty_broken_and_truncated_images_are_named(folder):
    path = folder / "shown/1.png"
    whole = path.read_bytes()
    path.unlink()
    with refused(f"image {path} is missing."):
        stimuli(folder)
    path.write_bytes(b"")
    with refused(f"image {path} must hold an image: the file is empty"):
        stimuli(folder)
    path.write_bytes(b"no image at all")
    with refused(f"image {path} must be a whole image that Pillow reads"):
        stimuli(folder)
    path.write_bytes(whole[:-40])
    with refused(f"image {path} must be a whole image that Pillow reads"):
        stimuli(folder).pixels.read([1])
    (folder / "stimuli.csv").write_text("stimulus_id,image\ni0,\n")
    with refused("image must not be empty, but that of 'i0' is"):
        stimuli(folder)


def save(path, image, **options):
    image.save(path, **options)
    return opening.read(path)


def test_orientation_is_that_of_a_viewer(tmp_path, rgb):
    exif = PIL.Image.Exif()
    exif[274] = 6  # turned by 90 degrees
    found = save(tmp_path / "a.png", PIL.Image.fromarray(rgb[0]), exif=exif)
    np.testing.assert_array_equal(found, np.rot90(rgb[0], -1))
    assert opening.look(tmp_path / "a.png") == found.shape[:2]


def test_transparency_is_laid_on_white(tmp_path):
    image = PIL.Image.new("RGBA", (2, 1), (10, 20, 30, 255))
    image.putpixel((1, 0), (10, 20, 30, 0))
    found = save(tmp_path / "a.png", image)
    assert found[0].tolist() == [[10, 20, 30], [255, 255, 255]]
    grey = PIL.Image.new("LA", (1, 1), (0, 0))
    assert save(tmp_path / "b.png", grey).tolist() == [[[255] * 3]]


def test_palettes_may_be_transparent(tmp_path):
    image = PIL.Image.new("P", (2, 1))
    image.putpalette([9, 8, 7, 1, 2, 3])
    image.putpixel((1, 0), 1)
    found = save(tmp_path / "a.png", image, transparency=1)
    assert found[0].tolist() == [[9, 8, 7], [255, 255, 255]]


def test_of_sixteen_bits_the_upper_byte_is_taken(tmp_path):
    grey = PIL.Image.fromarray(np.array([[0, 255, 256, 65535]], np.uint16))
    found = save(tmp_path / "a.png", grey)
    assert found[0].tolist() == [[0] * 3, [0] * 3, [1] * 3, [255] * 3]


def test_black_and_white_is_grey(tmp_path):
    found = save(tmp_path / "a.png", PIL.Image.fromarray(np.array([[True, False]])))
    assert found[0].tolist() == [[255] * 3, [0] * 3]


def test_what_has_no_one_reading_is_refused(tmp_path, rgb):
    with refused("must have 8 or 16 bits a channel: found 32 (Pillow's mode 'F')"):
        save(tmp_path / "a.tif", PIL.Image.fromarray(np.ones((2, 2), np.float32)))
    first, *rest = (PIL.Image.fromarray(x).convert("P") for x in rgb)
    with refused("must be a single picture, found 4 frames"):
        save(tmp_path / "a.gif", first, save_all=True, append_images=rest)
