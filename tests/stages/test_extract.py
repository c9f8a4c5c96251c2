import dataclasses
import functools
import json
import shutil

import jax
import numpy as np
import pytest
import safetensors.numpy
import tiny
from jax.sharding import AxisType
from tiny import GOLDEN, bert, llama, make

from jaxalign.core import mesh as mesh_lib
from jaxalign.data.text import contexts, tokenizer_files
from jaxalign.errors import InputError
from jaxalign.io import store
from jaxalign.models import memory, zoo
from jaxalign.stages import extract


def read_all(artefact):
    opened = store.open_artefact(artefact)
    return np.stack([opened.read_layer(layer) for layer in range(opened.shape[0])])


def separate(model, stimuli, context, **options):
    """Yield the row of each part alone, its own tokens, and the first that is predicted, or 0."""
    passes = contexts.plan(
        tokenizer_files.load(model.tokenizer_path),
        stimuli,
        context,
        max_length=model.config.max_length,
        causal=False,
        **options,
    )
    assert len(passes.rows) == len(stimuli)
    places = zip(passes.row, passes.start, passes.stop, *passes.predicted[1::2], strict=True)
    for row, start, stop, lead, defined in places:
        yield passes.rows[row], start, stop, lead if defined else 0


def run_alone(network, row, **options):
    """Run a row of its own, padded so that rows of most lengths share a program."""
    padding = (0, -len(row) % 64)
    tokens, mask = np.pad(row, padding), np.pad(np.ones(len(row), bool), padding)
    return _run(network, tokens[None], mask[None], **options)


@functools.partial(jax.jit, static_argnames="taps")
def _run(network, tokens, mask, **options):
    return network(tokens, mask, **options)


POOLS = {
    "mean": lambda x: x.mean(axis=1),
    "sum": lambda x: x.sum(axis=1),
    "first": lambda x: x[:, 0],
    "last": lambda x: x[:, -1],
}


