"""Losses of tiny networks against float64 log-softmax, PyTorch's logits and `score_arrays`."""

import dataclasses
import json
import pathlib
import runpy
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
import safetensors.numpy
import tiny
from refusals import refused
from scipy import special, stats

import jaxalign
from jaxalign import config as jaxalign_config
from jaxalign.core.behavior import next_word as core
from jaxalign.data.text import texts, tokenizer_files
from jaxalign.models import zoo
from jaxalign.stages import Job, next_word

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
MODELS = {"llama": tiny.GOLDEN / "llama", "gpt2": tiny.GOLDEN / "decoders/gpt2"}


def write(folder):
    path = folder / "text.txt"
    words = np.random.default_rng(0).choice(tiny.WORDS, 150)
    path.write_text(" ".join(words) + "\n")
    return path


@pytest.fixture
def text(tmp_path):
    return write(tmp_path)


@pytest.fixture
def job(tmp_path, mesh):
    return Job(workdir=tmp_path / "work", data_root=None, dataset=None, mesh=mesh, seed=0)


def config(text, *, models=("llama",), **settings):
    names = tuple(str(MODELS.get(x, x)) for x in models)
    settings = {"context": 24, "stride": 10, "block_tokens": 32, "batch_tokens": 100} | settings
    return next_word.Config(models=names, text=str(text), **settings)


def make(settings, job):
    return tiny.make(next_word.plan(settings, job, {}))


def make_first(settings, job):
    """Make the losses of the first network alone, without a report."""
    return tiny.make(next_word.plan(settings, job, {})[:1])[0]


def tables(job):
    folder = job.workdir / "next_word"
    read = lambda name: pd.read_csv(folder / f"{name}.csv", keep_default_na=False)
    return read("scores"), read("blocks"), read("controls")


@jax.jit
@jax.default_matmul_precision("highest")
def forward(network, tokens):
    return network.logits(network(tokens, jnp.ones_like(tokens, bool)).final)


def by_hand(model, mesh, path, context, stride):
    """Logits and ids of each token that counts, from one window after the other."""
    tokenizer = tokenizer_files.load(model.tokenizer_path)
    ids = np.array(tokenizer.encode(path.read_text()).ids)
    network = jax.device_put(model.load(mesh), jax.devices()[0])
    logits, targets, seen = [], [], 1
    for begin in range(0, len(ids), stride):
        own = ids[begin : begin + context]
        # What follows a token does not change its prediction: one shape, compiled once.
        whole = np.pad(own, (0, context - len(own)))
        found = np.asarray(forward(network, jnp.asarray(whole)[None])[0])
        for t in range(max(seen, begin + 1), begin + len(own)):
            logits.append(found[t - begin - 1])
            targets.append(ids[t])
        seen = begin + len(own)
        if seen == len(ids):
            return np.array(logits), np.array(targets)


def losses(logits, targets):
    share = special.log_softmax(logits.astype(np.float64), axis=1)
    return -share[np.arange(len(targets)), targets]


@pytest.fixture(scope="module")
def ran(tmp_path_factory, mesh):
    """A network and its control on a text: the text, the job and all artefacts."""
    folder = tmp_path_factory.mktemp("ran")
    text = write(folder)
    job = Job(workdir=folder / "work", data_root=None, dataset=None, mesh=mesh, seed=0)
    return text, job, make(config(text, shard_windows=5), job)


def check(artefact, mesh, text):
    """Hold a network's losses against those of each window alone, and against `score_arrays`."""
    model = zoo.find(str(MODELS[artefact.settings["model"]]), None)
    logits, targets = by_hand(model, mesh, text, 24, artefact.settings["stride"])
    own, _ = next_word._losses(artefact)
    np.testing.assert_allclose(own, losses(logits, targets), atol=1e-5)
    tokens = np.load(artefact.path / "tokens.npy")
    np.testing.assert_array_equal(tokens["token_id"], targets)
    found = jaxalign.score_arrays(logits, targets, protocol="wikitext2-nwp")
    assert own.mean() == pytest.approx(found.raw, abs=1e-5)
    return found.raw


@pytest.mark.slow
def test_losses_are_those_of_each_window_alone(ran, mesh):
    text, job, made = ran
    expected = check(made[0], mesh, text)
    scores, _, _ = tables(job)
    assert scores.loss_nats[0] == pytest.approx(expected, abs=1e-5)
    assert scores.perplexity[0] == pytest.approx(np.exp(expected), rel=1e-5)
    own, random = (next_word._losses(x)[0] for x in made[:2])
    assert own.shape == random.shape and abs(own - random).mean() > 0.01
    assert scores[["model", "control_of"]].to_numpy().tolist() == [
        ["llama", ""],
        ["untrained", "llama"],
    ]
    assert set(scores.protocol) == {"wikitext2-nwp-own-reading"}  # windows of 24 tokens
    assert set(scores.context) == {24} and set(scores.stride) == {10}


