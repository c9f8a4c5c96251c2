"""What a data set says of its words: their frequency, and published surprisal."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from jaxalign.data import controls
from jaxalign.data.schema import Stimuli
from jaxalign.errors import InputError

BASELINE = ("length", "log_frequency", "position")


@dataclasses.dataclass(frozen=True, kw_only=True)
class WordFacts:
    """Facts about words, joined to stimuli by id.

    Attributes:
      stimulus_id: unique.
      log_frequency: natural logarithm of how often the word occurs in some corpus, which corpus
        being a matter of the data set; NaN where unknown; empty where the data set says nothing.
      surprisal_bits: surprisal under a named model, as published; NaN where undefined.
      columns: any other numbers, by names that hold their units; NaN where unknown.
    """

    stimulus_id: Sequence[str]
    log_frequency: Float[np.ndarray, " f"] = dataclasses.field(default_factory=lambda: np.empty(0))
    surprisal_bits: Mapping[str, Float[np.ndarray, " m"]] = dataclasses.field(default_factory=dict)
    columns: Mapping[str, Float[np.ndarray, " m"]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        m = len(self.stimulus_id)
        if len(set(self.stimulus_id)) < m:
            raise InputError("word facts: stimulus_id must be unique.")
        if len(self.log_frequency) not in (0, m):
            raise InputError(
                f"word facts: log_frequency must have {m} entries or none, found "
                f"{len(self.log_frequency)}."
            )
        for name, values in self.columns.items():
            if len(values) != m:
                raise InputError(f"word facts: {name} must have {m} entries, found {len(values)}.")
        for name, values in self.surprisal_bits.items():
            if len(values) != m:
                raise InputError(
                    f"word facts: surprisal_bits of {name!r} must have {m} entries, found "
                    f"{len(values)}."
                )
            if (values < 0).any():
                raise InputError(
                    f"word facts: surprisal_bits of {name!r} must be >= 0, found "
                    f"{np.nanmin(values)}."
                )

    @property
    def hash(self) -> str:
        """Hash of all content, 16 hexadecimal digits."""
        digest = hashlib.sha256(json.dumps([*self.stimulus_id, *self.surprisal_bits]).encode())
        if self.columns:
            digest.update(json.dumps(list(self.columns)).encode())
        every = (self.log_frequency, *self.surprisal_bits.values(), *self.columns.values())
        for values in every:
            digest.update(np.ascontiguousarray(values, np.float64).tobytes())
        return digest.hexdigest()[:16]


def align(
    values: Float[np.ndarray, "m *s"], ids: Sequence[str], stimuli: Stimuli
) -> Float[np.ndarray, "n *s"]:
    """Order values as the stimuli are, by id; NaN for stimuli that have none.

    Args:
      values: one per id, or a row.
      ids: unique.
      stimuli: whose order is wanted.
    """
    place = {name: i for i, name in enumerate(ids)}
    index = np.array([place.get(name, -1) for name in stimuli.stimulus_id])
    found = np.asarray(values, np.float64)[index]
    found[index < 0] = np.nan
    return found


def given_frequency(facts: WordFacts, stimuli: Stimuli) -> controls.Given:
    """Return the frequencies that a data set gives, as the control `frequency` of its stimuli.

    They are decimal logarithms, as those of a table are: of one's own data on the Zipf scale, of a
    data set of the table of whatever it counts. What has none is taken to be as rare as the rarest
    that has one, as a word is that a table does not list.

    Args:
      facts: of the data set.
      stimuli: whose frequencies these are, found by id.

    Raises:
      InputError: if the data set gives none.
    """
    found = np.full(len(stimuli), np.nan)
    if len(facts.log_frequency):
        found = align(facts.log_frequency, facts.stimulus_id, stimuli)
    unknown = np.isnan(found)
    if unknown.all():
        raise InputError(
            "encode.frequency_table must name the file that 'frequency' reads, for the data set "
            "does not say how frequent its words are (of data of your own, in a column "
            "frequency_per_million or zipf of stimuli.csv)."
        )
    filled = np.where(unknown, np.nanmin(found), found) / np.log(10)
    return controls.Given(filled[:, None], int(unknown.sum()))


def baseline(
    names: Sequence[str],
    stimuli: Stimuli,
    facts: WordFacts,
    word_in_sentence: Float[np.ndarray, " m"],
) -> Float[np.ndarray, "m b"]:
    """Return what reading times are regressed on in addition to surprisal, one column per name.

    Args:
      names: of `BASELINE`: `length` in letters and digits, `log_frequency`, or `position` of the
        word in its sentence; or of `facts.columns`.
      stimuli: all words, in the order of reading.
      facts: of the data set.
      word_in_sentence: of each stimulus.

    Raises:
      InputError: if the data set does not say how frequent words are, or has no such column.
    """
    columns = []
    for name in names:
        if name in BASELINE and name in facts.columns:
            raise InputError(
                f"behavior.baseline has {name!r}, which is computed, and is also a column of the "
                "data set: rename the column."
            )
        if name == "length":
            columns.append(controls.word_length(stimuli)[:, 0])
        elif name == "log_frequency":
            if not len(facts.log_frequency):
                raise InputError(
                    "behavior.baseline has 'log_frequency', which the data set does not give: "
                    "leave it out, or of data of your own give stimuli.csv a column "
                    "frequency_per_million or zipf."
                )
            columns.append(align(facts.log_frequency, facts.stimulus_id, stimuli))
        elif name == "position":
            columns.append(word_in_sentence)
        elif name in facts.columns:
            columns.append(align(facts.columns[name], facts.stimulus_id, stimuli))
        else:
            raise InputError(
                f"behavior.baseline must be among {', '.join((*BASELINE, *facts.columns))}, got "
                f"{name!r}."
            )
    return np.stack(columns, axis=1) if columns else np.empty((len(stimuli), 0))
