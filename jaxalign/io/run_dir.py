"""Artefacts of a run: where they lie, what fixes their content, and whether they are finished."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

from absl import logging

from jaxalign import processes
from jaxalign.errors import InputError
from jaxalign.io import files as files_lib
from jaxalign.io import place as place_lib
from jaxalign.io.place import Place, Remote

Read = TypeVar("Read")

DONE = "done.json"
# The marker of a page that is being replaced (`latest_only`): its files stay until those of the new
# one are there, for somebody may be reading them.
LAST = ".last.json"
PAGE = "index.html"  # the file to open, in the folder of an artefact that has a page
# Seconds of hashing after which the log says how much was read; then again after as many.
LONG_S = 5.0
# Bytes above which a finished file is not hashed each time that it is looked at.
LARGE = 64 * 2**20
# A file that changed less than this before it was hashed may change again without another time.
SETTLED_S = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Artefact:
    """One directory that a stage makes: `<workdir>/<stage>/<fingerprint>/`.

    The fingerprint hashes all that fixes the content, so a changed setting, input file or stage
    version leads to another directory, and an unchanged one to the same. The done-marker is
    written last. It repeats the fingerprint and has the hash of every file: a directory without it,
    with another one, or with a file that it does not vouch for is unfinished.
    """

    workdir: Place
    stage: str
    kind: str = ""  # what is in it: see `stages/artefacts.py`
    name: str  # for people: unique within a stage and a configuration
    settings: Mapping[str, object]  # plain JSON: everything that fixes the content
    inputs: tuple["Artefact", ...] = ()
    cost: str = ""  # what making it takes, for --dry_run; not part of the fingerprint
    latest_only: bool = False  # lies in `<workdir>/<stage>/` itself, and replaces the last one
    # What later stages plan with before it is made, such as models; not part of the fingerprint.
    offers: tuple[object, ...] = ()

    @functools.cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits."""
        content = {
            "stage": self.stage,
            "kind": self.kind,
            "settings": dict(self.settings),
            "inputs": [x.fingerprint for x in self.inputs],
        }
        return hash_text(json.dumps(content, sort_keys=True, allow_nan=False))

    @property
    def path(self) -> Place:
        """The directory."""
        folder = self.workdir / self.stage
        return folder if self.latest_only else folder / self.fingerprint

    @property
    def is_done(self) -> bool:
        """Whether the artefact is finished, and its files are what was written."""
        return self.is_marked and not changed(self.path)

    @property
    def is_marked(self) -> bool:
        """Whether it was finished once, whatever became of its files."""
        return self.facts().get("fingerprint") == self.fingerprint

    def start(self) -> None:
        """Make the directory, clear what cannot be resumed, and record what it will hold.

        Nothing that is finished goes, for another run may just have made it: of a finished artefact
        only files that are not what was written. The marker stays with the others, and vouches for
        nothing until these are there again.
        """
        if isinstance(self.path, pathlib.Path):
            self.path.mkdir(parents=True, exist_ok=True)
        sweep(self.path)
        if self.is_marked:
            for name, same in _held(self.path, _vouched(self.path)).items():
                if not same:
                    _remove(self.path / name)
        elif self.latest_only:
            self._put_aside()
        if not self.is_done:
            write_json(self.path / "settings.json", self.describe())

    def _put_aside(self) -> None:
        """Take the marker of another page away, and remember its files until `finish`."""
        stamps = _vouched(self.path, LAST) | _vouched(self.path)
        if stamps:
            write_json(self.path / LAST, {"files": {x: y._asdict() for x, y in stamps.items()}})
        (self.path / DONE).unlink(missing_ok=True)

    def finish(self, *, files: Sequence[str] | None = None, **facts: object) -> None:
        """Write the done-marker, with what was found on the way (counts, times).

        Args:
          files: names of those that it vouches for; None: all that are in the directory.
          facts: plain JSON.
        """
        found = _files(self.path) if files is None else [*files, "settings.json"]
        vouch(self.path, self.fingerprint, found, **facts)
        if self.latest_only:
            for name in _vouched(self.path, LAST).keys() - set(found):
                _remove(self.path / name)
            (self.path / LAST).unlink(missing_ok=True)

    def facts(self) -> dict:
        """Read the fingerprint, and what `finish` was given; nothing if there is no marker."""
        return marker(self.path)

    def describe(self) -> dict:
        """Return what fixes the content, for people and provenance."""
        return {
            "stage": self.stage,
            "kind": self.kind,
            "name": self.name,
            "fingerprint": self.fingerprint,
            "settings": dict(self.settings),
            "inputs": [x.describe() for x in self.inputs],
        }


