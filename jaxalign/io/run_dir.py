"""Artefacts of a run: where they lie, what fixes their content, and whether they are finished."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import json
import os
import pathlib
import subprocess
import tempfile
import time
import uuid
from collections.abc import Mapping

from absl import logging

from jaxalign.errors import InputError

DONE = "done.json"
# Seconds of hashing after which the log says how much was read; then again after as many.
LONG_S = 5.0
# A file that changed less than this before it was hashed may change again without another time.
SETTLED_S = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Artefact:
    """One directory that a stage makes: `<workdir>/<stage>/<fingerprint>/`.

    The fingerprint hashes all that fixes the content, so a changed setting, input file or stage
    version leads to another directory, and an unchanged one to the same. The done-marker is
    written last and repeats the fingerprint: a directory without it, or with another one, is
    unfinished.
    """

    workdir: pathlib.Path
    stage: str
    kind: str = ""  # what is in it: see `stages/artefacts.py`
    name: str  # for people: unique within a stage and a configuration
    settings: Mapping[str, object]  # plain JSON: everything that fixes the content
    inputs: tuple["Artefact", ...] = ()
    cost: str = ""  # what making it takes, for --dry_run; not part of the fingerprint
    latest_only: bool = False  # lies in `<workdir>/<stage>/` itself, and replaces the last one

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
    def path(self) -> pathlib.Path:
        """The directory."""
        folder = self.workdir / self.stage
        return folder if self.latest_only else folder / self.fingerprint

    @property
    def is_done(self) -> bool:
        """Whether the artefact is finished."""
        return self.facts().get("fingerprint") == self.fingerprint

    def start(self) -> None:
        """Make the directory, and record in it what it will hold."""
        self.path.mkdir(parents=True, exist_ok=True)
        if self.latest_only:
            for name in self.facts().get("files", ()):  # those of the artefact that is replaced
                (self.path / name).unlink(missing_ok=True)
        (self.path / DONE).unlink(missing_ok=True)
        write_json(self.path / "settings.json", self.describe())

    def finish(self, **facts: object) -> None:
        """Write the done-marker, with what was found on the way (counts, times)."""
        write_json(self.path / DONE, {"fingerprint": self.fingerprint} | facts)

    def facts(self) -> dict:
        """Read the fingerprint, and what `finish` was given; nothing if there is no marker."""
        try:
            facts = json.loads((self.path / DONE).read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return facts if isinstance(facts, dict) else {}

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


def write_atomic(path: pathlib.Path, data: bytes) -> None:
    """Write a file so that it is seen whole or not at all."""
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    # The kernel takes the umask off this mode, which no thread has to ask for by changing it.
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise


def write_json(path: pathlib.Path, content: object) -> None:
    """Write JSON atomically."""
    write_atomic(path, json.dumps(content, indent=2, sort_keys=True).encode() + b"\n")


def check_writable(workdir: pathlib.Path) -> None:
    """Make the work directory, and refuse one that cannot be written.

    Raises:
      InputError: if a file cannot be made in it. A directory whose write bits are all cleared is
        refused for root too, who could write it nevertheless.
    """
    remedy = "choose another --workdir or change its permissions."
    try:
        existing = next(x for x in (workdir, *workdir.parents) if x.exists())
        if not existing.stat().st_mode & 0o222:
            raise InputError(f"workdir must be writable: {existing} is read-only; {remedy}")
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=workdir):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"workdir must be writable: {workdir}: {reason}; {remedy}") from error


def hash_file(path: pathlib.Path) -> str:
    """Return the SHA-256 of a file's content, 16 hexadecimal digits.

    The file is read once in a process, unless it has changed; another process reads it again, for
    a file's times and size do not prove what it holds.
    """
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
