"""Special tokens of a model by their role: its tokenizer as transformers reads it, end tokens."""

import pathlib
from typing import Any

from jaxalign.data.text import hf_tokenizers, tokenizer_files
from jaxalign.errors import InputError
from jaxalign.models import formats, zoo

# Roles of llama2.c's special tokens, which its file does not name.
_LLAMA2C = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def load(model: zoo.Model, *, add_bos_token: bool | None = None) -> Any:
    """Read a model's tokenizer through transformers, as lm-evaluation-harness's backend does.

    Without a `tokenizer_config.json`, the ids in `config.json` give the roles of special tokens.

    Args:
      model: from `zoo.find`.
      add_bos_token: whether texts begin with its first token; None: what its files say.

    Returns:
      A `transformers.PreTrainedTokenizerBase`.

    Raises:
      InputError: if it cannot be read, has no end token, or was made for another model.
    """
    path = model.tokenizer_path
    options = {} if add_bos_token is None else {"add_bos_token": add_bos_token}
    if path.is_dir() and (path / hf_tokenizers.CONFIG).is_file():
        tokenizer = hf_tokenizers.load(path, **options)
    else:
        backend = tokenizer_files.load(path)
        special = _special(path, backend) if path.is_dir() else _LLAMA2C
        if add_bos_token and "bos_token" not in special:
            raise InputError(
                f"model_args add_bos_token: the tokenizer of {model.name} must have a first token: "
                f"give bos_token in {path}/tokenizer_config.json, or bos_token_id in config.json."
            )
        transformers = hf_tokenizers.import_transformers()
        tokenizer = transformers.PreTrainedTokenizerFast(
            tokenizer_object=backend, **special, **options
        )
        tokenizer.name_or_path = model.name
    if tokenizer.eos_token_id is None:
        raise InputError(
            f"model {model.name}: its tokenizer must have an end token: give eos_token in "
            f"{path}/tokenizer_config.json, or eos_token_id in config.json."
        )
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        # transformers has no other way to take tokens away.
        tokenizer._tokenizer = tokenizer_files.fit(
            backend, model.config.vocab_size, model=model.name
        )
    return tokenizer


def end_ids(model: zoo.Model, tokenizer: Any) -> frozenset[int]:
    """Return all tokens that end an answer: the tokenizer's, and those that generation names.

    Raises:
      InputError: if a file that names them is not JSON.
    """
    found = {tokenizer.eos_token_id}
    if model.tokenizer_path.is_dir():
        files = ("config.json", "generation_config.json")
        found |= formats.stop_tokens(model.tokenizer_path, *files)
    return frozenset(found)


def _special(folder: pathlib.Path, backend: Any) -> dict[str, str]:
    """Return special tokens by their role, from the ids in `config.json`."""
    hf = zoo.read_config(folder)
    ids = {role: hf.get(f"{role}_id") for role in ("bos_token", "eos_token", "pad_token")}
    found = {role: backend.id_to_token(i) for role, i in ids.items() if isinstance(i, int)}
    return {role: token for role, token in found.items() if token is not None}
