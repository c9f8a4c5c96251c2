"""Bidirectional encoder of the BERT and RoBERTa designs: learned positions, norms after the sums.

The two differ in where positions begin (RoBERTa leaves the rows up to its padding token free, so
that 514 rows hold 512 positions) and in the names of their checkpoints.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Int

from jaxalign.errors import InputError
from jaxalign.models.families import base, layers
from jaxalign.models.weights import Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Hyperparameters."""

    vocab_size: int
    num_layers: int
    width: int
    num_heads: int
    mlp_size: int
    max_length: int
    first_position: int  # row of the first token's position
    num_segments: int
    padding_token: int  # its row of the embedding begins at zero; -1: none
    norm_eps: float
    init_sd: float

    @property
    def final_norm_applied(self) -> bool:
        """See `base.Output`."""
        return False

    @property
    def causal(self) -> bool:
        """See `base.Config`."""
        return False

    @property
    def layer_names(self) -> tuple[str, ...]:
        """See `base.Config`."""
        return ()


def config_from_hf(hf: dict) -> Config:
    """Read a Hugging Face `config.json` of model_type bert or roberta.

    Raises:
      InputError: if it asks for a variant that is not built here.
    """
    only = {"hidden_act": "gelu", "position_embedding_type": "absolute", "is_decoder": False}
    for key, supported in only.items():
        if hf.get(key, supported) != supported:
            raise InputError(f"config.json: {key} must be {supported!r}, found {hf[key]!r}.")
    if hf["hidden_size"] % hf["num_attention_heads"]:
        raise InputError(
            f"config.json: num_attention_heads must divide hidden_size {hf['hidden_size']}, "
            f"found {hf['num_attention_heads']}."
        )
    roberta = hf["model_type"] == "roberta"
    padding = hf.get("pad_token_id", 1 if roberta else 0)
    if roberta and padding is None:
        raise InputError("config.json: pad_token_id must be set: RoBERTa's positions begin at it.")
    first_position = padding + 1 if roberta else 0
    return Config(
        vocab_size=hf["vocab_size"],
        num_layers=hf["num_hidden_layers"],
        width=hf["hidden_size"],
        num_heads=hf["num_attention_heads"],
        mlp_size=hf["intermediate_size"],
        max_length=hf["max_position_embeddings"] - first_position,
        first_position=first_position,
        # What a configuration leaves out is what transformers sets for both.
        num_segments=hf.get("type_vocab_size", 2),
        padding_token=-1 if padding is None else padding,
        norm_eps=hf.get("layer_norm_eps", 1e-12),
        init_sd=hf.get("initializer_range", 0.02),
    )


_LAYER = "encoder.layer.{layer}."
TENSORS = {
    "words/table": Tensor("embeddings.word_embeddings.weight"),
    "positions/table": Tensor("embeddings.position_embeddings.weight"),
    "segments/table": Tensor("embeddings.token_type_embeddings.weight"),
    "norm/scale": Tensor("embeddings.LayerNorm.weight"),
    "norm/bias": Tensor("embeddings.LayerNorm.bias"),
    "blocks/attention_norm/scale": Tensor(_LAYER + "attention.output.LayerNorm.weight"),
    "blocks/attention_norm/bias": Tensor(_LAYER + "attention.output.LayerNorm.bias"),
    "blocks/mlp_norm/scale": Tensor(_LAYER + "output.LayerNorm.weight"),
    "blocks/mlp_norm/bias": Tensor(_LAYER + "output.LayerNorm.bias"),
}
for _ours, _theirs in {
    "query": "attention.self.query",
    "key": "attention.self.key",
    "value": "attention.self.value",
    "attention_out": "attention.output.dense",
    "mlp_in": "intermediate.dense",
    "mlp_out": "output.dense",
}.items():
    TENSORS[f"blocks/{_ours}/kernel"] = Tensor(_LAYER + _theirs + ".weight", transpose=True)
    TENSORS[f"blocks/{_ours}/bias"] = Tensor(_LAYER + _theirs + ".bias")

PREFIXES = ("bert.", "roberta.")
# Buffers, and heads on top of the last layer, which no activation passes through.
IGNORED = (
    r"embeddings\.(position_ids|token_type_ids)",
    r"pooler\.dense\.(weight|bias)",
    r"(cls|lm_head|classifier)\..*",
)


