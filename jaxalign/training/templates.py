"""How a row becomes a text: Alpaca's template, none, or the chat template of a tokenizer."""

import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

from jaxalign.data.text import chats
from jaxalign.errors import InputError
from jaxalign.training.instructions import Row, Turn

TEMPLATES = ("alpaca", "plain", "chat")
# What stands around an instruction, and its input if it has one; the response follows directly.
# Source: tatsu-lab/stanford_alpaca (commit 761dc5b), train.py, PROMPT_DICT.
_BEGINS = "Below is an instruction that describes a task"
_WITH_INPUT = ", paired with an input that provides further context"
_ENDS = ". Write a response that appropriately completes the request.\n\n"
_HEADING = "### Instruction:\n"


class Piece(NamedTuple):
    """A part of a text."""

    text: str
    is_response: bool


def pieces(row: Row, template: str, *, heading: bool = True) -> list[Piece]:
    """Write a row of one instruction and one response.

    Args:
      row: with the turns of a user and of the assistant.
      template: "alpaca", or "plain": the instruction, an empty line, the input if there is one, and
        the response directly after it.
      heading: whether the section of the instruction stands in Alpaca's template, be it empty.

    Raises:
      InputError: if the row has other turns, or there is no such template.
    """
    if [turn.role for turn in row.turns] != ["user", "assistant"]:
        raise InputError(
            f"{row.place} must have one instruction and one response for template={template}, "
            f"found {len(row.turns)} turns: template=chat takes conversations."
        )
    asked, answered = row.turns
    prompt = _alpaca(asked, heading=heading) if template == "alpaca" else content(asked)
    return [Piece(prompt, False), Piece(answered.text, True)]


def _alpaca(turn: Turn, *, heading: bool) -> str:
    about = f"### Input:\n{turn.input}\n\n" if turn.input else ""
    asked = f"{_HEADING}{turn.text}\n\n" if heading else ""
    return f"{_BEGINS}{_WITH_INPUT * bool(about)}{_ENDS}{asked}{about}### Response:"


def content(turn: Turn) -> str:
    """Return what a user says as one text: the instruction, an empty line, the input."""
    return "\n\n".join(x for x in (turn.text, turn.input) if x)


def chat_pieces(tokenizer: Any, rows: Sequence[Row], *, source: pathlib.Path) -> list[list[Piece]]:
    """Write conversations by the chat template of a tokenizer.

    A response is what the template writes from where it asks for one to the end of its turn, the
    token that ends it included, spaces after that not.

    Args:
      tokenizer: of transformers, with a chat template.
      rows: conversations.
      source: what to call the tokenizer in an error.

    Raises:
      InputError: if there is no template, it does not take the turns, or the beginning of a chat
        depends on what follows, so that one text cannot show all of its responses.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise InputError(
            f"{source} must hold a chat template for template=chat: there is none; the model was "
            "not made for chats."
        )
    said = [[{"role": x.role, "content": content(x)} for x in row.turns] for row in rows]
    answers = [
        (i, k)
        for i, row in enumerate(rows)
        for k, x in enumerate(row.turns)
        if x.role == "assistant"
    ]
    whole = chats.render(tokenizer, said, source=source)
    before = chats.render(tokenizer, [said[i][:k] for i, k in answers], source=source, ask=True)
    after = chats.render(tokenizer, [said[i][: k + 1] for i, k in answers], source=source)
    found: list[list[Piece]] = [[] for _ in rows]
    ends = [0] * len(rows)
    for (i, _), asked, answered in zip(answers, before, after, strict=True):
        if not (whole[i].startswith(answered) and answered.startswith(asked)):
            raise InputError(
                f"{source}: the chat template must write the turns of {rows[i].place} the same "
                "whatever follows them, and begin responses as it asks for them: it does not."
            )
        end = max(len(answered.rstrip()), len(asked))
        found[i] += [Piece(asked[ends[i] :], False), Piece(answered[len(asked) : end], True)]
        ends[i] = end
    for i, text in enumerate(whole):
        if text[ends[i] :]:
            found[i].append(Piece(text[ends[i] :], False))
    return found
