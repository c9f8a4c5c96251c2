"""Write a model as Hugging Face's libraries read it.

  python -m jaxalign.models.export MODEL TARGET [--dtype float32|bfloat16|float16]
      [--t5_text encoder] [--data_root PATH]
  python -m jaxalign.models.export MODEL TARGET --adapter BASE

MODEL is a name or a directory, as everywhere: also one that holds parameters in the layout of the
network (`orbax/`), as `models.convert` and tuning make it. TARGET is a directory to be made: it
holds `config.json`, the tokenizer's files, and `model.safetensors`, or several with an index.

Values are written as they are stored, or rounded to --dtype; `config.json` says which. What no
activation passes through (a pooler, buffers) is not written. Names of tensors are those of loading,
turned round. One tensor is in memory at a time; of a checkpoint in our layout, all layers of the
parameters that it is made of. Work goes to TARGET.unfinished, which is renamed when all files are
there and have been read again; an export that was interrupted goes on where it stopped.

With --adapter, MODEL is a directory of a model that was tuned with adapters, and TARGET becomes the
adapter as PEFT reads it, to be put on BASE, a repository or a directory that transformers reads.
"""

import argparse
import collections
import dataclasses
import functools
import os
import pathlib
import re
import sys
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from jaxalign import command_line
from jaxalign.errors import InputError
from jaxalign.io import run_dir
from jaxalign.io.checkpoint import Checkpoint, Safetensors
from jaxalign.models import adapter_files, directories, readers, weights, zoo

DTYPES = {
    "float32": np.dtype(np.float32),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
    "float16": np.dtype(np.float16),
}


class _Piece(NamedTuple):
    """A parameter, or a layer of one, that fills a stored tensor or part of it."""

    path: str
    tensor: weights.Tensor
    shape: tuple[int, ...]  # of the whole parameter
    layer: int | None


