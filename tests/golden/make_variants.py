"""Make smaller checkpoints of rarer variants of the families, and what torch computes from them.

Needs the environment that `make_models.py` names:

  python tests/golden/make_variants.py [name ...]

Each folder of `variants/` holds `config.json` and `model.safetensors` as `save_pretrained` writes
them, and `expected.npz`: tokens [B T], hidden [L+1 B T D], logits [B T V] where the network
predicts tokens, and versions. There is no tokenizer and no padding.
"""

import json
import sys

import numpy as np
import torch
import transformers
from make_decoders import redraw
from saved import HERE, stack

FOLDER = HERE / "variants"
VOCABULARY = 29
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 20,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 32,
    "pad_token_id": 0,
}
MLP = {"intermediate_size": 14}
YARN = {
    "rope_type": "yarn",
    "rope_theta": 500.0,
    "factor": 4.0,
    "original_max_position_embeddings": 12,
    "beta_fast": 3.0,
}
ODD = {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.34}

# Name of the folder -> (configuration, its settings).
MODELS = {
    "llama": (
        "LlamaConfig",
        SIZES
        | MLP
        | {"attention_bias": True, "mlp_bias": True, "hidden_act": "quick_gelu"}
        | {"rope_parameters": YARN},
    ),
    "ministral": (
        "MinistralConfig",
        SIZES
        | MLP
        | {"num_key_value_heads": 1, "head_dim": 10, "sliding_window": 5, "hidden_act": "mish"}
        | {"layer_types": ["full_attention", "sliding_attention"]},
    ),
    "gemma": (
        "GemmaConfig",
        SIZES
        | MLP
        | {"num_key_value_heads": 1, "head_dim": 6, "attention_bias": True, "hidden_act": "relu6"},
    ),
    "gpt2": (
        "GPT2Config",
        SIZES
        | {"scale_attn_weights": False, "scale_attn_by_inverse_layer_idx": True}
        | {"activation_function": "relu2"},
    ),
    "opt": (
        "OPTConfig",
        SIZES
        | {"ffn_dim": 14, "enable_bias": False, "layer_norm_elementwise_affine": False}
        | {"activation_function": "laplace"},
    ),
    "bloom": (
        "BloomConfig",
        {"vocab_size": VOCABULARY, "hidden_size": 20, "n_layer": 2, "n_head": 2}
        | {"apply_residual_connection_post_layernorm": True},
    ),
    "gptj": (
        "GPTJConfig",
        SIZES | {"rotary_dim": 4, "tie_word_embeddings": True, "activation_function": "hardswish"},
    ),
    "neox": (
        "GPTNeoXConfig",
        SIZES | MLP | {"attention_bias": False, "rope_parameters": ODD, "hidden_act": "gelu_10"},
    ),
    "bert": ("BertConfig", SIZES | MLP | {"hidden_act": "leaky_relu"}),
    "t5": (
        "T5Config",
        {"vocab_size": VOCABULARY, "d_model": 20, "d_kv": 6, "d_ff": 14, "num_layers": 2}
        | {"num_heads": 2, "feed_forward_proj": "gated-silu", "tie_word_embeddings": False},
    ),
}
CLASSES = {"bert": "AutoModel", "t5": "AutoModelForSeq2SeqLM"}


def make(name: str, seed: int) -> None:
    """Write one folder."""
    kind, settings = MODELS[name]
    config = getattr(transformers, kind)(**settings)
    auto = getattr(transformers, CLASSES.get(name, "AutoModelForCausalLM"))
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model = auto.from_config(config, attn_implementation="eager").float().eval()
    redraw(model, generator)
    tokens = torch.randint(1, VOCABULARY, (2, 14), generator=generator)
    with torch.no_grad():
        if name == "t5":
            behind = torch.cat([torch.zeros_like(tokens[:, :1]), tokens], dim=1)
            output = model(input_ids=tokens, decoder_input_ids=behind, output_hidden_states=True)
            decoder = [layer[:, 1:] for layer in output.decoder_hidden_states[1:]]
            hidden = [*output.encoder_hidden_states, *decoder]
        else:
            output = model(input_ids=tokens, output_hidden_states=True)
            hidden = output.hidden_states
    arrays = {"tokens": tokens.numpy().astype(np.int32), "hidden": stack(hidden)}
    if "logits" in output:
        arrays["logits"] = output.logits[:, -tokens.shape[1] :].numpy()
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "model.safetensors").chmod(0o644)  # written for the owner alone
    if name == "ministral":  # as it is published
        file = folder / "config.json"
        file.write_text(file.read_text().replace('"ministral"', '"mistral"'))
    versions = {library.__name__: library.__version__ for library in (torch, transformers, np)}
    np.savez_compressed(folder / "expected.npz", versions=np.array(json.dumps(versions)), **arrays)


def main() -> None:
    """Make the folders that are named, or all."""
    for seed, name in enumerate(MODELS):
        if name in (sys.argv[1:] or MODELS):
            make(name, 300 + seed)


if __name__ == "__main__":
    main()
