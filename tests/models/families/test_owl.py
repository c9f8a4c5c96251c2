"""mPLUG-Owl against NumPy: its tower, abstractor, LLaMA and greedy answers, in float64.

The authors' code needs an old transformers. This oracle is written from its order of computation
(X-PLUG/mPLUG-Owl, `modeling_mplug_owl.py`) and shares nothing with the networks that are tested.
"""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from jaxalign.errors import InputError
from jaxalign.models import answers, generate, zoo

D, HEADS, F, PATCH, SIDE = 12, 2, 20, 4, 12
LATENTS, DEPTH = 4, 2
E, TEXT_HEADS, TEXT_F, VOCABULARY = 16, 2, 18, 40
CONFIG = {
    "model_type": "mplug-owl",
    "num_query_tokens": LATENTS,
    "vision_config": {
        "model_type": "mplug_owl_vision_model",
        "hidden_size": D,
        "num_attention_heads": HEADS,
        "num_hidden_layers": 3,
        "intermediate_size": F,
        "image_size": SIDE,
        "patch_size": PATCH,
        "layer_norm_eps": 1e-3,
        "use_flash_attn": False,
    },
    "visual_abstractor_config": {
        "hidden_size": D,
        "encoder_hidden_size": D,
        "num_attention_heads": 3,
        "num_hidden_layers": DEPTH,
        "intermediate_size": 10,
        "layer_norm_eps": 1e-3,
    },
    "text_config": {
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": E,
        "num_hidden_layers": 2,
        "num_attention_heads": TEXT_HEADS,
        "intermediate_size": TEXT_F,
        "max_position_embeddings": 40,
        "rms_norm_eps": 1e-3,
    },
}


