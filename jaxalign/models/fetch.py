"""Bring models of the Hugging Face hub to its local cache, where they are found by name.

  python -m jaxalign.models.fetch NAME... [--revision=REVISION]

NAME is a model of the table, or a repository (`organisation/name`) whose `config.json` is of a
family that is read, which is looked at before any weights are fetched. Of a repository come its
configuration, the files of its tokenizer or processor, and the weights once: safetensors, or where
there are none PyTorch's .bin files, which have to be converted. The commit is found out first, and
everything is of that one; it is printed, and --revision asks for a branch, a tag or a commit.

Files that are whole are kept and not fetched again. Where a connection breaks, the file at hand
goes on where it was; where the program is killed, it begins anew. HF_HOME says where the cache
lies, HF_TOKEN who asks, HF_ENDPOINT whom.

The exit code is 2 where the hub refuses (no such repository, terms to accept) or the disk is too
small, and 75 where it does not answer, so that the same command may succeed later.
"""

import argparse
import contextlib
import dataclasses
import fnmatch
import hashlib
import pathlib
import shutil
import sys
from collections.abc import Callable, Collection, Iterator

import huggingface_hub
from huggingface_hub import constants, errors

from jaxalign import command_line
from jaxalign.errors import InputError, PlaceError, one_line
from jaxalign.io import checkpoint
from jaxalign.models import directories, formats, labels, table, zoo

INDEX, BIN_INDEX = "model.safetensors.index.json", "pytorch_model.bin.index.json"
# Weights in the order in which they are preferred: the whole, or the index of its parts.
WEIGHTS = ("model.safetensors", INDEX, "pytorch_model.bin", BIN_INDEX)
_SPARE = 100 * 2**20  # bytes of the disk that are left free


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """What is to be fetched.

    Attributes:
      name: of the model.
      repository: that holds it.
      revision: branch, tag or commit.
    """

    name: str
    repository: str
    revision: str

    def __str__(self) -> str:
        return f"model {self.name} ({self.repository}, revision {self.revision})"


def source(name: str, revision: str = "") -> Source:
    """Find where a model was published.

    Args:
      name: of the table, what the hub calls one of these, or any repository of the hub.
      revision: branch, tag or commit; "": that of the table, or main.

    Raises:
      InputError: if it does not lie on the hub, or can be no repository.
    """
    known = name if name in table.MODELS else table.by_hub_name().get(name, "")
    if known:
        row = table.MODELS[known]
        if not formats.is_of_the_hub(row):
            where = row.package and f"with the Python package {row.package}"
            where = where or (row.data and f"in the data folder, as {row.data}")
            raise InputError(
                f"model {known} cannot be fetched: it comes {where or 'from ' + row.repository}."
            )
        return Source(
            name=known, repository=row.repository, revision=revision or row.revision or "main"
        )
    if name.count("/") != 1 or labels.split(name)[0] or pathlib.Path(name).exists():
        close = ", ".join(table.close_to(name))
        raise InputError(
            "NAME must be a model of jaxalign/models/table.py or a repository of the hub "
            f"(organisation/name), found {name!r}" + (f"; close to it: {close}." if close else ".")
        )
    return Source(name=name, repository=name, revision=revision or "main")


