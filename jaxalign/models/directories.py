"""Directories of models that are being made: what stands beside the weights, and the weights.

Work goes to a folder of its own (`TARGET.unfinished`), whose plan says from what it is made: the
same command goes on with it, any other is refused.
"""

import fnmatch
import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import numpy as np
from tqdm import tqdm

from jaxalign.data.text import hf_tokenizers, tokenizer_files
from jaxalign.errors import InputError
from jaxalign.io import checkpoint as checkpoint_lib
from jaxalign.io import run_dir
from jaxalign.io.checkpoint import Checkpoint, Llama2c
from jaxalign.models import zoo
from jaxalign.models.families import llama

SHARD_BYTES = 4 * 2**30
CONFIG = "config.json"
_PLAN = "conversion.json"  # source and settings of what is unfinished
# Files next to the weights: configuration, tokenizers, chat templates.
COPIED = ("*.json", "*.model", "*.txt", "*.jinja", "*.tiktoken")
# What tells of weights in another format.
NOT_COPIED = ("*.index.json", "quantize_config.json", "adapter_config.json", _PLAN)


def unfinished(target: pathlib.Path, source: pathlib.Path) -> pathlib.Path:
    """Return where a directory is made, until it is whole.

    Args:
      target: the directory.
      source: what it is made from.

    Raises:
      InputError: if the directory is there, or would lie in its source.
    """
    if target.exists():
        raise InputError(f"TARGET must not be there yet: found {target}.")
    if target.resolve().is_relative_to(source.resolve()):
        raise InputError(f"TARGET must not lie in SOURCE, {source}: found {target}.")
    return target.with_name(target.name + ".unfinished")


def describe(path: pathlib.Path) -> dict[str, list[int]]:
    """Return size and time of each file, by which a source that has changed is recognised."""
    files = path.rglob("*") if path.is_dir() else (path,)
    stats = {str(file.resolve()): file.stat() for file in files if file.is_file()}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in sorted(stats.items())}


def start(work: pathlib.Path, plan: Mapping[str, Any]) -> None:
    """Make the folder of unfinished work, or go on with one of the same plan.

    Args:
      work: the folder.
      plan: what it is made from, as JSON has it.

    Raises:
      InputError: if what is there was made by another plan.
    """
    if work.exists():
        try:
            found = json.loads((work / _PLAN).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            found = None
        if found != plan:
            raise InputError(
                f"{work} is there from another conversion (other files or settings): remove it."
            )
        return
    work.mkdir(parents=True)
    run_dir.write_json(work / _PLAN, plan)


def finish(work: pathlib.Path, target: pathlib.Path) -> None:
    """Give a folder that is whole its name."""
    (work / _PLAN).unlink()
    work.rename(target)


def copy_files(source: pathlib.Path, folder: pathlib.Path) -> None:
    """Copy what a model's directory holds beside the weights.

    Args:
      source: directory of the model.
      folder: to copy to.
    """
    for file in sorted(source.iterdir()):
        matches = lambda patterns, file=file: any(fnmatch.fnmatch(file.name, p) for p in patterns)
        if file.is_file() and matches(COPIED) and not matches(NOT_COPIED):
            shutil.copyfile(file, folder / file.name)


def config_of(model: zoo.Model) -> dict[str, Any]:
    """Return the content of a model's `config.json`, that of a llama2c file too, which has none."""
    if isinstance(model.checkpoint, Llama2c):
        return llama.hf_from_llama2c(model.checkpoint.header)
    return zoo.read_config(folder_of(model))


def folder_of(model: zoo.Model) -> pathlib.Path:
    """Return the directory that holds `config.json` and tokenizer of a model that has one."""
    assert model.tokenizer_path is not None
    return model.tokenizer_path


def write_files(model: zoo.Model, folder: pathlib.Path) -> None:
    """Write what a model's directory holds beside the weights: configuration and tokenizer.

    Args:
      model: whose they are, from `zoo.find`.
      folder: to write to.
    """
    if isinstance(model.checkpoint, Llama2c):
        run_dir.write_json(folder / CONFIG, config_of(model))
        _write_llama2c_tokenizer(folder_of(model), folder)
    else:
        copy_files(folder_of(model), folder)


def _write_llama2c_tokenizer(file: pathlib.Path, folder: pathlib.Path) -> None:
    """Write the tokenizer of a llama2c file as Hugging Face's are read."""
    tokenizer = tokenizer_files.load(file)
    run_dir.write_json(folder / "tokenizer.json", json.loads(tokenizer.to_str()))
    names = {"bos_token": 1, "eos_token": 2}
    run_dir.write_json(
        folder / hf_tokenizers.CONFIG,
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            **{name: tokenizer.id_to_token(i) for name, i in names.items()},
        },
    )


def write_weights(source: Checkpoint, work: pathlib.Path, shard_bytes: int) -> list[str]:
    """Write the safetensors that are not there yet, and then their index.

    Args:
      source: the tensors, one of which is in memory at a time.
      work: folder to write to.
      shard_bytes: most bytes of one file, if no single tensor is larger.

    Returns:
      Names of the files.
    """
    dtypes = source.dtypes()
    shards, size, total_bytes = [{}], 0, 0
    for name, shape in source.shapes().items():
        needed = int(np.prod(shape)) * dtypes[name].itemsize
        if shards[-1] and size + needed > shard_bytes:
            shards.append({})
            size = 0
        shards[-1][name] = (shape, dtypes[name])
        size += needed
        total_bytes += needed
    files = ["model.safetensors"]
    if len(shards) > 1:
        count = len(shards)
        files = [f"model-{i + 1:05}-of-{count:05}.safetensors" for i in range(count)]
    total = sum(map(len, shards))
    with tqdm(total=total, desc=f"write {work.stem}", unit=" tensors") as progress:

        def read(name):
            progress.update()
            return source.read(name, (slice(None),) * len(source.shapes()[name]))

        for file, shard in zip(files, shards, strict=True):
            if (work / file).is_file():  # whole, since it was renamed when it was
                progress.update(len(shard))
            else:
                checkpoint_lib.write_safetensors(work / file, shard, read)
    if len(shards) > 1:
        where = {name: file for file, shard in zip(files, shards, strict=True) for name in shard}
        index = {"metadata": {"total_size": total_bytes}, "weight_map": where}
        run_dir.write_json(work / "model.safetensors.index.json", index)
    return files