class Block(nnx.Module):
    """Attention and MLP, each followed by a residual sum and a norm."""

    def __init__(self, config: Config, init: layers.Init):
        """Draw the weights."""
        D, F = config.width, config.mlp_size
        norm = lambda: layers.LayerNorm(D, config.norm_eps, init.dtype)
        self.query = layers.Linear(D, D, ("embed", "heads"), init, bias=True)
        self.key = layers.Linear(D, D, ("embed", "heads"), init, bias=True)
        self.value = layers.Linear(D, D, ("embed", "heads"), init, bias=True)
        self.attention_out = layers.Linear(D, D, ("heads", "embed"), init, bias=True)
        self.attention_norm = norm()
        self.mlp_in = layers.Linear(D, F, ("embed", "mlp"), init, bias=True)
        self.mlp_out = layers.Linear(F, D, ("mlp", "embed"), init, bias=True)
        self.mlp_norm = norm()
        self.num_heads = config.num_heads

    def __call__(self, x_BTD: Array, mask: Bool[Array, "B T"]) -> tuple[Array, Array, Array]:
        """Apply; return the residual stream, and what attention and MLP have added to it."""
        q, k, v = (
            layers.split_heads(part(x_BTD), self.num_heads)
            for part in (self.query, self.key, self.value)
        )
        attention = self.attention_out(layers.attend(q, k, v, mask, causal=False))
        x_BTD = self.attention_norm(x_BTD + attention)
        # Hugging Face's "gelu" is the exact one.
        mlp = self.mlp_out(jax.nn.gelu(self.mlp_in(x_BTD), approximate=False))
        return self.mlp_norm(x_BTD + mlp), attention, mlp


class Network(nnx.Module):
    """Embeddings and blocks."""

    def __init__(self, config: Config, *, dtype, rngs: nnx.Rngs):
        """Draw weights as Hugging Face does: normal, and zero for the padding token."""
        init = layers.Init(config.init_sd, dtype, rngs)
        D = config.width
        self.words = layers.Embedding(config.vocab_size, D, "vocab", init)
        num_positions = config.first_position + config.max_length
        self.positions = layers.Embedding(num_positions, D, "positions", init)
        if config.padding_token >= 0:
            padded = [self.words] + ([self.positions] if config.first_position else [])
            for embedding in padded:
                table = embedding.table[...]
                embedding.table[...] = table.at[config.padding_token].set(0)
        self.segments = layers.Embedding(config.num_segments, D, "segments", init)
        self.norm = layers.LayerNorm(D, config.norm_eps, dtype)
        self.blocks = init.stack(config.num_layers, lambda init: Block(config, init))
        self.first_position = config.first_position

    def __call__(
        self,
        tokens: Int[Array, "B T"],
        mask: Bool[Array, "B T"],
        *,
        positions: Int[Array, "B T"] | None = None,
        taps: Sequence[str] = ("residual",),
        pool: base.Pool | None = None,
        with_logits: bool = False,
        cache: base.Cache | None = None,
    ) -> base.Output:
        """Run all layers; see `base.Network`. An encoder has no logits: they are None.

        "attention" and "mlp" are what is added to the residual stream, before the norm of the sum.

        Raises:
          ValueError: if positions are given, since a row is one text, or a cache.
        """
        if positions is not None or cache is not None:
            raise ValueError(
                "An encoder reads one whole text per row: positions and cache must be None."
            )
        del with_logits
        base.check_taps(taps)
        keep = pool or (lambda x: x)
        segments = self.segments(jnp.zeros_like(tokens))
        places = self.positions(self.first_position + jnp.arange(tokens.shape[1]))
        x_BTD = self.norm(self.words(tokens) + places[None] + segments)

        def step(x, block):
            x, attention, mlp = block(x, mask)
            values = {"residual": x, "attention": attention, "mlp": mlp}
            return x, {name: keep(values[name]) for name in taps}

        _, kept = jax.lax.scan(step, x_BTD, self.blocks)
        if "residual" in kept:
            kept["residual"] = base.stack_layers(keep(x_BTD), kept["residual"])
        return base.Output(kept, None, final_norm_applied=False)


_FAMILY = base.Family(
    network=Network,
    config_from_hf=config_from_hf,
    tensors=lambda config: TENSORS,
    ignored=lambda config: IGNORED,
    prefixes=PREFIXES,
)
FAMILIES = {"bert": _FAMILY, "roberta": _FAMILY}
