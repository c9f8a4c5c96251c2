"""T5: its configuration and tensors."""

import dataclasses
from collections.abc import Collection

from jaxalign.errors import InputError
from jaxalign.models.families.base import Family
from jaxalign.models.families.encoder_decoder import ACTIVATIONS, Config, Network
from jaxalign.models.weights import Tensor


def config_from_hf(hf: dict, *, text: str = "both") -> Config:
    """Read a Hugging Face `config.json` of model_type t5.

    Args:
      hf: its content.
      text: how a text reaches the two stacks, of `encoder_decoder.TEXTS`.

    Raises:
      InputError: if it asks for a variant that is not built here.
    """
    feed_forward = hf.get("feed_forward_proj", "relu")
    if feed_forward not in ACTIVATIONS:
        raise InputError(
            f"config.json: feed_forward_proj must be one of {', '.join(ACTIVATIONS)}, "
            f"found {feed_forward!r}."
        )
    buckets, distance = (
        hf.get("relative_attention_num_buckets", 32),
        hf.get("relative_attention_max_distance", 128),
    )
    # Half of an encoder's buckets look back, and half of those hold a single distance.
    if buckets < 4 or buckets % 4 or distance <= buckets // 2:
        raise InputError(
            "config.json: relative_attention_num_buckets must be a multiple of 4, and "
            "relative_attention_max_distance more than half of it: "
            f"found {buckets} and {distance}."
        )
    # transformers 4 leaves both to tie_word_embeddings; 5 writes a separate key for the scaling.
    tied = hf.get("tie_word_embeddings", True)
    pad, end = hf.get("pad_token_id", 0), hf.get("eos_token_id", 1)
    return Config(
        vocab_size=hf["vocab_size"],
        num_encoder_layers=hf["num_layers"],
        num_decoder_layers=hf.get("num_decoder_layers") or hf["num_layers"],
        width=hf["d_model"],
        num_heads=hf["num_heads"],
        head_size=hf.get("d_kv", 64),
        mlp_size=hf["d_ff"],
        feed_forward=feed_forward,
        num_buckets=buckets,
        max_distance=distance,
        max_length=hf.get("n_positions", 512),
        norm_eps=hf.get("layer_norm_epsilon", 1e-6),
        init_factor=hf.get("initializer_factor", 1.0),
        tied_embeddings=tied,
        scaled_logits=hf.get("scale_decoder_outputs", tied),
        start_token=hf.get("decoder_start_token_id", pad),
        end_token=end,
        text=text,
    )


def fit_checkpoint(config: Config, names: Collection[str]) -> Config:
    """Return the configuration with the head untied if the checkpoint says so.

    transformers 5 writes tie_word_embeddings=True for T5 v1.1 too, whose head is untied. An untied
    head is recognised by logits that are not scaled and a file that holds a head.
    """
    untied = not config.scaled_logits and "lm_head.weight" in names
    return dataclasses.replace(config, tied_embeddings=False) if untied else config


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
# Copies of the table, and a table of the first T5 checkpoints that was never used.
_IGNORED = (
    r"(encoder|decoder)\.embed_tokens\.weight",
    r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",
)
_IGNORED_IF_TIED = (r"lm_head\.weight",)


def ignored(config: Config) -> tuple[str, ...]:
    """Return regular expressions of tensors that a network of this configuration does not use."""
    if config.text == "encoder":
        return (*_IGNORED, r"decoder\..*", r"lm_head\.weight")
    return _IGNORED + (_IGNORED_IF_TIED if config.tied_embeddings else ())


FAMILIES = {
    "t5": Family(
        network=Network,
        config_from_hf=config_from_hf,
        tensors=lambda config: _TENSORS,
        ignored=ignored,
        fit_checkpoint=fit_checkpoint,
    )
}
