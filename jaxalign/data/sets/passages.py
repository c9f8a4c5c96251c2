"""The embedded stimuli: 320 sentences in 32 passages, written for this project.

There are no recordings: responses to them are planted (`data/synthetic/planted.py`).
"""

import dataclasses
import pathlib

from jaxalign.data.adapter import Adapter
from jaxalign.data.schema import Stimuli

PATH = pathlib.Path(__file__).with_name("demo_passages.txt")
RUN = "session-1"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Passages(Adapter):
    """The sentences; they come with the package, so `root` plays no part."""

    root: pathlib.Path = pathlib.Path()
    name: str = "demo"
    absent = {"responses": "nobody was recorded, and the stage simulate plants some"}

    def files(self) -> list[pathlib.Path]:
        """Return the one file."""
        return [PATH]

    def stimuli(self) -> Stimuli:
        """Read the sentences; a line `# name` begins a passage."""
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
            stimulus_id=ids,
            text=texts,
            passage=passages,
            run=[RUN] * len(ids),
            unit="sentence",
            language="en",
        )
