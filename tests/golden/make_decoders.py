"""Make a tiny Hugging Face checkpoint of every causal family, and what torch computes from it.

Needs the environment that `make_models.py` names:

  python tests/golden/make_decoders.py [name ...]

Each folder of `decoders/` holds `config.json` and `model.safetensors` as `save_pretrained` writes
them, a small `tokenizer.json`, and `expected.npz`:

  tokens_T, mask_T, hidden_T [L+1 B T D], logits_T [B T V]   for two lengths T
  attention, mlp [L B T D]    what each sublayer adds to the residual stream, for the longer T
  shifted [L+1 B T D]         hidden states of the longer T where positions begin at `SHIFT`
  prompts, prompt_mask, greedy [B N]   and what `generate` adds to each prompt alone
  init                        JSON: stored tensor -> [mean, deviation, number of rows that are zero]
                              of a freshly drawn network
  versions                    JSON
"""

import json
import pathlib
import sys
import tempfile

import numpy as np
import safetensors.torch
import torch
import transformers
from saved import HERE, Arrays, batches, make_tokenizer, save, stack
from transformers.pytorch_utils import Conv1D

FOLDER = HERE / "decoders"
NUM_VALID = {5: (5, 1, 3), 11: (7, 11, 2)}  # tokens that count in each row
SHIFT = 9
PROMPT_LENGTHS = (4, 7, 2)
NUM_NEW = 8
VOCABULARY = 101  # does not divide by two devices
LAYERS = 3

# No hyperparameter that a reader could forget has its usual value.
BASE = {"vocab_size": VOCABULARY, "initializer_range": 0.03, "pad_token_id": None}
GPT2_SIZES = BASE | {"n_embd": 24, "n_layer": LAYERS, "n_head": 4, "n_positions": 48}
SIZES = BASE | {
    "hidden_size": 24,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 48,
}
LLAMA_SIZES = SIZES | {"num_key_value_heads": 2, "intermediate_size": 36, "rms_norm_eps": 1e-3}
OPT_SIZES = {key: value for key, value in SIZES.items() if key != "initializer_range"} | {
    "ffn_dim": 36,
    "init_std": 0.03,
    "pad_token_id": 1,
}
NEOX_SIZES = SIZES | {"intermediate_size": 36, "layer_norm_eps": 1e-3}
DEFAULT_ROPE = {"rope_type": "default", "rope_theta": 500.0}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 3.0,
    "original_max_position_embeddings": 24,
}
LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 500.0,
    "short_factor": [1.1, 1.7, 2.3],
    "long_factor": [4.0, 5.0, 6.0],
}
GEMMA_SIZES = LLAMA_SIZES | {"head_dim": 10, "pad_token_id": 0, "rope_parameters": DEFAULT_ROPE}
SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]