def fetch(wanted: Source, *, tell: Callable[[str], object]) -> pathlib.Path:
    """Bring a model to the cache; what is there already is not fetched again.

    Args:
      wanted: from `source`.
      tell: is given a line at a time of what is done.

    Returns:
      The folder of the commit.

    Raises:
      InputError: if the hub has no such thing or does not hand it out, it is of no family that is
        read, it does not fit on the disk, or a file is not what the hub says it is.
      PlaceError: if the hub does not answer.
    """
    with _asking(wanted):
        found = huggingface_hub.HfApi().model_info(
            wanted.repository, revision=wanted.revision, files_metadata=True
        )
    commit = str(found.sha)
    sizes = {x.rfilename: x.size or 0 for x in found.siblings or ()}
    sums = {x.rfilename: x.lfs.sha256 for x in found.siblings or () if x.lfs}
    tell(f"{wanted.name}: {wanted.repository} at {commit} ({wanted.revision})")
    get = lambda file: _file(wanted, commit, file, sums.get(file, ""))
    if directories.CONFIG not in sizes:
        raise InputError(f"{wanted} has no {directories.CONFIG}, so that no family is known.")
    folder = get(directories.CONFIG).parent
    _check_family(wanted, folder)
    weights = _weights(wanted, sizes)
    if weights.endswith(".index.json"):
        parts = [path.name for path in checkpoint.shards(get(weights))]
        if lost := [x for x in parts if x not in sizes]:
            raise InputError(f"{wanted}: {weights} names {lost[0]}, which the repository lacks.")
    else:
        parts = []
    files = [*beside(sizes), weights, *parts]
    missing = [x for x in files if not (folder / x).is_file()]
    _check_space(wanted, sum(sizes[x] for x in missing))
    tell(f"{len(files)} files, {len(missing)} to fetch, {_size(sum(sizes[x] for x in missing))}")
    for file in missing:
        get(file)
    _name_revision(wanted, commit)
    for line in _what_next(wanted, folder, weights):
        tell(line)
    return folder


def beside(files: Collection[str]) -> list[str]:
    """Return what of a repository's files stands beside the weights, and is needed."""
    every = [x for x in sorted(files) if "/" not in x]
    matches = lambda file, patterns: any(fnmatch.fnmatch(file, p) for p in patterns)
    return [
        x
        for x in every
        if matches(x, directories.COPIED) and not matches(x, directories.NOT_COPIED)
    ]


def _weights(wanted: Source, files: Collection[str]) -> str:
    """Return the weights that are fetched: one file, or the index of several."""
    if best := next((x for x in WEIGHTS if x in files), ""):
        return best
    others = (".safetensors", ".gguf", ".h5", ".msgpack", ".bin", ".pth", ".onnx")
    found = sorted(x for x in files if x.endswith(others))
    raise InputError(
        f"{wanted} must hold {' or '.join(WEIGHTS)}, found {', '.join(found[:4]) or 'no weights'}."
    )


def _check_family(wanted: Source, folder: pathlib.Path) -> None:
    """Refuse a network that is not read, before its weights are fetched."""
    hf = zoo.read_config(folder)
    zoo.configure(hf, source=f"{wanted.repository}/{directories.CONFIG}")
    formats.refuse_quantised(folder, hf)


def _check_space(wanted: Source, needed: int) -> None:
    cache = pathlib.Path(constants.HF_HUB_CACHE).expanduser()
    there = next(x for x in (cache, *cache.absolute().parents) if x.is_dir())
    free = shutil.disk_usage(there).free
    if needed and needed + _SPARE > free:
        raise InputError(
            f"{wanted} takes {_size(needed)} more, but of the disk with {cache} only "
            f"{_size(free)} are free: make room, or let HF_HOME name a folder on a larger disk."
        )


def _file(wanted: Source, commit: str, file: str, sha256: str) -> pathlib.Path:
    """Fetch a file of a commit, and hold its content against the hub's checksum."""
    cached = huggingface_hub.try_to_load_from_cache(wanted.repository, file, revision=commit)
    if isinstance(cached, str):
        return pathlib.Path(cached)
    with _asking(wanted):
        path = huggingface_hub.hf_hub_download(wanted.repository, file, revision=commit)
    found = pathlib.Path(path)
    if sha256:
        with found.open("rb") as opened:
            digest = hashlib.file_digest(opened, "sha256").hexdigest()
        if digest != sha256:
            found.resolve().unlink()
            found.unlink(missing_ok=True)
            raise InputError(
                f"{wanted}: {file} arrived damaged (SHA-256 {digest}, expected {sha256}) and was "
                "removed: run the same command again."
            )
    return found