@pytest.mark.slow
@pytest.mark.parametrize("context,pooling", [("none", "mean"), ("window:4", "last")])
def test_store_equals_one_row_at_a_time(make_job, timed, context, pooling):
    """Batching, padding and sharding leave no trace in the activations."""
    job = make_job(timed)
    config = bert(context=context, pooling=pooling, untrained_seed=-1)
    (artefact,) = make(extract.plan(config, job, {}))
    found = read_all(artefact)
    model = zoo.find(str(GOLDEN / "bert"), None)
    network = model.load(mesh_lib.make_mesh(-1, 1))
    for i, (row, start, stop, _) in enumerate(separate(model, job.dataset.stimuli, context)):
        if i in (0, 1, 17, len(job.dataset.stimuli) - 1):
            hidden = np.asarray(run_alone(network, row).hidden)[:, 0, start:stop]
            np.testing.assert_allclose(found[:, i], POOLS[pooling](hidden), atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize(
    "context,pooling,tap",
    [
        ("accumulate:restart", "sum", "residual"),
        ("window:5", "mean", "attention"),
        ("accumulate:slide", "last", "residual"),
        ("chunk:3-9", "first", "mlp"),
        ("window:12tokens", "mean", "residual"),
    ],
)
def test_one_pass_equals_a_pass_for_each_part(make_job, sentences, context, pooling, tap):
    """A causal model reads a text once; what it says of each part is what it would say of it."""
    job = make_job(sentences)
    config = llama(context=context, pooling=pooling, tap=tap, surprisal=True)
    (artefact,) = make(extract.plan(config, job, {}))
    found = read_all(artefact)
    opened = store.open_artefact(artefact)
    bits = store.open_vector(artefact.path / store.SURPRISAL, opened).read().result()
    assert opened.attributes.reading["tap"] == tap
    model = zoo.find(str(GOLDEN / "llama"), None)
    network = model.load(mesh_lib.make_mesh(-1, 1))
    passes = artefact.facts()["passes"]
    assert passes["passes"] < len(bits) or context != "accumulate:restart"
    rows = list(separate(model, job.dataset.stimuli, context))
    for i in range(0, len(rows), 7):
        row, start, stop, lead = rows[i]
        output = run_alone(network, row, taps=("residual", tap))
        expected = np.asarray(output.taps[tap])
        if tap != "residual":
            expected = np.concatenate([np.asarray(output.hidden)[:1], expected])
        expected = POOLS[pooling](expected[:, 0, start:stop])
        np.testing.assert_allclose(found[:, i], expected, atol=1e-5 * np.abs(expected).max())
        log_probs = np.asarray(jax.nn.log_softmax(network.logits(output.final[0])))
        if lead == 0:
            assert np.isnan(bits[i])
        else:
            own = [-log_probs[t - 1, row[t]] for t in range(lead, stop)]
            np.testing.assert_allclose(bits[i], np.sum(own) / np.log(2), rtol=1e-4)


@pytest.mark.slow
def test_surprisal_of_parts_adds_up_to_that_of_the_text(make_job, tmp_path):
    """Though four tokens reach into two parts, of which the second has no other."""
    root = tmp_path / "data"
    root.mkdir()
    parts = ["t", "he", "dog", "sat", "o", "n", "a", "mat", "a", "nd", "saw", "re", "d"]
    begins = [1, 0, 1, 1, 1, 0, 1, 1, 1, 0, 1, 1, 0]
    rows = [f"s{i},{x},p,{b}" for i, (x, b) in enumerate(zip(parts, begins, strict=True))]
    header = "stimulus_id,text,passage,space_before"
    (root / "stimuli.csv").write_text("\n".join([header, *rows]))
    header = "stimulus_id,participant,reading_time_ms,word_in_sentence"
    (root / "behavior.csv").write_text(f"{header}\ns0,mean,300,1\n")
    config = llama(context="accumulate", surprisal=True)
    (artefact,) = make(extract.plan(config, make_job(root), {}))
    bits = store.open_vector(artefact.path / store.SURPRISAL, store.open_artefact(artefact))
    bits = bits.read().result()
    counts = artefact.facts()["passes"]
    assert counts["shared_tokens"] == counts["fallbacks"] == 4
    assert [parts[i] for i in np.flatnonzero(np.isnan(bits))] == ["he", "n", "nd", "d"]
    model = zoo.find(str(GOLDEN / "llama"), None)
    row = tokenizer_files.load(model.tokenizer_path).encode("the dog sat on a mat and saw red").ids
    network = model.load(mesh_lib.make_mesh(-1, 1))
    output = run_alone(network, np.array(row))
    log_probs = np.float64(jax.nn.log_softmax(network.logits(output.final[0])))
    own = [-log_probs[t - 1, row[t]] for t in range(1, len(row))]
    np.testing.assert_allclose(np.nansum(bits), np.sum(own) / np.log(2), rtol=1e-6)


@pytest.mark.slow
def test_store_says_what_it_holds(make_job, sentences):
    job = make_job(sentences)
    trained, untrained = make(extract.plan(bert(), job, {}))
    attributes = store.open_artefact(trained).attributes
    assert attributes.model == "bert"
    assert attributes.untrained_seed == -1
    assert attributes.final_norm_applied is False
    assert attributes.stimuli_hash == job.dataset.stimuli.hash
    assert store.open_artefact(untrained).attributes.untrained_seed == 0
    assert store.open_artefact(untrained).attributes.model_hash != attributes.model_hash
    assert store.stimulus_ids(trained) == list(job.dataset.stimuli.stimulus_id)
    assert store.open_artefact(trained).shape == (4, len(job.dataset.stimuli), 32)


@pytest.mark.slow
@pytest.mark.parametrize("dtype,tolerance", [("bfloat16", 2**-8), ("float16", 2**-11)])
def test_narrow_stores_round_once(make_job, sentences, dtype, tolerance):
    job = make_job(sentences)
    (wide,) = make(extract.plan(bert(untrained_seed=-1), job, {}))
    (narrow,) = make(extract.plan(bert(untrained_seed=-1, store_dtype=dtype), job, {}))
    np.testing.assert_allclose(read_all(narrow), read_all(wide), rtol=tolerance, atol=1e-7)


def test_overflow_is_named(make_job, sentences, tmp_path):
    """float16 ends at 65,504; a network whose activations go beyond is not stored as infinity."""
    shutil.copytree(GOLDEN / "bert", tmp_path / "loud")
    path = tmp_path / "loud" / "model.safetensors"
    weights = safetensors.numpy.load_file(path)
    name = next(x for x in weights if x.endswith("layer.2.output.LayerNorm.bias"))
    weights[name] = weights[name] + 1e5
    safetensors.numpy.save_file(weights, path)
    config = dataclasses.replace(
        bert(untrained_seed=-1, store_dtype="float16"), models=(str(tmp_path / "loud"),)
    )
    (step,) = extract.plan(config, make_job(sentences), {})
    step.artefact.start()
    with pytest.raises(
        InputError, match="of layer 3 are not in float16; use .*store_dtype=float32"
    ):
        step.make(step.artefact)


@pytest.mark.slow
def test_bfloat16_network_is_close(make_job, sentences):
    job = make_job(sentences)
    (wide,) = make(extract.plan(bert(untrained_seed=-1), job, {}))
    config = bert(untrained_seed=-1, compute_dtype="bfloat16")
    (narrow,) = make(extract.plan(config, job, {}))
    error = np.abs(read_all(narrow) - read_all(wide)).max()
    assert 0 < error < 0.05 * np.abs(read_all(wide)).max()


@pytest.mark.slow
def test_resumed_equals_uninterrupted(make_job, sentences):
    whole = make(extract.plan(bert(untrained_seed=-1), make_job(sentences), {}))[0]
    (step,) = extract.plan(bert(untrained_seed=-1), make_job(sentences, workdir="killed"), {})
    killed = step.artefact
    killed.start()
    step.make(killed)  # but the done-marker was not written, and two shards are gone
    shards = sorted((killed.path / store.ARRAY / "c/0").glob("*/0"))
    assert len(shards) == 4
    kept = {path: path.stat().st_mtime_ns for path in (shards[0], shards[3])}
    shards[1].unlink()
    shards[2].unlink()
    assert not killed.is_done
    make([step])
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    np.testing.assert_array_equal(read_all(killed), read_all(whole))


@pytest.mark.parametrize(
    "name,context",
    [
        pytest.param("bert", "none", marks=pytest.mark.slow),
        pytest.param("llama", "accumulate:restart", marks=pytest.mark.slow),
        pytest.param("t5_v1_1", "window:3", marks=pytest.mark.slow),
    ],
)
def test_meshes_agree(make_job, sentences, name, context):
    """Two shares of rows and two of weights give one device's store, but for rounding."""
    config = dataclasses.replace(
        bert(untrained_seed=-1, context=context, surprisal=name == "llama"),
        models=(str(GOLDEN / name),),
    )
    one = jax.make_mesh((1, 1), mesh_lib.AXES, (AxisType.Auto,) * 2, devices=jax.devices()[:1])
    jobs = [
        make_job(sentences, workdir=str(mesh.size), mesh=mesh)
        for mesh in (one, mesh_lib.make_mesh(2, 2), mesh_lib.make_mesh(4, 1))
    ]
    alone, *shared = (make(extract.plan(config, job, {}))[0] for job in jobs)
    expected = read_all(alone)
    for artefact in shared:
        np.testing.assert_allclose(
            read_all(artefact), expected, atol=2e-6 * np.abs(expected).max(), rtol=1e-5
        )
        if config.surprisal:
            bits = [
                store.open_vector(x.path / store.SURPRISAL, store.open_artefact(x)).read().result()
                for x in (artefact, alone)
            ]
            np.testing.assert_allclose(*bits, rtol=1e-5)


@pytest.mark.slow
def test_store_of_another_model_is_refused(make_job, sentences):
    """A directory that was copied or renamed by hand is not taken for what its name says."""
    job = make_job(sentences)
    llama = dataclasses.replace(bert(untrained_seed=-1), models=(str(GOLDEN / "llama"),))
    (other,) = make(extract.plan(llama, job, {}))
    (step,) = extract.plan(bert(untrained_seed=-1), job, {})
    shutil.copytree(other.path, step.artefact.path)
    assert not step.artefact.is_done
    step.artefact.start()
    with pytest.raises(InputError, match="must hold activations with fingerprint.*model llama"):
        step.make(step.artefact)


def test_tampered_done_store_is_refused_by_its_reader(make_job, sentences):
    job = make_job(sentences)
    (artefact,) = make(extract.plan(bert(untrained_seed=-1), job, {}))
    metadata = artefact.path / store.ARRAY / "zarr.json"
    content = json.loads(metadata.read_text())
    content["attributes"]["jaxalign"]["fingerprint"] = "0" * 16
    metadata.write_text(json.dumps(content))
    with pytest.raises(InputError, match="must hold bert .* found bert"):
        store.open_artefact(artefact)


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"context": "window:0"}, "extract.context must be none, window:N"),
        ({"pooling": "max"}, "extract.pooling must be one of mean, last, first, sum, mean_all"),
        ({"t5_text": "x"}, "extract.t5_text must be one of both, encoder, decoder"),
        ({"compute_dtype": "float64"}, "extract.compute_dtype must be one of"),
        ({"store_dtype": "int8"}, "extract.store_dtype must be one of"),
        ({"untrained_seed": -2}, "extract.untrained_seed must be >= -1"),
        ({"batch_tokens": 0}, "extract.batch_tokens must be >= 1"),
        ({"shard_stimuli": 0}, "extract.shard_stimuli must be >= 1"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(InputError, match=message):
        bert(**settings)


@pytest.mark.parametrize("models", [(), ("a", "a")])
def test_models_must_be_named_once(models):
    with pytest.raises(InputError, match="extract.models must"):
        extract.Config(models=models)


def test_surprisal_of_a_checkpoint_without_a_head(make_job, sentences, tmp_path):
    """It has states, and predicts nothing."""
    config = extract.Config(models=(str(tiny.headless(tmp_path)),), surprisal=True)
    with pytest.raises(InputError, match="surprisal must be False for headless: .* has no head"):
        extract.plan(config, make_job(sentences), {})
    assert extract.plan(dataclasses.replace(config, surprisal=False), make_job(sentences), {})


def test_two_directories_of_one_name(make_job, sentences, tmp_path):
    shutil.copytree(GOLDEN / "bert", tmp_path / "copy" / "bert")
    models = (str(GOLDEN / "bert"), str(tmp_path / "copy" / "bert"))
    with pytest.raises(InputError, match="different names, found 'bert' twice: give one as LABEL="):
        extract.plan(extract.Config(models=models), make_job(sentences), {})


def test_tokenizer_larger_than_the_model(make_job, sentences, tmp_path):
    shutil.copytree(GOLDEN / "bert", tmp_path / "big")
    path = tmp_path / "big" / "tokenizer.json"
    content = json.loads(path.read_text())
    vocabulary = content["model"]["vocab"]
    vocabulary |= {f"word{i}": len(vocabulary) + i for i in range(1000)}
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="tokenizer and model must share a vocabulary"):
        extract.plan(extract.Config(models=(str(tmp_path / "big"),)), make_job(sentences), {})


