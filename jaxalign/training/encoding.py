"""Rows -> tokens, and which of them are learned, as the recipe of Alpaca masks them."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import tokenizers
from absl import logging
from jaxtyping import Bool, Int

from jaxalign.data.text import tokenizer_files
from jaxalign.errors import InputError
from jaxalign.models import special_tokens, zoo
from jaxalign.training import arms, templates
from jaxalign.training.instructions import Data, Row

TOO_LONG = ("cut", "drop", "refuse")  # rules for rows with more tokens than `Reader.max_length`


class Encoded(NamedTuple):
    """A row as a network is given it.

    Attributes:
      tokens: of the text; of a T5, what its decoder writes.
      learned: which of them count in the loss; the first one of a text never, as nothing
        predicts it.
      read: what the encoder of a T5 reads; empty of causal networks.
    """

    tokens: Int[np.ndarray, " n"]
    learned: Bool[np.ndarray, " n"]
    read: Int[np.ndarray, " m"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reader:
    """How a model reads rows.

    Attributes:
      tokenizer: of the model, from `tokenizer_files.load`.
      end: the token that ends a response.
      max_length: tokens of a row at most; of a T5, of what is read and of what is written.
      two_sided: whether an encoder reads the prompt and a decoder writes the response.
      template: of `templates.TEMPLATES`.
      chat: the tokenizer as transformers reads it, for the chat template.
      source: what to call the tokenizer in an error.
    """

    tokenizer: tokenizers.Tokenizer
    end: int
    max_length: int
    two_sided: bool = False
    template: str = "alpaca"
    chat: Any = None
    source: pathlib.Path = pathlib.Path("tokenizer")

    def __post_init__(self):
        if self.template not in templates.TEMPLATES:
            raise InputError(
                f"template must be one of {', '.join(templates.TEMPLATES)}, got {self.template!r}."
            )
        if self.max_length < 2:
            raise InputError(f"max_length must be at least 2, got {self.max_length}.")
        if self.two_sided and self.template == "chat":
            raise InputError("template must not be chat for a T5, which reads one text.")

    @functools.cached_property
    def framing(self) -> tuple[list[int], list[int]]:
        """Tokens that the tokenizer puts before a text and after it."""
        found = self.tokenizer.encode("a")
        own = [i for i, special in enumerate(found.special_tokens_mask) if not special]
        return found.ids[: own[0]], found.ids[own[-1] + 1 :]

    @property
    def begin(self) -> list[int]:
        """What a text without a prompt begins with: the end token, where texts begin with none.

        It is the one token before them that GPT-2 has seen.
        """
        return self.framing[0] or [self.end]


def reader(model: zoo.Model, *, template: str = "alpaca", max_length: int = 0) -> Reader:
    """Return how a model reads rows.

    Args:
      model: from `zoo.find`; causal, or a T5, whose encoder reads and whose decoder writes.
      template: of `templates.TEMPLATES`.
      max_length: as of `Reader`; 0: as many as the model takes.

    Raises:
      InputError: if the model predicts no next token, takes fewer tokens, or its tokenizer has no
        end token.
    """
    two_sided = model.design == "t5"
    if not (model.causal or two_sided) or not model.predicts or model.reads != "text":
        raise InputError(f"model {model.name} must predict the next token of a text to be tuned.")
    most = model.config.max_length
    if max_length > most and not two_sided:  # nothing in a T5 ends there
        raise InputError(
            f"max_length must be at most the {most} tokens that {model.name} takes, got "
            f"{max_length}."
        )
    assert model.tokenizer_path is not None
    whole = tokenizer_files.load(model.tokenizer_path)
    chat = special_tokens.load(model)
    return Reader(
        tokenizer=tokenizer_files.fit(whole, model.config.vocab_size, model=model.name),
        end=chat.eos_token_id,
        max_length=max_length or most,
        two_sided=two_sided,
        template=template,
        chat=chat,
        source=model.tokenizer_path,
    )


@dataclasses.dataclass(kw_only=True)
class Counts:
    """What became of rows.

    Attributes:
      rows: that were encoded.
      cut: rows whose end was cut away, the end token with it.
      without_target: of these, rows of which nothing is left that is learned.
      dropped: rows that were left out as too long.
      merged: rows in which a token crosses the border of prompt and response, so that the first
        token of the response is not the one that is masked by counting.
      tokens: of all rows, both sides of a T5's.
      targets: tokens that are learned.
    """

    rows: int = 0
    cut: int = 0
    without_target: int = 0
    dropped: int = 0
    merged: int = 0
    tokens: int = 0
    targets: int = 0


def encode(
    data: Data,
    arm_name: str,
    reader: Reader,
    *,
    seed: int = 0,
    too_long: str = "cut",
    corpus: str = "",
) -> tuple[list[Encoded], Counts]:
    """Encode the rows of an arm, the same rows in the same order for every arm.

    Prompt, and prompt with response, become tokens apart, and as many tokens are masked as the
    prompt alone has; the end token follows the response. That is what the authors of Alpaca do.
    Of chats, which have several responses, a token is learned if it begins in a response. A plain
    text is learned whole, and cut into as many rows as it fills.

    Args:
      data: from `instructions.read`.
      arm_name: key of `arms.ARMS`.
      reader: of the model.
      seed: of whose prompt a row gets, in the arm that shuffles them.
      too_long: of `TOO_LONG`, for rows that have more than `reader.max_length` tokens in the arm
        "instruction", whatever the arm: what is cut is the end. In other arms a row that is
        longer is cut.
      corpus: the plain text of the arm that learns another one.

    Raises:
      InputError: if there is no such arm or rule, the data do not fit the arm or the template, a
        row is too long and to be refused, or the corpus is too short.
    """
    arm = arms.find(arm_name)
    if too_long not in TOO_LONG:
        raise InputError(f"too_long must be one of {', '.join(TOO_LONG)}, got {too_long!r}.")
    _check(data, arm, arm_name, reader)
    counts = Counts()
    if data.schema == "text":
        found = _texts(data.rows, reader)
    else:
        full, merged = _prompted(arms.ARMS["instruction"], data.rows, reader)
        keep = _fitting(full, data.rows, reader, too_long)
        counts.dropped = len(full) - len(keep)
        full, merged = [full[i] for i in keep], [merged[i] for i in keep]
        given = [data.rows[i] for i in keep]
        if arm.prompt not in ("own", "nothing"):
            full, merged = _prompted(arm, arms.rows(arm, given, seed=seed), reader)
        counts.merged = int(np.sum(merged))
        found = [_cut(x, reader) for x in full]
        counts.cut = sum(
            len(x.tokens) < len(y.tokens) or len(x.read) < len(y.read)
            for x, y in zip(found, full, strict=True)
        )
        if arm.prompt == "nothing":
            text = corpus if arm.response == "corpus" else None
            found = [_cut(x, reader) for x in _responses(found, reader, corpus=text)]
        if arm.learns_all:
            found = [x._replace(learned=np.arange(len(x.tokens)) > 0) for x in found]
    counts.rows = len(found)
    counts.without_target = sum(not x.learned.any() for x in found)
    counts.tokens = sum(len(x.tokens) + len(x.read) for x in found)
    counts.targets = sum(int(x.learned.sum()) for x in found)
    if not counts.targets:
        raise InputError(
            f"{data.path}: at least one response must fit in max_length={reader.max_length} tokens "
            f"behind its prompt: none of {len(found)} does."
        )
    logging.info("%s, arm %s: %s", data.path, arm_name, dataclasses.asdict(counts))
    return found, counts


def _check(data: Data, arm: arms.Arm, name: str, reader: Reader) -> None:
    """Refuse arms that data, template or model do not allow."""
    if data.schema == "text" and not arm.learns_all:
        raise InputError(f"arm {name} needs responses: {data.path} holds plain text (plain_lm).")
    if reader.two_sided and (arm.learns_all or data.schema == "text"):
        raise InputError(f"arm {name} needs a causal network: an encoder predicts no tokens.")
    if arm.prompt == "without heading" and reader.template != "alpaca":
        raise InputError(
            f"arm {name} needs template=alpaca, which has headings, got {reader.template}: "
            "no_instruction is the same in other templates."
        )


def _prompted(arm: arms.Arm, rows: Sequence[Row], reader: Reader) -> tuple[list[Encoded], list]:
    """Encode prompts and responses; return whether a token crosses a border in each row, too."""
    if reader.template == "chat":
        written = templates.chat_pieces(reader.chat, rows, source=reader.source)
        pairs = [_chat(pieces, reader) for pieces in written]
        return [x for x, _ in pairs], [x for _, x in pairs]
    heading = arm.prompt != "without heading"
    written = [templates.pieces(row, reader.template, heading=heading) for row in rows]
    prompts, responses = ([pieces[i].text for pieces in written] for i in range(2))
    before, after = reader.framing
    own = lambda ids: ids[: len(ids) - len(after)]
    asked = [x.ids for x in reader.tokenizer.encode_batch(prompts)]
    if reader.two_sided:
        # The decoder's text begins with its start token, and not as the tokenizer has it.
        written_ids = [own(x.ids)[len(before) :] for x in reader.tokenizer.encode_batch(responses)]
        pairs = zip(asked, written_ids, strict=True)
        found = [_encoded([*y, reader.end], 0, read=x, two_sided=True) for x, y in pairs]
        return found, [False] * len(found)
    both = [x + y for x, y in zip(prompts, responses, strict=True)]
    whole = [own(x.ids) for x in reader.tokenizer.encode_batch(both)]
    asked = [own(ids) for ids in asked]
    found = [
        _encoded([*ids, reader.end], len(prompt)) for ids, prompt in zip(whole, asked, strict=True)
    ]
    merged = [x[: len(y)] != y for x, y in zip(whole, asked, strict=True)]
    return found, merged


def _encoded(
    ids: Sequence[int], first: int, *, read: Sequence[int] = (), two_sided: bool = False
) -> Encoded:
    """Learn all tokens from one on; the first of all only where a decoder's start predicts it."""
    learned = np.arange(len(ids)) >= (first if two_sided else max(first, 1))
    return Encoded(np.array(ids, np.int32), learned, np.array(read, np.int32))


