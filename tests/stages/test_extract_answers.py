"""Images x instructions -> states of answers, in stores that other stages read."""

import dataclasses
import json
import pathlib
import runpy
import shutil

import jax
import numpy as np
import pictured
import pytest
import tiny
from refusals import refused

from jaxalign import config
from jaxalign.core import mesh as mesh_lib
from jaxalign.data import datasets
from jaxalign.data.images import pixels
from jaxalign.io import rows, run_dir, store
from jaxalign.models import answers, generate, zoo
from jaxalign.pricing.work import Layout
from jaxalign.stages import Job, encode, extract, simulate_responses
from jaxalign.stages.artefacts import Activations, Scores
from jaxalign.stages.extract import asked

NUM_NEW = 4
MODELS = ("llava", "instructblip_vicuna")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two models and 24 images."""
    root = tmp_path_factory.mktemp("pictured")
    pictured.write_images(root / "images", np.random.default_rng(3))
    for name in MODELS:
        pictured.write_model(root / name, name)
    return root


def make_job(folder, workdir, mesh):
    return Job(
        workdir=folder / workdir,
        data_root=None,
        dataset=datasets.find(str(folder / "images"), None),
        mesh=mesh,
        seed=0,
    )


@pytest.fixture(scope="module")
def one():
    """One device: programs for several take long to compile."""
    types = (jax.sharding.AxisType.Auto,) * 2
    return jax.sharding.Mesh(np.array(jax.devices()[:1]).reshape(1, 1), mesh_lib.AXES, types)


@pytest.fixture
def job(folder, tmp_path, one):
    return dataclasses.replace(make_job(folder, "", one), workdir=tmp_path / "work")


@pytest.fixture
def llava(folder, tmp_path):
    """A copy whose files may be changed."""
    return pathlib.Path(shutil.copytree(folder / "llava", tmp_path / "llava"))


def settings(*models, **changes):
    usual = {
        "instructions": pictured.INSTRUCTIONS,
        "answer_tokens": NUM_NEW,
        "untrained_seed": -1,
        "shard_stimuli": 9,
        "batch_tokens": 100,
    }
    return extract.Config(models=tuple(map(str, models)), **usual | changes)


@pytest.fixture(scope="module")
def made(folder, one):
    """The stores of both models, and how many images their towers saw in each pass."""
    seen, see = [], answers.see

    def counted(network, images, **options):
        seen.append(len(images))
        return see(network, images, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "see", counted)
        job = make_job(folder, "work", one)
        steps = extract.plan(settings(*(folder / x for x in MODELS)), job, {})
        return tiny.make(steps), seen


def layers(artefact):
    found = Activations(artefact)
    return np.stack([found.read_layer(i) for i in found.layers])


def table(artefact):
    return rows.read_table(artefact.path / store.ANSWERS)


def by_hand(job, folder, pooling="generated", stop_token=2):
    """Answer about all images, in other pairs; return features [L B Q D], tokens, lengths."""
    model = zoo.find(str(folder), None)
    recipe = pixels.read(folder, model.design)
    images = pixels.batch(recipe, job.dataset.stimuli.pixels, range(pictured.NUM))
    prompts = asked.ask(settings(folder), model, model.config).prompts
    ending = None if pooling in ("vision", "qformer") else generate.Ending(NUM_NEW, (stop_token,))
    network = model.load(job.mesh)
    place = mesh_lib.sharding(job.mesh, ("batch", None, None, None), (2, 3, 15, 15))
    found = {}
    for pair in np.random.default_rng(0).permutation(pictured.NUM).reshape(-1, 2).tolist():
        put = jax.device_put(images[pair], place)
        answered = answers.answer(network, put, prompts, (pooling,), ending)
        for i, image in enumerate(pair):
            values = answered.features[pooling][:, i]
            more = () if ending is None else (answered.tokens[i], answered.lengths[i])
            found[image] = (values, *more)
    each = zip(*(found[i] for i in range(pictured.NUM)), strict=True)
    return [np.stack(x, axis=int(k == 0)) for k, x in enumerate(each)]


@pytest.mark.slow
def test_each_instruction_has_a_store_and_each_image_is_seen_once(folder, job, made):
    found, seen = made
    assert [x.name for x in found] == [f"{m}: {x}" for m in MODELS for x in pictured.INSTRUCTIONS]
    # Of a shard's nine images two pass at a time, the last one filled up; three where prompts are
    # shorter. And each time for all instructions.
    assert seen == [2] * (5 + 5 + 3) + [3] * (3 + 3 + 2)
    assert [x.facts()["num_images"] for x in found] == [24, 0, 24, 0]
    for model, stores in zip(MODELS, (found[:2], found[2:]), strict=True):
        values, tokens, lengths = by_hand(job, folder / model)
        for q, artefact in enumerate(stores):
            np.testing.assert_allclose(layers(artefact), values[:, :, q], atol=2e-5)
            said = table(artefact)
            assert said.stimulus_id.tolist() == [f"i{i}" for i in range(24)]
            stopped = np.array(
                [x[n - 1] == 2 for x, n in zip(tokens[:, q], lengths[:, q], strict=True)]
            )
            assert said.num_tokens.tolist() == (lengths[:, q] - stopped).tolist()
            assert (said.reason == np.where(stopped, "stop token", "length")).all()
            assert said.answer.str.len().gt(0).all()


@pytest.mark.slow
def test_planted_responses_are_found_under_their_instruction(folder, made, one):
    stores, _ = made
    job = make_job(folder, "work", one)
    label = f"instructblip_vicuna: {pictured.INSTRUCTIONS[1]}"
    simulate = simulate_responses.Config(
        model=label, layer=3, num_subjects=2, num_targets=3, noise_sd=0.1
    )
    planted = tiny.make(simulate_responses.plan(simulate, job, {"extract": stores}))
    encoding = encode.Config(alphas=(0.1, 10.0), num_folds=3, controls=(), groups="none")
    upstream = {"extract": stores, "simulate": planted}
    scored = tiny.make(encode.plan(encoding, job, upstream))
    scores = [rows.read(x.path / Scores.ROWS) for x in scored if Scores.is_one(x)]
    networks = [x for x in scores if (x.control_of == "").all()]
    assert [(x.model.iloc[0], x.instruction.iloc[0]) for x in networks] == [
        (model, text) for model in MODELS for text in pictured.INSTRUCTIONS
    ]
    assert {x.pooling.iloc[0] for x in scores} == {"generated"}
    of_layer = [x[(x.layer == 3) & (x.subject == "group")].score.mean() for x in networks]
    assert np.argmax(of_layer) == 3


class Killed(Exception):
    pass


@pytest.mark.slow
def test_a_run_that_is_killed_anywhere_ends_as_another(folder, made, one, monkeypatch):
    """Before each shard and each file of answers: bit for bit."""
    wanted, _ = made
    wanted = wanted[:2]
    left = [np.inf]

    def mortal(write):
        def once(*given):
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return write(*given)

        return once

    monkeypatch.setattr(store.Store, "write_shard", mortal(store.Store.write_shard))
    monkeypatch.setattr(run_dir, "write_json", mortal(run_dir.write_json))
    kills = 0
    for moment in (4, 6, 15):
        job = make_job(folder, f"killed{moment}", one)
        steps = extract.plan(settings(folder / "llava"), job, {})
        left[0] = moment
        try:
            tiny.make(steps)
        except Killed:
            kills += 1
        left[0] = np.inf
        for ours, theirs in zip(tiny.make(steps), wanted, strict=True):
            files = {
                x.relative_to(theirs.path)
                for x in theirs.path.rglob("*")
                if x.is_file() and x.name != "done.json"
            }
            assert len(files) > 6
            for file in files:
                same = (ours.path / file).read_bytes() == (theirs.path / file).read_bytes()
                assert same, (moment, file)
    assert kills == 3


@pytest.mark.slow
def test_images_with_an_empty_answer_are_left_out(folder, job, llava, tmp_path):
    first = by_hand(job, llava, stop_token=77)[1][:, 0, 0]
    token, count = min(
        ((x, int((first == x).sum())) for x in set(first.tolist())),
        key=lambda x: abs(x[1] - pictured.NUM // 4),
    )
    assert 0 < count < pictured.NUM // 2
    content = {"eos_token_id": [token]}
    (llava / "generation_config.json").write_text(json.dumps(content))
    [artefact, other] = tiny.make(extract.plan(settings(llava), job, {}))
    said = table(artefact)
    assert (said.is_empty == (first == token)).all() and artefact.facts()["empty_answers"] == count
    source = Activations(artefact)
    assert source.absent == set(said.stimulus_id[said.is_empty])
    np.testing.assert_array_equal(np.isnan(layers(artefact)).all(axis=(0, 2)), first == token)
    assert (layers(artefact)[:, first != token] != 0).any(axis=2).all()

    # Scores are those of a data set without responses to these images, which are counted.
    fewer = pathlib.Path(shutil.copytree(folder / "images", tmp_path / "images"))
    whole = job.dataset.responses.samples((first != token).tolist())
    (fewer / "responses.npz").write_bytes(whole.to_bytes())
    encoding = encode.Config(
        alphas=(0.1, 10.0), num_folds=3, controls=("shuffled",), groups="none", ceiling_splits=2
    )
    found = []
    for data in (folder / "images", fewer):
        where = dataclasses.replace(
            job, dataset=datasets.find(str(data), None), workdir=tmp_path / f"of {data.parent.name}"
        )
        made = tiny.make(encode.plan(encoding, where, {"extract": [artefact]}))
        found.append([x for x in made if Scores.is_one(x)])
    for ours, theirs in zip(*found, strict=True):
        scores, wanted = (rows.read(x.path / Scores.ROWS) for x in (ours, theirs))
        assert set(scores.num_samples) == {pictured.NUM - count}
        assert np.isfinite(scores.score).all()
        np.testing.assert_array_equal(scores.score, wanted.score)
    [network, control] = [x.facts()["remarks"] for x in found[0]]
    name = f"llava: {pictured.INSTRUCTIONS[0]}"
    assert network[0] == (
        f"images: {count} of 24 images were answered by {name} with nothing and are left out."
    )
    assert control == []


@pytest.mark.slow
def test_drawn_answers_depend_on_the_image_and_the_instruction_alone(folder, job):
    draw = lambda **x: extract.plan(settings(folder / "llava", decoding="top_k", **x), job, {})
    both = [table(x) for x in tiny.make(draw())]
    others = (pictured.INSTRUCTIONS[1], "Describe the colours")
    alone, _ = tiny.make(draw(instructions=others, shard_stimuli=4))
    assert table(alone).answer.tolist() == both[1].answer.tolist()
    assert both[0].answer.tolist() != both[1].answer.tolist()
    assert Activations(alone).reading["pooling"] == "generated, top 5 from seed 0"


LAYERS = {
    ("llava", "vision"): (4, 24, "block.3", False, 1),
    ("llava", "prompt_mean"): (4, 32, "block.3", True, 2),
    ("instructblip_vicuna", "qformer"): (5, 20, "block.4", False, 2),
    ("instructblip_vicuna", "vision"): (3, 24, "block.2", False, 1),
}


@pytest.mark.parametrize("model, pooling", LAYERS)
def test_poolings_have_layers_of_their_own(folder, job, model, pooling):
    steps = extract.plan(settings(folder / model, answer_pooling=pooling, decoding="none"), job, {})
    num, width, name, is_normed, count = LAYERS[model, pooling]
    assert len(steps) == count
    source = Activations(steps[0].artefact)
    assert (source.num_layers + 1, source.width) == (num, width)
    assert source.layer_columns(num - 1) == {
        "layer_name": name,
        "final_norm": "yes" if is_normed else "no",
    }
    asked_for = pooling if pooling == "vision" else f"{pooling}, forward only"
    assert source.reading["pooling"] == asked_for
    assert bool(source.reading["instruction"]) == (pooling != "vision")


@pytest.mark.slow
def test_a_models_own_tower_is_a_model_beside_it(folder, job):
    plan = lambda **x: extract.plan(settings(folder / "llava", **x), job, {})
    *asked, tower = plan(own_tower=True)
    assert [Activations(x.artefact).label for x in asked] == [
        f"llava: {text}" for text in pictured.INSTRUCTIONS
    ]
    found = Activations(tower.artefact)
    assert found.label == found.model == "llava tower"
    assert found.reading["pooling"] == "vision" and found.reading["instruction"] == ""
    both = tiny.make([tower, *plan(answer_pooling="vision")])
    np.testing.assert_array_equal(*map(layers, both))
    for wrong in ({"instructions": ()}, {"answer_pooling": "vision"}):
        with refused("extract.own_tower must be false"):
            settings(folder / "llava", own_tower=True, **wrong)


@pytest.mark.parametrize(
    "changes, moves",
    [
        ({"instructions": pictured.INSTRUCTIONS[::-1]}, False),
        ({"instructions": (pictured.INSTRUCTIONS[0], "Describe")}, False),
        ({"answer_pooling": "last_fed"}, True),
        ({"decoding": "top_k"}, True),
        ({"decoding": "none", "answer_pooling": "prompt_last"}, True),
        ({"answer_tokens": 5}, True),
        ({"top_k": 6}, False),
        ({"decoding": "top_k", "top_k": 6}, True),
    ],
    ids=str,
)
def test_settings_that_fix_what_a_store_holds(folder, job, changes, moves):
    """A store is that of its own instruction; what plays no part is no part of it."""

    def first(**given):
        steps = extract.plan(settings(folder / "llava", **given), job, {})
        [one] = [x.artefact for x in steps if x.artefact.settings["prompt"] == asked_for]
        return one.fingerprint

    asked_for = pictured.INSTRUCTIONS[0]
    beside = {"decoding": "top_k"} if "top_k" in changes and moves else {}
    assert (first(**changes) != first(**beside)) == moves


@pytest.mark.parametrize(
    "name, tokens, says",
    [
        # <s> User: and four words, the image between two fakes, the end of the turn, Assistant:
        ("idefics", 1, "2 prompts of 9 tokens"),
        # Images of 18 x 20 pixels become 16 x 24: 2 x 3 groups of four patches.
        ("qwen2_vl", 6, "2 prompts of"),
    ],
)
def test_images_have_as_many_tokens_as_the_family_gives_them(job, tmp_path, name, tokens, says):
    given = settings(pictured.write_model(tmp_path / name, name))
    if name == "qwen2_vl":
        with refused(
            "images must have one size when they are prepared, found (16, 16) and (24, 16)"
        ):
            extract.plan(given, job, {})
    pictured.write_images(tmp_path / "one", np.random.default_rng(0), num=1)
    one = dataclasses.replace(job, dataset=datasets.find(str(tmp_path / "one"), None))
    steps = extract.plan(given, one, {})
    assert says in steps[0].artefact.cost
    model = zoo.find(str(tmp_path / name), None)
    network = model.config.for_images(16, 24) if name == "qwen2_vl" else model.config
    found = asked.ask(given, model, network)
    assert ((found.prompts.tokens == 60) & found.prompts.mask).sum(axis=1).tolist() == [tokens] * 2


@pytest.mark.slow
def test_forward_passes_alone_keep_what_was_read(folder, job):
    for model, pooling in (("llava", "vision"), ("instructblip_vicuna", "qformer")):
        given = settings(folder / model, answer_pooling=pooling, decoding="none")
        made = tiny.make(extract.plan(given, job, {}))
        [wanted] = by_hand(job, folder / model, pooling)
        for q, artefact in enumerate(made):
            values = wanted if wanted.ndim == 3 else wanted[:, :, q]
            np.testing.assert_allclose(layers(artefact), values, atol=2e-5)
            assert artefact.facts()["num_images"] == (24, 0)[q]
            assert not rows.has_table(artefact.path / store.ANSWERS)


def test_the_configuration_asks_the_ten():
    path = pathlib.Path(__file__).resolve().parents[2] / "configs/answers.py"
    build = runpy.run_path(str(path))["get_config"]
    common, stages = config.unpack(build("somewhere,llava-1.5-7b,vit-huge"))
    assert common.dataset == "somewhere" and stages["extract"].models[1] == "vit-huge"
    asked_for = [x.text for x in asked.instructions(stages["extract"].instructions)]
    assert len(asked_for) == 10 and stages["report"].instruction in asked_for
    with refused("--config=configs/answers.py:DATA,MODEL[,MODEL...], got 'somewhere'"):
        build("somewhere")


def test_the_ten_of_a_paper_are_named_as_a_set():
    found = asked.instructions(["oota2025"])
    assert len(found) == 10 and "IC" in [x.name for x in found]
    one = asked.instructions(["oota2025:IC", "What?"])
    assert [x.name for x in one] == ["IC", "What?"]
    assert one[0].text == "Generate some text to describe the image."
    with refused("extract.instructions: oota2025 has IU1, IU2", "found 'XX'"):
        asked.instructions(["oota2025:XX"])
    with refused("extract.instructions must differ, found twice 'Generate some text"):
        asked.instructions(["oota2025", one[0].text])


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"instructions": ("What is <image> ?",)}, "must not hold the image's token <image>"),
        ({"instructions": ("What " * 80,)}, "must have at most 76 tokens, found 92"),
        ({"prompt": "See:"}, "extract.prompt must be '' for llava, which reads images"),
        ({"tap": "mlp"}, "extract.tap must be 'residual' for llava"),
        ({"answer_pooling": "qformer"}, "must be those that the network has, got 'qformer'"),
        ({"decoding": "none"}, "must be those that the network has, got 'generated'"),
        ({"decoding": "beam"}, "extract.decoding must be one of greedy, top_k, none"),
        ({"answer_tokens": 1}, "extract.answer_tokens must be >= 2"),
    ],
    ids=str,
)
def test_settings_that_do_not_fit_are_refused(folder, job, changes, message):
    with refused(message):
        extract.plan(settings(folder / "llava", **changes), job, {})


def test_instructions_need_a_model_that_reads_images_and_text(folder, job):
    with refused("extract.instructions must be () unless a model reads images and text: bert"):
        extract.plan(settings(tiny.GOLDEN / "bert"), job, {})
    with refused("extract.instructions must be () for smolvlm: how smolvlm is asked"):
        path = tiny.GOLDEN / "multimodal/smolvlm"
        shutil.copytree(path, folder / "smolvlm")
        given = {"image_processor_type": "SiglipImageProcessor"}
        size = json.loads((path / "config.json").read_text())["vision_config"]["image_size"]
        given["size"] = {"height": size, "width": size}
        (folder / "smolvlm" / pixels.FILE).write_text(json.dumps(given))
        extract.plan(settings(folder / "smolvlm"), job, {})


@pytest.mark.slow
def test_files_that_a_model_lacks_are_named(job, llava, folder, tmp_path):
    plan = lambda model: extract.plan(settings(model), job, {})
    blip = pathlib.Path(shutil.copytree(folder / "instructblip_vicuna", tmp_path / "blip"))
    shutil.rmtree(blip / "qformer_tokenizer")
    with refused("must hold qformer_tokenizer/, the tokenizer of the Q-Former"):
        plan(blip)
    (llava / "generation_config.json").unlink()
    hf = json.loads((llava / "config.json").read_text())
    assert "eos_token_id" not in hf
    with refused("must name the token that ends an answer: eos_token_id in generation_config"):
        plan(llava)
    (llava / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    plan(llava)
    pictured.write_tokenizer(llava, 61)
    with refused("the tokenizer must have the image's token <image> as id 60: it has none"):
        plan(llava)
    (llava / pixels.FILE).write_text(json.dumps(pictured.PROCESSORS["llava"] | {"crop_size": 20}))
    with refused("llava: preprocessor_config.json", "pixels must be 15x15, got 20x20"):
        plan(llava)
    (llava / pixels.FILE).unlink()
    with refused("must hold preprocessor_config.json, which says how images become pixels"):
        plan(llava)


def test_a_missing_image_is_named(folder, job, tmp_path):
    lost = shutil.copytree(folder / "images", tmp_path / "images")
    (pathlib.Path(lost) / "i4.png").unlink()
    with refused("i4.png"):
        other = dataclasses.replace(job, dataset=datasets.find(str(lost), None))
        extract.plan(settings(folder / "llava"), other, {})


def test_disk_and_memory_are_planned(folder, job, monkeypatch):
    plan = lambda **x: extract.plan(settings(folder / "llava", **x), job, {})
    first, second = (step.work(Layout()) for step in plan())
    # Four layers of 32 units for three shards of nine images, in float32; both stores in the first.
    assert first.disk_bytes == 2 * second.disk_bytes and second.disk_bytes > 4 * 32 * 27 * 4
    assert first.flop["float32"] > 0 and second.total_flop == 0 and first.passes > 3
    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with refused("2 stores take ", "has 1 kB", "extract.store_dtype=float16"):
        plan()
