"""The interface of a data set's adapter, and what holds unless an adapter says otherwise."""

import abc
import dataclasses
import pathlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, ClassVar

from jaxalign.data.dissimilarities import Dissimilarities
from jaxalign.data.formats import recordings
from jaxalign.data.presentations import Repeats, SignalToNoise
from jaxalign.data.schema import Behavior, Responses, Stimuli
from jaxalign.data.words import WordFacts
from jaxalign.errors import InputError
from jaxalign.io.activation_files import Given

KINDS = ("stimuli", "responses", "behavior")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adapter(abc.ABC):
    """What reads one data set: its options are fields, and it reads what the data set holds.

    A new adapter is a frozen dataclass with `files` and those of the other methods for which the
    data set holds something; every method raises an `InputError` about files that are missing or
    are not what they must be.

    Attributes:
      root: folder of published data, or the directory of one's own.
      name: of the data set, for messages.
      timed: whether samples are the TRs of scans; else they are single stimuli.
      is_here: whether files are read; else published sizes stand in for them (`stand_ins.py`).
      networks: names of networks whose activations come with the data.
      absent: why the data set has no stimuli, responses or behavior, where that needs a reason.
    """

    root: pathlib.Path
    name: str
    timed: ClassVar[bool] = False
    is_here: ClassVar[bool] = True
    networks: ClassVar[tuple[str, ...]] = ()
    absent: ClassVar[Mapping[str, str]] = {}

    @abc.abstractmethod
    def files(self) -> list[pathlib.Path]:
        """Return all files that fix what is read, in an order of their own."""

    def stimuli(self) -> Stimuli:
        """Read what was presented."""
        raise self._lacks("stimuli")

    def responses(self) -> Responses:
        """Read what was recorded."""
        raise self._lacks("responses")

    def behavior(self) -> Behavior:
        """Read the reading times."""
        raise self._lacks("behavior")

    def dissimilarities(self) -> Dissimilarities:
        """Read how dissimilar stimuli are in people, where that is what was published."""
        raise self._lacks("dissimilarities")

    def repeats(self, subject: str) -> Repeats:
        """Read the responses of a subject to each repeat of a stimulus."""
        raise self._lacks("repeats")

    def ncsnr(self, subject: str) -> SignalToNoise:
        """Read the ratios of signal and noise of a subject's targets, where they were published."""
        raise self._lacks("ncsnr")

    @property
    def has_ncsnr(self) -> bool:
        """Whether such ratios are there, of every subject."""
        return False

    def groups(self) -> dict[str, str]:
        """Return what folds must keep together, by stimulus_id: passages, unless it is more."""
        stimuli = self.stimuli()
        return dict(zip(stimuli.stimulus_id, stimuli.passage, strict=True))

    def word_facts(self) -> WordFacts:
        """Return what the data set says of its words in addition to their text: often nothing."""
        return WordFacts(stimulus_id=self.stimuli().stimulus_id)

    def activations(self, name: str) -> Given:
        """Open the activations of one of `networks`."""
        raise InputError(f"data set {self.name} has no activations of {name!r}.")

    @property
    def label(self) -> str:
        """What rows and pages call it: its name, and what an option changed that must be seen."""
        return self.name

    @property
    def options(self) -> dict[str, Any]:
        """Options by their names: all fields but where the files lie and what they are called."""
        names = {field.name for field in dataclasses.fields(self)} - {"root", "name"}
        return {name: getattr(self, name) for name in sorted(names)}

    @property
    def left_out(self) -> str:
        """How many recorded TRs are no samples, where the adapter decides that; else ""."""
        return ""

    def has(self, kind: str) -> bool:
        """Whether the data set holds this: "responses", "repeats", ...; files are not opened."""
        return getattr(type(self), kind) is not getattr(Adapter, kind)

    @property
    def has_frequencies(self) -> bool:
        """Whether it is known how frequent words are."""
        return self.has("word_facts")

    @property
    def is_timed(self) -> bool:
        """Whether samples of the responses are the TRs of scans."""
        return self.timed

    @property
    def has_images(self) -> bool:
        """Whether stimuli are images; pixels are not looked for."""
        return False

    @property
    def has_times(self) -> bool:
        """Whether stimuli are words with times; those of scans are."""
        return self.timed

    def need(self, paths: Iterable[pathlib.Path]) -> list[pathlib.Path]:
        """Return files that must all be there.

        Raises:
          InputError: if one is missing, was not fetched, or is a pickle.
        """
        found = list(paths)
        for path in found:
            recordings.refuse_pickle(path)
            if not path.is_file():
                lost = "it is missing"
                if path.is_symlink():
                    lost = "it is a link to a file that was not fetched (datalad get)"
                raise InputError(f"data set {self.name} needs {path}: {lost}.")
        return found

    def check_option(self, option: str, given: Sequence[str], known: Collection[str]) -> None:
        """Refuse an option that names nothing, or something that is not known.

        Raises:
          InputError: naming the first.
        """
        unknown = [name for name in given if name not in known]
        if unknown or not given:
            raise InputError(
                f"data set {self.name}: {option} must be among {', '.join(known)}, found "
                f"{unknown[0] if unknown else 'none'!r}."
            )

    def _lacks(self, kind: str) -> InputError:
        has = " and ".join(x for x in KINDS if self.has(x))
        reason = self.absent.get(kind, f"it has {has}")
        return InputError(f"data set {self.name} has no {kind}: {reason}.")