@pytest.mark.slow
def test_tokenizer_in_files_of_its_own(make_job, sentences, tmp_path):
    """GPT-2's pair of files is read where there is no `tokenizer.json`, and hashed as a pair."""
    letters = ["Ġ", *(chr(x) for x in range(0x21, 0x7F)), "Ġt", "<|endoftext|>"]
    folders = [tmp_path / x / "llama" for x in ("pair", "json")]
    for folder in folders:
        shutil.copytree(GOLDEN / "llama_tied", folder)
        (folder / "tokenizer.json").unlink()
    pair, single = folders
    (pair / "vocab.json").write_text(json.dumps({x: i for i, x in enumerate(letters)}))
    (pair / "merges.txt").write_text("#version: 0.2\nĠ t\n")
    tokenizer_files.load(pair).save(str(single / "tokenizer.json"))
    config = lambda folder: dataclasses.replace(llama(), models=(str(folder),))
    read = lambda folder: make(
        extract.plan(config(folder), make_job(sentences, workdir=folder.parent.name), {})
    )[0]
    stores = [read(folder) for folder in folders]
    np.testing.assert_array_equal(*map(read_all, stores))
    (pair / "merges.txt").write_text("#version: 0.2\nĠ t\nt h\n")
    with pytest.raises(InputError, match="must be a vocabulary and its merges"):
        read(pair)
    (pair / "merges.txt").write_text("#version: 0.2\n")
    assert read(pair).fingerprint != stores[0].fingerprint