@pytest.mark.parametrize(
    "windows,is_own",
    [
        ({"context": 1024, "stride": 0}, False),
        ({"context": 4096, "stride": 64}, False),  # all that the model takes, half a window apart
        ({"context": 64, "stride": 0}, True),
        ({"context": 1024, "stride": 128}, True),
    ],
)
def test_other_windows_have_another_name(job, text, windows, is_own):
    """Of the table alone: losses are kept under the same fingerprint."""
    *_, page = next_word.plan(config(text, **windows), job, {})
    assert page.artefact.settings.get("own_reading", []) == ["llama"] * is_own


@pytest.mark.slow
def test_windows_with_nothing_in_common(job, text, mesh):
    settings = config(text, stride=24, untrained_seed=-1)
    check(make_first(settings, job), mesh, text)


@pytest.mark.slow
@pytest.mark.parametrize("name,length", [("llama", 13), ("gpt2", 11)])
def test_losses_are_those_of_torch(mesh, name, length):
    """The logits that transformers and torch computed; see golden/make_decoders.py."""
    expected = np.load(MODELS[name] / "expected.npz")
    tokens, mask = expected[f"tokens_{length}"], expected[f"mask_{length}"]
    pad = lambda x: np.concatenate([x, x[:1].repeat(-len(x) % mesh.shape["data"], axis=0)])
    batch = next_word.Batch(range(len(tokens)), pad(tokens), pad(mask))
    network = zoo.find(str(MODELS[name]), None).load(mesh)
    ((_, found),) = next_word.run(network, iter([batch]), mesh)
    logits = expected[f"logits_{length}"][:, :-1]
    for row in range(len(tokens)):
        counts = mask[row, 1:]
        own = losses(logits[row][counts], tokens[row, 1:][counts])
        np.testing.assert_allclose(-found[row, 1:][counts], own, atol=2e-5)
        assert np.isnan(found[row, 0]) and np.isnan(found[row, 1:][~counts]).all()


