"""T5: its configuration and tensors."""

from typing import Any

from jaxalign.errors import InputError
from jaxalign.models.families import hf_reading, keys
from jaxalign.models.families.base import Family
from jaxalign.models.families.encoder_decoder import Config, Network
from jaxalign.models.families.keys import Key, optional
from jaxalign.models.weights import Tensor

_KEYS = keys.family(
    {
        "vocab_size": Key(keys.COUNT),
        "d_model": Key(keys.COUNT, names=("hidden_size",)),
        "d_ff": Key(keys.COUNT),
        "d_kv": Key(keys.COUNT, 64, names=("head_dim",)),
        "num_layers": Key(keys.LAYERS, names=("num_hidden_layers",)),
        "num_decoder_layers": Key(optional(keys.LAYERS), None),  # null: num_layers
        "num_heads": Key(keys.COUNT, names=("num_attention_heads",)),
        "relative_attention_num_buckets": Key(keys.integer(4, 4096), 32),
        "relative_attention_max_distance": Key(keys.integer(1, 2**20), 128),
        "layer_norm_epsilon": Key(keys.SMALL, 1e-6),
        "initializer_factor": Key(keys.DEVIATION, 1.0),
        "feed_forward_proj": Key(keys.NAME, "relu"),
        # What transformers writes next to feed_forward_proj, and hears before it.
        "dense_act_fn": Key(optional(hf_reading.ACTIVATION), None),
        "is_gated_act": Key(optional(keys.FLAG), None),
        "n_positions": Key(keys.COUNT, 512),
        "pad_token_id": Key(optional(keys.integer(0)), 0),
        "eos_token_id": Key(keys.integer(0), 1),
        "decoder_start_token_id": Key(optional(keys.integer(0)), None),  # null: the padding token
        "tie_word_embeddings": Key(keys.FLAG, True),
        # transformers 4 leaves it to tie_word_embeddings; 5 writes a key.
        "scale_decoder_outputs": Key(optional(keys.FLAG), None),
        "is_decoder": keys.only(False),
    },
    "dropout_rate",
)


def _config(values: dict[str, Any], *, text: str = "both") -> Config:
    buckets = values["relative_attention_num_buckets"]
    distance = values["relative_attention_max_distance"]
    # Half of an encoder's buckets look back, and half of those hold a single distance.
    if buckets % 4 or distance <= buckets // 2:
        raise InputError(
            "config.json: relative_attention_num_buckets must be a multiple of 4, and "
            "relative_attention_max_distance more than half of it: "
            f"found {buckets} and {distance}."
        )
    activation, gated = _feed_forward(values)
    tied, scaled = values["tie_word_embeddings"], values["scale_decoder_outputs"]
    return Config(
        vocab_size=values["vocab_size"],
        num_encoder_layers=values["num_layers"],
        num_decoder_layers=values["num_decoder_layers"] or values["num_layers"],
        width=values["d_model"],
        num_heads=values["num_heads"],
        head_size=values["d_kv"],
        mlp_size=values["d_ff"],
        activation=activation,
        gated=gated,
        num_buckets=buckets,
        max_distance=distance,
        max_length=values["n_positions"],
        norm_eps=values["layer_norm_epsilon"],
        init_factor=values["initializer_factor"],
        tied_embeddings=tied,
        scaled_logits=tied if scaled is None else scaled,
        start_token=_token(values, "decoder_start_token_id", "pad_token_id"),
        end_token=_token(values, "eos_token_id"),
        text=text,
    )


def _feed_forward(values: dict[str, Any]) -> tuple[str, bool]:
    """Return the activation of the MLP, and whether it is gated.

    Raises:
      InputError: if feed_forward_proj is not "NAME" or "gated-NAME" of a known activation.
    """
    given = values["feed_forward_proj"]
    gate, _, name = given.rpartition("-")
    if gate not in ("", "gated") or not hf_reading.ACTIVATION.holds(name):
        raise InputError(
            "config.json: feed_forward_proj must be an activation or gated- and an activation, "
            f"which must {hf_reading.ACTIVATION.must}: found {keys.shown(given)}."
        )
    # The gated one is the tanh form, whatever its name.
    if given == "gated-gelu":
        name = "gelu_new"
    gated = gate == "gated" if values["is_gated_act"] is None else values["is_gated_act"]
    return hf_reading.activation(values["dense_act_fn"] or name), gated


def _token(values: dict[str, Any], *names: str) -> int:
    """Return the first of these tokens that is set.

    Raises:
      InputError: if none is, or it is not in the vocabulary.
    """
    found = next((values[name] for name in names if values[name] is not None), None)
    if found is None or found >= values["vocab_size"]:
        raise InputError(
            f"config.json: {names[0]} must be a token of the {values['vocab_size']} of the "
            f"vocabulary, found {found!r}."
        )
    return found


def _tensors() -> dict[str, Tensor]:
    tensors = {
        "words/table": Tensor("shared.weight"),
        "head/kernel": Tensor("lm_head.weight", transpose=True),
    }
    for stack, parts in {
        "encoder": {"attention": "SelfAttention"},
        "decoder": {"attention": "SelfAttention", "cross": "EncDecAttention"},
    }.items():
        theirs, ours = f"{stack}.block.{{layer}}.layer.", f"{stack}/blocks/"
        tensors[f"{stack}/final_norm/scale"] = Tensor(f"{stack}.final_layer_norm.weight")
        # Only the first block holds the table of relative positions, and all use it.
        tensors[f"{stack}/distances/table"] = Tensor(
            f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        )
        for i, (part, name) in enumerate(parts.items()):
            tensors[f"{ours}{part}_norm/scale"] = Tensor(f"{theirs}{i}.layer_norm.weight")
            for linear, letter in {"query": "q", "key": "k", "value": "v", "out": "o"}.items():
                tensors[f"{ours}{part}/{linear}/kernel"] = Tensor(
                    f"{theirs}{i}.{name}.{letter}.weight", transpose=True
                )
        mlp = f"{theirs}{len(parts)}."
        tensors[f"{ours}mlp_norm/scale"] = Tensor(f"{mlp}layer_norm.weight")
        for linear, name in {
            "mlp_in": "wi",
            "mlp_gate": "wi_0",
            "mlp_linear": "wi_1",
            "mlp_out": "wo",
        }.items():
            tensors[f"{ours}{linear}/kernel"] = Tensor(
                f"{mlp}DenseReluDense.{name}.weight", transpose=True
            )
    return tensors


_TENSORS = _tensors()
# A table of the first T5 checkpoints that was never used, and heads for other tasks.
_unused = hf_reading.unused(
    r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight"
)


def _ignored(config: Config) -> tuple[str, ...]:
    if config.text == "encoder":
        return (*_unused(config), r"decoder\..*", r"lm_head\.weight")
    return _unused(config)


def _copies(config: Config) -> dict[str, str]:
    """Return the copies of the table, of which the encoder alone needs no head's."""
    names = ["encoder.embed_tokens.weight"]
    if config.text != "encoder":
        names += ["decoder.embed_tokens.weight"]
        names += ["lm_head.weight"] * config.tied_embeddings
    return dict.fromkeys(names, "shared.weight")


FAMILIES = {
    "t5": Family(
        network=Network,
        keys=_KEYS,
        configure=_config,
        tensors=lambda config: _TENSORS,
        ignored=_ignored,
        prefixes=("transformer.",),
        copies=_copies,
        head="lm_head.weight",
    )
}