def test_model_without_a_tokenizer(make_job, sentences, tmp_path):
    shutil.copytree(GOLDEN / "bert", tmp_path / "bert")
    (tmp_path / "bert" / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="bert must hold tokenizer.json, .*none is there"):
        extract.plan(
            dataclasses.replace(bert(), models=(str(tmp_path / "bert"),)), make_job(sentences), {}
        )


@pytest.mark.slow
def test_model_too_large_for_memory_is_found_when_planning(make_job, sentences, monkeypatch):
    job = make_job(sentences)
    config = llama()
    make(extract.plan(config, job, {}))
    monkeypatch.setattr(memory, "host_bytes", lambda: 1000)
    extract.plan(config, job, {})  # what is there needs no network
    with pytest.raises(InputError, match="model llama: its parameters must fit in memory"):
        extract.plan(config, make_job(sentences, workdir="other"), {})


def test_part_longer_than_the_model(make_job, tmp_path):
    root = tmp_path / "long"
    root.mkdir()
    text = "dog " * 500
    (root / "stimuli.csv").write_text(f"stimulus_id,text,passage\nx,{text},p\n")
    (root / "responses.npz").write_bytes(b"")
    with pytest.raises(InputError, match="must fit the model's .* tokens: stimulus 'x'"):
        extract.plan(bert(), make_job(root), {})


