"""Checkpoints on disk: named tensors, of which any slice can be read without the rest."""

import json
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

import ml_dtypes
import numpy as np
import safetensors

from jaxalign.errors import InputError
from jaxalign.io import run_dir

# Names of types in a safetensors header.
SAFETENSORS_DTYPES = {
    np.dtype(dtype): name
    for dtype, name in (
        (np.float64, "F64"),
        (np.float32, "F32"),
        (np.float16, "F16"),
        (ml_dtypes.bfloat16, "BF16"),
        (np.int64, "I64"),
        (np.int32, "I32"),
        (np.int16, "I16"),
        (np.int8, "I8"),
        (np.uint8, "U8"),
        (np.bool_, "BOOL"),
    )
}


@runtime_checkable
class Checkpoint(Protocol):
    """Named tensors."""

    path: pathlib.Path

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor."""
        ...

    def dtypes(self) -> dict[str, np.dtype]:
        """Return the type of each tensor, without reading it."""
        ...

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """Read part of a tensor."""
        ...

    def hash(self) -> str:
        """Return a hash of the content, 16 hexadecimal digits."""
        ...


def shards(index: pathlib.Path) -> list[pathlib.Path]:
    """Return the files that an index of shards names.

    Raises:
      InputError: if it is not JSON with a weight_map from tensors to files next to it.
    """
    try:
        content = json.loads(index.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{index} must be JSON with a weight_map: {error!r}.") from error
    where = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(where, dict) or not where:
        raise InputError(f"{index} must be JSON with a weight_map of tensors: it has none.")
    for name, file in where.items():
        if not isinstance(file, str) or not file.isprintable() or file != pathlib.Path(file).name:
            raise InputError(
                f"{index}: weight_map must name a file next to it for each tensor, found "
                f"{ascii(file)[:80]} for {ascii(name)[:80]}."
            )
    return [index.parent / name for name in sorted(set(where.values()))]


class Safetensors:
    """One `.safetensors` file, or the shards that a `.safetensors.index.json` names."""

    def __init__(self, directory: pathlib.Path):
        """Open the headers of `model.safetensors`, or of all shards, in a directory.

        Raises:
          InputError: if a file is missing, truncated or not safetensors.
        """
        self.path = directory
        index = directory / "model.safetensors.index.json"
        single = directory / "model.safetensors"
        if single.is_file():
            self._files = [single]
        elif index.is_file():
            self._files = shards(index)
        else:
            raise InputError(
                f"{directory} must hold model.safetensors or model.safetensors.index.json."
            )
        self._where: dict[str, pathlib.Path] = {}
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._types: dict[str, str] = {}  # names of safetensors
        for file in self._files:
            try:
                handle = safetensors.safe_open(file, framework="numpy")
            except (OSError, safetensors.SafetensorError) as error:
                raise InputError(
                    f"{file} must be a whole safetensors file: {error}; fetch it again."
                ) from error
            for name in handle.keys():
                stored = handle.get_slice(name)
                self._where[name] = file
                self._shapes[name] = tuple(stored.get_shape())
                self._types[name] = stored.get_dtype()

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor."""
        return self._shapes

    def dtypes(self) -> dict[str, np.dtype]:
        """Return the type of each tensor.

        Raises:
          InputError: if one is of a type that is not read, such as the 8-bit floats.
        """
        types = {name: dtype for dtype, name in SAFETENSORS_DTYPES.items()}
        if odd := [name for name, dtype in self._types.items() if dtype not in types]:
            raise InputError(
                f"{self.path}: tensors must be one of {', '.join(types)}: "
                f"{odd[0]} is {self._types[odd[0]]}."
            )
        return {name: types[dtype] for name, dtype in self._types.items()}

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """Read part of a tensor from the memory-mapped file."""
        # Pages that were read count as this process's memory until the file is unmapped.
        with safetensors.safe_open(self._where[name], framework="numpy") as handle:
            return handle.get_slice(name)[index]

    def hash(self) -> str:
        """Return a hash of the files' contents."""
        return run_dir.hash_text("".join(run_dir.hash_file(file) for file in self._files))


