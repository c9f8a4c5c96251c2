"""The Natural Stories corpus: ten stories, read word by word at one's own pace.

10,256 words; means of reading times over participants, or 88 participants of stories 6 to 10;
log-probabilities of the words by GPT-3 (davinci, 2020). Licence CC BY-NC-SA 4.0.

The published means are ascribed to the wrong word: the time in the row of word z was measured at
word z + 1, as the authors found in 2025. Both views of them can be had.

Source: Futrell et al. (2021), Language Resources and Evaluation 55, 63-77.
"""

import dataclasses
import math
import pathlib
import re
from collections.abc import Sequence
from typing import Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from jaxalign.data.adapter import Adapter
from jaxalign.data.formats import tables
from jaxalign.data.formats import verify as verify_lib
from jaxalign.data.schema import MEAN, Behavior, Stimuli, Unit, naming
from jaxalign.data.sets import natural_stories_words
from jaxalign.data.words import WordFacts
from jaxalign.errors import InputError

FOLDER = "naturalstories"
FILE = f"{FOLDER}/naturalstories_RTS/all_stories.tok"
MEANS = f"{FOLDER}/naturalstories_RTS/processed_wordinfo.tsv"
PARTICIPANTS = f"{FOLDER}/futrell_batch2_aligned2025.csv"
PARSES = f"{FOLDER}/parses/ud/stories-aligned.conllx"
GPT3 = f"{FOLDER}/probs/all_stories_gpt3.csv"
GPT3_NAME = "gpt3-davinci"
Times = Literal["published", "corrected", "participants"]

_SENTENCE_END = re.compile(r"[.?!]['\")]*$")
_TOKEN_ID = re.compile(r"TokenId=(\d+\.\d+)")

