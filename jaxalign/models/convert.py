"""Make safetensors or Orbax checkpoints of formats that are not read directly.

  python -m jaxalign.models.convert SOURCE TARGET [--delta BASE --new_rows zero|mean]
      [--format safetensors|orbax]

SOURCE is a directory with `config.json` and weights: `pytorch_model.bin`, its shards with their
index (this needs torch: `pip install jaxalign[convert]`), or safetensors; or a GGUF file (`pip
install jaxalign[gguf]`), which holds configuration and tokenizer too. TARGET is a directory to be
made. With --delta, SOURCE holds a difference, and BASE the model that it is added to. An Orbax
checkpoint holds the parameters in the layout of the network, and is read straight onto any mesh.

One tensor is in memory at a time. Work goes to TARGET.unfinished, which is renamed when all files
are there and fit the network; a conversion that was interrupted goes on where it stopped.
"""

import argparse
import fnmatch
import pathlib
import shutil
import sys

import numpy as np
from tqdm import tqdm

from jaxalign import command_line
from jaxalign.errors import InputError
from jaxalign.io import run_dir
from jaxalign.io.checkpoint import Checkpoint, Safetensors
from jaxalign.models import directories, formats, readers, weights, zoo
from jaxalign.models.gguf_files import SUFFIX, Gguf
from jaxalign.models.torch_files import TorchFiles

FORMATS = ("safetensors", "orbax")
NEW_ROWS = ("zero", "mean")
_BUFFERS = (r"*rotary_emb.inv_freq",)


class Sum:
    """A difference added to its base, in float32, and rounded to the difference's type.

    Source: CarperAI/stable-vicuna-13b-delta and FastChat 0.1 (`apply_delta.py`), which add in
      float16 (one rounding, so the same) and give a base with fewer rows zeros; tatsu-lab's
      `weight_diff.py`, which gives it the mean of its rows.
    """

    def __init__(self, delta: Checkpoint, base: Checkpoint, new_rows: str):
        """Check that the two fit each other, without reading values.

        Args:
          delta: the difference.
          base: what it is added to.
          new_rows: "zero" or "mean": of the base's table, in the rows that only the delta has;
            "" where there are none.

        Raises:
          InputError: if names or shapes differ in any other way.
        """
        self.path, self._delta, self._base, self._new_rows = delta.path, delta, base, new_rows
        self._shapes, theirs = (
            {name: shape for name, shape in x.shapes().items() if not _is_buffer(name)}
            for x in (delta, base)
        )
        if odd := sorted(set(self._shapes) ^ set(theirs)):
            where = delta.path if odd[0] in self._shapes else base.path
            raise InputError(
                f"delta and base must hold the same tensors: {odd[0]} is in {where} alone."
            )
        longer = {}
        for name, shape in self._shapes.items():
            if shape == theirs[name]:
                continue
            table = name.endswith(("embed_tokens.weight", "lm_head.weight"))
            if not table or shape[1:] != theirs[name][1:] or shape[0] < theirs[name][0]:
                raise InputError(
                    f"delta and base must fit: {name} is {list(shape)} in {delta.path}, "
                    f"{list(theirs[name])} in {base.path}."
                )
            longer[name] = shape[0] - theirs[name][0]
        if len(set(longer.values())) > 1:
            raise InputError(f"tables must be longer by the same number of rows: found {longer}.")
        if bool(longer) != bool(new_rows):
            raise InputError(
                "--new_rows must be given where the delta has more rows than its base, and only "
                f"there (zero for StableVicuna, mean for Alpaca): found {new_rows!r} with "
                f"{max(longer.values(), default=0)} rows."
            )

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each tensor."""
        return self._shapes

    def dtypes(self) -> dict[str, np.dtype]:
        """Return the type of each tensor, the delta's."""
        found = self._delta.dtypes()
        return {name: found[name] for name in self._shapes}

    def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """Add; then take the part.

        Raises:
          InputError: if the sum is not finite.
        """
        everything = (slice(None),) * len(self._shapes[name])
        delta = self._delta.read(name, everything)
        base = self._base.read(name, everything).astype(np.float32)
        missing = len(delta) - len(base)
        if missing:
            row = np.zeros_like(base[:1])
            if self._new_rows == "mean":
                row = base.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
            base = np.concatenate([base, np.repeat(row, missing, axis=0)])
        with np.errstate(over="ignore", invalid="ignore"):  # found below
            total = (delta.astype(np.float32) + base).astype(delta.dtype)
        if not np.isfinite(total).all():
            raise InputError(f"delta plus base must be finite: {name} is not, in {delta.dtype}.")
        return total[index]

    def hash(self) -> str:
        """Return a hash of both."""
        return run_dir.hash_text(self._delta.hash() + self._base.hash() + self._new_rows)


