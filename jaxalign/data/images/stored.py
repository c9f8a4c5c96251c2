"""Where the pixels of images lie: image files, or an array of an HDF5 file or an `.npz`.

All are read a few images at a time, as 8-bit RGB.
"""

import abc
import dataclasses
import functools
import hashlib
import pathlib
import threading
import time
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from absl import logging
from jaxtyping import Int, UInt8

from jaxalign.data.formats import recordings
from jaxalign.data.images import opening
from jaxalign.errors import InputError, one_line
from jaxalign.io import run_dir

Image = UInt8[np.ndarray, "h w 3"]
_AT_ONCE = 32  # images that are hashed at a time
_THREADS = 8  # that decode files: Pillow lets go of Python's lock
# Hashes that this process has made: pixels do not change under a run, and may be many gigabytes.
_hashes: dict[tuple, str] = {}
_lock = threading.Lock()


class Pixels(abc.ABC):
    """The pixels of some images, in an order of their own."""

    @abc.abstractmethod
    def read(self, index: Sequence[int]) -> Sequence[Image]:
        """Read some of the images.

        Args:
          index: positions among these images.

        Raises:
          InputError: if a file is missing or damaged, or holds something else.
        """

    @property
    @abc.abstractmethod
    def places(self) -> Sequence[object]:
        """What tells images apart: two with the same place are one."""

    @abc.abstractmethod
    def check(self) -> None:
        """Refuse files that are missing or hold something else; no image is read.

        Raises:
          InputError: naming the first.
        """

    @property
    @abc.abstractmethod
    def shapes(self) -> set[tuple[int, int]]:
        """All heights and widths that there are; no image is read.

        Raises:
          InputError: as `check` does.
        """

    @property
    @abc.abstractmethod
    def hash(self) -> str:
        """Hash of every image's content, or of where they should lie if they are not there."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Array(Pixels):
    """Images that all lie in one array of a file.

    Attributes:
      file: of all pixels.
      key: array in it, [images height width 3] of 8 bits.
      row: of each image in that array.
    """

    file: pathlib.Path
    key: str
    row: Int[np.ndarray, " m"]

    @property
    def places(self) -> list[int]:
        """Rows of the array."""
        return self.row.tolist()

    @property
    def hash(self) -> str:
        """Hash of the rows that these images have; it is made once in a process."""
        named = hashlib.sha256(self.key.encode() + self.row.astype(np.int64).tobytes()).hexdigest()
        if not self.file.is_file():
            return run_dir.hash_text(f"absent {named}")
        stat = self.file.stat()
        key = str(self.file.resolve()), stat.st_size, stat.st_mtime_ns, named
        with _lock:
            if key not in _hashes:
                _hashes[key] = self._hash(named)
            return _hashes[key]

    def _hash(self, named: str) -> str:
        digest = hashlib.sha256(named.encode())
        rows = np.unique(self.row)
        place = {int(row): i for i, row in enumerate(self.row)}
        said_s = time.monotonic()
        for start in range(0, len(rows), _AT_ONCE):
            if time.monotonic() - said_s > run_dir.LONG_S:
                said_s = time.monotonic()
                logging.info(
                    "Images are hashed to see what has changed: %d of %d so far", start, len(rows)
                )
            for image in self.read([place[int(row)] for row in rows[start : start + _AT_ONCE]]):
                digest.update(str(image.shape).encode() + np.ascontiguousarray(image).tobytes())
        return digest.hexdigest()[:16]

    def _rows(self, index: Sequence[int], shape: tuple[int, ...], dtype: np.dtype) -> list[int]:
        """Return rows of the array; refuse an array that holds no images, or fewer."""
        if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3:
            raise InputError(
                f"{self.file}: {self.key!r} must hold images [images height width 3] of 8 "
                f"bits, found {dtype} of shape {shape}."
            )
        if 0 in shape[1:]:
            raise InputError(
                f"{self.file}: images in {self.key!r} must have pixels, found "
                f"{shape[1]} x {shape[2]}."
            )
        rows = [int(self.row[i]) for i in index]
        if rows and max(rows) >= shape[0]:
            raise InputError(
                f"{self.file}: {self.key!r} must hold row {max(rows)}, found {shape[0]} rows."
            )
        return rows

    def _refuse_missing(self) -> None:
        if not self.file.is_file():
            raise InputError(f"the pixels of images must lie in {self.file}: it is missing.")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hdf5(Array):
    """Images in an array of an HDF5 file."""

    def check(self) -> None:
        """Look at the array's shape; see `Pixels`."""
        self._refuse_missing()
        with recordings.hdf5(self.file) as file:
            images = recordings.dataset(file, self.key, ndim=4)
            self._rows(range(len(self.row)), images.shape, images.dtype)

    @property
    def shapes(self) -> set[tuple[int, int]]:
        """Those of the array; see `Pixels`."""
        self._refuse_missing()
        with recordings.hdf5(self.file) as file:
            return {recordings.dataset(file, self.key, ndim=4).shape[1:3]}

    def read(self, index: Sequence[int]) -> UInt8[np.ndarray, "k h w 3"]:
        """Read some of the images; see `Pixels`."""
        self._refuse_missing()
        with recordings.hdf5(self.file) as file:
            images = recordings.dataset(file, self.key, ndim=4)
            rows = self._rows(index, images.shape, images.dtype)
            # One by one: each image is a chunk of its own, and h5py wants ascending rows.
            found = [images[row] for row in rows]
            return np.stack(found) if found else np.empty((0, *images.shape[1:]), np.uint8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Npz(Array):
    """Images in an array of an `.npz`; one that `numpy.savez` wrote is not read as a whole."""

    @property
    def num_stored(self) -> int:
        """Images that the archive holds."""
        return self._images.shape[0] if self._images.ndim else 0

    def check(self) -> None:
        """Look at the array's shape; see `Pixels`."""
        self._rows(range(len(self.row)), self._images.shape, self._images.dtype)

    @property
    def shapes(self) -> set[tuple[int, int]]:
        """Those of the array; see `Pixels`."""
        return {self._images.shape[1:3]}

    def read(self, index: Sequence[int]) -> UInt8[np.ndarray, "k h w 3"]:
        """Read some of the images; see `Pixels`."""
        images = self._images
        return np.array(images[self._rows(index, images.shape, images.dtype)])

    @functools.cached_property
    def _images(self) -> np.ndarray:
        """Map the array to memory; read it if it is compressed."""
        self._refuse_missing()
        return _mapped(self.file, self.key)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Held(Pixels):
    """A few images that are in memory, as small data sets come.

    Attributes:
      images: all of them.
    """

    images: UInt8[np.ndarray, "m h w 3"]

    @functools.cached_property
    def places(self) -> list[str]:
        """Contents of the images."""
        return [hashlib.sha256(image.tobytes()).hexdigest() for image in self.images]

    @property
    def hash(self) -> str:
        """Hash of all images."""
        return run_dir.hash_text(str(self.images.shape) + "".join(self.places))

    @property
    def shapes(self) -> set[tuple[int, int]]:
        """Those of the array; see `Pixels`."""
        return {self.images.shape[1:3]}

    def check(self) -> None:
        """Nothing can be missing."""

    def read(self, index: Sequence[int]) -> UInt8[np.ndarray, "k h w 3"]:
        """Return some of the images; see `Pixels`."""
        return self.images[list(index)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Files(Pixels):
    """Image files.

    Attributes:
      paths: of each image.
    """

    paths: tuple[pathlib.Path, ...]

    @property
    def places(self) -> list[str]:
        """Contents of the files: two copies of one file are one image."""
        if any(not path.is_file() for path in self.paths):
            return [str(path) for path in self.paths]
        return [run_dir.hash_file(path) for path in self.paths]

    @property
    def hash(self) -> str:
        """Hash of the files' contents; of each it is made once in a process."""
        return run_dir.hash_text("".join(self.places))

    def check(self) -> None:
        """Look at the files' headers; see `Pixels`."""
        with ThreadPoolExecutor(_THREADS) as threads:
            list(threads.map(opening.look, self.paths))

    @property
    def shapes(self) -> set[tuple[int, int]]:
        """Those of the files' headers; see `Pixels`."""
        with ThreadPoolExecutor(_THREADS) as threads:
            return set(threads.map(opening.look, self.paths))

    def read(self, index: Sequence[int]) -> list[Image]:
        """Decode some of the images; see `Pixels`."""
        with ThreadPoolExecutor(_THREADS) as threads:
            return list(threads.map(opening.read, [self.paths[i] for i in index]))


# Of broken archives, of headers that are no Python expression, and of mapping what is not there.
_DAMAGED = (OSError, ValueError, EOFError, KeyError, NotImplementedError, zipfile.BadZipFile)
_DAMAGED += (zlib.error, SyntaxError, tokenize.TokenError)


def npz_arrays(path: pathlib.Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Read some arrays of an `.npz`, those of them that it holds.

    Raises:
      InputError: if it is no `.npz`; objects are never unpickled.
    """
    try:
        # Opened here: np.load leaves its own handle open when the archive is broken.
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in names if name in file.files}
    except _DAMAGED as error:
        raise _broken(path, error) from error


def _mapped(path: pathlib.Path, key: str) -> np.ndarray:
    """Map an array of an `.npz` to memory, or read it where it is compressed."""
    try:
        with zipfile.ZipFile(path) as archive:
            if f"{key}.npy" not in archive.namelist():
                raise InputError(
                    f"{path} must hold the array {key!r}, found "
                    f"{', '.join(archive.namelist()[:8]) or 'nothing'}."
                )
            member = archive.getinfo(f"{key}.npy")
            if member.compress_type != zipfile.ZIP_STORED:
                return npz_arrays(path, [key])[key]
            with archive.open(member) as opened:
                version = np.lib.format.read_magic(opened)
                read = {
                    (1, 0): np.lib.format.read_array_header_1_0,
                    (2, 0): np.lib.format.read_array_header_2_0,
                }[version]
                shape, is_fortran, dtype = read(opened)
                begins = opened.tell()
        if dtype.hasobject:
            raise InputError(f"{path}: {key!r} must be numbers, found Python objects.")
        with open(path, "rb") as file:
            file.seek(member.header_offset)
            local = file.read(30)  # the header in front of the member, whose sizes are its own
        begins += (
            member.header_offset
            + 30
            + sum(int.from_bytes(local[i : i + 2], "little") for i in (26, 28))
        )
        if 0 in shape:  # nothing can be mapped
            return np.zeros(shape, dtype)
        order = "F" if is_fortran else "C"
        return np.memmap(path, dtype, "r", begins, shape, order)
    except _DAMAGED as error:
        raise _broken(path, error) from error


def _broken(path: pathlib.Path, error: BaseException) -> InputError:
    return InputError(f"{path} must be an .npz of plain arrays: {one_line(error)}.")
