"""Where artefacts lie: a folder of this machine, or a prefix in a bucket of S3 or Google's store.

`at` makes a place of a text. A folder is a `pathlib.Path`; what lies in a bucket is a `Remote`. It
has those of pathlib's methods that artefacts need, and is no `os.PathLike`: what would give it to
`open` or to another library fails, where it would otherwise make a folder called "s3:". So files
are read by `place.open("rb")`, written by `run_dir.write_atomic` alone, and what needs a file of
this machine has one by `scratch` or `copied`.
"""

import contextlib
import dataclasses
import fnmatch
import functools
import io
import json
import os
import pathlib
import posixpath
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxalign.errors import InputError, PlaceError
from jaxalign.io import cloud

DRIVERS = {"s3": "s3", "gs": "gcs"}  # of tensorstore, by the scheme of a URL
# What may stand before a place in a setting, as in "run:s3://..." and "LABEL=s3://...".
_URL = re.compile(r"(?:[^:/]*[=:])?([A-Za-z][A-Za-z0-9+.-]*)://")
# Of a request before any work, by which nothing is lost. Others are repeated for a quarter of an
# hour, as tensorstore does where nothing is said.
_HASTY = {"max_retries": 3, "initial_delay": "300ms", "max_delay": "1s"}
_NOTHING = b"\x02"  # tensorstore's generation of what is not there
_AT_ONCE = 32  # requests on their way
_CONTENTS_AT_ONCE = 4  # of whole objects, which may be shards of 100 MB


