"""Stand-ins for data sets that are not here: their published sizes, for plans that are only priced.

Words are drawn from the embedded passages, whose mean length (4.6 letters) is that of the stories
and sentences below; so are tokens counted. Nothing is scored on them.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxalign.data.adapter import Adapter
from jaxalign.data.schema import Behavior, Responses, Stimuli, Unit
from jaxalign.data.sets import brainscore, brainscore_behavior, passages, wehbe2014
from jaxalign.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
    """What was published of a data set, as far as prices depend on it.

    Attributes:
      where: file or folder below the data root. Where it is, the data set is read.
      unit: of the stimuli.
      words: of each passage.
      parts: stimuli of all passages.
      groups: of passages that folds keep together; 0: each is its own.
      subjects: people.
      targets: of all people together; 0: there are none, but reading times.
      shared: targets that all people have, of which there is a group's mean.
      num_trs: of each run, as far as they are kept; (): samples are stimuli.
      source: of these numbers.
      assumed: what is not published, and how it was chosen.
    """

    where: str
    unit: Unit
    words: Sequence[int]
    parts: int
    groups: int = 0
    subjects: int
    targets: int = 0
    shared: int = 0
    num_trs: Sequence[int] = ()
    source: str
    assumed: str

    @property
    def num_targets(self) -> int:
        """Columns that are fitted, the group's mean among them."""
        return self.targets + self.shared


