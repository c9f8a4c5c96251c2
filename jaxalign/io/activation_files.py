"""Activations in files that other programs wrote: .npz with ids, or .npy and the ids of its rows.

An .npz holds `stimulus_id`, a text for each row; and either an array `layer_<number>` [row, unit]
for each layer, or one array `activations` [layer, row, unit], whose layers are counted from 0
unless an array `layer` of integers numbers them. Nothing is ever unpickled.
"""

import dataclasses
import pathlib
import re
import zipfile
import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from jaxalign.errors import InputError

IDS, STACK, NUMBERS = "stimulus_id", "activations", "layer"
DTYPES = ("float16", "float32", "float64")
_LAYER = re.compile(r"layer_(\d+)")
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given:
    """Activations in a file: checked but for their values, which `read` checks.

    Attributes:
      path: the file.
      stimulus_id: of each row, each once.
      layers: numbers of the layers, ascending; 0 is the embedding.
      width: units of each layer.
      dtype: one of `DTYPES`.
      context, pooling: what is known of how the stimuli were read, and of what stands for them.
    """

    path: pathlib.Path
    stimulus_id: Sequence[str]
    layers: Sequence[int]
    width: int
    dtype: str
    context: str = "unknown"
    pooling: str = "unknown"

    def read(self) -> Float[np.ndarray, "L m u"]:
        """Read all layers, in the dtype of the file.

        Raises:
          InputError: if the file is damaged, or a value is NaN or infinite.
        """
        shape = (len(self.layers), len(self.stimulus_id), self.width)
        try:
            if self.path.suffix == ".npy":
                values = np.load(self.path, allow_pickle=False).reshape(shape)
            else:
                with np.load(self.path, allow_pickle=False) as file:
                    if STACK in file:
                        values = file[STACK].reshape(shape)
                    else:
                        values = np.stack([file[f"layer_{i}"] for i in self.layers])
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise _damaged(self.path, error) from error
        wrong = ~np.isfinite(values)
        if wrong.any():
            layer, row, unit = np.argwhere(wrong)[0]
            raise InputError(
                f"{self.path}: activations must be finite, found {values[layer, row, unit]} at "
                f"layer {self.layers[layer]}, stimulus_id {self.stimulus_id[row]!r}, unit {unit} "
                f"({int(wrong.sum())} such)."
            )
        return values


def open_npz(path: pathlib.Path) -> Given:
    """Open an .npz that holds the ids of its rows.

    Raises:
      InputError: if it is cut off, holds pickled objects, lacks an array or has one too many, or
        shapes, numbers of layers or ids do not fit.
    """
    try:
        headers = _headers(path)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path, error) from error
    for name, (_, dtype) in headers.items():
        _refuse_objects(path, name, dtype)
    if IDS not in headers:
        raise InputError(f"{path} must have an array {IDS!r}, found {sorted(headers)[:8]}.")
    ids = _load(path, IDS)
    if ids.ndim != 1 or ids.dtype.kind != "U":
        raise InputError(
            f"{path}: {IDS} must hold a text for each row, found {ids.dtype} of shape {ids.shape}."
        )
    names = [name for name in headers if name not in (IDS, NUMBERS)]
    numbered = {int(found[1]): name for name in names if (found := _LAYER.fullmatch(name))}
    if names != [STACK] and (not names or len(numbered) < len(names) or NUMBERS in headers):
        raise InputError(
            f"{path} must hold {IDS} and either {STACK}, numbered by an array {NUMBERS} or not, or "
            f"arrays that are called layer_0, layer_1 ...; found {sorted(headers)[:8]}."
        )
    if names == [STACK]:
        numbers = _load(path, NUMBERS) if NUMBERS in headers else None
        return _given(path, ids.tolist(), STACK, *headers[STACK], numbers)
    found = [
        _given(path, ids.tolist(), name, *headers[name], np.array([number]))
        for number, name in sorted(numbered.items())
    ]
    for own in found:
        if (own.width, own.dtype) != (found[0].width, found[0].dtype):
            raise InputError(
                f"{path}: all layers must have the same units and dtype, but layer_"
                f"{found[0].layers[0]} is {found[0].dtype} x {found[0].width} and layer_"
                f"{own.layers[0]} {own.dtype} x {own.width}; put them into files of their own."
            )
    return dataclasses.replace(found[0], layers=tuple(own.layers[0] for own in found))


