"""The bench of extraction on tiny networks and texts; nothing depends on how long it takes."""

import dataclasses
import importlib.util
import json
import pathlib
import sys

import numpy as np
import pandas as pd
import pytest
import tiny
from refusals import refused
from tokenizers import Tokenizer, models, pre_tokenizers

from jaxalign import config as config_lib
from jaxalign.bench import extract
from jaxalign.bench import extract_page as tables
from jaxalign.bench.extract import answering, shared, stories
from jaxalign.data.sets import natural_stories
from jaxalign.models import zoo
from jaxalign.stages import Job
from jaxalign.stages.extract import reading

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
NETWORKS = {
    "gpt2": extract.Network(num_layers=2, width=16, num_heads=2, mlp_size=32, max_length=48),
    "llama": extract.Network(
        family="llama", num_layers=1, width=16, num_heads=2, mlp_size=24, max_length=256
    ),
}
WHOLE = extract.Stories(
    network="gpt2",
    unit="word",
    context={"accumulate:slide": 2.0, "accumulate:restart": 1.0},
    every=3,
    batch_tokens=96,
    num_repeats=1,
)
SENTENCES = extract.Stories(
    network="llama",
    unit="sentence",
    context={"accumulate": 1e9},
    num_words=20,
    every=2,
    num_repeats=2,
)
FORWARD = extract.Forward(network="gpt2", batch=3, length=40, num_repeats=2)
DEPTHS = extract.Depths(network="llama", num_layers=(2, 3), num_repeats=2)
LOADING = extract.Loading(network="llama")
ANSWERS = extract.Answering(
    network="llama",
    family="instructblip",
    vision_layers=1,
    vision_width=16,
    vision_heads=2,
    image_size=28,
    num_images=2,
    num_instructions=3,
    prompt_tokens=4,
    num_new=2,
    num_repeats=1,
)


@pytest.fixture
def needs_peers():
    for name in ("torch", "transformers"):
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{name} is not installed: pip install -e .[bench]")


@pytest.fixture
def root(tmp_path):
    """Two stories, and a tokenizer of bytes in GPT-2's files."""
    root = tmp_path / "data"
    folder = root / extract.TOKENIZER
    folder.mkdir(parents=True)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    ids = {token: i for i, token in enumerate([*alphabet, "<|endoftext|>"])}
    (folder / "encoder.json").write_text(json.dumps(ids))
    (folder / "vocab.bpe").write_text("#version: 0.2\n")
    assert Tokenizer(models.BPE.from_file(*map(str, sorted(folder.iterdir())))).get_vocab_size()
    path = root / natural_stories.FILE
    path.parent.mkdir(parents=True)
    lines = ["word\tzone\titem"]
    for story, text in enumerate(
        (
            "One day a dog sat (quite still.) It saw birds: 'Fly over walls!' they sang, and on",
            "Two red birds met. Why? Nobody knew, at dawn; 'we do not know,' said one.",
        )
    ):
        lines += [f"{word}\t{i + 1}\t{story + 1}" for i, word in enumerate(text.split())]
    path.write_text("\n".join(lines) + "\n")
    return root


@pytest.fixture
def job(tmp_path, root, mesh):
    return Job(workdir=tmp_path / "work", data_root=root, dataset=None, mesh=mesh, seed=0)


def measure(job, **cases):
    config = extract.Config(networks=NETWORKS, **cases)
    (*own, summary) = tiny.make(extract.plan(config, job, {}))
    assert not [x for artefact in own for x in artefact.path.glob("inputs.*")]
    rows = pd.read_csv(summary.path / "cases.csv")
    return rows, (summary.path / extract.SUMMARY).read_text()


