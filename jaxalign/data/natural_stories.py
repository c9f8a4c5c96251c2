"""The Natural Stories corpus (Futrell et al., 2021): ten stories, as words or as sentences."""

import pathlib
import re

from jaxalign.data.natural_stories_words import word_facts as word_facts
from jaxalign.data.schema import Stimuli, Unit
from jaxalign.errors import InputError

FILE = "naturalstories/naturalstories_RTS/all_stories.tok"
_SENTENCE_END = re.compile(r"[.?!]['\")]*$")


def load(root: pathlib.Path, unit: Unit, *, num_stories: int = 0, num_words: int = 0) -> Stimuli:
    """Read the texts; presentation is not timed.

    A sentence ends with a word that ends with a full stop, a question or an exclamation mark, and
    with the text.

    Args:
      root: folder of published data.
      unit: what the parts are.
      num_stories: take the first ones; 0: all.
      num_words: take the first ones of each story; 0: all.

    Raises:
      InputError: if the file is not there, or not what was published.
    """
    path = root / FILE
    if not path.is_file():
        raise InputError(f"Natural Stories must lie at {path}: there is no such file.")
    header, *lines = path.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines]
    if header != "word\tzone\titem" or not rows or any(len(row) != 3 for row in rows):
        raise InputError(f"{path} must hold the columns word, zone and item: found {header!r}.")
    stories: dict[str, list[str]] = {}
    for word, _, story in rows:
        stories.setdefault(story, []).append(word)
    ids, texts, passages = [], [], []
    for story in list(stories)[: num_stories or None]:
        words = stories[story][: num_words or None]
        parts = words if unit == "word" else _sentences(words)
        ids += [f"{story}.{i}" for i in range(len(parts))]
        texts += parts
        passages += [story] * len(parts)
    return Stimuli(stimulus_id=ids, text=texts, passage=passages, run=passages, unit=unit)


def _sentences(words: list[str]) -> list[str]:
    found, own = [], []
    for word in words:
        own.append(word)
        if _SENTENCE_END.search(word):
            found.append(" ".join(own))
            own = []
    return [*found, " ".join(own)] if own else found
