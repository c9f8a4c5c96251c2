"""Random checkpoints and Natural Stories -> times of extraction beside transformers + torch."""

from jaxalign.stages.bench_extract.config import (
    KINDS,
    Config,
    Depths,
    Forward,
    Loading,
    Network,
    Stories,
    cases,
)
from jaxalign.stages.bench_extract.plan import SUMMARY, plan
from jaxalign.stages.bench_extract.shared import TOKENIZER

__all__ = [
    "KINDS",
    "SUMMARY",
    "TOKENIZER",
    "Config",
    "Depths",
    "Forward",
    "Loading",
    "Network",
    "Stories",
    "cases",
    "plan",
]
