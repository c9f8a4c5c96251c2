"""Which tokens are whose: the tokens of a text and of its parts, and prefixes that stay."""

import json
import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import tokenizers
from jaxtyping import Int

from jaxalign.data.text.joining import Joined
from jaxalign.data.text.tokenizer_files import (
    CL100K_PATTERN,
    GPT2_PATTERN,
    PIECES_PATTERN,
    QWEN_PATTERN,
)

# Characters that are handed to the tokenizer at once: what it returns takes some 50 bytes for each.
_BATCH_CHARACTERS = 1_000_000

# A space between these is where a text may be cut; see `cuts_at_spaces`.
_CUT = re.compile(r"(?<=\w) (?=\w)")

_CHARACTERWISE_NORMALIZERS = {
    *("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "BertNormalizer", "Prepend"),
}
_CHARACTERWISE_SPLITTERS = {"Punctuation", "Digits"}
_SPACE_SPLITTERS = {"BertPreTokenizer", "Whitespace", "WhitespaceSplit"}
# Every match of these ends where a space follows a word, and none looks behind. BLOOM's, the
# fourth, matches runs of neither white space nor punctuation.
_SPACE_PATTERNS = {
    GPT2_PATTERN,
    CL100K_PATTERN,
    QWEN_PATTERN,
    PIECES_PATTERN,
    " ?[^(\\s|[.,!?\u2026\u3002\uff0c\u3001\u0964\u06d4\u060c])]+",
}


class Encoded(NamedTuple):
    """Tokens of a text, and the characters text[start:stop] that each stands for.

    Special tokens that the tokenizer would add are not there.
    """

    ids: Int[np.ndarray, " t"]
    start: Int[np.ndarray, " t"]
    stop: Int[np.ndarray, " t"]


class Prefixes(NamedTuple):
    """The tokens of a text, and which of its prefixes they begin with.

    Attributes:
      whole: tokens of the whole text.
      count: prefix i has the first count[i] tokens of `whole`, for the same characters; -1 if it
        is tokenised in another way.
      tail: what the tail has become behind prefix i.
      searched: whether every prefix was tokenised from its beginning.
    """

    whole: Encoded
    count: Int[np.ndarray, " m"]
    tail: list[Int[np.ndarray, " s"]]
    searched: bool


def encode(tokenizer: tokenizers.Tokenizer, texts: Iterable[str]) -> Iterable[Encoded]:
    """Tokenise texts without adding special tokens, some at a time."""
    batch, size = [], 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if size >= _BATCH_CHARACTERS:
            yield from _encode_batch(tokenizer, batch)
            batch, size = [], 0
    yield from _encode_batch(tokenizer, batch)


def _encode_batch(tokenizer, texts) -> Iterable[Encoded]:
    for encoding in tokenizer.encode_batch(texts, add_special_tokens=False):
        offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
        yield Encoded(np.array(encoding.ids, np.int32), offsets[:, 0], offsets[:, 1])


def special_tokens(
    tokenizer: tokenizers.Tokenizer, text: str
) -> tuple[Int[np.ndarray, " b"], Int[np.ndarray, " a"]]:
    """Return the tokens that the tokenizer puts before and after every text, as around this."""
    encoding = tokenizer.encode(text)
    ids = np.array(encoding.ids, np.int32)
    inner = np.flatnonzero(~np.array(encoding.special_tokens_mask, bool))
    if len(inner) == 0:
        return ids, ids[:0]
    return ids[: inner[0]], ids[inner[-1] + 1 :]


def own_tokens(
    encoded: Encoded, start: Int[np.ndarray, " m"], stop: Int[np.ndarray, " m"]
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"]]:
    """Find the tokens of parts: those that stand for at least one of their characters.

    A token of no character is nobody's, nor is a space that is a token by itself. A token that
    reaches into two parts belongs to both.

    Args:
      encoded: tokens of the text that holds the parts.
      start, stop: characters of each part.

    Returns:
      First token of each part, and one past its last; equal where there is none.
    """
    some = np.flatnonzero(encoded.stop > encoded.start)
    begin = np.maximum.accumulate(encoded.start[some])
    end = np.maximum.accumulate(encoded.stop[some])
    first = np.searchsorted(end, start, side="right")
    last = np.searchsorted(begin, stop, side="left")
    places = np.append(some, len(encoded.ids))
    has = last > first
    tokens_start = places[np.minimum(first, len(some))]
    return tokens_start, np.where(has, places[last - 1] + 1, tokens_start)


def find_prefixes(
    tokenizer: tokenizers.Tokenizer,
    head: str,
    joined: Joined,
    tail: str,
    *,
    cuttable: bool,
) -> Prefixes:
    """Tokenise head + text once, and prove which prefixes it holds.

    Prefix i is head + text up to the end of part i + tail, and its tokens up to the end of the
    part are compared with those of the whole, id by id and character by character.

    Where the tokenizer never carries anything across a space between words (see
    `cuts_at_spaces`), the tokens before the last such space in the prefix are those of the whole,
    and only the rest is tokenised again, with one word before it. Any other tokenizer is asked
    for every prefix from its beginning, whose cost grows with the square of the text's length.

    Args:
      tokenizer: deterministic.
      head: text before, the same for all prefixes.
      joined: parts.
      tail: text after, the same for all prefixes; it is no part of `whole`.
      cuttable: from `cuts_at_spaces`.
    """
    text = head + joined.text
    (whole,) = encode(tokenizer, [text])
    stops = len(head) + joined.stop
    cuttable = cuttable and not _holds_added_token(tokenizer, joined.text)
    cuts = np.zeros(0, np.int64)
    if cuttable:
        cuts = np.array([len(head) + m.start() for m in _CUT.finditer(joined.text)], np.int64)
    # The last cut before the end of each part; tokenising begins after the cut before that one.
    place = np.searchsorted(cuts, stops, side="left")
    cut = np.append(0, cuts)[place]
    begin = np.where(place > 1, np.append([0, 0], cuts)[place] + 1, 0)
    pieces = (text[a:b] + tail for a, b in zip(begin, stops, strict=True))
    base = count_until(whole, cut)
    count, tails = [], []
    places = zip(begin, cut, stops, base.tolist(), strict=True)
    for (a, c, b, first), piece in zip(places, encode(tokenizer, pieces), strict=True):
        after, until = count_until(piece, np.array([c - a, b - a])).tolist()
        after = after if c else 0
        piece = piece._replace(start=piece.start + a, stop=piece.stop + a)
        held = _same(whole, first, piece, slice(after, until))
        # A token may not lie in both the part and the tail.
        held = held and (until == len(piece.ids) or piece.start[until] >= b)
        count.append(first + until - after if held else -1)
        tails.append(piece.ids[until:])
    return Prefixes(whole, np.array(count), tails, searched=not cuttable)


def count_until(encoded: Encoded, characters: Int[np.ndarray, " m"]) -> Int[np.ndarray, " m"]:
    """Return how many tokens come before the first that reaches beyond each character.

    Before the text's first character there is none.
    """
    reach = np.maximum.accumulate(encoded.stop)
    return np.where(characters > 0, np.searchsorted(reach, characters, side="right"), 0)


def _same(whole: Encoded, base: int, piece: Encoded, within: slice) -> bool:
    """Whether tokens of a piece are those of the whole, from `base` on."""
    there = slice(base, base + within.stop - within.start)
    return (
        np.array_equal(whole.ids[there], piece.ids[within])
        and np.array_equal(whole.start[there], piece.start[within])
        and np.array_equal(whole.stop[there], piece.stop[within])
    )


def _holds_added_token(tokenizer: tokenizers.Tokenizer, text: str) -> bool:
    """Whether a text holds an added token, which is found before everything else."""
    normalize = tokenizer.normalizer.normalize_str if tokenizer.normalizer else str
    normalized = normalize(text)
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    return any(token in text or normalize(token) in normalized for token in added)


def cuts_at_spaces(tokenizer: tokenizers.Tokenizer) -> bool:
    r"""Say whether it is known that every space between two words cuts the tokenizer's work.

    That is: for a text A + B where A ends with a letter or digit (\w) and B begins with one space
    and another \w, and which holds no added token, the tokens of A + B are those of A followed by
    tokens that do not depend on A but for its last word; whatever B is, and so for all its
    prefixes. A tokenizer works in steps, and this holds if it holds for each:

    * Normalisers: those that map single characters, and the Unicode forms, in which a space never
      joins with what is beside it. Prepending touches the beginning alone.
    * Pre-tokenizers: the first that sees the text cuts before the space, or around it, and decides
      so by the characters beside it. What follows works within what was cut. Regular expressions
      are taken from a list, each checked by hand: no match that has begun in A goes on to the
      space, and none looks behind.
    * The model works on each piece by itself. Without a pre-tokenizer the piece is the whole
      text; then the model must be BPE and have no token with \w before a space. Joins would have
      to make such a token to cross the space, so A and B are joined apart.

    A tokenizer that is not known in this sense may still be so.
    """
    try:
        steps = json.loads(tokenizer.to_str())
    except Exception:  # a step written in Python cannot be told
        return False
    model = steps["model"]
    known, space = _normalized_space(steps["normalizer"])
    if not known or model.get("dropout"):
        return False
    splitters = _flat(steps["pre_tokenizer"], "pretokenizers")
    while splitters and splitters[0]["type"] in _CHARACTERWISE_SPLITTERS:
        splitters = splitters[1:]
    if splitters and _splits_at(splitters[0], space):
        return True
    # SentencePiece's own marker replaces spaces in this step, or a split finds none to cut at.
    for splitter in splitters:
        if splitter["type"] == "Metaspace":
            space = splitter["replacement"]
        elif splitter["type"] != "Split" or splitter["pattern"] != {"String": " "}:
            return False
    if model["type"] != "BPE" or model.get("ignore_merges"):
        return False
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return False
    across = re.compile(r"\w" + re.escape(space))
    return space in model["vocab"] and not any(across.search(piece) for piece in model["vocab"])


def _flat(step, name: str) -> list[dict]:
    if step is None:
        return []
    return step[name] if step["type"] == "Sequence" else [step]


def _normalized_space(normalizer) -> tuple[bool, str]:
    """Whether all normalisers are known, and what a space becomes."""
    space = " "
    for step in _flat(normalizer, "normalizers"):
        if step["type"] == "Replace" and step["pattern"] == {"String": " "}:
            space = step["content"]
        elif step["type"] not in _CHARACTERWISE_NORMALIZERS:
            return False, space
    return len(space) == 1, space


def _splits_at(splitter: dict, space: str) -> bool:
    kind = splitter["type"]
    if kind == "Metaspace":
        return splitter["split"] and space in (" ", splitter["replacement"])
    if space != " ":
        return False
    if kind == "ByteLevel":
        return splitter["use_regex"]
    if kind == "Split":
        isolated = splitter["behavior"] == "Isolated" and not splitter["invert"]
        return isolated and splitter["pattern"].get("Regex") in _SPACE_PATTERNS
    return kind in _SPACE_SPLITTERS
