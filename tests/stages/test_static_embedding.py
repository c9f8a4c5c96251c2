"""The rows of a network's embedding, without position or context."""

import dataclasses

import numpy as np
import pytest
import safetensors.numpy
import tiny

from jaxalign.data.text import tokenizer_files
from jaxalign.io import store
from jaxalign.models import convert, zoo
from jaxalign.stages import encode, extract

TABLES = {
    "bert": "embeddings.word_embeddings.weight",
    "llama": "model.embed_tokens.weight",
    "t5_v1_1": "shared.weight",
    "decoders/gpt2": "wte.weight",
    "decoders/bloom": "word_embeddings.weight",
    "decoders/opt_post": "decoder.embed_tokens.weight",
}


def table_of(name):
    tensors = safetensors.numpy.load_file(tiny.GOLDEN / name / "model.safetensors")
    (found,) = [x for key, x in tensors.items() if key.endswith(TABLES[name])]
    return found


def extraction(name, **settings):
    path = str(tiny.GOLDEN / name)
    return dataclasses.replace(
        tiny.bert(untrained_seed=-1, static_embedding=True, **settings), models=(path,)
    )


def read(artefact):
    return store.open_artefact(artefact).read_layer(0)


@pytest.mark.parametrize("name", TABLES)
def test_rows_of_the_checkpoint(name):
    model = zoo.find(str(tiny.GOLDEN / name), None)
    found = model.word_embedding()
    np.testing.assert_array_equal(found, table_of(name))
    assert found.shape == model.word_embedding_shape


def test_rows_of_a_converted_checkpoint(tmp_path):
    convert.convert(tiny.GOLDEN / "llama", tmp_path / "orbax", output="orbax")
    model = zoo.find(str(tmp_path / "orbax"), None)
    np.testing.assert_array_equal(model.word_embedding(), table_of("llama"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "decoders/gpt2"])
def test_mean_over_the_tokens_of_each_part(make_job, sentences, name):
    job = make_job(sentences)
    _, static = tiny.make(extract.plan(extraction(name), job, {}))
    found = read(static)
    table = table_of(name)
    tokenizer = tokenizer_files.load(tiny.GOLDEN / name / "tokenizer.json")
    for i, text in enumerate(job.dataset.stimuli.text):
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        np.testing.assert_allclose(found[i], table[ids].mean(axis=0), atol=1e-6)
    assert static.settings["num_layers"] == 0 and static.settings["width"] == table.shape[1]


@pytest.mark.slow
def test_layer_0_where_a_design_adds_nothing(make_job, timed):
    """LLaMA's first block receives the rows themselves; context changes neither."""
    stores = tiny.make(extract.plan(extraction("llama", context="window:4"), make_job(timed), {}))
    np.testing.assert_allclose(read(stores[1]), read(stores[0]), atol=1e-6)


@pytest.mark.slow
def test_position_plays_no_part(make_job, timed):
    """A word that comes again has the same rows, where layer 0 of BERT has another."""
    job = make_job(timed)
    alone, static = tiny.make(extract.plan(extraction("bert", context="window:4"), job, {}))
    text = np.array(job.dataset.stimuli.text)
    dogs = np.flatnonzero(text == "dog")
    found = read(static)[dogs]
    np.testing.assert_array_equal(found, np.repeat(found[:1], len(dogs), axis=0))
    layer_0 = read(alone)[dogs]
    assert np.abs(layer_0 - layer_0[:1]).max() > 1e-3


def test_it_is_a_store_of_its_own(make_job, sentences):
    """Asking for it leaves the other stores, and encode's steps, as they are."""
    job = make_job(sentences)
    config = extraction("bert")
    before = extract.plan(dataclasses.replace(config, static_embedding=False), job, {})
    both = extract.plan(config, job, {})
    assert [s.artefact.name for s in both] == ["bert", "bert static"]
    assert both[0].artefact.fingerprint == before[0].artefact.fingerprint
    scored = encode.Config(num_folds=4, groups="passage", controls=())
    plan = lambda steps: [
        s.artefact.fingerprint
        for s in encode.plan(scored, job, {"extract": [s.artefact for s in steps]})
    ]
    assert plan(both) == plan(before)


def test_resumed_store_is_the_same(make_job, sentences):
    job = make_job(sentences)
    _, step = extract.plan(extraction("bert", shard_stimuli=16), job, {})
    (artefact,) = tiny.make([step])
    first = read(artefact)
    (artefact.path / "done.json").unlink()
    next((artefact.path / store.ARRAY / "c/0").glob("1/0")).unlink()
    tiny.make([step])
    np.testing.assert_array_equal(read(artefact), first)
