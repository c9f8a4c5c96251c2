"""Natural Stories: frequencies of words in Google Books, and their surprisal under GPT-3.

The counts are those of the years 1990 and later; a word with a hyphen is counted as its parts in a
row. GPT-3 is `davinci:2020-05-03`, which read each story by itself.

Source: Futrell, Gibson, Tily, Blank, Vishnevetsky, Piantadosi and Fedorenko (2021), Language
Resources and Evaluation 55, 63-77. Licence CC BY-NC-SA 4.0.
"""

import csv
import pathlib

import numpy as np
from jaxtyping import Float

from jaxalign.core import features, surprisal
from jaxalign.data.schema import Stimuli
from jaxalign.data.words import WordFacts
from jaxalign.errors import InputError

FREQUENCIES = "naturalstories/freqs/freqs-1.tsv"
LOG_PROBS = "naturalstories/probs/all_stories_gpt3.csv"
GPT3 = "gpt3-davinci"
# The stories' texts and those that GPT-3 read differ in the spelling of one word.
_SPELLINGS = {"peeked": "peaked"}


def files(root: pathlib.Path) -> list[pathlib.Path]:
    """Return both files.

    Raises:
      InputError: if one is missing.
    """
    paths = [root / FREQUENCIES, root / LOG_PROBS]
    for path in paths:
        if not path.is_file():
            raise InputError(f"Natural Stories needs {path}: there is no such file.")
    return paths


def word_facts(root: pathlib.Path, stimuli: Stimuli) -> WordFacts:
    """Read what is known of each word.

    Args:
      root: folder of published data.
      stimuli: the words, with the number of their story (from 1) as passage; all words of a story
        or the first of them.

    Raises:
      InputError: if a file is missing or malformed, or is of other words.
    """
    frequencies, log_probs = files(root)
    return WordFacts(
        stimulus_id=stimuli.stimulus_id,
        log_frequency=_log_frequency(frequencies, stimuli),
        surprisal_bits={GPT3: _gpt3(log_probs, stimuli)},
    )


def _log_frequency(path: pathlib.Path, stimuli: Stimuli) -> Float[np.ndarray, " m"]:
    """Natural logarithm of one more than the count: some names do not occur.

    A line has code, order, token, count and the count of the context; a code is story.zone.part,
    where the part `word` is the token without punctuation at its ends. Ten tokens that end with a
    full stop of their own (Mr.) have only the part `whole`.
    """
    counts = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        cells = line.split("\t")
        if len(cells) != 5:
            raise InputError(f"{path}: lines must have 5 cells, found {len(cells)} in {line!r}.")
        code, _, part = cells[0].rpartition(".")
        if part == "word" or (part == "whole" and code not in counts):
            try:
                counts[code] = int(cells[3])
            except ValueError as error:
                raise InputError(
                    f"{path}: the count of {cells[0]} must be a whole number, found {cells[3]!r}."
                ) from error
    found = np.empty(len(stimuli))
    for story, words in features.members(stimuli.passage).items():
        for zone, i in enumerate(words, start=1):
            if f"{story}.{zone}" not in counts:
                raise InputError(
                    f"{path} must have a count for each word, found none for {story}.{zone} "
                    f"({stimuli.text[i]!r})."
                )
            found[i] = np.log(1 + counts[f"{story}.{zone}"])
    return found


def _gpt3(path: pathlib.Path, stimuli: Stimuli) -> Float[np.ndarray, " m"]:
    """Add the surprisal of tokens up to words; a story's first token has none."""
    with open(path, encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        if missing := {"token", "logprob", "story"} - set(reader.fieldnames or ()):
            raise InputError(f"{path} must have the column {min(missing)!r}: it is missing.")
        stories: dict[str, list[tuple[str, float]]] = {}
        for row in reader:
            try:
                # Stories are counted from 0 here.
                story = str(int(row["story"]) + 1)
                log_prob = float(row["logprob"] or "nan")
            except (ValueError, TypeError) as error:
                raise InputError(
                    f"{path}, line {reader.line_num}: story and logprob must be numbers, found "
                    f"{row['story']!r} and {row['logprob']!r}."
                ) from error
            stories.setdefault(story, []).append((row["token"], log_prob))
    found = np.empty(len(stimuli))
    for story, words in features.members(stimuli.passage).items():
        tokens = stories.get(story, [])
        text = "".join(token for token, _ in tokens)
        spoken = [_SPELLINGS.get(word, word) for word in text.split()]
        for i, word in zip(words, [*spoken, *[""] * len(words)], strict=False):
            if _SPELLINGS.get(stimuli.text[i], stimuli.text[i]) != word:
                raise InputError(
                    f"{path}: story {story} must hold the words of the stimuli, found {word!r} "
                    f"for {stimuli.text[i]!r} ({stimuli.stimulus_id[i]})."
                )
        # White space begins a word, and its token goes with the word.
        begins = np.array([token[:1].isspace() for token, _ in tokens])
        begins[0] = False
        place = np.cumsum(begins)
        if place[-1] + 1 != len(spoken):
            raise InputError(
                f"{path}: a token with white space must begin each word of story {story}, found "
                f"{place[-1] + 1} such for {len(spoken)} words."
            )
        bits = surprisal.word_bits(np.array([x for _, x in tokens]), place, len(spoken))
        found[words] = bits[: len(words)]
    return found
