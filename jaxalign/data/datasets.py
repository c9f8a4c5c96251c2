"""One table of data sets by name, and the rule that a path names one's own."""

import dataclasses
import functools
import importlib
import inspect
import json
import pathlib
import types
from collections.abc import Mapping
from typing import Any

from jaxalign.data import localizer
from jaxalign.data.formats.recordings import NaN
from jaxalign.data.presentations import Repeats
from jaxalign.data.schema import Behavior, Responses, Stimuli
from jaxalign.data.words import WordFacts
from jaxalign.errors import InputError
from jaxalign.io import run_dir
from jaxalign.io.activation_files import Given

_ALICE = "jaxalign.data.sets.alice"
_BEHAVIOR = "jaxalign.data.sets.brainscore_behavior"
_DENIZENS = "jaxalign.data.sets.denizens"
_LEBEL = "jaxalign.data.sets.lebel2023"
_NSD = "jaxalign.data.sets.nsd"
_BRAINSCORE = "jaxalign.data.sets.brainscore"
_STORIES = "jaxalign.data.sets.natural_stories"
_LOCALIZER = "jaxalign.data.localizer"
_NIFTI = "jaxalign.data.sets.nifti"
_PLAIN = "jaxalign.data.sets.plain"

# Name -> adapter module and its options. An adapter has `files`, those of `stimuli`, `responses`
# and `behavior` that the data set holds, and `groups` where folds are to keep more together than
# passages, and `word_facts` where it says something of its words. `NETWORKS` names those whose
# activations come with the data, which `activations` opens. `verify` holds files against the counts
# and sums of those published.
DATASETS: dict[str, tuple[str, dict[str, Any]]] = {
    "demo": ("jaxalign.data.sets.passages", {}),
    "alice": (_ALICE, {"radius_mm": 10}),
    "alice-6mm": (_ALICE, {"radius_mm": 6}),
    "blank2014": (_BRAINSCORE, {"assembly": "Blank2014", "verify": True}),
    "blank2014-rows": (_BRAINSCORE, {"assembly": "Blank2014.rows", "verify": True}),
    "fedorenko2016": (_BRAINSCORE, {"assembly": "Fedorenko2016", "verify": True}),
    "futrell2018": (_BEHAVIOR, {"verify": True}),
    "localizer": ("jaxalign.data.localizer", {"seed": 0}),
    "naturalstories": (_STORIES, {"times": "published", "verify": True}),
    "naturalstories-corrected": (_STORIES, {"times": "corrected", "verify": True}),
    "naturalstories-participants": (_STORIES, {"times": "participants", "verify": True}),
    "pereira2018-243": (_BRAINSCORE, {"assembly": "Pereira2018.243sentences", "verify": True}),
    "pereira2018-384": (_BRAINSCORE, {"assembly": "Pereira2018.384sentences", "verify": True}),
    "pereira2018-mean": ("jaxalign.data.sets.pereira_mean", {"verify": True}),
    "pieman": ("jaxalign.data.sets.pieman", {"verify": True}),
    "tuckute2024": (_BRAINSCORE, {"assembly": "Tuckute2024", "verify": True}),
    "wehbe2014": ("jaxalign.data.sets.wehbe2014", {}),
    # One subject each: a row is what is held in memory, and voxels are nobody else's.
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
        f"shortclips-S0{i}": ("jaxalign.data.sets.gallant", {"subjects": (f"S0{i}",)})
        for i in range(1, 6)
    },
    **{f"nsd-subj0{i}": (_NSD, {"subjects": (f"subj0{i}",)}) for i in range(1, 9)},
    # The four who came for all 40 sessions.
    "nsd-shared": (
        _NSD,
        {"subjects": ("subj01", "subj02", "subj05", "subj07"), "images": "shared"},
    ),
}
# Data sets that come with the package.
EMBEDDED = ("demo", "localizer")
KINDS = ("stimuli", "responses", "behavior")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set that was found on disk."""

    name: str
    module: str
    root: pathlib.Path
    options: Mapping[str, Any]

    @functools.cached_property
    def stimuli(self) -> Stimuli:
        """Read the stimuli.

        Raises:
          InputError: if the data set has none, or a file is not what it must be.
        """
        return self._read("stimuli")

    @functools.cached_property
    def responses(self) -> Responses:
        """Read the responses.

        Raises:
          InputError: if the data set has none, or a file is not what it must be.
        """
        return self._read("responses")

    @functools.cached_property
    def behavior(self) -> Behavior:
        """Read the reading times.

        Raises:
          InputError: if the data set has none, a file is not what it must be, or a time belongs to
            a word that is not among the stimuli.
        """
        behavior = self._read("behavior")
        known = set(self.stimuli.stimulus_id)
        if unknown := [name for name in behavior.stimulus_id if name not in known]:
            raise InputError(
                f"data set {self.name}: behavior must belong to the stimuli, but stimulus_id "
                f"{unknown[0]!r} is none of theirs ({len(unknown)} such)."
            )
        return behavior

    def check_samples(self, responses: Responses) -> None:
        """Hold the samples of responses against the stimuli: their runs, or their ids.

        Args:
          responses: to these stimuli.

        Raises:
          InputError: if one is none of the stimuli's.
        """
        kind = "run" if responses.is_timed else "stimulus_id"
        known = set(getattr(self.stimuli, kind))
        if lost := [x for x in getattr(responses, kind) if x not in known]:
            raise InputError(
                f"data set {self.name}: responses: every {kind} must be one of the stimuli's, "
                f"found {lost[0]!r} ({len(lost)} such)."
            )

    @functools.cached_property
    def groups(self) -> dict[str, str]:
        """What folds must keep together, by stimulus_id: the adapter's groups, or passages."""
        if hasattr(self._adapter, "groups"):
            return self._read("groups")
        return dict(zip(self.stimuli.stimulus_id, self.stimuli.passage, strict=True))

    @functools.cached_property
    def word_facts(self) -> WordFacts:
        """What the data set says of its words: nothing, for most."""
        if hasattr(self._adapter, "word_facts"):
            return self._adapter.word_facts(self.root, self.stimuli)
        return WordFacts(stimulus_id=self.stimuli.stimulus_id)

    @property
    def has_repeats(self) -> bool:
        """Whether the adapter reads the repeats of stimuli apart from their mean."""
        return hasattr(self._adapter, "repeats")

    def repeats(self, subject: str) -> Repeats:
        """Read the responses of a subject to each repeat of a stimulus.

        Raises:
          InputError: if the data set has no repeats, or a file is not what it must be.
        """
        if not self.has_repeats:
            raise InputError(f"data set {self.name} has no repeats.")
        options = {name: x for name, x in self.options.items() if name != "subjects"}
        return self._adapter.repeats(self.root, subject=subject, **options)

    @property
    def networks(self) -> tuple[str, ...]:
        """Names of networks whose activations come with the data set: none, for most."""
        return getattr(self._adapter, "NETWORKS", ())

    def activations(self, name: str) -> Given:
        """Open the activations of one of `networks`.

        Raises:
          InputError: if a file is missing or malformed.
        """
        return self._adapter.activations(self.root, name, **self.options)

    @property
    def _adapter(self) -> types.ModuleType:
        return importlib.import_module(self.module)

    def _read(self, kind: str) -> Any:
        if not hasattr(self._adapter, kind):
            has = " and ".join(x for x in KINDS if hasattr(self._adapter, x))
            raise InputError(f"data set {self.name} has no {kind}: it has {has}.")
        return getattr(self._adapter, kind)(self.root, **self.options)

    @functools.cached_property
    def hash(self) -> str:
        """Hash of all files, and of the options by which they are read; 16 hexadecimal digits."""
        paths = self._adapter.files(self.root, **self.options)
        options = json.dumps(dict(self.options), sort_keys=True)
        return run_dir.hash_text(
            options + "".join(path.name + run_dir.hash_file(path) for path in paths)
        )


