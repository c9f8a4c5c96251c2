"""Make small GGUF files, and what torch computes from them by transformers' own reader.

  pip install torch==2.13.0 'transformers>=5,<6' gguf==0.19.0
  python tests/golden/make_gguf.py

`gguf/` holds NAME.gguf, written with the package gguf as llama.cpp's converter lays it out, and
NAME.npz: tokens [B T], hidden [L+1 B T D], logits [B T V], ids and text of what its tokenizer makes
of a text, and versions. transformers does not read Gemma's layout: there the network is built from
the same numbers, less the 1 that llama.cpp adds to norms.
"""

import json

import gguf
import numpy as np
import torch
import transformers
from gguf import GGMLQuantizationType as Type
from saved import HERE, stack
from tokenizers import pre_tokenizers

FOLDER = HERE / "gguf"
WIDTH, HEADS, KV_HEADS, HEAD, MLP, LAYERS = 32, 4, 2, 8, 64, 2
TEXT = "It cost 1234 dollars,\n  and don't  ask."
PIECES = ["<|end|>", "<|user|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
MERGES = ["Ġ a", "c o", "s t", "co st", "1 2", "3 4", "12 34", "Ġ Ġ", "Ġa n"]
VOCABULARY = [*PIECES, *(x.replace(" ", "") for x in MERGES)]
# Name -> architecture, rule by which text is cut, type of the quantised tensors.
FILES = {
    "llama": ("llama", "smollm", Type.Q4_1),
    "qwen2": ("qwen2", "qwen2", Type.Q8_0),
    "qwen3": ("qwen3", "qwen2", Type.F16),
    "gemma": ("gemma", "gpt-2", Type.F32),
}
QUANTISED = ("attn_q", "attn_k", "ffn_down", "token_embd")


def tensors(architecture: str, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Return random tensors by the names of the file."""
    draw = lambda *shape: rng.normal(0, 0.3, shape).astype(np.float32)
    near_one = lambda n: (1 + draw(n)).astype(np.float32)
    found = {
        "token_embd.weight": draw(len(VOCABULARY), WIDTH),
        "output_norm.weight": near_one(WIDTH),
    }
    if architecture != "gemma":
        found["output.weight"] = draw(len(VOCABULARY), WIDTH)
    for i in range(LAYERS):
        layer = {
            "attn_norm.weight": near_one(WIDTH),
            "ffn_norm.weight": near_one(WIDTH),
            "attn_q.weight": draw(HEADS * HEAD, WIDTH),
            "attn_k.weight": draw(KV_HEADS * HEAD, WIDTH),
            "attn_v.weight": draw(KV_HEADS * HEAD, WIDTH),
            "attn_output.weight": draw(WIDTH, HEADS * HEAD),
            "ffn_gate.weight": draw(MLP, WIDTH),
            "ffn_up.weight": draw(MLP, WIDTH),
            "ffn_down.weight": draw(WIDTH, MLP),
        }
        if architecture == "qwen2":
            layer |= {"attn_q.bias": draw(HEADS * HEAD)}
            layer |= {f"attn_{x}.bias": draw(KV_HEADS * HEAD) for x in "kv"}
        if architecture == "qwen3":
            layer |= {f"attn_{x}_norm.weight": near_one(HEAD) for x in "qk"}
        found |= {f"blk.{i}.{name}": value for name, value in layer.items()}
    return found


def write(name: str, values: dict[str, np.ndarray]) -> None:
    """Write the file."""
    architecture, rule, kind = FILES[name]
    writer = gguf.GGUFWriter(FOLDER / f"{name}.gguf", architecture)
    writer.add_context_length(64)
    writer.add_block_count(LAYERS)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(MLP)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_freq_base(500.0)
    writer.add_rope_dimension_count(HEAD)
    writer.add_key_length(HEAD)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(VOCABULARY))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(rule)
    writer.add_token_list(VOCABULARY)
    writer.add_token_types([3, 3, *[1] * (len(VOCABULARY) - 2)])
    writer.add_token_merges(MERGES)
    writer.add_eos_token_id(0)
    writer.add_pad_token_id(0)
    writer.add_chat_template("{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}")
    for tensor, value in values.items():
        if tensor.split(".")[-2] in QUANTISED and tensor.endswith("weight") and kind != Type.F32:
            writer.add_tensor(tensor, gguf.quantize(value, kind), raw_dtype=kind)
        else:
            writer.add_tensor(tensor, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def gemma(values: dict[str, np.ndarray]) -> torch.nn.Module:
    """Return transformers' Gemma with the numbers of a file."""
    config = transformers.GemmaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=WIDTH,
        intermediate_size=MLP,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KV_HEADS,
        head_dim=HEAD,
        max_position_embeddings=64,
        rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
        hidden_act="gelu_pytorch_tanh",
    )
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    parts = {
        "attn_norm": "input_layernorm",
        "ffn_norm": "post_attention_layernorm",
        **{f"attn_{x}": f"self_attn.{x}_proj" for x in "qkv"},
        "attn_output": "self_attn.o_proj",
        **{f"ffn_{x}": f"mlp.{x}_proj" for x in ("gate", "up", "down")},
    }
    state = {}
    for name, value in values.items():
        whole = {
            "token_embd.weight": "model.embed_tokens.weight",
            "output_norm.weight": "model.norm.weight",
        }
        if name not in whole:
            _, layer, part, kind = name.split(".")
            whole[name] = f"model.layers.{layer}.{parts[part]}.{kind}"
        state[whole[name]] = torch.from_numpy(value - 1 if "norm" in name else value)
    model.load_state_dict(state | {"lm_head.weight": state["model.embed_tokens.weight"]})
    return model


def make(name: str, seed: int) -> None:
    """Write one file, and what torch computes from it."""
    architecture, _, _ = FILES[name]
    rng = np.random.default_rng(seed)
    values = tensors(architecture, rng)
    write(name, values)
    if architecture == "gemma":
        model = gemma(values)
    else:
        # It does not read the size of Qwen 3's heads, which is 128 in all that were published.
        sizes = {"head_dim": HEAD} if architecture == "qwen3" else {}
        model = transformers.AutoModelForCausalLM.from_pretrained(
            FOLDER,
            gguf_file=f"{name}.gguf",
            attn_implementation="eager",
            dtype=torch.float32,
            **sizes,
        )
    tokens = torch.from_numpy(rng.integers(2, len(VOCABULARY), (2, 12)))
    with torch.no_grad():
        output = model.eval()(input_ids=tokens, output_hidden_states=True)
    arrays = {
        "tokens": tokens.numpy().astype(np.int32),
        "hidden": stack(output.hidden_states),
        "logits": output.logits.numpy(),
    }
    versions = {x.__name__: x.__version__ for x in (torch, transformers, np)}
    np.savez_compressed(FOLDER / f"{name}.npz", versions=np.array(json.dumps(versions)), **arrays)


def main() -> None:
    """Make all."""
    FOLDER.mkdir(exist_ok=True)
    for seed, name in enumerate(FILES):
        make(name, 900 + seed)


if __name__ == "__main__":
    main()
