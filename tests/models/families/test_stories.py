"""llama2.c files: the published text of stories260K, and a float64 NumPy pass over its file."""

import pathlib
import re

import jax
import jax.numpy as jnp
import networks
import numpy as np
import pytest
import safetensors.numpy
import scipy.special

from jaxalign.data.text import tokenizer_files
from jaxalign.io.checkpoint import Llama2c
from jaxalign.models import generate, zoo
from jaxalign.models.families import layers, llama


def read_llama2c(path: pathlib.Path) -> dict:
    """Read a version 0 file part by part, as its `run.c` maps it."""
    keys = ("dim", "hidden_dim", "n_layers", "n_heads", "n_kv_heads", "vocab_size", "seq_len")
    with open(path, "rb") as file:
        take = lambda *shape: np.frombuffer(file.read(4 * int(np.prod(shape))), np.float32).reshape(
            shape
        )
        file_header = np.frombuffer(file.read(28), np.int32)
        c = dict(zip(keys, map(int, file_header), strict=True))
        L, D, F, V = c["n_layers"], c["dim"], c["hidden_dim"], abs(c["vocab_size"])
        kv = D * c["n_kv_heads"] // c["n_heads"]
        parts = {
            "tok": (V, D),
            "att_norm": (L, D),
            "wq": (L, D, D),
            "wk": (L, kv, D),
            "wv": (L, kv, D),
            "wo": (L, D, D),
            "ffn_norm": (L, D),
            "w1": (L, F, D),
            "w2": (L, D, F),
            "w3": (L, F, D),
            "norm": (D,),
        }
        for name, shape in parts.items():
            c[name] = take(*shape).astype(np.float64)
        file.seek(4 * c["seq_len"] * D // c["n_heads"], 1)  # tables of cosines and sines
        c["head"] = c["tok"] if c["vocab_size"] > 0 else take(V, D).astype(np.float64)
        assert not file.read()
    return c


def numpy_forward(c: dict, ids) -> tuple[np.ndarray, np.ndarray]:
    """Return hidden states [L+1 T D], the last one normed, and logits [T V]."""
    T, D, N, K = len(ids), c["dim"], c["n_heads"], c["n_kv_heads"]
    H = D // N

    def norm(x, scale):
        return scale * x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5)

    def rotate(x):
        """Turn neighbours (2i, 2i + 1), written as complex numbers."""
        turns = np.arange(T)[:, None] / 10_000.0 ** (np.arange(0, H, 2) / H)[None]
        z = (x[..., 0::2] + 1j * x[..., 1::2]) * np.exp(1j * turns)[:, None]
        return np.stack([z.real, z.imag], axis=-1).reshape(x.shape)

    x = c["tok"][ids]
    states = [x]
    for i in range(c["n_layers"]):
        y = norm(x, c["att_norm"][i])
        q = rotate((y @ c["wq"][i].T).reshape(T, N, H))
        k = rotate((y @ c["wk"][i].T).reshape(T, K, H))
        v = (y @ c["wv"][i].T).reshape(T, K, H)
        heads = []
        for n in range(N):
            shared = n * K // N
            logits = q[:, n] @ k[:, shared].T / np.sqrt(H)
            logits[np.triu_indices(T, 1)] = -np.inf
            heads.append(scipy.special.softmax(logits, axis=-1) @ v[:, shared])
        x = x + np.concatenate(heads, axis=-1) @ c["wo"][i].T
        y = norm(x, c["ffn_norm"][i])
        gate = y @ c["w1"][i].T
        x = x + (gate * scipy.special.expit(gate) * (y @ c["w3"][i].T)) @ c["w2"][i].T
        states.append(x)
    states[-1] = norm(x, c["norm"])
    return np.stack(states), states[-1] @ c["head"].T


@pytest.fixture(scope="module")
def folder(data_root):
    if not (data_root / "stories260K").is_dir():
        pytest.skip("the data folder holds no stories260K")
    return data_root / "stories260K"


@pytest.fixture(scope="module")
def network(folder, mesh):
    # On one device: those of a mesh would each tell the whole story.
    loaded = zoo.find("stories260K", folder.parent).load(mesh)
    return jax.device_put(loaded, jax.devices()[0])


@pytest.fixture(scope="module")
def story(network):
    """The prompt, token 1, and 256 tokens after it."""
    found = generate.greedy(network, jnp.array([[1]]), jnp.ones((1, 1), bool), generate.Ending(256))
    assert found.lengths.tolist() == [256]
    return np.concatenate([[1], found.tokens[0]])