def test_tables_are_means_over_tokens_and_blocks(ran):
    text, job, made = ran
    scores, blocks, controls = tables(job)
    size = len(text.read_bytes())
    for row, artefact in zip(scores.itertuples(), made, strict=False):
        loss, num_bytes = next_word._losses(artefact)
        assert num_bytes.sum() == row.num_bytes == size  # <s> comes first: all words count
        assert row.bits_per_byte == pytest.approx(loss.sum() / np.log(2) / size)
        # All blocks but the last have 32 tokens.
        block = np.minimum(np.arange(len(loss)) // 32, len(loss) // 32 - 1)
        own = blocks[(blocks.model == row.model) & (blocks.control_of == row.control_of)]
        means = [loss[block == i].mean() for i in range(block[-1] + 1)]
        assert own.loss_nats.tolist() == pytest.approx(means)
        assert row.num_blocks == len(means)
        left_out = np.array([loss[block != i].mean() for i in range(len(means))])
        half = stats.t.ppf(0.975, len(means) - 1) * np.sqrt(
            (len(means) - 1) * ((left_out - left_out.mean()) ** 2).mean()
        )
        expected = [row.loss_nats - half, row.loss_nats + half]
        assert [row.loss_low, row.loss_high] == pytest.approx(expected)
        ends = [row.perplexity_low, row.perplexity_high]
        assert ends == pytest.approx(np.exp(expected))
    difference = scores.loss_nats[0] - scores.loss_nats[1]
    assert controls.loss_nats[0] == pytest.approx(difference, abs=1e-12)
    assert controls.model.tolist() == ["llama"]
    folder = job.workdir / "next_word"
    page = (folder / "index.html").read_text(encoding="utf-8")
    assert "bits per byte" in page and "wikitext2-nwp" in page and "<svg" not in page
    summary = (folder / "summary.txt").read_text()
    assert f"{scores.loss_nats[0]:.3f}" in summary and "blocks of 32 tokens" in summary
    parquet = pd.read_parquet(folder / "scores.parquet")
    assert parquet.loss_nats.tolist() == pytest.approx(scores.loss_nats.tolist())
    files = json.loads((folder / "done.json").read_text())["files"]
    assert all((folder / name).is_file() for name in files)


@pytest.mark.slow
def test_an_interrupted_run_goes_on(job, text, monkeypatch):
    """What a killed run has written is not computed again, and the end is the same."""
    settings = config(text, shard_windows=3, untrained_seed=-1)
    whole = make_first(settings, dataclasses.replace(job, workdir=job.workdir / "whole"))
    step, _ = next_word.plan(settings, job, {})
    write, written = next_word._write_shard, []

    def killed(artefact, shard, losses):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(shard)
        write(artefact, shard, losses)

    monkeypatch.setattr(next_word, "_write_shard", killed)
    step.artefact.start()
    with pytest.raises(KeyboardInterrupt):
        step.make(step.artefact)
    assert not step.artefact.is_done and len(written) == 2
    files = sorted(step.artefact.path.glob("losses_*"))
    kept = [x.stat().st_mtime_ns for x in files]
    (step.artefact.path / "losses_0000006.npy").write_bytes(files[0].read_bytes()[:-9])
    monkeypatch.setattr(next_word, "_write_shard", write)
    again = make_first(settings, job)
    # Six windows of 24 tokens were there.
    assert again.facts()["num_tokens"] == whole.facts()["num_tokens"] - 6 * 24
    assert [x.stat().st_mtime_ns for x in sorted(again.path.glob("losses_*"))[:2]] == kept
    np.testing.assert_array_equal(next_word._losses(again)[0], next_word._losses(whole)[0])
    assert again.fingerprint == whole.fingerprint
    assert again.facts()["num_predicted"] == len(next_word._losses(again)[0])


@pytest.mark.slow
def test_fingerprints_follow_text_and_windows(job, text):
    plan = lambda **x: next_word.plan(config(text, **x), job, {})[0].artefact.fingerprint
    first = plan()
    assert plan(block_tokens=5) == first  # it is the report that divides into blocks
    assert len({first, plan(stride=9), plan(context=20), plan(compute_dtype="bfloat16")}) == 4
    text.write_text(text.read_text() + "more")
    assert plan() != first


def test_windows_are_half_as_far_apart_as_they_are_long(job, text):
    (artefact, *_) = [x.artefact for x in next_word.plan(config(text, stride=0), job, {})]
    assert (artefact.settings["context"], artefact.settings["stride"]) == (24, 12)
    settings = config(text, models=("gpt2",), context=1024, stride=0)
    (artefact, *_) = [x.artefact for x in next_word.plan(settings, job, {})]
    assert (artefact.settings["context"], artefact.settings["stride"]) == (48, 24)  # it takes 48


def test_models_that_predict_no_token_are_refused(job, text, tmp_path):
    for name in ("bert", "t5_v1_1"):
        with refused("next_word.models must be causal", name, "reads a text from both sides"):
            next_word.plan(config(text, models=(str(tiny.GOLDEN / name),)), job, {})
    with refused("next_word.models must predict tokens", "headless has no head"):
        models = (str(tiny.headless(tmp_path)),)
        next_word.plan(config(text, models=models), job, {})


def test_texts_that_do_not_fit_are_refused(job, text, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text("the dog sat")
    with refused(f"text {short} must fill a window of 24 tokens of llama: it has"):
        next_word.plan(config(short), job, {})
    with refused("next_word.stride must be at most 24, the tokens of a window of llama, got 25"):
        next_word.plan(config(text, stride=25), job, {})
    with refused("must have different names, found 'llama' twice: give one as LABEL="):
        next_word.plan(config(text, models=("llama", f"{MODELS['llama']}/.")), job, {})


def test_weights_that_are_not_finite_are_refused(job, text, tmp_path):
    folder = tmp_path / "spoiled"
    folder.mkdir()
    for path in MODELS["llama"].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    tensors["model.norm.weight"] = np.full_like(tensors["model.norm.weight"], np.nan)
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    with refused("next_word spoiled: losses must be finite, but are not in float32"):
        make_first(config(text, models=(str(folder),)), job)


def test_damaged_losses_are_refused(job, text):
    source = make_first(config(text), job)
    (path,) = source.path.glob("losses_*")
    whole = path.read_bytes()
    path.write_bytes(whole[:50])
    with refused(path, "cannot be read: delete"):
        next_word._losses(source)
    np.save(path, np.zeros(3, np.float32))
    with refused(source.path, "must hold the losses of", "found 3"):
        next_word._losses(source)


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"models": ()}, "next_word.models must name at least one"),
        ({"models": ("a", "a")}, "next_word.models must differ"),
        ({"text": ""}, "next_word.text must name a text"),
        ({"context": 1}, "next_word.context must be >= 2, got 1"),
        ({"stride": -1}, "next_word.stride must be >= 0, got -1"),
        ({"block_tokens": 0}, "next_word.block_tokens must be >= 1"),
        ({"untrained_seed": -2}, "next_word.untrained_seed must be >= -1"),
        ({"batch_tokens": 0}, "next_word.batch_tokens must be >= 1"),
        ({"shard_windows": 0}, "next_word.shard_windows must be >= 1"),
        ({"compute_dtype": "int8"}, "next_word.compute_dtype must be one of float32, bfloat16"),
    ],
)
def test_settings_out_of_range(settings, message):
    with refused(message):
        next_word.Config(**({"models": ("llama",), "text": "x.txt"} | settings))