def _name_revision(wanted: Source, commit: str) -> None:
    """Let the cache find the commit under the name of its branch, now that it is whole."""
    if wanted.revision == commit:
        return
    with _asking(wanted):
        path = huggingface_hub.hf_hub_download(
            wanted.repository, directories.CONFIG, revision=wanted.revision
        )
    if (found := pathlib.Path(path).parent.name) != commit:
        raise InputError(
            f"{wanted} has changed while it was fetched ({commit[:12]} is now {found[:12]}): run "
            "the same command again."
        )


def _what_next(wanted: Source, folder: pathlib.Path, weights: str) -> Iterator[str]:
    delta = table.MODELS[wanted.name].delta_of if wanted.name in table.MODELS else ""
    if delta:
        yield f"a difference from {delta}: {formats.CONVERT} {folder} TARGET --delta BASE adds them"
    elif weights not in (WEIGHTS[0], INDEX):
        yield f"PyTorch's files: {formats.CONVERT} {folder} TARGET makes safetensors of them"
    else:
        model = zoo.from_directory(wanted.name, folder)
        yield f"{model.model_type}, {model.num_parameters:,} parameters, {_how(wanted)}"
    yield str(folder)


def _how(wanted: Source) -> str:
    """Say under which name the model is read."""
    usual = table.MODELS[wanted.name].revision if wanted.name in table.MODELS else "main"
    if wanted.revision == usual:
        return f"read as {wanted.name}"
    return f"read as LABEL=FOLDER, for {wanted.name} is revision {usual}"


@contextlib.contextmanager
def _asking(wanted: Source) -> Iterator[None]:
    """Say in one line why the hub hands something out not."""
    hub = constants.ENDPOINT
    kept = "what has arrived is kept, and the same command goes on"
    try:
        yield
    except errors.GatedRepoError as error:
        raise InputError(
            f"{wanted} is gated: accept its terms at {hub}/{wanted.repository}, and name a token "
            "of that account (`hf auth login`, or HF_TOKEN)."
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(
            f"{wanted}: {hub}/{wanted.repository} has no such branch, tag or commit."
        ) from error
    except errors.RepositoryNotFoundError as error:
        close = ", ".join(table.close_to(wanted.name))
        raise InputError(
            f"{wanted} is not at {hub}, or is private and HF_TOKEN does not open it"
            + (f"; close to it: {close}." if close and wanted.name not in table.MODELS else ".")
        ) from error
    except errors.OfflineModeIsEnabled as error:
        raise InputError(
            f"{wanted} cannot be fetched: HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE forbids it."
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        if status < 500 and status != 429:
            raise InputError(f"{wanted}: {hub} refuses: {one_line(error)}.") from error
        raise PlaceError(f"{hub} answers {status}: {kept}", is_lost=True) from error
    except (errors.LocalEntryNotFoundError, errors.HTTPError) as error:
        cause = error.__cause__ or error
        if isinstance(cause, errors.OfflineModeIsEnabled):
            raise InputError(f"{wanted} cannot be fetched: HF_HUB_OFFLINE forbids it.") from error
        raise PlaceError(
            f"{hub} does not answer ({type(cause).__name__}: {one_line(cause)}): {kept}",
            is_lost=True,
        ) from error


def _size(number: int) -> str:
    return f"{number / 1e9:.2f} GB" if number >= 1e8 else f"{number / 1e6:.2f} MB"


def main(argv: list[str]) -> None:
    """Read the command line, and fetch one model after the other."""
    parser = argparse.ArgumentParser(
        prog=formats.FETCH, description=(__doc__ or "").strip().partition("\n")[0]
    )
    parser.add_argument("names", nargs="+", metavar="NAME", help="of the table, or a repository")
    parser.add_argument(
        "--revision", default="", help="branch, tag or commit (default: the table's, or main)"
    )
    given = parser.parse_args(argv)
    # All names are understood before the first is fetched.
    for wanted in [source(name, given.revision) for name in given.names]:
        fetch(wanted, tell=lambda line: sys.stdout.write(f"{line}\n"))


if __name__ == "__main__":
    with command_line.ends_in_one_line(
        kept="files that are whole are kept; the same command goes on"
    ):
        main(sys.argv[1:])
