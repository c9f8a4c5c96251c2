"""Compare many small random checkpoints with transformers: every hidden state and all logits.

Needs the environment that `make_models.py` names; takes minutes, and writes nothing but lines:

  PYTHONPATH=. python tests/golden/sweep_configs.py [checkpoints of each family] [family ...]

A checkpoint is `save_pretrained` of a random network whose configuration is drawn: sizes, and then
each variant of the family with some probability, in the form of transformers 4 or 5. It counts as
equal (largest difference below `TOLERANCE` of a layer's largest value), refused by jaxalign alone,
refused by both, or different, which is printed with its configuration and must not happen.
"""

import collections
import json
import os
import pathlib
import random
import sys
import tempfile

os.environ["JAX_PLATFORMS"] = "cpu"

import numpy as np
import safetensors.torch
import torch
import transformers

from jaxalign.core import mesh as mesh_lib
from jaxalign.errors import InputError
from jaxalign.models import zoo

TOLERANCE = 2e-5
LENGTH = 24
ACTIVATIONS = [
    name for name in transformers.activations.ACT2CLS if name not in ("prelu", "xielu", "laplace")
] + ["laplace"]

some = random.Random(0)
maybe = lambda share, value: {} if some.random() > share else value
pick = some.choice


def sizes(heads=(2, 4), size=(6, 8)):
    n, h = pick(heads), pick(size)
    return {
        "vocab_size": 61,
        "hidden_size": n * h,
        "num_hidden_layers": pick((2, 3)),
        "num_attention_heads": n,
        "max_position_embeddings": 32,
        "pad_token_id": pick((0, 3)),
    }


