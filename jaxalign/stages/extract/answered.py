"""The store of an instruction, the answers beside it, and what both are made from."""

import dataclasses
import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from absl import logging
from jaxtyping import Bool, Float

from jaxalign.data.images import pixels as pixels_lib
from jaxalign.data.text import image_prompts
from jaxalign.errors import InputError
from jaxalign.io import rows as rows_lib
from jaxalign.io import run_dir, store
from jaxalign.io.run_dir import Artefact
from jaxalign.models import answers, generate, zoo
from jaxalign.stages import Job
from jaxalign.stages.extract.asked import Asked
from jaxalign.stages.extract.config import Config
from jaxalign.stages.extract.shards import not_finite, open_store

# Poolings that an empty answer leaves undefined.
OF_TOKENS = ("generated", "last_fed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What the stores of one network are made from.

    Attributes:
      config, job: as every step has them.
      model: configured for images of the size at hand.
      recipe: of their pixels; None of a model that is not here.
      asked: the instructions.
      num_images: that pass at a time.
      layers: of a store.
      seed: of random weights; -1: those of the checkpoint.
    """

    config: Config
    job: Job
    model: zoo.Model
    recipe: pixels_lib.Recipe | None
    asked: Asked
    num_images: int
    layers: "Layers"
    seed: int = -1

    @property
    def ending(self) -> generate.Ending | None:
        """When answers end; None: nothing is answered."""
        if self.config.decoding == "none" or not self.is_asked:
            return None
        return generate.Ending(self.config.answer_tokens, self.asked.stop_tokens)

    @property
    def is_asked(self) -> bool:
        """Whether what is kept depends on the instruction; else one store has it."""
        network, pooling = self.model.config, self.config.answer_pooling
        return pooling != "vision" and (pooling != "qformer" or network.reads_instruction)

    @property
    def rows(self) -> range:
        """Prompts that have a store each."""
        return range(len(self.asked.instructions) if self.is_asked else 1)

    @property
    def pooling(self) -> str:
        """What rows call the pooling: with the way of decoding, if it is not the usual one."""
        name, how = self.config.answer_pooling, self.config.decoding
        if not self.is_asked or how == "greedy":
            return name
        if how == "none":
            return f"{name}, forward only"
        return f"{name}, top {self.config.top_k} from seed {self.job.seed}"

    @property
    def answers(self) -> str:
        """Whether answers lie beside the activations, and these are made of them."""
        if self.ending is None:
            return "none"
        return "pooled" if self.config.answer_pooling in OF_TOKENS else "kept"


class Layers(NamedTuple):
    """What a store's layers are."""

    names: list[str]
    width: int
    is_normed: bool  # whether the last one has passed a final norm


@dataclasses.dataclass
class Answered:
    """The store of an instruction, with what is on its way into it."""

    row: int
    artefact: Artefact
    activations: store.Store
    answers: str
    values: Float[np.ndarray, "L n D"] | None = None
    said: list[dict] = dataclasses.field(default_factory=list)
    num_filled: int = 0

    @classmethod
    def of(cls, found: Plan, row: int, artefact: Artefact) -> "Answered":
        """Open the store, and list its rows."""
        opened = open_store(
            artefact,
            layer_names=found.layers.names,
            final_norm_applied=found.layers.is_normed,
            libraries=("tokenizers", "pillow"),
        )
        ids = list(found.job.dataset.stimuli.stimulus_id)
        run_dir.write_json(artefact.path / store.STIMULUS_IDS, ids)
        return cls(row, artefact, opened, found.answers)

    def has(self, index: int) -> bool:
        """Whether a shard was written, with its answers."""
        if self.answers == "none":
            return self.activations.has_whole_shard(index)
        said = self.read(index)
        if len(said) != len(self.activations.shards[index]):
            return False
        absent = self.absent(said) if self.answers == "pooled" else None
        return self.activations.has_whole_shard(index, absent)

    def absent(self, said: Sequence[dict]) -> Bool[np.ndarray, " n"]:
        """Return whose answers are empty."""
        return np.array([x["num_tokens"] == 0 for x in said])

    def read(self, index: int) -> list[dict]:
        """Read the answers of a shard; none if they are not there, or damaged."""
        try:
            found = json.loads(self._path(index).read_text(encoding="utf-8"))
            return [{name: x[name] for name in ("answer", "num_tokens", "reason")} for x in found]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    def _path(self, index: int):
        return self.artefact.path / f"{store.ANSWERS}-{index:05}.json"

    def begin(self, own: range) -> None:
        """Begin a shard."""
        layers, _, units = self.activations.shape
        self.values = np.empty((layers, len(own), units), np.float32)
        self.said, self.num_filled = [], 0

    def fill(self, found: Plan, answered: answers.Answers, place: int, count: int) -> None:
        """Take what a pass gave for this instruction, the `place`-th of its prompts."""
        [values] = answered.features.values()  # [L B Q D], or of the image alone [L B D]
        values = values[:, :, place if found.is_asked else 0] if values.ndim == 4 else values
        self.values[:, self.num_filled : self.num_filled + count] = values[:, :count]
        self.num_filled += count
        if answered.tokens is None:
            return
        stopped = answered.stopped[:count, place]
        lengths = answered.lengths[:count, place] - stopped  # without the token that ended it
        texts = image_prompts.texts(found.asked.tokenizer, answered.tokens[:count, place], lengths)
        reasons = answered.reasons[:count, place]
        for text, length, reason in zip(texts, lengths.tolist(), reasons.tolist(), strict=True):
            self.said.append({"answer": text, "num_tokens": length, "reason": reason})

    def write(self, index: int, found: Plan):
        """Write the answers of a shard, then start writing its activations."""
        values = self.values
        with np.errstate(over="ignore"):  # what overflows is found below
            stored = values.astype(store.DTYPES[self.activations.dtype])
        there = np.ones(values.shape[1], bool)
        if self.answers == "pooled":
            there = ~self.absent(self.said)
        if not np.isfinite(stored[:, there]).all():
            raise InputError(not_finite(self.artefact, values[:, there], stored[:, there]))
        if self.answers != "none":
            run_dir.write_json(self._path(index), self.said)
        return self.activations.write_shard(index, stored)

    def finish(self, found: Plan) -> dict:
        """Lay all answers out as a table; count the empty ones, and those that differ."""
        said = [x for i in range(len(self.activations.shards)) for x in self.read(i)]
        table = pd.DataFrame(said)
        table.insert(0, "stimulus_id", list(found.job.dataset.stimuli.stimulus_id))
        table["is_empty"] = self.absent(said)
        rows_lib.write_table(self.artefact.path / store.ANSWERS, table)
        empty, cut = int(table.is_empty.sum()), int((table.reason == "length").sum())
        if empty:
            logging.warning(
                "extract %s: %d of %d answers are empty (%s%s)%s",
                *(self.artefact.name, empty, len(table)),
                ", ".join(table.stimulus_id[table.is_empty][:3]),
                ", ..." if empty > 3 else "",
                ": their images are left out" if self.answers == "pooled" else "",
            )
        return {
            "empty_answers": empty,
            "cut_answers": cut,
            "distinct_answers": table.answer.nunique() / len(table),
            "mean_answer_tokens": float(table.num_tokens.mean()),
        }
