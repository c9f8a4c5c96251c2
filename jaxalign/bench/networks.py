"""Random checkpoints, and transformers + torch on them, as other packages extract activations.

torch and transformers may be absent, and are imported when they are asked for.
"""

import dataclasses
import importlib.util
import pathlib
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
import tokenizers
from jaxtyping import Bool, Float, Int

from jaxalign.checks import Count, at_least, check, one_of
from jaxalign.errors import InputError

FAMILIES = ("gpt2", "llama")
NEEDS = ("torch", "transformers")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """Sizes of a random network with GPT-2's vocabulary."""

    family: Annotated[str, one_of(FAMILIES)] = "gpt2"
    num_layers: Count = 12
    width: Count = 768
    num_heads: Count = 12
    mlp_size: Count = 3072
    max_length: Annotated[int, at_least(16)] = 1024

    def __post_init__(self):
        check(self)
        if self.width % self.num_heads:
            raise InputError(f"num_heads must divide width, got {self.num_heads} and {self.width}.")


def missing() -> list[str]:
    """Return the modules that are needed here and not installed; imports none of them."""
    return [x for x in NEEDS if importlib.util.find_spec(x) is None]


def write(
    folder: pathlib.Path,
    tokenizer: tokenizers.Tokenizer,
    *,
    sizes: Network,
    seed: int,
) -> None:
    """Let transformers draw a network and save it, with a `tokenizer.json` next to it.

    Args:
      folder: is made.
      tokenizer: its vocabulary is embedded; the head is tied to the embedding.
      sizes: of the network; each head of attention has keys and values of its own.
      seed: of the weights.
    """
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    vocab_size = tokenizer.get_vocab_size()
    if sizes.family == "gpt2":
        config = transformers.GPT2Config(
            vocab_size=vocab_size,
            n_layer=sizes.num_layers,
            n_embd=sizes.width,
            n_head=sizes.num_heads,
            n_inner=sizes.mlp_size,
            n_positions=sizes.max_length,
            bos_token_id=None,  # the defaults are of GPT-2's vocabulary
            eos_token_id=None,
        )
    else:
        config = transformers.LlamaConfig(
            vocab_size=vocab_size,
            num_hidden_layers=sizes.num_layers,
            hidden_size=sizes.width,
            num_attention_heads=sizes.num_heads,
            num_key_value_heads=sizes.num_heads,
            intermediate_size=sizes.mlp_size,
            max_position_embeddings=sizes.max_length,
            tie_word_embeddings=True,
        )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = transformers.AutoModelForCausalLM.from_config(config)
    network.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))


def load(folder: pathlib.Path) -> Any:
    """Return transformers' network without head, in float32, for evaluation."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    return transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()


def hidden_states(
    network: Any, tokens: Int[np.ndarray, "B T"], mask: Bool[np.ndarray, "B T"]
) -> list[Float[np.ndarray, "B T D"]]:
    """Return the hidden states of all layers, the embedding first.

    Args:
      network: from `load`.
      tokens: of each row.
      mask: False for padding.
    """
    import torch

    with torch.inference_mode():
        output = network(
            input_ids=torch.from_numpy(tokens.astype(np.int64)),
            attention_mask=torch.from_numpy(mask.astype(np.int64)),
            output_hidden_states=True,
            use_cache=False,
        )
        return [x.numpy() for x in output.hidden_states]


class Prefixes(NamedTuple):
    """What the loop over prefixes gives.

    Attributes:
      vectors: mean over each part's own tokens, in all layers.
      num_tokens: tokens that were passed.
    """

    vectors: Float[np.ndarray, "L m D"]
    num_tokens: int


def encode_prefixes(
    network: Any,
    tokenizer: tokenizers.Tokenizer,
    text: str,
    start: Int[np.ndarray, " m"],
    stop: Int[np.ndarray, " m"],
    *,
    max_length: int,
) -> Prefixes:
    """Encode the text up to the end of each part anew, one row at a time.

    Args:
      network: from `load`.
      tokenizer: of the network.
      text: of all parts.
      start: first character of each part.
      stop: the character after its last.
      max_length: tokens of a prefix that are kept, the last ones.
    """
    vectors, num_tokens = [], 0
    for first, last in zip(start, stop, strict=True):
        encoding = tokenizer.encode(text[:last])
        ids = np.array(encoding.ids)[None, -max_length:]
        ends = np.array(encoding.offsets)[-max_length:]
        within = (ends[:, 1] > first) & (ends[:, 0] < last)
        hidden = hidden_states(network, ids, np.ones(ids.shape, bool))
        vectors.append(np.stack([x[0, within].mean(axis=0) for x in hidden]))
        num_tokens += ids.size
    return Prefixes(np.stack(vectors, axis=1), num_tokens)


def relative_difference(
    found: Sequence[Float[np.ndarray, "..."]], expected: Sequence[Float[np.ndarray, "..."]]
) -> float:
    """Return the largest difference of any entry, relative to the largest entry expected."""
    pairs = list(zip(found, expected, strict=True))
    return float(
        max(np.abs(a - b).max() for a, b in pairs) / max(np.abs(b).max() for _, b in pairs)
    )
