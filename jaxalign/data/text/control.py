"""Text is text: control tokens come from the tokenizer and from a frame, never from a stimulus."""

import contextlib
import json
import re
from collections.abc import Collection, Iterator, Mapping
from typing import NamedTuple

import numpy as np
import tokenizers
from jaxtyping import Int
from tokenizers import models

from jaxalign.errors import InputError

# Stand for control tokens of a frame, and for pieces of a vocabulary that no text may become:
# characters of private use, which no stimulus holds.
_STAND_IN, _UNREACHABLE = 0xF0000, 0x100000


class Literal(NamedTuple):
    """A tokenizer that reads every text as text, and a frame as it is to be read with it.

    Attributes:
      tokenizer: has no control token but those that stand in the frame.
      before, after: of the frame, a single character in place of each control token.
      ids: id in the tokenizer's own vocabulary of each id that is another here.
      first: id of the control token that the frame begins with; -1: of none.
    """

    tokenizer: tokenizers.Tokenizer
    before: str
    after: str
    ids: Mapping[int, int]
    first: int


@contextlib.contextmanager
def literal(tokenizer: tokenizers.Tokenizer, before: str, after: str) -> Iterator[Literal]:
    """Read texts as text for a while: `</s>` in a stimulus is five characters, no end.

    Only what the frame writes is a control token: a chat template's turns, or a prompt's `<s>`.
    Added tokens that are not special (runs of spaces, say) are text and stay what they are.

    transformers does the same under `split_special_tokens`. In addition to that, a piece of a
    Unigram vocabulary that is a control token is not found in text either, as SentencePiece has it.

    Args:
      tokenizer: is as before afterwards.
      before, after: around every text.

    Raises:
      InputError: if that would need a copy of a tokenizer that has a step written in Python.
    """
    special = {x.content: i for i, x in tokenizer.get_added_tokens_decoder().items() if x.special}
    was = tokenizer.encode_special_tokens
    tokenizer.encode_special_tokens = True
    try:
        found = _found_in_text(tokenizer, special)
        held = [x for x in special if x in before or x in after]
        if found or held:
            yield _copy(tokenizer, found, held, before, after)
        else:
            yield Literal(tokenizer, before, after, {}, -1)
    finally:
        tokenizer.encode_special_tokens = was


def restore(found: Int[np.ndarray, " t"], ids: Mapping[int, int]) -> Int[np.ndarray, " t"]:
    """Return tokens of a `Literal` by the ids that the tokenizer itself gives them."""
    if not ids:
        return found
    table = np.arange(max(max(ids), int(found.max(initial=0))) + 1)
    table[list(ids)] = list(ids.values())
    return table[found]


def unknown_id(tokenizer: tokenizers.Tokenizer) -> int:
    """Return the token that stands for what a tokenizer does not know; -1 if there is none."""
    model = tokenizer.model
    if isinstance(model, models.Unigram):
        found = json.loads(tokenizer.to_str())["model"].get("unk_id")
    else:
        found = tokenizer.token_to_id(model.unk_token) if model.unk_token else None
    return -1 if found is None else found


def _found_in_text(tokenizer: tokenizers.Tokenizer, special: dict[str, int]) -> set[str]:
    """Return the control tokens that the vocabulary itself finds in a text of their letters."""
    is_unigram = isinstance(tokenizer.model, models.Unigram)
    unknown = -1 if is_unigram else unknown_id(tokenizer)
    encodings = tokenizer.encode_batch(list(special), add_special_tokens=False)
    return {
        content
        for (content, i), encoding in zip(special.items(), encodings, strict=True)
        if i in encoding.ids and i != unknown
    }


def _copy(
    tokenizer: tokenizers.Tokenizer,
    found: Collection[str],
    held: Collection[str],
    before: str,
    after: str,
) -> Literal:
    """Copy a tokenizer without control tokens, but for stand-ins of those that a frame holds."""
    try:
        steps = json.loads(tokenizer.to_str())
    except Exception as error:  # what it raises is not known; a step written in Python cannot be
        raise InputError(
            "a prompt or chat template with control tokens needs a tokenizer that can be copied, "
            "but this one has a step written in Python: give the tokenizer.json of the model."
        ) from error
    _hide(steps["model"], found)
    added = steps["added_tokens"]
    steps["added_tokens"] = [x for x in added if not x["special"]]
    copy = tokenizers.Tokenizer.from_str(json.dumps(steps))
    # A token that another begins with comes after that one.
    names = sorted(held, key=len, reverse=True)
    stand_in = {name: chr(_STAND_IN + i) for i, name in enumerate(names)}
    flags = {x.content: x for x in tokenizer.get_added_tokens_decoder().values()}
    for name, letter in stand_in.items():
        x = flags[name]
        copy.add_tokens(
            [
                tokenizers.AddedToken(
                    letter, lstrip=x.lstrip, rstrip=x.rstrip, normalized=x.normalized
                )
            ]
        )
    known = {x["content"]: x["id"] for x in steps["added_tokens"]}
    known |= {letter: tokenizer.token_to_id(name) for name, letter in stand_in.items()}
    here = ((copy.token_to_id(name), i) for name, i in known.items())
    ids = {found: i for found, i in here if found is not None}
    if names:
        pattern = re.compile("|".join(map(re.escape, names)))
        before, after = (pattern.sub(lambda x: stand_in[x[0]], text) for text in (before, after))
    first = known.get(before[:1], -1) if before[:1] in stand_in.values() else -1
    return Literal(copy, before, after, ids, first)


def _hide(model: dict, found: Collection[str]) -> None:
    """Rename pieces of a vocabulary to what no text holds; ids stay."""
    if model["type"] == "Unigram":
        for i, (piece, _) in enumerate(model["vocab"]):
            if piece in found:
                model["vocab"][i][0] = chr(_UNREACHABLE + i)
        return
    for name in found:
        i = model["vocab"].pop(name)
        model["vocab"][chr(_UNREACHABLE + i)] = i
    if "merges" in model:
        pairs = (x if isinstance(x, list) else x.split(" ") for x in model["merges"])
        model["merges"] = [x for x in pairs if "".join(x) not in found]
