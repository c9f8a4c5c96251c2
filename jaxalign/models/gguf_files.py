"""GGUF files, in which llama.cpp keeps a model: configuration, tensors and tokenizer in one.

Read with the package gguf (`pip install jaxalign[gguf]`): LLaMA and Mistral, Qwen 2 and 3, Gemma.
Quantised tensors are read as float32, which holds every value that 2 to 8 bits and their scales
give exactly; the others keep their type. What llama.cpp changes is changed back: the order of rows
of queries and keys of LLaMA, and the 1 that is added to Gemma's norms.

Source: ggml-org/llama.cpp, `convert_hf_to_gguf.py`, and the specification in ggml-org/ggml.
"""

import collections
import importlib
import pathlib
import re
import struct
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from jaxalign.data.text import gguf_tokenizers
from jaxalign.errors import InputError, one_line
from jaxalign.io import run_dir
from jaxalign.models import formats

SUFFIX = ".gguf"
# Types that hold values; all others are quantised.
_PLAIN = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
}
# What gguf raises of a file that is damaged or is none.
_DAMAGED = (OSError, ValueError, KeyError, IndexError, OverflowError, MemoryError, struct.error)

_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
_NAME = re.compile(r"(?:blk\.(?P<layer>\d+)\.)?(?P<part>[a-z_]+)\.(?P<kind>weight|bias)")


class Layout(NamedTuple):
    """How llama.cpp writes an architecture.

    Attributes:
      config: of `config.json`, what does not follow from the file.
      is_reordered: whether rows of queries and keys lie pair by pair instead of half by half.
      norm_offset: what is added to the weights of norms.
    """

    config: Mapping[str, object]
    is_reordered: bool = False
    norm_offset: float = 0.0


# general.architecture -> how it is written.
LAYOUTS = {
    "llama": Layout({"model_type": "llama"}, is_reordered=True),
    "qwen2": Layout({"model_type": "qwen2"}),
    "qwen3": Layout({"model_type": "qwen3"}),
    "gemma": Layout(
        {"model_type": "gemma", "hidden_activation": "gelu_pytorch_tanh"}, norm_offset=1.0
    ),
}