def test_forwards_and_stories_equal_the_peer(job, needs_peers):
    rows, text = measure(
        job, forwards={"forward": FORWARD}, stories={"whole": WHOLE, "sentences": SENTENCES}
    )
    rows = rows.set_index(["name", "solver"])
    forward = rows.loc["forward"]
    assert forward.num_repeats.tolist() == [2, 2]
    assert forward.num_tokens.tolist() == [120, 120]
    np.testing.assert_allclose(forward.tokens_per_s * forward.median_s, 120)
    np.testing.assert_allclose(forward.ratio * forward.median_s, forward.median_s["torch"])
    assert 0 < forward.difference["jaxalign"] < 2e-5
    whole = rows.loc["whole"].set_index("context")
    assert 0 < whole.difference["accumulate:slide"] < 2e-5
    assert whole.difference[["accumulate:restart", "prefixes"]].isna().all()
    # Bytes as tokens, 48 at most; the prefix without the text's end is what a part sees.
    stimuli = natural_stories.load(job.data_root, "word")
    lengths, text_so_far, story = [], "", ""
    for passage, word in zip(stimuli.passage, stimuli.text, strict=True):
        text_so_far = f"{text_so_far} {word}" if passage == story else word
        story = passage
        lengths.append(min(len(text_so_far), 48))
    assert whole.num_tokens["prefixes"] == sum(lengths)
    assert whole.scale["prefixes"] == pytest.approx(sum(lengths) / sum(lengths[::3]))
    assert 1 < whole.scale["accumulate:slide"] < 3
    # The last pass of a story may hold one part.
    assert 1 <= whole.scale["accumulate:restart"] < 1.3
    assert whole.num_tokens["accumulate:restart"] < whole.num_tokens["accumulate:slide"]
    sentences = rows.loc["sentences"].set_index("context")
    assert 0 < sentences.difference["accumulate"] < 2e-5
    assert sentences.scale["accumulate"] == 1
    assert (
        sentences.num_parts == len(natural_stories.load(job.data_root, "sentence", num_words=20))
    ).all()
    assert "sentences accumulate: " in text and "at least 1e+09: NOT MET" in text


def test_what_is_sampled_is_what_the_whole_has(job, needs_peers):
    """Each third part with a pass of its own, and all others."""
    case = dataclasses.replace(WHOLE, context={"accumulate:slide": 2.0})
    stimuli = natural_stories.load(job.data_root, "word")
    config = extract.Config(networks=NETWORKS, stories={"whole": case})
    artefact = extract.plan(config, job, {})[0].artefact
    artefact.start()
    with shared.checkpoint(NETWORKS["gpt2"], job, artefact) as folder:
        model = zoo.find(str(folder), None)
        network = model.load(job.mesh)
        settings = stories._settings(folder, "accumulate:slide", case)
        take = lambda every: stories._extract(settings, model, network, job.mesh, stimuli, every)
        whole, some = take(1), take(3)
        passes = reading.read(settings, model, stimuli).passes
    alone = np.bincount(passes.row)[passes.row] == 1
    absent = np.isnan(some.vectors).all(axis=(0, 2))
    np.testing.assert_array_equal(absent, alone & (np.arange(len(stimuli)) % 3 != 0))
    assert not np.isnan(whole.vectors).any()
    np.testing.assert_allclose(some.vectors[:, ~absent], whole.vectors[:, ~absent], atol=1e-5)
    assert some.num_tokens * some.scale == pytest.approx(whole.num_tokens)


@pytest.mark.slow
def test_depths_and_loading(job, needs_peers):
    rows, text = measure(job, depths={"depths": DEPTHS}, loadings={"loading": LOADING})
    depths = rows[rows.name == "depths"]
    assert depths.num_layers.tolist() == [2, 3]
    assert depths.ratio.min() == 1 and (depths.median_s > 0).all()
    (loading,) = rows[rows.name == "loading"].itertuples()
    # Embedding, two projections' worth of norms, attention and a gated MLP.
    size = 257 * 16 + 4 * 16 * 16 + 3 * 16 * 24 + 3 * 16
    assert loading.weights_mb == pytest.approx(4 * size / 1e6)
    assert loading.ratio == pytest.approx(loading.peak_mb / loading.weights_mb)
    assert "depths: " in text and "to be at most 1.3" in text


def test_times_of_a_busy_machine_are_marked():
    row = {
        "name": "x",
        "kind": "forwards",
        "solver": "torch",
        "others_cores": 0.5,
        "median_s": 20.0,
        "scale": 10.0,
        "num_repeats": 1,
    }
    assert tables.disturbed(pd.DataFrame([row])) == [
        "DISTURBED: other processes used 0.50 cores while torch was timed on x: these times and "
        "ratios are not valid."
    ]
    # Of two seconds times ten, .04 cores may be the clock's.
    assert tables.disturbed(pd.DataFrame([row | {"others_cores": 0.04}])) == []


