"""Activation store: a zarr3 array [layer, stimulus, unit], written and resumed by whole shards.

Anything that reads zarr3 reads it. The attributes are an interface: see `Attributes`.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence

import ml_dtypes
import numpy as np
import tensorstore as ts
from jaxtyping import Bool, Float

from jaxalign.errors import InputError
from jaxalign.io import place, run_dir
from jaxalign.io.place import Place

FORMAT_VERSION = 2
ARRAY = "activations.zarr"  # in the directory of an artefact
SURPRISAL = "surprisal_bits.zarr"  # [stimulus], where it was asked for
STIMULUS_IDS = "stimulus_ids.json"  # ids along the second axis
ANSWERS = "answers"  # what a model said of each image, as CSV and as Parquet
DTYPES = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "float32": np.float32}
DIMENSIONS = ("layer", "stimulus", "unit")
# Whose activations a store holds: kinds of artefacts (`run_dir.Artefact.kind`).
TRAINED = "activations"
UNTRAINED = "activations of random weights"
STATIC = "static embedding"  # rows of the embedding, without position or context
IMPORTED = "imported activations"  # that were given, of networks that are not here


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attributes:
    """Provenance of a store, kept under the key `jaxalign` of the array's attributes.

    Layer 0 is the embedding. Layer i is block i: the residual stream after it, or with another
    `reading["tap"]` what that part of the block adds to the stream.
    """

    fingerprint: str  # of the artefact
    dataset: str
    stimuli_hash: str
    model: str
    model_hash: str  # of the weights; of configuration and seed for an untrained network
    tokenizer_hash: str
    untrained_seed: int  # -1: trained weights
    reading: Mapping[str, str | bool]  # how stimuli were read: context, pooling, tap, prompt, ...
    layer_names: Sequence[str]  # where a network has several stacks of blocks; else empty
    final_norm_applied: bool  # whether the last layer has passed the model's final norm
    versions: Mapping[str, str]
    format_version: int = FORMAT_VERSION


class Store:
    """An open activation store."""

    def __init__(self, path: Place, array: ts.TensorStore, attributes: Attributes):
        """Use `create` or `open_store`."""
        self.path = path
        self.attributes = attributes
        self._array = array
        chunk = array.chunk_layout.write_chunk.shape
        assert chunk is not None  # a zarr array has chunks
        self._shard = int(chunk[1] or 1)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Layers (the embedding included), stimuli, units."""
        layers, stimuli, units = self._array.shape
        return layers, stimuli, units

    @property
    def dtype(self) -> str:
        """A key of `DTYPES`."""
        return self._array.dtype.name

    @property
    def shards(self) -> list[range]:
        """Stimulus rows of each shard."""
        n = self.shape[1]
        return [range(a, min(a + self._shard, n)) for a in range(0, n, self._shard)]

    def has_whole_shard(self, index: int, absent: Bool[np.ndarray, " n"] | None = None) -> bool:
        """Whether a shard was written and is undamaged; reads it, and its checksums.

        Args:
          index: which shard.
          absent: of its stimuli, those that have no activations, and are NaN; None: all have some.
        """
        rows = self.shards[index]
        try:
            # tensorstore renames a shard into place when it is whole; what is absent reads as NaN.
            values = self._array[:, rows.start : rows.stop].read().result()
        except ValueError as error:
            place.refuse_lost(self.path, error)
            return False
        finite = np.isfinite(values.astype(np.float32)).all(axis=(0, 2))
        return bool((finite if absent is None else finite | absent).all())

    def write_shard(self, index: int, values: np.ndarray) -> ts.Future:
        """Start writing all layers of one shard; the future's result waits for the disk.

        Args:
          index: which shard.
          values: [layer, stimulus, unit] in the store's dtype, as many stimuli as the shard has.

        Raises:
          ValueError: if the values have another shape.
        """
        rows = self.shards[index]
        shape = (self.shape[0], len(rows), self.shape[2])
        if values.shape != shape:
            raise ValueError(f"values must have shape {shape}, got {values.shape}.")
        return self._array[:, rows.start : rows.stop].write(values).commit

    def read_layer(
        self, layer: int, absent: Bool[np.ndarray, " m"] | None = None
    ) -> Float[np.ndarray, "m u"]:
        """Read one layer as float32.

        Args:
          layer: its place.
          absent: stimuli that have no activations, and are NaN; None: all have some.

        Raises:
          IndexError: if there is no such layer.
          InputError: if part of it was never written or is damaged.
        """
        if not 0 <= layer < self.shape[0]:
            raise IndexError(f"layer must lie in 0..{self.shape[0] - 1}, got {layer}.")
        try:
            values = self._array[layer].read().result().astype(np.float32)
        except ValueError as error:
            place.refuse_lost(self.path, error)
            raise run_dir.DamagedError(
                self.path.parent,
                f"{self.path}: layer {layer} cannot be read ({_first_line(error)})",
            ) from error
        bad = ~np.isfinite(values).all(axis=1)
        if absent is not None:
            bad &= ~absent
        if bad.any():
            raise run_dir.DamagedError(
                self.path.parent,
                f"{self.path}: layer {layer} must be finite, but {int(bad.sum())} of {len(values)} "
                "stimuli are not",
            )
        return values


