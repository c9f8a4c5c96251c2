"""Stimuli of the language localiser: sentences, and strings of non-words as long.

The format is that of Fedorenko et al. (2010) as AlKhamissi et al. (2025) use it for models: items
of 12 words or 12 non-words, in their data 240 of each, each presented by itself and represented by
its last token. Their items are not included. Here sentences come of one template and a small
vocabulary, and each non-word has as many letters as the word in its place; or both come from two
files, `sentences.txt` and `nonwords.txt`, one item to a line.

Source: Fedorenko, Hsieh, Nieto-Castañón, Whitfield-Gabrieli and Kanwisher (2010), J Neurophysiol
104, 1177-1194; AlKhamissi, Tuckute, Bosselut and Schrimpf (2025), NAACL, arXiv 2411.02280.
"""

import dataclasses
import pathlib
import zipfile
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from jaxalign.data.adapter import Adapter
from jaxalign.data.formats import tables
from jaxalign.data.schema import Stimuli
from jaxalign.errors import InputError

CONDITION, CONTROL = "sentence", "nonwords"
FILES = {CONDITION: "sentences.txt", CONTROL: "nonwords.txt"}
RUN = "session"
NUM_ITEMS = 240
# Determiner, adjective, noun, adverb, verb, determiner, adjective, noun, preposition, ...
_TEMPLATE = "D A N R V D A N P D A N".split()
_VOCABULARY = {
    "D": "the a this that every one".split(),
    "A": "old young quiet clever narrow heavy bright broken wooden gentle hungry distant "
    "careful famous yellow simple frozen friendly nervous ancient".split(),
    "N": "teacher farmer river bridge window doctor garden letter sailor kitchen painter "
    "mountain soldier basket village singer station captain carpet library".split(),
    "R": "slowly never often quickly finally gladly rarely secretly always suddenly".split(),
    "V": "watched carried painted followed crossed visited repaired remembered described "
    "admired measured noticed cleaned ignored reached".split(),
    "P": "near behind beside above under beyond before across inside against".split(),
}
_CONSONANTS, _VOWELS = "bdfgklmnprstvz", "aeiou"
# Short strings of common letters are often words.
_RARE = "vzk"
_WORDS = {word for words in _VOCABULARY.values() for word in words} | {"viz"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Localizer(Adapter):
    """Sentences and non-words, drawn or read.

    Attributes:
      seed: of the items that are drawn; -1: read the two files in `root`.
    """

    root: pathlib.Path = pathlib.Path()
    name: str = "localizer"
    seed: int = -1
    absent = {"responses": "nobody was recorded, and its stimuli choose units of models"}

    def files(self) -> list[pathlib.Path]:
        """Return the two files, or none where items are drawn."""
        return self.need(self.root / name for name in FILES.values()) if self.seed < 0 else []

    def stimuli(self) -> Stimuli:
        """Draw or read both lists; `stimulus_id` is `sentence.N` or `nonwords.N`."""
        lists = draw(self.seed) if self.seed >= 0 else self._read()
        ids = [f"{condition}.{i:03d}" for condition in lists for i in range(len(lists[condition]))]
        return Stimuli(
            stimulus_id=ids,
            text=[item for items in lists.values() for item in items],
            passage=ids,  # each is seen by itself
            run=[RUN] * len(ids),
            unit="sentence",
            language="en",
        )

    def _read(self) -> dict[str, list[str]]:
        paths = dict(zip(FILES, self.files(), strict=True))
        lists = {condition: _lines(path) for condition, path in paths.items()}
        size = len(lists[CONDITION][0].split())
        for condition, items in lists.items():
            for item in items:
                if len(item.split()) != size:
                    raise InputError(
                        f"{paths[condition]}: every item must have as many words as the first "
                        f"sentence ({size}), found {len(item.split())} in {item!r}."
                    )
        return lists


def conditions(stimulus_ids: Sequence[str]) -> list[str]:
    """Return the condition of each stimulus: what its id begins with, up to the full stop.

    Raises:
      InputError: if there are not two of `sentence` and two of `nonwords`, or others.
    """
    found = [name.partition(".")[0] for name in stimulus_ids]
    for condition in (CONDITION, CONTROL):
        if found.count(condition) < 2:
            raise InputError(
                f"a localiser must have at least 2 stimuli {condition}.N, found "
                f"{found.count(condition)}."
            )
    if other := set(found) - {CONDITION, CONTROL}:
        raise InputError(
            f"a localiser's stimuli must be {CONDITION}.N and {CONTROL}.N, found {min(other)!r}."
        )
    return found


def read_units(path: pathlib.Path, name: str, shape: tuple[int, int]) -> Bool[np.ndarray, "L u"]:
    """Read a mask that the stage localize has written.

    Args:
      path: its `units.npz`.
      name: `language` or `random`.
      shape: layers (the embedding included) and units of the model it is meant for.

    Raises:
      InputError: if the file or the mask is not there, chooses nothing, or is of another model.
    """
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            mask = file[name]
    except (OSError, ValueError, EOFError, KeyError, TypeError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} must be an .npz with the mask {name!r}: {reason}") from error
    if mask.shape != shape or mask.dtype != bool:
        raise InputError(
            f"{path}: {name} must be true or false for {shape[0]} layers x {shape[1]} units, found "
            f"{mask.dtype} of shape {mask.shape}: is it of this model?"
        )
    if not mask.any():
        raise InputError(f"{path}: {name} must choose at least one unit, found none.")
    return mask


def draw(seed: int, num_items: int = NUM_ITEMS) -> dict[str, list[str]]:
    """Draw sentences, and of each a string of non-words of the same lengths, all different.

    A non-word alternates consonants and vowels. That it is in no dictionary is not made sure of,
    beyond the vocabulary of the sentences.

    Args:
      seed: of the draws.
      num_items: of each list.
    """
    rng = np.random.default_rng(seed)
    sentences: dict[str, None] = {}
    while len(sentences) < num_items:
        words = [str(rng.choice(_VOCABULARY[kind])) for kind in _TEMPLATE]
        content = [word for word, kind in zip(words, _TEMPLATE, strict=True) if kind != "D"]
        if len(set(content)) == len(content):
            sentences[" ".join(words)] = None
    strings: dict[str, None] = {}
    for sentence in sentences:
        size = len(strings)
        while len(strings) == size:
            strings[" ".join(_nonword(len(word), rng) for word in sentence.split())] = None
    return {CONDITION: list(sentences), CONTROL: list(strings)}


def _nonword(num_letters: int, rng: np.random.Generator) -> str:
    if num_letters == 1:
        return str(rng.choice(list(_RARE)))
    consonants = _CONSONANTS if num_letters > 3 else _RARE
    while True:
        first = int(rng.integers(2)) if num_letters > 3 else 0
        kinds = [(consonants, _VOWELS)[(first + i) % 2] for i in range(num_letters)]
        word = "".join(str(rng.choice(list(kind))) for kind in kinds)
        if word not in _WORDS:
            return word


def _lines(path: pathlib.Path) -> list[str]:
    items = [line.strip() for line in tables.lines(path) if line.strip()]
    if len(items) < 2:
        raise InputError(f"{path} must hold at least two items, one to a line, found {len(items)}.")
    if len(set(items)) < len(items):
        raise InputError(f"{path}: items must differ, but one is there twice.")
    return items
