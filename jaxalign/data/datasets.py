"""One table of data sets by name, and the rule that a path names a directory of one's own."""

import dataclasses
import difflib
import functools
import importlib
import json
import os
import pathlib
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from absl import logging
from jaxtyping import Int

from jaxalign.data import localizer, same_stimulus, samples
from jaxalign.data.adapter import Adapter
from jaxalign.data.dissimilarities import Dissimilarities
from jaxalign.data.formats.recordings import NaN
from jaxalign.data.presentations import Repeats, SignalToNoise
from jaxalign.data.schema import Behavior, Responses, Stimuli
from jaxalign.data.sets import bids_layout, plain
from jaxalign.data.words import WordFacts
from jaxalign.errors import InputError
from jaxalign.io import run_dir
from jaxalign.io.activation_files import Given

if TYPE_CHECKING:
    from jaxalign.data.stand_ins import StandIn

_BIDS = "jaxalign.data.sets.bids:Bids"
_ALICE = "jaxalign.data.sets.alice:Alice"
_BRAINSCORE = "jaxalign.data.sets.brainscore:BrainScore"
_DENIZENS = "jaxalign.data.sets.denizens:Denizens"
_LEBEL = "jaxalign.data.sets.lebel2023:Lebel2023"
_LOCALIZER = "jaxalign.data.localizer:Localizer"
_NSD = "jaxalign.data.sets.nsd:Nsd"
_STORIES = "jaxalign.data.sets.natural_stories:NaturalStories"
_SCANS = "jaxalign.data.sets.nifti:Scans"
_TABLES = "jaxalign.data.sets.plain:Tables"

