"""Cases of the bench of extraction."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from jaxalign.bench.networks import Network
from jaxalign.checks import Count, NotNegative, Rule, at_least, build_rows, check, one_of
from jaxalign.data.text import contexts
from jaxalign.errors import InputError

UNITS = ("word", "sentence")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forward:
    """Hidden states of all layers, for one batch of Natural Stories' tokens."""

    network: str
    batch: Count
    length: Count
    num_repeats: Count = 3
    bar: float = 1.0  # how many times as fast as torch it should be

    def __post_init__(self):
        check(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stories:
    """Vectors of all parts of stories, each in the context of all before it."""

    network: str
    unit: Annotated[str, one_of(UNITS)]  # of the parts: "word" or "sentence"
    # Rules of data/text/contexts.py that let context grow, with the bar of each; the peer encodes
    # every prefix anew, cut on the left where it is too long.
    context: Mapping[str, float]
    num_stories: Count = 2
    num_words: NotNegative = 0  # the first ones of each story; 0: all
    every: Count = 10  # of the prefixes only each so many-th is timed, and the time is scaled
    batch_tokens: Count = 4096
    num_repeats: Count = 3

    def __post_init__(self):
        check(self)
        if not self.context:
            raise InputError("context must name at least one rule, got none.")
        for rule in self.context:
            if contexts.parse(rule).kind not in ("accumulate", "slide", "restart"):
                raise InputError(f"context must be a rule of accumulate, got {rule!r}.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Depths:
    """Compilation of the same network with more or fewer layers."""

    network: str
    num_layers: Annotated[
        tuple[int, ...], Rule("hold two depths or more", lambda x: len(x) > 1 and min(x) > 0)
    ] = (12, 48)
    num_repeats: Count = 5
    bar: float = 1.2  # how many times as long the slowest should take at most

    def __post_init__(self):
        check(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loading:
    """Memory of the host while weights load."""

    network: str
    bar: float = 1.3  # times the weights, at most

    def __post_init__(self):
        check(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answering:
    """Answers of a model of images and text to many instructions, and to one.

    The network is the language model's; what it is behind has the patches of 14 pixels that the
    models of Oota et al. (2025) have.
    """

    network: str  # of the family llama
    family: Annotated[str, one_of(("llava", "instructblip"))]
    vision_layers: Count
    vision_width: Count
    vision_heads: Count
    image_size: Count  # pixels of a side
    num_images: Count = 4  # of a batch
    num_instructions: Annotated[int, at_least(2)] = 10
    prompt_tokens: Count = 16  # of an instruction, with the frame behind it
    num_new: Annotated[int, at_least(2)] = 16  # tokens of an answer
    num_repeats: Count = 3
    bar: float = 1.5  # how many times as long all should take at most

    def __post_init__(self):
        check(self)
        if self.vision_width % self.vision_heads:
            raise InputError(
                f"vision_heads must divide vision_width, got {self.vision_heads} and "
                f"{self.vision_width}."
            )


KINDS = {
    "forwards": Forward,
    "stories": Stories,
    "depths": Depths,
    "loadings": Loading,
    "answers": Answering,
}


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
    answers: Mapping[str, Answering] | Mapping[str, dict[str, Any]] = dataclasses.field(
        default_factory=dict
    )

    def __post_init__(self):
        build_rows(self, "bench_extract", {"networks": Network} | KINDS)
        check(self, "bench_extract")
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
            family = self.networks[case.network].family
            if field == "answers" and family != "llama":
                raise InputError(
                    f"bench_extract.answers.{name}.network must be of family llama, got {family!r}."
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
        ("answers", config.answers),
    ):
        for name, case in rows.items():
            yield field, name, case
