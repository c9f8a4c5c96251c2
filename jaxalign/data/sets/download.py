"""Fetching data sets that lie at a stable address, with their checksums; only when asked to."""

import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import pooch
from absl import logging as absl_logging

from jaxalign.data.sets import (
    brainscore,
    brainscore_behavior,
    natural_stories,
    natural_stories_words,
    pieman,
)
from jaxalign.errors import InputError
from jaxalign.io import run_dir

# What is put behind the name of a file, for the checksum that it arrived with.
KEPT = ".sha256"


class Source(NamedTuple):
    """One file.

    Attributes:
      path: where it goes below the data root.
      url: where it comes from.
      checksum: "sha1:..." or "sha256:...", as the publisher gives it or as it was read; "": it is
        not known. What arrives first is trusted then, and its checksum is kept beside it.
      licence: of files that may not be used for everything, which is said when they are fetched.
    """

    path: str
    url: str
    checksum: str
    licence: str = ""


def _assembly(file: str, sha1: str) -> list[Source]:
    url = f"https://brainscore-storage.s3.amazonaws.com/brainscore-language/{file}"
    return [Source(f"{brainscore.FOLDER}/{file}", url, f"sha1:{sha1}")]


def _stories(path: str, sha256: str) -> Source:
    commit = "4700daad696e942f5aba23c957a7423d0de66612"
    address = f"https://raw.githubusercontent.com/languageMIT/naturalstories/{commit}"
    inside = path.removeprefix(natural_stories.FOLDER)
    return Source(path, address + inside, f"sha256:{sha256}")


_PEREIRA = _assembly("assy_Pereira2018_language.nc", "f8434b4022f5b2c862f0ff2854d5b3f5f2a7fb96")
_BLANK = _assembly("assy_Blank2014_fROI.nc", "af1e868821b897cb1684e4c8dcd33977121ef552")
_STORIES = [
    _stories(
        natural_stories.FILE, "0e4e9bd4708aaa01d8bea342696bb83cedff679c09184545483f6f3f4ba8aca3"
    ),
    _stories(
        natural_stories.MEANS, "047d2a0b84eff99d90535d1517f7fa7d466b81fbd60e990f2f08caac04d8aa56"
    ),
    _stories(
        natural_stories.PARSES, "21e8bfa0fec0484f7fb66aa8220ef1817225cbfebe9ac11334ce916db1d12f41"
    ),
    _stories(
        natural_stories.GPT3, "6ccee02c20a688d5f7e69a023025d725e8fb06d87e2c7f997b399384c200a0ad"
    ),
    _stories(
        natural_stories_words.FILE,
        "dfe87aa455e43226eb7f79faa6e5d9926446c3d8346014dd75837f39c3f19add",
    ),
]
# Name in `datasets.DATASETS`, or of instruction data in `training.sources.PUBLISHED` -> its files.
SOURCES: dict[str, list[Source]] = {
    "blank2014": _BLANK,
    "blank2014-rows": _BLANK,
    "fedorenko2016": _assembly(
        "assy_Fedorenko2016_language.nc", "2966b6d78e972a72068aa6907377483f427e8d9a"
    ),
    "futrell2018": _assembly(brainscore_behavior.FILE, "381ccc8038fbdb31235b5f3e1d350f359b5e287f"),
    "naturalstories": _STORIES,
    "naturalstories-corrected": _STORIES,
    "pereira2018-243": _PEREIRA,
    "pereira2018-384": _PEREIRA,
    "pieman": [
        Source(
            pieman.FILE,
            "https://raw.githubusercontent.com/ContextLab/hypertools/"
            "635045a758fe4320db1af80f89df154e2eb30fc8/examples/sample_data/weights.mat",
            "sha256:b8c06fa3da0ce6d696b2a11837928760971423058b9b86bb7296a7fc35aa04f0",
        )
    ],
    "tuckute2024": _assembly(
        "assy_Tuckute2024_language.nc", "5c8fc7f3e24cc1af5f5296459377b638b6492641"
    ),
    # A commit names its content; nobody has published a checksum of the file itself.
    "alpaca/alpaca_data.json": [
        Source(
            "alpaca/alpaca_data.json",
            "https://raw.githubusercontent.com/tatsu-lab/stanford_alpaca/"
            "761dc5bfbdeeffa89b8bff5d038781a4055f796a/alpaca_data.json",
            "",
            "CC BY-NC 4.0: not for commercial use",
        )
    ],
}


def fetch(
    name: str,
    data_root: pathlib.Path | None,
    *,
    sources: Mapping[str, Sequence[Source]] = SOURCES,
) -> None:
    """Fetch the files of a data set that are not there yet.

    Args:
      name: key of `sources`.
      data_root: folder of published data; made if it is not there.
      sources: files by data set.

    Raises:
      InputError: if the data set is not among them, a file that is there has another checksum, or
        one cannot be fetched or arrives with another checksum; it is not kept then.
    """
    if name not in sources:
        raise InputError(
            f"--download knows {', '.join(sources)}, and not {name!r}: docs/datasets/ says how to "
            "obtain the others."
        )
    if data_root is None:
        raise InputError("--download needs a folder: give --data_root or set JAXALIGN_DATA.")
    pooch.get_logger().setLevel(logging.WARNING)
    for source in sources[name]:
        _fetch(source, data_root / source.path)


def _fetch(source: Source, path: pathlib.Path) -> None:
    """Fetch one file, unless it is there; what is there must have its checksum.

    Raises:
      InputError: see `fetch`.
    """
    kept = path.with_name(path.name + KEPT)
    known = source.checksum
    if not known and kept.is_file():
        known = "sha256:" + (kept.read_text(encoding="utf-8").split() or [""])[0]
    kind, _, digest = known.partition(":")
    if path.is_file():
        # pooch would put its own in the place of a file of another content.
        if known and (found := pooch.file_hash(str(path), alg=kind)) != digest:
            whose = "as published" if source.checksum else f"as {kept} says"
            raise InputError(
                f"{path} must have {known} {whose}, found {found}: move it away, or run without "
                "--download."
            )
        if not known:
            absl_logging.warning("%s is there already, and no checksum of it is known", path)
        return
    said = f", {source.licence}" if source.licence else ""
    absl_logging.info("Fetching %s to %s%s", source.url, path, said)
    try:
        pooch.retrieve(source.url, known or None, fname=path.name, path=path.parent)
    except (OSError, ValueError) as error:  # the first: no network, no space; the second: hash
        raise InputError(
            f"{source.url} must be fetched to {path}{f' with {known}' if known else ''}: "
            f"{' '.join(str(error).split())}"
        ) from error
    if not known:
        found = pooch.file_hash(str(path), alg="sha256")
        run_dir.write_atomic(kept, f"{found}  {path.name}\n".encode())
        absl_logging.warning(
            "No checksum of %s is published: sha256 %s of what arrived is kept in %s, and holds "
            "from now on.",
            source.url,
            found,
            kept,
        )
