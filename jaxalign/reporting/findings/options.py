"""How models are compared: which count together, and how their numbers are resampled."""

import dataclasses
from typing import Annotated

from jaxalign.checks import Count, check, open_unit
from jaxalign.errors import InputError

PAPERS = ("aw2024", "oota2025")  # whose printed numbers are known


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """How models are compared."""

    apart: tuple[str, ...] = ()  # families that no pooled row holds but those that name them
    predictors: tuple[str, ...] = ()  # properties; (): all that vary
    instruction: str = ""  # whose scores count where a model was given several
    paper: str = ""  # whose published numbers are held against these: one of `PAPERS`, or none
    num_resamples: Count = 9999
    seed: int = 0
    confidence: Annotated[float, open_unit] = 0.95

    def __post_init__(self):
        check(self)
        if self.paper and self.paper not in PAPERS:
            raise InputError(f"paper must be one of {', '.join(PAPERS)}, or '': {self.paper!r}.")
