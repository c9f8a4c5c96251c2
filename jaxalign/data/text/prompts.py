"""What is put around a part and its context, and between parts: a prompt, a turn of a chat."""

import pathlib
from collections.abc import Iterable
from typing import NamedTuple

from jaxalign.data.text import chats, hf_tokenizers
from jaxalign.errors import InputError

# Stands for the text while a template is rendered: letters only, which no template alters.
_MARK = "JAXALIGNxTEXTxHERE"


class Frame(NamedTuple):
    """What stands around a part and its context, and between parts.

    Attributes:
      before, after: joined to the text as they are; they are never cut.
      special_tokens: whether the tokenizer adds its special tokens; a chat template writes them
        itself.
      bos: token to begin every row with, of tokenizers that add none; empty: none. With one, the
        first part of a text has a surprisal.
      joining: how parts become a text; see `joining.join`.
    """

    before: str = ""
    after: str = ""
    special_tokens: bool = True
    bos: str = ""
    joining: str = "text"


BARE = Frame()


def chat(
    folder: pathlib.Path,
    texts: Iterable[str],
    *,
    prompt: str = "",
    suffix: str = "",
    system: str = "",
) -> Frame:
    """Render the chat template that comes with a model around a user's turn.

    The turn is prompt + text + suffix.

    Args:
      folder: holds `tokenizer_config.json`, and the template in it or in `chat_template.jinja`.
      texts: what will be framed; that the template takes every text as it is is checked.
      prompt, suffix: of the user's turn, spaces included.
      system: the system's turn before; empty: none.

    Raises:
      InputError: if there is no template, or it fails or alters a text.
    """
    tokenizer = hf_tokenizers.load(folder)
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            f"{folder} must hold a chat template (in tokenizer_config.json or "
            "chat_template.jinja): there is none; the model was not made for chats."
        )
    first = [{"role": "system", "content": system}] if system else []
    texts = list(texts)
    turns = [
        [*first, {"role": "user", "content": prompt + text + suffix}] for text in (_MARK, *texts)
    ]
    marked, *rendered = chats.render(tokenizer, turns, source=folder)
    before, found, after = marked.partition(_MARK)
    if not found or _MARK in after:
        raise InputError(f"{folder}: the chat template must hold the user's turn once.")
    first_token = tokenizer.bos_token
    if first_token and prompt.startswith(first_token) and before.startswith(first_token):
        raise InputError(
            f"extract.prompt must not begin with {first_token!r}: the chat template of {folder} "
            "writes it."
        )
    for text, found in zip(texts, rendered, strict=True):
        if found != before + text + after:
            raise InputError(
                f"{folder}: the chat template must take a text as it is, but alters {text!r}."
            )
    return Frame(before, after, special_tokens=False)
