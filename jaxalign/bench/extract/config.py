"""Cases of the bench of extraction."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from jaxalign.bench import networks
from jaxalign.data.text import contexts
from jaxalign.errors import InputError

UNITS = ("word", "sentence")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """Sizes of a random network with GPT-2's vocabulary."""

    family: str = "gpt2"  # of bench/networks.py
    num_layers: int = 12
    width: int = 768
    num_heads: int = 12
    mlp_size: int = 3072
    max_length: int = 1024

    def __post_init__(self):
        if self.family not in networks.FAMILIES:
            raise InputError(
                f"family must be one of {', '.join(networks.FAMILIES)}, got {self.family!r}."
            )
        _check_least(self, num_layers=1, width=1, num_heads=1, mlp_size=1, max_length=16)
        if self.width % self.num_heads:
            raise InputError(f"num_heads must divide width, got {self.num_heads} and {self.width}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forward:
    """Hidden states of all layers, for one batch of Natural Stories' tokens."""

    network: str
    batch: int
    length: int
    num_repeats: int = 3
    bar: float = 1.0  # how many times as fast as torch it should be

    def __post_init__(self):
        _check_least(self, batch=1, length=1, num_repeats=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stories:
    """Vectors of all parts of stories, each in the context of all before it."""

    network: str
    unit: str  # of the parts: "word" or "sentence"
    # Rules of data/text/contexts.py that let context grow, with the bar of each; the peer encodes
    # every prefix anew, cut on the left where it is too long.
    context: Mapping[str, float]
    num_stories: int = 2
    num_words: int = 0  # the first ones of each story; 0: all
    every: int = 10  # of the prefixes only each so many-th is timed, and the time is scaled
    batch_tokens: int = 4096
    num_repeats: int = 3

    def __post_init__(self):
        if self.unit not in UNITS:
            raise InputError(f"unit must be one of {', '.join(UNITS)}, got {self.unit!r}.")
        _check_least(self, num_stories=1, num_words=0, every=1, batch_tokens=1, num_repeats=1)
        if not self.context:
            raise InputError("context must name at least one rule, got none.")
        for rule in self.context:
            if contexts.parse(rule).kind not in ("accumulate", "slide", "restart"):
                raise InputError(f"context must be a rule of accumulate, got {rule!r}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Depths:
    """Compilation of the same network with more or fewer layers."""

    network: str
    num_layers: tuple[int, ...] = (12, 48)
    num_repeats: int = 5
    bar: float = 1.2  # how many times as long the slowest should take at most

    def __post_init__(self):
        _check_least(self, num_repeats=1)
        if len(self.num_layers) < 2 or min(self.num_layers) < 1:
            raise InputError(f"num_layers must hold two depths or more, got {self.num_layers}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loading:
    """Memory of the host while weights load."""

    network: str
    bar: float = 1.3  # times the weights, at most


KINDS = {"forwards": Forward, "stories": Stories, "depths": Depths, "loadings": Loading}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the bench of extraction: cases by name. ConfigDicts hold them as dictionaries."""

    networks: Mapping[str, Network] | Mapping[str, dict[str, Any]]
    forwards: Mapping[str, Forward] | Mapping[str, dict[str, Any]] = dataclasses.field(
        default_factory=dict
    )
    stories: Mapping[str, Stories] | Mapping[str, dict[str, Any]] = dataclasses.field(
        default_factory=dict
    )
    depths: Mapping[str, Depths] | Mapping[str, dict[str, Any]] = dataclasses.field(
        default_factory=dict
    )
    loadings: Mapping[str, Loading] | Mapping[str, dict[str, Any]] = dataclasses.field(
        default_factory=dict
    )

    def __post_init__(self):
        for field, kind in ({"networks": Network} | KINDS).items():
            built = {}
            for name, row in getattr(self, field).items():
                if not name.isidentifier():  # files and flags are named after it
                    raise InputError(f"bench_extract.{field} must be named by words, got {name!r}.")
                try:
                    built[name] = kind(**row) if isinstance(row, dict) else row
                except InputError as error:
                    raise InputError(f"bench_extract.{field}.{name}.{error}") from error
            object.__setattr__(self, field, built)
        seen = set()
        for field, name, case in cases(self):
            if name in seen:
                raise InputError(f"bench_extract's cases must differ, found {name!r} twice.")
            seen.add(name)
            if case.network not in self.networks:
                raise InputError(
                    f"bench_extract.{field}.{name}.network must be one of "
                    f"{', '.join(self.networks) or 'none'}, got {case.network!r}."
                )
        if not seen:
            raise InputError("bench_extract must have a case, got none.")


def cases(config: Config) -> Iterator[tuple[str, str, Any]]:
    """Yield field, name and content of every case."""
    for field, rows in (
        ("forwards", config.forwards),
        ("stories", config.stories),
        ("depths", config.depths),
        ("loadings", config.loadings),
    ):
        for name, case in rows.items():
            yield field, name, case


def _check_least(settings: Any, **least: int) -> None:
    for name, value in least.items():
        if getattr(settings, name) < value:
            raise InputError(f"{name} must be >= {value}, got {getattr(settings, name)}.")