def rope(size, kinds=("default", "linear", "llama3", "yarn", "dynamic", "longrope")):
    """Draw rotary settings, and where they stand."""
    kind = pick(kinds)
    original = pick((8, 16, 24, 32))
    found = {"rope_type": kind}
    if kind in ("linear", "llama3", "yarn", "dynamic"):
        found["factor"] = pick((1.0, 2.0, 4.5))
    if kind == "llama3":
        found |= {"low_freq_factor": 1.0, "high_freq_factor": pick((2.0, 4.0))}
    if kind == "longrope":
        found |= {"short_factor": [1.0 + some.random() for _ in range(size // 2)]}
        found |= {"long_factor": [3.0 + some.random() for _ in range(size // 2)]}
        found |= maybe(0.3, {"attention_factor": 1.3}) | maybe(0.3, {"factor": 3.0})
        original = 32
    if kind == "yarn":
        found |= maybe(0.3, {"beta_fast": 8.0, "beta_slow": 2.0}) | maybe(0.3, {"truncate": False})
        found |= maybe(0.3, {"mscale": 0.7, "mscale_all_dim": 1.2})
        found |= maybe(0.3, {"attention_factor": 1.1})
    if kind in ("llama3", "yarn", "longrope"):
        found["original_max_position_embeddings"] = original
    return found


def place_rope(hf, found, theta=500.0):
    """Write rotary settings as transformers 5 or 4 does, or in both forms at once."""
    form = pick(("parameters", "scaling", "both", "top", "type"))
    hf.pop("rope_parameters", None)
    if form == "parameters":
        hf["rope_parameters"] = found | {"rope_theta": theta}
    elif form == "both":
        hf["rope_parameters"] = {"rope_type": "default", "rope_theta": 77.0}
        hf |= {"rope_scaling": found, "rope_theta": theta}
    else:
        hf |= {"rope_scaling": dict(found), "rope_theta": theta}
        if form == "type":
            hf["rope_scaling"]["type"] = hf["rope_scaling"].pop("rope_type")
        original = hf["rope_scaling"].get("original_max_position_embeddings")
        if form == "top" and original:
            hf["original_max_position_embeddings"] = original
            hf["rope_scaling"]["original_max_position_embeddings"] = 12
    return hf


def act(share=0.5):
    return maybe(share, {"hidden_act": pick(ACTIVATIONS)})


def llama_like(model_type, **extra):
    base = sizes()
    kv = pick((1, 2, base["num_attention_heads"]))
    head = maybe(0.4, {"head_dim": pick((4, 6, 10))})
    size = head.get("head_dim", base["hidden_size"] // base["num_attention_heads"])
    hf = base | head | {"model_type": model_type, "intermediate_size": 20}
    hf |= {"num_key_value_heads": kv, "rms_norm_eps": pick((1e-6, 1e-3))}
    hf |= maybe(0.5, {"tie_word_embeddings": pick((True, False))}) | extra
    return place_rope(hf, rope(size)) if some.random() < 0.7 else hf


def layer_types(hf):
    kinds = ("sliding_attention", "full_attention")
    return {"layer_types": [pick(kinds) for _ in range(hf["num_hidden_layers"])]}


def llama():
    flags = {"attention_bias": pick((True, False)), "mlp_bias": pick((True, False))}
    return llama_like("llama", **act(), **maybe(0.5, flags))


def mistral():
    hf = llama_like("mistral", **act(0.3), sliding_window=pick((None, 5, 40)))
    return hf | (maybe(0.4, layer_types(hf)) if hf["sliding_window"] else {})


def qwen2(model_type="qwen2", **extra):
    hf = llama_like(model_type, **act(0.3), **extra)
    window = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": pick((0, 1))}
    hf |= maybe(0.5, window)
    return hf | (maybe(0.5, layer_types(hf)) if hf.get("use_sliding_window") else {})


def qwen3():
    return qwen2("qwen3", head_dim=6) | maybe(0.4, {"attention_bias": True})


def phi3():
    base = sizes()
    share = pick((1.0, 0.5, 0.75))
    size = int(base["hidden_size"] // base["num_attention_heads"] * share)
    hf = base | {"model_type": "phi3", "intermediate_size": 20} | act(0.3)
    hf |= {"num_key_value_heads": pick((1, 2)), "sliding_window": pick((None, 5))}
    hf |= {"original_max_position_embeddings": 32}
    hf |= maybe(0.6, {"partial_rotary_factor": share})
    if "partial_rotary_factor" not in hf:
        size = base["hidden_size"] // base["num_attention_heads"]
    found = rope(size, ("default", "longrope"))
    found.pop("original_max_position_embeddings", None)
    if some.random() < 0.6:
        hf |= {"rope_scaling": found, "rope_theta": 500.0}
        hf["max_position_embeddings"] = pick((32, 64))
    return hf


def gemma_like(model_type, **extra):
    hf = sizes() | {"model_type": model_type, "intermediate_size": 20, "head_dim": pick((6, 8))}
    hf |= {"num_key_value_heads": pick((1, 2))} | extra
    hf |= maybe(0.3, {"tie_word_embeddings": False})
    return hf | maybe(0.3, {"attention_bias": True})


def gemma():
    hf = gemma_like("gemma", **act(0.5))
    return place_rope(hf, rope(hf["head_dim"])) if some.random() < 0.5 else hf


def gemma2(model_type="gemma2"):
    hf = gemma_like(model_type, sliding_window=5, query_pre_attn_scalar=pick((7, 256)))
    hf |= maybe(0.4, {"hidden_activation": pick(ACTIVATIONS)}) | maybe(0.4, layer_types(hf))
    hf |= maybe(0.5, {"attn_logit_softcapping": pick((None, 2.0))})
    return hf | maybe(0.5, {"final_logit_softcapping": pick((None, 3.0))})


def gemma3():
    hf = gemma2("gemma3_text") | maybe(0.4, {"sliding_window_pattern": pick((1, 2, 3))})
    if some.random() < 0.4:
        return hf | {"rope_theta": 900.0, "rope_local_base_freq": 50.0}
    kinds = ("default", "linear", "dynamic")
    both = {"full_attention": rope(hf["head_dim"], kinds) | {"rope_theta": 500.0}}
    both["sliding_attention"] = {"rope_type": "default", "rope_theta": 60.0}
    return (
        hf
        | maybe(0.6, {"rope_parameters": both})
        | maybe(0.3, {"rope_scaling": {"rope_type": "linear", "factor": 3.0}})
    )


def gpt2():
    hf = sizes() | {"model_type": "gpt2"} | maybe(0.4, {"n_inner": 20})
    names = {"hidden_size": "n_embd", "num_hidden_layers": "n_layer"}
    if some.random() < 0.6:
        hf = {names.get(name, name): value for name, value in hf.items()}
    hf |= maybe(0.5, {"activation_function": pick(ACTIVATIONS)})
    hf |= maybe(0.4, {"scale_attn_weights": False})
    hf |= maybe(0.4, {"scale_attn_by_inverse_layer_idx": True})
    hf |= maybe(0.3, {"reorder_and_upcast_attn": True})
    return hf | maybe(0.4, {"tie_word_embeddings": False})


def gptj():
    hf = gpt2() | {"model_type": "gptj", "rotary_dim": pick((2, 4, 6))}
    for name in ("scale_attn_weights", "scale_attn_by_inverse_layer_idx"):
        hf.pop(name, None)
    hf.pop("reorder_and_upcast_attn", None)
    return hf | maybe(0.5, {"tie_word_embeddings": True})


def bloom():
    base = sizes()
    hf = {"model_type": "bloom", "vocab_size": 61, "n_layer": base["num_hidden_layers"]}
    hf |= {pick(("hidden_size", "n_embed")): base["hidden_size"]}
    hf |= {pick(("n_head", "num_attention_heads")): base["num_attention_heads"]}
    hf |= maybe(0.4, {"apply_residual_connection_post_layernorm": True})
    hf |= maybe(0.3, {"slow_but_exact": True}) | maybe(0.3, {"pretraining_tp": 2})
    return hf | maybe(0.3, {"tie_word_embeddings": False})


def opt():
    hf = sizes() | {"model_type": "opt", "ffn_dim": 20}
    hf |= maybe(0.4, {"word_embed_proj_dim": 10}) | maybe(0.4, {"do_layer_norm_before": False})
    hf |= maybe(0.3, {"_remove_final_layer_norm": True}) | maybe(0.4, {"enable_bias": False})
    hf |= maybe(0.4, {"layer_norm_elementwise_affine": False})
    hf |= maybe(0.4, {"activation_function": pick(ACTIVATIONS)})
    return hf | maybe(0.3, {"tie_word_embeddings": False})


def gpt_neox():
    hf = sizes(size=(6, 8, 10)) | {"model_type": "gpt_neox", "intermediate_size": 20} | act()
    size = hf["hidden_size"] // hf["num_attention_heads"]
    hf |= maybe(0.5, {"use_parallel_residual": False}) | maybe(0.4, {"attention_bias": False})
    hf |= maybe(0.3, {"tie_word_embeddings": True})
    share = pick((1.0, 0.5, 0.34, 0.25))
    turned = int(size * share)
    kinds = ("default", "linear", "llama3", "dynamic") + ("yarn", "longrope") * (turned % 2 == 0)
    found = rope(turned, kinds)
    if some.random() < 0.5:
        hf |= {"rotary_pct": share, "rotary_emb_base": 700}
        hf |= maybe(0.3, {"rope_theta": 5000.0}) | maybe(0.3, {"partial_rotary_factor": 0.1})
        return hf | (maybe(0.5, {"rope_scaling": found}))
    return hf | {"rope_parameters": found | {"rope_theta": 700.0, "partial_rotary_factor": share}}


def bert(model_type="bert"):
    hf = sizes() | {"model_type": model_type, "intermediate_size": 20} | act()
    hf |= maybe(0.5, {"type_vocab_size": pick((1, 3))}) | maybe(0.5, {"layer_norm_eps": 1e-3})
    return hf | maybe(0.3, {"position_embedding_type": "absolute"})


def roberta():
    return bert("roberta")


def t5():
    n = pick((2, 4))
    hf = {"model_type": "t5", "vocab_size": 61, "d_model": 12, "d_kv": 6, "d_ff": 20}
    hf |= {"num_layers": 2, "num_heads": n} | maybe(0.5, {"num_decoder_layers": 3})
    gate = pick(("", "gated-"))
    hf |= maybe(0.7, {"feed_forward_proj": gate + pick(ACTIVATIONS)})
    hf |= maybe(0.3, {"relative_attention_num_buckets": 8, "relative_attention_max_distance": 20})
    return hf | maybe(0.5, {"tie_word_embeddings": pick((True, False))})


def gpt_neo():
    base, layers = sizes(), pick((2, 4))
    names = {"num_attention_heads": "num_heads"}
    hf = {names.get(name, name): x for name, x in base.items() if name != "num_hidden_layers"}
    hf |= {"model_type": "gpt_neo", "num_layers": layers, "window_size": pick((3, 40))}
    kinds = pick(([["global", "local"], layers // 2], [["local"], layers], [["global"], layers]))
    hf |= {"attention_types": [kinds]} | maybe(0.5, {"intermediate_size": 20})
    hf |= maybe(0.4, {"activation_function": pick(ACTIVATIONS)})
    return hf | maybe(0.3, {"tie_word_embeddings": False})


def falcon():
    hf = sizes() | {"model_type": "falcon"} | maybe(0.5, {"ffn_hidden_size": 20})
    hf.pop("pad_token_id")
    hf |= maybe(0.4, {"bias": True}) | maybe(0.3, {"tie_word_embeddings": False})
    hf |= maybe(0.3, {"activation": pick(ACTIVATIONS)}) | maybe(0.3, {"layer_norm_epsilon": 1e-3})
    kind = pick(("new", "new", "one", "each", "alibi"))
    if kind == "new":
        hf |= {"new_decoder_architecture": True, "num_kv_heads": pick((1, 2))}
        hf |= maybe(0.5, {"num_ln_in_parallel_attn": pick((1, 2))})
    elif kind != "one":
        hf |= {"multi_query": False, "parallel_attn": pick((True, False))}
    if kind == "alibi":
        return hf | {"alibi": True}
    size = hf["hidden_size"] // hf["num_attention_heads"]
    return place_rope(hf, rope(size)) if some.random() < 0.5 else hf


def mpt():
    base = sizes(heads=(2, 3, 4, 6))
    hf = {"model_type": "mpt", "vocab_size": 61, "d_model": base["hidden_size"], "max_seq_len": 32}
    hf |= {"n_heads": base["num_attention_heads"], "n_layers": base["num_hidden_layers"]}
    found = maybe(0.4, {"clip_qkv": 1.0}) | maybe(0.4, {"softmax_scale": 0.6})
    return hf | maybe(0.6, {"attn_config": found}) | maybe(0.3, {"tie_word_embeddings": False})


def phi(model_type="phi", **extra):
    base = sizes(size=(8,))
    hf = base | {"model_type": model_type, "intermediate_size": 20} | act(0.4) | extra
    hf |= {"num_key_value_heads": pick((1, 2, base["num_attention_heads"]))}
    hf |= maybe(0.4, {"partial_rotary_factor": pick((0.5, 0.75, 1.0))})
    hf |= maybe(0.4, {"layer_norm_eps": 1e-3})
    if model_type == "phi":
        return hf | maybe(0.4, {"qk_layernorm": True})
    return hf | maybe(0.4, {"use_qkv_bias": True}) | maybe(0.4, {"use_parallel_residual": True})


def stablelm():
    return phi("stablelm", partial_rotary_factor=pick((0.25, 0.5)))


def openai_gpt():
    hf = gpt2() | {"model_type": "openai-gpt"} | maybe(0.6, {"afn": pick(("relu", "silu", "gelu"))})
    own = ("n_inner", "activation_function", "scale_attn_weights", "reorder_and_upcast_attn")
    for name in (*own, "scale_attn_by_inverse_layer_idx"):
        hf.pop(name, None)
    return hf


def gpt_bigcode():
    hf = gpt2() | {"model_type": "gpt_bigcode"} | maybe(0.5, {"multi_query": False})
    for name in ("scale_attn_by_inverse_layer_idx", "reorder_and_upcast_attn"):
        hf.pop(name, None)
    return hf


def ctrl():
    hf = sizes() | {"model_type": "ctrl", "dff": 20}
    return hf | maybe(0.3, {"tie_word_embeddings": False})


def olmo():
    hf = llama_like("olmo", **act(0.4)) | maybe(0.5, {"clip_qkv": 1.0})
    for name in ("rms_norm_eps", "head_dim"):
        hf.pop(name, None)
    return hf | maybe(0.3, {"attention_bias": True})


def olmo2():
    return llama_like("olmo2", **act(0.4)) | maybe(0.3, {"attention_bias": True})


def granite():
    names = ("embedding_multiplier", "attention_multiplier", "residual_multiplier")
    hf = llama_like("granite", **act(0.4))
    for name in (*names, "logits_scaling"):
        hf |= maybe(0.6, {name: pick((0.3, 2.0))})
    return hf | maybe(0.3, {"attention_bias": True, "mlp_bias": True})


def starcoder2():
    hf = llama_like("starcoder2", **act(0.4), sliding_window=pick((None, 5)))
    for name in ("rms_norm_eps", "head_dim"):
        hf.pop(name, None)
    return hf | maybe(0.4, {"use_bias": False}) | maybe(0.4, {"norm_epsilon": 1e-3})


def smollm3():
    hf = llama_like("smollm3", **act(0.4)) | maybe(0.5, {"no_rope_layer_interval": pick((1, 2))})
    hf |= maybe(0.4, {"no_rope_layers": [pick((0, 1)) for _ in range(hf["num_hidden_layers"])]})
    return hf | maybe(0.4, {"use_sliding_window": True, "sliding_window": 5})


def cohere():
    hf = llama_like("cohere", **act(0.4)) | maybe(0.5, {"logit_scale": 0.7})
    hf.pop("rms_norm_eps")
    return hf | maybe(0.4, {"attention_bias": True}) | maybe(0.4, {"layer_norm_eps": 1e-3})


def distilbert():
    base = sizes()
    hf = {"model_type": "distilbert", "vocab_size": 61, "dim": base["hidden_size"]}
    hf |= {"n_heads": base["num_attention_heads"], "n_layers": base["num_hidden_layers"]}
    hf |= {"hidden_dim": 20, "max_position_embeddings": 32}
    hf |= maybe(0.4, {"activation": pick(ACTIVATIONS)})
    return hf | maybe(0.4, {"sinusoidal_pos_embds": True})


def albert():
    hf = bert("albert") | {"embedding_size": pick((5, 12))}
    return hf | {"num_hidden_layers": 4, "num_hidden_groups": pick((1, 1, 2, 4))}


def electra():
    hf = bert("electra")
    return hf | {"embedding_size": pick((5, hf["hidden_size"]))}


def xlm():
    base = sizes()
    hf = {"model_type": "xlm", "vocab_size": 61, "emb_dim": base["hidden_size"]}
    hf |= {"n_heads": base["num_attention_heads"], "n_layers": base["num_hidden_layers"]}
    hf |= {"max_position_embeddings": 32} | maybe(0.5, {"n_langs": 3})
    hf |= maybe(0.4, {"gelu_activation": False})
    return hf | maybe(0.4, {"sinusoidal_embeddings": True})


FAMILIES = {
    "albert": albert,
    "bert": bert,
    "bloom": bloom,
    "camembert": lambda: bert("camembert"),
    "cohere": cohere,
    "ctrl": ctrl,
    "distilbert": distilbert,
    "electra": electra,
    "falcon": falcon,
    "gemma": gemma,
    "gemma2": gemma2,
    "gemma3": gemma3,
    "gpt2": gpt2,
    "gpt_bigcode": gpt_bigcode,
    "gpt_neo": gpt_neo,
    "gpt_neox": gpt_neox,
    "gptj": gptj,
    "granite": granite,
    "llama": llama,
    "mistral": mistral,
    "mpt": mpt,
    "olmo": olmo,
    "olmo2": olmo2,
    "openai-gpt": openai_gpt,
    "opt": opt,
    "phi": phi,
    "phi3": phi3,
    "qwen2": qwen2,
    "qwen3": qwen3,
    "roberta": roberta,
    "smollm3": smollm3,
    "stablelm": stablelm,
    "starcoder2": starcoder2,
    "t5": t5,
    "xlm": xlm,
    "xlm-roberta": lambda: bert("xlm-roberta"),
}
HEADLESS = ("albert", "bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta")
HEADLESS += ("xlm",)
CLASSES = {"t5": transformers.T5ForConditionalGeneration}


def kind_of(family):
    """Draw with which head a checkpoint is saved."""
    if family in HEADLESS:
        return pick((transformers.AutoModel, transformers.AutoModelForSequenceClassification))
    if family == "t5":
        return pick((transformers.T5ForConditionalGeneration, transformers.AutoModel))
    heads = [transformers.AutoModelForCausalLM] * 4 + [transformers.AutoModel]
    return pick(heads + [transformers.AutoModelForSequenceClassification])


def save(folder, family, hf):
    """Write a random checkpoint of a configuration; raise what transformers raises."""
    (folder / "config.json").write_text(json.dumps(hf))
    config = transformers.AutoConfig.from_pretrained(folder)
    kind = kind_of(family)
    torch.manual_seed(some.randrange(10**6))
    model = kind.from_config(config) if hasattr(kind, "from_config") else kind(config)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.randn(p.shape) * (0.3 if p.ndim == 1 else p.shape[-1] ** -0.5))
    model.save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps(hf))
    file = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(file)
    has_head = kind in (transformers.AutoModelForCausalLM, transformers.T5ForConditionalGeneration)
    head = "embed_out.weight" if family == "gpt_neox" else "lm_head.weight"
    if has_head and head not in tensors:
        words = next(x for n, x in tensors.items() if x.ndim == 2 and x.shape[0] == 61)
        choice = some.random()
        if choice < 0.3:
            tensors[head] = torch.randn(words.shape)
        elif choice < 0.5:
            tensors[head] = words.clone()
    safetensors.torch.save_file(tensors, file, metadata={"format": "pt"})
    return has_head


def compare(folder, family, has_head, tokens):
    """Return the largest differences of hidden states and of logits."""
    kind = transformers.AutoModel
    if has_head:
        kind = CLASSES.get(family, transformers.AutoModelForCausalLM)
    # The other implementation adds ALiBi to the logits of Falcon's attention twice.
    attention = "sdpa" if family == "falcon" else "eager"
    model = kind.from_pretrained(folder, attn_implementation=attention, dtype=torch.float32).eval()
    ids = torch.tensor(tokens)
    with torch.no_grad():
        if family == "t5":
            start = torch.zeros((1, 1), dtype=torch.long)
            behind = torch.cat([start, ids], dim=1)
            want = model(input_ids=ids, decoder_input_ids=behind, output_hidden_states=True)
            decoder = [x[:, 1:] for x in want.decoder_hidden_states[1:]]
            hidden = [*want.encoder_hidden_states, *decoder]
            logits = want.logits[:, 1:] if has_head else None
        else:
            want = model(input_ids=ids, output_hidden_states=True)
            hidden, logits = list(want.hidden_states), want.logits if has_head else None
    network = zoo.find(str(folder), None).load(mesh_lib.make_mesh(-1, 1))
    out = network(tokens.astype(np.int32), np.ones_like(tokens, bool))
    if hidden[-1].shape[-1] != out.hidden.shape[-1]:
        hidden = hidden[:-1]  # OPT's is projected to the width of the embedding
    worst = lambda a, b: float(np.abs(np.asarray(a) - b.numpy()).max() / np.abs(b).max())
    states = max(worst(a, b) for a, b in zip(out.hidden, hidden, strict=False))
    return states, 0.0 if logits is None else worst(network.logits(out.final), logits)


def one(family):
    hf = FAMILIES[family]()
    tokens = np.random.default_rng(some.randrange(10**6)).integers(4, 61, (1, LENGTH))
    folder = pathlib.Path(tempfile.mkdtemp())
    refusal = ""
    try:
        zoo.configure(hf, source="config.json")
    except InputError as error:
        refusal = str(error)
    try:
        has_head = save(folder, family, hf)
    except Exception as error:
        return "refused by both" if refusal else "refused by transformers", str(error), hf
    try:
        states, logits = compare(folder, family, has_head, tokens)
    except InputError as error:
        return "refused", str(error), hf
    except Exception as error:
        return "failed", f"{type(error).__name__}: {error}", hf
    equal = states < TOLERANCE and logits < TOLERANCE
    return "equal" if equal else "different", f"{states:.1e} {logits:.1e}", hf


def say(line):
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main():
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 40
    total = collections.Counter()
    for family in sys.argv[2:] or FAMILIES:
        counts = collections.Counter()
        for _ in range(number):
            result, detail, hf = one(family)
            counts[result] += 1
            if result != "equal":
                line = " ".join(detail.split())[:300]
                say(f"{family}: {result}: {line}: {json.dumps(hf)}")
        say(f"{family} {dict(counts)}")
        total += counts
    say(f"all {dict(total)}")


if __name__ == "__main__":
    main()