class _Stamp(NamedTuple):
    """What a done-marker knows of a file."""

    size: int
    mtime_ns: int  # 0 in a bucket
    sha256: str
    generation: str = ""  # in a bucket: what the store calls this content of the object

    @classmethod
    def of(cls, path: pathlib.Path) -> "_Stamp":
        found = os.stat(path)
        return cls(found.st_size, found.st_mtime_ns, hash_file(path))

    @classmethod
    def of_object(cls, data: bytes, generation: str) -> "_Stamp":
        return cls(len(data), 0, hashlib.sha256(data).hexdigest()[:16], generation)

    def holds(self, path: pathlib.Path) -> bool:
        """Whether a file is what it was.

        Large files, the shards of stores, are hashed again only where their time of change is
        another: their chunks have checksums of their own, which are read with them.
        """
        try:
            found = os.stat(path)
        except OSError:
            return False
        if found.st_size != self.size or not path.is_file():
            return False
        if self.size > LARGE and found.st_mtime_ns == self.mtime_ns:
            return True
        return hash_file(path) == self.sha256


def marker(folder: Place, name: str = DONE) -> dict:
    """Read the done-marker of a directory; nothing if there is none."""
    try:
        facts = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return facts if isinstance(facts, dict) else {}


class DamagedError(InputError):
    """A file of an artefact is not what was written, which was found when it was read.

    A run makes the artefact again and goes on.
    """

    def __init__(self, folder: Place, problem: str):
        """Say in one line what is wrong, of which artefact's folder."""
        super().__init__(f"{problem}; delete {folder} and run again.")
        self.folder, self.problem = folder, problem


def read_together(read: Callable[[], Read]) -> Read:
    """Return what is read in all processes; damage that one of them finds, all of them hear of.

    Args:
      read: called in all processes, at the same place.

    Raises:
      DamagedError: in all processes, if `read` raises one in any of them.
    """
    found, damage = [], None
    try:
        found.append(read())
    except DamagedError as error:
        damage = [str(error.folder), error.problem]
    for other in processes.gather(damage):
        if other:
            raise DamagedError(place_lib.at(other[0]), other[1])
    return found[0]


def vouch(folder: Place, fingerprint: str, files: Sequence[str], **facts: object) -> None:
    """Write the done-marker of a directory, with a hash of each of its files.

    Args:
      folder: of an artefact.
      fingerprint: of the artefact.
      files: names of those that the marker vouches for.
      facts: plain JSON.
    """
    names = sorted(files)
    if isinstance(folder, Remote):
        paths = [folder / name for name in names]
        known = _stamps(dict(zip(paths, place_lib.generations(paths), strict=True)))
        found = [known[path] for path in paths]
    else:
        found = [_Stamp.of(folder / name) for name in names]
    kept = [{k: x for k, x in stamp._asdict().items() if x != ""} for stamp in found]
    stamps = dict(zip(names, kept, strict=True))
    write_json(folder / DONE, {"fingerprint": fingerprint, "files": stamps} | facts)


def changed(folder: Place) -> list[str]:
    """Return the files of a finished artefact that are missing, or not what was written.

    Args:
      folder: with a done-marker; a marker that vouches for nothing has changed itself.
    """
    vouched = _vouched(folder)
    if not vouched:
        return [DONE]
    return [name for name, same in _held(folder, vouched).items() if not same]