def _even(total: int, number: int) -> tuple[int, ...]:
    """Divide a count into parts that differ by one at most."""
    ends = [total * i // number for i in range(number + 1)]
    return tuple(b - a for a, b in zip(ends, ends[1:], strict=False))


_PEREIRA = f"{brainscore.FOLDER}/{brainscore.ASSEMBLIES['Pereira2018.384sentences'].file}"
_SENTENCES = (
    "docs/datasets/pereira2018.md; words of the sentences in github.com/carina-kauf/"
    "perturbed-neural-nlp, Pereira2018_stimulus_set"
)
# Of the ten Natural Stories, in their order; Blank et al. have all but the eighth and the tenth.
_STORIES = (1073, 990, 1040, 1085, 1013, 1099, 999, 980, 1038, 939)
_BLANK = Size(
    where=f"{brainscore.FOLDER}/{brainscore.ASSEMBLIES['Blank2014'].file}",
    unit="sentence",
    words=(*_STORIES[:7], _STORIES[8]),
    parts=1317,
    subjects=5,
    targets=60,
    shared=12,
    source="docs/datasets/blank2014.md; words of the eight stories in Natural Stories",
    assumed="parts of a story in proportion to its words",
)
# TRs of the scans are 1,351 in four runs.
_TRS = _even(wehbe2014.NUM_TRS, wehbe2014.NUM_RUNS)
SIZES: dict[str, Size] = {
    "pereira2018-243": Size(
        where=_PEREIRA,
        unit="sentence",
        words=_even(3193, 24),
        parts=243,
        subjects=6,
        targets=8121,
        source=_SENTENCES,
        assumed="sentences and passages of equal length",
    ),
    "pereira2018-384": Size(
        where=_PEREIRA,
        unit="sentence",
        words=_even(4537, 96),
        parts=384,
        groups=24,
        subjects=9,
        targets=12195,
        source=_SENTENCES,
        assumed="sentences and passages of equal length",
    ),
    "blank2014": _BLANK,
    "blank2014-rows": _BLANK,
    "wehbe2014": Size(
        where=wehbe2014.FOLDER,
        unit="word",
        words=(wehbe2014.NUM_WORDS,),
        parts=wehbe2014.NUM_WORDS,
        subjects=len(wehbe2014.SUBJECTS),
        targets=27905 * len(wehbe2014.SUBJECTS),
        num_trs=tuple(x - sum(wehbe2014.TRIMMED) for x in _TRS),
        source="docs/datasets/wehbe2014.md",
        assumed="27,905 voxels for each person, as is said of one, and runs of equal length",
    ),
    "futrell2018": Size(
        where=f"{brainscore.FOLDER}/{brainscore_behavior.FILE}",
        unit="word",
        words=_STORIES,
        parts=sum(_STORIES),
        subjects=180,
        source="docs/datasets/futrell2018.md; words of the stories in Natural Stories",
        assumed="that everybody read all words, in sentences of equal length",
    ),
}
_NUM_SENTENCES = 481  # of Natural Stories


@dataclasses.dataclass(frozen=True, kw_only=True)
class StandIn(Adapter):
    """Stimuli of a published size, and how many responses there are to them."""

    root: pathlib.Path = pathlib.Path()
    is_here = False

    @property
    def size(self) -> Size:
        """What is known of the data set."""
        return SIZES[self.name]

    @property
    def is_timed(self) -> bool:
        """Whether samples are TRs."""
        return bool(self.size.num_trs)

    @property
    def has_times(self) -> bool:
        """Whether words have times."""
        return self.is_timed

    @property
    def described(self) -> str:
        """What stands in for the data set, from where, and what is assumed."""
        size = self.size
        words, number = sum(size.words), f"{size.parts:,} {size.unit}s"
        stimuli = number if size.unit == "word" else f"{number} of {words:,} words"
        people = f"{size.subjects} people"
        if size.targets:
            people += f", {size.targets:,} targets"
        if size.num_trs:
            people += f", {sum(size.num_trs):,} TRs"
        return (
            f"data set {self.name} is not here: {stimuli}, {people} ({size.source}); assumed are "
            f"{size.assumed}, and English words of 4.6 letters"
        )

    def files(self) -> list[pathlib.Path]:
        """Return no file."""
        return []

    def stimuli(self) -> Stimuli:
        """Return words that were drawn, in as many parts and passages."""
        size, rng = self.size, np.random.default_rng(0)
        known = [word for text in passages.Passages().stimuli().text for word in text.split()]
        drawn = [known[i] for i in rng.integers(len(known), size=sum(size.words))]
        # Each passage has parts in proportion to its words.
        ends = np.cumsum([0, *size.words])
        borders = np.rint(ends * size.parts / ends[-1]).astype(int)
        text, passage = [], []
        for k, (first, last) in enumerate(zip(borders, borders[1:], strict=False)):
            place = ends[k]
            for count in _even(size.words[k], int(last - first)):
                text.append(" ".join(drawn[place : place + count]))
                passage.append(f"passage-{k + 1}")
                place += count
        times: dict[str, Any] = self._times() if self.is_timed else {"run": [self.name] * len(text)}
        return Stimuli(
            stimulus_id=[f"part-{i + 1}" for i in range(len(text))],
            text=text,
            passage=passage,
            unit=size.unit,
            language="en",
            **times,
        )

    def _times(self) -> dict[str, Any]:
        """Divide words over runs, in which each is there for half a second."""
        size, begin_s = self.size, wehbe2014.TRIMMED[0] * wehbe2014.TR_S
        counts = _even(size.parts, len(size.num_trs))
        onset_s = np.concatenate([begin_s + wehbe2014.WORD_S * np.arange(x) for x in counts])
        run = [f"run-{k + 1}" for k, count in enumerate(counts) for _ in range(count)]
        return {"run": run, "onset_s": onset_s, "offset_s": onset_s + wehbe2014.WORD_S}

    def groups(self) -> dict[str, str]:
        """Return what folds keep together: neighbouring passages, as many in each group."""
        stimuli, size = self.stimuli(), self.size
        number = size.groups or len(size.words)
        of = {
            name: f"group-{k * number // len(size.words) + 1}"
            for k, name in enumerate(dict.fromkeys(stimuli.passage))
        }
        return {x: of[y] for x, y in zip(stimuli.stimulus_id, stimuli.passage, strict=True)}

    def samples(self) -> Responses:
        """Return samples of the size, with one column of each person in the place of targets.

        Raises:
          InputError: if people were not recorded.
        """
        size = self.size
        if not size.targets:
            raise InputError(f"data set {self.name} has no responses: it has reading times.")
        samples: dict[str, Any]
        if size.num_trs:
            begin_s = wehbe2014.TRIMMED[0] * wehbe2014.TR_S
            samples = {
                "run": [f"run-{k + 1}" for k, x in enumerate(size.num_trs) for _ in range(x)],
                "time_s": np.concatenate(
                    [begin_s + wehbe2014.TR_S * np.arange(x) for x in size.num_trs]
                ),
                "tr_s": wehbe2014.TR_S,
            }
        else:
            stimuli = self.stimuli()
            samples = {"run": list(stimuli.run), "stimulus_id": list(stimuli.stimulus_id)}
        people = [f"subject-{i + 1}" for i in range(size.subjects)]
        return Responses(
            values=np.zeros((len(samples["run"]), size.subjects)),
            subject=people,
            roi=["all"] * size.subjects,
            target=["all"] * size.subjects,
            units="none: nothing is here",
            **samples,
        )

    def responses(self) -> Responses:
        """Refuse to be read as recordings.

        Raises:
          InputError: always.
        """
        raise InputError(
            f"data set {self.name} is not here, and of what reads its responses only the stage "
            "encode can be priced by its published size."
        )

    def behavior(self) -> Behavior:
        """Return times of everybody for all words.

        Raises:
          InputError: if there are recordings instead.
        """
        size = self.size
        if size.targets:
            raise InputError(f"data set {self.name} has no reading times: it has responses.")
        m, length = size.parts, -(-size.parts // _NUM_SENTENCES)
        times = 200.0 + np.arange(m)[:, None] % (7 + np.arange(size.subjects))
        return Behavior(
            stimulus_id=list(self.stimuli().stimulus_id),
            reading_time_ms=times,
            participant=[f"subject-{i + 1}" for i in range(size.subjects)],
            word_in_sentence=[i % length + 1 for i in range(m)],
            alignment="none",
        )


def is_absent(name: str, data_root: pathlib.Path | None) -> bool:
    """Whether a data set is not on this machine, nor any part of it, and its size is known.

    A link to a file that was not fetched is a part of it.

    Args:
      name: of a data set.
      data_root: folder of published data, if there is one.
    """
    if name not in SIZES:
        return False
    if data_root is None:
        return True
    path = data_root / SIZES[name].where
    return not (path.exists() or path.is_symlink())
