"""Futrell2018 of Brain-Score Language: Natural Stories with the times of each participant.

One netCDF file: `data` [presentation, subject] in ms, NaN where a participant did not read a word.
It was made of the times as they were first released, which are ascribed to the wrong word (see
`natural_stories`); Brain-Score scores it as it is.

Source: Futrell et al. (2018), LREC; packaged by brain-score/language, data/futrell2018.
"""

import dataclasses
import pathlib

import numpy as np

from jaxalign.data.adapter import Adapter
from jaxalign.data.formats import verify as verify_lib
from jaxalign.data.formats.verify import exactly
from jaxalign.data.schema import Behavior, Stimuli, naming
from jaxalign.data.sets import brainscore
from jaxalign.data.sets.brainscore import PRESENTATION
from jaxalign.errors import InputError

FILE = "assy_Futrell2018.nc"
SUBJECT = "subject"
EXPECTED = {
    "words": exactly(10256),
    "stories": exactly(10),
    "sentences": exactly(481),
    "participants": exactly(180),
    "words without a time": exactly(0),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Futrell2018(Adapter):
    """Words and reading times.

    Attributes:
      verify: whether to refuse another file than the published one, by its counts.
    """

    name: str = "futrell2018"
    verify: bool = True

    def files(self) -> list[pathlib.Path]:
        """Return the one file."""
        return self.need([self.root / brainscore.FOLDER / FILE])

    def stimuli(self) -> Stimuli:
        """Read the words, each with its code in the corpus, `story.zone`."""
        (path,) = self.files()
        dataset = brainscore.load(path, values=False)
        read = lambda name: brainscore.label(dataset, path, name, PRESENTATION)
        story, zone, word = read("story_id"), read("word_id"), read("word")
        with naming(path):
            return Stimuli(
                stimulus_id=[f"{s}.{z}" for s, z in zip(story, zone, strict=True)],
                text=word,
                passage=story,
                run=story,
                unit="word",
                space_before=[True] * len(word),
                language="en",
            )

    def behavior(self) -> Behavior:
        """Read the times of all participants."""
        (path,) = self.files()
        words = self.stimuli()
        dataset = brainscore.load(path, values=True)
        values = brainscore.read_values(dataset, path, (PRESENTATION, SUBJECT))
        participant = brainscore.label(dataset, path, "subject_id", SUBJECT)
        sentence = brainscore.label(dataset, path, "sentence_id", PRESENTATION)
        position = brainscore.label(dataset, path, "word_within_sentence_id", PRESENTATION)
        if wrong := [x for x in position if not x.isdigit()]:
            raise InputError(
                f"{path}: word_within_sentence_id must be a number, found {wrong[0]!r}."
            )
        with naming(path):
            found = Behavior(
                stimulus_id=words.stimulus_id,
                reading_time_ms=values,
                participant=participant,
                word_in_sentence=[int(x) for x in position],
                alignment="published",
            )
        if self.verify:
            facts = {
                "words": len(values),
                "stories": len(set(words.passage)),
                "sentences": len(set(sentence)),
                "participants": len(participant),
                "words without a time": int(np.isnan(values).all(axis=1).sum()),
            }
            verify_lib.check(path, "Futrell2018", facts, EXPECTED)
        return found
