"""Named arrays in an Orbax checkpoint, which each device reads its part of."""

import contextlib
import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import tensorstore as ts
from orbax.checkpoint import v1 as ocp

from jaxalign.errors import InputError
from jaxalign.io import run_dir

# Arrays are stored in pieces of this size at most, so that a device which holds a part of one
# reads little more than its part.
CHUNK_BYTES = 16 * 2**20
# The marker that is written last.
_COMMITTED = "commit_success.txt"
_STATE = "state"  # folder of the arrays, each in a folder by its name


def save(path: pathlib.Path, arrays: Mapping[str, np.ndarray | jax.Array]) -> None:
    """Write a checkpoint; `Arrays` refuses one that was not written to its end.

    Arrays that are mapped from files are read piece by piece as they are written. Of arrays on
    devices of several processes each writes its part, so that all must call this.

    Args:
      path: directory to make; there must be none.
      arrays: by name.
    """
    with saving(), without_hints():
        ocp.save(str(path.resolve()), dict(arrays))


def saving() -> ocp.Context:
    """Return how arrays are saved: in pieces, each written as it is read."""
    context = ocp.Context()
    # The single-file layout would gather all that is written in memory before it writes any.
    context.array.saving.use_ocdbt = False
    context.array.saving.storage_options.chunk_byte_size = CHUNK_BYTES
    # The default copies every host array before the first is written.
    context.memory.deepcopy_host_arrays = False
    context.memory.write_concurrent_bytes = 8 * CHUNK_BYTES
    return context


class Arrays:
    """A checkpoint that `save` has made."""

    def __init__(self, path: pathlib.Path):
        """Read names, shapes and types; no values.

        Raises:
          InputError: if the checkpoint is incomplete.
        """
        self.path = path
        try:
            if not (path / _COMMITTED).is_file():
                raise FileNotFoundError(f"there is no {_COMMITTED}")
            with without_hints():
                found = ocp.metadata(str(path.resolve())).metadata
            self._structs = {
                name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in found.items()
            }
        except (OSError, ValueError, AttributeError, ocp.errors.InvalidLayoutError) as error:
            reason = " ".join(str(error).split())
            raise InputError(f"{path} must be a whole Orbax checkpoint: {reason}.") from error

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Return the shape of each array."""
        return {name: struct.shape for name, struct in self._structs.items()}

    def dtypes(self) -> dict[str, np.dtype]:
        """Return the type of each array."""
        return {name: struct.dtype for name, struct in self._structs.items()}

    def restore(self, wanted: Mapping[str, jax.ShapeDtypeStruct]) -> dict[str, jax.Array]:
        """Read arrays, cast to the type asked for; each device reads its part.

        Args:
          wanted: name -> shape, type and sharding; arrays that are not named are not read.
        """
        tree: dict[str, Any] = dict.fromkeys(self._structs, ocp.PLACEHOLDER)
        with without_hints():
            found = ocp.load(str(self.path.resolve()), tree | dict(wanted))
        return {name: found[name] for name in wanted}

    def part(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
        """Read part of an array on the host, as it is stored.

        Pieces on disk are read whole, and may hold a part of all layers.

        Args:
          name: of the array.
          index: the part.
        """
        place = f"{(self.path / _STATE / name).resolve()}/"
        spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": place}}
        return ts.open(spec, read=True).result()[index].read().result()

    def hash(self) -> str:
        """Return a hash of all files' contents, 16 hexadecimal digits."""
        files = sorted(file for file in self.path.rglob("*") if file.is_file())
        return run_dir.hash_text(
            "".join(f"{file.relative_to(self.path)} {run_dir.hash_file(file)}\n" for file in files)
        )


@contextlib.contextmanager
def without_hints():
    """Keep Orbax from warning that the checkpoint is not in its other layout."""
    logger = logging.getLogger("absl")
    logger.addFilter(is_no_hint)
    try:
        yield
    finally:
        logger.removeFilter(is_no_hint)


def is_no_hint(record: logging.LogRecord) -> bool:
    """Whether a record of Orbax says more than that there is another layout."""
    known = ("Skipping merge of OCDBT", "TensorStore data files not found")
    return not any(text in record.getMessage() for text in known)