@dataclasses.dataclass(frozen=True, order=True)
class Remote:
    """A name in a bucket; one that others begin with is a folder.

    An object is seen whole or not at all, and there are no folders to be made.

    Attributes:
      scheme: a key of `DRIVERS`.
      bucket: its name.
      inside: the name in the bucket, from "/".
    """

    scheme: str
    bucket: str
    inside: pathlib.PurePosixPath

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}{self.inside}".removesuffix("/")

    def __truediv__(self, name: str | pathlib.PurePath) -> "Remote":
        return dataclasses.replace(self, inside=self.inside / name)

    @property
    def name(self) -> str:
        """The last part."""
        return self.inside.name

    @property
    def parent(self) -> "Remote":
        """The folder that it lies in."""
        return dataclasses.replace(self, inside=self.inside.parent)

    @property
    def parents(self) -> list["Remote"]:
        """All folders that it lies in, the nearest first."""
        return [dataclasses.replace(self, inside=x) for x in self.inside.parents]

    def with_name(self, name: str) -> "Remote":
        """Return what lies beside it under another name."""
        return dataclasses.replace(self, inside=self.inside.with_name(name))

    def relative_to(self, other: "Remote") -> pathlib.PurePosixPath:
        """Return the way from a folder to it.

        Raises:
          ValueError: if it does not lie there.
        """
        if (self.scheme, self.bucket) != (other.scheme, other.bucket):
            raise ValueError(f"{self} must lie in {other}.")
        return self.inside.relative_to(other.inside)

    def absolute(self) -> "Remote":
        """Return the same place."""
        return self

    def resolve(self) -> "Remote":
        """Return the same place, without "..": there are no links."""
        found = pathlib.PurePosixPath(posixpath.normpath(self.inside))
        return dataclasses.replace(self, inside=found)

    def read_bytes(self) -> bytes:
        """Return the content.

        Raises:
          FileNotFoundError: if there is no such object.
          PlaceError: if it cannot be read.
        """
        return self._content(self._store().read(self._key))

    def read_text(self, encoding: str = "utf-8") -> str:
        """Return the content as text; raises what `read_bytes` raises."""
        return self.read_bytes().decode(encoding)

    def open(self, mode: str) -> io.BytesIO:
        """Return the content as a file that is read as bytes; raises what `read_bytes` raises."""
        if mode != "rb":
            raise ValueError(f"{self} must be opened as 'rb', got {mode!r}.")
        return io.BytesIO(self.read_bytes())

    def write(self, data: bytes) -> str:
        """Write the content, and return its generation.

        Raises:
          PlaceError: if it cannot be written.
        """
        return _text(self._wait(self._store().write(self._key, data), "write").generation)

    def look(self) -> tuple[bytes, str] | None:
        """Return content and generation; None if there is no such object.

        Raises:
          PlaceError: if it cannot be read, which is tried for seconds.
        """
        found = self._wait(self._store(_HASTY).read(self._key), "read")
        return None if found.state == "missing" else (found.value, _text(found.stamp.generation))

    def swap(self, data: bytes, generation: str) -> bool:
        """Write the content if it still is that of a generation, and return whether it was.

        Args:
          data: the new content.
          generation: from `look`; "": if there is no such object.

        Raises:
          PlaceError: if it cannot be written, which is tried for seconds.
        """
        known = bytes.fromhex(generation) if generation else _NOTHING
        asked = self._store(_HASTY).write(self._key, data, if_equal=known)
        return self._wait(asked, "write").generation != b""

    def unlink(self, missing_ok: bool = True) -> None:
        """Remove the object; the store does not say whether there was one.

        Raises:
          PlaceError: if it cannot be removed.
        """
        del missing_ok
        self._wait(self._store().write(self._key, None), "remove")

    def exists(self) -> bool:
        """Whether it is an object or a folder."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether there is an object of that name."""
        return bool(generations([self])[0])

    def is_dir(self) -> bool:
        """Whether there are objects below it; lists them all."""
        return bool(self.files())

    def files(self) -> list[str]:
        """Return the names of all objects below it, from here, in order.

        Raises:
          PlaceError: if they cannot be listed.
        """
        return self._below("")

    def glob(self, pattern: str) -> list["Remote"]:
        """Return objects and folders whose names from here match a pattern, in order.

        Args:
          pattern: parts as of the shell, with "/" between them; none is "**".
        """
        parts = pattern.split("/")
        fixed = [*parts, "*"].index(next((x for x in parts if re.search(r"[*?[]", x)), "*"))
        prefix = "".join(f"{x}/" for x in parts[: min(fixed, len(parts) - 1)])
        depth = len(parts)
        found = dict.fromkeys(
            "/".join(names[:depth])
            for names in (x.split("/") for x in self._below(prefix))
            if len(names) >= depth and all(map(fnmatch.fnmatchcase, names, parts))
        )
        return [self / x for x in sorted(found)]

    def iterdir(self) -> list["Remote"]:
        """Return the objects and folders in it, in order."""
        return self.glob("*")

    def _content(self, future) -> bytes:
        found = self._wait(future, "read")
        if found.state == "missing":
            raise FileNotFoundError(2, "No such object", str(self))
        return found.value

    @property
    def _key(self) -> str:
        return str(self.inside)[1:]

    def _below(self, prefix: str) -> list[str]:
        import tensorstore as ts

        folder = f"{self._key}/" if self._key else ""
        start = folder + prefix
        # "0" comes next after "/".
        every = ts.KvStore.KeyRange(start, f"{start[:-1]}0" if start else "")
        found = (x.decode() for x in self._wait(self._store().list(every), "list"))
        # Not all servers keep to the end of a range.
        return sorted(x.removeprefix(folder) for x in found if x.startswith(start))

    def _store(self, retries: Mapping[str, Any] | None = None) -> Any:
        """Return the bucket, as tensorstore's KvStore."""
        name = f"{self.scheme.replace('gs', 'gcs')}_request_retries"
        spec = kvstore(dataclasses.replace(self, inside=pathlib.PurePosixPath("/")))
        spec |= {name: dict(retries)} if retries else {}
        # A notebook may set another key.
        return _open(json.dumps(spec), os.environ.get("AWS_ACCESS_KEY_ID", ""))

    def _wait(self, future, what: str) -> Any:
        """Wait for a request; what goes wrong with it is a `PlaceError`."""
        try:
            return future.result()
        except (ValueError, OSError) as error:
            raise cloud.failure(str(self), what, error) from error


Place = pathlib.Path | Remote


def at(place: str | os.PathLike[str] | Remote) -> Place:
    """Return the place of a path or a URL.

    Args:
      place: a path, `s3://BUCKET/PATH` or `gs://BUCKET/PATH`.

    Raises:
      InputError: if it is a URL of another kind, or names no bucket.
    """
    if isinstance(place, Remote):
        return place
    text = os.fspath(place)
    found = _URL.match(text)
    if found is None or found.start(1):
        return pathlib.Path(place)
    scheme, rest = found[1], text[found.end() :]
    if scheme not in DRIVERS:
        raise InputError(
            f"a place must be a folder, s3://BUCKET/PATH or gs://BUCKET/PATH, got {text!r}."
        )
    bucket, _, inside = rest.partition("/")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", bucket):
        raise InputError(f"{text!r} must name a bucket, as in {scheme}://BUCKET/PATH.")
    return Remote(
        scheme, bucket, pathlib.PurePosixPath(posixpath.normpath(f"/{inside.strip('/')}"))
    )


