"""Settings of the tuning stage."""

import dataclasses
from typing import Annotated

from jaxalign.checks import (
    Count,
    Names,
    NotNegative,
    among,
    at_least,
    check,
    each,
    one_of,
    positive,
    some,
)
from jaxalign.errors import InputError
from jaxalign.models import zoo
from jaxalign.models.families import base
from jaxalign.training import batches, encoding, instructions, templates
from jaxalign.training.arms import ARMS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the tuning stage; the recipe's defaults are those of Alpaca for LLaMA-7B."""

    # A name in models/table.py, or a directory, or LABEL=MODEL; what is tuned.
    model: Annotated[str, some("name a model")]
    # Instruction data: a file, or one below the data root (see training/instructions.py).
    data: Annotated[str, some("name a file of instruction data")]
    # Of training/arms.py; each is a training of its own with each seed.
    arms: Annotated[Names, some("name at least one arm"), among(ARMS)] = (
        "instruction",
        "no_instruction",
    )
    seeds: Annotated[tuple[int, ...], some("name at least one seed")] = (0, 1, 2)
    # Steps after which the model is kept; (): 0, 1, 2, 4, 8 and so on. The last one always is.
    checkpoints: Annotated[tuple[int, ...], each("be >= 0", lambda x: x >= 0)] = ()
    template: Annotated[str, one_of(templates.TEMPLATES)] = "alpaca"
    no_response: Annotated[str, one_of(instructions.NO_RESPONSE)] = "refuse"
    too_long: Annotated[str, one_of(encoding.TOO_LONG)] = "cut"
    max_length: NotNegative = 512  # tokens of a row; 0: as many as the model takes
    corpus: str = ""  # a plain text, a file or one below the data root; of the arm other_text
    epochs: Annotated[float, positive] = 3.0
    batch: Count = 128  # rows of a step
    learning_rate: Annotated[float, at_least(0)] = 2e-5
    warmup_ratio: Annotated[float, at_least(0)] = 0.03
    weight_decay: Annotated[float, at_least(0)] = 0.0
    clip_norm: Annotated[float, at_least(0)] = 1.0  # 0: gradients are not clipped
    # Whether each target of a step weighs the same, or each group of `group` rows.
    loss_average: Annotated[str, one_of(batches.LOSS_AVERAGES)] = "tokens"
    group: Count = 1
    micro_batches: Count = 8  # parts of a step that pass one after the other
    packing: bool = False  # several examples in a row
    lora_rank: NotNegative = 0  # of adapters on all linear maps; 0: all parameters are trained
    lora_alpha: Annotated[float, at_least(0)] = 0.0  # 0: twice the rank
    # Of activations; what is trained is float32 always.
    compute_dtype: Annotated[str, one_of(zoo.COMPUTE_DTYPES)] = "float32"
    # What is not computed again for gradients: "all", "inputs" of blocks, or "products" too.
    keep_for_gradients: Annotated[str, one_of(tuple(base.KEPT))] = "all"
    checkpoint_dtype: Annotated[str, one_of(zoo.COMPUTE_DTYPES)] = "float32"  # of models on disk
    save_every: Count = 50  # steps from one state to the next: what a kill has to repeat at most

    def __post_init__(self):
        check(self, "tune")
        for name in ("seeds", "checkpoints"):
            if len(set(found := getattr(self, name))) < len(found):
                raise InputError(f"tune.{name} must differ, got {tuple(found)}.")
        if min(self.seeds) < 0:
            raise InputError(f"tune.seeds must be >= 0, got {min(self.seeds)}.")
        if bool(self.corpus) != ("other_text" in self.arms):
            raise InputError(
                "tune.corpus must name a plain text for the arm other_text, and for no other: got "
                f"{self.corpus!r} with {', '.join(self.arms)}."
            )
        if self.lora_alpha and not self.lora_rank:
            raise InputError("tune.lora_alpha must be 0 unless tune.lora_rank says how wide.")
        if self.group > 1 and self.loss_average == "tokens":
            raise InputError("tune.group must be 1 unless tune.loss_average=rows.")

    @property
    def alpha(self) -> float:
        """What adapters are scaled by, times the rank."""
        return self.lora_alpha or 2.0 * self.lora_rank


# What the weights depend on, in addition to model, data, arm, seed and number of steps. How a step
# is cut into parts, and what is computed again, changes their last digits.
RECIPE = (
    "template",
    "no_response",
    "too_long",
    "batch",
    "learning_rate",
    "warmup_ratio",
    "weight_decay",
    "clip_norm",
    "loss_average",
    "group",
    "micro_batches",
    "packing",
    "lora_rank",
    "compute_dtype",
    "keep_for_gradients",
    "checkpoint_dtype",
)
