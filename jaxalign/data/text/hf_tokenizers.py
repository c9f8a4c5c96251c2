"""Tokenizers through transformers, which knows what each of their files says."""

import json
import os
import pathlib
from typing import Any

from jaxalign.errors import InputError, one_line

CONFIG = "tokenizer_config.json"


def load(folder: pathlib.Path, **options: Any) -> Any:
    """Read the tokenizer of a folder with `tokenizer_config.json`.

    Code that the folder brings is never run, and nobody is asked whether it may be. Where
    transformers has the class that is named, that class reads the files.

    Args:
      folder: holds the tokenizer's files.
      options: of the tokenizer, in the place of what its files say.

    Returns:
      A `transformers.PreTrainedTokenizerBase`.

    Raises:
      InputError: if it cannot be read, or only by code of its own.
    """
    transformers = import_transformers()
    _refuse_own_code(folder)
    try:
        return transformers.AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False, **options
        )
    except Exception as error:  # what it raises depends on the class that the folder names
        raise InputError(
            f"{folder} must hold a tokenizer that transformers reads: {one_line(error)}."
        ) from error


def load_as_it_is(folder: pathlib.Path) -> Any:
    """Read a `tokenizer.json` with what `added_tokens.json` beside it adds, whatever its class.

    Raises:
      InputError: if it cannot be read.
    """
    try:
        return import_transformers().PreTrainedTokenizerFast.from_pretrained(
            str(folder), local_files_only=True
        )
    except Exception as error:  # the libraries raise nothing more specific
        raise InputError(
            f"{folder} must hold a tokenizer.json and added tokens: {one_line(error)}."
        ) from error


def import_transformers() -> Any:
    """Import transformers without its advice to install torch, which is not needed here.

    Raises:
      InputError: if it is not installed.
    """
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    try:
        import transformers
    except ImportError as error:
        raise InputError(
            "tokenizer_config.json and chat templates need the package transformers: it is not "
            "installed."
        ) from error
    return transformers


def _refuse_own_code(folder: pathlib.Path) -> None:
    """Refuse a tokenizer whose class transformers does not have, but the folder.

    Raises:
      InputError: naming the code.
    """
    file = folder / CONFIG
    if not file.is_file():
        return
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
        named = settings.get("auto_map")
        name = settings.get("tokenizer_class")
    except (ValueError, AttributeError, RecursionError) as error:
        raise InputError(f"{file} must hold a JSON object: {one_line(error)}.") from error
    code = named.get("AutoTokenizer") if isinstance(named, dict) else named
    if not code:
        return
    from transformers.models.auto.tokenization_auto import tokenizer_class_from_name

    if isinstance(name, str) and tokenizer_class_from_name(name) is not None:
        return
    raise InputError(
        f"{file} must name a tokenizer_class of transformers, found {name!r} and code of its own "
        f"(auto_map: {json.dumps(code)}), which is not run: put the model's tokenizer.json beside "
        "it and name tokenizer_class PreTrainedTokenizerFast."
    )