def call(workdir, argument, *flags):
    arguments = [f"--config={REPOSITORY / 'configs'}/{argument}", f"--workdir={workdir}", *flags]
    return subprocess.run(
        [sys.executable, "-m", "jaxalign.main", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_benchmark_text_lies_below_the_data_folder(tmp_path, text, job):
    folder = tmp_path / "data/wikitext-2-raw-v1"
    folder.mkdir(parents=True)
    rows = pd.DataFrame({"text": ["", *text.read_text().splitlines(keepends=True)]})
    rows.to_parquet(folder / "test-00000-of-00001.parquet")
    argument = f"{MODELS['llama']},wikitext2-nwp"
    packed = runpy.run_path(str(REPOSITORY / "configs/score.py"))["get_config"](argument)
    common, stages = jaxalign_config.unpack(packed)
    assert common.dataset == "" and list(stages) == ["next_word"]
    job = dataclasses.replace(job, data_root=tmp_path / "data")
    own, random, page = next_word.plan(stages["next_word"], job, {})
    settings = own.artefact.settings
    assert (settings["text"], settings["context"], settings["stride"]) == (
        "wikitext2-test",
        128,
        64,
    )
    # A row without text, and the empty line after it.
    content = texts.find("wikitext2-test", job.data_root).content
    assert content == "\n\n" + text.read_text()
    assert random.artefact.settings["untrained_seed"] == 0
    assert page.artefact.path == job.workdir / "next_word"


@pytest.mark.slow
def test_bad_text_is_one_line(tmp_path):
    (tmp_path / "text.txt").write_bytes(b"\xff\xfe")
    result = call(tmp_path / "work", f"next_word.py:{MODELS['llama']},{tmp_path / 'text.txt'}")
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith(f"error: text {tmp_path / 'text.txt'} must be UTF-8: byte 0")
    assert not (tmp_path / "work").exists()


@pytest.mark.slow
def test_stories260k_on_natural_stories(data_root, tmp_path, mesh):
    """A trained network, half its context before each token, against float64 window by window."""
    words = pd.read_csv(
        data_root / "naturalstories/naturalstories_RTS/all_stories.tok",
        sep="\t",
        quoting=3,
        keep_default_na=False,
    )
    stories = [" ".join(own.word) for _, own in words.groupby("item", sort=False)]
    text = tmp_path / "stories.txt"
    text.write_text("\n\n".join(stories[:3]) + "\n", encoding="utf-8")
    result = call(tmp_path / "work", f"next_word.py:stories260K,{text}", f"--data_root={data_root}")
    assert result.returncode == 0, result.stderr
    scores, blocks, controls = (
        pd.read_csv(tmp_path / f"work/next_word/{name}.csv")
        for name in ("scores", "blocks", "controls")
    )
    model = zoo.find("stories260K", data_root)
    logits, targets = by_hand(model, mesh, text, 512, 256)
    found = jaxalign.score_arrays(logits, targets, protocol="wikitext2-nwp")
    assert scores.loss_nats[0] == pytest.approx(found.raw, abs=1e-5)
    nats = losses(logits, targets)
    size = len(text.read_bytes())
    assert scores.bits_per_byte[0] == pytest.approx(nats.sum() / np.log(2) / size, abs=1e-5)
    # It has learned English: far below the network with random weights, which knows nothing.
    assert 2.5 < scores.loss_nats[0] < 3.8
    assert scores.loss_nats[1] == pytest.approx(np.log(512), abs=0.05)
    assert controls.loss_high[0] < -2
    assert len(blocks) == 2 * scores.num_blocks[0]
    tokens = texts.tokenize(tokenizer_files.load(model.tokenizer_path), text.read_text())
    cut = core.windows(len(tokens.ids), context=512, stride=256)
    assert scores.num_tokens[0] == len(cut.predicted) == len(tokens.ids) - 1
