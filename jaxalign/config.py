"""The table of stages; settings of a run, as dataclasses and as one ConfigDict."""

import dataclasses
import difflib
import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Annotated, Any, NamedTuple

import ml_collections

from jaxalign.checks import Names, NotNegative, Rule, check, one_of
from jaxalign.errors import InputError


class Stage(NamedTuple):
    """A stage of a run.

    Attributes:
      module: where its `Config` and `plan` are.
      reads_dataset: whether it needs the run's data set; others make their own data, or name what
        they read.
    """

    module: str
    reads_dataset: bool

    def load(self) -> ModuleType:
        """Import the module of the stage."""
        return importlib.import_module(self.module)


# In the order in which they run. A configuration names those it wants.
STAGES = {
    "tune": Stage("jaxalign.stages.tune", False),
    "extract": Stage("jaxalign.stages.extract", True),
    "imported": Stage("jaxalign.stages.imported", True),
    "localize": Stage("jaxalign.stages.localize", True),
    "simulate": Stage("jaxalign.stages.simulate_responses", True),
    "ceiling": Stage("jaxalign.stages.ceiling", True),
    "encode": Stage("jaxalign.stages.encode", True),
    "similarity": Stage("jaxalign.stages.similarity", True),
    "rsa": Stage("jaxalign.stages.rsa", True),
    "behavior": Stage("jaxalign.stages.behavior", True),
    "next_word": Stage("jaxalign.stages.next_word", False),
    "instructions": Stage("jaxalign.stages.simulate_instructions", False),
    "collect": Stage("jaxalign.stages.collect", False),
    "properties": Stage("jaxalign.stages.properties", False),
    "report": Stage("jaxalign.stages.report", True),  # not of scores that were collected
    "bench": Stage("jaxalign.bench.solver", False),
    "bench_extract": Stage("jaxalign.bench.extract", False),
    "bench_scaling": Stage("jaxalign.bench.scaling", False),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Common:
    """Settings that belong to the whole run."""

    dataset: str = ""  # a name in data/datasets.py, or a directory; "": none, where none is read
    # "leave_out": targets with NaN, of data sets whose adapters can.
    nan: Annotated[str, one_of(("refuse", "leave_out"))] = "refuse"
    # Of the data set's adapter, "NAME=VALUE"; several values have commas between. Its page says
    # which there are.
    options: Names = ()
    seed: NotNegative = 0  # of every random draw, except the weights of untrained networks
    # Devices along data and model; -1: all that are left.
    mesh: Annotated[tuple[int, ...], Rule("be (data, model)", lambda x: len(x) == 2)] = (-1, 1)

    def __post_init__(self):
        check(self)


def pack(common: Common, **stages: Any) -> ml_collections.ConfigDict:
    """Flatten dataclasses, with every default spelled out, so that flags can override each.

    Args:
      common: settings of the whole run.
      **stages: `Config` of each stage, by its name.

    Raises:
      InputError: if a stage is not known.
    """
    if unknown := set(stages) - set(STAGES):
        raise InputError(f"stages must be among {', '.join(STAGES)}, got {min(unknown)!r}.")
    content = dataclasses.asdict(common)
    content |= {name: dataclasses.asdict(stages[name]) for name in STAGES if name in stages}
    return ml_collections.ConfigDict(content).lock()


def unpack(config: ml_collections.ConfigDict) -> tuple[Common, dict[str, Any]]:
    """Rebuild the dataclasses, which checks every value.

    Returns:
      The common settings, and the `Config` of each stage in the order of `STAGES`.

    Raises:
      InputError: if a value is out of range, or a stage has no data set to read; the message names
        the setting.
    """
    fields = {f.name for f in dataclasses.fields(Common)}
    common = Common(**{name: config[name] for name in fields})
    stages = {}
    for name, stage in STAGES.items():
        if name in config:
            stages[name] = stage.load().Config(**config[name].to_dict())
    readers = [x for x in stages if STAGES[x].reads_dataset]
    if "collect" in stages:  # which has scores for it
        readers = [x for x in readers if x != "report"]
    if not common.dataset and readers:
        raise InputError(f"dataset must be given: {', '.join(readers)} read one.")
    return common, stages


def override(
    config: ml_collections.ConfigDict, changes: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    """Return a configuration with other values, as flags of the command line change it.

    Args:
      config: from `pack`; it stays as it is.
      changes: values under the dotted names that `flatten` gives; of fields that hold several, a
        tuple or a list.

    Raises:
      InputError: if there is no such setting, or the value is of another type.
    """
    known = flatten(config)
    changed = ml_collections.ConfigDict(config.to_dict()).lock()
    for name, value in changes.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(known)}."
            raise InputError(f"settings must be of this run, got {name!r}: {hint}")
        *stage, field = name.split(".")
        parent = changed[stage[0]] if stage else changed
        try:
            parent[field] = tuple(value) if isinstance(value, list) else value
        except TypeError as error:
            raise InputError(
                f"settings: {name} must be of type {type(known[name]).__name__}, got {value!r}."
            ) from error
    return changed


def flatten(config: ml_collections.ConfigDict) -> dict[str, Any]:
    """Return every setting under its dotted name, stages in their order."""
    common, stages = unpack(config)
    flat = dataclasses.asdict(common)
    for stage, settings in stages.items():
        flat |= _leaves(stage, dataclasses.asdict(settings))
    return flat


def _leaves(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {name: value}
    return {k: v for key, x in value.items() for k, v in _leaves(f"{name}.{key}", x).items()}
