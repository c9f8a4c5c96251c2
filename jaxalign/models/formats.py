"""Where a model's files lie, and whether their format is one that is read."""

import json
import pathlib

import huggingface_hub
from huggingface_hub.errors import HFValidationError

from jaxalign.errors import InputError, one_line
from jaxalign.models import table
from jaxalign.models.families import keys

CONVERT = "python -m jaxalign.models.convert"
FETCH = "python -m jaxalign.models.fetch"
# Key of `config.json` by which `convert` says that weights had been quantised, and to what types.
QUANTIZATION = "gguf_quantization"
ORBAX = "orbax"  # folder in a directory that `convert` made
# Of a model that was tuned with adapters: the folder that holds them, and the file that says how.
ADAPTER, ABOUT = "adapter", "tuning.json"
_ORIGINAL = "use the original weights"


def stop_tokens(path: pathlib.Path, *names: str) -> set[int]:
    """Return the tokens that end an answer, by some files of a model's directory.

    Args:
      path: the directory.
      names: of the files, such as "generation_config.json"; they need not be there.

    Raises:
      InputError: if one is not a JSON object.
    """
    found: set[int] = set()
    for file in (path / name for name in names):
        if not file.is_file():
            continue
        try:
            ids = json.loads(file.read_text(encoding="utf-8")).get("eos_token_id")
        except (ValueError, AttributeError) as error:
            raise InputError(f"{file} must hold a JSON object: {one_line(error)}.") from error
        found.update(ids if isinstance(ids, list) else [] if ids is None else [ids])
    return found


def refuse_quantised(path: pathlib.Path, hf: dict) -> None:
    """Refuse a directory whose weights were quantised.

    Args:
      path: the directory; weights need not be there.
      hf: content of its `config.json`.

    Raises:
      InputError: naming how.
    """
    quantised = hf.get("quantization_config") or {}
    if not isinstance(quantised, dict):
        raise InputError(
            f"{path}/config.json: quantization_config must be an object, found "
            f"{keys.shown(quantised)}."
        )
    method = quantised.get("quant_method") or (
        "bitsandbytes" if quantised.get("load_in_8bit") or quantised.get("load_in_4bit") else None
    )
    for file, of in {"quantize_config.json": "gptq", "quant_config.json": "awq"}.items():
        if not quantised and (path / file).is_file():
            quantised, method = {"file": file}, of
    if quantised:
        raise InputError(
            f"{path}: quantised checkpoints are not supported (found {method!r}); {_ORIGINAL}."
        )


def refuse(name: str, path: pathlib.Path, hf: dict) -> None:
    """Refuse a directory whose format is not read, and name the format.

    Args:
      name: of the model.
      path: its directory.
      hf: content of its `config.json`.

    Raises:
      InputError: saying what is there and what to do.
    """
    refuse_quantised(path, hf)
    if readable(path):
        return
    found = lambda pattern: next((file.name for file in sorted(path.glob(pattern))), None)
    if file := found("*.gguf"):
        raise InputError(
            f"model {name}: {path} must hold safetensors, found {file}: run "
            f"{CONVERT} {path / file} TARGET once, and use TARGET."
        )
    if file := found("pytorch_model*.bin") or found("pytorch_model.bin.index.json"):
        raise InputError(
            f"model {name}: {path} must hold safetensors, found {file}: run "
            f"{CONVERT} {path} TARGET once, and use TARGET."
        )
    if file := found("consolidated*.pth"):
        raise InputError(
            f"model {name}: {path} must hold a Hugging Face checkpoint: {file} is in LLaMA's "
            "original layout, which transformers' convert_llama_weights_to_hf.py converts."
        )
    if found("adapter_model.*"):
        raise InputError(
            f"model {name}: {path} holds an adapter alone; merge it with its base (peft, "
            "merge_and_unload) and use the merged directory."
        )


def readable(path: pathlib.Path) -> bool:
    """Return whether a directory holds weights in a format that is read."""
    files = ("model.safetensors", "model.safetensors.index.json")
    return (path / ORBAX).is_dir() or any((path / file).is_file() for file in files)


def cached(repository: str, revision: str = "main") -> pathlib.Path | None:
    """Return the folder of a repository in Hugging Face's local cache, None if it is not there.

    `huggingface_hub` says where the cache is (`HF_HUB_CACHE`, `HF_HOME`, `XDG_CACHE_HOME`, in this
    order). Nothing is downloaded.

    Args:
      repository: organisation/name.
      revision: branch, tag or commit.
    """
    try:
        file = huggingface_hub.try_to_load_from_cache(repository, "config.json", revision=revision)
    except HFValidationError:  # no name that a repository can have
        return None
    return pathlib.Path(file).parent if isinstance(file, str) else None


def cached_row(row: table.Row) -> pathlib.Path | None:
    """Return the folder of a row's repository in the cache; None if it is not there.

    The oldest repositories had no organisation (`distilgpt2`), and caches that were filled under
    that name are kept.

    Args:
      row: of the table.
    """
    names = (row.repository, row.repository.rpartition("/")[2])
    return next((x for x in (cached(name, row.revision) for name in names) if x), None)


def locate(name: str, row: table.Row) -> pathlib.Path:
    """Return the local folder of a named model of the hub.

    Raises:
      InputError: if it is not in the cache, or there as a difference from another model.
    """
    path = cached_row(row)
    if row.delta_of:
        raise InputError(
            f"model {name} was published as a difference from {row.delta_of} "
            f"({row.repository}): run {CONVERT} {path or 'DELTA'} TARGET --delta BASE once, and "
            "use TARGET, a directory, in the place of the name."
        )
    if path is None:
        raise InputError(
            f"model {name} is not on this machine: it was published as {row.repository} (revision "
            f"{row.revision}). {_fetch_it(name, row)}, or give a local directory in the place of "
            "the name."
        )
    return path


def is_of_the_hub(row: table.Row) -> bool:
    """Return whether a model was published on the hub."""
    return not (row.package or row.data or row.repository.startswith("github.com/"))


def _fetch_it(name: str, row: table.Row) -> str:
    if is_of_the_hub(row):
        return f"Run {FETCH} {name}, which brings it to Hugging Face's cache (HF_HOME)"
    return "Bring it to Hugging Face's cache (HF_HOME)"