def test_greedy_tells_the_published_story(folder, story):
    page = (folder / "doc" / "stories260K.md").read_text(encoding="utf-8")
    published = re.search(r"-t 0\.0\n(.*?)\n```", page, re.DOTALL)[1]
    assert len(published.splitlines()) == 4 and len(story) == 257
    tokenizer = tokenizer_files.load(folder / "tok512.bin")
    assert tokenizer.decode(story.tolist()) == published


def test_every_layer_matches_float64(folder, network, story):
    """On the story itself, 80 tokens long."""
    ids = story[:80]

    output = networks.forward(network, ids[None], np.ones((1, 80), bool))
    hidden, logits = output.hidden[:, 0], output.logits[0]
    expected_hidden, expected_logits = numpy_forward(read_llama2c(folder / "stories260K.bin"), ids)
    assert hidden.shape == expected_hidden.shape == (6, 80, 64)
    scale = np.abs(expected_hidden).max(axis=(1, 2))
    difference = np.abs(np.asarray(hidden) - expected_hidden).max(axis=(1, 2))
    np.testing.assert_array_less(difference, 2e-5 * scale)
    np.testing.assert_allclose(
        logits, expected_logits, rtol=0, atol=2e-5 * np.abs(expected_logits).max()
    )
    # The same pass, run by hand, would have told the same story.
    np.testing.assert_array_equal(expected_logits.argmax(axis=-1)[:-1], ids[1:])


def write_llama2c(path, tensors, *, config, seq_len, tied):
    """Write a Hugging Face LLaMA as a llama2.c file; heads are its width divided evenly."""
    L, D = config.num_layers, config.width
    vocab = config.vocab_size if tied else -config.vocab_size
    header = (D, config.mlp_size, L, config.num_heads, config.num_kv_heads, vocab, seq_len)

    def interleave(w):
        """Put entry i and entry i + H/2 of each head beside each other."""
        halves = w.reshape(-1, 2, config.head_size // 2, D)
        return np.stack([halves[:, 0], halves[:, 1]], axis=2).reshape(w.shape)

    layers = lambda name: [tensors[f"model.layers.{i}.{name}.weight"] for i in range(L)]
    parts = [
        tensors["model.embed_tokens.weight"],
        *layers("input_layernorm"),
        *map(interleave, layers("self_attn.q_proj")),
        *map(interleave, layers("self_attn.k_proj")),
        *layers("self_attn.v_proj"),
        *layers("self_attn.o_proj"),
        *layers("post_attention_layernorm"),
        *layers("mlp.gate_proj"),
        *layers("mlp.down_proj"),
        *layers("mlp.up_proj"),
        tensors["model.norm.weight"],
        np.zeros((2, seq_len, config.head_size // 2), np.float32),
    ]
    if not tied:
        parts.append(tensors["lm_head.weight"])
    path.write_bytes(
        np.array(header, np.int32).tobytes() + b"".join(part.tobytes() for part in parts)
    )


@pytest.mark.parametrize("tied", [True, False])
def test_llama2c_file_holds_what_its_hugging_face_twin_holds(tmp_path, golden, tied):
    config = zoo.find(str(golden / "llama"), None).config
    tensors = safetensors.numpy.load_file(golden / "llama" / "model.safetensors")
    path = tmp_path / "tiny.bin"
    write_llama2c(path, tensors, config=config, seq_len=20, tied=tied)
    checkpoint = Llama2c(path)
    assert checkpoint.header.seq_len == 20
    expected = tensors.keys() - ({"lm_head.weight"} if tied else set())
    assert checkpoint.shapes().keys() == expected
    for name in expected:
        assert checkpoint.shapes()[name] == tensors[name].shape
        part = (slice(1, 7),) + (slice(2, 30),) * (tensors[name].ndim - 1)
        np.testing.assert_array_equal(checkpoint.read(name, part), tensors[name][part])


def test_header_becomes_a_configuration(tmp_path, golden):
    config = zoo.find(str(golden / "llama"), None).config
    tensors = safetensors.numpy.load_file(golden / "llama" / "model.safetensors")
    path = tmp_path / "tiny.bin"
    write_llama2c(path, tensors, config=config, seq_len=20, tied=False)
    found = llama.config_from_llama2c(Llama2c(path).header)
    assert (found.vocab_size, found.num_layers, found.width) == (127, 3, 32)
    assert (found.num_heads, found.num_kv_heads, found.head_size) == (4, 2, 8)
    assert (found.mlp_size, found.max_length, found.tied_embeddings) == (48, 20, False)
    assert (found.rope, found.norm_eps) == (layers.Rope(size=8), 1e-5)
