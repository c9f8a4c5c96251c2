"""Artefacts of a run: where they lie, what fixes their content, and whether they are finished."""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import pathlib
import subprocess
import tempfile
from collections.abc import Mapping

from jaxalign.errors import InputError

DONE = "done.json"


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
    name: str  # for people: unique within a stage and a configuration
    settings: Mapping[str, object]  # plain JSON: everything that fixes the content
    inputs: tuple["Artefact", ...] = ()
    cost: str = ""  # what making it takes, for --dry_run; not part of the fingerprint
    latest_only: bool = False  # lies in `<workdir>/<stage>/` itself, and replaces the last one

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits."""
        content = {
            "stage": self.stage,
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
            "name": self.name,
            "fingerprint": self.fingerprint,
            "settings": dict(self.settings),
            "inputs": [x.describe() for x in self.inputs],
        }


def write_atomic(path: pathlib.Path, data: bytes) -> None:
    """Write a file so that it is seen whole or not at all."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as f:
        try:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
            os.chmod(f.name, 0o666 & ~_umask())
            os.replace(f.name, path)
        except BaseException:
            os.unlink(f.name)
            raise


def write_json(path: pathlib.Path, content: object) -> None:
    """Write JSON atomically."""
    write_atomic(path, json.dumps(content, indent=2, sort_keys=True).encode() + b"\n")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


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
    """Return the SHA-256 of a file's content, 16 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


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