@pytest.mark.slow
def test_damaged_shard_of_an_unfinished_store_is_written_again(make_job, sentences):
    whole = make(extract.plan(bert(untrained_seed=-1), make_job(sentences), {}))[0]
    (step,) = extract.plan(bert(untrained_seed=-1), make_job(sentences, workdir="b"), {})
    step.artefact.start()
    step.make(step.artefact)
    shards = sorted((step.artefact.path / store.ARRAY / "c/0").glob("*/0"))
    shards[1].write_bytes(shards[1].read_bytes()[:-40])
    make([step])
    np.testing.assert_array_equal(read_all(step.artefact), read_all(whole))


def test_configuration_of_the_same_weights_is_part_of_the_fingerprint(
    make_job, sentences, tmp_path
):
    """Other numbers of heads or another norm leave every tensor as it is."""
    shutil.copytree(GOLDEN / "bert", tmp_path / "model")
    path = tmp_path / "model/config.json"
    config = dataclasses.replace(bert(), models=(str(tmp_path / "model"),))
    before = [s.artefact.fingerprint for s in extract.plan(config, make_job(sentences), {})]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"layer_norm_eps": 0.5}))
    after = [s.artefact.fingerprint for s in extract.plan(config, make_job(sentences), {})]
    assert not set(before) & set(after)


def test_model_called_as_a_control(make_job, sentences, tmp_path):
    shutil.copytree(GOLDEN / "bert", tmp_path / "word_rate")
    config = dataclasses.replace(bert(), models=(str(tmp_path / "word_rate"),))
    with pytest.raises(InputError, match="must not be called as a control is.*'word_rate'"):
        extract.plan(config, make_job(sentences), {})


def test_weights_that_are_no_numbers(make_job, sentences, tmp_path):
    shutil.copytree(GOLDEN / "bert", tmp_path / "model")
    path = tmp_path / "model/model.safetensors"
    weights = safetensors.numpy.load_file(path)
    name = next(x for x in weights if x.endswith("layer.1.output.dense.weight"))
    weights[name][0, 0] = np.nan
    safetensors.numpy.save_file(weights, path)
    config = dataclasses.replace(bert(untrained_seed=-1), models=(str(tmp_path / "model"),))
    (step,) = extract.plan(config, make_job(sentences), {})
    step.artefact.start()
    with pytest.raises(InputError, match="in float32: the weights hold NaN"):
        step.make(step.artefact)
