"""Reading a sweep: the dictionaries that a configuration file yields, checked as flags are."""

import dataclasses
import importlib.util
import inspect
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import ml_collections
from absl import flags
from ml_collections import config_flags

from jaxalign import config as config_lib
from jaxalign.errors import InputError, one_line

# The key of what stands behind the colon in --config=FILE:ARGUMENT; all others name settings.
ARGUMENT = "argument"
_LONG_NAME = 60  # characters of a job's name, from which it is cut
_FIRST = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One dictionary of a sweep.

    Attributes:
      name: of its job, and of the job's folder: made of the values.
      changes: what was yielded.
      settings: the configuration with them.
      flags: of `jaxalign.main`, which give the same configuration.
      where: which dictionary it is, for errors.
    """

    name: str
    changes: Mapping[str, Any]
    settings: ml_collections.ConfigDict
    flags: tuple[str, ...]
    where: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sweep:
    """What a configuration file says of a sweep.

    Attributes:
      path: of the file.
      entries: in the order in which they were yielded.
      together: settings of the last job, which collects the scores of all.
    """

    path: pathlib.Path
    entries: Sequence[Entry]
    together: Mapping[str, Any]


def read(path: str, overrides: Sequence[str] = ()) -> Sweep:
    """Read a configuration file with `sweep()`, and check every dictionary that it yields.

    Args:
      path: of the file. `sweep()` yields dictionaries of settings under their dotted names; the key
        "argument" is that of `get_config`. `together()`, if there is one, returns a dictionary of
        settings for the last job.
      overrides: flags `--config.<name>=<value>` for all jobs.

    Raises:
      InputError: naming the first dictionary that is wrong, and why.
    """
    file = pathlib.Path(path).absolute()
    if not file.is_file():
        raise InputError(f"--config must name a file: there is no file {path!r}.")
    module = _load(file)
    sweep = _function(module, "sweep")
    if sweep is None or _function(module, "get_config") is None:
        raise InputError(
            f"{path} must have the functions get_config() and sweep(), which yields a dictionary "
            "of settings for each job."
        )
    yielded = list(sweep())
    if not yielded:
        raise InputError(f"sweep() of {path} must yield at least one dictionary, got none.")
    entries: list[Entry] = []
    for i, changes in enumerate(yielded):
        where = f"the {ordinal(i)} of {len(yielded)} dictionaries of sweep(), {changes!r}"
        try:
            entry = _entry(file, module, changes, overrides, where)
        except InputError as error:
            raise InputError(f"{where}: {error}") from error
        for j, other in enumerate(entries):
            if other.changes == entry.changes:
                raise InputError(f"{where}: must differ from the {ordinal(j)}, which is the same.")
        entries.append(entry)
    together = _function(module, "together")
    return Sweep(path=file, entries=_named_apart(entries), together=together() if together else {})


def ordinal(index: int) -> str:
    """Return which one of several it is, in words up to the ninth."""
    if index < len(_FIRST):
        return _FIRST[index]
    number = index + 1
    ends = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if number % 100 in (11, 12, 13) else ends.get(number % 10, 'th')}"


def as_flags(changes: Mapping[str, Any]) -> tuple[str, ...]:
    """Write settings as flags of `jaxalign.main`."""
    return tuple(
        f"--config.{name}={value if isinstance(value, str) else repr(value)}"
        for name, value in changes.items()
    )


def _load(path: pathlib.Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise InputError(f"--config must name a Python file, got {str(path)!r}.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError) as error:
        raise InputError(
            f"{path} cannot be loaded: {type(error).__name__}: {one_line(error)}."
        ) from error
    return module


def _function(module: ModuleType, name: str) -> Callable | None:
    found = getattr(module, name, None)
    return found if callable(found) else None


def _entry(
    path: pathlib.Path, module: ModuleType, changes: Any, overrides: Sequence[str], where: str
) -> Entry:
    if not isinstance(changes, dict) or not all(isinstance(name, str) for name in changes):
        raise InputError("must be a dictionary of settings under their dotted names.")
    own = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in changes.items()
        if name != ARGUMENT
    }
    argument = changes.get(ARGUMENT)
    takes = len(inspect.signature(module.get_config).parameters)
    if argument is not None and (not isinstance(argument, str) or not takes):
        needed = "a string" if takes else "left out, as get_config takes none"
        raise InputError(f"{ARGUMENT} must be {needed}, got {argument!r}.")
    built = module.get_config() if argument is None else module.get_config(argument)
    config_lib.override(built, own)  # for its messages: those of flags name no file
    shown = f"--config={path}" + ("" if argument is None else f":{argument}")
    arguments = (shown, *overrides, *as_flags(own))
    settings = _parse(built, arguments[1:])
    written = config_lib.flatten(settings)
    if lost := [name for name, value in own.items() if written[name] != value]:
        raise InputError(
            f"{lost[0]} must be a value that a flag can have, got {own[lost[0]]!r}, which would be "
            f"read as {written[lost[0]]!r}."
        )
    return Entry(
        name=_name(changes), changes=changes, settings=settings, flags=arguments, where=where
    )


def _parse(built: ml_collections.ConfigDict, arguments: Sequence[str]) -> ml_collections.ConfigDict:
    """Change a configuration by flags, as `jaxalign.main` does."""
    argv, values = ["sweep", *arguments], flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", built, flag_values=values, sys_argv=argv)
        values(argv)
    except (flags.Error, AttributeError, KeyError) as error:
        raise InputError(f"{' '.join(arguments)}: {one_line(error)}") from error
    return values.config


def _name(changes: Mapping[str, Any]) -> str:
    """Name a job by the values that make it; of paths by their ends."""
    words: list[str] = []
    for name, value in changes.items():
        parts = str(value).split(",") if name == ARGUMENT else _words(value)
        is_text = name == ARGUMENT or all(isinstance(x, str) for x in _leaves(value))
        words += parts if is_text else [f"{name.rpartition('.')[2]}={'_'.join(parts)}"]
    ends = [x.partition("=")[0] if "/" in x else x for x in words]
    kept = dict.fromkeys(x.rpartition("/")[2] for x in ends)
    return re.sub(r"[^\w.+=-]+", "_", "-".join(x for x in kept if x)) or "run"


def _leaves(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (tuple, list)) else [value]


def _words(value: Any) -> list[str]:
    return [str(x) for x in _leaves(value)]


def _named_apart(entries: Sequence[Entry]) -> list[Entry]:
    """Give jobs names of their own: those that are too long or there twice end in a number."""
    names: list[str] = []
    for entry in entries:
        name = cut = entry.name[:_LONG_NAME]
        number = 2
        while name in names:
            name, number = f"{cut}-{number}", number + 1
        names.append(name)
    return [dataclasses.replace(x, name=name) for x, name in zip(entries, names, strict=True)]
