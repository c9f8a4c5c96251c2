"""Causal decoder of the LLaMA design: RMS norms, rotary positions, gated MLP, grouped heads."""

import dataclasses

import jax
from flax import nnx
from jaxtyping import Array, Bool, Int

from jaxalign.errors import InputError
from jaxalign.io.checkpoint import Llama2cHeader
from jaxalign.models import base, layers
from jaxalign.models.weights import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Hyperparameters."""

    vocab_size: int
    num_layers: int
    width: int
    num_heads: int
    num_kv_heads: int
    head_size: int
    mlp_size: int
    max_length: int
    rope_theta: float
    norm_eps: float
    init_sd: float
    tied_embeddings: bool


def config_from_hf(hf: dict) -> Config:
    """Read a Hugging Face `config.json` of model_type llama.

    Raises:
      InputError: if it asks for a variant that is not built here.
    """
    # transformers 5 writes rotary settings as one dictionary, version 4 as two keys.
    rope = hf.get("rope_parameters") or {}
    scaling = hf.get("rope_scaling") or {}
    found = {
        "hidden_act": (hf.get("hidden_act", "silu"), "silu"),
        "attention_bias": (hf.get("attention_bias", False), False),
        "mlp_bias": (hf.get("mlp_bias", False), False),
        "rope_type": (rope.get("rope_type", scaling.get("rope_type", "default")), "default"),
        "rope_scaling type": (scaling.get("type", "default"), "default"),
    }
    for key, (value, supported) in found.items():
        if value != supported:
            raise InputError(f"config.json: {key} must be {supported!r}, found {value!r}.")
    heads = hf["num_attention_heads"]
    kv_heads = hf.get("num_key_value_heads") or heads
    if heads % kv_heads or (not hf.get("head_dim") and hf["hidden_size"] % heads):
        raise InputError(
            "config.json: num_key_value_heads must divide num_attention_heads, and that "
            f"hidden_size: found {kv_heads}, {heads} and {hf['hidden_size']}."
        )
    return Config(
        vocab_size=hf["vocab_size"],
        num_layers=hf["num_hidden_layers"],
        width=hf["hidden_size"],
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_size=hf.get("head_dim") or hf["hidden_size"] // heads,
        mlp_size=hf["intermediate_size"],
        max_length=hf["max_position_embeddings"],
        rope_theta=rope.get("rope_theta", hf.get("rope_theta", 10_000.0)),
        norm_eps=hf["rms_norm_eps"],
        init_sd=hf.get("initializer_range", 0.02),
        tied_embeddings=hf.get("tie_word_embeddings", False),
    )


def config_from_llama2c(header: Llama2cHeader) -> Config:
    """Read the header of a llama2.c file; what it does not hold is fixed in llama2.c."""
    return Config(
        vocab_size=abs(header.vocab_size),
        num_layers=header.n_layers,
        width=header.dim,
        num_heads=header.n_heads,
        num_kv_heads=header.n_kv_heads,
        head_size=header.dim // header.n_heads,
        mlp_size=header.hidden_dim,
        max_length=header.seq_len,
        rope_theta=10_000.0,
        norm_eps=1e-5,
        init_sd=0.02,
        tied_embeddings=header.vocab_size > 0,
    )


_LAYER = "model.layers.{layer}."
TENSORS = {
    "words/table": Tensor("model.embed_tokens.weight"),
    "final_norm/scale": Tensor("model.norm.weight"),
    "head/kernel": Tensor("lm_head.weight", transpose=True),
    "blocks/attention_norm/scale": Tensor(_LAYER + "input_layernorm.weight"),
    "blocks/mlp_norm/scale": Tensor(_LAYER + "post_attention_layernorm.weight"),
} | {
    f"blocks/{ours}/kernel": Tensor(_LAYER + theirs + ".weight", transpose=True)
    for ours, theirs in {
        "query": "self_attn.q_proj",
        "key": "self_attn.k_proj",
        "value": "self_attn.v_proj",
        "attention_out": "self_attn.o_proj",
        "mlp_gate": "mlp.gate_proj",
        "mlp_in": "mlp.up_proj",
        "mlp_out": "mlp.down_proj",
    }.items()
}

FINAL_NORM_APPLIED = True
PREFIXES = ()
# Buffers that some checkpoints hold; with tied embeddings a copy of the table too.
IGNORED = (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",)
IGNORED_IF_TIED = (r"lm_head\.weight",)


class Block(nnx.Module):
    """Attention and gated MLP, each behind a norm, added to the residual stream."""

    def __init__(self, config: Config, init: layers.Init):
        """Draw the weights."""
        D, F = config.width, config.mlp_size
        query_size, kv_size = (
            heads * config.head_size for heads in (config.num_heads, config.num_kv_heads)
        )
        self.attention_norm = layers.RMSNorm(D, config.norm_eps, init.dtype)
        self.query = layers.Linear(D, query_size, ("embed", "heads"), init, bias=False)
        self.key = layers.Linear(D, kv_size, ("embed", "kv_heads"), init, bias=False)
        self.value = layers.Linear(D, kv_size, ("embed", "kv_heads"), init, bias=False)
        self.attention_out = layers.Linear(query_size, D, ("heads", "embed"), init, bias=False)
        self.mlp_norm = layers.RMSNorm(D, config.norm_eps, init.dtype)
        self.mlp_gate = layers.Linear(D, F, ("embed", "mlp"), init, bias=False)
        self.mlp_in = layers.Linear(D, F, ("embed", "mlp"), init, bias=False)
        self.mlp_out = layers.Linear(F, D, ("mlp", "embed"), init, bias=False)
        self.config = config

    def __call__(self, x_BTD: Array, mask: Bool[Array, "B T"]) -> Array:
        """Apply."""
        c = self.config
        normed = self.attention_norm(x_BTD)
        q = layers.rotary(layers.split_heads(self.query(normed), c.num_heads), c.rope_theta)
        k = layers.rotary(layers.split_heads(self.key(normed), c.num_kv_heads), c.rope_theta)
        v = layers.split_heads(self.value(normed), c.num_kv_heads)
        x_BTD = x_BTD + self.attention_out(layers.attend(q, k, v, mask, causal=True))
        normed = self.mlp_norm(x_BTD)
        return x_BTD + self.mlp_out(jax.nn.silu(self.mlp_gate(normed)) * self.mlp_in(normed))


class Network(nnx.Module):
    """Embedding, blocks, final norm, and the head that predicts the next token."""

    def __init__(self, config: Config, *, dtype, rngs: nnx.Rngs):
        """Draw weights as Hugging Face does: normal."""
        init = layers.Init(config.init_sd, dtype, rngs)
        D, V = config.width, config.vocab_size
        self.words = layers.Embedding(V, D, "vocab", init)
        self.blocks = init.stack(config.num_layers, lambda init: Block(config, init))
        self.final_norm = layers.RMSNorm(D, config.norm_eps, dtype)
        tied = config.tied_embeddings
        self.head = None if tied else layers.Linear(D, V, ("embed", "vocab"), init, bias=False)

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        mask: Bool[Array, "B T"],
        *,
        pool: base.Pool | None = None,
        with_logits: bool = False,
    ) -> base.Output:
        """Run all layers; see `base.Network`."""
        keep = pool or (lambda x: x)
        x_BTD = embedded = self.words(tokens)

        def step(x, block):
            x = block(x, mask)
            return x, keep(x)

        x_BTD, hidden = jax.lax.scan(step, x_BTD, self.blocks)
        x_BTD = self.final_norm(x_BTD)
        # Hugging Face's last hidden state is the normed one.
        hidden = hidden.at[-1].set(keep(x_BTD))
        logits = None
        if with_logits:
            logits = x_BTD @ self.words.table[...].T if self.head is None else self.head(x_BTD)
        taps = {"residual": base.stack_layers(keep(embedded), hidden)}
        return base.Output(taps, logits, FINAL_NORM_APPLIED)
