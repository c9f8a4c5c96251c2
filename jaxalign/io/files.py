"""Files of this machine, written so that they are seen whole or not at all."""

import fcntl
import os
import pathlib
import re
import tempfile
import time
import uuid

from jaxalign.errors import InputError

# What `write` calls a file until it is whole.
_PARTIAL = re.compile(r"\..+\.[0-9a-f]{32}")
# Seconds after which a write under way has its lock; and a file without locks nobody to write it.
_LOCKED_WITHIN_S, _ABANDONED_S = 5.0, 3600.0


def write(path: pathlib.Path, data: bytes) -> None:
    """Write a file so that it is seen whole or not at all.

    Raises:
      OSError: if a disk or a file system does not take it.
    """
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    # The kernel takes the umask off this mode, which no thread has to ask for by changing it.
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    try:
        with open(descriptor, "wb") as file:
            _lock(descriptor, True)  # so that nobody takes it for what a killed write has left
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise


def is_partial(name: str) -> bool:
    """Whether a file is one of ours, or of tensorstore's, that is or was being written."""
    last = name.rpartition("/")[2]
    return bool(_PARTIAL.fullmatch(last)) or last.endswith(".__lock")


def sweep(folder: pathlib.Path) -> None:
    """Remove what writes that were killed have left in a folder.

    A write that is under way holds a lock; where a file system has no locks, an hour must pass.
    """
    for path in folder.glob(".*"):
        if not _PARTIAL.fullmatch(path.name):
            continue
        try:
            age_s = time.time() - path.stat().st_mtime
            with open(path, "rb") as file:
                is_dead = age_s > _LOCKED_WITHIN_S and _lock(file.fileno(), age_s > _ABANDONED_S)
                if is_dead:
                    path.unlink()
        except OSError:  # somebody else has removed it, or may not
            continue


def _lock(descriptor: int, default: bool) -> bool:
    """Lock a file, and return whether nobody else has; `default` where there are no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return default
    return True


def check_writable(folder: pathlib.Path, called: str = "workdir") -> None:
    """Make a work directory, and refuse one that cannot be written.

    Args:
      folder: the directory.
      called: the flag that names it.

    Raises:
      InputError: if a file cannot be made in it. A directory whose write bits are all cleared is
        refused for root too, who could write it nevertheless.
    """
    remedy = f"choose another --{called} or change its permissions."
    try:
        existing = next(x for x in (folder, *folder.parents) if x.exists())
        if not existing.stat().st_mode & 0o222:
            raise InputError(f"{called} must be writable: {existing} is read-only; {remedy}")
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(f"{called} must be writable: {folder}: {reason}; {remedy}") from error
