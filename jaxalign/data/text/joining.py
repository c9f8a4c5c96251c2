"""Parts joined to a text: where the corpus has a space, and where nothing says so, by a guess."""

import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from jaxalign.data.schema import Stimuli

JOININGS = ("text", "brainscore", "space")

_ENGLISH = ("en", "eng", "english")
_SPACE_BEFORE_PUNCTUATION = re.compile(r"\s+([.,!?;:])")

# How English is written, for what tokenisers and aligners split off: marks that close, a percent
# sign, clitics after what they may follow. "'t" and "n't" follow few words; in Dutch "'t" is one.
_MARKS = r"[.,!?;:\u2026]*"
_CLOSES = re.compile(r"(?:[,;:]|[.!?\u2026]+)?(?:''|[)\]}\u201d\u2019]+)?[.,!?;:]?")
_EMOTICON = re.compile(r"[:;=8]-?[()\[\]]+")
_CLITIC = re.compile(rf"['\u2019](?:s|d|re|ve|ll){_MARKS}", flags=re.IGNORECASE)
_PAIRS = tuple(
    (re.compile(part + _MARKS, flags=re.IGNORECASE), frozenset(before.split()))
    for part, before in (
        (r"['\u2019]m", "i"),
        (
            r"n['\u2019]t",
            "ai are ca could dare did do does had has have is may might must need ought sha should "
            "was were wo would",
        ),
        (
            r"['\u2019]t",
            "ain aren can couldn daren didn doesn don hadn hasn haven isn mayn mightn mustn needn "
            "oughtn shan shouldn wasn weren won wouldn",
        ),
    )
)
_OPENS = re.compile(r"[(\[{\u201c\u2018]+|``")
_CURRENCY = re.compile(r"(?:[A-Z]{0,3}\$|\u00a3|\u20ac)")


class Joined(NamedTuple):
    """Parts as one text; part i is text[start[i]:stop[i]]."""

    text: str
    start: Int[np.ndarray, " m"]
    stop: Int[np.ndarray, " m"]


class Spaces(NamedTuple):
    """Where the parts of all texts have a space before them.

    Attributes:
      before: of each part; what the first of a text has plays no part.
      num_guessed: parts that have one because nothing is said, and would not in English.
    """

    before: Sequence[bool]
    num_guessed: int


def join(parts: Sequence[str], joining: str = "text", before: Sequence[bool] = ()) -> Joined:
    r"""Join parts to a text.

    Args:
      parts: at least one.
      joining: `text`: by a space where `before` has one. `space`: by a space. `brainscore`: by a
        space, and then every space before one of .,!?;: is taken out, within parts too; white space
        around a part goes as well, so that the text of a passage begins with the text of every
        prefix.
      before: whether there is a space before each part; empty: before all.

    Returns:
      The text. That of the first parts is its beginning.

    Source: brain-score/language, model_helpers/preprocessing.py, prepare_context; `space`:
    HuthLab/encoding-model-scaling-laws, ridge_utils/tokenization_helpers.py.
    """
    pieces, start, stop, length = [], [], [], 0
    for i, part in enumerate(parts):
        attached = False
        if joining == "text":
            attached = len(before) > 0 and not before[i]
        elif joining == "brainscore":
            part = _SPACE_BEFORE_PUNCTUATION.sub(r"\1", part.strip())
            attached = part[:1] in set(".,!?;:")
        if i and not attached:
            pieces.append(" ")
            length += 1
        pieces.append(part)
        start.append(length)
        length += len(part)
        stop.append(length)
    return Joined("".join(pieces), np.array(start), np.array(stop))


def spaces(stimuli: Stimuli) -> Spaces:
    """Return where parts have a space before them, as far as that is known.

    As the stimuli say; else as English has it, if they are in English; else everywhere.
    """
    if len(stimuli.space_before):
        return Spaces(stimuli.space_before, 0)
    guess = english(stimuli.text)
    if stimuli.language.lower().split("-")[0] in _ENGLISH:
        return Spaces(guess, 0)
    same = [a == b for a, b in zip(stimuli.passage[1:], stimuli.passage, strict=False)]
    return Spaces(
        [True] * len(guess), sum(x and not y for x, y in zip(same, guess[1:], strict=True))
    )


def english(parts: Sequence[str]) -> list[bool]:
    """Guess where English text has a space before a part, from it and the part before.

    None before closing marks, a percent sign after a digit, and clitics; none after opening
    brackets and curly quotes, and between a currency and a number. Straight quotes keep theirs on
    both sides: they do not tell which they are.
    """
    previous = ("", *parts[:-1])
    return [not _attached(a.strip(), b.strip()) for a, b in zip(previous, parts, strict=True)]


def _attached(previous: str, part: str) -> bool:
    if not previous:
        return False
    if _OPENS.fullmatch(previous):
        return True
    if _CURRENCY.fullmatch(previous):
        return part[:1].isdigit()
    if part.startswith("%"):
        return previous[-1].isdigit() and not part[1:].strip(".,!?;:)")
    if _CLITIC.fullmatch(part):
        return previous[-1].isalnum()
    for clitic, before in _PAIRS:
        if clitic.fullmatch(part):
            return previous.lower() in before
    return bool(_CLOSES.fullmatch(part)) and not _EMOTICON.fullmatch(part)