# Name of the folder -> (configuration, its settings).
MODELS = {
    "gpt2": ("GPT2Config", GPT2_SIZES | {"n_inner": 36, "layer_norm_epsilon": 1e-3}),
    "opt": ("OPTConfig", OPT_SIZES),
    "opt_post": (
        "OPTConfig",
        OPT_SIZES | {"do_layer_norm_before": False, "word_embed_proj_dim": 16},
    ),
    "neox": (
        "GPTNeoXConfig",
        NEOX_SIZES | {"rope_parameters": DEFAULT_ROPE | {"partial_rotary_factor": 0.34}},
    ),
    "neox_serial": (
        "GPTNeoXConfig",
        NEOX_SIZES
        | {
            "use_parallel_residual": False,
            "hidden_act": "gelu_fast",
            "rope_parameters": {"rope_theta": 500.0, "partial_rotary_factor": 1.0},
        },
    ),
    "gptj": (
        "GPTJConfig",
        GPT2_SIZES | {"rotary_dim": 4, "n_inner": 36, "layer_norm_epsilon": 1e-3},
    ),
    # Six heads are no power of two.
    "bloom": (
        "BloomConfig",
        BASE | {"hidden_size": 24, "n_layer": LAYERS, "n_head": 6, "layer_norm_epsilon": 1e-3},
    ),
    "llama3": ("LlamaConfig", LLAMA_SIZES | {"rope_parameters": LLAMA3_ROPE, "pad_token_id": 7}),
    "mistral": (
        "MistralConfig",
        LLAMA_SIZES | {"sliding_window": 4, "head_dim": 8, "rope_parameters": DEFAULT_ROPE},
    ),
    "qwen2": (
        "Qwen2Config",
        LLAMA_SIZES
        | {
            "use_sliding_window": True,
            "sliding_window": 3,
            "max_window_layers": 2,
            "rope_parameters": DEFAULT_ROPE,
            "tie_word_embeddings": True,
        },
    ),
    "qwen3": ("Qwen3Config", LLAMA_SIZES | {"head_dim": 8, "rope_parameters": DEFAULT_ROPE}),
    "gemma": ("GemmaConfig", GEMMA_SIZES),
    "gemma2": (
        "Gemma2Config",
        GEMMA_SIZES
        | {
            "query_pre_attn_scalar": 7,
            "sliding_window": 4,
            "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0,
            "layer_types": SLIDING,
        },
    ),
    "gemma3": (
        "Gemma3TextConfig",
        GEMMA_SIZES
        | {
            "query_pre_attn_scalar": 7,
            "sliding_window": 4,
            "layer_types": SLIDING,
            "rope_parameters": {
                "full_attention": {"rope_type": "linear", "rope_theta": 500.0, "factor": 3.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 60.0},
            },
        },
    ),
    "phi3": (
        "Phi3Config",
        LLAMA_SIZES | {"sliding_window": 4, "rope_parameters": DEFAULT_ROPE, "pad_token_id": 5},
    ),
    "phi3_long": (
        "Phi3Config",
        LLAMA_SIZES | {"original_max_position_embeddings": 24, "rope_parameters": LONG_ROPE},
    ),
}

# Modules whose outputs are added to the residual stream, by the end of their names.
SUBLAYERS = {
    "gpt2": ("attn", "mlp"),
    "opt": ("self_attn", "fc2"),
    "gpt_neox": ("attention", "mlp"),
    "gptj": ("attn", "mlp"),
    "bloom": ("self_attention.dense", "dense_4h_to_h"),
    "gemma2": ("post_attention_layernorm", "post_feedforward_layernorm"),
    "gemma3_text": ("post_attention_layernorm", "post_feedforward_layernorm"),
}