# The sum of the published means would change if they were aligned anew at their source, and
# shifting them once more would be wrong.
EXPECTED = {
    MEANS: {
        "words": verify_lib.exactly(10256),
        "stories": verify_lib.exactly(10),
        "sentences": verify_lib.exactly(485),
        "sum of means [ms]": verify_lib.about(3471777.9948061),
    },
    PARTICIPANTS: {
        "words": verify_lib.exactly(5055),
        "participants": verify_lib.exactly(88),
        "times": verify_lib.exactly(86978),
        "sum of times [ms]": verify_lib.exactly(31837908),
    },
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class NaturalStories(Adapter):
    """Words, reading times, and what was published of the words.

    Attributes:
      times: `published` means, each in the row where it was published; the same means `corrected`,
        each moved to the next word; or single `participants`, aligned as corrected.
      verify: whether to refuse another file than the published one, by its counts and sums.
    """

    name: str = "naturalstories"
    times: Times
    verify: bool = True

    def files(self) -> list[pathlib.Path]:
        """Return texts, parses and times; `word_facts` has a hash of its own."""
        times = PARTICIPANTS if self.times == "participants" else MEANS
        return self.need(self.root / path for path in (FILE, PARSES, times))

    def stimuli(self) -> Stimuli:
        """Read the words of all stories, each with its code `story.zone`."""
        return load(self.root, "word")

    def behavior(self) -> Behavior:
        """Read the reading times, for each word that has a row.

        Corrected means leave the first word of each story without a time, and the time in the row
        of its last word, which was measured after it, without a word.
        """
        _, parses_path, path = self.files()
        words = self.stimuli()
        position = _word_in_sentence(parses_path)
        if missing := [name for name in words.stimulus_id if name not in position]:
            raise InputError(f"{parses_path} must have all words: TokenId {missing[0]} is missing.")
        read = _participants if self.times == "participants" else _means
        table, columns, counts = read(path)
        _check_words(path, table, words)
        values = columns.to_numpy(np.float64)
        if self.verify:
            found = {
                "words": len(table),
                "stories": len(set(table["item"])),
                "sentences": sum(position[name] == 1 for name in table.index),
                "participants": values.shape[1],
                "times": int(np.isfinite(values).sum()),
                "sum of means [ms]": np.nansum(values),
                "sum of times [ms]": np.nansum(values),
            }
            expected = EXPECTED[PARTICIPANTS if self.times == "participants" else MEANS]
            verify_lib.check(path, f"Natural Stories ({self.times})", found, expected)
        order = [name for name in words.stimulus_id if name in table.index]
        rows = table.index.get_indexer(order)
        values, counts = values[rows], counts[rows] if len(counts) else counts
        if self.times == "corrected":
            values, counts = _moved(order, values, np.nan), _moved(order, counts, 0)
        with naming(path):
            return Behavior(
                stimulus_id=order,
                reading_time_ms=values,
                participant=list(columns),
                word_in_sentence=[position[name] for name in order],
                alignment="published" if self.times == "published" else "corrected",
                num_participants=counts,
            )

    def word_facts(self) -> WordFacts:
        """Read how frequent the words are, and their surprisal under GPT-3, if these are there."""
        ids = self.stimuli().stimulus_id
        has_gpt3 = (self.root / GPT3).is_file()
        return WordFacts(
            stimulus_id=ids,
            log_frequency=natural_stories_words.log_frequency(self.root, ids),
            surprisal_bits={GPT3_NAME: gpt3_surprisal_bits(self.root, ids)} if has_gpt3 else {},
        )


def gpt3_surprisal_bits(root: pathlib.Path, stimulus_id: Sequence[str]) -> Float[np.ndarray, " m"]:
    """Return -log2 p(word | story so far) of GPT-3 davinci, as published with the corpus.

    The file has natural logarithms of tokens; a word's are added up. NaN where it has none (the
    first token of a story), where a token crosses the border of a word, and where the text that
    GPT-3 was given has another word (one typing error that participants saw, and it did not).

    Args:
      root: data root.
      stimulus_id: words, by their code `story.zone`.

    Raises:
      InputError: if the file is malformed, or a word is not in the stories.
    """
    path = root / GPT3
    table = _table(path, ("token", "logprob", "offset", "story"), tabs=False)
    logprob = tables.numbers(path, table, "logprob", empty_is_nan=True)
    offset = tables.numbers(path, table, "offset")
    words = load(root, "word")
    bits = dict.fromkeys(words.stimulus_id, math.nan)
    stories = table["story"].tolist()
    for story in dict.fromkeys(stories):
        rows = [i for i, x in enumerate(stories) if x == story]
        if not story.isdigit():
            raise InputError(f"{path}: story must be a number from 0, found {story!r}.")
        code = str(int(story) + 1)  # counted from 0 here, and from 1 in the other files
        places = [i for i, passage in enumerate(words.passage) if passage == code]
        tokens = table["token"].iloc[rows].tolist()
        starts = np.cumsum([0, *map(len, tokens)])
        if (starts[:-1] != offset[rows]).any():
            first = int(np.argmax(starts[:-1] != offset[rows]))
            raise InputError(
                f"{path}: offset of token {first} of story {story} must be {starts[first]}, the "
                f"length of the text before it, found {offset[rows][first]:.0f}."
            )
        given = "".join(tokens).split(" ")
        if len(given) != len(places):
            raise InputError(
                f"{path}: story {story} must have the {len(places)} words of story {code} of "
                f"{FILE}, found {len(given)}."
            )
        for i, word, value in zip(places, given, _per_word(tokens, logprob[rows]), strict=True):
            if word == words.text[i]:
                bits[words.stimulus_id[i]] = -value / math.log(2)
    if unknown := [name for name in stimulus_id if name not in bits]:
        raise InputError(f"stimulus_id must be that of a word of {FILE}, found {unknown[0]!r}.")
    return np.array([bits[name] for name in stimulus_id])


def load(root: pathlib.Path, unit: Unit, *, num_stories: int = 0, num_words: int = 0) -> Stimuli:
    """Read the texts; presentation is not timed.

    A sentence ends with a word that ends with a full stop, a question or an exclamation mark, and
    with the text.

    Args:
      root: folder of published data.
      unit: what the parts are. Words are called by their code in the corpus, `story.zone`;
        sentences `story.number`, from 0.
      num_stories: take the first ones; 0: all.
      num_words: take the first ones of each story; 0: all.

    Raises:
      InputError: if the file is not there, or not what was published.
    """
    path = root / FILE
    table = _table(path, ("word", "zone", "item"), tabs=True)
    stories: dict[str, list[tuple[str, str]]] = {}
    for word, zone, story in zip(table["word"], table["zone"], table["item"], strict=True):
        if not (zone.isdecimal() and story.isdecimal()):
            raise InputError(
                f"{path}: item and zone must be whole numbers, found {story!r} and {zone!r} for "
                f"the word {word!r}."
            )
        stories.setdefault(story, []).append((word, zone))
    ids, texts, passages = [], [], []
    for story in list(stories)[: num_stories or None]:
        words, zones = zip(*stories[story][: num_words or None], strict=True)
        parts = list(words) if unit == "word" else _sentences(words)
        ids += [f"{story}.{x}" for x in (zones if unit == "word" else range(len(parts)))]
        texts += parts
        passages += [story] * len(parts)
    with naming(path):
        return Stimuli(
            stimulus_id=ids,
            text=texts,
            passage=passages,
            run=passages,
            unit=unit,
            space_before=[True] * len(ids),
            language="en",
        )


def _sentences(words: Sequence[str]) -> list[str]:
    found, sentence = [], []
    for word in words:
        sentence.append(word)
        if _SENTENCE_END.search(word):
            found.append(" ".join(sentence))
            sentence = []
    return [*found, " ".join(sentence)] if sentence else found


def _word_in_sentence(path: pathlib.Path) -> dict[str, int]:
    """Find the position of each word in its sentence, from the parses.

    A word (`TokenId=story.zone`) may be several nodes of a parse, and is counted once.
    """
    position: dict[str, int] = {}
    count = 0
    for number, line in enumerate(tables.lines(path), start=1):
        if not line.strip():
            count = 0
            continue
        match = _TOKEN_ID.search(line)
        if match is None:
            raise InputError(f"{path}: line {number} must have a TokenId, found {line[:60]!r}.")
        if match[1] not in position:
            count += 1
            position[match[1]] = count
    return position


def _means(path: pathlib.Path) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    table = _words_table(path, ("word", "zone", "item", "nItem", "meanItemRT"), tabs=True)
    mean, count = (tables.numbers(path, table, name) for name in ("meanItemRT", "nItem"))
    if (count != count.astype(np.int64)).any():
        raise InputError(f"{path}: nItem must hold counts of participants, found fractions.")
    return table, pd.DataFrame({MEAN: mean}, index=table.index), count.astype(np.int64)


def _participants(path: pathlib.Path) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    table = _words_table(path, ("item", "zone", "word"), tabs=False)
    names = [name for name in table if name not in ("item", "zone", "word")]
    columns = {name: tables.numbers(path, table, name, empty_is_nan=True) for name in names}
    if not columns:
        raise InputError(f"{path} must have a column for each participant, found {list(table)}.")
    return table, pd.DataFrame(columns, index=table.index), np.empty(0, np.int64)


def _table(path: pathlib.Path, columns: Sequence[str], *, tabs: bool) -> pd.DataFrame:
    if not path.is_file():
        raise InputError(f"Natural Stories must have {path}: there is no such file.")
    return tables.read(path, columns, tabs=tabs)


def _words_table(path: pathlib.Path, columns: Sequence[str], *, tabs: bool) -> pd.DataFrame:
    """Read a table with one row per word, under their codes."""
    table = _table(path, columns, tabs=tabs)
    table.index = pd.Index(table["item"] + "." + table["zone"])
    if table.index.has_duplicates:
        code = table.index[table.index.duplicated()][0]
        raise InputError(f"{path} must have a word once: item.zone {code} is there twice.")
    return table


def _check_words(path: pathlib.Path, table: pd.DataFrame, words: Stimuli) -> None:
    """Hold the words of a table against those of the stories, by their codes."""
    text = dict(zip(words.stimulus_id, words.text, strict=True))
    for code, word in zip(table.index.tolist(), table["word"].tolist(), strict=True):
        if code not in text:
            raise InputError(f"{path}: item.zone {code} must be in {FILE}, and is not.")
        if word != text[code]:
            raise InputError(
                f"{path}: word of item.zone {code} must be {text[code]!r} as in {FILE}, found "
                f"{word!r}."
            )


def _moved(order: Sequence[str], values: np.ndarray, missing: int | float) -> np.ndarray:
    """Give each word what the word before it in its story has; the first has nothing."""
    row = {name: i for i, name in enumerate(order)}
    moved = np.full_like(values, missing)
    for i, name in enumerate(order):
        story, _, zone = name.partition(".")
        before = row.get(f"{story}.{int(zone) - 1}")
        if before is not None:
            moved[i] = values[before]
    return moved


def _per_word(tokens: Sequence[str], logprob: np.ndarray) -> list[float]:
    """Add up log-probabilities of tokens over words that single spaces separate.

    A space begins a word, alone or with its first letters. A token that holds letters of two words
    has a probability that cannot be divided, and makes both NaN.
    """
    sums = [0.0]
    for token, value in zip(tokens, logprob, strict=True):
        end, *begun = token.split(" ")
        if sum(map(bool, (end, *begun))) > 1:
            value = math.nan
        if end or not begun:
            sums[-1] += value
        sums += [value] * len(begun)
    return sums