def draw_tensors(rng):
    """Draw every tensor under its published name."""
    found = {}

    def put(name, *shape, near=0.0, sd=None):
        sd = (0.3 if len(shape) == 1 else 1.2 / np.sqrt(shape[-1])) if sd is None else sd
        found[name] = (near + sd * rng.standard_normal(shape)).astype(np.float32)

    def linear(name, inputs, outputs, bias=True):
        put(f"{name}.weight", outputs, inputs)
        if bias:
            put(f"{name}.bias", outputs)

    def norm(name, size, bias=True):
        put(f"{name}.weight", size, near=1.0)
        if bias:
            put(f"{name}.bias", size)

    inside = "vision_model.embeddings."
    put(f"{inside}cls_token", 1, 1, D, sd=1)
    put(f"{inside}patch_embed.weight", D, 3, PATCH, PATCH, sd=0.15)
    put(f"{inside}position_embedding", 1, (SIDE // PATCH) ** 2 + 1, D, sd=1)
    norm(f"{inside}pre_layernorm", D)
    norm("vision_model.post_layernorm", D)
    for i in range(3):
        layer = f"vision_model.encoder.layers.{i}."
        norm(f"{layer}input_layernorm", D)
        norm(f"{layer}post_attention_layernorm", D)
        linear(f"{layer}self_attn.query_key_value", D, 3 * D)
        linear(f"{layer}self_attn.dense", D, D)
        linear(f"{layer}mlp.fc1", D, F)
        linear(f"{layer}mlp.fc2", F, D)
    put("query_tokens", 1, LATENTS, D, sd=1)
    put("abstractor.vit_eos", 1, 1, E, sd=1)
    linear("abstractor.visual_fc", D, E)
    for i in range(DEPTH):
        layer = f"abstractor.encoder.layers.{i}.crossattention."
        for name in ("norm1", "normk", "output.norm2"):
            norm(layer + name, D)
        for name in ("attention.query", "attention.key", "attention.value", "output.out_proj"):
            linear(layer + name, D, D)
        linear(f"{layer}output.mlp.w1", D, 10)
        linear(f"{layer}output.mlp.w3", D, 10)
        linear(f"{layer}output.mlp.w2", 10, D)
        norm(f"{layer}output.mlp.ffn_ln", 10)
    put("language_model.model.embed_tokens.weight", VOCABULARY, E, sd=1)
    linear("language_model.lm_head", E, VOCABULARY, bias=False)
    norm("language_model.model.norm", E, bias=False)
    for i in range(2):
        layer = f"language_model.model.layers.{i}."
        norm(f"{layer}input_layernorm", E, bias=False)
        norm(f"{layer}post_attention_layernorm", E, bias=False)
        for name in "qkvo":
            linear(f"{layer}self_attn.{name}_proj", E, E, bias=False)
        linear(f"{layer}mlp.gate_proj", E, TEXT_F, bias=False)
        linear(f"{layer}mlp.up_proj", E, TEXT_F, bias=False)
        linear(f"{layer}mlp.down_proj", TEXT_F, E, bias=False)
    return found


class Oracle:
    """One image at a time, token by token where that is simplest."""

    def __init__(self, tensors):
        self.w = {name: x.astype(np.float64) for name, x in tensors.items()}

    def linear(self, name, x):
        y = x @ self.w[f"{name}.weight"].T
        return y + self.w[f"{name}.bias"] if f"{name}.bias" in self.w else y

    def norm(self, name, x, eps):
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + eps)
        return x * self.w[f"{name}.weight"] + self.w[f"{name}.bias"]

    def rms(self, name, x):
        return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-3) * self.w[f"{name}.weight"]

    @staticmethod
    def attend(q, k, v, mask=None):
        """Attend with one head, [T H]."""
        logits = q @ k.T / np.sqrt(q.shape[1])
        if mask is not None:
            logits = np.where(mask, logits, -np.inf)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        return shares / shares.sum(axis=1, keepdims=True) @ v

    def see(self, image):
        """Return all states of the tower, the last normed one, and the image's vectors."""
        inside, kernel = (
            "vision_model.embeddings.",
            self.w["vision_model.embeddings.patch_embed.weight"],
        )
        n = SIDE // PATCH
        patches = [
            (kernel * image[:, r * PATCH : (r + 1) * PATCH, c * PATCH : (c + 1) * PATCH]).sum(
                axis=(1, 2, 3)
            )
            for r in range(n)
            for c in range(n)
        ]
        x = np.concatenate([self.w[f"{inside}cls_token"][0], patches])
        x = self.norm(f"{inside}pre_layernorm", x + self.w[f"{inside}position_embedding"][0], 1e-3)
        states = [x]
        for i in range(3):
            layer = f"vision_model.encoder.layers.{i}."
            mixed = self.linear(
                f"{layer}self_attn.query_key_value",
                self.norm(f"{layer}input_layernorm", x, 1e-3),
            ).reshape(len(x), HEADS, 3, D // HEADS)
            heads = [self.attend(*(mixed[:, h, part] for part in range(3))) for h in range(HEADS)]
            x = x + self.linear(f"{layer}self_attn.dense", np.concatenate(heads, axis=1))
            y = self.linear(
                f"{layer}mlp.fc1", self.norm(f"{layer}post_attention_layernorm", x, 1e-3)
            )
            x = x + self.linear(f"{layer}mlp.fc2", y / (1 + np.exp(-1.702 * y)))
            states.append(x)
        last = self.norm("vision_model.post_layernorm", x, 1e-3)
        return np.stack(states), self.abstract(last)

    def abstract(self, image):
        x = self.w["query_tokens"][0]
        for i in range(DEPTH):
            layer = f"abstractor.encoder.layers.{i}.crossattention."
            n = self.norm(f"{layer}norm1", x, 1e-5)
            both = np.concatenate([n, self.norm(f"{layer}normk", image, 1e-5)])
            q, k, v = (
                self.linear(f"{layer}attention.{name}", part).reshape(len(part), 3, D // 3)
                for name, part in (("query", n), ("key", both), ("value", both))
            )
            heads = [self.attend(q[:, h], k[:, h], v[:, h]) for h in range(3)]
            y = n + self.linear(f"{layer}output.out_proj", np.concatenate(heads, axis=1))
            m = self.norm(f"{layer}output.norm2", y, 1e-5)
            gate = self.linear(f"{layer}output.mlp.w1", m)
            inner = gate / (1 + np.exp(-gate)) * self.linear(f"{layer}output.mlp.w3", m)
            inner = self.norm(f"{layer}output.mlp.ffn_ln", inner, 1e-3)
            x = y + self.linear(f"{layer}output.mlp.w2", inner)
        return np.concatenate(
            [self.linear("abstractor.visual_fc", x), self.w["abstractor.vit_eos"][0]]
        )

    def rotate(self, x):
        """Turn pairs (i, i + half) of each token's head, [T H]."""
        half = x.shape[1] // 2
        angle = np.arange(len(x))[:, None] * 10_000.0 ** (-np.arange(half) / half)
        a, b = x[:, :half], x[:, half:]
        cos, sin = np.cos(angle), np.sin(angle)
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=1)

    def read(self, vectors):
        """Return all states of LLaMA [L+1 T E] and its logits."""
        x, size = vectors, E // TEXT_HEADS
        states, causal = [x], np.tril(np.ones((len(x), len(x)), bool))
        for i in range(2):
            layer = f"language_model.model.layers.{i}."
            n = self.rms(f"{layer}input_layernorm", x)
            q, k, v = (
                self.linear(f"{layer}self_attn.{name}_proj", n).reshape(len(x), TEXT_HEADS, size)
                for name in "qkv"
            )
            heads = [
                self.attend(self.rotate(q[:, h]), self.rotate(k[:, h]), v[:, h], causal)
                for h in range(TEXT_HEADS)
            ]
            x = x + self.linear(f"{layer}self_attn.o_proj", np.concatenate(heads, axis=1))
            n = self.rms(f"{layer}post_attention_layernorm", x)
            gate = self.linear(f"{layer}mlp.gate_proj", n)
            inner = gate / (1 + np.exp(-gate)) * self.linear(f"{layer}mlp.up_proj", n)
            x = x + self.linear(f"{layer}mlp.down_proj", inner)
            states.append(x)
        states[-1] = self.rms("language_model.model.norm", x)
        return np.stack(states), self.linear("language_model.lm_head", states[-1])

    def embed(self, tokens, image):
        """Return the vectors of a row; -1 stands for the image's."""
        words, found = iter(image), []
        for token in tokens:
            row = self.w["language_model.model.embed_tokens.weight"][token]
            found.append(next(words) if token < 0 else row)
        return np.stack(found)


def close(found, expected):
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max(), rtol=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("owl")
    tensors = draw_tensors(np.random.default_rng(5))
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


@pytest.mark.slow
def test_all_parts_and_answers_are_the_oracles(folder, mesh):
    model = zoo.find(str(folder), None)
    network = jax.device_put(model.load(mesh), jax.devices()[0])
    oracle = Oracle(safetensors.numpy.load_file(folder / "model.safetensors"))
    rng = np.random.default_rng(6)
    pixels = rng.standard_normal((2, 3, SIDE, SIDE)).astype(np.float32)
    image = [-1] * (LATENTS + 1)
    rows = [[1, 7, *image, 9, 12], [1, 7, *image, 30, 4, 5, 21]]
    mask = np.arange(11)[None] < np.array([len(row) for row in rows])[:, None]
    tokens = np.zeros(mask.shape, np.int32)
    tokens[mask] = sum(rows, [])
    asked = answers.Prompts(tokens, mask)
    poolings = ("generated", "prompt_mean", "prompt_last", "image_tokens", "all", "vision")
    assert answers.num_shared(model.config, asked) == 2 + len(image)
    found = answers.answer(network, jnp.asarray(pixels), asked, poolings, generate.Ending(20))
    for b in range(2):
        vision, vectors = oracle.see(pixels[b].astype(np.float64))
        close(found.features["vision"][:, b], vision.mean(axis=1))
        for q, row in enumerate(rows):
            prompt = list(row)
            for step in range(20):
                states, logits = oracle.read(oracle.embed(prompt, vectors))
                assert found.tokens[b, q, step] == logits[-1].argmax()
                prompt.append(int(logits[-1].argmax()))
            pooled = {
                "generated": states[:, len(row) :].mean(axis=1),
                "prompt_mean": states[:, : len(row)].mean(axis=1),
                "prompt_last": states[:, len(row) - 1],
                "image_tokens": states[:, 2 : 2 + len(image)].mean(axis=1),
                "all": states.mean(axis=1),
            }
            for pooling, values in pooled.items():
                close(found.features[pooling][:, b, q], values)


@pytest.mark.parametrize(
    ("part", "changes", "message"),
    [
        (
            "visual_abstractor_config",
            {"hidden_size": 15},
            "must have the width of the vision tower",
        ),
        ("visual_abstractor_config", {"depth": 3}, "keys that are known of the visual abstractor"),
        ("vision_config", {"hidden_act": "gelu"}, "hidden_act must be 'quick_gelu', found 'gelu'"),
        ("vision_config", {"model_type": "resnet"}, "vision_config.model_type must be one of"),
        ("text_config", {"model_type": "rwkv"}, "text_config.model_type must be one of"),
    ],
)
def test_other_configurations_are_refused(part, changes, message):
    config = CONFIG | {part: CONFIG[part] | changes}
    with pytest.raises(InputError, match=message):
        zoo.configure(config, source="config.json")