class Gguf:
    """A GGUF file as a checkpoint: tensors by the names that Hugging Face gives them."""

    def __init__(self, path: pathlib.Path):
        """Read what the file says of itself, and no values.

        Raises:
          InputError: if it cannot be read, or its architecture is not one of `LAYOUTS`.
        """
        self.path, self._library = path, _library()
        try:
            reader = self._library.GGUFReader(str(path))
            self.said = {name: field.contents() for name, field in reader.fields.items()}
            self._tensors = {tensor.name: tensor for tensor in reader.tensors}
        except _DAMAGED as error:
            raise InputError(f"{path} must be a GGUF file: {one_line(error)}.") from error
        architecture = self.said.get("general.architecture")
        if architecture not in LAYOUTS:
            raise InputError(
                f"{path}: general.architecture must be one of {', '.join(LAYOUTS)}, found "
                f"{architecture!r}."
            )
        self._architecture, self._layout = architecture, LAYOUTS[architecture]
        self._own = {self._name(x): x for x in self._tensors}

    def _name(self, name: str) -> str:
        found = _NAME.fullmatch(name)
        if not found or found["part"] not in _NAMES:
            raise InputError(f"{self.path}: tensor {name} is not known of {self._architecture}.")
        layer = f"model.layers.{found['layer']}." if found["layer"] else ""
        return f"{layer}{_NAMES[found['part']]}.{found['kind']}"

    def _of_architecture(self, key: str, default: Any = None) -> Any:
        value = self.said.get(f"{self._architecture}.{key}", default)
        if value is None:
            raise InputError(f"{self.path} must hold {self._architecture}.{key}: it does not.")
        return value

    @property
    def quantization(self) -> str:
        """Types of quantised tensors, that of most numbers first, as "Q4_1+Q8_0"; "" if none is."""
        sizes: collections.Counter[str] = collections.Counter()
        for tensor in self._tensors.values():
            if tensor.tensor_type.name not in _PLAIN:
                sizes[tensor.tensor_type.name] += int(tensor.n_elements)
        return "+".join(name for name, _ in sizes.most_common())

    def config(self) -> dict[str, object]:
        """Return the content of `config.json`.

        Raises:
          InputError: if something is missing, or asks for what is not read (scaled rotary
            embeddings, experts).
        """
        said, at = self.said, self._of_architecture
        scaling = said.get(f"{self._architecture}.rope.scaling.type", "none")
        if scaling != "none":
            raise InputError(
                f"{self.path}: {self._architecture}.rope.scaling.type must be none, found "
                f"{scaling!r}: use the original checkpoint."
            )
        if at("expert_count", 0):
            raise InputError(f"{self.path}: a mixture of experts is not read.")
        width, heads = at("embedding_length"), at("attention.head_count")
        if not isinstance(heads, int):
            raise InputError(f"{self.path}: layers must have equal numbers of heads.")
        head_size = at("attention.key_length", width // heads)
        if at("rope.dimension_count", head_size) != head_size:
            raise InputError(f"{self.path}: all of a head must be rotated.")
        tokens = said.get("tokenizer.ggml.tokens")
        if not tokens:
            raise InputError(f"{self.path} must hold tokenizer.ggml.tokens: it does not.")
        special = {
            f"{name}_token_id": said[f"tokenizer.ggml.{key}_token_id"]
            for name, key in (("bos", "bos"), ("eos", "eos"), ("pad", "padding"))
            if f"tokenizer.ggml.{key}_token_id" in said
        }
        rounded = {formats.QUANTIZATION: self.quantization} if self.quantization else {}
        return {
            **self._layout.config,
            "vocab_size": len(tokens),
            "hidden_size": width,
            "num_hidden_layers": at("block_count"),
            "num_attention_heads": heads,
            "num_key_value_heads": at("attention.head_count_kv", heads),
            "head_dim": head_size,
            "intermediate_size": at("feed_forward_length"),
            "max_position_embeddings": at("context_length"),
            "rms_norm_eps": _decimal(at("attention.layer_norm_rms_epsilon")),
            "rope_theta": _decimal(at("rope.freq_base", 10_000.0)),
            "tie_word_embeddings": "output.weight" not in self._tensors,
            **special,
            **rounded,
        }

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor."""
        return {
            name: tuple(int(x) for x in reversed(self._tensors[own].shape))
            for name, own in self._own.items()
        }

    def dtypes(self) -> dict[str, np.dtype]:
        """Return the type of each tensor as it is read."""
        return {
            name: _PLAIN.get(self._tensors[own].tensor_type.name, np.dtype(np.float32))
            for name, own in self._own.items()
        }

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """Read a tensor, undo what llama.cpp has changed, and take the part.

        Raises:
          InputError: if its kind of quantisation is not known.
        """
        tensor, shape = self._tensors[self._own[name]], self.shapes()[name]
        plain = _PLAIN.get(tensor.tensor_type.name)
        if plain is not None:
            values = np.asarray(tensor.data).reshape(-1).view(plain).reshape(shape)
        else:
            try:
                values = self._library.dequantize(tensor.data, tensor.tensor_type).reshape(shape)
            except NotImplementedError as error:
                raise InputError(
                    f"{self.path}: tensor {tensor.name} is {tensor.tensor_type.name}, which the "
                    "package gguf does not read."
                ) from error
        if self._layout.norm_offset and name.endswith("norm.weight"):
            values = values - np.asarray(self._layout.norm_offset, values.dtype)
        if self._layout.is_reordered and ".q_proj." in name:
            values = _half_by_half(values, self._of_architecture("attention.head_count"))
        if self._layout.is_reordered and ".k_proj." in name:
            heads = self._of_architecture("attention.head_count")
            values = _half_by_half(values, self._of_architecture("attention.head_count_kv", heads))
        return values[index]

    def hash(self) -> str:
        """Return a hash of the file."""
        return run_dir.hash_file(self.path)

    def tokenizer_files(self) -> dict[str, object]:
        """Return the content of `tokenizer.json` and `tokenizer_config.json`, by name.

        Raises:
          InputError: see `gguf_tokenizers.read`.
        """
        return gguf_tokenizers.read(self.said, source=str(self.path))


def _half_by_half(values: np.ndarray, num_heads: int) -> np.ndarray:
    """Order a head's rows as Hugging Face rotates them: first of all pairs, then second."""
    pairs = values.reshape(num_heads, -1, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)


def _decimal(value: float) -> float:
    """Return the shortest decimal that is the same float32: 1e-05 for .00000999999975."""
    return float(str(np.float32(value)))


def _library() -> Any:
    try:
        return importlib.import_module("gguf")
    except ModuleNotFoundError as error:
        raise InputError(
            "GGUF files are read with gguf, which is not installed: pip install jaxalign[gguf]."
        ) from error