# Name -> class of the adapter, and its options. A row of recordings that are large has one subject:
# it is what is held in memory, and voxels are nobody else's.
DATASETS: dict[str, tuple[str, dict[str, Any]]] = {
    "demo": ("jaxalign.data.sets.passages:Passages", {}),
    "alice": (_ALICE, {"radius_mm": 10}),
    "alice-6mm": (_ALICE, {"radius_mm": 6}),
    "blank2014": (_BRAINSCORE, {"assembly": "Blank2014"}),
    "blank2014-rows": (_BRAINSCORE, {"assembly": "Blank2014.rows"}),
    "fedorenko2016": (_BRAINSCORE, {"assembly": "Fedorenko2016"}),
    "futrell2018": ("jaxalign.data.sets.brainscore_behavior:Futrell2018", {}),
    "images92": ("jaxalign.data.sets.images92:Images92", {}),
    "localizer": (_LOCALIZER, {"seed": 0}),
    "naturalstories": (_STORIES, {"times": "published"}),
    "naturalstories-corrected": (_STORIES, {"times": "corrected"}),
    "naturalstories-participants": (_STORIES, {"times": "participants"}),
    "pereira2018-243": (_BRAINSCORE, {"assembly": "Pereira2018.243sentences"}),
    "pereira2018-384": (_BRAINSCORE, {"assembly": "Pereira2018.384sentences"}),
    "pereira2018-mean": ("jaxalign.data.sets.pereira_mean:PereiraMean", {}),
    "pieman": ("jaxalign.data.sets.pieman:PieMan", {}),
    "tuckute2024": (_BRAINSCORE, {"assembly": "Tuckute2024"}),
    "wehbe2014": ("jaxalign.data.sets.wehbe2014:Wehbe2014", {}),
    **{f"lebel2023-UTS0{i}": (_LEBEL, {"subjects": (f"UTS0{i}",)}) for i in range(1, 9)},
    **{
        f"denizens-{how}-0{i}": (
            _DENIZENS,
            {"subjects": (f"0{i}",), "modality": how, "trim": (10, 10)},
        )
        for how in ("reading", "listening")
        for i in range(1, 10)
    },
    **{
        f"shortclips-S0{i}": ("jaxalign.data.sets.gallant:ShortClips", {"subjects": (f"S0{i}",)})
        for i in range(1, 6)
    },
    **{f"nsd-subj0{i}": (_NSD, {"subjects": (f"subj0{i}",)}) for i in range(1, 9)},
    # The four who came for all 40 sessions.
    "nsd-shared": (
        _NSD,
        {"subjects": ("subj01", "subj02", "subj05", "subj07"), "images": "shared"},
    ),
}
EMBEDDED = ("demo", "localizer")  # data sets that come with the package


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A data set that was found on disk, and keeps what was read of it.

    Whatever is read raises an `InputError` if the data set has none of it, or a file is not what
    it must be.
    """

    adapter: Adapter

    @property
    def name(self) -> str:
        """Its name in the table, or that of its directory; of scans also how they were cleaned."""
        return self.adapter.label

    @property
    def stimuli_name(self) -> str:
        """Its name alone: activations are of stimuli, whatever was done to responses."""
        return self.adapter.name

    @functools.cached_property
    def stimuli(self) -> Stimuli:
        """What was presented: words, sentences or images."""
        return self.adapter.stimuli()

    @functools.cached_property
    def responses(self) -> Responses:
        """What was recorded."""
        return self.adapter.responses()

    @functools.cached_property
    def dissimilarities(self) -> Dissimilarities:
        """How dissimilar stimuli are in people, where that is what was published."""
        found = self.adapter.dissimilarities()
        known = set(self.stimuli.stimulus_id)
        if unknown := [name for name in found.stimulus_id if name not in known]:
            raise InputError(
                f"data set {self.name}: dissimilarities must be of the stimuli, but stimulus_id "
                f"{unknown[0]!r} is none of theirs."
            )
        return found

    @functools.cached_property
    def behavior(self) -> Behavior:
        """Reading times, all of words that are among the stimuli."""
        behavior = self.adapter.behavior()
        known = set(self.stimuli.stimulus_id)
        if unknown := [name for name in behavior.stimulus_id if name not in known]:
            raise InputError(
                f"data set {self.name}: behavior must belong to the stimuli, but stimulus_id "
                f"{unknown[0]!r} is none of theirs ({len(unknown)} such)."
            )
        return behavior

    @functools.cached_property
    def groups(self) -> dict[str, str]:
        """What folds must keep together, by stimulus_id."""
        return self.adapter.groups()

    @functools.cached_property
    def told(self) -> list[str]:
        """The story of each stimulus, under one name wherever it is told: see `same_stimulus`."""
        return same_stimulus.passages(self.stimuli)

    def items(self, responses: Responses) -> Int[np.ndarray, " n"] | None:
        """Label samples by what they present: `same_stimulus.items`, found once for all artefacts.

        Args:
          responses: recorded or planted, of samples that present these stimuli.
        """
        times = responses.time_s.tobytes(), responses.tr_s
        key = tuple(responses.run), tuple(responses.stimulus_id), *times
        if key not in self._items:
            self._items[key] = same_stimulus.items(self.stimuli, responses)
        return self._items[key]

    @functools.cached_property
    def _items(self) -> dict[tuple, Int[np.ndarray, " n"] | None]:
        return {}

    @functools.cached_property
    def word_facts(self) -> WordFacts:
        """What the data set says of its words: nothing, for most."""
        return self.adapter.word_facts()

    @property
    def stand_in(self) -> "StandIn | None":
        """What stands in for data that are not here, in plans that are only priced; else None."""
        return None if self.adapter.is_here else cast("StandIn", self.adapter)

    @property
    def has_repeats(self) -> bool:
        """Whether the repeats of stimuli can be read apart from their mean."""
        return self.adapter.has("repeats")

    def repeats(self, subject: str) -> Repeats:
        """Read the responses of a subject to each repeat of a stimulus."""
        return self.adapter.repeats(subject)

    @property
    def has_ncsnr(self) -> bool:
        """Whether ratios of signal and noise were published with the responses, and are there."""
        return self.adapter.has_ncsnr

    def ncsnr(self, subject: str) -> SignalToNoise:
        """Read the published ratios of signal and noise of a subject's targets."""
        return self.adapter.ncsnr(subject)

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of networks whose activations come with the data set: none, for most."""
        return self.adapter.networks

    def activations(self, name: str) -> Given:
        """Open the activations of one of `networks`."""
        return self.adapter.activations(name)

    def check_rows(self, given: Given) -> None:
        """Refuse activations whose rows are not the stimuli, each once.

        Raises:
          InputError: naming the first that is missing, or is none of the stimuli's.
        """
        stimuli, rows = self.stimuli.stimulus_id, set(given.stimulus_id)
        for lost, what in (
            ([x for x in stimuli if x not in rows], "every stimulus must have a row, found none"),
            (sorted(rows - set(stimuli)), "every row must be of a stimulus, found one"),
        ):
            if lost:
                raise InputError(
                    f"{given.path}: of data set {self.name}, {what} with stimulus_id "
                    f"{lost[0]!r} ({len(lost)} such)."
                )

    def check_samples(self, responses: Responses, lead: int = 0) -> tuple[int, int, int] | None:
        """Refuse responses that do not belong to these stimuli, by their ids, runs and clock.

        Words in no TR, and TRs without a word, are counted in a warning where they are many.

        Args:
          responses: recorded, or planned.
          lead: TRs before each run that delays reach.

        Returns:
          What `samples.check_clock` counts; None where samples are single stimuli.

        Raises:
          InputError: if a run or stimulus_id is none of the stimuli's, timed responses meet stimuli
            without times, or no word of a run begins in one of its TRs.
        """
        kind = "run" if responses.is_timed else "stimulus_id"
        known = set(getattr(self.stimuli, kind))
        if lost := [x for x in getattr(responses, kind) if x not in known]:
            raise InputError(
                f"data set {self.name}: responses: every {kind} must be one of the stimuli's, "
                f"found {lost[0]!r} ({len(lost)} such)."
            )
        if responses.is_timed and not self.stimuli.is_timed:
            raise InputError("responses are timed, so stimuli must have onset_s and offset_s.")
        if responses.is_timed:
            return samples.check_clock(self.name, self.stimuli, responses, lead)
        if said := self.unanswered(responses):
            logging.warning("data set %s: %s", self.name, said)
        return None

    def unanswered(self, responses: Responses, but: Collection[str] = ()) -> str:
        """Say how many stimuli have no response, or TRs are no samples; "" if that is none.

        Args:
          responses: recorded, or planned.
          but: stimuli that do not count.
        """
        if responses.is_timed:
            return self.adapter.left_out
        lost = len(set(self.stimuli.stimulus_id) - set(responses.stimulus_id) - set(but))
        if not lost:
            return ""
        return (
            f"{lost} of {len(self.stimuli)} {self.stimuli.unit}s have no response and are left out."
        )

    def check_text(self, stage: str) -> None:
        """Refuse images that have no captions, on behalf of a stage that reads text.

        Raises:
          InputError: naming the stage and the data set.
        """
        if not self.stimuli.text:
            raise InputError(
                f"{stage} reads words or sentences, but data set {self.name} has "
                f"{self.stimuli.unit}s without captions."
            )

    def check_images(self, stage: str) -> None:
        """Refuse stimuli that are no images, or whose pixels are not there, on behalf of a stage.

        Raises:
          InputError: naming the stage and the data set, or the file.
        """
        if self.stimuli.pixels is None:
            raise InputError(
                f"{stage} reads images with this model, but data set {self.name} has "
                f"{self.stimuli.unit}s."
            )
        self.stimuli.pixels.check()

    @functools.cached_property
    def hash(self) -> str:
        """Hash of all files, and of the options by which they are read; 16 hexadecimal digits."""
        parts = [json.dumps(self.adapter.options)]
        parts += [path.name + run_dir.hash_file(path) for path in self.adapter.files()]
        return run_dir.hash_text("".join(parts))


def find(
    name: str,
    data_root: pathlib.Path | None,
    *,
    nan: NaN = "refuse",
    options: Sequence[str] = (),
) -> Dataset:
    """Find a data set by its name in the table, or by the path of a directory.

    Args:
      name: key of `DATASETS`, or the path of a directory in the layout of `data/sets/plain.py` or,
        where it has `images.csv`, of `data/sets/nifti.py`, or of BIDS (`data/sets/bids.py`).
      data_root: folder of published data.
      nan: what becomes of targets that are NaN here and there: "refuse", or of data sets whose
        adapters have that option, "leave_out".
      options: other options of its adapter, as "NAME=VALUE"; several values have commas between.

    Raises:
      InputError: if it is not found, a file is missing, its adapter leaves nothing out, or has no
        such option or value.
    """
    if name in DATASETS:
        adapter = _published(name, data_root, options)
    else:
        adapter = _own(name)
        adapter = dataclasses.replace(adapter, **_parsed(type(adapter), name, options, fixed={}))
    if nan != "refuse":
        if "nan" not in adapter.options:
            raise InputError(
                f"nan must be 'refuse' for data set {adapter.name}, which leaves no target out, "
                f"got {nan!r}."
            )
        adapter = dataclasses.replace(adapter, **{"nan": nan})
    return Dataset(adapter)


def for_price(
    name: str,
    data_root: pathlib.Path | None,
    *,
    nan: NaN = "refuse",
    options: Sequence[str] = (),
) -> Dataset:
    """Find a data set for a plan that is only priced: one that is not here by its published size.

    Args:
      name, data_root, nan, options: as of `find`.

    Raises:
      InputError: see `find`; also if a part of the data set is here, and not all, or there are
        options of one that is not here.
    """
    from jaxalign.data import stand_ins

    if not stand_ins.is_absent(name, data_root):
        return find(name, data_root, nan=nan, options=options)
    if options:
        raise InputError(
            f"options must be () for data set {name}, which is not here: the published size is "
            f"that of the whole, got {tuple(options)}."
        )
    return _stand_in(name)


@functools.cache  # its stimuli are the same for every plan of a sweep
def _stand_in(name: str) -> Dataset:
    from jaxalign.data import stand_ins

    return Dataset(stand_ins.StandIn(name=name))


def unopened(name: str) -> Adapter:
    """Return the adapter of a data set, which says what there is; published files are not sought.

    Args:
      name: as of `find`.

    Raises:
      InputError: if there is no such data set.
    """
    if name in DATASETS:
        where, options = DATASETS[name]
        return _adapter(where)(root=pathlib.Path(), name=name, **options)
    return _own(name)


def is_timed(name: str) -> bool:
    """Say whether samples of a data set are the TRs of scans; published files are not opened.

    Args:
      name: as of `find`.

    Raises:
      InputError: if there is no such data set, or a file of one's own is not what it must be.
    """
    return unopened(name).is_timed


def _published(name: str, data_root: pathlib.Path | None, asked: Sequence[str]) -> Adapter:
    where, options = DATASETS[name]
    options = options | _parsed(_adapter(where), name, asked, fixed=options)
    if name in EMBEDDED:
        data_root = pathlib.Path()
    if data_root is None:
        raise InputError(
            f"dataset {name} lies in the data folder: give --data_root or set JAXALIGN_DATA."
        )
    if not data_root.is_dir():
        raise InputError(f"data_root must be a directory, found {str(data_root)!r}.")
    adapter = _adapter(where)(root=data_root, name=name, **options)
    adapter.files()
    return adapter


def _parsed(
    adapter: type[Adapter], name: str, asked: Sequence[str], *, fixed: Mapping[str, Any]
) -> dict[str, Any]:
    """Read options of an adapter, each by the type of its field."""
    types = typing.get_type_hints(adapter)
    known = {
        field.name: types[field.name]
        for field in dataclasses.fields(adapter)
        if types[field.name] in _READERS and field.name not in ("name", *fixed)
    }
    found: dict[str, Any] = {}
    for option in asked:
        key, equals, value = option.partition("=")
        if not equals or key not in known:
            among = f"must be NAME=VALUE with one of {', '.join(known)}" if known else "are none"
            why = f"; the name fixes {key}" if key in fixed else ""
            raise InputError(f"options of data set {name} {among}, found {option!r}{why}.")
        if key in found:
            raise InputError(f"options of data set {name} must differ, found {key} twice.")
        try:
            found[key] = _READERS[known[key]](value)
        except (ValueError, KeyError) as error:
            what = {int: "a whole number", float: "a number", bool: "True or False"}[known[key]]
            raise InputError(
                f"options of data set {name}: {key} must be {what}, found {value!r}."
            ) from error
    return found


# Type of an option -> what reads it.
_READERS: dict[Any, Callable[[str], Any]] = {
    str: str,
    int: int,
    float: float,
    bool: {"True": True, "False": False}.__getitem__,
    tuple[str, ...]: lambda value: tuple(x for x in value.split(",") if x),
}


def _own(name: str) -> Adapter:
    path = pathlib.Path(name)
    what = "a directory with stimuli.csv and responses, images.csv or behavior.csv, or of BIDS"
    if not path.is_dir():
        if os.sep in name or path.exists():
            found = "it is a file, and its folder is meant" if path.exists() else "there is none"
            raise InputError(f"dataset {name} must be {what}: {found}.")
        close = difflib.get_close_matches(name, DATASETS, 1)
        hint = f"; did you mean {close[0]}?" if close else "."
        raise InputError(
            f"dataset must be one of {', '.join(DATASETS)}, or {what}: found {name!r}{hint}"
        )
    # A localiser is two lists of items, and scans have a table that names them.
    is_localizer = any((path / file).is_file() for file in localizer.FILES.values())
    is_scans = (path / "images.csv").is_file()
    is_tables = any((path / file).is_file() for file in (*plain.RESPONSES, plain.BEHAVIOR))
    where = _SCANS if is_scans else _TABLES
    if is_localizer:
        where = _LOCALIZER
    elif not is_scans and not is_tables and bids_layout.is_bids(path):
        where = _BIDS
    return _adapter(where)(root=path, name=path.resolve().name)


def _adapter(where: str) -> type[Adapter]:
    module, _, name = where.partition(":")
    return getattr(importlib.import_module(module), name)