def convert(
    source: pathlib.Path,
    target: pathlib.Path,
    *,
    base: pathlib.Path | None = None,
    new_rows: str = "",
    output: str = "safetensors",
    shard_bytes: int = directories.SHARD_BYTES,
) -> None:
    """Convert a directory; see the module.

    Args:
      source: directory with config.json and weights, or with a difference; or a GGUF file.
      target: directory to make.
      base: directory of what a difference is added to.
      new_rows: of `NEW_ROWS`, where the difference has more rows than the base.
      output: of `FORMATS`.
      shard_bytes: most bytes of one safetensors file, if no single tensor is larger.

    Raises:
      InputError: if a file is missing or malformed, or the target is there.
    """
    is_gguf = source.suffix == SUFFIX
    for name, path in (("SOURCE", None if is_gguf else source), ("BASE", base)):
        if path is not None and not (path / "config.json").is_file():
            raise InputError(f"{name} must be a directory with config.json: found {path}.")
    if is_gguf and not source.is_file():
        raise InputError(f"SOURCE must be a GGUF file: there is none at {source}.")
    if is_gguf and base is not None:
        raise InputError("--delta must not be given with a GGUF file, which is no difference.")
    work = directories.unfinished(target, source)
    if new_rows and base is None:
        raise InputError("--new_rows must come with --delta BASE.")
    plan = {
        "files": directories.describe(source) | (directories.describe(base) if base else {}),
        "base": str(base.resolve()) if base else "",
        "new_rows": new_rows,
        "format": output,
        "shard_bytes": shard_bytes,
    }
    opened = Gguf(source) if is_gguf else _open(source)
    if base is not None:
        opened = Sum(opened, _open(base), new_rows)
    hf = opened.config() if isinstance(opened, Gguf) else zoo.read_config(source)
    text = "encoder" if zoo.is_encoder_alone(str(hf["model_type"]), opened) else "both"
    named = str(source) if is_gguf else f"{source}/config.json"
    design, config = zoo.configure(hf, source=named, t5_text=text)
    # Before any value is read: a checkpoint that does not fit its network is not worth converting.
    model = zoo.check(source.resolve().name, design, config, opened, source)
    written = {}
    if isinstance(opened, Gguf):
        written = {"config.json": hf, **opened.tokenizer_files()}
    directories.start(work, plan)
    for name, content in written.items():
        run_dir.write_json(work / name, content)
    if not is_gguf:
        directories.copy_files(source, work)
    if output == "orbax":
        _write_orbax(model, opened, work)
    else:
        directories.write_weights(opened, work, shard_bytes)
        zoo.check(target.name, design, config, Safetensors(work), work)
    directories.finish(work, target)


def _open(path: pathlib.Path) -> Checkpoint:
    hf = zoo.read_config(path)
    if (path / formats.ORBAX).is_dir():
        raise InputError(f"{path} is an Orbax checkpoint already: convert what it was made from.")
    if formats.readable(path):
        formats.refuse(path.name, path, hf)
        return Safetensors(path)
    if any(path.glob("pytorch_model*.bin*")) and not hf.get("quantization_config"):
        return TorchFiles(path)
    formats.refuse(path.name, path, hf)
    raise InputError(f"{path} must hold pytorch_model.bin, model.safetensors, or an index of them.")


def _is_buffer(name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in _BUFFERS)


def _write_orbax(model: zoo.Model, source: Checkpoint, work: pathlib.Path) -> None:
    """Write each parameter to a raw file, and then all of them as one checkpoint."""
    # Orbax is slow to import.
    from jaxalign.io import orbax_tree

    raw = work / "raw"
    raw.mkdir(exist_ok=True)
    tensors = readers.family(model.design).tensors(model.config)
    mapped = {}
    shapes = weights.parameters(zoo.abstract(model.design, model.config))
    for path, struct in tqdm(shapes.items(), desc=f"convert {model.name}", unit=" parameters"):
        tensor = tensors[path]
        read = lambda index, tensor=tensor, struct=struct: weights.read_part(
            source, tensor, model.names, struct.shape, index, dtype=None
        )
        rest = (slice(None),) * (len(struct.shape) - 1)
        stacked = "{layer}" in tensor.name
        parts = [slice(i, i + 1) for i in range(struct.shape[0])] if stacked else [slice(None)]
        dtype = read((parts[0], *rest)).dtype
        file = raw / path.replace("/", ".")
        if not file.is_file():
            unfinished = file.with_name(file.name + ".unfinished")
            with open(unfinished, "wb") as out:
                for part in parts:
                    values = read((part, *rest))
                    if values.dtype != dtype:
                        raise InputError(
                            f"{source.path}: the layers of {path} must be of one type: found "
                            f"{dtype} and {values.dtype}."
                        )
                    out.write(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
            unfinished.rename(file)
        mapped[path] = np.asarray(np.memmap(file, dtype, "r", shape=struct.shape))
    # A checkpoint that was interrupted is incomplete, and quickly written again.
    shutil.rmtree(work / formats.ORBAX, ignore_errors=True)
    for left in work.glob(f"{formats.ORBAX}.*"):
        shutil.rmtree(left)
    orbax_tree.save(work / formats.ORBAX, mapped)
    mapped.clear()
    shutil.rmtree(raw)


def main(argv: list[str]) -> None:
    """Read the command line and convert."""
    parser = argparse.ArgumentParser(
        prog="python -m jaxalign.models.convert",
        description=(__doc__ or "").strip().partition("\n")[0],
    )
    parser.add_argument(
        "source", type=pathlib.Path, help="directory with config.json and weights, or GGUF file"
    )
    parser.add_argument("target", type=pathlib.Path, help="directory to make")
    parser.add_argument("--delta", type=pathlib.Path, metavar="BASE", help="add SOURCE to BASE")
    parser.add_argument(
        "--new_rows", choices=NEW_ROWS, default="", help="of BASE's tables, where SOURCE has more"
    )
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0])
    given = parser.parse_args(argv)
    convert(
        given.source,
        given.target,
        base=given.delta,
        new_rows=given.new_rows,
        output=given.format,
    )


if __name__ == "__main__":
    with command_line.ends_in_one_line(
        kept="what is finished is kept; the same command goes on where it was"
    ):
        main(sys.argv[1:])