def test_absent_packages_are_named_before_anything_runs(job, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    config = extract.Config(networks=NETWORKS, forwards={"x": FORWARD})
    with refused("bench_extract needs torch", "pip install -e .[bench]"):
        extract.plan(config, job, {})


def test_absent_data_are_named(job, root, needs_peers):
    config = extract.Config(networks=NETWORKS, forwards={"x": FORWARD})
    with refused("give --data_root"):
        extract.plan(config, dataclasses.replace(job, data_root=None), {})
    (root / natural_stories.FILE).write_text("word\n")
    with refused("must have column 'zone'"):
        extract.plan(config, job, {})
    (root / natural_stories.FILE).unlink()
    with refused("Natural Stories must have"):
        extract.plan(config, job, {})


@pytest.mark.slow
def test_all_instructions_are_timed_beside_one(job):
    rows = answering.measure_answers(ANSWERS, NETWORKS["llama"], job, None)
    assert [x["instructions"] for x in rows] == [1, 3]
    assert rows[0]["ratio"] == 1 and rows[1]["ratio"] * rows[0]["min_s"] == pytest.approx(
        rows[1]["min_s"]
    )


def test_sentences_end_with_their_marks(root):
    found = natural_stories.load(root, "sentence", num_stories=1)
    assert list(found.text) == [
        "One day a dog sat (quite still.)",
        "It saw birds: 'Fly over walls!'",
        "they sang, and on",
    ]
    few = natural_stories.load(root, "word", num_words=2)
    assert list(few.text) == ["One", "day", "Two", "red"]
    assert list(few.passage) == ["1", "1", "2", "2"]


@pytest.mark.parametrize(
    "field,settings,message",
    [
        ("networks", {"family": "bert"}, "family must be one of gpt2, llama, got 'bert'"),
        ("networks", {"num_layers": 0}, "num_layers must be >= 1"),
        ("networks", {"num_heads": 3}, "num_heads must divide width, got 3 and 16"),
        ("forwards", {"batch": 0}, "batch must be >= 1"),
        ("forwards", {"network": "opt"}, "network must be one of gpt2, llama, got 'opt'"),
        ("stories", {"unit": "letter"}, "unit must be one of word, sentence, got 'letter'"),
        ("stories", {"every": 0}, "every must be >= 1"),
        ("stories", {"context": {}}, "context must name at least one rule"),
        ("stories", {"context": {"none": 1.0}}, "context must be a rule of accumulate"),
        ("depths", {"num_layers": (12,)}, "num_layers must hold two depths or more"),
        ("depths", {"num_repeats": 0}, "num_repeats must be >= 1"),
        ("answers", {"family": "opt"}, "family must be one of llava, instructblip, got 'opt'"),
        ("answers", {"num_instructions": 1}, "num_instructions must be >= 2"),
        ("answers", {"vision_heads": 3}, "vision_heads must divide vision_width, got 3 and 16"),
        ("answers", {"network": "gpt2"}, "network must be of family llama, got 'gpt2'"),
    ],
)
def test_cases_out_of_range(field, settings, message):
    base = {
        "networks": NETWORKS["gpt2"],
        "forwards": FORWARD,
        "stories": WHOLE,
        "depths": DEPTHS,
        "answers": ANSWERS,
    }[field]
    row = dataclasses.asdict(base) | settings
    cases = {"networks": NETWORKS, "forwards": {"y": FORWARD}}
    cases[field] = {**cases.get(field, {}), "x": row}
    with refused(f"bench_extract.{field}.x.", message):
        extract.Config(**cases)


@pytest.mark.parametrize(
    "settings,message",
    [
        ({}, "must have a case, got none"),
        ({"forwards": {"a/b": FORWARD}}, "must be named by words, got 'a/b'"),
        ({"forwards": {"x": FORWARD}, "stories": {"x": WHOLE}}, "found 'x' twice"),
    ],
)
def test_settings_out_of_range(settings, message):
    with refused(message):
        extract.Config(networks=NETWORKS, **settings)


def test_no_setting_of_a_case_is_dead():
    folder = pathlib.Path(extract.__file__).parent
    source = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    for kind in extract.KINDS.values():
        for field in dataclasses.fields(kind):
            assert f"case.{field.name}" in source or field.name == "network", field.name


def test_published_cases_are_chosen_by_name():
    space = {}
    exec((REPOSITORY / "configs/bench_extract.py").read_text(encoding="utf-8"), space)
    packed = space["get_config"]("gpt2_words,loading")
    common, stages = config_lib.unpack(packed)
    names = [name for _, name, _ in extract.cases(stages["bench_extract"])]
    assert names == ["gpt2_words", "loading"]
    assert config_lib.pack(common, **stages).to_dict() == packed.to_dict()
    with refused("takes gpt2_long,", "got 'gpt'"):
        space["get_config"]("gpt")
