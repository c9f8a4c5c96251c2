"""The model that is examined, what it reads, and passes of it."""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tokenizers
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int

from jaxalign.core import mesh as mesh_lib
from jaxalign.data import datasets
from jaxalign.data.schema import Stimuli
from jaxalign.data.text import contexts, prompts, readouts, tokenizer_files
from jaxalign.data.text.readouts import Reading
from jaxalign.errors import InputError
from jaxalign.models import zoo
from jaxalign.stages.extract import forward
from jaxalign.stages.extract import reading as reading_lib
from jaxalign.stages.extract.config import Config

CONTEXT = "accumulate:restart"
NUM_PASSAGES, NUM_PARTS = 2, 60  # of the stimuli: so many parts of so many passages


@dataclasses.dataclass(frozen=True, kw_only=True)
class Patient:
    """A model, and the texts that it is examined with.

    Attributes:
      model: that reads text.
      stimuli: some parts of some passages.
      mesh: devices.
    """

    model: zoo.Model
    stimuli: Stimuli
    mesh: Mesh

    @functools.cached_property
    def config(self) -> Config:
        """How it reads: each part behind those before it, and surprisal where it has one."""
        model = self.model
        surprisal = model.causal and model.predicts
        return Config(models=(model.name,), context=CONTEXT, surprisal=surprisal)

    @functools.cached_property
    def tokenizer(self) -> tokenizers.Tokenizer:
        """Its tokenizer, as extraction has it."""
        found = tokenizer_files.load(self.folder)
        return tokenizer_files.fit(found, self.model.config.vocab_size, model=self.model.name)

    @property
    def folder(self) -> pathlib.Path:
        """Where the files of its tokenizer lie, or the one file.

        Raises:
          InputError: if the model has none.
        """
        if self.model.tokenizer_path is None:
            raise InputError(f"model {self.model.name} must have a tokenizer: it has none.")
        return self.model.tokenizer_path

    def read(self, stimuli: Stimuli | None = None, *, alone: bool = False) -> Reading:
        """Plan its passes.

        Args:
          stimuli: others than its own.
          alone: whether each part has a pass of its own, also where parts could share one.
        """
        stimuli = stimuli or self.stimuli
        if not alone:
            return reading_lib.read(self.config, self.model, stimuli)[0]
        longest = self.model.config.max_length
        passes = contexts.plan(
            self.tokenizer,
            stimuli,
            CONTEXT,
            max_length=longest,
            causal=False,
            frame=prompts.BARE,
        )
        return Reading(passes, readouts.pool(passes, "mean"))

    def load(self, dtype: str = "float32") -> nnx.Module:
        """Return the network."""
        return self.model.load(self.mesh, dtype=dtype)

    def vectors(
        self, network: nnx.Module, reading: Reading, *, batch_tokens: int
    ) -> tuple[Float[np.ndarray, "L m D"], Float[np.ndarray, " m"] | None]:
        """Return the vectors of all parts and their surprisal in bits, as extraction makes them.

        Args:
          network: from `load`.
          reading: from `read`.
          batch_tokens: of a pass; 1: one row in each.
        """
        num = len(reading.passes.row)
        config = dataclasses.replace(self.config, batch_tokens=batch_tokens)
        batched = reading_lib.batched(config, self.model, self.mesh, reading)
        found, bits = None, None if reading.predicted is None else np.full(num, np.nan)
        for batch, values, surprisal in forward.run(network, batched, self.mesh, tap="residual"):
            if found is None:
                found = np.full((len(values), num, values.shape[-1]), np.nan, np.float32)
            row, slot = np.nonzero(batch.part >= 0)
            found[:, batch.part[row, slot]] = values[:, row, slot]
            if bits is not None and surprisal is not None and batch.predicted_part is not None:
                row, slot = np.nonzero(batch.predicted_part >= 0)
                bits[batch.predicted_part[row, slot]] = surprisal[row, slot]
        assert found is not None  # there is at least one part
        return found, bits

    def states(
        self, network: nnx.Module, rows: Int[np.ndarray, "B T"], length: int | None = None
    ) -> "States":
        """Run rows of tokens.

        Args:
          network: from `load`.
          rows: tokens.
          length: so many of each row count, and those behind are padding; None: all.
        """
        shares = self.mesh.shape["data"]  # which rows divide over
        rows = np.pad(rows, [(0, -len(rows) % shares), (0, 0)], mode="edge")
        counts = np.arange(rows.shape[1]) < (rows.shape[1] if length is None else length)
        mask = np.broadcast_to(counts, rows.shape)
        place = lambda x: mesh_lib.place(x, mesh_lib.sharding(self.mesh, ("batch", None), x.shape))
        hidden, final = _states(network, place(rows), place(np.ascontiguousarray(mask)))
        return States(mesh_lib.to_host(hidden), None if final is None else mesh_lib.to_host(final))

    def long_row(self, most: int) -> Int[np.ndarray, " T"]:
        """Return a row of its texts as long as the model takes, but not longer than `most`."""
        length = min(most, self.model.config.max_length)
        body = np.concatenate(self.read().rows)
        return np.tile(body, -(-length // len(body)))[:length].astype(np.int32)


class States(NamedTuple):
    """What a pass returns of each token.

    Attributes:
      hidden: of all layers.
      final: what the head reads; None without one.
    """

    hidden: Float[np.ndarray, "L B T D"]
    final: Float[np.ndarray, "B T D"] | None


@jax.jit
@jax.default_matmul_precision("highest")
def _states(network, tokens: Array, mask: Array):
    output = network(tokens, mask)
    final = None if output.final is None else output.final.astype(jnp.float32)
    return output.hidden.astype(jnp.float32), final


@jax.jit
@jax.default_matmul_precision("highest")
def logits(network: Any, final: Float[Array, "B T D"]) -> Float[Array, "B T V"]:
    """Return what a network predicts after each token, in float32."""
    return network.logits(final).astype(jnp.float32)


def find_stimuli(name: str, data_root: pathlib.Path | None) -> Stimuli:
    """Read the texts to examine a model with: the first parts of the first passages.

    Args:
      name: data set or folder; "": words of the embedded passages.
      data_root: folder of published data.

    Raises:
      InputError: if there is no text.
    """
    dataset = datasets.find(name or "demo", data_root)
    dataset.check_text("doctor")
    stimuli = dataset.stimuli
    if not name:
        stimuli = _words(stimuli)
    kept, seen = [], {}
    for i, passage in enumerate(stimuli.passage):
        seen[passage] = seen.get(passage, 0) + 1
        if len(seen) > NUM_PASSAGES:
            break
        if seen[passage] <= NUM_PARTS:
            kept.append(i)
    return rows_of(stimuli, kept)


def rows_of(stimuli: Stimuli, kept: Sequence[int]) -> Stimuli:
    """Return some parts, in the order given, without their times."""
    pick = lambda column: [column[i] for i in kept] if len(column) else ()
    return Stimuli(
        stimulus_id=pick(stimuli.stimulus_id),
        text=pick(stimuli.text),
        passage=pick(stimuli.passage),
        run=pick(stimuli.run),
        unit=stimuli.unit,
        space_before=pick(stimuli.space_before),
        language=stimuli.language,
    )


def _words(sentences: Stimuli) -> Stimuli:
    whose = [i for i, text in enumerate(sentences.text) for _ in text.split()]
    return Stimuli(
        stimulus_id=[str(i) for i in range(len(whose))],
        text=[word for text in sentences.text for word in text.split()],
        passage=[sentences.passage[i] for i in whose],
        run=[sentences.run[i] for i in whose],
        unit="word",
        language=sentences.language,
    )