def open_npy(
    path: pathlib.Path, stimulus_id: Sequence[str], *, layers: Sequence[int] = ()
) -> Given:
    """Open an .npy, [row, unit] of one layer or [layer, row, unit] of several.

    Args:
      path: the file, which says nothing of what its rows are.
      stimulus_id: of each row, in the order of the file.
      layers: numbers of the layers, ascending; (): counted from 0.

    Raises:
      InputError: if it is cut off, holds pickled objects, or shape, numbers of layers or ids do not
        fit.
    """
    try:
        with open(path, "rb") as file:
            shape, dtype = _header(file)
            rest = path.stat().st_size - file.tell()
        needed = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if not dtype.hasobject and rest != needed:
            raise ValueError(f"{rest} bytes of values where there should be {needed}")
    except (OSError, ValueError, EOFError) as error:
        raise _damaged(path, error) from error
    _refuse_objects(path, "", dtype)
    return _given(path, stimulus_id, "", shape, dtype, np.array(layers) if layers else None)


def _given(path, ids, name, shape, dtype, numbers) -> Given:
    """Check one array against the ids of its rows and the numbers of its layers."""
    what = f"{path}: {name}" if name else f"{path}: the array"
    dims = (2,) if _LAYER.fullmatch(name) else (2, 3)
    if len(shape) not in dims or 0 in shape or dtype.name not in DTYPES:
        layout = "[row, unit]" if dims == (2,) else "[row, unit] or [layer, row, unit]"
        raise InputError(
            f"{what} must be {layout}, of {', '.join(DTYPES)}, found {dtype} of shape {shape}."
        )
    num_layers, num_rows, width = shape if len(shape) == 3 else (1, *shape)
    if num_rows != len(ids):
        raise InputError(
            f"{what} must have a row for each stimulus_id ({len(ids)}), found shape {shape}."
        )
    if repeated := [x for x, count in Counter(ids).items() if count > 1]:
        raise InputError(f"{path}: stimulus_id must be unique, found {repeated[0]!r} twice.")
    if numbers is None:
        numbers = np.arange(num_layers)
    if (
        numbers.shape != (num_layers,)
        or numbers.dtype.kind not in "iu"
        or numbers[0] < 0
        or (np.diff(numbers) <= 0).any()
    ):
        raise InputError(
            f"{what}: numbers of layers must be {num_layers} integers that ascend from 0 or more, "
            f"found {numbers.tolist()}."
        )
    return Given(
        path=path,
        stimulus_id=ids,
        layers=tuple(int(x) for x in numbers),
        width=width,
        dtype=dtype.name,
    )


def _headers(path: pathlib.Path) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Return shape and dtype of each array of an .npz."""
    found = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            with archive.open(name) as file:
                found[name.removesuffix(".npy")] = _header(file)
    return found


def _header(file) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"version {version} of the format")
    shape, _, dtype = _HEADERS[version](file)
    return shape, dtype


def _load(path: pathlib.Path, name: str) -> np.ndarray:
    try:
        with np.load(path, allow_pickle=False) as file:
            return file[name]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _damaged(path, error) from error


def _refuse_objects(path: pathlib.Path, name: str, dtype: np.dtype) -> None:
    if dtype.hasobject:
        what = f"{name} holds" if name else "it holds"
        raise InputError(
            f"{path} must hold plain numbers and text, but {what} pickled objects, which are never "
            "loaded."
        )


def _damaged(path: pathlib.Path, error: Exception) -> InputError:
    return InputError(
        f"{path} must be a whole {path.suffix} file of NumPy: {' '.join(str(error).split())}."
    )
