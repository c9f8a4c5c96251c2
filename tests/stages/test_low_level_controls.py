"""Low-level features of images as controls of a network that saw the images."""

import numpy as np
import PIL.Image
import pytest
import tiny

from jaxalign.data.schema import Responses
from jaxalign.io import rows
from jaxalign.stages import encode, imported
from jaxalign.stages.artefacts import Scores


@pytest.fixture
def job(make_job, tmp_path, rng):
    """Return a job on 60 images to whose colours one voxel answers, and one to nothing."""
    folder = tmp_path / "own"
    (folder / "images").mkdir(parents=True)
    hue = rng.integers(0, 256, (60, 3), dtype=np.uint8)
    names = [f"i{k}" for k in range(60)]
    for name, rgb in zip(names, hue, strict=True):
        PIL.Image.fromarray(np.full((8, 8, 3), rgb, np.uint8)).save(folder / f"images/{name}.png")
    lines = "".join(f"{x},images/{x}.png\n" for x in names)
    (folder / "stimuli.csv").write_text(f"stimulus_id,image\n{lines}")
    values = np.stack([hue @ [1.0, -0.5, 0.2], 100 * rng.normal(size=60)], axis=1)
    responses = Responses(
        values=values / 100 + 0.01 * rng.normal(size=values.shape),
        run=["session"] * 60,
        subject=["s1", "s1"],
        roi=["seen", "noise"],
        target=["a", "b"],
        units="z",
        stimulus_id=names,
    )
    (folder / "responses.npz").write_bytes(responses.to_bytes())
    np.savez(tmp_path / "sees.npz", stimulus_id=names, layer_1=rng.normal(size=(60, 4)))
    return make_job(folder), str(tmp_path / "sees.npz")


@pytest.mark.slow
def test_a_voxel_that_answers_to_colours_is_predicted_by_pixels(job):
    job, network = job
    stores = tiny.make(imported.plan(imported.Config(models=(network,)), job, {}))
    config = encode.Config(alphas=(0.1, 1.0, 10.0), num_folds=3, controls=("pixels", "luminance"))
    scored = tiny.make(encode.plan(config, job, {"imported": stores}))
    found = {}
    for artefact in scored:
        table = rows.read(artefact.path / Scores.ROWS)
        table = table[table.subject == "s1"].set_index("roi").score
        found[artefact.settings["model"]] = table
        assert ("low_level" in artefact.settings) == (artefact.settings["model"] != "sees")
    assert found["pixels"]["seen"] > 0.95 > 0.5 > found["sees"]["seen"]
    assert found["luminance"]["seen"] < found["pixels"]["seen"]
    assert abs(found["pixels"]["noise"]) < 0.5
