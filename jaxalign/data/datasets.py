"""One table of data sets by name, and the rule that a path names one's own."""

import dataclasses
import functools
import importlib
import pathlib
from collections.abc import Mapping
from typing import Any

from jaxalign.data import localizer
from jaxalign.data.schema import Behavior, Responses, Stimuli
from jaxalign.data.words import WordFacts
from jaxalign.errors import InputError
from jaxalign.io import run_dir

# Name -> adapter module and its options. An adapter has `files`, `stimuli`, `responses` or
# `behavior` or both, and, where something is known of the words, `word_facts`.
DATASETS: dict[str, tuple[str, dict[str, Any]]] = {
    "demo": ("jaxalign.data.passages", {}),
    "localizer": ("jaxalign.data.localizer", {"seed": 0}),
    "alice": ("jaxalign.data.alice", {"radius_mm": 10}),
    "alice-6mm": ("jaxalign.data.alice", {"radius_mm": 6}),
}
# Data sets that come with the package.
EMBEDDED = ("demo", "localizer")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dataset:
    """A data set that was found on disk."""

    name: str
    module: str
    root: pathlib.Path
    options: Mapping[str, Any]

    @functools.cached_property
    def stimuli(self) -> Stimuli:
        """Read the stimuli."""
        return importlib.import_module(self.module).stimuli(self.root, **self.options)

    @functools.cached_property
    def responses(self) -> Responses:
        """Read the responses."""
        return importlib.import_module(self.module).responses(self.root, **self.options)

    @functools.cached_property
    def behavior(self) -> Behavior:
        """Read the reading times.

        Raises:
          InputError: if the data set has none.
        """
        module = importlib.import_module(self.module)
        if not hasattr(module, "behavior"):
            raise InputError(f"data set {self.name} has no behavior: no reading times.")
        return module.behavior(self.root, **self.options)

    @functools.cached_property
    def word_facts(self) -> WordFacts:
        """Read what the data set says of its words: nothing, for most."""
        module = importlib.import_module(self.module)
        if not hasattr(module, "word_facts"):
            return WordFacts(stimulus_id=self.stimuli.stimulus_id)
        return module.word_facts(self.root, self.stimuli)

    @functools.cached_property
    def hash(self) -> str:
        """Hash of all files, 16 hexadecimal digits."""
        paths = importlib.import_module(self.module).files(self.root, **self.options)
        return run_dir.hash_text("".join(path.name + run_dir.hash_file(path) for path in paths))


def find(name: str, data_root: pathlib.Path | None) -> Dataset:
    """Find a data set by its name in the table, or by the path of a directory.

    Args:
      name: key of `DATASETS`, or the path of a directory in the layout of `data/plain.py`.
      data_root: folder of published data.

    Raises:
      InputError: if it is not found.
    """
    if name not in DATASETS:
        path = pathlib.Path(name)
        if not path.is_dir():
            raise InputError(
                f"dataset must be one of {', '.join(DATASETS)}, or a directory with stimuli.csv "
                f"and responses.npz: found {name!r}."
            )
        # What a localiser needs is two lists; anything else is in the layout of data/plain.py.
        is_localizer = any((path / file).is_file() for file in localizer.FILES.values())
        module = "jaxalign.data." + ("localizer" if is_localizer else "plain")
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
