"""Chats as lm-evaluation-harness has them written."""

from collections.abc import Sequence
from typing import Any

from absl import logging

from jaxalign.data.text import chats as templates
from jaxalign.errors import InputError


def check_chat(tokenizer: Any, *, model: str) -> None:
    """Refuse chats with a model that has no chat template.

    Raises:
      InputError: if there is no chat template.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            f"model {model} must have a chat template (in tokenizer_config.json or "
            "chat_template.jinja): there is none; run without --apply_chat_template."
        )


def write_chat(tokenizer: Any, turns: Sequence[dict[str, str]], *, ask: bool, model: str) -> str:
    """Write the turns of a chat as a model was trained to read them.

    Where the template takes no system's turn, the chat is written without it, as the harness's
    Hugging Face backend does, and the log says so.

    Args:
      tokenizer: from `special_tokens.load`.
      turns: "role" and "content" of each.
      ask: whether the beginning of an answer follows; else the last turn is continued.
      model: its name, for the message.

    Raises:
      InputError: if there is no template, or it does not take the turns.
    """
    check_chat(tokenizer, model=model)
    write = lambda turns: templates.render(
        tokenizer, [turns], source=f"model {model}", ask=ask, continued=not ask
    )[0]
    try:
        return write(list(turns))
    except templates.TemplateError as error:
        shorter = [turn for turn in turns if turn["role"] != "system"]
        if len(shorter) == len(turns):
            raise
        logging.log_first_n(
            logging.WARNING,
            "The chat template of %s takes no system's turn, which is left out (%s)",
            1,
            model,
            error,
        )
        return write(shorter)
