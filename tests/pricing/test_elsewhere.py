"""Plans for machines that are not at hand, of models that are not here."""

import pytest
import small
from refusals import refused

from jaxalign import config, plans, runner
from jaxalign.data.schema import Responses
from jaxalign.data.text import tokenizer_files
from jaxalign.models import zoo
from jaxalign.pricing import chips, prices
from jaxalign.stages import encode, extract
from jaxalign.stages.encode import work


def test_pieces_stand_in_for_tokens():
    tokenizer = tokenizer_files.stand_in()
    found = tokenizer.encode("An extraordinary sentence.")
    assert [found.offsets[0], found.offsets[-1]] == [(0, 2), (22, 26)]
    assert len(found.ids) == 6 and set(found.ids) == {0}


def test_models_that_are_here_or_unknown_are_not_absent():
    assert zoo.is_absent("alpaca-7b")  # published as a difference
    for name in ("all-MiniLM-L6-v2", "stories260K", "no-such-model", str(small.BERT)):
        assert not zoo.is_absent(name)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    data = small.write(tmp_path_factory.mktemp("elsewhere") / "data", num_passages=12)
    return config.pack(
        config.Common(dataset=str(data)),
        extract=extract.Config(models=("alpaca-7b",), untrained_seed=-1, compute_dtype="bfloat16"),
        encode=encode.Config(groups="passage", controls=("word_length",)),
    )


def test_a_model_that_is_not_here_is_priced_and_never_run(settings, tmp_path):
    machine = chips.find("v5e-8")
    divided = config.override(settings, {"mesh": (1, 8)})
    plan = runner.plan(divided, workdir=tmp_path / "work", machine=machine)
    found, scores, _ = (prices.price(x.work, machine, plan.layout) for x in plans.items(plan))
    assert 13e9 / 8 < found.device_bytes < 2.2 * 2**30
    assert found.work.flop["bfloat16"] > 2 * 6.4e9 * found.work.num_tokens
    assert scores.work.total_flop > 0
    text = plans.describe(plan, 1.2)
    assert "devices: 8 x TPU v5 lite, as 1 x 8" in text and "pieces of five letters" in text
    assert not prices.refusal(plans.items(plan), machine, plan.layout)
    with pytest.raises(AssertionError):
        runner.run(plan)
    assert not (tmp_path / "work").exists()


def test_what_cannot_fit_is_named_with_the_mesh_that_can(settings, tmp_path):
    machine = chips.find("v5e-8")
    large = config.override(settings, {"extract.compute_dtype": "float32"})
    plan = runner.plan(large, workdir=tmp_path / "work", machine=machine)
    said = prices.refusal(plans.items(plan), machine, plan.layout)
    assert said.startswith("memory: extract alpaca-7b needs") and said.endswith("is (4, 2).")


@pytest.mark.slow
def test_data_that_are_not_here_are_priced_by_their_published_size(tmp_path):
    packed = config.pack(
        config.Common(dataset="pereira2018-384"),
        extract=extract.Config(models=("alpaca-7b",), untrained_seed=-1, compute_dtype="bfloat16"),
        encode=encode.Config(protocol="brainscore-linear-2023-own-reading", controls=()),
    )
    machine, root = chips.find("h200"), tmp_path / "data"
    root.mkdir()
    plan = runner.plan(packed, workdir=tmp_path / "work", data_root=root, machine=machine)
    found, scores = (prices.price(x.work, machine, plan.layout) for x in plans.items(plan))
    # 4,537 words, of 1.3 pieces each; seven numbers of each of ten folds, shuffled and contiguous,
    # and of each voxel and layer.
    assert found.work.num_tokens == pytest.approx(1.3 * 4537, rel=0.1)
    assert scores.work.disk_bytes == pytest.approx(33 * 7 * 2 * 10 * 12195 * 8, rel=0.01)
    text = plans.describe(plan)
    assert "assumed: models alpaca-7b are not here: shapes are those of jaxalign/models" in text
    assert "assumed: data set pereira2018-384 is not here: 384 sentences of 4,537 words" in text
    with refused("encode.rois must be () for pereira2018-384, which is not here"):
        of_roi = config.override(packed, {"encode.rois": ("language",)})
        runner.plan(of_roi, workdir=tmp_path / "work", data_root=root, machine=machine)
    with refused("data set pereira2018-384 needs"):
        runner.plan(packed, workdir=tmp_path / "work", data_root=root)


def test_voxels_of_single_people_are_in_no_mean(rng):
    responses = Responses(
        values=rng.standard_normal((5, 4)),
        run=["r"] * 5,
        subject=["a", "a", "b", "b"],
        roi=["x"] * 4,
        target=["mean", "a.1", "mean", "b.1"],
        units="",
        stimulus_id=list("12345"),
    )
    assert work.count_targets(responses) == 5
    assert work.count_targets(responses.columns([True, True, False, False])) == 2


def test_at_hand_it_must_be_here(settings, tmp_path):
    with refused("model alpaca-7b was published as a difference from llama-7b"):
        runner.plan(settings, workdir=tmp_path / "work")
