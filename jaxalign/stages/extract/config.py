"""Settings of the extraction stage."""

import dataclasses
from typing import Annotated

from jaxalign.checks import Count, Names, at_least, check, one_of, some
from jaxalign.data.images.readouts import POOLINGS as IMAGE_POOLINGS
from jaxalign.data.text import contexts, readouts
from jaxalign.data.text import joining as joinings
from jaxalign.errors import InputError
from jaxalign.io import store
from jaxalign.models import answers, zoo
from jaxalign.models.families import base
from jaxalign.models.families.encoder_decoder import TEXTS

DECODINGS = ("greedy", "top_k", "none")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
    """Settings of the extraction stage."""

    # Names in models/table.py, or directories; LABEL=MODEL gives another name. Of a run with the
    # stage tune also what it makes: models by name, or "tuned" for all.
    models: Annotated[Names, some("name at least one model")]
    context: str = "none"  # what a part is seen with: a rule of data/text/contexts.py
    one_stream: bool = False  # read all passages as one text, in their order, as Brain-Score does
    # "mean", "last", "first" or "sum" of the part's own tokens; "mean_all" of every token it sees,
    # as sentence encoders are pooled. Of images "cls", the "mean" of all tokens, or that of the
    # "patches" alone.
    pooling: Annotated[str, one_of(tuple(dict.fromkeys((*readouts.POOLINGS, *IMAGE_POOLINGS))))] = (
        "mean"
    )
    # Of layers above 0, the embedding: "residual" is the stream after each block, "attention" and
    # "mlp" what that part of the block adds to it.
    tap: Annotated[str, one_of(base.TAPS)] = "residual"
    surprisal: bool = False  # keep that of every part too, in bits; causal models only
    # Keep the mean of the embedding's rows over each part's own tokens too, without position or
    # context: what encode's control of that name is made of.
    static_embedding: bool = False
    prompt: str = ""  # put before a part and its context, spaces included
    suffix: str = ""  # put after them
    chat: bool = False  # as a user's turn in the model's own chat template
    system: str = ""  # the system's turn before it
    bos: str = ""  # token to begin every row with, of tokenizers that add none
    # How parts become a text: "text" as the stimuli say, "space", "brainscore": see
    # data/text/joining.py.
    joining: Annotated[str, one_of(joinings.JOININGS)] = "text"
    # Which stacks of a T5 read the text: see models/families/t5.py.
    t5_text: Annotated[str, one_of(TEXTS)] = "both"
    # Which network of a checkpoint of two, as CLIP's: the one of images ("vision") or of captions.
    tower: Annotated[str, one_of(zoo.TOWERS)] = "vision"
    # What models of images and text are asked about each image; each makes a store of its own. The
    # text itself; or `oota2025`, the ten of Oota et al., or one of them, as `oota2025:IC`.
    instructions: Names = ()
    # What is kept of each layer, of models that are given instructions: see models/answers.py.
    answer_pooling: Annotated[str, one_of(answers.POOLINGS)] = "generated"
    # Keep the layers of their own vision towers too, as those of a model "MODEL tower".
    own_tower: bool = False
    # "greedy"; "top_k", drawn among so many from the run's seed; "none": the prompts are read and
    # nothing is answered, a forward pass alone.
    decoding: Annotated[str, one_of(DECODINGS)] = "greedy"
    top_k: Count = 5
    answer_tokens: Annotated[int, at_least(2)] = 64  # most tokens of an answer
    # Of the same networks with random weights; -1: do not extract them.
    untrained_seed: Annotated[int, at_least(-1)] = 0
    # "bfloat16" halves memory and is faster on accelerators.
    compute_dtype: Annotated[str, one_of(zoo.COMPUTE_DTYPES)] = "float32"
    store_dtype: Annotated[str, one_of(store.DTYPES)] = "float32"
    # Tokens of one forward pass, padding included; of images those of all patches, or those of all
    # prompts and answers if they are more.
    batch_tokens: Count = 4096
    shard_stimuli: Count = 256  # stimuli of one file; what a killed run has to repeat at most

    def __post_init__(self):
        check(self, "extract")
        contexts.parse(self.context)
        if self.own_tower and not self.instructions:
            raise InputError("extract.own_tower must be false without extract.instructions.")
        if self.own_tower and self.answer_pooling == "vision":
            raise InputError(
                "extract.own_tower must be false where extract.answer_pooling is 'vision', which "
                "keeps the vision tower alone."
            )
        if self.system and not self.chat:
            raise InputError("extract.system must be empty unless extract.chat is set.")


# What the content of a store depends on, in addition to the model and the stimuli.
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