def create(
    path: Place,
    *,
    shape: tuple[int, int, int],
    dtype: str,
    shard_stimuli: int,
    attributes: Attributes,
) -> Store:
    """Create a store, or open the unfinished one that lies there to continue it.

    Args:
      path: directory of the array.
      shape: layers, stimuli, units.
      dtype: a key of `DTYPES`.
      shard_stimuli: stimuli of a shard, one file with all layers.
      attributes: provenance.

    Raises:
      InputError: if the directory holds activations of something else.
    """
    metadata = path / "zarr.json"
    if metadata.is_file() and not _is_json(metadata):
        metadata.unlink()  # it is written again, as it was; shards have checksums of their own
    if metadata.is_file():
        store = open_store(path, expected=attributes)
        if store.shape != shape:
            raise InputError(f"{path}: shape must be {shape}, found {store.shape}.")
        if store.dtype != dtype:
            raise InputError(f"{path}: dtype must be {dtype}, found {store.dtype}.")
        return store
    layers, stimuli, units = shape
    rows = min(shard_stimuli, stimuli)
    # Inside a shard a layer is one chunk, so reading a layer reads nothing else. Activations are
    # noise to a compressor; the checksum finds damage.
    inner = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
    spec = {
        "driver": "zarr3",
        "kvstore": place.kvstore(path),
        "metadata": {
            "shape": shape,
            "data_type": dtype,
            "dimension_names": DIMENSIONS,
            "fill_value": "NaN",
            "attributes": {"jaxalign": dataclasses.asdict(attributes)},
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [layers, rows, units]},
            },
            "codecs": [
                {
                    "name": "sharding_indexed",
                    "configuration": {
                        "chunk_shape": [1, rows, units],
                        "codecs": inner,
                        "index_codecs": inner,
                    },
                }
            ],
        },
    }
    array = ts.open(spec, create=True, open=False).result()
    return Store(path, array, attributes)


def open_store(path: Place, *, expected: Attributes | None = None) -> Store:
    """Open a store for reading.

    Args:
      path: directory of the array.
      expected: if given, what the store must hold.

    Raises:
      InputError: if there is no store, it has another format, or it holds something else.
    """
    metadata = path / "zarr.json"
    try:
        found = json.loads(metadata.read_text(encoding="utf-8"))["attributes"]["jaxalign"]
        version = found["format_version"]
        # Another version may have other attributes.
        attributes = Attributes(**found) if version == FORMAT_VERSION else None
        spec = {"driver": "zarr3", "kvstore": place.kvstore(path)}
        array = ts.open(spec, open=True).result()
    except (OSError, ValueError, KeyError, TypeError) as error:
        place.refuse_lost(path, error)
        raise InputError(
            f"{metadata} must describe an activation store: {_first_line(error)}; delete "
            f"{path.parent} and run again."
        ) from error
    if attributes is None:
        raise InputError(f"{path}: format must be {FORMAT_VERSION}, found {version}.")
    if expected is not None:
        for field in dataclasses.fields(Attributes):
            want, have = getattr(expected, field.name), getattr(attributes, field.name)
            # Another version of a library may finish what this one began.
            if field.name != "versions" and want != have:
                raise InputError(
                    f"{path} must hold activations with {field.name} {want!r}, found {have!r} "
                    f"(model {attributes.model}); delete {path.parent} or choose another --workdir."
                )
    return Store(path, array, attributes)


