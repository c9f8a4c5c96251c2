"""Settings of the extraction stage."""

import dataclasses

from jaxalign.data.text import contexts, readouts, spans
from jaxalign.errors import InputError
from jaxalign.io import store
from jaxalign.models import zoo
from jaxalign.models.families import base
from jaxalign.models.families.t5 import TEXTS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the extraction stage."""

    models: tuple[str, ...]  # names in models/table.py, or directories
    context: str = "none"  # what a part is seen with: a rule of data/text/contexts.py
    one_stream: bool = False  # read all passages as one text, in their order, as Brain-Score does
    # "mean", "last", "first" or "sum" of the part's own tokens; "mean_all" of every token it sees,
    # as sentence encoders are pooled.
    pooling: str = "mean"
    # Of layers above 0, the embedding: "residual" is the stream after each block, "attention" and
    # "mlp" what that part of the block adds to it.
    tap: str = "residual"
    surprisal: bool = False  # keep that of every part too, in bits; causal models only
    # Keep the mean of the embedding's rows over each part's own tokens too, without position or
    # context: what encode's control of that name is made of.
    static_embedding: bool = False
    prompt: str = ""  # put before a part and its context, spaces included
    suffix: str = ""  # put after them
    chat: bool = False  # as a user's turn in the model's own chat template
    system: str = ""  # the system's turn before it
    bos: str = ""  # token to begin every row with, of tokenizers that add none
    joining: str = "text"  # how parts become a text: see data/text/spans.py
    t5_text: str = "both"  # which stacks of a T5 read the text: see models/families/t5.py
    untrained_seed: int = 0  # of the same networks with random weights; -1: do not extract them
    compute_dtype: str = "float32"  # "bfloat16" halves memory and is faster on accelerators
    store_dtype: str = "float32"  # or "float16", "bfloat16"
    batch_tokens: int = 4096  # tokens of one forward pass, padding included
    shard_stimuli: int = 256  # stimuli of one file; what a killed run has to repeat at most

    def __post_init__(self):
        if not self.models:
            raise InputError("extract.models must name at least one model, got none.")
        if len(set(self.models)) < len(self.models):
            raise InputError(f"extract.models must differ, got {self.models}.")
        contexts.parse(self.context)
        for name, allowed in (
            ("pooling", readouts.POOLINGS),
            ("tap", base.TAPS),
            ("joining", spans.JOININGS),
            ("t5_text", TEXTS),
            ("compute_dtype", zoo.COMPUTE_DTYPES),
            ("store_dtype", tuple(store.DTYPES)),
        ):
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"extract.{name} must be one of {', '.join(allowed)}, "
                    f"got {getattr(self, name)!r}."
                )
        for name, least in (("untrained_seed", -1), ("batch_tokens", 1), ("shard_stimuli", 1)):
            if getattr(self, name) < least:
                raise InputError(f"extract.{name} must be >= {least}, got {getattr(self, name)}.")
        if self.system and not self.chat:
            raise InputError("extract.system must be empty unless extract.chat is set.")


# What the content of a store depends on beside the model and the stimuli.
READING = (
    "context",
    "one_stream",
    "pooling",
    "tap",
    "prompt",
    "suffix",
    "chat",
    "system",
    "bos",
    "joining",
    "t5_text",
    "compute_dtype",
    "store_dtype",
)