def write_safetensors(
    path: pathlib.Path,
    tensors: Mapping[str, tuple[tuple[int, ...], np.dtype]],
    read: Callable[[str], np.ndarray],
) -> None:
    """Write a safetensors file with one tensor in memory at a time; readers find all of it or none.

    Args:
      path: file to make.
      tensors: name -> shape and type, in the order of the file.
      read: returns a tensor's values.

    Raises:
      ValueError: if what is read has another shape or type than was announced.
    """
    header: dict[str, dict] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (shape, dtype) in tensors.items():
        start, end = end, end + int(np.prod(shape)) * dtype.itemsize
        header[name] = {
            "dtype": SAFETENSORS_DTYPES[dtype],
            "shape": list(shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # values are aligned
    unfinished = path.with_name(path.name + ".unfinished")
    with open(unfinished, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for name, (shape, dtype) in tensors.items():
            values = read(name)
            if values.shape != shape or values.dtype != dtype:
                raise ValueError(
                    f"{name} must be {dtype} {shape}, got {values.dtype} {values.shape}."
                )
            file.write(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)


class Llama2cHeader(NamedTuple):
    """The seven integers at the head of a version 0 llama2.c file."""

    dim: int
    hidden_dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int  # negative: the classifier's weights are not those of the embedding
    seq_len: int


class Llama2c:
    """A llama2.c file (version 0, float32), under the names of a Hugging Face LLaMA.

    Queries and keys are reordered from interleaved to half-split rotary pairs on reading, as
    Hugging Face checkpoints hold them.

    Source: karpathy/llama2.c, `export.py` legacy_export and `run.c` memory_map_weights.
    """

    def __init__(self, path: pathlib.Path):
        """Map a file.

        Raises:
          InputError: if the header is impossible or the size does not fit it.
        """
        self.path = path
        with open(path, "rb") as file:
            head = np.fromfile(file, np.int32, 7)
        if len(head) < 7 or (head[:5] <= 0).any() or head[6] <= 0 or head[0] % head[3]:
            raise InputError(f"{path} must begin with a llama2.c version 0 header.")
        self.header = h = Llama2cHeader(*map(int, head))
        head_size = h.dim // h.n_heads
        kv_dim = h.n_kv_heads * head_size
        vocab = abs(h.vocab_size)
        L, D = h.n_layers, h.dim
        layout = [
            ("model.embed_tokens.weight", (vocab, D)),
            ("model.layers.{}.input_layernorm.weight", (L, D)),
            ("model.layers.{}.self_attn.q_proj.weight", (L, D, D)),
            ("model.layers.{}.self_attn.k_proj.weight", (L, kv_dim, D)),
            ("model.layers.{}.self_attn.v_proj.weight", (L, kv_dim, D)),
            ("model.layers.{}.self_attn.o_proj.weight", (L, D, D)),
            ("model.layers.{}.post_attention_layernorm.weight", (L, D)),
            ("model.layers.{}.mlp.gate_proj.weight", (L, h.hidden_dim, D)),
            ("model.layers.{}.mlp.down_proj.weight", (L, D, h.hidden_dim)),
            ("model.layers.{}.mlp.up_proj.weight", (L, h.hidden_dim, D)),
            ("model.norm.weight", (D,)),
            ("", (2, h.seq_len, head_size // 2)),  # rotary tables, which the model computes
        ]
        if h.vocab_size < 0:
            layout.append(("lm_head.weight", (vocab, D)))
        sizes = [int(np.prod(shape)) for _, shape in layout]
        expected, found = 28 + 4 * sum(sizes), path.stat().st_size
        if expected != found:
            raise InputError(
                f"{path} must have {expected} bytes for {h}, found {found}; fetch it again."
            )
        values = np.memmap(path, np.float32, "r", offset=28)
        self._tensors = {}
        start = 0
        for (name, shape), size in zip(layout, sizes, strict=True):
            block = values[start : start + size].reshape(shape)
            start += size
            if "{}" in name:
                self._tensors |= {name.format(i): block[i] for i in range(L)}
            elif name:
                self._tensors[name] = block
        for name, tensor in self._tensors.items():
            if name.endswith(("q_proj.weight", "k_proj.weight")):
                pairs = tensor.reshape(-1, head_size // 2, 2, D)
                self._tensors[name] = pairs.swapaxes(1, 2).reshape(tensor.shape)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor."""
        return {name: tensor.shape for name, tensor in self._tensors.items()}

    def dtypes(self) -> dict[str, np.dtype]:
        """Return the type of each tensor."""
        return {name: tensor.dtype for name, tensor in self._tensors.items()}

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """Read part of a tensor."""
        return np.asarray(self._tensors[name][index])

    def hash(self) -> str:
        """Return a hash of the file's content."""
        return run_dir.hash_file(self.path)