def _chat(pieces: Sequence[templates.Piece], reader: Reader) -> tuple[Encoded, bool]:
    """Encode a chat, whose template writes all special tokens itself."""
    text = "".join(piece.text for piece in pieces)
    found = reader.tokenizer.encode(text, add_special_tokens=False)
    starts, ends = np.array(found.offsets, np.int64).reshape(-1, 2).T
    learned, merged, at = np.zeros(len(starts), bool), False, 0
    for piece in pieces:
        border, at = at, at + len(piece.text)
        if piece.is_response:
            learned |= (starts >= border) & (starts < at) & (ends > starts)
            merged |= bool(((starts < border) & (ends > border)).any())
    learned[:1] = False
    empty = np.zeros(0, np.int32)
    return Encoded(np.array(found.ids, np.int32), learned, empty), merged


def _fitting(
    found: Sequence[Encoded], rows: Sequence[Row], reader: Reader, too_long: str
) -> list[int]:
    """Return which rows are kept by the rule for those that are too long."""
    most = reader.max_length
    longer = [i for i, x in enumerate(found) if max(len(x.tokens), len(x.read)) > most]
    if longer and too_long == "refuse":
        first = found[longer[0]]
        raise InputError(
            f"{rows[longer[0]].place} must have at most max_length={most} tokens: it has "
            f"{max(len(first.tokens), len(first.read))}, and {len(longer)} of {len(rows)} rows are "
            "longer; too_long=cut cuts their ends, and drop leaves them out."
        )
    if not longer or too_long == "cut":
        return list(range(len(found)))
    left_out = set(longer)
    return [i for i in range(len(found)) if i not in left_out]