def _held(folder: Place, stamps: Mapping[str, _Stamp]) -> dict[str, bool]:
    """Return of each file whether it is what it was.

    An object whose generation is the same is not read; what was copied from elsewhere has another.
    """
    if not isinstance(folder, Remote):
        return {name: stamp.holds(folder / name) for name, stamp in stamps.items()}
    paths = {name: folder / name for name in stamps}
    there = dict(zip(stamps, place_lib.generations(list(paths.values())), strict=True))
    held = {name: x != "" and x == stamps[name].generation for name, x in there.items()}
    others = {paths[name]: there[name] for name in stamps if there[name] and not held[name]}
    found = _stamps(others)
    same = {
        name: found[paths[name]].sha256 == stamps[name].sha256
        for name in stamps
        if paths[name] in others
    }
    return held | same


def renew(folder: Place) -> None:
    """Note that finished objects were copied to a bucket, so that they are not read at each start.

    Args:
      folder: with files that are what was written.
    """
    if not isinstance(folder, Remote):
        return
    facts, vouched = marker(folder), _vouched(folder)
    # What a check has read, with its generation of then.
    read = {(name, x.sha256): x for (name, _), x in _objects.items()}
    new = {name: read.get((str(folder / name), x.sha256), x) for name, x in vouched.items()}
    if new != vouched:
        files = {name: stamp._asdict() for name, stamp in new.items()}
        write_json(folder / DONE, facts | {"files": files})


def check_whole(path: Place) -> None:
    """Refuse a file of a finished artefact that is not what was written.

    Args:
      path: the file, next to a done-marker.

    Raises:
      InputError: if it is missing, has changed, or the marker does not vouch for it.
    """
    vouched = _vouched(path.parent)
    if not vouched:
        raise InputError(
            f"{path.parent / DONE} must have a hash of each file, found none, as an older version "
            "wrote it: run that again."
        )
    name = path.name
    if name not in vouched or not _held(path.parent, {name: vouched[name]})[name]:
        raise InputError(f"{path} is not what its run wrote: run that again, which makes it anew.")


def _vouched(folder: Place, marked: str = DONE) -> dict[str, _Stamp]:
    """Return what the marker says of each file; nothing if it is no marker.

    Names that lead out of the directory are none of its files, and must not be removed with them.
    """
    inside = folder.resolve()
    try:
        found = {name: _Stamp(**stamp) for name, stamp in marker(folder, marked)["files"].items()}
        return {x: stamp for x, stamp in found.items() if inside in (folder / x).resolve().parents}
    # The last of a name that no file can have.
    except (KeyError, AttributeError, TypeError, ValueError):
        return {}


def _files(folder: Place) -> list[str]:
    """Return the names of all files below a directory, without its marker and unfinished writes."""
    if isinstance(folder, Remote):
        return [x for x in folder.files() if x not in (DONE, LAST)]
    found = (path for path in folder.rglob("*") if path.is_file())
    names = (path.relative_to(folder).as_posix() for path in found)
    return [x for x in names if x not in (DONE, LAST) and not files_lib.is_partial(x)]


def _remove(path: Place) -> None:
    if isinstance(path, Remote) or not path.is_dir():
        path.unlink(missing_ok=True)


def sweep(folder: Place) -> None:
    """Remove what writes that were killed have left in a directory; in a bucket they leave nothing.

    A write that is under way holds a lock; where a file system has no locks, an hour must pass.
    """
    if not isinstance(folder, Remote):
        files_lib.sweep(folder)


def write_atomic(path: Place, data: bytes) -> None:
    """Write a file so that it is seen whole or not at all.

    Raises:
      OSError: if a disk or a file system does not take it.
      PlaceError: if a bucket does not.
    """
    if isinstance(path, Remote):
        generation = path.write(data)
        _objects[str(path), generation] = _Stamp.of_object(data, generation)
        return
    files_lib.write(path, data)


