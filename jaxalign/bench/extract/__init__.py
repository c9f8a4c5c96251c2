"""Times of extraction from random checkpoints, compared with transformers + torch."""

from jaxalign.bench.extract.config import (
    KINDS,
    Answering,
    Config,
    Depths,
    Forward,
    Loading,
    Network,
    Stories,
    cases,
)
from jaxalign.bench.extract.plan import SUMMARY, plan
from jaxalign.bench.extract.shared import TOKENIZER

__all__ = [
    "KINDS",
    "SUMMARY",
    "TOKENIZER",
    "Answering",
    "Config",
    "Depths",
    "Forward",
    "Loading",
    "Network",
    "Stories",
    "cases",
    "plan",
]
