"""Results on their way into the stores."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float

from jaxalign import processes
from jaxalign.data.text.batches import Batch
from jaxalign.data.text.readouts import Surprisal
from jaxalign.errors import InputError
from jaxalign.io import run_dir, store
from jaxalign.io.run_dir import Artefact
from jaxalign.stages.extract.config import READING

SHARDS_IN_FLIGHT = 2


def open_store(
    artefact: Artefact,
    *,
    layer_names: Sequence[str],
    final_norm_applied: bool,
    libraries: Sequence[str],
) -> store.Store:
    """Create the store of an artefact, or open the unfinished one that lies there.

    Args:
      artefact: whose settings say what it will hold.
      layer_names: see `store.Attributes`.
      final_norm_applied: see `store.Attributes`.
      libraries: whose versions are noted, with those that write stores.

    Raises:
      InputError: if the directory holds activations of something else.
    """
    settings: Mapping = artefact.settings
    return store.create(
        artefact.path / store.ARRAY,
        shape=(settings["num_layers"] + 1, settings["num_stimuli"], settings["width"]),
        dtype=settings["store_dtype"],
        shard_stimuli=settings["shard_stimuli"],
        attributes=store.Attributes(
            fingerprint=artefact.fingerprint,
            dataset=settings["dataset"],
            stimuli_hash=settings["stimuli_hash"],
            model=settings["model"],
            model_hash=settings["model_hash"],
            tokenizer_hash=settings["tokenizer_hash"],
            untrained_seed=settings["untrained_seed"],
            reading={name: settings[name] for name in READING},
            layer_names=list(layer_names),
            final_norm_applied=final_norm_applied,
            versions=run_dir.versions("jax", "flax", *libraries, "tensorstore", "numpy"),
        ),
    )


class Shards:
    """Results on their way into the stores: a shard is written when all its parts are there.

    Of several processes, all of which have the results, each writes shards of its own.
    """

    def __init__(self, activations: store.Store, predicted: Surprisal | None, artefact: Artefact):
        self._activations = activations
        self._artefact = artefact
        self._rows = activations.shards
        self._surprisal, self._num_bits = None, np.zeros(len(activations.shards), int)
        if predicted is not None:
            own = self._shard(np.flatnonzero(predicted.defined))
            self._num_bits = np.bincount(own, minlength=len(activations.shards))
            self._surprisal = store.open_vector(
                artefact.path / store.SURPRISAL, activations, create=True
            )
        every = range(len(self._rows))
        self._missing = processes.decide(lambda: [not self._is_done(i) for i in every])
        self._mine = [i % processes.count() == processes.index() for i in every]
        self.num_done = self._missing.count(False)
        self.num_missing = sum(
            len(rows) for rows, missing in zip(self._rows, self._missing, strict=True) if missing
        )
        self.num_added = 0
        self._parts: dict[int, _Partial] = {}
        self._writes = collections.deque()

    def _is_done(self, index: int) -> bool:
        # The surprisal of a shard is written before its activations; what was not is NaN.
        return self._activations.has_whole_shard(index) and (
            self._surprisal is None or store.has_rows(self._surprisal, self._rows[index])
        )

    def _shard(self, part):
        return part // len(self._rows[0])

    def lack(self, batch: Batch) -> bool:
        """Whether anything that a batch reads is in a missing shard."""
        parts = [x[x >= 0] for x in (batch.part, batch.predicted_part) if x is not None]
        return any(self._missing[i] for i in np.unique(self._shard(np.concatenate(parts))))

    def add(self, batch: Batch, vectors, bits) -> None:
        """Take the results of a batch, vectors [L B P D] and bits [B Q], and write full shards."""
        for index, place, row, slot in self._places(batch.part):
            self.num_added += len(place)
            if not self._mine[index]:
                continue
            partial = self._parts.get(index) or self._begin(index)
            partial.vectors[:, place] = vectors[:, row, slot]
            partial.num_left -= len(place)
        if bits is not None:
            for index, place, row, slot in self._places(batch.predicted_part):
                if not self._mine[index]:
                    continue
                partial = self._parts.get(index) or self._begin(index)
                partial.bits[place] = bits[row, slot]
                partial.num_left -= len(place)
        for index in [i for i, x in self._parts.items() if not x.num_left]:
            self._write(index, self._parts.pop(index))

    def _places(self, whose):
        """Yield each missing shard, places in it, and where in a batch what belongs there is."""
        row, slot = np.nonzero(whose >= 0)
        part = whose[row, slot]
        for index in map(int, np.unique(self._shard(part))):
            if self._missing[index]:
                own = self._shard(part) == index
                yield index, part[own] - self._rows[index].start, row[own], slot[own]

    def _begin(self, index: int) -> "_Partial":
        layers, _, units = self._activations.shape
        size = len(self._rows[index])
        self._parts[index] = _Partial(
            np.empty((layers, size, units), np.float32),
            np.full(size, np.nan, np.float32),
            size + int(self._num_bits[index]),
        )
        return self._parts[index]

    def _write(self, index: int, partial: "_Partial") -> None:
        with np.errstate(over="ignore"):  # what overflows is found below
            stored = partial.vectors.astype(store.DTYPES[self._activations.dtype])
        if not np.isfinite(stored).all():
            raise InputError(not_finite(self._artefact, partial.vectors, stored))
        if self._surprisal is not None:
            rows = self._rows[index]
            store.finish_write(
                self._surprisal[rows.start : rows.stop].write(partial.bits).commit, self._artefact
            )
        self._writes.append(self._activations.write_shard(index, stored))
        while len(self._writes) > SHARDS_IN_FLIGHT:
            store.finish_write(self._writes.popleft(), self._artefact)

    def finish(self) -> None:
        """Wait for the disk; shards of which parts lack, after a stop, are left for another run."""
        for future in self._writes:
            store.finish_write(future, self._artefact)


@dataclasses.dataclass
class _Partial:
    vectors: Float[np.ndarray, "L n D"]
    bits: Float[np.ndarray, " n"]
    num_left: int  # vectors and surprisals that lack


def not_finite(
    artefact: Artefact, values: Float[np.ndarray, "L n D"], stored: Float[np.ndarray, "L n D"]
) -> str:
    """Say why activations cannot be stored, and of which layers.

    Args:
      artefact: the store.
      values: of all layers, as they were computed.
      stored: the same in the store's type.
    """
    culprit = "store_dtype" if np.isfinite(values).all() else "compute_dtype"
    dtype = artefact.settings[culprit]
    bad = np.flatnonzero(~np.isfinite(stored).all(axis=(1, 2)))
    which = f"layer {bad[0]}" if len(bad) == 1 else f"layers {bad[0]} to {bad[-1]} ({len(bad)})"
    found = f"extract {artefact.name}: activations must be finite, but those of {which} are not"
    if dtype == "float32":
        return f"{found} in float32: the weights hold NaN, infinity or very large numbers."
    return f"{found} in {dtype}; use --config.extract.{culprit}=float32."
