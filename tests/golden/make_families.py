"""Make the smallest checkpoints of families that share a design, and what torch computes from them.

Needs the environment that `make_models.py` names:

  python tests/golden/make_families.py [name ...]

Each folder of `families/` holds `config.json` and `model.safetensors` as `save_pretrained` writes
them, and `expected.npz`:

  tokens, mask [B T]          some rows are padded
  hidden [L+1 B T D]          logits [B T V] of those that predict tokens
  attention, mlp [L B T D]    what each sublayer adds to the residual stream
  shifted [L+1 B T D]         hidden states where positions begin at `SHIFT`, where there are any
  init, versions              as of `make_decoders.py`
"""

import copy
import json
import re
import sys

import numpy as np
import torch
import transformers
from make_decoders import init_statistics, redraw
from saved import HERE, stack

FOLDER = HERE / "families"
NUM_VALID, LENGTH, SHIFT = (7, 11, 3), 11, 5
VOCABULARY = 53
TIED = {"tie_word_embeddings": True}

# No hyperparameter that a reader could forget has its usual value.
BASE = {"vocab_size": VOCABULARY, "initializer_range": 0.03, "pad_token_id": None}
SIZES = BASE | {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 32,
}
MLP = {"intermediate_size": 20}
GPT2_SIZES = BASE | {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32}
ROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}
LLAMA_SIZES = SIZES | MLP | ROPE | {"num_key_value_heads": 2}
FALCON_SIZES = SIZES | {"layer_norm_epsilon": 1e-3, "ffn_hidden_size": 20}
BERT_SIZES = SIZES | MLP | {"layer_norm_eps": 1e-3, "pad_token_id": 1, "type_vocab_size": 3}

# Name of the folder -> (configuration, its settings).
MODELS = {
    "gpt_neo": (
        "GPTNeoConfig",
        BASE
        | {"hidden_size": 16, "num_layers": 2, "num_heads": 4, "max_position_embeddings": 32}
        | {"attention_types": [[["global", "local"], 1]], "window_size": 4}
        | {"intermediate_size": 20, "layer_norm_epsilon": 1e-3},
    ),
    "falcon_7b": ("FalconConfig", FALCON_SIZES | ROPE | TIED),
    "falcon_40b": (
        "FalconConfig",
        FALCON_SIZES | ROPE | {"new_decoder_architecture": True, "num_kv_heads": 2},
    ),
    "falcon_11b": (
        "FalconConfig",
        FALCON_SIZES
        | ROPE
        | {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1}
        | {"tie_word_embeddings": False},
    ),
    # Six heads are no power of two.
    "falcon_rw": (
        "FalconConfig",
        FALCON_SIZES
        | {"hidden_size": 24, "num_attention_heads": 6, "alibi": True, "bias": True}
        | {"multi_query": False, "parallel_attn": False},
    ),
    "mpt": (
        "MptConfig",
        {"vocab_size": VOCABULARY, "d_model": 24, "n_heads": 6, "n_layers": 2, "max_seq_len": 32}
        | {"initializer_range": 0.03, "layer_norm_epsilon": 1e-3}
        | {"attn_config": {"clip_qkv": 1.5, "softmax_scale": 0.7}},
    ),
    "phi": (
        "PhiConfig",
        LLAMA_SIZES
        | {"layer_norm_eps": 1e-3, "qk_layernorm": True, "pad_token_id": 3}
        | {"rope_parameters": ROPE["rope_parameters"] | {"partial_rotary_factor": 0.5}},
    ),
    "openai-gpt": (
        "OpenAIGPTConfig",
        GPT2_SIZES | {"layer_norm_epsilon": 1e-3, "initializer_range": 0.02},
    ),
    "gpt_bigcode": (
        "GPTBigCodeConfig",
        GPT2_SIZES | {"n_inner": 20, "layer_norm_epsilon": 1e-3},
    ),
    "ctrl": ("CTRLConfig", GPT2_SIZES | {"dff": 20}),
    "stablelm": (
        "StableLmConfig",
        LLAMA_SIZES
        | {"layer_norm_eps": 1e-3, "use_qkv_bias": True}
        | {"rope_parameters": ROPE["rope_parameters"] | {"partial_rotary_factor": 0.5}},
    ),
    "stablelm_parallel": (
        "StableLmConfig",
        LLAMA_SIZES
        | {"layer_norm_eps": 1e-3, "use_parallel_residual": True}
        | {"rope_parameters": ROPE["rope_parameters"] | {"partial_rotary_factor": 0.5}},
    ),
    "olmo": ("OlmoConfig", LLAMA_SIZES | TIED | {"clip_qkv": 1.5, "pad_token_id": 1}),
    "olmo2": ("Olmo2Config", LLAMA_SIZES | {"rms_norm_eps": 1e-3, "pad_token_id": 1}),
    "granite": (
        "GraniteConfig",
        LLAMA_SIZES
        | TIED
        | {"rms_norm_eps": 1e-3, "embedding_multiplier": 2.5, "attention_multiplier": 0.3}
        | {"residual_multiplier": 0.7, "logits_scaling": 3.0, "mlp_bias": True},
    ),
    "starcoder2": (
        "Starcoder2Config",
        LLAMA_SIZES | {"norm_epsilon": 1e-3, "sliding_window": 4},
    ),
    "smollm3": (
        "SmolLM3Config",
        LLAMA_SIZES | {"rms_norm_eps": 1e-3, "no_rope_layers": [1, 0], "pad_token_id": 2},
    ),
    "cohere": (
        "CohereConfig",
        LLAMA_SIZES | {"layer_norm_eps": 1e-3, "logit_scale": 0.3, "pad_token_id": 0},
    ),
    "distilbert": (
        "DistilBertConfig",
        BASE
        | {"dim": 16, "n_layers": 2, "n_heads": 4, "hidden_dim": 20, "pad_token_id": 1}
        | {"max_position_embeddings": 32},
    ),
    # Four blocks of which two neighbours share their parameters.
    "albert": (
        "AlbertConfig",
        BERT_SIZES | {"embedding_size": 10, "num_hidden_layers": 4, "num_hidden_groups": 2},
    ),
    "electra": ("ElectraConfig", BERT_SIZES | {"embedding_size": 10}),
    "electra_base": ("ElectraConfig", BERT_SIZES | {"embedding_size": 16}),
    "xlm-roberta": ("XLMRobertaConfig", BERT_SIZES),
    "camembert": ("CamembertConfig", BERT_SIZES),
    "xlm": (
        "XLMConfig",
        {"vocab_size": VOCABULARY, "emb_dim": 16, "n_layers": 2, "n_heads": 4, "n_langs": 2}
        | {"max_position_embeddings": 32, "layer_norm_eps": 1e-3, "embed_init_std": 0.07}
        | {"init_std": 0.03, "sinusoidal_embeddings": True},
    ),
}
HEADLESS = ("distilbert", "albert", "electra", "xlm-roberta", "camembert", "xlm")
WITHOUT_POSITIONS = ("mpt",)