def write_json(path: Place, content: object) -> None:
    """Write JSON atomically."""
    write_atomic(path, json.dumps(content, indent=2, sort_keys=True).encode() + b"\n")


def check_writable(workdir: Place, called: str = "workdir") -> None:
    """Make the work directory, and refuse one that cannot be written.

    Args:
      workdir: the directory.
      called: the flag that names it.

    Raises:
      InputError: if nothing can be written in it, or removed.
      PlaceError: if the store of a bucket cannot be reached.
    """
    if isinstance(workdir, Remote):
        place_lib.check_writable(workdir)
    else:
        files_lib.check_writable(workdir, called)


def hash_file(path: Place) -> str:
    """Return the SHA-256 of a file's content, 16 hexadecimal digits.

    The file is read once in a process, unless it has changed; another process reads it again, for
    a file's times and size do not prove what it holds.
    """
    if isinstance(path, Remote):
        return _stamps({path: place_lib.generations([path])[0]})[path].sha256
    found = os.stat(path)
    key = (os.path.realpath(path), found.st_dev, found.st_ino, found.st_size)
    key += (found.st_mtime_ns, found.st_ctime_ns)
    if key not in _hashes:
        settled = time.time() - max(found.st_mtime, found.st_ctime) >= SETTLED_S
        start = time.monotonic()
        with open(path, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:16]
        _read.add(found.st_size, time.monotonic() - start)
        if not settled:
            return digest
        _hashes[key] = digest
    return _hashes[key]


def _stamps(generations: Mapping[Remote, str]) -> dict[Remote, _Stamp]:
    """Return what a done-marker is to know of objects, which this process reads once at most.

    Args:
      generations: of each object.
    """
    keys = {path: (str(path), generation) for path, generation in generations.items()}
    unknown = [path for path, key in keys.items() if key not in _objects]
    start = time.monotonic()
    for path, data in zip(unknown, place_lib.contents(unknown), strict=True):
        _objects[keys[path]] = _Stamp.of_object(data, generations[path])
        _read.add(len(data), time.monotonic() - start)
        start = time.monotonic()
    return {path: _objects[key] for path, key in keys.items()}


@dataclasses.dataclass
class _Read:
    """How much this process has hashed; says so when it takes long."""

    size: int = 0
    seconds: float = 0.0
    said_at_s: float = 0.0

    def add(self, size: int, seconds: float) -> None:
        self.size += size
        self.seconds += seconds
        if self.seconds - self.said_at_s > LONG_S:
            self.said_at_s = self.seconds
            logging.info(
                "Data and weights are hashed to see what has changed: %.1f GB in %.0f s so far",
                self.size / 1e9,
                self.seconds,
            )


_hashes: dict[tuple, str] = {}
_objects: dict[tuple[str, str], _Stamp] = {}  # by name and generation
_read = _Read()


def hash_text(text: str) -> str:
    """Return the SHA-256 of a text, 16 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def versions(*names: str) -> dict[str, str]:
    """Return the versions of installed packages, of jaxalign among them."""
    return {name: importlib.metadata.version(name) for name in ("jaxalign", *names)}


def git_commit() -> str:
    """Return the commit of the package's checkout, "+changes" if it differs, "" outside one."""
    here = pathlib.Path(__file__).resolve().parent
    git = lambda *args: subprocess.run(
        ["git", "-C", str(here), *args], capture_output=True, text=True, check=False
    )
    try:
        # An installed package may lie inside somebody else's checkout.
        if git("ls-files", "--error-unmatch", __file__).returncode != 0:
            return ""
        commit = git("rev-parse", "HEAD").stdout.strip()
        changed = git("status", "--porcelain", "--untracked-files=no", "--", here).stdout.strip()
    except FileNotFoundError:
        return ""
    return commit + ("+changes" if changed else "")
