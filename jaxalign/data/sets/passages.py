"""The embedded stimuli: 320 sentences in 32 passages, written for this project.

There are no recordings: responses to them are planted (`data/synthetic/planted.py`).
"""

import pathlib

from jaxalign.data.schema import Responses, Stimuli
from jaxalign.errors import InputError

PATH = pathlib.Path(__file__).with_name("demo_passages.txt")
RUN = "session-1"


def files(root: pathlib.Path) -> list[pathlib.Path]:
    """Return the one file; it comes with the package, so `root` plays no part."""
    del root
    return [PATH]


def stimuli(root: pathlib.Path) -> Stimuli:
    """Read the sentences; a line `# name` begins a passage."""
    del root
    ids, texts, passages = [], [], []
    for line in PATH.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            passage, number = line.removeprefix("#").strip(), 0
        elif line.strip():
            ids.append(f"{passage}.{number}")
            texts.append(line.strip())
            passages.append(passage)
            number += 1
    return Stimuli(
        stimulus_id=ids, text=texts, passage=passages, run=[RUN] * len(ids), unit="sentence"
    )


def responses(root: pathlib.Path) -> Responses:
    """Refuse: nobody was recorded."""
    del root
    raise InputError("data set demo has no recorded responses: the simulate stage plants them.")