# Modules whose outputs are added to the residual stream, by their names.
BERT_PARTS = (r"layer\.\d+\.attention\.output\.dense", r"layer\.\d+\.output\.dense")
SUBLAYERS = {
    "gpt_neo": (r"h\.\d+\.attn", r"h\.\d+\.mlp"),
    "falcon": ("self_attention", "mlp"),
    "mpt": ("attn", "down_proj"),
    "openai-gpt": (r"h\.\d+\.attn", "mlp"),
    "gpt_bigcode": ("attn", "mlp"),
    "ctrl": ("multi_head_attention", "ffn"),
    "olmo2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "distilbert": ("attention", "ffn"),
    "albert": (r"attention\.dense", "ffn_output"),
    "electra": BERT_PARTS,
    "xlm-roberta": BERT_PARTS,
    "camembert": BERT_PARTS,
    "xlm": (r"attentions\.\d+", r"ffns\.\d+"),
}


def run(model: torch.nn.Module, tokens, mask, **extra):
    """Return hidden states, logits and what each sublayer adds."""
    found = {"attention": [], "mlp": []}
    ends = SUBLAYERS.get(model.config.model_type, ("self_attn", "mlp"))
    scale = getattr(model.config, "residual_multiplier", 1.0)
    first = lambda output: output[0] if isinstance(output, tuple | list) else output
    hooks = []
    for name, module in model.named_modules():
        for tap, end in zip(found, ends, strict=True):
            if re.search(rf"(^|\.){end}$", name):
                # A copy: Falcon adds to it in its place.
                keep = lambda m, i, output, tap=tap: found[tap].append(
                    scale * first(output).reshape(*tokens.shape, -1).numpy().copy()
                )
                hooks.append(module.register_forward_hook(keep))
    with torch.no_grad():
        output = model(
            input_ids=tokens, attention_mask=mask.long(), output_hidden_states=True, **extra
        )
    for hook in hooks:
        hook.remove()
    num_layers = model.config.num_hidden_layers
    assert len(output.hidden_states) == num_layers + 1
    assert all(len(values) == num_layers for values in found.values()), found
    arrays = {tap: np.stack(values) for tap, values in found.items()}
    arrays["hidden"] = stack(output.hidden_states)
    return arrays | ({"logits": output.logits.numpy()} if "logits" in output else {})


def make(name: str, seed: int) -> None:
    """Write one folder."""
    kind, settings = MODELS[name]
    config = getattr(transformers, kind)(**copy.deepcopy(settings))  # which it may change
    predicts = config.model_type not in HEADLESS
    auto = transformers.AutoModelForCausalLM if predicts else transformers.AutoModel
    # The other implementation adds ALiBi to the logits of Falcon's attention twice.
    attention = "sdpa" if name == "falcon_rw" else "eager"
    build = lambda: auto.from_config(config, attn_implementation=attention).float()
    init = np.array(init_statistics(build))
    generator = torch.Generator().manual_seed(seed)
    model = build().eval()
    redraw(model, generator)
    tokens = torch.randint(4, VOCABULARY, (len(NUM_VALID), LENGTH), generator=generator)
    mask = torch.arange(LENGTH)[None] < torch.tensor(NUM_VALID)[:, None]
    arrays = run(model, tokens, mask)
    if predicts and name not in (*WITHOUT_POSITIONS, "falcon_rw"):
        places = SHIFT + torch.arange(LENGTH)[None].expand(len(tokens), -1)
        arrays["shifted"] = run(model, tokens, mask, position_ids=places)["hidden"]
    folder = FOLDER / name
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    (folder / "model.safetensors").chmod(0o644)  # written for the owner alone
    versions = {library.__name__: library.__version__ for library in (torch, transformers, np)}
    np.savez_compressed(
        folder / "expected.npz",
        tokens=tokens.numpy().astype(np.int32),
        mask=mask.numpy(),
        init=init,
        versions=np.array(json.dumps(versions)),
        **arrays,
    )


def main() -> None:
    """Make the folders that are named, or all."""
    for seed, name in enumerate(MODELS):
        if name in (sys.argv[1:] or MODELS):
            make(name, 500 + seed)


if __name__ == "__main__":
    main()