class Published:
    """A model's parameters as the tensors of the checkpoint that transformers writes of it."""

    def __init__(self, model: zoo.Model, dtype: str = ""):
        """Name the tensors; reads no values.

        Args:
          model: from `zoo.find`.
          dtype: of `DTYPES`; "": as stored.

        Raises:
          InputError: if networks of its family lack a part of such a checkpoint.
        """
        design = readers.family(model.design)
        self.path, self._model = directories.folder_of(model), model
        self._dtype = DTYPES[dtype] if dtype else None
        if design.unread:
            raise InputError(
                f"model {model.name}: a {model.design} cannot be exported, because {design.unread} "
                "is not part of the network."
            )
        tensors = design.tensors(model.config)
        pieces: dict[str, list[_Piece]] = collections.defaultdict(list)
        shapes = {}
        for path, struct in weights.parameters(zoo.abstract(model.design, model.config)).items():
            tensor = tensors[path]
            stacked = "{layer}" in tensor.name
            for layer in range(struct.shape[0]) if stacked else (None,):
                name = design.stored_name(tensor.of_layer(layer or 0), model.config)
                pieces[name].append(_Piece(path, tensor, struct.shape, layer))
                shapes[name] = tensor.stored_shape(struct.shape[1:] if stacked else struct.shape)
        # Tensors of the same parameters follow each other: a checkpoint of ours is cut into pieces
        # across all layers, so that one layer costs as much as all.
        order = lambda name: ([x.path for x in pieces[name]], _in_order(name))
        self._pieces = {name: pieces[name] for name in sorted(pieces, key=order)}
        self._held: dict[str, np.ndarray] = {}
        self._shapes = {name: shapes[name] for name in self._pieces}
        for name, found in self._pieces.items():
            assert sum(map(_size, found)) == int(np.prod(shapes[name])), name

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor."""
        return self._shapes

    def dtypes(self) -> dict[str, np.dtype]:
        """Return the type of each tensor as it is written."""
        return self._dtypes

    @functools.cached_property
    def _dtypes(self) -> dict[str, np.dtype]:
        if self._dtype is not None:
            return dict.fromkeys(self._shapes, self._dtype)
        stored = self._model.checkpoint.dtypes()
        named = isinstance(self._model.checkpoint, Checkpoint)
        dtype = lambda piece: np.dtype(stored[self._stored(piece) if named else piece.path])
        widest = lambda found: max(map(dtype, found), key=lambda x: x.itemsize)
        return {name: widest(found) for name, found in self._pieces.items()}

    def _stored(self, piece: _Piece) -> str:
        return self._model.names[piece.tensor.of_layer(piece.layer or 0)]

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """Put a tensor together, and take the part.

        Raises:
          InputError: if a value is not finite in the type that is written.
        """
        stored = np.empty(self._shapes[name], self._dtypes[name])
        for piece in self._pieces[name]:
            values = self._values(piece, {x.path for x in self._pieces[name]})
            with np.errstate(over="ignore"):  # found below
                written = values.astype(stored.dtype)
            if stored.dtype != values.dtype and not np.isfinite(written).all():
                raise InputError(
                    f"model {self._model.name}: {name} must be finite in {stored.dtype}, and is "
                    f"not: its largest value is {np.abs(values.astype(np.float32)).max():.3g}."
                )
            piece.tensor.write(stored, written)
        return stored[index]

    def _values(self, piece: _Piece, together: set[str]) -> np.ndarray:
        """Read a parameter, or its layer; all of a checkpoint of ours that a tensor is made of."""
        every = tuple(slice(0, size) for size in piece.shape)
        if isinstance(self._model.checkpoint, Checkpoint):
            if piece.layer is None:
                return self._model.parameter(piece.path, piece.shape, every)
            one = slice(piece.layer, piece.layer + 1)
            return self._model.parameter(piece.path, piece.shape, (one, *every[1:]))[0]
        if piece.path not in self._held:
            self._held = {path: x for path, x in self._held.items() if path in together}
            self._held[piece.path] = self._model.parameter(piece.path, piece.shape, every)
        found = self._held[piece.path]
        return found if piece.layer is None else found[piece.layer]

    def hash(self) -> str:
        """Return a hash of what the parameters are read from."""
        return self._model.weights_hash

    def left_out(self) -> list[str]:
        """Return the tensors of the source that the network does not use."""
        if not isinstance(self._model.checkpoint, Checkpoint):
            return []
        used = {self._stored(piece) for found in self._pieces.values() for piece in found}
        return sorted(set(self._model.checkpoint.shapes()) - used)


def _size(piece: _Piece) -> int:
    return int(np.prod(piece.shape[0 if piece.layer is None else 1 :]))


def _in_order(name: str) -> list[tuple[bool, int, str]]:
    """Return what sorts names, layer 10 after layer 9."""
    return [(x.isdigit(), int(x) if x.isdigit() else 0, x) for x in re.split(r"(\d+)", name)]


def export(
    model: zoo.Model,
    target: pathlib.Path,
    *,
    dtype: str = "",
    shard_bytes: int = directories.SHARD_BYTES,
) -> str:
    """Export a model; see the module.

    Args:
      model: from `zoo.find`.
      target: directory to make.
      dtype: of `DTYPES`; "": as stored.
      shard_bytes: most bytes of one safetensors file, if no single tensor is larger.

    Returns:
      A line that says what was written.

    Raises:
      InputError: if the target is there, or the model cannot be written: see `Published`.
    """
    work = directories.unfinished(target, directories.folder_of(model))
    model, config = _as_written(model)
    published = Published(model, dtype)
    where = directories.folder_of(model)
    source = model.checkpoint.path if where.is_file() else where
    plan = {"files": directories.describe(source), "dtype": dtype, "shard_bytes": shard_bytes}
    directories.start(work, plan)
    sizes = collections.Counter[str]()
    for name, found in published.dtypes().items():
        sizes[found.name] += int(np.prod(published.shapes()[name])) * found.itemsize
    directories.write_files(model, work)
    run_dir.write_json(work / directories.CONFIG, _with_dtype(config, sizes))
    files = directories.write_weights(published, work, shard_bytes)
    _check(model, target, work)
    directories.finish(work, target)
    what = " and ".join(f"{size / 1e6:,.1f} MB of {name}" for name, size in sizes.most_common())
    said = f"{target}: {model.num_parameters:,} parameters, {what}, in {len(files)} file"
    said += "s" if len(files) > 1 else ""
    if left := published.left_out():
        shown = ", ".join(left[:3]) + (", ..." if len(left) > 3 else "")
        said += f"; not written, because no activation passes through: {len(left)} ({shown})"
    return said + "."


def _as_written(model: zoo.Model) -> tuple[zoo.Model, dict[str, Any]]:
    """Return a model and its `config.json`, of the text alone where no more is in the network."""
    config = directories.config_of(model)
    alone = readers.family(model.design).text_alone
    if not alone:
        return model, config
    tied = {"tie_word_embeddings": model.config.tied_embeddings}
    return dataclasses.replace(model, design=alone), config["text_config"] | {
        "model_type": alone,
        **tied,
    }


def _with_dtype(config: dict[str, Any], sizes: collections.Counter[str]) -> dict[str, Any]:
    """Say in `config.json` what type the weights have, that of most of them."""
    (dtype, _), *_ = sizes.most_common(1)
    known = [name for name in ("dtype", "torch_dtype") if name in config] or ["torch_dtype"]
    return config | dict.fromkeys(known, dtype)


def _check(model: zoo.Model, target: pathlib.Path, work: pathlib.Path) -> None:
    """Read what was written: names and shapes must fit, and the network be the same."""
    hf = zoo.read_config(work)
    text = {"t5_text": model.config.text} if model.design == "t5" else {}
    whole = model.design == readers.whole(hf["model_type"])
    design, config = zoo.configure(hf, source=f"{work}/config.json", whole=whole, **text)
    found = zoo.check(target.name, design, config, Safetensors(work), work)
    assert found.config_hash == model.config_hash, (found.config, model.config)


def export_adapter(model: zoo.Model, target: pathlib.Path, *, base: str) -> str:
    """Export the adapters that lie beside a tuned model; see the module.

    Args:
      model: from `zoo.find`.
      target: directory to make.
      base: what they are to be put on.

    Returns:
      A line that says what was written.

    Raises:
      InputError: if the target is there, or the model has no adapters that can be written.
    """
    folder = directories.folder_of(model)
    work = directories.unfinished(target, folder)
    adapters = adapter_files.of_folder(folder)
    adapter_files.write(work, model, adapters, base=base)
    work.rename(target)
    count = sum(a.size + b.size for a, b in adapters.arrays.values())
    return (
        f"{target}: adapters of rank {adapters.rank} on {len(adapters.arrays)} kinds of maps, "
        f"alpha {adapters.alpha:g}, {count:,} parameters, for {base}."
    )


def main(argv: list[str]) -> None:
    """Read the command line and export."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxalign.models.export",
        description=(__doc__ or "").strip().partition("\n")[0],
    )
    parser.add_argument("model", help="name or directory")
    parser.add_argument("target", type=pathlib.Path, help="directory to make")
    parser.add_argument("--dtype", choices=DTYPES, default="", help="default: as stored")
    parser.add_argument(
        "--adapter", metavar="BASE", default="", help="write the adapters of MODEL, for BASE"
    )
    parser.add_argument("--t5_text", choices=("both", "encoder"), default="both")
    parser.add_argument(
        "--data_root",
        type=pathlib.Path,
        default=os.environ.get("JAXALIGN_DATA"),
        help="folder of data, for models that lie there (default: JAXALIGN_DATA)",
    )
    given = parser.parse_args(argv)
    data_root = given.data_root and pathlib.Path(given.data_root)
    model = zoo.find(given.model, data_root, t5_text=given.t5_text)
    if given.adapter and given.dtype:
        raise InputError("--dtype must not be given with --adapter: adapters stay as they are.")
    if given.adapter:
        said = export_adapter(model, given.target, base=given.adapter)
    else:
        said = export(model, given.target, dtype=given.dtype)
    sys.stdout.write(said + "\n")


if __name__ == "__main__":
    with command_line.ends_in_one_line(
        kept="what is finished is kept; the same command goes on where it was"
    ):
        main(sys.argv[1:])