def refuse_urls(name: str, value: object) -> None:
    """Refuse a setting that names a place in a bucket, where a file of this machine must be.

    Args:
      name: of the setting.
      value: a text, or a tuple with texts in it.

    Raises:
      InputError: with what must be done instead.
    """
    for text in value if isinstance(value, tuple) else (value,):
        found = _URL.match(text) if isinstance(text, str) else None
        if found is not None and found[1] in DRIVERS:
            raise InputError(
                f"{name} must be on this machine, got {text!r}: only a work directory can lie in a "
                "bucket."
            )


def kvstore(place: Place) -> dict[str, Any]:
    """Return what tensorstore is told of the folder in which it keeps an array."""
    if isinstance(place, pathlib.Path):
        return {"driver": "file", "path": str(place)}
    path = f"{place._key}/" if place._key else ""
    spec = {"driver": DRIVERS[place.scheme], "bucket": place.bucket, "path": path}
    return spec | (cloud.access() if place.scheme == "s3" else {})


def generations(places: Sequence[Remote]) -> list[str]:
    """Return the generation of each object, which another content would change; "" of none.

    Raises:
      PlaceError: if one cannot be looked up.
    """
    found = []
    for i in range(0, len(places), _AT_ONCE):
        part = places[i : i + _AT_ONCE]
        # No byte is asked for, so none is sent.
        asked = [x._store().read(x._key, byte_range=slice(0, 0)) for x in part]
        answers = [x._wait(future, "read") for x, future in zip(part, asked, strict=True)]
        found += ["" if x.state == "missing" else _text(x.stamp.generation) for x in answers]
    return found


def contents(places: Sequence[Remote]) -> Iterator[bytes]:
    """Yield the content of each object, while the next few are on their way.

    Raises:
      FileNotFoundError: if there is no such object.
      PlaceError: if one cannot be read.
    """
    for i in range(0, len(places), _CONTENTS_AT_ONCE):
        part = places[i : i + _CONTENTS_AT_ONCE]
        asked = [x._store().read(x._key) for x in part]
        for x, future in zip(part, asked, strict=True):
            yield x._content(future)


def check_readable(place: Remote) -> None:
    """Refuse a bucket that is not there, or that cannot be listed.

    Raises:
      InputError: with the reason.
      PlaceError: if the store cannot be reached.
    """
    import tensorstore as ts

    first = ts.KvStore.KeyRange(place._key, f"{place._key}\0")
    with _refused():
        place._wait(place._store(_HASTY).list(first), "list")


def check_writable(place: Remote) -> None:
    """Refuse a folder in a bucket in which nothing can be written or removed.

    Raises:
      InputError: with the reason.
      PlaceError: if the store cannot be reached.
    """
    probe = place / f".jaxalign-probe-{os.getpid()}"
    store = place._store(_HASTY)
    with _refused():
        place._wait(store.write(probe._key, b"written and removed\n"), "write")
        place._wait(store.write(probe._key, None), "remove")


@contextlib.contextmanager
def _refused() -> Iterator[None]:
    """Make bad input of a failure that another attempt would meet too."""
    try:
        yield
    except PlaceError as error:
        if error.is_lost:
            raise
        raise InputError(str(error)) from error


def refuse_lost(place: Place, error: Exception) -> None:
    """Raise what tensorstore met if it is the store's, and says nothing of the data in it.

    Args:
      place: that was read or written.
      error: that tensorstore raised.

    Raises:
      PlaceError: if the place is in a bucket that cannot be reached or must not be used.
    """
    if isinstance(place, Remote) and cloud.code_of(error) in (*cloud.LOST, *cloud.FORBIDDEN):
        raise cloud.failure(str(place), "use", error) from error


@contextlib.contextmanager
def scratch(place: Place, prefix: str) -> Iterator[pathlib.Path]:
    """Give a folder of this machine that is removed afterwards: in the place if it is one itself.

    Args:
      place: a folder.
      prefix: of its name.
    """
    inside = place if isinstance(place, pathlib.Path) else None
    with tempfile.TemporaryDirectory(dir=inside, prefix=prefix) as name:
        yield pathlib.Path(name)


@contextlib.contextmanager
def copied(place: Place) -> Iterator[pathlib.Path]:
    """Give a folder with its files to what reads files of this machine alone.

    Args:
      place: a folder; one of this machine is given itself.
    """
    if isinstance(place, pathlib.Path):
        yield place
        return
    with scratch(place, f"{place.name}.") as folder:
        for name in place.files():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((place / name).read_bytes())
        yield folder


@functools.lru_cache
def _open(spec: str, key: str) -> Any:
    """Open a bucket; one object keeps its connections."""
    import tensorstore as ts

    del key
    return ts.KvStore.open(json.loads(spec)).result()


def _text(generation: bytes) -> str:
    return generation.hex()
