"""Which samples present the same stimulus: by id, by text, and by stories that share most words."""

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Int
from scipy import sparse

from jaxalign.core import features, leaks
from jaxalign.data import word_tables
from jaxalign.data.schema import Responses, Stimuli

# Stories are one if they share this part of the shorter one's sequences of so many words, as a
# story and its copy with a word more do. Of ten stories of a thousand words (Natural Stories) no
# two share more than .2 %.
_SHARE, _SEQUENCE = 0.5, 4
# Shorter ones are one only if all words are equal: sentences may differ in a word by design.
_FEW_WORDS = 20
# What more different texts than these have in common is a template, as an instruction before each
# is, and makes no two of them one.
_TEMPLATE = 20
_APOSTROPHES = str.maketrans("\u2019\u02bc", "''")


def items(stimuli: Stimuli, responses: Responses) -> Int[np.ndarray, " n"] | None:
    """Label samples by what they present; None if nothing is presented again.

    Single stimuli are the same if their ids, their texts or their images are equal, or they are of
    stories that are one. Words are not compared one by one, nor are captions: a word is another
    stimulus in another story, and so is another image. A TR is of its story, if that was told
    before; else it is its own.

    Args:
      stimuli: what was presented.
      responses: whose samples are labelled.
    """
    if responses.is_timed:
        found = _of_trs(stimuli, responses)
    else:
        label = of_stimuli(stimuli)
        row = {name: i for i, name in enumerate(stimuli.stimulus_id)}
        found = label[[row[name] for name in responses.stimulus_id]]
    return found if len(np.unique(found)) < len(found) else None


def example(responses: Responses, labels: Int[np.ndarray, " n"]) -> str:
    """Name two runs or stimuli that are the same, or of one story, in a sentence after another.

    Args:
      responses: whose samples are labelled.
      labels: from `items`.
    """
    names = responses.run if responses.is_timed else responses.stimulus_id
    what = "Runs" if responses.is_timed else "Stimuli"
    for place in features.members(labels).values():
        found = list(dict.fromkeys(names[i] for i in place))
        if len(found) > 1:
            return f" {what} {found[0]!r} and {found[-1]!r} present the same."
        if len(place) > 1 and not responses.is_timed:
            return f" Stimulus {found[0]!r} is presented {len(place)} times."
    return " A story is told twice in a run."


def of_stimuli(stimuli: Stimuli) -> Int[np.ndarray, " m"]:
    """Label single stimuli by what they present; see `items`."""
    if stimuli.pixels:
        return np.unique(np.asarray(stimuli.pixels.places), return_inverse=True)[1]
    story, is_told_again = stories(stimuli)
    label = np.where(is_told_again, story, len(stimuli) + np.arange(len(stimuli)))
    if stimuli.unit == "word":
        return label
    return leaks.joined(label, [" ".join(_words(text)) for text in stimuli.text])


def stories(stimuli: Stimuli) -> tuple[Int[np.ndarray, " m"], Bool[np.ndarray, " m"]]:
    """Label stimuli by their story: a passage in a run, or of images a run.

    Stories that share most of their words are one (see `_SHARE`), whatever they are called.

    Returns:
      The labels, from 0, and whether a story is told more than once.
    """
    told = stimuli.run if stimuli.pixels else list(zip(stimuli.run, stimuli.passage, strict=True))
    places = list(features.members(told).values())
    if stimuli.pixels:
        parts = [[str(place)] for place in stimuli.pixels.places]
    else:
        known = {text: _words(text) for text in dict.fromkeys(stimuli.text)}
        parts = [known[text] for text in stimuli.text]
    label = _alike([[word for i in place for word in parts[i]] for place in places])
    story = np.empty(len(stimuli), int)
    for place, of_story in zip(places, label, strict=True):
        story[place] = of_story
    return story, (np.bincount(label) > 1)[story]


def passages(stimuli: Stimuli) -> list[str]:
    """Return the passage of each stimulus, or the first one that shares most of its words."""
    label = leaks.joined(stories(stimuli)[0], stimuli.passage).tolist()
    first: dict[int, str] = {}
    return [first.setdefault(x, own) for x, own in zip(label, stimuli.passage, strict=True)]


def _alike(texts: Sequence[Sequence[str]]) -> Int[np.ndarray, " g"]:
    """Label texts so that those that share most of their sequences of words have the same."""
    distinct: dict[tuple[str, ...], int] = {}
    place = [distinct.setdefault(tuple(text), len(distinct)) for text in texts]
    sequences = [
        set(zip(*(text[i:] for i in range(_SEQUENCE)), strict=False))
        if len(text) >= _FEW_WORDS
        else set()
        for text in distinct
    ]
    holders = defaultdict(list)
    for i, own in enumerate(sequences):
        for sequence in own:
            holders[sequence].append(i)
    shared: Counter[tuple[int, int]] = Counter()
    for found in holders.values():
        if len(found) <= _TEMPLATE:
            shared.update(combinations(found, 2))
    least = lambda i, j: _SHARE * min(len(sequences[i]), len(sequences[j]))
    pairs = np.array([x for x, num in shared.items() if num >= least(*x)], int).reshape(-1, 2)
    size = (len(distinct), len(distinct))
    graph = sparse.coo_array((np.ones(len(pairs), bool), tuple(pairs.T)), shape=size)
    return sparse.csgraph.connected_components(graph, directed=False)[1][place]


def _of_trs(stimuli: Stimuli, responses: Responses) -> Int[np.ndarray, " n"]:
    """Label each TR by the story of the last word that began by its end."""
    story, is_told_again = stories(stimuli)
    found = len(stimuli) + np.arange(len(responses.run))
    words = features.members(stimuli.run)
    for run, trs in features.members(responses.run).items():
        own = words[run][np.argsort(stimuli.onset_s[words[run]], kind="stable")]
        end_s = responses.time_s[trs] + responses.tr_s
        last = own[np.maximum(np.searchsorted(stimuli.onset_s[own], end_s) - 1, 0)]
        found[trs] = np.where(is_told_again[last], story[last], found[trs])
    return found


def _words(text: str) -> list[str]:
    """Return words that are compared: without case, marks at either end, or ways of encoding."""
    plain = unicodedata.normalize("NFKC", text).casefold().translate(_APOSTROPHES)
    return word_tables.words(plain) or [plain.strip()]
