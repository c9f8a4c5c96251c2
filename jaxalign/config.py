"""Stage dataclasses <-> one ConfigDict."""

import dataclasses
import difflib
import importlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from jaxalign.errors import InputError

# Stage -> module with its `Config` and `plan`, in the order in which they run. A configuration
# names those it wants.
STAGES = {
    "extract": "jaxalign.stages.extract",
    "imported": "jaxalign.stages.imported",
    "localize": "jaxalign.stages.localize",
    "simulate": "jaxalign.stages.simulate_responses",
    "ceiling": "jaxalign.stages.ceiling",
    "encode": "jaxalign.stages.encode",
    "similarity": "jaxalign.stages.similarity",
    "behavior": "jaxalign.stages.behavior",
    "next_word": "jaxalign.stages.next_word",
    "instructions": "jaxalign.stages.simulate_instructions",
    "collect": "jaxalign.stages.collect",
    "properties": "jaxalign.stages.properties",
    "report": "jaxalign.stages.report",
    "bench": "jaxalign.bench.solver",
    "bench_extract": "jaxalign.bench.extract",
}
# Those that make their own data, or name what they read.
WITHOUT_DATASET = ("bench", "bench_extract", "next_word", "instructions", "collect", "properties")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Common:
    """Settings that belong to the whole run."""

    dataset: str = ""  # a name in data/datasets.py, or a directory; "": none, where none is read
    nan: str = "refuse"  # "leave_out": targets with NaN, of data sets whose adapters can
    seed: int = 0  # of every random draw, except the weights of untrained networks
    mesh: tuple[int, ...] = (-1, 1)  # devices along data and model; -1: all that are left

    def __post_init__(self):
        if self.seed < 0:
            raise InputError(f"seed must be >= 0, got {self.seed}.")
        if self.nan not in ("refuse", "leave_out"):
            raise InputError(f"nan must be one of refuse, leave_out, got {self.nan!r}.")
        if len(self.mesh) != 2:
            raise InputError(f"mesh must be (data, model), got {self.mesh}.")


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
    for name in STAGES:
        if name in config:
            module = importlib.import_module(STAGES[name])
            stages[name] = module.Config(**config[name].to_dict())
    readers = set(stages) - set(WITHOUT_DATASET)
    if "collect" in stages:  # which has scores for it
        readers -= {"report"}
    if not common.dataset and readers:
        raise InputError(
            f"dataset must be given: {', '.join(x for x in stages if x in readers)} read one."
        )
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