def _cut(row: Encoded, reader: Reader) -> Encoded:
    """Cut the end of a row; what an encoder reads keeps what the tokenizer puts after a text."""
    most, after = reader.max_length, len(reader.framing[1]) if len(row.read) else 0
    read = row.read
    if len(read) > most:
        read = np.concatenate([read[: most - after], read[len(read) - after :]])
    return Encoded(row.tokens[:most], row.learned[:most], read)


def _responses(rows: Sequence[Encoded], reader: Reader, *, corpus: str | None) -> list[Encoded]:
    """Return what is learned of rows without what is before it, or as many tokens of a corpus."""
    targets = [row.tokens[row.learned] for row in rows]
    if corpus is not None:
        sizes = [len(x) for x in targets]
        targets = np.split(_corpus(corpus, sum(sizes), reader), np.cumsum(sizes)[:-1])
    if reader.two_sided:
        read = [*reader.framing[0], *reader.framing[1]] or [reader.end]
        return [_encoded(x.tolist(), 0, read=read, two_sided=True) for x in targets]
    begin = reader.begin
    return [_encoded([*begin, *x.tolist()], len(begin)) for x in targets]


def _corpus(text: str, num: int, reader: Reader) -> np.ndarray:
    """Return the first tokens of a plain text."""
    before, after = reader.framing
    ids = reader.tokenizer.encode(text).ids
    ids = ids[len(before) : len(ids) - len(after)]
    if len(ids) < num:
        raise InputError(
            f"the plain text of arm other_text must have as many tokens as the responses, {num}: "
            f"it has {len(ids)}."
        )
    return np.array(ids[:num], np.int32)


def _texts(rows: Sequence[Row], reader: Reader) -> list[Encoded]:
    """Cut plain texts into rows, each behind what begins a text; the last one has the end token."""
    before, after = reader.framing
    begin, found = reader.begin, []
    size = reader.max_length - len(begin)
    for row in rows:
        ids = reader.tokenizer.encode(row.text).ids
        ids = [*ids[len(before) : len(ids) - len(after)], reader.end]
        parts = [ids[i : i + size] for i in range(0, len(ids), size)]
        found += [_encoded([*begin, *part], len(begin)) for part in parts]
    return found
