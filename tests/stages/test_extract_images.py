"""Images -> activations of a vision tower, in stores that other stages read."""

import json
import shutil

import jax
import numpy as np
import pandas as pd
import PIL.Image
import pytest
import tiny
from refusals import refused

from jaxalign import recipes
from jaxalign.core import mesh as mesh_lib
from jaxalign.data.images import pixels
from jaxalign.errors import InputError
from jaxalign.io import rows, store
from jaxalign.models import zoo
from jaxalign.stages import encode, extract
from jaxalign.stages.artefacts import Activations, Scores

CLIP = {
    "image_processor_type": "CLIPImageProcessor",
    "size": {"shortest_edge": 22},
    "crop_size": {"height": 20, "width": 20},
}
NUM = 16


def write_images(root, rng):
    """Write images of several sizes, with captions and responses."""
    root.mkdir()
    ids = [f"i{i}" for i in range(NUM)]
    for i, name in enumerate(ids):
        image = rng.integers(0, 256, (24 + i, 30, 3), dtype=np.uint8)
        PIL.Image.fromarray(image).save(root / f"{name}.png")
    table = {"stimulus_id": ids, "image": [f"{x}.png" for x in ids]}
    table["caption"] = [f"the dog sat on mat {i}" for i in range(NUM)]
    pd.DataFrame(table).to_csv(root / "stimuli.csv", index=False)
    np.savez(
        root / "responses.npz",
        values=rng.normal(size=(NUM, 2)),
        run=["session"] * NUM,
        subject=["s1", "s1"],
        roi=["V1", "V1"],
        target=["a", "b"],
        units="percent",
        stimulus_id=ids,
    )
    return root


@pytest.fixture
def model(tmp_path, golden):
    folder = tmp_path / "tower"
    shutil.copytree(golden / "vision/clip", folder)
    (folder / pixels.FILE).write_text(json.dumps(CLIP))
    return folder


@pytest.fixture(scope="module")
def golden():
    return tiny.GOLDEN


@pytest.fixture
def job(tmp_path, rng, make_job):
    return make_job(write_images(tmp_path / "images", rng))


def settings(model, **changes):
    return extract.Config(
        **{"models": (str(model),), "shard_stimuli": 4, "batch_tokens": 34, "pooling": "cls"}
        | changes
    )


def layers(artefact):
    found = Activations(artefact)
    return np.stack([found.read_layer(i) for i in found.layers])


@pytest.mark.slow
def test_every_layer_is_kept_and_the_normed_one_told_apart(job, model, monkeypatch):
    steps = extract.plan(settings(model), job, {})
    assert [x.artefact.kind for x in steps] == list(Activations.EVERY[:2])
    assert "16 images of 17 tokens, 4 in a pass" in steps[0].artefact.cost
    trained, untrained = tiny.make(steps)
    found = layers(trained)
    network = zoo.find(str(model), None).load(job.mesh)
    recipe = pixels.read(model, "clip")
    images = pixels.batch(recipe, job.dataset.stimuli.pixels, range(NUM))
    with jax.default_matmul_precision("highest"):
        output = jax.jit(lambda network, x: network(x))(network, images)
    expected = [*np.asarray(output.hidden)[:, :, 0], np.asarray(output.final)[:, 0]]
    np.testing.assert_allclose(found, expected, atol=2e-5)
    assert (layers(untrained) != found).any()
    named = [Activations(trained).layer_columns(i) for i in range(5)]
    assert [x["layer_name"] for x in named] == [
        "embedding",
        "block.1",
        "block.2",
        "block.3",
        "norm",
    ]
    assert [x["final_norm"] for x in named] == ["no"] * 4 + ["yes"]
    # What was lost is made again, the same.
    monkeypatch.setattr(store.Store, "has_whole_shard", lambda self, index: index != 1)
    activations = store.open_artefact(trained)
    activations.write_shard(1, np.zeros((5, 4, 24), np.float32)).result()
    facts = steps[0].make(trained)
    assert facts["num_images"] == 4
    np.testing.assert_array_equal(layers(trained), found)
    # Other stages read it.
    config = encode.Config(alphas=(10.0,), num_folds=3, controls=("untrained", "shuffled"))
    made = tiny.make(encode.plan(config, job, {"extract": [trained, untrained]}))
    scored = rows.read(made[0].path / Scores.ROWS)
    assert set(scored.layer) == set(range(5)) and set(scored.pooling) == {"cls"}


@pytest.mark.slow
def test_poolings_taps_and_devices(job, model, make_job, tmp_path):
    found = {
        name: layers(tiny.make(extract.plan(settings(model, **changes), own, {}))[0])
        for name, own, changes in (
            ("cls", job, {}),
            ("mean", job, {"pooling": "mean"}),
            ("patches", job, {"pooling": "patches"}),
            ("mlp", job, {"tap": "mlp"}),
            (
                "sharded",
                make_job(tmp_path / "images", workdir="other", mesh=mesh_lib.make_mesh(2, 2)),
                {"pooling": "mean"},
            ),
        )
    }
    together = (found["cls"] + 16 * found["patches"]) / 17
    np.testing.assert_allclose(found["mean"], together, atol=2e-5)
    np.testing.assert_allclose(found["sharded"], found["mean"], atol=2e-5)
    assert found["mlp"].shape[0] == 4


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"pooling": "last"}, "extract.pooling must be one of cls, mean, patches for tower"),
        ({"prompt": "See:"}, "extract.prompt must be '' for tower, which reads images"),
        ({"surprisal": True}, "extract.surprisal must be False for tower, which reads images"),
        ({"tower": "text"}, "extract.pooling must be one of mean, last"),
    ],
    ids=str,
)
def test_settings_of_text_are_refused(job, model, changes, message):
    with refused(message):
        extract.plan(settings(model, **changes), job, {})


def test_files_that_do_not_fit_are_refused_before_anything_is_computed(job, model, golden):
    plan = lambda: extract.plan(settings(model), job, {})
    (model / pixels.FILE).write_text(json.dumps(CLIP | {"crop_size": 15}))
    with refused("preprocessor_config.json must make images of 20 x 20", "found 15 x 15"):
        plan()
    (model / pixels.FILE).unlink()
    with refused("must hold preprocessor_config.json, which says how images become pixels"):
        plan()
    shutil.copytree(golden / "vision/siglip", model, dirs_exist_ok=True)
    with refused("extract.pooling must not be 'cls' for tower, which has no such token"):
        plan()


def test_images_are_named_that_are_lost_while_a_run_goes_on(job, model):
    steps = extract.plan(settings(model, untrained_seed=-1), job, {})
    path = job.dataset.stimuli.pixels.paths[7]
    path.write_bytes(path.read_bytes()[:-30])
    with refused(f"image {path} must be a whole image"):
        tiny.make(steps)


def test_sentences_are_refused_by_a_vision_tower(sentences, make_job, model):
    with refused("extract reads images with this model, but data set sentences has sentences"):
        extract.plan(settings(model), make_job(sentences), {})


def test_the_command_for_ones_own_data_takes_images(job, tmp_path):
    found = recipes.on_data(str(tmp_path / "images"), ["clip-vit-l14"])
    assert found.encode.controls == ("shuffled", "untrained")
    with pytest.raises(InputError, match="a model must be named"):
        recipes.on_data(str(tmp_path / "images"), [])