def open_vector(path: Place, activations: Store, *, create: bool = False) -> ts.TensorStore:
    """Open a vector with one float32 per stimulus, in the same shards as the activations.

    Args:
      path: directory of the array.
      activations: those of the same stimuli.
      create: whether to make it if it is not there; what was never written is NaN.

    Raises:
      InputError: if there is none, or it is of other stimuli.
    """
    spec = {
        "driver": "zarr3",
        "kvstore": place.kvstore(path),
        "metadata": {
            "shape": [activations.shape[1]],
            "data_type": "float32",
            "dimension_names": DIMENSIONS[1:2],
            "fill_value": "NaN",
            "chunk_grid": {
                "name": "regular",
                "configuration": {"chunk_shape": [len(activations.shards[0])]},
            },
            "codecs": [
                {"name": "bytes", "configuration": {"endian": "little"}},
                {"name": "crc32c"},
            ],
        },
    }
    try:
        return ts.open(spec, create=create, open=True).result()
    except ValueError as error:
        place.refuse_lost(path, error)
        raise InputError(
            f"{path} must hold a number for each of {activations.shape[1]} stimuli: "
            f"{_first_line(error)}; delete {path.parent} and run again."
        ) from error


def read_vector(path: Place, activations: Store) -> Float[np.ndarray, " m"]:
    """Read a vector with a number for each stimulus; NaN is what is undefined.

    Args:
      path: directory of the array.
      activations: those of the same stimuli.

    Raises:
      InputError: if there is none, it is of other stimuli or damaged.
    """
    vector = open_vector(path, activations)
    try:
        return vector.read().result()
    except ValueError as error:
        place.refuse_lost(path, error)
        raise run_dir.DamagedError(
            path.parent, f"{path} cannot be read ({_first_line(error)})"
        ) from error


def has_rows(vector: ts.TensorStore, rows: range) -> bool:
    """Whether a shard of a vector is undamaged; reads it, and its checksum."""
    try:
        vector[rows.start : rows.stop].read().result()
    except ValueError:
        return False
    return True


def open_artefact(artefact: run_dir.Artefact) -> Store:
    """Open the store of a finished extraction, and make sure that it is the one meant.

    Raises:
      InputError: if it is missing, or holds something else.
    """
    store = open_store(artefact.path / ARRAY)
    if store.attributes.fingerprint != artefact.fingerprint:
        raise InputError(
            f"{store.path} must hold {artefact.name} ({artefact.fingerprint}), found "
            f"{store.attributes.model} ({store.attributes.fingerprint}); delete {artefact.path} "
            "and run again."
        )
    return store


def stimulus_ids(artefact: run_dir.Artefact) -> list[str]:
    """Return the stimulus of each row of an extraction.

    Raises:
      InputError: if the list is missing, broken or of another length.
    """
    path = artefact.path / STIMULUS_IDS
    try:
        ids = json.loads(path.read_text(encoding="utf-8"))
        if len(ids) != artefact.settings["num_stimuli"]:
            raise ValueError(f"{len(ids)} of {artefact.settings['num_stimuli']} ids")
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path} must list the stimuli: {_first_line(error)}; delete {artefact.path} and run "
            "again."
        ) from error
    return ids


def finish_write(future: ts.Future, artefact: run_dir.Artefact) -> None:
    """Wait until a shard is on disk.

    Raises:
      InputError: if it could not be written (a full disk).
    """
    try:
        future.result()
    except (ValueError, OSError) as error:
        place.refuse_lost(artefact.path, error)
        raise InputError(f"{artefact.path} cannot be written: {_first_line(error)}.") from error


def _is_json(path: Place) -> bool:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    return True


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