def find(name: str, data_root: pathlib.Path | None, *, nan: NaN = "refuse") -> Dataset:
    """Find a data set by its name in the table, or by the path of a directory.

    Args:
      name: key of `DATASETS`, or the path of a directory in the layout of `data/sets/plain.py` or,
        where it has `images.csv`, of `data/sets/nifti.py`.
      data_root: folder of published data.
      nan: what becomes of targets that are NaN here and there: "refuse", or of data sets whose
        adapters know how, "leave_out".

    Raises:
      InputError: if it is not found, or its adapter leaves nothing out.
    """
    found = _find(name, data_root)
    if nan == "refuse":
        return found
    adapter = importlib.import_module(found.module)
    if "nan" not in inspect.signature(adapter.files).parameters:
        raise InputError(
            f"nan must be 'refuse' for data set {found.name}, which leaves no target out, got "
            f"{nan!r}."
        )
    return dataclasses.replace(found, options={**found.options, "nan": nan})


def _find(name: str, data_root: pathlib.Path | None) -> Dataset:
    if name not in DATASETS:
        path = pathlib.Path(name)
        if not path.is_dir():
            raise InputError(
                f"dataset must be one of {', '.join(DATASETS)}, or a directory with stimuli.csv "
                f"and responses, images.csv or behavior: found {name!r}."
            )
        # What a localiser needs is two lists, and images name their files; anything else is in
        # the layout of data/sets/plain.py.
        is_localizer = any((path / file).is_file() for file in localizer.FILES.values())
        is_nifti = (path / "images.csv").is_file()
        module = _LOCALIZER if is_localizer else _NIFTI if is_nifti else _PLAIN
        return Dataset(name=path.resolve().name, module=module, root=path, options={})
    module, options = DATASETS[name]
    if name in EMBEDDED:
        data_root = pathlib.Path()
    if data_root is None:
        raise InputError(
            f"dataset {name} lies in the data folder: give --data_root or set JAXALIGN_DATA."
        )
    if not data_root.is_dir():
        raise InputError(f"data_root must be a directory, found {str(data_root)!r}.")
    importlib.import_module(module).files(data_root, **options)
    return Dataset(name=name, module=module, root=data_root, options=options)
