"""What a model is called in all that is written: a label, or what tells its files from others."""

import pathlib
import re


def split(given: str) -> tuple[str, str]:
    """Return label and place of `LABEL=PLACE`; the label is empty where there is none.

    What is there under the whole name has no label.
    """
    label, _, place = given.partition("=")
    if not label or not place or pathlib.Path(given).exists():
        return "", given
    return label, place


def of_folder(path: pathlib.Path) -> str:
    """Return what a model in a folder is called without a label.

    The hub's cache calls a folder by a hash, in that of its repository; trainers call theirs
    checkpoint-500, in that of the run.
    """
    path = path.resolve()
    repository = path.parent.parent.name
    if path.parent.name == "snapshots" and repository.startswith("models--"):
        return repository.removeprefix("models--").replace("--", "/")
    if re.fullmatch(r"checkpoint-\d+", path.name):
        return f"{path.parent.name}/{path.name}"
    return path.name
