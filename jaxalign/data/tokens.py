"""From stimuli to rows of tokens: tokenizers, context windows, and which tokens are the part's."""

import pathlib
import re
import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tokenizers
from jaxtyping import Int
from tokenizers import decoders, normalizers, processors

from jaxalign.data.schema import Stimuli
from jaxalign.errors import InputError

# Joined to the word before, as in running text: punctuation, and clitics that aligners split off.
_ATTACHED = re.compile(r"[.,!?;:]|['\u2019](s|m|d|t|re|ve|ll)\b|n['\u2019]t\b", flags=re.IGNORECASE)

# A llama2.c tokenizer begins with <unk>, <s>, </s> and the 256 bytes.
_LAST_BYTE = 258


class Row(NamedTuple):
    """A part with its context, as tokens."""

    tokens: Int[np.ndarray, " T"]
    start: int  # the part's own tokens are tokens[start:stop]
    stop: int


def load_tokenizer(path: pathlib.Path) -> tokenizers.Tokenizer:
    """Read a `tokenizer.json`, or the `.bin` of llama2.c.

    Truncation and padding that the file may ask for are switched off.

    Raises:
      InputError: if it cannot be read.
    """
    if not path.is_file():
        raise InputError(f"tokenizer must lie at {path}: there is no such file.")
    if path.suffix == ".bin":
        return _llama2c_tokenizer(path)
    try:
        tokenizer = tokenizers.Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing more specific
        raise InputError(f"{path} must be a tokenizer.json: {error}.") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _llama2c_tokenizer(path: pathlib.Path) -> tokenizers.Tokenizer:
    """Rebuild a SentencePiece BPE from llama2.c's list of pieces and scores.

    llama2.c joins, again and again, the pair whose union has the best score. That is BPE with one
    merge for every way to cut a piece in two pieces, ranked by the score of their union.

    Source: karpathy/llama2.c, `run.c`, build_tokenizer and encode.
    """
    data = path.read_bytes()
    pieces, scores, at = [], [], 4
    try:
        while at < len(data):
            score, length = struct.unpack_from("<fi", data, at)
            at += 8
            if length < 0 or at + length > len(data):
                raise struct.error(f"piece {len(pieces)} has {length} bytes")
            pieces.append(data[at : at + length].decode("utf-8"))
            scores.append(score)
            at += length
        if len(pieces) <= _LAST_BYTE:
            raise struct.error(f"{len(pieces)} pieces, fewer than control tokens and bytes")
    except (struct.error, UnicodeDecodeError) as error:
        raise InputError(f"{path} must be a llama2.c tokenizer: {error}.") from error
    ids = {}
    for i, piece in enumerate(pieces):
        ids[piece.strip() if i in (1, 2) else piece] = i
    merges = []
    for piece, i in ids.items():
        cuts = ((piece[:cut], piece[cut:]) for cut in range(1, len(piece)))
        merges += [
            (-scores[i], i, cut) for cut in cuts if i > _LAST_BYTE and all(c in ids for c in cut)
        ]
    merges.sort()
    tokenizer = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocab=ids,
            merges=[cut for _, _, cut in merges],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    tokenizer.normalizer = normalizers.Prepend(" ")
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.encode_special_tokens = True  # "<s>" in a text is text
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", ids["<s>"])]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def parse_context(context: str) -> int:
    """Return how many parts a row holds under a context rule: the part itself and those before.

    Args:
      context: `none` (the part alone) or `window:N` (the part and the N-1 before it in the same
        passage).

    Raises:
      InputError: if it is neither.
    """
    if context == "none":
        return 1
    match = re.fullmatch(r"window:([1-9][0-9]*)", context)
    if match is None:
        raise InputError(
            f"extract.context must be 'none' or 'window:N' with N >= 1, got {context!r}."
        )
    return int(match[1])


def join(parts: Sequence[str]) -> tuple[str, int]:
    """Join parts to running text; return it and where the last part begins."""
    text = ""
    start = 0
    for part in parts:
        if text and not _ATTACHED.match(part):
            text += " "
        start = len(text)
        text += part
    return text, start


def build_rows(
    tokenizer: tokenizers.Tokenizer, stimuli: Stimuli, *, context: str, max_length: int
) -> list[Row]:
    """Tokenise every stimulus with its context.

    The part's tokens are those whose characters overlap it, by the tokenizer's offsets; special
    tokens are nobody's.

    Args:
      tokenizer: from `load_tokenizer`.
      stimuli: parts.
      context: see `parse_context`.
      max_length: most tokens the model takes.

    Raises:
      InputError: naming the part, if it has no token or its row is longer than max_length.
    """
    window = parse_context(context)
    texts, starts = [], []
    for i in range(len(stimuli)):
        first = i
        while first > max(0, i - window + 1) and stimuli.passage[first - 1] == stimuli.passage[i]:
            first -= 1
        text, start = join(stimuli.text[first : i + 1])
        texts.append(text)
        starts.append(start)
    rows = []
    for i, encoding in enumerate(tokenizer.encode_batch(texts)):
        named = f"stimulus {stimuli.stimulus_id[i]!r} ({stimuli.text[i]!r})"
        own = [
            t
            for t, (a, b) in enumerate(encoding.offsets)
            if b > starts[i] and b > a and not encoding.special_tokens_mask[t]
        ]
        if not own:
            raise InputError(f"every part must have a token: the tokenizer finds none in {named}.")
        if len(encoding.ids) > max_length:
            raise InputError(
                f"a part and its context must fit the model's {max_length} tokens: {named} has "
                f"{len(encoding.ids)}; choose a shorter context."
            )
        rows.append(Row(np.array(encoding.ids, np.int32), own[0], own[-1] + 1))
    return rows