def redraw(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Give every parameter a value that a forward pass cannot overlook; see `make_models`."""
    draw = lambda p: torch.randn(p.shape, generator=generator)
    centred = "gemma" in model.config.model_type
    with torch.no_grad():
        for name, p in model.named_parameters():
            if p.ndim == 1:
                is_scale = name.endswith("weight") and not centred
                p.copy_(0.3 * draw(p) + (1 if is_scale else 0))
        for module in model.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight.copy_(1.2 * draw(module.weight) / module.in_features**0.5)
            elif isinstance(module, Conv1D):
                module.weight.copy_(1.2 * draw(module.weight) / module.weight.shape[0] ** 0.5)
        for module in model.modules():  # last: heads may be tied to them
            if isinstance(module, torch.nn.Embedding):
                module.weight.copy_(draw(module.weight))


def run(model: torch.nn.Module, tokens, mask, **extra) -> Arrays:
    """Return hidden states, logits and what each sublayer adds."""
    found = {"attention": [], "mlp": []}
    last_block = []
    ends = SUBLAYERS.get(model.config.model_type, ("self_attn", "mlp"))
    first = lambda output: output[0] if isinstance(output, tuple) else output
    hooks = []
    for name, module in model.named_modules():
        for tap, end in zip(found, ends, strict=True):
            if name.endswith("." + end):
                keep = lambda m, i, output, tap=tap: found[tap].append(
                    first(output).reshape(*tokens.shape, -1).numpy()
                )
                hooks.append(module.register_forward_hook(keep))
        if name.endswith(f".{LAYERS - 1}"):
            keep = lambda m, i, output: last_block.append(first(output))
            hooks.append(module.register_forward_hook(keep))
    with torch.no_grad():
        output = model(
            input_ids=tokens,
            attention_mask=mask.to(torch.int64),
            output_hidden_states=True,
            use_cache=False,
            **extra,
        )
    for hook in hooks:
        hook.remove()
    hidden = list(output.hidden_states)
    if hidden[-1].shape != hidden[0].shape:
        # OPT-350m's is projected to the width of the embedding: no state of the residual stream.
        hidden[-1] = last_block[0]
    assert len(hidden) == LAYERS + 1
    assert all(len(values) == LAYERS for values in found.values())
    return {
        "hidden": stack(hidden),
        "logits": output.logits.numpy(),
    } | {tap: np.stack(values) for tap, values in found.items()}


def expected(model: torch.nn.Module, generator: torch.Generator) -> Arrays:
    """Run the network on padded and unpadded rows."""
    arrays = {}
    draw = lambda *shape: torch.randint(1, VOCABULARY, shape, generator=generator)
    for length, tokens, mask, given in batches(NUM_VALID, draw):
        found = run(model, tokens, mask)
        arrays |= given | {f"{key}_{length}": found[key] for key in ("hidden", "logits")}
        if length == max(NUM_VALID) and model.config.model_type != "bloom":
            positions = SHIFT + torch.arange(length)[None].expand(len(tokens), -1)
            arrays["shifted"] = run(model, tokens, mask, position_ids=positions)["hidden"]
    return arrays | {tap: found[tap] for tap in ("attention", "mlp")} | greedy(model, draw)


def greedy(model: torch.nn.Module, draw) -> Arrays:
    """Continue each prompt alone, without padding."""
    prompts = draw(len(PROMPT_LENGTHS), max(PROMPT_LENGTHS))
    mask = torch.arange(max(PROMPT_LENGTHS))[None] < torch.tensor(PROMPT_LENGTHS)[:, None]
    settings = transformers.GenerationConfig(
        do_sample=False, max_new_tokens=NUM_NEW, eos_token_id=None, pad_token_id=0
    )
    new = [
        model.generate(prompts[i : i + 1, :length], generation_config=settings)[0, length:]
        for i, length in enumerate(PROMPT_LENGTHS)
    ]
    return {
        "prompts": prompts.numpy().astype(np.int32),
        "prompt_mask": mask.numpy(),
        "greedy": torch.stack(new).numpy().astype(np.int32),
    }


def init_statistics(make) -> str:
    """Describe the stored tensors of a network as Hugging Face draws it."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        make().save_pretrained(folder)
        tensors = safetensors.torch.load_file(pathlib.Path(folder) / "model.safetensors")
    describe = lambda x: [
        float(x.mean()),
        float(x.std()),
        int((x == 0).all(dim=-1).sum()) if x.ndim > 1 else 0,
    ]
    return json.dumps({name: describe(x) for name, x in tensors.items()}, sort_keys=True)


def make(name: str, seed: int) -> None:
    """Write one folder."""
    kind, settings = MODELS[name]
    config = getattr(transformers, kind)(**settings)
    build = lambda: transformers.AutoModelForCausalLM.from_config(
        config, attn_implementation="eager"
    ).float()
    init = {"init": np.array(init_statistics(build))}
    generator = torch.Generator().manual_seed(seed)
    model = build().eval()
    redraw(model, generator)
    tokenizer = make_tokenizer(("<pad>", "<unk>", "<s>", "</s>"), "<s> $A", VOCABULARY - 1)
    save(FOLDER / name, model, tokenizer, init | expected(model, generator))


def save_warpers() -> None:
    """Write `warpers.npz`: logits as Hugging Face restricts them before it draws a token."""
    logits = 3 * torch.randn(4, 40, generator=torch.Generator().manual_seed(0))
    settings = [(1.0, 0, 1.0), (0.5, 0, 1.0), (1.0, 7, 1.0), (1.0, 0, 0.8), (2.0, 12, 0.6)]
    settings += [(1.0, 0, 1e-4), (1.0, 1, 1.0)]
    restricted = []
    for temperature, top_k, top_p in settings:
        scores = transformers.TemperatureLogitsWarper(temperature)(None, logits)
        if top_k:
            scores = transformers.TopKLogitsWarper(top_k)(None, scores)
        if top_p < 1:
            scores = transformers.TopPLogitsWarper(top_p)(None, scores)
        restricted.append(scores.numpy())
    np.savez_compressed(
        FOLDER / "warpers.npz",
        logits=logits.numpy(),
        settings=np.array(settings),
        restricted=np.stack(restricted),
    )


def main() -> None:
    """Make the folders that are named, or all and the warpers' file."""
    for seed, name in enumerate(MODELS):
        if name in (sys.argv[1:] or MODELS):
            make(name, 100 + seed)
    if not sys.argv[1:]:
        save_warpers()


if __name__ == "__main__":
    main()
